//! What a program wants to happen when the process of a cluster dies.

use std::time::Duration;

/// The most bytes that main keeps of what it told a cluster, unless the program says otherwise.
const LOG_LIMIT: usize = 64 * 1024 * 1024;

/// What happens when the process of a cluster dies: see
/// [`MpMainBuilder::recovery`](crate::MpMainBuilder::recovery).
///
/// ```
/// # use maslite_mp::{Recovery, SpawnError};
/// # use std::time::Duration;
/// let default = Recovery::stop();
/// let recovery = Recovery::restart().at_most(5, Duration::from_secs(60));
/// assert_ne!(recovery, default);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub(crate) action: Action,
    pub(crate) most: u32,
    pub(crate) within: Duration,
    pub(crate) log_limit: usize,
}

/// What becomes of a cluster whose process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The run ends.
    Stop,
    /// It gets a new process.
    Restart,
    /// The run goes on without it.
    Drop,
}

impl Recovery {
    /// The death of a process ends the run with
    /// [`Error::ClusterDied`](crate::Error::ClusterDied). This is the default, and costs nothing.
    #[must_use]
    pub const fn stop() -> Self {
        Self {
            action: Action::Stop,
            most: 3,
            within: Duration::from_secs(60),
            log_limit: LOG_LIMIT,
        }
    }

    /// The cluster gets a new process, which is brought to where the lost one was, and the run goes
    /// on to the same trace and the same digest. For each cluster main keeps what it tells it.
    #[must_use]
    pub const fn restart() -> Self {
        Self {
            action: Action::Restart,
            ..Self::stop()
        }
    }

    /// The cluster is dropped, and the run goes on without it: its agents are gone, without
    /// `teardown`, and with them their alarms and subscriptions. Mail for them is undeliverable. The
    /// report lists the cluster in [`dropped`](crate::MpReport::dropped), and has no digest, because
    /// the result depends on the moment of the death. If no cluster is left, the run ends with
    /// [`Error::NoneLeft`](crate::Error::NoneLeft).
    #[must_use]
    pub const fn drop_cluster() -> Self {
        Self {
            action: Action::Drop,
            ..Self::stop()
        }
    }

    /// Whether the death of a process leaves the other clusters alive.
    pub(crate) fn contains_deaths(self) -> bool {
        self.action != Action::Stop
    }

    /// Limits how often one cluster may lose its process: at most `deaths` times in any span of
    /// `within` \[wall\]. One more ends the run with
    /// [`Error::NotRecovered`](crate::Error::NotRecovered). It is 3 in 60 s otherwise. This is for
    /// [`restart`](Self::restart): a cluster is dropped once.
    #[must_use]
    pub const fn at_most(mut self, deaths: u32, within: Duration) -> Self {
        self.most = deaths;
        self.within = within;
        self
    }

    /// Limits how much main keeps of what it tells one cluster \[bytes\]. It is 64 MiB otherwise.
    /// When the limit is reached, main asks the cluster for its state, and keeps that in place of
    /// what came before. If the state cannot be had, because an agent is of a type that is not
    /// registered, there is a [`Warning`](crate::Warning), and the next death of this cluster ends
    /// the run.
    #[must_use]
    pub const fn log_limit(mut self, bytes: usize) -> Self {
        self.log_limit = bytes;
        self
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self::stop()
    }
}
