//! One round: grants to some clusters, and what follows from their reports.

use std::mem;

use maslite_core::SimTime;
use smallvec::SmallVec;

use crate::cluster::registry::WireMessage;
use crate::coordination::rounds::{FEW, Places, Rounds};
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::protocol::wire::{self, Grant, Task, ToProc};

/// A correct round may do nothing, as when a run is interrupted; this many in a row is a livelock.
const IDLE_LIMIT: u32 = 1_000;

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Grants a task to some clusters, waits for their reports and draws the conclusions.
    pub(super) fn round(&mut self, places: &[usize], task: Task) -> Result<(), Error> {
        let mut tasks = SmallVec::<[_; FEW]>::new();
        tasks.extend(places.iter().map(|place| (*place, task)));
        self.exchange_tasks(&tasks, false)
    }

    /// The same with a task for each; `aligning` if it is to be done although the run is
    /// interrupted.
    pub(crate) fn exchange_tasks(
        &mut self,
        tasks: &[(usize, Task)],
        aligning: bool,
    ) -> Result<(), Error> {
        let Some((_, kind)) = tasks.first() else {
            return Ok(());
        };
        let (number, interrupted) = self.clusters.next_grant();
        if interrupted && !aligning && !kind.takes_no_time() {
            self.interrupted = true;
            return Ok(());
        }
        if self.watched {
            self.show_work(tasks);
        }
        for (place, task) in tasks {
            self.grant(*place, number, *task)?;
        }
        self.standing.rounds += 1;
        let mut changed_interest = false;
        self.clusters.meter.begin_waiting();
        let last = tasks.len() - 1;
        for (number, (place, task)) in tasks.iter().enumerate() {
            changed_interest |= self.take_report(*place, *task, number == last)?;
        }
        self.clusters.meter.end_waiting();
        if !self.clusters.newly_dropped.is_empty() {
            self.settle_drops();
        }
        if self.failure.is_some() {
            // A cluster that cannot go on may have sent no report.
            return self.fail_in_order(tasks);
        }
        self.count_supersteps(tasks);
        self.expect_progress(tasks)?;
        if self.routing.has_long_news {
            let earliest = self.next_time().unwrap_or(SimTime::MAX);
            self.routing.condense_news(earliest);
        }
        if !self.lookaheads.is_empty() {
            if matches!(kind, Task::Setup { .. }) {
                self.number_births(tasks);
                self.fail()?;
            }
            tasks
                .iter()
                .for_each(|(place, _)| self.await_numbers(*place));
            self.note_gone_agents(tasks);
            return self.find_known_homes();
        }
        self.number_births(tasks);
        self.fail()?;
        self.dismiss();
        self.fail()?;
        self.write_trace_before(self.standing.has_lines_before());
        self.note_gone_agents(tasks);
        self.find_homes()?;
        if changed_interest && *kind != Task::Rematch && tasks.len() > 1 {
            let places = tasks.iter().map(|(place, _)| *place);
            let waiting: Places = places.filter(|place| self.report(*place).waiting).collect();
            self.round(&waiting, Task::Rematch)?;
        }
        Ok(())
    }

    fn grant(&mut self, place: usize, number: u64, task: Task) -> Result<(), Error> {
        let inbound = &mut self.routing.inbound[place];
        inbound.tell_names();
        let note = ToProc::Grant(Grant {
            number,
            time: self.standing.time,
            superstep: self.standing.superstep,
            task,
            supersteps_per_instant: self.supersteps_per_instant,
            news: mem::take(&mut inbound.news),
        });
        let time = self.standing.time;
        let mut draft = match task {
            // Looking again at mail comes between two postings: what arrived waits for the next
            // one.
            Task::Rematch | Task::Answer => self.clusters.draft(place, time)?,
            _ => {
                (inbound.mails, inbound.earliest) = (0, None);
                inbound.first_forecast = None;
                self.clusters.draft_with_mail(place, time)?
            }
        };
        wire::put_note(&note, &mut draft).map_err(|why| Error::Encode {
            what: "a grant".to_owned(),
            why: why.to_string(),
        })?;
        self.clusters.send(place, true, time)
    }

    /// Whether clusters did anything of what they were granted, now and then at least.
    fn expect_progress(&mut self, tasks: &[(usize, Task)]) -> Result<(), Error> {
        let [(first, task), ..] = *tasks else {
            return Ok(());
        };
        self.idle += u32::from(!task.takes_no_time());
        if self.idle > IDLE_LIMIT {
            let cluster = &self.clusters.list[first].name;
            return Err(MessageFault::Idle.blame(cluster, self.standing.time, &[]));
        }
        Ok(())
    }

    /// Without a lookahead all clusters were in one superstep: what failed there first ends the
    /// run. With one, other clusters may come to an earlier failure, so that they go on to the time
    /// of this one.
    fn fail_in_order(&mut self, tasks: &[(usize, Task)]) -> Result<(), Error> {
        let is_setup = matches!(tasks.first(), Some((_, Task::Setup { .. })));
        if self.lookaheads.is_empty() || is_setup {
            self.number_births(tasks);
            return self.fail();
        }
        let tasks = tasks.iter().map(|(place, _)| *place);
        tasks.for_each(|place| self.await_numbers(place));
        self.find_known_homes()
    }

    /// Notes which agents have gone in this round.
    fn note_gone_agents(&mut self, tasks: &[(usize, Task)]) {
        for (place, _) in tasks {
            let Some(report) = &mut self.standing.reports[*place] else {
                continue;
            };
            if !report.events.gone.is_empty() {
                let cluster = u32::try_from(*place).unwrap_or(u32::MAX);
                for id in mem::take(&mut report.events.gone) {
                    self.routing.note_gone(id, cluster);
                }
            }
        }
    }

    /// Counts the supersteps of a round; without a lookahead main then stands where the clusters
    /// that worked stand.
    fn count_supersteps(&mut self, tasks: &[(usize, Task)]) {
        let [(first, task), ..] = *tasks else {
            return;
        };
        let done = tasks
            .iter()
            .map(|(place, _)| self.report(*place).supersteps);
        let done = match task {
            Task::Window { .. } => done.sum(),
            _ => done.max().unwrap_or(0),
        };
        self.supersteps = self.supersteps.saturating_sub(done);
        self.standing.supersteps += done;
        match task {
            Task::Window { .. } => {}
            Task::RunAlone { .. } => {
                let report = self.report(first);
                let (time, superstep) = (report.time, report.superstep);
                assert!(time >= self.standing.time, "time never goes backwards");
                self.standing.time = time;
                self.standing.superstep = superstep;
            }
            _ => self.standing.superstep += done,
        }
    }
}
