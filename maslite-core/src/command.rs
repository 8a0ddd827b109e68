//! What somebody outside asks of an agent between two supersteps, and why that can fail.

use serde::{Deserialize, Serialize};

use crate::AgentId;

/// An agent's reason for not doing what it was asked to.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

crate::readable_debug!(struct Refusal { reason });

impl Refusal {
    /// A refusal with this reason, in words that go on "agent 3 refuses: …".
    pub fn new(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { reason }
    }
}

/// Why an agent could not be asked, or did not answer. The simulation is as it was.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CommandError {
    /// No agent has this id, or none has it any more.
    #[error("there is no agent {0}, or it was removed")]
    UnknownAgent(AgentId),
    /// The agent is of another type than the one asked for.
    #[error("agent {agent} is a {found}, not a {asked}")]
    WrongType {
        /// The agent.
        agent: AgentId,
        /// The type asked for.
        asked: String,
        /// Its type.
        found: String,
    },
    /// The agent does not do what it was asked to.
    #[error("agent {agent} refuses: {refusal}")]
    Refused {
        /// The agent.
        agent: AgentId,
        /// Its reason.
        refusal: Refusal,
    },
    /// The agent panicked over the command. It lives on, with whatever the command had changed by
    /// then.
    #[error("agent {agent} panicked while it handled a command: {message}")]
    Panicked {
        /// The agent.
        agent: AgentId,
        /// What it said.
        message: String,
    },
    /// The agent's state cannot be written and read again.
    #[error("the state of agent {agent} cannot be copied: {why}")]
    NotCopied {
        /// The agent.
        agent: AgentId,
        /// The serialiser's reason.
        why: String,
    },
}

crate::readable_debug!(enum CommandError {
    UnknownAgent(source),
    WrongType { agent, asked, found },
    Refused { agent, refusal },
    Panicked { agent, message },
    NotCopied { agent, why },
});
