//! The link to a scheduler in this very thread: it works while main waits for its answer.

use std::collections::VecDeque;

use crate::mp_scheduler::{MpScheduler, Next};
use crate::registry::WireMessage;
use crate::transport::{LinkError, Transport};

/// Main's end of the link; the scheduler is at the other.
pub(crate) struct InlineLink<M: WireMessage> {
    scheduler: MpScheduler<M>,
    messages: VecDeque<Vec<u8>>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    ended: bool,
}

impl<M: WireMessage> InlineLink<M> {
    pub(crate) fn new(scheduler: MpScheduler<M>) -> Self {
        Self {
            scheduler,
            messages: VecDeque::new(),
            spare: Vec::new(),
            ended: false,
        }
    }
}

impl<M: WireMessage> Transport for InlineLink<M> {
    fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        if self.ended {
            return Err(LinkError::Disconnected);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(message);
        self.messages.push_back(buffer);
        Ok(())
    }

    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
        while let Some(message) = self.messages.pop_front() {
            let next = self.scheduler.obey(&message, into);
            self.spare.push(message);
            self.ended = next == Next::End;
            if next != Next::Wait {
                return Ok(());
            }
        }
        // Nothing was asked, so nothing will ever be answered.
        Err(LinkError::Disconnected)
    }
}
