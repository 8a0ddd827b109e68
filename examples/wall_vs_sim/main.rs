//! *Covers*: what processes are for: the ratio of simulated to wall time, of clusters that are too
//! heavy to share a core.
//!
//! *Scenario*: warehouses full of robots. Every now and then a robot plans, which takes some
//! computing, and tells another robot, which computes as well. Most mail stays in its warehouse; a
//! small share goes to another one, and takes a while to get there. The same warehouses run in one
//! scheduler, then in a process each; and for comparison without any mail between them.
//!
//! ```sh
//! cargo run --release --example wall_vs_sim -- --clusters 2 --sweep --svg ratio.svg
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use maslite_mp::prelude::*;
use serde_json::{Value, json};

mod model;
mod picture;
mod runs;

use maslite_testkit::carrier::Carrier;
use maslite_testkit::measuring::{rounds_of, seconds};
use model::{Model, agents};
use picture::{Bar, Bars, Line, Lines};
use runs::{Outcome, Span};

/// Measures how much faster than wall time heavy clusters run, in one scheduler and in one process
/// each.
#[derive(Debug, Parser)]
#[command(name = "wall_vs_sim", after_help = EXPLANATION)]
struct Options {
    /// How many clusters there are.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    clusters: u64,
    /// How many agents each cluster has.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    agents: u64,
    /// The mean time between two plans of one agent. Making a plan is an event, and telling it is
    /// another.
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = seconds)]
    period: SimDuration,
    /// How long each event keeps the processor busy, in nanoseconds.
    #[arg(long, value_name = "NS", default_value_t = 1_000)]
    work: u64,
    /// The share of mail that goes to another cluster.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    cross: f64,
    /// The least time of mail to another cluster. With 0 the clusters run in lockstep, or ahead of
    /// what is final with `--speculation auto`.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    lookahead: SimDuration,
    /// Whether clusters run ahead of what is final, where there is no lookahead.
    #[arg(long, value_enum, default_value_t = Ahead::Off)]
    speculation: Ahead,
    /// How long the simulation lasts.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    end: SimDuration,
    /// How often each figure is measured. The program shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Measure a range of work per event and of the share of mail between clusters, too.
    #[arg(long)]
    sweep: bool,
    /// Draw the result into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where clusters run. Inline they cannot be faster than one scheduler.
    #[arg(long, value_enum, default_value_t = Where::Processes)]
    placement: Where,
    /// The kind of link between processes.
    #[arg(long, value_enum, default_value_t)]
    link: Carrier,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
}

const EXPLANATION: &str = "\
ratio       simulated time over wall time; the start of processes is not counted
efficiency  the ratio over that of one cluster alone
main        the share of one processor that main used";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// All in this process.
    Inline,
    /// Each in a child process of its own.
    Processes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ahead {
    /// Wherever that pays.
    Auto,
    /// No cluster does.
    Off,
}

/// Work per event [ns] and share of crossing mail, in a sweep.
const WORKS: [u64; 6] = [0, 100, 300, 1_000, 3_000, 10_000];
const CROSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.1];
/// What a sweep lets one scheduler work at each point, about [ns], and what the kernel adds to an
/// event.
const SWEPT: u64 = 300_000_000;
const KERNEL: u64 = 200;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // A child process goes no further; the runs make registries of their own.
    drop(agents());
    match execute(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn execute(options: &Options) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&options.cross) {
        return Err("--cross is a share, from 0 to 1".into());
    }
    if options.period == SimDuration::ZERO || options.end == SimDuration::ZERO {
        return Err("--period and --end cannot be 0".into());
    }
    let figures = compare(options)?;
    if !options.json {
        print_table(&figures, options);
    }
    let swept = if options.sweep {
        sweep(options)?
    } else {
        Vec::new()
    };
    if let Some(path) = &options.svg {
        let lines = options.sweep.then(|| sweep_panel(&swept, options));
        let svg = picture::svg(&figures_panel(&figures, options), lines.as_ref());
        std::fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.json {
        println!("{}", as_json(&figures, &swept, options));
    }
    Ok(())
}

/// The four figures that are held against each other.
struct Figures {
    alone: Outcome,
    one_scheduler: Outcome,
    connected: Outcome,
    unconnected: Outcome,
}

impl Figures {
    /// In the order of the table: a name of one row, a name of two, processes, the figure.
    fn rows(&self, options: &Options) -> [(&'static str, &'static str, u64, &Outcome); 4] {
        let clusters = match options.placement {
            Where::Inline => 1,
            Where::Processes => options.clusters,
        };
        let connected = ("a scheduler per cluster", "a scheduler\nper cluster");
        let unconnected = ("the same unconnected", "the same\nunconnected");
        [
            ("one cluster alone", "one cluster\nalone", 1, &self.alone),
            (
                "all in one scheduler",
                "all in one\nscheduler",
                1,
                &self.one_scheduler,
            ),
            (connected.0, connected.1, clusters, &self.connected),
            (unconnected.0, unconnected.1, clusters, &self.unconnected),
        ]
    }

    fn efficiency(&self, of: &Outcome) -> f64 {
        of.ratio() / self.alone.ratio()
    }
}

fn model(options: &Options, work: u64, cross: f64) -> Model {
    Model {
        clusters: options.clusters,
        agents: options.agents,
        period: options.period,
        work: rounds_of(work),
        cross,
        lookahead: options.lookahead,
    }
}

fn span(options: &Options, end: SimDuration) -> Span {
    Span {
        end,
        seed: options.seed,
        placement: match options.placement {
            Where::Inline => Placement::Inline,
            Where::Processes => Placement::Processes,
        },
        link: options.link.into(),
        speculation: match options.speculation {
            Ahead::Auto => Speculation::Auto,
            Ahead::Off => Speculation::Off,
        },
    }
}

fn compare(options: &Options) -> Result<Figures, Failure> {
    let model = model(options, options.work, options.cross);
    let span = span(options, options.end);
    let mut taken: [Vec<Outcome>; 4] = Default::default();
    for _ in 0..options.runs {
        // In turns, so that a bad minute of the machine is bad for all.
        taken[0].push(runs::one_alone(&model, span)?);
        taken[1].push(runs::one_scheduler(&model, span)?);
        taken[2].push(runs::connected(&model, span)?);
        taken[3].push(runs::unconnected(&model, span)?);
    }
    let [alone, one_scheduler, connected, unconnected] = taken.map(median);
    same_trace(&one_scheduler, &connected)?;
    Ok(Figures {
        alone,
        one_scheduler,
        connected,
        unconnected,
    })
}

/// The run whose wall time is in the middle.
fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by_key(|outcome| outcome.wall);
    let middle = outcomes.len() / 2;
    outcomes.swap_remove(middle)
}

/// Mail that crosses takes the lookahead of itself, so clusters do not change the result.
fn same_trace(one: &Outcome, many: &Outcome) -> Result<(), Failure> {
    if one.digest == many.digest {
        return Ok(());
    }
    let (one, many) = (one.digest, many.digest);
    Err(format!("one scheduler gives {one}, many give {many}").into())
}

fn print_table(figures: &Figures, options: &Options) {
    println!("{}", headline(options));
    println!(
        "{:<26}{:>10}{:>10}{:>11}{:>13}{:>12}{:>9}",
        "", "processes", "wall [s]", "ratio", "events/s", "efficiency", "main"
    );
    for (name, _, processes, outcome) in figures.rows(options) {
        let main = outcome
            .main_load
            .map_or_else(String::new, |load| format!("{:.1} %", load * 100.0));
        println!(
            "{name:<26}{processes:>10}{:>10.3}{:>10.1}X{:>13.0}{:>12.2}{main:>9}",
            outcome.wall.as_secs_f64(),
            outcome.ratio(),
            outcome.events_per_s(),
            figures.efficiency(outcome),
        );
    }
    println!(
        "a scheduler per cluster: {:.2} times one scheduler, {:.2} of the same unconnected",
        figures.connected.ratio() / figures.one_scheduler.ratio(),
        figures.connected.ratio() / figures.unconnected.ratio(),
    );
}

fn headline(options: &Options) -> String {
    format!(
        "{} clusters of {} agents, {} ns of work per event, {} % of mail crosses",
        options.clusters,
        options.agents,
        options.work,
        options.cross * 100.0,
    )
}

/// A point of the sweep.
struct Swept {
    work: u64,
    cross: f64,
    one_scheduler: Outcome,
    connected: Outcome,
}

impl Swept {
    /// How many times as fast as one scheduler.
    fn gain(&self) -> f64 {
        self.connected.ratio() / self.one_scheduler.ratio()
    }
}

fn sweep(options: &Options) -> Result<Vec<Swept>, Failure> {
    let mut swept = Vec::new();
    if !options.json {
        println!("\n{} times one scheduler:", of_placement(options));
        print!("{:>18}", "work per event");
        for cross in CROSSES {
            print!("{:>9}", format!("{} %", cross * 100.0));
        }
        println!("  of mail crosses");
    }
    for work in WORKS {
        if !options.json {
            print!("{:>18}", format!("{work} ns"));
        }
        for cross in CROSSES {
            let (model, span) = (
                model(options, work, cross),
                span(options, swept_end(options, work)),
            );
            let mut taken: [Vec<Outcome>; 2] = Default::default();
            for _ in 0..options.runs {
                taken[0].push(runs::one_scheduler(&model, span)?);
                taken[1].push(runs::connected(&model, span)?);
            }
            let [one_scheduler, connected] = taken.map(median);
            same_trace(&one_scheduler, &connected)?;
            let point = Swept {
                work,
                cross,
                one_scheduler,
                connected,
            };
            if !options.json {
                print!("{:>9.2}", point.gain());
            }
            swept.push(point);
        }
        if !options.json {
            println!();
        }
    }
    Ok(swept)
}

fn of_placement(options: &Options) -> String {
    match options.placement {
        Where::Inline => format!("{} schedulers inline", options.clusters),
        Where::Processes => format!("{} processes", options.clusters),
    }
}

/// Long enough for one scheduler to work for a while, and for mail to cross a few times.
fn swept_end(options: &Options, work: u64) -> SimDuration {
    let events = SWEPT / (work + KERNEL);
    // Two events in each period of each agent.
    let agents = 2 * options.clusters * options.agents;
    let end = options.period.as_nanos().saturating_mul(events) / agents;
    SimDuration::from_nanos(end).max(options.lookahead * 2)
}

fn figures_panel(figures: &Figures, options: &Options) -> Bars {
    let rows = figures.rows(options).into_iter();
    let bars = rows.map(|(_, name, processes, outcome)| Bar {
        name: format!(
            "{name}\n({processes} process{})",
            if processes == 1 { "" } else { "es" }
        ),
        value: outcome.ratio(),
        note: format!(
            "{:.0}X, efficiency {:.2}",
            outcome.ratio(),
            figures.efficiency(outcome)
        ),
    });
    Bars {
        title: headline(options),
        y: "ratio [simulated s / wall s]",
        bars: bars.collect(),
    }
}

fn sweep_panel(swept: &[Swept], options: &Options) -> Lines {
    let lines = CROSSES.iter().map(|cross| {
        let same = |point: &&Swept| point.cross.total_cmp(cross).is_eq();
        Line {
            name: format!("{} %", cross * 100.0),
            values: swept.iter().filter(same).map(Swept::gain).collect(),
        }
    });
    Lines {
        title: format!(
            "Where clusters pay: {} against one scheduler",
            of_placement(options)
        ),
        x: "work per event [ns]",
        y: "ratio over that of one scheduler",
        legend: "share of mail that crosses",
        places: WORKS.iter().map(u64::to_string).collect(),
        lines: lines.collect(),
        mark: (1.0, "no gain"),
    }
}

/// The figures of a scheduler per cluster, and all others beside them.
fn as_json(figures: &Figures, swept: &[Swept], options: &Options) -> Value {
    let mut object = outcome_json(&figures.connected);
    let rows = figures.rows(options).into_iter();
    let rows = rows.map(|(name, _, processes, outcome)| {
        let mut row = outcome_json(outcome);
        row["name"] = json!(name);
        row["processes"] = json!(processes);
        row["efficiency"] = json!(figures.efficiency(outcome));
        row
    });
    object["figures"] = rows.collect();
    object["over_one_scheduler"] = json!(figures.connected.ratio() / figures.one_scheduler.ratio());
    object["over_unconnected"] = json!(figures.connected.ratio() / figures.unconnected.ratio());
    object["clusters"] = json!(options.clusters);
    object["agents"] = json!(options.agents);
    object["work_ns"] = json!(options.work);
    object["cross"] = json!(options.cross);
    object["lookahead_s"] = json!(options.lookahead.as_secs_f64());
    object["period_s"] = json!(options.period.as_secs_f64());
    object["seed"] = json!(options.seed);
    object["placement"] = json!(format!("{:?}", options.placement).to_lowercase());
    let swept = swept.iter().map(|point| {
        json!({
            "work_ns": point.work,
            "cross": point.cross,
            "one_scheduler": outcome_json(&point.one_scheduler),
            "connected": outcome_json(&point.connected),
            "over_one_scheduler": point.gain(),
        })
    });
    object["sweep"] = swept.collect();
    object
}

fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "sim_s": outcome.sim.as_secs_f64(),
        "wall_s": outcome.wall.as_secs_f64(),
        "ratio": outcome.ratio(),
        "events": outcome.events,
        "events_per_s": outcome.events_per_s(),
        "supersteps": outcome.supersteps,
        "routed": outcome.routed,
        "rounds": outcome.rounds,
        "undone": outcome.undone,
        "digest": outcome.digest,
        "main_load": outcome.main_load,
    })
}
