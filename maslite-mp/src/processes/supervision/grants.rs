//! The numbers of grants, and whether the run under way is interrupted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Numbers the grants of all clusters, and tells whether the run is interrupted.
///
/// The order of the two counts: `MpMain` issues a number and *then* asks
/// [`interrupted`](Self::interrupted); the supervisor marks the run as interrupted and *then* reads
/// the last number. So each grant is either covered by the interrupt, or `MpMain` sees in time that
/// it must not be sent.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// The last number issued.
    pub(super) issued: AtomicU64,
    /// Counts beginnings and ends of runs: odd while a run is on.
    pub(super) run: AtomicU64,
    /// The run that is interrupted, as counted by `run`.
    pub(super) interrupted: AtomicU64,
    /// The supervisor looks now and then whether the run moves, until it finds that there is none.
    /// Runs that follow each other closely need not tell it of every one.
    pub(super) watched: AtomicBool,
}

impl Grants {
    /// The number of the next grant; from 1, over all runs.
    pub(crate) fn issue(&self) -> u64 {
        self.issued.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether the run under way is interrupted: then only grants that bring all clusters to one
    /// instant may still be sent.
    pub(crate) fn interrupted(&self) -> bool {
        self.current_run()
            .is_some_and(|run| self.interrupted.load(Ordering::SeqCst) == run)
    }

    /// The run under way, if any.
    pub(super) fn current_run(&self) -> Option<u64> {
        let run = self.run.load(Ordering::SeqCst);
        (run % 2 == 1).then_some(run)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_numbered_from_one() {
        let grants = Grants::default();
        assert_eq!([grants.issue(), grants.issue(), grants.issue()], [1, 2, 3]);
        assert!(!grants.interrupted());
    }
}
