//! How long to wait for an answer: for as long as the simulation lives, and not for one that is stopped.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use maslite_mp::control::protocol::{Reply, Request};
use maslite_mp::control::{AskError, ask};

/// How long what is answered at once may take, and how long to wait before asking whether anybody is there at all.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Asks for what is answered at once, whatever agents do.
pub(crate) fn ask_at_once(path: &Path, request: Request) -> Result<Reply, AskError> {
    ask(path, request, Some(AT_ONCE))
}

/// Asks for what may have to wait for agents at work: for as long as the simulation answers how it stands.
pub(crate) fn ask_patiently(path: &Path, request: Request) -> Result<Reply, AskError> {
    if matches!(request, Request::Status | Request::Resume | Request::Stop) {
        return ask_at_once(path, request);
    }
    let (answered, answer) = mpsc::channel();
    let there = path.to_owned();
    thread::spawn(move || {
        // Whoever asked may have given up.
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
