//! Faults that a simulation survives: clusters die, and come back or are dropped.

use std::time::Duration;

use maslite_mp::core::SimDuration;
use maslite_mp::prelude::*;
use maslite_mp::{ExitKind, Recovered};
use rand::RngExt;
use rustix::process::Signal;

use crate::faults::{Chaos, LIMIT, LONG, Round, gone, pids, random_time, wrong};
use crate::model::{players, players_with};
use crate::processes::{pause, send};

/// A cluster that dies comes back, however often.
const ALWAYS: Recovery = Recovery::restart().at_most(u32::MAX, Duration::from_secs(3_600));

/// How long runs last, in simulated time.
const SPAN: SimDuration = SimDuration::from_millis(400);

/// Has a run, and something happen to its processes meanwhile. It must end as the undisturbed one.
/// Tells how long the slowest recovery took; nothing, if no cluster came back.
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

/// Kills up to three clusters of two to eight, each once, at random moments, also under load.
pub(crate) fn kill(chaos: &mut Chaos) -> Round {
    let kills = kills(chaos, 3);
    let recoveries = survive(chaos, LONG, move |pids| kill_some(&kills, pids))?;
    match recoveries.iter().find(|it| !is_kill(it.death.exit)) {
        Some(other) => Err(wrong(other)),
        None => Ok(slowest(&recoveries)),
    }
}

/// A kill: which of the clusters that are left, and how long after the last one.
type Kill = (usize, Duration);

/// Draws a stage of two to eight clusters, and up to `most` kills.
fn kills(chaos: &mut Chaos, most: usize) -> Vec<Kill> {
    let random = &mut chaos.random;
    chaos.stage.clusters = random.random_range(2..=8);
    chaos.stage.balls = [1, 1, 1, 200][random.random_range(0..4_usize)];
    let places = 0..random.random_range(1..=most);
    let places: Vec<usize> = places.map(|_| random.random_range(0..8)).collect();
    let kill = |place| (place, random_time(chaos, 10));
    places.into_iter().map(kill).collect()
}

fn kill_some(kills: &[Kill], pids: &[u32]) {
    let mut left = pids.to_vec();
    for (place, time) in kills {
        pause(*time);
        if !left.is_empty() {
            let pid = left.swap_remove(place % left.len());
            send(Signal::KILL, pid);
        }
    }
}

fn is_kill(exit: ExitKind) -> bool {
    matches!(exit, ExitKind::Signal(9) | ExitKind::OutOfMemory { .. })
}

/// Kills some of two to eight clusters at random moments. The run goes on without them, main can
/// run on, and all accounts are exact. Tells how long the second run took.
pub(crate) fn drop_some(chaos: &mut Chaos) -> Round {
    let mut kills = kills(chaos, 3);
    let clusters = usize::try_from(chaos.stage.clusters)?;
    // One is left.
    kills.truncate(clusters - 1);
    let mut main = players_with(Placement::Processes, chaos.stage, None, |settings| {
        settings
            .recovery(Recovery::drop_cluster())
            .answer_limit(Some(LONG))
            .warnings(|_| ())
    })?;
    main.start()?;
    let before = pids(&main);
    let first = std::thread::scope(|scope| {
        scope.spawn(|| kill_some(&kills, &before));
        main.run(Run::lasting(SPAN))
    })?;
    let begin = maslite_mp::clock::wall();
    let second = main.run(Run::lasting(SPAN / 10))?;
    let took = maslite_mp::clock::wall().duration_since(begin);
    for report in [&first, &second] {
        let it = report.total;
        if it.sent != it.delivered + it.undeliverable + it.queued {
            return Err(wrong(format!("{report:#}")));
        }
        if report.digest.is_none() == report.dropped.is_empty() {
            return Err(wrong(format!("{:?} of {:#}", report.digest, report)));
        }
    }
    if let Some(other) = second.dropped.iter().find(|it| !is_kill(it.death.exit)) {
        return Err(wrong(other));
    }
    let left = main.pids().len();
    let ends = main.shutdown().ends.len();
    if [left, ends] != [clusters - second.dropped.len(); 2] || left < clusters - kills.len() {
        return Err(wrong(format!(
            "{left} clusters are left, {ends} have ended"
        )));
    }
    gone(&before, maslite_mp::clock::wall())?;
    Ok(took)
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
