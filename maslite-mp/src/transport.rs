//! What the kernel asks of a link: whole messages, in order, each way.
//!
//! **Invariant:** nothing above this trait knows frames, credits, shared memory or ipc-channel types.
//!
//! A message is written into a [`Draft`], which lies where the link wants it, and read where it arrived. Between processes that is
//! [`RingLink`](crate::ring::RingLink), where both are in shared memory, or [`Framed`](crate::frame::Framed) over ipc-channel.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

/// One end of a link: whole messages of any length, in order, each way.
pub(crate) trait Transport: Send {
    /// Begins a message. Nothing is sent of it unless [`send`](Self::send) follows.
    fn draft(&mut self) -> Result<Draft<'_>, LinkError>;

    /// Hands the message written last to the peer. Blocks only while the peer has not yet received earlier parts, and takes in
    /// meanwhile what the peer sends.
    fn send(&mut self, written: Written) -> Result<(), LinkError>;

    /// Waits for the next message. It is there until the link is used again.
    fn recv(&mut self) -> Result<&[u8], LinkError>;

    /// Sends a message that is there already.
    fn say(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let mut draft = self.draft()?;
        draft.extend(message);
        let written = draft.done();
        self.send(written)
    }

    #[cfg(test)]
    fn hear(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
        into.clear();
        into.extend_from_slice(self.recv()?);
        Ok(())
    }

    /// Sets how `recv` waits.
    fn wait_as(&mut self, wait: Wait) {
        let _ = wait;
    }
}

/// How a link waits for its peer: it looks again and again, then looks and lets others run, then sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wait {
    /// How long to look. Worth it only while cores are free.
    pub(crate) spin: Duration,
    /// How long after that to yield the processor between two looks.
    pub(crate) yielding: Duration,
}

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// Where it is to be, as long as it fits.
    space: &'a mut [u8],
    used: usize,
    /// Where it is otherwise, all of it.
    spill: &'a mut Vec<u8>,
    spilled: bool,
}

/// A message has been written: what a link must know of it to send it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Written {
    pub(crate) length: usize,
    /// It outgrew its space and is in the buffer beside it.
    pub(crate) spilled: bool,
}

impl<'a> Draft<'a> {
    /// A message in `space`, or in `spill` if it does not fit.
    pub(crate) fn within(space: &'a mut [u8], spill: &'a mut Vec<u8>) -> Self {
        spill.clear();
        Self {
            space,
            used: 0,
            spill,
            spilled: false,
        }
    }

    /// A message in a buffer.
    pub(crate) fn in_buffer(buffer: &'a mut Vec<u8>) -> Self {
        let mut draft = Self::within(&mut [], buffer);
        draft.spilled = true;
        draft
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if !self.spilled {
            let end = self.used + bytes.len();
            if let Some(place) = self.space.get_mut(self.used..end) {
                place.copy_from_slice(bytes);
                self.used = end;
                return;
            }
            self.spill.extend_from_slice(&self.space[..self.used]);
            self.spilled = true;
        }
        self.spill.extend_from_slice(bytes);
    }

    /// Appends the encoding of a value.
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> postcard::Result<()> {
        postcard::serialize_with_flavor(value, InPlace(self))
    }

    /// Begins again.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.spill.clear();
        self.spilled = self.space.is_empty();
    }

    /// Ends it.
    pub(crate) fn done(self) -> Written {
        let length = if self.spilled {
            self.spill.len()
        } else {
            self.used
        };
        Written {
            length,
            spilled: self.spilled,
        }
    }
}

/// Lets postcard write into a draft.
struct InPlace<'d, 'a>(&'d mut Draft<'a>);

impl Flavor for InPlace<'_, '_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.extend(&[byte]);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed its end or its process is gone. What it had sent before has been delivered.
    #[error("the peer closed the link or its process is gone")]
    Disconnected,
    /// The peer sent what no peer of this version sends. The link is unusable from here on.
    #[error(
        "malformed frame after {received} good ones (reason {}: {reason}), it begins {}; the peer's memory is corrupt or it runs another version",
        *.reason as u8,
        Hex(.head)
    )]
    BadFrame {
        /// What is wrong with it.
        reason: FrameFault,
        /// How many data frames had been received before it, modulo 2^32: the sequence number it should have had.
        received: u32,
        /// Its first bytes, at most 16.
        head: Vec<u8>,
    },
    /// The message is longer than a link carries. Nothing was sent; the link can still be used.
    #[error("a message of {length} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes in the message.
        length: usize,
        /// Bytes a message may have.
        limit: usize,
    },
    /// The operating system refused. The link is unusable from here on.
    #[error("the link failed")]
    Io(#[from] io::Error),
}

/// The ways in which a frame can be malformed. The numbers are stable, so that a report can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum FrameFault {
    /// Shorter than a header.
    #[error("shorter than a header")]
    TooShort = 1,
    /// Longer than a frame may be.
    #[error("longer than a frame may be")]
    TooLong = 2,
    /// The kind byte names no kind.
    #[error("unknown kind")]
    UnknownKind = 3,
    /// A frame was lost, repeated or overtaken.
    #[error("sequence number out of order")]
    OutOfOrder = 4,
    /// It acknowledges frames that were never sent, or takes an acknowledgement back.
    #[error("acknowledges what was never sent")]
    FalseAck = 5,
    /// More frames are under way than the window allows.
    #[error("overruns the window")]
    WindowOverrun = 6,
    /// The beginning or middle of a message without any bytes.
    #[error("part of a message without bytes")]
    EmptyPart = 7,
    /// A credit with bytes behind its header.
    #[error("credit with a payload")]
    CreditWithPayload = 8,
    /// A credit that acknowledges nothing new.
    #[error("credit for nothing")]
    EmptyCredit = 9,
    /// The message being assembled exceeds the limit.
    #[error("message over the limit")]
    MessageTooLarge = 10,
    /// It is longer than what was published of it.
    #[error("longer than what was published")]
    Torn = 11,
    /// The peer claims to have read or written more than it can have.
    #[error("an index of the ring that cannot be")]
    FalseIndex = 12,
    /// It is not what was sent.
    #[error("wrong checksum")]
    Checksum = 13,
}

/// Bytes as a reader of an error wants them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("with nothing");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The wall clock, for deadlines and bounded waits of the process layer; simulated time never comes from here.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the process layer reads the wall clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
