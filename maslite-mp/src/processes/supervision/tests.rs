//! The children of these tests are shells.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use shared_child::SharedChild;

use super::child::ANSWER_LENGTH;
use super::*;
use crate::error::warning::Activity;
use crate::links::transport::now;
use crate::settings::timing::{PROBE_LIMIT, REAP_LIMIT};
use crate::stall::detector::ProbeAnswer;

/// Puts a shell that runs `script` under supervision; its process id.
fn adopt(supervisor: &Supervisor, cluster: u32, script: &'static str) -> u32 {
    supervisor
        .run_job(move |watch| {
            let (control, stdin) = UnixStream::pair().expect("a socket can be had");
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command.stdin(Stdio::from(OwnedFd::from(stdin)));
            let process = SharedChild::spawn(&mut command).expect("there is a shell");
            let pid = process.id();
            watch
                .adopt(
                    cluster,
                    format!("number {cluster}"),
                    process,
                    control.into(),
                    None,
                    |_| {},
                )
                .expect("a thread can be had");
            pid
        })
        .expect("the supervisor thread lives")
}

fn supervisor() -> Supervisor {
    Supervisor::new(Duration::from_millis(50)).expect("a thread can be had")
}

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn exits_are_decoded() {
    for (script, kind, text) in [
        ("exit 0", ExitKind::Success, "exited silently, with code 0"),
        ("exit 3", ExitKind::Code(3), "exited with code 3"),
        (
            "exit 101",
            ExitKind::Panic,
            "panicked outside of its agents' methods (code 101)",
        ),
        (
            "exit 91",
            ExitKind::ProtocolMismatch,
            "refused what main sent, or does not speak its protocol (code 91)",
        ),
        (
            "kill -9 $$",
            ExitKind::Signal(9),
            "was killed (SIGKILL); the sender of the signal is unknown",
        ),
        (
            "kill -15 $$",
            ExitKind::Signal(15),
            "was terminated (SIGTERM)",
        ),
        (
            "ulimit -c 0; kill -6 $$",
            ExitKind::Signal(6),
            "aborted (SIGABRT)",
        ),
    ] {
        let supervisor = supervisor();
        adopt(&supervisor, 4, script);
        let Some(Failure::Died { cluster, exit, .. }) = supervisor.first_death(LONG) else {
            panic!("no death after {script}");
        };
        assert_eq!((cluster, exit), (4, kind), "{script}");
        assert_eq!(exit.to_string(), text);
    }
}

#[test]
fn one_death_ends_all() {
    let mut supervisor = supervisor();
    let first = adopt(&supervisor, 1, "exec cat");
    let second = adopt(&supervisor, 2, "read line; exit 7");
    let third = adopt(&supervisor, 3, "exec cat");
    assert_eq!(supervisor.pids(), [(1, first), (2, second), (3, third)]);
    assert!(supervisor.first_death(Duration::ZERO).is_none());
    supervisor.run_job(|watch| {
        writeln!(&*watch.children[1].control, "die").expect("it reads");
    });
    let Some(Failure::Died {
        cluster,
        name,
        pid,
        exit,
        ..
    }) = supervisor.first_death(LONG)
    else {
        panic!("nobody died");
    };
    assert_eq!(
        (cluster, name.as_str(), pid, exit),
        (2, "number 2", second, ExitKind::Code(7))
    );
    let ends = supervisor.wait_all(LONG);
    let how: Vec<_> = ends.iter().map(|end| end.how).collect();
    assert_eq!(
        how,
        [
            EndKind::Killed,
            EndKind::Failed(ExitKind::Code(7)),
            EndKind::Killed
        ]
    );
    assert!(supervisor.pids().is_empty());
    assert_eq!(
        supervisor.wait_all(LONG),
        ends,
        "a second shutdown says the same"
    );
}

#[test]
fn those_that_died_before_we_could_kill_them_are_told_in_order() {
    let supervisor = supervisor();
    for cluster in 1..=4 {
        adopt(&supervisor, cluster, "exec cat");
    }
    supervisor.run_job(|watch| {
        for place in [2, 0] {
            let process = Arc::clone(&watch.children[place].process);
            process.kill().expect("it lives");
            process.wait().expect("it can be waited for");
            // The waiter says when it ended.
            if let Some(waiter) = watch.children[place].waiter.take() {
                waiter.join().expect("no panic");
            }
        }
    });
    assert!(supervisor.first_death(LONG).is_some());
    let deaths = supervisor.post_mortem();
    let deaths: Vec<_> = deaths.iter().map(ToString::to_string).collect();
    assert_eq!(deaths.len(), 2, "{deaths:?}");
    for (death, name) in deaths.iter().zip(["number 3", "number 1"]) {
        let begin = format!("the process of cluster {name} (pid ");
        assert!(death.starts_with(&begin), "{death}");
        assert!(
            death.ends_with("was killed (SIGKILL); the sender of the signal is unknown"),
            "{death}"
        );
    }
}

#[test]
fn expected_exits_are_no_failure() {
    let mut supervisor = supervisor();
    adopt(&supervisor, 1, "read line; exit 0");
    adopt(&supervisor, 2, "read line; exit 5");
    supervisor.expect_exits();
    supervisor.run_job(|watch| {
        for child in &mut watch.children {
            writeln!(&*child.control, "stop").expect("it reads");
        }
    });
    let how: Vec<_> = supervisor
        .wait_all(LONG)
        .iter()
        .map(|end| end.how)
        .collect();
    assert_eq!(how, [EndKind::Clean, EndKind::Failed(ExitKind::Code(5))]);
    assert!(supervisor.first_death(Duration::ZERO).is_none());
}

#[test]
fn a_stopped_child_is_killed_after_the_grace() {
    let mut supervisor = supervisor();
    adopt(&supervisor, 1, "kill -STOP $$");
    let begin = now();
    let ends = supervisor.wait_all(Duration::from_millis(20));
    assert_eq!(ends[0].how, EndKind::Killed);
    assert!(begin.elapsed() < REAP_LIMIT, "took {:?}", begin.elapsed());
}

#[test]
fn a_hold_that_is_ignored_ends_all() {
    let supervisor = supervisor();
    adopt(&supervisor, 1, "exec sleep 100");
    supervisor.interrupt_at(now().checked_add(Duration::from_millis(10)));
    assert!(matches!(
        supervisor.first_death(LONG),
        Some(Failure::Stuck { .. })
    ));
    assert!(supervisor.grants().interrupted());
}

#[test]
fn who_owes_an_answer_is_not_asked_again() {
    let supervisor = supervisor();
    adopt(&supervisor, 1, "exec sleep 100");
    let probes = supervisor
        .run_job(|watch| watch.ask_all(PROBE_LIMIT))
        .expect("it lives");
    assert_eq!(probes[0].answer, ProbeAnswer::Silent(Activity::Silent));
    let again = supervisor.run_job(|watch| watch.children[0].ask());
    assert_eq!(again, Some(false));
}

#[test]
fn a_run_that_ends_in_time_is_not_held() {
    let mut supervisor = supervisor();
    adopt(&supervisor, 1, "exec cat >/dev/null");
    let grants = supervisor.grants();
    supervisor.interrupt_now();
    supervisor.run_job(|_| ());
    assert!(!grants.interrupted(), "there was no run");

    supervisor.interrupt_at(None);
    supervisor.interrupt_now();
    supervisor.run_job(|_| ());
    assert!(grants.interrupted());
    supervisor.disarm();
    assert!(!grants.interrupted());

    supervisor.interrupt_at(now().checked_add(Duration::from_millis(1)));
    supervisor.disarm();
    // Longer than deadline and grace together: neither has consequences.
    assert!(supervisor.first_death(Duration::from_millis(120)).is_none());
    assert_eq!(supervisor.pids().len(), 1);
    supervisor.expect_exits();
    let ends = supervisor.wait_all(Duration::ZERO);
    assert_eq!(ends[0].how, EndKind::Killed);
}

#[test]
fn who_answers_without_end_is_not_heard() {
    let supervisor = supervisor();
    adopt(&supervisor, 1, "exec yes >&0");
    let (answer, arrived) = supervisor
        .run_job(|watch| {
            let probes = watch.ask_all(PROBE_LIMIT);
            (probes[0].answer, watch.children[0].arrived.len())
        })
        .expect("it lives");
    assert_eq!(answer, ProbeAnswer::Silent(Activity::Silent));
    assert!(arrived <= ANSWER_LENGTH + 512, "{arrived} bytes");
}
