//! Remembers who added which agent, for the error about an id that is used twice.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{Adder, AgentId, SimTime};

/// The number of removed agents whose adders are remembered.
const REMEMBERED: usize = 1_000;

/// Who added the living agents, and the agents that were removed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adders {
    /// Who added each agent that was added by an agent.
    agents: BTreeMap<AgentId, (AgentId, SimTime)>,
    /// The agents that were removed last, in the order of their removal.
    gone: VecDeque<AgentId>,
}

impl Adders {
    /// Records who added an agent.
    pub fn insert(&mut self, id: AgentId, adder: Adder) {
        if let Adder::Agent(by, time) = adder {
            self.agents.insert(id, (by, time));
        }
    }

    /// Records that an agent was removed.
    pub fn note_gone(&mut self, id: AgentId) {
        if self.gone.len() == REMEMBERED
            && let Some(first) = self.gone.pop_front()
        {
            self.agents.remove(&first);
        }
        self.gone.push_back(id);
    }

    /// What is known of these agents, which are there.
    pub(crate) fn of(&self, agents: impl Iterator<Item = AgentId>) -> Self {
        let known = agents.filter_map(|id| Some((id, *self.agents.get(&id)?)));
        Self {
            agents: known.collect(),
            gone: VecDeque::new(),
        }
    }

    /// Whether an agent was added by another agent.
    #[must_use]
    pub fn is_born(&self, id: AgentId) -> bool {
        self.agents.contains_key(&id)
    }

    /// Returns who added an agent, living or removed.
    #[must_use]
    pub fn adder(&self, id: AgentId, is_gone: bool) -> Adder {
        match self.agents.get(&id) {
            Some((by, time)) => Adder::Agent(*by, *time),
            None if is_gone && !self.gone.contains(&id) => Adder::Forgotten,
            None => Adder::Owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adders_of_agents_that_went_long_ago_are_forgotten() {
        let mut adders = Adders::default();
        let (by, time) = (AgentId::from(1_u64), SimTime::from_millis(2));
        let born = Adder::Agent(by, time);
        let ids = 10..20 + REMEMBERED as u64;
        for id in ids.clone() {
            let adder = if id % 2 == 0 { born } else { Adder::Owner };
            adders.insert(AgentId::from(id), adder);
        }
        for id in ids.clone() {
            adders.note_gone(AgentId::from(id));
        }
        for id in ids {
            let expected = match id {
                ..20 => Adder::Forgotten,
                id if id % 2 == 0 => born,
                _ => Adder::Owner,
            };
            assert_eq!(adders.adder(AgentId::from(id), true), expected, "{id}");
        }
        assert_eq!(adders.agents.len(), REMEMBERED / 2);
        assert_eq!(adders.adder(AgentId::from(5_u64), false), Adder::Owner);
    }
}
