//! How far clusters run ahead of what is final, and how often that is tried: as far as it pays.

use maslite_core::{AgentId, AgentRng};
use rand::RngExt;

use crate::settings::Speculation;

/// How many instants of a cluster may be not final: at first, and at most.
const FIRST: u64 = 32;
const MOST: u64 = 4_096;
const LEAST: u64 = 8;
/// About the most memory that the way back takes in each cluster [bytes].
const BYTES: u64 = 32 << 20;
/// After rounds that were not worth it, at most this number of instants are done without running
/// ahead.
const LONGEST_REST: u32 = 512;

/// How far clusters are to run ahead.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Instants that are not final, in each cluster.
    instants: u64,
    /// How many times it is not tried from now on.
    rest: u32,
    next_rest: u32,
    /// About how many instants were done in the last few rounds, and how many of them for nothing.
    done: usize,
    wasted: usize,
    /// Draws all of these.
    chance: Option<AgentRng>,
}

impl Pace {
    /// None if no cluster is to run ahead.
    pub(crate) fn new(speculation: Speculation) -> Option<Self> {
        let chance = match speculation {
            Speculation::Off => return None,
            Speculation::Auto => None,
            Speculation::Random(seed) => Some(AgentRng::new(seed, AgentId::MAIN)),
        };
        Some(Self {
            instants: FIRST,
            rest: 0,
            next_rest: 0,
            done: 0,
            wasted: 0,
            chance,
        })
    }

    /// Whether it is to be tried now.
    pub(super) fn is_ready(&mut self) -> bool {
        if let Some(chance) = &mut self.chance {
            return chance.random_range(0..4) > 0;
        }
        let is_ready = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
        is_ready
    }

    /// How many instants of each cluster may be not final, and how many bytes that may take.
    pub(super) fn budget(&mut self) -> (u64, u64) {
        match &mut self.chance {
            None => (self.instants, BYTES),
            Some(chance) => {
                let widths = [1, 2, 3, 5, 20, u64::MAX];
                let bytes = [1, 200, 2_000, BYTES];
                let pick = |chance: &mut AgentRng, among: &[u64]| {
                    among[chance.random_range(0..among.len())]
                };
                (pick(chance, &widths), pick(chance, &bytes))
            }
        }
    }

    /// Takes in what a round came to: how many instants are final beyond those that one cluster
    /// could have done alone, how many were done for nothing, and whether only the budget ended it.
    pub(super) fn note(&mut self, gained: usize, wasted: usize, was_short: bool) {
        /// A round of fewer costs more than it saves.
        const WORTH_IT: usize = 3;
        /// One instant in this number may be done for nothing.
        const WASTE: usize = 16;
        if gained >= WORTH_IT {
            self.next_rest = 0;
        } else {
            self.next_rest = (self.next_rest * 2 + 1).min(LONGEST_REST);
            self.rest = self.next_rest;
        }
        // Each instant that stays in one cluster is about one that stays in another.
        self.done = self.done * 7 / 8 + 2 * gained + wasted;
        self.wasted = self.wasted * 7 / 8 + wasted;
        if self.wasted * WASTE > self.done {
            self.instants = (self.instants * 4 / 5).max(LEAST);
        } else if was_short {
            self.instants = (self.instants * 5 / 4 + 1).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_are_not_worth_it_come_less_and_less_often() {
        let mut pace = Pace::new(Speculation::Auto).unwrap();
        let mut tried = Vec::new();
        for turn in 0..100 {
            if pace.is_ready() {
                tried.push(turn);
                pace.note(2, 0, false);
            }
        }
        assert_eq!(tried, [0, 2, 6, 14, 30, 62]);
        while !pace.is_ready() {}
        pace.note(3, 0, false);
        assert!(pace.is_ready() && pace.is_ready());
    }

    #[test]
    fn clusters_go_farther_as_long_as_only_the_budget_stops_them() {
        let mut pace = Pace::new(Speculation::Auto).unwrap();
        pace.note(100, 0, false);
        assert_eq!(pace.budget(), (FIRST, BYTES));
        pace.note(100, 0, true);
        assert_eq!(pace.budget(), (41, BYTES));
        (0..100).for_each(|_| pace.note(100, 0, true));
        assert_eq!(pace.budget(), (MOST, BYTES));
    }

    #[test]
    fn they_go_less_far_where_much_is_done_for_nothing() {
        let mut pace = Pace::new(Speculation::Auto).unwrap();
        pace.note(100, 13, true);
        assert_eq!(pace.budget(), (41, BYTES), "13 of 213");
        pace.note(100, 50, true);
        assert_eq!(pace.budget(), (32, BYTES), "61 of about 436");
        pace.note(100, 0, true);
        assert_eq!(pace.budget(), (25, BYTES), "it is not forgotten at once");
        (0..20).for_each(|_| pace.note(100, 0, false));
        assert_eq!(pace.budget(), (20, BYTES), "nor by the next time");
        pace.note(100, 0, true);
        assert_eq!(pace.budget(), (26, BYTES));
        (0..100).for_each(|_| pace.note(0, 100, false));
        assert_eq!(pace.budget(), (LEAST, BYTES));
    }
}
