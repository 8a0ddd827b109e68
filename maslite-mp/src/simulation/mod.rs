//! What a program calls: `MpMain`, and the report of a run.
//!
//! It may use every other room. No other room knows `MpMain`.

pub(crate) mod builder;
pub(crate) mod face;
pub(crate) mod inspect;
pub(crate) mod mp_main;
pub(crate) mod report;
