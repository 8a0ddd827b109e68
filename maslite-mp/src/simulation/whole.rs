//! All of a simulation as one value, wherever its agents run: the way from one number of clusters to
//! another, and to a scheduler that is used alone.

use maslite_core::internal::{EngineState, LostKey, SavedAgent, SchedulerState};
use maslite_core::{AgentId, LostMail, Mail, Pattern};

use crate::cluster::registry::WireMessage;
use crate::cluster::state::ClusterState;
use crate::coordination::main_state::{MainState, UnderWayState, parts_of};
use crate::coordination::routing::RoutingState;

/// All of a simulation.
pub(crate) struct Whole<M> {
    /// As of a scheduler that is used alone.
    engine: EngineState<M>,
    lost: Vec<(LostKey, LostMail)>,
    owner_sequence: u64,
    queued: Vec<Mail<M>>,
}

impl<M: WireMessage> Whole<M> {
    /// A simulation in clusters.
    ///
    /// # Errors
    /// Why it can be nothing else.
    pub(crate) fn of_clusters(
        states: Vec<ClusterState<M>>,
        mut main: MainState<M>,
    ) -> Result<Self, &'static str> {
        if !main.under_way.is_empty() {
            return Err("mail was under way between its clusters");
        }
        let queued = main.take_queued();
        let states = states.into_iter().map(ClusterState::into_engine);
        Ok(Self {
            engine: EngineState::join(states.collect(), main.share)?,
            lost: main.lost,
            owner_sequence: main.owner_sequence,
            queued,
        })
    }

    pub(crate) fn of_scheduler(state: SchedulerState<M>) -> Self {
        Self {
            engine: state.engine,
            lost: state.lost,
            owner_sequence: 0,
            queued: state.queued,
        }
    }

    /// A scheduler alone, whose seed this is.
    pub(crate) fn into_scheduler(self, seed: u64) -> SchedulerState<M> {
        SchedulerState {
            seed,
            engine: self.engine,
            queued: self.queued,
            lost: self.lost,
        }
    }

    /// Has all agents draw other random numbers.
    pub(crate) fn reseed(&mut self) {
        self.engine.reseed();
    }

    /// Divides the agents into this number of clusters; `place` tells the cluster of each.
    ///
    /// # Errors
    /// Why it cannot be divided.
    pub(crate) fn into_clusters(
        self,
        clusters: usize,
        place: impl FnMut(SavedAgent<'_>) -> usize,
    ) -> Result<(Vec<ClusterState<M>>, MainState<M>), &'static str> {
        let (engines, mut share) = self.engine.divide(clusters, place)?;
        share.first_lost = self.lost.iter().map(|(key, _)| *key).collect();
        let numbered = || (0..).zip(&engines);
        let owners =
            numbered().flat_map(|(cluster, engine)| engine.ids().map(move |id| (id, cluster)));
        let mut owners: Vec<(AgentId, u32)> = owners.collect();
        owners.sort_unstable();
        let interest = numbered().flat_map(|(cluster, engine)| {
            let patterns = engine.patterns().into_iter();
            patterns.map(move |pattern| (cluster, pattern))
        });
        let interest: Vec<(u32, Pattern)> = interest.collect();
        let main = MainState {
            share,
            routing: RoutingState {
                owners,
                interest: interest.clone(),
            },
            lost: self.lost,
            owner_sequence: self.owner_sequence,
            queued: parts_of(&self.queued),
            under_way: UnderWayState::default(),
        };
        let states = (0..).zip(engines).map(|(cluster, engine)| {
            let others = interest.iter().filter(|(other, _)| *other != cluster);
            ClusterState::of(engine, others.copied().collect())
        });
        Ok((states.collect(), main))
    }
}
