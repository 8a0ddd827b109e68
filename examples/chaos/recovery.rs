//! Faults that a simulation survives: clusters die, and come back.

use std::time::Duration;

use maslite_mp::core::SimDuration;
use maslite_mp::prelude::*;
use maslite_mp::{ExitKind, Recovered};
use maslite_testkit::carrier::Carrier;
use rand::RngExt;
use rustix::process::Signal;

use crate::faults::{Chaos, LIMIT, LONG, Round, gone, pids, random_time, wrong};
use crate::model::{Stage, players, players_with};
use crate::processes::{pause, send};

/// A cluster that dies comes back, however often.
const ALWAYS: Recovery = Recovery::restart().at_most(u32::MAX, Duration::from_secs(3_600));

/// How long runs last, in simulated time.
const SPAN: SimDuration = SimDuration::from_millis(400);

/// Has a run, and something happen to its processes meanwhile. It must end as the undisturbed one.
/// Tells how long the slowest recovery took; nothing, if nobody came back.
fn survive(
    chaos: &mut Chaos,
    answer_limit: Duration,
    strike: impl FnOnce(&[u32]) + Send,
) -> Result<Vec<Recovered>, crate::faults::Failure> {
    let undisturbed = players(Placement::Inline, chaos.stage, None)?.run(Run::lasting(SPAN))?;
    let mut main = players_with(Placement::Processes, chaos.stage, None, |settings| {
        settings
            .recovery(ALWAYS)
            .answer_limit(Some(answer_limit))
            .warnings(|_| ())
    })?;
    main.start()?;
    let before = pids(&main);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| strike(&before));
        main.run(Run::lasting(SPAN))
    });
    let report = result?;
    let [expected, got] = [&undisturbed.run, &report.run]
        .map(|run| (run.digest, run.counters, run.stopped_by, run.now));
    if expected != got {
        return Err(wrong(format!("{got:?} in place of {expected:?}")));
    }
    let begin = maslite_mp::clock::wall();
    let after = pids(&main);
    drop(main.shutdown());
    gone(&[before, after].concat(), begin)?;
    chaos.recoveries.extend(report.recoveries.iter().cloned());
    Ok(report.recoveries)
}

fn slowest(recoveries: &[Recovered]) -> Duration {
    let took = recoveries.iter().map(|recovered| recovered.took);
    took.max().unwrap_or_default()
}

/// Kills up to three clusters of two to eight, each once, at random moments, over either link, also
/// under load.
pub(crate) fn kill(chaos: &mut Chaos) -> Round {
    let random = &mut chaos.random;
    let link = [Carrier::Ring, Carrier::Channel][random.random_range(0..2_usize)];
    chaos.stage = Stage {
        clusters: random.random_range(2..=8),
        link,
        balls: [1, 1, 1, 200][random.random_range(0..4_usize)],
    };
    let places = 0..random.random_range(1..=3_usize);
    let places: Vec<usize> = places.map(|_| random.random_range(0..8)).collect();
    let times: Vec<Duration> = places.iter().map(|_| random_time(chaos, 10)).collect();
    let recoveries = survive(chaos, LONG, move |pids| {
        let mut left = pids.to_vec();
        for (place, time) in places.into_iter().zip(times) {
            pause(time);
            if !left.is_empty() {
                let pid = left.swap_remove(place % left.len());
                send(Signal::KILL, pid);
            }
        }
    })?;
    if let Some(other) = recoveries.iter().find(|it| {
        let exit = it.death.exit;
        !matches!(exit, ExitKind::Signal(9) | ExitKind::OutOfMemory { .. })
    }) {
        return Err(wrong(other));
    }
    Ok(slowest(&recoveries))
}

/// All clusters are killed at once.
pub(crate) fn kill_all(chaos: &mut Chaos) -> Round {
    let after = random_time(chaos, 10);
    let recoveries = survive(chaos, LONG, move |pids| {
        pause(after);
        pids.iter().for_each(|pid| send(Signal::KILL, *pid));
    })?;
    Ok(slowest(&recoveries))
}

/// A cluster is stopped for good.
pub(crate) fn stop(chaos: &mut Chaos) -> Round {
    let after = random_time(chaos, 10);
    let place = chaos.random.random_range(0..8_usize);
    let recoveries = survive(chaos, LIMIT, move |pids| {
        pause(after);
        send(Signal::STOP, pids[place % pids.len()]);
    })?;
    match recoveries
        .iter()
        .find(|it| it.death.exit != ExitKind::NoAnswer)
    {
        Some(other) => Err(wrong(other)),
        None => Ok(slowest(&recoveries)),
    }
}
