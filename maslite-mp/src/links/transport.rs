//! What the kernel asks of a link: whole messages, in order, each way.
//!
//! **Invariant:** nothing above this trait knows frames, credits, shared memory or ipc-channel
//! types.
//!
//! A message is written into a [`Draft`], which lies where the link wants it, and read where it
//! arrived. Between processes that is [`RingLink`](crate::links::ring::RingLink), where both are in
//! shared memory, or [`Framed`](crate::links::frame::Framed) over ipc-channel.
//!
//! A link keeps what is written of its next message until that is sent, so a message can be written
//! little by little, while other links are used and messages arrive.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::link::LinkError;
use crate::links::codec;

/// One end of a link: whole messages of any length, in order, each way.
pub(crate) trait Transport: Send {
    /// The message that is sent next, as far as it is written. Nothing is sent of it unless
    /// [`send`](Self::send) follows.
    fn draft(&mut self) -> Result<Draft<'_>, LinkError>;

    /// Hands the message that is written to the peer; the next one begins empty. Blocks only while
    /// the peer has not yet received earlier parts, and takes in meanwhile what the peer sends.
    fn send(&mut self) -> Result<(), LinkError>;

    /// Waits for the next message. It is there until something is sent or received.
    fn recv(&mut self) -> Result<&[u8], LinkError>;

    /// The same from the last peer that has anything to do before we go on.
    fn recv_last(&mut self) -> Result<&[u8], LinkError> {
        self.recv()
    }

    /// Waits for the next message, together with the draft of the answer: so it can be written
    /// while the question is still read.
    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError>;

    /// What is written of the next message, also if the link is broken.
    fn salvage(&mut self) -> Vec<u8> {
        let draft = self.draft();
        draft.map_or_else(|_| Vec::new(), |mut draft| draft.bytes().to_vec())
    }

    /// Sends a message that is there already, in place of what is written.
    fn say(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let mut draft = self.draft()?;
        draft.clear();
        draft.extend(message);
        self.send()
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

/// How a link waits for its peer: it looks again and again, then looks and lets others run, then
/// sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wait {
    /// How long to look. Worth it only while cores are free.
    pub(crate) spin: Duration,
    /// How long after that to yield the processor between two looks.
    pub(crate) yielding: Duration,
    /// How long to look first, where that is more, for the one peer that has something to do if it
    /// is on another processor: those that share ours would be let run for nothing.
    pub(crate) glance: Duration,
    /// If more threads of the machine than this could run, or others have taken the processor from
    /// a thread while it looked, it sleeps at once for a while. If none, it waits as the user has
    /// said, whatever others do.
    pub(crate) crowd: Option<u32>,
}

/// A message that is being written: what of it a link keeps.
#[derive(Debug, Default)]
pub(crate) struct DraftBuffer {
    /// Bytes in the space of the link.
    used: usize,
    /// Where the message is if it outgrew that space, all of it; kept for its memory.
    spill: Vec<u8>,
    spilled: bool,
}

impl DraftBuffer {
    /// Bytes in the message.
    pub(crate) fn len(&self) -> usize {
        if self.spilled {
            self.spill.len()
        } else {
            self.used
        }
    }

    /// The message, if it is not in the space of the link.
    pub(crate) fn spilled(&self) -> Option<&[u8]> {
        self.spilled.then_some(&self.spill[..])
    }

    /// Goes on in a buffer, with what there is.
    fn spill_over(&mut self, space: &[u8]) {
        self.spill.extend_from_slice(&space[..self.used]);
        self.spilled = true;
    }

    /// Begins again.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.spill.clear();
        self.spilled = false;
    }

    /// The message, if it was written in a buffer alone.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.spill
    }

    /// Takes it out, and goes on with another buffer.
    pub(crate) fn replace(&mut self, spill: Vec<u8>) -> Vec<u8> {
        let taken = std::mem::replace(&mut self.spill, spill);
        self.clear();
        taken
    }
}

/// A message that is being written: it and where it lies.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// Where it is as long as it fits: the same place each time, until it is sent. There may be
    /// more of it.
    space: &'a mut [u8],
    draft_buffer: &'a mut DraftBuffer,
}

impl<'a> Draft<'a> {
    /// A message in `space`, or in a buffer if it does not fit.
    pub(crate) fn within(space: &'a mut [u8], draft_buffer: &'a mut DraftBuffer) -> Self {
        Self {
            space,
            draft_buffer,
        }
    }

    /// A message in a buffer.
    pub(crate) fn in_buffer(draft_buffer: &'a mut DraftBuffer) -> Self {
        Self::within(&mut [], draft_buffer)
    }

    /// Bytes written.
    pub(crate) fn len(&self) -> usize {
        self.draft_buffer.len()
    }

    /// What is written.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        if self.draft_buffer.spilled {
            &mut self.draft_buffer.spill
        } else {
            &mut self.space[..self.draft_buffer.used]
        }
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let Self {
            space,
            draft_buffer,
        } = self;
        if !draft_buffer.spilled {
            let end = draft_buffer.used + bytes.len();
            if let Some(place) = space.get_mut(draft_buffer.used..end) {
                place.copy_from_slice(bytes);
                draft_buffer.used = end;
                return;
            }
            draft_buffer.spill_over(space);
        }
        draft_buffer.spill.extend_from_slice(bytes);
    }

    /// Appends room for `bytes` bytes that are written later: at most half of the space that is
    /// left, and none in a buffer. Returns the place of that room.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Range<usize> {
        let start = self.len();
        if self.draft_buffer.spilled {
            return start..start;
        }
        let left = self.space.len() - start;
        let end = start + bytes.min(left / 2);
        self.draft_buffer.used = end;
        start..end
    }

    /// Appends the encoding of a value; after an error nothing is appended.
    #[inline]
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> postcard::Result<()> {
        let Self {
            space,
            draft_buffer,
        } = self;
        if !draft_buffer.spilled {
            match codec::write(value, &mut space[draft_buffer.used..]) {
                Err(postcard::Error::SerializeBufferFull) => draft_buffer.spill_over(space),
                written => {
                    draft_buffer.used += written?;
                    return Ok(());
                }
            }
        }
        codec::put(value, &mut draft_buffer.spill)
    }

    /// Begins again.
    pub(crate) fn clear(&mut self) {
        self.draft_buffer.clear();
    }
}

/// The wall clock, for deadlines and bounded waits of the process layer; simulated time never comes
/// from here.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the process layer reads the wall clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
