//! *Covers*: agents paused, played and killed by id and all at once, a run that is steered from
//! another thread, errors of agents collected.
//!
//! *Scenario*: four jobs of ten steps each, two to a process. A user pauses one of them, then all,
//! plays all again, and kills one; no job is asked twice, and a job that cannot do what was asked
//! says so. One job has a step that goes wrong, and reports it.

use std::process::ExitCode;
use std::thread;

use clap::{Parser, ValueEnum};
use maslite_mp::ControlError;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

/// Jobs in several processes are paused, played and killed, by id and all at once.
#[derive(Debug, Parser)]
#[command(name = "remote_control")]
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

const JOBS: u64 = 4;
/// How many steps a job has, and how long each takes.
const STEPS: u64 = 10;
const STEP: SimDuration = SimDuration::from_secs(1);

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To oneself: a step is over.
    Tick,
    /// As a command: rest.
    Pause,
    /// As a command: go on.
    Play,
    /// The answer: the number of steps that are done.
    Done(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Running,
    Paused,
    Finished,
}

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    state: State,
    done: u64,
}

impl Agent<Msg> for Job {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(STEP, Msg::Tick);
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if self.state == State::Running {
            self.done += 1;
            if (ctx.id(), self.done) == (AgentId::from(4), 3) {
                ctx.report_error("step 3 took three attempts");
            }
        }
        if self.done == STEPS {
            self.state = State::Finished;
        } else {
            ctx.alarm_in(STEP, Msg::Tick);
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        self.state = match (request, self.state) {
            (_, State::Finished) => return Err(Refusal::new("it has finished")),
            (Msg::Pause, _) => State::Paused,
            (Msg::Play, _) => State::Running,
            (Msg::Tick | Msg::Done(_), _) => return Err(Refusal::new("that is no command")),
        };
        Ok(Msg::Done(self.done))
    }
}

fn main() -> ExitCode {
    let agents = Registry::new().with::<Job>().enter();
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
    let workers = [main.new_cluster(), main.new_cluster()];
    for job in 1..=JOBS {
        let (state, done) = (State::Running, 0);
        let worker = workers[usize::from(job > JOBS / 2)];
        main.add_to(worker, job, Job { state, done })?;
    }

    // Nothing happens before the other thread is ready.
    main.pause();
    let controller = main.controller();
    let operator = thread::spawn(move || operate(&controller));
    let report = main.run(Run::until_idle())?;
    operator.join().map_err(|_| "the operator panicked")??;
    println!("{}: {}", report.now, report.stopped_by);
    for error in &report.errors {
        println!("error: {error}");
    }
    for agent in main.agents()? {
        let job: Job = main.inspect(agent.id)?;
        println!("job {}: {:?}, {} steps", agent.id, job.state, job.done);
    }
    Ok(())
}

/// What the user does.
fn operate(controller: &Controller<Msg>) -> Result<(), ControlError> {
    until(controller, 2)?;
    println!("pause job 2: {}", answer(controller.command(2, Msg::Pause)));
    until(controller, 4)?;
    all(controller, Msg::Pause)?;
    until(controller, 6)?;
    println!("play job 1: {}", answer(controller.command(1, Msg::Play)));
    until(controller, 8)?;
    all(controller, Msg::Play)?;
    until(controller, 9)?;
    let killed: Job = controller.take_out(3)?;
    println!("kill job 3: killed after {} steps", killed.done);
    println!(
        "kill job 3: {}",
        answer(controller.take_out::<Job>(3).map(|job| Msg::Done(job.done)))
    );
    until(controller, 13)?;
    all(controller, Msg::Pause)?;
    all(controller, Msg::Play)?;
    controller.resume()
}

fn until(controller: &Controller<Msg>, seconds: u64) -> Result<(), ControlError> {
    let halt = controller.run_until(SimTime::from_secs(seconds))?;
    println!("{}:", halt.time());
    Ok(())
}

/// The same for all jobs, in all processes at once.
fn all(controller: &Controller<Msg>, command: Msg) -> Result<(), ControlError> {
    let name = command.topic().as_str();
    let name = name.to_lowercase();
    for (job, reply) in controller.command_all(Audience::all().of_type::<Job>(), command)? {
        println!("{name} all, job {job}: {}", answer(reply));
    }
    Ok(())
}

fn answer(reply: Result<Msg, ControlError>) -> String {
    match reply {
        Ok(Msg::Done(steps)) => format!("{steps} steps are done"),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}
