//! Alarms: how agents set them, and how they turn into mail when they are due.

use std::num::NonZeroU32;

use super::Kernel;
use super::slots::Slot;
use crate::alarm::{AlarmFilter, PendingAlarm};
use crate::alarm_queue::{AlarmId, Due, Pack, Pending};
use crate::directory::{NONE, Whereabouts};
use crate::message::{ELSEWHERE, Envelope, MailKey, Message, PERIODIC, REQUIRED, Receiver};
use crate::{AgentId, SimTime};

/// An alarm of an agent here for an agent here, as small as it gets.
#[derive(Clone, Debug)]
pub(crate) struct Packed<M> {
    set_at: SimTime,
    /// The insertion index of the setter, and where it sits.
    index: u32,
    setter: u32,
    sequence: u32,
    /// Where the receiver sits, plus one, and flags.
    to: NonZeroU32,
    body: M,
}

/// No other agent may get it.
const DIRECT: u32 = 1 << 31;
const IS_REQUIRED: u32 = 1 << 30;
const FLAGS: u32 = DIRECT | IS_REQUIRED;

/// Of a number that was found to have no more.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is all there is"
)]
fn low_half(number: u64) -> u32 {
    number as u32
}

impl<M> Packed<M> {
    #[inline]
    fn receiver(&self) -> u32 {
        (self.to.get() & !FLAGS) - 1
    }

    /// The same with agents in other slots; false if one of the two is in none.
    fn renumber(&mut self, number: impl Fn(u32) -> u32) -> bool {
        let (setter, receiver) = (number(self.setter), number(self.receiver()));
        let to = (self.to.get() & FLAGS) | receiver.wrapping_add(1);
        match NonZeroU32::new(to) {
            Some(to) if setter != NONE && receiver != NONE => (self.setter, self.to) = (setter, to),
            _ => return false,
        }
        true
    }

    /// The alarm as mail.
    #[inline(always)]
    fn unpack(self, slots: &[Slot]) -> Envelope<M> {
        let (key, receiver) = (self.key(), self.receiver());
        let to = slots[receiver as usize].id;
        let to = match self.to.get() & DIRECT {
            0 => Receiver::Agent(to),
            _ => Receiver::Direct(to),
        };
        let sender = slots[self.setter as usize].id;
        let mut envelope = Envelope::new(key, sender, to, self.body);
        envelope.set_slot(receiver);
        envelope
    }
}

impl<M> Packed<M> {
    /// The alarm as mail that is kept apart: while it is pending it must be known whether it is
    /// required.
    pub(super) fn kept_apart(self, slots: &[Slot]) -> Envelope<M> {
        let required = self.is_required();
        let mut envelope = self.unpack(slots);
        envelope.mark_if(REQUIRED, required);
        envelope
    }
}

impl<M> Pack for Packed<M> {
    #[inline]
    fn key(&self) -> MailKey {
        MailKey::of_agent(self.set_at, self.index.into(), self.sequence.into())
    }

    #[inline]
    fn is_required(&self) -> bool {
        self.to.get() & IS_REQUIRED != 0
    }
}

impl<M: Message> Kernel<M> {
    /// Sets an alarm of an agent.
    #[inline]
    pub(crate) fn set_alarm(
        &mut self,
        slot: u32,
        time: SimTime,
        required: bool,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        let Some(to) = self.packable(slot, required, receiver) else {
            let marks = if required { REQUIRED } else { 0 };
            return self.set_alarm_apart(slot, time, marks, receiver, body);
        };
        let entry = &mut self.slots[slot as usize];
        let packed = Packed {
            set_at: self.now,
            index: low_half(entry.index),
            setter: slot,
            sequence: low_half(entry.sequence),
            to,
            body,
        };
        entry.sequence += 1;
        self.counters.alarms_set += 1;
        self.alarms.set_packed(time, entry.id, packed)
    }

    /// Where the receiver sits, with flags, if an alarm can be packed: both agents are here, and no
    /// number is too large. What others may listen to can leave. What needs a drop is dropped as
    /// soon as it is cleared.
    #[inline]
    fn packable(&self, slot: u32, required: bool, receiver: Receiver) -> Option<NonZeroU32> {
        let entry = &self.slots[slot as usize];
        let is_direct = matches!(receiver, Receiver::Direct(_));
        let fits = (entry.index | entry.sequence) <= u64::from(u32::MAX)
            && (is_direct || !self.others_listen)
            && !const { std::mem::needs_drop::<M>() }
            && self.alarms.packs();
        if !fits {
            return None;
        }
        let id = receiver.agent()?;
        let to = if id == entry.id {
            slot
        } else if let Whereabouts::Here(to) = self.directory.find(id) {
            to
        } else {
            return None;
        };
        let flags = if is_direct { DIRECT } else { 0 } | if required { IS_REQUIRED } else { 0 };
        (to < !FLAGS)
            .then_some((to + 1) | flags)
            .and_then(NonZeroU32::new)
    }

    /// Packs an alarm that is set again, if it can be; returns it otherwise.
    pub(super) fn repack(&self, envelope: Envelope<M>) -> Result<Packed<M>, Envelope<M>> {
        let [_, rank, sequence] = envelope.key.to_numbers();
        let Whereabouts::Here(setter) = self.directory.find(envelope.sender) else {
            return Err(envelope);
        };
        let index = rank
            .checked_sub(1)
            .and_then(|index| u32::try_from(index).ok());
        let (Some(index), Ok(sequence)) = (index, u32::try_from(sequence)) else {
            return Err(envelope);
        };
        let required = envelope.is(REQUIRED);
        let to = self.packable(setter, required, envelope.receiver());
        let (Some(to), false) = (to, envelope.is(!REQUIRED)) else {
            return Err(envelope);
        };
        let set_at = envelope.key.sent_at();
        let Envelope {
            body: Some(body), ..
        } = envelope
        else {
            return Err(envelope);
        };
        Ok(Packed {
            set_at,
            index,
            setter,
            sequence,
            to,
            body,
        })
    }

    /// Sets an alarm that does not lie in the queue itself, with these marks.
    #[inline(never)]
    pub(super) fn set_alarm_apart(
        &mut self,
        slot: u32,
        time: SimTime,
        marks: u8,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        let entry = &mut self.slots[slot as usize];
        let key = MailKey::of_agent(self.now, entry.index, entry.sequence);
        entry.sequence += 1;
        self.counters.alarms_set += 1;
        let mut load = Envelope::new(key, entry.id, receiver, body);
        load.mark(marks);
        if self.has_neighbours
            && let Some(id) = receiver.agent()
        {
            match self.directory.find(id) {
                Whereabouts::Here(slot) => load.set_slot(slot),
                Whereabouts::Removed => {}
                Whereabouts::Unknown => load.mark(ELSEWHERE),
            }
        }
        let may_leave =
            self.ahead.is_some() && (load.is(ELSEWHERE) || self.others_listen && !load.is_direct());
        let id = self.alarms.set(Pending { time, load });
        if may_leave {
            self.plan_departure(id);
        }
        id
    }

    /// Clears one alarm of an agent. False if it fired, was cleared, or is not this agent's.
    pub(crate) fn clear_alarm(&mut self, setter: AgentId, id: AlarmId) -> bool {
        if id.origin().0 == setter && self.end_periodic(id) {
            return true;
        }
        let slots = &self.slots;
        let cleared = self
            .alarms
            .clear(setter, id, |alarm| alarm.kept_apart(slots));
        self.counters.alarms_cleared += u64::from(cleared);
        cleared
    }

    /// Clears the alarms of one agent, or of all, that the filter names; tells how many they were.
    pub(crate) fn clear_alarms(&mut self, setter: Option<AgentId>, filter: AlarmFilter) -> usize {
        let ended = self.end_periodics_where(setter, filter);
        let slots = &self.slots;
        let cleared = self.alarms.clear_where(
            setter,
            |alarm| alarm.kept_apart(slots),
            |alarm| filter.matches(alarm),
        );
        self.counters.alarms_cleared += cleared as u64;
        ended + cleared
    }

    /// The pending alarms of one agent, or of all, that the filter names, in the order they will
    /// fire.
    pub(crate) fn list_alarms(
        &mut self,
        setter: Option<AgentId>,
        filter: AlarmFilter,
    ) -> Vec<PendingAlarm> {
        let periodics = self.periodics.as_ref();
        let slots = &self.slots;
        let pending = self
            .alarms
            .list(setter, |alarm| alarm.kept_apart(slots))
            .into_iter();
        pending
            .filter(|(_, alarm)| filter.matches(alarm))
            .map(|(id, alarm)| {
                let periodic = periodics.and_then(|all| all.of(id.origin()));
                PendingAlarm::new(id, alarm, periodic)
            })
            .collect()
    }

    /// All pending alarms with their messages, in the order they will fire.
    pub(crate) fn list_alarms_with_bodies(&mut self) -> Vec<(PendingAlarm, M)> {
        let slots = &self.slots;
        let bodies = self
            .alarms
            .list(None, |alarm| alarm.kept_apart(slots))
            .into_iter();
        let bodies: Vec<_> = bodies.map(|(_, alarm)| alarm.load.body.clone()).collect();
        let pending = self.list_alarms(None, AlarmFilter::all()).into_iter();
        pending
            .zip(bodies)
            .filter_map(|(alarm, body)| Some((alarm, body?)))
            .collect()
    }

    /// Gives the agents that alarms name the numbers of their new slots; `slots` are the old ones.
    pub(super) fn renumber_alarms(&mut self, number: impl Fn(u32) -> u32 + Copy) {
        let slots = &self.slots;
        // Agents that are gone must be known by their ids from now on.
        self.alarms.unpack_where(
            |alarm| !alarm.renumber(number),
            |alarm| alarm.kept_apart(slots),
        );
        self.alarms
            .for_each_kept(|envelope| envelope.set_slot(number(envelope.slot())));
    }

    /// The next time at which anything happens, were it only that mail leaves.
    #[inline]
    pub(crate) fn next_event(&mut self) -> Option<SimTime> {
        if self.ahead.is_none() {
            return self.alarms.next_time();
        }
        self.next_event_ahead()
    }

    /// Turns the alarms due at `time` into mail.
    #[inline]
    pub(crate) fn fire(&mut self, time: SimTime) {
        if self.ahead.is_some() {
            return self.fire_ahead(time);
        }
        // Mail of neighbours would have to come between them.
        if self.has_neighbours || !self.reaches_receivers_alone() {
            return self.fire_to_outbox(time);
        }
        if let Some(other) = self.fire_to_inboxes(time) {
            self.queue_due(other);
            self.fire_to_outbox(time);
        }
    }

    /// Whether an alarm that is due now is for its receiver, who has nothing to read before it, and
    /// for nobody else.
    #[inline]
    pub(super) fn reaches_receivers_alone(&self) -> bool {
        self.mailing_list.is_empty()
            && self.outbox.is_empty()
            && self.unread.is_empty()
            && !AgentId::collisions_are_known()
    }

    /// Puts the alarms due at `time` right into the inboxes, up to one that must take the longer
    /// way, which is returned.
    #[inline]
    pub(super) fn fire_to_inboxes(&mut self, time: SimTime) -> Option<Due<Envelope<M>, Packed<M>>> {
        self.forget_read_mail();
        let mut fired = 0;
        let mut other = None;
        while let Some(due) = self.alarms.pop_due(time) {
            match due {
                Due::Packed(alarm) if !self.is_gone(alarm.receiver()) => {
                    fired += 1;
                    self.post_alarm(alarm);
                }
                due => {
                    other = Some(due);
                    break;
                }
            }
        }
        self.counters.alarms_fired += fired;
        self.counters.sent += fired;
        self.local += fired;
        other
    }

    #[inline(always)]
    fn post_alarm(&mut self, alarm: Packed<M>) {
        let receiver = alarm.receiver();
        let mail = crate::narrow(self.posted.len());
        let mut envelope = alarm.unpack(&self.slots);
        envelope.set_readers(1);
        self.posted.push(envelope);
        self.deliver(receiver, mail);
    }

    fn fire_to_outbox(&mut self, time: SimTime) {
        while let Some(due) = self.alarms.pop_due(time) {
            self.queue_due(due);
        }
    }

    fn queue_due(&mut self, due: Due<Envelope<M>, Packed<M>>) {
        self.counters.alarms_fired += 1;
        let envelope = self.due_mail(due);
        // Most alarms are for agents here, and are nothing to others.
        self.unseen |= self.others_listen || envelope.slot() == NONE;
        if envelope.is(PERIODIC) {
            self.set_again_when_fired(&envelope);
        }
        self.outbox.push(envelope);
    }

    /// The slot of the receiver of the alarm at this distance behind the next one.
    #[inline]
    pub(crate) fn receiver_ahead(&self, ahead: usize) -> Option<u32> {
        self.alarms.peek(ahead).map(Packed::receiver)
    }

    /// What is due, as mail.
    #[inline]
    pub(super) fn due_mail(&self, due: Due<Envelope<M>, Packed<M>>) -> Envelope<M> {
        match due {
            Due::Packed(alarm) => alarm.unpack(&self.slots),
            Due::Kept(envelope) => envelope,
        }
    }
}
