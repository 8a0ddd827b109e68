//! Where the wall time of a run goes: of each cluster, and of main.
//!
//! ```text
//! main:     routes ──┬── waits for reports ──┬── routes ──┬── waits …
//! cluster:  blocked ─┴── busy ──┬─ blocked ──┴────────────┴── busy …
//! ```
//!
//! A cluster is *busy* from a grant to its report. Otherwise it is *blocked* if it had something to
//! do when it last reported, mail or an alarm, but others must get as far first; and it is
//! *waiting* if it had nothing to do. Main waits while a grant is under way, and works the rest of
//! the time.
//!
//! The clock is read when main begins to wait and when it has all reports: never by a cluster that
//! runs on alone. A cluster in a process tells how long it was busy, which takes two looks at the
//! clock for a grant. Inline main finds out, with a look for every report.
//!
//! **Invariant:** the three times of a cluster add up to the wall time of the run.

use std::time::{Duration, Instant};

use maslite_core::clock::wall;

/// The meter of one simulation; its times are of the run that goes on, or of the last one.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: fn() -> Instant,
    /// Clusters have processes of their own, which tell how long they were busy.
    apart: bool,
    began: Instant,
    /// When main last began or ceased to wait; inline also when it last had a report.
    mark: Instant,
    /// When the round at hand began.
    round: Instant,
    /// How long main has waited.
    waited: Duration,
    clusters: Vec<Spent>,
}

/// Where the time of one cluster went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) busy: Duration,
    /// It had something to do, but had to wait for others.
    pub(crate) blocked: Duration,
    /// It had nothing to do.
    pub(crate) waiting: Duration,
    /// Until when this is.
    pub(crate) until: Instant,
    /// It had something to do when it last reported.
    pub(crate) has_plans: bool,
    /// How long it says that it was busy, since it was started \[ns\].
    told: u64,
}

impl Spent {
    fn rest(&mut self, time: Duration) {
        if self.has_plans {
            self.blocked += time;
        } else {
            self.waiting += time;
        }
    }
}

impl Meter {
    /// `apart`: the clusters are processes.
    pub(crate) fn new(apart: bool) -> Self {
        Self::by(wall, apart)
    }

    fn by(clock: fn() -> Instant, apart: bool) -> Self {
        let now = clock();
        Self {
            clock,
            apart,
            began: now,
            mark: now,
            round: now,
            waited: Duration::ZERO,
            clusters: Vec::new(),
        }
    }

    /// A run of this number of clusters begins.
    pub(crate) fn begin_run(&mut self, clusters: usize) {
        let now = (self.clock)();
        let fresh = Spent {
            busy: Duration::ZERO,
            blocked: Duration::ZERO,
            waiting: Duration::ZERO,
            until: now,
            has_plans: false,
            told: 0,
        };
        for spent in &mut self.clusters {
            let Spent {
                told, has_plans, ..
            } = *spent;
            *spent = Spent {
                told,
                has_plans,
                ..fresh
            };
        }
        self.clusters.resize(clusters, fresh);
        self.began = now;
        self.mark = now;
        self.round = now;
        self.waited = Duration::ZERO;
    }

    /// A run ends: what is not accounted for is now.
    pub(crate) fn end_run(&mut self) {
        let now = (self.clock)();
        self.mark = now;
        for spent in &mut self.clusters {
            spent.rest(now.saturating_duration_since(spent.until));
            spent.until = now;
            // A cluster may begin before main, which has told it to, notes that it waits: that time
            // was taken for rest, and it was busy.
            let run = now.saturating_duration_since(self.began);
            let sum = spent.busy + spent.blocked + spent.waiting;
            let twice = sum.saturating_sub(run);
            let of_blocked = twice.min(spent.blocked);
            spent.blocked -= of_blocked;
            spent.waiting = spent.waiting.saturating_sub(twice - of_blocked);
        }
    }

    /// Main begins to wait for reports.
    #[inline]
    pub(crate) fn begin_waiting(&mut self) {
        let now = (self.clock)();
        self.mark = now;
        self.round = now;
    }

    /// Main has the report of a cluster, which says how long it was busy since it was started
    /// \[ns\], if it can, and whether it has something to do.
    #[inline]
    pub(crate) fn take_report(&mut self, place: usize, told: u64, has_plans: bool) {
        let Some(spent) = self.clusters.get_mut(place) else {
            // Asked before its first run.
            return;
        };
        let round = self.round;
        spent.rest(round.saturating_duration_since(spent.until));
        let busy = if self.apart {
            Duration::from_nanos(told.saturating_sub(spent.told))
        } else {
            let now = (self.clock)();
            now.saturating_duration_since(std::mem::replace(&mut self.mark, now))
        };
        spent.told = told;
        spent.busy += busy;
        // What it waits for while others of this round work is counted with the next one.
        spent.until = round.checked_add(busy).unwrap_or(round);
        spent.has_plans = has_plans;
    }

    /// Main has all reports.
    #[inline]
    pub(crate) fn end_waiting(&mut self) {
        if self.apart {
            self.mark = (self.clock)();
        }
        self.waited += self.mark.saturating_duration_since(self.round);
    }

    /// Where the time of a cluster went.
    pub(crate) fn spent(&self, place: usize) -> Option<Spent> {
        self.clusters.get(place).copied()
    }

    /// How long main itself was at work, at the end of a run.
    pub(crate) fn busy_of_main(&self) -> Duration {
        let run = self.mark.saturating_duration_since(self.began);
        run.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// What the clock of a test shows.
        static NOW: Cell<Instant> = Cell::new(wall());
    }

    fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    const STEP: Duration = Duration::from_millis(2);

    fn nanos(time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).unwrap()
    }

    /// Busy, blocked and waiting, in steps.
    fn spent(meter: &Meter, place: usize) -> [u128; 3] {
        let spent = meter.spent(place).unwrap();
        [spent.busy, spent.blocked, spent.waiting].map(|time| time.as_nanos() / STEP.as_nanos())
    }

    #[test]
    fn the_times_of_a_cluster_add_up_to_the_run() {
        for apart in [true, false] {
            let mut meter = Meter::by(|| NOW.get(), apart);
            meter.begin_run(2);
            // Both work, the second for longer; then the second alone, while the first has plans.
            meter.begin_waiting();
            pass(STEP);
            meter.take_report(0, nanos(STEP), true);
            pass(STEP * 2);
            meter.take_report(1, nanos(STEP * 2), true);
            meter.end_waiting();
            pass(STEP);
            meter.begin_waiting();
            pass(STEP * 3);
            meter.take_report(1, nanos(STEP * 5), false);
            meter.end_waiting();
            pass(STEP * 4);
            meter.end_run();
            // Eleven steps, of which main worked five.
            assert_eq!(spent(&meter, 0), [1, 10, 0], "apart: {apart}");
            assert_eq!(spent(&meter, 1), [5, 2, 4], "apart: {apart}");
            assert_eq!(meter.busy_of_main(), STEP * 5);
        }
    }

    #[test]
    fn what_a_cluster_did_before_a_run_is_not_counted_in_it() {
        let mut meter = Meter::by(|| NOW.get(), true);
        meter.take_report(0, 1_000, true);
        for _ in 0..2 {
            meter.begin_run(1);
            meter.begin_waiting();
            meter.take_report(0, 7_000_000, true);
            meter.end_waiting();
            meter.end_run();
        }
        assert_eq!(meter.spent(0).unwrap().busy, Duration::ZERO);
    }
}
