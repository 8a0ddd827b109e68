//! Long runs show a terminal how far they have come.

use maslite_testkit::interruptible::interruptible;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::program;

/// A simulation that goes on until it is interrupted.
fn endless(arguments: &[&str]) -> Command {
    let mut command = interruptible(program("phold"));
    command.args(["--agents", "100", "--end", "1000000000"]);
    command.args(arguments).stdout(Stdio::null());
    command
}

fn interrupt(mut child: Child) {
    let pid = i32::try_from(child.id()).unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn long_runs_tell_a_terminal_how_far_they_have_come() {
    for placement in [&["--clusters", "2"][..], &["--placement", "inline"]] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let name = name.into_string().unwrap();
        let their_end = File::options().write(true).open(name).unwrap();
        let child = endless(placement).stderr(their_end).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(File::from(terminal))
            .read_line(&mut line)
            .unwrap();
        for part in [" s of ", " s simulated (", " events/s"] {
            assert!(line.contains(part), "{line:?}");
        }
        // It moves, also where a cluster runs alone and main hears nothing of it.
        assert!(!line.starts_with("0 s"), "{line:?}");
        assert!(!line.contains("; 0 events/s"), "{line:?}");
        interrupt(child);
    }
}

#[test]
fn long_runs_tell_nothing_where_there_is_no_terminal() {
    let mut child = endless(&[]).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    // A line would be there by now.
    let mut ready = [PollFd::new(&stderr, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 4,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut ready, Some(&limit)).unwrap(), 0);
    interrupt(child);
}
