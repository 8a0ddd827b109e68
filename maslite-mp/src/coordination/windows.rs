//! How main grants time under a lookahead: the clusters run at the same time.
//!
//! Mail between clusters takes at least the sender's lookahead. So a cluster may run up to the
//! earliest time at which any other could reach it: Hᵢ = min over j ≠ i of (nⱼ + Lⱼ), where nⱼ is
//! the time of the next event of j. Main is a cluster without a lookahead and without events of its
//! own, but for what is addressed to it or to agents that only it can find. Horizons are exclusive,
//! so mail that comes in is in time by construction.
//!
//! The last instant of time, [`SimTime::MAX`], has no time after it, so no exclusive horizon can
//! grant it, and mail between clusters that is sent in it or shortly before arrives in it. Main
//! grants the last instant when no cluster has an event before it: each cluster goes on until it
//! has nothing to do in it, then the mail that crosses arrives, and so on. Source: Chandy, Misra,
//! "Distributed simulation", 1979; the synchronous form with windows is due to Lubachevsky, 1989.

use maslite_core::{SimDuration, SimTime, StopReason};

use crate::cluster::registry::WireMessage;
use crate::coordination::births::in_order;
use crate::coordination::rounds::{Rounds, rank_of_stop};
use crate::coordination::state::{Births, UnderWay};
use crate::error::Error;
use crate::protocol::wire::Task;

/// The least and the second of some values, to tell the least of all but one.
struct TwoLeast<T> {
    least: Option<(T, usize)>,
    second: Option<T>,
}

impl<T: Ord + Copy> TwoLeast<T> {
    fn of(values: impl Iterator<Item = Option<T>>) -> Self {
        let mut this = Self {
            least: None,
            second: None,
        };
        for (place, value) in values.enumerate() {
            let Some(value) = value else { continue };
            match this.least {
                Some((least, _)) if least <= value => {
                    this.second = Some(this.second.map_or(value, |second| second.min(value)));
                }
                before => {
                    this.second = before.map(|(least, _)| least);
                    this.least = Some((value, place));
                }
            }
        }
        this
    }

    /// The least of all but that in one place.
    fn but(&self, place: usize) -> Option<T> {
        match self.least {
            Some((_, least)) if least == place => self.second,
            least => least.map(|(value, _)| value),
        }
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Runs until something ends it; all clusters then stand at one instant.
    pub(crate) fn run_windows(&mut self) -> Result<StopReason, Error> {
        // A stop that is not tied to a time: all go on to the latest time that any has reached.
        let mut stopping: Option<(StopReason, SimTime)> = None;
        loop {
            self.number_safe_births();
            let next = self.next_events();
            if let Some((place, _)) = &self.failure {
                let last = place.time;
                match next.iter().flatten().min() {
                    // Clusters that have not come so far may fail earlier, and their part of the
                    // trace is missing.
                    Some(upcoming) if *upcoming <= last => {
                        let barrier = last.checked_add(SimDuration::from_nanos(1));
                        self.clusters.release();
                        self.open_windows(&next, *upcoming, barrier, true)?;
                        continue;
                    }
                    _ => self.fail()?,
                }
            }
            let earliest = next.iter().flatten().min().copied();
            let own = self.next_own_event();
            self.write_trace_before(earliest.into_iter().chain(own).min());
            if stopping.is_none() {
                let reason = self.untimed_stop();
                stopping = reason.map(|reason| (reason, self.latest()));
            }
            if stopping.is_some() {
                self.clusters.release();
            }
            let end = match (self.end, stopping) {
                // Who is in that instant already may stay there, in the middle of its supersteps.
                (end, Some((_, latest))) => Some(end.map_or(latest, |end| end.min(latest))),
                (end, None) => end,
            };
            let Some(upcoming) = earliest.into_iter().chain(own).min() else {
                let (reason, latest) = stopping.unwrap_or((StopReason::Idle, self.latest()));
                self.advance_to(latest);
                return self.finish(reason);
            };
            if let Some(end) = end.filter(|end| *end <= upcoming) {
                let (reason, time) = match stopping {
                    Some((reason, latest)) if self.end.is_none_or(|end| latest < end) => {
                        (reason, latest)
                    }
                    _ => (StopReason::TimeLimit, end),
                };
                self.advance_to(time);
                return self.finish(reason);
            }
            if own == Some(upcoming) {
                if let Some(reason) = self.act(upcoming)? {
                    return self.finish(reason);
                }
                continue;
            }
            let own = own.into_iter().chain(end).min();
            self.open_windows(&next, upcoming, own, stopping.is_some())?;
        }
    }

    /// Returns why the run is to stop, for the reasons that are not tied to a time.
    fn untimed_stop(&mut self) -> Option<StopReason> {
        if self.interrupted {
            Some(StopReason::Timeout)
        } else if self.supersteps == 0 {
            Some(StopReason::Supersteps)
        } else if self.predicate_holds() {
            Some(StopReason::Predicate)
        } else {
            None
        }
    }

    /// Lets every cluster run as far as no other can reach it, and before `barrier`. The earliest
    /// event of all clusters is at `upcoming`.
    fn open_windows(
        &mut self,
        next: &[Option<SimTime>],
        upcoming: SimTime,
        barrier: Option<SimTime>,
        aligning: bool,
    ) -> Result<(), Error> {
        let mut windows = Vec::new();
        let reach = next.iter().zip(&self.lookaheads);
        let reach = TwoLeast::of(
            reach.map(|(next, lookahead)| Some(next.as_ref()?.saturating_add(*lookahead))),
        );
        // What stands in the place of a cluster that was dropped sends nothing.
        let lookaheads = self.lookaheads.iter().enumerate();
        let lookaheads = TwoLeast::of(lookaheads.map(|(place, lookahead)| {
            let sends = self.clusters.dropped(place).is_none();
            sends.then_some(*lookahead)
        }));
        for (place, event) in next.iter().enumerate() {
            let horizon = match upcoming {
                SimTime::MAX => None,
                _ => reach.but(place).into_iter().chain(barrier).min(),
            };
            let blocked = self
                .under_way
                .births
                .iter()
                .any(|births| births.place == place);
            let Some(event) = event.filter(|_| !blocked) else {
                continue;
            };
            if horizon.is_none_or(|horizon| event < horizon) {
                let others = lookaheads.but(place);
                windows.push((place, Task::Window { horizon, others }));
            }
        }
        // A round that grants nothing would be repeated for ever: only grants look at stops.
        assert!(
            !windows.is_empty(),
            "the cluster with the earliest event gets a window"
        );
        self.since.clear();
        let since = next.iter().map(|next| next.unwrap_or(SimTime::ZERO));
        self.since.extend(since);
        self.exchange_tasks(&windows, aligning)
    }

    /// The time of the next event of each cluster.
    fn next_events(&self) -> Vec<Option<SimTime>> {
        let places = 0..self.clusters.list.len();
        let events = places.map(|place| {
            if self.failed.contains(&place) {
                return None;
            }
            let report = self.report(place);
            let now = report.awake.then_some(report.time);
            let inbound = &self.routing.inbound[place];
            let dismissed = inbound.news.dismissed.iter();
            let dismissed = dismissed.map(|(_, time)| time.unwrap_or(report.time)).min();
            let arrival = inbound.earliest.filter(|_| inbound.mails > 0);
            // Alarms that others hear leave this time before they are due.
            let earlier = inbound.brings_listeners().then_some(self.lookaheads[place]);
            let alarm = report
                .next_alarm
                .map(|alarm| alarm.saturating_sub(earlier.unwrap_or_default()));
            let events = [now, alarm, arrival, dismissed];
            // What is for an instant that the cluster has begun is for now.
            let next = events.into_iter().flatten().min();
            next.map(|next| next.max(report.time))
        });
        events.collect()
    }

    /// The time of the next thing that main itself has to do.
    fn next_own_event(&self) -> Option<SimTime> {
        let UnderWay {
            main_mail,
            unrouted,
            stops,
            removals,
            ..
        } = &self.under_way;
        let mail = main_mail.iter().map(|(arrives, _, _)| *arrives);
        let unrouted = unrouted.iter().map(|mail| mail.arrives);
        let stopped = stops.iter().map(|(time, _, _)| *time);
        let removals = removals.iter().map(|(removal, _)| removal.time);
        mail.chain(unrouted).chain(stopped).chain(removals).min()
    }

    /// The time of the next thing that happens, in an instant that is over.
    pub(crate) fn next_time(&self) -> Option<SimTime> {
        if self.lookaheads.is_empty() {
            return self.next_alarm(None);
        }
        let events = self.next_events().into_iter().flatten();
        events.chain(self.next_own_event()).min()
    }

    /// The latest time that any cluster has reached.
    fn latest(&self) -> SimTime {
        let reports = self.standing.reports.iter().flatten();
        let reached = reports.map(|report| report.time).max();
        reached.map_or(self.standing.time, |time| time.max(self.standing.time))
    }

    /// What main does at a time that all clusters have reached and none has passed.
    fn act(&mut self, time: SimTime) -> Result<Option<StopReason>, Error> {
        self.advance_to(time);
        let mut unrouted = std::mem::take(&mut self.under_way.unrouted);
        for mail in unrouted.extract_if(.., |mail| mail.arrives == time) {
            self.route_unrouted(&mail)?;
        }
        self.under_way.unrouted = unrouted;
        let mut removals = std::mem::take(&mut self.under_way.removals);
        for (removal, place) in removals.extract_if(.., |(removal, _)| removal.time == time) {
            self.dismiss_one(removal, place);
        }
        self.under_way.removals = removals;
        self.fail()?;
        let stopped = self.handle_main_mail(time)?;
        let mut stops = std::mem::take(&mut self.under_way.stops);
        let now = stops.extract_if(.., |stop| stop.0 == time);
        let first = now.min_by_key(rank_of_stop);
        self.under_way.stops = stops;
        Ok(match first {
            Some((_, _, reason)) => Some(reason),
            None => stopped.then_some(StopReason::Stopped),
        })
    }

    /// Notes that a cluster waits for the indices of agents added there.
    pub(crate) fn await_numbers(&mut self, place: usize) {
        let newborn = self.take_newborn(place);
        if !newborn.is_empty() {
            let report = self.report(place);
            let births = Births {
                time: report.time,
                superstep: report.superstep,
                place,
                newborn,
            };
            self.under_way.births.push(births);
        }
    }

    /// Numbers the agents added first, once no agent can be added before them: by instant,
    /// superstep, cluster and the order there.
    fn number_safe_births(&mut self) {
        self.under_way.births.sort_by_key(Births::key);
        while let Some(first) = self.under_way.births.first() {
            let next = self.next_events();
            let is_safe = next.iter().enumerate().all(|(place, next)| {
                let waits = self
                    .under_way
                    .births
                    .iter()
                    .any(|births| births.place == place);
                waits || next.is_none_or(|next| next > first.time)
            });
            if !is_safe {
                return;
            }
            let Births { place, newborn, .. } = self.under_way.births.remove(0);
            for (sequence, agent) in in_order(newborn) {
                if !self.add_newborn(place, sequence, &agent) {
                    self.failed.push(place);
                    return;
                }
                let index = self.standing.next_index;
                self.standing.next_index += 1;
                self.routing.inbound[place].news.numbers.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_but_one_is_told() {
        let but_each = |values: &[Option<u64>]| -> Vec<Option<u64>> {
            let two = TwoLeast::of(values.iter().copied());
            (0..values.len()).map(|place| two.but(place)).collect()
        };
        assert_eq!(but_each(&[]), []);
        assert_eq!(but_each(&[Some(4)]), [None]);
        assert_eq!(but_each(&[None, Some(4)]), [Some(4), None]);
        let three = [Some(5), Some(2), None, Some(2), Some(3)];
        assert_eq!(but_each(&three), [Some(2); 5]);
        let ascending = [Some(1), Some(2), Some(3)];
        assert_eq!(but_each(&ascending), [Some(2), Some(1), Some(1)]);
        let descending = [Some(3), Some(2), Some(1)];
        assert_eq!(but_each(&descending), [Some(1), Some(1), Some(2)]);
    }
}
