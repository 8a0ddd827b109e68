//! *Covers*: the state of an agent in another process, commands, refusals, an agent taken out, a
//! run that is steered.
//!
//! *Scenario*: a cell grows in a process of its own, with parameters of its own, and tells its
//! environment of every division. While the simulation runs, a user reads the cell's inner state,
//! gives it other food, asks for what it cannot do, and halts it at last. Each of these is one
//! call, and there is never a second copy of the cell.

use std::process::ExitCode;
use std::thread;

use clap::{Parser, ValueEnum};
use maslite_mp::ControlError;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

/// A cell in a process of its own is read, commanded and halted while it runs.
#[derive(Debug, Parser)]
#[command(name = "process_commands")]
struct Options {
    /// Where the schedulers run.
    #[arg(long, value_enum, default_value_t = Where::Processes)]
    placement: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// All in this process.
    Inline,
    /// Each in a child process of its own.
    Processes,
}

/// How much a cell weighs when it divides \[fg\].
const DIVISION: u64 = 1_000;
/// How often the cell grows.
const STEP: SimDuration = SimDuration::from_secs(1);

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To oneself: grow.
    Grow,
    /// To the environment: this is the number of cells of this line now.
    Divided { cells: u64 },
    /// As a command: from now on there is this much food \[fg/s\]. The answer is how much there
    /// was.
    Food(u64),
    /// As a command, and no cell understands it.
    Dance,
}

/// What only the cell's own process has.
#[derive(Debug, Serialize, Deserialize)]
struct Cell {
    mass: u64,
    food: u64,
    cells: u64,
    /// Of its metabolism: large, and made where the cell lives.
    parameters: Vec<u32>,
}

impl Agent<Msg> for Cell {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(STEP, Msg::Grow);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Grow = mail.body {
            self.mass += self.food;
            if self.mass >= DIVISION {
                self.mass /= 2;
                self.cells *= 2;
                let cells = self.cells;
                ctx.send("environment", Msg::Divided { cells });
            }
            ctx.alarm_in(STEP, Msg::Grow);
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Food(food) => Ok(Msg::Food(std::mem::replace(&mut self.food, food))),
            _ => Err(Refusal::new("a cell takes food and nothing else")),
        }
    }
}

/// Keeps what it was told.
#[derive(Debug, Serialize, Deserialize)]
struct Environment {
    cells: u64,
}

impl Agent<Msg> for Environment {
    fn receive(&mut self, mail: Mail<Msg>, _: &mut Context<'_, Msg>) {
        if let Msg::Divided { cells } = mail.body {
            self.cells = cells;
        }
    }
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Cell>()
        .with::<Environment>()
        .with_builder("cell", |parameters: u32, agents: &mut AgentSet<Msg>| {
            let cell = Cell {
                mass: 600,
                food: 150,
                cells: 1,
                parameters: (0..parameters).collect(),
            };
            agents.add("cell", cell);
        })
        .enter();
    match run(agents, &Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(agents: Entered<Msg>, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let placement = match options.placement {
        Where::Inline => Placement::Inline,
        Where::Processes => Placement::Processes,
    };
    let mut main = MpMain::builder(agents).placement(placement).build()?;
    let (dish, bench) = (main.new_cluster(), main.new_cluster());
    main.build(dish, "cell", 100_000_u32)?;
    main.add_to(bench, "environment", Environment { cells: 1 })?;

    // Nothing happens before the other thread is ready.
    main.pause();
    let controller = main.controller();
    let laboratory = thread::spawn(move || experiment(&controller));
    let report = main.run(Run::until(SimTime::from_secs(60)))?;
    laboratory.join().map_err(|_| "the experiment panicked")??;
    println!(
        "{}: {}, {} agents are left",
        report.now, report.stopped_by, report.counters.agents
    );
    let environment: Environment = main.take_out("environment")?;
    println!("the environment knows of {} cells", environment.cells);
    Ok(())
}

/// What the user does while the simulation runs.
fn experiment(controller: &Controller<Msg>) -> Result<(), ControlError> {
    for agent in controller.agents()? {
        println!(
            "{} {} is there",
            agent.type_name.rsplit(':').next().unwrap_or(""),
            agent.id
        );
    }
    look(controller, 0)?;
    look(controller, 5)?;
    if let Msg::Food(before) = controller.command("cell", Msg::Food(400))? {
        println!("     food: 400 fg/s instead of {before}");
    }
    look(controller, 8)?;
    // Requests that cannot be served do no harm.
    for error in [
        controller.command("cell", Msg::Dance).err(),
        controller.command("environment", Msg::Dance).err(),
        controller.command("virus", Msg::Dance).err(),
    ] {
        println!(
            "     no: {}",
            error.map_or_else(String::new, |error| error.to_string())
        );
    }
    look(controller, 10)?;
    let cell: Cell = controller.take_out("cell")?;
    println!(
        "     halted with {} fg and {} parameters",
        cell.mass,
        cell.parameters.len()
    );
    let gone = controller.inspect::<Cell>("cell").err();
    println!(
        "     no: {}",
        gone.map_or_else(String::new, |error| error.to_string())
    );
    controller.resume()
}

/// Lets the simulation run until then, and reads the cell where it lives.
fn look(controller: &Controller<Msg>, seconds: u64) -> Result<(), ControlError> {
    let now = controller.run_until(SimTime::from_secs(seconds))?.time();
    let cell: Cell = controller.inspect("cell")?;
    println!(
        "{now}: {} fg, {} fg/s, {} cells",
        cell.mass, cell.food, cell.cells
    );
    Ok(())
}
