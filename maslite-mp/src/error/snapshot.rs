//! Why a snapshot was not written, or cannot be used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fmt, io};

use maslite_core::AgentId;
use maslite_core::internal::LeftOutAgent;
use serde::{Deserialize, Serialize};

/// Why a snapshot was not written, or cannot be used.
///
/// A simulation whose snapshot was not written goes on. What was on disk before is as it was.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file or folder cannot be written or read.
    #[error("cannot {doing} {}: {source}; check its folder, its permissions and the space on the disk", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done with it.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is something already where a snapshot was to be written.
    #[error("{} exists already: save under another name, or remove it first", .path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is no snapshot there.
    #[error("there is no snapshot at {}: name the folder that `save` made", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It is no snapshot, or one of another format.
    #[error("{} cannot be read: {why}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// It has changed since it was written, or is cut.
    #[error("{} is damaged at byte {offset}: {why}; use an earlier snapshot", .file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the damage was found \[bytes\].
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// It is of a program with other messages or agents.
    #[error("the snapshot at {} is of another program: {why}", .path.display())]
    OtherProgram {
        /// The snapshot.
        path: PathBuf,
        /// How this program differs.
        why: String,
    },
    /// A type has other fields or variants than when the snapshot was written.
    #[error(
        "the snapshot at {} was written when {kind} had other fields or variants: restore it with the program that wrote it",
        .path.display()
    )]
    OtherShape {
        /// The snapshot.
        path: PathBuf,
        /// The type.
        kind: String,
    },
    /// Agents live whose types are [never saved](crate::Registry::never_saved).
    #[error(
        "no snapshot was written at {}: {}; remove these agents first, or leave them out with `SaveOptions::leaving_out`",
        .path.display(), List(.never_saved)
    )]
    NeverSaved {
        /// Where it was to be written.
        path: PathBuf,
        /// The agents, by their types.
        never_saved: Vec<LeftOut>,
    },
    /// Agents were left out of it.
    #[error(
        "the snapshot at {} is not complete: it has no states of {}; call `accept_left_out` to go on without these agents",
        .path.display(), List(.left_out)
    )]
    Incomplete {
        /// The snapshot.
        path: PathBuf,
        /// The agents, by their types.
        left_out: Vec<LeftOut>,
    },
    /// It cannot be written, or cannot go on, in that way.
    #[error("no snapshot at {} can be saved or restored like that: {why}", .path.display())]
    Refused {
        /// The snapshot.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

maslite_core::readable_debug!(enum SnapshotError {
    Io { path, doing, source },
    Exists { path },
    Missing { path },
    Format { path, why },
    Corrupt { file, offset, why },
    OtherProgram { path, why },
    OtherShape { path, kind },
    NeverSaved { path, never_saved },
    Incomplete { path, left_out },
    Refused { path, why },
});

/// Agents of a type that is [never saved](crate::Registry::never_saved), which a snapshot leaves
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// The type.
    pub kind: String,
    /// Why it is never saved.
    pub why: String,
    /// The agents: cluster by cluster, in insertion order.
    pub agents: Vec<AgentId>,
}

impl From<LeftOutAgent> for LeftOut {
    fn from(agent: LeftOutAgent) -> Self {
        let LeftOutAgent { id, kind, why } = agent;
        let agents = vec![id];
        Self { kind, why, agents }
    }
}

impl LeftOut {
    /// One for each type, by name.
    pub(crate) fn by_kind(all: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut by_kind: BTreeMap<String, Self> = BTreeMap::new();
        for it in all {
            match by_kind.get_mut(&it.kind) {
                Some(known) => known.agents.extend(it.agents),
                None => drop(by_kind.insert(it.kind.clone(), it)),
            }
        }
        by_kind.into_values().collect()
    }
}

/// How many agents of a type are named.
const NAMED: usize = 3;

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, why, agents } = self;
        let count = agents.len();
        let plural = if count == 1 { "" } else { "s" };
        let named = agents.iter().take(NAMED).map(ToString::to_string);
        let named = named.collect::<Vec<_>>().join(", ");
        let more = if count > NAMED { ", …" } else { "" };
        write!(
            f,
            "{count} agent{plural} of type {kind} ({named}{more}), which is never saved: {why}"
        )
    }
}

/// Several in one sentence.
pub(crate) struct List<'a>(pub(crate) &'a [LeftOut]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, it) in self.0.iter().enumerate() {
            let between = if place > 0 { ", and " } else { "" };
            write!(f, "{between}{it}")?;
        }
        Ok(())
    }
}

impl SnapshotError {
    /// An error of the file system at a path.
    pub(crate) fn io(path: impl Into<PathBuf>, doing: &'static str, source: io::Error) -> Self {
        let path = path.into();
        Self::Io {
            path,
            doing,
            source,
        }
    }
}
