//! The packets between processes: a pair of ipc-channel's byte channels, and the door at which a child hands over main's ends.
//!
//! **Invariant:** no other file names a type of ipc-channel, and none of them is in the public API.
//!
//! ipc-channel is used as a plain carrier of bounded packets, because that is the part of it that holds (measured with 0.23.1):
//! packets stay below its own fragmentation, one pair of channels serves one child, and nothing but the handshake carries
//! channels. It believes the headers it receives; a child with corrupt memory can therefore make a receive panic, which is
//! caught here and ends that link.

use std::env;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender,
};
use ipc_channel::platform::OsIpcSender;
use ipc_channel::{IpcError, TryRecvError};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType,
};
use serde::{Deserialize, Serialize};

use crate::error::link::LinkError;
use crate::links::frame::{FRAME_LIMIT, Packets};

/// How many may stand at a door before somebody answers. Who finds no room waits until then.
const BACKLOG: i32 = 4096;

const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
const ARRIVED: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
const SILENT: SendFlags = SendFlags::NOSIGNAL;

/// A descriptor that only names a file.
const KEY: OFlags = OFlags::PATH;

/// A sending and a receiving channel. Holds only its own end of each, so that the peer's death is seen.
#[derive(Debug)]
pub(crate) struct IpcPackets {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    /// Main's receiving end once more, to break the link by.
    line: Option<Arc<OwnedFd>>,
}

/// Ends the link of a peer that is gone, or is given up, also while somebody waits there: who else may hold the peer's ends does not
/// matter.
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
    /// For whoever watches the peer's process. Posting it does nothing once the link is dropped.
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

/// What a child hands over.
#[derive(Debug, Serialize, Deserialize)]
enum RendezvousMessage {
    Channels {
        /// Proves that the child read the invitation meant for it.
        nonce: [u8; 16],
        to_proc: IpcBytesSender,
        to_main: IpcBytesReceiver,
    },
    /// From this process itself, before any child is told of the door.
    Test,
}

/// A packet of ipc-channel as it is: a knock that has not been unpacked.
struct Parcel {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

/// No knock is as long as this \[bytes\].
const LONGEST_MESSAGE: usize = 1024;

/// A knock encloses the ends of two channels.
const ENCLOSED: usize = 2;

impl Parcel {
    /// Takes a packet that has arrived. None if the peer has closed its end without one.
    fn take(from: impl AsFd) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; LONGEST_MESSAGE];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ENCLOSED))];
        let mut enclosed = RecvAncillaryBuffer::new(&mut room);
        let received = retry_on_intr(|| {
            let mut into = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&from, &mut into, &mut enclosed, ARRIVED)
        })?;
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

/// Where children hand over the ends of their channels: a socket that no longer has a name when the first of them hears of it.
///
/// Children reach it through [`key`](Self::key), a descriptor that comes to them over their control lines. So nothing of it is in
/// the file system but for the moment in which it is made: ipc-channel connects by paths alone. The knocks are taken here as
/// plain packets, which cannot keep anybody waiting and whose files are closed when they are refused, and passed on to ipc-channel
/// only once they are there.
pub(crate) struct RendezvousSocket {
    listener: OwnedFd,
    key: OwnedFd,
    /// Through which packets get to `receiver`.
    hatch: OwnedFd,
    receiver: IpcReceiver<RendezvousMessage>,
}

impl RendezvousSocket {
    /// Makes a door. The directory in which that happens belongs to this user alone, and is gone afterwards, also after an error.
    pub(crate) fn open() -> io::Result<Self> {
        // It panics where it cannot make a directory.
        let (server, inner) = catch_unwind(IpcOneShotServer::<RendezvousMessage>::new)
            .map_err(|_| io::Error::other("ipc-channel panicked over a socket"))??;
        // The server removes the directory and all that is in it.
        let path = Path::new(&inner).with_file_name("door");
        let listener = socket()?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let key = rustix::fs::open(&path, KEY | OFlags::CLOEXEC, Mode::empty())?;
        // What ipc-channel itself sends goes to its server, as it is: so nothing here depends on how its packets look.
        let name = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let visitor = IpcSender::connect(name.to_owned())?;
        visitor
            .send(RendezvousMessage::Test)
            .map_err(io::Error::other)?;
        let visit = accept(&listener)?.ok_or(io::ErrorKind::WouldBlock)?;
        let parcel = Parcel::take(&visit)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let hatch = socket()?;
        rustix::net::connect(&hatch, &SocketAddrUnix::new(&*inner)?)?;
        parcel.pass_on(&hatch)?;
        let accepted = catch_unwind(AssertUnwindSafe(|| server.accept()))
            .map_err(|_| io::Error::other("ipc-channel panicked over a packet"))?;
        let (receiver, _) = accepted.map_err(io_error)?;
        Ok(Self {
            listener,
            key,
            hatch,
            receiver,
        })
    }

    /// What a child needs to [`message`].
    pub(crate) fn key(&self) -> BorrowedFd<'_> {
        self.key.as_fd()
    }

    /// Lets somebody in who is there. Does not wait.
    pub(crate) fn answer(&self) -> io::Result<Option<Visitor>> {
        Ok(accept(&self.listener)?.map(Visitor))
    }

    /// Takes the channels that a visitor has brought. None if it has left without a word.
    pub(crate) fn take(&self, visitor: &Visitor) -> io::Result<Option<([u8; 16], IpcPackets)>> {
        let Some(parcel) = Parcel::take(visitor)? else {
            return Ok(None);
        };
        // In the order of the fields of a knock.
        let [_, to_main] = &*parcel.files else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let to_main = to_main.try_clone()?;
        parcel.pass_on(&self.hatch)?;
        let message = catch_unwind(AssertUnwindSafe(|| self.receiver.recv()))
            .map_err(|_| io::Error::other("ipc-channel panicked over a knock"))?;
        match message.map_err(io_error)? {
            RendezvousMessage::Channels {
                nonce,
                to_proc: sender,
                to_main: receiver,
            } => {
                let packets = IpcPackets {
                    sender,
                    receiver,
                    line: Some(Arc::new(to_main)),
                };
                Ok(Some((nonce, packets)))
            }
            RendezvousMessage::Test => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// By which is seen whether somebody is at the door.
impl AsFd for RendezvousSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Somebody who has been let in, and may have brought something.
pub(crate) struct Visitor(OwnedFd);

impl AsFd for Visitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SOCKET_FLAGS,
        None,
    )?;
    Ok(socket)
}

/// Accepts a connection that is there.
fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SOCKET_FLAGS) {
        Ok(visit) => Ok(Some(visit)),
        // It has left, or is there the next time.
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn io_error(error: IpcError) -> io::Error {
    match error {
        IpcError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Knocks at main's door as its child, with the key to it, and returns the child's ends of the two fresh channels.
pub(crate) fn connect(key: &OwnedFd, nonce: [u8; 16]) -> io::Result<IpcPackets> {
    let name = format!("/proc/self/fd/{}", key.as_raw_fd());
    loop {
        match connect_once(&name, nonce) {
            // Main finds that somebody has left without a word.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn connect_once(name: &str, nonce: [u8; 16]) -> io::Result<IpcPackets> {
    let (to_proc, receiver) = ipc::bytes_channel()?;
    let (sender, to_main) = ipc::bytes_channel()?;
    let rendezvous = IpcSender::connect(name.to_owned())?;
    let message = RendezvousMessage::Channels {
        nonce,
        to_proc,
        to_main,
    };
    rendezvous.send(message).map_err(io_error)?;
    Ok(IpcPackets {
        sender,
        receiver,
        line: None,
    })
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
