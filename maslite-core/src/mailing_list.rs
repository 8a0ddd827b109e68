//! Who listens to what: subscriptions to mail by sender, receiver and topic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::topic::TopicTable;
use crate::{AgentId, Topic};

/// The pattern of a subscription: one, two or all of sender, receiver and topic.
///
/// ```
/// use maslite_core::{AgentId, Pattern};
/// let orders = Pattern::topic("Order");
/// let orders_of_seven = Pattern::topic("Order").sent_by(7);
/// let all_to_the_crane = Pattern::receiver(AgentId::from("crane"));
/// # let _ = (orders, orders_of_seven, all_to_the_crane);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern {
    sender: Option<AgentId>,
    receiver: Option<AgentId>,
    topic: Option<Topic>,
}

/// A pattern must name a sender, a receiver or a topic.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subscription must name a sender, a receiver or a topic, and this one names none")]
pub struct EmptyPattern;

crate::readable_debug!(
    struct EmptyPattern {}
);

impl Pattern {
    /// All that `sender` sends.
    pub fn sender(sender: impl Into<AgentId>) -> Self {
        Self {
            sender: Some(sender.into()),
            receiver: None,
            topic: None,
        }
    }

    /// All that is addressed to `receiver`.
    pub fn receiver(receiver: impl Into<AgentId>) -> Self {
        Self {
            sender: None,
            receiver: Some(receiver.into()),
            topic: None,
        }
    }

    /// All mail about `topic`.
    pub fn topic(topic: impl Into<Topic>) -> Self {
        Self {
            sender: None,
            receiver: None,
            topic: Some(topic.into()),
        }
    }

    /// The pattern of these parts, as they come out of a file.
    ///
    /// # Errors
    /// [`EmptyPattern`] if none is given.
    pub fn new(
        sender: Option<AgentId>,
        receiver: Option<AgentId>,
        topic: Option<Topic>,
    ) -> Result<Self, EmptyPattern> {
        if sender.is_none() && receiver.is_none() && topic.is_none() {
            return Err(EmptyPattern);
        }
        Ok(Self {
            sender,
            receiver,
            topic,
        })
    }

    /// Also requires this sender.
    #[must_use]
    pub fn sent_by(mut self, sender: impl Into<AgentId>) -> Self {
        self.sender = Some(sender.into());
        self
    }

    /// Also requires this addressee.
    #[must_use]
    pub fn sent_to(mut self, receiver: impl Into<AgentId>) -> Self {
        self.receiver = Some(receiver.into());
        self
    }

    /// Also requires this topic.
    #[must_use]
    pub fn about(mut self, topic: impl Into<Topic>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Whether mail with this sender, receiver and topic is asked for.
    #[must_use]
    pub fn matches(&self, sender: AgentId, receiver: Option<AgentId>, topic: Topic) -> bool {
        self.sender.is_none_or(|wanted| wanted == sender)
            && self.receiver.is_none_or(|wanted| Some(wanted) == receiver)
            && self.topic.is_none_or(|wanted| wanted == topic)
    }

    /// The agents that it names.
    pub(crate) fn agents(&self) -> impl Iterator<Item = AgentId> + use<> {
        [self.sender, self.receiver].into_iter().flatten()
    }

    /// Which of the three it names, as three bits.
    fn kind(&self) -> usize {
        usize::from(self.sender.is_some()) << 2
            | usize::from(self.receiver.is_some()) << 1
            | usize::from(self.topic.is_some())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mail")?;
        if let Some(sender) = self.sender {
            write!(f, " from {sender}")?;
        }
        if let Some(receiver) = self.receiver {
            write!(f, " to {receiver}")?;
        }
        if let Some(topic) = self.topic {
            write!(f, " about {topic}")?;
        }
        Ok(())
    }
}

/// The subscriptions of one scheduler, or of the clusters among each other.
///
/// A subscriber is a small number: a slot, or a cluster.
#[derive(Debug, Default)]
pub struct MailingList {
    topics: TopicTable,
    /// For each kind of pattern, those who subscribed to it, in ascending order. Unused kinds are
    /// never looked up.
    lists: [FxHashMap<(AgentId, AgentId, u32), Vec<u32>>; 8],
    /// Patterns that name a topic alone, the most common ones, by the number of the topic.
    by_topic: Vec<TopicList>,
    /// Those of them about which mail came by for the first time since the host last took them.
    freshly_heard: Vec<Topic>,
    /// Which kinds are in use, a bit for each.
    kinds: u8,
    subscriptions: BTreeMap<u32, BTreeSet<Pattern>>,
    /// How many there are.
    count: usize,
}

/// Who subscribed to a topic alone.
#[derive(Debug, Default)]
struct TopicList {
    subscribers: Vec<u32>,
    /// Mail about it came by while an agent listened.
    is_heard: bool,
}

const TOPIC_ALONE: usize = 0b001;

impl MailingList {
    /// Whether there is no subscription.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds == 0
    }

    /// Adds a subscription. False if it was there already.
    pub fn subscribe(&mut self, subscriber: u32, pattern: Pattern) -> bool {
        if !self
            .subscriptions
            .entry(subscriber)
            .or_default()
            .insert(pattern)
        {
            return false;
        }
        self.count += 1;
        let list = self.list(&pattern);
        if let Err(place) = list.binary_search(&subscriber) {
            list.insert(place, subscriber);
        }
        self.kinds |= 1 << pattern.kind();
        true
    }

    /// Takes a subscription back. False if it was not there.
    pub fn unsubscribe(&mut self, subscriber: u32, pattern: Pattern) -> bool {
        let Some(patterns) = self.subscriptions.get_mut(&subscriber) else {
            return false;
        };
        if !patterns.remove(&pattern) {
            return false;
        }
        if patterns.is_empty() {
            self.subscriptions.remove(&subscriber);
        }
        self.count -= 1;
        let list = self.list(&pattern);
        if let Ok(place) = list.binary_search(&subscriber) {
            list.remove(place);
        }
        if list.is_empty() {
            self.drop_list(&pattern);
        }
        true
    }

    /// Takes all subscriptions of one subscriber back and tells which they were.
    pub fn unsubscribe_all(&mut self, subscriber: u32) -> BTreeSet<Pattern> {
        let patterns = self
            .subscriptions
            .get(&subscriber)
            .cloned()
            .unwrap_or_default();
        for pattern in &patterns {
            self.unsubscribe(subscriber, *pattern);
        }
        patterns
    }

    /// How many subscriptions there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Gives the subscribers other numbers, which have the same order.
    pub(crate) fn renumber(&mut self, number: impl Fn(u32) -> u32) {
        self.kinds = 0;
        self.count = 0;
        self.lists.iter_mut().for_each(FxHashMap::clear);
        let lists = self.by_topic.iter_mut();
        lists.for_each(|list| list.subscribers.clear());
        for (subscriber, patterns) in std::mem::take(&mut self.subscriptions) {
            for pattern in patterns {
                self.subscribe(number(subscriber), pattern);
            }
        }
    }

    /// What a subscriber listens to.
    pub fn subscriptions(&self, subscriber: u32) -> impl Iterator<Item = Pattern> + '_ {
        self.subscriptions
            .get(&subscriber)
            .into_iter()
            .flatten()
            .copied()
    }

    /// Who subscribed to exactly this pattern, in ascending order.
    pub fn subscribers(&mut self, pattern: Pattern) -> &[u32] {
        let key = self.key(&pattern);
        let list = if pattern.kind() == TOPIC_ALONE {
            let list = self.by_topic.get(key.2 as usize);
            list.map(|list| &list.subscribers)
        } else {
            self.lists[pattern.kind()].get(&key)
        };
        list.map_or(&[], Vec::as_slice)
    }

    /// Every pattern that an agent subscribed to, with the subscriber.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Pattern)> + '_ {
        self.subscriptions
            .iter()
            .flat_map(|(subscriber, patterns)| {
                patterns.iter().map(|pattern| (*subscriber, *pattern))
            })
    }

    /// The topics to which an agent listens, whatever the sender and receiver, in the order of
    /// their letters.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.topics_where(|_| true)
    }

    /// Those of them about which no mail came by while an agent listened.
    #[must_use]
    pub fn silent_topics(&self) -> Vec<Topic> {
        self.topics_where(|list| !list.is_heard)
    }

    fn topics_where(&self, want: impl Fn(&TopicList) -> bool) -> Vec<Topic> {
        let wanted = |number: u32| {
            let list = self.by_topic.get(number as usize);
            list.is_some_and(|list| !list.subscribers.is_empty() && want(list))
        };
        let mut topics: Vec<_> = self
            .topics
            .numbered()
            .filter(|(_, number)| wanted(*number))
            .map(|(topic, _)| topic)
            .collect();
        topics.sort_unstable();
        topics
    }

    /// The topics about which mail came by while an agent listened, and those of them that the host
    /// has asked for yet; each in the order of their letters.
    pub(crate) fn heard(&self) -> (Vec<Topic>, Vec<Topic>) {
        let is_heard = |number: u32| {
            self.by_topic
                .get(number as usize)
                .is_some_and(|it| it.is_heard)
        };
        let numbered = self.topics.numbered();
        let mut heard: Vec<_> = numbered
            .filter(|(_, number)| is_heard(*number))
            .map(|(topic, _)| topic)
            .collect();
        heard.sort_unstable();
        let mut fresh = self.freshly_heard.clone();
        fresh.sort_unstable();
        (heard, fresh)
    }

    /// Takes up what [`heard`](Self::heard) told.
    pub(crate) fn restore_heard(&mut self, (heard, fresh): (Vec<Topic>, Vec<Topic>)) {
        for topic in heard {
            self.topic_list(topic).is_heard = true;
        }
        self.freshly_heard = fresh;
    }

    /// About how many topics mail came by for the first time since these were last taken.
    pub(crate) fn freshly_heard(&self) -> usize {
        self.freshly_heard.len()
    }

    /// Forgets these topics but for the first `count`: no mail came by about the others.
    pub(crate) fn unhear(&mut self, count: usize) {
        let count = count.min(self.freshly_heard.len());
        for topic in self.freshly_heard.split_off(count) {
            self.topic_list(topic).is_heard = false;
        }
    }

    /// Takes the topics about which mail came by for the first time, since the last time.
    pub fn take_heard(&mut self) -> Vec<Topic> {
        std::mem::take(&mut self.freshly_heard)
    }

    /// Adds to `into` who is to get a copy of mail like this, each once, in ascending order.
    #[inline]
    pub fn recipients(
        &mut self,
        sender: AgentId,
        receiver: Option<AgentId>,
        topic: Topic,
        into: &mut Vec<u32>,
    ) {
        if self.kinds == 0 {
            return;
        }
        let number = self.topics.number(topic);
        if let Some(list) = self.by_topic.get_mut(number as usize)
            && !list.subscribers.is_empty()
        {
            if !list.is_heard {
                list.is_heard = true;
                self.freshly_heard.push(topic);
            }
            if self.kinds == 1 << TOPIC_ALONE {
                into.extend_from_slice(&list.subscribers);
            }
        }
        if self.kinds == 1 << TOPIC_ALONE {
            return;
        }
        self.recipients_by_any(sender, receiver, number, into);
    }

    fn recipients_by_any(
        &mut self,
        sender: AgentId,
        receiver: Option<AgentId>,
        topic: u32,
        into: &mut Vec<u32>,
    ) {
        let (start, mut lists) = (into.len(), 0);
        for kind in 1..8 {
            if self.kinds & 1 << kind == 0 {
                continue;
            }
            let list = if kind == TOPIC_ALONE {
                let list = self.by_topic.get(topic as usize);
                list.map(|list| &list.subscribers)
            } else {
                let sender = if kind & 0b100 == 0 {
                    AgentId::NOBODY
                } else {
                    sender
                };
                let receiver = match receiver {
                    _ if kind & 0b010 == 0 => AgentId::NOBODY,
                    Some(receiver) => receiver,
                    None => continue,
                };
                let topic = if kind & 0b001 == 0 { u32::MAX } else { topic };
                self.lists[kind].get(&(sender, receiver, topic))
            };
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                into.extend_from_slice(list);
                lists += 1;
            }
        }
        if lists > 1 {
            into[start..].sort_unstable();
            let mut kept = start + 1;
            for next in start + 1..into.len() {
                if into[next] != into[kept - 1] {
                    into[kept] = into[next];
                    kept += 1;
                }
            }
            into.truncate(kept);
        }
    }

    fn key(&mut self, pattern: &Pattern) -> (AgentId, AgentId, u32) {
        (
            pattern.sender.unwrap_or(AgentId::NOBODY),
            pattern.receiver.unwrap_or(AgentId::NOBODY),
            pattern
                .topic
                .map_or(u32::MAX, |topic| self.topics.number(topic)),
        )
    }

    fn list(&mut self, pattern: &Pattern) -> &mut Vec<u32> {
        let key = self.key(pattern);
        if pattern.kind() == TOPIC_ALONE
            && let Some(topic) = pattern.topic
        {
            return &mut self.topic_list(topic).subscribers;
        }
        self.lists[pattern.kind()].entry(key).or_default()
    }

    fn topic_list(&mut self, topic: Topic) -> &mut TopicList {
        let number = self.topics.number(topic) as usize;
        if self.by_topic.len() <= number {
            self.by_topic.resize_with(number + 1, TopicList::default);
        }
        &mut self.by_topic[number]
    }

    /// Forgets a list that became empty, and its kind if it was the last of it.
    fn drop_list(&mut self, pattern: &Pattern) {
        let (key, kind) = (self.key(pattern), pattern.kind());
        let unused = if kind == TOPIC_ALONE {
            let mut lists = self.by_topic.iter();
            lists.all(|list| list.subscribers.is_empty())
        } else {
            self.lists[kind].remove(&key);
            self.lists[kind].is_empty()
        };
        if unused {
            self.kinds &= !(1 << kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [&str; 3] = ["A", "B", "C"];

    fn pattern() -> impl Strategy<Value = Pattern> {
        let id = || prop::option::of((0..3_u64).prop_map(AgentId::from));
        let topic = prop::option::of((0..3_usize).prop_map(|topic| Topic::new(TOPICS[topic])));
        (id(), id(), topic).prop_filter_map("empty", |(s, r, t)| Pattern::new(s, r, t).ok())
    }

    proptest! {
        #[test]
        fn delivers_as_a_plain_list_of_patterns_does(
            acts in prop::collection::vec((0..4_u32, pattern(), 0..8_u32), 0..60),
        ) {
            let mut list = MailingList::default();
            let mut naive: BTreeSet<(u32, Pattern)> = BTreeSet::new();
            for (subscriber, pattern, act) in acts {
                match act {
                    0 => {
                        let mine = |held: &&(u32, Pattern)| held.0 == subscriber;
                        let patterns: BTreeSet<_> =
                            naive.iter().filter(mine).map(|held| held.1).collect();
                        prop_assert_eq!(list.unsubscribe_all(subscriber), patterns);
                        naive.retain(|held| held.0 != subscriber);
                    }
                    1..=3 => prop_assert_eq!(
                        list.unsubscribe(subscriber, pattern),
                        naive.remove(&(subscriber, pattern))
                    ),
                    _ => prop_assert_eq!(
                        list.subscribe(subscriber, pattern),
                        naive.insert((subscriber, pattern))
                    ),
                }
                let held: BTreeSet<_> = list.iter().collect();
                prop_assert_eq!(&held, &naive);
                let mine: Vec<_> = naive.iter().filter(|held| held.1 == pattern).map(|held| held.0).collect();
                prop_assert_eq!(list.subscribers(pattern), &mine[..]);
                prop_assert_eq!(list.is_empty(), naive.is_empty());
            }
            for sender in (0..4).map(AgentId::from) {
                for receiver in (0..4).map(AgentId::from).map(Some).chain([None]) {
                    for topic in TOPICS.into_iter().chain(["D"]).map(Topic::new) {
                        let expected: BTreeSet<u32> = naive
                            .iter()
                            .filter(|held| held.1.matches(sender, receiver, topic))
                            .map(|held| held.0)
                            .collect();
                        let mut got = vec![77];
                        list.recipients(sender, receiver, topic, &mut got);
                        prop_assert_eq!(&got[1..], &expected.into_iter().collect::<Vec<_>>()[..]);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert_eq!(Pattern::new(None, None, None), Err(EmptyPattern));
        let all = Pattern::topic("Order").sent_by(7).sent_to(8);
        assert_eq!(all.to_string(), "mail from 7 to 8 about Order");
    }
}
