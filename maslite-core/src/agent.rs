//! The agent, and the context that a scheduler hands to it.

use std::fmt;

use crate::alarm::{Alarm, AlarmFilter, PendingAlarm, When};
use crate::alarm_queue::AlarmId;
use crate::command::Refusal;
use crate::error::{Adder, Error, FailureStage};
use crate::kernel::Kernel;
use crate::message::{Mail, Message, Receiver};
use crate::rng::AgentRng;
use crate::run::StopReason;
use crate::{AgentId, Pattern, SimDuration, SimTime};

/// State that reacts to mail. Agents reach each other by messages only.
///
/// A scheduler calls `setup` once, then `update` in every superstep in which the agent is awake:
/// because it has mail, because it was just added, or because it asked for it with
/// [`Context::keep_awake`]; and `teardown` once, when the agent is removed or the simulation ends.
///
/// ```
/// use maslite_core::{Agent, Context, Mail};
/// # #[derive(Clone, maslite_core::Message)] enum Msg { Ping, Pong }
/// struct Player { hits: u32 }
///
/// impl Agent<Msg> for Player {
///     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         self.hits += 1;
///         match mail.body {
///             Msg::Ping => ctx.send(mail.sender, Msg::Pong),
///             Msg::Pong => ctx.send(mail.sender, Msg::Ping),
///         }
///     }
/// }
/// ```
pub trait Agent<M: Message>: std::any::Any + Send {
    /// Prepares the agent: subscriptions, first alarms, first messages. Called once, before any
    /// `update`.
    fn setup(&mut self, ctx: &mut Context<'_, M>) {
        let _ = ctx;
    }

    /// Acts on what is in the inbox. The default takes each mail in turn and hands it to
    /// [`receive`](Self::receive). Mail left in the inbox stays there, and the agent awake.
    fn update(&mut self, ctx: &mut Context<'_, M>) {
        // Nothing comes into an inbox while its agent is called, so the last mail is known to be it.
        while let Some((mail, is_last)) = ctx.take_mail() {
            self.receive(mail, ctx);
            if is_last {
                return;
            }
        }
    }

    /// Acts on one mail. The default ignores it.
    fn receive(&mut self, mail: Mail<M>, ctx: &mut Context<'_, M>) {
        let _ = (mail, ctx);
    }

    /// Answers a command from outside: of the simulation's owner, or of a controller. The default
    /// refuses.
    ///
    /// It is called between two supersteps. It can send no mail, so it leaves no trace of its own;
    /// but what it changes here changes what the agent does from now on.
    ///
    /// # Errors
    /// A [`Refusal`], with the agent's reason.
    fn command(&mut self, request: M) -> Result<M, Refusal> {
        let _ = request;
        Err(Refusal::new("it takes no commands"))
    }

    /// Makes what serde has skipped, after this agent was read from its encoding in the middle of its
    /// life: a cache, an index, an open file. The default does nothing.
    ///
    /// It is called once for each such reading, before any other method: after a simulation or a
    /// cluster was restored from what was saved of it, after amnesia, after clusters that ran ahead
    /// have gone back, and when an owner puts the encoding of another agent in its place. It is not
    /// called when an agent is added, because [`setup`](Self::setup) is called then. An agent that
    /// was saved before its `setup` has both called, `restored` first.
    ///
    /// It has no context, so it leaves no trace. It must change nothing that is encoded: how often
    /// it is called depends on saves and deaths of processes, which otherwise change no result.
    fn restored(&mut self) {}

    /// The agent's type, as listings and errors name it.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Says goodbye. Called once, when the agent is removed (mail sent here is delivered) or when
    /// the simulation ends (it is not).
    fn teardown(&mut self, ctx: &mut Context<'_, M>) {
        let _ = ctx;
    }
}

/// What an agent can do while it is called: read its mail, send, set alarms, subscribe, add and
/// remove agents.
///
/// Nothing that is sent here arrives before the superstep is over; see the guarantees of the crate.
///
/// ```
/// use maslite_core::{Agent, AgentId, Context, Mail, Pattern, SimDuration};
///
/// #[derive(Clone, maslite_core::Message)]
/// enum Msg { Free, Load, Loaded }
///
/// struct Truck { depot: AgentId }
///
/// impl Agent<Msg> for Truck {
///     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
///         ctx.subscribe(Pattern::topic("Free")); // hears of every free ramp
///     }
///     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         match mail.body {
///             Msg::Free => {
///                 ctx.unsubscribe_all();
///                 ctx.send(mail.sender, Msg::Load); // arrives in the next superstep
///                 ctx.alarm_in(SimDuration::from_secs(900), Msg::Loaded); // to itself, later
///             }
///             Msg::Loaded => {
///                 println!("{} leaves at {}", ctx.id(), ctx.now());
///                 ctx.send(self.depot, Msg::Loaded);
///                 ctx.remove(ctx.id());
///             }
///             Msg::Load => {}
///         }
///     }
/// }
/// # let mut scheduler = maslite_core::Scheduler::new();
/// # scheduler.add("truck 1", Truck { depot: "depot".into() })?;
/// # scheduler.send_mail(Mail::new("ramp", maslite_core::Receiver::Subscribers, Msg::Free));
/// # let report = scheduler.run(maslite_core::Run::until_idle())?;
/// # assert_eq!((report.now.as_nanos(), report.counters.agents), (900_000_000_000, 0));
/// # Ok::<(), maslite_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Context<'a, M: Message> {
    kernel: &'a mut Kernel<M>,
    births: &'a mut Vec<Birth<M>>,
    slot: u32,
    /// The sender of the mail that was taken last; [`AgentId::NOBODY`] before the first.
    sender: AgentId,
}

impl<'a, M: Message> Context<'a, M> {
    #[inline]
    pub(crate) fn new(kernel: &'a mut Kernel<M>, births: &'a mut Vec<Birth<M>>, slot: u32) -> Self {
        Self {
            kernel,
            births,
            slot,
            sender: AgentId::NOBODY,
        }
    }

    /// The agent's own id.
    #[must_use]
    pub fn id(&self) -> AgentId {
        self.kernel.slots[self.slot as usize].id
    }

    /// The simulated time. It stands still while agents exchange mail.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.kernel.now
    }

    /// The superstep within this instant, from 0.
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.kernel.superstep
    }

    // ---- mail

    /// Takes the oldest mail out of the inbox.
    #[inline]
    pub fn next_mail(&mut self) -> Option<Mail<M>> {
        self.take_mail().map(|(mail, _)| mail)
    }

    /// Takes the oldest mail out of the inbox, and tells whether it was the last one there.
    #[inline(always)]
    fn take_mail(&mut self) -> Option<(Mail<M>, bool)> {
        let (mail, is_last) = self.kernel.take_first(self.slot)?;
        self.sender = mail.sender;
        Some((mail, is_last))
    }

    /// Takes the mail with the smallest key out of the inbox; of equal ones the oldest.
    ///
    /// This makes a priority inbox: what matters first is read first, the rest can stay.
    pub fn next_mail_by_key<K: Ord>(&mut self, mut key: impl FnMut(&M) -> K) -> Option<Mail<M>> {
        let bodies = self.inbox().enumerate();
        let (place, _) = bodies.min_by_key(|(place, body)| (key(body), *place))?;
        let mail = self.kernel.take_nth(self.slot, place)?;
        self.sender = mail.sender;
        Some(mail)
    }

    /// The messages in the inbox, oldest first. They stay there.
    pub fn inbox(&self) -> impl Iterator<Item = &M> + '_ {
        self.kernel
            .inbox(self.slot)
            .filter_map(|envelope| envelope.body.as_ref())
    }

    /// Sends a message to an agent; subscribers get a copy.
    #[inline]
    pub fn send(&mut self, to: impl Into<AgentId>, body: M) {
        self.kernel
            .send(self.slot, Receiver::Agent(to.into()), body);
    }

    /// Sends a message to the sender of the mail that the agent is handling, which is the last that
    /// it took out of its inbox; subscribers get a copy.
    ///
    /// The sender of an alarm is the agent that set it, so a reply to one's own alarm comes back. A
    /// reply to mail of main is for main, which [`run_with`](crate::Scheduler::run_with) listens
    /// to. Where the agent has not taken any mail in this call, as in `setup`, a reply ends the run
    /// with [`Error::NothingToReplyTo`].
    #[inline]
    pub fn reply(&mut self, body: M) {
        match self.sender {
            AgentId::NOBODY => self.reply_to_nobody(),
            sender => self.send(sender, body),
        }
    }

    #[cold]
    fn reply_to_nobody(&mut self) {
        let (agent, time) = (self.id(), self.now());
        self.fail(Error::NothingToReplyTo { agent, time });
    }

    /// Sends a message to an agent, without copies to subscribers.
    #[inline]
    pub fn send_direct(&mut self, to: impl Into<AgentId>, body: M) {
        self.kernel
            .send(self.slot, Receiver::Direct(to.into()), body);
    }

    /// Sends a message to all agents with a matching subscription.
    #[inline]
    pub fn broadcast(&mut self, body: M) {
        self.kernel.send(self.slot, Receiver::Subscribers, body);
    }

    // ---- alarms

    /// Sends a message to the agent itself, `delay` from now.
    #[inline]
    pub fn alarm_in(&mut self, delay: SimDuration, body: M) -> AlarmId {
        self.set_alarm(Alarm::after(delay), body)
    }

    /// Sends a message to the agent itself at `time`; in this instant, if that is past.
    #[inline]
    pub fn alarm_at(&mut self, time: SimTime, body: M) -> AlarmId {
        self.set_alarm(Alarm::at(time), body)
    }

    /// Sends a message later: `alarm` says when, and to which receiver.
    ///
    /// An alarm beyond the end of simulated time ends the run with [`Error::TimeOverflow`].
    #[inline(always)]
    pub fn set_alarm(&mut self, alarm: Alarm, body: M) -> AlarmId {
        let now = self.kernel.now;
        let time = match alarm.when {
            When::At(time) if time < now => {
                self.kernel.counters.alarms_late += 1;
                now
            }
            When::At(time) => time,
            When::After(delay) => match now.checked_add(delay) {
                Some(time) => time,
                None => self.overflow(delay),
            },
        };
        let receiver = match alarm.receiver {
            Some(receiver) => receiver,
            None => Receiver::Agent(self.id()),
        };
        if let Some(period) = alarm.period {
            return self.set_periodic(alarm, time, period, receiver, body);
        }
        self.kernel
            .set_alarm(self.slot, time, alarm.required, receiver, body)
    }

    #[inline(never)]
    fn set_periodic(
        &mut self,
        alarm: Alarm,
        time: SimTime,
        period: SimDuration,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        if period.is_zero() {
            let (agent, time) = (self.id(), self.now());
            self.fail(Error::ZeroPeriod { agent, time });
        }
        let required = alarm.required;
        self.kernel
            .set_periodic(self.slot, (time, period), required, receiver, body)
    }

    /// Ends the run with an error of this agent.
    fn fail(&mut self, error: Error) {
        let index = self.kernel.slots[self.slot as usize].index;
        let superstep = self.kernel.superstep;
        let place = self.kernel.place(superstep, FailureStage::Update, index, 0);
        self.kernel.fail(place, error);
        if self.kernel.is_guarded {
            // As a panic, it ends the update here: nothing that comes after the failure happens.
            std::panic::resume_unwind(Box::new("the error is noted in the kernel"));
        }
    }

    #[cold]
    fn overflow(&mut self, delay: SimDuration) -> SimTime {
        let (agent, time) = (self.id(), self.now());
        self.fail(Error::TimeOverflow { agent, time, delay });
        SimTime::MAX
    }

    /// Clears an alarm of this agent. False if it fired or was cleared before. A periodic one ends;
    /// if it has fired and its mail has not been taken yet, that mail is its last.
    pub fn clear_alarm(&mut self, id: AlarmId) -> bool {
        let setter = self.id();
        self.kernel.clear_alarm(setter, id)
    }

    /// Clears the alarms of this agent that the filter names, and tells how many they were.
    pub fn clear_alarms(&mut self, filter: AlarmFilter) -> usize {
        let setter = self.id();
        self.kernel.clear_alarms(Some(setter), filter)
    }

    /// The pending alarms of this agent that the filter names, in the order they will fire.
    pub fn alarms(&mut self, filter: AlarmFilter) -> Vec<PendingAlarm> {
        let setter = self.id();
        self.kernel.list_alarms(Some(setter), filter)
    }

    // ---- subscriptions

    /// Listens to mail like this from now on, that of this superstep included. Doing so twice
    /// changes nothing.
    pub fn subscribe(&mut self, pattern: Pattern) {
        self.kernel.subscribe(self.slot, pattern);
    }

    /// No longer listens to mail like this, that of this superstep included.
    pub fn unsubscribe(&mut self, pattern: Pattern) {
        self.kernel.unsubscribe(self.slot, pattern);
    }

    /// No longer listens to anything.
    pub fn unsubscribe_all(&mut self) {
        let patterns: Vec<_> = self.subscriptions().collect();
        for pattern in patterns {
            self.unsubscribe(pattern);
        }
    }

    /// Returns the subscriptions of this agent.
    pub fn subscriptions(&self) -> impl Iterator<Item = Pattern> + '_ {
        self.kernel.mailing_list.subscriptions(self.slot)
    }

    // ---- life

    /// Adds an agent. It exists for the mail of this superstep and is awake in the next one.
    ///
    /// An id that is taken, or was ever used, ends the run with [`Error::DuplicateAgent`].
    pub fn add(&mut self, id: impl Into<AgentId>, agent: impl Agent<M>) {
        let entry = &self.kernel.slots[self.slot as usize];
        self.births.push(Birth {
            adder: entry.index,
            by: entry.id,
            id: id.into(),
            agent: Box::new(agent),
        });
    }

    /// Removes an agent, or this one: in the next superstep `teardown` takes the place of its
    /// update, and mail that it has not read becomes undeliverable. Removing it twice changes
    /// nothing; removing one that never was ends the run with [`Error::RemovedUnknown`].
    pub fn remove(&mut self, id: impl Into<AgentId>) {
        let entry = &self.kernel.slots[self.slot as usize];
        let (by, index) = (entry.id, entry.index);
        self.kernel.removals.push((id.into(), by, index));
    }

    /// Asks for an update in every superstep there is, mail or not; or no longer. This makes no
    /// supersteps and does not keep the run from being idle.
    pub fn keep_awake(&mut self, keep: bool) {
        self.kernel.keep_awake(self.slot, keep);
    }

    /// Ends the run after this superstep. A later run goes on as if nothing had been.
    pub fn stop_run(&mut self) {
        let entry = &self.kernel.slots[self.slot as usize];
        let reason = (entry.index, StopReason::StoppedByAgent(entry.id));
        self.kernel.stopped_by.get_or_insert(reason);
        self.kernel.unseen = true;
    }

    /// Reports an error that is no reason to panic. The run goes on, unless it was told to
    /// [stop at one](crate::Run::stop_at_error), and its report has it. What is reported in
    /// `teardown` at the end of the simulation goes nowhere, as mail does.
    pub fn report_error(&mut self, error: impl fmt::Display) {
        self.kernel.report_error(self.slot, error.to_string());
    }

    /// The agent's own generator; see [`AgentRng`]. Draw with [`rand::RngExt`].
    #[inline]
    pub fn rng(&mut self) -> &mut AgentRng {
        let (seed, entry) = (self.kernel.seed, &mut self.kernel.slots[self.slot as usize]);
        entry
            .rng
            .get_or_insert_with(|| Box::new(AgentRng::new(seed, entry.id)))
    }
}

/// An agent that another one added, before it has a slot.
pub(crate) struct Birth<M: Message> {
    pub(crate) adder: u64,
    pub(crate) by: AgentId,
    pub(crate) id: AgentId,
    pub(crate) agent: Box<dyn Agent<M>>,
}

impl<M: Message> fmt::Debug for Birth<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Birth")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<M: Message> Birth<M> {
    pub(crate) fn adder(&self, time: SimTime) -> Adder {
        Adder::Agent(self.by, time)
    }
}
