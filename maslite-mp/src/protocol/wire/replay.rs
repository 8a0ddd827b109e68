//! A replay, and what a cluster says to it.

use serde::{Deserialize, Serialize};

/// The note of a replay. Before it are records.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replay {
    /// How long the cluster said that it had worked, when it last reported \[ns, wall\].
    pub(crate) busy: u64,
}

/// What a cluster says to a replay.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replayed {
    /// Messages obeyed.
    pub(crate) messages: u64,
    /// The first message that it answered otherwise than then.
    pub(crate) difference: Option<Difference>,
}

/// An answer that is not what it was when the message first came.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// The number of the grant; 0 if it is none.
    pub(crate) grant: u64,
    /// Where the cluster then stood, as text.
    pub(crate) stands: String,
}
