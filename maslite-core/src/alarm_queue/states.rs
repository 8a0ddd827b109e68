//! The state of each alarm, a word: what a handle is checked against.

use serde::{Deserialize, Serialize};

use super::pool::NONE;
use crate::AgentId;

/// A handle to a pending alarm. It stays valid, and means nothing else, after the alarm fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AlarmId {
    pub(super) setter: AgentId,
    /// The sequence number of the call that set it.
    pub(super) sequence: u64,
    /// How many alarms its queue had been given when this one was set, with it.
    pub(super) number: u64,
    pub(super) node: u32,
}

impl AlarmId {
    /// A handle to no alarm.
    #[cfg(test)]
    pub(crate) fn of(setter: AgentId, sequence: u64) -> Self {
        Self {
            setter,
            sequence,
            number: 0,
            node: NONE,
        }
    }

    /// Who set the alarm, and the sequence number of that call.
    #[inline]
    pub(crate) fn origin(self) -> (AgentId, u64) {
        (self.setter, self.sequence)
    }
}

const FLAGS: u32 = 4;
/// It is to fire. Without this flag and the next, the node is free, and the number is the next free
/// node.
const PENDING: u64 = 1;
/// It was cleared, and its entry has not come up yet.
const CLEARED: u64 = 2;
/// Its load does not lie in its entry.
pub(super) const KEPT: u64 = 4;
pub(super) const IS_REQUIRED: u64 = 8;

#[derive(Debug)]
pub(super) struct States {
    words: Vec<u64>,
    free: u32,
    /// The number of the alarm that was set last.
    number: u64,
}

impl Default for States {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            free: NONE,
            number: 0,
        }
    }
}

impl States {
    /// Gives a pending alarm its node.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "nodes have 32 bits")]
    pub(super) fn add(&mut self, (setter, sequence): (AgentId, u64), flags: u64) -> AlarmId {
        self.number += 1;
        let word = self.number << FLAGS | PENDING | flags;
        let node = self.free;
        let node = match self.words.get_mut(node as usize) {
            Some(place) => {
                self.free = (*place >> FLAGS) as u32;
                *place = word;
                node
            }
            None => {
                self.words.push(word);
                crate::narrow(self.words.len() - 1)
            }
        };
        AlarmId {
            setter,
            sequence,
            number: self.number,
            node,
        }
    }

    /// Frees the node of an alarm whose entry is gone.
    #[inline]
    pub(super) fn release(&mut self, node: u32) {
        self.words[node as usize] = u64::from(self.free) << FLAGS;
        self.free = node;
    }

    #[inline]
    pub(super) fn is_cleared(&self, node: u32) -> bool {
        self.words[node as usize] & CLEARED != 0
    }

    /// The flags of the alarm behind a handle, if it is pending.
    pub(super) fn pending(&self, id: AlarmId) -> Option<u64> {
        let word = *self.words.get(id.node as usize)?;
        (word >> FLAGS == id.number && word & PENDING != 0).then_some(word & ((1 << FLAGS) - 1))
    }

    /// Notes that a pending alarm is cleared.
    pub(super) fn clear(&mut self, node: u32) {
        self.words[node as usize] ^= PENDING | CLEARED;
    }

    pub(super) fn keep(&mut self, node: u32) {
        self.words[node as usize] |= KEPT;
    }

    /// The handle of a pending alarm.
    pub(super) fn handle(&self, (setter, sequence): (AgentId, u64), node: u32) -> AlarmId {
        AlarmId {
            setter,
            sequence,
            number: self.words[node as usize] >> FLAGS,
            node,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }
}
