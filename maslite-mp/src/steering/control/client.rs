//! Asking a simulation something, from another process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use maslite_core::Plain;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use crate::links::transport::now;

use super::protocol::{Answer, Question, Reply, Request, VERSION};

/// The longest answer that is believed \[bytes\].
const ANSWER_LIMIT: usize = 16 * 1_024 * 1_024;

/// How much of a refusal is shown \[characters\].
const REFUSAL_LIMIT: usize = 1_000;

/// Why there is no answer.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No process listens there.
    #[error("no simulation answers at this socket: it has ended, or it never existed")]
    Connect(#[source] io::Error),
    /// The simulation ended before it answered, or did not answer in time.
    #[error("the simulation did not answer")]
    Silent(#[source] io::Error),
    /// What came is no answer of this version.
    #[error("the simulation speaks another version of the protocol than {VERSION}")]
    Protocol(#[source] serde_json::Error),
    /// The simulation does not do it, for this reason.
    #[error("{0}")]
    Refused(String),
}

maslite_core::readable_debug!(
    enum AskError {
        Connect(source),
        Silent(source),
        Protocol(source),
        Refused(source),
    }
);

/// Asks the simulation with this control socket. Waits for the answer, for at most `limit` \[wall\]
/// if there is one: a pause, for one, waits for agents at work.
///
/// ```no_run
/// use maslite_mp::control::{ask, protocol::Request, simulations};
///
/// for simulation in simulations()? {
///     println!("{}: {:?}", simulation.name, ask(&simulation.path, Request::Status, None)?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`AskError`].
pub fn ask(path: &Path, request: Request, limit: Option<Duration>) -> Result<Reply, AskError> {
    let until = limit.and_then(|limit| now().checked_add(limit));
    let mut socket = connect(path)?;
    let version = VERSION;
    let question = serde_json::to_vec(&Question { version, request });
    let mut line = question.map_err(AskError::Protocol)?;
    line.push(b'\n');
    socket.set_write_timeout(limit).map_err(AskError::Silent)?;
    socket.write_all(&line).map_err(AskError::Silent)?;
    let line = read_line(&mut socket, until).map_err(AskError::Silent)?;
    let answer: Answer = serde_json::from_slice(&line).map_err(AskError::Protocol)?;
    match answer.reply {
        Reply::Refused { message } => {
            let message = Plain(&message, REFUSAL_LIMIT).to_string();
            Err(AskError::Refused(message))
        }
        reply => Ok(reply),
    }
}

/// Connects, and does not wait for a process that accepts no connection.
pub(super) fn connect(path: &Path) -> Result<UnixStream, AskError> {
    let open = || {
        let address = SocketAddrUnix::new(path)?;
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::net::connect(&socket, &address)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(UnixStream::from(socket))
    };
    open().map_err(|error: Errno| match error {
        Errno::AGAIN => AskError::Silent(io::Error::new(
            io::ErrorKind::TimedOut,
            "its queue of clients is full: its main program may be stopped",
        )),
        error => AskError::Connect(error.into()),
    })
}

/// Reads a line of bounded length, until a moment at the latest, however slowly it comes.
fn read_line(socket: &mut UnixStream, until: Option<Instant>) -> io::Result<Vec<u8>> {
    let late = || {
        let what = "there was no answer in time: its main program may be stopped";
        io::Error::new(io::ErrorKind::TimedOut, what)
    };
    let (mut line, mut bytes) = (Vec::new(), vec![0; 64 * 1_024]);
    loop {
        if let Some(until) = until {
            let rest = until.saturating_duration_since(now());
            if rest.is_zero() {
                return Err(late());
            }
            socket.set_read_timeout(Some(rest))?;
        }
        let read = match socket.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => &bytes[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        };
        let end = read.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
        if line.len() > ANSWER_LIMIT {
            let what = format!("its answer is longer than {ANSWER_LIMIT} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}
