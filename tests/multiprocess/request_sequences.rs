//! Random sequences of requests from several sides against a run that goes on: no sequence makes
//! main panic, and none that only looks and steers changes the result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use maslite_core::AgentRng;
use maslite_mp::control::protocol::{Reply, Request};
use maslite_mp::control::{AskError, ask};
use maslite_mp::prelude::*;
use maslite_mp::{ControlError, Halt};
use rand::RngExt;

use crate::commands::{Msg, PLAYERS, Player, Spectator, everywhere, game, token};
use crate::test_placement::{ALL_AND_FORGETFUL, TestPlacement};

/// Longer than anything here takes, and shorter than a test may hang.
const LIMIT: Option<Duration> = Some(Duration::from_secs(600));

fn rng(seed: u64, of: u64) -> AgentRng {
    AgentRng::new(seed, AgentId::from(of))
}

/// A time in the past, now, soon, or at an edge of time.
fn some_time(rng: &mut AgentRng, now: SimTime) -> SimTime {
    let millis = SimDuration::from_millis(rng.random_range(0..20));
    match rng.random_range(0..8) {
        0 => SimTime::ZERO,
        1 => now.saturating_sub(millis),
        2 => now,
        3 => now.saturating_add(SimDuration::from_nanos(1)),
        4 => SimTime::MAX.saturating_sub(SimDuration::from_nanos(rng.random_range(0..2))),
        _ => now.saturating_add(millis),
    }
}

fn some_count(rng: &mut AgentRng) -> u64 {
    match rng.random_range(0..4) {
        0 => 0,
        1 => u64::MAX - rng.random_range(0..2),
        _ => rng.random_range(1..6),
    }
}

fn some_agent(rng: &mut AgentRng) -> AgentId {
    match rng.random_range(0..10) {
        0 => AgentId::from("fan"),
        1 => AgentId::MAIN,
        2 => AgentId::from(1_000),
        _ => AgentId::from(rng.random_range(1..=PLAYERS)),
    }
}

/// Has a controller look and steer by chance. False if the run has ended.
fn steer(controller: &Controller<Msg>, rng: &mut AgentRng) -> Result<bool, ControlError> {
    let now = controller.status().time;
    let halt = match rng.random_range(0..9) {
        0 => controller.pause()?,
        1 => controller.step(some_count(rng))?,
        2 => controller.step_instant()?,
        3 | 4 => controller.run_until(some_time(rng, now))?,
        5 => {
            let limit = [Duration::ZERO, Duration::from_millis(1), Duration::MAX];
            let status = controller.look(limit[rng.random_range(0..3)]);
            assert!(status.time >= now, "time went back");
            return Ok(true);
        }
        6 => {
            controller.resume()?;
            return Ok(true);
        }
        7 => {
            let _ = agent_answer(controller.inspect::<Player>(some_agent(rng)))?;
            return Ok(true);
        }
        _ => {
            controller.command_all(Audience::all(), Msg::Count(0))?;
            controller.agents()?;
            return Ok(true);
        }
    };
    assert!(halt.time() >= now, "{halt:?} after {now}");
    Ok(matches!(halt, Halt::Paused(_)))
}

/// Whether an agent has answered; what ends the simulation is an error.
fn agent_answer<T>(answer: Result<T, ControlError>) -> Result<bool, ControlError> {
    match answer {
        Ok(_) => Ok(true),
        Err(ControlError::Agent(_) | ControlError::Unregistered { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Has a controller change agents and send mail by chance.
fn meddle(controller: &Controller<Msg>, rng: &mut AgentRng) -> Result<bool, ControlError> {
    let agent = some_agent(rng);
    match rng.random_range(0..8) {
        0 => drop(controller.send_mail(token(rng.random_range(1..12), rng.random_range(0..30)))?),
        1 => {
            let mail = Mail::new(agent, Receiver::Subscribers, Msg::Work(0));
            controller.send_mail(mail)?;
        }
        2 => drop(agent_answer(controller.take_out::<Player>(agent))?),
        3 => drop(agent_answer(controller.take_out::<Spectator>(agent))?),
        4 => drop(agent_answer(
            controller.replace(agent, Player { seen: 1 << 40 }),
        )?),
        5 => drop(agent_answer(controller.command(agent, Msg::Panic))?),
        6 => drop(agent_answer(controller.command(agent, Msg::Reset(3)))?),
        _ => controller.stop(),
    }
    Ok(true)
}

/// Asks the control socket for something by chance; false if there is no answer to expect any more.
fn ask_by_chance(path: &Path, rng: &mut AgentRng) -> bool {
    let now = match ask(path, Request::Status, LIMIT) {
        Ok(Reply::Status(status)) => status.time,
        _ => return false,
    };
    let supersteps = some_count(rng);
    let request = match rng.random_range(0..8) {
        0 => Request::Pause,
        1 => Request::Step { supersteps },
        2 => Request::StepInstant,
        3 => Request::RunUntil {
            time: some_time(rng, now),
        },
        4 => Request::Resume,
        5 => Request::Agents {
            from: some_count(rng),
            limit: some_count(rng),
        },
        6 => Request::Agent {
            id: some_agent(rng).to_string(),
        },
        _ => Request::Stop,
    };
    match ask(path, request, LIMIT) {
        Ok(_) | Err(AskError::Refused(_)) => true,
        Err(AskError::Connect(_)) => false,
        Err(other) => panic!("{other:?}"),
    }
}

/// Makes `requests` random requests, as long as there is a simulation.
fn several<T>(requests: usize, mut one: impl FnMut() -> Result<T, ControlError>) {
    for _ in 0..requests {
        match one() {
            Ok(_) => {}
            Err(ControlError::Ended) => return,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// What the owner asks for between two runs, by chance.
fn own(main: &mut MpMain<Msg>, rng: &mut AgentRng) {
    let agent = some_agent(rng);
    match rng.random_range(0..7) {
        0 => main.send_mail(token(rng.random_range(1..12), rng.random_range(0..30))),
        1 => drop(main.remove(agent)),
        2 => drop(agent_answer(main.inspect::<Player>(agent)).unwrap()),
        3 => drop(agent_answer(main.take_out::<Player>(agent)).unwrap()),
        4 => drop(agent_answer(main.replace(agent, Player { seen: 2 })).unwrap()),
        5 => drop(main.agents().unwrap()),
        _ => main.pause(),
    }
}

fn some_run(rng: &mut AgentRng, now: SimTime) -> Run {
    let run = match rng.random_range(0..5) {
        0 => Run::until_idle(),
        1 => Run::lasting(SimDuration::from_nanos(some_count(rng))),
        2 => Run::lasting(SimDuration::from_millis(some_count(rng))),
        _ => Run::until(some_time(rng, now)),
    };
    // A pause that no controller ends is over then.
    let run = run.timeout(Duration::from_millis(rng.random_range(0..15)));
    match rng.random_range(0..4) {
        0 => run.supersteps(some_count(rng)),
        1 => run.stop_when(|counters| counters.delivered % 5 == 4),
        _ => run,
    }
}

/// Runs again and again while others steer, meddle and ask.
fn disturb(placement: TestPlacement, lookahead: u64, seed: u64, requests: usize) {
    let what = format!("{placement:?}, lookahead {lookahead}, seed {seed}");
    let mut main = game(placement, 3, lookahead);
    (1..=4).for_each(|player| main.send_mail(token(player, 200)));
    let path: PathBuf = main
        .open_control(&format!("chance-{placement:?}-{lookahead}-{seed}"))
        .unwrap();
    let (steering, meddling) = (main.controller(), main.controller());
    let threads = [
        thread::spawn(move || {
            let mut rng = rng(seed, 1);
            // It also counts as an answer that the run has ended.
            several(requests, || match steer(&steering, &mut rng) {
                Err(ControlError::Failed(why)) => panic!("{why}"),
                other => other,
            });
        }),
        thread::spawn(move || {
            let mut rng = rng(seed, 2);
            several(requests, || meddle(&meddling, &mut rng));
        }),
        thread::spawn(move || {
            let mut rng = rng(seed, 3);
            let _ = (0..requests).all(|_| ask_by_chance(&path, &mut rng));
        }),
    ];
    let mut rng = rng(seed, 4);
    while threads.iter().any(|thread| !thread.is_finished()) {
        let start = main.now();
        let run = some_run(&mut rng, start);
        let ran = catch_unwind(AssertUnwindSafe(|| main.run(run)));
        match ran {
            Ok(Ok(report)) => assert!(report.now >= start, "{what}"),
            Ok(Err(error)) => panic!("{what}: {error:?}"),
            Err(_) => panic!("{what}: main panicked"),
        }
        own(&mut main, &mut rng);
    }
    for thread in threads {
        assert!(thread.join().is_ok(), "{what}");
    }
}

#[test]
fn no_sequence_of_requests_makes_main_panic() {
    everywhere(|placement, lookahead| {
        (0..2).for_each(|seed| disturb(placement, lookahead, seed, 40));
    });
}

/// As the one above: `cargo test --test multiprocess long_sequence -- --ignored`.
#[test]
#[ignore = "takes a while"]
fn no_long_sequence_of_requests_makes_main_panic() {
    everywhere(|placement, lookahead| {
        (0..40).for_each(|seed| disturb(placement, lookahead, seed, 300));
    });
}

/// How a run ends, and what it comes to.
fn outcome(report: &MpReport) -> (StopReason, SimTime, Counters, Option<Digest>) {
    let Report {
        stopped_by,
        now,
        total,
        digest,
        ..
    } = report.run;
    (stopped_by, now, total, digest)
}

/// Steers one run by chance, and compares it with one that is not steered.
fn compare(placement: TestPlacement, lookahead: u64, seed: u64, requests: usize) {
    let game = || {
        let mut main = game(placement, 3, lookahead);
        (1..=4).for_each(|player| main.send_mail(token(player, 60)));
        main
    };
    let mut main = game();
    main.pause();
    let controller = main.controller();
    let steering = thread::spawn(move || {
        let mut rng = rng(seed, 5);
        for _ in 0..requests {
            match steer(&controller, &mut rng) {
                Ok(true) => {}
                Ok(false) | Err(ControlError::Ended) => return,
                Err(other) => panic!("{other:?}"),
            }
        }
    });
    let steered = outcome(&main.run(Run::until_idle()).unwrap());
    drop(main);
    assert!(steering.join().is_ok(), "seed {seed}");
    let alone = outcome(&game().run(Run::until_idle()).unwrap());
    assert_eq!(
        steered, alone,
        "{placement:?}, lookahead {lookahead}, seed {seed}"
    );
}

#[test]
fn a_run_that_is_steered_by_chance_is_as_one_that_is_not() {
    everywhere(|placement, lookahead| {
        (0..6).for_each(|seed| compare(placement, lookahead, seed, 30));
    });
}

#[test]
fn a_run_until_a_time_that_is_past_pauses_now() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 3, lookahead);
        (1..=4).for_each(|player| main.send_mail(token(player, 20)));
        main.pause();
        let controller = main.controller();
        let steering = thread::spawn(move || {
            let (late, early) = (SimTime::from_millis(5), SimTime::from_millis(3));
            assert_eq!(controller.run_until(late), Ok(Halt::Paused(late)));
            for past in [early, SimTime::ZERO, late] {
                assert_eq!(controller.run_until(past), Ok(Halt::Paused(late)));
            }
            assert_eq!(controller.step(0), Ok(Halt::Paused(late)));
        });
        main.run(Run::until_idle()).unwrap();
        assert!(steering.join().is_ok(), "{placement:?} {lookahead}");
    });
}

#[test]
fn one_line_to_the_socket_does_no_harm_either() {
    for placement in ALL_AND_FORGETFUL {
        let mut main = game(placement, 3, 0);
        (1..=4).for_each(|player| main.send_mail(token(player, 20)));
        let path = main.open_control(&format!("past-{placement:?}")).unwrap();
        main.pause();
        let asker = thread::spawn(move || {
            let later = SimTime::from_millis(5);
            let paused = Reply::Paused { time: later };
            for time in [later, SimTime::ZERO] {
                let reply = ask(&path, Request::RunUntil { time }, LIMIT).unwrap();
                assert_eq!(reply, paused);
            }
            ask(&path, Request::Resume, LIMIT).unwrap();
        });
        let run = Run::until_idle().timeout(Duration::from_secs(600));
        assert_eq!(main.run(run).unwrap().stopped_by, StopReason::Idle);
        asker.join().unwrap();
    }
}

/// Clusters that have started keep their lookahead: changing it later is refused, or concerns later
/// clusters alone.
#[test]
fn a_lookahead_that_comes_too_late_changes_nothing() {
    for placement in ALL_AND_FORGETFUL {
        for (lookahead, later) in [(0, 1), (1, 0), (1, 5)] {
            let game = || {
                let mut main = game(placement, 3, lookahead);
                (1..=4).for_each(|player| main.send_mail(token(player, 20)));
                main
            };
            let mut main = game();
            let cluster = main.agents().unwrap()[0].cluster;
            main.run(Run::lasting(SimDuration::from_millis(3))).unwrap();
            let later = SimDuration::from_millis(later);
            let error = main.set_lookahead(cluster, later).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cluster 2 has started, so its lookahead cannot be changed: set it before the first run"
            );
            let report = main.run(Run::until_idle()).unwrap();
            let expected = game().run(Run::until_idle()).unwrap();
            assert_eq!(outcome(&report), outcome(&expected), "{placement:?}");
        }
    }
}
