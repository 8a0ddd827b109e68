//! The link to a scheduler in this very thread: it works while main waits for its answer.

use std::collections::VecDeque;

use tracing::{Span, error_span};

use crate::mp_scheduler::MpScheduler;
use crate::registry::WireMessage;
use crate::transport::{Draft, LinkError, Transport, Written};
use crate::wire::ToMain;

/// Main's end of the link; the scheduler is at the other.
pub(crate) struct InlineLink<M: WireMessage> {
    scheduler: MpScheduler<M>,
    draft: Vec<u8>,
    /// Names the cluster in what is recorded.
    span: Span,
    messages: VecDeque<Vec<u8>>,
    answer: Vec<u8>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    ended: bool,
}

impl<M: WireMessage> InlineLink<M> {
    pub(crate) fn new(scheduler: MpScheduler<M>, cluster: &str) -> Self {
        Self {
            scheduler,
            draft: Vec::new(),
            span: error_span!(target: "maslite", "cluster", cluster),
            messages: VecDeque::new(),
            answer: Vec::new(),
            spare: Vec::new(),
            ended: false,
        }
    }
}

impl<M: WireMessage> Transport for InlineLink<M> {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        if self.ended {
            return Err(LinkError::Disconnected);
        }
        Ok(Draft::in_buffer(&mut self.draft))
    }

    fn send(&mut self, _: Written) -> Result<(), LinkError> {
        let next = self.spare.pop().unwrap_or_default();
        let message = std::mem::replace(&mut self.draft, next);
        self.messages.push_back(message);
        Ok(())
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        while let Some(message) = self.messages.pop_front() {
            let answer = self.span.in_scope(|| self.scheduler.obey(&message));
            self.spare.push(message);
            if let Some(answer) = answer {
                self.ended = matches!(answer, ToMain::Bye(_));
                let mut draft = Draft::in_buffer(&mut self.answer);
                self.scheduler.write(&answer, &mut draft);
                let _ = draft.done();
                return Ok(&self.answer);
            }
        }
        // Nothing was asked, so nothing will ever be answered.
        Err(LinkError::Disconnected)
    }
}
