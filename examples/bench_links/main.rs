//! *Covers*: what the border between two clusters costs, next to bare processes that do nothing but
//! pass frames over the same kind of link.
//!
//! *Scenario*: each figure runs a model of two clusters and its bare loop in turns, several times
//! over, and quotes medians. Both have three processes, of which main is in every hop, and wait in
//! the same way. The ratio is what counts: machines differ, and so do the hours of one machine.
//!
//! ```text
//! cargo run --release --example bench_links -- --json --only round_trip --runs 9
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use serde::Serialize;

mod bare;
#[path = "../support/carrier.rs"]
mod carrier;
#[path = "../wall_vs_sim/measuring.rs"]
#[expect(dead_code, reason = "lengths of simulated time are no option here")]
mod measuring;
mod models;

use carrier::Carrier;
use measuring::{processor_time, rounds_of};
use models::{Busy, Msg, PERIOD, Tokens};

/// Measures what the border between two clusters costs, next to bare loops of the same shape.
#[derive(Debug, Parser)]
#[command(name = "bench_links", after_help = EXPLANATION)]
struct Options {
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Measure this figure only; may be given several times.
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Figure>,
    /// How often each model and each bare loop is run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// How all processes wait, of clusters and bare ones.
    #[arg(long, value_enum, default_value_t = How::Auto)]
    waiting: How,
    /// What carries the messages, of clusters and of bare processes; each in turn unless one is named.
    #[arg(long, value_enum)]
    link: Option<Carrier>,
    /// Let all processes share one processor; on Linux only.
    #[arg(long)]
    one_core: bool,
    /// How long each run is, against the usual length.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    scale: f64,
}

const EXPLANATION: &str = "\
lockstep    clusters, two of them and eight, with an alarm and one message each per instant, in
            exchanges (main grants something to all, and all report); bare: main sends a frame of
            64 bytes to all, and all answer
round_trip  question and answer at one instant, over four hops; bare: as many hops of 64 bytes
crossing    messages to another cluster, 10_000 a superstep: encoded, relayed, delivered; bare:
            as many in the same batches, encoded, relayed, decoded
main_share  the share of one processor that main uses while both clusters work, 1 µs per event
pays        two processes against one scheduler, as a ratio: each message takes some work [ns] and
            sends another in the next superstep; so many of a hundred go to the other cluster";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Figure {
    Lockstep,
    RoundTrip,
    Crossing,
    MainShare,
    Pays,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// As a simulation does by itself.
    Auto,
    /// Block at once.
    Block,
    /// Look for 50 µs, then block.
    Spin,
}

/// How long a process looks for a message, if it does.
const SPIN: Duration = Duration::from_micros(50);

impl How {
    fn name(self) -> String {
        format!("{self:?}")
    }

    fn of_name(name: &str) -> Option<Self> {
        let known = Self::value_variants().iter();
        known.copied().find(|known| known.name() == name)
    }

    fn of_clusters(self) -> Waiting {
        match self {
            Self::Auto => Waiting::Auto,
            Self::Block => Waiting::Block,
            Self::Spin => Waiting::Spin(SPIN),
        }
    }

    /// The same for bare channels: how long to look before blocking.
    fn bare(self, peers: usize) -> Duration {
        // What `Waiting::Auto` goes by.
        let spare =
            std::thread::available_parallelism().is_ok_and(|processors| processors.get() > peers);
        match self {
            Self::Spin => SPIN,
            Self::Auto if spare => SPIN,
            Self::Auto | Self::Block => Duration::ZERO,
        }
    }
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One line of the result.
#[derive(Clone, Serialize)]
struct Line {
    figure: String,
    /// What carried the messages.
    link: &'static str,
    value: f64,
    unit: &'static str,
    /// What the bare loop did, in the same unit, and the value over that; if there is one.
    bare: Option<f64>,
    ratio: Option<f64>,
    one_core: bool,
}

fn main() -> ExitCode {
    match bare::was_peer() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return failed(&*error),
    }
    let agents = models::agents();
    match measure_all(&agents, &Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("{}", maslite_mp::Chain(error));
    ExitCode::FAILURE
}

fn measure_all(agents: &Entered<Msg>, options: &Options) -> Outcome<()> {
    if !(options.scale > 0.0 && options.scale <= 1_000.0) {
        return Err("--scale is above 0, and at most 1000".into());
    }
    if options.one_core {
        share_one_core()?;
    }
    if !options.json {
        println!(
            "{:<24}{:<9}{:>14}{:>14}{:>8}  unit",
            "figure", "link", "value", "bare", "ratio"
        );
    }
    let links = match options.link {
        Some(Carrier::Ring) => vec![Link::Ring],
        Some(Carrier::Channel) => vec![Link::Channel],
        _ if cfg!(target_os = "linux") => vec![Link::Ring, Link::Channel],
        _ => vec![Link::Channel],
    };
    for figure in Figure::value_variants() {
        if !options.only.is_empty() && !options.only.contains(figure) {
            continue;
        }
        for link in &links {
            let bench = Bench {
                agents,
                options,
                link: *link,
            };
            for line in bench.measure(*figure)? {
                print(&line, options.json)?;
            }
        }
    }
    Ok(())
}

fn print(line: &Line, json: bool) -> Outcome<()> {
    if json {
        println!("{}", serde_json::to_string(line)?);
        return Ok(());
    }
    let digits = |value: f64| match value {
        1_000.0.. => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    };
    println!(
        "{:<24}{:<9}{:>14}{:>14}{:>8}  {}",
        line.figure,
        line.link,
        digits(line.value),
        line.bare.map_or_else(String::new, digits),
        line.ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        line.unit
    );
    Ok(())
}

/// Processes started from now on inherit it.
#[cfg(target_os = "linux")]
fn share_one_core() -> Outcome<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|processor| allowed.is_set(*processor));
    let mut one = CpuSet::new();
    one.set(first.ok_or("no processor to run on")?);
    Ok(sched_setaffinity(None, &one)?)
}

#[cfg(not(target_os = "linux"))]
fn share_one_core() -> Outcome<()> {
    Err("--one-core is there on Linux only".into())
}

/// All that the figures have in common.
struct Bench<'a> {
    agents: &'a Entered<Msg>,
    options: &'a Options,
    link: Link,
}

impl Bench<'_> {
    fn measure(&self, figure: Figure) -> Outcome<Vec<Line>> {
        match figure {
            Figure::Lockstep => Ok([self.lockstep(2)?, self.lockstep(8)?].concat()),
            Figure::RoundTrip => self.round_trip(),
            Figure::Crossing => self.crossing(),
            Figure::MainShare => self.main_share(),
            Figure::Pays => self.pays(),
        }
    }

    fn lockstep(&self, clusters: usize) -> Outcome<Vec<Line>> {
        let instants = self.scaled(10_000.0);
        let mut main = self.main()?;
        models::lockstep(&mut main, clusters as u64)?;
        set_up(&mut main)?;
        let mut bare = bare::Echoes::start(self.manner(clusters))?;
        let (mut before, mut per_instant) = (0, Vec::new());
        let ours = || {
            let report = main.run(Run::lasting(PERIOD * instants))?;
            // All get their alarm and their message.
            check(&report, 2 * clusters as u64)?;
            let exchanges = report.exchanges - std::mem::replace(&mut before, report.exchanges);
            per_instant.push(float(exchanges) / float(instants));
            Ok(exchanges)
        };
        let rates = self.in_turns(ours, || bare.barriers(2 * instants))?;
        let exchanges = median(per_instant);
        Ok(vec![
            self.against(&format!("lockstep_{clusters}"), "exchanges/s", rates),
            self.line(
                &format!("lockstep_{clusters}_exchanges"),
                "exchanges/instant",
                exchanges,
            ),
        ])
    }

    fn round_trip(&self) -> Outcome<Vec<Line>> {
        let trips = self.scaled(10_000.0);
        let mut main = self.main()?;
        models::round_trip(&mut main, trips)?;
        set_up(&mut main)?;
        let mut bare = bare::Echoes::start(self.manner(2))?;
        let ours = || {
            let run = Run::lasting(PERIOD).supersteps_per_instant(u64::MAX);
            let report = main.run(run)?;
            // All questions and answers, and the alarm.
            check(&report, 2 * trips + 1)?;
            Ok(trips)
        };
        let (value, bare) = self.in_turns(ours, || bare.relays(trips))?;
        let times = (1e6 / value, 1e6 / bare);
        Ok(vec![self.against("round_trip", "us", times)])
    }

    fn crossing(&self) -> Outcome<Vec<Line>> {
        let (streams, mails) = (self.scaled(20.0), 10_000);
        let batches = streams * models::BURSTS;
        let mut main = self.main()?;
        models::crossing(&mut main, mails)?;
        set_up(&mut main)?;
        let mut bare = bare::Pipe::start(self.manner(2))?;
        let ours = || {
            let report = main.run(Run::lasting(PERIOD * streams))?;
            // With what the source tells itself.
            check(&report, models::BURSTS * (mails + 1))?;
            Ok(batches * mails)
        };
        let rates = self.in_turns(ours, || bare.batches(batches, mails))?;
        Ok(vec![self.against("crossing", "messages/s", rates)])
    }

    fn main_share(&self) -> Outcome<Vec<Line>> {
        let work = rounds_of(1_000);
        // The scenario of wall_vs_sim, roughly.
        let rare_mail = Busy {
            agents: 1_000,
            population: 1,
            mean: SimDuration::from_millis(100),
            lookahead: SimDuration::from_secs(1),
            crossing: 0.000_5,
            work,
        };
        let share = self.share(rare_mail, SimDuration::from_secs(30))?;
        let rare = self.line("main_share_rare_mail", "of a processor", share);
        // That of phold, with its lookahead.
        let phold = Busy {
            agents: 5_000,
            population: 16,
            mean: SimDuration::from_secs(1),
            lookahead: SimDuration::from_millis(100),
            crossing: 0.05,
            work,
        };
        let share = self.share(phold, SimDuration::from_secs(5))?;
        let phold = self.line("main_share_phold", "of a processor", share);
        Ok(vec![rare, phold])
    }

    /// The share of a processor that main uses while its clusters work.
    fn share(&self, busy: Busy, length: SimDuration) -> Outcome<f64> {
        let mut main = self.main()?.with_lookahead(busy.lookahead);
        models::workers(&mut main, busy)?;
        set_up(&mut main)?;
        let length = SimDuration::try_from_secs_f64(length.as_secs_f64() * self.options.scale)?;
        let mut shares = Vec::new();
        for _ in 0..=self.options.runs {
            let before = processor_time().ok_or("the system does not tell the processor time")?;
            let report = main.run(Run::lasting(length))?;
            let used = processor_time().unwrap_or(before).saturating_sub(before);
            shares.push(used.as_secs_f64() / report.wall.as_secs_f64());
        }
        // The first run is there to warm up, as everywhere.
        Ok(median(shares.split_off(1)))
    }

    /// What two processes reach of what one scheduler does, over work and share of crossing mail.
    fn pays(&self) -> Outcome<Vec<Line>> {
        let mut lines = Vec::new();
        for crossing in [1, 10, 50] {
            for work in [0, 100, 1_000] {
                let tokens = Tokens {
                    agents: 1_000,
                    clusters: 2,
                    work: rounds_of(work),
                    crossing: float(crossing) / 100.0,
                };
                let supersteps = self.scaled(200_000.0 / (50.0 + float(work)));
                let delivered = supersteps * tokens.agents * tokens.clusters;
                let run = || {
                    let run = Run::until_idle().supersteps(supersteps);
                    run.supersteps_per_instant(u64::MAX)
                };
                let mut two = self.main()?.with_digest();
                let mut one = MpMain::new(self.agents.clone())?;
                one = one.with_placement(Placement::Inline).with_digest();
                models::tokens(&mut two, tokens, false)?;
                models::tokens(&mut one, tokens, true)?;
                let mut digests = [Vec::new(), Vec::new()];
                let [first, second] = &mut digests;
                let count = |main: &mut MpMain<Msg>, digests: &mut Vec<Option<u64>>| {
                    let report = main.run(run())?;
                    digests.push(report.digest);
                    Ok(delivered)
                };
                let (value, bare) =
                    self.in_turns(|| count(&mut two, first), || count(&mut one, second))?;
                if digests[0] != digests[1] {
                    return Err("two processes gave another trace than one scheduler".into());
                }
                let name = format!("pays_{crossing}_{work}");
                lines.push(self.against(&name, "messages/s", (value, bare)));
            }
        }
        Ok(lines)
    }

    fn manner(&self, peers: usize) -> bare::Manner {
        bare::Manner {
            is_ring: self.link == Link::Ring,
            how: self.options.waiting,
            peers,
        }
    }

    /// A simulation of clusters, as the options want it.
    fn main(&self) -> Outcome<MpMain<Msg>> {
        let main = MpMain::new(self.agents.clone())?;
        Ok(main
            .with_link(self.link)
            .with_waiting(self.options.waiting.of_clusters()))
    }

    fn scaled(&self, count: f64) -> u64 {
        scaled(count, self.options.scale)
    }

    /// Runs two loops in turns, once before it counts; each tells how much it did. The medians of
    /// what they do in a second.
    fn in_turns(
        &self,
        mut ours: impl FnMut() -> Outcome<u64>,
        mut theirs: impl FnMut() -> Outcome<u64>,
    ) -> Outcome<(f64, f64)> {
        ours()?;
        theirs()?;
        let (mut values, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            values.push(per_second(&mut ours)?);
            bares.push(per_second(&mut theirs)?);
        }
        Ok((median(values), median(bares)))
    }

    fn against(&self, figure: &str, unit: &'static str, (value, bare): (f64, f64)) -> Line {
        Line {
            bare: Some(bare),
            ratio: Some(value / bare),
            ..self.line(figure, unit, value)
        }
    }

    fn line(&self, figure: &str, unit: &'static str, value: f64) -> Line {
        Line {
            figure: figure.to_owned(),
            link: match self.link {
                Link::Ring => "ring",
                _ => "channel",
            },
            value,
            unit,
            bare: None,
            ratio: None,
            one_core: self.options.one_core,
        }
    }
}

/// Starts the processes and lets the first period pass, in which nothing happens: from now on a run
/// of so many periods has so many instants.
fn set_up(main: &mut MpMain<Msg>) -> Outcome<()> {
    main.run(Run::lasting(PERIOD))?;
    Ok(())
}

/// Whether all that was sent was delivered: so much in each instant so far.
fn check(report: &MpReport, per_instant: u64) -> Outcome<()> {
    let instants = report.now.as_nanos() / PERIOD.as_nanos() - 1;
    let (delivered, expected) = (report.counters.delivered, instants * per_instant);
    if delivered == expected {
        return Ok(());
    }
    Err(format!("{delivered} messages were delivered, not {expected}").into())
}

fn per_second(work: &mut impl FnMut() -> Outcome<u64>) -> Outcome<f64> {
    let start = wall();
    let done = work()?;
    Ok(float(done) / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn float(count: u64) -> f64 {
    count as f64
}

/// At least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number above zero"
)]
fn scaled(count: f64, scale: f64) -> u64 {
    (count * scale).max(1.0) as u64
}
