//! Where control sockets lie, and which simulations have one.
//!
//! `$XDG_RUNTIME_DIR/maslite/<pid>-<name>.sock`, or below the directory for temporary files where there is no such variable.
//!
//! **Invariant:** the directory belongs to this user and nobody else may enter it, or it is not used.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid, test_kill_process};

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

/// Makes a directory for this user alone, whatever the umask, and what is missing above it.
fn make(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent()
        && !above.try_exists()?
    {
        make(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a directory is this user's alone. Lets its user in again if a umask has shut it out.
///
/// # Errors
/// If it is not, or is not there.
fn check(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let is_ours = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    if is_ours {
        if found.mode() & 0o700 != 0o700 {
            // A umask has taken it from its own user as well, and from all later simulations.
            fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        }
        return Ok(());
    }
    let what = format!(
        "{} is no directory of this user alone: remove it, or set XDG_RUNTIME_DIR",
        directory.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

/// Where the socket of a simulation of this process belongs. Its directory is there then.
pub(crate) fn path_for(name: &str) -> io::Result<PathBuf> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(is_plain) {
        let what = format!(
            "a simulation cannot be called {name:?}: use 1 to {LONGEST} letters, digits, '-' and '_'"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let directory = directory();
    make(&directory)?;
    check(&directory)?;
    Ok(directory.join(format!("{}-{name}.sock", std::process::id())))
}

/// Which simulation a socket belongs to, by its name.
fn named(path: PathBuf) -> Option<Simulation> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".sock")?;
    let (pid, name) = stem.split_once('-')?;
    let (pid, name) = (pid.parse().ok()?, name.to_owned());
    Some(Simulation { pid, name, path })
}

/// The simulations of this user that can be spoken to, by process and name. What dead ones have left is removed.
///
/// # Errors
/// If their directory cannot be read, or is not this user's alone. That there is none is no error.
pub fn simulations() -> io::Result<Vec<Simulation>> {
    let directory = directory();
    let entries = match check(&directory).and_then(|()| fs::read_dir(&directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<Simulation> = entries
        .filter_map(|entry| named(entry.ok()?.path()))
        .collect();
    found.retain(|simulation| match UnixStream::connect(&simulation.path) {
        Ok(_) => true,
        Err(_) => {
            let pid = i32::try_from(simulation.pid).ok().and_then(Pid::from_raw);
            if pid.is_none_or(|pid| test_kill_process(pid).is_err()) {
                // Whoever sweeps at the same time may have been faster.
                let _ = fs::remove_file(&simulation.path);
            }
            false
        }
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
        for other in ["17.sock", "x-a.sock", "17-a", "-.sock"] {
            assert_eq!(named(PathBuf::from(other)), None, "{other}");
        }
        for bad in ["", "a/b", "a b", "..", &"x".repeat(33)] {
            let error = path_for(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }

    /// In a process of its own, with a umask that takes everything.
    #[test]
    #[ignore = "started by the test below"]
    fn under_a_umask_that_takes_everything() {
        let place = std::env::temp_dir();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let deep = place.join("a").join("b");
        make(&deep).unwrap();
        assert_eq!((mode(&place.join("a")), mode(&deep)), (0o700, 0o700));
        // One that an earlier process has left.
        let shut = place.join("shut");
        fs::create_dir(&shut).unwrap();
        assert_eq!(mode(&shut), 0);
        check(&shut).unwrap();
        assert_eq!(mode(&shut), 0o700);
    }

    #[test]
    fn a_directory_lets_its_user_in_whatever_the_umask() {
        let place = std::env::temp_dir().join(format!("maslite-umask-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        let test = "steering::control::place::tests::under_a_umask_that_takes_everything";
        let output = std::process::Command::new("sh")
            .args(["-c", "umask 777; exec \"$0\" \"$@\" --exact --ignored"])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env("TMPDIR", &place)
            .output()
            .unwrap();
        fs::remove_dir_all(&place).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn only_a_directory_of_ones_own_is_used() {
        let place = std::env::temp_dir().join(format!("maslite-place-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        for (mode, good) in [(0o700, true), (0o750, false), (0o701, false)] {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(&place).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        let link = place.join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert!(check(&link).is_err());
        fs::remove_dir_all(&place).unwrap();
    }
}
