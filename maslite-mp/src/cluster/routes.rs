//! Which cluster an agent elsewhere lives in, as far as a cluster knows.

use maslite_core::AgentId;
use rustc_hash::FxHashMap;

/// Maps ids to clusters: small numbers by an array, which is looked at for each mail that leaves
/// and so must stay in the cache; all others by a hash table.
#[derive(Debug, Default)]
pub(super) struct Routes {
    dense: Vec<u32>,
    sparse: FxHashMap<AgentId, u32>,
    count: usize,
}

/// Of an id that is not known.
const UNKNOWN: u32 = u32::MAX;

impl Routes {
    #[inline]
    pub(super) fn find(&self, id: AgentId) -> Option<u32> {
        let place = usize::try_from(id.as_u64()).ok();
        match place.and_then(|place| self.dense.get(place)) {
            Some(cluster) if *cluster != UNKNOWN => Some(*cluster),
            _ if self.sparse.is_empty() => None,
            _ => self.sparse.get(&id).copied(),
        }
    }

    pub(super) fn insert(&mut self, id: AgentId, cluster: u32) {
        self.count += 1;
        // The array may be four times as long as there are agents elsewhere, and has room for a
        // few more.
        let limit = 4 * self.count + 1024;
        match usize::try_from(id.as_u64()) {
            Ok(place) if place < limit => {
                if place >= self.dense.len() {
                    let length = (place + 1).max(self.dense.len() * 2).min(limit);
                    self.dense.resize(length, UNKNOWN);
                }
                self.dense[place] = cluster;
                self.sparse.remove(&id);
            }
            _ => drop(self.sparse.insert(id, cluster)),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All that is known, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AgentId, u32)> + '_ {
        let dense = (0..).zip(&self.dense);
        let dense = dense.filter(|(_, cluster)| **cluster != UNKNOWN);
        let dense = dense.map(|(number, cluster)| (AgentId::from_u64(number), *cluster));
        dense.chain(self.sparse.iter().map(|(id, cluster)| (*id, *cluster)))
    }
}

impl Extend<(AgentId, u32)> for Routes {
    fn extend<T: IntoIterator<Item = (AgentId, u32)>>(&mut self, routes: T) {
        for (id, cluster) in routes {
            self.insert(id, cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_numbers_and_of_names_are_found() {
        let mut routes = Routes::default();
        let known = [(1_000_u64, 3), (5, 1), (1_u64 << 40, 2), (100_000, 4)];
        let known = known.map(|(number, cluster)| (AgentId::from(number), cluster));
        let named = (AgentId::from("somebody"), 7);
        routes.extend(known.into_iter().chain([named]));
        assert_eq!((routes.dense.len(), routes.sparse.len()), (1_001, 3));
        // With so many agents a larger number has its place in the array.
        routes.extend((2_000..40_000_u64).map(|number| (AgentId::from(number), 9)));
        routes.insert(AgentId::from(100_000), 6);
        assert_eq!(routes.dense.get(100_000), Some(&6));
        for (id, cluster) in [known[0], known[1], known[2], named] {
            assert_eq!(routes.find(id), Some(cluster), "{id}");
        }
        assert_eq!(routes.find(AgentId::from(100_000)), Some(6));
        assert_eq!(routes.find(AgentId::from(39_999)), Some(9));
        for unknown in [
            AgentId::from(6_u64),
            AgentId::from(1_u64 << 41),
            AgentId::from("nobody"),
        ] {
            assert_eq!(routes.find(unknown), None);
        }
        assert_eq!(routes.iter().count(), 38_000 + 5);
        let mut again = Routes::default();
        again.extend(routes.iter());
        assert_eq!(again.find(named.0), Some(7));
        again.clear();
        assert_eq!(again.find(AgentId::from(5)), None);
    }
}
