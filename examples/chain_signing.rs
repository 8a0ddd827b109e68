//! Covers: agents in several operating-system processes, mail between them, mail to main, a stop
//! asked for by its handler.
//!
//! Scenario: a contract needs everybody's signature. Agent 1 finds the chain message in its inbox,
//! signs and sends it to a peer chosen at random, who does the same, and so on. Each agent knows
//! its successor, so everyone can be reached, and a few others. Who sees that all have signed sends
//! the contract to main, and main stops the simulation.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use maslite_mp::prelude::*;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

/// Agents in several processes pass a contract around until everyone has signed it.
#[derive(Debug, Parser)]
#[command(name = "chain_signing")]
struct Options {
    /// How many agents sign.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    agents: u64,
    /// How many schedulers they are divided among.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    schedulers: u64,
    /// How many peers an agent knows at most: its successor, and others drawn at random.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    peers: u64,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the schedulers run.
    #[arg(long, value_enum, default_value_t = Where::Processes)]
    placement: Where,
    /// Print the outcome only.
    #[arg(long)]
    quiet: bool,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
    /// Stop the run after this many seconds of wall time.
    #[arg(long, default_value_t = 600)]
    timeout_s: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// All in this process.
    Inline,
    /// Each in a child process of its own.
    Processes,
}

impl From<Where> for Placement {
    fn from(place: Where) -> Self {
        match place {
            Where::Inline => Self::Inline,
            Where::Processes => Self::Processes,
        }
    }
}

/// Signatures are written out in the story up to this many.
const WRITTEN_OUT: usize = 12;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Signature {
    agent: AgentId,
    /// Drawn by the agent when it signs.
    stamp: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// The contract on its way, with the hops it has made.
    Chain {
        hops: u64,
        signatures: Vec<Signature>,
    },
    /// The contract, signed by all.
    Contract {
        hops: u64,
        signatures: Vec<Signature>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Signer {
    peers: Vec<AgentId>,
    /// How many agents must sign.
    everyone: u64,
    signed: bool,
}

impl Agent<Msg> for Signer {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let (hops, mut signatures) = match mail.body {
            Msg::Chain { hops, signatures } => (hops + 1, signatures),
            Msg::Contract { .. } => return,
        };
        if !self.signed {
            self.signed = true;
            let (agent, stamp) = (ctx.id(), ctx.rng().random());
            signatures.push(Signature { agent, stamp });
        }
        if signatures.len() as u64 == self.everyone {
            ctx.send(AgentId::MAIN, Msg::Contract { hops, signatures });
        } else if let Some(peer) = self.peers.choose(ctx.rng()) {
            ctx.send(*peer, Msg::Chain { hops, signatures });
        }
    }
}

/// One line of the story, told where the mail arrives.
fn tell(delivery: &Delivery<'_, Msg>, line: &mut String) {
    let (from, to) = (delivery.mail.sender, delivery.agent);
    *line = match &delivery.mail.body {
        Msg::Chain { hops, signatures } => {
            format!(
                "hop {hops}: {from} -> {to}, signed by {}",
                listed(signatures)
            )
        }
        Msg::Contract { hops, signatures } => {
            format!(
                "contract: {from} -> {to} after {hops} hops, signed by {}",
                listed(signatures)
            )
        }
    };
}

fn listed(signatures: &[Signature]) -> String {
    if signatures.is_empty() {
        return "nobody yet".to_owned();
    }
    if signatures.len() > WRITTEN_OUT {
        return format!("{} agents", signatures.len());
    }
    let agents = signatures
        .iter()
        .map(|signature| signature.agent.to_string());
    agents.collect::<Vec<_>>().join(" ")
}

/// Whom each agent knows, in insertion order. The last one's successor is the first.
fn acquaintances(options: &Options) -> Vec<Vec<AgentId>> {
    let mut rng = AgentRng::new(options.seed, AgentId::MAIN);
    let count = options.agents;
    (1..=count)
        .map(|me| {
            let successor = me % count + 1;
            let wanted = options.peers.min(count.max(2) - 1);
            let mut peers = vec![successor];
            while (peers.len() as u64) < wanted {
                let other = rng.random_range(1..=count);
                if other != me && !peers.contains(&other) {
                    peers.push(other);
                }
            }
            peers.shuffle(&mut rng);
            peers.into_iter().map(AgentId::from).collect()
        })
        .collect()
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Signer>()
        .with_trace_format(tell)
        .enter();
    let options = Options::parse();
    match run(agents, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The handler of a program of its own: the first Ctrl-C ends the run, the second one the program,
/// and its clusters with it.
fn handle_ctrl_c(stop: maslite_mp::StopHandle) -> Result<(), ctrlc::Error> {
    let pressed = AtomicBool::new(false);
    let handler = move || match pressed.swap(true, Ordering::Relaxed) {
        false => {
            stop.stop();
            eprintln!("stopping the run; Ctrl-C again ends the program");
        }
        true => std::process::exit(130),
    };
    match ctrlc::try_set_handler(handler) {
        // Ctrl-C is ignored, as for programs that a script starts with `&`, and stays so.
        Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        result => result,
    }
}

fn run(agents: Entered<Msg>, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let story = !options.quiet && !options.json;
    let say = |line: &str| {
        if story {
            println!("{line}");
        }
    };
    let mut settings = MpMain::builder(agents)
        .seed(options.seed)
        .placement(options.placement.into());
    if story {
        settings = settings.trace(|line| println!("{line}"));
    }
    let mut main = settings.build()?;
    handle_ctrl_c(main.stop_handle())?;
    add_signers(&mut main, options)?;
    say(&format!("{} agents added", options.agents));
    main.start()?;
    for cluster in main.clusters() {
        say(&format!("scheduler {cluster} started"));
    }
    let chain = Msg::Chain {
        hops: 0,
        signatures: Vec::new(),
    };
    main.send(1, chain);

    let mut contract = None;
    let run = Run::until_idle()
        .timeout(Duration::from_secs(options.timeout_s))
        .supersteps_per_instant(u64::MAX);
    let report = main.run_with(run, |mail, main| {
        if let Msg::Contract { hops, signatures } = mail.body {
            contract = Some((hops, signatures));
            main.stop();
        }
    })?;

    let startup = main.startup().unwrap_or_default();
    let pids: Vec<u32> = main.pids().into_iter().map(|(_, pid)| pid).collect();
    say("stopping");
    let shutdown = main.shutdown();
    for error in &shutdown.errors {
        eprintln!("{}", maslite_mp::Chain(error));
    }
    for cluster in report.clusters.iter().rev() {
        say(&format!("scheduler {} stopped", cluster.name));
    }
    say("all stopped");
    let Some((hops, signatures)) = contract else {
        return Err(format!("no contract: the run ended by {}", report.stopped_by).into());
    };
    if options.json {
        let times = (startup, shutdown.took);
        println!("{}", outcome(options, &report, hops, times, &pids));
    } else {
        println!("{} signatures after {hops} hops", signatures.len());
    }
    Ok(())
}

/// Adds the schedulers and their agents: the first few agents to the first scheduler, and so on.
fn add_signers(
    main: &mut MpMain<Msg>,
    options: &Options,
) -> Result<(), Box<dyn std::error::Error>> {
    let schedulers: Vec<_> = (0..options.schedulers)
        .map(|_| main.new_cluster())
        .collect();
    for (number, peers) in (0..options.agents).zip(acquaintances(options)) {
        let scheduler = usize::try_from(number * options.schedulers / options.agents)?;
        let signer = Signer {
            peers,
            everyone: options.agents,
            signed: false,
        };
        main.add_to(schedulers[scheduler], number + 1, signer)?;
    }
    Ok(())
}

/// What `--json` prints. The times are those of the start and of the shutdown.
fn outcome(
    options: &Options,
    report: &MpReport,
    hops: u64,
    (startup, shutdown): (Duration, Duration),
    pids: &[u32],
) -> serde_json::Value {
    serde_json::json!({
        "agents": options.agents,
        "schedulers": options.schedulers,
        "placement": format!("{:?}", options.placement).to_lowercase(),
        "seed": options.seed,
        "hops": hops,
        "supersteps": report.counters.supersteps,
        "local": report.local,
        "routed": report.routed,
        "undeliverable": report.counters.undeliverable,
        "wall_s": report.wall.as_secs_f64(),
        "startup_ms": startup.as_secs_f64() * 1e3,
        "shutdown_ms": shutdown.as_secs_f64() * 1e3,
        "pids": pids,
    })
}
