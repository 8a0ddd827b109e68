//! For tests, benchmarks and fuzzers of this project: no part of the API. Compiled with the feature `dev`, and for tests.

pub mod bare_ring;
pub mod fuzzing;

#[cfg(test)]
pub(crate) mod fault_simulation;
