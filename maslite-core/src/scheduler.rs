//! One scheduler, used alone.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::agent_types::AgentTypes;
use crate::alarm::PendingAlarm;
use crate::builder::SchedulerBuilder;
use crate::clock::{Clock, Pace, wall};
use crate::command::CommandError;
use crate::engine::{Engine, Limits, Rest};
use crate::error::Error;
use crate::lock::LockEvenPoisoned;
use crate::main_context::MainContext;
use crate::marks::Marks;
use crate::message::{Mail, Message, Receiver};
use crate::run::{AgentError, Counters, LostKey, LostMail, Report, Run, StopReason};
use crate::signal::{MAIL, STOP, Signal, TIMEOUT, TimeoutTimer};
use crate::simulation::{AgentInfo, Shutdown, StopHandle};
use crate::{AgentId, AlarmFilter, Digest, Pattern, SimDuration, SimTime};

mod amnesia;
mod controller;
mod face;
mod hooks;
pub(crate) mod saved;

use amnesia::Memory;
pub use controller::Controller;
use controller::Outside;
use hooks::SchedulerHooks;

/// Runs agents in this process, one after the other.
///
/// ```
/// use maslite_core::{Agent, Context, Mail, Run, Scheduler, SimDuration, SimTime};
///
/// #[derive(Clone, maslite_core::Message)]
/// enum Msg { Tick }
///
/// struct Metronome { ticks: u32 }
///
/// impl Agent<Msg> for Metronome {
///     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
///         ctx.alarm_in(SimDuration::from_millis(500), Msg::Tick);
///     }
///     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         self.ticks += 1;
///         if self.ticks < 10 {
///             ctx.alarm_in(SimDuration::from_millis(500), Msg::Tick);
///         }
///     }
/// }
///
/// let mut scheduler = Scheduler::new();
/// scheduler.add("metronome", Metronome { ticks: 0 })?;
/// let report = scheduler.run(Run::until_idle())?;
/// assert_eq!(report.now, SimTime::from_secs(5));
/// # Ok::<(), maslite_core::Error>(())
/// ```
pub struct Scheduler<M: Message> {
    engine: Engine<M>,
    clock: Clock,
    /// Where real time began.
    epoch: Option<Instant>,
    queued: Vec<Mail<M>>,
    outside: Arc<Outside<M>>,
    failed: bool,
    /// What was counted up to the end of the last run, and how often it had forgotten everything.
    counted: (Counters, u64),
    /// The first undeliverable mail.
    lost: Vec<(LostKey, LostMail)>,
    /// What it forgets by, if it does.
    memory: Option<Memory<M>>,
    /// The agent types whose state can be saved and shown.
    types: Arc<AgentTypes<M>>,
}

impl<M: Message> Default for Scheduler<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> SchedulerBuilder<M> {
    /// A scheduler with these settings.
    #[must_use]
    pub fn build(mut self) -> Scheduler<M> {
        let mut engine = Engine::new(self.seed);
        if self.digest {
            engine.keep_digest();
        }
        if let Some(keep) = self.content {
            keep(&mut engine);
        }
        if let Some(observer) = self.take_observer() {
            engine.observe(observer);
        }
        let types = Arc::new(self.agent_types);
        Scheduler {
            engine,
            clock: self.clock,
            epoch: None,
            queued: Vec::new(),
            outside: Arc::new(Outside {
                signal: Arc::new(Signal::default()),
                mails: Mutex::default(),
            }),
            failed: false,
            counted: Default::default(),
            lost: Vec::new(),
            memory: Memory::new(self.amnesia, Arc::clone(&types)),
            types,
        }
    }
}

impl<M: Message> Scheduler<M> {
    /// A scheduler with a simulated clock and seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// The settings of a scheduler, which [`build`](SchedulerBuilder::build) makes.
    ///
    /// ```
    /// use maslite_core::{Clock, Scheduler, Speed};
    /// # #[derive(Clone, maslite_core::Message)] enum Msg { Tick }
    /// # fn main() -> Result<(), maslite_core::BadSpeed> {
    /// let clock = Clock::Paced(Speed::new(60.0)?); // a minute in a second
    /// let scheduler: Scheduler<Msg> = Scheduler::builder().seed(42).clock(clock).digest().build();
    /// # let _ = scheduler;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> SchedulerBuilder<M> {
        SchedulerBuilder::default()
    }

    /// A scheduler alone is one cluster: this makes none, so that programs which leave open who
    /// runs their model can ask for one.
    pub fn new_cluster(&mut self) {}

    /// Adds an agent to the one cluster; as [`add`](Self::add).
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_to(
        &mut self,
        (): (),
        id: impl Into<AgentId>,
        agent: impl Agent<M>,
    ) -> Result<(), Error> {
        self.add(id, agent)
    }

    /// Adds an agent. Its `setup` is called when the next run starts.
    ///
    /// # Errors
    /// [`Error::DuplicateAgent`] and [`Error::BadId`]; the scheduler is as before.
    pub fn add(&mut self, id: impl Into<AgentId>, agent: impl Agent<M>) -> Result<(), Error> {
        self.engine.add(id.into(), Box::new(agent))
    }

    /// Removes an agent: in the first superstep of the next run `teardown` takes the place of its
    /// update. Removing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`] if there was never an agent with this id; [`Error::BadId`] if its
    /// name and another have one id.
    pub fn remove(&mut self, id: impl Into<AgentId>) -> Result<(), Error> {
        let id = id.into();
        if let Some(collision) = id.collision() {
            return Err(collision.into());
        }
        if self.engine.remove(id) || self.engine.had(id) {
            return Ok(());
        }
        Err(Error::UnknownAgent(id))
    }

    /// The agent with this id, if it is of this type.
    pub fn agent<A: Agent<M>>(&self, id: impl Into<AgentId>) -> Option<&A> {
        let agent: &dyn std::any::Any = self.engine.agent(id.into())?;
        agent.downcast_ref()
    }

    /// The state of an agent, as a value of its own type: a copy of how it is now.
    /// [`agent`](Self::agent) copies nothing.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::WrongType`], [`CommandError::NotCopied`].
    pub fn inspect<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, CommandError> {
        let id = id.into();
        self.engine.check_type::<A>(id)?;
        let agent = self.agent::<A>(id).ok_or(CommandError::UnknownAgent(id))?;
        let copy = postcard::to_stdvec(agent).and_then(|bytes| postcard::from_bytes(&bytes));
        copy.map_err(|why| CommandError::NotCopied {
            agent: id,
            why: why.to_string(),
        })
    }

    /// The state of an agent as JSON. Its type must be among the
    /// [agent types](SchedulerBuilder::agent_types).
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::NotCopied`].
    pub fn state_of(&mut self, id: impl Into<AgentId>) -> Result<String, CommandError> {
        let id = id.into();
        let agent = self.engine.agent(id);
        let agent = agent.ok_or(CommandError::UnknownAgent(id))?;
        let shown = self.types.show(agent);
        shown.map_err(|why| CommandError::NotCopied { agent: id, why })
    }

    /// All agents, in insertion order.
    ///
    /// # Errors
    /// None: it has the shape of [`Simulation::agents`](crate::Simulation::agents).
    pub fn agents(&mut self) -> Result<Vec<AgentInfo>, CommandError> {
        let agents = self.engine.agents().map(|(id, agent)| {
            let index = self.engine.index(id).unwrap_or(u64::MAX);
            AgentInfo::new(id, index, agent.type_name().to_owned(), ())
        });
        Ok(agents.collect())
    }

    /// Has an agent answer a command, with its [`command`](Agent::command).
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::Refused`], [`CommandError::Panicked`].
    pub fn command(&mut self, id: impl Into<AgentId>, request: M) -> Result<M, CommandError> {
        self.engine.command(id.into(), request)
    }

    /// Puts an agent in the place of another, whose inbox, subscriptions, alarms and random numbers
    /// it takes over. Neither is torn down, nor set up once more.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`].
    pub fn replace(
        &mut self,
        id: impl Into<AgentId>,
        agent: impl Agent<M>,
    ) -> Result<(), CommandError> {
        self.engine.replace(id.into(), Box::new(agent))
    }

    /// Takes an agent out, as it is, without tearing it down. Otherwise it is as if it had been
    /// removed: mail that it has not read is undeliverable, and its id is not used again.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::WrongType`].
    pub fn take_out<A: Agent<M>>(&mut self, id: impl Into<AgentId>) -> Result<A, CommandError> {
        let id = id.into();
        self.engine.check_type::<A>(id)?;
        let agent: Box<dyn std::any::Any> = self.engine.take_out(id)?;
        // Its type was looked at.
        let agent = agent.downcast();
        agent
            .map(|agent| *agent)
            .map_err(|_| CommandError::UnknownAgent(id))
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

    /// Runs. Consecutive runs equal one longer run.
    ///
    /// Mail addressed to main is undeliverable; see [`run_with`](Self::run_with).
    ///
    /// # Errors
    /// [`Error::AgentPanicked`], [`Error::EndlessExchange`], [`Error::DuplicateAgent`],
    /// [`Error::BadId`], [`Error::RemovedUnknown`], [`Error::TimeOverflow`]; and
    /// [`Error::Failed`] ever after.
    pub fn run(&mut self, run: Run) -> Result<Report, Error> {
        self.engine.main_listens(false);
        self.run_with_hooks(run, &mut |_, _| {})
    }

    /// Runs, and hands mail addressed to [`AgentId::MAIN`] to `handler`, between two supersteps.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(
        &mut self,
        run: Run,
        mut handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Report, Error> {
        self.engine.main_listens(true);
        self.run_with_hooks(run, &mut handler)
    }

    /// Runs until simulated time reaches `time`, or nothing is left to happen.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_until(&mut self, time: SimTime) -> Result<Report, Error> {
        self.run(Run::until(time))
    }

    fn run_with_hooks(
        &mut self,
        mut run: Run,
        handler: &mut dyn FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Report, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let (started, start) = (wall(), self.engine.now());
        let epoch = *self.epoch.get_or_insert(started);
        let signal = Arc::clone(&self.outside.signal);
        let timeout_timer = run
            .timeout
            .map(|timeout| TimeoutTimer::start(&signal, timeout));
        let mut hooks = SchedulerHooks {
            signal: &signal,
            handler,
            predicate: run.predicate.take(),
            stopped_by: None,
        };
        // Until it returns well, this run is one that failed.
        self.failed = true;
        let mut pace = match self.clock {
            Clock::Simulated => None,
            Clock::Paced(speed) => Some(Pace::new(started, start, speed)),
            Clock::RealTime => Some(Pace::real_time(epoch)),
        };
        self.engine.stop_at_error(run.stop_at_error);
        self.engine.take_errors();
        self.engine.setup()?;
        let queued = std::mem::take(&mut self.queued);
        self.engine.queue_first(queued);
        let mut behind = Duration::ZERO;
        let stopped_by = match &mut pace {
            None => self.run_simulated(&run, start, &mut hooks)?,
            Some(pace) => self.run_paced(&run, start, pace, &mut hooks, &mut behind)?,
        };
        self.failed = false;
        // First it, or it might still bark into the next run.
        drop(timeout_timer);
        signal.lower(STOP | TIMEOUT);
        let now = self.engine.now();
        let mut report = Report::new(stopped_by, start, now, wall().duration_since(started));
        report.total = self.engine.counters();
        let amnesias = self.memory.as_ref().map_or(0, Memory::count);
        let (counters_before, amnesias_before) = self.counted;
        self.counted = (report.total, amnesias);
        report.counters = report.total.since(&counters_before);
        report.amnesias = amnesias - amnesias_before;
        report.digest = self.engine.digest();
        report.content_digest = self.engine.content_digest();
        report.behind = behind;
        report.errors = self.engine.errors().to_vec();
        self.lost.append(&mut self.engine.take_lost());
        self.lost.sort_by_key(|(key, _)| *key);
        self.lost.truncate(Report::LOST_KEPT);
        report.lost = self.lost.iter().map(|(_, lost)| *lost).collect();
        report.silent = self.engine.silent_topics();
        Ok(report)
    }

    fn run_simulated(
        &mut self,
        run: &Run,
        start: SimTime,
        hooks: &mut SchedulerHooks<'_, M>,
    ) -> Result<StopReason, Error> {
        let end = run.end(start);
        let mut supersteps = run.supersteps.unwrap_or(u64::MAX);
        loop {
            self.take_outside_mail();
            let (rest, done) = self.run_engine(run, end, end, supersteps, hooks)?;
            supersteps -= done;
            match self.stop_reason(rest, hooks) {
                Some(reason) => return Ok(reason),
                None if rest == Rest::Attention => {}
                None => {
                    if let Some(end) = end {
                        self.engine.advance_to(end);
                    }
                    return Ok(StopReason::TimeLimit);
                }
            }
        }
    }

    /// Lets simulated time go no further than the wall allows, and blocks in between.
    fn run_paced(
        &mut self,
        run: &Run,
        start: SimTime,
        pace: &Pace,
        hooks: &mut SchedulerHooks<'_, M>,
        behind: &mut Duration,
    ) -> Result<StopReason, Error> {
        let end = run.end(start);
        let real = self.clock == Clock::RealTime;
        let mut supersteps = run.supersteps.unwrap_or(u64::MAX);
        let mut caught_up = false;
        loop {
            self.take_outside_mail();
            let mut now = pace.sim_at(wall());
            if real {
                if let Some(end) = end.filter(|end| *end <= now) {
                    // The wall may have leapt over the end. What was due before still happens, at
                    // the last instant there is, once: what that sets for the same instant is for
                    // the next run.
                    let missed = self.engine.next_alarm().is_some_and(|due| due < end);
                    let last = SimTime::from_nanos(end.as_nanos().saturating_sub(1));
                    now = if missed && !caught_up { last } else { end };
                    caught_up = true;
                }
                self.engine.advance_to(now);
            }
            let due = self.engine.next_alarm();
            if let Some(due) = due.and_then(|due| pace.wall_at(due)) {
                *behind = (*behind).max(wall().saturating_duration_since(due));
            }
            if real && supersteps > 0 && end.is_none_or(|end| self.engine.now() < end) {
                // Here time passes while mail is left, so chatter must not keep alarms waiting.
                while let Some(due) = self.engine.next_alarm().filter(|due| *due <= now) {
                    self.engine.fire(due);
                }
            }
            // One instant at a time, so that each is compared with the wall as it begins.
            let reached = due.map_or(now, |due| due.min(now));
            // A horizon is exclusive, so the last instant of time has none.
            let after = reached.checked_add(SimDuration::from_nanos(1));
            let horizon = end.into_iter().chain(after).min();
            // In real time the clock is read again after every superstep.
            let allowed = if real { supersteps.min(1) } else { supersteps };
            let (rest, done) = self.run_engine(run, end, horizon, allowed, hooks)?;
            supersteps -= done;
            if rest == Rest::Supersteps && supersteps > 0 {
                continue;
            }
            match self.stop_reason(rest, hooks) {
                Some(reason) => return Ok(reason),
                None if rest == Rest::Attention => continue,
                None => {}
            }
            if real && !self.engine.is_awake() && !self.engine.has_required_alarms() {
                self.engine.clear_alarms(AlarmFilter::all());
                return Ok(StopReason::Idle);
            }
            if end.is_some_and(|end| end <= self.engine.now()) {
                return Ok(StopReason::TimeLimit);
            }
            // At rest at the horizon: the next thing to happen is an alarm or the end.
            let next = match (self.engine.next_alarm(), end) {
                (Some(alarm), Some(end)) => alarm.min(end),
                (Some(next), None) | (None, Some(next)) => next,
                (None, None) => return Ok(StopReason::Idle),
            };
            if end.is_some_and(|end| pace.sim_at(wall()) >= end) && Some(next) == end {
                self.engine.advance_to(next);
                return Ok(StopReason::TimeLimit);
            }
            self.outside.signal.wait(pace.wall_at(next));
        }
    }

    fn run_engine(
        &mut self,
        run: &Run,
        end: Option<SimTime>,
        horizon: Option<SimTime>,
        supersteps: u64,
        hooks: &mut SchedulerHooks<'_, M>,
    ) -> Result<(Rest, u64), Error> {
        // What would happen at the end or later does not happen, not even for mail that waits.
        let over = end.is_some_and(|end| end <= self.engine.now());
        let supersteps = if over { 0 } else { supersteps };
        let limits = Limits {
            horizon,
            supersteps,
            supersteps_per_instant: run.supersteps_per_instant,
        };
        let before = self.engine.counters().supersteps;
        let rest = match &mut self.memory {
            None => self.engine.run(&limits, hooks),
            Some(memory) => memory.run(&mut self.engine, &limits, hooks),
        };
        let rest = match rest? {
            Rest::Supersteps if over => Rest::Horizon,
            rest => rest,
        };
        Ok((rest, self.engine.counters().supersteps - before))
    }

    /// Why the run ends, if it does; at a horizon it may not.
    fn stop_reason(&self, rest: Rest, hooks: &mut SchedulerHooks<'_, M>) -> Option<StopReason> {
        match rest {
            Rest::Idle => Some(StopReason::Idle),
            Rest::Supersteps => Some(StopReason::Supersteps),
            Rest::Asked(reason) => Some(reason),
            Rest::HookAsked => hooks.stopped_by.take(),
            Rest::Horizon => None,
            Rest::Attention => match self.outside.signal.raised() {
                bits if bits & STOP != 0 => Some(StopReason::Interrupted),
                bits if bits & TIMEOUT != 0 => Some(StopReason::Timeout),
                _ => None,
            },
        }
    }

    fn take_outside_mail(&mut self) {
        if self.outside.signal.raised() & MAIL != 0 {
            self.outside.signal.lower(MAIL);
            let mut mails = self.outside.mails.lock_even_poisoned();
            let mails = std::mem::take(&mut *mails);
            self.engine.queue_first(mails);
        }
    }

    /// A handle that other threads can end a run with.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        let signal = Arc::clone(&self.outside.signal);
        StopHandle::new(move || signal.raise(STOP))
    }

    /// A handle for other threads: they can stop a run and send mail into it.
    #[must_use]
    pub fn controller(&self) -> Controller<M> {
        Controller {
            outside: Arc::clone(&self.outside),
        }
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.engine.now()
    }

    /// The superstep within this instant that comes next.
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.engine.superstep()
    }

    /// Returns the counters since the simulation began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The digest of all deliveries since the simulation began, if one was asked for.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.engine.digest()
    }

    /// The digest in pieces of simulated time, if a digest was asked for; that of the contents, if
    /// one of these was. It is there after a failed run, too.
    #[must_use]
    pub fn marks(&self) -> Option<Marks> {
        self.engine.marks().cloned()
    }

    /// The errors that agents reported in the last run, as its report has them; also if it failed.
    #[must_use]
    pub fn errors(&self) -> &[AgentError] {
        self.engine.errors()
    }

    /// Returns the pending alarms that match the filter, of all agents, in the order in which they
    /// will fire.
    ///
    /// # Errors
    /// None: it has the shape of [`Simulation::alarms`](crate::Simulation::alarms).
    pub fn alarms(&mut self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, CommandError> {
        Ok(self.engine.alarms(filter))
    }

    /// Clears the alarms that match the filter, of all agents. Returns their number.
    pub fn clear_alarms(&mut self, filter: AlarmFilter) -> usize {
        self.engine.clear_alarms(filter)
    }

    /// Returns the subscribers of exactly this pattern, in insertion order.
    pub fn subscribers(&mut self, pattern: Pattern) -> Vec<AgentId> {
        self.engine.subscribers(pattern)
    }

    /// Returns the subscriptions of an agent.
    pub fn subscriptions(&self, id: impl Into<AgentId>) -> Vec<Pattern> {
        self.engine.subscriptions(id.into())
    }

    /// Ends the simulation: calls `teardown` of every agent, in insertion order. Dropping the
    /// scheduler does the same, and keeps silent about panics.
    ///
    /// The errors hold [`Error::AgentPanicked`] for the first agent that did; the others are torn
    /// down all the same.
    #[must_use]
    pub fn shutdown(mut self) -> Shutdown {
        let started = wall();
        let errors = self.teardown().err().into_iter().collect();
        Shutdown::new(wall().duration_since(started), Vec::new(), errors)
    }

    fn teardown(&mut self) -> Result<(), Error> {
        if self.failed || std::thread::panicking() {
            return Ok(());
        }
        self.engine.teardown()
    }
}

impl<M: Message> Drop for Scheduler<M> {
    fn drop(&mut self) {
        let _ = self.teardown();
    }
}

impl<M: Message> fmt::Debug for Scheduler<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("engine", &self.engine)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
