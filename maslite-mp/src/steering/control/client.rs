//! Asking a simulation something, from another process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Answer, Question, Reply, Request, VERSION};

/// The longest answer that is believed \[bytes\].
const ANSWER_LIMIT: u64 = 64 * 1_024 * 1_024;

/// Why there is no answer.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there.
    #[error("no simulation answers at this socket: it has ended, or never was")]
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

/// Asks the simulation with this control socket. Waits for the answer, for at most `limit` \[wall\] if there is one: a pause, for one,
/// waits for agents at work.
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
    let mut socket = UnixStream::connect(path).map_err(AskError::Connect)?;
    let version = VERSION;
    let question = serde_json::to_vec(&Question { version, request });
    let mut line = question.map_err(AskError::Protocol)?;
    line.push(b'\n');
    socket.set_read_timeout(limit).map_err(AskError::Silent)?;
    socket.write_all(&line).map_err(AskError::Silent)?;
    let mut line = Vec::new();
    let mut socket = BufReader::new(socket.take(ANSWER_LIMIT));
    socket
        .read_until(b'\n', &mut line)
        .map_err(AskError::Silent)?;
    if line.is_empty() {
        return Err(AskError::Silent(io::ErrorKind::UnexpectedEof.into()));
    }
    let answer: Answer = serde_json::from_slice(&line).map_err(AskError::Protocol)?;
    match answer.reply {
        Reply::Refused { message } => Err(AskError::Refused(message)),
        reply => Ok(reply),
    }
}
