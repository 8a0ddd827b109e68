//! One process, one scheduler: what the kernel promises, a file per behaviour.

mod actor;

mod acceptance;
mod alarm_order;
mod amnesia;
mod chance;
mod commands;
mod continuation;
mod digest;
mod foreign_mail;
mod life;
mod main_mail;
mod panics;
mod periodic;
mod priority_inbox;
mod request_sequences;
mod run_ends;
mod scenario_files;
mod scenario_traces;
mod subscriptions;
mod time;
mod topics;
mod wall_clock;
