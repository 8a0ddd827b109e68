//! What must hold before the first child process is started: descriptors for all, the same program.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::fcntl_getfd;
use rustix::process::{Resource, getrlimit};
use rustix::stdio::{stderr, stdin, stdout};

use crate::error::spawn::SpawnError;

/// Descriptors that a child takes here: its control line, its stdout and stderr, the two channels
/// of its link, and what breaks it. One on a ring takes fewer.
pub(crate) const DESCRIPTORS_PER_CHILD: usize = 6;

/// Descriptors that a start needs for a moment, and what the program's other threads may open
/// meanwhile.
const SPARE: usize = 24;

/// Opens `/dev/null` as each of the descriptors 0 to 2 that the program has closed, as the system's
/// runtime does when a program starts. Otherwise the next thing opened, such as the control line of
/// a child, would be what the program prints into.
pub(crate) fn open_standard_streams() -> io::Result<()> {
    let is_closed = |stream| fcntl_getfd(stream).is_err();
    while [stdin(), stdout(), stderr()].into_iter().any(is_closed) {
        let nothing = OpenOptions::new().read(true).write(true).open("/dev/null");
        let number = nothing?.into_raw_fd();
        debug_assert!(number <= 2, "the lowest number that is free is taken");
    }
    Ok(())
}

/// Refuses to start more children than this process has descriptors for.
pub(crate) fn check_descriptors(clusters: usize) -> Result<(), SpawnError> {
    let (Some(limit), Some(open)) = (getrlimit(Resource::Nofile).current, open_descriptors())
    else {
        // There is no limit, or no telling.
        return Ok(());
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let possible = limit.saturating_sub(open + SPARE) / DESCRIPTORS_PER_CHILD;
    if clusters <= possible {
        return Ok(());
    }
    Err(SpawnError::TooManyClusters {
        asked: clusters,
        possible,
        limit,
    })
}

/// Refuses more children than this process may ever have descriptors for, whatever else it has
/// open: a question that is asked often.
pub(crate) fn check_number(clusters: usize) -> Result<(), SpawnError> {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Ok(());
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let possible = limit / DESCRIPTORS_PER_CHILD;
    if clusters <= possible {
        return Ok(());
    }
    Err(SpawnError::TooManyClusters {
        asked: clusters,
        possible,
        limit,
    })
}

/// How many descriptors this process has open.
fn open_descriptors() -> Option<usize> {
    // The directory that is read is one of them.
    let entries = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd"));
    Some(entries.ok()?.count().saturating_sub(1))
}

/// A file as it was once.
#[derive(Debug, PartialEq, Eq)]
struct Original {
    path: PathBuf,
    /// Device, number there, length, and time of the last change.
    identity: (u64, u64, u64, i64, i64),
}

impl Original {
    fn of(path: PathBuf) -> io::Result<Self> {
        let identity = Self::identity(&path)?;
        Ok(Self { path, identity })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64, u64, i64, i64)> {
        let file = fs::metadata(path)?;
        Ok((
            file.dev(),
            file.ino(),
            file.len(),
            file.mtime(),
            file.mtime_nsec(),
        ))
    }

    fn check(&self) -> Result<(), SpawnError> {
        if Self::identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            return Ok(());
        }
        Err(SpawnError::ProgramReplaced(self.path.clone()))
    }
}

/// The program of this process, as far as it is known by its path only.
static PROGRAM: OnceLock<Option<Original>> = OnceLock::new();

/// Looks at this program's file, so that it is noticed if it changes before children are started
/// from it.
pub(crate) fn remember_program() {
    PROGRAM.get_or_init(|| {
        if runs_from_memory() {
            return None;
        }
        env::current_exe().and_then(Original::of).ok()
    });
}

/// Refuses to start children from a file that is not this program any more.
pub(crate) fn check_program() -> Result<(), SpawnError> {
    match PROGRAM.get() {
        Some(Some(original)) => original.check(),
        _ => Ok(()),
    }
}

/// Whether children can be started from the program that runs, whatever has become of its file.
pub(crate) fn runs_from_memory() -> bool {
    cfg!(target_os = "linux") && Path::new(OWN_PROGRAM).exists()
}

/// The program that runs, on Linux.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_clusters_than_there_can_be_descriptors_for_are_refused_by_their_number() {
        check_number(1).expect("there are descriptors for one");
        let Some(limit) = getrlimit(Resource::Nofile).current else {
            return;
        };
        let limit = usize::try_from(limit).expect("a small number");
        let most = limit / DESCRIPTORS_PER_CHILD;
        check_number(most).expect("the limit allows this number");
        let error = check_number(most + 1).expect_err("too many");
        let SpawnError::TooManyClusters {
            asked, possible, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((asked, possible), (most + 1, most));
    }

    #[test]
    fn a_program_that_was_replaced_or_deleted_is_noticed() {
        let path = env::temp_dir().join(format!("maslite-program-{}", std::process::id()));
        fs::write(&path, "one").expect("it can be written");
        let original = Original::of(path.clone()).expect("it is there");
        original.check().expect("it is the same");
        let other = path.with_extension("new");
        fs::write(&other, "two").expect("it can be written");
        fs::rename(&other, &path).expect("it can be renamed");
        assert!(matches!(
            original.check(),
            Err(SpawnError::ProgramReplaced(_))
        ));
        fs::remove_file(&path).expect("it is there");
        assert!(matches!(
            original.check(),
            Err(SpawnError::ProgramReplaced(_))
        ));
    }
}
