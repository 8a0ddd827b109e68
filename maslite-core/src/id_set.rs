//! A set of ids that only grows, and takes few bytes for each id.

use rustc_hash::FxHashSet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::AgentId;

/// The number of ids in a block. The first id of a block can be found without reading the others.
const BLOCK: usize = 32;

/// The least number of ids that are added before all ids are packed again.
const FEW: usize = 256;

/// The set of ids of removed agents. The kernel needs to know only that an id is in the set,
/// because ids are never reused.
///
/// Most ids are packed in ascending order, as differences with 7 bits in a byte: ids that were
/// counted up take about one byte each, ids without any order about eight. The ids that were added
/// last are in a hash table, which holds at most a sixteenth of all ids.
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    /// The first id of each block, and where the differences to the others begin.
    blocks: Vec<(u64, usize)>,
    /// The difference of each id to the id before it, except for the first id of a block.
    differences: Vec<u8>,
    packed: usize,
    recent: FxHashSet<u64>,
}

impl IdSet {
    /// Adds an id that is not in the set.
    pub fn insert(&mut self, id: AgentId) {
        self.recent.insert(id.as_u64());
        if self.recent.len() >= FEW.max(self.packed / 16) {
            self.pack();
        }
    }

    /// Whether an id is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: AgentId) -> bool {
        (self.packed > 0 || !self.recent.is_empty()) && self.find(id.as_u64())
    }

    #[inline(never)]
    fn find(&self, id: u64) -> bool {
        if self.recent.contains(&id) {
            return true;
        }
        let after = self.blocks.partition_point(|(first, _)| *first <= id);
        let Some(block) = after.checked_sub(1) else {
            return false;
        };
        self.block(block)
            .find(|other| *other >= id)
            .is_some_and(|other| other == id)
    }

    /// The ids of a block, in ascending order.
    fn block(&self, block: usize) -> impl Iterator<Item = u64> + '_ {
        let (first, start) = self.blocks[block];
        let end = self.blocks.get(block + 1).map(|(_, start)| *start);
        let mut rest = &self.differences[start..end.unwrap_or(self.differences.len())];
        let mut next = Some(first);
        std::iter::from_fn(move || {
            let id = next?;
            next = take_number(&mut rest).map(|difference| id + difference);
            Some(id)
        })
    }

    /// All ids, in ascending order.
    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut recent: Vec<u64> = self.recent.iter().copied().collect();
        recent.sort_unstable();
        let mut recent = recent.into_iter().peekable();
        let packed = (0..self.blocks.len()).flat_map(|block| self.block(block));
        let mut packed = packed.peekable();
        std::iter::from_fn(move || match (packed.peek(), recent.peek()) {
            (Some(packed_id), Some(recent_id)) if recent_id < packed_id => recent.next(),
            (Some(_), _) => packed.next(),
            (None, _) => recent.next(),
        })
    }

    /// Packs all ids again, together with those that were added since the last packing.
    fn pack(&mut self) {
        let mut added: Vec<u64> = self.recent.drain().collect();
        added.sort_unstable();
        let mut packed = Self::default();
        packed
            .blocks
            .reserve_exact((self.packed + added.len()).div_ceil(BLOCK));
        packed
            .differences
            .reserve(self.differences.len() + added.len());
        let mut last = 0;
        let mut added = added.into_iter().peekable();
        let old = (0..self.blocks.len()).flat_map(|block| self.block(block));
        for id in old {
            while let Some(earlier) = added.next_if(|added| *added < id) {
                packed.push(earlier, &mut last);
            }
            packed.push(id, &mut last);
        }
        for id in added {
            packed.push(id, &mut last);
        }
        packed.differences.shrink_to_fit();
        packed.recent = std::mem::take(&mut self.recent);
        *self = packed;
    }

    /// Adds an id that is larger than all ids before.
    fn push(&mut self, id: u64, last: &mut u64) {
        if self.packed.is_multiple_of(BLOCK) {
            self.blocks.push((id, self.differences.len()));
        } else {
            put_number(id - *last, &mut self.differences);
        }
        self.packed += 1;
        *last = id;
    }
}

/// Sets are equal if their ids are.
impl PartialEq for IdSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for IdSet {}

/// As the difference of each id to the id before it, in ascending order.
impl Serialize for IdSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut last = 0;
        let differences: Vec<u64> = self
            .iter()
            .map(|id| id - std::mem::replace(&mut last, id))
            .collect();
        differences.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IdSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut set, mut last) = (Self::default(), 0_u64);
        for (place, difference) in Vec::<u64>::deserialize(deserializer)?.iter().enumerate() {
            let id = last.checked_add(*difference);
            let id = id.filter(|id| place == 0 || *id > last);
            let id = id.ok_or_else(|| D::Error::custom("ids of a set do not ascend"))?;
            set.push(id, &mut last);
        }
        Ok(set)
    }
}

/// Writes a number with 7 bits in a byte, lowest bits first.
#[expect(clippy::cast_possible_truncation, reason = "the lowest bits")]
fn put_number(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1
    }

    #[test]
    fn ids_are_found_whatever_their_order() {
        let kinds: [fn(u64) -> u64; 5] = [
            |number| number,
            |number| 3 * number + 1,
            |number| (1 << 62) - number,
            mixed,
            |number| u64::MAX - 2 - 1_000_000 * number,
        ];
        for (kind, id_of) in kinds.iter().enumerate() {
            let mut set = IdSet::default();
            assert!(!set.contains(AgentId::from_u64(id_of(0))));
            for number in 0..5_000 {
                set.insert(AgentId::from_u64(id_of(number)));
            }
            for number in 0..6_000 {
                let is_there = set.contains(AgentId::from_u64(id_of(number)));
                assert_eq!(is_there, number < 5_000, "kind {kind}, {number}");
            }
        }
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let mut set = IdSet::default();
        for number in 0..1_000 {
            let written = postcard::to_stdvec(&set).unwrap();
            let read: IdSet = postcard::from_bytes(&written).unwrap();
            assert_eq!(read, set, "{number} ids");
            set.insert(AgentId::from_u64(mixed(number)));
        }
        let ascending: Result<IdSet, _> = postcard::from_bytes(&[3, 7, 0, 1]);
        ascending.expect_err("an id is there twice");
    }

    #[test]
    fn an_id_takes_few_bytes() {
        for (id_of, most) in [((|number| number) as fn(u64) -> u64, 3), (mixed, 11)] {
            let mut set = IdSet::default();
            let lives = 200_000;
            for number in 0..lives {
                set.insert(AgentId::from_u64(id_of(number)));
            }
            // A place in a hash table of numbers takes a byte more than the number.
            let bytes = set.blocks.capacity() * size_of::<(u64, usize)>()
                + set.differences.capacity()
                + set.recent.capacity() * 8 / 7 * 9;
            assert!(
                bytes as u64 <= most * lives,
                "{} each",
                bytes as u64 / lives
            );
        }
    }
}
