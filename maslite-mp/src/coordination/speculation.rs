//! How main lets clusters run ahead of what is final.
//!
//! Between two instants every cluster may do instants of its own, and keeps the way back. One that
//! would have something for others stops before that instant: it is *blocked* there. When all
//! reports are in, the event horizon is the least time at which any cluster stands, with what it
//! has not done yet. All before the horizon is final, since nothing can come from anywhere before
//! it. What others have done at the horizon or behind it stays, unless something comes for them.
//!
//! A report of a cluster that ran ahead tells what is final, as any report does, and beside that
//! what was done ahead. So main may forget the latter at any time: a cluster that gets a grant of
//! another task goes back to where main stands.
//!
//! Source: Steinman, "SPEEDES: synchronous parallel environment for emulation and discrete event
//! simulation", 1991, and "Breathing time warp", 1993, without anti-messages.

use maslite_core::SimTime;

use crate::cluster::registry::WireMessage;
use crate::coordination::forecasts::Forecasts;
use crate::coordination::rounds::{Places, Rounds};
use crate::coordination::state::Standing;
use crate::error::Error;
use crate::protocol::wire::{Report, Task};

/// More supersteps than a run can do: it has no limit.
const UNLIMITED: u64 = u64::MAX / 2;

impl Standing {
    /// Before this time all lines of the trace have come from all clusters.
    pub(crate) fn has_lines_before(&self) -> Option<SimTime> {
        self.owed.iter().flatten().min().copied()
    }
}

/// When the next thing happens in a cluster that it has not done yet.
fn next_undone(report: &Report) -> Option<SimTime> {
    match report.ahead.is_blank() {
        true => report.next_alarm,
        false => report.ahead.then,
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Takes what is final by now for done, and lets clusters run ahead if that may pay. True if
    /// there was a round.
    pub(super) fn speculate(&mut self) -> Result<bool, Error> {
        if self.pace.is_none() {
            return Ok(false);
        }
        self.forget_what_changes();
        let reports = self.standing.reports.iter().flatten();
        let forecasts = self.standing.forecasts.iter();
        let first_due = forecasts.filter_map(Forecasts::first_due);
        let horizon = reports.filter_map(next_undone).chain(first_due).min();
        let gained = self.make_final(horizon);
        for place in 0..self.clusters.list.len() {
            self.hand_over_forecasts(place, horizon)?;
        }
        self.note_gain(gained);
        if self.standing.withdraws {
            // Before anything else happens.
            return Ok(true);
        }
        let Some(horizon) = horizon.filter(|horizon| *horizon > self.standing.time) else {
            return Ok(false);
        };
        if !self.may_speculate(horizon) {
            return Ok(false);
        }
        let until = self.end;
        let Some(pace) = &mut self.pace else {
            return Ok(false);
        };
        if !pace.is_ready() {
            return Ok(false);
        }
        let (instants, bytes) = pace.budget();
        let able: Places = (0..self.clusters.list.len())
            .filter(|place| self.can_run_ahead(*place, instants))
            .collect();
        if able.len() < 2 {
            // Where others are far ahead already, one that catches up is no sign that it does not pay.
            let is_ahead = |report: &Report| !report.ahead.instants.is_empty();
            if !self.standing.reports.iter().flatten().any(is_ahead)
                && let Some(pace) = &mut self.pace
            {
                pace.note(0, 0, false);
            }
            return Ok(false);
        }
        let task = Task::Speculate {
            until,
            instants,
            bytes,
        };
        self.round(&able, task)?;
        if !self.interrupted {
            let are_short = able.iter().all(|place| {
                let ahead = &self.report(*place).ahead;
                !ahead.is_blocked && ahead.instants.len() as u64 >= instants
            });
            self.ran_ahead = Some(are_short);
            self.standing.wasted = 0;
        }
        Ok(true)
    }

    /// Forgets what clusters have done ahead that are yet to hear something that changes it.
    fn forget_what_changes(&mut self) {
        let inbound = self.routing.inbound.iter();
        let reports = self.standing.reports.iter_mut();
        let held = self.standing.forecasts.iter_mut();
        for ((report, forecasts), inbound) in reports.zip(held).zip(inbound) {
            if let Some(report) = report
                && !(inbound.mails == 0 && inbound.news.leaves_all_as_it_is())
            {
                self.standing.wasted += report.ahead.instants.len();
                report.ahead.take();
                *forecasts = Forecasts::default();
            }
        }
    }

    /// Whether clusters may run ahead from here on: no limit counts supersteps, no predicate looks
    /// at each of them, no agent wants to take part in all, and the cluster that is next may do it
    /// ahead.
    fn may_speculate(&self, horizon: SimTime) -> bool {
        let all_may = |report: &Report| {
            let is_next = report.ahead.is_blocked && report.ahead.then == Some(horizon);
            !report.kept_awake && !report.waiting && !is_next
        };
        self.predicate.is_none()
            && self.supersteps > UNLIMITED
            && self.end.is_none_or(|end| horizon < end)
            && self.standing.reports.iter().flatten().all(all_may)
    }

    /// Whether a cluster has something that it may do ahead.
    fn can_run_ahead(&self, place: usize, instants: u64) -> bool {
        let report = self.report(place);
        let is_full = report.ahead.instants.len() as u64 >= instants;
        let next = next_undone(report);
        let has_next = next.is_some_and(|next| self.end.is_none_or(|end| next < end));
        has_next
            && !is_full
            && !report.ahead.is_blocked
            && self.routing.inbound[place].mails == 0
            && self.clusters.dropped(place).is_none()
    }

    /// Tells the pace what the last round came to.
    fn note_gain(&mut self, gained: usize) {
        if let Some(was_short) = self.ran_ahead.take()
            && let Some(pace) = &mut self.pace
        {
            pace.note(gained, self.standing.wasted, was_short);
        }
    }

    /// Takes for done what was done ahead before the horizon; without one, all of it. Main stands
    /// behind the last instant of that. Tells how many instants that were beyond those that one
    /// cluster could have done alone.
    fn make_final(&mut self, horizon: Option<SimTime>) -> usize {
        let mut most = 0;
        let mut done: Vec<(SimTime, u64)> = Vec::new();
        for (place, report) in self.standing.reports.iter_mut().enumerate() {
            let Some(report) = report.as_mut().filter(|it| !it.ahead.is_blank()) else {
                continue;
            };
            let is_final =
                |(instant, _): &(SimTime, u64)| horizon.is_none_or(|horizon| *instant < horizon);
            let count = report.ahead.instants.partition_point(is_final);
            if count == 0 {
                continue;
            }
            let owed = &mut self.standing.owed[place];
            *owed = owed.or(Some(report.ahead.instants[0].0));
            most = most.max(count);
            done.extend(report.ahead.instants.drain(..count));
            let next = report.ahead.instants.first().map(|(instant, _)| *instant);
            report.next_alarm = next.or(report.ahead.then);
        }
        done.sort_unstable();
        let gained = done.len() - most;
        // Clusters that were at work in one instant did their supersteps at the same time.
        let last = done.iter().zip(done.iter().skip(1).map(Some).chain([None]));
        let supersteps = last
            .filter(|(one, next)| next.is_none_or(|next| next.0 != one.0))
            .map(|((_, supersteps), _)| supersteps)
            .sum();
        self.supersteps = self.supersteps.saturating_sub(supersteps);
        self.standing.supersteps += supersteps;
        if let Some((instant, supersteps)) = done.last() {
            self.standing.time = *instant;
            self.standing.superstep = *supersteps;
        }
        gained
    }

    /// Has clusters tell of what they have done ahead and is final by now.
    pub(super) fn collect_owed(&mut self) -> Result<(), Error> {
        let owing: Places = (0..self.clusters.list.len())
            .filter(|place| self.standing.owed[*place].is_some() && !self.failed.contains(place))
            .collect();
        self.round(&owing, Task::Post)
    }
}
