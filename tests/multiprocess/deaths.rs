//! Why a process died is told apart, with its cause first.

use std::process::{Command, id};

use maslite_core::{Error as ModelError, Phase};
use maslite_mp::prelude::*;
use maslite_mp::{Error, ExitKind, Output};
use serde::{Deserialize, Serialize};

use crate::test_placement::PROCESSES;
use crate::workers::{Worker, clusters, go};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Go,
}

/// Does one thing when told to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Victim {
    Nothing,
    Exit(i32),
    /// Says this to stderr first.
    Abort(String),
    Overflow,
    Allocate(usize),
    PanicTwice,
    Signal(i32),
    PanicInThread,
    /// Panics when it is dropped, once it was set up.
    Fragile(bool),
    Print(String),
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("boom");
    }
}

impl Agent<Msg> for Victim {
    fn setup(&mut self, _: &mut Context<'_, Msg>) {
        if let Self::Fragile(armed) = self {
            *armed = true;
        }
    }

    fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {
        match self {
            Self::Nothing | Self::Fragile(_) => {}
            Self::Exit(code) => std::process::exit(*code),
            Self::Abort(words) => {
                eprintln!("{words}");
                std::process::abort();
            }
            Self::Overflow => {
                deeper(0);
            }
            Self::Allocate(bytes) => drop(std::hint::black_box(Vec::<u8>::with_capacity(*bytes))),
            Self::PanicTwice => {
                let _bomb = Bomb;
                panic!("the first");
            }
            // The runtime lets a fault pass once, to see whether it comes again.
            Self::Signal(number) => loop {
                let number = format!("-{number}");
                let _ = Command::new("kill")
                    .args([&number, &id().to_string()])
                    .status();
            },
            Self::PanicInThread => {
                let thread = std::thread::Builder::new().name("helper".to_owned());
                let thread = thread.spawn(|| panic!("unnoticed?")).unwrap();
                assert!(thread.join().is_err());
            }
            Self::Print(words) => eprint!("{words}"),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        assert!(!matches!(self, Self::Fragile(true)), "no end for me");
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn deeper(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 128]);
    deeper(depth + 1) + room[usize::try_from(depth % 128).unwrap()]
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Victim>();
    registry.entered_by_test("deaths::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Three clusters: north, south with the victim, which is told to go, and west.
fn with(victim: Victim, output: Output) -> MpMain<Msg> {
    placed(victim, output, Placement::Processes)
}

fn placed(victim: Victim, output: Output, placement: Placement) -> MpMain<Msg> {
    // A cluster that forgets drops its agents, and an agent may panic then.
    let settings = MpMain::builder(agents()).amnesia(None).output(output);
    let mut main = settings.placement(placement).build().unwrap();
    for (number, (name, agent)) in [
        ("north", Victim::Nothing),
        ("south", victim),
        ("west", Victim::Nothing),
    ]
    .into_iter()
    .enumerate()
    {
        let cluster = main.new_cluster_named(name).unwrap();
        main.add_to(cluster, number as u64, agent).unwrap();
    }
    main.send(1, Msg::Go);
    main
}

/// Has an agent end its process, and compares what kind of end the error tells, and what it says.
fn assert_told((victim, kind, said): (Victim, ExitKind, &str)) {
    let error = with(victim, Output::Null)
        .run(Run::until_idle())
        .unwrap_err();
    let text = error.to_string();
    let Error::ClusterDied {
        cluster,
        exit,
        others,
        ..
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!((cluster.as_str(), exit), ("south", kind), "{text}");
    assert!(others.is_empty(), "{text}");
    assert!(text.contains(said), "{text}");
    assert!(
        text.starts_with("at 0 s the process of cluster south (pid "),
        "{text}"
    );
}

#[test]
fn every_cause_is_told_apart() {
    let huge = isize::MAX as usize / 2;
    let causes = [
        (Victim::Exit(0), ExitKind::Success, "exited silently"),
        (Victim::Exit(7), ExitKind::Code(7), "exited with code 7"),
        (
            Victim::Abort("out of paint".to_owned()),
            ExitKind::Signal(6),
            "aborted (SIGABRT); its last output: \"out of paint\"",
        ),
        (
            Victim::Overflow,
            ExitKind::StackOverflow,
            "overflowed its stack",
        ),
        (
            Victim::Allocate(huge),
            ExitKind::AllocationFailed { bytes: huge as u64 },
            "ran out of memory",
        ),
        (
            Victim::PanicTwice,
            ExitKind::DoublePanic,
            "panicked during a panic",
        ),
    ];
    causes.into_iter().for_each(assert_told);
}

#[test]
fn every_signal_is_told_apart() {
    let signals = [
        (
            Victim::Signal(9),
            ExitKind::Signal(9),
            "the sender of the signal is unknown",
        ),
        (
            Victim::Signal(11),
            ExitKind::Signal(11),
            "a segmentation fault",
        ),
        (Victim::Signal(15), ExitKind::Signal(15), "was terminated"),
        (Victim::Signal(24), ExitKind::Signal(24), "processor time"),
        (
            Victim::Signal(25),
            ExitKind::Signal(25),
            "the size of files",
        ),
    ];
    signals.into_iter().for_each(assert_told);
}

#[test]
fn without_a_pipe_only_the_status_speaks() {
    let victim = Victim::Abort("(an abort, on purpose)".to_owned());
    let error = with(victim, Output::Inherit)
        .run(Run::until_idle())
        .unwrap_err();
    let Error::ClusterDied { exit, stderr, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((exit, stderr.as_str()), (ExitKind::Signal(6), ""));
}

#[test]
fn a_panic_in_drop_is_told_and_keeps_nobody_from_ending() {
    for placement in [Placement::Inline, Placement::Processes] {
        let mut main = placed(Victim::Fragile(false), Output::Null, placement);
        main.run(Run::until_idle()).unwrap();
        let shutdown = main.shutdown();
        let [Error::Agent { cluster, source }] = &*shutdown.errors else {
            panic!("{shutdown:?}");
        };
        assert_eq!(cluster, "south");
        let ModelError::AgentPanicked {
            phase,
            message,
            place,
            ..
        } = source
        else {
            panic!("{source}");
        };
        assert_eq!((*phase, message.as_str()), (Phase::Drop, "no end for me"));
        assert!(
            place
                .as_ref()
                .is_some_and(|place| place.contains("deaths.rs:"))
        );
        for end in &shutdown.ends {
            assert_eq!(end.how, maslite_mp::EndKind::Clean);
        }
    }
}

/// What this program says to stderr when it is started for another of its tests.
fn stderr_of(test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
#[ignore = "started by the test below"]
fn prints() {
    with(Victim::PanicInThread, Output::default())
        .run(Run::until_idle())
        .unwrap();
    eprintln!("that was a panic in a thread");
    with(Victim::Print("one\ntwo, ".to_owned()), Output::Prefixed)
        .run(Run::until_idle())
        .unwrap();
    with(Victim::Print("unheard".to_owned()), Output::Null)
        .run(Run::until_idle())
        .unwrap();
    with(Victim::Print("as it is\n".to_owned()), Output::Inherit)
        .run(Run::until_idle())
        .unwrap();
    let mut main = with(Victim::Abort("farewell".to_owned()), Output::Prefixed);
    let error = main.run(Run::until_idle()).unwrap_err();
    eprintln!("{}", error.to_string().contains("farewell"));
}

/// What children print in a run is there when the run returns; what they printed before they died
/// when the error is.
#[test]
fn what_children_print_is_passed_on_with_their_names() {
    let stderr = stderr_of("deaths::prints");
    let mut lines = stderr
        .lines()
        .filter(|line| !line.trim_end().ends_with(']'));
    let place = lines.next().unwrap();
    assert!(
        place.starts_with("[south] thread 'helper' (") && place.contains(" panicked at "),
        "{place}"
    );
    let rest: Vec<&str> = lines
        .filter(|line| !line.contains("RUST_BACKTRACE"))
        .collect();
    assert_eq!(
        rest,
        [
            "[south] unnoticed?",
            "that was a panic in a thread",
            "[south] one",
            "[south] two, ",
            "as it is",
            "[south] farewell",
            "true",
        ]
    );
}

/// What is closed with them is noticed when the child next speaks with main.
#[test]
fn an_agent_that_closes_all_descriptors_is_suspected() {
    for placement in PROCESSES {
        let workers: [&[Worker]; 2] = [&[Worker::CloseAll, Worker::Forever], &[Worker::Forever]];
        let mut main = clusters(placement, &workers);
        main.send_mail(go(1));
        main.send_mail(go(2));
        main.start().unwrap();
        let run = Run::until_idle()
            .timeout(std::time::Duration::from_millis(200))
            .supersteps_per_instant(u64::MAX);
        let error = main.run(run).unwrap_err();
        let Error::ClusterDied { cluster, exit, .. } = &error else {
            panic!("{placement:?}: {error}");
        };
        assert_eq!(
            (cluster.as_str(), *exit),
            ("1", ExitKind::LifelineLost),
            "{placement:?}"
        );
        let text = error.to_string();
        let expected = "ended itself because it lost its connection to main (code 90); if main still lives, an agent has \
         closed descriptors that are not its own; all clusters were stopped";
        assert!(text.ends_with(expected), "{text}");
    }
}
