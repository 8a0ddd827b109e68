//! Other threads and terminals ask and steer a run here: control queue, controller, control socket,
//! signals and status.
//!
//! This room may use `cluster` and the rooms below. It must not know how main grants time.

pub mod control;
pub(crate) mod control_queue;
pub(crate) mod controller;
pub(crate) mod progress;
pub(crate) mod signals;
pub(crate) mod status;
