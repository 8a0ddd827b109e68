//! Alarms as an agent sets, names and lists them.

use serde::{Deserialize, Serialize};

use crate::alarm_queue::{AlarmId, Pending};
use crate::message::{Envelope, FOREIGN, MailKey, Message, Receiver};
use crate::periodic::Periodic;
use crate::{AgentId, SimDuration, SimTime, Topic};

/// When an alarm is due, its receiver, and whether an idle run in real time waits for it.
///
/// ```
/// use maslite_core::{Alarm, AgentId, SimDuration, SimTime};
/// let to_the_crane = Alarm::after(SimDuration::from_millis(750)).to(AgentId::from("crane"));
/// let at_noon_if_still_running = Alarm::at(SimTime::from_hours(12)).optional();
/// let each_minute = Alarm::every(SimDuration::from_minutes(1));
/// # let _ = (to_the_crane, at_noon_if_still_running, each_minute);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub(crate) when: When,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) required: bool,
    pub(crate) period: Option<SimDuration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    After(SimDuration),
    At(SimTime),
}

impl Alarm {
    /// Due `delay` from now, to the agent that sets it. With no delay: in this instant, after all
    /// mail of it.
    #[must_use]
    pub fn after(delay: SimDuration) -> Self {
        Self {
            when: When::After(delay),
            receiver: None,
            required: true,
            period: None,
        }
    }

    /// Due at `time`, to the agent that sets it; now, if that is past.
    #[must_use]
    pub fn at(time: SimTime) -> Self {
        Self {
            when: When::At(time),
            receiver: None,
            required: true,
            period: None,
        }
    }

    /// Due again and again, `period` apart, to the agent that sets it; the first time one `period`
    /// from now. It goes on until it is cleared with the [`AlarmId`](crate::AlarmId) of its
    /// setting, or its agent is removed.
    ///
    /// It is set again when its agent takes its mail out of the inbox, before
    /// [`receive`](crate::Agent::receive) is called; if it is [for others](Self::to), when it
    /// fires. It keeps its pace: it is due at the first time plus a whole number of periods, and
    /// times that have passed meanwhile are left out. It ends with simulated time. A run
    /// [until idle](crate::Run::until_idle) does not end by itself while one is pending.
    ///
    /// A period of zero ends the run with [`Error::ZeroPeriod`](crate::Error::ZeroPeriod).
    ///
    /// ```
    /// use maslite_core::{Agent, Alarm, AlarmId, Context, Mail, Run, Scheduler, SimDuration, SimTime};
    /// # #[derive(Clone, maslite_core::Message)] enum Msg { Tick }
    /// struct Clock { ticks: u32, alarm: Option<AlarmId> }
    ///
    /// impl Agent<Msg> for Clock {
    ///     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
    ///         let each_second = Alarm::every(SimDuration::from_secs(1)).first_at(SimTime::from_secs(10));
    ///         self.alarm = Some(ctx.set_alarm(each_second, Msg::Tick));
    ///     }
    ///     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
    ///         self.ticks += 1;
    ///         if self.ticks == 5 && let Some(alarm) = self.alarm {
    ///             ctx.clear_alarm(alarm);
    ///         }
    ///     }
    /// }
    ///
    /// let mut scheduler = Scheduler::new();
    /// scheduler.add("clock", Clock { ticks: 0, alarm: None })?;
    /// let report = scheduler.run(Run::until_idle())?;
    /// assert_eq!(report.now, SimTime::from_secs(14));
    /// # Ok::<(), maslite_core::Error>(())
    /// ```
    #[must_use]
    pub fn every(period: SimDuration) -> Self {
        Self {
            period: Some(period),
            ..Self::after(period)
        }
    }

    /// Sets the first time of the alarm: `time`, or now if `time` is in the past.
    #[must_use]
    pub fn first_at(mut self, time: SimTime) -> Self {
        self.when = When::At(time);
        self
    }

    /// Sets the first time of the alarm: `delay` from now.
    #[must_use]
    pub fn first_in(mut self, delay: SimDuration) -> Self {
        self.when = When::After(delay);
        self
    }

    /// Sets the receiver of the alarm: another agent, or a broadcast.
    #[must_use]
    pub fn to(mut self, receiver: impl Into<Receiver>) -> Self {
        self.receiver = Some(receiver.into());
        self
    }

    /// Makes the alarm optional: a run in real time ends without waiting for it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}

/// Which alarms: all of the asking agent, or those for one receiver, about one topic, or both.
///
/// ```
/// use maslite_core::AlarmFilter;
/// let reminders_for_the_crane = AlarmFilter::all().to(maslite_core::AgentId::from(7)).about("Reminder");
/// # let _ = reminders_for_the_crane;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmFilter {
    receiver: Option<Receiver>,
    topic: Option<Topic>,
}

impl AlarmFilter {
    /// Every alarm.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Of these, the ones for `receiver`.
    #[must_use]
    pub fn to(mut self, receiver: impl Into<Receiver>) -> Self {
        self.receiver = Some(receiver.into());
        self
    }

    /// Of these, the ones about `topic`.
    #[must_use]
    pub fn about(mut self, topic: impl Into<Topic>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    pub(crate) fn matches<M: Message>(&self, alarm: &Pending<Envelope<M>>) -> bool {
        self.receiver
            .is_none_or(|receiver| receiver == alarm.load.receiver())
            && !alarm.load.is(FOREIGN)
            && self.topic.is_none_or(|topic| topic == alarm.load.topic())
    }

    /// Whether it names this alarm.
    #[must_use]
    pub fn includes(&self, alarm: &PendingAlarm) -> bool {
        self.names(alarm.receiver, alarm.topic)
    }

    /// Whether it names alarms for this receiver about this topic.
    pub(crate) fn names(&self, to: Receiver, about: Topic) -> bool {
        self.receiver.is_none_or(|receiver| receiver == to)
            && self.topic.is_none_or(|topic| topic == about)
    }
}

/// A pending alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PendingAlarm {
    /// The handle it can be cleared with.
    pub id: AlarmId,
    /// When it is due.
    pub time: SimTime,
    /// The agent that set it.
    pub setter: AgentId,
    /// Its receiver.
    pub receiver: Receiver,
    /// Its topic.
    pub topic: Topic,
    /// How long after this time it is due again, if it is periodic.
    pub period: Option<SimDuration>,
    /// Its place among the alarms that are due at the same time.
    key: MailKey,
}

impl PendingAlarm {
    /// Its place in the order in which alarms fire.
    #[must_use]
    pub(crate) fn place(&self) -> (SimTime, MailKey) {
        (self.time, self.key)
    }

    /// An alarm of the queue, and the periodic alarm that it stands for.
    pub(crate) fn new<M: Message>(
        id: AlarmId,
        alarm: &Pending<Envelope<M>>,
        periodic: Option<&Periodic>,
    ) -> Self {
        Self {
            id: periodic.map_or(id, |periodic| periodic.handle),
            period: periodic.map(|periodic| periodic.period),
            key: alarm.load.key,
            time: alarm.time,
            setter: alarm.load.sender,
            receiver: alarm.load.receiver(),
            topic: alarm.load.topic(),
        }
    }
}
