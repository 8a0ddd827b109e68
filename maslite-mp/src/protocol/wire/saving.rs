//! How the state of a cluster is written into a file, and taken up.

use maslite_core::Digest;
use serde::{Deserialize, Serialize};

use crate::protocol::wire::Replay;
use crate::snapshot::blocks::Sum;

/// What became of a state that was to be written. The cluster goes on in any case.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Written {
    State(WrittenState),
    /// The file could not be written: for this reason of the system, if it is one.
    Failed {
        os_error: Option<i32>,
        why: String,
    },
    /// An agent or a message cannot be saved.
    Unsaved(maslite_core::Error),
}

/// A state that is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WrittenState {
    pub(crate) agents: u64,
    /// The digest of the state.
    pub(crate) digest: Digest,
    pub(crate) sum: Sum,
}

/// The note of a state that a cluster is to take up, which is before it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restoration {
    /// What is to be said of wall time.
    pub(crate) replay: Replay,
    /// Names that agents may have.
    pub(crate) names: Vec<String>,
}
