//! How main grants time: the loop over all clusters, told once and in order.
//!
//! A round is a grant to some clusters and their reports. Main has seen every mail that crosses,
//! and moves time only when all reports are in and all mail of the instant is delivered.
//!
//! - One cluster alone with mail, or alone at the next instant, runs *solo*: many supersteps and
//!   instants without a word, until something leaves it or the next event of another cluster.
//! - Several with mail at one instant run it in *lockstep*, a superstep a round. Each posts its own
//!   mail together with what main brings, in the kernel's order.
//! - Several with alarms due at one instant fire them first, if an alarm may be for another
//!   cluster; otherwise that is one round with the superstep.

use std::mem;

use maslite_core::internal::{FailurePlace, MailKey, Predicate, RunInternals};
use maslite_core::{Mail, MainContext, Run, SimDuration, SimTime, StopReason};
use smallvec::SmallVec;

use crate::cluster::commands;
use crate::cluster::registry::{TraceFormat, WireMessage};
use crate::coordination::clusters::Clusters;
use crate::coordination::pace::Pace;
use crate::coordination::routing::Routing;
use crate::coordination::save_plan::Saving;
use crate::coordination::state::{Standing, TraceSink, UnderWay};
use crate::error::Error;
use crate::protocol::wire::{Report, Task, TraceWindow};
use crate::stall::detector::MainState;

/// Which of several reasons to end the run at one time counts.
pub(crate) fn rank_of_stop(stop: &(SimTime, u64, StopReason)) -> (bool, u64) {
    let (_, index, reason) = stop;
    (matches!(reason, StopReason::StoppedByAgent(_)), *index)
}

/// Clusters, by their places; where they are few they lie on the stack.
pub(super) type Places = SmallVec<[usize; FEW]>;

pub(super) const FEW: usize = 4;

/// Gets mail addressed to main.
pub(crate) type Handler<'h, M> = dyn FnMut(Mail<M>, &mut MainContext<M>) + 'h;

/// One run.
pub(crate) struct Rounds<'a, 'h, M: WireMessage> {
    pub(crate) clusters: &'a mut Clusters,
    pub(crate) routing: &'a mut Routing,
    pub(crate) standing: &'a mut Standing,
    pub(crate) under_way: &'a mut UnderWay<M>,
    /// Of each cluster; empty if there is none.
    pub(crate) lookaheads: Vec<SimDuration>,
    /// How clusters run ahead of what is final, if they do.
    pub(crate) pace: Option<Pace>,
    /// They did, and how far that came is not known yet; and whether only their budgets ended it.
    pub(super) ran_ahead: Option<bool>,
    pub(crate) handler: Option<&'a mut Handler<'h, M>>,
    pub(crate) trace: &'a mut Option<TraceSink>,
    pub(crate) trace_format: TraceFormat<M>,
    /// Main's mail of other instants is not traced.
    pub(crate) window: Option<TraceWindow>,
    pub(crate) end: Option<SimTime>,
    pub(crate) supersteps: u64,
    pub(super) supersteps_per_instant: u64,
    stop_at_error: bool,
    pub(crate) predicate: Option<Predicate>,
    pub(crate) interrupted: bool,
    /// What it needs to be saved, during a run.
    pub(crate) saving: Option<&'a mut Saving<M>>,
    /// Another thread may read how it stands.
    pub(crate) watched: bool,
    /// What clusters have replied.
    pub(crate) replies: Vec<Vec<u8>>,
    /// Under a lookahead: the time of the next event of each cluster when the last windows were
    /// opened.
    pub(crate) since: Vec<SimTime>,
    /// Rounds since a report showed that anything was done.
    pub(crate) idle: u32,
    /// The failure that is first in the kernel's order, of those that are known.
    pub(crate) failure: Option<(FailurePlace, Error)>,
    /// Clusters that cannot go on.
    pub(crate) failed: Vec<usize>,
}

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
            pace: None,
            ran_ahead: None,
            handler: None,
            trace,
            trace_format,
            window: None,
            end,
            supersteps: supersteps.unwrap_or(u64::MAX),
            supersteps_per_instant,
            stop_at_error,
            predicate,
            interrupted: false,
            saving: None,
            watched: false,
            replies: Vec::new(),
            since: Vec::new(),
            idle: 0,
            failure: None,
            failed: Vec::new(),
        }
    }

    /// Notes that a cluster cannot go on. The failure that is first in the kernel's order ends the
    /// run.
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

    /// Ends the run with the failure that is noted, if there is one: writes down what came before
    /// it, and forgets the rest.
    pub(crate) fn fail(&mut self) -> Result<(), Error> {
        let Some((place, error)) = self.failure.take() else {
            return Ok(());
        };
        self.collect_owed()?;
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

    /// Runs until something ends it, or holds it. All mail is then posted, and all clusters stand
    /// at one instant.
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
            if self.withdraw_forecasts()? || self.speculate()? {
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
        // A cluster that cannot answer names no agent; the error is the same.
        let awake = replies
            .iter()
            .filter_map(|it| commands::read_awake(it).ok());
        let mut awake: Vec<_> = awake.flatten().collect();
        awake.sort_unstable();
        awake.truncate(maslite_core::internal::AWAKE_NAMED);
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
        if self.predicate.is_some()
            || self.standing.withdraws
            || others.any(|other| self.report(other).kept_awake)
        {
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
    pub(super) fn post_all(&mut self) -> Result<(), Error> {
        let waiting = self.places(|rounds, place| {
            rounds.report(place).waiting
                || rounds.routing.inbound[place].mails > 0
                || rounds.standing.owed[place].is_some()
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::routing::Traffic;

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
