//! What a simulation has counted, to tell what each run counts.

use maslite_core::Counters;

use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::state::Standing;

/// What was counted up to the end of a run, to tell what the next one counts.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) counters: Counters,
    pub(super) clusters: Vec<Counters>,
    pub(super) amnesias: u64,
    pub(super) undone: u64,
    pub(super) local: u64,
    pub(super) routed: u64,
    pub(super) held_back: u64,
    pub(super) held_back_to_main: u64,
    pub(super) rounds: u64,
    pub(super) traffic: Traffic,
}

impl Counted {
    pub(super) fn of(standing: &Standing, routing: &Routing) -> Self {
        let reports = || standing.reports.iter().flatten();
        let clusters = standing.reports.iter().map(Option::as_ref);
        let clusters = clusters.map(|it| it.map_or_else(Counters::default, |it| it.counters));
        Self {
            counters: standing.counters(),
            clusters: clusters.collect(),
            amnesias: standing.amnesias,
            undone: standing.undone,
            local: reports().map(|report| report.local).sum(),
            routed: routing.routed,
            held_back: reports().map(|report| report.held_back).sum(),
            held_back_to_main: reports().map(|report| report.held_back_to_main).sum(),
            rounds: standing.rounds,
            traffic: routing.traffic.clone(),
        }
    }
}
