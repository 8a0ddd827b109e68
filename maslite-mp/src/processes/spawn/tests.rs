//! The children of these tests are this test program, started for one of the ignored "tests" named `…_entry`.

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

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions,
    kill_process, pidfd_getfd, pidfd_open, setrlimit,
};

use super::child_side::{MainWatch, obey, take_stdin};
use super::entry::{Point, Signature};
use super::handshake::{ConnectRequest, Hello, Invitation, Word};
use super::main_side::MainSide;
use super::program::own_executable;
use super::*;
use crate::error::death::ExitKind;
use crate::error::link::LinkError;
use crate::error::warning::Activity;
use crate::links::frame::Framed;
use crate::links::ipc;
use crate::links::transport::{Transport, Wait, now};
use crate::processes::limits;
use crate::processes::logs::Log;
use crate::processes::output::Output;
use crate::processes::supervision::{Answer, EndKind, Failure, Supervisor};
use crate::settings::Link;
use crate::stall::detector::{ClusterActivity, ProbeAnswer};

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
        // So that whoever waits for the end of main's stderr waits for the children, too.
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

/// Starts a program that outlives this process if nobody ends it, and holds main's stderr as well.
fn start_program() -> u32 {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null());
    sleep.spawn().expect("there is one").id()
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
            b"interrupt" => {
                while child.interrupts.load(Ordering::SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                child
                    .interrupts
                    .load(Ordering::SeqCst)
                    .to_le_bytes()
                    .to_vec()
            }
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
            b"grandchild" => {
                // It inherits the marker, and must not take itself for a child of ours.
                let output = own_executable()
                    .and_then(|mut command| {
                        command
                            .args([
                                "processes::spawn::tests::is_child_entry",
                                "--exact",
                                "--ignored",
                            ])
                            .output()
                    })
                    .expect("it runs");
                vec![u8::from(output.status.success())]
            }
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

#[test]
fn messages_of_all_sizes_come_back() {
    let (mut supervisor, mut sides) = started("echo_entry", 2);
    for (side, number) in sides.iter_mut().zip(1_u32..) {
        assert_eq!(side.cluster, number);
        assert_eq!(
            asked(side, b"cluster").expect("alive"),
            number.to_le_bytes()
        );
        for length in [0, 1, 1000, 65_536, 250_000, 20_000_000] {
            let message = vec![7; length];
            assert!(
                asked(side, &message).expect("alive") == message,
                "{length} bytes"
            );
        }
    }
    supervisor.expect_exits();
    for side in &mut sides {
        side.link.say(b"stop").expect("alive");
    }
    assert!(
        supervisor
            .wait_all(LONG)
            .iter()
            .all(|end| end.how == EndKind::Clean)
    );
}

#[test]
fn a_ring_that_cannot_be_is_replaced_or_an_error() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for (carrier, expected) in [(Link::Auto, Some(Link::Channel)), (Link::Ring, None)] {
        let supervisor = supervisor();
        let mut plan = plan("no_ring_entry", 2);
        plan.carrier = carrier;
        match (start(&supervisor, plan), expected) {
            (Ok(mut sides), Some(expected)) => {
                assert!(sides.iter().all(|side| side.carrier == expected));
                assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
            }
            (Err(error), None) => {
                assert!(matches!(error, SpawnError::NoRing { .. }));
                assert!(supervisor.pids().is_empty());
            }
            (started, _) => panic!("{carrier:?}: {:?}", started.err()),
        }
    }
}

#[test]
#[ignore = "entry of a child that cannot map memory"]
fn no_ring_entry() {
    let (stdin, invitation) = introduce(|hello| hello.no_ring = Some("no room".to_owned()));
    let socket = ConnectRequest::read(&stdin).expect("main wants channels");
    let socket = socket.expect("it comes with it");
    let packets = ipc::hand_over(&socket, invitation.nonce).expect("main is there");
    let mut link = Framed::new(packets, ipc::frame_limit(), Wait::default());
    let mut message = Vec::new();
    while link.hear(&mut message).is_ok() && link.say(&message).is_ok() {}
    exit(0);
}

#[test]
fn a_child_has_no_use_for_stdin_and_its_children_are_none_of_ours() {
    let (_supervisor, mut sides) = started("echo_entry", 1);
    assert_eq!(asked(&mut sides[0], b"stdin").expect("alive"), b"");
    assert_eq!(asked(&mut sides[0], b"grandchild").expect("alive"), [1]);
}

#[test]
fn a_hold_reaches_a_busy_child() {
    let (supervisor, mut sides) = started("echo_entry", 1);
    let grants = supervisor.grants();
    for _ in 0..40 {
        grants.issue();
    }
    let last = grants.issue();
    supervisor.interrupt_at(now().checked_add(Duration::from_millis(1)));
    let told = asked(&mut sides[0], b"interrupt").expect("alive");
    assert_eq!(told, last.to_le_bytes());
    assert!(grants.interrupted());
    supervisor.disarm();
}

#[test]
fn the_control_line_answers_questions_between_holds() {
    let (main, child) = UnixStream::pair().expect("a socket can be had");
    main.set_read_timeout(Some(LONG)).expect("not zero");
    let (interrupts, cluster_activity) = (AtomicU64::new(0), ClusterActivity::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            // It ends when main's end is closed.
            let _ = obey(&MainWatch::new(child), &interrupts, &cluster_activity);
            assert_eq!(interrupts.load(Ordering::SeqCst), 7);
        });
        let main = main;
        let mut said = Vec::new();
        Answer::write(&cluster_activity, &mut said).expect("a vector takes all");
        for commands in [&b"?"[..], b"H\x07\0\0\0\0\0\0\0?"] {
            (&main).write_all(commands).expect("somebody reads");
            let mut answer = vec![0; said.len()];
            (&main).read_exact(&mut answer).expect("somebody answers");
            assert_eq!(answer, said);
        }
    });
}

#[test]
fn a_busy_child_answers_and_a_stopped_one_does_not() {
    let (supervisor, mut sides) = started("echo_entry", 2);
    sides[0].link.say(b"interrupt").expect("alive");
    let ask = || {
        let probes = supervisor
            .run_job(|watch| watch.ask_all(Duration::from_millis(250)))
            .expect("it lives");
        [0, 1].map(|place| probes[place].answer)
    };
    let fine = ClusterActivity::default().answer();
    assert_eq!(ask(), [fine, fine]);
    let stopped = sides[1].pid;
    signal(stopped, Signal::STOP);
    await_stop(stopped);
    let silent = [fine, ProbeAnswer::Silent(Activity::Stopped)];
    assert_eq!(ask(), silent);
    assert_eq!(ask(), silent, "still");
    signal(stopped, Signal::CONT);
    let late = supervisor.run_job(|watch| watch.await_late_answer(1));
    assert_eq!(late, Some(true));
    assert_eq!(ask(), [fine, fine]);
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

#[test]
fn a_kill_while_main_waits_for_that_child() {
    kill_during(b"deaf", 1);
}

#[test]
fn a_kill_while_main_waits_for_another_child() {
    kill_during(b"deaf", 0);
}

#[test]
fn a_kill_in_the_middle_of_a_message() {
    kill_during(b"endless", 1);
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

/// Waits for the end of a link.
fn breaks(mut side: MainSide) {
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let error = loop {
            if let Err(error) = side.link.recv() {
                break error;
            }
        };
        say.send(error)
    });
    let error = said.recv_timeout(LONG).expect("the wait for the link ends");
    assert!(matches!(error, LinkError::Disconnected), "{error:?}");
}

/// Holds the sockets of a child, as a process does that it has forked. None if the system does not allow it.
fn held_sockets(pid: u32) -> Option<Vec<OwnedFd>> {
    let process = pidfd_open(pid_of(pid), PidfdFlags::empty()).ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    let files = numbers.map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()));
    let files = files.collect::<Result<Vec<_>, _>>().ok()?;
    Some(files)
}

#[test]
fn a_link_breaks_although_others_hold_the_childs_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (supervisor, mut sides) = started_over(carrier, 2);
        let Some(_held) = held_sockets(sides[1].pid) else {
            return;
        };
        sides[1].link.say(b"exit 7").expect("alive");
        let side = sides.pop().expect("there are two");
        breaks(side);
        let Some(Failure::Died { cluster, exit, .. }) = supervisor.first_death(LONG) else {
            panic!("nobody died");
        };
        assert_eq!((cluster, exit), (2, ExitKind::Code(7)));
    }
}

#[test]
fn what_a_child_said_before_its_end_is_heard_although_others_hold_its_ends() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (mut supervisor, mut sides) = started_over(carrier, 1);
        let mut side = sides.pop().expect("there is one");
        let Some(_held) = held_sockets(side.pid) else {
            return;
        };
        supervisor.expect_exits();
        for said in [&b"last"[..], b"stop"] {
            side.link.say(said).expect("alive");
        }
        assert_eq!(supervisor.wait_all(LONG)[0].how, EndKind::Clean);
        assert_eq!(side.link.recv().expect("it was sent"), b"last");
        breaks(side);
    }
}

/// A frozen process, or one that waits in the kernel for a device that does not answer.
#[test]
fn a_child_that_cannot_be_killed_keeps_nobody() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for carrier in CARRIERS {
        let (mut supervisor, sides) = started_over(carrier, 2);
        supervisor.run_job(|watch| watch.make_immortal(0));
        let frozen = sides[0].pid;
        signal(frozen, Signal::STOP);
        await_stop(frozen);
        supervisor.interrupter().kill_all();
        sides.into_iter().for_each(breaks);
        assert!(matches!(
            supervisor.first_death(LONG),
            Some(Failure::Interrupted)
        ));
        let ends = supervisor.wait_all(Duration::ZERO);
        let ends = ends.iter().map(|end| end.how).collect::<Vec<_>>();
        assert_eq!(ends, [EndKind::Leaked, EndKind::Killed]);
    }
}

#[test]
fn an_exit_and_an_abort_are_told_apart() {
    for (question, expected) in [
        (&b"exit 7"[..], ExitKind::Code(7)),
        (b"abort", ExitKind::Signal(6)),
        // Between reserving bytes and publishing them.
        (b"half", ExitKind::Signal(6)),
    ] {
        let (supervisor, mut sides) = started("echo_entry", 1);
        assert!(matches!(
            asked(&mut sides[0], question),
            Err(LinkError::Disconnected)
        ));
        let Some(Failure::Died { exit, .. }) = supervisor.first_death(LONG) else {
            panic!("nobody died");
        };
        assert_eq!(exit, expected);
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_child_that_ignores_it() {
    let (mut supervisor, mut sides) = started("echo_entry", 2);
    sides[0].link.say(b"deaf").expect("alive");
    supervisor.expect_exits();
    for side in &mut sides {
        side.link.say(b"stop").expect("alive");
    }
    let begin = now();
    let ends = supervisor.wait_all(Duration::from_millis(50));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "took {:?}",
        begin.elapsed()
    );
    assert_eq!(ends[0].how, EndKind::Killed);
    assert_eq!(ends[1].how, EndKind::Clean);
}

#[test]
fn dropping_the_links_ends_the_children() {
    let (mut supervisor, sides) = started("echo_entry", 2);
    supervisor.expect_exits();
    drop(sides);
    assert!(
        supervisor
            .wait_all(LONG)
            .iter()
            .all(|end| end.how == EndKind::Clean)
    );
}

#[test]
#[ignore = "entry of a child that forgets the entry"]
fn forgetful_entry() {
    exit(0);
}

#[test]
fn a_child_that_ends_before_its_hello() {
    let error = refused("forgetful_entry", 3);
    let SpawnError::ExitedBeforeHello { exit, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*exit, ExitKind::Success);
    let test =
        "no ignored test of this program is called \"processes::spawn::tests::forgetful_entry\"";
    assert!(error.to_string().contains(test), "{error}");
}

#[test]
#[ignore = "entry of a child that never says hello"]
fn silent_entry() {
    loop {
        thread::park();
    }
}

#[test]
fn a_child_that_says_nothing_is_given_up() {
    let supervisor = supervisor();
    let mut plan = plan("silent_entry", 2);
    plan.deadline = Duration::from_millis(50);
    let begin = now();
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::HandshakeTimeout { cluster: 1, .. }),
        "{error:?}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "took {:?}",
        begin.elapsed()
    );
    assert!(supervisor.pids().is_empty());
}

#[test]
#[ignore = "entry of a child that may open one more file"]
fn crowded_entry() {
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    setrlimit(Resource::Nofile, limit).expect("it is lowered");
    let mut open: Vec<fs::File> = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        open.push(file);
    }
    open.pop();
    let Arrival::Failed(error) = arrive(&point(7), Wait::default()) else {
        panic!("there is no room for the control line and /dev/null");
    };
    exit(error.exit_code());
}

#[test]
fn a_child_that_cannot_set_itself_up_says_why() {
    for output in [Output::Inherit, Output::Null, Output::Prefixed] {
        let supervisor = supervisor();
        let mut plan = plan("crowded_entry", 1);
        plan.output = output;
        let error = start(&supervisor, plan).err().expect("it fails");
        assert_eq!(
            error.to_string(),
            "the process of cluster c1 (1) could not become a cluster: /dev/null cannot be opened: Too many open files (os error 24)"
        );
    }
}

/// Says a Hello with something changed in it.
fn introduce(change: impl FnOnce(&mut Hello)) -> (UnixStream, Invitation) {
    let stdin = take_stdin().expect("there is one");
    let (invitation, _) = Invitation::read(&stdin).expect("it was written");
    let mut hello = Hello::new(&invitation, invitation.schema, None);
    change(&mut hello);
    Word::Hello(hello).write(&stdin).expect("main is there");
    (stdin, invitation)
}

/// Does the same and waits for its end.
fn lie(change: impl FnOnce(&mut Hello)) -> ! {
    let (mut stdin, _) = introduce(change);
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child with a wrong nonce"]
fn wrong_nonce_entry() {
    lie(|hello| hello.nonce[3] ^= 1);
}

#[test]
#[ignore = "entry of a child with a wrong process id"]
fn wrong_pid_entry() {
    lie(|hello| hello.pid += 1);
}

#[test]
#[ignore = "entry of a child of another version"]
fn wrong_version_entry() {
    lie(|hello| hello.version = "0.0.0".to_owned());
}

#[test]
#[ignore = "entry of a child with another schema"]
fn wrong_schema_entry() {
    lie(|hello| hello.schema = 1);
}

#[test]
#[ignore = "entry of a child that says what no child says"]
fn babbling_entry() {
    let mut stdin = take_stdin().expect("there is one");
    Invitation::read(&stdin).expect("it was written");
    stdin.write_all(&[3, 0, 1, 2, 3, 4]).expect("main is there");
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child in whose place somebody else hands over channels"]
fn stranger_entry() {
    let (mut stdin, invitation) = introduce(|_| {});
    let socket = ConnectRequest::read(&stdin).expect("main wants channels");
    let socket = socket.expect("it comes with it");
    let mut nonce = invitation.nonce;
    nonce[15] ^= 1;
    let _packets = ipc::hand_over(&socket, nonce).expect("main is there");
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
#[ignore = "entry of a child that ends before it hands over its channels"]
fn timid_entry() {
    let (stdin, _) = introduce(|_| {});
    ConnectRequest::read(&stdin).expect("main wants channels");
    exit(7);
}

#[test]
#[ignore = "entry of a child that hands over no channels"]
fn hesitant_entry() {
    let (mut stdin, _) = introduce(|_| {});
    ConnectRequest::read(&stdin).expect("main wants channels");
    let _ = stdin.read_exact(&mut [0]);
    exit(0);
}

#[test]
fn what_goes_wrong_when_channels_are_handed_over_is_told_apart() {
    let error = refused_over(Link::Channel, "stranger_entry", 2);
    assert!(
        matches!(error, SpawnError::Stranger { cluster: 1, .. }),
        "{error:?}"
    );
    let error = refused_over(Link::Channel, "timid_entry", 2);
    let SpawnError::ExitedBeforeHello { exit, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(exit, ExitKind::Code(7));
    let supervisor = supervisor();
    let mut plan = plan("hesitant_entry", 2);
    (plan.carrier, plan.deadline) = (Link::Channel, Duration::from_secs(1));
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::HandshakeTimeout { cluster: 1, .. }),
        "{error:?}"
    );
    assert!(supervisor.pids().is_empty());
}

#[test]
fn a_false_hello_is_refused() {
    let error = refused("babbling_entry", 2);
    assert!(matches!(error, SpawnError::Handshake { .. }), "{error:?}");
    let error = refused("wrong_nonce_entry", 2);
    assert!(matches!(error, SpawnError::Stranger { .. }), "{error:?}");
    for (entry, differs) in [
        ("wrong_pid_entry", "the process id"),
        ("wrong_version_entry", "maslite"),
        ("wrong_schema_entry", "the schema"),
    ] {
        let error = refused(entry, 2);
        let SpawnError::Mismatch { what, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(what, differs);
    }
}

#[test]
fn a_program_that_is_not_there() {
    let supervisor = supervisor();
    let mut plan = plan("echo_entry", 2);
    plan.program.exe = Some("/nowhere/at/all".into());
    let error = start(&supervisor, plan).err().expect("it fails");
    assert!(
        matches!(error, SpawnError::Spawn { cluster: 1, .. }),
        "{error:?}"
    );
}

#[test]
fn a_start_that_fails_harms_no_earlier_one() {
    let (supervisor, mut sides) = started("echo_entry", 1);
    assert!(start(&supervisor, plan("forgetful_entry", 2)).is_err());
    assert_eq!(
        asked(&mut sides[0], b"still here").expect("alive"),
        b"still here"
    );
    let mut more = start(&supervisor, plan("echo_entry", 1)).expect("the children start");
    assert_eq!(asked(&mut more[0], b"me too").expect("alive"), b"me too");
    assert!(supervisor.first_death(Duration::ZERO).is_none());
}

/// Runs another entry in a process of its own, with its own directory for temporary files, and waits for it and for all that hold
/// its standard error. Returns what is left in that directory, too.
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

#[test]
#[ignore = "entry of a child that prints"]
fn loud_entry() {
    let mut child = child();
    writeln!(io::stdout(), "said {}", child.cluster).expect("main reads");
    writeln!(io::stdout(), "{}", "much ".repeat(50_000)).expect("main reads");
    eprintln!("cried {}", child.cluster);
    child.link.say(b"done").expect("main is there");
    let _ = child.link.recv();
    exit(3);
}

/// Starts two children that print, and lets them end.
fn hear(output: Output) {
    let supervisor = supervisor();
    let mut plan = plan("loud_entry", 2);
    plan.output = output;
    plan.program.quiet_stdout = false;
    let mut sides = start(&supervisor, plan).expect("the children start");
    for side in &mut sides {
        side.link.recv().expect("they say done");
    }
}

#[test]
#[ignore = "entry of a main process whose children print"]
fn prefixed_entry() {
    hear(Output::Prefixed);
}

#[test]
#[ignore = "entry of a main process whose children print"]
fn null_entry() {
    hear(Output::Null);
}

#[test]
fn what_children_print_is_told_apart() {
    // What the test harness says has no name before it.
    let output = |entry: &str| {
        let harness = ["--exact", "--ignored", "--nocapture"];
        let output = own_executable()
            .and_then(|mut command| {
                command
                    .arg(format!("processes::spawn::tests::{entry}"))
                    .args(harness)
                    .output()
            })
            .expect("it runs");
        [output.stdout, output.stderr].map(|bytes| {
            let text = String::from_utf8(bytes).expect("it is text");
            let lines = text.lines().filter(|line| line.starts_with("[c"));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.retain(|line| !line.contains("running") && line.len() > 5);
            // Only the order within a child is one.
            lines.sort_by_key(|line| line[..4].to_owned());
            lines
        })
    };
    let [stdout, stderr] = output("prefixed_entry");
    assert_eq!(stderr, ["[c1] cried 1", "[c2] cried 2"]);
    let lengths: Vec<_> = stdout.iter().map(|line| (&line[..9], line.len())).collect();
    let mut expected = Vec::new();
    for (said, much) in [("[c1] said", "[c1] much"), ("[c2] said", "[c2] much")] {
        expected.extend([(said, 11), (much, 5 + 65_536)]);
    }
    let whole: Vec<_> = lengths
        .iter()
        .filter(|(begin, _)| !begin.contains('+'))
        .copied()
        .collect();
    assert_eq!(whole, expected);
    let pieces = lengths.iter().filter(|(begin, _)| begin.contains('+'));
    assert_eq!(
        pieces.map(|(_, length)| length - 6).sum::<usize>(),
        2 * (250_000 - 65_536)
    );
    assert_eq!(output("null_entry"), [Vec::<String>::new(), Vec::new()]);
}

#[test]
#[ignore = "entry of a main process that is killed"]
fn dying_main_entry() {
    let (_supervisor, mut sides) = started("echo_entry", 3);
    sides[0].link.say(b"deaf").expect("alive");
    sides[1].link.say(b"interrupt").expect("alive");
    kill(id());
}

/// The children have inherited their main process's standard error, so its end shows that they are gone too.
#[test]
fn no_child_outlives_its_main_process() {
    let begin = now();
    let (status, ..) = run_alone("dying_main_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
    assert!(begin.elapsed() < LONG, "took {:?}", begin.elapsed());
}

#[test]
#[ignore = "entry of a main process that is killed"]
fn main_with_programs_entry() {
    for carrier in CARRIERS {
        let (supervisor, mut sides) = started_over(carrier, 2);
        for side in &mut sides {
            asked(side, b"program").expect("alive");
        }
        signal(sides[1].pid, Signal::STOP);
        await_stop(sides[1].pid);
        std::mem::forget((supervisor, sides));
    }
    kill(id());
}

/// As above: what agents have started has inherited standard error as well. One child of each link is stopped, so it must be woken.
#[test]
fn what_agents_have_started_does_not_outlive_a_killed_main_process() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, ..) = run_alone("main_with_programs_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
}

#[test]
#[ignore = "entry of a child that is stopped in its start"]
fn stopped_entry() {
    kill_process(pid_of(id()), Signal::STOP).expect("it is this one");
    unreachable!("nobody continues it");
}

#[test]
#[ignore = "entry of a main process that is killed while it starts"]
fn starting_main_entry() {
    thread::spawn(|| {
        let stands = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        // There are no children at first.
        while rustix::process::waitid(WaitId::All, stands).is_err() {
            thread::yield_now();
        }
        kill(id());
    });
    let error = refused("stopped_entry", 1);
    panic!("{error}");
}

#[test]
fn a_child_that_is_stopped_in_its_start_does_not_outlive_a_killed_main_process() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, ..) = run_alone("starting_main_entry");
    assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
}

fn entries(directory: impl AsRef<Path>) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// In a process of its own, which may open 100 descriptors.
#[test]
#[ignore = "entry of the test below"]
fn few_descriptors_entry() {
    let supervisor = supervisor();
    let mut plan = plan("echo_entry", 1);
    plan.carrier = Link::Channel;
    plan.output = Output::Prefixed;
    plan.program.quiet_stdout = false;
    let mut sides = start(&supervisor, plan.clone()).expect("one can be had");
    let before = entries("/proc/self/fd");
    plan.clusters = vec![(7, "c7".to_owned()), (8, "c8".to_owned())];
    sides.extend(start(&supervisor, plan.clone()).expect("three can be had"));
    let taken = entries("/proc/self/fd") - before;
    assert_eq!(taken, 2 * limits::DESCRIPTORS_PER_CHILD);
    plan.clusters = (10..110)
        .map(|number| (number, format!("c{number}")))
        .collect();
    let error = start(&supervisor, plan.clone())
        .err()
        .expect("it is refused");
    let SpawnError::TooManyClusters {
        asked,
        possible,
        limit,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((asked, limit), (100, 100));
    assert_eq!(supervisor.pids().len(), sides.len(), "none was started");
    plan.clusters.truncate(possible + 1);
    let error = start(&supervisor, plan.clone())
        .err()
        .expect("it is refused");
    assert!(
        matches!(error, SpawnError::TooManyClusters { .. }),
        "{error}"
    );
    plan.clusters.truncate(possible);
    sides.extend(start(&supervisor, plan.clone()).expect("so many can be had"));
    for side in &mut sides {
        assert_eq!(asked_of(side), b"hello");
    }
}

/// In a process of its own, whose files may have 1 MB.
#[test]
#[ignore = "entry of the test below"]
fn short_files_entry() {
    let (_supervisor, mut sides) = started_over(Link::Auto, 2);
    assert!(sides.iter().all(|side| side.carrier == Link::Channel));
    assert_eq!(asked_of(&mut sides[1]), b"hello");
    let error = refused_over(Link::Ring, "echo_entry", 1);
    let SpawnError::NoRing { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        source.to_string(),
        "files may have 1048576 bytes here (RLIMIT_FSIZE), and a ring needs 2101248: raise the limit (ulimit -f), or use channels"
    );
}

/// The system would end main with a signal if it asked for more.
#[test]
fn a_limit_on_the_length_of_files_is_asked_before_a_ring_is_made() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let output = Command::new("bash")
        .args(["-c", "ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this is it"))
        .args([
            "processes::spawn::tests::short_files_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("there is a shell");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn asked_of(side: &mut MainSide) -> Vec<u8> {
    asked(side, b"hello").expect("alive")
}

#[test]
fn more_children_than_there_are_descriptors_for_are_refused() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this is it"))
        .args([
            "processes::spawn::tests::few_descriptors_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("there is a shell");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
#[ignore = "entry of the test below"]
fn no_place_for_files_entry() {
    for carrier in [Link::Channel, Link::Auto] {
        let supervisor = supervisor();
        let mut plan = plan("echo_entry", 2);
        plan.carrier = carrier;
        let mut sides = start(&supervisor, plan).expect("the children start");
        assert_eq!(asked_of(&mut sides[1]), b"hello");
    }
}

/// Nothing of a start is in the file system, not even for a moment: a main process that is killed then would leave it there.
#[test]
fn a_start_needs_no_directory_for_temporary_files_and_no_umask() {
    let too_long = format!("/{}", "a".repeat(89));
    for directory in ["/nowhere/at/all", "/proc/self", "/dev/null", &too_long] {
        let output = Command::new("sh")
            .args(["-c", "umask 777; exec \"$0\" \"$@\" --exact --ignored"])
            .arg(env::current_exe().expect("this is it"))
            .arg("processes::spawn::tests::no_place_for_files_entry")
            .env("TMPDIR", directory)
            .output()
            .expect("there is a shell");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
#[ignore = "entry of the test below"]
fn deleted_program_entry() {
    let path = env::current_exe().expect("this is it");
    fs::remove_file(&path).expect("it is a copy");
    fs::write(&path, "#!/bin/sh\nexit 55\n").expect("it can be written");
    let (_supervisor, mut sides) = started("echo_entry", 1);
    assert_eq!(asked_of(&mut sides[0]), b"hello");
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_program_that_was_replaced_while_it_runs_starts_its_own_children() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let copy = env::temp_dir().join(format!("maslite-copy-{}", id()));
    fs::copy(env::current_exe().expect("this is it"), &copy).expect("there is room");
    let output = Command::new(&copy)
        .args([
            "processes::spawn::tests::deleted_program_entry",
            "--exact",
            "--ignored",
        ])
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(!copy.exists());
}

/// In a process of its own, where no other test opens files or starts threads.
#[test]
#[ignore = "entry of the test below"]
fn leak_entry() {
    let mut before = None;
    for round in 0..50 {
        let mut supervisor = supervisor();
        let mut plan = plan("echo_entry", 2);
        plan.output = Output::Null;
        let mut sides = start(&supervisor, plan).expect("the children start");
        assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
        supervisor.expect_exits();
        let grace = if round % 2 == 0 {
            sides[0].link.say(b"stop").expect("alive");
            LONG
        } else {
            Duration::ZERO
        };
        drop(sides);
        for end in supervisor.wait_all(grace) {
            assert!(!Path::new(&format!("/proc/{}", end.pid)).exists(), "reaped");
        }
        assert!(matches!(
            refused("forgetful_entry", 2),
            SpawnError::ExitedBeforeHello { .. }
        ));
        let open = (entries("/proc/self/fd"), entries("/proc/self/task"));
        assert_eq!(*before.get_or_insert(open), open, "in round {round}");
    }
}

#[test]
fn nothing_is_left_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (status, stderr, left) = run_alone("leak_entry");
    assert!(status.success(), "{stderr}");
    assert_eq!(left, 0, "temporary files are left");
}
