//! What stands in the place of a cluster that was dropped: a scheduler without agents, in main's
//! process.
//!
//! It is given what is still sent to the cluster. So mail for agents that are gone is undeliverable
//! at the time at which it arrives, under a lookahead too, and grants need no exception for it.

use std::sync::Arc;

use maslite_core::{Counters, SimTime};

use crate::error::link::LinkError;
use crate::error::recovery::Dropped;
use crate::links::transport::{Draft, DraftBuffer, Transport};
use crate::processes::backend::{InterruptSource, Model};
use crate::protocol::wire::{self, Loaded, Report, ToMain, ToProc, Written};

/// What is left of a cluster that was dropped.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) dropped: Dropped,
    /// How it stood in its last report, once that has been looked up.
    stood: Option<Stood>,
}

impl Remains {
    pub(crate) fn new(dropped: Dropped) -> Self {
        let stood = None;
        Self { dropped, stood }
    }

    /// Adds what the cluster had counted to a report of what stands in its place. `last`: the last
    /// report for the cluster, which at first is its own.
    pub(crate) fn add_to(&mut self, report: &mut Report, last: Option<&Report>) {
        let look_up = || last.map(Stood::without_agents).unwrap_or_default();
        self.stood.get_or_insert_with(look_up).add_to(report);
    }
}

/// How a cluster stood in its last report.
#[derive(Debug, Default)]
struct Stood {
    time: SimTime,
    counters: Counters,
    held_back: u64,
    held_back_to_main: u64,
    local: u64,
    busy: u64,
}

impl Stood {
    /// How a cluster stands when its agents are gone: their mail is undeliverable, their alarms are
    /// cleared. Under a lookahead mail that is under way to them is among the pending alarms.
    fn without_agents(last: &Report) -> Self {
        let mut counters = last.counters;
        counters.undeliverable += std::mem::take(&mut counters.queued);
        let over = counters.alarms_fired + counters.alarms_cleared;
        let own = counters.alarms_set.saturating_sub(over);
        counters.alarms_cleared += own;
        let pending = std::mem::take(&mut counters.alarms_pending);
        let under_way = pending.saturating_sub(own);
        counters.sent += under_way;
        counters.undeliverable += under_way;
        counters.agents = 0;
        Self {
            time: last.time,
            counters,
            held_back: last.held_back,
            held_back_to_main: last.held_back_to_main,
            local: last.local,
            busy: last.busy,
        }
    }

    fn add_to(&self, report: &mut Report) {
        report.time = report.time.max(self.time);
        report.counters.add(&self.counters);
        // Of several clusters they are not added up.
        report.counters.supersteps += self.counters.supersteps;
        report.held_back += self.held_back;
        report.held_back_to_main += self.held_back_to_main;
        report.local += self.local;
        report.busy = self.busy;
    }
}

/// Main's end of the link to what stands in the place of this cluster, whose processes began with
/// these settings.
pub(crate) fn vacant(
    model: &dyn Model,
    cluster: &str,
    settings: &[u8],
) -> Result<Box<dyn Transport>, LinkError> {
    let interrupts = InterruptSource::While(Arc::default());
    let mut scheduler = model.inline(cluster, interrupts, Arc::default());
    scheduler.say(settings)?;
    Ok(Box::new(Vacant {
        scheduler,
        draft: DraftBuffer::default(),
        answer: None,
        heard: Vec::new(),
    }))
}

struct Vacant {
    scheduler: Box<dyn Transport>,
    draft: DraftBuffer,
    /// The answer to a message that the scheduler is not to see.
    answer: Option<Vec<u8>>,
    /// The answer that was received last, if it was one of these.
    heard: Vec<u8>,
}

impl Vacant {
    /// Passes on what is for any scheduler, and answers what is about agents of its own: it has none.
    fn take(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let unreadable = || std::io::Error::other("main cannot read its own message");
        let (note, _) = wire::take_note(message).map_err(|_| unreadable())?;
        match note {
            // News of agents that were here mean nothing to it.
            ToProc::Grant(_) => self.scheduler.say(message),
            ToProc::Load(calls) => {
                let loaded = calls.iter().map(|_| Loaded {
                    ids: Vec::new(),
                    names: Vec::new(),
                });
                let loaded = ToMain::Loaded(loaded.collect());
                self.answer = Some(wire::message(&loaded).map_err(|_| unreadable())?);
                Ok(())
            }
            ToProc::Write(_) => {
                let written = ToMain::Written(Written::Failed {
                    os_error: None,
                    why: "the cluster was dropped".to_owned(),
                });
                self.answer = Some(wire::message(&written).map_err(|_| unreadable())?);
                Ok(())
            }
            ToProc::Settings(_)
            | ToProc::AssignIndices(_)
            | ToProc::Replay(_)
            | ToProc::Save
            | ToProc::Restore(_)
            | ToProc::Stop => Ok(()),
        }
    }
}

impl Transport for Vacant {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        Ok(Draft::in_buffer(&mut self.draft))
    }

    fn send(&mut self) -> Result<(), LinkError> {
        let message = self.draft.replace(Vec::new());
        self.take(&message)
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        self.recv_to_answer().map(|(answer, _)| answer)
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        let draft = Draft::in_buffer(&mut self.draft);
        if let Some(answer) = self.answer.take() {
            self.heard = answer;
            return Ok((&self.heard, draft));
        }
        Ok((self.scheduler.recv()?, draft))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::death::{Death, ExitKind};

    /// Of the pending alarms five are alarms, and three are mail that is under way.
    fn last_of_its_own() -> Report {
        let mut last = Report::blank(SimTime::from_nanos(9));
        let counters = &mut last.counters;
        (counters.sent, counters.delivered) = (100, 90);
        (counters.undeliverable, counters.queued) = (6, 4);
        (counters.alarms_set, counters.alarms_fired) = (50, 40);
        (counters.alarms_cleared, counters.alarms_pending) = (5, 8);
        (counters.supersteps, counters.agents) = (70, 3);
        (last.held_back, last.held_back_to_main) = (10, 20);
        (last.local, last.busy) = (30, 40);
        last
    }

    #[test]
    fn what_a_dropped_cluster_had_counted_is_in_each_report_of_what_stands_in_its_place() {
        let mut remains = Remains::new(Dropped {
            cluster: "south".to_owned(),
            death: Death::bare("south".to_owned(), 1, ExitKind::Signal(9)),
            time: SimTime::from_nanos(9),
        });
        for own in [0, 1] {
            let mut told = Report::blank(SimTime::ZERO);
            told.counters.sent = own;
            told.counters.undeliverable = own;
            told.counters.supersteps = own;
            told.held_back = own;
            remains.add_to(&mut told, Some(&last_of_its_own()));
            assert_eq!(told.time, SimTime::from_nanos(9));
            let it = told.counters;
            assert_eq!((it.sent, it.delivered), (103 + own, 90));
            assert_eq!((it.undeliverable, it.queued), (13 + own, 0));
            assert_eq!((it.alarms_set, it.alarms_fired), (50, 40));
            assert_eq!((it.alarms_cleared, it.alarms_pending), (10, 0));
            assert_eq!((it.supersteps, it.agents), (70 + own, 0));
            assert_eq!((told.held_back, told.held_back_to_main), (10 + own, 20));
            assert_eq!((told.local, told.busy), (30, 40));
        }
    }
}
