//! Ending a run from another thread.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maslite_core::engine::Signal;

use crate::supervision::Holder;

/// Ends the run that goes on, from any thread: for hosts with signal handlers of their own.
///
/// See [`MpMain::stop_handle`](crate::MpMain::stop_handle).
#[derive(Clone, Default)]
pub struct StopHandle {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requested: bool,
    /// There while a run goes on.
    brake: Option<Brake>,
}

/// What makes the clusters come to rest after the superstep they are in.
pub(crate) enum Brake {
    Inline(Arc<Signal>),
    Processes(Holder),
}

impl Brake {
    fn pull(&self) {
        match self {
            Self::Inline(signal) => signal.raise(Signal::STOP),
            Self::Processes(holder) => holder.hold_now(),
        }
    }
}

impl StopHandle {
    /// Ends the run that goes on, or the next one, after the superstep at hand. All clusters then
    /// stand at one instant, and a later run goes on as if nothing had been.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.requested = true;
        if let Some(brake) = &state.brake {
            brake.pull();
        }
    }

    pub(crate) fn begin_run(&self, brake: Brake) {
        let mut state = self.lock();
        if state.requested {
            brake.pull();
        }
        state.brake = Some(brake);
    }

    /// True if the run was asked to end.
    pub(crate) fn end_run(&self) -> bool {
        let mut state = self.lock();
        state.brake = None;
        std::mem::take(&mut state.requested)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle")
            .field("requested", &self.lock().requested)
            .finish_non_exhaustive()
    }
}
