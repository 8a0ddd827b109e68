//! Which pending alarms are periodic, and when each is due next.
//!
//! A periodic alarm is one alarm after the other in the queue of alarms, each with a place of its
//! own. This table knows which alarm of the queue stands for which periodic one, so that it keeps
//! the handle that its agent got at first.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

use rustc_hash::FxHashMap;

use crate::alarm_queue::AlarmId;
use crate::message::Receiver;
use crate::{AgentId, SimDuration, SimTime, Topic};

/// The periodic alarms of one scheduler.
#[derive(Debug, Default)]
pub(crate) struct Periodics {
    /// By place; none where the alarm has ended.
    kept: Vec<Option<Periodic>>,
    free: Vec<u32>,
    /// By the agent that set it and the sequence number of its handle.
    by_handle: BTreeMap<(AgentId, u64), u32>,
    /// By the agent that set it and the sequence number of the alarm that stands for it now. It is
    /// looked up, never walked.
    by_current: FxHashMap<(AgentId, u64), u32>,
}

/// One periodic alarm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Periodic {
    /// The handle that its agent has.
    pub(crate) handle: AlarmId,
    /// The alarm that stands for it now: it is pending, or it has fired and is not set again yet.
    pub(crate) current: AlarmId,
    pub(crate) period: SimDuration,
    /// When the alarm that stands for it now is due.
    due: SimTime,
    pub(crate) receiver: Receiver,
    pub(crate) topic: Topic,
}

impl Periodic {
    /// A periodic alarm that the first alarm stands for.
    pub(crate) fn new(
        first: AlarmId,
        due: SimTime,
        period: SimDuration,
        receiver: Receiver,
        topic: Topic,
    ) -> Self {
        Self {
            handle: first,
            current: first,
            period,
            due,
            receiver,
            topic,
        }
    }

    /// When the alarm that stands for it now is due.
    pub(crate) fn due(&self) -> SimTime {
        self.due
    }

    /// The next time at which it is due, which is after `now`; those that were missed are left out.
    /// None beyond the end of time.
    pub(crate) fn next(&self, now: SimTime) -> Option<SimTime> {
        let periods = now.since(self.due) / self.period + 1;
        self.due.checked_add(self.period.checked_mul(periods)?)
    }
}

impl Periodics {
    /// Adds a periodic alarm.
    pub(crate) fn insert(&mut self, periodic: Periodic) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.kept.push(None);
            crate::narrow(self.kept.len() - 1)
        });
        self.by_handle.insert(periodic.handle.origin(), place);
        self.by_current.insert(periodic.current.origin(), place);
        self.kept[place as usize] = Some(periodic);
    }

    /// The periodic alarm that an alarm of the queue stands for.
    pub(crate) fn of(&self, current: (AgentId, u64)) -> Option<&Periodic> {
        let place = self.by_current.get(&current)?;
        self.kept[*place as usize].as_ref()
    }

    /// Has another alarm of the queue stand for the periodic one.
    pub(crate) fn renew(&mut self, before: (AgentId, u64), current: AlarmId, due: SimTime) {
        let Some(place) = self.by_current.remove(&before) else {
            return;
        };
        self.by_current.insert(current.origin(), place);
        if let Some(periodic) = &mut self.kept[place as usize] {
            periodic.current = current;
            periodic.due = due;
        }
    }

    /// The alarm of the queue that stands for a periodic one does not, after all.
    pub(crate) fn take_back(&mut self, current: (AgentId, u64), before: Periodic) {
        let Some(place) = self.by_current.remove(&current) else {
            return;
        };
        self.by_current.insert(before.current.origin(), place);
        self.kept[place as usize] = Some(before);
    }

    /// Ends the periodic alarm with this handle.
    pub(crate) fn end(&mut self, handle: AlarmId) -> Option<Periodic> {
        let place = self.by_handle.remove(&handle.origin())?;
        let ended = self.kept[place as usize].take()?;
        self.by_current.remove(&ended.current.origin());
        self.free.push(place);
        Some(ended)
    }

    /// The periodic alarms of one agent, or of all, in the order of agents and of their calls.
    pub(crate) fn of_setter(&self, setter: Option<AgentId>) -> impl Iterator<Item = &Periodic> {
        let bounds = match setter {
            Some(setter) => (Included((setter, 0)), Included((setter, u64::MAX))),
            None => (Unbounded, Unbounded),
        };
        let own = self.by_handle.range(bounds);
        own.filter_map(|(_, place)| self.kept[*place as usize].as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An alarm each second, first due after one.
    fn each_second() -> Periodic {
        let agent = AgentId::from(1);
        let time = SimTime::from_secs(1);
        let handle = AlarmId::of(agent, 7);
        let topic = Topic::new("Tick");
        Periodic::new(handle, time, SimDuration::from_secs(1), agent.into(), topic)
    }

    #[test]
    fn it_is_due_one_period_later_and_what_was_missed_is_left_out() {
        let tick = each_second();
        for (now_ms, next_s) in [(1_000, 2), (1_999, 2), (2_000, 3), (5_500, 6), (500, 2)] {
            let next = tick.next(SimTime::from_millis(now_ms));
            assert_eq!(next, Some(SimTime::from_secs(next_s)), "{now_ms}");
        }
        assert_eq!(tick.next(SimTime::MAX), None);
    }

    #[test]
    fn it_is_found_by_the_alarm_that_stands_for_it_and_ended_by_its_handle() {
        let (mut all, tick) = (Periodics::default(), each_second());
        let agent = AgentId::from(1);
        all.insert(tick);
        assert!(all.of((agent, 7)).is_some() && all.of((agent, 8)).is_none());
        assert_eq!(all.of_setter(Some(agent)).count(), 1);
        assert_eq!(all.of_setter(Some(AgentId::from(2))).count(), 0);
        assert!(all.end(tick.handle).is_some() && all.end(tick.handle).is_none());
        assert!(all.of((agent, 7)).is_none());
        // Its place is used again.
        all.insert(tick);
        assert_eq!((all.kept.len(), all.of_setter(None).count()), (1, 1));
    }
}
