//! The agents of one scheduler and the loop that runs them, told once and in order.
//!
//! [`Scheduler`](crate::Scheduler) is what most programs use. The engine is for those who put
//! several schedulers under one clock: it can also be driven a superstep at a time, hands out the
//! mail that leaves, and takes in the mail that arrives.
use std::fmt;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{error_span, trace};

mod ahead;
mod amnesia;
mod births;
mod commands;
mod dividing;
mod failures;
mod forecasts;
mod neighbours;
mod saving;
mod speculation;
mod state;
mod state_digest;

pub use amnesia::{Accounts, Amnesia, Forgetful, Forgetting, Through};
pub(crate) use amnesia::{AskedFor, keep};
pub use commands::discard;
pub use dividing::{MainShare, SavedAgent};
pub use failures::guard_model;
pub use neighbours::{Newborn, Outgoing};
pub use saving::{EngineState, KeptAgents, LeftOutAgent};
use speculation::SharedCodec;
pub use speculation::{Budget, Halted, Stood};

pub use crate::adders::Adders;
use crate::agent::{Agent, Birth, Context};
use crate::command::CommandError;
pub use crate::digest::{ContentSum, DigestSum};
use crate::directory::{NONE, Whereabouts};
use crate::error::{Adder, Error, Phase};
pub use crate::error::{FailurePlace, FailureStage};
use crate::fetch::fetch;
pub use crate::id_set::IdSet;
use crate::kernel::{Kernel, Outside, Turn};
use crate::marks::{Covers, Marks};
pub use crate::message::Import;
use crate::message::{Envelope, Mail, MailKey, Message};
pub use crate::panics::is_reporting_panic;
pub use crate::panics::quietly;
use crate::progress::Progress;
use crate::run::StopReason;
pub use crate::signal::{Signal, TimeoutTimer};
use crate::trace::Observer;
use crate::{AgentId, SimTime};

/// How far an engine may run on its own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Alarms at this time or later are not fired. Mail of the present instant is delivered all
    /// the same.
    pub horizon: Option<SimTime>,
    /// At most this number of supersteps.
    pub supersteps: u64,
    /// No instant may have more supersteps than this.
    pub supersteps_per_instant: u64,
}

/// How many alarms ahead slots and boxes of agents are fetched, and agents.
const FETCH_SLOT: usize = 8;
const FETCH_AGENT: usize = 4;
/// Slots of fewer agents fit a second-level cache.
const MANY_AGENTS: usize = 4_096;

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

    /// Whether the host wants the engine to rest. It is read in every superstep.
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

/// The agents of one scheduler and all the scheduler knows.
pub struct Engine<M: Message> {
    agents: Vec<Option<Box<dyn Agent<M>>>>,
    pub(crate) kernel: Kernel<M>,
    /// Slots awake in this superstep.
    updating: Vec<u32>,
    /// How many they were in the last superstep, also one before this engine was restored.
    awake_last: usize,
    /// Agents before this slot have been set up, or will be in their first turn.
    set_up: usize,
    next_index: u64,
    /// Agents added by agents that the host has not taken yet, with their slots; kept for
    /// neighbours.
    newborn: Vec<(u32, Newborn)>,
    /// Agents that agents added in the superstep at hand, in order.
    births: Vec<Birth<M>>,
    /// Where the last failure was.
    failed_at: Option<FailurePlace>,
    /// The slots of agents that were told of and wait for their insertion indices.
    unnumbered: Vec<u32>,
    /// How agents are saved on the way ahead of what is final.
    codec: Option<SharedCodec<M>>,
    /// Copies of agents as they were before, the oldest first.
    copies: Vec<Box<dyn Agent<M>>>,
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
            awake_last: 0,
            set_up: 0,
            next_index: 0,
            newborn: Vec::new(),
            births: Vec::new(),
            failed_at: None,
            unnumbered: Vec::new(),
            codec: None,
            copies: Vec::new(),
        }
    }

    /// Sums up a digest of all deliveries from now on.
    pub fn keep_digest(&mut self) {
        self.kernel.digest.get_or_insert_default();
        let marks = &mut self.kernel.marks;
        marks.get_or_insert_with(|| Marks::new(Covers::Trace));
        self.kernel.look_who_notes_deliveries();
    }

    /// Shows every delivery to `observer` from now on.
    pub fn observe(&mut self, observer: Observer<M>) {
        self.kernel.observer = Some(observer);
        self.kernel.look_who_notes_deliveries();
    }

    /// The same, where the observer is part of the model: its panic is an error of the model, not
    /// the owner's.
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
        self.kernel.progress = progress;
        self.kernel.progress_is_shown = true;
        self.kernel.show_slots();
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
            // Mail from outside has an impossible receiver.
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
                    // The guard of this run takes it from there.
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
            if self.kernel.is_undoable && !self.mark(time) {
                return Ok(Rest::Horizon);
            }
            assert!(time >= self.kernel.now, "time never goes backwards");
            self.advance_to(time);
            self.kernel.fire(time);
            self.fetch_ahead();
            if AgentId::collisions_are_known() && !self.kernel.check_names(self.kernel.superstep) {
                return Ok(Rest::HookAsked);
            }
        }
    }

    /// Has fetched what the next alarms need, while those at hand are handled: the slot and the box
    /// of an agent, then the agent.
    #[inline]
    fn fetch_ahead(&self) {
        // Few agents are in the cache anyhow, and where few alarms are at hand there is nothing to
        // fetch.
        if self.agents.len() < MANY_AGENTS {
            return;
        }
        let Some(slot) = self.kernel.receiver_ahead(FETCH_AGENT) else {
            return;
        };
        if let Some(Some(agent)) = self.agents.get(slot as usize) {
            fetch(&**agent);
        } else if let Some(slot) = self.kernel.arrival_ahead(FETCH_AGENT)
            && let Some(agent) = &self.agents[slot as usize]
        {
            fetch(&**agent);
        }
        let Some(slot) = self.kernel.receiver_ahead(FETCH_SLOT) else {
            return;
        };
        if let Some(agent) = self.agents.get(slot as usize) {
            fetch(&self.kernel.slots[slot as usize]);
            fetch(agent);
            return;
        }
        // One of its two agents is elsewhere.
        self.kernel.alarms.fetch_beside(FETCH_SLOT);
        if let Some(slot) = self.kernel.arrival_ahead(FETCH_SLOT) {
            fetch(&self.kernel.slots[slot as usize]);
            fetch(&self.agents[slot as usize]);
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
        if self.kernel.next_event() == Some(time) {
            self.kernel.fire(time);
        }
        self.kernel.check_names(self.kernel.superstep);
    }

    /// One superstep: updates the awake agents in insertion order. Their mail is not posted yet.
    fn update_awake(&mut self) {
        self.kernel.take_awake(&mut self.updating);
        self.awake_last = self.updating.len();
        let (superstep, level) = (self.kernel.superstep, LevelFilter::current());
        if level == LevelFilter::TRACE {
            self.trace_superstep();
        }
        if self.kernel.is_undoable && !self.save_updating() {
            return;
        }
        let updates = Progress::updates_in(superstep);
        let mut turn = 0;
        while let Some(&slot) = self.updating.get(turn) {
            turn += 1;
            if let Turn::Other { setup, teardown } = self.kernel.begin_turn(slot)
                && !self.begin_or_end(slot, setup, teardown)
            {
                continue;
            }
            self.kernel.progress.begin_update(updates, slot);
            self.call_agent(slot, Phase::Update, level);
            if self.kernel.has_mail(slot) {
                self.kernel.keep_unread(slot);
            }
        }
        self.kernel.superstep += 1;
        self.kernel.counters.supersteps += 1;
        self.settle(superstep);
    }

    #[cold]
    fn trace_superstep(&self) {
        trace!(
            target: "maslite",
            sim_time = %self.kernel.now,
            superstep = self.kernel.superstep,
            awake = self.updating.len(),
            "superstep"
        );
    }

    /// Sets an agent up, or tears it down. True if it is to be updated now.
    #[inline(never)]
    fn begin_or_end(&mut self, slot: u32, setup: bool, teardown: bool) -> bool {
        if setup {
            self.call(slot, Phase::Setup);
        }
        if teardown {
            self.call(slot, Phase::Teardown);
            self.kernel.free_slot(slot);
            self.release(slot);
            self.kernel.counters.agents -= 1;
        }
        !teardown
    }

    fn call(&mut self, slot: u32, phase: Phase) {
        let superstep = self.kernel.superstep;
        self.kernel.progress.begin_call(superstep, slot, phase);
        self.call_agent(slot, phase, LevelFilter::current());
    }

    /// Calls an agent, in a span if records of any level are wanted.
    #[inline]
    fn call_agent(&mut self, slot: u32, phase: Phase, level: LevelFilter) {
        let agent = self.agents[slot as usize]
            .as_mut()
            .expect("an agent with a slot is there");
        let mut context = Context::new(&mut self.kernel, &mut self.births, slot);
        if level != LevelFilter::OFF {
            return call_in_span(agent.as_mut(), &mut context, phase);
        }
        match phase {
            Phase::Update => agent.update(&mut context),
            Phase::Setup => agent.setup(&mut context),
            Phase::Teardown | Phase::Drop | Phase::Request => agent.teardown(&mut context),
            Phase::Restored => agent.restored(),
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

    /// Whether agents are to come or to leave.
    fn has_comings_and_goings(&self) -> bool {
        !self.births.is_empty() || !self.kernel.removals.is_empty()
    }

    /// Allocates slots for the agents that were added in a superstep and dismisses those that are
    /// to leave.
    #[inline]
    fn settle(&mut self, superstep: u64) {
        // A panic from here on, of main's handler for one, is no agent's.
        let last = self.updating.last().copied().unwrap_or(NONE);
        self.kernel.progress.rest_at(self.kernel.superstep, last);
        if self.kernel.is_undoable && self.has_comings_and_goings() {
            self.kernel.note_stray();
            return;
        }
        if !self.births.is_empty() {
            self.allocate_newborn(superstep);
        }
        if !self.kernel.removals.is_empty() {
            self.dismiss_removed(superstep);
        }
        self.kernel.check_names(superstep);
    }
}

/// Calls an agent in a span with its id and the time, for subscribers to its records.
#[cold]
#[inline(never)]
fn call_in_span<M: Message>(agent: &mut dyn Agent<M>, context: &mut Context<'_, M>, phase: Phase) {
    let (id, now) = (context.id(), context.now());
    // Of the highest level, so that it is there for records of any.
    let span = error_span!(target: "maslite", "agent", sim_time = %now, agent = %id, %phase);
    span.in_scope(|| match phase {
        Phase::Update => agent.update(context),
        Phase::Setup => agent.setup(context),
        Phase::Teardown | Phase::Drop | Phase::Request => agent.teardown(context),
        Phase::Restored => agent.restored(),
    });
}

impl<M: Message> Drop for Engine<M> {
    /// Drops the agents one by one: the panic of one does not reach the others.
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
