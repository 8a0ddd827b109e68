//! A [`Transport`] over two rings of bytes in shared memory.
//!
//! # The frame
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | length, u32 LE | bytes of payload |
//! | 4..8 | kind, u32 LE | 1 *Part*: more of this message follows; 2 *Last*: the message is complete |
//! | 8..12 | sequence, u32 LE | frames sent before this one in this direction, wraps |
//! | 12.. | payload | of a message; only a Last may have none |
//!
//! A message is written into the free space of the ring, behind room for its header, and published
//! as one frame. Its reader decodes it where it lies, and gives the space back when it uses the
//! link again. Only a message that outgrows the free space takes a detour through a buffer, and
//! streams through the ring in parts.
//!
//! **No deadlock.** A process that waits for room gives back what it holds and takes in what
//! arrives. So two processes that both send more than a ring holds both go on; and a process waits
//! for room only while its peer computes.
//!
//! # Waiting
//!
//! In three steps, as [`Wait`] says: look again and again, look and yield the processor, sleep at
//! the bell of this link ([`protocol`](super::protocol)). Where other programs keep the processors
//! busy, it sleeps at once ([`crowd`](super::crowd)). Now and then both sides tell each other on
//! which processor they are. Who sleeps costs nothing, and who publishes makes a system call only
//! if a thread sleeps there.
//!
//! # Death
//!
//! The peer's process may end at any instruction. A child learns of it from its control line, which
//! ends it; main from the thread that waits for the child's exit, through a [`DeathNotice`]. What a
//! child published before it died is received first.

use std::collections::VecDeque;
use std::hint;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::crowd;
use super::protocol::{self, FalseIndex};
use super::sys::{Bells, Consumer, Ends, Producer};
use crate::error::link::{FrameFault, LinkError};
use crate::links::frame::MESSAGE_LIMIT;
use crate::links::transport::{Draft, DraftBuffer, Transport, Wait, now};

/// Bytes of a frame's header.
const HEADER: usize = 12;

/// Bytes of a malformed frame that its error shows.
const SHOWN: usize = 16;

/// Bytes that a processor fetches at once.
const LINE: usize = 64;

/// Bytes of a message that are fetched before any is read: all of a short one. Those of a long one
/// come by themselves, as it is read from one end to the other.
const NEAR: usize = 512;

/// Bytes that have their pages before a message is begun: most need no more.
const AHEAD: usize = 32 * 1024;

/// How many looks there are between two looks at the clock.
const LOOKS: u32 = 64;

/// How many yields there are between two looks at the exact clock.
const YIELDS: u32 = 8;

/// How many frames there are between two looks at who is on which processor: that changes rarely.
const OFTEN: u32 = 64;

const PART: u32 = 1;
const LAST: u32 = 2;

/// One end of a link in shared memory.
#[derive(Debug)]
pub(crate) struct RingLink {
    ends: Ends,
    wait: Wait,
    /// Set by the thread that learns that the peer's process is gone.
    peer_died: Arc<AtomicBool>,
    /// Frames, modulo 2³².
    sent: u32,
    received: u32,
    /// Bytes of the frame that is being read where it lies.
    held: usize,
    /// The message that is being written: in the free space, or in a buffer if it does not fit
    /// there.
    draft_buffer: DraftBuffer,
    /// The message last received, if it came in parts or early.
    message: Vec<u8>,
    /// Whole messages that arrived while we waited for room.
    early: VecDeque<Vec<u8>>,
    /// The beginning of the message after those.
    begun: Vec<u8>,
    message_limit: usize,
    /// The peer was on another processor than ours at the last look.
    is_peer_elsewhere: bool,
    /// Set by a malformed frame: what would follow cannot be trusted.
    refused: bool,
}

/// Tells a link that its peer's process is gone, also while it sleeps.
#[derive(Debug)]
pub(crate) struct DeathNotice {
    bells: Bells,
    peer_died: Arc<AtomicBool>,
}

impl DeathNotice {
    /// Tells it.
    pub(crate) fn post(&self) {
        self.peer_died.store(true, Ordering::SeqCst);
        protocol::sound(self.bells.own());
    }
}

/// What was found at the beginning of the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    length: usize,
    is_last: bool,
}

/// Reads and judges the header of the frame that is to be number `received`.
fn judge(bytes: &[u8], received: u32) -> Result<Frame, FrameFault> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(FrameFault::TooShort);
    };
    let [l0, l1, l2, l3, k0, k1, k2, k3, s0, s1, s2, s3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let is_last = match u32::from_le_bytes([k0, k1, k2, k3]) {
        PART => false,
        LAST => true,
        _ => return Err(FrameFault::UnknownKind),
    };
    if u32::from_le_bytes([s0, s1, s2, s3]) != received {
        return Err(FrameFault::OutOfOrder);
    }
    if length > rest.len() {
        return Err(FrameFault::Torn);
    }
    if length == 0 && !is_last {
        return Err(FrameFault::EmptyPart);
    }
    Ok(Frame { length, is_last })
}

/// Has the processor fetch bytes that another one has written. To ask for all lines at once takes
/// about as long as to wait for the first of those that a message refers to in turn: its header,
/// the length of its note, the note, the mail.
#[inline]
fn fetch(bytes: &[u8]) {
    let each = bytes.iter().step_by(LINE);
    hint::black_box(each.fold(0, |all, byte| all ^ byte));
}

#[cfg(any(test, feature = "dev"))]
/// How many good frames these bytes begin with, were they what has been published of a ring.
pub(crate) fn well_formed(mut bytes: &[u8]) -> usize {
    let mut received = 0;
    while let Ok(frame) = judge(bytes, received) {
        received += 1;
        bytes = &bytes[HEADER + frame.length..];
    }
    received as usize
}

fn header(length: usize, is_last: bool, sent: u32) -> [u8; HEADER] {
    // A frame is no longer than a ring, and a ring shorter than 2³¹ bytes.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let kind = if is_last { LAST } else { PART };
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sent.to_le_bytes());
    header
}

impl RingLink {
    /// Starts a link over fresh memory.
    pub(crate) fn new(ends: Ends, wait: Wait) -> Self {
        Self {
            ends,
            wait,
            peer_died: Arc::default(),
            sent: 0,
            received: 0,
            held: 0,
            draft_buffer: DraftBuffer::default(),
            message: Vec::new(),
            early: VecDeque::new(),
            begun: Vec::new(),
            message_limit: MESSAGE_LIMIT,
            is_peer_elsewhere: false,
            refused: false,
        }
    }

    /// For the thread that watches the peer's process.
    pub(crate) fn death_notice(&self) -> DeathNotice {
        DeathNotice {
            bells: self.ends.bells.clone(),
            peer_died: Arc::clone(&self.peer_died),
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        if self.refused {
            return Err(LinkError::Disconnected);
        }
        Ok(())
    }

    fn refuse(&mut self, reason: FrameFault) -> LinkError {
        self.refused = true;
        let bytes = self.ends.consumer.bytes();
        LinkError::BadFrame {
            reason,
            received: self.received,
            head: bytes[..bytes.len().min(SHOWN)].to_vec(),
        }
    }

    /// Gives back the frame that was read where it lies.
    fn let_go(&mut self) {
        if self.held > 0 {
            self.ends.consumer.release(mem::take(&mut self.held));
        }
    }

    fn is_peer_gone(&self) -> bool {
        self.peer_died.load(Ordering::SeqCst) || self.ends.bells.is_closed_by_peer()
    }

    /// Waits until something is ready. Disconnected if it is not and the peer is gone, in this
    /// order: what the peer did last counts.
    fn wait_for<T>(
        &mut self,
        spin: Duration,
        mut look: impl FnMut(&mut Ends) -> Result<Option<T>, FalseIndex>,
    ) -> Result<T, LinkError> {
        if let Some(found) = self.look(&mut look)? {
            return Ok(found);
        }
        let yielding = self.wait.yielding;
        let (spin, yielding) = match self.wait.crowd {
            Some(crowd) if crowd::is_resting(crowd) => (Duration::ZERO, Duration::ZERO),
            _ => (spin, yielding),
        };
        // Most messages are there before the first look at the clock, which costs as much as many
        // at the ring.
        let mut begin = None;
        let mut spent = || begin.get_or_insert_with(now).elapsed();
        if !spin.is_zero() {
            loop {
                for _ in 0..LOOKS {
                    if let Some(found) = self.look(&mut look)? {
                        return Ok(found);
                    }
                    hint::spin_loop();
                }
                let spent = spent();
                if spent >= spin {
                    if self.wait.crowd.is_some() {
                        crowd::note(spent - spin);
                    }
                    break;
                }
            }
        }
        if !yielding.is_zero() {
            for yields in 1_u32.. {
                let is_doubtful = match self.wait.crowd {
                    Some(_) => crowd::yield_now(),
                    None => {
                        thread::yield_now();
                        false
                    }
                };
                if let Some(found) = self.look(&mut look)? {
                    return Ok(found);
                }
                let is_over = yields.is_multiple_of(YIELDS) && spent() >= spin + yielding;
                if is_over || is_doubtful && self.wait.crowd.is_some_and(crowd::is_resting) {
                    break;
                }
            }
        }
        loop {
            protocol::lie_down(self.ends.bells.own());
            let found = self.look(&mut look);
            if !matches!(found, Ok(None)) {
                protocol::stay_awake(self.ends.bells.own());
            }
            if let Some(found) = found? {
                return Ok(found);
            }
            protocol::sleep(self.ends.bells.own());
        }
    }

    /// Looks once, and if there is nothing, whether there ever will be.
    #[inline]
    fn look<T>(
        &mut self,
        look: &mut impl FnMut(&mut Ends) -> Result<Option<T>, FalseIndex>,
    ) -> Result<Option<T>, LinkError> {
        // Before the look: a peer that is gone has stored all it ever will.
        let is_gone = self.is_peer_gone();
        match look(&mut self.ends) {
            Ok(None) if is_gone => Err(LinkError::Disconnected),
            Ok(found) => Ok(found),
            Err(FalseIndex) => Err(self.refuse(FrameFault::FalseIndex)),
        }
    }

    /// Judges the frame that comes next. Call when there are bytes.
    fn arrived(&mut self) -> Result<Frame, LinkError> {
        let bytes = self.ends.consumer.bytes();
        fetch(&bytes[..bytes.len().min(NEAR)]);
        let judged = judge(bytes, self.received).and_then(|frame| {
            if self.begun.len() + frame.length > self.message_limit {
                return Err(FrameFault::MessageTooLarge);
            }
            Ok(frame)
        });
        match judged {
            Ok(frame) => {
                self.received = self.received.wrapping_add(1);
                if self.received.is_multiple_of(OFTEN) {
                    self.is_peer_elsewhere = self.ends.bells.compare_processors();
                }
                Ok(frame)
            }
            Err(reason) => Err(self.refuse(reason)),
        }
    }

    /// Puts a frame behind the beginning of its message and gives its space back.
    fn take_in(&mut self, frame: Frame) {
        let end = HEADER + frame.length;
        self.begun
            .extend_from_slice(&self.ends.consumer.bytes()[HEADER..end]);
        self.ends.consumer.release(end);
        protocol::ring(self.ends.bells.peers());
    }

    /// Waits for room for this number of bytes, and takes in what arrives meanwhile.
    fn make_room(&mut self, bytes: usize) -> Result<(), LinkError> {
        enum News {
            Room,
            Mail,
        }
        self.let_go();
        protocol::ring(self.ends.bells.peers());
        loop {
            let news = self.wait_for(self.wait.spin, |ends| {
                if ends.producer.look()? >= bytes {
                    return Ok(Some(News::Room));
                }
                Ok((ends.consumer.look()? > 0).then_some(News::Mail))
            })?;
            match news {
                News::Room => return Ok(()),
                News::Mail => {
                    let frame = self.arrived()?;
                    self.take_in(frame);
                    if frame.is_last {
                        self.early.push_back(mem::take(&mut self.begun));
                    }
                }
            }
        }
    }

    /// Publishes a frame whose payload is in its place.
    fn publish(&mut self, length: usize, is_last: bool) {
        let header = header(length, is_last, self.sent);
        self.ends.producer.space()[..HEADER].copy_from_slice(&header);
        self.sent = self.sent.wrapping_add(1);
        self.ends.producer.publish(HEADER + length);
    }

    /// Looks how much room there is. More than before comes behind it, so what is written of a
    /// message stays where it is.
    fn look_for_space(&mut self) -> Result<(), LinkError> {
        // The peer's index is with its processor: fetching it takes longer than all else here.
        if self.ends.producer.free() >= self.ends.capacity() / 4 * 3 {
            return Ok(self.ends.producer.back(AHEAD)?);
        }
        match self.ends.producer.look() {
            Ok(_) => Ok(self.ends.producer.back(AHEAD)?),
            Err(FalseIndex) => Err(self.refuse(FrameFault::FalseIndex)),
        }
    }

    fn send_draft_buffer(&mut self, draft_buffer: &DraftBuffer) -> Result<(), LinkError> {
        self.check()?;
        let (length, limit) = (draft_buffer.len(), self.message_limit);
        if length > limit {
            return Err(LinkError::TooLarge { length, limit });
        }
        if self.is_peer_gone() {
            return Err(LinkError::Disconnected);
        }
        if let Some(message) = draft_buffer.spilled() {
            // The next one may be as long, and is to find room.
            let capacity = self.ends.capacity();
            self.ends.producer.back(capacity)?;
            return self.stream(message, capacity);
        }
        // Space is given back first, so that the peer finds it for its answer, and one ring of the
        // bell tells of both.
        self.let_go();
        self.publish(length, true);
        protocol::ring(self.ends.bells.peers());
        Ok(())
    }

    /// Waits for the next message: a frame that is held, or in `message`.
    fn receive(&mut self, spin: Duration) -> Result<(), LinkError> {
        self.check()?;
        if self.held > 0 {
            self.let_go();
            protocol::ring(self.ends.bells.peers());
        }
        if let Some(message) = self.early.pop_front() {
            self.message = message;
            return Ok(());
        }
        loop {
            self.wait_for(spin, |ends| Ok((ends.consumer.look()? > 0).then_some(())))?;
            let frame = self.arrived()?;
            if frame.is_last && self.begun.is_empty() {
                self.held = HEADER + frame.length;
                return Ok(());
            }
            self.take_in(frame);
            if frame.is_last {
                mem::swap(&mut self.message, &mut self.begun);
                self.begun.clear();
                return Ok(());
            }
        }
    }

    /// Sends in parts what did not fit.
    fn stream(&mut self, mut rest: &[u8], capacity: usize) -> Result<(), LinkError> {
        loop {
            // Half a ring at a time: the peer empties one half while we fill the other.
            let length = rest.len().min(capacity / 2 - HEADER);
            self.make_room(HEADER + length)?;
            let (payload, after) = rest.split_at(length);
            self.ends.producer.space()[HEADER..HEADER + length].copy_from_slice(payload);
            self.publish(length, after.is_empty());
            protocol::ring(self.ends.bells.peers());
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }
}

/// Where the payload of the next frame goes.
fn free(producer: &mut Producer) -> &mut [u8] {
    producer.space().get_mut(HEADER..).unwrap_or_default()
}

/// The message last received: the payload of the frame that is held, if one is.
fn received<'a>(consumer: &'a Consumer, held: usize, message: &'a [u8]) -> &'a [u8] {
    match held {
        0 => message,
        end => &consumer.bytes()[HEADER..end],
    }
}

impl Transport for RingLink {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        self.check()?;
        self.look_for_space()?;
        Ok(Draft::within(
            free(&mut self.ends.producer),
            &mut self.draft_buffer,
        ))
    }

    fn salvage(&mut self) -> Vec<u8> {
        // Without a look at what the peer says of it.
        let space = free(&mut self.ends.producer);
        Draft::within(space, &mut self.draft_buffer)
            .bytes()
            .to_vec()
    }

    fn send(&mut self) -> Result<(), LinkError> {
        let mut draft_buffer = mem::take(&mut self.draft_buffer);
        let sent = self.send_draft_buffer(&draft_buffer);
        draft_buffer.clear();
        self.draft_buffer = draft_buffer;
        sent
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        self.receive(self.wait.spin)?;
        Ok(received(&self.ends.consumer, self.held, &self.message))
    }

    fn recv_last(&mut self) -> Result<&[u8], LinkError> {
        let Wait { spin, glance, .. } = self.wait;
        let is_elsewhere = glance > spin && self.is_peer_elsewhere;
        self.receive(if is_elsewhere { glance } else { spin })?;
        Ok(received(&self.ends.consumer, self.held, &self.message))
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        self.receive(self.wait.spin)?;
        self.look_for_space()?;
        let Self {
            ends,
            draft_buffer,
            held,
            message,
            ..
        } = self;
        let Ends {
            producer, consumer, ..
        } = ends;
        let message = received(consumer, *held, message);
        Ok((message, Draft::within(free(producer), draft_buffer)))
    }

    fn wait_as(&mut self, wait: Wait) {
        self.wait = wait;
    }
}

impl Drop for RingLink {
    fn drop(&mut self) {
        self.ends.bells.close();
        protocol::ring(self.ends.bells.peers());
    }
}

#[cfg(test)]
mod tests;
