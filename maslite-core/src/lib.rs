//! Agents that exchange messages and set alarms, run by a deterministic scheduler in one process.
//!
//! ```
//! use maslite_core::{Agent, Context, Mail, Run, Scheduler, SimDuration, SimTime};
//!
//! #[derive(Clone, maslite_core::Message)]
//! enum Msg { Boiled, Tea }
//!
//! struct Cook;
//! impl Agent<Msg> for Cook {
//!     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
//!         ctx.alarm_in(SimDuration::from_secs(180), Msg::Boiled);
//!     }
//!     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
//!         ctx.send("guest", Msg::Tea);
//!     }
//! }
//!
//! struct Guest { cups: u32 }
//! impl Agent<Msg> for Guest {
//!     fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {
//!         self.cups += 1;
//!     }
//! }
//!
//! let mut scheduler = Scheduler::new();
//! scheduler.add("cook", Cook)?;
//! scheduler.add("guest", Guest { cups: 0 })?;
//! let report = scheduler.run(Run::until_idle())?;
//! assert_eq!(report.now, SimTime::from_secs(180));
//! assert_eq!(scheduler.agent::<Guest>("guest").map(|guest| guest.cups), Some(1));
//! # Ok::<(), maslite_core::Error>(())
//! ```
//!
//! # Concepts
//!
//! - An [`Agent`] is state and three methods: `setup`, `update`, `teardown`. `update` hands each
//!   mail to `receive` unless you write it yourself. What an agent can do is in the [`Context`] it
//!   is given.
//! - A [`Message`] is one type for all agents of a simulation, usually an enum; its [`Topic`] is
//!   the name of the variant. A message under way is [`Mail`], with a sender and a [`Receiver`].
//! - A [`Pattern`] names a sender, a receiver, a topic, or several of these. Who subscribes to it
//!   gets a copy of all mail that fits.
//! - An [`Alarm`] is mail for later. Setting one is how an agent lets time pass.
//! - An *instant* is one value of [`SimTime`]. A *superstep* is one round within it: the agents
//!   that are awake are updated, then their mail is posted.
//! - A [`Scheduler`] runs the agents, as far as a [`Run`] says, and answers with a [`Report`]. A
//!   [`Clock`] ties simulated time to the wall, if it is to be tied at all.
//!
//! Every agent draws its random numbers from a generator of its own, with the tools of the crate
//! [`rand`], which is re-exported so that its version fits:
//!
//! ```
//! use maslite_core::Context;
//! use maslite_core::rand::RngExt;
//! # #[derive(Clone, maslite_core::Message)] enum Msg { Tea }
//!
//! fn throw_a_die(ctx: &mut Context<'_, Msg>) -> u32 {
//!     ctx.rng().random_range(1..=6)
//! }
//! # let mut solo = maslite_core::testing::Solo::new(1);
//! # assert!((1..=6).contains(&throw_a_die(&mut solo.context())));
//! ```
//!
//! # Guarantees
//!
//! 1. In a superstep the awake agents are updated in the order in which they were added. Awake are
//!    those with mail, those just added, and those that asked for it with [`Context::keep_awake`].
//! 2. What is sent in a superstep arrives in the next one, in the order of the senders' insertion
//!    and of each sender's own sends. An answer never arrives in the superstep of its question.
//! 3. Time stands still while there is mail. When none is left it jumps to the earliest alarm;
//!    alarms due together arrive in the order (time they were set at, insertion of who set them,
//!    sequence).
//! 4. Time is an integer number of nanoseconds, so it neither drifts nor depends on the platform. A
//!    duration made of an `f64` does as far as that number does.
//! 5. No agent gets one mail twice, whatever it subscribed to.
//! 6. `setup` is called once, before anything else; `teardown` once, when the agent is removed or
//!    when the simulation ends.
//! 7. The same agents, added in the same order, with the same seed and the same mail from outside
//!    give the same trace, on every platform, as far as what agents compute is: integers, and
//!    floating-point `+ - * /` and `sqrt`, but no logarithm or sine of the standard library, whose
//!    last bit is the platform's. Nothing depends on addresses, hash seeds or the wall clock,
//!    unless the clock follows the wall ([`Clock::RealTime`]) or another thread sends mail
//!    ([`Controller::send`]).
//! 8. In every report sent = delivered + undeliverable + queued.
//! 9. A run ends between two supersteps, and the next one goes on as if there had been no end.
//! 10. A panic in an agent is an [`Error`] of the run that names the agent. The simulation cannot
//!     go on then, but the program can.
//!
//! # Where to read on
//!
//! [`Agent`], [`Context`], [`Scheduler`] and [`Run`] are what most models use; [`prelude`] has them
//! all. [`testing`] tests an agent without a scheduler, and [`clock`] has the wall clock.
//! [`Simulation`] is the trait that a [`Scheduler`] shares with the simulations in several
//! processes of the crate `maslite-mp`.
#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adders;
mod agent;
mod agent_types;
mod alarm;
mod alarm_queue;
mod builder;
mod chain;
pub mod clock;
mod command;
mod digest;
mod directory;
mod engine;
mod error;
mod fetch;
mod fnv;
mod id;
mod id_set;
#[doc(hidden)]
pub mod internal;
mod kernel;
mod lock;
mod mailing_list;
mod main_context;
mod marks;
mod message;
mod panics;
mod periodic;
mod plain;
mod progress;
mod rng;
mod run;
mod scheduler;
mod signal;
mod simulation;
pub mod testing;
mod time;
mod topic;
mod trace;

pub use agent::{Agent, Context};
pub use agent_types::AgentTypes;
pub use alarm::{Alarm, AlarmFilter, PendingAlarm};
pub use alarm_queue::AlarmId;
pub use builder::{SchedulerBuilder, TraceFormat};
pub use chain::Chain;
pub use clock::{BadSpeed, Clock, Speed};
pub use command::{CommandError, Refusal};
pub use digest::Digest;
pub use error::{Adder, Error, Phase};
pub use id::{AgentId, IdError};
pub use mailing_list::{EmptyPattern, Pattern};
pub use main_context::MainContext;
pub use marks::{Covers, Mark, Marks};
pub use maslite_derive::Message;
pub use message::{Delivery, Mail, Message, Receiver};
pub use plain::Plain;
/// The crate whose traits draw ranges, shuffles and choices from an [`AgentRng`]: with
/// `maslite_core::rand::RngExt` there is no second version of it in a program.
pub use rand;
pub use rng::AgentRng;
pub use run::{AgentError, Counters, LostMail, Report, Run, StopReason};
pub use scheduler::{Controller, Scheduler};
pub use simulation::{AgentInfo, Shutdown, Simulation, StopHandle};
pub use time::{BadDuration, ParseTimeError, SimDuration, SimTime};
pub use topic::Topic;
pub use trace::{JsonBodies, JsonLines, Observer};

/// A count of things kept in memory as the 32 bits that slots, mails and alarms are numbered with.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32 things at a time")
}

/// What a model, and a program around a [`Scheduler`], import.
pub mod prelude {
    pub use rand::RngExt;

    pub use crate::{
        Agent, AgentError, AgentId, AgentRng, Alarm, AlarmFilter, AlarmId, Clock, CommandError,
        Context, Counters, Delivery, Digest, Error, JsonLines, Mail, MainContext, Message, Pattern,
        Receiver, Refusal, Report, Run, Scheduler, SimDuration, SimTime, Simulation, Speed,
        StopHandle, StopReason, Topic,
    };
}
