//! The errors of runs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AgentId, IdError, SimDuration, SimTime, Topic};

/// Why a run, or a call that prepares one, failed.
///
/// After an error from `run` the simulation cannot continue, because half of the failing superstep
/// has happened.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// Two agents were added with one id. Ids are never reused.
    #[error("agent {id} was added twice, by {first} and by {second}: give one of them another id")]
    DuplicateAgent {
        /// The id.
        id: AgentId,
        /// Who added the first agent.
        first: Adder,
        /// Who added the second agent.
        second: Adder,
    },
    /// No agent may have this id.
    #[error(transparent)]
    BadId(#[from] IdError),
    /// No agent ever had this id.
    #[error("no agent {0} was ever added to this simulation")]
    UnknownAgent(AgentId),
    /// An agent removed an id that no agent ever had.
    #[error(
        "at {time} agent {by} removed agent {id}, but no agent ever had this id: remove only agents that were added"
    )]
    RemovedUnknown {
        /// The id.
        id: AgentId,
        /// The agent that removed it.
        by: AgentId,
        /// When \[simulated\].
        time: SimTime,
    },
    /// An agent panicked.
    #[error(
        "agent {agent} panicked in {phase} at {time}, superstep {superstep}{}: {message}",
        .place.as_ref().map_or_else(String::new, |place| format!(", in {place}"))
    )]
    AgentPanicked {
        /// The agent.
        agent: AgentId,
        /// The method that panicked.
        phase: Phase,
        /// When \[simulated\].
        time: SimTime,
        /// The superstep within that instant.
        superstep: u64,
        /// The message of the panic.
        message: String,
        /// The place in the source: file, line and column. None if the program replaced the panic
        /// hook during the run.
        place: Option<Box<str>>,
        /// The backtrace, if the environment asks for one (`RUST_BACKTRACE=1`).
        backtrace: Option<Box<str>>,
    },
    /// Code of the model that belongs to no agent panicked: a builder, an encoding, a topic, the
    /// format of the trace.
    #[error(
        "{what} panicked at {time}, superstep {superstep}{}: {message}",
        .place.as_ref().map_or_else(String::new, |place| format!(", in {place}"))
    )]
    ModelPanicked {
        /// The code that panicked.
        what: Box<str>,
        /// When \[simulated\].
        time: SimTime,
        /// The superstep within that instant.
        superstep: u64,
        /// The message of the panic.
        message: Box<str>,
        /// The place in the source: file, line and column, if known.
        place: Option<Box<str>>,
        /// The backtrace, if the environment asks for one (`RUST_BACKTRACE=1`).
        backtrace: Option<Box<str>>,
    },
    /// An agent set an alarm beyond the end of simulated time.
    #[error(
        "at {time} agent {agent} set an alarm {delay} ahead, beyond the end of simulated time: use a shorter delay"
    )]
    TimeOverflow {
        /// The agent that set it.
        agent: AgentId,
        /// When \[simulated\].
        time: SimTime,
        /// The delay of the alarm.
        delay: SimDuration,
    },
    /// An agent set a periodic alarm with a period of zero.
    #[error(
        "at {time} agent {agent} set a periodic alarm with a period of zero, which would never let time pass: give it a longer period"
    )]
    ZeroPeriod {
        /// The agent that set it.
        agent: AgentId,
        /// When \[simulated\].
        time: SimTime,
    },
    /// An agent called `reply` in a call in which it took no mail.
    #[error(
        "at {time} agent {agent} called `reply` in a call in which it took no mail: use `send` and name the receiver"
    )]
    NothingToReplyTo {
        /// The agent that called it.
        agent: AgentId,
        /// When \[simulated\].
        time: SimTime,
    },
    /// Agents exchange mail without end while simulated time stands still.
    #[error(
        "endless exchange at {time}: time stands still after {limit} supersteps, awake agents: {}; let time pass between \
         request and answer (`ctx.alarm_in`), or raise the limit on supersteps per instant",
        Listed(.agents)
    )]
    EndlessExchange {
        /// The instant.
        time: SimTime,
        /// The number of supersteps of the instant, which is the limit.
        limit: u64,
        /// The first sixteen agents that are awake, or kept awake, by insertion index.
        agents: Vec<AgentId>,
    },
    /// A message cannot be serialised, and the run computes a content digest.
    #[error(
        "at {time} message {topic} of agent {sender} to agent {agent} cannot be serialised for the content digest: {why}; \
         correct its `Serialize`, or run without a content digest"
    )]
    Undigested {
        /// The topic of the message.
        topic: Topic,
        /// The sender.
        sender: AgentId,
        /// The receiver.
        agent: AgentId,
        /// When \[simulated\].
        time: SimTime,
        /// The serialiser's reason.
        why: String,
    },
    /// The state of an agent cannot be saved: its type is not registered, or cannot be serialised.
    #[error("at {time} the state of agent {agent} of type {kind} cannot be saved: {why}")]
    Unsaved {
        /// The agent.
        agent: AgentId,
        /// Its type.
        kind: Box<str>,
        /// When \[simulated\].
        time: SimTime,
        /// The reason.
        why: Box<str>,
    },
    /// A saved state cannot be restored.
    #[error("at {time} {what} cannot be restored from what was saved: {why}")]
    Unrestored {
        /// The agent, or the part of the state.
        what: Box<str>,
        /// When \[simulated\].
        time: SimTime,
        /// The reason.
        why: Box<str>,
    },
    /// The program started a run after a run that failed.
    #[error(
        "an earlier run ended with an error or with a panic of a callback, so this simulation cannot continue: build a new one"
    )]
    Failed,
}

/// The largest number of agents that the error of an endless exchange names.
pub const AWAKE_NAMED: usize = 16;

crate::readable_debug!(enum Error {
    DuplicateAgent { id, first, second },
    BadId(source),
    UnknownAgent(source),
    RemovedUnknown { id, by, time },
    AgentPanicked { agent, phase, time, superstep, message, place, backtrace },
    ModelPanicked { what, time, superstep, message, place, backtrace },
    TimeOverflow { agent, time, delay },
    ZeroPeriod { agent, time },
    NothingToReplyTo { agent, time },
    EndlessExchange { time, limit, agents },
    Undigested { topic, sender, agent, time, why },
    Unsaved { agent, kind, time, why },
    Unrestored { what, time, why },
    Failed,
});

/// Who added an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adder {
    /// The owner of the simulation, before or between runs.
    Owner,
    /// An agent, at this time.
    Agent(AgentId, SimTime),
    /// No longer known: the agent was removed long ago.
    Forgotten,
}

impl fmt::Display for Adder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("the simulation's owner"),
            Self::Agent(id, time) => write!(f, "agent {id} at {time}"),
            Self::Forgotten => {
                f.write_str("an adder that is no longer known (the agent was removed long ago)")
            }
        }
    }
}

/// The method that an agent executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// `Agent::setup`.
    Setup,
    /// `Agent::update` or `Agent::receive`.
    Update,
    /// `Agent::teardown`.
    Teardown,
    /// `Drop`, after its removal or at the end.
    Drop,
    /// `Agent::command`, or another request that looks at the agent or replaces it.
    Request,
    /// `Agent::restored`.
    Restored,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "setup",
            Self::Update => "update",
            Self::Teardown => "teardown",
            Self::Drop => "drop",
            Self::Request => "request",
            Self::Restored => "restored",
        })
    }
}

/// The place of a failure in the kernel's one order. Everything before it has happened, and nothing
/// after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailurePlace {
    /// The instant.
    pub time: SimTime,
    /// The superstep within it.
    pub superstep: u64,
    /// The part of the superstep.
    pub stage: FailureStage,
    /// The insertion index of the failing agent; 0 if no agent failed.
    pub index: u64,
    /// The index of the failing action among the agent's actions in that part of the superstep.
    pub sequence: u64,
}

impl FailurePlace {
    /// Whether what the agent with this insertion index does in a superstep comes before the
    /// failure, the failing agent's own update included.
    #[must_use]
    pub fn is_after(&self, time: SimTime, superstep: u64, index: u64) -> bool {
        let last = match self.stage {
            FailureStage::Start => return (time, superstep) < (self.time, self.superstep),
            FailureStage::Update => self.index,
            FailureStage::Birth | FailureStage::Removal | FailureStage::Handover => u64::MAX,
        };
        (time, superstep, index) <= (self.time, self.superstep, last)
    }
}

/// The parts of a superstep in which a run can fail, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureStage {
    /// Before the first update: no single agent is to blame.
    Start,
    /// Agents are set up, updated and torn down.
    Update,
    /// Agents that were added get their ids.
    Birth,
    /// Agents are removed.
    Removal,
    /// Mail leaves for other clusters.
    Handover,
}

struct Listed<'a>(&'a [AgentId]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, agent) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{agent}")?;
        }
        Ok(())
    }
}
