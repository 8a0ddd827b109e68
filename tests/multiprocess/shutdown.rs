//! However clusters behave at the end, it comes soon, and with it all that they have said.

use std::io::Read;
use std::time::Duration;

use maslite_mp::prelude::*;
use maslite_mp::{EndKind, Error, ExitKind, Shutdown};

use crate::test_placement::{PROCESSES, TestPlacement};
use crate::workers::{
    Gate, Msg, When, Worker, clusters, clusters_of, exists, go, pids, registry, stop,
};

/// How long a shutdown may take: the two seconds that clusters are given, and what a loaded machine
/// adds.
const BOUND: Duration = Duration::from_secs(12);

/// Shuts down after a run, and looks at what is left.
fn shut_down(mut main: MpMain<Msg>, before: impl FnOnce(&[u32])) -> Shutdown {
    main.run(Run::until_idle()).unwrap();
    let pids = pids(&main);
    before(&pids);
    let shutdown = main.shutdown();
    assert!(!pids.iter().any(|pid| exists(*pid)), "{shutdown:?}");
    assert!(shutdown.took < BOUND, "{shutdown:?}");
    shutdown
}

fn ends(shutdown: &Shutdown) -> Vec<EndKind> {
    shutdown.ends.iter().map(|end| end.how).collect()
}

/// More than a link holds, so that the clusters must be heard while their ends are awaited.
#[test]
fn last_words_may_be_long() {
    for placement in PROCESSES {
        const LENGTH: usize = 1_000_000;
        let talker = [Worker::LastWords(LENGTH)];
        let main = clusters(placement, &[&talker, &talker, &[Worker::Farewell]]);
        let shutdown = shut_down(main, |_| ());
        assert_eq!(ends(&shutdown), [EndKind::Clean; 3]);
        let said = shutdown.errors.iter().map(|error| match error {
            Error::Agent { cluster, source } => {
                (cluster.as_str(), source.to_string().len() > LENGTH)
            }
            other => panic!("{other}"),
        });
        assert_eq!(said.collect::<Vec<_>>(), [("2", true), ("1", true)]);
    }
}

/// The agents behind it are not torn down, whatever the code says.
#[test]
fn an_exit_in_teardown_is_no_clean_end() {
    for placement in PROCESSES {
        for (code, exit, how) in [
            (0, ExitKind::Success, "exited silently, with code 0"),
            (7, ExitKind::Code(7), "exited with code 7"),
        ] {
            let exits = [
                Worker::Farewell,
                Worker::ExitAtTheEnd(code),
                Worker::Farewell,
            ];
            let main = clusters(
                placement,
                &[&[Worker::Farewell], &exits, &[Worker::Farewell]],
            );
            let mut pid = 0;
            let shutdown = shut_down(main, |pids| pid = pids[1]);
            let expected = [EndKind::Clean, EndKind::Failed(exit), EndKind::Clean];
            assert_eq!(ends(&shutdown), expected);
            let errors: Vec<_> = shutdown.errors.iter().map(ToString::to_string).collect();
            assert_eq!(
                errors,
                [format!(
                    "cluster 2 (pid {pid}) ended at 0 s before all its agents were torn down: its process {how}; its last \
                     output: \"enough\"; \
                     an agent has probably called `std::process::exit`, which agents must not call"
                )]
            );
        }
    }
}

#[test]
fn a_stopped_cluster_and_one_that_hangs_are_killed() {
    for placement in PROCESSES {
        let hangs = [Worker::Hang(When::Teardown)];
        let workers: [&[Worker]; 3] = [&[Worker::Farewell], &hangs, &[Worker::Farewell]];
        let main = clusters(placement, &workers);
        let shutdown = shut_down(main, |pids| stop(pids[2]));
        assert_eq!(
            ends(&shutdown),
            [EndKind::Clean, EndKind::Killed, EndKind::Killed]
        );
        let errors = shutdown.errors.iter().map(|error| match error {
            Error::NotTornDown { cluster, exit, .. } => (cluster.as_str(), *exit),
            other => panic!("{other}"),
        });
        assert_eq!(errors.collect::<Vec<_>>(), [("3", None), ("2", None)]);
    }
}

/// Where child processes start that take longer to report a panic than they are given to end.
#[test]
#[ignore = "where child processes start"]
fn slow_reporter() {
    std::panic::set_hook(Box::new(|_| {
        let (_keep, nothing) = std::sync::mpsc::channel::<()>();
        let _ = nothing.recv_timeout(Duration::from_secs(3));
    }));
    let _ = slow_agents();
}

fn slow_agents() -> Entered<Msg> {
    registry()
        .entered_by_test("shutdown::slow_reporter")
        .enter()
}

/// As it is with a backtrace in a large program.
#[test]
fn a_panic_in_teardown_that_takes_long_to_report_is_not_lost() {
    for placement in PROCESSES {
        let panics = [Worker::Panic(When::Teardown), Worker::Farewell];
        let main = clusters_of(slow_agents(), placement, &[&panics, &[Worker::Farewell]]);
        let shutdown = shut_down(main, |_| ());
        assert_eq!(ends(&shutdown), [EndKind::Clean; 2]);
        let [Error::Agent { cluster, source }] = shutdown.errors.as_slice() else {
            panic!("{shutdown:?}");
        };
        assert_eq!(cluster, "1");
        assert!(
            source.to_string().contains("no teardown for me"),
            "{source}"
        );
    }
}

/// What agents have started and left goes with them, when they end well, and when they are killed.
#[test]
fn what_agents_have_started_goes_too() {
    for kill in [false, true] {
        let gate = Gate::new(if kill { "killed" } else { "ended" });
        let workers: [&[Worker]; 2] = [&[Worker::Grandchild(gate.path())], &[]];
        let mut main = clusters(TestPlacement::Ring, &workers);
        main.send_mail(go(1));
        let before = |pids: &[u32]| {
            if kill {
                stop(pids[0]);
            }
        };
        let shutdown = shut_down(main, before);
        let expected = if kill {
            EndKind::Killed
        } else {
            EndKind::Clean
        };
        assert_eq!(ends(&shutdown)[0], expected);
        // Closed when no process holds the other end any more.
        let mut held = gate.somebody();
        held.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(held.read(&mut [0]).unwrap(), 0, "kill: {kill}");
    }
}

/// In a process of its own, whose standard error is not read.
#[test]
#[ignore = "a main process"]
fn flood_entry() {
    let flood = [Worker::Flood(10_000_000)];
    let main = clusters(TestPlacement::Ring, &[&flood, &[Worker::Farewell]]);
    shut_down(main, |_| ());
}

#[test]
fn a_flooded_standard_error_keeps_nobody() {
    let mut process = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "shutdown::flood_entry",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Not `wait_with_output`, which would read it.
    let unread = process.stderr.take();
    assert!(process.wait().unwrap().success());
    drop(unread);
}
