//! Alarms for agents of other clusters are forecast: main hands them over as soon as the instant is
//! final in which they were set.
//!
//! The cluster in which an alarm was set keeps it, and counts it. The copy in the receiver's cluster
//! fires there at the same instant. Where a copy would be wrong, since its alarm was cleared or
//! since others begin to listen, main has all copies withdrawn before the next instant: the alarms
//! then fire where they were set, and leave as all other mail does.

use std::mem;
use std::ops::Range;

use maslite_core::{AgentId, Receiver, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::rounds::{Places, Rounds};
use crate::coordination::routing::Traffic;
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::protocol::wire::{self, DoneAhead, MailHead, Task};

/// What a cluster has forecast and is not final yet, in the order in which it was set.
#[derive(Debug, Default)]
pub(crate) struct Forecasts {
    bytes: Vec<u8>,
    alarms: Vec<Forecast>,
}

#[derive(Debug)]
struct Forecast {
    set_at: SimTime,
    due: SimTime,
    receiver: Receiver,
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

    fn append(&mut self, later: Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&later.bytes);
        self.alarms
            .extend(later.alarms.into_iter().map(|alarm| Forecast {
                bytes: alarm.bytes.start + start..alarm.bytes.end + start,
                ..alarm
            }));
    }

    /// Takes those that were set before `time`, or all.
    fn take_before(&mut self, time: Option<SimTime>) -> Self {
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

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Keeps what a cluster has forecast, and hands over what is final of it.
    pub(super) fn keep_forecasts(
        &mut self,
        place: usize,
        ahead: &DoneAhead,
        fresh: Forecasts,
    ) -> Result<(), Error> {
        let held = &mut self.standing.forecasts[place];
        // What it has undone, it forecasts again.
        let kept = usize::try_from(ahead.kept).unwrap_or(usize::MAX);
        match ahead.instants.get(kept) {
            Some((first_new, _)) if kept > 0 => held.cut(*first_new),
            None if kept > 0 => {}
            _ => *held = Forecasts::default(),
        }
        held.append(fresh);
        let not_final = ahead.instants.first().map(|(instant, _)| *instant);
        self.hand_over_forecasts(place, not_final)
    }

    /// Hands over what a cluster has forecast in instants before `time`, or in all.
    pub(super) fn hand_over_forecasts(
        &mut self,
        place: usize,
        time: Option<SimTime>,
    ) -> Result<(), Error> {
        let ready = self.standing.forecasts[place].take_before(time);
        for alarm in &ready.alarms {
            let owner = alarm.receiver.agent().and_then(|id| self.routing.owner(id));
            let is_for_one =
                matches!(alarm.receiver, Receiver::Direct(_)) || !self.routing.has_listeners();
            // A cluster that comes back from its saved state has no copies.
            let keeps_copies = |to: &u32| {
                let to = *to as usize;
                to != place && self.clusters.list[to].kept.is_none()
            };
            match owner.filter(|to| is_for_one && keeps_copies(to)) {
                Some(to) => {
                    let bytes = &ready.bytes[alarm.bytes.clone()];
                    let from = Traffic::place_of(place);
                    self.routing.note_forecast(from, to, bytes.len(), alarm.due);
                    self.clusters
                        .relay(to as usize, bytes, self.standing.time)?;
                    self.expect(to as usize, alarm.due);
                    self.standing.has_forecasts = true;
                }
                None => self.standing.withdraws = true,
            }
        }
        Ok(())
    }

    /// A cluster has something to do at `due` that it has not been told yet. What it has done at
    /// that time or later does not stay.
    pub(super) fn expect(&mut self, place: usize, due: SimTime) {
        let Some(report) = &mut self.standing.reports[place] else {
            return;
        };
        report.next_alarm = Some(report.next_alarm.map_or(due, |time| time.min(due)));
        if report.ahead.is_blank() {
            return;
        }
        let ahead = &mut *report.ahead;
        let count = ahead.instants.partition_point(|(time, _)| *time < due);
        self.standing.wasted += ahead.instants.len() - count;
        if count < ahead.instants.len() || ahead.then.is_none_or(|then| due <= then) {
            ahead.instants.truncate(count);
            (ahead.then, ahead.is_blocked) = (Some(due), false);
            self.standing.forecasts[place].cut(due);
        }
    }

    /// Has all forecasts withdrawn, if they are wrong. True if there was a round.
    pub(super) fn withdraw_forecasts(&mut self) -> Result<bool, Error> {
        if !mem::take(&mut self.standing.withdraws) {
            return Ok(false);
        }
        self.standing.has_forecasts = false;
        let reports = self.standing.reports.iter_mut();
        for (report, held) in reports.flatten().zip(&mut self.standing.forecasts) {
            report.ahead.take();
            *held = Forecasts::default();
        }
        let all: Places = (0..self.clusters.list.len()).collect();
        self.round(&all, Task::Withdraw)?;
        Ok(true)
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
