//! What a run goes on in spite of: clusters that were brought back or dropped, and simulated time that does not
//! move, with its time, its duration, which cluster blocks it, and which clusters wait.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use maslite_core::{AgentId, Phase, Plain, SimTime};

use crate::error::recovery::{Dropped, Recovered};

/// Tells of what a run goes on in spite of.
///
/// `Display` writes one line for people. See
/// [`MpMainBuilder::warnings`](crate::MpMainBuilder::warnings).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Simulated time has not moved for a while.
    Standstill(Standstill),
    /// A cluster lost its process and was brought back.
    Recovered(Recovered),
    /// A cluster lost its process and was dropped.
    Dropped(Dropped),
    /// Main has told a cluster more than its log may hold, so that the cluster cannot be brought
    /// back any more.
    LogFull {
        /// The name of the cluster.
        cluster: String,
        /// The simulated time.
        time: SimTime,
        /// The limit of its log \[bytes\].
        limit: usize,
    },
    /// What a cluster is told can no longer be recorded. The run goes on.
    RecordStopped {
        /// The name of the cluster.
        cluster: String,
        /// The simulated time.
        time: SimTime,
        /// The record, which ends before this time.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The simulation was not saved by itself: see [`Saves`](crate::Saves). The run goes on.
    NotSaved {
        /// The simulated time.
        time: SimTime,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standstill(standstill) => standstill.fmt(f),
            Self::Recovered(recovered) => recovered.fmt(f),
            Self::Dropped(dropped) => dropped.fmt(f),
            Self::LogFull {
                cluster,
                time,
                limit,
            } => write!(
                f,
                "at {time} what main told cluster {cluster} exceeded the limit of {limit} bytes, so that it cannot be brought \
                 back any more: raise the limit with `Recovery::log_limit`"
            ),
            Self::NotSaved { time, why } => {
                write!(f, "at {time} the simulation was not saved: {why}")
            }
            Self::RecordStopped {
                cluster,
                time,
                path,
                why,
            } => write!(
                f,
                "at {time} the record of cluster {cluster} in {} ends, because it cannot be written: {why}",
                path.display()
            ),
        }
    }
}

/// Tells that simulated time has not moved for a while in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standstill {
    /// The simulated time; under a lookahead, the time of the clusters that block it.
    pub time: SimTime,
    /// The least time for which it has stood there \[wall\].
    pub stood: Duration,
    /// The clusters, or main, that are at work or do not answer, and for which the others wait.
    /// Never empty.
    pub blockers: Vec<TimeBlocker>,
    /// The names of the clusters that wait.
    pub waiting: Vec<String>,
}

/// A cluster, or main, that keeps simulated time from moving.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeBlocker {
    /// The cluster's name; none for main, the thread that called `run`.
    pub cluster: Option<String>,
    /// The cluster's process id; none for main and for clusters inline.
    pub pid: Option<u32>,
    /// The activity of the cluster.
    pub activity: Activity,
    /// The agent at work, or the agent that worked last; none if unknown.
    pub agent: Option<AgentId>,
    /// Its simulated time; none if it does not answer.
    pub time: Option<SimTime>,
    /// The superstep within that instant; none for main, and if it does not answer.
    pub superstep: Option<u64>,
    /// The least time for which it has made no progress \[wall\]. Zero if there was only one probe.
    pub since: Duration,
    /// The process id of a debugger that is attached to its process. It is known on Linux only.
    pub debugger: Option<u32>,
}

/// What a cluster that blocks simulated time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// One call of an agent's method does not return.
    InAgent(Phase),
    /// Agents are called, superstep after superstep, while time stands still.
    Exchange {
        /// The number of supersteps since the last probe.
        supersteps: u64,
    },
    /// It works outside of agents: it decodes, sorts, or writes a trace.
    Kernel,
    /// It has not begun the work that main granted.
    Pending,
    /// It waits for main while main waits for it: a message between them was lost.
    Idle,
    /// It does not answer: a signal stopped the process.
    Stopped,
    /// It does not answer: the terminal has stopped the process (SIGTTOU, SIGTTIN), because the
    /// process is not in its foreground.
    StoppedByTerminal,
    /// It does not answer: a debugger holds the process.
    Traced,
    /// It does not answer and is not stopped: it gets no processor time.
    Silent,
    /// Main: in the handler of its mail.
    Handler,
    /// Main: in the predicate of the run.
    Predicate,
    /// Main: in the callback of the trace.
    Trace,
    /// Main: between reports and grants.
    Routing,
}

/// The limit that a cluster exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The time to stop after the timeout of a run, or after a [`StopHandle`](crate::StopHandle)
    /// stopped it.
    Rest(Duration),
    /// The time of one call of an agent: see
    /// [`MpMainBuilder::update_limit`](crate::MpMainBuilder::update_limit).
    Update(Duration),
    /// The time to answer: see [`MpMainBuilder::answer_limit`](crate::MpMainBuilder::answer_limit).
    Answer(Duration),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest(limit) => write!(
                f,
                "did not stop within {limit:?} after the timeout or stop of the run"
            ),
            Self::Update(limit) => write!(
                f,
                "has an agent that took longer than the limit of {limit:?}"
            ),
            Self::Answer(limit) => write!(f, "did not answer within the limit of {limit:?}"),
        }
    }
}

impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            stood,
            blockers,
            waiting,
        } = self;
        write!(
            f,
            "simulated time has stood at {time} for {} of wall time: ",
            Seconds(*stood)
        )?;
        let shown = blockers.len().min(SHOWN);
        for (place, blocker) in blockers[..shown].iter().enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            blocker.describe(f)?;
            if let Some(own) = blocker.time.filter(|own| own != time) {
                write!(f, ", at {own}")?;
            }
        }
        if blockers.len() > shown {
            write!(f, "; and {} more", blockers.len() - shown)?;
        }
        match waiting.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; cluster {one} waits"),
            [most @ .., last] if waiting.len() <= SHOWN => {
                write!(f, "; clusters {} and {last} wait", most.join(", "))
            }
            all => {
                let (some, rest) = all.split_at(SHOWN);
                let (some, rest) = (some.join(", "), rest.len());
                write!(f, "; clusters {some} and {rest} more wait")
            }
        }
    }
}

/// The longest part of an agent's name in a line \[characters\].
const SHOWN_OF_NAME: usize = 100;

/// The largest number of clusters that a line names.
const SHOWN: usize = 8;

impl fmt::Display for TimeBlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)?;
        match self.time {
            Some(time) => write!(f, ", at {time}"),
            None => Ok(()),
        }
    }
}

impl TimeBlocker {
    /// Writes everything but the time.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cluster, self.pid) {
            (None, _) => f.write_str("main itself ")?,
            (Some(cluster), None) => write!(f, "cluster {cluster} ")?,
            (Some(cluster), Some(pid)) => write!(f, "cluster {cluster} (process {pid}) ")?,
        }
        let seen_twice = self.since > Duration::ZERO;
        f.write_str(match self.activity {
            Activity::InAgent(_) if seen_twice => "has been ",
            Activity::InAgent(_) => "is ",
            Activity::Exchange { .. } => "repeats supersteps at this instant: ",
            Activity::Kernel => "is at work outside of agents",
            Activity::Pending => "has not begun the work that main granted",
            Activity::Idle => "waits for main while main waits for it: a message was lost",
            Activity::Stopped => "does not answer: a signal stopped it; SIGCONT continues it",
            Activity::StoppedByTerminal => {
                "does not answer: the terminal stopped it because it wrote in the background (SIGTTOU); run `stty -tostop`, \
                 or use `Output::Prefixed`"
            }
            Activity::Traced => "does not answer: a debugger holds it",
            Activity::Silent => "does not answer: it is not stopped, but gets no processor time",
            Activity::Handler => "is in the handler of its mail",
            Activity::Predicate => "is in the predicate of the run",
            Activity::Trace => "is in the callback of the trace",
            Activity::Routing => "is at work between taking reports and sending grants",
        })?;
        let agent = self.agent.map(|agent| agent.to_string());
        let agent = Plain(agent.as_deref().unwrap_or("unknown"), SHOWN_OF_NAME);
        match self.activity {
            Activity::InAgent(phase) => {
                let doing = match phase {
                    Phase::Setup => "setting up",
                    Phase::Update => "updating",
                    Phase::Teardown => "tearing down",
                    Phase::Drop => "dropping",
                    Phase::Request => "answering a request for",
                    Phase::Restored => "restoring",
                };
                write!(f, "{doing} agent {agent}")?;
            }
            Activity::Exchange { supersteps } => {
                write!(f, "{supersteps} since the last probe, now in agent {agent}")?;
            }
            _ => {}
        }
        if seen_twice {
            write!(f, " for {} or longer", Seconds(self.since))?;
        }
        if let Some(superstep) = self.superstep {
            write!(f, ", superstep {superstep}")?;
        }
        if let Some(debugger) = self.debugger {
            write!(f, "; a debugger (process {debugger}) is attached to it")?;
        }
        Ok(())
    }
}

/// Shows wall time for people, in the style of simulated time.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = if self.0 < Duration::from_secs(1) {
            3
        } else {
            1
        };
        write!(f, "{:.precision$} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn north() -> TimeBlocker {
        TimeBlocker {
            cluster: Some("north".to_owned()),
            pid: Some(4711),
            activity: Activity::InAgent(Phase::Update),
            agent: Some(AgentId::from("conveyor-3")),
            time: Some(SimTime::from_nanos(3_200_000_000)),
            superstep: Some(7),
            since: Duration::from_millis(2_500),
            debugger: None,
        }
    }

    #[test]
    fn a_warning_reads_well() {
        let mut warning = Standstill {
            time: SimTime::from_nanos(3_200_000_000),
            stood: Duration::from_secs(5),
            blockers: vec![north()],
            waiting: vec!["east".to_owned(), "south".to_owned()],
        };
        assert_eq!(
            warning.to_string(),
            "simulated time has stood at 3.2 s for 5.0 s of wall time: cluster north (process 4711) \
             has been updating agent conveyor-3 for 2.5 s or longer, superstep 7; \
             clusters east and south wait"
        );
        warning.waiting.pop();
        warning.blockers[0] = TimeBlocker {
            activity: Activity::Stopped,
            time: None,
            superstep: None,
            since: Duration::ZERO,
            debugger: Some(9),
            ..north()
        };
        assert_eq!(
            warning.to_string(),
            "simulated time has stood at 3.2 s for 5.0 s of wall time: cluster north (process 4711) \
             does not answer: a signal stopped it; SIGCONT continues it; \
             a debugger (process 9) is attached to it; cluster east waits"
        );
    }

    #[test]
    fn a_line_stays_short_with_a_thousand_clusters() {
        let warning = Standstill {
            time: SimTime::ZERO,
            stood: Duration::from_secs(5),
            blockers: vec![north(); 500],
            waiting: vec!["x".to_owned(); 500],
        };
        let text = warning.to_string();
        assert!(text.contains("and 492 more;"), "{text}");
        assert!(
            text.ends_with("clusters x, x, x, x, x, x, x, x and 492 more wait"),
            "{text}"
        );
    }
}
