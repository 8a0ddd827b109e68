//! The packets between processes: a pair of ipc-channel's byte channels, and the door through which a child hands them over.
//!
//! **Invariant:** no other file names a type of ipc-channel, and none of them is in the public API.
//!
//! ipc-channel is used as a plain carrier of bounded packets, because that is the part of it that holds (measured with 0.23.1):
//! packets stay below its own fragmentation, one pair of channels serves one child, and nothing but the handshake carries
//! channels. It believes the headers it receives; a child with corrupt memory can therefore make a receive panic, which is
//! caught here and ends that link.

use std::env;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use ipc_channel::platform::OsIpcSender;
use ipc_channel::{IpcError, TryRecvError};
use serde::{Deserialize, Serialize};

use crate::error::link::LinkError;
use crate::links::frame::{FRAME_LIMIT, Packets};

/// A sending and a receiving channel. Holds only its own end of each, so that the peer's death is seen.
#[derive(Debug)]
pub(crate) struct IpcPackets {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
}

impl Packets for IpcPackets {
    fn send(&mut self, packet: &[u8]) -> Result<(), LinkError> {
        loop {
            match self.sender.send(packet) {
                Ok(()) => return Ok(()),
                // A packet goes as a whole or not at all.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(link_error(error)),
            }
        }
    }

    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
        loop {
            match guarded(|| self.receiver.recv())? {
                // ipc-channel allocates for every packet anyway: keeping its buffer saves the copy.
                Ok(packet) => {
                    *into = packet;
                    return Ok(());
                }
                Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ipc_error(error)),
            }
        }
    }

    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError> {
        match guarded(|| self.receiver.try_recv())? {
            Ok(packet) => {
                *into = packet;
                Ok(true)
            }
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::IpcError(error)) => Err(ipc_error(error)),
        }
    }
}

/// Runs a receive of ipc-channel, which panics on headers that lie.
fn guarded<T>(receive: impl FnOnce() -> T) -> Result<T, LinkError> {
    catch_unwind(AssertUnwindSafe(receive))
        .map_err(|_| LinkError::Io(io::Error::other("ipc-channel panicked while receiving")))
}

/// A dead peer shows as one of three errors, depending on what it had left unread.
fn link_error(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LinkError::Disconnected,
        _ => LinkError::Io(error),
    }
}

fn ipc_error(error: IpcError) -> LinkError {
    match error {
        IpcError::Disconnected => LinkError::Disconnected,
        IpcError::Io(error) => link_error(error),
        other @ IpcError::SerializationError(_) => LinkError::Io(io::Error::other(other)),
    }
}

/// The length of frames such that all that may be unread fits into a channel's buffer, header of ipc-channel included.
pub(crate) fn frame_limit() -> usize {
    FRAME_LIMIT.min(OsIpcSender::get_max_fragment_size() / 3)
}

/// Finds out before any child is started whether this process can have channels at all.
///
/// ipc-channel asks for its buffer size once per process, and if it then finds no free descriptor it panics now and ever after.
pub(crate) fn check() -> io::Result<()> {
    let probe = ipc::bytes_channel()?;
    drop(probe);
    frame_limit();
    Ok(())
}

/// What arrives at a door.
#[derive(Debug, Serialize, Deserialize)]
enum Knock {
    Channels {
        /// Proves that the child read the invitation meant for it.
        nonce: [u8; 16],
        to_proc: IpcBytesSender,
        to_main: IpcBytesReceiver,
    },
    /// From this process itself, to free the thread that waits at the door.
    Abort,
}

/// Where main waits for the channels of one child.
pub(crate) struct Door {
    server: IpcOneShotServer<Knock>,
    name: String,
}

impl Door {
    /// Opens a door that only this user can reach.
    pub(crate) fn open() -> io::Result<Self> {
        // It panics where it cannot make a directory.
        let (server, name) = catch_unwind(IpcOneShotServer::new)
            .map_err(|_| io::Error::other("ipc-channel panicked over a door"))??;
        if cfg!(target_os = "linux")
            && let Some(directory) = Path::new(&name).parent()
        {
            make_private(directory)?;
        }
        Ok(Self { server, name })
    }

    /// Where to knock.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the first knock. None if it was an abort.
    pub(crate) fn accept(self) -> io::Result<Option<([u8; 16], IpcPackets)>> {
        // The receiver is dropped at once: its descriptor is not closed on exec, and a child that inherits it would hide deaths.
        let accepted = catch_unwind(AssertUnwindSafe(|| self.server.accept()))
            .map_err(|_| io::Error::other("ipc-channel panicked over a knock"))?;
        let (_, knock) = accepted.map_err(|error| match error {
            IpcError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        Ok(match knock {
            Knock::Channels {
                nonce,
                to_proc: sender,
                to_main: receiver,
            } => Some((nonce, IpcPackets { sender, receiver })),
            Knock::Abort => None,
        })
    }
}

/// Knocks at main's door as its child and returns the child's ends of the two fresh channels.
pub(crate) fn knock(name: &str, nonce: [u8; 16]) -> io::Result<IpcPackets> {
    let (to_proc, receiver) = ipc::bytes_channel()?;
    let (sender, to_main) = ipc::bytes_channel()?;
    let door = IpcSender::connect(name.to_owned())?;
    door.send(Knock::Channels {
        nonce,
        to_proc,
        to_main,
    })
    .map_err(io::Error::other)?;
    Ok(IpcPackets { sender, receiver })
}

/// Removes a door whose main process is gone. Does nothing if it is not there.
pub(crate) fn take_away(name: &str) {
    if cfg!(target_os = "linux") {
        let socket = Path::new(name);
        let _ = fs::remove_file(socket);
        let _ = socket.parent().map(fs::remove_dir);
    }
}

/// Frees the thread that waits at our own door `name`. Harmless if somebody has been let in meanwhile.
pub(crate) fn abort(name: &str) {
    if let Ok(door) = IpcSender::connect(name.to_owned()) {
        let _ = door.send(Knock::Abort);
    }
}

/// Returns the directory in which doors are made if it cannot hold one: ipc-channel truncates the socket's path without a word,
/// and panics on a path that is not UTF-8.
pub(crate) fn unusable_temp_dir() -> Option<PathBuf> {
    /// `sun_path` with its final zero, less `/.tmpXXXXXX/socket`.
    const LONGEST: usize = 107 - 18;
    let directory = env::temp_dir();
    let usable = directory
        .to_str()
        .is_some_and(|path| !cfg!(target_os = "linux") || path.len() <= LONGEST);
    (!usable).then_some(directory)
}

#[cfg(unix)]
fn make_private(directory: &Path) -> io::Result<()> {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    set_permissions(directory, Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(_directory: &Path) -> io::Result<()> {
    Ok(())
}
