//! Whatever an agent or a process does, there is one clear error, and no process is left.

use maslite_core::{Error as ModelError, Phase};
use maslite_mp::prelude::*;
use maslite_mp::{Error, ExitKind};

use crate::workers::{BOTH, Msg, When, Worker, agents, clusters, exists, go, kill, pids};

/// The error of a run in which agent 2, in the second cluster, does its thing.
fn error_of(placement: Placement, worker: Worker) -> Error {
    let mut main = clusters(placement, &[&[Worker::Farewell], &[worker]]);
    main.send(go(2));
    main.start().unwrap();
    let pids = pids(&main);
    let error = main.run(Run::until_idle()).unwrap_err();
    if placement == Placement::Processes {
        assert!(!pids.iter().any(|pid| exists(*pid)), "{error}");
    }
    assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
    error
}

#[test]
fn a_killed_child_is_an_error_that_names_the_cluster() {
    let mut main = clusters(
        Placement::Processes,
        &[&[Worker::Farewell], &[Worker::TellPid]],
    );
    main.start().unwrap();
    let pids = pids(&main);
    kill(pids[1]);
    main.send(go(2));
    let error = main.run(Run::until_idle()).unwrap_err();
    let Error::ChildDied {
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

#[test]
fn a_child_that_dies_at_work_is_named_with_its_end() {
    for (worker, expected) in [
        (Worker::KillItself, ExitKind::Signal(9)),
        (Worker::Exit(0), ExitKind::Success),
        (Worker::Exit(7), ExitKind::Code(7)),
    ] {
        match error_of(Placement::Processes, worker) {
            Error::ChildDied { cluster, exit, .. } => {
                assert_eq!((cluster.as_str(), exit), ("2", expected));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_panic_is_an_error_that_names_the_agent() {
    for placement in BOTH {
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
    for placement in BOTH {
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
    let mut main = clusters(Placement::Processes, &[&[], &[Worker::Stuck]]);
    main.send(go(1));
    main.start().unwrap();
    let pids = pids(&main);
    let timeout = std::time::Duration::from_millis(10);
    let error = main.run(Run::until_idle().timeout(timeout)).unwrap_err();
    assert!(
        matches!(&error, Error::Stuck { cluster, .. } if cluster == "2"),
        "{error}"
    );
    let process = format!("cluster 2 (process {})", pids[1]);
    let text = format!("{process} has been updating agent 1 for ");
    assert!(error.to_string().contains(&text), "{error}");
    assert!(!pids.iter().any(|pid| exists(*pid)));
}

#[test]
fn mail_for_nobody_is_counted_as_undeliverable() {
    for placement in BOTH {
        let nobody = AgentId::from("nobody");
        let tell = Worker::Tell(nobody, "hello".to_owned());
        let mut main = clusters(placement, &[&[tell], &[Worker::Farewell]]);
        main.send(go(1));
        main.send(go(99));
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(report.counters.undeliverable, 2, "{report}");
        assert_eq!(
            (report.counters.sent, report.counters.delivered),
            (3, 1),
            "{report}"
        );
    }
}

#[test]
fn what_cannot_be_added_is_refused_by_name() {
    let mut main = MpMain::new(agents())
        .unwrap()
        .with_placement(Placement::Inline);
    let cluster = main.new_scheduler();
    let other = main.new_scheduler();
    main.add(cluster, "crane", Worker::TellPid).unwrap();
    let twice = main.add(other, "crane", Worker::TellPid).unwrap_err();
    assert!(
        twice.to_string().contains("crane was added twice"),
        "{twice}"
    );

    #[derive(serde::Serialize)]
    struct Unregistered;
    impl Agent<Msg> for Unregistered {}
    let unregistered = main.add(cluster, 2, Unregistered).unwrap_err();
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
    for placement in BOTH {
        let mut main = MpMain::new(agents()).unwrap().with_placement(placement);
        let (east, west) = (main.new_scheduler(), main.new_scheduler());
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
    for placement in BOTH {
        let mut main = MpMain::new(agents()).unwrap().with_placement(placement);
        let cluster = main.new_scheduler();
        // Nothing at all is no list of ids.
        main.build(cluster, "listeners", ()).unwrap();
        let error = main.run(Run::until_idle()).unwrap_err();
        assert!(
            error.to_string().contains("builder \"listeners\""),
            "{error}"
        );
    }
}
