//! The children of these tests are this test program, started for one of the ignored "tests" named
//! `…_entry`.

use super::child_side::{MainWatch, obey, take_stdin};
use super::entry::{Point, Signature};
use super::handshake::{Hello, Invitation, NextOffer, Word};
use super::main_side::MainSide;
use super::program::own_executable;
use super::*;
use crate::error::death::ExitKind;
use crate::error::link::LinkError;
use crate::error::warning::Activity;
use crate::links::kinds::numbered;
use crate::links::transport::{Wait, now};
use crate::processes::limits::DESCRIPTORS_PER_CHILD;
use crate::processes::logs::Log;
use crate::processes::output::Output;
use crate::processes::supervision::{Answer, EndKind, Failure, Supervisor};
use crate::settings::Link;
use crate::stall::detector::{ClusterActivity, ProbeAnswer};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions,
    kill_process, pidfd_getfd, pidfd_open, setrlimit,
};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio, abort, exit, id};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

mod deaths;
mod handshake;
mod left_behind;
mod limits;
mod links;
mod output;

/// The entry of all children here, with a registry of this kind.
fn point(kind: u64) -> Point {
    let mut signature = Signature::default();
    signature.add("agent type Echo".to_owned(), kind);
    Point {
        place: "tests.rs:1:1".to_owned(),
        call: 1,
        signature,
    }
}

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(20);

fn plan(entry: &str, clusters: u32) -> StartPlan {
    StartPlan {
        program: Program::test_entry(&format!("processes::spawn::tests::{entry}")),
        clusters: (1..=clusters)
            .map(|number| (number, format!("c{number}")))
            .collect(),
        point: point(7).into(),
        deadline: LONG,
        wait: Wait::default(),
        carrier: Link::Auto,
        // So that a test that waits for the end of main's stderr waits for the children, too.
        output: Output::Inherit,
        log: Log::here(),
    }
}

fn supervisor() -> Supervisor {
    Supervisor::new(LONG).expect("a thread can be had")
}

fn started(entry: &str, clusters: u32) -> (Supervisor, Vec<MainSide>) {
    let supervisor = supervisor();
    let sides = start(&supervisor, plan(entry, clusters)).expect("the children start");
    (supervisor, sides)
}

fn refused(entry: &str, clusters: u32) -> SpawnError {
    refused_over(Link::Auto, entry, clusters)
}

fn refused_over(carrier: Link, entry: &str, clusters: u32) -> SpawnError {
    let supervisor = supervisor();
    let mut plan = plan(entry, clusters);
    plan.carrier = carrier;
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(supervisor.pids().is_empty(), "none is left");
    error
}

fn asked(side: &mut MainSide, question: &[u8]) -> Result<Vec<u8>, LinkError> {
    let mut answer = Vec::new();
    side.link.say(question)?;
    side.link.hear(&mut answer)?;
    Ok(answer)
}

fn child() -> ChildSide {
    match arrive(&point(7), Wait::default()) {
        Arrival::Child(side) => side,
        Arrival::Failed(error) => panic!("{error}"),
        Arrival::Main | Arrival::Passing => panic!("this is a child process, and means this"),
    }
}

/// Starts a program that outlives this process unless it is ended, and holds main's stderr as well.
fn start_program() -> u32 {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
    sleep.spawn().expect("there is one").id()
}

/// Starts a child of this child. It inherits the marker, and must not take itself for a child of
/// ours.
fn grandchild_is_no_child() -> bool {
    let entry = "processes::spawn::tests::is_child_entry";
    let mut command = own_executable().expect("this program is known");
    let output = command.args([entry, "--exact", "--ignored"]).output();
    output.expect("it runs").status.success()
}

#[test]
#[ignore = "entry of child processes"]
fn echo_entry() {
    let mut child = child();
    let mut message = Vec::new();
    while child.link.hear(&mut message).is_ok() {
        let answer = match &*message {
            b"stop" => exit(0),
            b"exit 7" => exit(7),
            b"abort" => abort(),
            b"cluster" => child.cluster.to_le_bytes().to_vec(),
            // Spins until told: what an agent in a long grant does.
            b"interrupt" => loop {
                let interrupts = child.interrupts.load(Ordering::SeqCst);
                if interrupts != 0 {
                    break interrupts.to_le_bytes().to_vec();
                }
                std::hint::spin_loop();
            },
            b"endless" => loop {
                if child.link.say(&vec![0; 10_000_000]).is_err() {
                    exit(0);
                }
            },
            b"deaf" => loop {
                thread::park();
            },
            b"program" => {
                child.settle();
                start_program().to_le_bytes().to_vec()
            }
            b"half" => {
                let mut draft = child.link.draft().expect("main is there");
                draft.extend(&[7; 1000]);
                abort()
            }
            b"stdin" => {
                let mut bytes = Vec::new();
                io::stdin()
                    .read_to_end(&mut bytes)
                    .expect("it is /dev/null");
                bytes
            }
            b"grandchild" => vec![u8::from(grandchild_is_no_child())],
            other => other.to_vec(),
        };
        if child.link.say(&answer).is_err() {
            break;
        }
    }
    // As a cluster does.
    child.end_with_main();
    exit(0);
}

#[test]
#[ignore = "entry of a grandchild"]
fn is_child_entry() {
    assert!(env::var_os(MARKER).is_some());
    assert!(!is_child());
    assert!(matches!(arrive(&point(7), Wait::default()), Arrival::Main));
}

/// Waits until a child of ours is stopped: its parent is told when all its threads stand.
fn await_stop(pid: u32) {
    let stands = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid_of(pid)), stands).expect("a child of ours");
}

/// Kills cluster 2 of 2 while main waits for an answer from cluster `waiting_on` to `question`.
fn kill_during(question: &[u8], waiting_on: usize) {
    let (mut supervisor, mut sides) = started("echo_entry", 2);
    let victim = sides[1].pid;
    let side = &mut sides[waiting_on];
    side.link.say(question).expect("alive");
    kill(victim);
    let mut message = Vec::new();
    let error = loop {
        if let Err(error) = side.link.hear(&mut message) {
            break error;
        }
    };
    assert!(matches!(error, LinkError::Disconnected), "{error:?}");
    let Some(Failure::Died {
        cluster,
        name,
        pid,
        exit,
        ..
    }) = supervisor.first_death(Duration::from_secs(1))
    else {
        panic!("no reason is known");
    };
    assert_eq!((cluster, &*name, pid), (2, "c2", victim));
    assert_eq!(exit, ExitKind::Signal(9));
    let ends = supervisor.wait_all(LONG);
    assert_eq!(ends[0].how, EndKind::Killed);
    assert_eq!(ends[1].how, EndKind::Failed(ExitKind::Signal(9)));
}

fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    kill_process(pid_of(pid), signal).expect("it is alive");
}

fn pid_of(pid: u32) -> Pid {
    let pid = i32::try_from(pid).expect("a process id");
    Pid::from_raw(pid).expect("not zero")
}

/// Starts echoing children over a carrier.
fn started_over(carrier: Link, clusters: u32) -> (Supervisor, Vec<MainSide>) {
    let supervisor = supervisor();
    let mut plan = plan("echo_entry", clusters);
    plan.carrier = carrier;
    let sides = start(&supervisor, plan).expect("the children start");
    (supervisor, sides)
}

const CARRIERS: [Link; 2] = [Link::Ring, Link::Channel];

/// Says a Hello with something changed in it.
fn introduce(change: impl FnOnce(&mut Hello)) -> (UnixStream, Invitation) {
    let stdin = take_stdin().expect("there is one");
    let (invitation, _) = Invitation::read(&stdin).expect("it was written");
    let mut hello = Hello::new(&invitation, invitation.schema, None);
    change(&mut hello);
    Word::Hello(hello).write(&stdin).expect("main is there");
    (stdin, invitation)
}

/// Runs another entry in a process of its own, with its own directory for temporary files, and
/// waits for it and for all that hold its standard error. Returns what is left in that directory,
/// too.
fn run_alone(entry: &str) -> (ExitStatus, String, usize) {
    let temp = env::temp_dir().join(format!("maslite-{}-{entry}", id()));
    fs::create_dir(&temp).expect("it is new");
    let output = own_executable()
        .and_then(|mut command| {
            command
                .args([
                    &*format!("processes::spawn::tests::{entry}"),
                    "--exact",
                    "--ignored",
                ])
                .args(["--nocapture", "--test-threads=1"])
                .env("TMPDIR", &temp)
                .output()
        })
        .expect("it runs");
    let left = entries(&temp);
    fs::remove_dir_all(&temp).expect("it is there");
    (
        output.status,
        String::from_utf8_lossy(&output.stderr).into_owned(),
        left,
    )
}

fn entries(directory: impl AsRef<Path>) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}
