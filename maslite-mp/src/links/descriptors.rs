//! Finds a descriptor of this process whose number is not known.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::net::RecvFlags;

/// Duplicates the descriptor of a socket of this process at which a packet waits that contains
/// these random bytes.
pub(super) fn socket_with(token: &[u8; 16]) -> io::Result<Option<OwnedFd>> {
    let entries = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd"))?;
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number >= 0) else {
            continue;
        };
        // SAFETY: no system call gives -1. Another thread may close the descriptor at any time, and
        // open another file under its number. So nothing is done to it but to look at what waits
        // there, which changes no file. The socket with the token stays open as long as the caller
        // holds it.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        if has(socket, token) {
            return Ok(Some(rustix::io::fcntl_dupfd_cloexec(socket, 0)?));
        }
    }
    Ok(None)
}

/// Whether a packet waits at this descriptor that contains the token. Takes nothing.
fn has(socket: BorrowedFd<'_>, token: &[u8; 16]) -> bool {
    let mut bytes = [0; 256];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut bytes, flags));
    // What is no socket refuses to be looked at.
    seen.is_ok_and(|(seen, _)| bytes[..seen].windows(token.len()).any(|part| part == token))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_socket_is_found_at_which_the_token_waits() {
        let token = *b"a token of tests";
        assert!(socket_with(&token).unwrap().is_none());
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let (_busy, mut busy) = UnixStream::pair().unwrap();
        busy.write_all(b"something else").unwrap();
        one.write_all(&token).unwrap();
        let found = socket_with(&token).unwrap().expect("it waits there");
        let mut found = UnixStream::from(found);
        found.write_all(b"!").unwrap();
        let mut byte = [0];
        one.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
        // It was looked at, and not taken.
        let mut bytes = [0; 16];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, token);
    }
}
