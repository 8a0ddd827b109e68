//! Code for tests, benchmarks and fuzzers of this project: bare rings, fuzz entries, and the
//! simulation of faults.
//!
//! It may use every other room. No other room may use it, and it is no part of the API.

pub mod bare_ring;
pub mod fuzzing;

/// What becomes of the steps of a save on the disk.
#[cfg(feature = "dev")]
pub mod save_steps {
    pub use crate::snapshot::steps::{Fate, decide};
}

#[cfg(test)]
pub(crate) mod fault_simulation;
