//! Ending a run from another thread.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maslite_core::engine::Signal;

use crate::supervision::Holder;

/// Ends the run that goes on, from any thread: for hosts with signal handlers of their own.
///
/// See [`MpMain::stop_handle`](crate::MpMain::stop_handle).
///
/// ```
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, strum::IntoStaticStr)] enum Msg { Again }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Tireless;
/// # impl Agent<Msg> for Tireless {
/// #     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
/// #         ctx.alarm_in(SimDuration::from_secs(1), Msg::Again);
/// #     }
/// #     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
/// #         ctx.alarm_in(SimDuration::from_secs(1), Msg::Again);
/// #     }
/// # }
/// # fn main() -> Result<(), maslite_mp::Error> {
/// #     let agents = Registry::new().with::<Tireless>().enter();
/// #     let mut main = MpMain::new(agents)?;
/// #     let cluster = main.new_scheduler();
/// main.add(cluster, "tireless", Tireless)?; // it would go on for ever
/// let handle = main.stop_handle();
/// let thread = std::thread::spawn(move || handle.stop());
/// assert_eq!(main.run(Run::until_idle())?.stopped_by, StopReason::Interrupted);
/// #     let _ = thread.join();
/// #     Ok(())
/// # }
/// ```
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
