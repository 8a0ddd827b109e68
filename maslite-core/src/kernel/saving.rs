//! How a kernel becomes one value, and how that value becomes a kernel again.

use std::collections::BTreeMap;

use super::Kernel;
use super::inbox::{Inbox, Link};
use super::saved::{
    AheadState, AlarmState, DepartureState, KernelState, MailState, PeriodicState, SlotState,
};
use super::slots::{AWAKE, KEPT_AWAKE, Slot};
use crate::AgentId;
use crate::alarm_queue::{AlarmId, Lies, Pending};
use crate::digest::{ContentSum, DigestSum};
use crate::directory::{Directory, NONE};
use crate::message::{COPY, Envelope, FORECAST, FOREIGN, MailKey, Message, PERIODIC};
use crate::periodic::Periodic;

/// The alarms of a restored kernel, by setter and key.
type Restored = BTreeMap<(AgentId, MailKey), AlarmId>;

impl<M: Message> Kernel<M> {
    /// Whether it is between two supersteps, and has failed in none.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.failure.is_none() && self.main_inbox.is_empty()
    }

    /// All that it knows, but for the settings of its host. It stays as it is.
    pub(crate) fn export(&self) -> KernelState<M> {
        let renumbered = self.number_slots();
        let number = |slot: u32| {
            let number = renumbered.get(slot as usize).copied();
            number.filter(|number| *number != NONE)
        };
        let mail = |envelope: &Envelope<M>| to_state(envelope, number(envelope.slot()));
        let (slots, posted) = self.export_inboxes();
        let unread = self.unread.iter();
        let unread =
            unread.filter_map(|(slot, envelope)| Some((number(*slot)?, to_state(envelope, None))));
        KernelState {
            now: self.now,
            superstep: self.superstep,
            others_listen: self.others_listen,
            local: self.local,
            slots,
            posted,
            outbox: self.outbox.iter().map(mail).collect(),
            unread: unread.collect(),
            unseen: self.unseen,
            removed: self.directory.removed().clone(),
            adders: self.adders.clone(),
            heard: self.mailing_list.heard(),
            alarms: self.export_alarms(number),
            alarms_numbered: self.alarms.numbered(),
            periodics: self.export_periodics(),
            ahead: self.export_ahead(),
            removals: self.removals.clone(),
            changed_interest: self.changed_interest.clone().unwrap_or_default(),
            gone: self.gone.clone(),
            main_listens: self.main_listens,
            main_delivered: self.main_delivered,
            main_sequence: self.main_sequence,
            stopped_by: self.stopped_by,
            lost: self.lost.clone(),
            first_lost: self.first_lost.clone(),
            unread_lost: self.unread_lost,
            errors: self.errors.clone(),
            stop_at_error: self.stop_at_error,
            counters: self.counters,
            digest: self.digest.as_ref().map(DigestSum::value),
            content: self.content.as_ref().map(|content| content.sum.value()),
            marks: self.marks.clone(),
        }
    }

    /// The new number of each slot; [`NONE`] for those of agents that are gone.
    pub(crate) fn number_slots(&self) -> Vec<u32> {
        let mut next = 0..;
        let number = |slot: &Slot| match slot.is_gone() {
            true => NONE,
            false => next.next().unwrap_or(NONE),
        };
        self.slots.iter().map(number).collect()
    }

    /// The agents that are there with their inboxes, and the mail in them.
    fn export_inboxes(&self) -> (Vec<SlotState>, Vec<MailState<M>>) {
        let mut places = vec![NONE; self.posted.len()];
        for slot in &self.slots {
            self.mails_of(slot)
                .for_each(|mail| places[mail as usize] = 0);
        }
        let mut posted = Vec::new();
        for (place, envelope) in places.iter_mut().zip(&self.posted) {
            if *place != NONE {
                *place = crate::narrow(posted.len());
                posted.push(to_state(envelope, None));
            }
        }
        let here = (0_u32..).zip(&self.slots);
        let here = here.filter(|(_, entry)| !entry.is_gone());
        let slots = here.map(|(slot, entry)| {
            let ahead = self.ahead.as_ref();
            let patterns = self.mailing_list.subscriptions(slot).map(|pattern| {
                let since = ahead.and_then(|ahead| ahead.subscribed_at.get(&(slot, pattern)));
                (pattern, since.copied())
            });
            let mails = self.mails_of(entry);
            SlotState {
                id: entry.id,
                index: entry.index,
                sequence: entry.sequence,
                delivered: entry.delivered,
                rng: entry.rng.as_deref().cloned(),
                flags: entry.flags,
                inbox: mails.map(|mail| places[mail as usize]).collect(),
                patterns: patterns.collect(),
            }
        });
        (slots.collect(), posted)
    }

    /// The places of the mail in an inbox, oldest first.
    fn mails_of(&self, slot: &Slot) -> impl Iterator<Item = u32> + '_ {
        let mut inbox = slot.inbox;
        std::iter::from_fn(move || inbox.take_first(&self.links))
    }

    /// All pending alarms, in the order in which they are due.
    fn export_alarms(&self, number: impl Fn(u32) -> Option<u32>) -> Vec<AlarmState<M>> {
        // What is forecast fires as other alarms do in one that goes on from there.
        let without_forecasts = self.ahead.is_none();
        let alarms = self.alarms.iter().filter_map(|(time, lies)| {
            let packed;
            let envelope = match lies {
                Lies::Packed(alarm, beside) => {
                    packed = alarm.clone().kept_apart(&self.slots, beside);
                    &packed
                }
                Lies::Apart(envelope) => envelope,
            };
            if without_forecasts && envelope.is(FOREIGN) {
                return None;
            }
            let mut mail = to_state(envelope, number(envelope.slot()));
            mail.marks &= !FORECAST;
            let origin = envelope.origin;
            Some(AlarmState { time, origin, mail })
        });
        let mut alarms: Vec<_> = alarms.collect();
        // Mail from elsewhere can be there twice, once as a copy.
        alarms.sort_by_key(|alarm| (alarm.time, alarm.mail.key, alarm.mail.marks));
        alarms
    }

    fn export_periodics(&self) -> Vec<PeriodicState> {
        let periodics = self.periodics.iter().flat_map(|all| all.of_setter(None));
        let periodics = periodics.map(|periodic| PeriodicState {
            setter: periodic.handle.origin().0,
            handle: periodic.handle.origin().1,
            current: periodic.current.origin().1,
            period: periodic.period,
            due: periodic.due(),
            receiver: periodic.receiver,
            topic: periodic.topic,
        });
        periodics.collect()
    }

    fn export_ahead(&self) -> Option<AheadState> {
        let ahead = self.ahead.as_ref()?;
        let departures = ahead.departures.iter().map(|(time, lies)| {
            let (setter, key) = match lies {
                Lies::Packed(departure, _) => departure.of(),
                Lies::Apart(departure) => departure.of(),
            };
            DepartureState { time, setter, key }
        });
        let mut departures: Vec<_> = departures.collect();
        departures.sort_by_key(|departure| (departure.time, departure.key, departure.setter));
        Some(AheadState {
            departures,
            delays: ahead.delays.clone(),
            dismissals: ahead.dismissals.clone(),
        })
    }

    /// Takes up a state, which must pass [`KernelState::check`]. The kernel is new, and has the
    /// settings of its host.
    pub(crate) fn restore(&mut self, state: KernelState<M>) {
        self.now = state.now;
        self.superstep = state.superstep;
        self.others_listen = state.others_listen;
        self.local = state.local;
        self.restore_slots(state.slots, state.posted, state.removed);
        self.outbox = state.outbox.into_iter().map(from_state).collect();
        let unread = state.unread.into_iter();
        let unread = unread.map(|(slot, mail)| {
            let mut envelope = from_state(mail);
            envelope.set_readers(1);
            (slot, envelope)
        });
        self.unread = unread.collect();
        self.unseen = state.unseen;
        self.adders = state.adders;
        self.mailing_list.restore_heard(state.heard);
        self.alarms.number_from(state.alarms_numbered);
        let restored = self.restore_alarms(state.alarms);
        self.restore_periodics(state.periodics, &restored);
        if let Some(ahead) = state.ahead {
            self.restore_ahead(ahead, &restored);
        }
        self.removals = state.removals;
        if let Some(changed) = &mut self.changed_interest {
            *changed = state.changed_interest;
        }
        self.gone = state.gone;
        self.main_listens = state.main_listens;
        self.main_delivered = state.main_delivered;
        self.main_sequence = state.main_sequence;
        self.stopped_by = state.stopped_by;
        self.lost = state.lost;
        self.first_lost = state.first_lost;
        self.unread_lost = state.unread_lost;
        self.errors = state.errors;
        self.stop_at_error = state.stop_at_error;
        self.counters = state.counters;
        if let (Some(sum), Some(digest)) = (&mut self.digest, state.digest) {
            *sum = DigestSum::resumed(digest);
        }
        if let (Some(content), Some(digest)) = (&mut self.content, state.content) {
            content.sum = ContentSum::resumed(digest);
        }
        if let (Some(marks), Some(kept)) = (&mut self.marks, state.marks) {
            *marks = kept;
        }
    }

    fn restore_slots(
        &mut self,
        slots: Vec<SlotState>,
        posted: Vec<MailState<M>>,
        removed: crate::id_set::IdSet,
    ) {
        let mut readers = vec![0_u32; posted.len()];
        for state in slots {
            let slot = crate::narrow(self.slots.len());
            let mut inbox = Inbox::EMPTY;
            for mail in state.inbox {
                readers[mail as usize] += 1;
                if inbox.is_empty() {
                    inbox.first = Link::new(mail, NONE);
                } else {
                    inbox.append(mail, &mut self.links);
                }
            }
            if state.flags & AWAKE != 0 {
                self.awake.push(slot);
            }
            if state.flags & KEPT_AWAKE != 0 {
                self.kept_awake.push(slot);
            }
            for (pattern, since) in state.patterns {
                self.mailing_list.subscribe(slot, pattern);
                if let (Some(since), Some(ahead)) = (since, &mut self.ahead) {
                    ahead.subscribed_at.insert((slot, pattern), since);
                }
            }
            self.slots.push(Slot {
                id: state.id,
                index: state.index,
                sequence: state.sequence,
                delivered: state.delivered,
                rng: state.rng.map(Box::new),
                inbox,
                flags: state.flags,
            });
        }
        let posted = posted.into_iter().zip(readers);
        let posted = posted.map(|(mail, readers)| {
            let mut envelope = from_state(mail);
            envelope.set_readers(readers);
            envelope
        });
        self.posted = posted.collect();
        self.directory = Directory::after(removed);
        let agents = (0_u32..).zip(&self.slots);
        self.directory
            .lay_out(agents.map(|(slot, entry)| (entry.id, slot)));
        self.show_slots();
    }

    /// Sets the alarms again. Returns the handles of those that others name: periodic ones and,
    /// under a lookahead, all.
    fn restore_alarms(&mut self, alarms: Vec<AlarmState<M>>) -> Restored {
        let mut restored = Restored::new();
        for AlarmState { time, origin, mail } in alarms {
            let mut envelope = from_state(mail);
            envelope.origin = origin;
            let (setter, key) = (envelope.sender, envelope.key);
            let is_named = self.ahead.is_some() || envelope.is(PERIODIC);
            if let Some(ahead) = &mut self.ahead {
                ahead.copies_come |= envelope.is(COPY);
            }
            let id = match self.repack(envelope) {
                Ok(packed) => self.alarms.set_packed(time, setter, packed),
                Err(load) => self.alarms.set(Pending { time, load }),
            };
            if is_named {
                restored.insert((setter, key), id);
            }
        }
        restored
    }

    fn restore_periodics(&mut self, periodics: Vec<PeriodicState>, restored: &Restored) {
        for state in periodics {
            let PeriodicState { setter, due, .. } = state;
            let handle = AlarmId::of(setter, state.handle);
            let pending = restored
                .range((setter, MailKey::FIRST)..=(setter, MailKey::LAST))
                .find(|((_, key), _)| key.sequence() == state.current)
                .map(|(_, id)| *id);
            let fired = AlarmId::of_fired(setter, state.current);
            let (receiver, topic) = (state.receiver, state.topic);
            let mut periodic = Periodic::new(handle, due, state.period, receiver, topic);
            periodic.current = pending.unwrap_or(fired);
            self.periodics.get_or_insert_default().insert(periodic);
            self.look_who_notes_deliveries();
        }
    }

    fn restore_ahead(&mut self, state: AheadState, restored: &Restored) {
        let Some(ahead) = &mut self.ahead else { return };
        ahead.delays = state.delays;
        ahead.dismissals = state.dismissals;
        for DepartureState { time, setter, key } in state.departures {
            let fired = AlarmId::of_fired(setter, key.sequence());
            let alarm = restored.get(&(setter, key)).copied().unwrap_or(fired);
            ahead.depart_at(time, alarm, (setter, key));
        }
    }
}

/// Mail as a value, whose receiver is in this slot if that is known.
fn to_state<M: Message>(envelope: &Envelope<M>, slot: Option<u32>) -> MailState<M> {
    MailState {
        key: envelope.key,
        sender: envelope.sender,
        receiver: envelope.receiver(),
        marks: envelope.marks(),
        slot,
        body: envelope.body.clone().expect("mail that waits has a body"),
    }
}

fn from_state<M>(mail: MailState<M>) -> Envelope<M> {
    let mut envelope = Envelope::new(mail.key, mail.sender, mail.receiver, mail.body);
    envelope.mark(mail.marks);
    envelope.set_slot(mail.slot.unwrap_or(NONE));
    envelope
}
