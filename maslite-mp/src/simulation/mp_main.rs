//! Main: owns the clusters, and is all that a program sees of them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::clock::wall;
use maslite_core::internal::{Amnesia, StopHandleInternals};
use maslite_core::{
    Adder, Agent, AgentError, AgentId, Counters, Covers, Digest, Mail, Marks, Receiver, Run,
    SimDuration, SimTime, StopHandle,
};
use serde::Serialize;

use crate::cluster::commands::{Replies, Scope};
use crate::cluster::registry::{Entered, Registry, WireMessage};
use crate::coordination::clusters::Clusters;
use crate::coordination::main_mail::check_name;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Routing;
use crate::coordination::save_plan::Automatic;
use crate::coordination::serve::{places_of, replies_of};
use crate::coordination::state::{Standing, TraceSink, UnderWay};
#[cfg(test)]
use crate::dev::fault_simulation::{Simulated, World};
use crate::error::Error;
use crate::error::control::ControlError;
use crate::error::recovery::Dropped;
use crate::links::codec;
use crate::processes::output::Output;
use crate::processes::supervision::ChildEnd;
use crate::processes::{limits, spawn};
use crate::protocol::wire::{Call, TraceWindow};
use crate::recovery::Recovery;
use crate::settings::{ClusterId, Link, Placement, Speculation, Waiting};
use crate::simulation::builder::MpMainBuilder;
use crate::simulation::counted::Counted;
use crate::simulation::spread::Spread;
use crate::stall::detector::{Patience, WarningSink};
use crate::steering::control::{self, ControlSocket};
use crate::steering::control_queue::ControlQueue;
use crate::steering::controller::Controller;
use crate::steering::signals;

/// The longest name of a cluster \[characters\].
const LONGEST_NAME: usize = 200;

/// Runs a simulation of several clusters: places agents in clusters, grants time, routes mail
/// between clusters.
///
/// ```
/// use maslite_mp::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// enum Msg { Begin, Done { by: u32 } }
///
/// #[derive(Serialize, Deserialize)]
/// struct Worker;
/// impl Agent<Msg> for Worker {
///     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         ctx.send(AgentId::MAIN, Msg::Done { by: std::process::id() });
///     }
/// }
///
/// fn main() -> Result<(), Error> {
///     let agents = Registry::new().with::<Worker>().enter(); // a child process goes no further
///     let mut main = MpMain::builder(agents).seed(42).build()?;
///     for number in 1..=3 {
///         let cluster = main.new_cluster();
///         main.add_to(cluster, number, Worker)?;
///         main.send(number, Msg::Begin);
///     }
///     let mut processes = Vec::new();
///     let report = main.run_with(Run::until_idle(), |mail, _| {
///         if let Msg::Done { by } = mail.body {
///             processes.push(by);
///         }
///     })?;
///     assert_eq!(report.clusters.iter().map(|it| it.pid).collect::<Vec<_>>(), processes);
///     let shutdown = main.shutdown(); // or drop it
///     assert_eq!((shutdown.ends.len(), shutdown.errors.len()), (3, 0));
///     Ok(())
/// }
/// ```
///
/// The clusters start with the first [`run`](Self::run). Dropping it at any moment, also
/// during a panic, stops them, waits a bounded time, kills what is left and reaps every process.
/// Should this process be killed itself, the clusters' processes end by themselves.
pub struct MpMain<M: WireMessage> {
    /// The process that it was made in. A copy of that process, made with `fork`, must not touch
    /// what belongs to it.
    pub(super) owner: u32,
    pub(super) entered: Entered<M>,
    pub(super) placement: Placement,
    pub(super) seed: u64,
    pub(super) digest: bool,
    pub(super) content: bool,
    /// Of each cluster; none where none was declared.
    pub(super) lookaheads: Vec<Option<SimDuration>>,
    pub(super) lookahead: Option<SimDuration>,
    /// Of each cluster; none where the one of all holds.
    pub(super) recoveries: Vec<Option<Recovery>>,
    pub(super) recovery: Recovery,
    /// The folder for records.
    pub(super) record: Option<PathBuf>,
    /// Of each cluster that has started: it keeps this one.
    pub(super) kept_lookaheads: Vec<Option<SimDuration>>,
    /// What was counted up to the end of the last run.
    pub(super) counted: Counted,
    pub(super) waiting: Waiting,
    pub(super) jitter: Option<u64>,
    pub(super) amnesia: Option<Amnesia>,
    pub(super) speculation: Speculation,
    pub(super) carrier: Link,
    pub(super) output: Output,
    pub(super) trace: Option<TraceSink>,
    /// The trace is of these instants alone, and has the messages.
    pub(super) window: Option<TraceWindow>,
    pub(super) spread: Spread,
    /// Calls of `add` and `build` so far.
    pub(super) calls_made: usize,
    pub(super) clusters: Option<Clusters>,
    pub(super) names: Vec<String>,
    pub(super) taken_names: BTreeSet<String>,
    pub(super) routing: Routing,
    pub(super) standing: Standing,
    pub(super) under_way: UnderWay<M>,
    /// Calls of `add` and `build` since the last run.
    pub(super) calls: Vec<(u32, Call)>,
    pub(super) queued: Vec<Mail<M>>,
    pub(super) created: Instant,
    pub(super) startup: Option<Duration>,
    pub(super) control_queue: Arc<ControlQueue>,
    pub(super) patience: Patience,
    /// Until the clusters start.
    pub(super) warnings: Option<WarningSink>,
    pub(super) progress: bool,
    pub(super) control: Option<ControlSocket>,
    pub(super) automatic: Option<Automatic>,
    pub(super) ended: bool,
}

impl<M: WireMessage> MpMainBuilder<M> {
    /// A simulation with these settings, without clusters.
    ///
    /// # Errors
    /// As [`MpMain::new`].
    pub fn build(self) -> Result<MpMain<M>, Error> {
        if spawn::is_child() && !spawn::is_passing() {
            // A child that came here would start children of its own, and so on.
            return Err(Error::Nested);
        }
        self.entered.registry.examine()?;
        let speculation = self.runs_ahead();
        let mut standing = Standing::default();
        if self.content {
            standing.content.get_or_insert_default();
            standing.marks = Marks::new(Covers::Contents);
        }
        Ok(MpMain {
            owner: std::process::id(),
            entered: self.entered,
            placement: self.placement,
            seed: self.seed,
            digest: self.digest,
            content: self.content,
            lookaheads: Vec::new(),
            lookahead: self.lookahead,
            recoveries: Vec::new(),
            recovery: self.recovery,
            record: self.record,
            kept_lookaheads: Vec::new(),
            counted: Counted::default(),
            waiting: self.waiting,
            jitter: self.jitter,
            amnesia: match self.amnesia {
                Some(every) => Amnesia::every(every),
                None => Amnesia::of_environment(),
            },
            speculation,
            carrier: self.carrier,
            output: self.output,
            trace: self.trace,
            window: self.window,
            spread: self.spread,
            calls_made: 0,
            clusters: None,
            names: Vec::new(),
            taken_names: BTreeSet::new(),
            routing: Routing::default(),
            standing,
            under_way: UnderWay::default(),
            calls: Vec::new(),
            queued: Vec::new(),
            created: wall(),
            startup: None,
            control_queue: Arc::default(),
            patience: self.patience,
            warnings: self.warnings,
            progress: self.progress,
            control: None,
            automatic: self.saves.map(Automatic::new),
            ended: false,
        })
    }
}

impl<M: WireMessage> MpMain<M> {
    /// A supervisor without clusters, with the default settings: its clusters will be processes.
    /// [`builder`](Self::builder) has the settings.
    ///
    /// # Errors
    /// [`Error::Nested`] in a process that is itself a cluster; [`Error::Asymmetric`] for a type of
    /// message or agent of which a value was found that is not read as it is written.
    pub fn new(entered: Entered<M>) -> Result<Self, Error> {
        Self::builder(entered).build()
    }

    /// The settings of a supervisor, which [`build`](MpMainBuilder::build) makes.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # fn main() -> Result<(), maslite_mp::Error> {
    /// # let agents: Entered<Msg> = Registry::new().enter();
    /// let main = MpMain::builder(agents)
    ///     .seed(42)
    ///     .placement(Placement::Inline) // to debug, say
    ///     .digest()
    ///     .build()?;
    /// # let _ = main;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(entered: Entered<M>) -> MpMainBuilder<M> {
        MpMainBuilder::new(entered)
    }

    #[cfg(test)]
    /// The same with its clusters in a world made up by a test.
    pub(crate) fn with_world(mut self, world: Arc<World>) -> Self {
        self.clusters = Some(Clusters::on(
            Box::new(Simulated::new(world, Arc::clone(&self.entered.registry))),
            Arc::clone(&self.control_queue),
            Arc::default(),
        ));
        self
    }

    /// Sets the lookahead of one cluster. Either all clusters have one or none.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`]; [`Error::LateLookahead`] for a cluster that has started.
    pub fn set_lookahead(
        &mut self,
        cluster: ClusterId,
        lookahead: SimDuration,
    ) -> Result<(), Error> {
        let place = self.check(cluster)? as usize;
        if place < self.kept_lookaheads.len() {
            return Err(Error::LateLookahead(self.names[place].clone()));
        }
        self.lookaheads[place] = (lookahead > SimDuration::ZERO).then_some(lookahead);
        Ok(())
    }

    /// Sets what happens when the process of this cluster dies, in place of what holds for all:
    /// [`MpMainBuilder::recovery`](crate::MpMainBuilder::recovery).
    ///
    /// # Errors
    /// [`Error::UnknownCluster`]; [`Error::LateRecovery`] for a cluster that has started.
    pub fn set_recovery(&mut self, cluster: ClusterId, recovery: Recovery) -> Result<(), Error> {
        let place = self.check(cluster)? as usize;
        if place < self.kept_lookaheads.len() {
            return Err(Error::LateRecovery(self.names[place].clone()));
        }
        self.recoveries[place] = Some(recovery);
        Ok(())
    }

    /// Makes a cluster, named by its number from 1.
    pub fn new_cluster(&mut self) -> ClusterId {
        let mut number = self.names.len() + 1;
        while self.taken_names.contains(&number.to_string()) {
            number += 1;
        }
        self.push_cluster(number.to_string())
    }

    /// Makes a cluster with a name, for reports and errors.
    ///
    /// # Errors
    /// [`Error::DuplicateCluster`]; [`Error::BadClusterName`] for a name of more than 200
    /// characters, without any, or with characters that a terminal obeys; [`Error::Start`] for more
    /// clusters than processes can be started for.
    pub fn new_cluster_named(&mut self, name: &str) -> Result<ClusterId, Error> {
        self.check_number(self.names.len() + 1)?;
        if self.taken_names.contains(name) {
            return Err(Error::DuplicateCluster(name.to_owned()));
        }
        // It stands before lines and in tables, for people.
        let is_short = (1..=LONGEST_NAME).contains(&name.chars().count());
        if !is_short || name.chars().any(maslite_core::internal::is_command) {
            return Err(Error::BadClusterName(name.to_owned()));
        }
        Ok(self.push_cluster(name.to_owned()))
    }

    /// Refuses more clusters than processes can be started for, before any work is put into them.
    fn check_number(&self, clusters: usize) -> Result<(), Error> {
        match self.placement {
            Placement::Processes => Ok(limits::check_number(clusters)?),
            Placement::Inline => Ok(()),
        }
    }

    pub(super) fn push_cluster(&mut self, name: String) -> ClusterId {
        let cluster = ClusterId::new(self.routing.simulation, self.names.len(), &name);
        self.routing.ids.push(cluster);
        self.taken_names.insert(name.clone());
        self.names.push(name);
        self.lookaheads.push(None);
        self.recoveries.push(None);
        self.routing.add_cluster();
        self.standing.reports.push(None);
        self.standing.owed.push(None);
        self.standing.forecasts.push(Default::default());
        cluster
    }

    /// Adds an agent to a cluster. It is serialised at once, and lives there from the next run on.
    ///
    /// # Errors
    /// [`Error::UnknownAgentType`], [`Error::Encode`], [`Error::UnknownCluster`], [`Error::Dropped`],
    /// [`Error::Model`] for an id that is taken or cannot be; nothing was added then.
    pub fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        cluster: ClusterId,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        let id = id.into();
        let place = self.check_peopled(cluster)?;
        let place = self.spread_over(place);
        let (kind, state) = self.entered.registry.encode(id, &agent)?;
        self.routing.insert(id, place, Adder::Owner)?;
        let call = Call::Add {
            id,
            name: id.name().map(|name| name.to_string()),
            kind,
            state,
        };
        self.calls.push((place, call));
        Ok(())
    }

    /// Adds an agent to the cluster that was made last; to a first one, which it makes, if there is
    /// none.
    ///
    /// # Errors
    /// As [`add_to`](Self::add_to).
    pub fn add<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        let last = self.routing.ids.last().copied();
        let cluster = last.unwrap_or_else(|| self.new_cluster());
        self.add_to(cluster, id, agent)
    }

    /// Has agents built in the process that they will live in, by a builder of the registry. They
    /// are there from the next run on, with insertion indices as if added one by one now.
    ///
    /// # Errors
    /// [`Error::UnknownBuilder`], [`Error::Encode`], [`Error::UnknownCluster`],
    /// [`Error::Dropped`]. Ids that are taken
    /// are found by the next run.
    pub fn build<C: Serialize>(
        &mut self,
        cluster: ClusterId,
        builder: &str,
        config: C,
    ) -> Result<(), Error> {
        let place = self.check_peopled(cluster)?;
        let registry = &self.entered.registry;
        if registry.builder(builder).is_none() {
            return Err(Error::UnknownBuilder {
                builder: builder.to_owned(),
                known: registry.builder_names(),
            });
        }
        let mut bytes = Vec::new();
        codec::put(&config, &mut bytes).map_err(|why| Error::Encode {
            what: format!("the configuration of builder {builder:?}"),
            why: why.to_string(),
        })?;
        let (builder, config) = (builder.to_owned(), bytes);
        let place = self.spread_over(place);
        self.calls.push((place, Call::Build { builder, config }));
        Ok(())
    }

    /// Refuses what cannot be done: the simulation has ended, or belongs to another process.
    pub(super) fn check_usable(&self) -> Result<(), Error> {
        if self.is_copy() {
            return Err(Error::Forked { owner: self.owner });
        }
        if self.ended {
            return Err(Error::Ended);
        }
        Ok(())
    }

    /// Whether this process was forked from the one that this simulation belongs to. Its processes,
    /// their links and the files are not this one's, and the threads that look after them are not
    /// here.
    pub(super) fn is_copy(&self) -> bool {
        std::process::id() != self.owner
    }

    /// Lets go of everything that belongs to another process, without touching it.
    pub(super) fn let_go(&mut self) {
        std::mem::forget(self.clusters.take());
        std::mem::forget(self.control.take());
    }

    fn check(&self, cluster: ClusterId) -> Result<u32, Error> {
        self.check_usable()?;
        self.check_number(self.names.len())?;
        match cluster.place(self.routing.simulation, self.names.len()) {
            Some(_) => Ok(cluster.number()),
            None => Err(Error::UnknownCluster(cluster.number())),
        }
    }

    /// The same for one that agents can be added to.
    fn check_peopled(&self, cluster: ClusterId) -> Result<u32, Error> {
        let place = self.check(cluster)?;
        match self.dropped_at(place) {
            Some(dropped) => Err(Error::Dropped(Box::new(dropped.clone()))),
            None => Ok(place),
        }
    }

    /// That the cluster at a place was dropped, if it was.
    fn dropped_at(&self, place: u32) -> Option<&Dropped> {
        self.clusters.as_ref()?.dropped(place as usize)
    }

    /// Queues a message of main to an agent; with [`Receiver::Subscribers`] a broadcast. It is
    /// posted when the next run starts, before anything else.
    pub fn send(&mut self, to: impl Into<Receiver>, body: M) {
        self.send_mail(Mail::new(AgentId::MAIN, to, body));
    }

    /// Queues mail, from any sender. It is posted when the next run starts, before anything else.
    pub fn send_mail(&mut self, mail: Mail<M>) {
        self.queued.push(mail);
    }

    /// Removes an agent: in the first superstep of the next run `teardown` takes the place of its
    /// update. Removing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`] if there was never an agent with this id; [`Error::Model`] if its
    /// name and another have one id.
    pub fn remove(&mut self, id: impl Into<AgentId>) -> Result<(), Error> {
        let id = id.into();
        check_name(id)?;
        if self.routing.is_gone(id) {
            return Ok(());
        }
        let cluster = self.routing.owner(id).ok_or(Error::UnknownAgent(id))?;
        if self.dropped_at(cluster).is_some() {
            return Ok(());
        }
        self.routing.inbound[cluster as usize]
            .news
            .dismissed
            .push((id, None));
        Ok(())
    }

    /// Asks clusters something between two runs.
    pub(crate) fn ask(&mut self, scope: Scope, request: &[u8]) -> Result<Replies, ControlError> {
        let asked = self.between_runs(|rounds| {
            let places = places_of(scope, rounds.routing, rounds.under_way, rounds.clusters)?;
            let replies = rounds.ask(&places, request);
            Ok::<_, ControlError>((places, replies))
        });
        let (places, replies) = asked??;
        let replies = replies.inspect_err(|error| self.abandon(error))?;
        let clusters = self.clusters.as_ref().ok_or(Error::Ended)?;
        replies_of(scope, &self.routing, clusters, places, replies)
    }

    /// Does something with the clusters while no run goes on. They are watched meanwhile: an agent
    /// may take too long over it, and a process may stand still.
    pub(super) fn between_runs<T>(
        &mut self,
        act: impl FnOnce(&mut Rounds<'_, '_, M>) -> T,
    ) -> Result<T, Error> {
        let lookaheads = self.effective_lookaheads()?;
        self.start()?;
        let format = self.trace_format();
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        let (routing, standing) = (&mut self.routing, &mut self.standing);
        let (under_way, trace) = (&mut self.under_way, &mut self.trace);
        let nothing = Run::until_idle();
        let mut rounds = Rounds::new(
            clusters, routing, standing, under_way, trace, format, nothing,
        );
        rounds.lookaheads = lookaheads;
        rounds.clusters.begin_watching();
        let result = act(&mut rounds);
        rounds.clusters.end_watching();
        Ok(result)
    }

    pub(crate) fn registry(&self) -> &Registry<M> {
        &self.entered.registry
    }

    /// A handle that other threads can end a run with.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        let control_queue = Arc::clone(&self.control_queue);
        StopHandle::new(move || control_queue.stop())
    }

    /// A handle that other threads can steer runs with.
    #[must_use]
    pub fn controller(&self) -> Controller<M> {
        if let Some(clusters) = &self.clusters {
            clusters.show(&self.standing, &self.routing);
        }
        Controller::new(&self.control_queue, &self.entered.registry)
    }

    /// Opens a control socket, through which other processes of this user can ask and steer this
    /// simulation until it ends: the program `maslite`, and programs that use
    /// [`control`](crate::steering::control). Tells where it is. There is none unless this is
    /// called.
    ///
    /// `name`: 1 to 32 letters, digits, `-` and `_`, by which people tell simulations apart. A run
    /// that is paused stays paused until a controller or a client of the socket lets it go on.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// use maslite_mp::control::{ask, protocol::{Reply, Request}, simulations};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let agents: Entered<Msg> = Registry::new().enter();
    /// let mut main = MpMain::new(agents)?;
    /// let path = main.open_control("harbour")?; // `maslite status` in another terminal
    /// assert!(simulations()?.iter().any(|known| known.path == path));
    /// assert!(matches!(ask(&path, Request::Status, None)?, Reply::Status(_)));
    /// drop(main);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ControlSocket`]: the name will not do, is taken in this process, or the directory for such sockets is
    /// not this user's alone. [`Error::Ended`].
    pub fn open_control(&mut self, name: &str) -> Result<PathBuf, Error> {
        self.check_usable()?;
        let refused = |source| Error::ControlSocket {
            name: name.to_owned(),
            source,
        };
        let path = control::path_for(name).map_err(refused)?;
        if spawn::is_passing() {
            // This process becomes a cluster of another simulation, and takes no requests.
            return Ok(path);
        }
        let controller = Arc::new(self.controller());
        let begin = move |request, asker| control::begin(&controller, request, asker);
        let opened = ControlSocket::open(path, Box::new(begin)).map_err(refused)?;
        let path = opened.path().to_owned();
        self.control = Some(opened);
        Ok(path)
    }

    /// Has the next run begin with a pause, until a [`Controller`] lets it go on.
    pub fn pause(&mut self) {
        self.control_queue.pause_at_the_start();
    }

    /// Has Ctrl-C (`SIGINT`) and `SIGTERM` end this simulation in good order, from now until it is
    /// dropped. For programs of which it is the main matter; hosts with signal handlers of their
    /// own take a [`stop_handle`](Self::stop_handle).
    ///
    /// 1. The first signal ends the run that goes on, or the next one, as a [`StopHandle`] does:
    ///    [`StopReason::Interrupted`](maslite_core::StopReason::Interrupted), with a report.
    /// 2. The second kills the clusters' processes: [`Error::Interrupted`]. (Clusters that run
    ///    inline go on.)
    /// 3. The third, or one when no such simulation is left, does what it does to any program: the
    ///    shell sees 130 or 143.
    ///
    /// A run that begins later begins to count again. Several simulations may ask for it; a signal
    /// then is for all of them. Signals that this process was started to ignore, as `nohup` and `&`
    /// in scripts have it, stay ignored.
    ///
    /// # Errors
    /// [`Error::Signals`] if the program has a handler of its own for one of the signals (known on
    /// Linux only; elsewhere both are called), or no thread can be had. Nothing has changed then.
    pub fn stop_on_ctrl_c(&self) -> Result<(), Error> {
        if self.is_copy() || spawn::is_passing() {
            // Signals are for the main process alone.
            return Ok(());
        }
        signals::stop_on_signals(&self.control_queue).map_err(Error::Signals)
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.standing.time
    }

    /// The superstep within this instant that comes next. Under a lookahead each cluster counts its
    /// own, and this tells nothing.
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.standing.superstep
    }

    /// What was counted until the end of the last run.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.standing.counters()
    }

    /// The digest of all deliveries since the simulation began, if one was asked for.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest.then(|| self.standing.digest()).flatten()
    }

    /// The errors that agents reported in the last run, as its report has them; also if it failed.
    #[must_use]
    pub fn errors(&self) -> &[AgentError] {
        &self.standing.errors
    }

    /// Wall time from [`new`](Self::new) to the first superstep; none before it.
    #[must_use]
    pub fn startup(&self) -> Option<Duration> {
        self.startup
    }

    /// The clusters, in the order in which they were made.
    #[must_use]
    pub fn clusters(&self) -> &[ClusterId] {
        &self.routing.ids
    }

    /// The clusters that have started, each with the process that it runs in, which is this one if
    /// they run inline. Those that were dropped are not among them.
    #[must_use]
    pub fn pids(&self) -> Vec<(ClusterId, u32)> {
        let started = self.clusters().iter();
        started
            .filter_map(|cluster| Some((*cluster, self.pid(*cluster)?)))
            .collect()
    }

    /// The process that a cluster runs in, which is this one if it runs inline; none before it
    /// starts, and after it was dropped.
    #[must_use]
    pub fn pid(&self, cluster: ClusterId) -> Option<u32> {
        let place = cluster.place(self.routing.simulation, self.names.len())?;
        let clusters = self.clusters.as_ref()?;
        let cluster = clusters.list.get(place)?;
        clusters.dropped(place).is_none().then_some(cluster.pid)
    }
}

/// How a simulation ended. `ends`: how each process did, the first cluster's first; empty if the
/// clusters ran inline. `errors`: what went wrong, the last cluster's first: panics of agents in
/// `teardown` and `Drop`, then clusters whose processes ended before all their agents were torn
/// down ([`Error::NotTornDown`]).
pub type Shutdown = maslite_core::Shutdown<Error, ChildEnd>;

impl<M: WireMessage> fmt::Debug for MpMain<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpMain")
            .field("placement", &self.placement)
            .field("clusters", &self.names)
            .field("now", &self.standing.time)
            .finish_non_exhaustive()
    }
}
