//! Alarms for agents of other clusters are forecast: main hands them over as soon as the instant is
//! final in which they were set.
//!
//! The cluster in which an alarm was set keeps it, and counts it. The copy in the receiver's cluster
//! fires there at the same instant. Where a copy would be wrong, since its alarm was cleared or
//! since others begin to listen, main has all copies withdrawn before the next instant: the alarms
//! then fire where they were set, and leave as all other mail does.

use std::mem;

use maslite_core::{Receiver, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::forecasts::Forecasts;
use crate::coordination::rounds::{Places, Rounds};
use crate::coordination::routing::Traffic;
use crate::error::Error;
use crate::protocol::wire::{DoneAhead, Task};

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
        for (alarm, mail) in ready.iter() {
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
                    let from = Traffic::place_of(place);
                    self.routing.note_forecast(from, to, mail.len(), alarm.due);
                    self.clusters.relay(to as usize, mail, self.standing.time)?;
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
