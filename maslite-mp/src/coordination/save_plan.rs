//! What a run needs to be saved, and when it is saved by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::clock::wall;
use maslite_core::{SimDuration, SimTime};

use crate::cluster::registry::{Registry, WireMessage};
use crate::snapshot::saves::Saves;

/// How many saves in a row may fail before the run ends.
const FAILURES: u32 = 3;

/// What the head of a snapshot says of a simulation as a whole.
pub(crate) struct HeadSource<M: WireMessage> {
    pub(crate) registry: Arc<Registry<M>>,
    pub(crate) seed: u64,
    pub(crate) has_digest: bool,
    /// Agents whose types are never saved are left out.
    pub(crate) leaving_out: bool,
}

/// Saving takes at most one part in this many of the wall time.
const SHARE: u32 = 20;

/// What a run needs to be saved.
pub(crate) struct Saving<M: WireMessage> {
    pub(crate) subject: HeadSource<M>,
    pub(crate) automatic: Option<Automatic>,
}

/// When a simulation is saved next, by itself.
pub(crate) struct Automatic {
    pub(super) policy: Saves,
    /// Of saves by simulated time.
    next: Option<SimTime>,
    /// A save is due when the instant is over that ends before this one.
    due: Option<SimTime>,
    /// Before this moment no save by wall time is begun.
    not_before: Option<Instant>,
    /// How many have failed in a row.
    failures: u32,
}

impl Automatic {
    pub(crate) fn new(policy: Saves) -> Self {
        Self {
            policy,
            next: None,
            due: None,
            not_before: None,
            failures: 0,
        }
    }

    pub(crate) fn policy(&self) -> &Saves {
        &self.policy
    }

    /// When the run is to come by next, if it stands at `now`.
    pub(super) fn upcoming(&mut self, now: SimTime) -> Option<SimTime> {
        if let Some(every) = self.policy.every_simulated {
            let next = self.next.filter(|next| *next > now);
            self.next = next.or_else(|| next_multiple(now, every));
        }
        self.due.into_iter().chain(self.next).min()
    }

    /// Whether a run that stands at `now` is to be saved.
    pub(super) fn is_due(&self, now: SimTime) -> bool {
        let times = self.due.into_iter().chain(self.next);
        times.min().is_some_and(|time| time <= now)
    }

    /// A save by wall time is wanted.
    pub(super) fn want(&mut self, now: SimTime) {
        if self.not_before.is_none_or(|moment| moment <= wall()) {
            self.due = now.checked_add(SimDuration::from_nanos(1));
        }
    }
}

impl Automatic {
    /// A save begins.
    pub(super) fn begin(&mut self) {
        (self.due, self.next) = (None, None);
    }

    /// A save, or the attempt, has taken so long.
    pub(super) fn rest_after(&mut self, took: Duration) {
        self.not_before = wall().checked_add(took * SHARE);
    }

    /// A save is on the disk.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// A save has failed. Tells whether that was one too many.
    pub(super) fn fail(&mut self) -> bool {
        self.failures += 1;
        self.failures >= FAILURES
    }
}

/// The first whole multiple of a duration after a time.
fn next_multiple(now: SimTime, every: SimDuration) -> Option<SimTime> {
    let passed = now.as_nanos() / every.as_nanos();
    let next = passed.checked_add(1)?.checked_mul(every.as_nanos())?;
    Some(SimTime::from_nanos(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_save_is_at_a_whole_multiple() {
        let every = SimDuration::from_secs(10);
        let policy = Saves::into("somewhere").every_simulated(every);
        let mut automatic = Automatic::new(policy);
        let at = SimTime::from_secs;
        assert_eq!(automatic.upcoming(at(0)), Some(at(10)));
        assert!(!automatic.is_due(at(9)) && automatic.is_due(at(10)));
        automatic.next = None;
        assert_eq!(automatic.upcoming(at(10)), Some(at(20)));
        // By wall time: once the instant is over.
        automatic.want(at(13));
        let after = SimTime::from_nanos(at(13).as_nanos() + 1);
        assert_eq!(automatic.upcoming(at(13)), Some(after));
        assert!(!automatic.is_due(at(13)) && automatic.is_due(at(14)));
        let mut last = Automatic::new(Saves::into("somewhere").every_simulated(every));
        assert_eq!(last.upcoming(SimTime::MAX), None);
    }
}
