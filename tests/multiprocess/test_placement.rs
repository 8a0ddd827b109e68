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
    /// Inline, where every cluster forgets everything after each superstep and comes back.
    Forgetful,
    /// The same in processes, over rings.
    ForgetfulRing,
    /// Inline, where clusters run ahead of what is final by chance.
    Ahead,
    /// The same in processes, over rings.
    AheadRing,
}

/// Where clusters forget everything, again and again.
pub(crate) const FORGETFUL: [TestPlacement; 2] =
    [TestPlacement::Forgetful, TestPlacement::ForgetfulRing];

pub(crate) const ALL: [TestPlacement; 3] = [
    TestPlacement::Inline,
    TestPlacement::Ring,
    TestPlacement::Channel,
];

/// For models whose agents can be forgotten.
pub(crate) const ALL_AND_FORGETFUL: [TestPlacement; 5] = [
    TestPlacement::Inline,
    TestPlacement::Ring,
    TestPlacement::Channel,
    TestPlacement::Forgetful,
    TestPlacement::ForgetfulRing,
];

pub(crate) const PROCESSES: [TestPlacement; 2] = [TestPlacement::Ring, TestPlacement::Channel];

impl TestPlacement {
    pub(crate) fn is_inline(self) -> bool {
        matches!(self, Self::Inline | Self::Forgetful | Self::Ahead)
    }
}

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
            TestPlacement::Forgetful => self.on(TestPlacement::Inline).amnesia(Some(1)),
            TestPlacement::ForgetfulRing => self.on(TestPlacement::Ring).amnesia(Some(1)),
            TestPlacement::Ahead => {
                let settings = self.on(TestPlacement::Inline);
                settings.speculation(Speculation::Random(5))
            }
            TestPlacement::AheadRing => {
                let settings = self.on(TestPlacement::Ring);
                settings.speculation(Speculation::Random(6))
            }
        }
    }
}
