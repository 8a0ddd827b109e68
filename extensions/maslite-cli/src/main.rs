//! Looks at simulations that run on this machine, and steers them; checks programs, and compares
//! runs.
//!
//! It connects to simulations whose programs have opened a control socket: see
//! [`MpMain::open_control`](maslite_mp::MpMain::open_control).

mod check;
mod choice;
mod marks;
mod patience;
mod replay;
mod running;
mod show;
mod snapshots;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use maslite_mp::Plain;
use maslite_mp::control::protocol::{Reply, Request};
use maslite_mp::control::{AskError, Simulation, simulations};
use rustix::event::{Timespec, poll};
use serde_json::json;

use choice::Failure;

/// Looks at simulations that run on this machine, and steers them.
///
/// Exit codes: 0 done; 1 the simulation refused the request, or has ended, or two runs differ; 2
/// there is no such simulation, or the arguments are wrong.
#[derive(Debug, Parser)]
#[command(name = "maslite", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Choose a simulation if several run, by its process id, its name, or the path of its socket.
    #[arg(long, global = true, value_name = "PID|NAME|PATH")]
    simulation: Option<String>,
    /// Print one JSON object per line, and nothing else.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the running simulations that have a control socket.
    List,
    /// Show the status of a simulation, without waiting for its agents.
    Status,
    /// Show the status repeatedly, until the simulation ends.
    Watch {
        /// Seconds between two displays.
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        every: u32,
    },
    /// Finish the current superstep, and pause.
    Pause,
    /// Run some supersteps, and pause.
    Step {
        /// How many supersteps.
        #[arg(default_value_t = 1)]
        supersteps: u64,
        /// Finish the current instant instead, and pause at the next one.
        #[arg(long, conflicts_with = "supersteps")]
        to_next_instant: bool,
    },
    /// Resume a paused simulation.
    Resume,
    /// End the run after the current superstep.
    Stop,
    /// Save the simulation in the folder that its program has named for snapshots. It then goes on.
    Save {
        /// The name of the snapshot; its folder must not be there yet.
        name: String,
    },
    /// List the snapshots in a folder, and look whether they are whole.
    Snapshots {
        /// The folder.
        folder: PathBuf,
    },
    /// List the agents.
    Agents,
    /// Show an agent: its type, cluster, state, alarms and subscriptions.
    Agent {
        /// Its number or name.
        id: String,
    },
    /// Run a program in several ways and compare its traces, to find what does not follow from its
    /// seed: twice as it is, with its agents in one cluster and in several, with jitter, and with
    /// amnesia. The program must give the settings of its simulation to
    /// `maslite_mp::comparison::checked`.
    Check {
        /// How many clusters are several.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
        clusters: u32,
        /// The program, and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Run one recorded cluster of a program alone, in one process, and compare its answers with the
    /// recorded ones. The program must give the settings of its simulation to
    /// `maslite_mp::comparison::checked`, and have been run with `record`.
    Replay {
        /// The folder with the records.
        folder: PathBuf,
        /// The name of the cluster.
        #[arg(long)]
        cluster: String,
        /// Stop when the cluster has come to this simulated time, in seconds.
        #[arg(long, value_name = "SECONDS")]
        until: Option<f64>,
        /// The program and its arguments, or a debugger with them: `rust-gdb --args ./program`.
        #[arg(required = true, last = true)]
        program: Vec<OsString>,
    },
    /// Compare two files of marks: the first piece of simulated time in which two runs differ.
    Marks {
        /// The marks of one run, as JSON.
        one: PathBuf,
        /// The marks of the other run.
        other: PathBuf,
    },
}

fn main() -> ExitCode {
    let Options { command, common } = Options::parse();
    match run(command, &common) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed the pipe, because it has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let why = maslite_mp::Chain(&failure).to_string();
            let _ = writeln!(io::stderr(), "maslite: {}", Plain(&why, 4_000));
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command, common: &Common) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match &command {
        Command::List => return list(&mut out, common.json),
        Command::Check { clusters, program } => {
            return check::check(&mut out, program, *clusters, common.json);
        }
        Command::Replay {
            folder,
            cluster,
            until,
            program,
        } => return Err(replay::replay(folder, cluster, *until, program)),
        Command::Snapshots { folder } => return snapshots::list(&mut out, folder, common.json),
        Command::Marks { one, other } => return marks::marks(&mut out, [one, other], common.json),
        _ => {}
    }
    let simulation = choice::choose(common.simulation.as_deref())?;
    let request = match command {
        Command::List
        | Command::Status
        | Command::Check { .. }
        | Command::Replay { .. }
        | Command::Snapshots { .. }
        | Command::Marks { .. } => Request::Status,
        Command::Watch { every } => return watch(&mut out, &simulation, every, common.json),
        Command::Agents => return agents(&mut out, &simulation, common.json),
        Command::Pause => Request::Pause,
        Command::Step {
            to_next_instant: true,
            ..
        } => Request::StepInstant,
        Command::Step { supersteps, .. } => Request::Step { supersteps },
        Command::Resume => Request::Resume,
        Command::Stop => Request::Stop,
        Command::Agent { id } => Request::Agent { id },
        Command::Save { name } => Request::Save { name },
    };
    let done = match request {
        Request::Resume => "continues",
        _ => "ends after the current superstep",
    };
    let reply = patience::ask_patiently(&simulation.path, request)?;
    if common.json {
        writeln!(out, "{}", show::as_json(&reply))?;
        return Ok(());
    }
    tell(&mut out, &simulation, &reply, done)
}

/// Writes an answer for people. `done` is what a simulation then does.
fn tell(
    out: &mut impl Write,
    simulation: &Simulation,
    reply: &Reply,
    done: &str,
) -> Result<(), Failure> {
    match reply {
        Reply::Status(status) => write!(out, "{}", show::status(simulation, status))?,
        Reply::Paused { time } => writeln!(out, "{simulation} is paused at {time}")?,
        Reply::Ended { time, reason } => {
            let reason = show::long(reason);
            writeln!(out, "{simulation}: the run ended at {time}: {reason}")?;
        }
        Reply::Saved {
            path,
            time,
            agents,
            bytes,
            state_digest,
        } => {
            let path = show::long(path);
            writeln!(
                out,
                "{simulation} was saved at {time} in {path}: {agents} agents, {bytes} bytes, state {state_digest}"
            )?;
        }
        Reply::Agent(agent) => write!(out, "{}", show::agent(agent))?,
        Reply::Done => writeln!(out, "{simulation} {done}")?,
        _ => {
            return Err(Failure::Nonsense(
                "another question than the one that was asked",
            ));
        }
    }
    Ok(())
}

fn list(out: &mut impl Write, json: bool) -> Result<(), Failure> {
    let found = simulations().map_err(Failure::List)?;
    for simulation in &found {
        let Simulation {
            pid, name, path, ..
        } = simulation;
        if json {
            writeln!(out, "{}", json!({ "pid": pid, "name": name, "path": path }))?;
        } else {
            let path = path.to_string_lossy();
            writeln!(out, "{pid:>8}  {name:<32}  {}", Plain(&path, 4_096))?;
        }
    }
    if found.is_empty() && !json {
        writeln!(
            out,
            "no simulation with a control socket runs: a program opens a control socket with `MpMain::open_control`"
        )?;
    }
    Ok(())
}

/// Shows the status of a simulation repeatedly: on a terminal in place, elsewhere one status after
/// the other.
fn watch(
    out: &mut impl Write,
    simulation: &Simulation,
    every: u32,
    json: bool,
) -> Result<(), Failure> {
    let in_place = !json && io::stdout().is_terminal();
    let mut lines = 0;
    loop {
        let reply = match patience::ask_at_once(&simulation.path, Request::Status) {
            Err(error) if lines > 0 && is_gone(&error) => {
                if !json {
                    writeln!(out, "{simulation} has ended")?;
                }
                return Ok(());
            }
            reply => reply?,
        };
        let Reply::Status(status) = &reply else {
            return Err(Failure::Nonsense(
                "another question than the one about its status",
            ));
        };
        let text = if json {
            format!("{}\n", show::as_json(&reply))
        } else {
            show::status(simulation, status)
        };
        if in_place && lines > 0 {
            // Moves to the first line of the last display, and clears the display.
            write!(out, "\x1b[{lines}A\x1b[J")?;
        }
        lines = text.lines().count();
        write!(out, "{text}")?;
        out.flush()?;
        let pause = Timespec {
            tv_sec: i64::from(every),
            tv_nsec: 0,
        };
        poll(&mut [], Some(&pause)).map_err(io::Error::from)?;
    }
}

/// Whether the simulation is gone. A simulation that only does not answer is not gone.
fn is_gone(error: &AskError) -> bool {
    match error {
        AskError::Connect(_) => true,
        AskError::Silent(why) => !matches!(
            why.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::InvalidData
        ),
        _ => false,
    }
}

/// Lists all agents. The simulation decides how many it sends at a time.
fn agents(out: &mut impl Write, simulation: &Simulation, json: bool) -> Result<(), Failure> {
    let mut from = 0;
    loop {
        let limit = u64::MAX;
        let reply = patience::ask_patiently(&simulation.path, Request::Agents { from, limit })?;
        let Reply::Agents(agents) = reply else {
            return Err(Failure::Nonsense(
                "another question than the one about its agents",
            ));
        };
        let Some(last) = agents.last() else {
            return Ok(());
        };
        if from == 0 && !json {
            writeln!(out, "{:<20}  {:<16}  TYPE", "AGENT", "CLUSTER")?;
        }
        // A list that does not ascend might never end.
        let ascends = agents.is_sorted_by(|one, next| one.index < next.index);
        let next = last
            .index
            .checked_add(1)
            .filter(|_| ascends && agents[0].index >= from);
        from = next.ok_or(Failure::Nonsense("agents in no order"))?;
        for agent in &agents {
            if json {
                writeln!(out, "{}", show::as_json(agent))?;
            } else {
                let (id, cluster) = (show::name(&agent.id), show::name(&agent.cluster));
                let kind = show::long(&agent.type_name);
                writeln!(out, "{id:<20}  {cluster:<16}  {kind}")?;
            }
        }
    }
}
