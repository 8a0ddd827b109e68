//! For `maslite-mp` and the tests of this workspace alone: what a host of several engines needs.
//! It may change with every version.
//!
//! Methods of public types that only such a host calls are methods of the traits here, so that the
//! documentation of a type lists all that a program can call.

use std::time::Duration;

pub use crate::agent_types::AgentCodec;
pub use crate::engine::*;
pub use crate::error::AWAKE_NAMED;
pub use crate::fnv::Fnv;
pub use crate::lock::LockEvenPoisoned;
pub use crate::mailing_list::MailingList;
pub use crate::message::{MailKey, Message};
pub use crate::plain::is_command;
pub use crate::progress::{Progress, RequestGuard, Sample};
pub use crate::run::{LostKey, Predicate, lost_when_posted};
pub use crate::scheduler::saved::{SchedulerState, export_scheduler, restore_scheduler};

use crate::alarm::PendingAlarm;
use crate::id::{AgentId, IdError};
use crate::main_context::MainContext;
use crate::message::Receiver;
use crate::run::{AgentError, Counters, LostMail, Report, Run, StopReason};
use crate::simulation::{AgentInfo, Shutdown, StopHandle};
use crate::time::SimTime;
use crate::topic::Topic;

/// Names and ids.
pub trait AgentIdInternals: Sized {
    /// Makes the id of a name. The process does not remember the name.
    #[must_use]
    fn of_name(name: &str) -> Self;

    /// Checks that this process knows at most one name with this id.
    ///
    /// # Errors
    /// [`IdError::Collision`].
    fn check_name(self) -> Result<(), IdError>;

    /// Returns the names that this process has learned after the first `known` names, and sets
    /// `known` to the number of all names.
    #[must_use]
    fn names_since(known: &mut usize) -> Vec<String>;
}

impl AgentIdInternals for AgentId {
    fn of_name(name: &str) -> Self {
        Self::of_name(name)
    }

    fn check_name(self) -> Result<(), IdError> {
        self.check_name()
    }

    fn names_since(known: &mut usize) -> Vec<String> {
        Self::names_since(known)
    }
}

/// What a run is asked for.
pub trait RunInternals: Sized {
    /// Returns the time limit of the run, if the clock now stands at `now`; none if it has no time
    /// limit.
    #[must_use]
    fn end(&self, now: SimTime) -> Option<SimTime>;

    /// Returns the limit of wall time.
    #[must_use]
    fn wall_limit(&self) -> Option<Duration>;

    /// Whether the run ends at the first error that an agent reports.
    #[must_use]
    fn stops_at_error(&self) -> bool;

    /// Returns the limits on supersteps, of the run and of an instant, and the predicate.
    #[must_use]
    fn into_parts(self) -> (Option<u64>, u64, Option<Predicate>);
}

impl RunInternals for Run {
    fn end(&self, now: SimTime) -> Option<SimTime> {
        self.end(now)
    }

    fn wall_limit(&self) -> Option<Duration> {
        self.wall_limit()
    }

    fn stops_at_error(&self) -> bool {
        self.stops_at_error()
    }

    fn into_parts(self) -> (Option<u64>, u64, Option<Predicate>) {
        self.into_parts()
    }
}

/// What a run reports.
pub trait ReportInternals {
    /// Makes the report of a run from `start` to `now`, with empty counters.
    #[must_use]
    fn new(stopped_by: StopReason, start: SimTime, now: SimTime, wall: Duration) -> Self;
}

impl ReportInternals for Report {
    fn new(stopped_by: StopReason, start: SimTime, now: SimTime, wall: Duration) -> Self {
        Self::new(stopped_by, start, now, wall)
    }
}

/// Counters as they cross a link.
pub trait CountersInternals {
    /// Returns all counters as numbers.
    #[must_use]
    fn to_numbers(self) -> [u64; 13];

    /// Makes counters from the numbers of [`to_numbers`](Self::to_numbers).
    #[must_use]
    fn from_numbers(numbers: [u64; 13]) -> Self;
}

impl CountersInternals for Counters {
    fn to_numbers(self) -> [u64; 13] {
        self.to_numbers()
    }

    fn from_numbers(numbers: [u64; 13]) -> Self {
        Self::from_numbers(numbers)
    }
}

/// Why a run ended.
pub trait StopReasonInternals {
    /// Returns the agent that ended the run, if an agent did. An error takes precedence over a stop
    /// of the same superstep.
    #[must_use]
    fn asked_by(self) -> Option<AgentId>;
}

impl StopReasonInternals for StopReason {
    fn asked_by(self) -> Option<AgentId> {
        self.asked_by()
    }
}

/// The order of errors that agents report.
pub trait AgentErrorInternals {
    /// Returns the sort key of the error: instant, superstep, insertion index.
    #[must_use]
    fn key(&self) -> (SimTime, u64, u64);
}

impl AgentErrorInternals for AgentError {
    fn key(&self) -> (SimTime, u64, u64) {
        self.key()
    }
}

/// Mail that found no receiver.
pub trait LostMailInternals {
    /// Makes a mail that the kernel found undeliverable at `time`.
    #[must_use]
    fn new(time: SimTime, from: AgentId, to: AgentId, topic: Topic) -> Self;
}

impl LostMailInternals for LostMail {
    fn new(time: SimTime, from: AgentId, to: AgentId, topic: Topic) -> Self {
        Self::new(time, from, to, topic)
    }
}

/// Alarms that are listed.
pub trait PendingAlarmInternals {
    /// Returns the alarm's place in the order in which alarms fire.
    #[must_use]
    fn place(&self) -> (SimTime, MailKey);
}

impl PendingAlarmInternals for PendingAlarm {
    fn place(&self) -> (SimTime, MailKey) {
        self.place()
    }
}

/// The handler of mail to main, as its host calls it.
pub trait MainContextInternals<M> {
    /// Makes the context of a handler.
    #[must_use]
    fn new(now: SimTime) -> Self;

    /// Notes when the mail was sent that is handled next.
    fn take_up(&mut self, sent_at: SimTime);

    /// Returns the messages that the handler sent, and whether it asked to stop.
    #[must_use]
    fn into_parts(self) -> (Vec<(Receiver, M)>, bool);
}

impl<M> MainContextInternals<M> for MainContext<M> {
    fn new(now: SimTime) -> Self {
        Self::new(now)
    }

    fn take_up(&mut self, sent_at: SimTime) {
        self.take_up(sent_at);
    }

    fn into_parts(self) -> (Vec<(Receiver, M)>, bool) {
        self.into_parts()
    }
}

/// Agents that are listed.
pub trait AgentInfoInternals<C> {
    /// Makes an entry of a listing.
    #[must_use]
    fn new(id: AgentId, index: u64, type_name: String, cluster: C) -> Self;
}

impl<C> AgentInfoInternals<C> for AgentInfo<C> {
    fn new(id: AgentId, index: u64, type_name: String, cluster: C) -> Self {
        Self::new(id, index, type_name, cluster)
    }
}

/// The end of a simulation.
pub trait ShutdownInternals<E, P> {
    /// Makes the result of a shutdown.
    #[must_use]
    fn new(took: Duration, ends: Vec<P>, errors: Vec<E>) -> Self;
}

impl<E, P> ShutdownInternals<E, P> for Shutdown<E, P> {
    fn new(took: Duration, ends: Vec<P>, errors: Vec<E>) -> Self {
        Self::new(took, ends, errors)
    }
}

/// Handles that end a run.
pub trait StopHandleInternals {
    /// Makes a handle that calls `stop`.
    #[must_use]
    fn new(stop: impl Fn() + Send + Sync + 'static) -> Self;
}

impl StopHandleInternals for StopHandle {
    fn new(stop: impl Fn() + Send + Sync + 'static) -> Self {
        Self::new(stop)
    }
}
