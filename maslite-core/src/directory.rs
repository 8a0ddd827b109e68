//! Which agent sits in which slot.

use rustc_hash::FxHashMap;

use crate::AgentId;

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

/// Maps ids to slots: numbers that lie densely by an array, all others by a hash table.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    dense: Vec<u32>,
    sparse: FxHashMap<AgentId, u32>,
    count: usize,
}

const UNKNOWN: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;

impl Directory {
    #[inline]
    pub(crate) fn find(&self, id: AgentId) -> Whereabouts {
        let slot = match usize::try_from(id.as_u64())
            .ok()
            .and_then(|number| self.dense.get(number))
        {
            Some(slot) if *slot != UNKNOWN => *slot,
            _ => self.find_sparse(id),
        };
        match slot {
            UNKNOWN => Whereabouts::Unknown,
            REMOVED => Whereabouts::Removed,
            slot => Whereabouts::Here(slot),
        }
    }

    #[inline]
    fn find_sparse(&self, id: AgentId) -> u32 {
        if self.sparse.is_empty() {
            return UNKNOWN;
        }
        self.sparse.get(&id).copied().unwrap_or(UNKNOWN)
    }

    /// Makes an id known that was not.
    pub(crate) fn insert(&mut self, id: AgentId, slot: u32) {
        self.count += 1;
        *self.entry(id) = slot;
    }

    pub(crate) fn remove(&mut self, id: AgentId) {
        *self.entry(id) = REMOVED;
    }

    fn entry(&mut self, id: AgentId) -> &mut u32 {
        // The array may be four times as long as there are agents, and has room for a few more.
        let limit = 4 * self.count + 1024;
        match usize::try_from(id.as_u64()) {
            Ok(number) if number < self.dense.len() => {
                let moved = self.sparse.remove(&id);
                if let Some(slot) = moved {
                    self.dense[number] = slot;
                }
                &mut self.dense[number]
            }
            Ok(number) if number < limit => {
                let length = (number + 1).max(self.dense.len() * 2).min(limit);
                self.dense.resize(length, UNKNOWN);
                if let Some(slot) = self.sparse.remove(&id) {
                    self.dense[number] = slot;
                }
                &mut self.dense[number]
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
        assert_eq!(
            directory.find(AgentId::from("nobody")),
            Whereabouts::Unknown
        );
    }
}
