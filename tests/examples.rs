//! Every example that tells a story tells the story that lies beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// The example, built as these tests were. Plain `cargo test` has built it; `cargo test --test
/// examples` has not.
fn program(name: &str) -> PathBuf {
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
fn told(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compares what an example prints with the file beside it, on every placement.
fn check(name: &str, arguments: &[&str]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.out"));
    let golden = std::fs::read_to_string(golden).unwrap();
    for placement in ["inline", "processes"] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--placement", placement]);
        assert_eq!(told(name, &arguments), golden, "{name} {arguments:?}");
    }
}

#[test]
fn chain_signing() {
    check("chain_signing", &[]);
}

#[test]
fn chain_signing_is_the_same_in_any_number_of_schedulers() {
    let hops = |schedulers: &str, placement: &str| {
        let arguments = ["--agents", "40", "--schedulers", schedulers, "--seed", "7"];
        let story = told(
            "chain_signing",
            &[&arguments[..], &["--placement", placement]].concat(),
        );
        let hops = story
            .lines()
            .filter(|line| line.starts_with("hop") || line.starts_with("contract"));
        hops.map(str::to_owned).collect::<Vec<_>>()
    };
    let one = hops("1", "inline");
    assert!(one.len() > 40, "{one:?}");
    for schedulers in ["2", "3", "8", "16"] {
        for placement in ["inline", "processes"] {
            assert_eq!(hops(schedulers, placement), one, "{schedulers} {placement}");
        }
    }
}

#[test]
fn every_example_explains_itself() {
    for name in ["chain_signing", "scenario", "bench_kernel"] {
        let help = told(name, &["--help"]);
        assert!(help.contains("Usage:"), "{name}: {help}");
    }
}
