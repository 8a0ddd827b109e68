//! What can go wrong in a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AgentId, IdError, SimDuration, SimTime, Topic};

/// Why a run, or a call that prepares one, failed.
///
/// After an error from `run` the simulation cannot go on: what the failing superstep did is only
/// half done.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// Two agents with one id. An id is never used twice in a run.
    #[error("agent {id} was added twice, by {first} and by {second}: give one of them another id")]
    DuplicateAgent {
        /// The id.
        id: AgentId,
        /// Who added the agent that has it.
        first: Adder,
        /// Who tried to add another.
        second: Adder,
    },
    /// An id that no agent may bear.
    #[error(transparent)]
    BadId(#[from] IdError),
    /// There was never an agent with this id.
    #[error("no agent {0} was ever added to this simulation")]
    UnknownAgent(AgentId),
    /// An agent asked for the removal of an agent that never was.
    #[error(
        "at {time} agent {by} removed agent {id}, but no agent ever had this id: remove only agents that were added"
    )]
    RemovedUnknown {
        /// The id that nobody has.
        id: AgentId,
        /// Who asked.
        by: AgentId,
        /// When.
        time: SimTime,
    },
    /// An agent panicked.
    #[error(
        "agent {agent} panicked in {phase} at {time}, superstep {superstep}{}: {message}",
        .place.as_ref().map_or_else(String::new, |place| format!(", in {place}"))
    )]
    AgentPanicked {
        /// Which.
        agent: AgentId,
        /// In which of its methods.
        phase: Phase,
        /// When.
        time: SimTime,
        /// The superstep within that instant.
        superstep: u64,
        /// What it said.
        message: String,
        /// Where in its source: file, line and column. None if the program has replaced the panic
        /// hook during the run.
        place: Option<Box<str>>,
        /// How it came there, if the environment asks for it (`RUST_BACKTRACE=1`).
        backtrace: Option<Box<str>>,
    },
    /// Code of the model that belongs to no agent panicked: a builder, an encoding, a topic, the format of the trace.
    #[error(
        "{what} panicked at {time}, superstep {superstep}{}: {message}",
        .place.as_ref().map_or_else(String::new, |place| format!(", in {place}"))
    )]
    ModelPanicked {
        /// What was called.
        what: Box<str>,
        /// When.
        time: SimTime,
        /// The superstep within that instant.
        superstep: u64,
        /// What it said.
        message: Box<str>,
        /// Where in its source: file, line and column, as far as known.
        place: Option<Box<str>>,
        /// How it came there, if the environment asks for it (`RUST_BACKTRACE=1`).
        backtrace: Option<Box<str>>,
    },
    /// An alarm was set for a time that no clock reaches.
    #[error(
        "at {time} agent {agent} set an alarm {delay} ahead, beyond the end of simulated time: use a shorter delay"
    )]
    TimeOverflow {
        /// Who set it.
        agent: AgentId,
        /// When.
        time: SimTime,
        /// How far ahead.
        delay: SimDuration,
    },
    /// A periodic alarm was set whose period is zero.
    #[error(
        "at {time} agent {agent} set a periodic alarm with a period of zero, which would never let time pass: give it a longer period"
    )]
    ZeroPeriod {
        /// Who set it.
        agent: AgentId,
        /// When.
        time: SimTime,
    },
    /// An agent replied where there is no mail to reply to.
    #[error(
        "at {time} agent {agent} called `reply` in a call in which it took no mail: use `send` and name the receiver"
    )]
    NothingToReplyTo {
        /// Who called it.
        agent: AgentId,
        /// When.
        time: SimTime,
    },
    /// The agents go on exchanging mail while time stands still.
    #[error(
        "endless exchange at {time}: time stands still after {limit} supersteps, awake agents: {}; let time pass between \
         request and answer (`ctx.alarm_in`), or raise the limit on supersteps per instant",
        Listed(.agents)
    )]
    EndlessExchange {
        /// The instant that does not end.
        time: SimTime,
        /// How many supersteps it had.
        limit: u64,
        /// The first sixteen agents that are awake, or kept awake, by insertion index.
        agents: Vec<AgentId>,
    },
    /// A message does not serialise, and a digest of contents was asked for.
    #[error(
        "at {time} message {topic} of agent {sender} to agent {agent} cannot be serialised for the content digest: {why}; \
         correct its `Serialize`, or run without a content digest"
    )]
    Undigested {
        /// Its topic.
        topic: Topic,
        /// Who sent it.
        sender: AgentId,
        /// Who was to get it.
        agent: AgentId,
        /// When.
        time: SimTime,
        /// The serialiser's reason.
        why: String,
    },
    /// A run was asked for after one that failed.
    #[error(
        "an earlier run ended with an error or with a panic of a callback, so this simulation cannot continue: build a new one"
    )]
    Failed,
}

impl Error {
    /// So many agents an endless exchange names.
    #[doc(hidden)]
    pub const AWAKE_NAMED: usize = 16;
}

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
    Failed,
});

/// Who added an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adder {
    /// The owner of the simulation, before or between runs.
    Owner,
    /// An agent, at this time.
    Agent(AgentId, SimTime),
    /// Not known any more: the agent went long ago.
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

/// What an agent was doing.
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
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "setup",
            Self::Update => "update",
            Self::Teardown => "teardown",
            Self::Drop => "drop",
        })
    }
}

/// Where in the kernel's one order a run failed. What comes before it has happened; what comes after it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailurePlace {
    /// The instant.
    pub time: SimTime,
    /// The superstep within it.
    pub superstep: u64,
    /// The part of the superstep.
    pub stage: FailureStage,
    /// The insertion index of the agent at fault; 0 if none is.
    pub index: u64,
    /// Of several things that this agent did there, which one.
    pub sequence: u64,
}

impl FailurePlace {
    /// Whether what the agent with this insertion index does in a superstep comes before the failure, the failing
    /// agent's own update included.
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
    /// Before the first update: nobody is to blame alone.
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
