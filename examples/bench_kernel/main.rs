//! *Covers*: what the kernel costs, next to bare loops that do the least work for the same result.
//!
//! *Scenario*: each figure runs a model through the public API and its bare loop in turns, several
//! times over, and quotes medians. The ratio is what counts: machines differ, and so do the hours
//! of one machine.
//!
//! ```text
//! cargo run --release --example bench_kernel -- --json --only ping_pong --runs 9
//! ```

use std::error::Error;
use std::fmt::Write;
use std::process::Command;

use clap::Parser;
use maslite_core::clock::wall;
use serde::{Deserialize, Serialize};

mod bare;
mod models;

use models::Model;

/// Measures the kernel in one process and one thread, next to bare loops.
#[derive(Parser)]
struct Options {
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Measure this figure only; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often each model and each bare loop is run.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Something that can be measured.
struct Figure {
    name: &'static str,
    unit: &'static str,
    measure: fn(usize) -> Outcome<Pair>,
    /// Memory that other figures freed would hide what this one takes: it has a process to itself.
    alone: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A value of the kernel, and that of the bare loop or whatever else it is held against.
struct Pair {
    value: f64,
    bare: f64,
}

/// One line of the result.
#[derive(Serialize, Deserialize)]
struct Line {
    figure: String,
    value: f64,
    unit: String,
    bare: f64,
    ratio: f64,
}

const fn figure(
    name: &'static str,
    unit: &'static str,
    measure: fn(usize) -> Outcome<Pair>,
) -> Figure {
    let alone = false;
    Figure {
        name,
        unit,
        measure,
        alone,
    }
}

const fn memory(name: &'static str, measure: fn(usize) -> Outcome<Pair>) -> Figure {
    let alone = true;
    Figure {
        name,
        unit: "bytes/agent",
        measure,
        alone,
    }
}

const FIGURES: [Figure; 13] = [
    figure("ping_pong", "messages/s", |runs| {
        let mut bare = bare::ping_pong();
        rates(runs, 2_000_000, models::ping_pong()?, |steps| {
            bare.run(steps)
        })
    }),
    figure("ring", "messages/s", |runs| {
        let mut bare = bare::ring(1_000);
        rates(runs, 3_000, models::ring(1_000)?, |steps| bare.run(steps))
    }),
    figure("fan_out", "deliveries/s", |runs| {
        let mut bare = bare::fan_out(100);
        rates(runs, 40_000, models::fan_out(100)?, |steps| bare.run(steps))
    }),
    figure("hold_1e3", "events/s", |runs| hold(runs, 1_000)),
    figure("hold_1e5", "events/s", |runs| hold(runs, 100_000)),
    figure("hold_1e6", "events/s", |runs| hold(runs, 1_000_000)),
    figure("hold_growth", "ns/event", hold_growth),
    figure("phold", "events/s", |runs| {
        let mut bare = bare::phold(10_000);
        rates(runs, 1_000_000, models::phold(10_000)?, |events| {
            bare.run(events)
        })
    }),
    figure("awake_same_ten", "ns/superstep", awake_same_ten),
    figure("awake_random_ten", "ns/superstep", awake_random_ten),
    memory("memory_per_agent", |_| idle_memory(1_000_000)),
    memory("memory_after_mail", |_| memory_after_mail(1_000_000)),
    memory("memory_at_1e7_agents", |_| idle_memory(10_000_000)),
];

fn main() -> Outcome<()> {
    let options = Options::parse();
    for wanted in &options.only {
        if !FIGURES.iter().any(|figure| figure.name == wanted) {
            let names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
            return Err(format!("no figure {wanted}; there are {}", names.join(", ")).into());
        }
    }
    if !options.json {
        println!(
            "{:<22}{:>14}{:>14}{:>8}  unit",
            "figure", "value", "bare", "ratio"
        );
    }
    for figure in FIGURES {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted == figure.name) {
            continue;
        }
        let line = if figure.alone && options.only.len() != 1 {
            measure_elsewhere(&figure)?
        } else {
            measure(&figure, options.runs.max(1))?
        };
        if options.json {
            println!("{}", serde_json::to_string(&line)?);
        } else {
            println!(
                "{:<22}{:>14}{:>14}{:>8.2}  {}",
                line.figure,
                grouped(line.value),
                grouped(line.bare),
                line.ratio,
                line.unit
            );
        }
    }
    Ok(())
}

fn measure(figure: &Figure, runs: usize) -> Outcome<Line> {
    let Pair { value, bare } = (figure.measure)(runs)?;
    Ok(Line {
        figure: figure.name.to_owned(),
        value,
        unit: figure.unit.to_owned(),
        bare,
        ratio: value / bare,
    })
}

/// Measures in a process of its own.
fn measure_elsewhere(figure: &Figure) -> Outcome<Line> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["--json", "--only", figure.name]).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{}: {}: {text}", figure.name, output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs a model and its bare loop in turns, so many supersteps each time: the rates.
fn rates(
    runs: usize,
    supersteps: u64,
    mut model: Model,
    mut bare: impl FnMut(u64) -> u64,
) -> Outcome<Pair> {
    in_turns(runs, || Ok(model.run(supersteps)?), || Ok(bare(supersteps)))
}

fn hold(runs: usize, pending: u64) -> Outcome<Pair> {
    let mut bare = bare::hold(pending);
    rates(runs, 2_000_000, models::hold(pending)?, |events| {
        bare.run(events)
    })
}

/// The cost of an event with 10⁶ pending alarms, against that with 10³.
fn hold_growth(runs: usize) -> Outcome<Pair> {
    let (mut many, mut few) = (models::hold(1_000_000)?, models::hold(1_000)?);
    let events = 2_000_000;
    let rates = in_turns(runs, || Ok(many.run(events)?), || Ok(few.run(events)?))?;
    Ok(rates.nanoseconds(1.0))
}

/// The cost of a superstep of the same ten agents among 10⁶, against that of ten among 10³.
fn awake_same_ten(runs: usize) -> Outcome<Pair> {
    let mut many = models::same_ten_awake(1_000_000)?;
    let mut few = models::same_ten_awake(1_000)?;
    let steps = 200_000;
    let rates = in_turns(runs, || Ok(many.run(steps)?), || Ok(few.run(steps)?))?;
    Ok(rates.nanoseconds(10.0))
}

/// The cost of a superstep of ten random agents among 10⁶, against that of the bare loop.
fn awake_random_ten(runs: usize) -> Outcome<Pair> {
    let mut bare = bare::random_ten_awake(1_000_000);
    let model = models::random_ten_awake(1_000_000)?;
    let rates = rates(runs, 100_000, model, |steps| bare.run(steps))?;
    Ok(rates.nanoseconds(10.0))
}

impl Pair {
    /// What so many of what the rates count take [ns].
    fn nanoseconds(self, count: f64) -> Self {
        Self {
            value: count * 1e9 / self.value,
            bare: count * 1e9 / self.bare,
        }
    }
}

/// Runs two loops in turns, once before it counts; each tells how much it did. The medians of
/// what they do in a second.
fn in_turns(
    runs: usize,
    mut ours: impl FnMut() -> Outcome<u64>,
    mut theirs: impl FnMut() -> Outcome<u64>,
) -> Outcome<Pair> {
    ours()?;
    theirs()?;
    let (mut values, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        values.push(per_second(&mut ours)?);
        bares.push(per_second(&mut theirs)?);
    }
    Ok(Pair {
        value: median(values),
        bare: median(bares),
    })
}

fn per_second(work: &mut impl FnMut() -> Outcome<u64>) -> Outcome<f64> {
    let start = wall();
    let done = work()?;
    Ok(float(done) / start.elapsed().as_secs_f64())
}

/// Memory per agent beyond its own state, once all have been set up and updated.
fn idle_memory(agents: u64) -> Outcome<Pair> {
    let ours = || Ok(models::sleepers(agents)?);
    held_memory(agents, ours, || bare::sleepers(agents))
}

/// The same when a superstep has been in which every agent had a mail: the mail is gone, the room
/// that all of it needed at once is kept.
fn memory_after_mail(agents: u64) -> Outcome<Pair> {
    let ours = || Ok(models::woken_sleepers(agents)?);
    held_memory(agents, ours, || bare::woken_sleepers(agents))
}

fn held_memory<T, U>(
    agents: u64,
    ours: impl FnOnce() -> Outcome<T>,
    theirs: impl FnOnce() -> U,
) -> Outcome<Pair> {
    let before = resident()?;
    let _ours = ours()?;
    let between = resident()?;
    let _theirs = theirs();
    let after = resident()?;
    let per_agent = |from: u64, to: u64| {
        let bytes = float(to.saturating_sub(from)) / float(agents);
        bytes - float(models::SLEEPER)
    };
    Ok(Pair {
        value: per_agent(before, between),
        bare: per_agent(between, after),
    })
}

/// Memory of this process that is in use [bytes].
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kibibytes.ok_or("no resident size")?.parse::<u64>()? * 1024)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn float(count: u64) -> f64 {
    count as f64
}

/// A number with its thousands apart.
fn grouped(value: f64) -> String {
    if value < 1_000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push('_');
        }
        let _ = write!(text, "{digit}");
    }
    text
}
