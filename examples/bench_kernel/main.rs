//! *Covers*: what the kernel costs, next to bare loops that do the least work for the same result.
//!
//! *Scenario*: each figure runs a model through the public API and its bare loop in turns, several
//! times over, and quotes medians. The ratio is what counts: machines differ, and so do the hours
//! of one machine. Two builds are compared in pairs, with one as the peer of the other.
//!
//! ```text
//! cargo run --release --example bench_kernel -- --json --only ping_pong --runs 9
//! cargo run --release --example bench_kernel -- --peer ../before/bench_kernel
//! ```

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod bare;
mod models;

use models::{Model, Skew};

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
    /// Run this program in turns with the figures here: another build of this benchmark, or one
    /// that takes `--json --only NAME --runs 1` and prints a line of JSON with a `value`.
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
}

/// Something that can be measured.
struct Figure {
    name: String,
    unit: &'static str,
    measure: Box<dyn Fn(usize) -> Outcome<Pair>>,
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
    /// What the peer did, and the median of the value over that in pairs, if one was measured
    /// beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_peer: Option<f64>,
}

fn figure(
    name: impl Into<String>,
    unit: &'static str,
    measure: impl Fn(usize) -> Outcome<Pair> + 'static,
) -> Figure {
    Figure {
        name: name.into(),
        unit,
        measure: Box::new(measure),
        alone: false,
    }
}

fn memory(name: &str, measure: fn(usize) -> Outcome<Pair>) -> Figure {
    Figure {
        alone: true,
        ..figure(name, "bytes/agent", measure)
    }
}

fn figures() -> Vec<Figure> {
    let mut figures = vec![
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
    figures.extend(skewed_figures());
    figures
}

const SKEWS: [(&str, Skew); 9] = [
    ("one_instant", Skew::OneInstant),
    ("far", Skew::Far),
    ("one_bucket", Skew::OneBucket),
    ("exponential", Skew::Exponential),
    ("bimodal", Skew::Bimodal),
    ("powers_of_two", Skew::PowersOfTwo),
    ("clumps", Skew::Clumps),
    ("ticks", Skew::Ticks),
    ("outliers", Skew::Outliers),
];

const SIZES: [(&str, u64); 3] = [("1e3", 1_000), ("1e5", 100_000), ("1e6", 1_000_000)];

/// The alarm queue under skewed times, and where timeouts are set and cleared.
fn skewed_figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (size, pending) in SIZES {
        for (name, skew) in SKEWS {
            let name = format!("skew_{name}_{size}");
            figures.push(figure(name, "events/s", move |runs| {
                skewed(runs, skew, pending)
            }));
        }
        let name = format!("clear_timeout_{size}");
        figures.push(figure(name, "events/s", move |runs| {
            clearing(runs, pending)
        }));
    }
    figures
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    let figures = figures();
    for wanted in &options.only {
        if !figures.iter().any(|figure| figure.name == *wanted) {
            let names: Vec<_> = figures.iter().map(|figure| &*figure.name).collect();
            return Err(format!("no figure {wanted}; there are {}", names.join(", ")).into());
        }
    }
    if !options.json {
        println!(
            "{:<22}{:>14}{:>14}{:>8}{:>14}{:>8}  unit",
            "figure", "value", "bare", "ratio", "peer", "ratio"
        );
    }
    for figure in figures {
        if !options.only.is_empty() && !options.only.contains(&figure.name) {
            continue;
        }
        let line = match &options.peer {
            Some(peer) => measure_beside(&figure, peer, options.runs.max(1))?,
            None if figure.alone && options.only.len() != 1 => {
                measure_elsewhere(&figure, &std::env::current_exe()?)?
            }
            None => measure(&figure, options.runs.max(1))?,
        };
        print(&line, options.json)?;
    }
    Ok(())
}

fn print(line: &Line, json: bool) -> Outcome<()> {
    if json {
        println!("{}", serde_json::to_string(line)?);
        return Ok(());
    }
    let to_peer = line.to_peer.map(|ratio| format!("{ratio:.2}"));
    println!(
        "{:<22}{:>14}{:>14}{:>8.2}{:>14}{:>8}  {}",
        line.figure,
        grouped(line.value),
        grouped(line.bare),
        line.ratio,
        line.peer.map(grouped).unwrap_or_default(),
        to_peer.unwrap_or_default(),
        line.unit
    );
    Ok(())
}

fn measure(figure: &Figure, runs: usize) -> Outcome<Line> {
    let Pair { value, bare } = (figure.measure)(runs)?;
    Ok(Line {
        figure: figure.name.clone(),
        value,
        unit: figure.unit.to_owned(),
        bare,
        ratio: value / bare,
        peer: None,
        to_peer: None,
    })
}

/// What every program tells that can stand beside this one.
#[derive(Deserialize)]
struct PeerLine {
    value: f64,
}

/// Measures in turns with a peer, each in a process of its own.
fn measure_beside(figure: &Figure, peer: &Path, runs: usize) -> Outcome<Line> {
    let own = std::env::current_exe()?;
    let (mut lines, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let line: Line = measure_elsewhere(figure, &own)?;
        let PeerLine { value } = measure_elsewhere(figure, peer)?;
        ratios.push(line.value / value);
        peers.push(value);
        lines.push(line);
    }
    let value = median(lines.iter().map(|line| line.value).collect());
    let bare = median(lines.iter().map(|line| line.bare).collect());
    Ok(Line {
        figure: figure.name.clone(),
        value,
        unit: figure.unit.to_owned(),
        bare,
        ratio: median(lines.iter().map(|line| line.ratio).collect()),
        peer: Some(median(peers)),
        to_peer: Some(median(ratios)),
    })
}

/// Measures in a process of its own.
fn measure_elsewhere<T: DeserializeOwned>(figure: &Figure, program: &Path) -> Outcome<T> {
    let mut command = Command::new(program);
    let output = command
        .args(["--json", "--only", &figure.name, "--runs", "1"])
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{}: {}: {text}", figure.name, output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs a model and its bare loop in turns, `supersteps` supersteps each time: the rates.
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

/// Measures a queue of `pending` alarms with skewed times.
fn skewed(runs: usize, skew: Skew, pending: u64) -> Outcome<Pair> {
    let (mut model, mut bare) = (models::skewed(skew, pending)?, bare::skewed(skew, pending));
    let events = 1_000_000;
    in_turns(
        runs,
        || Ok(model.run_events(events)?),
        || Ok(bare.run(events)),
    )
}

/// The hold model of agents that set and clear a timeout with every event.
fn clearing(runs: usize, pending: u64) -> Outcome<Pair> {
    let mut bare = bare::clearing(pending);
    rates(runs, 1_000_000, models::clearing(pending)?, |events| {
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
    /// How long `count` of the things that the rates count take [ns].
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
    let start = processor_time();
    let done = work()?;
    Ok(float(done) / (processor_time() - start).as_secs_f64())
}

/// How long this thread has had a processor: other programs disturb that less than the wall clock.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
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
