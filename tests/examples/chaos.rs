//! `chaos`: every fault comes to the right end.

use std::process::Command;

use crate::{program, told};

/// Every fault comes to the right end a few times, and nothing is left. How long that takes is for
/// those who measure.
#[test]
fn chaos_comes_to_the_right_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    chaos_is_right("2", "3");
    let unknown = Command::new(program("chaos"))
        .args(["--fault", "of mine"])
        .output();
    assert!(!unknown.unwrap().status.success());
}

#[test]
fn chaos_in_one_cluster_comes_to_the_right_ends() {
    if cfg!(target_os = "linux") {
        chaos_is_right("1", "1");
    }
}

fn chaos_is_right(rounds: &str, clusters: &str) {
    let listed = told("chaos", &["--list"]);
    let listed: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let lines = told(
        "chaos",
        &["--rounds", rounds, "--clusters", clusters, "--json"],
    );
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let tried: Vec<_> = lines
        .iter()
        .map(|line| line["fault"].as_str().unwrap())
        .collect();
    assert_eq!(tried, listed);
    for line in &lines {
        let [wanted, right] = ["rounds", "right"].map(|count| line[count].to_string());
        assert_eq!([&*wanted, &*right], [rounds; 2], "{line}");
        assert!(
            line["p50_ms"].is_number() && line["p99_ms"].is_number(),
            "{line}"
        );
        assert!(line["max_ms"].is_number(), "{line}");
        for left in ["left_processes", "left_fds", "left_files"] {
            assert!(line[left] == 0, "{left} in {line}");
        }
    }
}
