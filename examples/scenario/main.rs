//! *Covers*: agents that are data, static and changing subscriptions, alarms, agents that come and
//! go, main, pauses, errors, traces, digests.
//!
//! *Scenario*: whatever a file says. Scripted agents react to mail by sending more; every delivery
//! can be written down. For one file the trace is the same bytes on every placement.
//!
//! ```sh
//! cargo run --release --example scenario -- FILE.json --placement inline --trace OUT.jsonl
//! ```

mod lose;
mod save;
mod steer;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use maslite_mp::prelude::*;
use maslite_mp::{Chain, Marks};
use maslite_testkit::scenario::agent::{ScenarioMessage, Scripted};
use maslite_testkit::scenario::file::{LoadError, Scenario};
use maslite_testkit::scenario::play::{Cut, Moves, Pieces, Summary, has_notes, play_and_move};
use maslite_testkit::scenario::stage::{Stage, alone_with_trace, with_trace};
use maslite_testkit::scenario::trace::{Trace, write_placed};

use crate::lose::{Harm, POLICY};
use crate::save::Temporary;
use crate::steer::Steering;

/// Runs a scenario file, and prints the counters as one JSON object.
#[derive(Debug, Parser)]
#[command(name = "scenario", after_long_help = FORMAT)]
struct Options {
    /// The scenario: agents, their clusters and rules, and the mail to start with.
    file: PathBuf,
    /// Where the agents run.
    #[arg(long, value_enum, default_value_t = Where::Inline)]
    placement: Where,
    /// Write every delivery and every other event to this file, one line of JSON each.
    #[arg(long, value_name = "OUT.jsonl")]
    trace: Option<PathBuf>,
    /// Write the digests of pieces of simulated time to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    marks: Option<PathBuf>,
    /// The seed of the run. Scripted agents draw no random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Delay messages between main and the clusters randomly, from a seed. This changes no result.
    #[arg(long = "shake", value_name = "SEED")]
    jitter: Option<u64>,
    /// Have every cluster forget everything after this many supersteps, and come back from its
    /// saved state. This changes no result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    amnesia: Option<u64>,
    /// Have clusters run ahead of what is final and go back where they must: where that pays, or by
    /// chance. This changes no result but the field `undone` at the end of the JSON object.
    #[arg(long, value_enum, default_value_t = Ahead::Off)]
    speculation: Ahead,
    /// Run in pieces of this many supersteps. This changes no result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    slice: Option<u64>,
    /// Run in pieces of this many milliseconds of simulated time, if the file has a time limit.
    /// This changes no result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    slice_ms: Option<u64>,
    /// Ask a predicate, which never holds, after every superstep. This changes no result.
    #[arg(long)]
    watch: bool,
    /// Pause, step, ask and resume from another thread, randomly, from a seed. This changes no
    /// result.
    #[arg(long, value_name = "SEED")]
    steer: Option<u64>,
    /// In processes: kill them at random moments, from a seed. They come back, which changes no
    /// result but the field `recoveries` at the end of the JSON object.
    #[arg(long, value_name = "SEED")]
    lose: Option<u64>,
    /// Save the run to a temporary folder after this many supersteps, drop all of it, and go on from
    /// the folder; again and again. This changes no result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(conflicts_with = "steer")]
    save_every: Option<u64>,
    /// Go on in this many clusters after each save; in the same ones without this. This changes no
    /// result.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    #[arg(requires = "save_every")]
    restore_into: Option<u32>,
    /// End the run wherever agents report an error, and continue with another run. This changes no
    /// result.
    #[arg(long)]
    stop_at_error: bool,
    /// Connect processes by channels instead of shared memory. This changes no result.
    #[arg(long)]
    channel: bool,
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

More that a file may say, all of it optional:
  Id 0 is main. It answers mail with a ttl above 0 about the next topic: A, B, … F, A.
  An agent: "setup": [actions], "teardown": [actions], "at_most": mail that it reads in an update.
  Actions: spawn {id?} adds an agent with the same script and sends it C; remove {id}, where 0
  is the agent itself; clear {topic?, to?} clears its own alarms; pause {};
  panic {unless: topic that it has heard}; keep {awake};
  spin {until: topic, most: n} sends itself its mail once more.
  "run": {"until_ms": 2500, "supersteps_per_instant": 60, "stop_on": "F"}: main stops the run on F.
  "between": [[actions], …], what the owner does after the first pause, the second and so on:
  add {an agent}, send {from, to, topic, ttl}, remove {id}. Clusters name these agents, too.

The trace has a line for every delivery, and lines with "born", "gone", "awake", "main" and
"paused" for what else happens. After an error its last line is the error.

Exit status: 0, or 1 if the run failed, or 2 if it could not begin."#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// All agents in one scheduler, without main; clusters do not matter.
    Alone,
    /// All clusters in this process, one thread.
    Inline,
    /// A thread for each cluster: not yet.
    Threads,
    /// A process for each cluster.
    Processes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ahead {
    /// Wherever that pays.
    Auto,
    /// No cluster does.
    Off,
    /// By chance, from the seed of the run.
    Random,
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Scripted>()
        .with_trace_format(write_placed)
        .enter();
    let options = Options::parse();
    match execute(agents, &options) {
        Ok(summary) => {
            println!("{}", summary.to_json());
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

/// Where a trace is written.
type Lines = Trace<BufWriter<File>>;

/// How many supersteps a run may have, in the first attempt and in those after it. One attempt is
/// enough, unless agents say more in a run than its report holds.
const ATTEMPTS: [u64; 4] = [u64::MAX, 64, 8, 1];

fn execute(agents: Entered<ScenarioMessage>, options: &Options) -> Result<Summary, Failure> {
    if options.placement == Where::Threads {
        let reason = "placement `threads` does not exist yet: use `alone`, `inline` or `processes`";
        return Err(Failure(REFUSED, reason.to_owned()));
    }
    let refused = |error: LoadError| Failure(REFUSED, error.to_string());
    let scenario = Scenario::load(&options.file).map_err(refused)?;
    for most in ATTEMPTS {
        // Only now, so that a malformed scenario leaves no trace.
        let trace = options.trace.as_deref();
        let trace = trace.map(|path| open(path, &scenario)).transpose()?;
        let result = perform(agents.clone(), &scenario, options, most, trace.as_ref());
        if let Some(trace) = &trace {
            let cut = |error| Failure(FAILED, format!("the trace is incomplete: {error}"));
            trace.finish().map_err(cut)?;
        }
        match result {
            Ok(summary) => return Ok(summary),
            Err(Cut::Failed(error)) => return Err(Failure(FAILED, Chain(&error).to_string())),
            Err(Cut::Untold) => {}
        }
    }
    let reason = format!(
        "more than {} things in one superstep that deliveries do not tell: make the scenario smaller",
        Report::ERRORS_KEPT
    );
    Err(Failure(FAILED, reason))
}

/// Makes an empty file for the trace of a scenario.
fn open(path: &Path, scenario: &Scenario) -> Result<Lines, Failure> {
    let file = File::create(path).map_err(|error| {
        let reason = format!("{}: cannot be written: {error}", path.display());
        Failure(REFUSED, reason)
    })?;
    let file = BufWriter::new(file);
    Ok(if has_notes(scenario) {
        Trace::in_pieces(file)
    } else {
        Trace::new(file)
    })
}

fn settings_of(
    agents: Entered<ScenarioMessage>,
    options: &Options,
    placement: Placement,
    loses: bool,
) -> MpMainBuilder<ScenarioMessage> {
    let link = match options.channel {
        true => Link::Channel,
        false => Link::Auto,
    };
    let settings = MpMain::builder(agents)
        .placement(placement)
        .link(link)
        .jitter(options.jitter)
        .amnesia(options.amnesia)
        .speculation(match options.speculation {
            Ahead::Off => Speculation::Off,
            Ahead::Auto => Speculation::Auto,
            Ahead::Random => Speculation::Random(options.seed),
        })
        .seed(options.seed);
    match loses {
        true => settings.recovery(POLICY),
        false => settings,
    }
}

/// Writes marks where the options say.
fn write_marks(options: &Options, marks: Option<Marks>) {
    let (Some(path), Some(marks)) = (&options.marks, marks) else {
        return;
    };
    let json = serde_json::to_string(&marks).unwrap_or_default();
    if let Err(error) = std::fs::write(path, json + "\n") {
        eprintln!("scenario: {}: cannot be written: {error}", path.display());
    }
}

/// Plays a scenario in the way that the options say, in runs of at most `most` supersteps.
fn perform(
    agents: Entered<ScenarioMessage>,
    scenario: &Scenario,
    options: &Options,
    most: u64,
    trace: Option<&Lines>,
) -> Result<Summary, Cut> {
    let supersteps = options.slice.unwrap_or(u64::MAX).min(most);
    let pieces = Pieces {
        supersteps: (supersteps < u64::MAX).then_some(supersteps),
        millis: options.slice_ms,
        watched: options.watch,
        to_errors: options.stop_at_error,
        amnesia: options.amnesia,
        speculates: options.speculation != Ahead::Off,
    };
    if options.placement == Where::Alone {
        return perform_alone(&agents, scenario, options, pieces, trace);
    }
    let placement = match options.placement {
        Where::Processes => Placement::Processes,
        _ => Placement::Inline,
    };
    let lose = options.lose.filter(|_| placement == Placement::Processes);
    let settings = || settings_of(agents.clone(), options, placement, lose.is_some());
    let mut stage = Stage::clusters(settings(), scenario, trace)?;
    let steering = options
        .steer
        .map(|seed| Steering::of(stage.simulation(), seed));
    let mut harm = Harm::of(stage.simulation(), lose);
    let mut go_on = |mut main: MpMain<ScenarioMessage>| {
        harm.pause();
        let folder = Temporary::new();
        main.save(folder.path())?;
        harm.note(&main);
        drop(main);
        let settings = with_trace(settings(), trace);
        let main = save::restore(&folder, settings, options.restore_into)?;
        harm.go_on(&main);
        let clusters = main.clusters().to_vec();
        Ok((main, clusters))
    };
    let moves = options.save_every.map(|every| Moves {
        every,
        go_on: &mut go_on,
    });
    let result = play_and_move(scenario, pieces, &mut stage, trace, moves);
    if result.is_ok() {
        write_marks(options, stage.simulation().marks().ok().flatten());
    }
    let recoveries = harm.finish(stage.simulation_left());
    // It answers those who still ask.
    drop(stage);
    if let Some(steering) = steering {
        steering.finish();
    }
    result.map(|summary| match options.lose {
        Some(_) => summary.with_recoveries(recoveries),
        None => summary,
    })
}

/// The same in one scheduler alone.
fn perform_alone(
    agents: &Entered<ScenarioMessage>,
    scenario: &Scenario,
    options: &Options,
    pieces: Pieces,
    trace: Option<&Lines>,
) -> Result<Summary, Cut> {
    let settings = || {
        let settings = Scheduler::builder().seed(options.seed);
        settings.amnesia(options.amnesia)
    };
    let mut stage = Stage::alone(settings(), scenario, trace);
    let handle = stage.simulation().stop_handle();
    let steering = options
        .steer
        .map(|seed| Steering::interrupting(handle, seed));
    let mut go_on = |scheduler: Scheduler<ScenarioMessage>| {
        let settings = alone_with_trace(settings(), trace);
        let scheduler = save::go_on_alone(scheduler, agents, settings)?;
        Ok((scheduler, vec![()]))
    };
    let moves = options.save_every.map(|every| Moves {
        every,
        go_on: &mut go_on,
    });
    let result = play_and_move(scenario, pieces, &mut stage, trace, moves);
    if let Some(scheduler) = stage.simulation_left() {
        write_marks(options, scheduler.marks());
    }
    drop(stage);
    if let Some(steering) = steering {
        steering.finish();
    }
    result
}
