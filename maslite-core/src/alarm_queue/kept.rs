//! Alarms that must be found by their handles, or do not fit an entry: they are kept apart.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::pool::NONE;
use super::{Load, Pending};
use crate::AgentId;
use crate::message::MailKey;

#[derive(Debug)]
pub(super) struct Kept<W> {
    alarms: Vec<Place<W>>,
    free: Vec<u32>,
    /// Where the alarm of a node is kept.
    by_node: Vec<u32>,
    /// The nodes by setter, from the first listing on.
    by_setter: Option<BTreeSet<(AgentId, u64, u32)>>,
    /// How many alarms were set since the last listing.
    unasked: usize,
}

#[derive(Debug)]
enum Place<W> {
    Free,
    /// With its node.
    Pending(u32, Pending<W>),
    /// Its entry has not come up yet, and is among others by this key.
    Cleared(MailKey),
}

impl<W> Place<W> {
    fn pending(&self) -> Option<(u32, &Pending<W>)> {
        match self {
            Self::Pending(node, alarm) => Some((*node, alarm)),
            _ => None,
        }
    }
}

/// The index is given up when this many times the number of pending alarms have been set and no
/// agent has asked for its alarms.
const PATIENCE: usize = 8;

impl<W> Default for Kept<W> {
    fn default() -> Self {
        Self {
            alarms: Vec::new(),
            free: Vec::new(),
            by_node: Vec::new(),
            by_setter: None,
            unasked: 0,
        }
    }
}

impl<W: Load> Kept<W> {
    /// Keeps an alarm; tells where.
    pub(super) fn insert(&mut self, node: u32, alarm: Pending<W>) -> u32 {
        if let Some(by_setter) = &mut self.by_setter {
            by_setter.insert(index_key(node, &alarm.load));
        }
        if self.by_node.len() <= node as usize {
            self.by_node.resize(node as usize + 1, NONE);
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.alarms[place as usize] = Place::Pending(node, alarm);
                place
            }
            None => {
                self.alarms.push(Place::Pending(node, alarm));
                crate::narrow(self.alarms.len() - 1)
            }
        };
        self.by_node[node as usize] = place;
        place
    }

    /// The key of what is kept at a place, cleared or not.
    pub(super) fn key(&self, place: u32) -> Option<MailKey> {
        match self.alarms.get(place as usize)? {
            Place::Pending(_, alarm) => Some(alarm.load.key()),
            Place::Cleared(key) => Some(*key),
            Place::Free => None,
        }
    }

    pub(super) fn of_node(&self, node: u32) -> Option<&Pending<W>> {
        let place = *self.by_node.get(node as usize)?;
        let (own, alarm) = self.alarms.get(place as usize)?.pending()?;
        (own == node).then_some(alarm)
    }

    pub(super) fn of_node_mut(&mut self, node: u32) -> Option<&mut Pending<W>> {
        let place = *self.by_node.get(node as usize)?;
        match self.alarms.get_mut(place as usize)? {
            Place::Pending(own, alarm) if *own == node => Some(alarm),
            _ => None,
        }
    }

    /// Takes what is kept at a place, which is free from now on.
    pub(super) fn take(&mut self, place: u32) -> Option<Pending<W>> {
        let taken = self.replace(place, Place::Free);
        self.free.push(place);
        taken
    }

    /// Takes the alarm of a node, whose entry stays.
    pub(super) fn clear(&mut self, node: u32) -> Option<Pending<W>> {
        let place = *self.by_node.get(node as usize)?;
        let key = self.key(place)?;
        self.replace(place, Place::Cleared(key))
    }

    fn replace(&mut self, place: u32, new: Place<W>) -> Option<Pending<W>> {
        let Place::Pending(node, alarm) = std::mem::replace(&mut self.alarms[place as usize], new)
        else {
            return None;
        };
        if let Some(by_setter) = &mut self.by_setter {
            by_setter.remove(&index_key(node, &alarm.load));
        }
        Some(alarm)
    }

    /// Whether alarms are indexed by their setters, for which all must be kept. The index is given
    /// up when no agent has asked for its alarms for long enough.
    #[inline]
    pub(super) fn is_indexed(&self) -> bool {
        self.by_setter.is_some()
    }

    /// Counts an alarm that was set, one of `pending` alarms.
    pub(super) fn was_set(&mut self, pending: usize) {
        self.unasked += 1;
        if self.unasked > PATIENCE * (pending + 128) {
            self.by_setter = None;
        }
    }

    /// The nodes of what a setter has set; all alarms are kept by now.
    pub(super) fn nodes_of(&mut self, setter: AgentId) -> Vec<u32> {
        self.nodes_in((setter, 0, 0)..=(setter, u64::MAX, u32::MAX))
    }

    /// The nodes of what a setter has set by one call; all alarms are kept by now.
    pub(super) fn nodes_of_call(&mut self, setter: AgentId, sequence: u64) -> Vec<u32> {
        self.nodes_in((setter, sequence, 0)..=(setter, sequence, u32::MAX))
    }

    fn nodes_in(&mut self, range: RangeInclusive<(AgentId, u64, u32)>) -> Vec<u32> {
        self.unasked = 0;
        let by_setter = self.by_setter.get_or_insert_with(|| {
            let kept = self.alarms.iter().filter_map(Place::pending);
            kept.map(|(node, alarm)| index_key(node, &alarm.load))
                .collect()
        });
        let range = by_setter.range(range);
        range.map(|(_, _, node)| *node).collect()
    }

    pub(super) fn nodes(&self) -> Vec<u32> {
        let kept = self.alarms.iter().filter_map(Place::pending);
        kept.map(|(node, _)| node).collect()
    }

    /// What is pending at a place.
    pub(super) fn at(&self, place: u32) -> Option<&W> {
        let (_, alarm) = self.alarms.get(place as usize)?.pending()?;
        Some(&alarm.load)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.alarms.iter_mut().filter_map(|place| match place {
            Place::Pending(_, alarm) => Some(&mut alarm.load),
            _ => None,
        })
    }
}

fn index_key<W: Load>(node: u32, load: &W) -> (AgentId, u64, u32) {
    (load.setter(), load.key().sequence(), node)
}
