//! The context of the handler of mail to main.

use crate::SimTime;
use crate::message::Receiver;

/// Lets the handler of mail to main read the time, send messages, and stop the run.
#[derive(Debug)]
pub struct MainContext<M> {
    now: SimTime,
    sent_at: SimTime,
    mails: Vec<(Receiver, M)>,
    stop: bool,
}

impl<M> MainContext<M> {
    /// For a supervisor that handles mail to main itself.
    #[must_use]
    pub(crate) fn new(now: SimTime) -> Self {
        Self {
            now,
            sent_at: now,
            mails: Vec::new(),
            stop: false,
        }
    }

    /// Notes when the mail was sent that is handled next.
    pub(crate) fn take_up(&mut self, sent_at: SimTime) {
        self.sent_at = sent_at;
    }

    /// Returns the messages that the handler sent, and whether it asked to stop.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Vec<(Receiver, M)>, bool) {
        (self.mails, self.stop)
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// The simulated time at which the mail at hand was sent, or set as an alarm. Under a lookahead
    /// mail to main arrives one lookahead after it was sent, so this is earlier than
    /// [`now`](Self::now) then.
    #[must_use]
    pub fn sent_at(&self) -> SimTime {
        self.sent_at
    }

    /// Sends a message from main; it arrives in the next superstep. To main itself it is
    /// undeliverable.
    pub fn send(&mut self, to: impl Into<Receiver>, body: M) {
        self.mails.push((to.into(), body));
    }

    /// Ends the run when all mail of this superstep to main is handled.
    pub fn stop(&mut self) {
        self.stop = true;
    }
}
