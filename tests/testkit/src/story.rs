//! What the stories share: where a model runs, how it is run there, and what is told of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use maslite_mp::WireMessage;
use maslite_mp::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

/// Whatever ends an example early.
pub type Failure = Box<dyn std::error::Error>;

/// The options that are the same in all stories.
#[derive(Clone, Debug, Args)]
pub struct Setting {
    /// How many clusters the agents are divided among; 2 unless there is but one scheduler.
    #[arg(long, visible_alias = "schedulers", value_parser = clap::value_parser!(u64).range(1..))]
    clusters: Option<u64>,
    /// Where the clusters run.
    #[arg(long, value_enum, default_value_t = Where::Processes)]
    placement: Where,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// In one plain scheduler, without main and without clusters.
    Single,
    /// All in this process.
    Inline,
    /// Each in a child process of its own.
    Processes,
}

/// How a delivery becomes a line of the story.
pub type Tell<M> = fn(&Delivery<'_, M>, &mut String);

/// A model in the scheduler, or the clusters, that a [`Setting`] asks for.
pub struct Simulation<M: WireMessage> {
    pub host: Host<M>,
    /// In all runs so far, without the start and the end of processes.
    wall: Duration,
}

pub enum Host<M: WireMessage> {
    Single(Box<Scheduler<M>>),
    Clusters(Box<MpMain<M>>, Vec<ClusterId>),
}

/// What all runs of a simulation gave together.
pub struct Outcome {
    pub report: Report,
    wall: Duration,
    routed: u64,
    rounds: u64,
}

impl<M: WireMessage> Simulation<M> {
    /// An empty one. Mail between clusters must take the `lookahead` of itself, so that clusters do
    /// not change the result. The story is written to the standard output, if one is wanted.
    pub fn new(
        agents: Entered<M>,
        setting: &Setting,
        lookahead: SimDuration,
        story: Option<Tell<M>>,
    ) -> Result<Self, Failure> {
        let host = match setting.placement {
            Where::Single if setting.clusters.is_some_and(|clusters| clusters > 1) => {
                return Err("--placement single has no clusters".into());
            }
            Where::Single => Host::single(setting, story),
            Where::Inline => Host::clusters(agents, Placement::Inline, setting, lookahead, story)?,
            Where::Processes => {
                Host::clusters(agents, Placement::Processes, setting, lookahead, story)?
            }
        };
        let wall = Duration::ZERO;
        Ok(Self { host, wall })
    }

    /// Adds an agent: of all in a row, the first few to the first cluster, and so on.
    pub fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        (number, of): (usize, usize),
        id: AgentId,
        agent: A,
    ) -> Result<(), Failure> {
        match &mut self.host {
            Host::Single(scheduler) => scheduler.add(id, agent)?,
            Host::Clusters(main, clusters) => {
                main.add_to(place(clusters, number, of), id, agent)?;
            }
        }
        Ok(())
    }

    /// Runs, and hands mail for main to `handler`.
    pub fn run(
        &mut self,
        run: Run,
        handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Outcome, Failure> {
        let (report, routed, rounds) = match &mut self.host {
            Host::Single(scheduler) => (scheduler.run_with(run, handler)?, 0, 0),
            Host::Clusters(main, _) => {
                let report = main.run_with(run, handler)?;
                (report.run, report.routed, report.rounds)
            }
        };
        self.wall += report.wall;
        Ok(Outcome {
            report,
            wall: self.wall,
            routed,
            rounds,
        })
    }

    /// Tears the agents down and ends the processes.
    pub fn end(self) -> Result<(), Failure> {
        match self.host {
            Host::Single(scheduler) => scheduler.shutdown().ok()?,
            Host::Clusters(main, _) => main.shutdown().ok()?,
        }
        Ok(())
    }
}

impl<M: WireMessage> Host<M> {
    fn single(setting: &Setting, story: Option<Tell<M>>) -> Self {
        let mut settings = Scheduler::builder().seed(setting.seed).digest();
        if let Some(tell) = story {
            settings = settings.trace_format(tell).trace(|line| println!("{line}"));
        }
        Self::Single(Box::new(settings.build()))
    }

    fn clusters(
        agents: Entered<M>,
        placement: Placement,
        setting: &Setting,
        lookahead: SimDuration,
        story: Option<Tell<M>>,
    ) -> Result<Self, Failure> {
        let mut settings = MpMain::builder(agents)
            .seed(setting.seed)
            .placement(placement)
            .lookahead(lookahead)
            .digest();
        if story.is_some() {
            // How lines are written, the registry knows.
            settings = settings.trace(|line| println!("{line}"));
        }
        let mut main = settings.build()?;
        let clusters = (0..setting.clusters.unwrap_or(2)).map(|_| main.new_cluster());
        let clusters = clusters.collect();
        Ok(Self::Clusters(Box::new(main), clusters))
    }
}

/// Of things in a row the first few go to the first cluster, and so on.
pub fn place(clusters: &[ClusterId], number: usize, of: usize) -> ClusterId {
    clusters[number * clusters.len() / of]
}

impl Outcome {
    /// What every example tells of a run, with `more` of its own.
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub fn as_json(&self, setting: &Setting, more: impl Serialize) -> Value {
        let (sim_s, wall_s) = (self.report.now.as_secs_f64(), self.wall.as_secs_f64());
        let counters = &self.report.counters;
        let mut object = json!(more);
        let common = json!({
            "placement": format!("{:?}", setting.placement).to_lowercase(),
            "clusters": setting.clusters,
            "seed": setting.seed,
            "sim_s": sim_s,
            "wall_s": wall_s,
            "ratio": sim_s / wall_s.max(1e-9),
            "events": counters.delivered,
            "events_per_s": counters.delivered as f64 / wall_s.max(1e-9),
            "supersteps": counters.supersteps,
            "routed": self.routed,
            "rounds": self.rounds,
            "digest": self.report.digest.unwrap_or_default(),
        });
        if let (Value::Object(object), Value::Object(common)) = (&mut object, common) {
            object.extend(common);
        }
        object
    }
}

/// Ends `main`: a failure is told with all its causes.
pub fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}
