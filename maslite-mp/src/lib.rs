//! Agents that exchange messages, divided among operating-system processes without changing the
//! result.
//!
//! ```
//! use maslite_mp::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize, Message)]
//! enum Msg { Ping, Pong }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Player;
//! impl Agent<Msg> for Player {
//!     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
//!         if matches!(mail.body, Msg::Ping) {
//!             ctx.send(mail.sender, Msg::Pong);
//!         }
//!     }
//! }
//!
//! fn main() -> Result<(), Error> {
//!     let agents = Registry::new().with::<Player>().enter(); // a child process goes no further
//!     let mut main = MpMain::new(agents)?;
//!     for name in ["ada", "bob"] {
//!         main.new_cluster(); // a process of its own
//!         main.add(name, Player)?;
//!     }
//!     main.send_mail(Mail::new("ada", AgentId::from("bob"), Msg::Ping));
//!     let report = main.run(Run::until_idle())?;
//!     assert_eq!((report.counters.delivered, report.clusters.len()), (2, 2));
//!     Ok(())
//! }
//! ```
//!
//! # Concepts
//!
//! Agents, messages, alarms, subscriptions and time are those of [`maslite_core`], which this
//! crate re-exports: one dependency is enough, and [`prelude`] has what a model uses. New are:
//!
//! - A *cluster*: the agents that share one scheduler. [`MpMain::new_cluster`] makes one.
//! - [`MpMain`], the supervisor. It owns the clusters, routes mail between them, grants them time,
//!   watches their processes, and ends them when it is dropped.
//! - A [`Placement`] says where clusters run: each in a child process, or all in this one.
//! - A [`Registry`] names the types of agents, so that a child process can make them from their
//!   serialised state; or has builders, which make them there from a small configuration.
//! - A child process is the same program, started again. [`Registry::enter`], on the first line of
//!   `main`, is where it turns into a cluster. It cannot be forgotten: [`MpMain::new`] takes what
//!   it returns. Whatever stands before it happens again in every child.
//! - A [`Controller`] steers a run from other threads: pauses and steps it, and asks what
//!   [`MpMain`] asks between runs, the state of an agent with [`inspect`](MpMain::inspect) for one.
//!
//! What a model that runs in one scheduler needs beyond that: `Serialize` and `Deserialize` for its
//! messages and its agents, the registry, and that first line.
//!
//! # One program, any host
//!
//! [`Simulation`](maslite_core::Simulation) is the trait of what [`MpMain`] and a
//! [`Scheduler`](maslite_core::Scheduler) have in common: to add, send, run, ask and end. A program
//! that is written for it runs its model in one scheduler, inline, or in processes, with one
//! result:
//!
//! ```
//! use maslite_mp::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize, Message)]
//! enum Msg { Ball { hits: u32 } }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Player { hits: u32 }
//! impl Agent<Msg> for Player {
//!     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
//!         let Msg::Ball { hits } = mail.body;
//!         self.hits += 1;
//!         if hits < 5 {
//!             ctx.reply(Msg::Ball { hits: hits + 1 });
//!         }
//!     }
//! }
//!
//! type Failure = Box<dyn std::error::Error>;
//!
//! fn play<S: Simulation<Msg>>(mut simulation: S) -> Result<(u32, Option<Digest>), Failure> {
//!     for name in ["ada", "bob"] {
//!         simulation.new_cluster();
//!         simulation.add(name, Player { hits: 0 })?;
//!     }
//!     simulation.send_mail(Mail::new("bob", AgentId::from("ada"), Msg::Ball { hits: 0 }));
//!     simulation.run(Run::until_idle())?;
//!     let ada: Player = simulation.inspect("ada")?;
//!     Ok((ada.hits, simulation.digest()))
//! }
//!
//! fn main() -> Result<(), Failure> {
//!     let agents = Registry::new().with::<Player>().enter(); // a child process goes no further
//!     let alone = play(Scheduler::builder().digest().build())?;
//!     let divided = play(MpMain::builder(agents).digest().build()?)?;
//!     assert_eq!((alone.0, alone), (3, divided));
//!     Ok(())
//! }
//! ```
//!
//! # Guarantees
//!
//! Those of [`maslite_core`](maslite_core#guarantees) hold over all clusters, and further:
//!
//! 1. The clusters never change a result: any division of the same agents, added in the same order,
//!    gives the trace of one scheduler, message for message, and so does every placement.
//! 2. Insertion indices follow the calls of [`MpMain::add_to`] and [`MpMain::build`], and within a
//!    call of `build` its builder, whatever the cluster.
//! 3. Broadcasts and subscriptions reach across clusters as they do within one.
//! 4. A run ends between two supersteps, with all clusters at one instant.
//! 5. A panic in an agent, a process that ends, a broken link, a message that cannot be serialised:
//!    each is an [`Error`] that names the cluster or the message, and the agent where one is to
//!    blame. All processes have been ended by then, and the simulation cannot go on. An error of a
//!    process tells why it died, as far as there is evidence, with what it said last. With
//!    [`Recovery::restart`] the cluster of a process that ends is brought back instead, and the run
//!    goes on to the same trace.
//! 6. An agent that does not return from its update is found when the run has a timeout, or is
//!    ended with a [`StopHandle`], and after [`MpMainBuilder::update_limit`]: [`Error::Stuck`].
//!    Inline it cannot be interrupted. Without any of them, a [`Warning`] tells of it, or of
//!    whatever else keeps time from moving. A process that is stopped, or gets no processor time at
//!    all, is given 5 s ([`MpMainBuilder::answer_limit`]).
//! 7. Dropping [`MpMain`], also during a panic, asks all clusters to end, waits a bounded time,
//!    kills what is left and reaps every process, and kills what agents have started and left in
//!    the process group of their cluster. If its process is killed, the clusters end by themselves,
//!    at any moment.
//! 8. Nothing polls: a process without work blocks, after a short look ([`Waiting`]), and then uses
//!    no processor time.
//!
//! # Limits
//!
//! - Without a lookahead clusters work at the same time only within one instant. With one, declared
//!   by [`MpMainBuilder::lookahead`], they run ahead of each other, and are a part of the model.
//! - The clock is simulated. Real and paced time are for the [`Scheduler`](maslite_core::Scheduler)
//!   alone.
//! - Each process takes five descriptors in main (`ulimit -n`); too many are refused before any
//!   starts.
//! - What agents print comes out of main with the cluster's name ([`Output`]); what they record
//!   with `tracing` comes out of main's subscriber.
//! - A Unix system is needed; only Linux on x86-64 was tried.
//! - Messages and agents cross in a format that does not describe itself, so serde's `flatten`,
//!   `untagged` and `skip_serializing_if` do not work in them. A field marked `skip` arrives as its
//!   default.
//!
//! # Where to read on
//!
//! [`MpMain`] and [`Registry`] for programs, [`Error`] for what can go wrong. The repository's
//! `docs/` has a guide, a page for those who come from MASlite in Python, the semantics on one
//! page, the architecture and its reasons.
#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster;
pub mod comparison;
mod coordination;
#[cfg(any(test, feature = "dev"))]
#[doc(hidden)]
pub mod dev;
mod error;
mod links;
mod processes;
mod protocol;
pub mod recording;
mod recovery;
mod settings;
mod simulation;
mod snapshot;
mod stall;
mod steering;

#[cfg(test)]
extern crate self as maslite_mp;

pub use maslite_core as core;
pub use maslite_core::internal::Message;
pub use maslite_core::rand;
pub use maslite_core::{
    AgentError, CommandError, Covers, Digest, LostMail, Mark, Marks, Refusal, StopHandle, clock,
};
pub use maslite_derive::MpMessage as Message;

pub use crate::error::link::{FrameFault, LinkError};
pub use crate::error::message_fault::MessageFault;
pub use crate::settings::ClusterId;
pub use crate::settings::{Link, Placement, Speculation, Waiting};
pub use crate::simulation::builder::MpMainBuilder;
pub use crate::simulation::mp_main::{MpMain, Shutdown};
pub use cluster::registry::{AgentSet, Entered, Registry, WireMessage};
pub use error::death::{Death, ExitKind};
pub use error::recovery::{Dropped, NotRecovered, Recovered};
pub use error::snapshot::{LeftOut, SnapshotError};
pub use error::spawn::{ChildError, SpawnError};
pub use error::warning::{Activity, Limit, Standstill, TimeBlocker, Warning};
pub use error::{Chain, Error};
pub use maslite_core::Plain;

pub use cluster::commands::{AgentInfo, Answers, Audience};
pub use error::control::ControlError;
pub use maslite_core::internal::SavedAgent;
pub use processes::output::Output;
pub use processes::supervision::{ChildEnd, EndKind};
pub use recovery::Recovery;
pub use simulation::report::{ClusterReport, Flow, MpReport, Versions};
pub use simulation::restore::{FoundSnapshot, Restore, snapshots};
pub use simulation::save::{save_scheduler, save_scheduler_with};
pub use snapshot::saved::Saved;
pub use snapshot::saves::{SaveOptions, Saves};
pub use steering::control;
pub use steering::control_queue::Halt;
pub use steering::controller::Controller;
pub use steering::status::{ClusterStatus, RunState, Status};

/// What a model, and the program around it, import.
pub mod prelude {
    pub use maslite_core::prelude::{
        Agent, AgentError, AgentId, AgentRng, Alarm, AlarmFilter, AlarmId, Clock, Context,
        Counters, Delivery, Digest, JsonLines, Mail, MainContext, Pattern, Receiver, Refusal,
        Report, RngExt, Run, Scheduler, SimDuration, SimTime, Simulation, Speed, StopHandle,
        StopReason, Topic,
    };

    pub use crate::{
        Activity, AgentInfo, AgentSet, Audience, ClusterId, ControlError, Controller, Entered,
        Error, Halt, Link, Message, MpMain, MpMainBuilder, MpReport, Output, Placement, Recovery,
        Registry, Restore, SaveOptions, Saved, Saves, Shutdown, Speculation, Waiting, Warning,
    };
}

/// The programs in the documents run as doctests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/from-maslite.md")]
    struct FromMaslite;
    #[doc = include_str!("../../docs/guide/01-agents.md")]
    struct GuideAgents;
    #[doc = include_str!("../../docs/guide/02-alarms.md")]
    struct GuideAlarms;
    #[doc = include_str!("../../docs/guide/03-subscriptions.md")]
    struct GuideSubscriptions;
    #[doc = include_str!("../../docs/guide/04-inbox.md")]
    struct GuideInbox;
    #[doc = include_str!("../../docs/guide/05-births.md")]
    struct GuideBirths;
    #[doc = include_str!("../../docs/guide/06-chain-reactions.md")]
    struct GuideChainReactions;
    #[doc = include_str!("../../docs/guide/07-taking-turns.md")]
    struct GuideTakingTurns;
    #[doc = include_str!("../../docs/guide/08-testing.md")]
    struct GuideTesting;
    #[doc = include_str!("../../docs/guide/09-processes.md")]
    struct GuideProcesses;
    #[doc = include_str!("../../docs/guide/10-builders.md")]
    struct GuideBuilders;
    #[doc = include_str!("../../docs/guide/11-clusters.md")]
    struct GuideClusters;
    #[doc = include_str!("../../docs/guide/12-lookahead.md")]
    struct GuideLookahead;
    #[doc = include_str!("../../docs/guide/13-reproducibility.md")]
    struct GuideReproducibility;
    #[doc = include_str!("../../docs/guide/14-reading.md")]
    struct GuideReading;
    #[doc = include_str!("../../docs/guide/15-steering.md")]
    struct GuideSteering;
    #[doc = include_str!("../../docs/guide/16-terminal.md")]
    struct GuideTerminal;
    #[doc = include_str!("../../docs/guide/17-output.md")]
    struct GuideOutput;
    #[doc = include_str!("../../docs/guide/18-errors.md")]
    struct GuideErrors;
    #[doc = include_str!("../../docs/guide/19-time-limits.md")]
    struct GuideTimeLimits;
    #[doc = include_str!("../../docs/guide/20-encodings.md")]
    struct GuideEncodings;
    #[doc = include_str!("../../docs/guide/21-real-time.md")]
    struct GuideRealTime;
    #[doc = include_str!("../../docs/guide/22-platforms.md")]
    struct GuidePlatforms;
    #[doc = include_str!("../../docs/guide/23-recovery.md")]
    struct GuideRecovery;
    #[doc = include_str!("../../docs/guide/24-differences.md")]
    struct GuideDifferences;
    #[doc = include_str!("../../docs/guide/25-saving.md")]
    struct GuideSaving;
    #[doc = include_str!("../../docs/guide/README.md")]
    struct Guide;
}
