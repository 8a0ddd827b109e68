//! When a run ends ([`Run`]), and what it reports ([`Report`]).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::MailKey;
use crate::{AgentId, Digest, SimDuration, SimTime, Topic};

/// Sets when a run ends: at the first of the given conditions, and always when it is idle.
///
/// ```
/// use std::time::Duration;
/// use maslite_core::{Run, SimDuration};
/// let a_day_or_ten_seconds_of_wall_time =
///     Run::lasting(SimDuration::from_secs(86_400)).timeout(Duration::from_secs(10));
/// # let _ = a_day_or_ten_seconds_of_wall_time;
/// ```
#[must_use = "a run does nothing until it is handed to `run`"]
pub struct Run {
    pub(crate) limit: Limit,
    pub(crate) supersteps: Option<u64>,
    pub(crate) supersteps_per_instant: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) predicate: Option<Predicate>,
    pub(crate) stop_at_error: bool,
}

/// Decides between two supersteps whether a run ends.
pub type Predicate = Box<dyn FnMut(&Counters) -> bool>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Idle,
    Until(SimTime),
    Lasting(SimDuration),
}

impl Run {
    /// The default limit on the supersteps of one instant.
    pub const SUPERSTEPS_PER_INSTANT: u64 = 1_000_000;

    fn new(limit: Limit) -> Self {
        Self {
            limit,
            supersteps: None,
            supersteps_per_instant: Self::SUPERSTEPS_PER_INSTANT,
            timeout: None,
            predicate: None,
            stop_at_error: false,
        }
    }

    /// Runs until no mail and no alarm is left.
    pub fn until_idle() -> Self {
        Self::new(Limit::Idle)
    }

    /// Runs until simulated time reaches `time`. The clock then stands at `time`, and nothing that
    /// is due at that time or later has happened.
    pub fn until(time: SimTime) -> Self {
        Self::new(Limit::Until(time))
    }

    /// Runs for a span of simulated time, from the present time of the clock.
    pub fn lasting(duration: SimDuration) -> Self {
        Self::new(Limit::Lasting(duration))
    }

    /// Limits the run to this many supersteps. With 0 the run only calls `setup`, for agents
    /// without it.
    pub fn supersteps(mut self, count: u64) -> Self {
        self.supersteps = Some(count);
        self
    }

    /// Limits the run to this span of wall time. An agent at work is not interrupted.
    pub fn timeout(mut self, duration: Duration) -> Self {
        self.timeout = Some(duration);
        self
    }

    /// Ends the run when the predicate holds. It is called with the counters between any two
    /// supersteps.
    pub fn stop_when(mut self, predicate: impl FnMut(&Counters) -> bool + 'static) -> Self {
        self.predicate = Some(Box::new(predicate));
        self
    }

    /// Ends the run when an agent reports an error with
    /// [`Context::report_error`](crate::Context::report_error). Without this the errors are
    /// collected and the run goes on.
    pub fn stop_at_error(mut self) -> Self {
        self.stop_at_error = true;
        self
    }

    /// Limits the supersteps of one instant. A run that exceeds the limit ends with the error of an
    /// endless exchange.
    pub fn supersteps_per_instant(mut self, limit: u64) -> Self {
        self.supersteps_per_instant = limit;
        self
    }

    /// Returns the time limit of the run, if the clock now stands at `now`; none if it has no time
    /// limit.
    #[must_use]
    pub(crate) fn end(&self, now: SimTime) -> Option<SimTime> {
        match self.limit {
            Limit::Idle => None,
            Limit::Until(time) => Some(time),
            Limit::Lasting(duration) => Some(now.saturating_add(duration)),
        }
    }

    /// Returns the limit of wall time.
    #[must_use]
    pub(crate) fn wall_limit(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether the run ends at the first error that an agent reports.
    #[must_use]
    pub(crate) fn stops_at_error(&self) -> bool {
        self.stop_at_error
    }

    /// Returns the limits and the predicate, for a main that runs several schedulers.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Option<u64>, u64, Option<Predicate>) {
        (self.supersteps, self.supersteps_per_instant, self.predicate)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("limit", &self.limit)
            .field("supersteps", &self.supersteps)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What a simulation counts. `queued`, `alarms_pending` and `agents` are numbers at one time; all
/// others grow.
///
/// Since the simulation began, sent = delivered + undeliverable + queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counters {
    /// Mails posted: one for the receiver and one for every copy.
    pub sent: u64,
    /// Mails that agents, or main, took out of their inboxes.
    pub delivered: u64,
    /// Mails whose receiver does not exist, and unread mails of removed agents.
    pub undeliverable: u64,
    /// Mails in inboxes.
    pub queued: u64,
    /// Broadcasts without subscribers.
    pub unheard: u64,
    /// Supersteps: rounds of updating the awake agents and posting their mail.
    pub supersteps: u64,
    /// Alarms set.
    pub alarms_set: u64,
    /// Alarms that became mail.
    pub alarms_fired: u64,
    /// Alarms cleared before they fired.
    pub alarms_cleared: u64,
    /// Alarms that were set for a time in the past, and fired at once.
    pub alarms_late: u64,
    /// Pending alarms.
    pub alarms_pending: u64,
    /// Agents in the simulation.
    pub agents: u64,
    /// Errors that agents reported.
    pub errors: u64,
}

impl Counters {
    /// Adds the counters of another cluster. Supersteps are not added, because all clusters share
    /// them.
    pub fn add(&mut self, other: &Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.undeliverable = self.undeliverable.saturating_add(other.undeliverable);
        self.queued = self.queued.saturating_add(other.queued);
        self.unheard = self.unheard.saturating_add(other.unheard);
        self.alarms_set = self.alarms_set.saturating_add(other.alarms_set);
        self.alarms_fired = self.alarms_fired.saturating_add(other.alarms_fired);
        self.alarms_cleared = self.alarms_cleared.saturating_add(other.alarms_cleared);
        self.alarms_late = self.alarms_late.saturating_add(other.alarms_late);
        self.alarms_pending = self.alarms_pending.saturating_add(other.alarms_pending);
        self.agents = self.agents.saturating_add(other.agents);
        self.errors = self.errors.saturating_add(other.errors);
    }

    /// Returns what was counted since an earlier time, when the counters were `before`. `queued`,
    /// `alarms_pending` and `agents` stay as they are.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            delivered: self.delivered - before.delivered,
            undeliverable: self.undeliverable - before.undeliverable,
            queued: self.queued,
            unheard: self.unheard - before.unheard,
            supersteps: self.supersteps - before.supersteps,
            alarms_set: self.alarms_set - before.alarms_set,
            alarms_fired: self.alarms_fired - before.alarms_fired,
            alarms_cleared: self.alarms_cleared - before.alarms_cleared,
            alarms_late: self.alarms_late - before.alarms_late,
            alarms_pending: self.alarms_pending,
            agents: self.agents,
            errors: self.errors - before.errors,
        }
    }

    /// Returns all counters as numbers, to send them to another process.
    #[must_use]
    pub(crate) const fn to_numbers(self) -> [u64; 13] {
        [
            self.sent,
            self.delivered,
            self.undeliverable,
            self.queued,
            self.unheard,
            self.supersteps,
            self.alarms_set,
            self.alarms_fired,
            self.alarms_cleared,
            self.alarms_late,
            self.alarms_pending,
            self.agents,
            self.errors,
        ]
    }

    /// Makes counters from the numbers of [`to_numbers`](Self::to_numbers).
    #[must_use]
    pub(crate) const fn from_numbers(numbers: [u64; 13]) -> Self {
        let [
            sent,
            delivered,
            undeliverable,
            queued,
            unheard,
            supersteps,
            alarms_set,
            alarms_fired,
            alarms_cleared,
            alarms_late,
            alarms_pending,
            agents,
            errors,
        ] = numbers;
        Self {
            sent,
            delivered,
            undeliverable,
            queued,
            unheard,
            supersteps,
            alarms_set,
            alarms_fired,
            alarms_cleared,
            alarms_late,
            alarms_pending,
            agents,
            errors,
        }
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StopReason {
    /// No mail and no alarm was left.
    Idle,
    /// Simulated time reached the limit.
    TimeLimit,
    /// The run had as many supersteps as its limit.
    Supersteps,
    /// This agent called `stop_run`.
    StoppedByAgent(AgentId),
    /// This agent reported an error, and the run was to stop at one.
    AgentError(AgentId),
    /// The handler of mail to main stopped the run.
    Stopped,
    /// The predicate over the counters held.
    Predicate,
    /// The wall-clock timeout passed.
    Timeout,
    /// Another thread stopped the run with a handle.
    Interrupted,
}

impl StopReason {
    /// Returns the reason in one word, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::TimeLimit => "time limit",
            Self::Supersteps => "supersteps",
            Self::StoppedByAgent(_) => "stopped by agent",
            Self::AgentError(_) => "agent error",
            Self::Stopped => "stopped",
            Self::Predicate => "predicate",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
        }
    }
}

impl StopReason {
    /// Returns the agent that ended the run, if an agent did. An error takes precedence over a stop
    /// of the same superstep.
    #[must_use]
    pub(crate) fn asked_by(self) -> Option<AgentId> {
        match self {
            Self::StoppedByAgent(agent) | Self::AgentError(agent) => Some(agent),
            _ => None,
        }
    }
}

/// An error that an agent reported with [`Context::report_error`](crate::Context::report_error).
/// The agent goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentError {
    /// The agent that reported it.
    pub agent: AgentId,
    /// The insertion index of that agent.
    pub index: u64,
    /// The name of the cluster where that agent lives; none in a scheduler that is used alone.
    pub cluster: Option<String>,
    /// When the agent reported it \[simulated\].
    pub time: SimTime,
    /// The superstep within that instant, from 0.
    pub superstep: u64,
    /// The agent's text.
    pub message: String,
}

impl AgentError {
    /// Returns the sort key of the error: instant, superstep, insertion index.
    #[must_use]
    pub(crate) fn key(&self) -> (SimTime, u64, u64) {
        (self.time, self.superstep, self.index)
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent {}", self.agent)?;
        if let Some(cluster) = &self.cluster {
            write!(f, " in cluster {cluster}")?;
        }
        let (time, superstep) = (self.time, self.superstep);
        write!(f, " at {time}, superstep {superstep}: {}", self.message)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoppedByAgent(agent) => write!(f, "stopped by agent {agent}"),
            Self::AgentError(agent) => write!(f, "stopped by an error of agent {agent}"),
            other => f.pad(other.name()),
        }
    }
}

/// An undeliverable mail: its receiver does not exist, or was removed before it read the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LostMail {
    /// When the kernel found the mail undeliverable \[simulated\].
    pub time: SimTime,
    /// The sender.
    pub from: AgentId,
    /// The addressee; for a lost copy, the removed subscriber.
    pub to: AgentId,
    /// The topic.
    pub topic: Topic,
}

impl LostMail {
    /// Makes a mail that the kernel found undeliverable at `time`.
    #[must_use]
    pub(crate) const fn new(time: SimTime, from: AgentId, to: AgentId, topic: Topic) -> Self {
        Self {
            time,
            from,
            to,
            topic,
        }
    }
}

impl fmt::Display for LostMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            from,
            to,
            topic,
        } = self;
        write!(f, "{topic} from {from} to {to} at {time}")
    }
}

/// The sort key of lost mail: time, superstep, the part of the superstep that found it, and the
/// place of the mail in the order of mail.
pub type LostKey = [u64; 6];

/// Returns the key of mail that had no receiver when it was posted.
#[must_use]
pub fn lost_when_posted(time: SimTime, superstep: u64, key: MailKey) -> LostKey {
    let [sent_at, rank, sequence] = key.to_numbers();
    [time.as_nanos(), superstep, 0, sent_at, rank, sequence]
}

/// The result of a run. Numbers are of this run, and what happens between two runs is counted in
/// the later one; `total` counts since the simulation began. `Display` writes two lines for people,
/// and one line each for lost mail and for topics that no agent sent.
///
/// ```
/// use maslite_core::{AgentId, Mail, Run, Scheduler, StopReason};
/// # #[derive(Clone, maslite_core::Message)] enum Msg { Hello }
/// let mut scheduler = Scheduler::builder().digest().build();
/// scheduler.send("nobody", Msg::Hello);
/// let report = scheduler.run(Run::until_idle())?;
///
/// assert_eq!(report.stopped_by, StopReason::Idle);
/// let counters = report.counters;
/// assert_eq!((counters.sent, counters.delivered, counters.undeliverable), (1, 0, 1));
/// assert!(report.to_string().starts_with("idle at 0 s: 0 s simulated in "));
/// # assert!(report.digest.is_some());
/// # Ok::<(), maslite_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Why the run ended.
    pub stopped_by: StopReason,
    /// The time at the start of the run \[simulated\].
    pub start: SimTime,
    /// The time at the end of the run \[simulated\].
    pub now: SimTime,
    /// The duration of the run \[wall\].
    pub wall: Duration,
    /// What was counted in this run.
    pub counters: Counters,
    /// What was counted since the simulation began.
    pub total: Counters,
    /// The digest of the trace since the simulation began, if it was asked for.
    pub digest: Option<Digest>,
    /// The digest of the trace with the contents of all messages, if it was asked for. Two runs
    /// with the same [`digest`](Self::digest) had the same mail at the same times; with the same
    /// content digest the messages said the same.
    pub content_digest: Option<Digest>,
    /// The largest delay of a paced or real-time run behind wall time.
    pub behind: Duration,
    /// The errors that agents reported in this run, in the kernel's order: by instant, superstep,
    /// and insertion of the agents. The first [`ERRORS_KEPT`](Self::ERRORS_KEPT); the counters
    /// count all.
    pub errors: Vec<AgentError>,
    /// Undeliverable mail since the simulation began, in the kernel's order: the first
    /// [`LOST_KEPT`](Self::LOST_KEPT); the counters count all.
    pub lost: Vec<LostMail>,
    /// Topics with subscribers for which no mail was posted since: no agent sent any, or the name
    /// is misspelt.
    pub silent: Vec<Topic>,
    /// How often a scheduler forgot everything and was restored from its saved state in this run. 0
    /// without [`amnesia`](crate::SchedulerBuilder::amnesia).
    pub amnesias: u64,
    /// How many deliveries clusters did ahead of what was final, and then undid. They are in no other
    /// number, and in no digest. A lone scheduler undoes none.
    pub undone: u64,
}

impl Report {
    /// Makes the report of a run from `start` to `now`, with empty counters.
    #[must_use]
    pub(crate) fn new(
        stopped_by: StopReason,
        start: SimTime,
        now: SimTime,
        wall: Duration,
    ) -> Self {
        Self {
            stopped_by,
            start,
            now,
            wall,
            counters: Counters::default(),
            total: Counters::default(),
            digest: None,
            content_digest: None,
            behind: Duration::ZERO,
            errors: Vec::new(),
            lost: Vec::new(),
            silent: Vec::new(),
            amnesias: 0,
            undone: 0,
        }
    }

    /// The largest number of undeliverable mails in a report.
    pub const LOST_KEPT: usize = 10;

    /// The largest number of errors of agents in a report.
    pub const ERRORS_KEPT: usize = 1_000;

    /// Returns the simulated time that passed in this run.
    #[must_use]
    pub fn simulated(&self) -> SimDuration {
        self.now - self.start
    }

    /// Returns simulated time divided by wall time: 100 means a hundred times as fast as wall time.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.simulated().as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

impl AsRef<Report> for Report {
    fn as_ref(&self) -> &Report {
        self
    }
}

/// The number of undeliverable mails that `Display` shows.
const SHOWN: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counters;
        writeln!(
            f,
            "{} at {}: {} simulated in {:.6} s = {:.1}X",
            self.stopped_by,
            self.now,
            self.simulated(),
            self.wall.as_secs_f64(),
            self.ratio(),
        )?;
        write!(
            f,
            "{} agents, {} supersteps; mail: {} sent, {} delivered, {} undeliverable, {} queued, \
             {} unheard; alarms: {} set, {} fired, {} cleared, {} pending",
            c.agents,
            c.supersteps,
            c.sent,
            c.delivered,
            c.undeliverable,
            c.queued,
            c.unheard,
            c.alarms_set,
            c.alarms_fired,
            c.alarms_cleared,
            c.alarms_pending,
        )?;
        self.write_rare(f)?;
        self.write_lost(f)
    }
}

impl Report {
    /// Writes what few runs have to tell.
    fn write_rare(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counters;
        if c.errors > 0 {
            write!(f, "; {} errors of agents", c.errors)?;
        }
        if c.alarms_late > 0 {
            write!(f, "; alarms set for the past: {}", c.alarms_late)?;
        }
        if !self.behind.is_zero() {
            write!(
                f,
                "; up to {:.6} s behind the wall",
                self.behind.as_secs_f64()
            )?;
        }
        if let Some(digest) = self.digest {
            write!(f, "; digest {digest}")?;
        }
        if let Some(digest) = self.content_digest {
            write!(f, "; content digest {digest}")?;
        }
        Ok(())
    }

    /// Writes the first undeliverable mails, and the topics that were never sent.
    fn write_lost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, lost) in self.lost.iter().take(SHOWN).enumerate() {
            let before = if place == 0 {
                "\nundeliverable: "
            } else {
                "; "
            };
            write!(f, "{before}{lost}")?;
        }
        let more = self.total.undeliverable.saturating_sub(SHOWN as u64);
        if more > 0 {
            write!(f, "; and {more} more")?;
        }
        for (place, topic) in self.silent.iter().enumerate() {
            let before = if place == 0 {
                "\nlistened to, but never sent: "
            } else {
                ", "
            };
            write!(f, "{before}{topic}")?;
        }
        Ok(())
    }
}
