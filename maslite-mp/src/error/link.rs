//! Why a link to a cluster failed.

use std::{fmt, io};

/// Why a message could not be sent or received.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed its end, or its process is gone. Messages that it sent before have been
    /// delivered.
    #[error("the peer closed the link or its process is gone")]
    Disconnected,
    /// The peer sent a malformed frame. The link cannot be used any more.
    #[error(
        "malformed frame after {received} correct frames (reason {}: {reason}), first bytes {}; the memory of the peer is \
         corrupt, or it runs another version",
        *.reason as u8,
        Hex(.head)
    )]
    BadFrame {
        /// The reason why the frame is malformed.
        reason: FrameFault,
        /// The number of data frames received before it, modulo 2^32: the sequence number that it
        /// should have.
        received: u32,
        /// Its first bytes, at most 16.
        head: Vec<u8>,
    },
    /// The message is longer than the limit of a link. Nothing was sent, and the link can still be
    /// used.
    #[error(
        "a message of {length} bytes is over the limit of {limit} bytes: send smaller messages"
    )]
    TooLarge {
        /// Bytes in the message.
        length: usize,
        /// Bytes a message may have.
        limit: usize,
    },
    /// The operating system refused to send or receive. The link cannot be used any more.
    #[error("the operating system refused to send or receive")]
    Io(#[from] io::Error),
}

maslite_core::readable_debug!(enum LinkError {
    Disconnected,
    BadFrame { reason, received, head },
    TooLarge { length, limit },
    Io(source),
});

/// The ways in which a frame can be malformed. The numbers are stable, so that a report can be
/// looked up.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum FrameFault {
    /// The frame is shorter than a header.
    #[error("shorter than a header")]
    TooShort = 1,
    /// The frame is longer than allowed.
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
    /// A credit that acknowledges no new frame.
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
    /// The checksum is wrong: the frame is not as it was sent.
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

/// Shows bytes in hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
