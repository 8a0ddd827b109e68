//! Agents, messages, alarms and a deterministic scheduler, in one process.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod alarm;
pub mod clock;
mod digest;
mod directory;
pub mod engine;
mod error;
mod id;
mod kernel;
mod mailing_list;
mod message;
mod rng;
mod run;
mod scheduler;
mod signal;
pub mod testing;
mod time;
mod topic;
mod trace;

pub use agent::{Agent, Alarm, AlarmFilter, Context, Delivery, PendingAlarm};
pub use alarm::AlarmId;
pub use clock::{BadSpeed, Clock, Speed};
pub use error::{Adder, Error, Phase};
pub use id::{AgentId, IdError};
pub use kernel::Observer;
pub use mailing_list::{EmptyPattern, MailingList, Pattern};
pub use message::{Mail, MailKey, Message, Receiver};
pub use rng::AgentRng;
#[doc(hidden)]
pub use run::Predicate;
pub use run::{Counters, Report, Run, StopReason};
pub use scheduler::{Handle, MainContext, Scheduler};
pub use time::{BadDuration, SimDuration, SimTime};
pub use topic::Topic;
pub use trace::JsonLines;

/// A count of things kept in memory as the 32 bits that slots, mails and alarms are numbered with.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32 things at a time")
}
