//! A scheduler as one cluster of several: does what main grants, and reports.
//!
//! It is the same in a child process and inline: a message comes in, at most one goes out.
//!
//! **Invariant:** whenever it reports, mail that leaves has been handed out, and its own mail of the
//! last superstep is not posted yet. So main can bring in what others sent in the same superstep,
//! and the next grant posts all of it in the kernel's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maslite_core::engine::{Engine, Limits, Outgoing, Rest, Signal, Surroundings};
use maslite_core::{
    AgentId, Mail, MailKey, MailingList, Message, Pattern, Receiver, SimDuration, SimTime,
    StopReason,
};
use rustc_hash::FxHashMap;

use crate::commands;
use crate::death::{EXIT_LIFELINE_LOST, EXIT_PROTOCOL_MISMATCH};
use crate::lookout::Pulse;
use crate::registry::{Crew, Registry, WireMessage};
use crate::shake::{Shake, Shaken};
use crate::spawn::ChildSide;
use crate::transport::{Draft, LinkError, Transport, Wait};
use crate::wire::{
    self, Batch, Call, Destination, Events, Fault, Grant, Loaded, MailHead, News, Report, Settings,
    Task, ToMain, ToProc, TraceLine,
};

/// What a scheduler looks at in every superstep, to learn that its grant is to end.
#[derive(Clone, Debug)]
pub(crate) enum Hold {
    /// Grants up to this number are held.
    UpTo(Arc<AtomicU64>),
    /// All are, while a bit is raised.
    While(Arc<Signal>),
}

impl Hold {
    #[inline]
    fn holds(&self, grant: u64) -> bool {
        match self {
            Self::UpTo(number) => number.load(Ordering::Relaxed) >= grant,
            Self::While(signal) => signal.raised() != 0,
        }
    }
}

/// How many deliveries a cluster that runs on its own keeps for the trace before it reports.
const TRACE_LIMIT: usize = 10_000;

/// The scheduler of one cluster.
pub(crate) struct MpScheduler<M: Message> {
    registry: Arc<Registry<M>>,
    engine: Engine<M>,
    border: Border<M>,
    /// Agents that wait for their insertion indices, as one list per call.
    loaded: Vec<Crew<M>>,
    /// Mail of a grant, before the engine takes it in; kept for its memory.
    arrived: Vec<(MailKey, Mail<M>)>,
    /// The slots of agents that were reported as added and wait for their insertion indices.
    newborn: Vec<u32>,
    trace: Arc<Mutex<Vec<TraceLine>>>,
    /// The lines of the trace as they go into the report at hand.
    lines: Vec<u8>,
    /// How to wait for messages, when that has just been told.
    wait: Option<Wait>,
    /// What this end of the link is shaken with, when that has just been told.
    shake: Option<Shake>,
    /// What others see of it while it works.
    pulse: Arc<Pulse>,
}

impl<M: WireMessage> MpScheduler<M> {
    pub(crate) fn new(registry: Arc<Registry<M>>) -> Self {
        Self {
            registry,
            engine: Engine::new(0),
            border: Border::new(Hold::While(Arc::default())),
            loaded: Vec::new(),
            arrived: Vec::new(),
            newborn: Vec::new(),
            trace: Arc::default(),
            lines: Vec::new(),
            wait: None,
            shake: None,
            pulse: Arc::default(),
        }
    }

    /// The same, held in another way.
    pub(crate) fn held_by(mut self, hold: Hold) -> Self {
        self.border.hold = hold;
        self
    }

    /// The same, showing itself in `pulse`.
    pub(crate) fn shown_in(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = pulse;
        self
    }

    /// Obeys main until it says stop. Returns the code to exit with.
    pub(crate) fn run(self, mut side: ChildSide) -> i32 {
        let hold = Hold::UpTo(Arc::clone(&side.hold));
        let mut this = self.held_by(hold).shown_in(Arc::clone(&side.pulse));
        loop {
            let answer = match side.link.recv() {
                Ok(message) => this.obey(message),
                Err(error) => {
                    if matches!(error, LinkError::Disconnected) {
                        side.clear_up();
                    }
                    return exit_code(&error);
                }
            };
            if let Some(wait) = this.wait.take() {
                side.settle();
                side.link.wait_as(wait);
                if let Some(shake) = this.shake.take() {
                    side.link = Box::new(Shaken::new(side.link, shake));
                }
            }
            let Some(answer) = answer else {
                continue;
            };
            // Whoever has not handed over its answer is not done.
            this.pulse.set_busy(true);
            if let Err(error) = this.send(&mut *side.link, &answer) {
                return exit_code(&error);
            }
            this.pulse.set_busy(false);
            if matches!(answer, ToMain::Bye(_)) {
                return 0;
            }
        }
    }

    /// Sends an answer, or that it is too long for the link.
    fn send(&mut self, link: &mut dyn Transport, answer: &ToMain) -> Result<(), LinkError> {
        let mut draft = link.draft()?;
        self.write(answer, &mut draft);
        let written = draft.done();
        let error = match link.send(written) {
            Err(error @ LinkError::TooLarge { .. }) => error,
            other => return other,
        };
        let fault = Fault::Encode {
            what: "all mail of a superstep that leaves the cluster".to_owned(),
            why: error.to_string(),
        };
        let mut draft = link.draft()?;
        self.write(&ToMain::Failed(fault), &mut draft);
        let written = draft.done();
        link.send(written)
    }

    /// Does what one message says. Tells what to answer, if anything; after a Bye comes nothing more.
    pub(crate) fn obey(&mut self, message: &[u8]) -> Option<ToMain> {
        self.pulse.set_busy(true);
        let answer = self.try_to_obey(message);
        self.pulse.set_busy(false);
        answer.unwrap_or_else(|fault| Some(ToMain::Failed(fault)))
    }

    /// Writes an answer down: the head, and behind a report the mail and the trace that go with it.
    pub(crate) fn write(&mut self, answer: &ToMain, draft: &mut Draft<'_>) {
        if let Err(why) = draft.put(answer) {
            draft.clear();
            let (what, why) = ("an answer to main".to_owned(), why.to_string());
            // A fault is numbers and strings, which always encode.
            let _ = draft.put(&ToMain::Failed(Fault::Encode { what, why }));
        } else if matches!(answer, ToMain::Report(_)) {
            for out in &mut self.border.out {
                draft.extend(&out.bytes);
                out.clear();
            }
            draft.extend(&self.lines);
        }
    }

    fn try_to_obey(&mut self, mut message: &[u8]) -> Result<Option<ToMain>, Fault> {
        let head = wire::take(&mut message).map_err(|why| undecodable("a message of main", why))?;
        Ok(match head {
            ToProc::Settings(settings) => {
                self.settle_in(&settings);
                None
            }
            ToProc::Load(calls) => {
                let calls = calls.into_iter();
                let loaded: Result<_, Fault> = calls.map(|call| self.load(call)).collect();
                Some(ToMain::Loaded(loaded?))
            }
            ToProc::Seat(indices) => {
                self.seat(&indices)?;
                None
            }
            ToProc::Grant(grant) => Some(self.obey_grant(grant, message)?),
            ToProc::Stop => Some(ToMain::Bye(self.engine.teardown().err())),
        })
    }

    fn settle_in(&mut self, settings: &Settings) {
        self.engine = Engine::new(settings.seed);
        self.engine.show_progress(Arc::clone(&self.pulse.progress));
        self.engine.join_neighbours();
        self.wait = Some(settings.wait);
        self.shake = settings.shake;
        if let Some(lookahead) = settings.lookahead {
            self.engine.look_ahead(lookahead);
            self.border.ahead = Some(Ahead::new(lookahead));
        }
        if settings.digest {
            self.engine.keep_digest();
        }
        if settings.trace {
            let (lines, format) = (Arc::clone(&self.trace), self.registry.trace_format());
            let full = Arc::clone(&self.border.full);
            self.engine.observe(Box::new(move |delivery| {
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
        let mut crew = Crew::new();
        let mut loaded = Loaded {
            count: 0,
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
                if let Some(name) = name {
                    let _ = AgentId::named(&name);
                }
                let known = self
                    .registry
                    .kind(&kind)
                    .ok_or_else(|| Fault::UnknownKind {
                        kind: kind.clone(),
                        known: self.registry.kind_names(),
                    })?;
                let agent = (known.decode)(&state)
                    .map_err(|why| undecodable(&format!("agent {id} of type {kind}"), why))?;
                crew.agents.push((id, agent));
            }
            Call::Build { builder, config } => {
                let build = self.registry.builder(&builder).ok_or_else(|| {
                    let (builder, known) = (builder.clone(), self.registry.builder_names());
                    Fault::UnknownBuilder { builder, known }
                })?;
                let what = || format!("the configuration of builder {builder:?}");
                build(&config, &mut crew).map_err(|why| undecodable(&what(), why))?;
                loaded.ids = crew.agents.iter().map(|(id, _)| *id).collect();
                loaded.names = names_of(loaded.ids.iter().copied());
            }
        }
        loaded.count = crew.agents.len() as u64;
        self.loaded.push(crew);
        Ok(loaded)
    }

    fn seat(&mut self, indices: &[u64]) -> Result<(), Fault> {
        for (crew, first) in std::mem::take(&mut self.loaded).into_iter().zip(indices) {
            for ((id, agent), index) in crew.agents.into_iter().zip(*first..) {
                self.engine.add_at(id, index, agent).map_err(fault)?;
            }
        }
        Ok(())
    }

    fn obey_grant(&mut self, grant: Grant, mut batches: &[u8]) -> Result<ToMain, Fault> {
        let Grant {
            number,
            task,
            supersteps_per_instant,
            ..
        } = grant;
        if self.border.ahead.is_none() {
            self.engine.stand_at(grant.time, grant.superstep);
        } else if matches!(task, Task::Setup { .. } | Task::Answer) {
            // Between runs all stand where main stands; within one each has its own time.
            assert!(grant.time >= self.engine.now(), "time never goes backwards");
            self.engine.advance_to(grant.time);
        }
        let mut news = grant.news;
        let request = std::mem::take(&mut news.request);
        let interest = self.learn(news)?;
        for bytes in grant.batches {
            let batch = wire::take_bytes(&mut batches, bytes);
            let mut batch = batch.map_err(|why| undecodable("a batch of mail", why))?;
            while !batch.is_empty() {
                let (head, mail) = wire::take_mail::<M>(&mut batch)
                    .map_err(|why| undecodable("mail from another cluster", why))?;
                if head.arrives > SimTime::ZERO {
                    self.engine.arrive(head.arrives, head.left, head.key, mail);
                } else {
                    self.arrived.push((head.key, mail));
                }
            }
        }
        self.engine.import(self.arrived.drain(..));
        if !matches!(task, Task::Setup { .. } | Task::Match | Task::Answer) {
            self.engine.post();
        }
        let before = self.engine.counters().supersteps;
        let mut reply = Vec::new();
        match task {
            Task::Setup { stop_at_error } => {
                self.engine.stop_at_error(stop_at_error);
                let done = self.engine.setup();
                done.map_err(|error| self.agent_fault(error))?;
            }
            Task::Match => self.border.match_again(&mut self.engine, &interest),
            Task::Post => {}
            Task::Answer => {
                commands::answer(&mut self.engine, &self.registry, &request, &mut reply);
            }
            Task::Fire => self.fire(),
            Task::Step if !self.engine.is_awake() => {}
            Task::Step | Task::Superstep => self.step(supersteps_per_instant)?,
            Task::FireAndStep => {
                self.fire();
                self.engine.post();
                if self.engine.is_awake() {
                    self.step(supersteps_per_instant)?;
                }
            }
            Task::Solo {
                horizon,
                supersteps,
                next_index,
            } => {
                self.engine.number_from(next_index);
                self.border.grant = number;
                self.border.passes = 0;
                let limits = Limits {
                    horizon,
                    supersteps,
                    supersteps_per_instant,
                };
                let rest = self.engine.run(&limits, &mut self.border);
                if let Rest::Asked(reason) = rest.map_err(|error| self.agent_fault(error))? {
                    self.border.paused = Some((0, reason));
                }
            }
            Task::Window { horizon, others } => {
                self.border.grant = number;
                self.border.passes = 0;
                if let Some(ahead) = &mut self.border.ahead {
                    ahead.others = others;
                    ahead.limit = None;
                }
                let limits = Limits {
                    horizon,
                    supersteps: u64::MAX,
                    supersteps_per_instant,
                };
                let rest = self.engine.run(&limits, &mut self.border);
                rest.map_err(|error| self.agent_fault(error))?;
            }
        }
        // A run has handed out all there is; mail looked at again has its own way.
        if !matches!(
            task,
            Task::Match | Task::Answer | Task::Solo { .. } | Task::Window { .. }
        ) {
            self.border.hand_out(&mut self.engine);
        }
        self.border.failure.take().map_or(Ok(()), Err)?;
        self.report(self.engine.counters().supersteps - before, reply)
    }

    fn learn(&mut self, news: News) -> Result<Vec<(u32, Pattern)>, Fault> {
        for name in &news.names {
            let _ = AgentId::named(name);
        }
        self.border.routes.extend(news.routes);
        let mut begun = Vec::new();
        for (cluster, pattern, begins, from) in news.interest {
            if begins {
                self.engine.expect_listeners();
            }
            match &mut self.border.ahead {
                Some(ahead) if from > SimTime::ZERO => {
                    let coming = ahead.coming.entry(from).or_default();
                    coming.push((cluster, pattern, begins));
                }
                _ => {
                    self.border.change_interest(cluster, pattern, begins);
                    if begins {
                        begun.push((cluster, pattern));
                    }
                }
            }
        }
        self.engine.number(&self.newborn, &news.numbers);
        let numbered = news.numbers.len().min(self.newborn.len());
        self.newborn.drain(..numbered);
        for (id, time) in news.dismissed {
            match time {
                // Not at once, although it may have come to that instant already: it leaves with the alarms of the instant.
                Some(time) if self.border.ahead.is_some() => self.engine.remove_at(time, id),
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

    fn step(&mut self, supersteps_per_instant: u64) -> Result<(), Fault> {
        let done = self.engine.step(supersteps_per_instant);
        done.map_err(|error| self.agent_fault(error))
    }

    /// An error of the engine, with the names of agents that main has not heard of.
    fn agent_fault(&mut self, error: maslite_core::Error) -> Fault {
        let newborn = self.engine.take_newborn(&mut Vec::new());
        Fault::Agent {
            error,
            names: names_of(newborn.iter().map(|newborn| newborn.id)),
        }
    }

    fn report(&mut self, supersteps: u64, reply: Vec<u8>) -> Result<ToMain, Fault> {
        let engine = &mut self.engine;
        let border = &mut self.border;
        let newborn = engine.take_newborn(&mut self.newborn);
        self.lines.clear();
        let lines = std::mem::take(&mut *lock(&self.trace));
        border.full.store(false, Ordering::Relaxed);
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
            alarms_may_leave: engine.has_alarms_elsewhere() || !border.others.is_empty(),
            kept_awake: engine.has_kept_awake(),
            events: Events {
                paused: border.take_pauses(engine),
                names: names_of(newborn.iter().map(|newborn| newborn.id)),
                removals: border.take_removals(engine),
                interest: border.interest(engine.take_changed_interest()),
                errors: engine.take_errors(),
                reply,
            },
            newborn,
            counters: engine.counters(),
            held_back: border.ahead.as_ref().map_or(0, |ahead| ahead.held_back),
            local: engine.local(),
            digest: engine.digest(),
            batches: border
                .out
                .iter()
                .filter(|out| out.mails > 0)
                .map(Out::batch)
                .collect(),
            trace: length(&self.lines),
        };
        Ok(ToMain::Report(Box::new(report)))
    }
}

/// What the scheduler of a cluster knows of the others, and what it has for them.
struct Border<M> {
    hold: Hold,
    ahead: Option<Ahead>,
    /// The number of the grant at hand.
    grant: u64,
    /// How often its run has come by. It gets somewhere before it is held.
    passes: u64,
    /// The clusters of agents that are elsewhere, as far as known.
    routes: FxHashMap<AgentId, u32>,
    /// What other clusters listen to; they are its subscribers.
    others: MailingList,
    /// How many agents here subscribed to a pattern.
    listeners: BTreeMap<Pattern, u64>,
    /// For main, for unknown owners, and for each cluster.
    out: Vec<Out>,
    interested: Vec<u32>,
    paused: Option<(u64, StopReason)>,
    /// Mail that could not be encoded.
    failure: Option<Fault>,
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
    pauses: Vec<(SimTime, u64, StopReason)>,
    removals: Vec<(AgentId, AgentId, SimTime)>,
    /// What others will listen to, or no longer, for mail from when on.
    coming: BTreeMap<SimTime, Vec<(u32, Pattern, bool)>>,
    held_back: u64,
}

impl Ahead {
    fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            others: None,
            limit: None,
            pauses: Vec::new(),
            removals: Vec::new(),
            coming: BTreeMap::new(),
            held_back: 0,
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

/// Mail for one destination.
#[derive(Debug)]
struct Out {
    to: Destination,
    mails: u32,
    bytes: Vec<u8>,
    /// When the first of it arrives.
    earliest: SimTime,
}

const TO_MAIN: usize = 0;
const TO_OWNER: usize = 1;
const TO_CLUSTERS: usize = 2;

impl Out {
    fn new(to: Destination) -> Self {
        Self {
            to,
            mails: 0,
            bytes: Vec::new(),
            earliest: SimTime::MAX,
        }
    }

    fn clear(&mut self) {
        self.mails = 0;
        self.bytes.clear();
        self.earliest = SimTime::MAX;
    }

    fn batch(&self) -> Batch {
        let Self {
            to,
            mails,
            earliest,
            ..
        } = *self;
        let bytes = length(&self.bytes);
        Batch {
            to,
            mails,
            bytes,
            earliest,
        }
    }
}

impl<M: WireMessage> Border<M> {
    fn new(hold: Hold) -> Self {
        Self {
            hold,
            ahead: None,
            grant: 0,
            passes: 0,
            routes: FxHashMap::default(),
            others: MailingList::default(),
            listeners: BTreeMap::new(),
            out: vec![Out::new(Destination::Main), Out::new(Destination::Owner)],
            interested: Vec::new(),
            paused: None,
            failure: None,
            full: Arc::default(),
            message: std::marker::PhantomData,
        }
    }

    /// Where in `out` the mail for a destination is.
    fn place_of(&mut self, to: Destination) -> usize {
        let place = match to {
            Destination::Main => TO_MAIN,
            Destination::Owner => TO_OWNER,
            Destination::Cluster(cluster) => TO_CLUSTERS + cluster as usize,
        };
        while self.out.len() <= place {
            let cluster = length(&self.out) - 2;
            self.out.push(Out::new(Destination::Cluster(cluster)));
        }
        place
    }

    /// Hands out the mail that leaves. True if some does.
    fn hand_out(&mut self, engine: &mut Engine<M>) -> bool {
        let mut any = false;
        let now = engine.now();
        self.catch_up_with_interest(now);
        engine.outgoing(|mail| {
            let (to, is_heard) = self.destinations(&mail);
            any |= self.hand_to(&mail, to, now, now);
            is_heard
        });
        any
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

    fn take_pauses(&mut self, engine: &mut Engine<M>) -> Vec<(SimTime, u64, StopReason)> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.pauses);
        }
        let paused = self.paused.take().or_else(|| engine.take_paused());
        let now = engine.now();
        let paused = paused.into_iter();
        paused.map(|(index, reason)| (now, index, reason)).collect()
    }

    fn take_removals(&mut self, engine: &mut Engine<M>) -> Vec<(AgentId, AgentId, SimTime)> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.removals);
        }
        let now = engine.now();
        let removals = engine.take_removals_elsewhere().into_iter();
        removals.map(|(id, by)| (id, by, now)).collect()
    }

    /// Under a lookahead: notes what main is to hear. True if main must number agents first.
    fn look_around(&mut self, engine: &mut Engine<M>) -> bool {
        let now = engine.now();
        if let Some(ahead) = &mut self.ahead {
            if let Some((index, reason)) = engine.take_paused() {
                let arrives = ahead.leave_for_main(now);
                ahead.pauses.push((arrives, index, reason));
            }
            for (id, by) in engine.take_removals_elsewhere() {
                let arrives = ahead.leave_for_main(now);
                ahead.removals.push((id, by, arrives));
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

    /// Looks again at the mail that waits: to whom it goes in addition, and whether any cluster
    /// listens to it now.
    fn match_again(&mut self, engine: &mut Engine<M>, begun: &[(u32, Pattern)]) {
        let now = engine.now();
        engine.outgoing(|mail| {
            if matches!(mail.receiver, Receiver::Direct(_)) {
                return false;
            }
            let (receiver, topic) = (mail.receiver.agent(), mail.body.topic());
            self.interested.clear();
            self.others
                .recipients(mail.sender, receiver, topic, &mut self.interested);
            let is_heard = !self.interested.is_empty();
            let matching = begun
                .iter()
                .filter(|(_, pattern)| pattern.matches(mail.sender, receiver, topic));
            let clusters: BTreeSet<_> = matching.map(|(cluster, _)| *cluster).collect();
            self.interested.clear();
            self.interested.extend(clusters);
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
        if to.is_none() && self.interested.is_empty() {
            return false;
        }
        let (mut left, mut arrives) = (left, SimTime::ZERO);
        match &mut self.ahead {
            None => left = SimTime::ZERO,
            Some(ahead) => {
                arrives = left.saturating_add(ahead.lookahead);
                ahead.held_back += u64::from(due < arrives);
                if matches!(to, Some(Destination::Main | Destination::Owner)) {
                    ahead.limit_to(arrives);
                } else if let Some(others) = ahead.others {
                    ahead.limit_to(arrives.saturating_add(others));
                }
            }
        }
        let interested = std::mem::take(&mut self.interested);
        let first = to.unwrap_or_else(|| Destination::Cluster(interested[0]));
        let place = self.place_of(first);
        let start = self.encode(place, mail, left, arrives);
        for cluster in &interested {
            let other = self.place_of(Destination::Cluster(*cluster));
            if let Ok([from, out]) = self.out.get_disjoint_mut([place, other]) {
                out.bytes.extend_from_slice(&from.bytes[start..]);
                out.count(arrives);
            }
        }
        self.interested = interested;
        true
    }

    /// Encodes mail for a destination. Tells where in its bytes the mail begins.
    fn encode(
        &mut self,
        place: usize,
        mail: &Outgoing<'_, M>,
        left: SimTime,
        arrives: SimTime,
    ) -> usize {
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
        };
        let out = &mut self.out[place];
        out.count(arrives);
        if out.to == Destination::Owner {
            out.bytes.extend([0; 4]);
        }
        let start = out.bytes.len();
        let encoded = wire::put_mail(&head, body, &mut out.bytes);
        if out.to == Destination::Owner {
            let length = length(&out.bytes[start..]).to_le_bytes();
            out.bytes[start - length.len()..start].copy_from_slice(&length);
        }
        if let Err(why) = encoded {
            let what = format!("message {} of agent {sender}", body.topic());
            let why = why.to_string();
            self.failure.get_or_insert(Fault::Encode { what, why });
        }
        start
    }

    /// The patterns that the first agent here began, or the last one ceased, to listen to; and
    /// when. Without a lookahead only what came of it counts.
    fn interest(
        &mut self,
        changes: Vec<(u32, Pattern, bool, SimTime)>,
    ) -> Vec<(Pattern, bool, SimTime)> {
        let mut interest: Vec<(Pattern, bool, SimTime)> = Vec::new();
        for (_, pattern, begins, time) in changes {
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

impl Out {
    fn count(&mut self, arrives: SimTime) {
        self.mails += 1;
        self.earliest = self.earliest.min(arrives);
    }
}

impl<M: WireMessage> Surroundings<M> for Border<M> {
    #[inline]
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool {
        if self.ahead.is_some() {
            self.hand_out(engine);
            return self.look_around(engine);
        }
        self.hand_out(engine) || engine.has_removals_elsewhere()
    }

    #[inline]
    fn after_posting(&mut self, _: &mut Engine<M>) -> bool {
        self.passes += 1;
        false
    }

    #[inline]
    fn wants_attention(&self) -> bool {
        self.passes > 1 && self.hold.holds(self.grant)
            || self.ahead.is_none() && self.full.load(Ordering::Relaxed)
    }

    #[inline]
    fn horizon(&self, horizon: Option<SimTime>) -> Option<SimTime> {
        let limit = self.ahead.as_ref().and_then(|ahead| ahead.limit);
        match (horizon, limit) {
            (Some(horizon), Some(limit)) => Some(horizon.min(limit)),
            (horizon, limit) => horizon.or(limit),
        }
    }

    fn departing(&mut self, engine: &mut Engine<M>, time: SimTime) {
        self.catch_up_with_interest(time);
        engine.departures(time, |mail, due| {
            let (to, is_heard) = self.destinations(&mail);
            self.hand_to(&mail, to, time, due) || is_heard
        });
    }
}

/// What a child exits with whose link broke.
fn exit_code(error: &LinkError) -> i32 {
    match error {
        LinkError::Disconnected => EXIT_LIFELINE_LOST,
        _ => EXIT_PROTOCOL_MISMATCH,
    }
}

fn fault(error: maslite_core::Error) -> Fault {
    let names = Vec::new();
    Fault::Agent { error, names }
}

fn undecodable(what: &str, why: postcard::Error) -> Fault {
    let (what, why) = (what.to_owned(), why.to_string());
    Fault::Decode { what, why }
}

fn put<T: serde::Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), Fault> {
    wire::put(value, into).map_err(|why| Fault::Encode {
        what: "an answer to main".to_owned(),
        why: why.to_string(),
    })
}

/// The length of something that is far shorter than 4 GiB: a link carries no longer messages.
fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The names among some ids, for a process that may not know them.
pub(crate) fn names_of(ids: impl Iterator<Item = AgentId>) -> Vec<String> {
    ids.filter_map(|id| Some(id.name()?.to_string())).collect()
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
