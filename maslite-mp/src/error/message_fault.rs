//! The reasons why a message is impossible: no correct cluster sends it.

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The ways in which a message can be impossible although its frames are well formed. The numbers
/// are stable, so that a report can be looked up.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum MessageFault {
    /// The bytes do not decode to a message, or there are too many or too few.
    #[error("its bytes do not decode to a message")]
    Undecodable = 1,
    /// It is a message, but not the expected one.
    #[error("it is not the expected message")]
    Untimely = 2,
    /// Agents were created for fewer or more calls than main sent.
    #[error("agents were created for fewer or more calls than main sent")]
    Loaded = 3,
    /// Its time, or the time of an alarm in it, is before a time that was reached.
    #[error("time goes back")]
    TimeBack = 4,
    /// Its time is beyond the grant.
    #[error("its time is beyond the grant")]
    TimeBeyond = 5,
    /// It reports more supersteps than granted.
    #[error("more supersteps than granted")]
    Supersteps = 6,
    /// A counter shrinks, or is impossibly large.
    #[error("a counter shrinks, or is impossibly large")]
    Counter = 7,
    /// It has mail for an unknown cluster.
    #[error("unknown cluster")]
    Cluster = 8,
    /// Its mail lies outside of it, is listed twice, or has another length than stated.
    #[error("its mail lies outside of it, is listed twice, or has another length than stated")]
    Batch = 9,
    /// Mail to main has another receiver, or mail to an agent has no receiver.
    #[error("mail with another receiver than stated")]
    Receiver = 10,
    /// Mail, a stop or a removal arrives before it can.
    #[error("mail, a stop or a removal arrives before it can")]
    Arrival = 11,
    /// Lines of its trace lie outside of it.
    #[error("lines of its trace lie outside of it")]
    Trace = 12,
    /// Round after round the cluster did nothing of what was granted.
    #[error("round after round it did nothing of what was granted")]
    Idle = 13,
}

maslite_core::readable_debug!(
    enum MessageFault {
        Undecodable,
        Untimely,
        Loaded,
        TimeBack,
        TimeBeyond,
        Supersteps,
        Counter,
        Cluster,
        Batch,
        Receiver,
        Arrival,
        Trace,
        Idle,
    }
);

/// The number of bytes of an impossible message that its error shows: the last bytes, which hold
/// the summary.
const SHOWN: usize = 64;

impl MessageFault {
    /// Makes the error with which a run ends when a cluster sends such a message. `time` is the
    /// simulated time.
    pub(crate) fn blame(self, cluster: &str, time: SimTime, message: &[u8]) -> Error {
        Error::Protocol {
            cluster: cluster.to_owned(),
            time,
            reason: self,
            tail: message[message.len().saturating_sub(SHOWN)..].to_vec(),
        }
    }
}
