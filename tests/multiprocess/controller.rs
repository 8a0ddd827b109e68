//! A run that is steered from other threads: the same in every placement, and undisturbed where
//! nothing was changed.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maslite_core::AgentRng;
use maslite_mp::MpMainBuilder;
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_mp::{ControlError, Error, Halt, RunState};
use rand::RngExt;

use crate::commands::{Msg, PLAYERS, Player, everywhere, game, game_with, token};
use crate::test_placement::{ALL, TestPlacement};
use crate::workers::{self, Gate, Worker, clusters, exists, go, kill};

/// How a run ended; it would have ended the same without a controller.
type Outcome = (StopReason, SimTime, Counters, Option<Digest>);

fn outcome(report: &MpReport) -> Outcome {
    let Report {
        stopped_by,
        now,
        total,
        digest,
        ..
    } = report.run;
    (stopped_by, now, total, digest)
}

/// Four tokens of `hops` hops, in three clusters.
fn tokens(placement: TestPlacement, lookahead: u64, hops: u64) -> MpMain<Msg> {
    tokens_with(placement, lookahead, hops, |settings| settings)
}

fn tokens_with(
    placement: TestPlacement,
    lookahead: u64,
    hops: u64,
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> MpMain<Msg> {
    let mut main = game_with(placement, 3, lookahead, settings);
    send_tokens(&mut main, hops);
    main
}

fn send_tokens(main: &mut MpMain<Msg>, hops: u64) {
    (1..=4).for_each(|player| main.send_mail(token(player, hops)));
}

fn undisturbed(placement: TestPlacement, lookahead: u64, hops: u64) -> Outcome {
    let mut main = tokens(placement, lookahead, hops);
    outcome(&main.run(Run::until_idle()).unwrap())
}

/// Steers from another thread.
fn steer<T: Send + 'static>(
    main: &MpMain<Msg>,
    what: impl FnOnce(Controller<Msg>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let controller = main.controller();
    thread::spawn(move || what(controller))
}

#[test]
fn agents_are_read_while_they_run() {
    everywhere(|placement, lookahead| {
        let mut main = tokens(placement, lookahead, 150);
        main.pause();
        let reader = steer(&main, |controller| {
            controller.resume().unwrap();
            let (mut reads, mut last) = (0, 0);
            // Until the simulation is gone.
            let error = loop {
                let all = Audience::all().of_type::<Player>();
                let players = match controller.command_all(all, Msg::Count(0)) {
                    Ok(players) => players,
                    Err(error) => break error,
                };
                assert_eq!(players.len() as u64, PLAYERS);
                let seen = players.into_iter().map(|(_, answer)| match answer {
                    Ok(Msg::Count(seen)) => seen,
                    other => panic!("{other:?}"),
                });
                let seen: u64 = seen.sum();
                assert!(seen >= last, "{seen} after {last}");
                (reads, last) = (reads + 1, seen);
                match controller.inspect::<Player>(1) {
                    Ok(player) => assert!(player.seen <= 4 * 151),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, ControlError::Ended);
            reads
        });
        let report = main.run(Run::until_idle()).unwrap();
        drop(main);
        assert!(reader.join().unwrap() > 0);
        let expected = undisturbed(placement, lookahead, 150);
        assert_eq!(outcome(&report), expected, "{placement:?} {lookahead}");
    });
}

/// Pauses the runs of four clusters at `pauses` random moments, in as many runs as that takes.
fn pause_often(placement: TestPlacement, lookahead: u64, pauses: usize) {
    let hops = 500;
    let run_on = |main: &mut MpMain<Msg>| {
        send_tokens(main, hops);
        outcome(&main.run(Run::until_idle()).unwrap())
    };
    let mut main = game(placement, 4, lookahead);
    let pauser = steer(&main, move |controller| {
        let mut rng = AgentRng::new(7, AgentId::from(lookahead));
        let mut seen = Vec::new();
        while seen.len() < pauses {
            // A moment by chance, and no clock is needed for it.
            for _ in 0..rng.random_range(0..20_000) {
                std::hint::spin_loop();
            }
            let halt = controller.pause().unwrap();
            let status = controller.status();
            if matches!(halt, Halt::Ended(..)) {
                continue;
            }
            assert_eq!(status.state, RunState::Paused);
            assert_eq!((status.time, status.clusters.len()), (halt.time(), 4));
            for cluster in &status.clusters {
                assert_eq!(cluster.time, halt.time(), "{halt:?}: {status:?}");
                assert!(!cluster.at_work);
            }
            seen.push(halt.time());
            controller.resume().unwrap();
        }
        seen
    });
    let mut outcomes = Vec::new();
    while !pauser.is_finished() {
        outcomes.push(run_on(&mut main));
    }
    let seen = pauser.join().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.len(), pauses);
    let mut undisturbed = game(placement, 4, lookahead);
    let expected: Vec<_> = outcomes.iter().map(|_| run_on(&mut undisturbed)).collect();
    assert_eq!(outcomes, expected, "{placement:?} {lookahead}");
}

#[test]
fn after_a_pause_all_clusters_stand_at_one_instant() {
    everywhere(|placement, lookahead| pause_often(placement, lookahead, 20));
}

/// As the one above: `cargo test --release --test multiprocess thousand -- --ignored`.
#[test]
#[ignore = "takes a while"]
fn after_a_thousand_pauses_too() {
    everywhere(|placement, lookahead| pause_often(placement, lookahead, 1_000));
}

#[test]
fn a_run_is_stepped_by_supersteps() {
    for placement in ALL {
        let mut main = tokens(placement, 0, 30);
        main.pause();
        let stepper = steer(&main, |controller| {
            let steps = (0..40).map(|_| {
                controller.step(1).unwrap();
                controller.status().supersteps
            });
            let steps: Vec<u64> = steps.collect();
            controller.step(7).unwrap();
            (steps, controller.status().supersteps)
        });
        let report = main.run(Run::until_idle()).unwrap();
        let (steps, last) = stepper.join().unwrap();
        assert_eq!(steps, (1..=40).collect::<Vec<_>>());
        assert_eq!(last, 47);
        assert_eq!(outcome(&report), undisturbed(placement, 0, 30));
    }
}

#[test]
fn a_run_is_stepped_by_instants() {
    everywhere(|placement, lookahead| {
        let times: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&times);
        let mut main = tokens_with(placement, lookahead, 30, |it| {
            it.trace(move |line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let time = line["t_ns"].to_string();
                let mut times = written.lock().unwrap();
                if times.last() != Some(&time) {
                    times.push(time);
                }
            })
        });
        main.pause();
        let stepper = steer(&main, |controller| {
            let mut instants = vec![SimTime::ZERO];
            loop {
                match controller.step_instant().unwrap() {
                    Halt::Paused(time) => instants.push(time),
                    end => return (instants, end),
                }
            }
        });
        let report = main.run(Run::until_idle()).unwrap();
        let (instants, end) = stepper.join().unwrap();
        assert_eq!(end, Halt::Ended(report.now, StopReason::Idle));
        assert!(instants.len() > 20 && instants.is_sorted());
        let instants = instants.iter().map(|time| time.as_nanos().to_string());
        let mut instants: Vec<_> = instants.collect();
        let times = times.lock().unwrap();
        if lookahead > 0 {
            // There are also those at which nothing happens but that mail leaves.
            instants.retain(|time| times.contains(time));
        }
        assert_eq!(instants, *times);
        assert_eq!(outcome(&report), undisturbed(placement, lookahead, 30));
    });
}

#[test]
fn mail_from_outside_is_as_mail_of_the_owner_at_that_instant() {
    everywhere(|placement, lookahead| {
        let (early, late) = (SimTime::from_millis(5), SimTime::from_millis(9));
        let mut main = tokens(placement, lookahead, 20);
        main.pause();
        let sender = steer(&main, move |controller| {
            assert_eq!(controller.run_until(early).unwrap(), Halt::Paused(early));
            assert_eq!(controller.send_mail(token(6, 9)).unwrap(), early);
            assert_eq!(controller.send_mail(token(7, 9)).unwrap(), early);
            // It is there, and no agent has read it.
            let before = controller.inspect::<Player>(6).unwrap();
            assert_eq!(controller.inspect::<Player>(6).unwrap(), before);
            // It is past.
            assert_eq!(controller.run_until(early).unwrap(), Halt::Paused(early));
            assert_eq!(controller.run_until(late).unwrap(), Halt::Paused(late));
            assert_eq!(controller.send_mail(token(8, 9)).unwrap(), late);
            controller.resume().unwrap();
        });
        let steered = outcome(&main.run(Run::until_idle()).unwrap());
        sender.join().unwrap();

        let mut main = tokens(placement, lookahead, 20);
        main.run(Run::until(early)).unwrap();
        main.send_mail(token(6, 9));
        main.send_mail(token(7, 9));
        main.run(Run::until(late)).unwrap();
        main.send_mail(token(8, 9));
        let cut = outcome(&main.run(Run::until_idle()).unwrap());
        assert_eq!(steered, cut, "{placement:?} {lookahead}");
    });
}

#[test]
fn what_a_command_changes_is_changed() {
    everywhere(|placement, lookahead| {
        let mut main = tokens(placement, lookahead, 20);
        main.pause();
        let changer = steer(&main, |controller| {
            controller.run_until(SimTime::from_millis(5)).unwrap();
            for id in 1..=PLAYERS {
                controller.command(id, Msg::Reset(1_000)).unwrap();
            }
            let taken = controller.take_out::<Player>(3).unwrap();
            controller.replace(4, Player { seen: 5_000 }).unwrap();
            assert_eq!(controller.agents().unwrap().len() as u64, PLAYERS);
            taken
        });
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(changer.join().unwrap().seen, 1_000);
        assert_eq!(report.total.agents, PLAYERS);
        assert!(main.inspect::<Player>(4).unwrap().seen >= 5_000);
        assert!(main.inspect::<Player>(5).unwrap().seen >= 1_000);
    });
}

/// Has a player work for so long, which must be longer than any machine is busy with something
/// else, and waits until it does.
fn put_to_work(controller: &Controller<Msg>, player: u64, milliseconds: u64) {
    let work = Msg::Work(milliseconds);
    let mail = Mail::new(AgentId::MAIN, AgentId::from(player), work);
    controller.send_mail(mail).unwrap();
    controller.resume().unwrap();
    // The superstep that begins with this.
    while !controller
        .status()
        .clusters
        .iter()
        .any(|cluster| cluster.at_work)
    {
        std::hint::spin_loop();
    }
}

#[test]
fn status_answers_while_an_agent_works() {
    for placement in ALL {
        let gate = Gate::new(&format!("status-{placement:?}"));
        let worker = gate.worker(SimDuration::from_millis(1));
        let mut main = clusters(placement, &[&[worker], &[]]);
        main.send_mail(go(1));
        let controller = main.controller();
        let asker = thread::spawn(move || {
            let at_work = gate.somebody();
            for _ in 0..1_000 {
                let clusters = controller.status().clusters;
                assert!(clusters.iter().any(|cluster| cluster.at_work));
            }
            drop(at_work);
        });
        main.run(Run::until_idle()).unwrap();
        asker.join().unwrap();
    }
}

/// A requester waits longer than a stuck cluster is given.
#[test]
fn a_pause_waits_for_an_agent_at_work() {
    let gate = Gate::new("pause");
    let worker = gate.worker(SimDuration::ZERO);
    let mut main = clusters(TestPlacement::Ring, &[&[worker], &[Worker::Forever]]);
    let begin = workers::Msg::Word("begin".to_owned());
    main.send_mail(Mail::new(AgentId::MAIN, AgentId::from(1), begin));
    main.send_mail(go(2));
    let controller = main.controller();
    let pauser = thread::spawn(move || {
        let at_work = gate.somebody();
        let begin = wall();
        let work = thread::spawn(move || {
            // Nothing is to happen in that time.
            thread::park_timeout(Duration::from_millis(2_600));
            drop(at_work);
        });
        assert!(matches!(controller.pause().unwrap(), Halt::Paused(_)));
        work.join().unwrap();
        controller.stop();
        begin.elapsed()
    });
    let run = Run::until_idle().supersteps_per_instant(u64::MAX);
    let report = main.run(run).unwrap();
    assert!(pauser.join().unwrap() > Duration::from_millis(2_100));
    assert_eq!(report.stopped_by, StopReason::Interrupted);
}

#[test]
fn stop_ends_a_run_whose_agent_never_returns() {
    let mut main = tokens(TestPlacement::Ring, 0, 5);
    main.pause();
    let stopper = steer(&main, |controller| {
        put_to_work(&controller, 1, 3_600_000);
        // It waits for the agent, and is told what became of it.
        let patient = controller.clone();
        let patient = thread::spawn(move || patient.inspect::<Player>(1));
        controller.stop();
        patient.join().unwrap()
    });
    let begin = wall();
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(matches!(error, Error::Stuck { .. }), "{error}");
    // The agent would work for an hour.
    assert!(begin.elapsed() < Duration::from_secs(600));
    let told = stopper.join().unwrap().unwrap_err();
    assert!(matches!(told, ControlError::Failed(_)), "{told}");
}

#[test]
fn stop_ends_a_run_that_is_paused() {
    everywhere(|placement, lookahead| {
        let mut main = tokens(placement, lookahead, 20);
        main.pause();
        let stopper = steer(&main, |controller| {
            controller.step(2).unwrap();
            controller.stop();
        });
        let report = main.run(Run::until_idle()).unwrap();
        stopper.join().unwrap();
        assert_eq!(report.stopped_by, StopReason::Interrupted);
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(outcome(&report), undisturbed(placement, lookahead, 20));
    });
}

#[test]
fn a_timeout_ends_a_run_that_is_paused() {
    everywhere(|placement, lookahead| {
        let mut main = tokens(placement, lookahead, 20);
        main.pause();
        let controller = main.controller();
        let run = Run::until_idle().timeout(Duration::from_millis(20));
        let report = main.run(run).unwrap();
        assert_eq!(report.stopped_by, StopReason::Timeout);
        assert_eq!(controller.status().state, RunState::Resting);
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(outcome(&report), undisturbed(placement, lookahead, 20));
    });
}

#[test]
fn a_pause_that_nobody_can_end_is_over() {
    everywhere(|placement, lookahead| {
        let mut main = tokens(placement, lookahead, 20);
        main.pause();
        let leaver = steer(&main, |controller| {
            controller.step(3).unwrap();
        });
        let report = main.run(Run::until_idle()).unwrap();
        leaver.join().unwrap();
        assert_eq!(outcome(&report), undisturbed(placement, lookahead, 20));
    });
}

#[test]
fn a_cluster_that_dies_during_a_pause_is_named_to_who_asks() {
    let mut main = tokens(TestPlacement::Ring, 0, 20);
    main.start().unwrap();
    let pids: Vec<u32> = main.pids().into_iter().map(|(_, pid)| pid).collect();
    main.pause();
    let asker = steer(&main, move |controller| {
        controller.step(1).unwrap();
        kill(pids[0]);
        let error = controller.inspect::<Player>(3).unwrap_err();
        (error, controller.inspect::<Player>(1).unwrap_err(), pids)
    });
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(matches!(error, Error::ClusterDied { .. }), "{error}");
    let (first, second, pids) = asker.join().unwrap();
    assert!(
        matches!(&first, ControlError::ClusterDied { cluster, .. } if cluster == "1"),
        "{first}"
    );
    assert_eq!(first, second);
    assert!(!pids.iter().any(|pid| exists(*pid)));
}

#[test]
fn the_thread_that_runs_cannot_steer() {
    for placement in ALL {
        let mut main = tokens(placement, 0, 0);
        let controller = main.controller();
        main.send(1, Msg::Work(0));
        let mut error = None;
        main.run_with(Run::until_idle(), |_, _| {
            error = controller.pause().err();
        })
        .unwrap();
        assert_eq!(error, Some(ControlError::OwnThread));
    }
}

/// Commands of several threads at once.
fn command_often(placement: TestPlacement, lookahead: u64, commands: u64) {
    const THREADS: u64 = 4;
    let hops = 200;
    let mut main = tokens(placement, lookahead, hops);
    main.pause();
    let threads = (1..=THREADS).map(|thread| {
        steer(&main, move |controller| {
            for command in 0..commands / THREADS {
                if command == commands / THREADS / 2 {
                    // Half of them while it is paused, half of them while it runs if it still does.
                    controller.step(thread * 10).unwrap();
                }
                let player = (command + thread) % PLAYERS + 1;
                controller.command(player, Msg::Count(0)).unwrap();
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    let report = main.run(Run::until_idle()).unwrap();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let expected = undisturbed(placement, lookahead, hops);
    assert_eq!(outcome(&report), expected, "{placement:?} {lookahead}");
}

#[test]
fn thousands_of_commands_are_answered() {
    everywhere(|placement, lookahead| command_often(placement, lookahead, 2_000));
}

#[test]
#[ignore = "takes a while"]
fn a_hundred_thousand_commands_are_answered() {
    everywhere(|placement, lookahead| command_often(placement, lookahead, 100_000));
}
