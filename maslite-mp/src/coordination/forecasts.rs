//! Alarms for agents of other clusters that are forecast, as main holds them until the instant is
//! final in which they were set.

use std::mem;
use std::ops::Range;

use maslite_core::{AgentId, Receiver, SimTime};

use crate::error::message_fault::MessageFault;
use crate::protocol::wire::{self, MailHead};

/// What a cluster has forecast and is not final yet, in the order in which it was set.
#[derive(Debug, Default)]
pub(crate) struct Forecasts {
    bytes: Vec<u8>,
    alarms: Vec<Forecast>,
}

#[derive(Debug)]
pub(super) struct Forecast {
    set_at: SimTime,
    pub(super) due: SimTime,
    pub(super) receiver: Receiver,
    bytes: Range<usize>,
}

impl Forecasts {
    /// Reads what a report says. All of it is due after `time`.
    ///
    /// # Errors
    /// [`MessageFault`] if it cannot be true.
    pub(super) fn read(bytes: Vec<u8>, time: SimTime) -> Result<Self, MessageFault> {
        let mut alarms: Vec<Forecast> = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let start = bytes.len() - rest.len();
            let head =
                wire::take_measured(&mut rest).and_then(|mail| MailHead::take(&mut &mail[..]));
            let head = head.map_err(|_| MessageFault::Batch)?;
            let set_at = head.key.sent_at();
            let last = alarms.last().map_or(SimTime::ZERO, |last| last.set_at);
            if head.arrives <= set_at.max(time) || set_at < last {
                return Err(MessageFault::Arrival);
            }
            let receiver = head.receiver.agent().filter(|id| *id != AgentId::MAIN);
            if receiver.is_none() || head.is_copy {
                return Err(MessageFault::Receiver);
            }
            alarms.push(Forecast {
                set_at,
                due: head.arrives,
                receiver: head.receiver,
                bytes: start..bytes.len() - rest.len(),
            });
        }
        Ok(Self { bytes, alarms })
    }

    /// Each of them, with its mail.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Forecast, &[u8])> {
        let alarms = self.alarms.iter();
        alarms.map(|alarm| (alarm, &self.bytes[alarm.bytes.clone()]))
    }

    /// When the first of them is due.
    pub(super) fn first_due(&self) -> Option<SimTime> {
        self.alarms.iter().map(|alarm| alarm.due).min()
    }

    /// Forgets those that were set at `time` or later.
    pub(super) fn cut(&mut self, time: SimTime) {
        let count = self.alarms.partition_point(|alarm| alarm.set_at < time);
        self.alarms.truncate(count);
        let end = self.alarms.last().map_or(0, |last| last.bytes.end);
        self.bytes.truncate(end);
    }

    pub(super) fn append(&mut self, later: Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&later.bytes);
        self.alarms
            .extend(later.alarms.into_iter().map(|alarm| Forecast {
                bytes: alarm.bytes.start + start..alarm.bytes.end + start,
                ..alarm
            }));
    }

    /// Takes those that were set before `time`, or all.
    pub(super) fn take_before(&mut self, time: Option<SimTime>) -> Self {
        let count = match time {
            Some(time) => self.alarms.partition_point(|alarm| alarm.set_at < time),
            None => self.alarms.len(),
        };
        if count == self.alarms.len() {
            return mem::take(self);
        }
        let later = self.alarms.split_off(count);
        let end = self.alarms.last().map_or(0, |last| last.bytes.end);
        let later_bytes = self.bytes.split_off(end);
        let taken = mem::take(self);
        self.bytes = later_bytes;
        self.alarms = later
            .into_iter()
            .map(|alarm| Forecast {
                bytes: alarm.bytes.start - end..alarm.bytes.end - end,
                ..alarm
            })
            .collect();
        taken
    }
}

#[cfg(test)]
mod tests {
    use maslite_core::internal::MailKey;

    use super::*;

    const MAIN: Receiver = Receiver::Agent(AgentId::MAIN);

    fn at(millis: u64) -> SimTime {
        SimTime::from_millis(millis)
    }

    fn other() -> Receiver {
        Receiver::Agent(AgentId::from(7_u64))
    }

    fn write(bytes: &mut Vec<u8>, set_at: u64, due: u64, receiver: Receiver, is_copy: bool) {
        let head = MailHead {
            key: MailKey::of_agent(at(set_at), 1, 2),
            sender: AgentId::from(5_u64),
            receiver,
            arrives: at(due),
            left: at(set_at),
            is_copy,
        };
        wire::put_mail(&head, &set_at, bytes).unwrap();
    }

    /// Alarms that are set at these times, each due one second later.
    fn forecasts(set_at: &[u64]) -> Forecasts {
        let mut bytes = Vec::new();
        for time in set_at {
            write(&mut bytes, *time, time + 1_000, other(), false);
        }
        Forecasts::read(bytes, SimTime::ZERO).unwrap()
    }

    /// When they were set, as their bytes say.
    fn told(forecasts: &Forecasts) -> Vec<u64> {
        let read = |alarm: &Forecast| {
            let mut bytes = &forecasts.bytes[alarm.bytes.clone()];
            let (head, mail) = wire::take_mail::<u64>(&mut bytes).unwrap();
            assert_eq!(head.key.sent_at(), alarm.set_at);
            mail.body
        };
        forecasts.alarms.iter().map(read).collect()
    }

    #[test]
    fn what_is_final_is_taken_and_what_is_undone_is_forgotten() {
        let mut held = forecasts(&[1, 2, 2, 5]);
        assert_eq!(held.first_due(), Some(at(1_001)));
        assert_eq!(told(&held.take_before(Some(at(2)))), [1]);
        assert_eq!(told(&held), [2, 2, 5]);
        held.append(forecasts(&[6, 7]));
        held.cut(at(6));
        assert_eq!(told(&held), [2, 2, 5]);
        held.append(forecasts(&[8]));
        assert_eq!(told(&held.take_before(Some(at(5)))), [2, 2]);
        assert_eq!(held.first_due(), Some(at(1_005)));
        assert_eq!(told(&held.take_before(None)), [5, 8]);
        assert_eq!((told(&held), held.first_due()), (vec![], None));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let read = |set_at, due, receiver, is_copy| {
            let mut bytes = Vec::new();
            write(&mut bytes, 3, 9, other(), false);
            write(&mut bytes, set_at, due, receiver, is_copy);
            Forecasts::read(bytes, at(8)).map(|it| it.alarms.len())
        };
        assert_eq!(read(3, 9, other(), false), Ok(2));
        assert_eq!(read(2, 9, other(), false), Err(MessageFault::Arrival));
        assert_eq!(read(3, 8, other(), false), Err(MessageFault::Arrival));
        assert_eq!(read(9, 9, other(), false), Err(MessageFault::Arrival));
        assert_eq!(read(3, 9, MAIN, false), Err(MessageFault::Receiver));
        let subscribers = Receiver::Subscribers;
        assert_eq!(read(3, 9, subscribers, false), Err(MessageFault::Receiver));
        assert_eq!(read(3, 9, other(), true), Err(MessageFault::Receiver));
        let mut bytes = Vec::new();
        write(&mut bytes, 3, 9, other(), false);
        for length in 1..bytes.len() {
            let cut = Forecasts::read(bytes[..length].to_vec(), at(8));
            assert_eq!(cut.map(|it| it.alarms.len()), Err(MessageFault::Batch));
        }
    }
}
