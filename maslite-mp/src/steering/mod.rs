//! How other threads and terminals ask and steer a run: controller, commands, control socket, stop handle, signals, status.
//!
//! It may use `coordination` and the rooms below. A run works the same when nobody asks.

pub(crate) mod commands;
pub mod control;
pub(crate) mod control_queue;
pub(crate) mod controller;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod stop;
