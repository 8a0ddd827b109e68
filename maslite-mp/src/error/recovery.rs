//! Clusters that were brought back or dropped, and why one was not brought back.

use std::fmt;
use std::time::Duration;

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use crate::error::death::Death;

/// A cluster that lost its process and was brought back.
///
/// `Display` writes one line for people. In JSON, times are whole nanoseconds, and fields have the
/// names in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recovered {
    /// The name of the cluster.
    pub cluster: String,
    /// Its new process.
    pub pid: u32,
    /// How its last process ended.
    pub death: Death,
    /// The simulated time, as far as main knows (`time_ns`).
    #[serde(rename = "time_ns")]
    pub time: SimTime,
    /// How long it took \[wall\], from the broken link to the cluster that goes on (`took_ns`).
    #[serde(rename = "took_ns", with = "nanos")]
    pub took: Duration,
    /// How long of that the start of the process took (`start_ns`).
    #[serde(rename = "start_ns", with = "nanos")]
    pub start: Duration,
    /// How long of that the replay took (`replay_ns`).
    #[serde(rename = "replay_ns", with = "nanos")]
    pub replay: Duration,
    /// How many messages of main were replayed.
    pub messages: u64,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            death,
            time,
            took,
            messages,
            ..
        } = self;
        write!(
            f,
            "at {time} {death}; it was brought back in {:.3} s as process {pid} ({messages} messages replayed)",
            took.as_secs_f64()
        )
    }
}

/// A cluster that lost its process and was [dropped](crate::Recovery::drop_cluster).
///
/// `Display` writes one line for people. In JSON, times are whole nanoseconds, and fields have the
/// names in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dropped {
    /// The name of the cluster.
    pub cluster: String,
    /// How its process ended.
    pub death: Death,
    /// The simulated time, as far as main knows (`time_ns`).
    #[serde(rename = "time_ns")]
    pub time: SimTime,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { death, time, .. } = self;
        write!(f, "at {time} {death}; the cluster was dropped")
    }
}

/// Why a cluster that lost its process was not brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRecovered {
    /// More deaths than the policy allows.
    TooOften {
        /// The most that it allows.
        most: u32,
        /// In which span \[wall\].
        within: Duration,
    },
    /// It died twice while it obeyed one message of main: what its agents do there ends it.
    SameGrant,
    /// Main had told it more than the log may hold.
    LogFull {
        /// The limit \[bytes\].
        limit: usize,
    },
    /// The new process did something else than the lost one: the model depends on something else
    /// than its messages, its clock and its random numbers.
    Differs {
        /// The number of the first grant with another result; 0 for the creation of agents.
        grant: u64,
        /// Where the new process then stood.
        stands: String,
    },
}

impl fmt::Display for NotRecovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOften { most, within } => {
                write!(f, "its process died more than {most} times within {within:?}")
            }
            Self::SameGrant => f.write_str(
                "its process died twice while it obeyed the same message of main, so what its agents do there ends it",
            ),
            Self::LogFull { limit } => write!(
                f,
                "what main had told it exceeded the limit of {limit} bytes; raise it with `Recovery::log_limit`"
            ),
            Self::Differs { grant, stands } => write!(
                f,
                "in the replay its agents did not do at grant {grant} what they did before ({stands}); agents must depend on \
                 nothing but their messages, `ctx.now()` and `ctx.rng()`, and not on the order of a hash map"
            ),
        }
    }
}

/// Wall times as whole nanoseconds.
pub(crate) mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Ok(Duration::from_nanos(u64::deserialize(deserializer)?))
    }
}
