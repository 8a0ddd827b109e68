//! Commands to an agent from outside, between two supersteps: why they can fail.

use serde::{Deserialize, Serialize};

use crate::AgentId;

/// The reason that an agent gives for refusing a command.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

crate::readable_debug!(struct Refusal { reason });

impl Refusal {
    /// Makes a refusal. The reason continues the text "agent 3 refuses: …".
    pub fn new(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { reason }
    }
}

/// Why an agent did not answer a request. The simulation is unchanged and goes on.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CommandError {
    /// No agent has this id, or the agent was removed.
    #[error("there is no agent {0}, or it was removed")]
    UnknownAgent(AgentId),
    /// The agent has another type than the caller asked for.
    #[error("agent {agent} is a {found}, not a {asked}")]
    WrongType {
        /// The agent.
        agent: AgentId,
        /// The type that the caller asked for.
        asked: String,
        /// The type of the agent.
        found: String,
    },
    /// The agent refuses the command.
    #[error("agent {agent} refuses: {refusal}")]
    Refused {
        /// The agent.
        agent: AgentId,
        /// The agent's reason.
        refusal: Refusal,
    },
    /// The agent panicked while it handled the command. It lives on, with the changes that the
    /// command had made before the panic.
    #[error("agent {agent} panicked while it handled a command: {message}")]
    Panicked {
        /// The agent.
        agent: AgentId,
        /// The message of the panic.
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
