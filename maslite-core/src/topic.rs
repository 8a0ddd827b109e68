//! Topics of messages: names, compared by text and looked up by address.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lock::LockEvenPoisoned;

/// The topic of a message. By default the name of the message's enum variant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(&'static str);

impl Topic {
    /// Makes a topic from a name that the program contains.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Makes a topic from a name that is known only at run time. The process keeps one copy of the
    /// name until it ends.
    #[must_use]
    pub fn intern(name: &str) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock_even_poisoned();
        if let Some(known) = names.get(name) {
            return Self(known);
        }
        let kept: &'static str = Box::leak(name.into());
        names.insert(kept);
        Self(kept)
    }

    /// Returns the topic's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&'static str> for Topic {
    fn from(name: &'static str) -> Self {
        Self(name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::intern(&String::deserialize(deserializer)?))
    }
}

/// Numbers topics from 0 without gaps. The table finds a known topic by the address of its name,
/// without reading the name. Equal names at different addresses get one number.
#[derive(Debug)]
pub(crate) struct TopicTable {
    recent: [(usize, usize, u32); RECENT],
    numbers: FxHashMap<&'static str, u32>,
}

const RECENT: usize = 64;

impl Default for TopicTable {
    fn default() -> Self {
        Self {
            recent: [(0, 0, 0); RECENT],
            numbers: FxHashMap::default(),
        }
    }
}

impl TopicTable {
    /// Returns the number of a topic. A new topic gets the next number.
    #[inline]
    pub(crate) fn number(&mut self, topic: Topic) -> u32 {
        let (address, length) = (topic.0.as_ptr().addr(), topic.0.len());
        let place = (address >> 2 ^ address >> 8 ^ length) % RECENT;
        let (known_address, known_length, number) = self.recent[place];
        if known_address == address && known_length == length {
            return number;
        }
        self.number_by_name(topic, place)
    }

    /// Returns all known topics with their numbers, in no order.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (Topic, u32)> + '_ {
        self.numbers
            .iter()
            .map(|(name, number)| (Topic(name), *number))
    }

    #[cold]
    fn number_by_name(&mut self, topic: Topic, place: usize) -> u32 {
        let next = crate::narrow(self.numbers.len());
        let number = *self.numbers.entry(topic.0).or_insert(next);
        self.recent[place] = (topic.0.as_ptr().addr(), topic.0.len(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_topic_wherever_they_lie() {
        let (a, b) = (Topic::intern("tick"), Topic::new("tick"));
        assert_eq!(a, b);
        assert_eq!(a.as_str().as_ptr(), Topic::intern("tick").as_str().as_ptr());
        let mut table = TopicTable::default();
        assert_eq!(
            [
                table.number(a),
                table.number("tock".into()),
                table.number(b)
            ],
            [0, 1, 0]
        );
    }

    #[test]
    fn a_prefix_at_the_same_address_is_another_topic() {
        let long: &'static str = "ticket";
        let mut table = TopicTable::default();
        assert_eq!(table.number(Topic::new(long)), 0);
        assert_eq!(table.number(Topic::new(&long[..4])), 1);
    }
}
