//! *Covers*: a benchmark with agents that are built in their clusters, alarms for other agents, a
//! lookahead, random numbers that are the same everywhere.
//!
//! *Scenario*: PHOLD, by which simulators compare themselves. Every agent starts with a few events.
//! On each event it sends one, which takes the lookahead plus a random time, and which goes to an
//! agent drawn from all, or else to itself. The number of events under way never changes.
//!
//! Source: Fujimoto, "Performance of Time Warp under synthetic workloads", 1990.
//!
//! ```sh
//! cargo run --release --example phold -- --clusters 2 --placement processes
//! ```

use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_testkit::carrier::Carrier;
use maslite_testkit::measuring::{processor_time, rounds_of, seconds, spin};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// PHOLD: agents hand events to themselves and to each other, as fast as the kernel can.
#[derive(Debug, Parser)]
#[command(name = "phold")]
struct Options {
    /// How many agents there are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    agents: u64,
    /// How many events each agent starts with.
    #[arg(long, default_value_t = 16)]
    population: u64,
    /// The mean time that an event is under way.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    mean: SimDuration,
    /// The least time that an event is under way, a part of the mean: the lookahead of the
    /// clusters.
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds)]
    lookahead: SimDuration,
    /// The share of events that go to a random agent. The others stay at their agent.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    remote: f64,
    /// How many clusters the agents are divided among.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    clusters: u64,
    /// For comparison: run as many unconnected simulations side by side, each with its share of the
    /// agents.
    #[arg(long)]
    unconnected: bool,
    /// Do not declare the lookahead to the kernel.
    #[arg(long)]
    no_window: bool,
    /// How long the simulation lasts.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    end: SimDuration,
    /// How long each event keeps the processor busy, in nanoseconds.
    #[arg(long, value_name = "NS", default_value_t = 0)]
    work: u64,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the clusters run. By default a single cluster runs inline, and several run in
    /// processes.
    #[arg(long, value_enum)]
    placement: Option<Where>,
    /// Delay messages between clusters randomly, from this seed. This changes no result.
    #[arg(long, value_name = "SEED")]
    jitter: Option<u64>,
    /// The kind of link between processes.
    #[arg(long, value_enum, default_value_t)]
    link: Carrier,
    /// Open a control socket for the program `maslite`, and print its path.
    #[arg(long)]
    control: bool,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// In one plain scheduler, without main and without clusters.
    Single,
    /// All in this process.
    Inline,
    /// Each in a child process of its own.
    Processes,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Event,
}

/// What all agents have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Model {
    agents: u64,
    population: u64,
    lookahead: SimDuration,
    /// What is added to the lookahead, in the mean [ns].
    spread: f64,
    remote: f64,
    /// Rounds of busy work per event.
    work: u64,
}

impl Model {
    /// Draws how long an event is under way.
    ///
    /// The logarithm is one that gives the same result on every machine; the system's need not.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "53 bits are exact in a float, and a time is rounded down to its nanosecond"
    )]
    fn delay(&self, rng: &mut AgentRng) -> SimDuration {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        // Above 0, at most 1.
        let uniform = ((rng.random::<u64>() >> 11) + 1) as f64 * SCALE;
        let extra = -libm::log(uniform) * self.spread;
        self.lookahead
            .saturating_add(SimDuration::from_nanos(extra as u64))
    }
}

/// An agent: only what all have in common, and the generator that the kernel keeps for it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Model", into = "Model")]
struct Holder(Arc<Model>);

impl From<Model> for Holder {
    fn from(model: Model) -> Self {
        Self(Arc::new(model))
    }
}

impl From<Holder> for Model {
    fn from(holder: Holder) -> Self {
        Self::clone(&holder.0)
    }
}

impl Agent<Msg> for Holder {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..self.0.population {
            let delay = self.0.delay(ctx.rng());
            ctx.alarm_in(delay, Msg::Event);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let model = &*self.0;
        spin(model.work);
        let rng = ctx.rng();
        let delay = model.delay(rng);
        let to = if rng.random::<f64>() < model.remote {
            AgentId::from(rng.random_range(1..=model.agents))
        } else {
            ctx.id()
        };
        ctx.set_alarm(Alarm::after(delay).to(to), mail.body);
    }
}

/// What a builder is told: the model, and the numbers of its agents.
#[derive(Serialize, Deserialize)]
struct Part {
    model: Model,
    first: u64,
    last: u64,
}

fn agents() -> Entered<Msg> {
    // The builder makes them where they live; registered, they can be looked at: `maslite agent 1`.
    let registry = Registry::new().with::<Holder>();
    let registry = registry.with_builder("holders", |part: Part, agents| {
        let model = Arc::new(part.model);
        for number in part.first..=part.last {
            agents.add(number, Holder(Arc::clone(&model)));
        }
    });
    registry.enter()
}

/// What a run gave.
struct Outcome {
    report: Report,
    /// From nothing to agents that are set up [wall].
    startup: Duration,
    routed: u64,
    rounds: u64,
    /// The share of one processor that main used, where it is known.
    main_load: Option<f64>,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let agents = agents();
    let options = Options::parse();
    match execute(agents, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn execute(agents: Entered<Msg>, options: &Options) -> Result<(), Failure> {
    if options.lookahead > options.mean {
        return Err("--lookahead is a part of --mean and cannot be longer".into());
    }
    if !(0.0..=1.0).contains(&options.remote) {
        return Err("--remote is a share, from 0 to 1".into());
    }
    let spread = options.mean.saturating_sub(options.lookahead);
    let model = Model {
        agents: options.agents,
        population: options.population,
        lookahead: options.lookahead,
        spread: spread.as_secs_f64() * 1e9,
        remote: options.remote,
        work: rounds_of(options.work),
    };
    let placement = options.placement.unwrap_or(if options.clusters == 1 {
        Where::Inline
    } else {
        Where::Processes
    });
    let outcome = match placement {
        _ if options.unconnected => run_unconnected(&model, placement, options)?,
        Where::Single if options.clusters > 1 => {
            return Err("--placement single has no clusters".into());
        }
        Where::Single => run_alone(model, options)?,
        Where::Inline => run(agents, model, Placement::Inline, options)?,
        Where::Processes => run(agents, model, Placement::Processes, options)?,
    };
    print(&outcome, placement, options);
    Ok(())
}

/// Ends before the first superstep: agents are there and set up, and nothing has happened.
fn until_set_up() -> Run {
    Run::until_idle().supersteps(0)
}

fn run_alone(model: Model, options: &Options) -> Result<Outcome, Failure> {
    let started = wall();
    let mut scheduler = Scheduler::builder().seed(options.seed).digest().build();
    let model = Arc::new(model);
    for number in 1..=options.agents {
        scheduler.add(number, Holder(Arc::clone(&model)))?;
    }
    scheduler.run(until_set_up())?;
    let startup = wall().duration_since(started);
    Ok(Outcome {
        report: scheduler.run(Run::lasting(options.end))?,
        startup,
        routed: 0,
        rounds: 0,
        main_load: None,
    })
}

/// Runs one simulation for each cluster, all at the same time, and sums up.
fn run_unconnected(model: &Model, placement: Where, options: &Options) -> Result<Outcome, Failure> {
    let placement = match placement {
        Where::Processes => Placement::Processes,
        _ => return Err("--unconnected is for --placement processes".into()),
    };
    let mut mains = Vec::new();
    for number in 0..options.clusters {
        let mut main = MpMain::builder(agents())
            .seed(options.seed.wrapping_add(number))
            .placement(placement)
            .link(options.link.into())
            .digest()
            .build()?;
        let cluster = main.new_cluster();
        let agents = options.agents / options.clusters;
        let part = Part {
            model: Model {
                agents,
                ..model.clone()
            },
            first: 1,
            last: agents,
        };
        main.build(cluster, "holders", part)?;
        main.run(until_set_up())?;
        mains.push(main);
    }
    let begin = Barrier::new(mains.len());
    let run = |mut main: MpMain<Msg>| {
        begin.wait();
        main.run(Run::lasting(options.end))
    };
    let reports: Vec<_> = std::thread::scope(|scope| {
        let threads = mains.into_iter().map(|main| scope.spawn(|| run(main)));
        let threads: Vec<_> = threads.collect();
        let ends = threads.into_iter().map(ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut reports = reports.into_iter();
    let mut sum = reports.next().ok_or("there is at least one cluster")??.run;
    for report in reports {
        let report = report?;
        sum.wall = sum.wall.max(report.wall);
        sum.counters.add(&report.counters);
        sum.digest = sum.digest.zip(report.digest).map(|(a, b)| a.with(b));
    }
    Ok(Outcome {
        report: sum,
        startup: Duration::ZERO,
        routed: 0,
        rounds: 0,
        main_load: None,
    })
}

fn run(
    agents: Entered<Msg>,
    model: Model,
    placement: Placement,
    options: &Options,
) -> Result<Outcome, Failure> {
    let mut settings = MpMain::builder(agents)
        .seed(options.seed)
        .placement(placement)
        .link(options.link.into())
        .jitter(options.jitter)
        .digest();
    if options.clusters > 1 && !options.no_window {
        settings = settings.lookahead(options.lookahead);
    }
    let mut main = settings.build()?;
    for number in 0..options.clusters {
        let cluster = main.new_cluster();
        let part = Part {
            model: model.clone(),
            // The first few agents to the first cluster, and so on.
            first: number * options.agents / options.clusters + 1,
            last: (number + 1) * options.agents / options.clusters,
        };
        main.build(cluster, "holders", part)?;
    }
    if options.control {
        let socket = main.open_control("phold")?;
        eprintln!("control socket: {}", socket.display());
    }
    main.run(until_set_up())?;
    main.stop_on_ctrl_c()?;
    let before = processor_time();
    let report = main.run(Run::lasting(options.end))?;
    let used = processor_time()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    let load = |used: Duration| used.as_secs_f64() / report.wall.as_secs_f64();
    Ok(Outcome {
        startup: main.startup().unwrap_or_default(),
        routed: report.routed,
        rounds: report.rounds,
        main_load: used.filter(|_| placement == Placement::Processes).map(load),
        report: report.run,
    })
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn print(outcome: &Outcome, placement: Where, options: &Options) {
    let report = &outcome.report;
    let (sim_s, wall_s) = (report.simulated().as_secs_f64(), report.wall.as_secs_f64());
    let events = report.counters.delivered;
    let events_per_s = events as f64 / wall_s;
    let digest = report.digest.unwrap_or_default();
    let placement = format!("{placement:?}").to_lowercase();
    if options.json {
        let object = serde_json::json!({
            "agents": options.agents,
            "population": options.population,
            "mean_s": options.mean.as_secs_f64(),
            "lookahead_s": options.lookahead.as_secs_f64(),
            "remote": options.remote,
            "work_ns": options.work,
            "clusters": options.clusters,
            "unconnected": options.unconnected,
            "window": options.clusters > 1 && !options.no_window && !options.unconnected,
            "placement": placement,
            "seed": options.seed,
            "sim_s": sim_s,
            "wall_s": wall_s,
            "ratio": sim_s / wall_s,
            "events": events,
            "events_per_s": events_per_s,
            "supersteps": report.counters.supersteps,
            "routed": outcome.routed,
            "rounds": outcome.rounds,
            "digest": digest,
            "startup_ms": outcome.startup.as_secs_f64() * 1e3,
            "main_load": outcome.main_load,
        });
        println!("{object}");
    } else {
        println!(
            "{} agents with {} events each, clusters: {}, {placement}",
            options.agents, options.population, options.clusters
        );
        println!(
            "events    {events} in {sim_s} s simulated, {} of them routed",
            outcome.routed
        );
        println!("wall      {wall_s:.3} s, ratio {:.1}X", sim_s / wall_s);
        println!("events/s  {events_per_s:.0}");
        println!("digest    {digest}");
    }
}
