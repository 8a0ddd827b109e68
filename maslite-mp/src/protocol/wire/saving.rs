//! How the state of a cluster is written into a file, and taken up.

use maslite_core::Digest;
use serde::{Deserialize, Serialize};

use crate::error::snapshot::LeftOut;
use crate::protocol::wire::Replay;
use crate::snapshot::blocks::Sum;

/// A wish for a state in a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Write {
    /// The path of the file, which is not there yet.
    #[serde(with = "serde_bytes")]
    pub(crate) path: Vec<u8>,
    /// Agents that are never saved are left out.
    pub(crate) leaving_out: bool,
}

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
    /// Agents are there that are never saved, and are not to be left out.
    NeverSaved(Vec<LeftOut>),
}

/// A state that is in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WrittenState {
    /// Those that are in it.
    pub(crate) agents: u64,
    pub(crate) left_out: Vec<LeftOut>,
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
