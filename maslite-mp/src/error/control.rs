//! Why a request to a simulation failed.

use maslite_core::{AgentId, CommandError};
use serde::{Deserialize, Serialize};

use crate::error::death::ExitKind;
use crate::error::recovery::Dropped;
use crate::error::{Chain, Error};

/// Why a request to a simulation, from another thread or between runs, got no answer.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ControlError {
    /// The agent did not answer. The simulation goes on.
    #[error(transparent)]
    Agent(#[from] CommandError),
    /// The agent's type is not in the registry, so its state cannot be read or written. The
    /// simulation goes on.
    #[error(
        "agent {agent} is a {kind}, which is not registered, so its state cannot cross to this process: derive `Serialize` and `Deserialize` for it, and add `.with::<{kind}>()` to the registry; a builder makes agents, it does not register them"
    )]
    Unregistered {
        /// The agent.
        agent: AgentId,
        /// Its type.
        kind: String,
    },
    /// A request or an answer cannot be serialised. The simulation goes on.
    #[error("{what} cannot be serialised: {why}")]
    Encode {
        /// The value that failed.
        what: String,
        /// The serialiser's reason.
        why: String,
    },
    /// A request or an answer cannot be deserialised. The simulation goes on.
    #[error(
        "{what} cannot be deserialised: {why}; serde attributes such as `flatten` and `untagged` are not supported"
    )]
    Decode {
        /// The value that failed.
        what: String,
        /// The deserialiser's reason.
        why: String,
    },
    /// The handle belongs to another simulation.
    #[error(
        "cluster number {0} does not belong to this simulation: use the `ClusterId` that `new_cluster` of this `MpMain` returned"
    )]
    UnknownCluster(u32),
    /// The cluster, or that of the agent, lost its process and was
    /// [dropped](crate::Recovery::drop_cluster), so it cannot answer. The simulation goes on.
    #[error("no agent of cluster {} is left: {_0}", _0.cluster)]
    Dropped(Box<Dropped>),
    /// The simulation was not saved. It goes on.
    #[error("the simulation was not saved: {0}")]
    NotSaved(String),
    /// The process of a cluster ended during the request, and the simulation with it.
    #[error("the process of cluster {cluster} {exit}; all clusters were stopped")]
    ClusterDied {
        /// Its cluster.
        cluster: String,
        /// How it ended.
        exit: ExitKind,
    },
    /// The simulation failed during the request, for this reason.
    #[error("the simulation failed: {0}")]
    Failed(String),
    /// The simulation has ended.
    #[error("this simulation has ended")]
    Ended,
    /// The thread that runs the simulation used a [`Controller`](crate::Controller). It would wait
    /// for itself.
    #[error("the thread that runs a simulation cannot steer it: use another thread")]
    OwnThread,
}

maslite_core::readable_debug!(enum ControlError {
    Agent(source),
    Unregistered { agent, kind },
    Encode { what, why },
    Decode { what, why },
    UnknownCluster(source),
    Dropped(source),
    NotSaved(source),
    ClusterDied { cluster, exit },
    Failed(source),
    Ended,
    OwnThread,
});

impl From<Error> for ControlError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for ControlError {
    fn from(error: &Error) -> Self {
        match error {
            Error::ClusterDied { cluster, exit, .. } => Self::ClusterDied {
                cluster: cluster.clone(),
                exit: *exit,
            },
            Error::Dropped(dropped) => Self::Dropped(dropped.clone()),
            Error::UnknownCluster(number) => Self::UnknownCluster(*number),
            Error::Encode { what, why } => Self::Encode {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Ended => Self::Ended,
            other => Self::Failed(Chain(other).to_string()),
        }
    }
}
