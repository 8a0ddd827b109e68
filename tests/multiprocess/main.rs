//! Several clusters under one supervisor, inline and in processes: a file per behaviour.

#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/scenario/agent.rs"]
mod agent;
#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/scenario/file.rs"]
mod file;
#[path = "../../examples/scenario/play.rs"]
mod play;
#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/scenario/trace.rs"]
mod trace;

#[path = "../../examples/support/interruptible.rs"]
mod interruptible;

#[allow(dead_code, reason = "shared with the tests of the kernel")]
#[path = "../kernel/generator.rs"]
mod generator;
#[allow(dead_code, reason = "shared with the tests of the kernel")]
#[path = "../kernel/naive.rs"]
mod naive;

mod agent_errors;
mod clock_holder;
mod commands;
mod content_digest;
mod control;
mod controller;
mod deaths;
mod encodings;
mod end_of_time;
mod extended;
mod failures;
mod first_failure;
mod ground;
mod life_of_processes;
mod limits;
mod lively;
mod lives;
mod load;
mod logs;
mod lookahead;
mod lost_mail;
mod main_under_lookahead;
mod model_panics;
mod names;
mod placement;
mod race;
mod refusals;
mod report;
mod request_sequences;
mod run_ends;
mod scenario_traces;
mod shaken;
mod shutdown;
mod sick_agents;
mod signals;
mod workers;
