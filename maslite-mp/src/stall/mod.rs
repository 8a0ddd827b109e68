//! Finds the cluster that blocks simulated time, and measures where wall time goes.
//!
//! This room may use `protocol` and the rooms below. No result of a run may depend on it.

pub(crate) mod detector;
pub(crate) mod meter;
