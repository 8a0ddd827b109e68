//! A scheduler as one cluster of several: does what main grants, and reports.
//!
//! It is the same in a child process and inline: a message comes in, at most one goes out.
//!
//! The mail that leaves is written into the message of the answer as it leaves ([`outbound`](crate::cluster::outbound)).
//!
//! **Invariant:** whenever it reports, mail that leaves has been handed out, and its own mail of the
//! last superstep is not posted yet. So main can bring in what others sent in the same superstep,
//! and the next grant posts all of it in the kernel's order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maslite_core::engine::{
    Engine, EngineHooks, FailurePlace, FailureStage, Import, Limits, Outgoing, Rest, guard_model,
};
use maslite_core::{
    AgentId, Digest, MailingList, Message, Pattern, Receiver, SimDuration, SimTime, StopReason,
};
use rustc_hash::FxHashMap;
use tracing::error;

use crate::cluster::commands;
use crate::cluster::outbound::Outbound;
use crate::cluster::registry::{AgentSet, Registry, WireMessage};
use crate::error::Chain;
use crate::error::death::{EXIT_LIFELINE_LOST, EXIT_PROTOCOL_MISMATCH};
use crate::error::link::LinkError;
use crate::error::message_fault::MessageFault;
use crate::links::codec;
use crate::links::guarded;
use crate::links::jitter::{Jitter, JitterLink};
use crate::links::round_trip::{self, Difference, Trips};
use crate::links::transport::{Draft, Transport, Wait, now};
use crate::processes::backend::InterruptSource;
use crate::processes::spawn::ChildSide;
use crate::protocol::layout;
use crate::protocol::rare::Rare;
use crate::protocol::wire::{
    self, Call, Destination, Events, Failure, Fault, Grant, Loaded, MailFlaw, MailHead, News,
    Removal, Report, Settings, Task, ToMain, ToProc, TraceLine,
};
use crate::stall::detector::ClusterActivity;

/// So much mail that stays in a cluster makes a round trip in release builds; in debug builds all of it does.
const LOCAL_TRIPS: u32 = 64;

/// How many deliveries a cluster that runs on its own keeps for the trace before it reports.
const TRACE_LIMIT: usize = 10_000;

/// The scheduler of one cluster.
pub(crate) struct MpScheduler<M: Message> {
    registry: Arc<Registry<M>>,
    engine: Engine<M>,
    gateway: Gateway<M>,
    /// Agents that wait for their insertion indices, as one list per call.
    loaded: Vec<AgentSet<M>>,
    /// Mail of a grant, before the engine takes it in; kept for its memory.
    arrived: Vec<Import<M>>,
    trace: Arc<Mutex<Vec<TraceLine>>>,
    /// The lines of the trace as they go into the report at hand.
    lines: Vec<u8>,
    /// How to wait for messages, when that has just been told.
    wait: Option<Wait>,
    /// The jitter of this end of the link, when that has just been told.
    jitter: Option<Jitter>,
    /// What others see of it while it works.
    cluster_activity: Arc<ClusterActivity>,
    /// How long it worked under grants, if it is to tell.
    busy: Option<Duration>,
    names: Names,
}

/// What this process has heard of names: main is to hear it too, unless it is the same process.
#[derive(Default)]
struct Names {
    /// So many have been told, or come from main.
    known: usize,
    /// Heard of otherwise, and not told yet.
    pending: Vec<String>,
    /// Main is another process.
    is_told: bool,
}

impl Names {
    /// Takes the names that main has not heard of.
    fn take(&mut self) -> Vec<String> {
        if !self.is_told {
            return Vec::new();
        }
        let mut names = std::mem::take(&mut self.pending);
        names.extend(AgentId::names_since(&mut self.known));
        names
    }

    /// Takes in names that main tells.
    fn learn(&mut self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        self.pending = self.take();
        for name in names {
            let _ = AgentId::named(name);
        }
        let _ = AgentId::names_since(&mut self.known);
    }
}

/// What a scheduler has to say to a message of main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Answer,
    /// Its last answer.
    Bye,
}

impl<M: WireMessage> MpScheduler<M> {
    pub(crate) fn new(registry: Arc<Registry<M>>) -> Self {
        Self {
            registry,
            engine: Engine::new(0),
            gateway: Gateway::new(InterruptSource::While(Arc::default())),
            loaded: Vec::new(),
            arrived: Vec::new(),
            trace: Arc::default(),
            lines: Vec::new(),
            wait: None,
            jitter: None,
            cluster_activity: Arc::default(),
            busy: None,
            names: Names::default(),
        }
    }

    /// The same, held in another way.
    pub(crate) fn interrupted_by(mut self, interrupts: InterruptSource) -> Self {
        self.gateway.interrupts = interrupts;
        self
    }

    /// The same, showing itself in `cluster_activity`.
    pub(crate) fn shown_in(mut self, cluster_activity: Arc<ClusterActivity>) -> Self {
        self.cluster_activity = cluster_activity;
        self
    }

    /// Obeys main until it says stop. Returns the code to exit with.
    pub(crate) fn run(self, mut side: ChildSide) -> i32 {
        let interrupts = InterruptSource::UpTo(Arc::clone(&side.interrupts));
        let mut this = self
            .interrupted_by(interrupts)
            .shown_in(Arc::clone(&side.cluster_activity));
        // Elsewhere than in a process there is no wall time of its own.
        this.busy = side.is_process.then_some(Duration::ZERO);
        this.names.is_told = side.is_process;
        loop {
            let reply = match side.link.recv_to_answer() {
                Ok((message, mut draft)) => this.obey(message, &mut draft),
                Err(error) => return give_up(side, &error),
            };
            if let Some(wait) = this.wait.take() {
                side.settle();
                side.link.wait_as(wait);
                if let Some(jitter) = this.jitter.take() {
                    side.link = Box::new(JitterLink::new(side.link, jitter));
                }
            }
            if reply == Reply::Nothing {
                continue;
            }
            // Whoever has not handed over its answer is not done.
            this.cluster_activity.set_busy(true);
            if let Err(error) = send(&mut *side.link) {
                return give_up(side, &error);
            }
            this.cluster_activity.set_busy(false);
            if reply == Reply::Bye {
                return 0;
            }
        }
    }

    /// Does what one message says, and writes the answer into the draft, if there is any.
    pub(crate) fn obey(&mut self, message: &[u8], draft: &mut Draft<'_>) -> Reply {
        self.cluster_activity.set_busy(true);
        let reply = self.try_to_obey(message, draft).unwrap_or_else(|fault| {
            write_alone(&ToMain::Failed(fault), draft);
            Reply::Answer
        });
        self.cluster_activity.set_busy(false);
        reply
    }

    fn try_to_obey(&mut self, message: &[u8], draft: &mut Draft<'_>) -> Result<Reply, Fault> {
        let (note, mail) =
            wire::take_note(message).map_err(|why| undecodable("a message of main", why))?;
        Ok(match note {
            ToProc::Settings(settings) => {
                self.settle_in(&settings);
                Reply::Nothing
            }
            ToProc::Load(calls) => {
                let calls = calls.into_iter();
                let loaded: Result<_, Fault> = calls.map(|call| self.load(call)).collect();
                write_alone(&ToMain::Loaded(loaded?), draft);
                Reply::Answer
            }
            ToProc::AssignIndices(indices) => {
                self.assign_indices(&indices)?;
                Reply::Nothing
            }
            ToProc::Grant(grant) => {
                self.obey_grant(grant, mail, draft)?;
                Reply::Answer
            }
            ToProc::Stop => {
                write_alone(&ToMain::Bye(self.engine.teardown().err()), draft);
                Reply::Bye
            }
        })
    }

    fn settle_in(&mut self, settings: &Settings) {
        self.engine = Engine::new(settings.seed);
        self.engine
            .show_progress(Arc::clone(&self.cluster_activity.progress));
        self.engine.join_neighbours();
        self.wait = Some(settings.wait);
        self.jitter = settings.jitter;
        if let Some(lookahead) = settings.lookahead {
            self.engine.look_ahead(lookahead);
            self.gateway.ahead = Some(Ahead::new(lookahead));
        }
        if settings.digest {
            self.engine.keep_digest();
        }
        if settings.content {
            self.engine.keep_content_digest();
        }
        if settings.trace {
            let (lines, format) = (Arc::clone(&self.trace), self.registry.trace_format());
            let full = Arc::clone(&self.gateway.full);
            self.engine.observe_for_model(Box::new(move |delivery| {
                let mut text = String::new();
                format(delivery, &mut text);
                let mut lines = lock(&lines);
                lines.push(TraceLine {
                    time: delivery.time,
                    superstep: delivery.superstep,
                    index: delivery.index,
                    text,
                });
                full.store(lines.len() >= TRACE_LIMIT, Ordering::Relaxed);
            }));
        }
    }

    /// Makes the agents of one call, and tells who they are if main cannot know.
    fn load(&mut self, call: Call) -> Result<Loaded, Fault> {
        let mut agents = AgentSet::new();
        let mut loaded = Loaded {
            ids: Vec::new(),
            names: Vec::new(),
        };
        match call {
            Call::Add {
                id,
                name,
                kind,
                state,
            } => {
                self.names.learn(name.as_slice());
                let known = self
                    .registry
                    .kind(&kind)
                    .ok_or_else(|| Fault::UnknownKind {
                        kind: kind.clone(),
                        known: self.registry.kind_names(),
                    })?;
                let what = format!("decoding agent {id} of type {kind}");
                let agent = self.guard(&what, || (known.decode)(&state))?;
                let agent =
                    agent.map_err(|why| undecodable(&format!("agent {id} of type {kind}"), why))?;
                agents.agents.push((id, agent));
            }
            Call::Build { builder, config } => {
                let build = self.registry.builder(&builder).ok_or_else(|| {
                    let (builder, known) = (builder.clone(), self.registry.builder_names());
                    Fault::UnknownBuilder { builder, known }
                })?;
                let what = || format!("the configuration of builder {builder:?}");
                let built = self.guard(&format!("builder {builder:?}"), || {
                    build(&config, &mut agents)
                })?;
                built.map_err(|why| undecodable(&what(), why))?;
                loaded.ids = agents.agents.iter().map(|(id, _)| *id).collect();
            }
        }
        loaded.names = self.names.take();
        self.loaded.push(agents);
        Ok(loaded)
    }

    /// Calls code of the model that is no agent's.
    fn guard<T>(&self, what: &str, call: impl FnOnce() -> T) -> Result<T, Fault> {
        let stands = (self.engine.now(), self.engine.superstep());
        guard_model(Some(what), stands, call).map_err(fault)
    }

    fn assign_indices(&mut self, indices: &[u64]) -> Result<(), Fault> {
        for (agents, first) in std::mem::take(&mut self.loaded).into_iter().zip(indices) {
            for ((id, agent), index) in agents.agents.into_iter().zip(*first..) {
                self.engine.add_at(id, index, agent).map_err(fault)?;
            }
        }
        Ok(())
    }

    fn obey_grant(
        &mut self,
        mut grant: Grant,
        mail: &[u8],
        draft: &mut Draft<'_>,
    ) -> Result<(), Fault> {
        draft.clear();
        self.gateway.outbound.begin();
        let Grant {
            number,
            task,
            supersteps_per_instant,
            ..
        } = grant;
        let begin = self.busy.map(|_| now());
        // Between runs all stand where main stands; within one each has its own time under a lookahead.
        if self.gateway.ahead.is_none() {
            self.check_time(grant.time)?;
            self.engine.stand_at(grant.time, grant.superstep);
        } else if matches!(task, Task::Setup { .. } | Task::Answer) {
            self.check_time(grant.time)?;
            self.engine.advance_to(grant.time);
        }
        let (mut interest, mut request) = (Vec::new(), Vec::new());
        if let Some(mut news) = grant.news.take() {
            request = std::mem::take(&mut news.request);
            interest = self.learn(*news)?;
        }
        let before = self.engine.counters().supersteps;
        let stands = (self.engine.now(), self.engine.superstep());
        let mut reply = Vec::new();
        let done = guard_model(None, stands, || {
            self.take_in(mail, task)?;
            Ok::<_, Fault>(match task {
                Task::Rematch => {
                    let mut open = self.gateway.writing(draft);
                    open.rematch(&mut self.engine, &interest);
                    Ok(())
                }
                Task::Answer => {
                    commands::answer(&mut self.engine, &self.registry, &request, &mut reply);
                    Ok(())
                }
                Task::RunAlone { .. } | Task::Window { .. } => {
                    self.run_on(task, number, supersteps_per_instant, draft)
                }
                _ => self.step_on(task, supersteps_per_instant, draft),
            })
        });
        let mut failure = match done {
            Ok(done) => done?.err().map(|error| {
                let place = self.engine.failed_at();
                let place = place.expect("the engine tells where an error was");
                (place, Fault::Agent(error))
            }),
            // Code of a message, where no agent was at work.
            Err(error) => Some((self.place_of_next(), Fault::Agent(error))),
        };
        if let Some(fault) = self.gateway.failure.take() {
            failure.get_or_insert_with(|| (self.place_of_handover(), fault));
        }
        if let (Some(busy), Some(begin)) = (&mut self.busy, begin) {
            *busy += begin.elapsed();
        }
        let failure = failure.map(|(place, fault)| Box::new(Failure { place, fault }));
        let supersteps = self.engine.counters().supersteps - before;
        self.report(supersteps, reply, failure, draft)
    }

    /// Takes in the mail of a grant, and posts it with what waits here.
    fn take_in(&mut self, mut mail: &[u8], task: Task) -> Result<(), Fault> {
        while !mail.is_empty() {
            let (head, mail) = wire::take_mail::<M>(&mut mail).map_err(misread::<M>)?;
            let is_timed = head.arrives > SimTime::ZERO;
            if is_timed && (head.arrives < self.engine.now() || self.gateway.ahead.is_none()) {
                return Err(self.refuse(MessageFault::Arrival));
            }
            let import = Import {
                key: head.key,
                mail,
                is_copy: head.is_copy,
            };
            if is_timed {
                self.engine.take_in(head.arrives, head.left, import);
            } else {
                self.arrived.push(import);
            }
        }
        self.engine.import(self.arrived.drain(..));
        if !matches!(task, Task::Setup { .. } | Task::Rematch | Task::Answer) {
            self.engine.post();
        }
        Ok(())
    }

    /// Does at most one superstep, and hands out the mail that leaves.
    fn step_on(
        &mut self,
        task: Task,
        supersteps_per_instant: u64,
        draft: &mut Draft<'_>,
    ) -> Result<(), maslite_core::Error> {
        match task {
            Task::Setup { stop_at_error } => {
                self.engine.stop_at_error(stop_at_error);
                self.engine.setup()?;
            }
            Task::Fire => self.fire(),
            Task::SuperstepIfAwake if !self.engine.is_awake() => {}
            Task::SuperstepIfAwake | Task::Superstep => self.engine.step(supersteps_per_instant)?,
            Task::FireAndSuperstep => {
                self.fire();
                self.engine.post();
                if self.engine.is_awake() {
                    self.engine.step(supersteps_per_instant)?;
                }
            }
            _ => {}
        }
        // What a failing superstep sent goes nowhere.
        self.gateway.writing(draft).hand_out(&mut self.engine);
        Ok(())
    }

    /// Runs many supersteps; the mail that leaves is handed out on the way.
    fn run_on(
        &mut self,
        task: Task,
        number: u64,
        supersteps_per_instant: u64,
        draft: &mut Draft<'_>,
    ) -> Result<(), maslite_core::Error> {
        self.gateway.grant = number;
        self.gateway.passes = 0;
        let mut limits = Limits {
            horizon: None,
            supersteps: u64::MAX,
            supersteps_per_instant,
        };
        match task {
            Task::RunAlone {
                horizon,
                supersteps,
                next_index,
            } => {
                self.engine.number_from(next_index);
                (limits.horizon, limits.supersteps) = (horizon, supersteps);
            }
            Task::Window { horizon, others } => {
                limits.horizon = horizon;
                if let Some(ahead) = &mut self.gateway.ahead {
                    ahead.others = others;
                    ahead.limit = None;
                }
            }
            _ => {}
        }
        let rest = self.engine.run(&limits, &mut self.gateway.writing(draft))?;
        if let (Task::RunAlone { .. }, Rest::Asked(reason)) = (task, rest) {
            self.gateway.stopped = Some((0, reason));
        }
        Ok(())
    }

    /// The place before the superstep that comes next.
    fn place_of_next(&self) -> FailurePlace {
        FailurePlace {
            time: self.engine.now(),
            superstep: self.engine.superstep(),
            stage: FailureStage::Start,
            index: 0,
            sequence: 0,
        }
    }

    /// Whether it can stand at that time: main may have been told what was not so.
    fn check_time(&mut self, time: SimTime) -> Result<(), Fault> {
        let now = self.engine.now();
        if time < now {
            return Err(self.refuse(MessageFault::TimeBack));
        }
        if time > now && self.engine.next_alarm().is_some_and(|alarm| alarm < time) {
            return Err(self.refuse(MessageFault::TimeBeyond));
        }
        Ok(())
    }

    fn refuse(&self, reason: MessageFault) -> Fault {
        let time = self.engine.now();
        Fault::Refused { reason, time }
    }

    /// Takes news in. Tells what others began to listen to.
    fn learn(&mut self, news: News) -> Result<Vec<(u32, Pattern)>, Fault> {
        self.names.learn(&news.names);
        if news.forget_routes {
            self.gateway.routes.clear();
        }
        self.gateway.routes.extend(news.routes);
        let mut begun = Vec::new();
        for (cluster, pattern, begins, from) in news.interest {
            if begins {
                self.engine.expect_listeners();
            }
            match &mut self.gateway.ahead {
                Some(ahead) if from > SimTime::ZERO => {
                    let coming = ahead.coming.entry(from).or_default();
                    coming.push((cluster, pattern, begins));
                }
                _ => {
                    self.gateway.change_interest(cluster, pattern, begins);
                    if begins {
                        begun.push((cluster, pattern));
                    }
                }
            }
        }
        self.engine.number(&news.numbers);
        for (id, time) in news.dismissed {
            match time {
                // Not at once, although it may have come to that instant already: it leaves with the alarms of the instant.
                Some(time) if self.gateway.ahead.is_some() => {
                    if time < self.engine.now() {
                        return Err(self.refuse(MessageFault::Arrival));
                    }
                    self.engine.remove_at(time, id);
                }
                _ => {
                    self.engine.remove(id);
                }
            }
        }
        Ok(begun)
    }

    fn fire(&mut self) {
        let now = self.engine.now();
        if self.engine.next_alarm() == Some(now) {
            self.engine.fire(now);
        }
    }

    /// Where mail is that cannot leave: after all else of the last superstep.
    fn place_of_handover(&self) -> FailurePlace {
        FailurePlace {
            time: self.engine.now(),
            superstep: self.engine.superstep().saturating_sub(1),
            stage: FailureStage::Handover,
            index: 0,
            sequence: 0,
        }
    }

    fn report(
        &mut self,
        supersteps: u64,
        reply: Vec<u8>,
        failure: Option<Box<Failure>>,
        draft: &mut Draft<'_>,
    ) -> Result<(), Fault> {
        let engine = &mut self.engine;
        let gateway = &mut self.gateway;
        let newborn = engine.take_newborn();
        self.lines.clear();
        let lines = std::mem::take(&mut *lock(&self.trace));
        gateway.full.store(false, Ordering::Relaxed);
        for line in lines {
            put(&line, &mut self.lines)?;
        }
        let report = Report {
            time: engine.now(),
            superstep: engine.superstep(),
            supersteps,
            awake: engine.is_awake() || engine.has_mail_for_itself(),
            waiting: engine.has_outbox(),
            next_alarm: engine.next_event(),
            alarms_may_leave: engine.has_alarms_elsewhere() || !gateway.others.is_empty(),
            kept_awake: engine.has_kept_awake(),
            events: Rare::from(Events {
                stopped: gateway.take_stops(engine),
                names: self.names.take(),
                newborn,
                gone: engine.take_gone(),
                removals: gateway.take_removals(engine),
                interest: gateway.interest(engine.take_changed_interest()),
                errors: engine.take_errors(),
                lost: engine.take_lost(),
                heard: engine.take_heard(),
                reply,
                failure,
            }),
            counters: engine.counters(),
            held_back: gateway.ahead.as_ref().map_or(0, |ahead| ahead.held_back),
            held_back_to_main: gateway
                .ahead
                .as_ref()
                .map_or(0, |ahead| ahead.held_back_to_main),
            busy: self
                .busy
                .map_or(0, |busy| u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)),
            awake_last: u32::try_from(engine.awake_last()).unwrap_or(u32::MAX),
            local: engine.local(),
            digest: engine.digest().map(Digest::as_u64),
            content: engine.content_digest().map(Digest::as_u64),
            batches: gateway.outbound.finish(draft),
            // A link carries no longer messages.
            trace: u32::try_from(self.lines.len()).unwrap_or(u32::MAX),
        };
        draft.extend(&self.lines);
        wire::put_note(&ToMain::Report(report), draft).map_err(unsayable)
    }
}

/// What the scheduler of a cluster knows of the others, and what it has for them.
struct Gateway<M> {
    interrupts: InterruptSource,
    ahead: Option<Ahead>,
    /// The number of the grant at hand.
    grant: u64,
    /// How often its run has come by. It does something before it is interrupted.
    passes: u64,
    /// The clusters of agents that are elsewhere, as far as known.
    routes: FxHashMap<AgentId, u32>,
    /// What other clusters listen to; they are its subscribers.
    others: MailingList,
    /// How many agents here subscribed to a pattern.
    listeners: BTreeMap<Pattern, u64>,
    outbound: Outbound,
    interested: Vec<u32>,
    stopped: Option<(u64, StopReason)>,
    /// Mail that could not be encoded, or is not read as it was written.
    failure: Option<Fault>,
    /// Which mail makes a round trip.
    trips: Trips,
    /// So much mail that stays here is still to make one.
    local_trips: u32,
    /// So many deliveries wait to be written down that main is to have them now.
    full: Arc<AtomicBool>,
    message: std::marker::PhantomData<fn(M)>,
}

/// What a scheduler knows of the others under a lookahead.
struct Ahead {
    /// The least time that its mail to other clusters takes.
    lookahead: SimDuration,
    /// How long after mail arrives elsewhere an answer may come, at the earliest.
    others: Option<SimDuration>,
    /// No event at this time or later may happen before main has brought answers.
    limit: Option<SimTime>,
    stops: Vec<(SimTime, u64, StopReason)>,
    removals: Vec<Removal>,
    /// What others will listen to, or no longer, for mail from when on.
    coming: BTreeMap<SimTime, Vec<(u32, Pattern, bool)>>,
    held_back: u64,
    held_back_to_main: u64,
}

impl Ahead {
    fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            others: None,
            limit: None,
            stops: Vec::new(),
            removals: Vec::new(),
            coming: BTreeMap::new(),
            held_back: 0,
            held_back_to_main: 0,
        }
    }

    fn limit_to(&mut self, time: SimTime) {
        self.limit = Some(self.limit.map_or(time, |limit| limit.min(time)));
    }

    /// Something leaves now for main, which has no lookahead of its own. Tells when it arrives.
    fn leave_for_main(&mut self, now: SimTime) -> SimTime {
        let arrives = now.saturating_add(self.lookahead);
        self.limit_to(arrives);
        arrives
    }
}

/// The gateway while mail leaves through it, into the message to main.
struct OpenGateway<'b, 'd, M> {
    gateway: &'b mut Gateway<M>,
    draft: &'b mut Draft<'d>,
}

impl<M: WireMessage> Gateway<M> {
    fn new(interrupts: InterruptSource) -> Self {
        Self {
            interrupts,
            ahead: None,
            grant: 0,
            passes: 0,
            routes: FxHashMap::default(),
            others: MailingList::default(),
            listeners: BTreeMap::new(),
            outbound: Outbound::default(),
            interested: Vec::new(),
            stopped: None,
            failure: None,
            trips: Trips::default(),
            local_trips: LOCAL_TRIPS,
            full: Arc::default(),
            message: std::marker::PhantomData,
        }
    }

    fn writing<'b, 'd>(&'b mut self, draft: &'b mut Draft<'d>) -> OpenGateway<'b, 'd, M> {
        let gateway = self;
        OpenGateway { gateway, draft }
    }

    fn change_interest(&mut self, cluster: u32, pattern: Pattern, begins: bool) {
        if begins {
            self.others.subscribe(cluster, pattern);
        } else {
            self.others.unsubscribe(cluster, pattern);
        }
    }

    /// Under a lookahead: what others listen to, for mail that leaves now.
    #[inline]
    fn catch_up_with_interest(&mut self, now: SimTime) {
        while let Some(ahead) = &mut self.ahead
            && !ahead.coming.is_empty()
            && let Some(coming) = ahead.coming.first_entry()
            && *coming.key() <= now
        {
            for (cluster, pattern, begins) in coming.remove() {
                self.change_interest(cluster, pattern, begins);
            }
        }
    }

    fn take_stops(&mut self, engine: &mut Engine<M>) -> Vec<(SimTime, u64, StopReason)> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.stops);
        }
        let stopped = self.stopped.take().or_else(|| engine.take_stopped());
        let now = engine.now();
        let stopped = stopped.into_iter();
        stopped
            .map(|(index, reason)| (now, index, reason))
            .collect()
    }

    fn take_removals(&mut self, engine: &mut Engine<M>) -> Vec<Removal> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.removals);
        }
        let now = engine.now();
        let removals = engine.take_removals_elsewhere().into_iter();
        let removal = |(id, by, index)| Removal {
            id,
            by,
            index,
            time: now,
        };
        removals.map(removal).collect()
    }

    /// Under a lookahead: if agents here begin to listen where none did, goes no further than others know it. Until then they
    /// think that none of their alarms leaves before it is due.
    fn await_attention(&mut self, engine: &Engine<M>) {
        if self.listeners.is_empty()
            && engine.has_changed_interest()
            && let Some(ahead) = &mut self.ahead
        {
            ahead.leave_for_main(engine.now());
        }
    }

    /// Under a lookahead: notes what main is to hear. True if main must number agents first.
    fn look_around(&mut self, engine: &mut Engine<M>) -> bool {
        let now = engine.now();
        if let Some(ahead) = &mut self.ahead {
            if let Some((index, reason)) = engine.take_stopped() {
                let arrives = ahead.leave_for_main(now);
                ahead.stops.push((arrives, index, reason));
            }
            for (id, by, index) in engine.take_removals_elsewhere() {
                let time = ahead.leave_for_main(now);
                ahead.removals.push(Removal {
                    id,
                    by,
                    index,
                    time,
                });
            }
        }
        engine.has_newborn()
    }

    /// Where mail goes: to main, its owner or the cluster of its receiver, if it is not here; and
    /// into `interested`. Also tells whether any cluster listens to it.
    #[inline]
    fn destinations(&mut self, mail: &Outgoing<'_, M>) -> (Option<Destination>, bool) {
        self.interested.clear();
        let mut to = None;
        if let Some(id) = mail.receiver.agent()
            && mail.receiver_is_elsewhere
        {
            to = Some(match self.routes.get(&id) {
                Some(cluster) => Destination::Cluster(*cluster),
                None if id == AgentId::MAIN => Destination::Main,
                None => Destination::Owner,
            });
        }
        if !self.others.is_empty() && !matches!(mail.receiver, Receiver::Direct(_)) {
            let (receiver, topic) = (mail.receiver.agent(), mail.body.topic());
            let interested = &mut self.interested;
            self.others
                .recipients(mail.sender, receiver, topic, interested);
        }
        (to, !self.interested.is_empty())
    }

    /// Has mail that stays here make a round trip: so a type that is not read as it is written is an error in one cluster, too.
    #[cold]
    fn try_local(&mut self, engine: &mut Engine<M>) {
        let Self {
            failure,
            trips,
            local_trips,
            ..
        } = self;
        let mut bytes = std::mem::take(&mut trips.written);
        engine.waiting(|mail| {
            if *local_trips == 0 {
                return;
            }
            if !cfg!(debug_assertions) {
                *local_trips -= 1;
            }
            bytes.clear();
            // One that cannot be written need not be, as long as it stays here.
            let written = guarded::catch(|| codec::put(mail.body, &mut bytes));
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
            let Err(difference) = round_trip::make(mail.body, &bytes, &mut trips.scratch) else {
                return;
            };
            let what = layout::name(mail.key, mail.sender, mail.receiver, mail.body.topic());
            failure.get_or_insert(match difference {
                Difference::Unreadable(why) => Fault::Decode { what, why },
                Difference::Other(why) => Fault::Asymmetric { what, why },
            });
        });
        trips.written = bytes;
    }

    /// The patterns that the first agent here began, or the last one ceased, to listen to; and
    /// when. Without a lookahead only what came of it counts.
    fn interest(
        &mut self,
        changes: Vec<(Pattern, bool, SimTime)>,
    ) -> Vec<(Pattern, bool, SimTime)> {
        let mut interest: Vec<(Pattern, bool, SimTime)> = Vec::new();
        for (pattern, begins, time) in changes {
            let listeners = self.listeners.entry(pattern).or_default();
            let before = *listeners;
            *listeners = if begins { before + 1 } else { before - 1 };
            if before.min(*listeners) > 0 {
                continue;
            }
            let undone = interest.iter().position(|change| change.0 == pattern);
            match undone.filter(|_| self.ahead.is_none()) {
                Some(place) => drop(interest.remove(place)),
                None => interest.push((pattern, begins, time)),
            }
        }
        self.listeners.retain(|_, listeners| *listeners > 0);
        interest
    }
}

impl<M: WireMessage> OpenGateway<'_, '_, M> {
    /// Hands out the mail that leaves. True if some does.
    fn hand_out(&mut self, engine: &mut Engine<M>) -> bool {
        let mut any = false;
        let now = engine.now();
        self.gateway.catch_up_with_interest(now);
        engine.outgoing(|mail| {
            let (to, is_heard) = self.gateway.destinations(&mail);
            any |= self.hand_to(&mail, to, now, now);
            is_heard
        });
        if self.gateway.local_trips > 0 {
            self.gateway.try_local(engine);
        }
        any
    }

    /// Looks again at the mail that waits: to whom it goes in addition, and whether any cluster
    /// listens to it now.
    fn rematch(&mut self, engine: &mut Engine<M>, begun: &[(u32, Pattern)]) {
        let now = engine.now();
        engine.outgoing(|mail| {
            if matches!(mail.receiver, Receiver::Direct(_)) {
                return false;
            }
            let (receiver, topic) = (mail.receiver.agent(), mail.body.topic());
            let Gateway {
                interested, others, ..
            } = &mut *self.gateway;
            interested.clear();
            others.recipients(mail.sender, receiver, topic, interested);
            let is_heard = !interested.is_empty();
            let matching = begun
                .iter()
                .filter(|(_, pattern)| pattern.matches(mail.sender, receiver, topic));
            let clusters: BTreeSet<_> = matching.map(|(cluster, _)| *cluster).collect();
            interested.clear();
            interested.extend(clusters);
            self.hand_to(&mail, None, now, now);
            is_heard
        });
    }

    /// Encodes mail and hands it to a destination and to the clusters in `interested`. True if
    /// there is any. It leaves at `left`, and is due at `due` if that is not too soon.
    #[inline]
    fn hand_to(
        &mut self,
        mail: &Outgoing<'_, M>,
        to: Option<Destination>,
        left: SimTime,
        due: SimTime,
    ) -> bool {
        let Gateway {
            ahead,
            interested,
            outbound,
            failure,
            trips,
            ..
        } = &mut *self.gateway;
        let mut others = interested.iter();
        let Some(first) = to.or_else(|| others.next().copied().map(Destination::Cluster)) else {
            return false;
        };
        let (mut left, mut arrives) = (left, SimTime::ZERO);
        match ahead {
            None => left = SimTime::ZERO,
            Some(ahead) => {
                arrives = left.saturating_add(ahead.lookahead);
                // What would arrive after the end of time arrives at the end, as if it had left in time.
                left = arrives.saturating_sub(ahead.lookahead);
                let late = u64::from(due < arrives);
                match to {
                    Some(Destination::Main) => {
                        ahead.held_back_to_main += late;
                        // Of what others listen to as well.
                        ahead.held_back += late.min(interested.len() as u64);
                    }
                    _ => ahead.held_back += late,
                }
                if matches!(to, Some(Destination::Main | Destination::Owner)) {
                    ahead.limit_to(arrives);
                } else if let Some(others) = ahead.others {
                    ahead.limit_to(arrives.saturating_add(others));
                }
            }
        }
        let Outgoing {
            key,
            sender,
            receiver,
            body,
            ..
        } = *mail;
        let head = MailHead {
            key,
            sender,
            receiver,
            arrives,
            left,
            is_copy: to.is_none(),
        };
        match outbound.encode(first, &head, body, self.draft) {
            Ok(encoded) => {
                let bytes = outbound.body(encoded, &head, self.draft);
                if trips.wants(bytes)
                    && let Err(Difference::Other(why)) =
                        round_trip::make(body, bytes, &mut trips.scratch)
                {
                    // One that cannot be read is an error where it arrives.
                    let what = layout::name_mail(&head, body.topic());
                    failure.get_or_insert(Fault::Asymmetric { what, why });
                }
                for cluster in others {
                    if first != Destination::Cluster(*cluster) {
                        outbound.copy(encoded, *cluster, arrives, self.draft);
                    }
                }
            }
            Err(why) => {
                let what = layout::name_mail(&head, body.topic());
                let why = layout::reason(body, why);
                failure.get_or_insert(Fault::Encode { what, why });
            }
        }
        true
    }
}

impl<M: WireMessage> EngineHooks<M> for OpenGateway<'_, '_, M> {
    #[inline]
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool {
        if self.gateway.ahead.is_some() {
            self.hand_out(engine);
            return self.gateway.look_around(engine) || self.gateway.failure.is_some();
        }
        self.hand_out(engine) || engine.has_removals_elsewhere()
    }

    #[inline]
    fn after_posting(&mut self, engine: &mut Engine<M>) -> bool {
        self.gateway.passes += 1;
        if self.gateway.ahead.is_some() {
            self.gateway.await_attention(engine);
            return false;
        }
        engine.has_many_to_tell_of()
    }

    #[inline]
    fn wants_attention(&self) -> bool {
        let gateway = &*self.gateway;
        gateway.failure.is_some()
            || gateway.passes > 1 && gateway.interrupts.covers(gateway.grant)
            || gateway.ahead.is_none() && gateway.full.load(Ordering::Relaxed)
    }

    #[inline]
    fn horizon(&self, horizon: Option<SimTime>) -> Option<SimTime> {
        let limit = self.gateway.ahead.as_ref().and_then(|ahead| ahead.limit);
        match (horizon, limit) {
            (Some(horizon), Some(limit)) => Some(horizon.min(limit)),
            (horizon, limit) => horizon.or(limit),
        }
    }

    fn departing(&mut self, engine: &mut Engine<M>, time: SimTime) {
        self.gateway.catch_up_with_interest(time);
        engine.departures(time, |mail, due| {
            let (to, is_heard) = self.gateway.destinations(&mail);
            self.hand_to(&mail, to, time, due) || is_heard
        });
    }
}

/// Ends a child whose link broke. Returns the code to exit with.
fn give_up(side: ChildSide, error: &LinkError) -> i32 {
    side.end_with_main();
    let code = exit_code(error);
    if side.is_process {
        // An agent may have closed its descriptors, so that to close them once more would be a panic instead of this code.
        std::mem::forget(side);
    }
    code
}

/// What a child exits with whose link broke.
fn exit_code(error: &LinkError) -> i32 {
    if matches!(error, LinkError::Disconnected) {
        return EXIT_LIFELINE_LOST;
    }
    // The code cannot say so much.
    error!(target: "maslite", error = %Chain(error), "the link to main broke");
    match error {
        // An agent has closed the descriptors of the link.
        LinkError::Io(error) if is_bad_descriptor(error) => EXIT_LIFELINE_LOST,
        _ => EXIT_PROTOCOL_MISMATCH,
    }
}

fn is_bad_descriptor(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error())
}

fn fault(error: maslite_core::Error) -> Fault {
    Fault::Agent(error)
}

/// What is wrong with mail that was brought.
fn misread<M: WireMessage>(flaw: MailFlaw) -> Fault {
    let (what, why) = match flaw {
        MailFlaw::Head => (
            "mail from another cluster".to_owned(),
            "it is cut".to_owned(),
        ),
        MailFlaw::Body(bad) => (layout::describe_mail::<M>(&bad), bad.why.to_string()),
    };
    Fault::Decode { what, why }
}

fn undecodable(what: &str, why: impl Display) -> Fault {
    let (what, why) = (what.to_owned(), why.to_string());
    Fault::Decode { what, why }
}

fn put<T: serde::Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), Fault> {
    codec::put(value, into).map_err(unsayable)
}

fn unsayable(why: postcard::Error) -> Fault {
    let (what, why) = ("an answer to main".to_owned(), why.to_string());
    Fault::Encode { what, why }
}

/// Writes an answer that is all of the message.
fn write_alone(answer: &ToMain, draft: &mut Draft<'_>) {
    draft.clear();
    if let Err(why) = wire::put_note(answer, draft) {
        // A fault is numbers and strings, which always encode.
        let _ = wire::put_note(&ToMain::Failed(unsayable(why)), draft);
    }
}

/// Sends an answer, or that it is too long for the link.
fn send(link: &mut dyn Transport) -> Result<(), LinkError> {
    let error = match link.send() {
        Err(error @ LinkError::TooLarge { .. }) => error,
        other => return other,
    };
    let fault = Fault::Encode {
        what: "all mail of a superstep that leaves the cluster".to_owned(),
        why: error.to_string(),
    };
    write_alone(&ToMain::Failed(fault), &mut link.draft()?);
    link.send()
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
