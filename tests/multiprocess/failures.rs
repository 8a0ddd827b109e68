//! Whatever an agent or a process does, there is one clear error, and no process is left.

use maslite_core::{Error as ModelError, Phase};
use maslite_mp::prelude::*;
use maslite_mp::{Error, ExitKind};
use maslite_testkit::effort::stride;

use crate::test_placement::{ALL, PROCESSES, PlacedOn, TestPlacement};
use crate::workers::{Msg, When, Worker, agents, clusters, exists, go, kill, pids};

/// The error of a run in which agent 2, in the second cluster, does its thing.
fn error_of(placement: TestPlacement, worker: Worker) -> Error {
    let mut main = clusters(placement, &[&[Worker::Farewell], &[worker]]);
    main.send_mail(go(2));
    main.start().unwrap();
    let pids = pids(&main);
    let error = main.run(Run::until_idle()).unwrap_err();
    if !placement.is_inline() {
        assert!(!pids.iter().any(|pid| exists(*pid)), "{error}");
    }
    assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
    error
}

#[test]
fn a_killed_child_is_an_error_that_names_the_cluster() {
    for placement in PROCESSES {
        let mut main = clusters(placement, &[&[Worker::Farewell], &[Worker::TellPid]]);
        main.start().unwrap();
        let pids = pids(&main);
        kill(pids[1]);
        main.send_mail(go(2));
        let error = main.run(Run::until_idle()).unwrap_err();
        let Error::ClusterDied {
            cluster, pid, exit, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((cluster.as_str(), *pid), ("2", pids[1]));
        assert_eq!(*exit, ExitKind::Signal(9));
        assert!(error.to_string().contains("cluster 2"), "{error}");
        assert!(!pids.iter().any(|pid| exists(*pid)));
    }
}

#[test]
fn a_child_that_dies_at_work_is_named_with_its_end() {
    for placement in PROCESSES {
        for (worker, expected) in [
            (Worker::KillItself, ExitKind::Signal(9)),
            (Worker::Exit(0), ExitKind::Success),
            (Worker::Exit(7), ExitKind::Code(7)),
        ] {
            match error_of(placement, worker) {
                Error::ClusterDied { cluster, exit, .. } => {
                    assert_eq!((cluster.as_str(), exit), ("2", expected));
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// The two clusters never stop talking, so the kill finds them anywhere: while they write, read or
/// sleep.
#[test]
fn a_kill_at_any_moment_is_seen_and_named() {
    for placement in PROCESSES {
        for round in (0..30_u32).step_by(stride(3)) {
            let forward = |to: u64| Worker::Forward(AgentId::from(to));
            let tell = Worker::Tell(AgentId::from(3), "x".repeat(1 << (round % 20)));
            let workers: [&[Worker]; 2] = [&[tell, forward(3)], &[forward(2)]];
            let mut main = clusters(placement, &workers);
            main.send_mail(go(1));
            main.start().unwrap();
            let pids = pids(&main);
            let (place, victim) = [(0, pids[0]), (1, pids[1])][round as usize % 2];
            let killer = std::thread::spawn(move || {
                (0..round * 40).for_each(|_| std::thread::yield_now());
                kill(victim);
            });
            let run = Run::until_idle().supersteps_per_instant(u64::MAX);
            let error = main.run(run).unwrap_err();
            killer.join().unwrap();
            let Error::ClusterDied { pid, exit, .. } = &error else {
                panic!("{placement:?}, round {round}: {error}");
            };
            assert_eq!((*pid, *exit), (pids[place], ExitKind::Signal(9)));
            assert!(!pids.iter().any(|pid| exists(*pid)));
        }
    }
}

#[test]
fn a_panic_is_an_error_that_names_the_agent() {
    for placement in ALL {
        for (when, phase) in [(When::Setup, Phase::Setup), (When::Update, Phase::Update)] {
            let error = error_of(placement, Worker::Panic(when));
            let Error::Agent { cluster, source } = &error else {
                panic!("{error}");
            };
            assert_eq!(cluster, "2");
            let ModelError::AgentPanicked {
                agent,
                phase: at,
                message,
                ..
            } = source
            else {
                panic!("{error}");
            };
            assert_eq!((*agent, *at), (AgentId::from(2), phase));
            assert!(message.starts_with("no "), "{message}");
        }
    }
}

#[test]
fn a_panic_in_teardown_is_told_and_keeps_nobody_from_ending() {
    for placement in ALL {
        let workers = [Worker::Panic(When::Teardown), Worker::Farewell];
        let mut main = clusters(placement, &[&workers, &[Worker::Farewell]]);
        main.run(Run::until_idle()).unwrap();
        let shutdown = main.shutdown();
        assert_eq!(shutdown.errors.len(), 1, "{shutdown:?}");
        assert!(shutdown.errors[0].to_string().contains("teardown"));
    }
}

#[test]
fn an_agent_that_never_returns_is_stuck() {
    for placement in PROCESSES {
        let mut main = clusters(placement, &[&[], &[Worker::Stuck]]);
        main.send_mail(go(1));
        main.start().unwrap();
        let pids = pids(&main);
        let timeout = std::time::Duration::from_millis(10);
        let error = loop {
            match main.run(Run::until_idle().timeout(timeout)) {
                Err(error) => break error,
                // On a busy machine the time may be up before the agent is called at all.
                Ok(report) => assert_eq!(report.stopped_by, StopReason::Timeout),
            }
        };
        assert!(
            matches!(&error, Error::Stuck { cluster, .. } if cluster == "2"),
            "{error}"
        );
        let process = format!("cluster 2 (process {})", pids[1]);
        let text = format!("{process} has been updating agent 1 for ");
        assert!(error.to_string().contains(&text), "{error}");
        assert!(!pids.iter().any(|pid| exists(*pid)));
    }
}

#[test]
fn what_a_program_prints_that_returns_an_error_is_its_text_with_all_causes() {
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    let spawn = maslite_mp::SpawnError::Spawn {
        cluster: 0,
        name: "pier".to_owned(),
        source: missing,
    };
    let error = Error::Start(spawn);
    let text = "the clusters could not be started: the process of cluster pier (0) could not be started: entity not found";
    assert_eq!(format!("{error:?}"), text);
    let structure = format!("{error:#?}");
    assert!(structure.starts_with("Start(\n    Spawn {"), "{structure}");

    let mut main = MpMain::builder(agents())
        .on(TestPlacement::Inline)
        .build()
        .unwrap();
    let cluster = main.new_cluster();
    main.add_to(cluster, 1, Worker::Panic(When::Update))
        .unwrap();
    main.send_mail(go(1));
    let error = main.run(Run::until_idle()).unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn mail_for_nobody_is_counted_as_undeliverable() {
    for placement in ALL {
        let nobody = AgentId::from("nobody");
        let tell = Worker::Tell(nobody, "hello".to_owned());
        let mut main = clusters(placement, &[&[tell], &[Worker::Farewell]]);
        main.send_mail(go(1));
        main.send_mail(go(99));
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(report.total.undeliverable, 2, "{report}");
        assert_eq!(
            (report.total.sent, report.total.delivered),
            (3, 1),
            "{report}"
        );
    }
}

#[test]
fn what_cannot_be_added_is_refused_by_name() {
    let mut main = MpMain::builder(agents())
        .on(TestPlacement::Inline)
        .build()
        .unwrap();
    let cluster = main.new_cluster();
    let other = main.new_cluster();
    main.add_to(cluster, "crane", Worker::TellPid).unwrap();
    let twice = main.add_to(other, "crane", Worker::TellPid).unwrap_err();
    assert!(
        twice.to_string().contains("crane was added twice"),
        "{twice}"
    );

    #[derive(serde::Serialize)]
    struct Unregistered;
    impl Agent<Msg> for Unregistered {}
    let unregistered = main.add_to(cluster, 2, Unregistered).unwrap_err();
    assert!(
        matches!(unregistered, Error::UnknownAgentType { .. }),
        "{unregistered}"
    );
    assert!(
        unregistered.to_string().contains("Unregistered"),
        "{unregistered}"
    );

    let unknown = main.build(cluster, "factory", 3_u64).unwrap_err();
    assert!(unknown.to_string().contains("listeners"), "{unknown}");
}

#[test]
fn ids_that_builders_use_twice_are_refused_before_the_first_superstep() {
    for placement in ALL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        let (east, west) = (main.new_cluster(), main.new_cluster());
        main.build(east, "listeners", vec![1_u64, 2]).unwrap();
        main.build(west, "listeners", vec![3_u64, 2]).unwrap();
        let error = main.run(Run::until_idle()).unwrap_err();
        assert!(
            error.to_string().contains("agent 2 was added twice"),
            "{error}"
        );
        assert_eq!(main.counters().supersteps, 0);
    }
}

#[test]
fn a_configuration_that_is_another_ones_is_refused() {
    for placement in ALL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        let cluster = main.new_cluster();
        // Nothing at all is no list of ids.
        main.build(cluster, "listeners", ()).unwrap();
        let error = main.run(Run::until_idle()).unwrap_err();
        assert!(
            error.to_string().contains("builder \"listeners\""),
            "{error}"
        );
    }
}
