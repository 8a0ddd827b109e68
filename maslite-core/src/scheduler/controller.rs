//! The other threads of a program: they send mail into a run, and stop it.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::AgentId;
use crate::lock::LockEvenPoisoned;
use crate::message::{Mail, Receiver};
use crate::signal::{MAIL, STOP, Signal};

/// What other threads and the scheduler share.
pub(super) struct Outside<M> {
    pub(super) signal: Arc<Signal>,
    pub(super) mails: Mutex<Vec<Mail<M>>>,
}

/// Reaches a scheduler from other threads.
///
/// ```
/// use maslite_core::{Clock, Run, Scheduler, StopReason};
/// # use maslite_core::{Agent, Context, SimDuration};
/// # #[derive(Clone, maslite_core::Message)] enum Msg { Evening }
/// # struct Shop;
/// # impl Agent<Msg> for Shop {
/// #     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
/// #         ctx.alarm_in(SimDuration::from_secs(36_000), Msg::Evening);
/// #     }
/// # }
/// let mut scheduler = Scheduler::builder().clock(Clock::RealTime).build();
/// scheduler.add("shop", Shop)?; // it waits for the evening
/// let controller = scheduler.controller();
/// let thread = std::thread::spawn(move || controller.stop());
/// assert_eq!(scheduler.run(Run::until_idle())?.stopped_by, StopReason::Interrupted);
/// # let _ = thread.join();
/// # Ok::<(), maslite_core::Error>(())
/// ```
pub struct Controller<M> {
    pub(super) outside: Arc<Outside<M>>,
}

impl<M> Clone for Controller<M> {
    fn clone(&self) -> Self {
        Self {
            outside: Arc::clone(&self.outside),
        }
    }
}

impl<M> Controller<M> {
    /// Ends the run that goes on, or the next one, after the superstep at hand.
    pub fn stop(&self) {
        self.outside.signal.raise(STOP);
    }

    /// Sends a message of main into the simulation; as [`send_mail`](Self::send_mail).
    pub fn send(&self, to: impl Into<Receiver>, body: M) {
        self.send_mail(Mail::new(AgentId::MAIN, to, body));
    }

    /// Sends mail into the simulation. It is posted between two supersteps; under a simulated
    /// clock which ones depends on the wall, so a run that gets such mail does not repeat.
    pub fn send_mail(&self, mail: Mail<M>) {
        self.outside.mails.lock_even_poisoned().push(mail);
        self.outside.signal.raise(MAIL);
    }
}

impl<M> fmt::Debug for Controller<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}
