//! The state of each alarm, a word: what a handle is checked against.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::pool::NONE;
use crate::AgentId;
use crate::fetch::fetch;

/// A handle to a pending alarm. It stays valid, and means nothing else, after the alarm fired. An
/// agent may keep it in its state: it also stays valid where that state is saved and restored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AlarmId {
    pub(super) setter: AgentId,
    /// The sequence number of the call that set it.
    pub(super) sequence: u64,
    /// Where the alarm is. It says nothing that setter and sequence do not say.
    #[serde(skip)]
    pub(super) hint: Hint,
}

/// Where an alarm is in the queue that it was set in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint {
    /// How many alarms the queue had been given when this one was set, with it. 0: not known.
    pub(super) number: u64,
    pub(super) node: u32,
}

impl Hint {
    const UNKNOWN: Self = Self {
        number: 0,
        node: NONE,
    };
}

impl Default for Hint {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl PartialEq for AlarmId {
    fn eq(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }
}

impl Eq for AlarmId {}

impl Hash for AlarmId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.origin().hash(state);
    }
}

impl AlarmId {
    /// The handle of an alarm that may be anywhere in its queue, or in none.
    pub(crate) fn of(setter: AgentId, sequence: u64) -> Self {
        Self {
            setter,
            sequence,
            hint: Hint::UNKNOWN,
        }
    }

    /// The handle of an alarm that is in no queue any more.
    pub(crate) fn of_fired(setter: AgentId, sequence: u64) -> Self {
        let number = u64::MAX;
        Self {
            setter,
            sequence,
            hint: Hint { number, node: NONE },
        }
    }

    /// Where the alarm is.
    pub(crate) fn hint(self) -> Hint {
        self.hint
    }

    /// Who set the alarm, and the sequence number of that call.
    #[inline]
    pub(crate) fn origin(self) -> (AgentId, u64) {
        (self.setter, self.sequence)
    }
}

const FLAGS: u32 = 7;
/// It is to fire. Without this flag and the next, the node is free, and the number is the next free
/// node.
const PENDING: u64 = 1;
/// It was cleared, and its entry has not come up yet.
const CLEARED: u64 = 2;
/// Its load does not lie in its entry.
pub(super) const KEPT: u64 = 4;
pub(super) const IS_REQUIRED: u64 = 8;
/// What belongs to its load and has no room in its entry lies beside the states.
const BESIDE: u64 = 16;
pub(super) const IS_ELSEWHERE: u64 = 32;
/// It can no longer be cleared.
pub(super) const FIXED: u64 = 64;

/// What belongs to a packed load and has no room in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) word: u64,
    /// The alarm can no longer be cleared.
    pub(crate) is_fixed: bool,
}

#[derive(Debug)]
pub(super) struct States {
    words: Vec<u64>,
    /// What lies beside the states, as long as there was need of it.
    beside: Vec<u64>,
    free: u32,
    /// The number of the alarm that was set last.
    number: u64,
    /// The numbers up to this one were given before the queue was restored: they say nothing here.
    forgotten: u64,
}

impl Default for States {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            beside: Vec::new(),
            free: NONE,
            number: 0,
            forgotten: 0,
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
        let number = self.number;
        AlarmId {
            setter,
            sequence,
            hint: Hint { number, node },
        }
    }

    /// Frees the node of an alarm whose entry is gone.
    #[inline]
    pub(super) fn release(&mut self, node: u32) {
        self.words[node as usize] = u64::from(self.free) << FLAGS;
        self.free = node;
    }

    /// Neither pending nor free: the alarm has fired, and may be put back.
    pub(super) fn hold(&mut self, node: u32) {
        self.words[node as usize] &= !PENDING;
    }

    /// Notes that an alarm whose state was held is pending.
    pub(super) fn resume(&mut self, node: u32) {
        self.words[node as usize] |= PENDING;
    }

    /// Puts a word beside the state of an alarm that was just added.
    pub(super) fn put_beside(&mut self, node: u32, beside: Beside) {
        if self.beside.len() <= node as usize {
            self.beside.resize(self.words.len(), 0);
        }
        self.beside[node as usize] = beside.word;
        let fixed = if beside.is_fixed { FIXED } else { 0 };
        self.words[node as usize] |= BESIDE | fixed;
    }

    /// What lies beside the state of an alarm, if anything does.
    #[inline]
    pub(super) fn beside(&self, node: u32) -> Option<Beside> {
        let state = self.words[node as usize];
        (state & BESIDE != 0).then(|| Beside {
            word: self.beside[node as usize],
            is_fixed: state & FIXED != 0,
        })
    }

    /// Fetches the state of an alarm, and what lies beside it.
    pub(super) fn fetch_beside(&self, node: u32) {
        for words in [&self.words, &self.beside] {
            if let Some(word) = words.get(node as usize) {
                fetch(word);
            }
        }
    }

    /// The state behind a handle: to be fetched before it is looked at.
    pub(super) fn word(&self, hint: Hint) -> Option<&u64> {
        self.words.get(hint.node as usize)
    }

    #[inline]
    pub(super) fn is_cleared(&self, node: u32) -> bool {
        self.words[node as usize] & CLEARED != 0
    }

    /// The node and the flags of the alarm behind a handle, if it is pending and the handle tells
    /// where.
    pub(super) fn pending(&self, hint: Hint) -> Option<(u32, u64)> {
        let Hint { number, node } = hint;
        let word = *self.words.get(node as usize)?;
        let is_pending = word >> FLAGS == number && word & PENDING != 0;
        is_pending.then_some((node, word & ((1 << FLAGS) - 1)))
    }

    /// Whether a handle tells where its alarm is, if it is pending.
    pub(super) fn is_hinted(&self, id: AlarmId) -> bool {
        id.hint.number > self.forgotten
    }

    /// How many alarms have been numbered.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Goes on behind the numbers that were given before: handles with those tell nothing.
    pub(super) fn number_from(&mut self, number: u64) {
        (self.number, self.forgotten) = (number, number);
    }

    /// Notes that a pending alarm is cleared.
    pub(super) fn clear(&mut self, node: u32) {
        self.words[node as usize] ^= PENDING | CLEARED;
    }

    /// Notes a flag of a pending alarm.
    pub(super) fn note(&mut self, node: u32, flag: u64) {
        self.words[node as usize] |= flag;
    }

    /// The handle of a pending alarm.
    pub(super) fn handle(&self, (setter, sequence): (AgentId, u64), node: u32) -> AlarmId {
        let number = self.words[node as usize] >> FLAGS;
        AlarmId {
            setter,
            sequence,
            hint: Hint { number, node },
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }
}
