//! The link to a scheduler in this very thread: it works while main waits for its answer. What a
//! backend asks of the registered types.

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::{Span, error_span};

use crate::cluster::mp_scheduler::{MpScheduler, Reply};
use crate::cluster::registry::{Entered, WireMessage};
use crate::error::link::LinkError;
use crate::links::transport::{Draft, DraftBuffer, Transport};
use crate::processes::backend::{InterruptSource, Model};
use crate::processes::spawn::Program;
use crate::processes::spawn::entry::Point;
use crate::stall::detector::ClusterActivity;

/// Main's end of the link; the scheduler is at the other.
pub(crate) struct InlineLink<M: WireMessage> {
    scheduler: MpScheduler<M>,
    draft: DraftBuffer,
    /// Names the cluster in what is recorded.
    span: Span,
    messages: VecDeque<Vec<u8>>,
    answer: DraftBuffer,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    ended: bool,
}

impl<M: WireMessage> InlineLink<M> {
    pub(crate) fn new(scheduler: MpScheduler<M>, cluster: &str) -> Self {
        Self {
            scheduler,
            draft: DraftBuffer::default(),
            span: error_span!(target: "maslite", "cluster", cluster),
            messages: VecDeque::new(),
            answer: DraftBuffer::default(),
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

    fn send(&mut self) -> Result<(), LinkError> {
        let next = self.spare.pop().unwrap_or_default();
        self.messages.push_back(self.draft.replace(next));
        Ok(())
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        self.recv_to_answer().map(|(answer, _)| answer)
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        while let Some(message) = self.messages.pop_front() {
            self.answer.clear();
            let mut draft = Draft::in_buffer(&mut self.answer);
            let scheduler = &mut self.scheduler;
            let reply = self.span.in_scope(|| scheduler.obey(&message, &mut draft));
            self.spare.push(message);
            if reply != Reply::Nothing {
                self.ended = reply == Reply::Bye;
                let answer = self.answer.spilled().unwrap_or_default();
                return Ok((answer, Draft::in_buffer(&mut self.draft)));
            }
        }
        // Nothing was asked, so nothing will ever be answered.
        Err(LinkError::Disconnected)
    }
}

impl<M: WireMessage> Model for Entered<M> {
    fn inline(
        &self,
        cluster: &str,
        interrupts: InterruptSource,
        activity: Arc<ClusterActivity>,
    ) -> Box<dyn Transport> {
        let scheduler = MpScheduler::new(Arc::clone(&self.registry))
            .interrupted_by(interrupts)
            .shown_in(activity);
        Box::new(InlineLink::new(scheduler, cluster))
    }

    fn program(&self) -> Program {
        self.registry.program()
    }

    fn point(&self) -> Arc<Point> {
        Arc::clone(&self.point)
    }
}
