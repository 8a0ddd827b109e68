//! Why a snapshot was not written, or cannot be used.

use std::io;
use std::path::PathBuf;

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
    Refused { path, why },
});

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
