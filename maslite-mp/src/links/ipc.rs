//! The packets between processes: a pair of ipc-channel's byte channels, and the rendezvous socket
//! over which a child hands main its ends.
//!
//! **Invariant:** no other file names a type of ipc-channel, and none of them is in the public API.
//!
//! ipc-channel is used as a plain carrier of bounded packets, because that is the part of it that
//! holds (measured with 0.23.1): packets stay below its own fragmentation, one pair of channels
//! serves one child, and nothing but the handshake carries channels. It believes the headers it
//! receives; a child with corrupt memory can therefore make a receive panic, which is caught here
//! and ends that link.
//!
//! ipc-channel connects two processes by a socket with a path. A process that is killed in that
//! moment would leave the path in the file system. So the ends of channels cross through a pair of
//! sockets without names ([`Rendezvous`]), as the packets that ipc-channel makes of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender};
use ipc_channel::platform::OsIpcSender;
use ipc_channel::{IpcError, TryRecvError};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::error::link::LinkError;
use crate::links::descriptors;
use crate::links::frame::{FRAME_LIMIT, Packets};

const ARRIVED: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
const SILENT: SendFlags = SendFlags::NOSIGNAL;

/// A sending and a receiving channel. Holds only its own end of each, so that the peer's death is
/// seen.
#[derive(Debug)]
pub(crate) struct IpcPackets {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    /// Main's receiving end once more, to break the link by.
    line: Option<Arc<OwnedFd>>,
}

/// Ends the link of a peer that is gone, or is given up, also while a thread waits there, and even
/// if another process holds the peer's ends.
#[derive(Debug)]
pub(crate) struct DeathNotice(Weak<OwnedFd>);

impl DeathNotice {
    /// Breaks the link. What the peer had sent before is received first.
    pub(crate) fn post(&self) {
        if let Some(line) = self.0.upgrade() {
            // It cannot fail but for a socket that is broken already.
            let _ = rustix::net::shutdown(&*line, Shutdown::Both);
        }
    }
}

impl IpcPackets {
    /// For the thread that watches the peer's process. Posting it does nothing once the link is
    /// dropped.
    pub(crate) fn death_notice(&self) -> DeathNotice {
        DeathNotice(self.line.as_ref().map(Arc::downgrade).unwrap_or_default())
    }
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

/// The length of frames such that all that may be unread fits into a channel's buffer, header of
/// ipc-channel included.
pub(crate) fn frame_limit() -> usize {
    FRAME_LIMIT.min(OsIpcSender::get_max_fragment_size() / 3)
}

/// Finds out before any child is started whether this process can have channels at all.
///
/// ipc-channel asks for its buffer size once per process, and if it then finds no free descriptor
/// it panics now and ever after.
pub(crate) fn check() -> io::Result<()> {
    let probe = ipc::bytes_channel()?;
    drop(probe);
    frame_limit();
    Ok(())
}

/// What crosses between a child and main before their channels do.
#[derive(Debug, Serialize, Deserialize)]
enum RendezvousMessage {
    /// The ends that a child hands over.
    Channels {
        to_proc: IpcBytesSender,
        to_main: IpcBytesReceiver,
    },
    /// Within one process: the sending end of a channel of these messages.
    Sender(IpcSender<RendezvousMessage>),
    /// Within one process: random bytes by which a descriptor is found.
    Token([u8; 16]),
}

/// A packet of ipc-channel as it is: a message that has not been unpacked.
struct Parcel {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

/// No message is as long as this \[bytes\].
const LONGEST_MESSAGE: usize = 1024;

/// A message encloses the ends of two channels at most.
const ENCLOSED: usize = 2;

impl Parcel {
    /// Takes a packet that has arrived. None if there is none.
    fn take(from: impl AsFd) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; LONGEST_MESSAGE];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ENCLOSED))];
        let mut enclosed = RecvAncillaryBuffer::new(&mut room);
        let received = match retry_on_intr(|| {
            let mut into = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&from, &mut into, &mut enclosed, ARRIVED)
        }) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let files = enclosed.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        if received.flags.intersects(cut) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.truncate(received.bytes);
        Ok(Some(Self { bytes, files }))
    }

    fn pass_on(&self, to: impl AsFd) -> io::Result<()> {
        let files: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ENCLOSED))];
        let mut enclosed = SendAncillaryBuffer::new(&mut room);
        if !files.is_empty() {
            enclosed.push(SendAncillaryMessage::ScmRights(&files));
        }
        let bytes = [IoSlice::new(&self.bytes)];
        retry_on_intr(|| rustix::net::sendmsg(&to, &bytes, &mut enclosed, SILENT))?;
        Ok(())
    }
}

/// A sending end of ipc-channel and the socket at which its packets arrive as they are.
///
/// ipc-channel does not show its descriptors. The socket is the one at which a token arrives that
/// was sent there.
fn plain_channel() -> io::Result<(IpcSender<RendezvousMessage>, OwnedFd)> {
    let (sender, receiver) = ipc::channel()?;
    let mut token = [0; 16];
    getrandom::fill(&mut token)?;
    sender
        .send(RendezvousMessage::Token(token))
        .map_err(io_error)?;
    let arrives = descriptors::socket_with(&token)?
        .ok_or_else(|| io::Error::other("the descriptor of a channel cannot be found"))?;
    // The duplicate keeps the socket open.
    drop(receiver);
    Parcel::take(&arrives)?.ok_or(io::ErrorKind::WouldBlock)?;
    Ok((sender, arrives))
}

/// Where main takes in the ends of channels that children hand over.
///
/// The messages are taken from sockets here as plain packets, which cannot make main wait and whose
/// files are closed when they are refused, and passed on to ipc-channel only once they are there.
pub(crate) struct Rendezvous {
    hatch: Rc<Hatch>,
}

/// The way of a packet into ipc-channel.
struct Hatch {
    /// Through which packets get to `receiver`.
    entry: OwnedFd,
    receiver: IpcReceiver<RendezvousMessage>,
}

/// One of a pair of sockets; the other one goes to a child over its control line.
pub(crate) struct RendezvousSocket {
    ours: OwnedFd,
    hatch: Rc<Hatch>,
}

impl Rendezvous {
    pub(crate) fn open() -> io::Result<Self> {
        let (to_receiver, receiver) = ipc::channel()?;
        let (sender, arrives) = plain_channel()?;
        sender
            .send(RendezvousMessage::Sender(to_receiver))
            .map_err(io_error)?;
        let parcel = Parcel::take(&arrives)?.ok_or(io::ErrorKind::WouldBlock)?;
        let entry = parcel.files.into_iter().next();
        let entry = entry.ok_or(io::ErrorKind::InvalidData)?;
        let hatch = Rc::new(Hatch { entry, receiver });
        Ok(Self { hatch })
    }

    /// Makes the sockets for one child. Returns the child's, too, which it needs to [`hand_over`]
    /// its channels.
    pub(crate) fn socket(&self) -> io::Result<(RendezvousSocket, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let hatch = Rc::clone(&self.hatch);
        Ok((RendezvousSocket { ours, hatch }, theirs))
    }
}

impl RendezvousSocket {
    /// Takes the channels that the child has handed over. Does not wait.
    pub(crate) fn take(&self) -> io::Result<IpcPackets> {
        let parcel = Parcel::take(&self.ours)?.ok_or(io::ErrorKind::InvalidData)?;
        // In the order of the fields of the message.
        let [_, to_main] = &*parcel.files else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let to_main = to_main.try_clone()?;
        parcel.pass_on(&self.hatch.entry)?;
        let message = catch_unwind(AssertUnwindSafe(|| self.hatch.receiver.recv()))
            .map_err(|_| io::Error::other("ipc-channel panicked over the ends of channels"))?;
        match message.map_err(io_error)? {
            RendezvousMessage::Channels {
                to_proc: sender,
                to_main: receiver,
            } => Ok(IpcPackets {
                sender,
                receiver,
                line: Some(Arc::new(to_main)),
            }),
            RendezvousMessage::Sender(_) | RendezvousMessage::Token(_) => {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}

fn io_error(error: IpcError) -> io::Error {
    match error {
        IpcError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Hands main its ends of two fresh channels, as its child, through the socket that came from main.
/// Returns the child's ends.
pub(crate) fn hand_over(socket: &OwnedFd) -> io::Result<IpcPackets> {
    let (to_proc, receiver) = ipc::bytes_channel()?;
    let (sender, to_main) = ipc::bytes_channel()?;
    let (carrier, arrives) = plain_channel()?;
    let message = RendezvousMessage::Channels { to_proc, to_main };
    carrier.send(message).map_err(io_error)?;
    let parcel = Parcel::take(&arrives)?.ok_or(io::ErrorKind::WouldBlock)?;
    parcel.pass_on(socket)?;
    Ok(IpcPackets {
        sender,
        receiver,
        line: None,
    })
}
