//! `chain_signing`: its story, and how Ctrl-C ends it.

use maslite_testkit::interruptible::interruptible;
use rustix::process::{Pid, Signal};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::{check, program, told};

#[test]
fn chain_signing() {
    check("chain_signing", &[]);
}

#[test]
fn the_readme_shows_what_chain_signing_prints() {
    let golden = include_str!("../../examples/chain_signing.out");
    let shown = format!("```text\n{golden}```\n");
    assert!(include_str!("../../README.md").contains(&shown), "{shown}");
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

/// A contract that goes around for long, with Ctrl-C as a terminal's programs have it, also those
/// that `nohup` starts.
fn long_chain_signing() -> Child {
    let arguments = ["--agents", "3000", "--schedulers", "2"];
    let mut command = interruptible("nohup");
    command.arg(program("chain_signing")).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn send_sigint(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn ctrl_c_ends_the_run_of_chain_signing_and_a_second_one_the_program() {
    let mut child = long_chain_signing();
    let mut story = BufReader::new(child.stdout.take().unwrap());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("hop 0") {
        line.clear();
        assert_ne!(story.read_line(&mut line).unwrap(), 0, "no hop");
    }
    // The story is not read from here on, so the run waits at a full pipe and cannot end.
    send_sigint(&child);
    line.clear();
    errors.read_line(&mut line).unwrap();
    assert_eq!(line, "stopping the run; Ctrl-C again ends the program\n");
    send_sigint(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let mut child = long_chain_signing();
    let mut story = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    story.read_line(&mut told).unwrap();
    while !told.contains("hop 0") {
        assert_ne!(story.read_line(&mut told).unwrap(), 0, "no hop");
    }
    send_sigint(&child);
    story.read_to_string(&mut told).unwrap();
    let mut why = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut why).unwrap();
    assert!(told.ends_with("stopping\nscheduler 2 stopped\nscheduler 1 stopped\nall stopped\n"));
    assert_eq!(
        why,
        "stopping the run; Ctrl-C again ends the program\nno contract: the run ended by interrupted\n"
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
