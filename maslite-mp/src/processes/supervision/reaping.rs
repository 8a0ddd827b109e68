//! The end of one child while the others live on: its cluster gets another process, or is dropped.

use std::time::{Duration, Instant};

use super::child::Watched;
use super::watch::Watch;
use super::{Failure, Supervisor};
use crate::error::death::{Death, ExitKind};
use crate::error::warning::{Limit, TimeBlocker, Warning};
use crate::links::transport::now;
use crate::processes::output::{Closing, Outlet};
use crate::processes::printed::Printed;
use crate::settings::timing::{OUTPUT_LIMIT, REAP_LIMIT};

impl Supervisor {
    /// From here on the death of a cluster of which this holds leaves the others alive.
    pub(crate) fn contain_deaths(&self, contained: &[bool]) {
        let contained = contained.to_vec();
        self.run_job(move |watch| watch.contained = contained);
    }

    /// From here on, or no longer, no child counts as stuck because a run does not end.
    pub(crate) fn be_patient(&self, patient: bool) {
        self.run_job(move |watch| watch.patient = patient);
    }

    /// What a child has printed so far, its program printed before it became a cluster: another one
    /// in its place prints that again, wherever it goes on from.
    pub(crate) fn note_start(&self, pid: u32) {
        self.run_job(move |watch| watch.note_start(pid));
    }

    /// What a child has printed so far another one in its place would not print again.
    pub(crate) fn cut(&self, pid: u32) {
        self.run_job(move |watch| watch.cut(pid));
    }

    /// Hands out a warning.
    pub(crate) fn warn(&self, warning: Warning) {
        self.run_job(move |watch| watch.detector.warn(warning));
    }

    /// Ends what is left of a child whose link is broken, and tells how it ended; if it has not
    /// ended within `limit`, it is killed. None if all are to end, or there is no such child.
    /// `comes_back`: another child says again what this one has said in part.
    pub(crate) fn reap_lost(&self, pid: u32, limit: Duration, comes_back: bool) -> Option<Death> {
        self.run_job(move |watch| watch.reap_lost(pid, limit, comes_back))
            .flatten()
    }
}

impl Watch {
    /// Whether the death of a cluster leaves the others alive.
    pub(super) fn is_contained(&self, cluster: u32) -> bool {
        self.contained
            .get(cluster as usize)
            .copied()
            .unwrap_or(false)
    }

    /// Ends the cluster that is over a limit, or all of them.
    pub(super) fn end_overdue(&mut self, limit: Limit, blocker: TimeBlocker) {
        let contained = &self.contained;
        let is_contained = |child: &Watched| contained.get(child.cluster as usize) == Some(&true);
        let mut children = self.children.iter_mut();
        let child = children.find(|child| Some(child.pid) == blocker.pid && is_contained(child));
        match (child, limit) {
            // Main, which waits for its answer, learns of its end by its link.
            (Some(child), Limit::Answer(_)) => {
                child.given_up = true;
                child.kill();
                child.link.cut();
            }
            _ => {
                let blocker = Some(Box::new(blocker));
                self.fail(Failure::Stuck { limit, blocker });
            }
        }
    }

    fn note_start(&mut self, pid: u32) {
        let until = now().checked_add(OUTPUT_LIMIT);
        if let Some(place) = self.place_of(pid) {
            let child = &mut self.children[place];
            let printed = child.outlet.as_ref().map(|outlet| outlet.printed(until));
            child.printed_at_start = printed.unwrap_or_default();
        }
    }

    fn cut(&mut self, pid: u32) {
        let until = now().checked_add(OUTPUT_LIMIT);
        if let Some(place) = self.place_of(pid) {
            let child = &mut self.children[place];
            let printed = child.outlet.as_ref().map(|outlet| outlet.printed(until));
            let printed = printed.unwrap_or_default();
            child.printed_before = printed.since(child.printed_at_start);
            self.printed.remove(&child.cluster);
        }
    }

    /// What the processes of a cluster have printed so far, if it may get another one.
    pub(crate) fn printed_by(&self, cluster: u32) -> Option<Printed> {
        let printed = self.printed.get(&cluster).copied().unwrap_or_default();
        self.is_contained(cluster).then_some(printed)
    }

    fn place_of(&self, pid: u32) -> Option<usize> {
        self.children.iter().position(|child| child.pid == pid)
    }

    fn reap_lost(&mut self, pid: u32, limit: Duration, comes_back: bool) -> Option<Death> {
        self.await_exit(pid, now().checked_add(limit));
        let place = self.place_of(pid)?;
        if self.children[place].exit.is_none() {
            let child = &mut self.children[place];
            child.given_up = true;
            child.kill();
            self.await_exit(pid, now().checked_add(REAP_LIMIT));
        }
        if self.has_failed() {
            return None;
        }
        let place = self.place_of(pid)?;
        let kills = self.kills_since_begin();
        let mut child = self.children.remove(place);
        let close = match comes_back {
            true => Outlet::close_for_another,
            false => Outlet::close,
        };
        let closing = child.outlet.take().map(|outlet| close(&outlet));
        let until = now().checked_add(OUTPUT_LIMIT);
        let said = closing.map(|closing: Closing| closing.wait_for_all(until));
        let (stderr, printed) = said.unwrap_or_default();
        let exit = match child.exit {
            _ if child.given_up => ExitKind::NoAnswer,
            Some((exit, _)) => exit.explained(&stderr, kills),
            None => ExitKind::Unknown,
        };
        let before = self.printed.entry(child.cluster).or_default();
        // One that died while it came back has not said all again.
        *before = before.max(printed.by_agents(exit).since(child.printed_before));
        if child.exit.is_some()
            && let Some(waiter) = child.waiter.take()
        {
            let _ = waiter.join();
        }
        let mut death = Death::bare(child.name.clone(), pid, exit);
        death.stderr = stderr;
        Some(death)
    }

    /// Handles events until a child has ended, all are to end, or `until` has passed.
    fn await_exit(&mut self, pid: u32, until: Option<Instant>) {
        let lives = |watch: &Self| {
            let place = watch.place_of(pid);
            place.is_some_and(|place| watch.children[place].exit.is_none())
        };
        while lives(self) && !self.has_failed() {
            let Some(event) = self.next(until) else {
                return;
            };
            self.handle(event);
        }
    }
}
