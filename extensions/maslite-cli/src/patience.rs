//! How long the program waits for an answer: as long as the simulation lives, and 5 s for a stopped
//! simulation.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use maslite_mp::control::protocol::{Reply, Request};
use maslite_mp::control::{AskError, ask};

/// How long an immediate answer may take, and how long to wait before asking whether the simulation
/// still lives.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Asks a question that main answers at once, without waiting for agents.
pub(crate) fn ask_at_once(path: &Path, request: Request) -> Result<Reply, AskError> {
    ask(path, request, Some(AT_ONCE))
}

/// Asks a question whose answer may have to wait for agents at work. Waits as long as the
/// simulation answers questions about its status.
pub(crate) fn ask_patiently(path: &Path, request: Request) -> Result<Reply, AskError> {
    if matches!(request, Request::Status | Request::Resume | Request::Stop) {
        return ask_at_once(path, request);
    }
    let (answered, answer) = mpsc::channel();
    let there = path.to_owned();
    thread::spawn(move || {
        // Ignore the error: the caller has given up waiting.
        let _ = answered.send(ask(&there, request, None));
    });
    loop {
        match answer.recv_timeout(AT_ONCE) {
            Ok(answer) => return answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let gone = std::io::ErrorKind::UnexpectedEof.into();
                return Err(AskError::Silent(gone));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => ask_at_once(path, Request::Status)?,
        };
    }
}
