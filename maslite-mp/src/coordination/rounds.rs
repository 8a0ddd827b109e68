//! How main grants time: the loop over all clusters, told once and in order.
//!
//! A round is a grant to some clusters and their reports. Main has seen every mail that crosses, and
//! moves time only when all reports are in and all mail of the instant is delivered.
//!
//! - One cluster alone with mail, or alone at the next instant, runs *solo*: many supersteps and
//!   instants without a word, until something leaves it or the next event of another cluster.
//! - Several with mail at one instant run it in *lockstep*, a superstep a round. Each posts its own
//!   mail together with what main brings, in the kernel's order.
//! - Several with alarms due at one instant fire them first, if an alarm may be for another cluster;
//!   otherwise that is one round with the superstep.

use std::mem;

use maslite_core::engine::{FailurePlace, FailureStage, Newborn, guard_model};
use maslite_core::{
    Adder, AgentId, Delivery, Mail, MailKey, MainContext, Predicate, Run, SimDuration, SimTime,
    StopReason,
};

use smallvec::SmallVec;

use crate::cluster::commands;
use crate::cluster::registry::{TraceFormat, WireMessage};
use crate::coordination::clusters::Clusters;
use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::state::{Standing, TraceSink, UnderWay, UnroutedMail};
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::links::round_trip::{self, Difference};
use crate::protocol::layout;
use crate::protocol::wire::{self, Grant, MailHead, Removal, Report, Task, ToProc, TraceLine};
use crate::stall::detector::MainState;

/// Which of several reasons to end the run at one time counts.
pub(crate) fn rank_of_stop(stop: &(SimTime, u64, StopReason)) -> (bool, u64) {
    let (_, index, reason) = stop;
    (matches!(reason, StopReason::StoppedByAgent(_)), *index)
}

/// Gets mail addressed to main.
pub(crate) type Handler<'h, M> = dyn FnMut(Mail<M>, &mut MainContext<M>) + 'h;

/// Clusters, by their places; where they are few they lie on the stack.
type Places = SmallVec<[usize; FEW]>;

const FEW: usize = 4;

/// One run.
pub(crate) struct Rounds<'a, 'h, M: WireMessage> {
    pub(crate) clusters: &'a mut Clusters,
    pub(crate) routing: &'a mut Routing,
    pub(crate) standing: &'a mut Standing,
    pub(crate) under_way: &'a mut UnderWay<M>,
    /// Of each cluster; empty if there is none.
    pub(crate) lookaheads: Vec<SimDuration>,
    pub(crate) handler: Option<&'a mut Handler<'h, M>>,
    pub(crate) trace: &'a mut Option<TraceSink>,
    pub(crate) trace_format: TraceFormat<M>,
    pub(crate) end: Option<SimTime>,
    pub(crate) supersteps: u64,
    supersteps_per_instant: u64,
    stop_at_error: bool,
    pub(crate) predicate: Option<Predicate>,
    pub(crate) interrupted: bool,
    /// Somebody may read how it stands.
    pub(crate) watched: bool,
    /// What clusters have replied.
    pub(crate) replies: Vec<Vec<u8>>,
    /// Under a lookahead: the time of the next event of each cluster when the last windows were opened.
    pub(crate) since: Vec<SimTime>,
    /// Rounds since a report showed that anything was done.
    pub(crate) idle: u32,
    /// The failure that is first in the kernel's order, of those that are known.
    pub(crate) failure: Option<(FailurePlace, Error)>,
    /// Clusters that cannot go on.
    pub(crate) failed: Vec<usize>,
}

/// Code of the model that runs in the process of main: how an error names it if it panics.
const SENT_BY_MAIN: &str =
    "code of a message that main or the owner sends (its topic, encoding, clone or drop)";
const READ_BY_MAIN: &str = "code of a message to main (its topic, encoding or drop)";
const TRACE_FORMAT: &str = "the format of the trace";

/// A correct round may do nothing, as when a run is interrupted; this many in a row is a livelock.
const IDLE_LIMIT: u32 = 1_000;

impl<'a, 'h, M: WireMessage> Rounds<'a, 'h, M> {
    pub(crate) fn new(
        clusters: &'a mut Clusters,
        routing: &'a mut Routing,
        standing: &'a mut Standing,
        under_way: &'a mut UnderWay<M>,
        trace: &'a mut Option<TraceSink>,
        trace_format: TraceFormat<M>,
        run: Run,
    ) -> Self {
        // Time that is past has been reached.
        let end = run.end(standing.time).map(|end| end.max(standing.time));
        let stop_at_error = run.stops_at_error();
        let (supersteps, supersteps_per_instant, predicate) = run.into_parts();
        Self {
            clusters,
            routing,
            standing,
            under_way,
            lookaheads: Vec::new(),
            handler: None,
            trace,
            trace_format,
            end,
            supersteps: supersteps.unwrap_or(u64::MAX),
            supersteps_per_instant,
            stop_at_error,
            predicate,
            interrupted: false,
            watched: false,
            replies: Vec::new(),
            since: Vec::new(),
            idle: 0,
            failure: None,
            failed: Vec::new(),
        }
    }

    // ---- failures

    /// Notes that a cluster cannot go on. The failure that is first in the kernel's order ends the run.
    pub(crate) fn note_failure(&mut self, cluster: usize, place: FailurePlace, error: Error) {
        self.failed.push(cluster);
        self.note_error(place, error);
    }

    /// Notes an error that ends the run, unless another one comes before it.
    pub(crate) fn note_error(&mut self, place: FailurePlace, error: Error) {
        if self
            .failure
            .as_ref()
            .is_none_or(|(first, _)| place < *first)
        {
            self.failure = Some((place, error));
        }
    }

    /// Ends the run with the failure that is noted, if there is one: writes down what came before it, and forgets the rest.
    pub(crate) fn fail(&mut self) -> Result<(), Error> {
        let Some((place, error)) = self.failure.take() else {
            return Ok(());
        };
        let lines = &mut self.under_way.lines;
        lines.retain(|line| place.is_after(line.time, line.superstep, line.index));
        self.write_trace_before(None);
        self.standing.cut_errors(&place);
        Err(error)
    }

    /// Asks clusters something, and returns their replies, in their order.
    pub(crate) fn ask(&mut self, places: &[usize], request: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        for place in places {
            self.routing.inbound[*place].news.request = request.to_vec();
        }
        self.round(places, Task::Answer)?;
        Ok(mem::take(&mut self.replies))
    }

    /// Calls `setup` of all new agents, and posts the owner's mail before theirs.
    pub(crate) fn setup(&mut self, queued: Vec<Mail<M>>) -> Result<(), Error> {
        let all: Vec<usize> = (0..self.clusters.list.len()).collect();
        let errors = self.standing.errors.len();
        let stop_at_error = self.stop_at_error;
        self.round(&all, Task::Setup { stop_at_error })?;
        if self.standing.errors.len() > errors {
            self.standing.errors_of_setup = self.standing.errors.len();
        }
        for mail in queued {
            let key = MailKey::of_owner(self.standing.time, self.standing.owner_sequence);
            self.standing.owner_sequence += 1;
            self.send(key, mail, false)?;
        }
        Ok(())
    }

    /// Runs until something ends it, or holds it. All mail is then posted, and all clusters stand at
    /// one instant.
    pub(crate) fn run_on(&mut self) -> Result<StopReason, Error> {
        if self.lookaheads.is_empty() {
            self.run_rounds()
        } else {
            self.run_windows()
        }
    }

    fn run_rounds(&mut self) -> Result<StopReason, Error> {
        loop {
            let stopped = self.handle_main_mail(self.standing.time)?;
            if self.predicate.is_some() {
                self.post_all()?;
            }
            let stops = self.under_way.stops.drain(..);
            if let Some((_, _, reason)) = stops.min_by_key(rank_of_stop) {
                return self.finish(reason);
            }
            if stopped {
                return self.finish(StopReason::Stopped);
            }
            if self.predicate_holds() {
                return self.finish(StopReason::Predicate);
            }
            if self.interrupted {
                return self.finish(StopReason::Timeout);
            }
            let awake = self.places(Self::is_awake);
            if !awake.is_empty() {
                if self.end.is_some_and(|end| end <= self.standing.time) {
                    return self.finish(StopReason::TimeLimit);
                }
                if self.supersteps == 0 {
                    return self.finish(StopReason::Supersteps);
                }
                self.deliver(&awake)?;
                continue;
            }
            let Some(time) = self.next_alarm(None) else {
                return self.finish(StopReason::Idle);
            };
            if let Some(end) = self.end.filter(|end| *end <= time) {
                self.advance_to(end);
                return self.finish(StopReason::TimeLimit);
            }
            if self.supersteps == 0 {
                return self.finish(StopReason::Supersteps);
            }
            self.fire(time)?;
        }
    }

    /// A superstep, or a solo run, of the clusters that have mail.
    fn deliver(&mut self, awake: &[usize]) -> Result<(), Error> {
        if let [place] = *awake
            && let Some(task) = self.run_alone(place)
        {
            return self.round(awake, task);
        }
        if self.standing.superstep >= self.supersteps_per_instant {
            return self.look_for_an_end();
        }
        let kept_awake = self.places(|rounds, place| rounds.report(place).kept_awake);
        if kept_awake.is_empty() {
            return self.round(awake, Task::SuperstepIfAwake);
        }
        // Agents that are kept awake take part in every superstep there is: is there one?
        self.round(awake, Task::Post)?;
        let mut all = self.places(Self::is_awake);
        if all.is_empty() {
            return Ok(());
        }
        all.extend(kept_awake);
        all.sort_unstable();
        all.dedup();
        self.round(&all, Task::Superstep)
    }

    /// Finds out whether an instant that has had as many supersteps as it may is over.
    #[cold]
    fn look_for_an_end(&mut self) -> Result<(), Error> {
        self.post_all()?;
        if self.places(Self::is_awake).is_empty() {
            return Ok(());
        }
        let all = self.places(|_, _| true);
        let replies = self.ask(&all, &commands::ask_awake().unwrap_or_default())?;
        // Whoever cannot answer names nobody; the error is the same.
        let awake = replies
            .iter()
            .filter_map(|it| commands::read_awake(it).ok());
        let mut awake: Vec<_> = awake.flatten().collect();
        awake.sort_unstable();
        awake.truncate(maslite_core::Error::AWAKE_NAMED);
        Err(Error::Model(maslite_core::Error::EndlessExchange {
            time: self.standing.time,
            limit: self.supersteps_per_instant,
            agents: awake.into_iter().map(|(_, id)| id).collect(),
        }))
    }

    /// Moves time to the next alarms.
    fn fire(&mut self, time: SimTime) -> Result<(), Error> {
        let due = self.places(|rounds, place| rounds.report(place).next_alarm == Some(time));
        if let [place] = *due
            && let Some(task) = self.run_alone(place)
        {
            return self.round(&due, task);
        }
        self.advance_to(time);
        let may_leave = |place: &usize| {
            let inbound = &self.routing.inbound[*place];
            self.report(*place).alarms_may_leave || inbound.brings_listeners()
        };
        let together = self.predicate.is_none()
            && self.standing.superstep < self.supersteps_per_instant
            && !due.iter().any(may_leave)
            && self
                .places(|rounds, place| rounds.report(place).kept_awake)
                .is_empty();
        self.round(
            &due,
            if together {
                Task::FireAndSuperstep
            } else {
                Task::Fire
            },
        )
    }

    /// Leave for a cluster to run on its own, if nothing that others do can matter to it.
    fn run_alone(&self, place: usize) -> Option<Task> {
        let mut others = (0..self.clusters.list.len()).filter(|other| *other != place);
        if self.predicate.is_some() || others.any(|other| self.report(other).kept_awake) {
            return None;
        }
        let others = self.next_alarm(Some(place));
        Some(Task::RunAlone {
            horizon: match (others, self.end) {
                (Some(others), Some(end)) => Some(others.min(end)),
                (others, end) => others.or(end),
            },
            supersteps: self.supersteps,
            next_index: self.standing.next_index,
        })
    }

    /// Posts all mail that waits, so that the counters tell of it.
    fn post_all(&mut self) -> Result<(), Error> {
        let waiting = self.places(|rounds, place| {
            rounds.report(place).waiting || rounds.routing.inbound[place].mails > 0
        });
        self.round(&waiting, Task::Post)
    }

    pub(crate) fn finish(&mut self, reason: StopReason) -> Result<StopReason, Error> {
        self.post_all()?;
        Ok(reason)
    }

    pub(crate) fn predicate_holds(&mut self) -> bool {
        let Some(predicate) = &mut self.predicate else {
            return false;
        };
        let main_activity = &self.clusters.main_activity;
        main_activity.set(MainState::Predicate, self.standing.time);
        let holds = predicate(&self.standing.counters());
        main_activity.set(MainState::Routing, self.standing.time);
        holds
    }

    // ---- what main knows

    pub(crate) fn report(&self, place: usize) -> &Report {
        self.standing.reports[place]
            .as_ref()
            .expect("every cluster has reported its setup")
    }

    fn places(&self, mut want: impl FnMut(&Self, usize) -> bool) -> Places {
        (0..self.clusters.list.len())
            .filter(|place| want(self, *place))
            .collect()
    }

    /// Whether a cluster has something to do in this instant, as far as main can tell.
    fn is_awake(&self, place: usize) -> bool {
        self.report(place).awake || self.routing.inbound[place].is_urgent()
    }

    /// The earliest alarm in all clusters, or in all but one.
    pub(crate) fn next_alarm(&self, but: Option<usize>) -> Option<SimTime> {
        let others = (0..self.clusters.list.len()).filter(|place| Some(*place) != but);
        others
            .filter_map(|place| self.report(place).next_alarm)
            .min()
    }

    pub(crate) fn advance_to(&mut self, time: SimTime) {
        assert!(time >= self.standing.time, "time never goes backwards");
        let mut inbound = self.routing.inbound.iter();
        assert!(
            inbound.all(|inbound| inbound.mails == 0 || inbound.earliest >= Some(time)),
            "time never passes mail that is under way"
        );
        if time > self.standing.time {
            self.standing.time = time;
            self.standing.superstep = 0;
        }
    }

    // ---- a round

    /// Grants a task to some clusters, waits for their reports and draws the conclusions.
    fn round(&mut self, places: &[usize], task: Task) -> Result<(), Error> {
        let mut tasks = SmallVec::<[_; FEW]>::new();
        tasks.extend(places.iter().map(|place| (*place, task)));
        self.exchange_tasks(&tasks, false)
    }

    /// The same with a task for each; `aligning` if it is to be done although the run is interrupted.
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
            self.bury(tasks);
            return self.find_known_homes();
        }
        self.number_births(tasks);
        self.fail()?;
        self.dismiss();
        self.fail()?;
        self.write_trace_before(None);
        self.bury(tasks);
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
            // Looking again at mail comes between two postings: what arrived waits for the next one.
            Task::Rematch | Task::Answer => self.clusters.draft(place, time)?,
            _ => {
                (inbound.mails, inbound.earliest) = (0, None);
                self.clusters.draft_with_mail(place, time)?
            }
        };
        wire::put_note(&note, &mut draft).map_err(|why| Error::Encode {
            what: "a grant".to_owned(),
            why: why.to_string(),
        })?;
        self.clusters.send(place, time)
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

    /// Gives the agents that were added in this round their insertion indices, in the order of supersteps and of who
    /// added them. Notes the first id that is taken.
    fn number_births(&mut self, tasks: &[(usize, Task)]) {
        let mut births = Vec::new();
        for (place, _) in tasks {
            let newborn = self.take_newborn(*place);
            births.extend(in_order(newborn).map(|(sequence, newborn)| (*place, sequence, newborn)));
        }
        births.sort_by_key(|(_, _, newborn)| (newborn.time, newborn.superstep, newborn.adder));
        for (place, sequence, newborn) in births {
            if !self.house(place, sequence, &newborn) {
                return;
            }
            self.routing.inbound[place]
                .news
                .numbers
                .push(self.standing.next_index);
            self.standing.next_index += 1;
        }
    }

    /// Notes where a newborn lives; `sequence`: which one it is of those in its superstep and cluster. False if its id is taken,
    /// which is noted as an error.
    pub(crate) fn house(&mut self, place: usize, sequence: u64, newborn: &Newborn) -> bool {
        let cluster = u32::try_from(place).unwrap_or(u32::MAX);
        let adder = Adder::Agent(newborn.by, newborn.time);
        let Err(source) = self.routing.insert(newborn.id, cluster, adder) else {
            return true;
        };
        let at = FailurePlace {
            time: newborn.time,
            superstep: newborn.superstep,
            stage: FailureStage::Birth,
            index: newborn.adder,
            sequence,
        };
        let cluster = self.clusters.list[place].name.clone();
        self.note_error(at, Error::Agent { cluster, source });
        false
    }

    /// Without a lookahead all clusters were in one superstep: what failed there first ends the run. With one, other clusters may
    /// come to an earlier failure, so that they go on to the time of this one.
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
    fn bury(&mut self, tasks: &[(usize, Task)]) {
        for (place, _) in tasks {
            let Some(report) = &mut self.standing.reports[*place] else {
                continue;
            };
            if !report.events.gone.is_empty() {
                let cluster = u32::try_from(*place).unwrap_or(u32::MAX);
                for id in mem::take(&mut report.events.gone) {
                    self.routing.bury(id, cluster);
                }
            }
        }
    }

    /// The agents added in a cluster, as its last report tells.
    pub(crate) fn take_newborn(&mut self, place: usize) -> Vec<Newborn> {
        match &mut self.standing.reports[place] {
            Some(report) if !report.events.newborn.is_empty() => {
                mem::take(&mut report.events.newborn)
            }
            _ => Vec::new(),
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

    /// Finds the clusters of receivers that the senders did not know.
    fn find_homes(&mut self) -> Result<(), Error> {
        for mail in mem::take(&mut self.under_way.unrouted) {
            self.find_home(&mail)?;
        }
        Ok(())
    }

    /// Finds the homes that are known already: an agent never moves, so nothing has to wait.
    fn find_known_homes(&mut self) -> Result<(), Error> {
        let mails = mem::take(&mut self.under_way.unrouted).into_iter();
        let (known, unknown): (Vec<_>, Vec<_>) =
            mails.partition(|mail| self.routing.owner(mail.receiver).is_some());
        self.under_way.unrouted = unknown;
        known.iter().try_for_each(|mail| self.find_home(mail))
    }

    pub(crate) fn find_home(&mut self, mail: &UnroutedMail) -> Result<(), Error> {
        check_name(mail.receiver)?;
        match self.routing.owner(mail.receiver) {
            Some(cluster) => {
                let from = Traffic::place_of(mail.sender);
                self.relay(from, cluster, 1, &mail.bytes, mail.arrives)?;
                let route = (mail.receiver, cluster);
                self.routing.inbound[mail.sender].news.routes.push(route);
            }
            None if self.standing.keeps_lost() => {
                let what = match wire::take_mail::<M>(&mut &mail.bytes[..]) {
                    Ok((head, mail)) => Some((head, mail.topic())),
                    Err(_) => None,
                };
                match what {
                    Some((head, topic)) => {
                        self.standing
                            .lose(head.key, head.sender, mail.receiver, topic);
                    }
                    // What it was about is in the message alone.
                    None => self.standing.count_undeliverable(),
                }
            }
            None => self.standing.count_undeliverable(),
        }
        Ok(())
    }

    /// Writes mail into the next message to a cluster, from a place as [`Traffic`] counts them. The first of it arrives at
    /// `earliest`, under a lookahead.
    pub(crate) fn relay(
        &mut self,
        from: usize,
        cluster: u32,
        mails: u32,
        bytes: &[u8],
        earliest: SimTime,
    ) -> Result<(), Error> {
        self.routing
            .note_mail(from, cluster, mails, bytes.len(), earliest);
        self.clusters
            .relay(cluster as usize, bytes, self.standing.time)
    }

    /// Tells the clusters of agents that others removed.
    fn dismiss(&mut self) {
        let mut removals = mem::take(&mut self.under_way.removals);
        // Of one agent they are in the order of its calls.
        removals.sort_by_key(|(removal, _)| removal.index);
        for (removal, place) in removals {
            self.dismiss_one(removal, place);
        }
    }

    pub(crate) fn dismiss_one(&mut self, removal: Removal, place: usize) {
        let Removal {
            id,
            by,
            index,
            time,
        } = removal;
        if let Err(error) = check_name(id) {
            self.note_error(self.standing.before_the_superstep(), error);
            return;
        }
        if self.routing.is_gone(id) {
            return;
        }
        let Some(owner) = self.routing.owner(id) else {
            let at = FailurePlace {
                time,
                superstep: self.standing.superstep.saturating_sub(1),
                stage: FailureStage::Removal,
                index,
                sequence: 0,
            };
            let cluster = self.clusters.list[place].name.clone();
            let source = maslite_core::Error::RemovedUnknown { id, by, time };
            self.note_error(at, Error::Agent { cluster, source });
            return;
        };
        let dismissed = &mut self.routing.inbound[owner as usize].news.dismissed;
        dismissed.push((id, Some(time)));
    }

    /// Writes down what happened before a time, or all there is. Nothing can come before it.
    pub(crate) fn write_trace_before(&mut self, time: Option<SimTime>) {
        if self.under_way.lines.is_empty() {
            return;
        }
        let main_activity = &self.clusters.main_activity;
        main_activity.set(MainState::Trace, self.standing.time);
        self.under_way.write_trace_before(time, self.trace);
        main_activity.set(MainState::Routing, self.standing.time);
    }

    // ---- mail to and from main

    /// Hands mail that has come to main by `time` to the handler, in the kernel's order. True if
    /// it stops.
    pub(crate) fn handle_main_mail(&mut self, time: SimTime) -> Result<bool, Error> {
        let mut mails = mem::take(&mut self.under_way.main_mail);
        mails.sort_by_key(|(arrives, key, _)| (*arrives, *key));
        let later = mails.split_off(mails.partition_point(|(arrives, _, _)| *arrives <= time));
        self.under_way.main_mail = later;
        let mut context = MainContext::new(self.standing.time);
        for (_, key, mail) in mails {
            if self.handler.is_none() {
                let (sender, place) = (mail.sender, self.standing.place());
                let topic = guard_model(Some(READ_BY_MAIN), place, || {
                    let topic = mail.topic();
                    drop(mail);
                    topic
                })?;
                self.standing.lose(key, sender, AgentId::MAIN, topic);
                continue;
            }
            self.count_delivery(&mail)?;
            if let Some(handler) = &mut self.handler {
                self.clusters
                    .main_activity
                    .set(MainState::Handler, self.standing.time);
                context.take_up(key.sent_at());
                handler(mail, &mut context);
                self.clusters
                    .main_activity
                    .set(MainState::Routing, self.standing.time);
            }
        }
        let (replies, stop) = context.into_parts();
        for (receiver, body) in replies {
            let key = MailKey::of_main(self.standing.time, self.standing.sequence);
            self.standing.sequence += 1;
            self.send(key, Mail::new(AgentId::MAIN, receiver, body), true)?;
        }
        Ok(stop)
    }

    fn count_delivery(&mut self, mail: &Mail<M>) -> Result<(), Error> {
        self.standing.counters.sent += 1;
        self.standing.counters.delivered += 1;
        let delivery = Delivery {
            time: self.standing.time,
            superstep: self.standing.superstep,
            agent: AgentId::MAIN,
            index: u64::MAX,
            nth: self.standing.delivered,
            mail,
        };
        self.standing.delivered += 1;
        let place = (delivery.time, delivery.superstep);
        let standing = &mut *self.standing;
        guard_model(Some(READ_BY_MAIN), place, || {
            standing.add_to_digests(&delivery)
        })??;
        if self.trace.is_some() {
            let mut text = String::new();
            let format = self.trace_format;
            guard_model(Some(TRACE_FORMAT), place, || format(&delivery, &mut text))?;
            // Main handles its mail before the agents are updated.
            self.under_way.lines.push(TraceLine {
                time: delivery.time,
                superstep: delivery.superstep,
                index: 0,
                text,
            });
        }
        if self.lookaheads.is_empty() {
            self.write_trace_before(None);
        }
        Ok(())
    }

    /// Sends mail of the simulation's owner, or a reply of main.
    fn send(&mut self, key: MailKey, mail: Mail<M>, is_reply: bool) -> Result<(), Error> {
        guard_model(Some(SENT_BY_MAIN), self.standing.place(), || {
            self.send_unguarded(key, mail, is_reply)
        })?
    }

    fn send_unguarded(&mut self, key: MailKey, mail: Mail<M>, is_reply: bool) -> Result<(), Error> {
        let (sender, receiver, topic) = (mail.sender, mail.receiver, mail.topic());
        receiver.agent().map_or(Ok(()), check_name)?;
        let clusters = self.routing.destinations(sender, receiver, topic);
        match receiver.agent() {
            // Main does not talk to itself: no superstep would end that.
            Some(AgentId::MAIN) if is_reply => {
                self.standing.lose(key, sender, AgentId::MAIN, topic);
            }
            Some(AgentId::MAIN) => {
                // Without a lookahead main's mail has one order, whoever sent it.
                let arrives = if self.lookaheads.is_empty() {
                    SimTime::ZERO
                } else {
                    self.standing.time
                };
                self.under_way.main_mail.push((arrives, key, mail.clone()));
            }
            Some(id) if self.routing.owner(id).is_none() => {
                self.standing.lose(key, sender, id, topic);
            }
            None if clusters.is_empty() => self.standing.counters.unheard += 1,
            _ => {}
        }
        let mut bytes = Vec::new();
        // Mail that the owner queued waits already; a reply arrives now, as main has no lookahead.
        let arrives = if is_reply && !self.lookaheads.is_empty() {
            self.standing.time
        } else {
            SimTime::ZERO
        };
        let head = MailHead {
            key,
            sender,
            receiver,
            arrives,
            left: arrives,
            is_copy: false,
        };
        let encoded = wire::put_mail(&head, &mail.body, &mut bytes);
        encoded.map_err(|why| Error::Encode {
            what: layout::name_mail(&head, topic),
            why: layout::reason(&mail.body, why),
        })?;
        let trips = &mut self.under_way.trips;
        let body = &bytes[head.length()..];
        if trips.wants(body)
            && let Err(Difference::Other(why)) =
                round_trip::make(&mail.body, body, &mut trips.scratch)
        {
            return Err(Error::Asymmetric {
                cluster: None,
                what: layout::name_mail(&head, topic),
                why,
            });
        }
        let owner = receiver.agent().and_then(|id| self.routing.owner(id));
        let earliest = self.standing.time;
        if let Some(owner) = owner {
            self.relay(Traffic::MAIN, owner, 1, &bytes, earliest)?;
        }
        wire::mark_copy(&mut bytes);
        for cluster in clusters {
            if Some(cluster) != owner {
                self.relay(Traffic::MAIN, cluster, 1, &bytes, earliest)?;
            }
        }
        Ok(())
    }
}

/// Newborns as a cluster lists them, each with which one it is of those in its superstep.
pub(crate) fn in_order(newborn: Vec<Newborn>) -> impl Iterator<Item = (u64, Newborn)> {
    let mut last = None;
    let mut sequence = 0;
    newborn.into_iter().map(move |newborn| {
        let superstep = Some((newborn.time, newborn.superstep));
        sequence = if superstep == last { sequence + 1 } else { 0 };
        last = superstep;
        (sequence, newborn)
    })
}

/// Makes sure that an id means one agent only.
pub(crate) fn check_name(id: AgentId) -> Result<(), Error> {
    let checked = id.check_name();
    checked.map_err(|collision| Error::Model(collision.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, serde::Serialize, serde::Deserialize, maslite_mp::Message)]
    enum Msg {}

    const NOON: SimTime = SimTime::from_millis(12);
    const LATER: SimTime = SimTime::from_millis(13);

    /// Moves time from noon on while one mail is under way that arrives at `arrives`.
    fn advance(arrives: SimTime, to: SimTime) -> SimTime {
        let mut clusters = Clusters::unmanned(1).unwrap();
        let mut routing = Routing::default();
        routing.add_cluster();
        let (mut standing, mut under_way) = (Standing::default(), UnderWay::default());
        let mut trace = None;
        standing.time = NOON;
        let mut rounds: Rounds<'_, '_, Msg> = Rounds::new(
            &mut clusters,
            &mut routing,
            &mut standing,
            &mut under_way,
            &mut trace,
            |_, _| {},
            Run::until_idle(),
        );
        rounds.routing.note_mail(Traffic::MAIN, 0, 1, 4, arrives);
        rounds.advance_to(to);
        standing.time
    }

    #[test]
    fn time_moves_to_mail_that_is_under_way() {
        assert_eq!(advance(LATER, NOON), NOON);
        assert_eq!(advance(LATER, LATER), LATER);
    }

    #[test]
    #[should_panic(expected = "time never passes mail that is under way")]
    fn time_never_passes_mail_that_is_under_way() {
        advance(NOON, LATER);
    }

    #[test]
    #[should_panic(expected = "time never goes backwards")]
    fn time_never_goes_backwards() {
        advance(LATER, SimTime::from_millis(11));
    }
}
