//! What can happen to a packet, and to the child on whose link it is.

use std::collections::BTreeMap;

use maslite_core::{AgentRng, SimTime};
use rand::RngExt;

use crate::error::Error;
use crate::error::control::ControlError;
use crate::error::death::ExitKind;
use crate::error::link::{FrameFault, LinkError};
use crate::error::warning::Limit;

/// A fault. Numbers say where in the packet, if that is a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not arrive.
    Lost,
    /// It arrives twice.
    Repeated,
    /// It arrives later by this time, and others may overtake it.
    Late(u64),
    /// One of its bits is another.
    Flipped(u64),
    /// It ends too soon.
    Shortened(u64),
    /// This number of bytes follows it.
    Lengthened(u64),
    /// The child is killed before it is sent.
    KilledBefore,
    /// The child is killed right after it was sent: if it sent it itself the packet arrives.
    KilledAfter,
    /// The child is killed later by this time.
    KilledLater(u64),
    /// The link is closed once it was sent, and the child lives.
    Closed,
    /// Its receiver is told that the carrier failed.
    Failed,
}

/// Which packets are to meet which faults, counted from 0 over all links and directions.
pub(crate) type Plan = BTreeMap<u64, Fault>;

impl Fault {
    fn any(chance: &mut AgentRng) -> Self {
        let number = chance.random();
        match chance.random_range(0..15_u32) {
            0..2 => Self::Lost,
            2 => Self::Repeated,
            3 => Self::Late(number % 5_000),
            4..6 => Self::Flipped(number),
            6 => Self::Shortened(number),
            7 => Self::Lengthened(number % 40),
            8 => Self::KilledBefore,
            9..11 => Self::KilledAfter,
            11..13 => Self::KilledLater(number % 2_000),
            13 => Self::Failed,
            _ => Self::Closed,
        }
    }

    /// Draws one fault among this number of packets, now and then some more.
    pub(crate) fn plan(chance: &mut AgentRng, packets: u64) -> Plan {
        let count = chance.random_range(1..=4_u32).saturating_sub(1).max(1);
        let faults = (0..count).map(|_| (chance.random_range(0..packets), Self::any(chance)));
        faults.collect()
    }

    /// What becomes of the bytes of a packet.
    pub(crate) fn mangle(self, packet: &mut Vec<u8>) {
        let place = |number: u64, of: usize| usize::try_from(number % of as u64).unwrap_or(0);
        match self {
            Self::Flipped(number) => {
                let bit = place(number, packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            Self::Shortened(number) => packet.truncate(place(number, packet.len())),
            Self::Lengthened(number) => {
                let bytes = (0..=number).map(|byte| byte.to_le_bytes()[0]);
                packet.extend(bytes);
            }
            _ => {}
        }
    }

    /// Whether the party that receives or misses the packet may refuse a frame for this reason.
    fn explains(self, reason: FrameFault) -> bool {
        match self {
            Self::Lost | Self::Repeated | Self::Late(_) => matches!(
                reason,
                FrameFault::OutOfOrder | FrameFault::FalseAck | FrameFault::EmptyCredit
            ),
            Self::Flipped(_) | Self::Shortened(_) | Self::Lengthened(_) => matches!(
                reason,
                FrameFault::Checksum | FrameFault::TooShort | FrameFault::TooLong
            ),
            _ => false,
        }
    }

    /// Whether the child may have ended like this.
    fn explains_end(self, exit: ExitKind) -> bool {
        match self {
            Self::KilledBefore | Self::KilledAfter | Self::KilledLater(_) => {
                exit == ExitKind::Signal(9)
            }
            Self::Closed => exit == ExitKind::LifelineLost,
            _ => exit == ExitKind::ProtocolMismatch,
        }
    }
}

/// Whether an error is one that these faults may have, each of which struck the link of the cluster
/// named with it.
pub(crate) fn explain(error: &Error, struck: &[(String, Fault)]) -> bool {
    let on = |name: &str, is_it: &dyn Fn(Fault) -> bool| {
        struck
            .iter()
            .any(|(cluster, fault)| cluster == name && is_it(*fault))
    };
    match error {
        Error::ClusterDied {
            cluster,
            exit,
            others,
            ..
        } => {
            let ended = |name: &str, exit: ExitKind| on(name, &|fault| fault.explains_end(exit));
            ended(cluster, *exit) && others.iter().all(|death| ended(&death.cluster, death.exit))
        }
        Error::Link {
            cluster,
            source: LinkError::BadFrame { reason, .. },
            ..
        } => on(cluster, &|fault| fault.explains(*reason)),
        Error::Link {
            cluster,
            source: LinkError::Io(_),
            ..
        } => on(cluster, &|fault| fault == Fault::Failed),
        Error::Stuck {
            cluster,
            limit: Limit::Answer(_),
            ..
        } => on(cluster, &|fault| fault == Fault::Lost),
        _ => false,
    }
}

/// The same for what a command or a request failed with, which says less.
pub(crate) fn explain_briefly(error: &ControlError, struck: &[(String, Fault)]) -> bool {
    struck.iter().any(|(name, fault)| match error {
        ControlError::ClusterDied { cluster, exit } => cluster == name && fault.explains_end(*exit),
        ControlError::Failed(text) => {
            let is_named = text.contains(&format!("cluster {name} "));
            is_named && !fault.explains_end(ExitKind::Signal(9))
        }
        _ => false,
    })
}

/// Where the simulation stood when it failed, if the error tells.
pub(crate) fn time_of(error: &Error) -> Option<SimTime> {
    match error {
        Error::ClusterDied { time, .. } | Error::Link { time, .. } | Error::Stuck { time, .. } => {
            Some(*time)
        }
        _ => None,
    }
}

/// What it was in short, to be counted.
pub(crate) fn in_short(error: &Error) -> String {
    match error {
        Error::ClusterDied { exit, .. } => format!("the child {exit}"),
        Error::Link { source, .. } => match source {
            LinkError::BadFrame { reason, .. } => format!("refused: {reason}"),
            other => other.to_string(),
        },
        Error::Stuck { .. } => "no answer".to_owned(),
        other => other.to_string(),
    }
}
