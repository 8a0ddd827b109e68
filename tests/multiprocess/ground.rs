//! Where the clusters of a test run, and what carries their messages.

use maslite_mp::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Inline,
    /// In processes, over rings in shared memory.
    Ring,
    /// In processes, over ipc-channel.
    Channel,
}

pub(crate) const ALL: [Ground; 3] = [Ground::Inline, Ground::Ring, Ground::Channel];

pub(crate) const PROCESSES: [Ground; 2] = [Ground::Ring, Ground::Channel];

/// Puts a supervisor on a ground.
pub(crate) trait Grounded {
    fn on(self, ground: Ground) -> Self;
}

impl<M: maslite_mp::WireMessage> Grounded for MpMain<M> {
    fn on(self, ground: Ground) -> Self {
        match ground {
            Ground::Inline => self.with_placement(Placement::Inline),
            // Shared memory is there on Linux alone; elsewhere this is the channel a second time.
            Ground::Ring if cfg!(target_os = "linux") => self.with_link(Link::Ring),
            Ground::Ring => self,
            Ground::Channel => self.with_link(Link::Channel),
        }
    }
}
