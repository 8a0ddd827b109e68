//! Who may speak to a control socket: processes of this user, and the superuser.
//!
//! The socket lies in a directory that only its user may enter, and the system says which user is
//! at the other end of a connection.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::geteuid;

/// Makes a directory for this user alone, whatever the umask, and what is missing above it.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent()
        && !above.try_exists()?
    {
        make_private(above)?;
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
pub(super) fn check_private(directory: &Path) -> io::Result<()> {
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

/// Whether the process at the other end is this user's, or the superuser's. Where the system does
/// not tell, the modes of socket and directory alone decide.
pub(super) fn is_this_user(socket: &UnixStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        let peer = rustix::net::sockopt::socket_peercred(socket);
        peer.is_ok_and(|peer| peer.uid == geteuid() || peer.uid.is_root())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own, with a umask that takes everything.
    #[test]
    #[ignore = "started by the test below"]
    fn under_a_umask_that_takes_everything() {
        let place = std::env::temp_dir();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let deep = place.join("a").join("b");
        make_private(&deep).unwrap();
        assert_eq!((mode(&place.join("a")), mode(&deep)), (0o700, 0o700));
        // One that an earlier process has left.
        let shut = place.join("shut");
        fs::create_dir(&shut).unwrap();
        assert_eq!(mode(&shut), 0);
        check_private(&shut).unwrap();
        assert_eq!(mode(&shut), 0o700);
    }

    #[test]
    fn a_directory_lets_its_user_in_whatever_the_umask() {
        let place = std::env::temp_dir().join(format!("maslite-umask-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        let test = "steering::control::access::tests::under_a_umask_that_takes_everything";
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
            assert_eq!(check_private(&place).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        let link = place.join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert!(check_private(&link).is_err());
        fs::remove_dir_all(&place).unwrap();
    }
}
