//! One process, one scheduler: what the kernel promises, a file per behaviour.

#[path = "../../examples/scenario/agent.rs"]
mod agent;
#[path = "../../examples/scenario/file.rs"]
mod file;
#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/scenario/trace.rs"]
mod trace;

mod actor;
mod generator;
mod naive;

mod acceptance;
mod alarm_order;
mod chance;
mod commands;
mod continuation;
mod digest;
mod life;
mod main_mail;
mod panics;
mod priority_inbox;
mod request_sequences;
mod run_ends;
mod scenario_files;
mod scenario_traces;
mod subscriptions;
mod time;
mod topics;
mod wall_clock;
