//! Models written as data: the `scenario` example runs them, and the tests compare their traces.

pub mod agent;
pub mod file;
pub mod generator;
pub mod naive;
pub mod play;
pub mod stage;
pub mod trace;
