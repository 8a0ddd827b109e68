//! What the tests and the examples share. It is published nowhere.
//!
//! | module | what is there |
//! |---|---|
//! | [`scenario`] | models written as data: the file, the agent, the trace, how one is played; random scenarios, and a naive program of the rules |
//! | [`extended`] | random stories of the extended language, and their naive program |
//! | [`lively`] | random agents that come and go |
//! | [`story`] | where an example's model runs, and what is told of it |
//! | [`svg`] | pictures |
//! | [`carrier`], [`measuring`] | flags of the benchmarks; busy work of a known length |
//! | [`effort`] | how many repetitions a test makes |
//! | [`interruptible`] | programs that Ctrl-C can end |

#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    missing_debug_implementations,
    reason = "only this workspace calls it"
)]

pub mod carrier;
pub mod effort;
pub mod extended;
pub mod interruptible;
pub mod lively;
pub mod measuring;
pub mod scenario;
pub mod story;
pub mod svg;
