//! *Covers*: agents that are data, static and changing subscriptions, alarms, traces, digests.
//!
//! *Scenario*: whatever a file says. Scripted agents react to mail by sending more; every delivery
//! can be written down. For one file the trace is the same bytes on every placement.
//!
//! ```sh
//! cargo run --release --example scenario -- FILE.json --placement inline --trace OUT.jsonl
//! ```

mod agent;
mod file;
mod trace;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use maslite_mp::Chain;
use maslite_mp::prelude::*;
use serde::Serialize;

use crate::agent::{ScenarioMessage, Scripted};
use crate::file::Scenario;
use crate::trace::{Trace, write_line};

/// Runs a scenario file and prints what was counted, as one JSON object.
#[derive(Debug, Parser)]
#[command(name = "scenario", after_long_help = FORMAT)]
struct Options {
    /// The scenario: agents, their clusters and rules, and the mail to start with.
    file: PathBuf,
    /// Where the clusters run.
    #[arg(long, value_enum, default_value_t = Where::Inline)]
    placement: Where,
    /// Writes every delivery to this file, as a line of JSON each.
    #[arg(long, value_name = "OUT.jsonl")]
    trace: Option<PathBuf>,
    /// The seed of the run. Scripted agents leave nothing to chance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

const FORMAT: &str = r#"The file:
  {"clusters": [[1, 3], [2]],
   "agents": [
     {"id": 1,
      "subscribe": [{"topic": "B"}, {"sender": 2, "topic": "A"}],
      "rules": [{"on": "A", "do": [
        {"send": {"to": 2, "topic": "B"}},
        {"alarm": {"after_ms": 250, "to": 3, "topic": "C"}}]}]},
     {"id": 2, "subscribe": [], "rules": []},
     {"id": 3, "subscribe": [], "rules": []}],
   "start": [{"from": 1, "to": 1, "topic": "A", "ttl": 9}],
   "run": {"until_ms": 2500}}

  Actions: send {to, topic, direct?}, reply {topic}, broadcast {topic},
  alarm {after_ms, to, topic}, subscribe {pattern}, unsubscribe {pattern}.
  A pattern names one to three of sender, receiver, topic. `until_ms` is optional.

Exit status: 0, or 1 if the run failed, or 2 if it could not begin."#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// All clusters in this process, one thread.
    Inline,
    /// A thread for each cluster: not yet.
    Threads,
    /// A process for each cluster.
    Processes,
}

/// What is printed at the end.
#[derive(Serialize)]
struct Summary {
    sent: u64,
    delivered: u64,
    undeliverable: u64,
    unheard: u64,
    supersteps: u64,
    sim_ms: u64,
    stopped_by: &'static str,
    digest: String,
}

impl From<&Report> for Summary {
    fn from(report: &Report) -> Self {
        let counters = &report.counters;
        Self {
            sent: counters.sent,
            delivered: counters.delivered,
            undeliverable: counters.undeliverable,
            unheard: counters.unheard,
            supersteps: counters.supersteps,
            sim_ms: report.now.as_nanos() / 1_000_000,
            stopped_by: report.stopped_by.name(),
            digest: report.digest.unwrap_or_default().to_string(),
        }
    }
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Scripted>()
        .with_trace_format(write_line)
        .enter();
    let options = Options::parse();
    match execute(agents, &options) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(Failure(status, reason)) => {
            eprintln!("scenario: {reason}");
            ExitCode::from(status)
        }
    }
}

/// An exit status, and what is said.
struct Failure(u8, String);

/// The run could not begin.
const REFUSED: u8 = 2;
/// The run began and failed.
const FAILED: u8 = 1;

fn execute(agents: Entered<ScenarioMessage>, options: &Options) -> Result<String, Failure> {
    let placement = match options.placement {
        Where::Inline => Placement::Inline,
        Where::Processes => Placement::Processes,
        Where::Threads => {
            let reason = "placement `threads` does not exist yet: use `inline` or `processes`";
            return Err(Failure(REFUSED, reason.to_owned()));
        }
    };
    let refused = |error: file::LoadError| Failure(REFUSED, error.to_string());
    let scenario = Scenario::load(&options.file).map_err(refused)?;
    // Only now, so that a malformed scenario leaves no trace.
    let trace = match &options.trace {
        None => None,
        Some(path) => {
            let unwritable = |error| {
                let reason = format!("{}: cannot be written: {error}", path.display());
                Failure(REFUSED, reason)
            };
            let file = File::create(path).map_err(unwritable)?;
            Some((path, Trace::new(BufWriter::new(file))))
        }
    };
    let lines = trace.as_ref().map(|(_, trace)| trace.clone());
    let result = run(agents, &scenario, placement, options.seed, lines);
    if let Some((path, trace)) = trace {
        let cut = |error| {
            let reason = format!("{}: the trace is incomplete: {error}", path.display());
            Failure(FAILED, reason)
        };
        trace.finish().map_err(cut)?;
    }
    let report = result.map_err(|error| Failure(FAILED, Chain(&error).to_string()))?;
    let summary = serde_json::to_string(&Summary::from(&report.run));
    Ok(summary.expect("numbers and strings are always JSON"))
}

/// Runs a scenario from its start to its end, in the clusters that it names.
fn run(
    agents: Entered<ScenarioMessage>,
    scenario: &Scenario,
    placement: Placement,
    seed: u64,
    trace: Option<Trace<BufWriter<File>>>,
) -> Result<MpReport, maslite_mp::Error> {
    let mut main = MpMain::new(agents)?
        .with_placement(placement)
        .with_seed(seed)
        .with_digest();
    if let Some(trace) = trace {
        main = main.with_trace(move |line| trace.write(line));
    }
    let mut homes = BTreeMap::new();
    for ids in &scenario.clusters {
        let cluster = main.new_scheduler();
        homes.extend(ids.iter().map(|id| (*id, cluster)));
    }
    for script in &scenario.agents {
        main.add(homes[&script.id], script.id, Scripted::from(script))?;
    }
    for mail in &scenario.start {
        main.send(Mail::from(mail));
    }
    let until = match scenario.run.until_ms {
        Some(limit) => Run::until(SimTime::from_millis(limit)),
        None => Run::until_idle(),
    };
    // Every reaction uses up some ttl, so no exchange is endless, however long it is.
    main.run(until.supersteps_per_instant(u64::MAX))
}
