//! Why a link to a cluster failed.

use std::{fmt, io};

/// Why a message could not be sent or received.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed its end or its process is gone. What it had sent before has been delivered.
    #[error("the peer closed the link or its process is gone")]
    Disconnected,
    /// The peer sent what no peer of this version sends. The link is unusable from here on.
    #[error(
        "malformed frame after {received} correct frames (reason {}: {reason}), first bytes {}; the memory of the peer is \
         corrupt, or it runs another version",
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
    #[error(
        "a message of {length} bytes is over the limit of {limit} bytes: send smaller messages"
    )]
    TooLarge {
        /// Bytes in the message.
        length: usize,
        /// Bytes a message may have.
        limit: usize,
    },
    /// The operating system refused. The link is unusable from here on.
    #[error("the operating system refused to send or receive")]
    Io(#[from] io::Error),
}

maslite_core::readable_debug!(enum LinkError {
    Disconnected,
    BadFrame { reason, received, head },
    TooLarge { length, limit },
    Io(source),
});

/// The ways in which a frame can be malformed. The numbers are stable, so that a report can be looked up.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    #[error("acknowledges frames that were never sent")]
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
    #[error("credit that acknowledges no new frame")]
    EmptyCredit = 9,
    /// The message being assembled exceeds the limit.
    #[error("message over the limit")]
    MessageTooLarge = 10,
    /// It is longer than its published bytes.
    #[error("longer than its published bytes")]
    Torn = 11,
    /// The peer claims to have read or written more than it can have.
    #[error("impossible index of the ring")]
    FalseIndex = 12,
    /// It is not what was sent.
    #[error("wrong checksum")]
    Checksum = 13,
}

maslite_core::readable_debug!(
    enum FrameFault {
        TooShort,
        TooLong,
        UnknownKind,
        OutOfOrder,
        FalseAck,
        WindowOverrun,
        EmptyPart,
        CreditWithPayload,
        EmptyCredit,
        MessageTooLarge,
        Torn,
        FalseIndex,
        Checksum,
    }
);

/// Bytes as a reader of an error wants them.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
