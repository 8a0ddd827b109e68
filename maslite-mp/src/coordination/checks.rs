//! Checks before belief: whether a report can be true.
//!
//! A frame may be well formed and the message in it decodable, and still be impossible: the memory
//! of its sender is corrupt, or the kernel has a bug. What is impossible is refused by number
//! before anything is concluded from it, and ends the run.
//!
//! ```text
//! link ── FrameFault ──► bytes ── Undecodable ──► message ── here: all other reasons ──► clock, counters, routes
//! ```
//!
//! A report is measured by what was granted, by the report before it and by where main stands. What
//! a right cluster may say is never refused; what remains possible is believed. Mail that main only
//! relays is not looked into: the cluster that gets it does that.
//!
//! **Invariant:** no report that passes can make main panic, wait for ever, or hold more than a
//! small multiple of its bytes for each cluster.

use maslite_core::{Counters, SimDuration, SimTime};

use crate::error::message_fault::MessageFault;
use crate::protocol::wire::{Destination, DoneAhead, Events, Report, SHORTEST_MAIL, Task};

/// No counter comes so far: at a nanosecond each that takes seven weeks. So those of thousands of
/// clusters can be added up.
const MOST: u64 = 1 << 52;

/// What main knows of a cluster when a report comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReportContext<'a> {
    /// What was granted.
    pub(crate) task: Task,
    /// Where main stands.
    pub(crate) time: SimTime,
    /// Of the cluster, if there is one.
    pub(crate) lookahead: Option<SimDuration>,
    /// The time of its next event when a window was opened for it; zero if none was.
    pub(crate) since: SimTime,
    /// Its last report.
    pub(crate) before: Option<&'a Report>,
    /// How many clusters there are.
    pub(crate) clusters: usize,
}

impl ReportContext<'_> {
    /// Judges all of a report but what is in its mail and its trace; `bytes` are before its note.
    #[inline]
    pub(crate) fn judge(&self, report: &Report, bytes: usize) -> Result<(), MessageFault> {
        self.judge_time(report)?;
        self.judge_supersteps(report)?;
        self.judge_ahead(report)?;
        self.judge_counters(report)?;
        self.judge_batches(report, bytes)?;
        if !report.events.is_blank() {
            let stands = (report.time, report.superstep);
            let failure = report.events.failure.iter();
            let failure = failure.map(|it| (it.place.time, it.place.superstep));
            let newborn = report.events.newborn.iter();
            let mut places = newborn.map(|it| (it.time, it.superstep)).chain(failure);
            if places.any(|place| place > stands) {
                return Err(MessageFault::TimeBeyond);
            }
        }
        if self.lookahead.is_some() {
            let Events {
                stopped, removals, ..
            } = &*report.events;
            let stopped = stopped.iter().map(|(time, _, _)| *time);
            let removals = removals.iter().map(|removal| removal.time);
            stopped
                .chain(removals)
                .try_for_each(|time| self.judge_arrival(time))?;
        }
        Ok(())
    }

    /// Whether the report shows that anything was done.
    #[inline]
    pub(crate) fn shows_progress(&self, report: &Report) -> bool {
        report.supersteps > 0
            || !report.batches.is_empty()
            || !report.ahead.instants.is_empty()
            || self.before.is_none_or(|before| {
                report.time != before.time
                    || report.next_alarm != before.next_alarm
                    || report.awake != before.awake
                    || report.counters != before.counters
            })
    }

    /// The time that the cluster had reached before.
    fn reached(&self) -> SimTime {
        match (self.lookahead, self.task) {
            // It is told to stand where main stands.
            (None, _) | (_, Task::Setup { .. } | Task::Answer) => self.time,
            _ => self.before.map_or(SimTime::ZERO, |before| before.time),
        }
    }

    fn judge_time(&self, report: &Report) -> Result<(), MessageFault> {
        let reached = self.reached();
        let horizon = match self.task {
            Task::RunAlone { horizon, .. } | Task::Window { horizon, .. } => horizon,
            _ => Some(reached),
        };
        let alarm = report.next_alarm.unwrap_or(SimTime::MAX);
        let next_is_past = match self.lookahead {
            None => alarm < report.time,
            // What is due at an instant that was begun is due now.
            Some(_) => report.time < self.since && (report.awake || alarm < self.since),
        };
        if report.time < reached || next_is_past {
            return Err(MessageFault::TimeBack);
        }
        let is_granted = horizon.is_none_or(|horizon| report.time < horizon);
        if report.time > reached && !is_granted {
            return Err(MessageFault::TimeBeyond);
        }
        Ok(())
    }

    fn judge_supersteps(&self, report: &Report) -> Result<(), MessageFault> {
        let granted = match self.task {
            Task::Setup { .. }
            | Task::Rematch
            | Task::Post
            | Task::Fire
            | Task::Answer
            | Task::Withdraw
            | Task::Speculate { .. } => 0,
            Task::SuperstepIfAwake | Task::Superstep | Task::FireAndSuperstep => 1,
            Task::RunAlone { supersteps, .. } => supersteps.min(MOST),
            Task::Window { .. } => MOST,
        };
        let is_granted = report.supersteps <= granted
            && report.superstep <= MOST
            && report.events.amnesias <= report.supersteps.max(1)
            && report.events.undone <= MOST;
        is_granted.then_some(()).ok_or(MessageFault::Supersteps)
    }

    /// Whether what was done ahead was granted, and is behind all that is final.
    fn judge_ahead(&self, report: &Report) -> Result<(), MessageFault> {
        let DoneAhead {
            instants,
            then,
            kept,
            ..
        } = &*report.ahead;
        let Task::Speculate {
            until,
            instants: granted,
            ..
        } = self.task
        else {
            let is_blank = report.ahead.is_blank();
            return is_blank.then_some(()).ok_or(MessageFault::TimeBeyond);
        };
        let times = || instants.iter().map(|(instant, _)| *instant);
        let are_in_order = times().is_sorted_by(|one, next| one < next)
            && times().all(|instant| instant > self.time)
            && times()
                .next_back()
                .is_none_or(|last| then.is_none_or(|then| last < then));
        if !are_in_order {
            return Err(MessageFault::TimeBack);
        }
        let next = times().next().or(*then);
        let until = until.unwrap_or(SimTime::MAX);
        if times().any(|instant| instant >= until) || report.next_alarm != next {
            return Err(MessageFault::TimeBeyond);
        }
        let mut supersteps = instants.iter().map(|(_, supersteps)| *supersteps);
        let are_granted = instants.len() as u64 <= granted
            && *kept <= instants.len() as u64
            && supersteps.all(|supersteps| supersteps <= MOST);
        are_granted.then_some(()).ok_or(MessageFault::Supersteps)
    }

    fn judge_counters(&self, report: &Report) -> Result<(), MessageFault> {
        let none = Counters::default();
        let (before, held_back, to_main, local) = match self.before {
            Some(before) => (
                &before.counters,
                before.held_back,
                before.held_back_to_main,
                before.local,
            ),
            None => (&none, 0, 0, 0),
        };
        let now = &report.counters;
        let can_be = [
            (before.sent, now.sent),
            (before.delivered, now.delivered),
            (before.undeliverable, now.undeliverable),
            (before.unheard, now.unheard),
            (before.supersteps, now.supersteps),
            (before.alarms_set, now.alarms_set),
            (before.alarms_fired, now.alarms_fired),
            (before.alarms_cleared, now.alarms_cleared),
            (before.alarms_late, now.alarms_late),
            (before.errors, now.errors),
            (held_back, report.held_back),
            (to_main, report.held_back_to_main),
            (local, report.local),
            (0, now.queued),
            (0, now.alarms_pending),
            (0, now.agents),
        ];
        let can_be = can_be
            .iter()
            .all(|(before, now)| before <= now && *now <= MOST);
        can_be.then_some(()).ok_or(MessageFault::Counter)
    }

    fn judge_batches(&self, report: &Report, bytes: usize) -> Result<(), MessageFault> {
        let bytes = bytes as u64;
        let Some(room) = bytes.checked_sub(report.trace.into()) else {
            return Err(MessageFault::Trace);
        };
        // No byte is in two of them, so that main does not hold more than there is.
        let mut all = 0;
        for batch in &report.batches {
            let shortest = match batch.to {
                Destination::Cluster(to) if to as usize >= self.clusters => {
                    return Err(MessageFault::Cluster);
                }
                _ => SHORTEST_MAIL as u64,
            };
            let (mails, length) = (u64::from(batch.mails), u64::from(batch.bytes));
            all += length;
            let fits = u64::from(batch.start) + length <= room && all <= room;
            if !fits || mails == 0 || mails * shortest > length {
                return Err(MessageFault::Batch);
            }
            self.judge_arrival(batch.earliest)?;
        }
        Ok(())
    }

    /// Whether something that left under this grant can arrive then.
    pub(crate) fn judge_arrival(&self, arrives: SimTime) -> Result<(), MessageFault> {
        let can_be = match self.lookahead {
            None => arrives == SimTime::ZERO,
            Some(lookahead) => {
                let left = self.since.max(self.reached());
                arrives >= left.saturating_add(lookahead).max(self.time)
            }
        };
        can_be.then_some(()).ok_or(MessageFault::Arrival)
    }
}
