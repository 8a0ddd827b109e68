//! Alarms as an agent sets, names and lists them.

use serde::{Deserialize, Serialize};

use crate::alarm_queue::{AlarmId, Pending};
use crate::message::{Envelope, FOREIGN, Message, Receiver};
use crate::{AgentId, SimDuration, SimTime, Topic};

/// When an alarm is due, whom it is for, and whether an idle run in real time waits for it.
///
/// ```
/// use maslite_core::{Alarm, AgentId, SimDuration, SimTime};
/// let to_the_crane = Alarm::after(SimDuration::from_millis(750)).to(AgentId::from("crane"));
/// let at_noon_if_still_running = Alarm::at(SimTime::from_secs(43_200)).optional();
/// # let _ = (to_the_crane, at_noon_if_still_running);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub(crate) when: When,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) required: bool,
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
        }
    }

    /// Due at `time`, to the agent that sets it; now, if that is past.
    #[must_use]
    pub fn at(time: SimTime) -> Self {
        Self {
            when: When::At(time),
            receiver: None,
            required: true,
        }
    }

    /// The same for another agent, or as a broadcast.
    #[must_use]
    pub fn to(mut self, receiver: impl Into<Receiver>) -> Self {
        self.receiver = Some(receiver.into());
        self
    }

    /// The same, but a run in real time ends without waiting for it.
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
}

/// A pending alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PendingAlarm {
    /// The handle it can be cleared with.
    pub id: AlarmId,
    /// When it is due.
    pub time: SimTime,
    /// Who set it.
    pub setter: AgentId,
    /// Whom it is for.
    pub receiver: Receiver,
    /// What it is about.
    pub topic: Topic,
}

impl PendingAlarm {
    pub(crate) fn new<M: Message>(id: AlarmId, alarm: &Pending<Envelope<M>>) -> Self {
        Self {
            id,
            time: alarm.time,
            setter: alarm.load.sender,
            receiver: alarm.load.receiver(),
            topic: alarm.load.topic(),
        }
    }
}
