//! Which agent sits in which slot.

use rustc_hash::FxHashMap;

use crate::AgentId;
use crate::id_set::IdSet;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Where an id is, as far as one scheduler knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// In this slot.
    Here(u32),
    /// It was here and was removed; its id is not used again.
    Removed,
    /// Never heard of.
    Unknown,
}

/// Maps ids to slots: numbers that lie densely by an array, all others by a hash table. Of agents
/// that are gone it keeps that they were there, in few bytes.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// The number that the array begins with.
    base: u64,
    dense: Vec<u32>,
    sparse: FxHashMap<AgentId, u32>,
    /// Ids that have come since the array was last laid out, and those that were there then.
    count: usize,
    removed: IdSet,
}

const UNKNOWN: u32 = u32::MAX;

impl Directory {
    #[inline]
    pub(crate) fn find(&self, id: AgentId) -> Whereabouts {
        match self.place(id).and_then(|place| self.dense.get(place)) {
            Some(slot) if *slot != UNKNOWN => Whereabouts::Here(*slot),
            _ => self.find_sparse(id),
        }
    }

    #[inline]
    fn find_sparse(&self, id: AgentId) -> Whereabouts {
        if !self.sparse.is_empty()
            && let Some(slot) = self.sparse.get(&id)
        {
            return Whereabouts::Here(*slot);
        }
        match self.removed.contains(id) {
            true => Whereabouts::Removed,
            false => Whereabouts::Unknown,
        }
    }

    /// Where an id is in the array, if that is long enough.
    #[inline]
    fn place(&self, id: AgentId) -> Option<usize> {
        usize::try_from(id.as_u64().wrapping_sub(self.base)).ok()
    }

    /// A directory without agents, when those with these ids have gone.
    pub(crate) fn after(removed: IdSet) -> Self {
        Self {
            removed,
            ..Self::default()
        }
    }

    /// The ids of the agents that are gone.
    pub(crate) fn removed(&self) -> &IdSet {
        &self.removed
    }

    /// Makes an id known that was not.
    pub(crate) fn insert(&mut self, id: AgentId, slot: u32) {
        self.count += 1;
        *self.entry(id) = slot;
    }

    pub(crate) fn remove(&mut self, id: AgentId) {
        self.sparse.remove(&id);
        if let Some(slot) = self.place(id).and_then(|place| self.dense.get_mut(place)) {
            *slot = UNKNOWN;
        }
        self.removed.insert(id);
    }

    /// Lays the array out anew, for the agents that are there.
    pub(crate) fn lay_out(&mut self, agents: impl Iterator<Item = (AgentId, u32)> + Clone) {
        self.dense.clear();
        self.sparse.clear();
        let ids = agents.clone().map(|(id, _)| id.as_u64());
        self.base = ids.min().unwrap_or(0);
        self.count = agents.clone().count();
        for (id, slot) in agents {
            *self.entry(id) = slot;
        }
    }

    fn entry(&mut self, id: AgentId) -> &mut u32 {
        // The array may be four times as long as there are agents, and has room for a few more.
        let limit = 4 * self.count + 1024;
        match self.place(id) {
            Some(place) if place < self.dense.len() => {
                if let Some(slot) = self.sparse.remove(&id) {
                    self.dense[place] = slot;
                }
                &mut self.dense[place]
            }
            Some(place) if place < limit => {
                let length = (place + 1).max(self.dense.len() * 2).min(limit);
                self.dense.resize(length, UNKNOWN);
                if let Some(slot) = self.sparse.remove(&id) {
                    self.dense[place] = slot;
                }
                &mut self.dense[place]
            }
            _ => self.sparse.entry(id).or_insert(UNKNOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_and_sparse_ids_are_found() {
        let mut directory = Directory::default();
        let ids = [0, 5, 1_000_000, 2_000, 1_u64 << 62].map(AgentId::from);
        for (slot, id) in (0..).zip(ids) {
            assert_eq!(directory.find(id), Whereabouts::Unknown);
            directory.insert(id, slot);
        }
        for number in 10_000..20_000 {
            directory.insert(AgentId::from(number), 7);
        }
        for (slot, id) in (0..).zip(ids) {
            assert_eq!(directory.find(id), Whereabouts::Here(slot));
            directory.remove(id);
            assert_eq!(directory.find(id), Whereabouts::Removed);
        }
        let living = (15_000..20_000_u64).map(|number| (AgentId::from(number), 8));
        directory.lay_out(living);
        assert!(directory.sparse.is_empty());
        assert_eq!(directory.base, 15_000);
        for (number, whereabouts) in [
            (0, Whereabouts::Removed),
            (14_999, Whereabouts::Unknown),
            (15_000, Whereabouts::Here(8)),
            (19_999, Whereabouts::Here(8)),
            (20_000, Whereabouts::Unknown),
        ] {
            assert_eq!(directory.find(AgentId::from(number)), whereabouts);
        }
        assert_eq!(
            directory.find(AgentId::from("nobody")),
            Whereabouts::Unknown
        );
    }
}
