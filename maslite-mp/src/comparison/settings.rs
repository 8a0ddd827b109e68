//! What `maslite check` and `maslite replay` tell a program.

use std::path::PathBuf;

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use crate::cluster::registry::{Entered, WireMessage};
use crate::recording::{Replay, ReplayError, Stand};

/// The environment variable with the path of the socket at which `maslite check` listens.
pub const CHECK_VARIABLE: &str = "MASLITE_CHECK";

/// The environment variable with which `maslite replay` says what is to be replayed.
pub const REPLAY_VARIABLE: &str = "MASLITE_REPLAY";

/// How `maslite check` wants a program to run: one line of JSON, which it sends first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSettings {
    /// The version of this line.
    pub schema: u32,
    /// All clusters forget everything after this number of supersteps.
    #[serde(default)]
    pub amnesia: Option<u64>,
    /// Links delay messages at random, from this seed.
    #[serde(default)]
    pub jitter: Option<u64>,
    /// Agents are divided among this number of clusters.
    #[serde(default)]
    pub clusters: Option<u32>,
}

impl CheckSettings {
    /// The version that this library reads.
    pub const SCHEMA: u32 = 1;
}

/// What `maslite replay` wants of a program: JSON in [`REPLAY_VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaySettings {
    /// The folder of the records.
    pub folder: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// Up to which time \[ns, simulated\]; none: to the end of the record.
    pub until_ns: Option<u64>,
}

impl ReplaySettings {
    /// Replays the cluster, in this thread.
    ///
    /// # Errors
    /// As [`Replay::open`], [`Replay::start`] and [`ReplayedCluster::run_until`].
    ///
    /// [`Replay::start`]: crate::recording::Replay::start
    /// [`ReplayedCluster::run_until`]: crate::recording::ReplayedCluster::run_until
    pub(super) fn replay<M: WireMessage>(&self, agents: &Entered<M>) -> Result<Stand, ReplayError> {
        let mut one = Replay::open(&self.folder, &self.cluster)?.start(agents)?;
        match self.until_ns {
            Some(nanos) => one.run_until(SimTime::from_nanos(nanos)),
            None => one.run_to_end(),
        }
    }
}
