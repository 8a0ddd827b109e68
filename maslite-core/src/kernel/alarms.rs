//! Alarms: how agents set them, and how they turn into mail when they are due.

use std::num::NonZeroU32;

use super::Kernel;
use super::slots::Slot;
use crate::alarm::{AlarmFilter, PendingAlarm};
use crate::alarm_queue::{AlarmId, Beside, Due, Pack, Pending};
use crate::directory::{NONE, Whereabouts};
use crate::message::{
    ELSEWHERE, Envelope, FORECAST, FOREIGN, LEFT, MailKey, Message, PERIODIC, REQUIRED, Receiver,
};
use crate::{AgentId, SimTime};

/// An alarm of an agent here for an agent here, as small as it gets. Under a lookahead one of the
/// two may be elsewhere: its id then lies beside the state of the alarm.
#[derive(Clone, Debug)]
pub(crate) struct Packed<M> {
    pub(super) set_at: SimTime,
    /// The insertion index of the setter, and where it sits. Of mail from elsewhere: how long it
    /// was under way, as [`Envelope::origin`].
    pub(super) index: u32,
    pub(super) setter: u32,
    pub(super) sequence: u32,
    /// Where the receiver sits, plus one, and flags.
    pub(super) to: NonZeroU32,
    pub(super) body: M,
}

/// No other agent may get it.
pub(super) const DIRECT: u32 = 1 << 31;
pub(super) const IS_REQUIRED: u32 = 1 << 30;
/// The receiver is elsewhere.
pub(super) const AWAY: u32 = 1 << 29;
/// The sender is elsewhere.
pub(super) const ARRIVED: u32 = 1 << 28;
pub(super) const FLAGS: u32 = DIRECT | IS_REQUIRED | AWAY | ARRIVED;

/// Of a number that was found to have no more.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is all there is"
)]
pub(super) fn low_half(number: u64) -> u32 {
    number as u32
}

impl<M> Packed<M> {
    /// Where the receiver sits. If one of the two agents is elsewhere, this is a slot that is not
    /// there: so the fast path of all other alarms need not ask for that.
    #[inline]
    pub(super) fn receiver(&self) -> u32 {
        (self.to.get() & !(DIRECT | IS_REQUIRED)) - 1
    }

    /// Where the receiver of mail from elsewhere sits.
    pub(super) fn receiver_here(&self) -> u32 {
        (self.to.get() & !FLAGS) - 1
    }

    #[inline]
    pub(super) fn is(&self, flag: u32) -> bool {
        self.to.get() & flag != 0
    }

    /// The same with agents in other slots; false if one of the two was here and is in none.
    fn renumber(&mut self, number: impl Fn(u32) -> u32) -> bool {
        if !self.is(ARRIVED) {
            self.setter = match number(self.setter) {
                NONE => return false,
                setter => setter,
            };
        }
        if !self.is(AWAY) {
            let receiver = match number(self.receiver_here()) {
                NONE => return false,
                receiver => receiver,
            };
            let to = NonZeroU32::new((self.to.get() & FLAGS) | (receiver + 1));
            self.to = to.expect("one more than a slot is not zero");
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
    pub(super) fn kept_apart(self, slots: &[Slot], beside: Option<Beside>) -> Envelope<M> {
        let required = self.is_required();
        let mut envelope = match beside {
            None => self.unpack(slots),
            Some(beside) => self.unpack_beside(slots, beside),
        };
        envelope.mark_if(REQUIRED, required);
        envelope
    }

    /// Mail from or to an agent elsewhere, whose id lies beside it.
    #[inline(never)]
    fn unpack_beside(self, slots: &[Slot], beside: Beside) -> Envelope<M> {
        let key = self.key();
        let other = AgentId::from_u64(beside.word);
        let (is_direct, has_arrived) = (self.is(DIRECT), self.is(ARRIVED));
        let (from, to) = match has_arrived {
            true => (other, slots[self.receiver_here() as usize].id),
            false => (slots[self.setter as usize].id, other),
        };
        let to = match is_direct {
            true => Receiver::Direct(to),
            false => Receiver::Agent(to),
        };
        let origin = self.setter;
        let mut envelope = Envelope::new(key, from, to, self.body);
        if has_arrived {
            envelope.mark(FOREIGN | REQUIRED);
            envelope.origin = u16::try_from(origin).expect("it was a number of 16 bits");
        } else {
            envelope.mark(ELSEWHERE);
            envelope.mark_if(LEFT, beside.is_fixed);
        }
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
        self.is(IS_REQUIRED)
    }

    #[inline]
    fn is_elsewhere(&self) -> bool {
        self.is(AWAY)
    }

    #[inline]
    fn has_beside(&self) -> bool {
        self.is(AWAY | ARRIVED)
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
            return self.set_alarm_unpacked(slot, time, required, receiver, body);
        };
        self.set_alarm_packed(slot, time, to, body)
    }

    #[inline(always)]
    fn set_alarm_packed(&mut self, slot: u32, time: SimTime, to: NonZeroU32, body: M) -> AlarmId {
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

    /// Sets an alarm that is not for an agent here, or does not fit an entry.
    #[inline(never)]
    fn set_alarm_unpacked(
        &mut self,
        slot: u32,
        time: SimTime,
        required: bool,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        if self.is_undoable
            && let Some(to) = self.packable_undoable(slot, required, receiver)
        {
            let id = self.set_alarm_packed(slot, time, to, body);
            self.note_set(id.hint());
            return id;
        }
        if let Some(away) = self.away(slot, receiver) {
            return self.set_alarm_away(slot, time, required, away, body);
        }
        let marks = if required { REQUIRED } else { 0 };
        self.set_alarm_apart(slot, time, marks, receiver, body)
    }

    /// Where the receiver sits, with flags, if an alarm can be packed: both agents are here, and no
    /// number is too large. What others may listen to can leave. What needs a drop is dropped as
    /// soon as it is cleared.
    #[inline]
    fn packable(&self, slot: u32, required: bool, receiver: Receiver) -> Option<NonZeroU32> {
        match self.alarms.packs() {
            true => self.packable_at_all(slot, required, receiver),
            false => None,
        }
    }

    /// The same where alarms are not packed on the short way, since they may be undone.
    fn packable_undoable(
        &self,
        slot: u32,
        required: bool,
        receiver: Receiver,
    ) -> Option<NonZeroU32> {
        match self.alarms.packs_undoable() {
            true => self.packable_at_all(slot, required, receiver),
            false => None,
        }
    }

    #[inline(always)]
    fn packable_at_all(&self, slot: u32, required: bool, receiver: Receiver) -> Option<NonZeroU32> {
        let entry = &self.slots[slot as usize];
        let is_direct = matches!(receiver, Receiver::Direct(_));
        let fits = (entry.index | entry.sequence) <= u64::from(u32::MAX)
            && (is_direct || !self.others_listen)
            && !const { std::mem::needs_drop::<M>() };
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
        let is_forecast = load.is(ELSEWHERE) && self.is_forecast(time, &load);
        if is_forecast {
            load.mark(FORECAST);
            self.note_forecast(time, &load);
        }
        let id = self.alarms.set(Pending { time, load });
        self.note_set(id.hint());
        if may_leave {
            self.plan_departure(id);
        }
        id
    }

    /// Clears one alarm of an agent. False if it fired, was cleared, or is not this agent's.
    pub(crate) fn clear_alarm(&mut self, setter: AgentId, id: AlarmId) -> bool {
        self.end_stray_update();
        if id.origin().0 == setter && self.end_periodic(id) {
            return true;
        }
        let is_forecast = self.is_known_elsewhere(id);
        let slots = &self.slots;
        let cleared = self
            .alarms
            .clear(setter, id, |alarm, beside| alarm.kept_apart(slots, beside));
        self.counters.alarms_cleared += u64::from(cleared);
        self.note_cleared_forecasts(u64::from(cleared && is_forecast));
        cleared
    }

    /// Clears the alarms of one agent, or of all, that the filter names; tells how many they were.
    pub(crate) fn clear_alarms(&mut self, setter: Option<AgentId>, filter: AlarmFilter) -> usize {
        self.end_stray_update();
        let ended = self.end_periodics_where(setter, filter);
        let slots = &self.slots;
        let mut forecast = 0;
        let cleared = self.alarms.clear_where(
            setter,
            |alarm, beside| alarm.kept_apart(slots, beside),
            |alarm| {
                let matches = filter.matches(alarm);
                forecast += u64::from(matches && alarm.load.is(FORECAST));
                matches
            },
        );
        self.counters.alarms_cleared += cleared as u64;
        self.note_cleared_forecasts(forecast);
        ended + cleared
    }

    /// The pending alarms of one agent, or of all, that the filter names, in the order they will
    /// fire.
    pub(crate) fn list_alarms(
        &mut self,
        setter: Option<AgentId>,
        filter: AlarmFilter,
    ) -> Vec<PendingAlarm> {
        self.end_stray_update();
        let periodics = self.periodics.as_ref();
        let slots = &self.slots;
        let pending = self
            .alarms
            .list(setter, |alarm, beside| alarm.kept_apart(slots, beside))
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
            .list(None, |alarm, beside| alarm.kept_apart(slots, beside))
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
            |alarm, beside| alarm.kept_apart(slots, beside),
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
        if self.is_undoable {
            return self.fire_undoable(time);
        }
        // Mail of neighbours would have to come between them.
        if self.has_neighbours || !self.reaches_receivers_alone() {
            return self.fire_to_outbox(time);
        }
        if let Some(other) = self.fire_to_inboxes::<false>(time) {
            self.queue_due(other);
            self.fire_to_outbox(time);
        }
    }

    /// Whether an alarm that is due now goes to its receiver alone, and the receiver has nothing to
    /// read before it.
    #[inline]
    pub(super) fn reaches_receivers_alone(&self) -> bool {
        self.mailing_list.is_empty()
            && self.outbox.is_empty()
            && self.unread.is_empty()
            && !AgentId::collisions_are_known()
    }

    /// Puts the alarms due at `time` right into the inboxes, up to one that must take the longer
    /// way, which is returned. `BESIDE`: an agent elsewhere may be the setter or the receiver.
    #[inline]
    pub(super) fn fire_to_inboxes<const BESIDE: bool>(
        &mut self,
        time: SimTime,
    ) -> Option<Due<Envelope<M>, Packed<M>>> {
        self.forget_read_mail();
        let mut fired = 0;
        let mut other = None;
        while let Some(due) = self.alarms.pop_due_of::<BESIDE>(time) {
            match due {
                Due::Packed(alarm) if self.is_here(alarm.receiver()) => {
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

    pub(super) fn queue_due(&mut self, due: Due<Envelope<M>, Packed<M>>) {
        let envelope = self.due_mail(due);
        if envelope.is(FORECAST | FOREIGN) {
            if self.fire_forecast(&envelope) {
                return;
            }
        } else {
            self.counters.alarms_fired += 1;
        }
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

    /// The slot of the receiver of the alarm at this distance behind the next one, if that is mail
    /// from elsewhere.
    pub(crate) fn arrival_ahead(&self, ahead: usize) -> Option<u32> {
        let alarm = self.alarms.peek(ahead)?;
        alarm.is(ARRIVED).then(|| alarm.receiver_here())
    }

    /// What is due, as mail, where nothing lies beside it.
    #[inline]
    pub(super) fn due_mail(&self, due: Due<Envelope<M>, Packed<M>>) -> Envelope<M> {
        match due {
            Due::Packed(alarm) => alarm.unpack(&self.slots),
            Due::Kept(envelope) => envelope,
        }
    }

    /// What was popped last, as mail.
    pub(super) fn due_mail_beside(&self, due: Due<Envelope<M>, Packed<M>>) -> Envelope<M> {
        match due {
            Due::Packed(alarm) if alarm.has_beside() => {
                alarm.unpack_beside(&self.slots, self.alarms.last_beside())
            }
            due => self.due_mail(due),
        }
    }
}
