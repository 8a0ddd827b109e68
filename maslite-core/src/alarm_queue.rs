//! Mail for later: pending alarms, earliest first.
//!
//! The queue is a ladder queue: alarms far ahead lie unsorted, and only the few that come next are
//! sorted, so that setting and firing one costs about the same with a thousand pending as with a
//! million. Source: Tang, Goh, Thng, "Ladder queue", ACM TOMACS 15(3), 2005; here the buckets are
//! powers of two wide and alarms set into the part already sorted go to a small heap beside it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use serde::{Deserialize, Serialize};

use crate::message::{ELSEWHERE, Envelope, LEFT, MailKey, REQUIRED};
use crate::{AgentId, SimTime};

/// A handle to a pending alarm. It stays valid, and means nothing else, after the alarm fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AlarmId {
    setter: AgentId,
    sequence: u64,
    node: u32,
}

impl AlarmId {
    /// Who set the alarm, and the sequence number of that call.
    #[inline]
    pub(crate) fn origin(self) -> (AgentId, u64) {
        (self.setter, self.sequence)
    }
}

/// One pending alarm.
#[derive(Clone, Debug)]
pub(crate) struct Pending<T> {
    pub(crate) time: SimTime,
    pub(crate) load: T,
}

/// What the queue knows of what it keeps.
pub(crate) trait Load {
    /// Its place among all that is due at the same time.
    fn key(&self) -> MailKey;
    fn setter(&self) -> AgentId;
    /// In real time an idle run waits for it.
    fn is_required(&self) -> bool {
        false
    }
    /// It is for an agent that this scheduler has never heard of.
    fn is_elsewhere(&self) -> bool {
        false
    }
    /// It can be cleared.
    fn is_clearable(&self) -> bool {
        true
    }
}

impl<M> Load for Envelope<M> {
    #[inline]
    fn key(&self) -> MailKey {
        self.key
    }

    #[inline]
    fn setter(&self) -> AgentId {
        self.sender
    }

    #[inline]
    fn is_required(&self) -> bool {
        self.is(REQUIRED)
    }

    #[inline]
    fn is_elsewhere(&self) -> bool {
        self.is(ELSEWHERE)
    }

    fn is_clearable(&self) -> bool {
        !self.is(LEFT)
    }
}

/// The pending alarms of one scheduler, in the order (time, time they were set at, setter's
/// insertion index, sequence).
#[derive(Debug)]
pub(crate) struct AlarmQueue<T> {
    /// The alarms themselves; the tiers below order their numbers.
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    pending: usize,
    required: usize,
    elsewhere: usize,
    /// Cleared alarms whose entries have not come up yet.
    cleared: usize,
    /// Latest first: the end fires next.
    sorted: Vec<Entry>,
    /// Alarms set after `sorted` was made, for times before `sorted_end`.
    late: BinaryHeap<Reverse<(SimTime, MailKey, u32)>>,
    /// Every alarm before this time [ns] is in `sorted` or `late`. The end of time counts as before.
    sorted_end: u64,
    /// Coarse to fine; each one divides a bucket of the one before.
    rungs: Vec<Rung>,
    spare_rungs: Vec<Rung>,
    chunks: Chunks,
    /// Alarms later than every rung, in no order.
    far: Vec<Entry>,
    scratch: Vec<Entry>,
    ties: Vec<(MailKey, u32)>,
    /// Who set what, kept from the first time that somebody asks.
    by_setter: Option<BTreeSet<(AgentId, u64, u32)>>,
}

#[derive(Debug)]
enum Node<T> {
    Free,
    Pending(Pending<T>),
    /// Its number cannot be used again before its entry comes up.
    Cleared,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// [ns]
    time: u64,
    node: u32,
}

/// Fewer entries than this are sorted at once, more are first divided into buckets.
const SORT_AT_ONCE: usize = 96;
/// Entries wanted in a bucket.
const BUCKET: usize = 8;

#[derive(Debug, Default)]
struct Rung {
    /// The first and the last time it covers [ns].
    start: u64,
    last: u64,
    /// A bucket is 2^shift ns wide.
    shift: u32,
    /// Buckets before this one are empty and closed.
    next: usize,
    /// The first chunk of each bucket.
    buckets: Vec<u32>,
}

impl Rung {
    #[expect(clippy::cast_possible_truncation, reason = "a rung has few buckets")]
    fn bucket_of(&self, time: u64) -> Option<usize> {
        (time <= self.last).then(|| ((time - self.start) >> self.shift) as usize)
    }

    /// Where a bucket ends [ns]; saturates at the end of time.
    fn end_of(&self, bucket: usize) -> u64 {
        let end = u128::from(self.start) + ((bucket as u128 + 1) << self.shift);
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        end.min(self.last.saturating_add(1))
    }
}

/// Entries of all buckets, in chunks that are used again.
#[derive(Debug, Default)]
struct Chunks {
    chunks: Vec<Chunk>,
    free: Vec<u32>,
}

const CHUNK: usize = 7;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Chunk {
    entries: [Entry; CHUNK],
    len: u32,
    next: u32,
}

impl Chunks {
    #[inline]
    fn push(&mut self, bucket: &mut u32, entry: Entry) {
        if let Some(chunk) = self.chunks.get_mut(*bucket as usize)
            && let Some(place) = chunk.entries.get_mut(chunk.len as usize)
        {
            *place = entry;
            chunk.len += 1;
            return;
        }
        self.push_chunk(bucket, entry);
    }

    /// Begins another chunk of a bucket.
    fn push_chunk(&mut self, bucket: &mut u32, entry: Entry) {
        let mut chunk = Chunk {
            entries: [Entry::default(); CHUNK],
            len: 1,
            next: *bucket,
        };
        chunk.entries[0] = entry;
        *bucket = match self.free.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None => {
                self.chunks.push(chunk);
                crate::narrow(self.chunks.len() - 1)
            }
        };
    }

    fn take(&mut self, bucket: &mut u32, into: &mut Vec<Entry>) {
        while *bucket != NONE {
            let chunk = &self.chunks[*bucket as usize];
            into.extend_from_slice(&chunk.entries[..chunk.len as usize]);
            self.free.push(*bucket);
            *bucket = chunk.next;
        }
    }
}

impl<T> Default for AlarmQueue<T> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            pending: 0,
            required: 0,
            elsewhere: 0,
            cleared: 0,
            sorted: Vec::new(),
            late: BinaryHeap::new(),
            sorted_end: 0,
            rungs: Vec::new(),
            spare_rungs: Vec::new(),
            chunks: Chunks::default(),
            far: Vec::new(),
            scratch: Vec::new(),
            ties: Vec::new(),
            by_setter: None,
        }
    }
}

impl<T: Load> AlarmQueue<T> {
    /// How many alarms are pending.
    pub(crate) fn len(&self) -> usize {
        self.pending
    }

    /// How many of the pending alarms are required.
    pub(crate) fn required(&self) -> usize {
        self.required
    }

    /// How many of the pending alarms are for agents never heard of.
    pub(crate) fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    /// Adds an alarm.
    #[inline]
    pub(crate) fn set(&mut self, alarm: Pending<T>) -> AlarmId {
        let (time, key, setter) = (alarm.time, alarm.load.key(), alarm.load.setter());
        self.pending += 1;
        self.required += usize::from(alarm.load.is_required());
        self.elsewhere += usize::from(alarm.load.is_elsewhere());
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node as usize] = Node::Pending(alarm);
                node
            }
            None => {
                self.nodes.push(Node::Pending(alarm));
                crate::narrow(self.nodes.len() - 1)
            }
        };
        if let Some(by_setter) = &mut self.by_setter {
            by_setter.insert((setter, key.sequence(), node));
        }
        self.place(time, node);
        AlarmId {
            setter,
            sequence: key.sequence(),
            node,
        }
    }

    /// Gives a pending alarm its place in the order.
    #[inline]
    fn place(&mut self, at: SimTime, node: u32) {
        let time = at.as_nanos();
        if time < self.sorted_end || self.sorted_end == u64::MAX {
            if let Node::Pending(alarm) = &self.nodes[node as usize] {
                self.late.push(Reverse((at, alarm.load.key(), node)));
            }
            return;
        }
        let entry = Entry { time, node };
        // The finest rung that reaches so far has the bucket; it is one that is still open,
        // since all closed ones end at or before `sorted_end`.
        for rung in self.rungs.iter_mut().rev() {
            if let Some(bucket) = rung.bucket_of(time) {
                self.chunks.push(&mut rung.buckets[bucket], entry);
                return;
            }
        }
        self.far.push(entry);
    }

    /// The time of the earliest alarm.
    #[inline]
    pub(crate) fn next_time(&mut self) -> Option<SimTime> {
        while let Some(time) = self.first_entry_time() {
            if self.cleared == 0 || self.drop_cleared_first() {
                return Some(time);
            }
        }
        None
    }

    /// The time of the earliest entry, be its alarm pending or cleared.
    #[inline]
    fn first_entry_time(&mut self) -> Option<SimTime> {
        if self.sorted.is_empty() && self.late.is_empty() && !self.sort_more() {
            return None;
        }
        let sorted = self.sorted.last().map(|entry| entry.time);
        let late = self.late.peek().map(|Reverse((time, _, _))| *time);
        match (sorted.map(SimTime::from_nanos), late) {
            (Some(sorted), Some(late)) => Some(sorted.min(late)),
            (sorted, late) => sorted.or(late),
        }
    }

    /// True if the alarm of the first entry is pending; else that entry is taken out.
    #[cold]
    fn drop_cleared_first(&mut self) -> bool {
        let Some(time) = self.first_entry_time() else {
            return false;
        };
        let late = self.late.peek().filter(|Reverse((at, _, _))| *at == time);
        let late = late.map(|Reverse((_, _, node))| *node);
        let sorted = self.sorted.last();
        let sorted = sorted.filter(|entry| entry.time == time.as_nanos());
        let sorted = sorted.map(|entry| entry.node);
        let pending = |node: u32| matches!(self.nodes[node as usize], Node::Pending(_));
        if sorted.is_some_and(pending) || late.is_some_and(pending) {
            return true;
        }
        if let Some(node) = sorted {
            self.sorted.pop();
            self.retire_cleared(node);
        } else if let Some(node) = late {
            self.late.pop();
            self.retire_cleared(node);
        }
        false
    }

    /// Takes the first alarm due at `time`, which must be what [`Self::next_time`] answered.
    #[inline]
    pub(crate) fn pop_due(&mut self, time: SimTime) -> Option<Pending<T>> {
        loop {
            let sorted = self.sorted.last().copied();
            let sorted = sorted.filter(|entry| entry.time == time.as_nanos());
            let node = match sorted {
                Some(entry) if self.late.is_empty() => {
                    self.sorted.pop();
                    entry.node
                }
                sorted => self.pop_first(sorted, time)?,
            };
            match std::mem::replace(&mut self.nodes[node as usize], Node::Free) {
                Node::Pending(alarm) => {
                    self.free.push(node);
                    self.forget(&alarm, node);
                    return Some(alarm);
                }
                _ => self.retire_cleared(node),
            }
        }
    }

    /// Takes the first entry due at `time` out: the last of `sorted`, if that is given, or a late
    /// one. Tells its node.
    fn pop_first(&mut self, sorted: Option<Entry>, time: SimTime) -> Option<u32> {
        let late = self.late.peek().filter(|Reverse((at, _, _))| *at == time);
        let late_first = match (sorted, late) {
            (Some(entry), Some(Reverse((_, key, _)))) => {
                matches!(&self.nodes[entry.node as usize], Node::Pending(alarm) if *key < alarm.load.key())
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if late_first {
            self.late.pop().map(|Reverse((_, _, node))| node)
        } else {
            sorted?;
            self.sorted.pop().map(|entry| entry.node)
        }
    }

    /// Sorts the next bucket. False if there is nothing left to sort.
    fn sort_more(&mut self) -> bool {
        debug_assert!(self.sorted.is_empty() && self.late.is_empty());
        loop {
            let Some(rung) = self.rungs.last_mut() else {
                return self.divide_far();
            };
            while rung.next < rung.buckets.len() && rung.buckets[rung.next] == NONE {
                rung.next += 1;
            }
            if rung.next == rung.buckets.len() {
                // What this rung covered is over; the coarser one goes on behind it.
                let rung = self.rungs.pop().expect("there is a last rung");
                self.sorted_end = self.sorted_end.max(rung.end_of(rung.buckets.len() - 1));
                self.spare_rungs.push(rung);
                continue;
            }
            let bucket = rung.next;
            rung.next += 1;
            let (end, narrow) = (rung.end_of(bucket), rung.shift == 0);
            let mut entries = std::mem::take(&mut self.scratch);
            entries.clear();
            self.chunks.take(&mut rung.buckets[bucket], &mut entries);
            self.drop_cleared(&mut entries);
            if entries.len() > SORT_AT_ONCE && !narrow && self.divide(&mut entries, Some(end)) {
                self.scratch = entries;
                continue;
            }
            self.sorted_end = end;
            self.sort(entries);
            if !self.sorted.is_empty() {
                return true;
            }
        }
    }

    /// Starts over from the alarms far ahead.
    fn divide_far(&mut self) -> bool {
        let mut entries = std::mem::replace(&mut self.far, std::mem::take(&mut self.scratch));
        self.far.clear();
        self.drop_cleared(&mut entries);
        if entries.is_empty() {
            self.scratch = entries;
            return false;
        }
        if entries.len() > SORT_AT_ONCE && self.divide(&mut entries, None) {
            self.scratch = entries;
            return self.sort_more();
        }
        let last = entries.iter().map(|entry| entry.time).max().unwrap_or(0);
        self.sorted_end = last.saturating_add(1);
        self.sort(entries);
        true
    }

    /// Spreads entries over the buckets of a new rung that ends at `end` or, without one, where
    /// the latest entry is. False, with nothing done, if they are all due at one time.
    fn divide(&mut self, entries: &mut Vec<Entry>, end: Option<u64>) -> bool {
        let (mut first, mut last) = (u64::MAX, 0);
        for entry in entries.iter() {
            first = first.min(entry.time);
            last = last.max(entry.time);
        }
        if first == last {
            return false;
        }
        // The new rung must reach to the end of the bucket it divides, or alarms set later would
        // fall between the two.
        let reach = end.map_or(last, |end| if end == u64::MAX { end } else { end - 1 });
        let wanted = (entries.len() / BUCKET).max(2) as u64;
        let shift = ((last - first) / wanted).max(1).ilog2();
        let count = ((reach - first) >> shift) + 1;
        // One outlier must not make a million empty buckets: then the buckets are made wider.
        let most = 4 * wanted;
        let shift = if count > most {
            shift + (count / most).ilog2() + 1
        } else {
            shift
        };
        let count = usize::try_from(((reach - first) >> shift) + 1).expect("few buckets");
        let mut rung = self.spare_rungs.pop().unwrap_or_default();
        rung.start = first;
        rung.last = reach;
        rung.shift = shift;
        rung.next = 0;
        rung.buckets.clear();
        rung.buckets.resize(count, NONE);
        self.sorted_end = first;
        for entry in entries.drain(..) {
            let bucket = rung
                .bucket_of(entry.time)
                .expect("the rung reaches the last entry");
            self.chunks.push(&mut rung.buckets[bucket], entry);
        }
        self.rungs.push(rung);
        true
    }

    /// Looks at every node, which also brings them into the cache while their order is worked out.
    fn drop_cleared(&mut self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| match &self.nodes[entry.node as usize] {
            Node::Pending(_) => true,
            _ => {
                self.nodes[entry.node as usize] = Node::Free;
                self.free.push(entry.node);
                self.cleared -= 1;
                false
            }
        });
    }

    /// Makes `sorted` of entries; ties of time are broken by key.
    fn sort(&mut self, mut entries: Vec<Entry>) {
        entries.sort_unstable_by_key(|entry| Reverse(entry.time));
        let mut start = 0;
        while start < entries.len() {
            let time = entries[start].time;
            let run = entries[start..]
                .iter()
                .take_while(|entry| entry.time == time)
                .count();
            if run > 1 {
                self.ties.clear();
                let nodes = &self.nodes;
                self.ties
                    .extend(entries[start..start + run].iter().map(|entry| {
                        match &nodes[entry.node as usize] {
                            Node::Pending(alarm) => (alarm.load.key(), entry.node),
                            _ => unreachable!("cleared entries were dropped before"),
                        }
                    }));
                self.ties.sort_unstable_by(|a, b| b.cmp(a));
                for (entry, (_, node)) in entries[start..].iter_mut().zip(&self.ties) {
                    entry.node = *node;
                }
            }
            start += run;
        }
        self.scratch = std::mem::replace(&mut self.sorted, entries);
    }

    fn retire_cleared(&mut self, node: u32) {
        self.nodes[node as usize] = Node::Free;
        self.free.push(node);
        self.cleared -= 1;
    }

    #[inline]
    fn forget(&mut self, alarm: &Pending<T>, node: u32) {
        self.pending -= 1;
        self.required -= usize::from(alarm.load.is_required());
        self.elsewhere -= usize::from(alarm.load.is_elsewhere());
        if let Some(by_setter) = &mut self.by_setter {
            let load = &alarm.load;
            by_setter.remove(&(load.setter(), load.key().sequence(), node));
        }
    }

    /// The alarm behind a handle, if it has neither fired nor been cleared.
    pub(crate) fn pending(&mut self, id: AlarmId) -> Option<&mut Pending<T>> {
        match self.nodes.get_mut(id.node as usize) {
            Some(Node::Pending(alarm))
                if alarm.load.setter() == id.setter
                    && alarm.load.key().sequence() == id.sequence =>
            {
                Some(alarm)
            }
            _ => None,
        }
    }

    /// Clears one alarm of `setter`. False if it fired, was cleared, or is not the setter's.
    pub(crate) fn clear(&mut self, setter: AgentId, id: AlarmId) -> bool {
        let pending = self
            .pending(id)
            .is_some_and(|alarm| alarm.load.is_clearable() && alarm.load.setter() == setter);
        if pending {
            self.clear_node(id.node);
        }
        pending
    }

    fn clear_node(&mut self, node: u32) {
        if let Node::Pending(alarm) =
            std::mem::replace(&mut self.nodes[node as usize], Node::Cleared)
        {
            self.cleared += 1;
            self.forget(&alarm, node);
        }
        if self.cleared > 1024 && self.cleared > self.pending {
            self.sweep();
        }
    }

    /// Clears the alarms of one setter, or of all, that match; returns how many.
    pub(crate) fn clear_where(
        &mut self,
        setter: Option<AgentId>,
        mut matches: impl FnMut(&Pending<T>) -> bool,
    ) -> usize {
        let nodes = self.nodes_of(setter);
        let mut count = 0;
        for node in nodes {
            if matches!(&self.nodes[node as usize], Node::Pending(alarm) if alarm.load.is_clearable() && matches(alarm))
            {
                self.clear_node(node);
                count += 1;
            }
        }
        count
    }

    /// The alarms of one setter, or all, in the order they will fire.
    pub(crate) fn list(&mut self, setter: Option<AgentId>) -> Vec<(AlarmId, &Pending<T>)> {
        let nodes = self.nodes_of(setter);
        let mut list: Vec<_> = nodes
            .into_iter()
            .filter_map(|node| match &self.nodes[node as usize] {
                Node::Pending(alarm) => {
                    let (setter, sequence) = (alarm.load.setter(), alarm.load.key().sequence());
                    Some((
                        AlarmId {
                            setter,
                            sequence,
                            node,
                        },
                        alarm,
                    ))
                }
                _ => None,
            })
            .collect();
        list.sort_unstable_by_key(|(_, alarm)| (alarm.time, alarm.load.key()));
        list
    }

    /// Shows every pending alarm, in no order.
    pub(crate) fn for_each(&mut self, mut visit: impl FnMut(&mut T)) {
        for node in &mut self.nodes {
            if let Node::Pending(alarm) = node {
                visit(&mut alarm.load);
            }
        }
    }

    fn nodes_of(&mut self, setter: Option<AgentId>) -> Vec<u32> {
        let Some(setter) = setter else {
            return (0..crate::narrow(self.nodes.len())).collect();
        };
        let by_setter = self.by_setter.get_or_insert_with(|| {
            let numbered = (0_u32..).zip(&self.nodes);
            numbered
                .filter_map(|(node, state)| match state {
                    Node::Pending(alarm) => {
                        Some((alarm.load.setter(), alarm.load.key().sequence(), node))
                    }
                    _ => None,
                })
                .collect()
        });
        let range = by_setter.range((setter, 0, 0)..=(setter, u64::MAX, u32::MAX));
        range.map(|(_, _, node)| *node).collect()
    }

    /// Throws out the entries of cleared alarms, so that clearing many does not fill memory.
    fn sweep(&mut self) {
        let mut entries = std::mem::take(&mut self.sorted);
        entries.extend(self.late.drain().map(|Reverse((time, _, node))| Entry {
            time: time.as_nanos(),
            node,
        }));
        for mut rung in self.rungs.drain(..) {
            for bucket in &mut rung.buckets {
                self.chunks.take(bucket, &mut entries);
            }
            self.spare_rungs.push(rung);
        }
        entries.append(&mut self.far);
        self.drop_cleared(&mut entries);
        self.sorted_end = 0;
        self.far = entries;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Load for (MailKey, AgentId) {
        fn key(&self) -> MailKey {
            self.0
        }

        fn setter(&self) -> AgentId {
            self.1
        }
    }

    type Alarm = Pending<(MailKey, AgentId)>;

    fn alarm(time: u64, set_at: u64, index: u64, sequence: u64) -> Alarm {
        let key = MailKey::of_agent(SimTime::from_nanos(set_at), index, sequence);
        Pending {
            time: SimTime::from_nanos(time),
            load: (key, AgentId::from(index)),
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Set { delay: u64, setter: u64 },
        Fire,
        Clear(usize),
        ClearSetter(u64),
    }

    fn delays() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            0..4_u64,
            0..1_000_u64,
            0..1_000_000_000_u64,
            Just(u64::MAX),
            (0..63_u32).prop_map(|shift| 1 << shift),
        ]
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let set = (delays(), 0..5_u64).prop_map(|(delay, setter)| Act::Set { delay, setter });
        prop::collection::vec(
            prop_oneof![
                6 => set,
                3 => Just(Act::Fire),
                1 => (0..50_usize).prop_map(Act::Clear),
                1 => (0..9_u64).prop_map(Act::ClearSetter),
            ],
            0..1_500,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn fires_as_a_sorted_list_does(acts in acts()) {
            let mut queue = AlarmQueue::default();
            let mut naive: Vec<(u64, MailKey, AlarmId, u64)> = Vec::new();
            let (mut now, mut sequence) = (0_u64, 0);
            for act in acts {
                match act {
                    Act::Set { delay, setter } => {
                        sequence += 1;
                        let alarm = alarm(now.saturating_add(delay), now, setter, sequence);
                        let (time, key) = (alarm.time.as_nanos(), alarm.load.key());
                        naive.push((time, key, queue.set(alarm), setter));
                    }
                    Act::Fire => {
                        naive.sort_by_key(|(time, key, _, _)| (*time, *key));
                        let time = naive.first().map(|first| first.0);
                        prop_assert_eq!(queue.next_time().map(SimTime::as_nanos), time);
                        let Some(time) = time else { continue };
                        now = time;
                        while naive.first().is_some_and(|first| first.0 == time) {
                            let (_, key, _, _) = naive.remove(0);
                            let fired = queue.pop_due(SimTime::from_nanos(time)).unwrap();
                            prop_assert_eq!(fired.load.key(), key);
                        }
                        prop_assert!(queue.pop_due(SimTime::from_nanos(time)).is_none());
                    }
                    Act::Clear(which) => {
                        if which < naive.len() {
                            let (_, _, id, setter) = naive.swap_remove(which);
                            prop_assert!(!queue.clear(AgentId::from(99), id), "not the setter's");
                            prop_assert!(queue.clear(AgentId::from(setter), id));
                            prop_assert!(!queue.clear(AgentId::from(setter), id));
                        }
                    }
                    Act::ClearSetter(setter) => {
                        let before = naive.len();
                        naive.retain(|held| held.3 != setter);
                        let cleared = queue.clear_where(Some(AgentId::from(setter)), |_| true);
                        prop_assert_eq!(cleared, before - naive.len());
                    }
                }
                prop_assert_eq!(queue.len(), naive.len());
            }
            naive.sort_by_key(|(time, key, _, _)| (*time, *key));
            let listed: Vec<_> = queue.list(None).iter().map(|(_, alarm)| alarm.load.key()).collect();
            let expected: Vec<_> = naive.iter().map(|(_, key, _, _)| *key).collect();
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a million take hours there")]
    fn a_million_at_one_time_and_more_set_for_it_meanwhile() {
        let mut queue = AlarmQueue::default();
        for sequence in 0..200_000 {
            queue.set(alarm(10, 0, 1, sequence));
        }
        assert_eq!(queue.next_time(), Some(SimTime::from_nanos(10)));
        for sequence in 200_000..400_000 {
            queue.set(alarm(10, 1, 0, sequence));
        }
        let fired = std::iter::from_fn(|| queue.pop_due(SimTime::from_nanos(10)));
        assert!(
            fired
                .map(|alarm| alarm.load.key().sequence())
                .eq(0..400_000)
        );
    }

    #[test]
    fn clearing_everything_again_and_again_keeps_memory_bounded() {
        let mut queue = AlarmQueue::default();
        let rounds = if cfg!(miri) { 4 } else { 100 };
        for round in 0..rounds {
            for sequence in 0..2_000 {
                queue.set(alarm(1_000_000 + sequence, 0, round, sequence));
            }
            assert_eq!(
                queue.clear_where(Some(AgentId::from(round)), |_| true),
                2_000
            );
        }
        assert_eq!(queue.len(), 0);
        assert!(queue.nodes.len() < 6_000, "{} nodes", queue.nodes.len());
        assert_eq!(queue.next_time(), None);
    }
}
