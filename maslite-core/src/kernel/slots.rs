//! The agents of a scheduler by their slots: who is there, awake, coming or leaving.

use super::Kernel;
use super::inbox::Inbox;
use crate::AgentId;
use crate::directory::{NONE, Whereabouts};
use crate::error::{Adder, Error};
use crate::message::Message;
use crate::rng::AgentRng;

/// Fewer slots of agents that are gone are left as they are.
const FEW_VACANT: usize = 64;

/// What the kernel keeps of an agent: a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slot {
    pub(crate) id: AgentId,
    /// The insertion index, counted over the whole simulation.
    pub(crate) index: u64,
    /// Sends and alarms so far.
    pub(crate) sequence: u64,
    /// Mail read so far.
    pub(crate) delivered: u64,
    pub(crate) rng: Option<Box<AgentRng>>,
    pub(super) inbox: Inbox,
    pub(super) flags: u8,
}

impl Slot {
    /// The agent was removed.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.flags & GONE != 0
    }
}

/// It is in the list of agents awake in the next superstep.
pub(super) const AWAKE: u8 = 1;
/// Its `setup` is still to come.
const NEWBORN: u8 = 2;
/// Its `teardown` takes the place of its next update.
const LEAVING: u8 = 4;
/// It wants to be updated in every superstep there is.
pub(super) const KEPT_AWAKE: u8 = 8;
/// It is no more.
pub(super) const GONE: u8 = 16;

impl<M: Message> Kernel<M> {
    /// Refuses ids that are taken or that no agent may have.
    pub(crate) fn check_new(&self, id: AgentId, adder: Adder) -> Result<(), Error> {
        id.check()?;
        let whereabouts = self.directory.find(id);
        if whereabouts == Whereabouts::Unknown {
            return Ok(());
        }
        let first = self.adders.adder(id, whereabouts == Whereabouts::Removed);
        Err(Error::DuplicateAgent {
            id,
            first,
            second: adder,
        })
    }

    /// Gives an agent a slot. Its `setup` is still to come, and it is awake in the next superstep.
    pub(crate) fn allocate_slot(&mut self, id: AgentId, index: u64) -> u32 {
        let slot = crate::narrow(self.slots.len());
        self.slots.push(Slot {
            id,
            index,
            sequence: 0,
            delivered: 0,
            rng: None,
            inbox: Inbox::EMPTY,
            flags: NEWBORN,
        });
        if self.progress_is_shown {
            self.progress.allocate_slot(id);
        }
        self.directory.insert(id, slot);
        self.wake(slot);
        slot
    }

    /// Takes what is left of an agent out: its subscriptions, and the mail that it did not read.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        self.discard_inbox(slot);
        for pattern in self.mailing_list.unsubscribe_all(slot) {
            if let Some(ahead) = &mut self.ahead {
                ahead.subscribed_at.remove(&(slot, pattern));
            }
            self.note_interest(pattern, false);
        }
        self.keep_awake(slot, false);
        self.end_periodics(slot);
        let entry = &mut self.slots[slot as usize];
        // One that was never set up is not to be, either.
        entry.flags = entry.flags & !NEWBORN | GONE;
        entry.rng = None;
        let id = entry.id;
        self.vacant += 1;
        self.directory.remove(id);
        self.adders.note_gone(id);
        if self.has_neighbours {
            self.gone.push(id);
        }
    }

    /// Whether enough agents are gone for the slots to be numbered anew: at least half of
    /// all, and enough that the cost for each of them is small.
    pub(crate) fn has_many_vacant_slots(&self) -> bool {
        let work = self.slots.len().max(self.alarms.len());
        let work = work.max(self.mailing_list.count());
        self.vacant >= FEW_VACANT && self.vacant >= work / 2
    }

    /// Numbers the slots of the agents that are there anew, in the same order, and forgets the
    /// others. Returns the new number of each slot; [`NONE`] for those of agents that are gone.
    /// Call between two supersteps.
    pub(crate) fn close_up(&mut self) -> Vec<u32> {
        let mut next = 0_u32..;
        let renumbered: Vec<u32> = self
            .slots
            .iter()
            .map(|slot| match slot.is_gone() {
                true => NONE,
                false => next.next().unwrap_or(NONE),
            })
            .collect();
        let number = |slot: u32| renumbered.get(slot as usize).copied().unwrap_or(NONE);
        self.renumber_alarms(number);
        self.slots.retain(|slot| !slot.is_gone());
        self.vacant = 0;
        let agents = (0_u32..).zip(&self.slots);
        self.directory
            .lay_out(agents.map(|(slot, entry)| (entry.id, slot)));
        self.mailing_list.renumber(number);
        for envelope in &mut self.outbox {
            envelope.set_slot(number(envelope.slot()));
        }
        for (slot, _) in &mut self.unread {
            *slot = number(*slot);
        }
        for slots in [&mut self.awake, &mut self.kept_awake] {
            slots.iter_mut().for_each(|slot| *slot = number(*slot));
            slots.retain(|slot| *slot != NONE);
        }
        if let Some(ahead) = &mut self.ahead {
            let subscribed_at = std::mem::take(&mut ahead.subscribed_at).into_iter();
            ahead.subscribed_at = subscribed_at
                .map(|((slot, pattern), time)| ((number(slot), pattern), time))
                .collect();
        }
        self.show_slots();
        renumbered
    }

    /// Tells those who read the progress which agent sits in which slot.
    pub(crate) fn show_slots(&self) {
        if self.progress_is_shown {
            let agents = self.slots.iter().map(|slot| slot.id);
            self.progress.allocate_slots(agents);
        }
    }

    /// The same between two supersteps, when it may be awake in the next one.
    pub(crate) fn evict(&mut self, slot: u32) {
        self.awake.retain(|awake| *awake != slot);
        let unread = std::mem::take(&mut self.unread);
        for (reader, envelope) in unread {
            match envelope.body {
                Some(body) if reader == slot => self.lose_unread(slot, envelope.sender, &body),
                _ => self.unread.push((reader, envelope)),
            }
        }
        self.free_slot(slot);
    }

    #[inline]
    pub(crate) fn is_gone(&self, slot: u32) -> bool {
        self.slots[slot as usize].is_gone()
    }

    /// Whether an agent sits there that is not gone.
    #[inline]
    pub(crate) fn is_here(&self, slot: u32) -> bool {
        self.slots
            .get(slot as usize)
            .is_some_and(|slot| !slot.is_gone())
    }

    /// Notes that an agent is to leave; its `teardown` takes the place of its next update.
    pub(crate) fn dismiss(&mut self, slot: u32) {
        self.slots[slot as usize].flags |= LEAVING;
        self.wake(slot);
    }

    pub(crate) fn keep_awake(&mut self, slot: u32, keep: bool) {
        if self.strays() {
            return;
        }
        let flags = &mut self.slots[slot as usize].flags;
        if keep == (*flags & KEPT_AWAKE != 0) {
            return;
        }
        *flags ^= KEPT_AWAKE;
        match self.kept_awake.binary_search(&slot) {
            Ok(place) => drop(self.kept_awake.remove(place)),
            Err(place) => self.kept_awake.insert(place, slot),
        }
    }

    pub(crate) fn has_kept_awake(&self) -> bool {
        !self.kept_awake.is_empty()
    }

    #[inline]
    pub(super) fn wake(&mut self, slot: u32) {
        let flags = &mut self.slots[slot as usize].flags;
        if *flags & AWAKE == 0 {
            *flags |= AWAKE;
            self.awake.push(slot);
        }
    }

    /// The slots that take part in a superstep: those that are awake, and those that are kept
    /// awake; in no order.
    pub(crate) fn taking_part(&self) -> impl Iterator<Item = u32> + '_ {
        let kept_awake = self.kept_awake.iter().copied();
        let asleep = |slot: &u32| self.slots[*slot as usize].flags & AWAKE == 0;
        self.awake.iter().copied().chain(kept_awake.filter(asleep))
    }

    /// Moves the agents awake in this superstep into `updating`, in insertion order.
    pub(crate) fn take_awake(&mut self, updating: &mut Vec<u32>) {
        updating.clear();
        std::mem::swap(updating, &mut self.awake);
        for slot in &self.kept_awake {
            if self.slots[*slot as usize].flags & AWAKE == 0 {
                updating.push(*slot);
            }
        }
        if updating.len() > 1 && !is_ascending(updating) {
            self.sort_slots(updating);
        }
    }

    /// Sorts slots, each of which is there once: few by comparing them, many by marking them.
    fn sort_slots(&mut self, slots: &mut Vec<u32>) {
        let words = self.slots.len().div_ceil(64);
        if slots.len() < 64 || slots.len() < words / 4 {
            slots.sort_unstable();
            return;
        }
        self.bits.resize(words, 0);
        for slot in slots.iter() {
            self.bits[*slot as usize / 64] |= 1 << (slot % 64);
        }
        slots.clear();
        for (word, bits) in (0_u32..).zip(&mut self.bits) {
            while *bits != 0 {
                slots.push(word * 64 + bits.trailing_zeros());
                *bits &= *bits - 1;
            }
        }
    }

    /// What is to be done with an agent that is awake: it is no longer noted as awake after this.
    #[inline]
    pub(crate) fn begin_turn(&mut self, slot: u32) -> Turn {
        let flags = &mut self.slots[slot as usize].flags;
        let was = *flags;
        *flags &= !(AWAKE | NEWBORN | LEAVING);
        if was & (NEWBORN | LEAVING) == 0 {
            return Turn::Update;
        }
        Turn::Other {
            setup: was & NEWBORN != 0,
            teardown: was & LEAVING != 0,
        }
    }

    /// Whether the agent's `setup` is still to come; from now on it is not.
    pub(crate) fn begin_setup(&mut self, slot: u32) -> bool {
        let flags = &mut self.slots[slot as usize].flags;
        let newborn = *flags & NEWBORN != 0;
        *flags &= !NEWBORN;
        newborn
    }

    /// Whether `setup` was called, so that `teardown` is due.
    pub(crate) fn was_set_up(&self, slot: u32) -> bool {
        self.slots[slot as usize].flags & (NEWBORN | GONE) == 0
    }
}

/// Whether slots are in order. It looks at all of them, which a processor does several at a time.
#[inline]
fn is_ascending(slots: &[u32]) -> bool {
    let pairs = slots.iter().zip(&slots[1..]);
    !pairs.fold(false, |falls, (slot, next)| falls | (slot > next))
}

/// What an agent does in its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Update,
    Other { setup: bool, teardown: bool },
}
