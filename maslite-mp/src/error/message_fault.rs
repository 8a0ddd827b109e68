//! What is wrong with a message that no correct cluster sends.

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The ways in which a message can be impossible although its frames are well formed. The numbers are stable, so that a report can
/// be looked up.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum MessageFault {
    /// Its bytes are no message, or there are too many or too few.
    #[error("its bytes do not decode to a message")]
    Undecodable = 1,
    /// It is a message, and not one that is expected now.
    #[error("it is not the expected message")]
    Untimely = 2,
    /// Agents were made for fewer or more calls than were sent.
    #[error("agents were created for fewer or more calls than main sent")]
    Loaded = 3,
    /// Its time, or that of an alarm in it, is before one that was reached.
    #[error("time goes back")]
    TimeBack = 4,
    /// Its time is beyond what was granted.
    #[error("its time is beyond the grant")]
    TimeBeyond = 5,
    /// More supersteps than were granted.
    #[error("more supersteps than granted")]
    Supersteps = 6,
    /// A counter shrinks, or is beyond all bounds.
    #[error("a counter shrinks, or is impossibly large")]
    Counter = 7,
    /// Mail for a cluster that there is not.
    #[error("unknown cluster")]
    Cluster = 8,
    /// Its mail is not within it, is there twice, or is not as much as it says.
    #[error("its mail lies outside of it, is listed twice, or has another length than stated")]
    Batch = 9,
    /// Mail to main that is for somebody else, or mail to an agent that names none.
    #[error("mail with another receiver than stated")]
    Receiver = 10,
    /// Mail, a stop or a removal that comes before it can.
    #[error("mail, a stop or a removal arrives before it can")]
    Arrival = 11,
    /// Lines of a trace that are not within it.
    #[error("lines of its trace lie outside of it")]
    Trace = 12,
    /// Again and again nothing of what was granted was done.
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

/// Bytes of an impossible message that its error shows: the last ones, where its note is.
const SHOWN: usize = 64;

impl MessageFault {
    /// What a run ends with when a cluster sends such a message. `time`: where the simulation stands.
    pub(crate) fn blame(self, cluster: &str, time: SimTime, message: &[u8]) -> Error {
        Error::Protocol {
            cluster: cluster.to_owned(),
            time,
            reason: self,
            tail: message[message.len().saturating_sub(SHOWN)..].to_vec(),
        }
    }
}
