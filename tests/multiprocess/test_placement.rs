//! Where the clusters of a test run, and what carries their messages.

use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestPlacement {
    Inline,
    /// In processes, over rings in shared memory.
    Ring,
    /// In processes, over ipc-channel.
    Channel,
}

pub(crate) const ALL: [TestPlacement; 3] = [
    TestPlacement::Inline,
    TestPlacement::Ring,
    TestPlacement::Channel,
];

pub(crate) const PROCESSES: [TestPlacement; 2] = [TestPlacement::Ring, TestPlacement::Channel];

/// Sets where the clusters of a simulation run.
pub(crate) trait PlacedOn {
    fn on(self, placement: TestPlacement) -> Self;
}

impl<M: maslite_mp::WireMessage> PlacedOn for MpMainBuilder<M> {
    fn on(self, placement: TestPlacement) -> Self {
        match placement {
            TestPlacement::Inline => self.placement(Placement::Inline),
            // Shared memory is there on Linux alone; elsewhere this is the channel a second time.
            TestPlacement::Ring if cfg!(target_os = "linux") => self.link(Link::Ring),
            TestPlacement::Ring => self,
            TestPlacement::Channel => self.link(Link::Channel),
        }
    }
}
