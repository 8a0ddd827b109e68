//! The agents of one scheduler and the loop that runs them, told once and in order.
//!
//! [`Scheduler`](crate::Scheduler) is what most programs use. The engine is for those who put
//! several schedulers under one clock: it can also be driven a superstep at a time, hands out the
//! mail that leaves, and takes in the mail that arrives.

use std::fmt;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{debug, error_span, trace};

pub use crate::adders::Adders;
use crate::agent::{Agent, Birth, Context};
use crate::alarm::PendingAlarm;
use crate::command::CommandError;
use crate::digest::Digest;
pub use crate::digest::{ContentSum, DigestSum};
use crate::directory::NONE;
use crate::directory::Whereabouts;
use crate::error::{Adder, Error, Phase};
pub use crate::error::{FailurePlace, FailureStage};
pub use crate::id_set::IdSet;
use crate::kernel::{Ahead, Content, Kernel, Outside, Turn};
pub use crate::message::Import;
use crate::message::{COPY, Envelope, FOREIGN, LEFT, Mail, MailKey, Message, Receiver, SETTLED};
pub use crate::panics::is_reporting_panic;
#[doc(hidden)]
pub use crate::panics::quietly;
use crate::panics::{self, Panic};
use crate::progress::Progress;
use crate::run::{AgentError, Counters, LostKey, LostMail, StopReason};
pub use crate::signal::{Signal, TimeoutTimer};
use crate::trace::Observer;
use crate::{AgentId, AlarmFilter, Pattern, SimDuration, SimTime, Topic};

/// So many agents that came or went are not kept for neighbours without their being told.
const MANY: usize = 10_000;

/// How far an engine may run on its own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Alarms at this time or later are not fired. Mail of the present instant is delivered all
    /// the same.
    pub horizon: Option<SimTime>,
    /// At most so many supersteps.
    pub supersteps: u64,
    /// No instant may have more supersteps than this.
    pub supersteps_per_instant: u64,
}

/// Why an engine came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// No mail and no alarm is left.
    Idle,
    /// No mail is left, and the next alarm is at the horizon or beyond it.
    Horizon,
    /// As many supersteps as allowed.
    Supersteps,
    /// An agent asked for it.
    Asked(StopReason),
    /// Something was said from outside.
    Attention,
    /// Those around it have something to do first.
    HookAsked,
}

/// What lies around an engine: main, and other clusters if there are any.
pub trait EngineHooks<M: Message> {
    /// Looks at mail about to be posted, and at what else agents did that others must know of;
    /// called if there may be any. True if the engine is to rest instead of posting it.
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool;

    /// Looks at what was posted. True if the engine is to rest now.
    fn after_posting(&mut self, engine: &mut Engine<M>) -> bool;

    /// Whether somebody asks for the engine to rest. Looked at in every superstep.
    fn wants_attention(&self) -> bool;

    /// How far the engine may go now, if it was told `horizon` at first.
    #[inline]
    fn horizon(&self, horizon: Option<SimTime>) -> Option<SimTime> {
        horizon
    }

    /// Under a lookahead: looks at what leaves at `time`.
    fn departing(&mut self, engine: &mut Engine<M>, time: SimTime) {
        let _ = (engine, time);
    }
}

/// Mail of this engine that waits to be posted.
#[derive(Debug)]
pub struct Outgoing<'a, M> {
    /// Its place in the kernel's order.
    pub key: MailKey,
    /// Who sent it.
    pub sender: AgentId,
    /// Whom it is addressed to.
    pub receiver: Receiver,
    /// The message.
    pub body: &'a M,
    /// The receiver is an agent that this engine has never heard of.
    pub receiver_is_elsewhere: bool,
}

impl<M> From<(MailKey, Mail<M>)> for Import<M> {
    fn from((key, mail): (MailKey, Mail<M>)) -> Self {
        let is_copy = false;
        Self { key, mail, is_copy }
    }
}

impl<M> Import<M> {
    #[inline]
    pub(crate) fn into_envelope(self) -> Envelope<M> {
        let Mail {
            sender,
            receiver,
            body,
        } = self.mail;
        let mut envelope = Envelope::new(self.key, sender, receiver, body);
        envelope.mark(FOREIGN | if self.is_copy { COPY } else { 0 });
        envelope
    }
}

/// A new agent, as other engines need to know of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Newborn {
    /// Its id.
    pub id: AgentId,
    /// The insertion index of the agent that added it.
    pub adder: u64,
    /// The agent that added it.
    pub by: AgentId,
    /// When.
    pub time: SimTime,
    /// The superstep within that instant.
    pub superstep: u64,
}

/// The agents of one scheduler and all the scheduler knows.
pub struct Engine<M: Message> {
    agents: Vec<Option<Box<dyn Agent<M>>>>,
    pub(crate) kernel: Kernel<M>,
    /// Slots awake in this superstep.
    updating: Vec<u32>,
    /// Agents before this slot have been set up, or will be in their first turn.
    set_up: usize,
    next_index: u64,
    /// Agents added by agents since somebody last asked, with their slots; kept for neighbours.
    newborn: Vec<(u32, Newborn)>,
    /// Agents that agents added in the superstep at hand, in order.
    births: Vec<Birth<M>>,
    /// Where the last failure was.
    failed_at: Option<FailurePlace>,
    /// The slots of agents that were told of and wait for their insertion indices.
    unnumbered: Vec<u32>,
}

impl<M: Message> Engine<M> {
    /// An engine without agents.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut kernel = Kernel::new(seed);
        kernel.is_guarded = true;
        Self {
            agents: Vec::new(),
            kernel,
            updating: Vec::new(),
            set_up: 0,
            next_index: 0,
            newborn: Vec::new(),
            births: Vec::new(),
            failed_at: None,
            unnumbered: Vec::new(),
        }
    }

    /// Sums up a digest of all deliveries from now on.
    pub fn keep_digest(&mut self) {
        self.kernel.digest.get_or_insert_default();
    }

    /// Shows every delivery to `observer` from now on.
    pub fn observe(&mut self, observer: Observer<M>) {
        self.kernel.observer = Some(observer);
    }

    /// The same, where the observer is part of the model: its panic is an error of the model, not the owner's.
    pub fn observe_for_model(&mut self, observer: Observer<M>) {
        self.observe(observer);
        self.kernel.observed_by = Outside::TraceFormat;
    }

    /// Calls something of the owner of the simulation; a panic in it goes on to the owner.
    pub(crate) fn call_owner<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.kernel.outside = Outside::Owner;
        let result = what(self);
        self.kernel.outside = Outside::Nobody;
        result
    }

    /// Shows how far it has come in `progress`, from now on.
    pub fn show_progress(&mut self, progress: Arc<Progress>) {
        progress.allocate_slots(self.kernel.slots.iter().map(|slot| slot.id));
        self.kernel.progress = progress;
    }

    /// Adds an agent from outside, with the next insertion index.
    ///
    /// # Errors
    /// [`Error::DuplicateAgent`] and [`Error::BadId`].
    pub fn add(&mut self, id: AgentId, agent: Box<dyn Agent<M>>) -> Result<(), Error> {
        self.add_at(id, self.next_index, agent)
    }

    /// Adds an agent from outside, with an insertion index larger than all before.
    ///
    /// # Errors
    /// [`Error::DuplicateAgent`] and [`Error::BadId`].
    pub fn add_at(
        &mut self,
        id: AgentId,
        index: u64,
        agent: Box<dyn Agent<M>>,
    ) -> Result<(), Error> {
        self.kernel.check_new(id, Adder::Owner)?;
        self.close_up();
        self.next_index = index + 1;
        self.kernel.allocate_slot(id, index);
        self.agents.push(Some(agent));
        self.kernel.counters.agents += 1;
        Ok(())
    }

    /// Removes an agent from outside; it leaves as if it had asked for it itself. False if there
    /// is none with this id.
    pub fn remove(&mut self, id: AgentId) -> bool {
        let slot = self.slot(id);
        if let Some(slot) = slot {
            self.kernel.dismiss(slot);
        }
        slot.is_some()
    }

    /// Whether an agent with this id is or was here.
    #[must_use]
    pub fn had(&self, id: AgentId) -> bool {
        self.kernel.directory.find(id) != Whereabouts::Unknown
    }

    /// The agent with this id.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&dyn Agent<M>> {
        self.agents[self.slot(id)? as usize].as_deref()
    }

    /// The agents, in insertion order.
    pub fn agents(&self) -> impl Iterator<Item = (AgentId, &dyn Agent<M>)> + '_ {
        let occupied = self.kernel.slots.iter().zip(&self.agents);
        occupied.filter_map(|(slot, agent)| Some((slot.id, agent.as_deref()?)))
    }

    /// The insertion index of an agent that is here.
    #[must_use]
    pub fn index(&self, id: AgentId) -> Option<u64> {
        Some(self.kernel.slots[self.slot(id)? as usize].index)
    }

    fn slot(&self, id: AgentId) -> Option<u32> {
        if id.collision().is_some() {
            return None;
        }
        match self.kernel.directory.find(id) {
            Whereabouts::Here(slot) => Some(slot),
            Whereabouts::Removed | Whereabouts::Unknown => None,
        }
    }

    fn occupied(&mut self, id: AgentId) -> Result<&mut Box<dyn Agent<M>>, CommandError> {
        let slot = self.slot(id);
        let agent = slot.and_then(|slot| self.agents[slot as usize].as_mut());
        agent.ok_or(CommandError::UnknownAgent(id))
    }

    // ---- commands, between two supersteps

    /// Has an agent answer a command.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::Refused`], [`CommandError::Panicked`].
    pub fn command(&mut self, id: AgentId, request: M) -> Result<M, CommandError> {
        let agent = self.occupied(id)?;
        // Whoever asked is told that it lives on half changed.
        match panics::catch(|| agent.command(request)) {
            Ok(answer) => answer.map_err(|refusal| CommandError::Refused { agent: id, refusal }),
            Err(panic) => Err(panicked_over_command(id, &panic)),
        }
    }

    /// Makes sure that an agent is here and of this type.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::WrongType`].
    pub fn check_type<A: Agent<M>>(&self, id: AgentId) -> Result<(), CommandError> {
        let agent = self.agent(id).ok_or(CommandError::UnknownAgent(id))?;
        let any: &dyn std::any::Any = agent;
        if any.is::<A>() {
            return Ok(());
        }
        Err(CommandError::WrongType {
            agent: id,
            asked: std::any::type_name::<A>().to_owned(),
            found: agent.type_name().to_owned(),
        })
    }

    /// Puts an agent in the place of another, with its inbox, subscriptions, alarms and random
    /// numbers. The other is dropped and not torn down; nor is the new one set up, if the other was.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`]; [`CommandError::Panicked`] if the other panicked when it was
    /// dropped: it is replaced all the same.
    pub fn replace(&mut self, id: AgentId, agent: Box<dyn Agent<M>>) -> Result<(), CommandError> {
        let other = std::mem::replace(self.occupied(id)?, agent);
        discard(id, other)
    }

    /// Takes an agent out, as it is: it is not torn down. Otherwise it is as if it had been removed.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`].
    pub fn take_out(&mut self, id: AgentId) -> Result<Box<dyn Agent<M>>, CommandError> {
        let unknown = CommandError::UnknownAgent(id);
        let slot = self.slot(id).ok_or(unknown.clone())?;
        let agent = self.agents[slot as usize].take().ok_or(unknown)?;
        self.kernel.evict(slot);
        self.kernel.counters.agents -= 1;
        Ok(agent)
    }

    /// Calls `setup` of every agent added from outside since the last time, in insertion order.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn setup(&mut self) -> Result<(), Error> {
        let first = std::mem::replace(&mut self.set_up, self.agents.len());
        let at_the_start = self.kernel.counters.supersteps == 0;
        self.guarded(|engine| {
            engine.kernel.is_starting(at_the_start);
            for place in first..engine.agents.len() {
                let slot = crate::narrow(place);
                // Agents that agents added are set up in their first turn, whatever run that is in.
                let born = engine.kernel.adders.is_born(engine.kernel.slots[place].id);
                if !born && engine.kernel.begin_setup(slot) {
                    engine.call(slot, Phase::Setup);
                }
            }
            engine.kernel.is_starting(false);
            engine.settle(engine.kernel.superstep);
        })
    }

    /// Puts mail from outside before all that waits to be posted.
    pub fn queue_first(&mut self, mails: impl IntoIterator<Item = Mail<M>>) {
        let sent_at = self.kernel.now;
        let envelopes = mails.into_iter().zip(0..).map(|(mail, sequence)| {
            let key = MailKey::of_owner(sent_at, sequence);
            Envelope::new(key, mail.sender, mail.receiver, mail.body)
        });
        self.kernel.outbox.splice(0..0, envelopes);
        self.kernel.unseen = true;
        self.kernel.check_names(self.kernel.superstep);
    }

    /// Runs superstep by superstep and instant by instant until something ends it.
    ///
    /// # Errors
    /// [`Error::AgentPanicked`], [`Error::EndlessExchange`], [`Error::DuplicateAgent`],
    /// [`Error::BadId`], [`Error::RemovedUnknown`], [`Error::TimeOverflow`].
    pub fn run(&mut self, limits: &Limits, hooks: &mut impl EngineHooks<M>) -> Result<Rest, Error> {
        self.guarded(|engine| engine.run_unguarded(limits, hooks))?
    }

    fn run_unguarded(
        &mut self,
        limits: &Limits,
        hooks: &mut impl EngineHooks<M>,
    ) -> Result<Rest, Error> {
        let mut supersteps = limits.supersteps;
        if self.kernel.failure.is_some() {
            // Mail from outside is for whom it cannot be for.
            return Ok(Rest::HookAsked);
        }
        loop {
            if std::mem::take(&mut self.kernel.unseen) && hooks.before_posting(self) {
                return Ok(Rest::HookAsked);
            }
            self.kernel.post();
            let called = hooks.after_posting(self);
            if let Some((_, reason)) = self.kernel.stopped_by {
                self.kernel.stopped_by = None;
                return Ok(Rest::Asked(reason));
            }
            if called {
                return Ok(Rest::HookAsked);
            }
            if hooks.wants_attention() {
                return Ok(Rest::Attention);
            }
            if self.is_awake() {
                if supersteps == 0 {
                    return Ok(Rest::Supersteps);
                }
                if self.kernel.superstep >= limits.supersteps_per_instant {
                    return Err(self.endless(limits.supersteps_per_instant));
                }
                supersteps -= 1;
                self.update_awake();
                if self.kernel.failure.is_some() {
                    // Whoever guards this run takes it from there.
                    return Ok(Rest::HookAsked);
                }
                continue;
            }
            let Some(time) = self.kernel.next_event() else {
                return Ok(Rest::Idle);
            };
            let horizon = hooks.horizon(limits.horizon);
            if horizon.is_some_and(|horizon| time >= horizon) {
                return Ok(Rest::Horizon);
            }
            if supersteps == 0 {
                return Ok(Rest::Supersteps);
            }
            if self.kernel.ahead.is_some() && self.departs_at(time) {
                hooks.departing(self, time);
                continue;
            }
            assert!(time >= self.kernel.now, "time never goes backwards");
            self.advance_to(time);
            self.kernel.fire(time);
            if AgentId::collisions_are_known() && !self.kernel.check_names(self.kernel.superstep) {
                return Ok(Rest::HookAsked);
            }
        }
    }

    /// One superstep: updates the awake agents in insertion order. Their mail is not posted yet.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn step(&mut self, supersteps_per_instant: u64) -> Result<(), Error> {
        if self.kernel.superstep >= supersteps_per_instant {
            return Err(self.endless(supersteps_per_instant));
        }
        if let Some(error) = self.take_failure() {
            return Err(error);
        }
        self.guarded(Self::update_awake)
    }

    /// Puts the alarms due at `time`, the time of the next alarm, into the outbox.
    ///
    /// # Panics
    /// If the engine has not reached that time.
    pub fn fire(&mut self, time: SimTime) {
        assert!(time <= self.kernel.now, "no alarm fires before its time");
        self.kernel.fire(time);
        self.kernel.check_names(self.kernel.superstep);
    }

    /// One superstep: updates the awake agents in insertion order. Their mail is not posted yet.
    fn update_awake(&mut self) {
        self.kernel.take_awake(&mut self.updating);
        trace!(
            target: "maslite",
            sim_time = %self.kernel.now,
            superstep = self.kernel.superstep,
            awake = self.updating.len(),
            "superstep"
        );
        let mut turn = 0;
        while let Some(&slot) = self.updating.get(turn) {
            turn += 1;
            match self.kernel.begin_turn(slot) {
                Turn::Update => self.call(slot, Phase::Update),
                Turn::Other { setup, teardown } => {
                    if setup {
                        self.call(slot, Phase::Setup);
                    }
                    if teardown {
                        self.call(slot, Phase::Teardown);
                        self.kernel.free_slot(slot);
                        self.release(slot);
                        self.kernel.counters.agents -= 1;
                        continue;
                    }
                    self.call(slot, Phase::Update);
                }
            }
            if self.kernel.has_mail(slot) {
                self.kernel.keep_unread(slot);
            }
        }
        let superstep = self.kernel.superstep;
        self.kernel.superstep += 1;
        self.kernel.counters.supersteps += 1;
        self.settle(superstep);
    }

    #[inline]
    fn call(&mut self, slot: u32, phase: Phase) {
        let agent = self.agents[slot as usize]
            .as_mut()
            .expect("an agent with a slot is there");
        let superstep = self.kernel.superstep;
        self.kernel.progress.begin_call(superstep, slot, phase);
        let mut context = Context::new(&mut self.kernel, &mut self.births, slot);
        if LevelFilter::current() != LevelFilter::OFF {
            return call_in_span(agent.as_mut(), &mut context, phase);
        }
        match phase {
            Phase::Update => agent.update(&mut context),
            Phase::Setup => agent.setup(&mut context),
            Phase::Teardown | Phase::Drop => agent.teardown(&mut context),
        }
    }

    /// Drops an agent, which may panic in it.
    fn release(&mut self, slot: u32) {
        if let Some(agent) = self.agents[slot as usize].take() {
            let superstep = self.kernel.superstep;
            let progress = &self.kernel.progress;
            progress.begin_call(superstep, slot, Phase::Drop);
            drop(agent);
        }
    }

    /// Allocates slots for the agents that were added in a superstep and dismisses those that are to leave.
    #[inline]
    fn settle(&mut self, superstep: u64) {
        // A panic from here on, of main's handler for one, is no agent's.
        let last = self.updating.last().copied().unwrap_or(NONE);
        self.kernel.progress.rest_at(self.kernel.superstep, last);
        if !self.births.is_empty() {
            self.allocate_newborn(superstep);
        }
        if !self.kernel.removals.is_empty() {
            self.dismiss_removed(superstep);
        }
        self.kernel.check_names(superstep);
    }

    #[cold]
    fn allocate_newborn(&mut self, superstep: u64) {
        self.close_up();
        let time = self.kernel.now;
        for (sequence, birth) in (0..).zip(std::mem::take(&mut self.births)) {
            if let Err(error) = self.kernel.check_new(birth.id, birth.adder(time)) {
                let stage = FailureStage::Birth;
                let place = self.kernel.place(superstep, stage, birth.adder, sequence);
                self.kernel.fail(place, error);
                return;
            }
            debug!(target: "maslite", sim_time = %time, agent = %birth.id, by = %birth.by, "agent added");
            self.kernel.adders.insert(birth.id, birth.adder(time));
            let slot = self.kernel.allocate_slot(birth.id, self.next_index);
            self.next_index += 1;
            if self.kernel.has_neighbours {
                let (id, adder, by) = (birth.id, birth.adder, birth.by);
                let newborn = Newborn {
                    id,
                    adder,
                    by,
                    time,
                    superstep,
                };
                self.newborn.push((slot, newborn));
                self.kernel.unseen = true;
            }
            self.agents.push(Some(birth.agent));
            self.kernel.counters.agents += 1;
        }
    }

    /// Numbers the slots anew if those of many agents that are gone lie between them. Slots grow in number only by births, so
    /// nothing else has to look.
    fn close_up(&mut self) {
        if !self.kernel.has_many_vacant_slots() {
            return;
        }
        let renumbered = self.kernel.close_up();
        let number = |slot: &mut u32| {
            *slot = renumbered.get(*slot as usize).copied().unwrap_or(NONE);
        };
        let mut place = 0..;
        self.agents.retain(|_| {
            let place = place.next().and_then(|place: usize| renumbered.get(place));
            place.is_some_and(|slot| *slot != NONE)
        });
        let set_up = renumbered.iter().take(self.set_up);
        self.set_up = set_up.filter(|slot| **slot != NONE).count();
        self.updating.iter_mut().for_each(number);
        self.unnumbered.iter_mut().for_each(number);
        self.newborn.iter_mut().for_each(|(slot, _)| number(slot));
        let last = self.updating.last().copied().unwrap_or(NONE);
        self.kernel.progress.rest_at(self.kernel.superstep, last);
    }

    #[cold]
    fn dismiss_removed(&mut self, superstep: u64) {
        let removals = std::mem::take(&mut self.kernel.removals);
        for (sequence, (id, by, index)) in (0..).zip(removals) {
            debug!(target: "maslite", sim_time = %self.kernel.now, agent = %id, %by, "agent removed");
            self.kernel.check_name(id, superstep);
            match self.kernel.directory.find(id) {
                Whereabouts::Here(slot) => self.kernel.dismiss(slot),
                Whereabouts::Removed => {}
                Whereabouts::Unknown if self.kernel.has_neighbours => {
                    self.kernel.removals.push((id, by, index));
                    self.kernel.unseen = true;
                }
                Whereabouts::Unknown => {
                    let time = self.kernel.now;
                    let stage = FailureStage::Removal;
                    let place = self.kernel.place(superstep, stage, index, sequence);
                    self.kernel
                        .fail(place, Error::RemovedUnknown { id, by, time });
                }
            }
        }
    }

    /// Runs something that calls agents; a panic of one becomes an error that names it.
    fn guarded<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> Result<T, Error> {
        match panics::catch(|| what(self)) {
            Ok(result) => self.take_failure().map_or(Ok(result), Err),
            Err(panic) => {
                // What unwinds may be the failure of the kernel that is noted already.
                if let Some(error) = self.take_failure() {
                    return Err(error);
                }
                let outside = std::mem::take(&mut self.kernel.outside);
                let at_work = self.kernel.progress.at_work();
                match (outside, at_work) {
                    (Outside::Owner, _) => panic.go_on(),
                    (Outside::TraceFormat, _) => {
                        Err(self.model_panicked("the format of the trace", panic))
                    }
                    (Outside::Nobody, Some((slot, phase))) => {
                        Err(self.panicked(slot, phase, panic))
                    }
                    (Outside::Nobody, None) => Err(self.model_panicked(OF_MESSAGES, panic)),
                }
            }
        }
    }

    fn take_failure(&mut self) -> Option<Error> {
        let (place, error) = self.kernel.failure.take()?;
        self.failed_at = Some(place);
        Some(error)
    }

    /// Where the last error of a run was.
    #[must_use]
    pub fn failed_at(&self) -> Option<FailurePlace> {
        self.failed_at
    }

    fn model_panicked(&mut self, what: &str, panic: Panic) -> Error {
        let superstep = self.kernel.superstep;
        let place = match self.kernel.progress.at_work() {
            Some((slot, _)) => {
                let index = self.kernel.slots[slot as usize].index;
                self.kernel.place(superstep, FailureStage::Update, index, 0)
            }
            None => self.kernel.place(superstep, FailureStage::Start, 0, 0),
        };
        self.failed_at = Some(place);
        of_model(what, self.kernel.now, superstep, panic)
    }

    fn panicked(&mut self, slot: u32, phase: Phase, mut panic: Panic) -> Error {
        let (superstep, index) = (
            self.kernel.superstep,
            self.kernel.slots[slot as usize].index,
        );
        let stage = FailureStage::Update;
        self.failed_at = Some(self.kernel.place(superstep, stage, index, 0));
        Error::AgentPanicked {
            agent: self.kernel.slots[slot as usize].id,
            phase,
            time: self.kernel.now,
            superstep: self.kernel.superstep,
            message: panic.message().to_owned(),
            place: panic.place.take(),
            backtrace: panic.backtrace.take(),
        }
    }

    /// The first agents that would take part in a superstep now, by insertion index, each with it.
    #[must_use]
    pub fn first_awake(&self) -> Vec<(u64, AgentId)> {
        let slots = &self.kernel.slots;
        let mut awake: Vec<u32> = self.kernel.taking_part().collect();
        awake.sort_unstable();
        let named = awake.iter().take(Error::AWAKE_NAMED);
        let named = named.map(|slot| &slots[*slot as usize]);
        named.map(|slot| (slot.index, slot.id)).collect()
    }

    fn endless(&mut self, limit: u64) -> Error {
        let superstep = self.kernel.superstep;
        self.failed_at = Some(self.kernel.place(superstep, FailureStage::Start, 0, 0));
        let agents = self.first_awake().into_iter();
        Error::EndlessExchange {
            time: self.kernel.now,
            limit,
            agents: agents.map(|(_, id)| id).collect(),
        }
    }

    /// Calls `teardown` of every agent that was set up and is still there, in insertion order, and
    /// then drops all. What they send goes nowhere. Goes on after a panic, and tells of the first.
    ///
    /// # Errors
    /// [`Error::AgentPanicked`].
    pub fn teardown(&mut self) -> Result<(), Error> {
        let mut first = Ok(());
        for place in 0..self.agents.len() {
            let slot = crate::narrow(place);
            if self.kernel.was_set_up(slot) && !self.kernel.is_gone(slot) {
                let result = self.guarded(|engine| engine.call(slot, Phase::Teardown));
                first = first.and(result);
            }
        }
        first = first.and(self.release_all());
        self.kernel.progress.rest_at(self.kernel.superstep, NONE);
        self.set_up = 0;
        first
    }

    /// Drops all agents. Goes on after a panic, and tells of the first.
    fn release_all(&mut self) -> Result<(), Error> {
        let mut first = Ok(());
        for place in 0..self.agents.len() {
            let slot = crate::narrow(place);
            first = first.and(self.guarded(|engine| engine.release(slot)));
        }
        self.agents.clear();
        first.and(self.release_mail())
    }

    /// Drops all mail and alarms. Goes on after a panic of a message, and tells of the first.
    fn release_mail(&mut self) -> Result<(), Error> {
        if !std::mem::needs_drop::<M>() {
            return Ok(());
        }
        // No agent is to blame.
        self.kernel.progress.rest_at(self.kernel.superstep, NONE);
        let mut first = Ok(());
        while let Err(error) = self.guarded(|engine| engine.kernel.release_mail()) {
            first = first.and(Err(error));
        }
        first
    }

    // ---- the state between two supersteps

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.kernel.now
    }

    /// The superstep within the instant that comes next.
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.kernel.superstep
    }

    /// Moves the clock; to a later instant, or not at all.
    pub fn advance_to(&mut self, time: SimTime) {
        if time > self.kernel.now {
            self.kernel.now = time;
            self.kernel.superstep = 0;
            let progress = &self.kernel.progress;
            progress.stand_at(time, 0);
            progress.count(self.kernel.counters.delivered, self.updating.len() as u64);
        }
    }

    /// How many agents were awake in the last superstep.
    #[must_use]
    pub fn awake_last(&self) -> usize {
        self.updating.len()
    }

    /// Whether some agent is to be updated in this instant.
    #[must_use]
    #[inline]
    pub fn is_awake(&self) -> bool {
        !self.kernel.awake.is_empty()
    }

    /// The time of the next alarm.
    pub fn next_alarm(&mut self) -> Option<SimTime> {
        self.kernel.alarms.next_time()
    }

    /// Whether an alarm waits that a real-time run must wait for.
    #[must_use]
    pub fn has_required_alarms(&self) -> bool {
        self.kernel.alarms.required() > 0
    }

    /// The pending alarms that the filter names, in the order they will fire.
    pub fn alarms(&mut self, filter: AlarmFilter) -> Vec<PendingAlarm> {
        self.kernel.list_alarms(None, filter)
    }

    /// Clears the alarms that the filter names, whoever set them; tells how many they were.
    pub fn clear_alarms(&mut self, filter: AlarmFilter) -> usize {
        self.kernel.clear_alarms(None, filter)
    }

    /// Who subscribed to exactly this pattern, in insertion order.
    pub fn subscribers(&mut self, pattern: Pattern) -> Vec<AgentId> {
        let slots = self.kernel.mailing_list.subscribers(pattern);
        slots
            .iter()
            .map(|slot| self.kernel.slots[*slot as usize].id)
            .collect()
    }

    /// What an agent listens to.
    #[must_use]
    pub fn subscriptions(&self, id: AgentId) -> Vec<Pattern> {
        match self.kernel.directory.find(id) {
            Whereabouts::Here(slot) => self.kernel.mailing_list.subscriptions(slot).collect(),
            _ => Vec::new(),
        }
    }

    /// What was counted since the simulation began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.kernel.counters;
        counters.queued = self.kernel.queued();
        counters.alarms_pending = self.kernel.alarms.len() as u64;
        counters
    }

    /// Sums up a digest of the contents of all deliveries from now on, and one without them.
    pub fn keep_content_digest(&mut self)
    where
        M: serde::Serialize,
    {
        self.keep_digest();
        self.kernel.content.get_or_insert_with(|| Content {
            sum: ContentSum::default(),
            add: ContentSum::add,
        });
    }

    /// The digest of the contents so far, if one is kept.
    #[must_use]
    pub fn content_digest(&self) -> Option<Digest> {
        let content = self.kernel.content.as_ref();
        content.map(|content| content.sum.value())
    }

    /// The digest so far, if one is kept.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.kernel.digest.as_ref().map(DigestSum::value)
    }

    // ---- main

    /// Whether mail to main waits to be handled.
    #[must_use]
    #[inline]
    pub fn main_has_mail(&self) -> bool {
        self.kernel.main_has_mail()
    }

    /// Sets whether anybody handles mail to main; without, it is undeliverable.
    pub fn main_listens(&mut self, listens: bool) {
        self.kernel.main_listens = listens;
    }

    /// Takes the mail addressed to main, in order, each with the time at which it was sent.
    pub fn take_main_mail(&mut self) -> Vec<(SimTime, Mail<M>)> {
        self.kernel.take_main_mail()
    }

    /// Sends mail of main, posted with what is posted next.
    pub fn send_from_main(&mut self, receiver: Receiver, body: M) {
        self.kernel.send_from_main(receiver, body);
    }

    /// Posts what waits in the outbox.
    pub fn post(&mut self) {
        self.kernel.post();
    }

    // ---- neighbours: other engines under the same clock

    /// Makes this engine one of several. From now on mail for unknown receivers is for others,
    /// and what others must know of is kept until it is asked for.
    pub fn join_neighbours(&mut self) {
        self.kernel.has_neighbours = true;
        self.kernel.changed_interest.get_or_insert_default();
    }

    /// Sets where the simulation stands: the instant, and the superstep in it that comes next.
    ///
    /// # Panics
    /// If the engine has passed that time, or would pass an alarm: whoever grants time has broken
    /// its promise.
    pub fn stand_at(&mut self, time: SimTime, superstep: u64) {
        assert!(time >= self.kernel.now, "time never goes backwards");
        assert!(
            time == self.kernel.now || self.kernel.next_event().is_none_or(|event| event >= time),
            "time never passes an alarm"
        );
        let moves = (time, superstep) != (self.kernel.now, self.kernel.superstep);
        if moves && !self.kernel.outbox.is_empty() && !self.has_mail_for_itself() {
            // Nobody here gets it, or the superstep that comes next would be this engine's too. It is lost when it was sent.
            self.kernel.post();
        }
        self.kernel.now = time;
        self.kernel.superstep = superstep;
        let progress = &self.kernel.progress;
        progress.stand_at(time, superstep);
        progress.count(self.kernel.counters.delivered, self.updating.len() as u64);
    }

    /// Shows `visit` the mail that waits to be posted and may be for others, in order. It answers
    /// whether agents of other engines listen to it, so that a broadcast that nobody hears here is
    /// not unheard.
    pub fn outgoing(&mut self, mut visit: impl FnMut(Outgoing<'_, M>) -> bool) {
        let Kernel {
            outbox,
            directory,
            slots,
            others_listen,
            ..
        } = &mut self.kernel;
        for envelope in outbox {
            if envelope.is(FOREIGN | SETTLED) {
                continue;
            }
            let mut receiver_is_elsewhere = false;
            if let Some(id) = envelope.receiver().agent() {
                match envelope.slot() {
                    NONE => match directory.find(id) {
                        Whereabouts::Here(slot) => envelope.set_slot(slot),
                        Whereabouts::Removed => {}
                        Whereabouts::Unknown => receiver_is_elsewhere = true,
                    },
                    // It was removed since an alarm was set for it.
                    slot if slots[slot as usize].is_gone() => envelope.set_slot(NONE),
                    _ => {}
                }
            }
            let Some(body) = &envelope.body else {
                continue;
            };
            if !receiver_is_elsewhere && !*others_listen {
                continue;
            }
            let left = visit(Outgoing {
                key: envelope.key,
                sender: envelope.sender,
                receiver: envelope.receiver(),
                body,
                receiver_is_elsewhere,
            });
            envelope.mark_if(LEFT, left);
        }
    }

    /// Shows `visit` the mail of agents here that waits to be posted and that agents here may get. [`outgoing`](Self::outgoing)
    /// comes before it.
    pub fn waiting(&self, mut visit: impl FnMut(Outgoing<'_, M>)) {
        for envelope in &self.kernel.outbox {
            let receiver = envelope.receiver();
            let stays = envelope.slot() != NONE || receiver == Receiver::Subscribers;
            if !stays || envelope.is(FOREIGN) {
                continue;
            }
            let Some(body) = &envelope.body else { continue };
            visit(Outgoing {
                key: envelope.key,
                sender: envelope.sender,
                receiver,
                body,
                receiver_is_elsewhere: false,
            });
        }
    }

    /// How much mail of agents here was posted to agents here.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.kernel.local
    }

    /// Whether mail waits to be posted that some agent here may get.
    #[must_use]
    pub fn has_mail_for_itself(&self) -> bool {
        let Kernel {
            outbox,
            mailing_list,
            ..
        } = &self.kernel;
        let listens = !mailing_list.is_empty();
        self.kernel.has_unread()
            || outbox.iter().any(|envelope| {
                envelope.slot() != NONE
                    || (listens && !matches!(envelope.receiver(), Receiver::Direct(_)))
            })
    }

    /// Whether mail waits to be posted.
    #[must_use]
    pub fn has_outbox(&self) -> bool {
        !self.kernel.outbox.is_empty() || self.kernel.has_unread()
    }

    /// Takes in mail from other engines: it is posted with what waits here, in the kernel's order.
    /// Of mail that came twice one is kept.
    pub fn import<I: Into<Import<M>>>(&mut self, mails: impl IntoIterator<Item = I>) {
        let outbox = &mut self.kernel.outbox;
        let own = outbox.len();
        outbox.extend(mails.into_iter().map(|mail| mail.into().into_envelope()));
        if outbox.len() > own {
            outbox.sort_by_key(|envelope| envelope.key);
            outbox.dedup_by(|second, first| {
                let is_the_same = first.is_the_same_mail(second);
                if is_the_same {
                    first.take_over(second);
                }
                is_the_same
            });
        }
    }

    /// Tells which insertion index the next agent that is added gets.
    pub fn number_from(&mut self, next_index: u64) {
        self.next_index = next_index;
    }

    /// Takes the agents that agents added since the last time, in order. They wait for their insertion indices.
    pub fn take_newborn(&mut self) -> Vec<Newborn> {
        let taken = std::mem::take(&mut self.newborn).into_iter();
        taken
            .map(|(slot, newborn)| {
                self.unnumbered.push(slot);
                newborn
            })
            .collect()
    }

    /// Gives the agents that wait for them their insertion indices, in order.
    pub fn number(&mut self, indices: &[u64]) {
        let numbered = indices.len().min(self.unnumbered.len());
        for (slot, index) in self.unnumbered.drain(..numbered).zip(indices) {
            if let Some(entry) = self.kernel.slots.get_mut(slot as usize) {
                entry.index = *index;
            }
        }
    }

    /// Takes the ids of the agents that have gone since the last time.
    pub fn take_gone(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.kernel.gone)
    }

    /// Whether so many agents have come and gone that neighbours are to hear of it now.
    #[must_use]
    #[inline]
    pub fn has_many_to_tell_of(&self) -> bool {
        self.newborn.len() + self.kernel.gone.len() >= MANY
    }

    /// Takes the ids that agents want removed and that are not here, each with who asked and that agent's insertion index.
    pub fn take_removals_elsewhere(&mut self) -> Vec<(AgentId, AgentId, u64)> {
        std::mem::take(&mut self.kernel.removals)
    }

    /// Whether agents want others removed that are not here.
    #[must_use]
    #[inline]
    pub fn has_removals_elsewhere(&self) -> bool {
        !self.kernel.removals.is_empty()
    }

    /// Puts the engine under a lookahead: the least simulated time that mail to others takes.
    pub fn look_ahead(&mut self, lookahead: SimDuration) {
        self.kernel.ahead = Some(Box::new(Ahead::new(lookahead)));
    }

    /// Under a lookahead: the next time at which anything happens, were it only that mail leaves.
    pub fn next_event(&mut self) -> Option<SimTime> {
        self.kernel.next_event()
    }

    /// Under a lookahead: takes in mail from another engine that arrives at `time`, and left there
    /// at `left_at`. It is posted among the alarms of that time.
    ///
    /// # Panics
    /// If the engine has passed that time: whoever grants time has broken its promise.
    pub fn arrive(&mut self, time: SimTime, left_at: SimTime, key: MailKey, mail: Mail<M>) {
        self.take_in(time, left_at, (key, mail).into());
    }

    /// As [`arrive`](Self::arrive), for mail that may be a copy.
    ///
    /// # Panics
    /// As [`arrive`](Self::arrive).
    pub fn take_in(&mut self, time: SimTime, left_at: SimTime, import: Import<M>) {
        assert!(
            time >= self.kernel.now,
            "mail comes for a time that is past"
        );
        self.kernel.arrive(time, left_at, import);
    }

    /// Under a lookahead: removes an agent at `time`.
    ///
    /// # Panics
    /// If the engine has passed that time: whoever grants time has broken its promise.
    pub fn remove_at(&mut self, time: SimTime, id: AgentId) {
        assert!(
            time >= self.kernel.now,
            "a removal comes for a time that is past"
        );
        if let Some(ahead) = &mut self.kernel.ahead {
            ahead.dismissals.entry(time).or_default().push(id);
        }
    }

    /// Agents elsewhere listen to something from now on.
    pub fn expect_listeners(&mut self) {
        self.kernel.expect_listeners();
    }

    fn departs_at(&mut self, time: SimTime) -> bool {
        match &mut self.kernel.ahead {
            None => false,
            Some(ahead) => ahead.departures.next_time() == Some(time),
        }
    }

    /// Under a lookahead: shows `visit` the alarms that would leave at `time`, with the time they
    /// are due. It answers whether the alarm did leave.
    pub fn departures(
        &mut self,
        time: SimTime,
        mut visit: impl FnMut(Outgoing<'_, M>, SimTime) -> bool,
    ) {
        let Kernel {
            ahead,
            alarms,
            directory,
            ..
        } = &mut self.kernel;
        let Some(ahead) = ahead else { return };
        while let Some(departure) = ahead.departures.pop_due(time) {
            let Some(alarm) = alarms.pending(departure.load.alarm) else {
                continue;
            };
            let envelope = &mut alarm.load;
            let receiver = envelope.receiver();
            let elsewhere = receiver.agent();
            let elsewhere = elsewhere.is_some_and(|id| directory.find(id) == Whereabouts::Unknown);
            let Some(body) = &envelope.body else { continue };
            let left = visit(
                Outgoing {
                    key: envelope.key,
                    sender: envelope.sender,
                    receiver,
                    body,
                    receiver_is_elsewhere: elsewhere,
                },
                alarm.time,
            );
            envelope.mark_if(LEFT, left);
        }
    }

    /// Whether agents were added since somebody last asked.
    #[must_use]
    #[inline]
    pub fn has_newborn(&self) -> bool {
        !self.newborn.is_empty()
    }

    /// Whether agents here began or ceased to listen to something since that was asked for.
    #[must_use]
    #[inline]
    pub fn has_changed_interest(&self) -> bool {
        let changed = self.kernel.changed_interest.as_ref();
        changed.is_some_and(|changed| !changed.is_empty())
    }

    /// Takes the subscriptions made (true) and withdrawn since the last time, with the time.
    pub fn take_changed_interest(&mut self) -> Vec<(Pattern, bool, SimTime)> {
        self.kernel
            .changed_interest
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Whether an alarm waits whose receiver is an agent that this engine has never heard of.
    #[must_use]
    pub fn has_alarms_elsewhere(&self) -> bool {
        self.kernel.alarms.elsewhere() > 0
    }

    /// Whether some agent wants to be updated in every superstep there is.
    #[must_use]
    pub fn has_kept_awake(&self) -> bool {
        self.kernel.has_kept_awake()
    }

    /// Takes why an agent had the run end after the last superstep, with its insertion index; of
    /// several that stopped it, the first.
    pub fn take_stopped(&mut self) -> Option<(u64, StopReason)> {
        self.kernel.stopped_by.take()
    }

    /// The errors that agents reported since they were last taken, in order.
    #[must_use]
    pub fn errors(&self) -> &[AgentError] {
        &self.kernel.errors
    }

    /// Takes the errors that agents reported since the last time, in order.
    pub fn take_errors(&mut self) -> Vec<AgentError> {
        std::mem::take(&mut self.kernel.errors)
    }

    /// Takes the first mail that nobody got since the last time, at most as much as a report has since the beginning; with its place
    /// among all that is lost.
    pub fn take_lost(&mut self) -> Vec<(LostKey, LostMail)> {
        std::mem::take(&mut self.kernel.lost)
    }

    /// The topics to which agents listen and about which no mail came by.
    #[must_use]
    pub fn silent_topics(&self) -> Vec<Topic> {
        self.kernel.mailing_list.silent_topics()
    }

    /// Takes the topics to which agents listen and about which mail came by for the first time, since the last time.
    pub fn take_heard(&mut self) -> Vec<Topic> {
        self.kernel.mailing_list.take_heard()
    }

    /// Sets whether agents that report an error thereby end the run.
    pub fn stop_at_error(&mut self, stop: bool) {
        self.kernel.stop_at_error = stop;
    }
}

/// Code of messages that is called outside agents.
const OF_MESSAGES: &str = "code outside agents (of a message: its topic, encoding, clone or drop)";

fn of_model(what: &str, time: SimTime, superstep: u64, mut panic: Panic) -> Error {
    Error::ModelPanicked {
        what: what.into(),
        time,
        superstep,
        message: panic.message().into(),
        place: panic.place.take(),
        backtrace: panic.backtrace.take(),
    }
}

/// Calls code of the model outside agents; a panic in it is an error. `what`: how the error names the code, if it is not a message's.
///
/// # Errors
/// [`Error::ModelPanicked`].
pub fn guard_model<T>(
    what: Option<&str>,
    (time, superstep): (SimTime, u64),
    call: impl FnOnce() -> T,
) -> Result<T, Error> {
    let what = what.unwrap_or(OF_MESSAGES);
    panics::catch(call).map_err(|panic| of_model(what, time, superstep, panic))
}

/// Drops an agent that is no longer here, which may panic in it.
///
/// # Errors
/// [`CommandError::Panicked`].
pub fn discard<M: Message>(id: AgentId, agent: Box<dyn Agent<M>>) -> Result<(), CommandError> {
    panics::catch(|| drop(agent)).map_err(|panic| panicked_over_command(id, &panic))
}

fn panicked_over_command(agent: AgentId, panic: &Panic) -> CommandError {
    CommandError::Panicked {
        agent,
        message: panic.message().to_owned(),
    }
}

/// Calls an agent where somebody listens to what it records: who it is, and when.
#[cold]
#[inline(never)]
fn call_in_span<M: Message>(agent: &mut dyn Agent<M>, context: &mut Context<'_, M>, phase: Phase) {
    let (id, now) = (context.id(), context.now());
    // Of the highest level, so that it is there for records of any.
    let span = error_span!(target: "maslite", "agent", sim_time = %now, agent = %id, %phase);
    span.in_scope(|| match phase {
        Phase::Update => agent.update(context),
        Phase::Setup => agent.setup(context),
        Phase::Teardown | Phase::Drop => agent.teardown(context),
    });
}

impl<M: Message> Drop for Engine<M> {
    /// Drops the agents one by one: the panic of one is nobody else's.
    fn drop(&mut self) {
        let _ = self.release_all();
    }
}

impl<M: Message> fmt::Debug for Engine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}
