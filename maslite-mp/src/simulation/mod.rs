//! The API that a program calls: `MpMain`, its builder, and the report of a run.
//!
//! This room may use every other room except `dev`. No other room may know `MpMain`.

pub(crate) mod builder;
mod counted;
mod end;
pub(crate) mod face;
pub(crate) mod inspect;
pub(crate) mod mp_main;
pub(crate) mod report;
pub(crate) mod restore;
mod running;
pub(crate) mod save;
pub(crate) mod spread;
mod start;
pub(crate) mod whole;
