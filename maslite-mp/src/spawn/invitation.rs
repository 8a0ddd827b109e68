//! The first thing that main tells a child, through its stdin: who it is, and where to knock.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use super::error::ChildError;

/// How the invitation is sent and taken. Files come with it on Linux alone.
#[cfg(target_os = "linux")]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// What main tells a child through its stdin: the protocol's number (u32) and a length (u16), little endian, then this in postcard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub(super) cluster: u32,
    pub(super) nonce: [u8; 16],
    /// Where to knock.
    pub(super) door: String,
    /// Whether shared memory comes with it.
    pub(super) ring: bool,
}

impl Invitation {
    /// Writes all at once: it fits into the socket, so this does not wait for the child.
    pub(super) fn write(&self, control: &UnixStream, memory: Option<&OwnedFd>) -> io::Result<()> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u16::try_from(body.len()).map_err(io::Error::other)?;
        let mut bytes = PROTOCOL.to_le_bytes().to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        let files: Vec<_> = memory.into_iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut enclosed = SendAncillaryBuffer::new(&mut room);
        if !files.is_empty() {
            enclosed.push(SendAncillaryMessage::ScmRights(&files));
        }
        let sent =
            rustix::net::sendmsg(control, &[IoSlice::new(&bytes)], &mut enclosed, NO_SIGNAL)?;
        (&mut &*control).write_all(&bytes[sent..])
    }

    /// Reads it, and nothing of what follows, and takes the memory that comes with it.
    pub(super) fn read(mut control: &UnixStream) -> Result<(Self, Option<OwnedFd>), ChildError> {
        let mut head = [0; 6];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut enclosed = RecvAncillaryBuffer::new(&mut room);
        // The file comes with the first byte.
        let received = rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut head)],
            &mut enclosed,
            CLOSE_ON_EXEC,
        )
        .map_err(io::Error::from)?;
        let memory = enclosed
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                _ => None,
            })
            .next();
        control.read_exact(&mut head[received.bytes..])?;
        let [p0, p1, p2, p3, l0, l1] = head;
        let protocol = u32::from_le_bytes([p0, p1, p2, p3]);
        if protocol != PROTOCOL {
            return Err(ChildError::Protocol { theirs: protocol });
        }
        let mut body = vec![0; usize::from(u16::from_le_bytes([l0, l1]))];
        control.read_exact(&mut body)?;
        let invitation = postcard::from_bytes(&body)
            .map_err(|error| ChildError::Init(io::Error::other(error)))?;
        Ok((invitation, memory))
    }
}
