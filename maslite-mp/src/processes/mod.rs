//! Child processes: this room starts, watches, stops and reaps them, and reads their output and
//! their logs.
//!
//! It may use `stall` and the rooms below. It must not know simulated time, agents or routing.

pub(crate) mod backend;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod output;
pub(crate) mod printed;
pub(crate) mod spawn;
pub(crate) mod supervision;
