//! Ending a run from another thread.

use std::fmt;
use std::sync::Arc;

use crate::steering::control_queue::ControlQueue;

/// Ends the run that goes on, from any thread: for hosts with signal handlers of their own. A
/// [`Controller`](crate::Controller) can do more.
///
/// See [`MpMain::stop_handle`](crate::MpMain::stop_handle).
///
/// ```
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Again }
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
#[derive(Clone)]
pub struct StopHandle {
    pub(crate) control_queue: Arc<ControlQueue>,
}

impl StopHandle {
    /// Ends the run that goes on, or the next one, after the superstep at hand. All clusters then
    /// stand at one instant, and a later run goes on as if nothing had been.
    pub fn stop(&self) {
        self.control_queue.stop();
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle")
            .field("requested", &self.control_queue.is_stopped())
            .finish_non_exhaustive()
    }
}
