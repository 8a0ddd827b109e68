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

/// A model that is played on whatever host a [`Setting`] asks for.
pub trait Story<M: WireMessage> {
    /// What comes of it.
    type Told;

    /// Adds the agents, runs them and ends the simulation.
    ///
    /// # Errors
    /// Whatever ends the story early.
    fn play<S: Host<M>>(&self, hosted: Hosted<M, S>) -> Result<Self::Told, Failure>;
}

/// What stories need of a host beside the calls that all hosts have.
pub trait Host<M: WireMessage>: Simulation<M> {
    /// Mail relayed between clusters, and rounds of grants and reports.
    fn traffic(report: &Self::Report) -> (u64, u64);

    /// Builds agents in a cluster by a builder of the registry; in one scheduler, which has none,
    /// by `alone`.
    ///
    /// # Errors
    /// As the host's own calls.
    fn build<C: Serialize>(
        &mut self,
        cluster: Self::Cluster,
        builder: &str,
        config: C,
        alone: impl FnOnce(&mut Scheduler<M>, C) -> Result<(), maslite_mp::core::Error>,
    ) -> Result<(), Self::Error>;
}

impl<M: WireMessage> Host<M> for Scheduler<M> {
    fn traffic(_: &Report) -> (u64, u64) {
        (0, 0)
    }

    fn build<C: Serialize>(
        &mut self,
        (): (),
        _: &str,
        config: C,
        alone: impl FnOnce(&mut Self, C) -> Result<(), maslite_mp::core::Error>,
    ) -> Result<(), maslite_mp::core::Error> {
        alone(self, config)
    }
}

impl<M: WireMessage> Host<M> for MpMain<M> {
    fn traffic(report: &MpReport) -> (u64, u64) {
        (report.routed, report.rounds)
    }

    fn build<C: Serialize>(
        &mut self,
        cluster: ClusterId,
        builder: &str,
        config: C,
        _: impl FnOnce(&mut Scheduler<M>, C) -> Result<(), maslite_mp::core::Error>,
    ) -> Result<(), Error> {
        self.build(cluster, builder, config)
    }
}

/// A simulation with its clusters.
pub struct Hosted<M, S: Simulation<M>>
where
    M: WireMessage,
{
    pub simulation: S,
    clusters: Vec<S::Cluster>,
    /// In all runs so far, without the start and the end of processes.
    wall: Duration,
}

/// What all runs of a simulation gave together.
pub struct Outcome {
    pub report: Report,
    wall: Duration,
    routed: u64,
    rounds: u64,
}

/// Plays a story on the host that the setting asks for. Mail between clusters must take the
/// `lookahead` of itself, so that clusters do not change the result. The deliveries are written to
/// the standard output, if that is wanted.
///
/// # Errors
/// What the host or the story says.
pub fn play<M: WireMessage, P: Story<M>>(
    agents: Entered<M>,
    setting: &Setting,
    lookahead: SimDuration,
    tell: Option<Tell<M>>,
    story: &P,
) -> Result<P::Told, Failure> {
    let placement = match setting.placement {
        Where::Single if setting.clusters.is_some_and(|clusters| clusters > 1) => {
            return Err("--placement single has no clusters".into());
        }
        Where::Single => {
            let mut settings = Scheduler::builder().seed(setting.seed).digest();
            if let Some(tell) = tell {
                settings = settings.trace_format(tell).trace(|line| println!("{line}"));
            }
            return story.play(Hosted::new(settings.build(), 1));
        }
        Where::Inline => Placement::Inline,
        Where::Processes => Placement::Processes,
    };
    let mut settings = MpMain::builder(agents)
        .seed(setting.seed)
        .placement(placement)
        .lookahead(lookahead)
        .digest();
    if tell.is_some() {
        // How lines are written, the registry knows.
        settings = settings.trace(|line| println!("{line}"));
    }
    story.play(Hosted::new(
        settings.build()?,
        setting.clusters.unwrap_or(2),
    ))
}

impl<M: WireMessage, S: Host<M>> Hosted<M, S> {
    fn new(mut simulation: S, clusters: u64) -> Self {
        let clusters = (0..clusters).map(|_| simulation.new_cluster()).collect();
        Self {
            simulation,
            clusters,
            wall: Duration::ZERO,
        }
    }

    /// Of things in a row the first few go to the first cluster, and so on.
    fn place(&self, number: usize, of: usize) -> S::Cluster {
        self.clusters[number * self.clusters.len() / of]
    }

    /// Adds an agent: of all in a row, the first few to the first cluster, and so on.
    ///
    /// # Errors
    /// As the host's own call.
    pub fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        (number, of): (usize, usize),
        id: AgentId,
        agent: A,
    ) -> Result<(), Failure> {
        let cluster = self.place(number, of);
        Ok(self.simulation.add_to(cluster, id, agent)?)
    }

    /// Builds agents as [`Host::build`] does, with clusters as [`add_to`](Self::add_to) has them.
    ///
    /// # Errors
    /// As the host's own call.
    pub fn build<C: Serialize>(
        &mut self,
        (number, of): (usize, usize),
        builder: &str,
        config: C,
        alone: impl FnOnce(&mut Scheduler<M>, C) -> Result<(), maslite_mp::core::Error>,
    ) -> Result<(), Failure> {
        let cluster = self.place(number, of);
        Ok(self.simulation.build(cluster, builder, config, alone)?)
    }

    /// Runs, and hands mail for main to `handler`.
    ///
    /// # Errors
    /// As the host's own call.
    pub fn run(
        &mut self,
        run: Run,
        handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Outcome, Failure> {
        let report = self.simulation.run_with(run, handler)?;
        let (routed, rounds) = S::traffic(&report);
        let report = report.as_ref().clone();
        self.wall += report.wall;
        Ok(Outcome {
            report,
            wall: self.wall,
            routed,
            rounds,
        })
    }

    /// Tears the agents down and ends the processes.
    ///
    /// # Errors
    /// The first that the end brings to light.
    pub fn end(self) -> Result<(), Failure> {
        Ok(self.simulation.shutdown().ok()?)
    }
}

impl Outcome {
    /// What every example tells of a run, with `more` of its own.
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub fn as_json(&self, setting: &Setting, more: impl Serialize) -> Value {
        let (sim_s, wall_s) = (self.report.now.as_secs_f64(), self.wall.as_secs_f64());
        let counters = &self.report.total;
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
