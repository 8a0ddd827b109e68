//! Every example that tells a story tells the story that lies beside it: a file for each kind of
//! example.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

mod benchmarks;
mod chain_signing;
mod chaos;
mod conveyors;
mod progress;
mod scenarios;
mod stories;

/// The example, built as these tests were. Plain `cargo test` has built it; `cargo test --test
/// examples` has not.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    // target/debug/deps/examples-… → target/debug
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(Path::parent).unwrap();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet", "--examples"]);
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    });
    target.join("examples").join(name)
}

/// What an example prints.
pub(crate) fn told(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(arguments)
        .output()
        .unwrap();
    let [story, errors] =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(
        output.status.success(),
        "{name} {arguments:?}:\n{story}{errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Compares what an example prints with the file beside it, in clusters.
pub(crate) fn check(name: &str, arguments: &[&str]) {
    check_on(&["inline", "processes"], name, arguments);
}

/// Where the stories run that can do without clusters, too.
pub(crate) const EVERYWHERE: [&str; 3] = ["single", "inline", "processes"];

pub(crate) fn check_on(placements: &[&str], name: &str, arguments: &[&str]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.out"));
    let golden = std::fs::read_to_string(golden).unwrap();
    for placement in placements {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--placement", placement]);
        assert_eq!(told(name, &arguments), golden, "{name} {arguments:?}");
    }
}

/// Where the clusters of an example can run, and with which links.
pub(crate) const LINKED: [&[&str]; 4] = [
    &["--placement", "inline"],
    &["--placement", "processes"],
    &["--placement", "inline", "--jitter", "7"],
    &["--placement", "processes", "--jitter", "7"],
];

/// What is written of a run beside how long it took: events, digest, mail that crossed.
pub(crate) fn counted(name: &str, arguments: &[&str]) -> (u64, String, u64) {
    let object = told(name, &[arguments, &["--json"]].concat());
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    for number in [
        "sim_s",
        "wall_s",
        "ratio",
        "events",
        "events_per_s",
        "supersteps",
        "routed",
    ] {
        assert!(object[number].is_number(), "{name}: {number} in {object}");
    }
    let digest = object["digest"].as_str().unwrap();
    assert_eq!(digest.len(), 16, "{name}: {digest}");
    let count = |what: &str| object[what].as_u64().unwrap();
    (count("events"), digest.to_owned(), count("routed"))
}

/// A number in an object that an example prints.
pub(crate) fn number(told: &serde_json::Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("{told}"))
}

#[test]
fn conveyors() {
    check("conveyors", &[]);
}

#[test]
fn process_commands() {
    check("process_commands", &[]);
}

#[test]
fn remote_control() {
    check("remote_control", &[]);
}

#[test]
fn every_example_explains_itself() {
    for name in [
        "chain_signing",
        "scenario",
        "bench_kernel",
        "bench_links",
        "chaos",
        "conveyors",
        "phold",
        "process_commands",
        "remote_control",
        "soak",
        "wall_vs_sim",
        "auction",
        "production_line",
        "epidemic",
        "what_if",
    ] {
        let help = told(name, &["--help"]);
        assert!(help.contains("Usage:"), "{name}: {help}");
    }
}
