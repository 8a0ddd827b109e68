//! How other threads and terminals ask and steer a run: control queue, controller, control socket, stop handle, signals, status.
//!
//! It may use `cluster` and the rooms below. It does not know how main grants time.

pub mod control;
pub(crate) mod control_queue;
pub(crate) mod controller;
pub(crate) mod progress;
pub(crate) mod signals;
pub(crate) mod status;
