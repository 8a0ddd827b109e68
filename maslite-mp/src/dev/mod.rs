//! For tests, benchmarks and fuzzers of this project: no part of the API.

pub mod bare_ring;
pub mod fuzzing;

#[cfg(test)]
pub(crate) mod fault_simulation;
