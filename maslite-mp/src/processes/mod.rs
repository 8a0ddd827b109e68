//! Where clusters run: child processes are started, watched, stopped and reaped here; their output and logs are read here.
//!
//! It may use `protocol`, `links` and `error`. It does not know simulated time or routing.

pub(crate) mod backend;
pub(crate) mod clusters;
pub(crate) mod death;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod output;
pub(crate) mod spawn;
pub(crate) mod supervision;
