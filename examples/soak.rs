//! *Covers*: very many messages between processes: the accounts are exact, and memory does not
//! grow.
//!
//! *Scenario*: players in two clusters or more throw balls to players of the next cluster, one each
//! in every superstep, and as often as it takes. Now and then a player also throws one to an agent
//! that does not exist. The simulation runs in slices. After each every ball must have arrived, all
//! messages must be accounted for, sent = delivered + undeliverable + queued, and the memory of
//! every process is looked at: after a tenth of the messages it is warm, and what it takes at the
//! end must not be much more.
//!
//! ```sh
//! cargo run --release --example soak -- --messages 100000000 --progress
//! ```

use std::fs;
use std::process::{ExitCode, id};
use std::time::Duration;

use clap::Parser;
use maslite_mp::prelude::*;
use maslite_testkit::carrier::Carrier;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Sends very many messages between clusters, and checks counters and memory.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// The least number of messages that arrive.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// How many clusters there are.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    clusters: u64,
    /// How many players each cluster has.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    players: u64,
    /// The kind of link between processes.
    #[arg(long, value_enum, default_value_t)]
    link: Carrier,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Report every slice on the standard error.
    #[arg(long)]
    progress: bool,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error>;

/// How often the simulation is looked at.
const SLICES: u64 = 100;

/// The simulation is warm after this number of slices.
const WARM: u64 = 10;

/// By how much a process may grow from when it was warm [kB].
const GROWTH: u64 = 8 * 1024;

/// After each series of this many balls comes one that no agent gets.
const LOST: u64 = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// With the number of times that it has been thrown.
    Ball(u64),
}

/// Throws what it gets to the next player.
#[derive(Debug, Serialize, Deserialize)]
struct Player {
    next: AgentId,
    nobody: AgentId,
    caught: u64,
}

impl Agent<Msg> for Player {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        // Not all players lose balls in the same superstep.
        self.caught = ctx.rng().random_range(0..LOST);
        ctx.send(self.next, Msg::Ball(1));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Ball(thrown) = mail.body;
        self.caught += 1;
        if self.caught.is_multiple_of(LOST) {
            ctx.send(self.nobody, Msg::Ball(0));
        }
        ctx.send(self.next, Msg::Ball(thrown + 1));
    }
}

/// The memory of a process that is in use [kB]; none where the system does not tell.
fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A process: its name, and the memory it takes [kB].
#[derive(Debug, Serialize)]
struct Use {
    process: String,
    warm_kb: Option<u64>,
    end_kb: Option<u64>,
}

fn start(agents: Entered<Msg>, options: &Options) -> Result<MpMain<Msg>, Failure> {
    let mut main = MpMain::builder(agents)
        .seed(options.seed)
        .link(options.link.into())
        // All of it happens at one instant.
        .warning_after(None)
        .build()?;
    let (clusters, players) = (options.clusters, options.players);
    let nobody = AgentId::from(clusters * players + 1);
    for cluster in 0..clusters {
        let place = main.new_cluster();
        for player in 0..players {
            let id = |cluster: u64| cluster % clusters * players + player + 1;
            let next = AgentId::from(id(cluster + 1));
            let caught = 0;
            let player = Player {
                next,
                nobody,
                caught,
            };
            main.add_to(place, id(cluster), player)?;
        }
    }
    Ok(main)
}

fn soak(agents: Entered<Msg>, options: &Options) -> Result<(), Failure> {
    let mut main = start(agents, options)?;
    let balls = options.clusters * options.players;
    // One is thrown by each player in a superstep, and all arrive in the next.
    let supersteps = options.messages.div_ceil(balls);
    let (mut warm, mut end) = (Vec::new(), Vec::new());
    let (mut wall, mut counters) = (Duration::ZERO, Counters::default());
    for slice in 1..=SLICES {
        let until = supersteps * slice / SLICES;
        let since = supersteps * (slice - 1) / SLICES;
        let run = Run::until_idle()
            .supersteps(until - since)
            .supersteps_per_instant(u64::MAX);
        let report = main.run(run)?;
        wall += report.wall;
        counters = report.total;
        let accounted = counters.delivered + counters.undeliverable + counters.queued;
        if counters.sent != accounted {
            let sent = counters.sent;
            return Err(format!("{sent} messages sent and {accounted} accounted for").into());
        }
        // What is lost on its way was never counted as sent. But then a player would have had
        // nothing to throw.
        if (counters.delivered, counters.queued) != (until * balls, balls) {
            let arrived = counters.delivered;
            return Err(format!("{arrived} messages arrived of {}", until * balls).into());
        }
        let pids = [("main".to_owned(), id())].into_iter().chain(
            main.pids()
                .into_iter()
                .map(|(cluster, pid)| (cluster.to_string(), pid)),
        );
        end = pids.map(|(process, pid)| (process, memory(pid))).collect();
        if slice == WARM {
            warm = end.clone();
        }
        if options.progress {
            eprintln!("{slice} of {SLICES}: {report}; memory {end:?} [kB]");
        }
    }
    let ended = main.shutdown();
    if let Some(error) = ended.errors.into_iter().next() {
        return Err(error.into());
    }
    let processes = warm.into_iter().zip(end);
    let processes = processes.map(|((process, warm_kb), (_, end_kb))| Use {
        process,
        warm_kb,
        end_kb,
    });
    let processes: Vec<_> = processes.collect();
    tell(options, &counters, wall, &processes);
    match processes.iter().find(|process| has_grown(process)) {
        Some(process) => Err(format!("memory has grown: {process:?}").into()),
        None => Ok(()),
    }
}

fn has_grown(process: &Use) -> bool {
    let warm = process.warm_kb.unwrap_or(u64::MAX);
    process
        .end_kb
        .is_some_and(|end| end > warm.saturating_add(GROWTH))
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn tell(options: &Options, counters: &Counters, wall: Duration, processes: &[Use]) {
    let Counters {
        sent,
        delivered,
        undeliverable,
        queued,
        ..
    } = *counters;
    let seconds = wall.as_secs_f64();
    let per_s = delivered as f64 / seconds.max(1e-9);
    if options.json {
        let told = json!({
            "clusters": options.clusters,
            "players": options.clusters * options.players,
            "sent": sent,
            "delivered": delivered,
            "undeliverable": undeliverable,
            "queued": queued,
            "wall_s": seconds,
            "delivered_per_s": per_s,
            "memory": processes,
        });
        println!("{told}");
        return;
    }
    println!(
        "{sent} sent = {delivered} delivered + {undeliverable} undeliverable + {queued} queued"
    );
    println!("in {seconds:.1} s, {per_s:.0} a second");
    for process in processes {
        if let (Some(warm), Some(end)) = (process.warm_kb, process.end_kb) {
            println!(
                "{}: {warm} kB when warm, {end} kB at the end",
                process.process
            );
        }
    }
}

fn main() -> ExitCode {
    // A child process goes no further.
    let agents = Registry::new().with::<Player>().enter();
    if let Err(error) = soak(agents, &Options::parse()) {
        eprintln!("{}", maslite_mp::Chain(&*error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
