//! Messages of any length over a carrier of small packets, without ever blocking in the kernel.
//!
//! ipc-channel's `send` blocks once the peer's socket buffer is full, two peers that both send much
//! then wait for each other for ever, and packets above about 200 KB take a path with hazards of
//! its own. So a message is split into frames of at most 64 KiB, and few are ever under way.
//!
//! # The frame
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0 | kind | 1 *Part*: more of this message follows; 2 *Last*: the message is complete; 3 *Credit*: no payload |
//! | 1..5 | sequence, u32 LE | data frames (Part, Last) sent before this one in this direction |
//! | 5..9 | ack, u32 LE | data frames received so far in the other direction |
//! | 9..13 | checksum, u32 LE | CRC-32 (IEEE) of all other bytes, in their order |
//! | 13.. | payload | of a message; only a Last may have none |
//!
//! Both counters wrap. Every frame acknowledges, so that a round of one message each way is one
//! packet each way. Numbers find frames that were lost, repeated or overtaken; the checksum finds
//! those that are not what was sent.
//!
//! # The rule of credits
//!
//! 1. A sender keeps at most [`WINDOW`] = 2 data frames unacknowledged. With two under way it
//!    receives until one is acknowledged; data frames that arrive meanwhile are kept for `recv` and
//!    acknowledged like all others.
//! 2. A receiver answers a data frame with a Credit at once if it is a Part, or if [`WINDOW`]
//!    received frames are now unacknowledged. Otherwise the acknowledgement travels in its next
//!    data frame.
//!
//! **No deadlock.** A sender waits only with two frames unacknowledged. When the peer has received
//! both, either a frame it sent since or rule 2 has acknowledged at least one of them, and the
//! acknowledgement is on its way. The peer does receive them, because it receives in `recv` and
//! while it waits in `send`; so a sender waits only while its peer does neither: while it computes.
//! This holds for many messages in one direction without an answer, and for long messages in both
//! directions at once.
//!
//! **No send blocks in the kernel.** Unread in one direction are at most two data frames (rule 1)
//! and two Credits: each acknowledges something new, and the peer can have only two frames that it
//! has not seen acknowledged. Linux takes four packets of 64 KiB before it blocks.
//!
//! **Nothing malformed is believed.** Every frame that no peer of this version sends is refused
//! with a numbered [`FrameFault`], and the link is closed to further use.

use std::collections::VecDeque;
use std::hint;
use std::mem;

use crate::error::link::{FrameFault, LinkError};
use crate::links::transport::{Draft, DraftBuffer, Transport, Wait, now};

/// Data frames that may be under way, unacknowledged, in one direction.
const WINDOW: u32 = 2;

/// Where in a frame its checksum is, behind the numbers.
const CHECKSUM: usize = 9;

/// Bytes of a frame's header.
const HEADER: usize = CHECKSUM + 4;

/// Bytes of the longest frame, header included.
pub(crate) const FRAME_LIMIT: usize = 64 * 1024;

/// Bytes of the longest message a link carries, so that a corrupt peer ends in an error and not in
/// an exhausted memory.
pub(crate) const MESSAGE_LIMIT: usize = 1024 * 1024 * 1024;

/// Bytes of a malformed frame that its error shows.
const SHOWN: usize = 16;

/// Carries packets of up to [`FRAME_LIMIT`] bytes, whole and in order.
pub(crate) trait Packets: Send {
    /// Hands one packet over. Does not block as long as few packets are unread.
    fn send(&mut self, packet: &[u8]) -> Result<(), LinkError>;

    /// Waits for the next packet and puts it into `into`, replacing what was there.
    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError>;

    /// As `recv`, but returns false at once if no packet is there.
    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError>;
}

/// A [`Transport`] over packets: splits, assembles and counts. The module's documentation has the
/// protocol.
#[derive(Debug)]
pub(crate) struct Framed<P> {
    packets: P,
    window: Window,
    wait: Wait,
    /// Bytes of payload in the frames we send.
    payload_limit: usize,
    message_limit: usize,
    /// The message that is being written.
    draft: DraftBuffer,
    /// The frame being sent; kept for its memory.
    outgoing: Vec<u8>,
    /// The message last received.
    message: Vec<u8>,
    /// The packet last received; kept for its memory.
    incoming: Vec<u8>,
    /// Whole messages that arrived while we waited in `send`.
    early: VecDeque<Vec<u8>>,
    /// The beginning of the message after those.
    begun: Vec<u8>,
    /// Set by a malformed frame: what would follow cannot be trusted.
    refused: bool,
}

impl<P: Packets> Framed<P> {
    /// Starts a link over fresh `packets`. Frames are `frame_limit` bytes at most; the peer may use
    /// another limit.
    pub(crate) fn new(packets: P, frame_limit: usize, wait: Wait) -> Self {
        Self {
            packets,
            window: Window::default(),
            wait,
            payload_limit: frame_limit.clamp(HEADER + 1, FRAME_LIMIT) - HEADER,
            message_limit: MESSAGE_LIMIT,
            draft: DraftBuffer::default(),
            outgoing: Vec::new(),
            message: Vec::new(),
            incoming: Vec::new(),
            early: VecDeque::new(),
            begun: Vec::new(),
            refused: false,
        }
    }

    /// Receives one frame. Appends the payload of a data frame to `message` and returns true if
    /// that completes it.
    fn take(&mut self, message: &mut Vec<u8>) -> Result<bool, LinkError> {
        if self.refused {
            return Err(LinkError::Disconnected);
        }
        self.receive()?;
        let received = self.window.received;
        let frame = self.window.accept(&self.incoming).and_then(|frame| {
            if message.len() + frame.payload.len() > self.message_limit {
                return Err(FrameFault::MessageTooLarge);
            }
            Ok(frame)
        });
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => {
                self.refused = true;
                let head = self.incoming[..self.incoming.len().min(SHOWN)].to_vec();
                return Err(LinkError::BadFrame {
                    reason,
                    received,
                    head,
                });
            }
        };
        message.extend_from_slice(frame.payload);
        let kind = frame.kind;
        if self.window.owes_credit(kind) {
            self.write_frame(PacketKind::Credit, &[]);
            match self.packets.send(&self.outgoing) {
                // The peer left after its last words. They are good, and the next `recv` finds it
                // gone.
                Ok(()) | Err(LinkError::Disconnected) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kind == PacketKind::Last)
    }

    /// Puts the next packet into `self.incoming`.
    fn receive(&mut self) -> Result<(), LinkError> {
        if !self.wait.spin.is_zero() {
            let begin = now();
            while begin.elapsed() < self.wait.spin {
                if self.packets.try_recv(&mut self.incoming)? {
                    return Ok(());
                }
                hint::spin_loop();
            }
        }
        self.packets.recv(&mut self.incoming)
    }

    /// Waits in `send` until the window has room, keeping what arrives for `recv`.
    fn make_room(&mut self) -> Result<(), LinkError> {
        while self.window.is_full() {
            let mut begun = mem::take(&mut self.begun);
            let taken = self.take(&mut begun);
            match taken {
                Ok(true) => self.early.push_back(begun),
                Ok(false) | Err(_) => self.begun = begun,
            }
            taken?;
        }
        Ok(())
    }

    /// Puts a frame into `self.outgoing`. It counts as sent from here on.
    fn write_frame(&mut self, kind: PacketKind, payload: &[u8]) {
        let numbers = self.window.numbers(kind);
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&numbers);
        let checksum = checksum(&numbers, payload);
        self.outgoing.extend_from_slice(&checksum.to_le_bytes());
        self.outgoing.extend_from_slice(payload);
    }

    fn send_all(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if self.refused {
            return Err(LinkError::Disconnected);
        }
        if message.len() > self.message_limit {
            return Err(LinkError::TooLarge {
                length: message.len(),
                limit: self.message_limit,
            });
        }
        let mut rest = message;
        loop {
            self.make_room()?;
            let (payload, after) = rest.split_at(rest.len().min(self.payload_limit));
            let kind = if after.is_empty() {
                PacketKind::Last
            } else {
                PacketKind::Part
            };
            self.write_frame(kind, payload);
            self.packets.send(&self.outgoing)?;
            if kind == PacketKind::Last {
                return Ok(());
            }
            rest = after;
        }
    }
}

impl<P: Packets> Transport for Framed<P> {
    fn wait_as(&mut self, wait: Wait) {
        self.wait = wait;
    }

    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        Ok(Draft::in_buffer(&mut self.draft))
    }

    fn send(&mut self) -> Result<(), LinkError> {
        let draft = mem::take(&mut self.draft);
        let sent = self.send_all(draft.spilled().unwrap_or_default());
        self.draft = draft;
        self.draft.clear();
        sent
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        let mut message = mem::take(&mut self.message);
        if let Some(early) = self.early.pop_front() {
            message = early;
        } else {
            message.clear();
            mem::swap(&mut message, &mut self.begun);
            while !self.take(&mut message)? {}
        }
        self.message = message;
        Ok(&self.message)
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        self.recv()?;
        Ok((&self.message, Draft::in_buffer(&mut self.draft)))
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum PacketKind {
    Part = 1,
    Last = 2,
    Credit = 3,
}

/// A frame that was found to be well formed.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    kind: PacketKind,
    payload: &'a [u8],
}

/// What is in a frame so that its receiver can tell whether it is what was sent.
fn checksum(numbers: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(numbers);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(any(test, feature = "dev"))]
/// Puts the right checksum into a packet that is long enough for one, as a peer that lies well does
/// it.
pub(crate) fn sign(packet: &mut [u8]) {
    if let Some((header, payload)) = packet.split_first_chunk_mut::<HEADER>() {
        let sum = checksum(&header[..CHECKSUM], payload);
        header[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The counters of one end: writes the numbers of frames, judges frames. Pure; all counts are of
/// data frames and wrap.
#[derive(Clone, Debug, Default)]
struct Window {
    /// Sent by us.
    sent: u32,
    /// Of those, acknowledged by the peer.
    acknowledged: u32,
    /// Received by us.
    received: u32,
    /// Of those, acknowledged by us.
    credited: u32,
}

impl Window {
    /// Whether a data frame must wait for an acknowledgement.
    fn is_full(&self) -> bool {
        self.under_way() >= WINDOW
    }

    /// Our frames that the peer has not acknowledged.
    fn under_way(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }

    /// The peer's frames that we have not acknowledged.
    fn unacknowledged(&self) -> u32 {
        self.received.wrapping_sub(self.credited)
    }

    /// Whether rule 2 asks for a Credit after a frame of this kind.
    fn owes_credit(&self, received: PacketKind) -> bool {
        match received {
            PacketKind::Part => true,
            PacketKind::Last => self.unacknowledged() >= WINDOW,
            PacketKind::Credit => false,
        }
    }

    /// The numbers at the beginning of the next frame, which counts as sent from here on.
    fn numbers(&mut self, kind: PacketKind) -> [u8; CHECKSUM] {
        let mut numbers = [0; CHECKSUM];
        numbers[0] = kind as u8;
        numbers[1..5].copy_from_slice(&self.sent.to_le_bytes());
        numbers[5..9].copy_from_slice(&self.received.to_le_bytes());
        self.credited = self.received;
        if kind != PacketKind::Credit {
            self.sent = self.sent.wrapping_add(1);
        }
        numbers
    }

    /// Judges a packet and counts it. After a fault the counters are as before.
    fn accept<'a>(&mut self, packet: &'a [u8]) -> Result<Frame<'a>, FrameFault> {
        let Some((header, payload)) = packet.split_first_chunk::<HEADER>() else {
            return Err(FrameFault::TooShort);
        };
        if packet.len() > FRAME_LIMIT {
            return Err(FrameFault::TooLong);
        }
        let (numbers @ &[kind, s0, s1, s2, s3, a0, a1, a2, a3], sum) = header
            .split_first_chunk::<CHECKSUM>()
            .ok_or(FrameFault::TooShort)?;
        if checksum(numbers, payload).to_le_bytes() != *sum {
            return Err(FrameFault::Checksum);
        }
        let kind = match kind {
            1 => PacketKind::Part,
            2 => PacketKind::Last,
            3 => PacketKind::Credit,
            _ => return Err(FrameFault::UnknownKind),
        };
        if u32::from_le_bytes([s0, s1, s2, s3]) != self.received {
            return Err(FrameFault::OutOfOrder);
        }
        let ack = u32::from_le_bytes([a0, a1, a2, a3]);
        let newly_acknowledged = ack.wrapping_sub(self.acknowledged);
        if newly_acknowledged > self.under_way() {
            return Err(FrameFault::FalseAck);
        }
        match kind {
            PacketKind::Credit if !payload.is_empty() => return Err(FrameFault::CreditWithPayload),
            PacketKind::Credit if newly_acknowledged == 0 => return Err(FrameFault::EmptyCredit),
            PacketKind::Part if payload.is_empty() => return Err(FrameFault::EmptyPart),
            PacketKind::Part | PacketKind::Last if self.unacknowledged() >= WINDOW => {
                return Err(FrameFault::WindowOverrun);
            }
            PacketKind::Part | PacketKind::Last => self.received = self.received.wrapping_add(1),
            PacketKind::Credit => {}
        }
        self.acknowledged = ack;
        Ok(Frame { kind, payload })
    }
}

#[cfg(test)]
mod tests;
