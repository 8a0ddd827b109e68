//! When simulated time stands still, a warning says which cluster blocks it.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use maslite_mp::MpMainBuilder;
use maslite_mp::core::Phase;
use maslite_mp::prelude::*;
use maslite_mp::{Activity, Standstill, TimeBlocker, Warning};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};
use crate::workers::{Gate, Msg, Worker, agents, clusters_with, go, pids, signal};

/// How long time may stand: short, since all of these tests wait for it to pass.
const PATIENCE: Duration = Duration::from_millis(20);

/// Long enough for anything that happens at all: as standstills last, warnings become rare.
const LONG: Duration = Duration::from_secs(40);

/// Warnings of standstills, as they come.
struct Warnings(Receiver<Standstill>);

/// These settings with little patience.
fn impatient(settings: MpMainBuilder<Msg>) -> (MpMainBuilder<Msg>, Warnings) {
    let (sender, warnings) = mpsc::channel();
    let settings = settings
        .warning_after(Some(PATIENCE))
        .warnings(move |warning| {
            if let Warning::Standstill(it) = warning {
                let _ = sender.send(it.clone());
            }
        });
    (settings, Warnings(warnings))
}

/// Workers under a supervisor with little patience.
fn impatient_with(
    placement: TestPlacement,
    workers: &[&[Worker]],
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> (MpMain<Msg>, Warnings) {
    let mut kept = None;
    let main = clusters_with(placement, workers, |it| {
        let (it, warnings) = impatient(settings(it));
        kept = Some(warnings);
        it
    });
    (main, kept.expect("the settings were asked for"))
}

impl Warnings {
    /// Waits for one in which a cluster blocks simulated time in this way. A loaded machine may
    /// give others before, in which a process had no time to begin.
    fn with(&self, fits: impl Fn(&TimeBlocker) -> bool) -> Standstill {
        loop {
            let warning = self.0.recv_timeout(LONG).expect("such a warning");
            if warning.blockers.iter().any(&fits) {
                return warning;
            }
        }
    }
}

#[test]
fn an_agent_that_does_not_return_is_named_with_those_who_wait() {
    for placement in ALL {
        let gate = Gate::new("named");
        let (settings, warnings) = impatient(MpMain::builder(agents()).on(placement));
        let mut main = settings.build().unwrap();
        let names = ["north", "east", "south"];
        let [north, east, south] = names.map(|name| main.new_cluster_named(name).unwrap());
        let worker = gate.worker(SimDuration::from_secs(3));
        main.add_to(north, "conveyor-3", worker).unwrap();
        main.add_to(east, 1, Worker::Farewell).unwrap();
        main.add_to(south, 2, Worker::Farewell).unwrap();
        let conveyor = AgentId::from("conveyor-3");
        main.send(conveyor, Msg::Go);
        main.start().unwrap();
        let pid = (!placement.is_inline()).then(|| pids(&main)[0]);

        let mut warning = thread::scope(|scope| {
            let gate = &gate;
            let watcher = scope.spawn(move || {
                let _held = gate.somebody();
                let in_agent = Activity::InAgent(Phase::Update);
                warnings.with(|blocker| blocker.activity == in_agent && !blocker.since.is_zero())
            });
            main.run(Run::until_idle()).unwrap();
            watcher.join().unwrap()
        });
        assert_eq!(warning.time, SimTime::from_secs(3));
        assert!(warning.stood >= PATIENCE, "{warning:?}");
        assert_eq!(warning.waiting, ["east", "south"]);
        let [blocker] = warning.blockers.as_slice() else {
            panic!("{warning:?}");
        };
        assert_eq!(blocker.cluster.as_deref(), Some("north"));
        assert_eq!((blocker.pid, blocker.agent), (pid, Some(conveyor)));
        let instant = (blocker.time, blocker.superstep);
        assert_eq!(instant, (Some(SimTime::from_secs(3)), Some(0)));
        assert!(blocker.since >= PATIENCE / 2, "{warning:?}");

        warning.stood = Duration::from_secs(5);
        warning.blockers[0].since = Duration::from_millis(2_500);
        let process = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
        assert_eq!(
            warning.to_string(),
            format!(
                "simulated time has stood at 3 s for 5.0 s of wall time: cluster north{process} \
                 has been updating agent conveyor-3 for 2.5 s or longer, superstep 0; \
                 clusters east and south wait"
            )
        );
    }
}

#[test]
fn under_a_lookahead_it_is_named_as_well() {
    for placement in ALL {
        let gate = Gate::new("ahead");
        let worker = gate.worker(SimDuration::from_secs(3));
        let workers: [&[Worker]; 2] = [&[Worker::Farewell], &[worker]];
        let (mut main, warnings) = impatient_with(placement, &workers, |settings| {
            settings.lookahead(SimDuration::from_secs(1))
        });
        main.send_mail(go(2));
        let warning = thread::scope(|scope| {
            let gate = &gate;
            let watcher = scope.spawn(move || {
                let _held = gate.somebody();
                warnings.with(|blocker| blocker.agent == Some(AgentId::from(2)))
            });
            main.run(Run::until_idle()).unwrap();
            watcher.join().unwrap()
        });
        assert_eq!(warning.time, SimTime::from_secs(3));
        assert_eq!(warning.waiting, ["1"]);
    }
}

#[test]
fn a_stopped_child_is_told_from_a_busy_one_and_may_go_on() {
    let gate = Gate::new("stopped");
    let worker = gate.worker(SimDuration::from_secs(3));
    let workers: [&[Worker]; 2] = [&[worker], &[Worker::Farewell]];
    let (mut main, warnings) = impatient_with(TestPlacement::Ring, &workers, |settings| settings);
    main.send_mail(go(1));
    main.start().unwrap();
    let pid = pids(&main)[0];
    let (warning, report) = thread::scope(|scope| {
        let gate = &gate;
        let watcher = scope.spawn(move || {
            let _held = gate.somebody();
            signal("STOP", pid);
            let warning = warnings.with(|blocker| blocker.activity == Activity::Stopped);
            signal("CONT", pid);
            warning
        });
        let report = main.run(Run::until_idle()).unwrap();
        (watcher.join().unwrap(), report)
    });
    assert_eq!(report.stopped_by, StopReason::Idle);
    assert_eq!(report.now, SimTime::from_secs(3));
    let [blocker] = warning.blockers.as_slice() else {
        panic!("{warning:?}");
    };
    assert_eq!(
        (blocker.cluster.as_deref(), blocker.pid),
        (Some("1"), Some(pid))
    );
    assert_eq!((blocker.agent, blocker.time), (None, None));
    assert_eq!(warning.waiting, ["2"]);
}

#[test]
fn an_exchange_that_goes_on_is_told_from_an_agent_that_does_not_return() {
    let across = [Worker::Forward(2.into()), Worker::Forward(1.into())];
    for placement in ALL {
        for workers in [
            [&across[..1], &across[1..]],
            // In one cluster, which is then alone.
            [&[Worker::Forever], &[Worker::Farewell]],
        ] {
            let (mut main, warnings) = impatient_with(placement, &workers, |settings| settings);
            main.send_mail(go(1));
            let stop = main.stop_handle();
            let warning = thread::scope(|scope| {
                let watcher = scope.spawn(move || {
                    let warning = warnings
                        .with(|blocker| matches!(blocker.activity, Activity::Exchange { .. }));
                    stop.stop();
                    warning
                });
                let run = Run::until_idle()
                    .supersteps_per_instant(u64::MAX)
                    .timeout(LONG);
                let report = main.run(run).unwrap();
                assert_eq!(report.stopped_by, StopReason::Interrupted);
                watcher.join().unwrap()
            });
            assert_eq!(warning.time, SimTime::ZERO);
            let exchanging = |blocker: &&TimeBlocker| match blocker.activity {
                Activity::Exchange { supersteps } => supersteps > 1,
                _ => false,
            };
            let blocker = warning.blockers.iter().find(exchanging).unwrap();
            let cluster = blocker.cluster.as_deref().unwrap();
            assert!(blocker.superstep > Some(1), "{warning:?}");
            if let Some(agent) = blocker.agent {
                assert_eq!(
                    agent.to_string(),
                    cluster,
                    "each has one agent of its number"
                );
            }
        }
    }
}

#[test]
fn main_itself_is_named() {
    for placement in ALL {
        let workers: [&[Worker]; 2] = [&[Worker::TellPid], &[Worker::Farewell]];
        let (mut main, warnings) = impatient_with(placement, &workers, |settings| settings);
        main.send_mail(go(1));
        let mut seen = None;
        main.run_with(Run::until_idle(), |_, _| {
            seen = Some(warnings.with(|blocker| blocker.activity == Activity::Handler));
        })
        .unwrap();
        let warning = seen.unwrap();
        assert_eq!(warning.blockers.len(), 1, "{warning:?}");
        assert_eq!(warning.blockers[0].cluster, None);
        assert_eq!(warning.waiting, ["1", "2"]);
        let text = warning.to_string();
        assert!(
            text.contains("main itself is in the handler of its mail"),
            "{text}"
        );

        let run = Run::until_idle().stop_when(move |_| {
            warnings.with(|blocker| blocker.activity == Activity::Predicate);
            true
        });
        assert_eq!(main.run(run).unwrap().stopped_by, StopReason::Predicate);
    }
}
