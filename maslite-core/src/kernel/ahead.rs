//! Under a lookahead: mail to other schedulers leaves before it is due, and mail from them is among
//! the alarms.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::Kernel;
use super::alarms::{ARRIVED, AWAY, DIRECT, FLAGS, IS_REQUIRED, Packed, low_half};
use crate::alarm_queue::{AlarmId, AlarmQueue, Beside, Due, Hint, Load, Pack, Pending};
use crate::directory::Whereabouts;
use crate::mailing_list::Pattern;
use crate::message::{
    ELSEWHERE, Envelope, FOREIGN, Import, MailKey, Message, PERIODIC, REQUIRED, Receiver, SETTLED,
};
use crate::{AgentId, SimDuration, SimTime};

/// An alarm that may have to leave before it is due, and is kept apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) alarm: AlarmId,
    setter: AgentId,
    key: MailKey,
}

impl Departure {
    /// The setter and the key of the alarm.
    pub(super) fn of(&self) -> (AgentId, MailKey) {
        (self.setter, self.key)
    }
}

impl Load for Departure {
    fn key(&self) -> MailKey {
        self.key
    }

    fn setter(&self) -> AgentId {
        self.setter
    }
}

/// A packed alarm for an agent elsewhere, with all that its leaving takes: what is far away in
/// memory is not looked for again.
#[derive(Debug)]
pub(crate) struct PackedDeparture<M> {
    pub(crate) due: SimTime,
    pub(crate) alarm: Hint,
    set_at: SimTime,
    index: u32,
    sequence: u32,
    pub(crate) setter: AgentId,
    pub(crate) receiver: AgentId,
    is_direct: bool,
    pub(crate) body: M,
}

impl<M> PackedDeparture<M> {
    /// The setter and the key of the alarm.
    pub(super) fn of(&self) -> (AgentId, MailKey) {
        (self.setter, self.key())
    }

    pub(crate) fn receiver(&self) -> Receiver {
        match self.is_direct {
            true => Receiver::Direct(self.receiver),
            false => Receiver::Agent(self.receiver),
        }
    }
}

impl<M> Pack for PackedDeparture<M> {
    #[inline]
    fn key(&self) -> MailKey {
        MailKey::of_agent(self.set_at, self.index.into(), self.sequence.into())
    }
}

/// An agent elsewhere, and whether it alone may get what is sent to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    id: AgentId,
    is_direct: bool,
}

/// What a scheduler keeps under a lookahead: mail to others leaves before it is due.
#[derive(Debug)]
pub(crate) struct Ahead<M> {
    /// The least time that mail to other schedulers takes.
    pub(crate) lookahead: SimDuration,
    /// Alarms that may have to leave, by the time at which that is decided.
    pub(crate) departures: AlarmQueue<Departure, PackedDeparture<M>>,
    /// When the first of them is decided.
    pub(crate) next_departure: Option<SimTime>,
    /// Mail has come for those who listen here: the same mail can come twice.
    pub(super) copies_come: bool,
    /// When subscriptions were made; those that hold from the start are not in it.
    pub(super) subscribed_at: BTreeMap<(u32, Pattern), SimTime>,
    /// How long mail from elsewhere was under way. Mail names its place here: there are as many as
    /// others have different lookaheads.
    pub(super) delays: Vec<SimDuration>,
    /// Agents that others removed, by the time at which that holds.
    pub(crate) dismissals: BTreeMap<SimTime, Vec<AgentId>>,
    /// Setups are under way: what they subscribe to holds from the start.
    pub(crate) starting: bool,
}

impl<M> Ahead<M> {
    pub(crate) fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            departures: AlarmQueue::default(),
            next_departure: None,
            copies_come: false,
            subscribed_at: BTreeMap::new(),
            delays: Vec::new(),
            dismissals: BTreeMap::new(),
            starting: false,
        }
    }

    /// The same at the beginning of a simulation.
    pub(crate) fn anew(&self) -> Box<Self> {
        Box::new(Self::new(self.lookahead))
    }

    /// Has it decided at `time` whether an alarm leaves.
    pub(super) fn depart_at(&mut self, time: SimTime, alarm: AlarmId, of: (AgentId, MailKey)) {
        let (setter, key) = of;
        let load = Departure { alarm, setter, key };
        self.departures.set(Pending { time, load });
        self.departs_first_at(time);
    }

    fn departs_first_at(&mut self, time: SimTime) {
        let next = self.next_departure.map_or(time, |next| next.min(time));
        self.next_departure = Some(next);
    }

    /// The place of a delay among those of mail from elsewhere, counted from 1.
    fn origin(&mut self, delay: SimDuration) -> u16 {
        let known = self.delays.iter().position(|known| *known == delay);
        let place = known.unwrap_or_else(|| {
            self.delays.push(delay);
            self.delays.len() - 1
        });
        u16::try_from(place + 1).expect("there are as many delays as clusters, at most")
    }
}

impl<M: Message> Kernel<M> {
    /// Under a lookahead: has an alarm looked at when it would leave.
    #[inline(never)]
    pub(super) fn plan_departure(&mut self, id: AlarmId) {
        let (Some(ahead), Some(alarm)) = (&mut self.ahead, self.alarms.pending(id)) else {
            return;
        };
        let lookahead = ahead.lookahead.as_nanos();
        let earlier = alarm.time.as_nanos().saturating_sub(lookahead);
        let time = SimTime::from_nanos(earlier).max(self.now);
        let of = (alarm.load.sender, alarm.load.key);
        ahead.depart_at(time, id, of);
    }

    pub(crate) fn is_starting(&mut self, starting: bool) {
        if let Some(ahead) = &mut self.ahead {
            ahead.starting = starting;
        }
    }

    /// An agent elsewhere listens from now on, so mail may leave for them, and under a lookahead
    /// alarms before they are due.
    pub(crate) fn expect_listeners(&mut self) {
        if std::mem::replace(&mut self.others_listen, true) || self.ahead.is_none() {
            return;
        }
        let slots = &self.slots;
        let pending = self
            .alarms
            .list(None, |alarm, beside| alarm.kept_apart(slots, beside))
            .into_iter();
        // Those for agents elsewhere are looked at already.
        let own = pending
            .filter(|(_, alarm)| !alarm.load.is(FOREIGN | ELSEWHERE) && !alarm.load.is_direct());
        let ids: Vec<_> = own.map(|(id, _)| id).collect();
        for id in ids {
            self.plan_departure(id);
        }
    }

    /// Under a lookahead: takes in mail that arrives at `time`.
    pub(crate) fn arrive(&mut self, time: SimTime, left_at: SimTime, import: Import<M>) {
        let mut origin = 0;
        if let Some(ahead) = &mut self.ahead {
            origin = ahead.origin(time.since(left_at));
            ahead.copies_come |= import.is_copy;
        }
        if let Some((to, index, sequence)) = self.packs_arrival(&import) {
            let Import { key, mail, .. } = import;
            let packed = Packed {
                set_at: key.sent_at(),
                index,
                setter: origin.into(),
                sequence,
                to,
                body: mail.body,
            };
            let beside = Beside {
                word: mail.sender.as_u64(),
                is_fixed: true,
            };
            let packed = (packed, beside);
            self.alarms.set_packed_beside(time, mail.sender, packed);
            return;
        }
        let mut load = import.into_envelope();
        load.mark(REQUIRED);
        load.origin = origin;
        self.alarms.set(Pending { time, load });
    }

    /// How mail from elsewhere is packed, if it can be: where the receiver sits, with flags, the
    /// insertion index of the sender and the sequence number.
    #[inline]
    fn packs_arrival(&self, import: &Import<M>) -> Option<(NonZeroU32, u32, u32)> {
        if self.ahead.is_none()
            || import.is_copy
            || const { std::mem::needs_drop::<M>() }
            || !self.alarms.packs()
        {
            return None;
        }
        let [_, rank, sequence] = import.key.to_numbers();
        let index = u32::try_from(rank.checked_sub(1)?).ok()?;
        let sequence = u32::try_from(sequence).ok()?;
        let is_direct = matches!(import.mail.receiver, Receiver::Direct(_));
        let Whereabouts::Here(slot) = self.directory.find(import.mail.receiver.agent()?) else {
            return None;
        };
        let direct = if is_direct { DIRECT } else { 0 };
        let to = (slot < !FLAGS).then_some((slot + 1) | ARRIVED | IS_REQUIRED | direct)?;
        Some((NonZeroU32::new(to)?, index, sequence))
    }

    /// The receiver of an alarm that is elsewhere, if the alarm can be packed.
    #[inline]
    pub(super) fn away(&self, slot: u32, receiver: Receiver) -> Option<Away> {
        if self.ahead.is_none() || const { std::mem::needs_drop::<M>() } || !self.alarms.packs() {
            return None;
        }
        let entry = &self.slots[slot as usize];
        let id = receiver.agent()?;
        let fits = (entry.index | entry.sequence) <= u64::from(u32::MAX);
        let is_direct = matches!(receiver, Receiver::Direct(_));
        let is_away = fits && self.directory.find(id) == Whereabouts::Unknown;
        is_away.then_some(Away { id, is_direct })
    }

    /// Sets an alarm for an agent elsewhere, and has it leave before it is due.
    pub(super) fn set_alarm_away(
        &mut self,
        slot: u32,
        due: SimTime,
        required: bool,
        away: Away,
        body: M,
    ) -> AlarmId {
        let Away { id, is_direct } = away;
        let entry = &mut self.slots[slot as usize];
        let (setter, set_at) = (entry.id, self.now);
        let (index, sequence) = (low_half(entry.index), low_half(entry.sequence));
        entry.sequence += 1;
        self.counters.alarms_set += 1;
        let to = 1 | AWAY | if is_direct { DIRECT } else { 0 };
        let to = to | if required { IS_REQUIRED } else { 0 };
        let packed = Packed {
            set_at,
            index,
            setter: slot,
            sequence,
            to: NonZeroU32::new(to).expect("a number with a flag is not zero"),
            body: body.clone(),
        };
        let beside = Beside {
            word: id.as_u64(),
            is_fixed: false,
        };
        let packed = (packed, beside);
        let alarm = self.alarms.set_packed_beside(due, setter, packed);
        if let Some(ahead) = &mut self.ahead {
            let lookahead = ahead.lookahead.as_nanos();
            let earlier = due.as_nanos().saturating_sub(lookahead);
            let time = SimTime::from_nanos(earlier).max(self.now);
            let leaving = PackedDeparture {
                due,
                alarm: alarm.hint(),
                set_at,
                index,
                sequence,
                setter,
                receiver: id,
                is_direct,
                body,
            };
            ahead.departures.set_packed(time, setter, leaving);
            ahead.departs_first_at(time);
        }
        alarm
    }

    #[inline(never)]
    pub(super) fn next_event_ahead(&mut self) -> Option<SimTime> {
        let mut next = self.alarms.next_time();
        let ahead = self.ahead.as_mut()?;
        let mut or = |time: Option<SimTime>| {
            if let Some(time) = time {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
        };
        or(ahead.next_departure);
        or(ahead.dismissals.keys().next().copied());
        next
    }

    /// Puts the alarms due at `time` right into the inboxes, also those from and to agents
    /// elsewhere, up to one that must take the longer way, which is returned.
    fn fire_to_inboxes_ahead(&mut self, time: SimTime) -> Option<Due<Envelope<M>, Packed<M>>> {
        loop {
            match self.fire_to_inboxes::<true>(time) {
                Some(Due::Packed(alarm)) if alarm.has_beside() => {
                    if let Some(alarm) = self.post_beside(alarm) {
                        return Some(Due::Packed(alarm));
                    }
                }
                due => return due,
            }
        }
    }

    /// Fires a packed alarm from or to an agent elsewhere, while there are no subscriptions.
    /// Returns it if it must take the longer way.
    #[inline(never)]
    pub(super) fn post_beside(&mut self, alarm: Packed<M>) -> Option<Packed<M>> {
        let beside = self.alarms.last_beside();
        let is_simple = match alarm.is(ARRIVED) {
            // The same mail may have come a second time.
            true => {
                let copies_come = self.ahead.as_ref().is_none_or(|ahead| ahead.copies_come);
                !copies_come && self.is_here(alarm.receiver_here())
            }
            // It has left, and its receiver is still elsewhere.
            false => {
                let receiver = AgentId::from_u64(beside.word);
                beside.is_fixed && self.directory.find(receiver) == Whereabouts::Unknown
            }
        };
        if !is_simple {
            return Some(alarm);
        }
        if alarm.is(AWAY) {
            self.counters.alarms_fired += 1;
            return None;
        }
        let (receiver, mail) = (alarm.receiver_here(), crate::narrow(self.posted.len()));
        let mut envelope = alarm.kept_apart(&self.slots, Some(beside));
        envelope.mark(SETTLED);
        envelope.set_readers(1);
        self.posted.push(envelope);
        self.deliver(receiver, mail);
        self.counters.sent += 1;
        None
    }

    /// The same under a lookahead: mail from elsewhere is among the alarms, and whether an alarm
    /// leaves was decided before.
    #[inline(never)]
    pub(super) fn fire_ahead(&mut self, time: SimTime) {
        let Some(ahead) = &mut self.ahead else { return };
        if !ahead.dismissals.is_empty() {
            let dismissed = ahead.dismissals.remove(&time);
            for id in dismissed.into_iter().flatten() {
                if let Whereabouts::Here(slot) = self.directory.find(id) {
                    self.dismiss(slot);
                }
            }
        }
        if self.alarms.next_time() != Some(time) {
            return;
        }
        let mut due = if self.reaches_receivers_alone() && !self.others_listen {
            self.fire_to_inboxes_ahead(time)
        } else {
            self.alarms.pop_due_of::<true>(time)
        };
        while let Some(alarm) = due {
            self.queue_settled(alarm);
            due = self.alarms.pop_due_of::<true>(time);
        }
    }

    /// Queues what is due, and whether it leaves was decided before.
    fn queue_settled(&mut self, due: Due<Envelope<M>, Packed<M>>) {
        let mut envelope = self.due_mail_beside(due);
        envelope.mark(SETTLED);
        if envelope.is(FOREIGN) {
            // The same mail can come twice: for its receiver, and for those who listen.
            if let Some(last) = self.outbox.last_mut()
                && last.is_the_same_mail(&envelope)
            {
                return last.take_over(&envelope);
            }
        } else {
            self.counters.alarms_fired += 1;
        }
        if envelope.is(PERIODIC) {
            self.set_again_when_fired(&envelope);
        }
        self.outbox.push(envelope);
    }

    /// Under a lookahead a subscription holds for mail from elsewhere that left one lookahead after
    /// it was made, or later.
    #[cold]
    pub(super) fn retain_early_listeners(&mut self, mail: u32, recipients: &mut Vec<u32>) {
        let envelope = &self.posted[mail as usize];
        let Some(ahead) = &mut self.ahead else { return };
        // What the owner queued did not travel.
        let Some(origin) = usize::from(envelope.origin).checked_sub(1) else {
            return;
        };
        let delay = ahead.delays[origin];
        let left_at = self.now.as_nanos().saturating_sub(delay.as_nanos());
        let left_at = SimTime::from_nanos(left_at);
        let (sender, receiver) = (envelope.sender, envelope.receiver().agent());
        let topic = envelope.topic();
        let holds = |slot: u32, pattern: &Pattern| {
            let made = ahead.subscribed_at.get(&(slot, *pattern));
            made.is_none_or(|made| {
                let from = made.checked_add(ahead.lookahead);
                from.is_some_and(|from| from <= left_at)
            })
        };
        let list = &self.mailing_list;
        recipients.retain(|slot| {
            let mut patterns = list.subscriptions(*slot);
            patterns
                .any(|pattern| pattern.matches(sender, receiver, topic) && holds(*slot, &pattern))
        });
    }
}
