//! What a program calls: the registry of agent types, the supervisor `MpMain`, and the report of a run.
//!
//! It may use every other room. No other room but `steering` and `dev` knows `MpMain`.

pub(crate) mod mp_main;
pub(crate) mod registry;
pub(crate) mod report;
