//! Why a cluster cannot go on, as it says so to main.

use maslite_core::{IdError, SimTime};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::error::message_fault::MessageFault;

/// Why a scheduler cannot go on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Fault {
    Agent(maslite_core::Error),
    UnknownKind {
        kind: String,
        known: Vec<String>,
    },
    UnknownBuilder {
        builder: String,
        known: Vec<String>,
    },
    Decode {
        what: String,
        why: String,
    },
    Encode {
        what: String,
        why: String,
    },
    Asymmetric {
        what: String,
        why: String,
    },
    /// Mail that was brought cannot be.
    Refused {
        reason: MessageFault,
        time: SimTime,
    },
}

impl Fault {
    /// The error that it is to the user.
    pub(crate) fn blame(self, cluster: &str) -> Error {
        let cluster = cluster.to_owned();
        match self {
            Self::Agent(error) => match error {
                // Which cluster heard of the second name is chance; an exchange is not of one
                // cluster.
                maslite_core::Error::BadId(IdError::Collision(..))
                | maslite_core::Error::EndlessExchange { .. } => Error::Model(error),
                source => Error::Agent { cluster, source },
            },
            Self::UnknownKind { kind, known } => Error::UnknownAgentType { kind, known },
            Self::UnknownBuilder { builder, known } => Error::UnknownBuilder { builder, known },
            Self::Decode { what, why } => Error::Decode { cluster, what, why },
            Self::Encode { what, why } => Error::EncodeInCluster { cluster, what, why },
            Self::Asymmetric { what, why } => Error::Asymmetric {
                cluster: Some(cluster),
                what,
                why,
            },
            Self::Refused { reason, time } => Error::Refused {
                cluster,
                reason,
                time,
            },
        }
    }
}
