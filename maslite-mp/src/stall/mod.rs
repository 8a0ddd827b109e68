//! Which cluster keeps simulated time from moving, and where the wall time goes.
//!
//! It may use `protocol` and the rooms below. No result depends on it.

pub(crate) mod detector;
pub(crate) mod meter;
