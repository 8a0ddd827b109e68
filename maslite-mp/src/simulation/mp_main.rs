//! Main: owns the clusters, and is all that a program sees of them.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::clock::wall;
use maslite_core::{
    Adder, Agent, AgentError, AgentId, Counters, Digest, Mail, MainContext, Receiver, Report, Run,
    SimDuration, SimTime, StopHandle,
};
use serde::Serialize;
use tracing::debug;

use crate::cluster::commands::{Replies, Scope};
use crate::cluster::registry::{Entered, Registry, WireMessage};
use crate::coordination::clusters::Clusters;
use crate::coordination::main_mail::check_name;
use crate::coordination::rounds::{Handler, Rounds};
use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::serve::{places_of, replies_of};
use crate::coordination::state::{Standing, TraceSink, UnderWay};
#[cfg(test)]
use crate::dev::fault_simulation::{Simulated, World};
use crate::error::control::ControlError;
use crate::error::death::ExitKind;
use crate::error::message_fault::MessageFault;
use crate::error::{Chain, Error};
use crate::links::codec;
use crate::links::jitter::Jitter;
use crate::processes::limits;
use crate::processes::output::Output;
use crate::processes::spawn;
use crate::processes::supervision::{ChildEnd, EndKind};
use crate::protocol::wire::{self, Call, Loaded, Settings, ToMain, ToProc};
use crate::settings::{ClusterId, Link, Placement, Waiting};
use crate::simulation::builder::MpMainBuilder;
use crate::simulation::report::{ClusterReport, Flow, MpReport, Versions};
use crate::stall::detector::{Patience, WarningSink};
use crate::stall::meter::{Meter, Spent};
use crate::steering::control::{self, ControlSocket};
use crate::steering::control_queue::ControlQueue;
use crate::steering::controller::Controller;
use crate::steering::signals;
use crate::steering::status::memory_of;

/// The longest name of a cluster \[characters\].
const LONGEST_NAME: usize = 200;

/// How long `Drop` gives the clusters to end.
const GRACE: Duration = Duration::from_secs(2);

/// How long `Drop` gives them during a panic.
const SHORT_GRACE: Duration = Duration::from_millis(500);

/// A run of less is not made longer to find out how much memory there is in use.
const LONG: Duration = Duration::from_millis(10);

/// Runs a simulation of several clusters: places agents in clusters, grants time, routes mail between clusters.
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
    /// The process that it was made in. A copy of that process, made with `fork`, must not touch what belongs to it.
    owner: u32,
    entered: Entered<M>,
    placement: Placement,
    seed: u64,
    digest: bool,
    content: bool,
    /// Of each cluster; none where none was declared.
    lookaheads: Vec<Option<SimDuration>>,
    lookahead: Option<SimDuration>,
    /// Of each cluster that has started: it keeps this one.
    kept_lookaheads: Vec<Option<SimDuration>>,
    waiting: Waiting,
    jitter: Option<u64>,
    carrier: Link,
    output: Output,
    trace: Option<TraceSink>,
    clusters: Option<Clusters>,
    names: Vec<String>,
    taken_names: BTreeSet<String>,
    routing: Routing,
    standing: Standing,
    under_way: UnderWay<M>,
    /// Calls of `add` and `build` since the last run.
    calls: Vec<(u32, Call)>,
    queued: Vec<Mail<M>>,
    created: Instant,
    startup: Option<Duration>,
    control_queue: Arc<ControlQueue>,
    patience: Patience,
    /// Until the clusters start.
    warnings: Option<WarningSink>,
    progress: bool,
    control: Option<ControlSocket>,
    ended: bool,
}

impl<M: WireMessage> MpMainBuilder<M> {
    /// A simulation with these settings, without clusters.
    ///
    /// # Errors
    /// As [`MpMain::new`].
    pub fn build(self) -> Result<MpMain<M>, Error> {
        if spawn::is_child() && !spawn::is_passing() {
            // Whoever comes here in a child would start children of its own, and so on.
            return Err(Error::Nested);
        }
        self.entered.registry.examine()?;
        let mut standing = Standing::default();
        if self.content {
            standing.content.get_or_insert_default();
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
            kept_lookaheads: Vec::new(),
            waiting: self.waiting,
            jitter: self.jitter,
            carrier: self.carrier,
            output: self.output,
            trace: self.trace,
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
            ended: false,
        })
    }
}

impl<M: WireMessage> MpMain<M> {
    /// A supervisor without clusters, with the default settings: its clusters will be processes. [`builder`](Self::builder) has
    /// the settings.
    ///
    /// # Errors
    /// [`Error::Nested`] in a process that is itself a cluster; [`Error::Asymmetric`] for a type of message or agent of which a value
    /// was found that is not read as it is written.
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
    /// [`Error::DuplicateCluster`]; [`Error::BadClusterName`] for a name of more than 200 characters, without any, or with
    /// characters that a terminal obeys; [`Error::Start`] for more clusters than processes can be started for.
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

    fn push_cluster(&mut self, name: String) -> ClusterId {
        let cluster = ClusterId::new(self.routing.simulation, self.names.len(), &name);
        self.routing.ids.push(cluster);
        self.taken_names.insert(name.clone());
        self.names.push(name);
        self.lookaheads.push(None);
        self.routing.add_cluster();
        self.standing.reports.push(None);
        cluster
    }

    /// Adds an agent to a cluster. It is serialised at once, and lives there from the next run on.
    ///
    /// # Errors
    /// [`Error::UnknownAgentType`], [`Error::Encode`], [`Error::UnknownCluster`],
    /// [`Error::Model`] for an id that is taken or cannot be; nothing was added then.
    pub fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        cluster: ClusterId,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        let id = id.into();
        let place = self.check(cluster)?;
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

    /// Adds an agent to the cluster that was made last; to a first one, which it makes, if there is none.
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
    /// [`Error::UnknownBuilder`], [`Error::Encode`], [`Error::UnknownCluster`]. Ids that are taken
    /// are found by the next run.
    pub fn build<C: Serialize>(
        &mut self,
        cluster: ClusterId,
        builder: &str,
        config: C,
    ) -> Result<(), Error> {
        let place = self.check(cluster)?;
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
        self.calls.push((place, Call::Build { builder, config }));
        Ok(())
    }

    /// Refuses what cannot be done: the simulation has ended, or belongs to another process.
    fn check_usable(&self) -> Result<(), Error> {
        if self.is_copy() {
            return Err(Error::Forked { owner: self.owner });
        }
        if self.ended {
            return Err(Error::Ended);
        }
        Ok(())
    }

    /// Whether this process was forked from the one that this simulation belongs to. Its processes, their links and the files are not
    /// this one's, and the threads that look after them are not here.
    fn is_copy(&self) -> bool {
        std::process::id() != self.owner
    }

    /// Lets go of everything that belongs to another process, without touching it.
    fn let_go(&mut self) {
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

    /// Queues a message of main to an agent; with [`Receiver::Subscribers`] a broadcast. It is posted when the next run starts,
    /// before anything else.
    pub fn send(&mut self, to: impl Into<Receiver>, body: M) {
        self.send_mail(Mail::new(AgentId::MAIN, to, body));
    }

    /// Queues mail, of whichever sender. It is posted when the next run starts, before anything else.
    pub fn send_mail(&mut self, mail: Mail<M>) {
        self.queued.push(mail);
    }

    /// Removes an agent: in the first superstep of the next run `teardown` takes the place of its
    /// update. Removing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`] if there was never an agent with this id; [`Error::Model`] if its name and another have one id.
    pub fn remove(&mut self, id: impl Into<AgentId>) -> Result<(), Error> {
        let id = id.into();
        check_name(id)?;
        if self.routing.is_gone(id) {
            return Ok(());
        }
        let cluster = self.routing.owner(id).ok_or(Error::UnknownAgent(id))?;
        self.routing.inbound[cluster as usize]
            .news
            .dismissed
            .push((id, None));
        Ok(())
    }

    /// Runs. Consecutive runs equal one longer run.
    ///
    /// Mail addressed to main is undeliverable; see [`run_with`](Self::run_with).
    ///
    /// # Errors
    /// [`Error::Agent`] and [`Error::Model`] for what agents do, [`Error::ClusterDied`],
    /// [`Error::Link`], [`Error::Stuck`], [`Error::Interrupted`], [`Error::Start`], [`Error::Protocol`], [`Error::Encode`],
    /// [`Error::Decode`]; all processes have then been stopped, and later runs are [`Error::Ended`].
    pub fn run(&mut self, run: Run) -> Result<MpReport, Error> {
        self.run_with_hooks(run, None)
    }

    /// Runs, and hands mail addressed to [`AgentId::MAIN`] to `handler`, between two supersteps.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(
        &mut self,
        run: Run,
        mut handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<MpReport, Error> {
        self.run_with_hooks(run, Some(&mut handler))
    }

    /// Runs until simulated time reaches `time`, or nothing is left to happen.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_until(&mut self, time: SimTime) -> Result<MpReport, Error> {
        self.run(Run::until(time))
    }

    fn run_with_hooks(
        &mut self,
        run: Run,
        handler: Option<&mut Handler<'_, M>>,
    ) -> Result<MpReport, Error> {
        self.check_usable()?;
        let result = catch_unwind(AssertUnwindSafe(|| self.try_to_run(run, handler)));
        let result = result.unwrap_or_else(|payload| {
            // A callback of the program has panicked. What it was called for is half done, so nothing can go on.
            let why = "a callback of the program panicked in a run";
            self.control_queue
                .close(ControlError::Failed(why.to_owned()));
            self.abandon(&Error::Ended);
            resume_unwind(payload)
        });
        if let Err(error) = &result {
            debug!(target: "maslite", sim_time = %self.standing.time, error = %Chain(error), "run failed");
            // A half-done superstep cannot be continued: nothing is left running, and nobody is
            // torn down.
            self.abandon(error);
        }
        result
    }

    fn try_to_run(
        &mut self,
        run: Run,
        handler: Option<&mut Handler<'_, M>>,
    ) -> Result<MpReport, Error> {
        let (started, start) = (wall(), self.standing.time);
        let timeout = run.wall_limit();
        let lookaheads = self.effective_lookaheads()?;
        self.start()?;
        let queued = std::mem::take(&mut self.queued);
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        let before: Vec<u64> = self.standing.delivered_in_clusters().collect();
        let delivered = self.standing.counters().delivered;
        let rounds_before = self.standing.rounds;
        let snapshot = &self.control_queue.snapshot;
        snapshot.note_run(start, run.end(start), delivered);
        clusters.begin_run(timeout, deadline);
        let format = self.entered.registry.trace_format();
        let (routing, standing) = (&mut self.routing, &mut self.standing);
        standing.errors.clear();
        standing.errors_of_setup = 0;
        let under_way = &mut self.under_way;
        let trace = &mut self.trace;
        let mut rounds = Rounds::new(clusters, routing, standing, under_way, trace, format, run);
        rounds.handler = handler;
        rounds.lookaheads = lookaheads;
        rounds.setup(queued)?;
        self.startup
            .get_or_insert_with(|| wall().duration_since(self.created));
        let (stopped_by, late) = rounds.run_steered(&self.control_queue, deadline)?;
        clusters.end_run();
        self.queued.extend(late);
        debug!(target: "maslite", sim_time = %self.standing.time, by = %stopped_by, "run ended");
        let wall = wall().duration_since(started);
        let mut report = Report::new(stopped_by, start, self.standing.time, wall);
        report.counters = self.standing.counters();
        report.digest = self.digest();
        report.content_digest = self.standing.content_digest();
        report.errors.clone_from(&self.standing.errors);
        report.lost = self.standing.lost.iter().map(|(_, lost)| *lost).collect();
        report.silent = self.routing.silent_topics(&self.standing.heard);
        let events = report.counters.delivered - delivered;
        let mut report = self.report(report, events, &before);
        report.rounds_in_run = self.standing.rounds - rounds_before;
        Ok(report)
    }

    /// The report of a run in which so much mail was taken, and before which so much had been in each cluster.
    fn report(&self, run: Report, events: u64, before: &[u64]) -> MpReport {
        let reports = || self.standing.reports.iter().flatten();
        let is_long = run.wall >= LONG;
        let meter = self.clusters.as_ref().map(|clusters| &clusters.meter);
        MpReport {
            events,
            local: reports().map(|report| report.local).sum(),
            held_back: reports().map(|report| report.held_back).sum(),
            held_back_to_main: reports().map(|report| report.held_back_to_main).sum(),
            routed: self.routing.routed,
            rounds: self.standing.rounds,
            rounds_in_run: 0,
            seed: self.seed,
            placement: self.placement,
            startup: self.startup,
            main_busy: meter.map_or(Duration::ZERO, Meter::busy_of_main),
            main_memory: is_long.then(|| memory_of(std::process::id())).flatten(),
            flows: self.flows(),
            clusters: self.cluster_reports(before, is_long),
            versions: Versions::here(),
            run,
        }
    }

    /// What went from where to where.
    fn flows(&self) -> Vec<Flow> {
        let name = |place: usize| place.checked_sub(1).map(|cluster| &self.names[cluster]);
        let rows = self.routing.traffic.rows().iter().enumerate();
        let flows = rows.flat_map(|(from, row)| {
            let some = row.iter().filter(|(_, crossing)| crossing.mails > 0);
            some.map(move |(to, crossing)| Flow {
                from: name(from).cloned(),
                to: name(*to).cloned(),
                mails: crossing.mails,
                bytes: crossing.bytes,
            })
        });
        flows.collect()
    }

    /// `before`: mail that each had taken before the run. `is_long`: it is worth while to ask for memory.
    fn cluster_reports(&self, before: &[u64], is_long: bool) -> Vec<ClusterReport> {
        let Some(clusters) = &self.clusters else {
            return Vec::new();
        };
        let lookaheads = self.effective_lookaheads().unwrap_or_default();
        let reports = clusters
            .list
            .iter()
            .zip(self.standing.reports.iter().flatten());
        let reports = reports.enumerate().map(|(place, (cluster, report))| {
            let before = before.get(place).copied().unwrap_or(0);
            let spent = clusters.meter.spent(place);
            let time = |part: fn(&Spent) -> Duration| spent.as_ref().map_or(Duration::ZERO, part);
            let traffic = &self.routing.traffic;
            let (mail_in, mail_out) = traffic.in_and_out(Traffic::place_of(place));
            let asks = is_long && cluster.carrier.is_some();
            ClusterReport {
                id: self.routing.ids[place],
                name: cluster.name.clone(),
                pid: cluster.pid,
                link: cluster.carrier,
                lookahead: lookaheads.get(place).copied(),
                events: report.counters.delivered - before,
                busy: time(|spent| spent.busy),
                blocked: time(|spent| spent.blocked),
                waiting: time(|spent| spent.waiting),
                mail_in,
                mail_out,
                awake: u64::from(report.awake_last),
                memory: asks.then(|| memory_of(cluster.pid)).flatten(),
                counters: report.counters,
            }
        });
        reports.collect()
    }

    /// Asks clusters something between two runs.
    pub(crate) fn ask(&mut self, scope: Scope, request: &[u8]) -> Result<Replies, ControlError> {
        let lookaheads = self.effective_lookaheads()?;
        self.start()?;
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        let places = places_of(scope, &self.routing, &self.under_way, clusters.list.len())?;
        let format = self.entered.registry.trace_format();
        let (routing, standing) = (&mut self.routing, &mut self.standing);
        let (under_way, trace) = (&mut self.under_way, &mut self.trace);
        let nothing = Run::until_idle();
        let mut rounds = Rounds::new(
            clusters, routing, standing, under_way, trace, format, nothing,
        );
        rounds.lookaheads = lookaheads;
        let replies = rounds.ask(&places, request);
        let replies = replies.inspect_err(|error| self.abandon(error))?;
        Ok(replies_of(&self.routing, places, replies))
    }

    pub(crate) fn registry(&self) -> &Registry<M> {
        &self.entered.registry
    }

    /// Starts clusters and ships agents that are new since the last run. `run` does it too.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Decode`], [`Error::Model`] for ids used twice,
    /// [`Error::ClusterDied`], [`Error::Link`], [`Error::Protocol`].
    pub fn start(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        let result = self.try_to_start();
        if let Err(error) = &result {
            self.abandon(error);
        }
        result
    }

    /// The lookahead of each cluster; empty if none has one.
    fn effective_lookaheads(&self) -> Result<Vec<SimDuration>, Error> {
        let later = self.lookaheads.iter().skip(self.kept_lookaheads.len());
        let later = later.map(|own| own.or(self.lookahead));
        let declared = self.kept_lookaheads.iter().copied().chain(later);
        let lookaheads: Vec<_> = declared.clone().flatten().collect();
        match declared.clone().position(|lookahead| lookahead.is_none()) {
            Some(place) if !lookaheads.is_empty() => {
                Err(Error::MissingLookahead(self.names[place].clone()))
            }
            _ => Ok(lookaheads),
        }
    }

    fn try_to_start(&mut self) -> Result<(), Error> {
        let lookaheads = self.effective_lookaheads()?;
        let clusters = match &mut self.clusters {
            Some(clusters) => clusters,
            none => none.insert(Clusters::new(
                self.placement,
                Arc::clone(&self.control_queue),
                self.patience,
                self.warnings.take(),
                self.progress,
            )?),
        };
        for name in &self.names[clusters.list.len()..] {
            clusters.add(name.clone());
        }
        let time = self.standing.time;
        let fresh = clusters.start(&self.entered, self.carrier, self.output)?;
        let wait = clusters.wait(self.waiting);
        for place in fresh {
            let settings = Settings {
                lookahead: lookaheads.get(place).copied(),
                seed: self.seed,
                digest: self.digest,
                content: self.content,
                trace: self.trace.is_some(),
                wait,
                jitter: self.jitter.map(|seed| Jitter::child_side(seed, place)),
            };
            if let Some(seed) = self.jitter {
                clusters.add_jitter(place, Jitter::main_side(seed, place));
            }
            tell(clusters, place, &ToProc::Settings(settings), time)?;
            self.routing.tell_interest(place);
        }
        self.kept_lookaheads = (0..self.names.len())
            .map(|place| lookaheads.get(place).copied())
            .collect();
        if self.calls.is_empty() {
            return Ok(());
        }
        clusters.begin_loading();
        let calls = std::mem::take(&mut self.calls);
        // All clusters build at the same time; who they built decides the indices of the rest.
        let order: Vec<(u32, bool)> = calls
            .iter()
            .map(|(cluster, call)| (*cluster, matches!(call, Call::Add { .. })))
            .collect();
        let mut per_cluster: Vec<Vec<Call>> = self.names.iter().map(|_| Vec::new()).collect();
        for (cluster, call) in calls {
            per_cluster[cluster as usize].push(call);
        }
        let mut asked = Vec::new();
        for (place, calls) in per_cluster.into_iter().enumerate() {
            if !calls.is_empty() {
                asked.push((place, calls.len()));
                tell(clusters, place, &ToProc::Load(calls), time)?;
            }
        }
        let mut loaded: Vec<std::vec::IntoIter<Loaded>> = Vec::new();
        loaded.resize_with(self.names.len(), Default::default);
        for (place, calls) in &asked {
            loaded[*place] = recv_loaded(clusters, *place, *calls, time)?.into_iter();
        }
        let mut indices: Vec<Vec<u64>> = self.names.iter().map(|_| Vec::new()).collect();
        for (cluster, is_add) in order {
            let place = cluster as usize;
            let built = loaded[place]
                .next()
                .expect("there are as many answers as calls");
            indices[place].push(self.standing.next_index);
            for name in &built.names {
                let _ = AgentId::named(name);
            }
            if is_add {
                self.standing.next_index += 1;
            } else {
                self.standing.next_index += built.ids.len() as u64;
                for id in built.ids {
                    self.routing.insert(id, cluster, Adder::Owner)?;
                }
            }
        }
        for (place, _) in asked {
            let indices = std::mem::take(&mut indices[place]);
            tell(clusters, place, &ToProc::AssignIndices(indices), time)?;
        }
        clusters.end_loading();
        Ok(())
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

    /// Opens a control socket, through which other processes of this user can ask and steer this simulation until it
    /// ends: the program `maslite`, and whoever uses [`control`](crate::steering::control). Tells where it is. There is none unless this is called.
    ///
    /// `name`: 1 to 32 letters, digits, `-` and `_`, by which people tell simulations apart. A run that is paused
    /// stays paused until somebody lets it go on, be it through the socket.
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
            // This process becomes a cluster of another simulation, and nobody is to speak to it.
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

    /// Has Ctrl-C (`SIGINT`) and `SIGTERM` end this simulation in good order, from now until it is dropped. For
    /// programs of which it is the main matter; hosts with signal handlers of their own take a
    /// [`stop_handle`](Self::stop_handle).
    ///
    /// 1. The first signal ends the run that goes on, or the next one, as a [`StopHandle`] does:
    ///    [`StopReason::Interrupted`](maslite_core::StopReason::Interrupted), with a report.
    /// 2. The second kills the clusters' processes: [`Error::Interrupted`]. (Clusters that run inline go on.)
    /// 3. The third, or one when no such simulation is left, does what it does to any program: the shell sees 130 or 143.
    ///
    /// A run that begins later begins to count again. Several simulations may ask for it; a signal then is for all of
    /// them. Signals that this process was started to ignore, as `nohup` and `&` in scripts have it, stay ignored.
    ///
    /// # Errors
    /// [`Error::Signals`] if the program has a handler of its own for one of the signals (known on Linux
    /// only; elsewhere both are called), or no thread can be had. Nothing has changed then.
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

    /// The superstep within this instant that comes next. Under a lookahead each cluster counts its own, and this tells nothing.
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

    /// The clusters that have started, each with the process that it runs in, which is this one if they run inline.
    #[must_use]
    pub fn pids(&self) -> Vec<(ClusterId, u32)> {
        let started = self.clusters().iter();
        started
            .filter_map(|cluster| Some((*cluster, self.pid(*cluster)?)))
            .collect()
    }

    /// The process that a cluster runs in, which is this one if it runs inline; none before it starts.
    #[must_use]
    pub fn pid(&self, cluster: ClusterId) -> Option<u32> {
        let place = cluster.place(self.routing.simulation, self.names.len())?;
        let cluster = self.clusters.as_ref()?.list.get(place)?;
        Some(cluster.pid)
    }

    /// Ends the simulation: calls `teardown` of all agents, stops the clusters, the last one first,
    /// and leaves nothing behind. Dropping it does the same.
    #[must_use]
    pub fn shutdown(mut self) -> Shutdown {
        self.end(GRACE)
    }

    /// Ends after a failure, without asking anybody.
    fn abandon(&mut self, error: &Error) {
        self.ended = true;
        if self.is_copy() {
            return self.let_go();
        }
        self.control_queue.close(ControlError::from(error));
        self.control = None;
        if let Some(mut clusters) = self.clusters.take() {
            clusters.abandon();
        }
        self.control_queue.retire();
    }

    /// The one way to end well; a second time it does nothing.
    fn end(&mut self, grace: Duration) -> Shutdown {
        let started = wall();
        self.ended = true;
        if self.is_copy() {
            self.let_go();
            let errors = vec![Error::Forked { owner: self.owner }];
            return Shutdown::new(Duration::ZERO, Vec::new(), errors);
        }
        self.control_queue.close(ControlError::Ended);
        self.control = None;
        let mut errors = Vec::new();
        let (mut ends, mut torn_down) = (Vec::new(), BTreeSet::new());
        if let Some(mut clusters) = self.clusters.take()
            && let Ok(stop) = wire::message(&ToProc::Stop)
        {
            // The trace is the program's own code: if it panics, the clusters are ended all the same.
            let (under_way, trace) = (&mut self.under_way, &mut self.trace);
            let write = || under_way.write_trace_before(None, trace);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(write)) {
                // It is a value of the program, whose `Drop` may panic too.
                std::mem::forget(payload);
            }
            let heard;
            (ends, heard) = clusters.shutdown(&stop, grace, |cluster, message| {
                if let Ok((ToMain::Bye(panic), _)) = wire::take_note(message) {
                    let cluster = cluster.to_owned();
                    torn_down.insert(cluster.clone());
                    errors.extend(panic.map(|source| Error::Agent { cluster, source }));
                }
            });
            for end in ends.iter_mut().rev() {
                let cluster = &self.names[end.cluster as usize];
                if !torn_down.contains(cluster) && (heard || end.how != EndKind::Clean) {
                    let cluster = cluster.clone();
                    errors.push(not_torn_down(cluster, end, self.standing.time));
                }
            }
        }
        Shutdown::new(wall().duration_since(started), ends, errors)
    }
}

impl<M: WireMessage> Drop for MpMain<M> {
    fn drop(&mut self) {
        let grace = if std::thread::panicking() {
            SHORT_GRACE
        } else {
            GRACE
        };
        self.end(grace);
        if !self.is_copy() {
            self.control_queue.retire();
        }
    }
}

/// A cluster has ended without the word that all its agents were torn down: an end that looks clean was none.
fn not_torn_down(cluster: String, end: &mut ChildEnd, time: SimTime) -> Error {
    if end.how == EndKind::Clean {
        end.how = EndKind::Failed(ExitKind::Success);
    }
    let exit = match end.how {
        EndKind::Failed(exit) => Some(exit),
        EndKind::Clean | EndKind::Killed | EndKind::Leaked => None,
    };
    Error::NotTornDown {
        cluster,
        pid: end.pid,
        exit,
        stderr: end.stderr.clone(),
        time,
    }
}

fn tell(clusters: &mut Clusters, place: usize, what: &ToProc, time: SimTime) -> Result<(), Error> {
    let put = wire::put_note(what, &mut clusters.draft(place, time)?);
    put.map_err(|why| Error::Encode {
        what: "a message to a cluster".to_owned(),
        why: why.to_string(),
    })?;
    clusters.send(place, time)
}

/// What so many calls made in a cluster.
fn recv_loaded(
    clusters: &mut Clusters,
    place: usize,
    calls: usize,
    time: SimTime,
) -> Result<Vec<Loaded>, Error> {
    let cluster = clusters.list[place].name.clone();
    let message = clusters.recv(place, time)?;
    let reason = match wire::take_note(message) {
        Ok((ToMain::Loaded(loaded), _)) if loaded.len() == calls => return Ok(loaded),
        Ok((ToMain::Loaded(_), _)) => MessageFault::Loaded,
        Ok((ToMain::Failed(fault), _)) => return Err(fault.blame(&cluster)),
        Ok((ToMain::Report(_) | ToMain::Bye(_), _)) => MessageFault::Untimely,
        Err(_) => MessageFault::Undecodable,
    };
    Err(reason.blame(&cluster, time, message))
}

/// How a simulation ended. `ends`: how each process did, the first cluster's first; empty if the clusters ran inline. `errors`: what
/// went wrong, the last cluster's first: panics of agents in `teardown` and `Drop`, then clusters whose processes ended before all
/// their agents were torn down ([`Error::NotTornDown`]).
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
