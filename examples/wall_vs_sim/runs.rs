//! The same clusters in one scheduler, in a process each, and in processes that know nothing of
//! each other.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use maslite_mp::Error;
use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;
use maslite_testkit::measuring::processor_time;

use crate::model::{Model, Msg, WAREHOUSE, Warehouse, agents};

/// What one run gave; of several processes side by side, what all of them gave together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sim: SimDuration,
    pub(crate) wall: Duration,
    pub(crate) events: u64,
    pub(crate) supersteps: u64,
    pub(crate) routed: u64,
    pub(crate) rounds: u64,
    /// Deliveries that were undone.
    pub(crate) undone: u64,
    pub(crate) digest: Digest,
    /// The share of one processor that this process used, where it is known.
    pub(crate) main_load: Option<f64>,
}

impl Outcome {
    /// Simulated time over wall time.
    pub(crate) fn ratio(&self) -> f64 {
        self.sim.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub(crate) fn events_per_s(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// How long, and from which seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) end: SimDuration,
    pub(crate) seed: u64,
    pub(crate) placement: Placement,
    pub(crate) link: Link,
    pub(crate) speculation: Speculation,
}

impl Span {
    fn settings(self) -> MpMainBuilder<Msg> {
        MpMain::builder(agents())
            .placement(self.placement)
            .link(self.link)
            .speculation(self.speculation)
            .seed(self.seed)
            .digest()
    }
}

/// One cluster, and nothing else.
pub(crate) fn one_alone(model: &Model, span: Span) -> Result<Outcome, Error> {
    timed(alone(&model.unconnected(), 0, span)?, span)
}

/// All clusters in one scheduler.
pub(crate) fn one_scheduler(model: &Model, span: Span) -> Result<Outcome, Error> {
    let mut main = span.settings().build()?;
    let scheduler = main.new_cluster();
    for cluster in 0..model.clusters {
        let model = model.clone();
        main.build(scheduler, WAREHOUSE, Warehouse { model, cluster })?;
    }
    timed(set_up(main)?, span)
}

/// Each cluster in a scheduler of its own.
pub(crate) fn connected(model: &Model, span: Span) -> Result<Outcome, Error> {
    let mut main = span.settings().lookahead(model.lookahead).build()?;
    for cluster in 0..model.clusters {
        let (scheduler, model) = (main.new_cluster(), model.clone());
        main.build(scheduler, WAREHOUSE, Warehouse { model, cluster })?;
    }
    timed(set_up(main)?, span)
}

/// As many simulations of one cluster, all at the same time.
pub(crate) fn unconnected(model: &Model, span: Span) -> Result<Outcome, Error> {
    let model = model.unconnected();
    let mut mains = Vec::new();
    for cluster in 0..model.clusters {
        mains.push(alone(&model, cluster, span)?);
    }
    let start = Barrier::new(mains.len());
    let outcomes: Vec<Result<Outcome, Error>> = thread::scope(|scope| {
        let threads = mains.into_iter().map(|main| {
            scope.spawn(|| {
                start.wait();
                timed(main, span)
            })
        });
        let threads: Vec<_> = threads.collect();
        let ends = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Outcome::default();
    for outcome in outcomes {
        let outcome = outcome?;
        all.sim = outcome.sim;
        all.wall = all.wall.max(outcome.wall);
        all.events += outcome.events;
        all.supersteps += outcome.supersteps;
        all.digest = all.digest.with(outcome.digest);
    }
    Ok(all)
}

fn alone(model: &Model, cluster: u64, span: Span) -> Result<MpMain<Msg>, Error> {
    let mut main = span.settings().build()?;
    let (scheduler, model) = (main.new_cluster(), model.clone());
    main.build(scheduler, WAREHOUSE, Warehouse { model, cluster })?;
    set_up(main)
}

/// Starts the processes and builds the agents, so that neither is part of what is measured.
fn set_up(mut main: MpMain<Msg>) -> Result<MpMain<Msg>, Error> {
    main.run(Run::until_idle().supersteps(0))?;
    Ok(main)
}

fn timed(mut main: MpMain<Msg>, span: Span) -> Result<Outcome, Error> {
    let before = processor_time();
    let report = main.run(Run::lasting(span.end))?;
    let used = processor_time().zip(before);
    let load = |(after, before): (Duration, Duration)| {
        after.saturating_sub(before).as_secs_f64() / report.wall.as_secs_f64()
    };
    Ok(Outcome {
        sim: report.simulated(),
        wall: report.wall,
        events: report.counters.delivered,
        supersteps: report.counters.supersteps,
        routed: report.routed,
        rounds: report.rounds,
        undone: report.undone,
        digest: report.digest.unwrap_or_default(),
        main_load: used
            .filter(|_| span.placement == Placement::Processes)
            .map(load),
    })
}
