//! Who keeps simulated time from moving, and how far a run has come.
//!
//! It reads what main and the clusters show of their activity. No result depends on it.

pub(crate) mod detector;
pub(crate) mod progress;
pub(crate) mod warning;
