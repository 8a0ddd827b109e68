//! What main and a child say to each other through its stdin before anything else.
//!
//! | from | what | |
//! |---|---|---|
//! | main | [`Invitation`] | who the child is, and a link for it; what the child needs for that comes with it |
//! | child | [`Word::Passed`] | that it has passed an `enter` that was not meant |
//! | child | [`Word::Hello`] | that it is the right one, and whether it has accepted the link |
//! | child | [`Word::Changed`], [`Word::Failed`] | why it cannot say Hello |
//! | main | [`NextOffer`] | if it has not: another kind of link, with what the child needs for it |
//! | child | [`Word::Answer`] | whether it has accepted that |
//!
//! An invitation begins with the protocol's number (u32, little endian), so that it is understood
//! that it is not. Each message of main is a length (u16, little endian), then itself in postcard.
//! They are short: writing one does not wait for the child to read it. The length of what a child
//! says is a u32.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::id;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use super::entry::{Meant, Point, Signature};
use crate::error::spawn::ChildError;
use crate::links::codec;
use crate::links::kinds::KindNumber;

/// How the invitation is sent and taken. Files come with it on Linux alone.
#[cfg(target_os = "linux")]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::empty();
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
    /// The kind of link that is offered with it.
    pub(crate) kind: KindNumber,
    /// Where in its source main called the `enter` that is meant.
    pub(crate) place: String,
    /// The number of that call among those from there.
    pub(crate) call: u32,
    /// The hash of the registry that is meant.
    pub(crate) schema: u64,
    /// The child is a test harness, in which any `enter` of that registry is the right one.
    pub(crate) by_test: bool,
    /// Where main stands, as the bytes of a path, if the child was started elsewhere.
    pub(crate) directory: Option<Vec<u8>>,
}

impl Invitation {
    /// Whether a child with this invitation becomes a cluster at a call of `enter`.
    pub(super) fn is_for(&self, point: &Point) -> Meant {
        let is_alike = point.signature.hash() == self.schema;
        let is_there = (point.place.as_str(), point.call) == (&*self.place, self.call);
        if is_alike && (self.by_test || !point.signature.has_captures || is_there) {
            Meant::Here
        } else if is_there && !self.by_test {
            Meant::HereButChanged
        } else {
            Meant::Elsewhere
        }
    }
}

/// What a child says before it is a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It has reached the `enter` that is meant.
    Hello(Hello),
    /// It has accepted the link of a [`NextOffer`], or why it has not.
    Answer(Option<String>),
    /// It has passed another `enter`, which is at this place and enters this registry.
    Passed(String, Signature),
    /// It has reached the `enter` that is meant, and the registry is this one.
    Changed(Signature),
    /// Something went wrong, and it ends.
    Failed(String),
}

/// The longest thing that a child says \[bytes\].
const LONGEST: u32 = 1 << 20;

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
    /// Why the child has not accepted the link of the invitation, if it has not.
    pub(crate) refusal: Option<String>,
}

/// Offers a child another kind of link. What the child needs for it comes with the offer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextOffer(pub(crate) KindNumber);

impl Invitation {
    /// Writes all at once: it fits into the socket, so this does not wait for the child.
    pub(crate) fn write(&self, control: &UnixStream, sent: Option<&OwnedFd>) -> io::Result<()> {
        let mut bytes = PROTOCOL.to_le_bytes().to_vec();
        bytes.extend(framed(self)?);
        send_with(control, &bytes, sent.map(AsFd::as_fd))
    }

    /// Reads it, and nothing of what follows, and takes what comes with it for the link.
    pub(crate) fn read(control: &UnixStream) -> Result<(Self, Option<OwnedFd>), ChildError> {
        let mut head = [0; 6];
        let sent = receive_with(control, &mut head).map_err(unread)?;
        let [p0, p1, p2, p3, l0, l1] = head;
        let protocol = u32::from_le_bytes([p0, p1, p2, p3]);
        if protocol != PROTOCOL {
            return Err(ChildError::Protocol { theirs: protocol });
        }
        let invitation = read_body(control, [l0, l1]).map_err(unread)?;
        Ok((invitation, sent))
    }
}

impl Hello {
    /// Of this process, with an invitation and why it has not accepted its link, if it has not.
    pub(crate) fn new(invitation: &Invitation, schema: u64, refusal: Option<String>) -> Self {
        Self {
            nonce: invitation.nonce,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: id(),
            cluster: invitation.cluster,
            schema,
            refusal,
        }
    }
}

impl Word {
    pub(crate) fn write(&self, mut control: &UnixStream) -> io::Result<()> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        control.write_all(&[&length.to_le_bytes()[..], &body].concat())
    }

    /// Takes in what has come, and returns the next word once it is whole. Does not wait.
    pub(crate) fn take(control: &UnixStream, come: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut bytes = [0; 512];
        loop {
            if let Some(word) = Self::split_off(come)? {
                return Ok(Some(word));
            }
            match rustix::net::recv(control, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((received, _)) => come.extend_from_slice(&bytes[..received]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the first word off what has come, if it is whole.
    fn split_off(come: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((length, rest)) = come.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(body) = usize::try_from(length).ok().and_then(|end| rest.get(..end)) else {
            return Ok(None);
        };
        let (word, whole) = (decode(body)?, 4 + body.len());
        come.drain(..whole);
        Ok(Some(word))
    }
}

impl NextOffer {
    /// Writes it with what the child needs. Does not wait for the child.
    pub(crate) fn write(&self, control: &UnixStream, sent: BorrowedFd<'_>) -> io::Result<()> {
        send_with(control, &framed(self)?, Some(sent))
    }

    /// Reads it, and takes what comes with it. The system drops that without an error if this
    /// process may open no more files.
    pub(crate) fn read(control: &UnixStream) -> io::Result<(Self, Option<OwnedFd>)> {
        let mut length = [0; 2];
        let sent = receive_with(control, &mut length)?;
        let offer = read_body(control, length)?;
        Ok((offer, sent))
    }
}

/// Sends bytes, and with the first of them a file.
fn send_with(
    mut control: &UnixStream,
    bytes: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let files: Vec<_> = file.into_iter().collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut enclosed = SendAncillaryBuffer::new(&mut room);
    if !files.is_empty() {
        enclosed.push(SendAncillaryMessage::ScmRights(&files));
    }
    let slices = [IoSlice::new(bytes)];
    let sent = retry_on_intr(|| rustix::net::sendmsg(control, &slices, &mut enclosed, NO_SIGNAL))?;
    control.write_all(&bytes[sent..])
}

/// Fills `bytes`, and takes the file that comes with the first of them.
fn receive_with(mut control: &UnixStream, bytes: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut enclosed = RecvAncillaryBuffer::new(&mut room);
    let received = retry_on_intr(|| {
        let mut into = [IoSliceMut::new(bytes)];
        rustix::net::recvmsg(control, &mut into, &mut enclosed, CLOSE_ON_EXEC)
    })?;
    let files = enclosed.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let file = files.last();
    control.read_exact(&mut bytes[received.bytes..])?;
    Ok(file)
}

fn unread(error: io::Error) -> ChildError {
    ChildError::refused("the invitation of main cannot be read")(error)
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
