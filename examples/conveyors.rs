//! *Covers*: one clock over several processes, alarms, hand-overs at one instant between the
//! clusters of two processes, the ratio of simulated to wall time.
//!
//! *Scenario*: conveyors in a row, each 2 m long and moving at 1 m/s; half of them in one
//! scheduler, half in another. A unit of 0.5 m lies with its middle on the middle of the first, so
//! its front reaches the end after 0.75 s. There the conveyor notifies the next one, which accepts,
//! and the unit is transferred: three messages, and no time passes. Two seconds later it is at the
//! end of the next conveyor, and so on, until the last one has it: the fourth at 4.75 s.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_testkit::carrier::Carrier;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Conveyors in several processes hand over units to one another.
///
/// It writes the story to the standard output. It writes the wall time and the ratio to the
/// standard error, because they differ from run to run.
#[derive(Debug, Parser)]
#[command(name = "conveyors")]
struct Options {
    /// How many conveyors stand in a row.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..))]
    conveyors: u64,
    /// How many schedulers they are divided among.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    schedulers: u64,
    /// How many units are laid on the first conveyor, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    units: u64,
    /// The seed of the gaps between units.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the schedulers run.
    #[arg(long, value_enum, default_value_t = Where::Processes)]
    placement: Where,
    /// The least time of messages between schedulers, in milliseconds. With more than 0 the
    /// schedulers run at the same time, and a hand-over takes time.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    lookahead: u64,
    /// Delay messages between schedulers randomly, from this seed. This changes no result.
    #[arg(long, value_name = "SEED")]
    jitter: Option<u64>,
    /// Print the wall time and the ratio only.
    #[arg(long)]
    quiet: bool,
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

/// How long a conveyor is [mm].
const CONVEYOR: u64 = 2_000;
/// How long a unit is [mm].
const UNIT: u64 = 500;
/// How far apart the middles of two units are at least, and how much is added to that at most [mm].
const SPACING: u64 = 1_000;
/// How fast conveyors move [mm/s].
const SPEED: u64 = 1_000;

/// How long it takes to move so far [mm].
const fn travel(distance: u64) -> SimDuration {
    SimDuration::from_millis(distance * 1_000 / SPEED)
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To oneself: another unit is laid on.
    Load,
    /// To oneself: the front of the unit is at the end of the conveyor.
    AtTheEnd { unit: u64 },
    /// To the next conveyor: there is a unit for it.
    Notification { unit: u64 },
    /// To the previous one: it may hand over the unit.
    Acceptance { unit: u64 },
    /// To the next one: the unit is now there.
    Transfer { unit: u64 },
    /// To main: the unit is on the last conveyor.
    Arrival { unit: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Conveyor {
    /// None after the last one.
    next: Option<AgentId>,
    /// How many units are still to be laid on here.
    to_load: u64,
    loaded: u64,
}

impl Conveyor {
    /// Lays a unit on, its middle on the middle of the conveyor, and sees to the one behind it.
    fn load(&mut self, ctx: &mut Context<'_, Msg>) {
        self.to_load -= 1;
        self.loaded += 1;
        let unit = self.loaded;
        ctx.alarm_in(travel((CONVEYOR - UNIT) / 2), Msg::AtTheEnd { unit });
        if self.to_load > 0 {
            let distance = SPACING + ctx.rng().random_range(0..=SPACING);
            ctx.alarm_in(travel(distance), Msg::Load);
        }
    }
}

impl Agent<Msg> for Conveyor {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if self.to_load > 0 {
            self.load(ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match (mail.body, self.next) {
            (Msg::Load, _) => self.load(ctx),
            (Msg::AtTheEnd { unit }, Some(next)) => ctx.send(next, Msg::Notification { unit }),
            (Msg::Notification { unit }, _) => ctx.send(mail.sender, Msg::Acceptance { unit }),
            (Msg::Acceptance { unit }, _) => ctx.send(mail.sender, Msg::Transfer { unit }),
            (Msg::Transfer { unit }, Some(_)) => {
                ctx.alarm_in(travel(CONVEYOR), Msg::AtTheEnd { unit });
            }
            (Msg::Transfer { unit }, None) => {
                ctx.send(AgentId::MAIN, Msg::Arrival { unit });
            }
            (Msg::AtTheEnd { .. }, None) | (Msg::Arrival { .. }, _) => {}
        }
    }
}

/// One line of the story, told where the mail arrives.
fn tell(delivery: &Delivery<'_, Msg>, line: &mut String) {
    let (time, from, to) = (delivery.time, delivery.mail.sender, delivery.agent);
    *line = match &delivery.mail.body {
        Msg::Load => format!("{time}: another unit is laid on conveyor {to}"),
        Msg::AtTheEnd { unit } => format!("{time}: unit {unit} is at the end of conveyor {to}"),
        Msg::Notification { unit } => format!("{time}: {from} -> {to}: unit {unit} is here"),
        Msg::Acceptance { unit } => format!("{time}: {from} -> {to}: unit {unit} may come"),
        Msg::Transfer { unit } => format!("{time}: {from} -> {to}: take unit {unit}"),
        Msg::Arrival { unit } => format!("{time}: {from} -> {to}: unit {unit} has arrived"),
    };
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Conveyor>()
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

fn run(agents: Entered<Msg>, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let started = wall();
    let story = !options.quiet && !options.json;
    let say = |line: &str| {
        if story {
            println!("{line}");
        }
    };
    let mut settings = MpMain::builder(agents)
        .seed(options.seed)
        .placement(options.placement.into())
        .link(options.link.into())
        .lookahead(SimDuration::from_millis(options.lookahead))
        .jitter(options.jitter)
        .digest();
    if story {
        settings = settings.trace(|line| println!("{line}"));
    }
    let mut main = settings.build()?;
    main.stop_on_ctrl_c()?;
    if options.control {
        let socket = main.open_control("conveyors")?;
        eprintln!("control socket: {}", socket.display());
    }
    for line in add_conveyors(&mut main, options)? {
        say(&line);
    }

    let mut arrived = 0;
    let report = main.run_with(Run::until_idle(), |mail, _| {
        if let Msg::Arrival { .. } = mail.body {
            arrived += 1;
        }
    })?;
    say(&format!(
        "{arrived} of {} units have arrived by {}",
        options.units, report.now
    ));

    let startup = main.startup().unwrap_or_default();
    let shutdown = main.shutdown();
    // Start and stop of all processes included.
    let wall = wall().duration_since(started);
    for error in &shutdown.errors {
        eprintln!("{}", maslite_mp::Chain(error));
    }
    if arrived != options.units {
        return Err(format!("only {arrived} of {} units have arrived", options.units).into());
    }
    if options.json {
        println!(
            "{}",
            outcome(options, &report, wall, startup, shutdown.took)
        );
    } else {
        let (wall, sim) = (wall.as_secs_f64(), report.now.as_secs_f64());
        let ratio = sim / wall;
        eprintln!("wall time {wall:.5} / sim time {sim} = {ratio:.0}X");
    }
    Ok(())
}

/// Adds the schedulers and their conveyors: the first few conveyors to the first scheduler, and so
/// on. Returns where each conveyor is.
fn add_conveyors(
    main: &mut MpMain<Msg>,
    options: &Options,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let schedulers: Vec<_> = (0..options.schedulers)
        .map(|_| main.new_cluster())
        .collect();
    let mut lines = Vec::new();
    for number in 1..=options.conveyors {
        let scheduler = (number - 1) * options.schedulers / options.conveyors;
        let conveyor = Conveyor {
            next: (number < options.conveyors).then_some(AgentId::from(number + 1)),
            to_load: if number == 1 { options.units } else { 0 },
            loaded: 0,
        };
        main.add_to(schedulers[usize::try_from(scheduler)?], number, conveyor)?;
        lines.push(format!(
            "conveyor {number} is in scheduler {}",
            scheduler + 1
        ));
    }
    Ok(lines)
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn outcome(
    options: &Options,
    report: &MpReport,
    wall: Duration,
    startup: Duration,
    shutdown: Duration,
) -> serde_json::Value {
    let (sim_s, wall_s) = (report.now.as_secs_f64(), wall.as_secs_f64());
    let events = report.counters.delivered;
    serde_json::json!({
        "conveyors": options.conveyors,
        "schedulers": options.schedulers,
        "units": options.units,
        "placement": format!("{:?}", options.placement).to_lowercase(),
        "seed": options.seed,
        "sim_s": sim_s,
        "wall_s": wall_s,
        "ratio": sim_s / wall_s,
        "events": events,
        "events_per_s": events as f64 / wall_s,
        "supersteps": report.counters.supersteps,
        "routed": report.routed,
        "rounds": report.rounds,
        "digest": report.digest.unwrap_or_default(),
        "startup_ms": startup.as_secs_f64() * 1e3,
        "run_ms": report.wall.as_secs_f64() * 1e3,
        "shutdown_ms": shutdown.as_secs_f64() * 1e3,
    })
}
