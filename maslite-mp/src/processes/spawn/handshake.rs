//! What main and a child say to each other through its stdin before anything else.
//!
//! | from | what | |
//! |---|---|---|
//! | main | [`Invitation`] | who the child is; shared memory, if there is any, comes with it |
//! | child | [`Hello`] | that it is the right one, and whether it has mapped the memory |
//! | main | [`Summons`] | where to knock, if the link is to be a channel |
//!
//! An invitation begins with the protocol's number (u32, little endian), so that it is understood that it is not. Each message is a length
//! (u16, little endian), then itself in postcard. All are short: writing one does not wait for who reads it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::id;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use crate::error::spawn::ChildError;
use crate::links::codec;

/// How the invitation is sent and taken. Files come with it on Linux alone.
#[cfg(target_os = "linux")]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// What main tells a child first.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    pub(crate) cluster: u32,
    /// Random, to be repeated.
    pub(crate) nonce: [u8; 16],
    /// Whether shared memory comes with it.
    pub(crate) ring: bool,
}

/// What a child says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Proves that the child read the invitation meant for it.
    pub(crate) nonce: [u8; 16],
    pub(crate) protocol: u32,
    /// Of the crate.
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) cluster: u32,
    /// Whatever both sides must agree on beyond the protocol, as the caller's hash.
    pub(crate) schema: u64,
    /// Why the child cannot use the ring it was offered, if it was offered one and cannot.
    pub(crate) no_ring: Option<String>,
}

/// Where a child is to hand over its channels.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summons {
    pub(crate) door: String,
}

impl Invitation {
    /// Writes all at once: it fits into the socket, so this does not wait for the child.
    pub(crate) fn write(&self, control: &UnixStream, memory: Option<&OwnedFd>) -> io::Result<()> {
        let mut bytes = PROTOCOL.to_le_bytes().to_vec();
        bytes.extend(framed(self)?);
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
    pub(crate) fn read(mut control: &UnixStream) -> Result<(Self, Option<OwnedFd>), ChildError> {
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
        let invitation = read_body(control, [l0, l1])?;
        Ok((invitation, memory))
    }
}

impl Hello {
    /// Of this process, with an invitation and what came of its ring.
    pub(crate) fn new(invitation: &Invitation, schema: u64, no_ring: Option<String>) -> Self {
        Self {
            nonce: invitation.nonce,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: id(),
            cluster: invitation.cluster,
            schema,
            no_ring,
        }
    }

    pub(crate) fn write(&self, mut control: &UnixStream) -> io::Result<()> {
        control.write_all(&framed(self)?)
    }

    /// Takes in what has come of it, and returns it once it is whole. Does not wait.
    pub(crate) fn take(control: &UnixStream, come: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut bytes = [0; 512];
        loop {
            let received = rustix::net::recv(control, &mut bytes, RecvFlags::DONTWAIT);
            match received {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((received, _)) => come.extend_from_slice(&bytes[..received]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some((length, body)) = come.split_first_chunk()
                && body.len() >= usize::from(u16::from_le_bytes(*length))
            {
                // More than that is not a Hello either.
                return decode(body).map(Some);
            }
        }
    }
}

impl Summons {
    pub(crate) fn write(&self, mut control: &UnixStream) -> io::Result<()> {
        control.write_all(&framed(self)?)
    }

    pub(crate) fn read(mut control: &UnixStream) -> io::Result<Self> {
        let mut length = [0; 2];
        control.read_exact(&mut length)?;
        read_body(control, length)
    }
}

/// A message with its length before it.
fn framed<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn read_body<T: DeserializeOwned>(mut control: &UnixStream, length: [u8; 2]) -> io::Result<T> {
    let mut body = vec![0; usize::from(u16::from_le_bytes(length))];
    control.read_exact(&mut body)?;
    decode(&body)
}

/// Decodes a message that is all there is.
fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    codec::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
