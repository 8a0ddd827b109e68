//! Child processes: they are started, watched, stopped and reaped here; their output and logs are read here.
//!
//! It may use `stall` and the rooms below. It does not know simulated time, agents or routing.

pub(crate) mod backend;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod output;
pub(crate) mod spawn;
pub(crate) mod supervision;
