//! The supervisor thread: handles one event after the other, and rings when a timer has run out.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use shared_child::SharedChild;

use super::child::{INTERRUPT, Lifeline, Watched, kill_group_at_end};
use super::grants::Grants;
use super::{ChildEnd, Event, Failure, Job, Shared};
use crate::error::death::{Death, ExitKind, OomKills};
use crate::error::warning::{Limit, Warning};
use crate::links::transport::now;
use crate::processes::output::{Closing, Outlet, Pump};
use crate::processes::printed::Printed;
use crate::settings::timing::{OUTPUT_LIMIT, PROBE_LIMIT, REAP_LIMIT};
use crate::stall::detector::{Probe, ProgressLines, StallDetector};

/// How many times longer children may take to end while one of them is reporting a panic.
const PANIC_GRACES: usize = 5;

/// What tells a child that its grants up to this one are interrupted.
fn interrupt_message(up_to: u64) -> [u8; 9] {
    let mut bytes = [INTERRUPT; 9];
    bytes[1..].copy_from_slice(&up_to.to_le_bytes());
    bytes
}

/// What to do next without being told. There is one of each kind at most.
#[derive(Clone, Copy, Debug)]
struct Timer {
    at: Instant,
    due: Due,
}

/// The numbers are of runs: the timer means nothing once its run is over.
#[derive(Clone, Copy, Debug)]
enum Due {
    Interrupt(u64),
    Kill(u64),
    Look,
}

/// The state of the supervisor thread.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(super) children: Vec<Watched>,
    /// Of the next child.
    next_key: u64,
    events: Receiver<Event>,
    /// For the waiters.
    sender: Sender<Event>,
    shared: Arc<Shared>,
    grants: Arc<Grants>,
    interrupt_grace: Duration,
    timers: Vec<Timer>,
    pub(crate) detector: StallDetector,
    /// Tells people how far a run has come, if they want to know.
    pub(crate) progress_reporter: Option<Box<dyn ProgressLines>>,
    expecting_exits: bool,
    /// By cluster: its death is its own matter, and the others live on.
    pub(super) contained: Vec<bool>,
    /// A cluster is being brought back, so none counts as stuck because a run does not end.
    pub(super) patient: bool,
    /// By cluster: what its processes that died have printed.
    pub(super) printed: BTreeMap<u32, Printed>,
    /// The last grant that was interrupted.
    interrupted_up_to: u64,
    kills: OomKills,
    /// Reads what children print, from the first that is to be heard. After them, because it ends
    /// when they have let go of it.
    pub(super) pump: Option<Pump>,
}

impl Watch {
    /// With no child yet. Events come from what clones of the sender tell; `interrupt_grace` is how
    /// long an interrupted run may go on.
    pub(super) fn new(
        (sender, events): (Sender<Event>, Receiver<Event>),
        shared: Arc<Shared>,
        grants: Arc<Grants>,
        interrupt_grace: Duration,
    ) -> Self {
        Self {
            children: Vec::new(),
            next_key: 0,
            events,
            sender,
            shared,
            grants,
            interrupt_grace,
            timers: Vec::new(),
            detector: StallDetector::default(),
            progress_reporter: None,
            expecting_exits: false,
            contained: Vec::new(),
            patient: false,
            printed: BTreeMap::new(),
            interrupted_up_to: 0,
            kills: OomKills::begin(),
            pump: None,
        }
    }

    /// The thread that reads what children print.
    pub(crate) fn pump(&mut self) -> io::Result<&mut Pump> {
        match &mut self.pump {
            Some(pump) => Ok(pump),
            none => Ok(none.insert(Pump::start()?)),
        }
    }

    /// Puts a child under supervision. `exited` is called by its waiter thread, once, before the
    /// exit counts here.
    ///
    /// # Errors
    ///
    /// When no thread can be had; the child has then been killed and reaped.
    pub(crate) fn adopt(
        &mut self,
        cluster: u32,
        name: String,
        process: SharedChild,
        control: Arc<UnixStream>,
        outlet: Option<Outlet>,
        exited: impl FnOnce(Option<ExitStatus>) + Send + 'static,
    ) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        let process = Arc::new(process);
        let pid = process.id();
        let link = Arc::new(Lifeline::default());
        let waiter = thread::Builder::new()
            .name(format!("maslite-wait-{cluster}"))
            .spawn({
                let process = Arc::clone(&process);
                let link = Arc::clone(&link);
                let events = self.sender.clone();
                move || {
                    kill_group_at_end(pid);
                    let status = process.wait().ok();
                    let at = now();
                    link.cut();
                    exited(status);
                    let _ = events.send(Event::Exited {
                        child: key,
                        status,
                        at,
                    });
                }
            });
        let waiter = match waiter {
            Ok(waiter) => waiter,
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                return Err(error);
            }
        };
        self.children.push(Watched {
            key,
            cluster,
            name,
            pid,
            process,
            control,
            link,
            waiter: Some(waiter),
            outlet,
            printed_before: Printed::default(),
            printed_at_start: Printed::default(),
            exit: None,
            stderr: String::new(),
            killed: false,
            given_up: false,
            owes_answer: false,
            arrived: Vec::new(),
            #[cfg(test)]
            immortal: false,
        });
        self.shared.lock().alive.push((cluster, pid));
        Ok(())
    }

    /// Takes what breaks main's end of the link to a child, which is used once that has ended or is
    /// given up.
    pub(crate) fn link(&mut self, pid: u32, cut: impl Fn() + Send + 'static) {
        if let Some(child) = self.children.iter().find(|child| child.pid == pid) {
            child.link.tie(cut);
            if self.interrupted_up_to > 0 {
                // It may take the place of one that was told.
                child.tell(&interrupt_message(self.interrupted_up_to));
            }
        }
        // One that was brought back was adopted last.
        self.children.sort_by_key(|child| child.cluster);
    }

    /// How many children have been adopted so far.
    pub(crate) fn adopted(&self) -> usize {
        self.children.len()
    }

    /// Kills, reaps and forgets the children adopted after the first `kept`: a start that failed.
    /// Tells of those that had ended before, by their clusters, how they did and what they said
    /// last.
    pub(crate) fn disown(&mut self, kept: usize) -> Vec<(u32, ExitKind, String)> {
        let expecting = mem::replace(&mut self.expecting_exits, true);
        for child in &mut self.children[kept..] {
            child.kill();
        }
        self.await_exits(kept, now().checked_add(REAP_LIMIT));
        self.explain_exits(kept);
        let ended = self.children[kept..].iter_mut();
        let ended = ended.filter(|child| child.ended_itself());
        let ends = ended.filter_map(|child| {
            let (exit, _) = child.exit?;
            Some((child.cluster, exit, mem::take(&mut child.stderr)))
        });
        let ends = ends.collect();
        for child in &mut self.children[kept..] {
            if child.exit.is_some()
                && let Some(waiter) = child.waiter.take()
            {
                let _ = waiter.join();
            }
        }
        self.children.truncate(kept);
        self.expecting_exits = expecting;
        ends
    }

    pub(super) fn run(mut self) {
        loop {
            match self.next(self.timers.iter().map(|timer| timer.at).min()) {
                Some(Event::Finish { grace, reply }) => {
                    let ends = self.finish(grace);
                    let _ = reply.send(ends);
                    return;
                }
                Some(event) => self.handle(event),
                None => self.ring(),
            }
        }
    }

    /// Waits for the next event. None when `until` has passed without one.
    pub(super) fn next(&self, until: Option<Instant>) -> Option<Event> {
        match until {
            Some(until) => self
                .events
                .recv_timeout(until.saturating_duration_since(now()))
                .ok(),
            // It cannot disconnect: `self.sender` is one of its senders.
            None => self.events.recv().ok(),
        }
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Job(Job(job)) => job(self),
            Event::Exited { child, status, at } => self.record_exit(child, status, at),
            Event::InterruptAt { at, run } => self.set(Some(at), Due::Interrupt(run)),
            Event::InterruptNow { run } if self.grants.current_run() == Some(run) => {
                self.interrupt(run);
            }
            Event::InterruptForRequest { run } if self.grants.current_run() == Some(run) => {
                self.end_grants();
            }
            Event::KillAll => self.fail(Failure::Interrupted),
            Event::Look => self.look(),
            Event::ExpectExits => self.expecting_exits = true,
            // A Finish is only ever sent once, and taken out before: see `run`; the others are for
            // a run that is over.
            Event::Finish { .. }
            | Event::InterruptNow { .. }
            | Event::InterruptForRequest { .. } => {}
        }
    }

    /// Sets a timer, in place of another of its kind; none for a time beyond the end of the clock.
    fn set(&mut self, at: Option<Instant>, due: Due) {
        let kind = mem::discriminant(&due);
        self.timers
            .retain(|timer| mem::discriminant(&timer.due) != kind);
        self.timers.extend(at.map(|at| Timer { at, due }));
    }

    /// The first of the timers has run out.
    fn ring(&mut self) {
        let first = (0..self.timers.len()).min_by_key(|place| self.timers[*place].at);
        let Some(first) = first.map(|place| self.timers.swap_remove(place)) else {
            return;
        };
        let current = self.grants.current_run();
        match first.due {
            Due::Interrupt(run) if current == Some(run) => self.interrupt(run),
            Due::Kill(run) if current == Some(run) => self.give_up(run),
            Due::Interrupt(_) | Due::Kill(_) => {}
            Due::Look => self.look(),
        }
    }

    /// The children that were interrupted are still at it.
    fn give_up(&mut self, run: u64) {
        if self.patient {
            self.set(now().checked_add(self.interrupt_grace), Due::Kill(run));
            return;
        }
        let probes = self.ask_all(PROBE_LIMIT);
        if self.grants.current_run() != Some(run) {
            // They came to rest at the last moment.
            return;
        }
        if probes.iter().any(|probe| probe.debugger.is_some()) {
            // The user of the debugger gets time.
            self.set(now().checked_add(self.interrupt_grace), Due::Kill(run));
            return;
        }
        self.detector.note(&probes, now());
        let (blockers, _) = self.detector.blockers(&probes, now());
        let failure = Failure::Stuck {
            limit: Limit::Rest(self.interrupt_grace),
            blocker: blockers.into_iter().next().map(Box::new),
        };
        self.fail(failure);
    }

    #[cfg(test)]
    /// From here on a child cannot be killed.
    pub(crate) fn make_immortal(&mut self, place: usize) {
        self.children[place].immortal = true;
    }

    #[cfg(test)]
    /// Waits for an answer to an earlier question.
    pub(crate) fn await_late_answer(&mut self, place: usize) -> bool {
        let limit = now().checked_add(Duration::from_secs(20));
        self.children[place].hear(limit).is_some()
    }

    /// Asks all clusters what they are at. Who does not answer within the limit does not answer.
    pub(crate) fn ask_all(&mut self, limit: Duration) -> Vec<Probe> {
        let inline = self.detector.inline.iter();
        let inline: Vec<_> = inline
            .map(|(name, cluster_activity)| cluster_activity.probe(name))
            .collect();
        let asked: Vec<_> = self.children.iter_mut().map(Watched::ask).collect();
        let until = now().checked_add(limit);
        let children = self.children.iter_mut().zip(asked);
        let probes = children.map(|(child, asked)| child.probe(until.filter(|_| asked)));
        inline.into_iter().chain(probes).collect()
    }

    /// How long after a look the next one is due; none if neither warnings nor progress are wanted.
    fn interval(&self) -> Option<Duration> {
        let telling = self
            .progress_reporter
            .as_ref()
            .map(|progress_reporter| progress_reporter.interval());
        self.detector.interval().into_iter().chain(telling).min()
    }

    /// Looks whether the run under way moves; warns if it does not, and ends it if a limit says so.
    /// Tells how far it has come, if that is due. Does so again after a while.
    fn look(&mut self) {
        let Some(interval) = self.interval() else {
            return;
        };
        let Some(run) = self.grants.current_run() else {
            self.grants.watched.store(false, Ordering::SeqCst);
            // A run that began in between either sees that, or is seen here.
            if self.grants.current_run().is_none()
                || self.grants.watched.swap(true, Ordering::SeqCst)
            {
                return;
            }
            self.set(now().checked_add(interval), Due::Look);
            return;
        };
        let begin = now();
        self.set(begin.checked_add(interval), Due::Look);
        if let Some(progress_reporter) = &mut self.progress_reporter
            && progress_reporter.is_due(run)
        {
            let probes = self.ask_all(PROBE_LIMIT);
            let time = self.detector.time_of_main();
            if let Some(progress_reporter) = &self.progress_reporter {
                progress_reporter.tell(&probes, time);
            }
        }
        if self.detector.main_moves(run, begin) {
            return;
        }
        let probes = self.ask_all(PROBE_LIMIT);
        let warning = self.detector.consider(&probes, now());
        if self.grants.current_run() != Some(run) {
            // It has ended while its clusters were asked.
            return;
        }
        if let Some(warning) = warning {
            self.detector.warn(Warning::Standstill(warning));
        }
        if let Some((limit, blocker)) = self.detector.overdue(&probes, now()) {
            self.end_overdue(limit, blocker);
        }
    }

    /// Tells the children to end their grants, and sets the timer for those that do not.
    fn interrupt(&mut self, run: u64) {
        if self.grants.interrupted.swap(run, Ordering::SeqCst) == run {
            // Told already, and the timer is set.
            return;
        }
        self.end_grants();
        // To be compared with what they are at when the timer rings.
        let probes = self.ask_all(PROBE_LIMIT);
        self.detector.note(&probes, now());
        self.set(now().checked_add(self.interrupt_grace), Due::Kill(run));
    }

    /// Tells the children to end the grants issued so far.
    fn end_grants(&mut self) {
        let up_to = self.grants.issued.load(Ordering::SeqCst);
        self.interrupted_up_to = up_to;
        let bytes = interrupt_message(up_to);
        for child in self
            .children
            .iter_mut()
            .filter(|child| child.exit.is_none())
        {
            child.tell(&bytes);
        }
    }

    fn record_exit(&mut self, key: u64, status: Option<ExitStatus>, at: Instant) {
        let Some(child) = self.children.iter_mut().find(|child| child.key == key) else {
            // Disowned, and took too long to die.
            return;
        };
        let exit = ExitKind::of(status);
        child.exit = Some((exit, at));
        let failure = Failure::Died {
            cluster: child.cluster,
            name: child.name.clone(),
            pid: child.pid,
            exit,
        };
        let (pid, killed, cluster) = (child.pid, child.killed, child.cluster);
        self.shared.lock().alive.retain(|alive| alive.1 != pid);
        if !self.expecting_exits && !killed && !self.is_contained(cluster) {
            self.fail(failure);
        }
        self.shared.changed.notify_all();
    }

    /// Records the first failure, kills all children, and breaks all links. The ends of the
    /// children would break them too, but there are processes that the system cannot end.
    pub(super) fn fail(&mut self, failure: Failure) {
        // Before the killing, so that a thread that is woken by it finds the reason.
        self.shared.lock().failure.get_or_insert(failure);
        self.shared.changed.notify_all();
        self.children.iter_mut().for_each(Watched::kill);
        self.children.iter().for_each(|child| child.link.cut());
    }

    /// Whether all children are to end.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.lock().failure.is_some()
    }

    /// The system's kills for lack of memory since this supervisor began.
    pub(super) fn kills_since_begin(&self) -> u64 {
        self.kills.since()
    }

    /// Handles events until all children from the first `kept` on have exited, or `until` has
    /// passed.
    fn await_exits(&mut self, kept: usize, until: Option<Instant>) {
        while self.children[kept..]
            .iter()
            .any(|child| child.exit.is_none())
        {
            let Some(event) = self.next(until) else {
                return;
            };
            self.handle(event);
        }
    }

    pub(super) fn post_mortem(&mut self) -> Vec<Death> {
        self.await_exits(0, now().checked_add(REAP_LIMIT));
        self.explain_exits(0);
        let mut ended: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.ended_itself())
            .filter_map(|child| child.exit.map(|(exit, at)| (exit, at, child)))
            .collect();
        // A child that lost its link to main lost it because of another child.
        ended.sort_by_key(|(exit, at, _)| (*exit == ExitKind::LifelineLost, *at));
        let deaths = ended.into_iter().map(|(exit, _, child)| Death {
            cluster: child.name.clone(),
            pid: child.pid,
            exit,
            stderr: child.stderr.clone(),
        });
        deaths.collect()
    }

    /// Reads the last words of the children from the first `kept` on that have ended, and draws
    /// conclusions.
    fn explain_exits(&mut self, kept: usize) {
        let kills = self.kills.since();
        let until = now().checked_add(OUTPUT_LIMIT);
        let ended = self.children[kept..].iter_mut();
        let ended = ended.filter(|child| child.exit.is_some());
        let closing: Vec<(&mut Watched, Closing)> = ended
            .filter_map(|child| child.outlet.take().map(|outlet| (child, outlet.close())))
            .collect();
        for (child, closing) in closing {
            child.stderr = closing.wait(until);
        }
        for child in &mut self.children[kept..] {
            if let Some((exit, _)) = &mut child.exit
                && !child.killed
            {
                *exit = exit.explained(&child.stderr, kills);
            }
        }
    }

    /// Whether a child that has not ended says that it is reporting a panic.
    fn is_panic_reported(&mut self) -> bool {
        let until = now().checked_add(PROBE_LIMIT);
        let mut children = self.children.iter_mut();
        children.any(|child| child.reports_panic(until))
    }

    fn finish(&mut self, grace: Duration) -> Vec<ChildEnd> {
        self.expecting_exits = true;
        let begin = now();
        self.await_exits(0, begin.checked_add(grace));
        // With a backtrace a panic takes longer to report than all else together, and would be
        // lost.
        for _ in 0..PANIC_GRACES {
            if grace.is_zero() || !self.is_panic_reported() {
                break;
            }
            self.await_exits(0, now().checked_add(grace));
        }
        self.children.iter_mut().for_each(Watched::kill);
        self.await_exits(0, now().checked_add(REAP_LIMIT));
        // Main need not wait for the last words of a child that cannot be ended.
        self.children.iter().for_each(|child| child.link.cut());
        self.explain_exits(0);
        let ends = self
            .children
            .iter_mut()
            .map(|child| child.end(begin))
            .collect();
        // Lifelines go last: until its child is reaped, closing one would race with the kill for
        // the blame.
        self.children.clear();
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        ends
    }
}
