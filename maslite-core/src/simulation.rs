//! The common calls of all hosts of agents: one trait, and the values that its calls return.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::alarm::{AlarmFilter, PendingAlarm};
use crate::digest::Digest;
use crate::main_context::MainContext;
use crate::marks::Marks;
use crate::message::{Mail, Message, Receiver};
use crate::run::{AgentError, Counters, Report, Run};
use crate::{AgentId, SimTime};

/// A simulation, wherever its agents run: a [`Scheduler`](crate::Scheduler) alone, or clusters of
/// agents under a supervisor, the `MpMain` of the crate `maslite-mp`.
///
/// Both have these methods themselves, with the same names and arguments: the trait is for programs
/// that leave open which of them runs their model.
///
/// ```
/// use maslite_core::{Agent, Context, Mail, Run, Scheduler, Simulation};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, maslite_core::Message)]
/// enum Msg { Ball { hits: u32 } }
///
/// #[derive(Serialize, Deserialize)]
/// struct Player { hits: u32 }
/// impl Agent<Msg> for Player {
///     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         let Msg::Ball { hits } = mail.body;
///         self.hits += 1;
///         if hits < 5 {
///             let opponent = if ctx.id() == "ada".into() { "bob" } else { "ada" };
///             ctx.send(opponent, Msg::Ball { hits: hits + 1 });
///         }
///     }
/// }
///
/// /// Plays a match, and tells how often each player has hit the ball.
/// fn play<S: Simulation<Msg>>(mut simulation: S) -> Result<[u32; 2], Box<dyn std::error::Error>> {
///     for name in ["ada", "bob"] {
///         let cluster = simulation.new_cluster();
///         simulation.add_to(cluster, name, Player { hits: 0 })?;
///     }
///     simulation.send("ada", Msg::Ball { hits: 0 });
///     simulation.run(Run::until_idle())?;
///     let ada: Player = simulation.inspect("ada")?;
///     let bob: Player = simulation.inspect("bob")?;
///     simulation.shutdown().ok()?;
///     Ok([ada.hits, bob.hits])
/// }
///
/// assert_eq!(play(Scheduler::new())?, [3, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Simulation<M: Message> {
    /// Why a call that prepares a run, or the run itself, failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Why an agent could not be asked, or did not answer.
    type ControlError: std::error::Error + Send + Sync + 'static;
    /// The report of a run.
    type Report: AsRef<Report> + fmt::Display + fmt::Debug;
    /// A cluster: the agents that share one scheduler.
    type Cluster: Copy + PartialEq + fmt::Debug;
    /// How a process ended.
    type ProcessEnd: fmt::Debug;

    /// Makes a cluster. A scheduler alone is one cluster, whatever is made.
    fn new_cluster(&mut self) -> Self::Cluster;

    /// Adds an agent to a cluster. Its `setup` is called when the next run starts.
    ///
    /// # Errors
    /// For an id that is taken or that no agent may have, or an agent that cannot be moved to its
    /// cluster. The simulation is as before.
    fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        cluster: Self::Cluster,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Self::Error>;

    /// Adds an agent to the cluster that was made last. Makes a first cluster if there is none.
    ///
    /// # Errors
    /// As [`add_to`](Self::add_to).
    fn add<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Self::Error>;

    /// Removes an agent: in the first superstep of the next run `teardown` takes the place of its
    /// update. Removing it again changes nothing.
    ///
    /// # Errors
    /// If there was never an agent with this id.
    fn remove(&mut self, id: impl Into<AgentId>) -> Result<(), Self::Error>;

    /// Queues a message of main to an agent; with [`Receiver::Subscribers`] a broadcast. It is
    /// posted when the next run starts, before anything else.
    fn send(&mut self, to: impl Into<Receiver>, body: M) {
        self.send_mail(Mail::new(AgentId::MAIN, to, body));
    }

    /// Queues mail, from any sender. It is posted when the next run starts, before anything else.
    fn send_mail(&mut self, mail: Mail<M>);

    /// Runs. Consecutive runs equal one longer run. Mail addressed to main is undeliverable.
    ///
    /// # Errors
    /// Whatever ends the simulation: it cannot go on then.
    fn run(&mut self, run: Run) -> Result<Self::Report, Self::Error>;

    /// Runs, and hands mail addressed to [`AgentId::MAIN`] to `handler`, between two supersteps.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn run_with(
        &mut self,
        run: Run,
        handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Self::Report, Self::Error>;

    /// Runs until simulated time reaches `time`, or nothing is left to happen.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn run_until(&mut self, time: SimTime) -> Result<Self::Report, Self::Error> {
        self.run(Run::until(time))
    }

    /// The state of an agent, as a value of its own type: a copy of how it is now.
    ///
    /// # Errors
    /// If there is no such agent, it is of another type, or its state cannot be copied.
    fn inspect<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, Self::ControlError>;

    /// The state of an agent as JSON.
    ///
    /// # Errors
    /// If there is no such agent, its type is not registered, or its state cannot be JSON.
    fn state_of(&mut self, id: impl Into<AgentId>) -> Result<String, Self::ControlError>;

    /// Has an agent answer a command, with its [`command`](Agent::command).
    ///
    /// # Errors
    /// If there is no such agent, or it refuses.
    fn command(&mut self, id: impl Into<AgentId>, request: M) -> Result<M, Self::ControlError>;

    /// Takes an agent out of the simulation and hands it over. It is not torn down; otherwise it is
    /// as if it had been removed at this very moment.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect); the agent then stays.
    fn take_out<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, Self::ControlError>;

    /// Puts an agent in the place of another, whose inbox, subscriptions, alarms and random numbers
    /// it takes over. Neither is torn down, nor set up once more.
    ///
    /// # Errors
    /// If there is no such agent, or the new one cannot be moved to its place.
    fn replace<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        by: A,
    ) -> Result<(), Self::ControlError>;

    /// All agents, in insertion order.
    ///
    /// # Errors
    /// If the simulation has ended.
    fn agents(&mut self) -> Result<Vec<AgentInfo<Self::Cluster>>, Self::ControlError>;

    /// Returns the pending alarms that match the filter, of all agents, in the order in which they
    /// will fire.
    ///
    /// # Errors
    /// If the simulation has ended.
    fn alarms(&mut self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, Self::ControlError>;

    /// The simulated time.
    fn now(&self) -> SimTime;

    /// The superstep within this instant that comes next. Under a lookahead each cluster counts its
    /// own, and this tells nothing.
    fn superstep(&self) -> u64;

    /// Returns the counters since the simulation began.
    fn counters(&self) -> Counters;

    /// The digest of all deliveries since the simulation began, if one was asked for.
    fn digest(&self) -> Option<Digest>;

    /// The digest in pieces of simulated time, if a digest was asked for; that of the contents, if
    /// one of these was.
    ///
    /// # Errors
    /// If the simulation has ended.
    fn marks(&mut self) -> Result<Option<Marks>, Self::ControlError>;

    /// The errors that agents reported in the last run, as its report has them; also if it failed.
    fn errors(&self) -> &[AgentError];

    /// A handle that other threads can end a run with.
    fn stop_handle(&self) -> StopHandle;

    /// Ends the simulation: calls `teardown` of all agents, and leaves no process behind. Dropping
    /// the simulation does the same without a report.
    fn shutdown(self) -> Shutdown<Self::Error, Self::ProcessEnd>;
}

/// An agent, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentInfo<C = ()> {
    /// Its id.
    pub id: AgentId,
    /// Its place in the order of all additions to the simulation.
    pub index: u64,
    /// Its type.
    pub type_name: String,
    /// The cluster that it lives in.
    pub cluster: C,
}

impl<C> AgentInfo<C> {
    /// An agent of a listing.
    pub(crate) fn new(id: AgentId, index: u64, type_name: String, cluster: C) -> Self {
        Self {
            id,
            index,
            type_name,
            cluster,
        }
    }
}

/// The result of a shutdown. `E` is the type of errors, and `P` the type of the end of a process.
#[derive(Debug)]
#[non_exhaustive]
pub struct Shutdown<E = crate::Error, P = std::convert::Infallible> {
    /// How long it took \[wall\].
    pub took: Duration,
    /// How each process ended; empty if there were none.
    pub ends: Vec<P>,
    /// The errors, in the order in which they were found: panics of agents in `teardown` and
    /// `Drop`, and processes that ended before all their agents were torn down.
    pub errors: Vec<E>,
}

impl<E, P> Shutdown<E, P> {
    /// How a simulation ended.
    #[must_use]
    pub(crate) fn new(took: Duration, ends: Vec<P>, errors: Vec<E>) -> Self {
        Self { took, ends, errors }
    }

    /// Whether all went well.
    ///
    /// # Errors
    /// The first of [`errors`](Self::errors).
    pub fn ok(self) -> Result<(), E> {
        self.errors.into_iter().next().map_or(Ok(()), Err)
    }
}

/// Ends the run that goes on, from any thread.
///
/// ```
/// use maslite_core::{Agent, Alarm, Context, Run, Scheduler, SimDuration, StopReason};
/// # #[derive(Clone, maslite_core::Message)] enum Msg { Again }
/// struct Tireless;
/// impl Agent<Msg> for Tireless {
///     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
///         ctx.set_alarm(Alarm::every(SimDuration::from_secs(1)), Msg::Again);
///     }
/// }
///
/// let mut scheduler = Scheduler::new();
/// scheduler.add("tireless", Tireless)?; // it would go on for ever
/// let handle = scheduler.stop_handle();
/// let thread = std::thread::spawn(move || handle.stop());
/// assert_eq!(scheduler.run(Run::until_idle())?.stopped_by, StopReason::Interrupted);
/// # let _ = thread.join();
/// # Ok::<(), maslite_core::Error>(())
/// ```
#[derive(Clone)]
pub struct StopHandle {
    stop: Arc<dyn Fn() + Send + Sync>,
}

impl StopHandle {
    /// A handle that calls this.
    pub(crate) fn new(stop: impl Fn() + Send + Sync + 'static) -> Self {
        let stop = Arc::new(stop);
        Self { stop }
    }

    /// Ends the run that goes on, or the next one, after the superstep at hand: with
    /// [`StopReason::Interrupted`](crate::StopReason::Interrupted), and all clusters at one
    /// instant. A later run goes on from there.
    pub fn stop(&self) {
        (self.stop)();
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").finish_non_exhaustive()
    }
}
