//! Where control sockets lie, and which simulations have one.
//!
//! `$XDG_RUNTIME_DIR/maslite/<pid>-<name>.sock`, or below the directory for temporary files where
//! there is no such variable. Beside it lies `<pid>-<name>.lock`.
//!
//! **Invariant:** the directory belongs to this user and no other user may enter it, or it is not
//! used.
//!
//! **Invariant:** a process that makes or removes a socket holds the lock of its name. The system
//! lets go of it when the process that holds it ends, however that comes, and process ids repeat:
//! in a container main may always be process 1. So a process id alone tells nothing.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::access::{check_private, make_private};
use super::client::{AskError, connect};

/// The longest name of a simulation \[characters\]: a socket's path must fit into about a hundred.
const LONGEST: usize = 32;

/// A simulation that can be spoken to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Simulation {
    /// The process of its main program.
    pub pid: u32,
    /// The name it was given.
    pub name: String,
    /// Its control socket.
    pub path: PathBuf,
}

/// A name and a process id, as people tell it from others.
impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// The directory of this user's control sockets, whether it is there or not.
fn directory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute()) {
        Some(path) => path.join("maslite"),
        // Others have directories there, too.
        None => std::env::temp_dir().join(format!("maslite-{}", geteuid().as_raw())),
    }
}

/// Whether a simulation can be called so.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=LONGEST).contains(&name.len()) && name.chars().all(is_plain)
}

/// Where the socket of a simulation of this process belongs. Its directory is there then.
pub(crate) fn path_for(name: &str) -> io::Result<PathBuf> {
    if !is_name(name) {
        let what = format!(
            "{name:?} is no valid name of a simulation: use 1 to {LONGEST} letters, digits, '-' and '_'"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let directory = directory();
    make_private(&directory)?;
    check_private(&directory)?;
    Ok(directory.join(format!("{}-{name}.sock", std::process::id())))
}

/// The right to a socket's name, as long as it is held.
#[derive(Debug)]
pub(crate) struct Claim {
    socket: PathBuf,
    /// Held only because the lock goes with it.
    _file: File,
}

impl Claim {
    /// Takes the name, and removes what a dead process has left there. None if a live process has
    /// it.
    ///
    /// # Errors
    /// If there cannot be a lock.
    pub(crate) fn take(socket: &Path) -> io::Result<Option<Self>> {
        Self::take_if(socket, true)
    }

    fn take_if(socket: &Path, create: bool) -> io::Result<Option<Self>> {
        let lock = socket.with_extension("lock");
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(create).mode(0o600);
            let file = options
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&lock)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whatever the umask: the next process of this name opens it, too.
                Ok(()) => file.set_permissions(Permissions::from_mode(0o600))?,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // The owner before may have removed it in between: then it locks nothing.
            let (ours, there) = (file.metadata()?, fs::symlink_metadata(&lock));
            let is_there =
                there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
            if is_there {
                let socket = socket.to_owned();
                let _ = fs::remove_file(&socket);
                return Ok(Some(Self {
                    socket,
                    _file: file,
                }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(self.socket.with_extension("lock"));
    }
}

/// Removes the socket of a dead process, and its lock.
fn sweep(socket: &Path) {
    match Claim::take_if(socket, false) {
        Ok(Some(claim)) => drop(claim),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let _ = fs::remove_file(socket);
        }
        // A process is about to listen there, or about to end.
        Ok(None) | Err(_) => {}
    }
}

/// Which simulation a socket belongs to, by its name.
fn named(path: PathBuf) -> Option<Simulation> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".sock")?;
    let (pid, name) = stem.split_once('-')?;
    let (pid, name) = (pid.parse().ok()?, name.to_owned());
    is_name(&name).then_some(Simulation { pid, name, path })
}

/// The simulations of this user that can be spoken to, by process and name. What dead ones have
/// left is removed.
///
/// # Errors
/// If their directory cannot be read, or is not this user's alone. That there is none is no error.
pub fn simulations() -> io::Result<Vec<Simulation>> {
    let directory = directory();
    let entries = match check_private(&directory).and_then(|()| fs::read_dir(&directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<Simulation> = entries
        .filter_map(|entry| named(entry.ok()?.path()))
        .collect();
    found.retain(|simulation| {
        // A process that accepts no connection lives all the same.
        let is_there = !matches!(connect(&simulation.path), Err(AskError::Connect(_)));
        if !is_there {
            sweep(&simulation.path);
        }
        is_there
    });
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_tell_the_same() {
        let path = PathBuf::from("/run/maslite/17-a-b_c.sock");
        let simulation = named(path.clone()).unwrap();
        assert_eq!((simulation.pid, simulation.name.as_str()), (17, "a-b_c"));
        for other in [
            "17.sock",
            "x-a.sock",
            "17-a",
            "-.sock",
            "17-\x1b.sock",
            "17-.sock",
        ] {
            assert_eq!(named(PathBuf::from(other)), None, "{other}");
        }
        for bad in ["", "a/b", "a b", "..", &"x".repeat(33)] {
            let error = path_for(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }

    fn place(what: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("maslite-{what}-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        place
    }

    #[test]
    fn a_name_is_taken_by_the_living_alone() {
        let place = place("claim");
        let socket = place.join("1-a.sock");
        let names = || {
            let entries = fs::read_dir(&place).unwrap();
            let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // What a process has left that was killed, and whose id is taken again.
        let left = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        drop(left);
        fs::write(place.join("1-a.lock"), "").unwrap();
        let claim = Claim::take(&socket).unwrap().unwrap();
        assert_eq!(names(), ["1-a.lock"]);
        assert!(Claim::take(&socket).unwrap().is_none());
        fs::write(&socket, "").unwrap();
        sweep(&socket);
        assert_eq!(names(), ["1-a.lock", "1-a.sock"]);
        drop(claim);
        assert!(names().is_empty());
        // Also one of a program that knew no locks.
        fs::write(&socket, "").unwrap();
        sweep(&socket);
        assert!(names().is_empty());
        drop(Claim::take(&socket).unwrap().unwrap());
        std::os::unix::fs::symlink("elsewhere", place.join("1-a.lock")).unwrap();
        assert!(Claim::take(&socket).is_err());
        fs::remove_dir_all(&place).unwrap();
    }
}
