//! A multi-process agent messaging kernel.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

// What a program uses.
mod error;
mod mp_main;
mod registry;

// How main and the clusters agree on time and mail.
mod mp_scheduler;
mod rounds;
mod routing;
mod wire;

// How they reach each other.
mod fleet;
mod frame;
mod inline;
mod ipc;
mod transport;

// How processes start, and what their ends mean.
mod spawn;
mod stop;
mod supervision;

pub use maslite_core as core;
pub use maslite_core::{clock, engine};

pub use error::{Chain, Error};
pub use mp_main::{ClusterId, ClusterReport, MpMain, MpReport, Placement, Shutdown};
pub use registry::{Crew, Entered, Registry, WireMessage};
pub use spawn::{ChildError, SpawnError};
pub use stop::StopHandle;
pub use supervision::{ChildEnd, EndKind, ExitKind};
pub use transport::{FrameFault, LinkError};

/// All that a model and the program around it use.
pub mod prelude {
    pub use maslite_core::{
        Agent, AgentId, AgentRng, Alarm, AlarmFilter, AlarmId, Clock, Context, Counters, Delivery,
        Mail, MainContext, Message, Pattern, Receiver, Report, Run, Scheduler, SimDuration,
        SimTime, StopReason, Topic,
    };

    pub use crate::{ClusterId, Crew, Entered, MpMain, MpReport, Placement, Registry};
}
