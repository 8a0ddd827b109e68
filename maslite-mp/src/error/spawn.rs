//! Why children could not be started, and why a child could not set itself up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::death::{EXIT_INIT_FAILED, EXIT_PROTOCOL_MISMATCH, ExitKind, Explained};

/// The version of the invitation, the handshake, the control line and the frames.
pub(crate) const PROTOCOL: u32 = 1;

/// Why child processes could not be started. None is left running.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The directory for temporary files cannot hold a socket.
    #[error(
        "the directory for temporary files, {0:?}, is not UTF-8 or longer than 89 bytes: set TMPDIR to a shorter one"
    )]
    TempDir(PathBuf),
    /// No socket can be made in the directory for temporary files: it is not there, full, or not to be written to.
    #[error(
        "no socket can be made in the directory for temporary files, {directory:?}: set TMPDIR to one that can be written to"
    )]
    TempDirUnusable {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This process may not open as many descriptors as so many clusters need, five each. None was started.
    #[error(
        "{asked} clusters need more descriptors than this process has left of its {limit}: {possible} can be started; \
         for more raise the limit (`ulimit -n`)"
    )]
    TooManyClusters {
        /// How many were to be started.
        asked: usize,
        /// How many can be.
        possible: usize,
        /// How many descriptors this process may have open.
        limit: usize,
    },
    /// The file of this program has been replaced or deleted since it started, so the children would run something else. On Linux
    /// children are started from the program that runs, whatever became of its file.
    #[error("the program {0:?} has been replaced or deleted since it was started: start it again")]
    ProgramReplaced(PathBuf),
    /// The system refused what every child needs: descriptors, threads, randomness.
    #[error("no resources to start child processes")]
    Resources(#[source] io::Error),
    /// The process could not be started.
    #[error("the process of cluster {name} ({cluster}) could not be started")]
    Spawn {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process ended before it had introduced itself.
    #[error(
        "the process of cluster {name} ({cluster}) ended before its handshake: it {}",
        before_hello(*.exit, .stderr)
    )]
    ExitedBeforeHello {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// How it ended.
        exit: ExitKind,
        /// The end of its stderr, at most 64 KiB; empty if that was not piped here.
        stderr: String,
    },
    /// The process did not introduce itself in time.
    #[error(
        "the process of cluster {name} ({cluster}) did not introduce itself within {waited:?}: does its program call the entry of child processes in the first line of main? Is ipc-channel's feature `force-inprocess` off?"
    )]
    HandshakeTimeout {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// The deadline.
        waited: Duration,
    },
    /// The handshake broke off.
    #[error("the handshake with the process of cluster {name} ({cluster}) failed")]
    Handshake {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// A ring was asked for, and main and the child cannot share memory.
    #[error(
        "no ring in shared memory for the process of cluster {name} ({cluster}): use Link::Auto or Link::Channel here"
    )]
    NoRing {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system said, here or in the child.
        source: io::Error,
    },
    /// Somebody else answered in the child's place: another process of this user, or one that may write to its temporary directory.
    #[error("a stranger answered in place of the process of cluster {name} ({cluster})")]
    Stranger {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
    },
    /// Main and child are not of the same build.
    #[error(
        "the process of cluster {name} ({cluster}) has {what} {theirs}, this one {ours}: both must be the same build of the program"
    )]
    Mismatch {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What differs.
        what: &'static str,
        /// What this process has.
        ours: String,
        /// What the child has.
        theirs: String,
    },
}

maslite_core::readable_debug!(enum SpawnError {
    TempDir(source),
    TempDirUnusable { directory, source },
    TooManyClusters { asked, possible, limit },
    ProgramReplaced(source),
    Resources(source),
    Spawn { cluster, name, source },
    ExitedBeforeHello { cluster, name, exit, stderr },
    HandshakeTimeout { cluster, name, waited },
    Handshake { cluster, name, source },
    NoRing { cluster, name, source },
    Stranger { cluster, name },
    Mismatch { cluster, name, what, ours, theirs },
});

impl SpawnError {
    /// With what is known after the end of the children.
    pub(crate) fn explained(mut self, ends: &[(u32, ExitKind, String)]) -> Self {
        if let Self::ExitedBeforeHello {
            cluster,
            exit,
            stderr,
            ..
        } = &mut self
            && let Some((_, how, said)) = ends.iter().find(|end| end.0 == *cluster)
        {
            (*exit, *stderr) = (*how, said.clone());
        }
        self
    }
}

/// How a child ended that had not said hello, and what its program has most likely forgotten.
fn before_hello(exit: ExitKind, stderr: &str) -> String {
    match exit {
        ExitKind::Success => format!(
            "{exit}; its program has probably not called the entry of child processes, which must be the first line of main"
        ),
        _ => Explained(exit, stderr).to_string(),
    }
}

/// Why a child could not set itself up. It ends with `exit_code`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// Main speaks another protocol.
    #[error(
        "main speaks protocol {theirs}, this child process {PROTOCOL}: both must be the same build of the program"
    )]
    Protocol {
        /// Main's.
        theirs: u32,
    },
    /// The entry was called a second time.
    #[error("the entry of child processes was called twice")]
    EnteredTwice,
    /// The system refused, or main went away.
    #[error("a child process could not set itself up")]
    Init(#[from] io::Error),
}

maslite_core::readable_debug!(enum ChildError {
    Protocol { theirs },
    EnteredTwice,
    Init(source),
});

impl ChildError {
    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Protocol { .. } => EXIT_PROTOCOL_MISMATCH,
            Self::EnteredTwice | Self::Init(_) => EXIT_INIT_FAILED,
        }
    }
}
