//! The path of mail from the outbox into inboxes.

use super::Kernel;
use super::inbox::Link;
use super::slots::{AWAKE, Slot};
use crate::directory::{NONE, Whereabouts};
use crate::message::{COPY, Envelope, FOREIGN, LEFT, MailKey, Message, Receiver};
use crate::run::{self, LostKey, LostMail, Report};
use crate::{AgentId, Topic};

impl<M: Message> Kernel<M> {
    /// Drops all messages, one by one, so that a second call goes on where a panic ended the first.
    pub(crate) fn release_mail(&mut self) {
        while self.outbox.pop().is_some() {}
        while self.posted.pop().is_some() {}
        while self.unread.pop().is_some() {}
        self.alarms
            .for_each_kept(|envelope| drop(envelope.body.take()));
    }

    /// Puts mail of an agent into the outbox.
    #[inline]
    pub(crate) fn send(&mut self, slot: u32, receiver: Receiver, body: M) {
        let entry = &mut self.slots[slot as usize];
        let key = MailKey::of_agent(self.now, entry.index, entry.sequence);
        entry.sequence += 1;
        let sender = entry.id;
        self.outbox.push(Envelope::new(key, sender, receiver, body));
        self.unseen = true;
    }

    /// Forgets mail that was posted, once all of it was read.
    #[inline]
    pub(super) fn forget_read_mail(&mut self) {
        if self.queued() == self.unread.len() as u64 {
            self.links.clear();
            self.posted.clear();
        }
    }

    /// Links all mail of the outbox into the inboxes of its recipients.
    #[inline]
    pub(crate) fn post(&mut self) {
        if !self.outbox.is_empty() || !self.unread.is_empty() {
            self.post_outbox();
        }
    }

    #[inline(never)]
    fn post_outbox(&mut self) {
        self.forget_read_mail();
        let mut first = 0;
        if self.posted.is_empty() && self.unread.is_empty() {
            std::mem::swap(&mut self.posted, &mut self.outbox);
        } else {
            self.post_unread();
            first = crate::narrow(self.posted.len());
            self.posted.append(&mut self.outbox);
        }
        let listened = !self.mailing_list.is_empty();
        let (mut mail, end) = (first, crate::narrow(self.posted.len()));
        while mail < end {
            if !listened {
                mail = self.post_to_receivers(mail);
                if mail == end {
                    break;
                }
            }
            self.post_one(mail, listened);
            mail += 1;
        }
    }

    /// Posts one mail, to any receiver.
    #[inline(never)]
    fn post_one(&mut self, mail: u32, listened: bool) {
        let envelope = &self.posted[mail as usize];
        let receiver = envelope.receiver();
        let mut readers = 0;
        let mut owner = NONE;
        if let Some(id) = receiver.agent() {
            let whereabouts = match envelope.slot() {
                NONE => self.directory.find(id),
                // It may have been removed since an alarm was set for it.
                slot if self.is_gone(slot) => Whereabouts::Removed,
                slot => Whereabouts::Here(slot),
            };
            match whereabouts {
                Whereabouts::Here(slot) => {
                    owner = slot;
                    readers = 1;
                    self.local += u64::from(!envelope.is(FOREIGN));
                    self.deliver(slot, mail);
                }
                nowhere => readers = self.post_elsewhere(mail, id, nowhere),
            }
        }
        if listened && !matches!(receiver, Receiver::Direct(_)) {
            readers += self.copy_to_subscribers(mail, owner);
        }
        let envelope = &mut self.posted[mail as usize];
        envelope.set_readers(readers);
        if readers == 0 {
            if !envelope.is(FOREIGN | LEFT) && receiver == Receiver::Subscribers {
                self.counters.unheard += 1;
            }
            envelope.body = None;
        }
        self.counters.sent += u64::from(readers);
    }

    /// Posts mail, from `first` on, to receivers that are agents here, where there are no
    /// subscriptions. Returns the first mail that must take the longer way.
    #[inline]
    fn post_to_receivers(&mut self, first: u32) -> u32 {
        let Self {
            posted,
            slots,
            directory,
            links,
            awake,
            ..
        } = self;
        let mut mail = first;
        let mut foreign = 0;
        for envelope in &mut posted[first as usize..] {
            let Some(id) = envelope.receiver().agent() else {
                break;
            };
            let slot = match envelope.slot() {
                NONE => match directory.find(id) {
                    Whereabouts::Here(slot) => slot,
                    Whereabouts::Removed | Whereabouts::Unknown => break,
                },
                slot => slot,
            };
            let entry = &mut slots[slot as usize];
            if entry.is_gone() {
                break;
            }
            envelope.set_readers(1);
            foreign += u64::from(envelope.is(FOREIGN));
            put_into_inbox(entry, (slot, mail), links, awake);
            mail += 1;
        }
        let count = u64::from(mail - first);
        self.counters.sent += count;
        self.local += count - foreign;
        mail
    }

    /// Posts mail whose receiver is no agent here; tells how many read it here.
    #[cold]
    fn post_elsewhere(&mut self, mail: u32, id: AgentId, whereabouts: Whereabouts) -> u32 {
        // Mail from elsewhere was brought to where its receiver is or was, or it is a copy.
        let foreign = self.posted[mail as usize].is(FOREIGN);
        let is_unknown = whereabouts == Whereabouts::Unknown;
        let is_counted_elsewhere = match foreign {
            true => self.posted[mail as usize].is(COPY),
            false => is_unknown && self.has_neighbours,
        };
        if is_counted_elsewhere {
            return 0;
        }
        if is_unknown && !foreign && id == AgentId::MAIN && self.main_listens {
            self.main_inbox.push(mail);
            return 1;
        }
        self.counters.sent += 1;
        self.counters.undeliverable += 1;
        let envelope = &self.posted[mail as usize];
        let key = run::lost_when_posted(self.now, self.superstep, envelope.key);
        if self.is_among_first_lost(&key) {
            let (from, topic) = (envelope.sender, envelope.topic());
            self.note_lost(key, from, id, topic);
        }
        0
    }

    /// Whether mail that is lost is among the first. It is found in another order where others
    /// bring mail in.
    pub(super) fn is_among_first_lost(&self, key: &LostKey) -> bool {
        let last = self.first_lost.last();
        self.first_lost.len() < Report::LOST_KEPT || last.is_some_and(|last| key < last)
    }

    /// Notes undeliverable mail that is among the first.
    pub(super) fn note_lost(&mut self, key: LostKey, from: AgentId, to: AgentId, topic: Topic) {
        if self.strays() {
            return;
        }
        let place = self.first_lost.partition_point(|known| *known <= key);
        self.first_lost.insert(place, key);
        self.first_lost.truncate(Report::LOST_KEPT);
        self.lost
            .push((key, LostMail::new(self.now, from, to, topic)));
    }

    #[inline]
    pub(super) fn deliver(&mut self, slot: u32, mail: u32) {
        let entry = &mut self.slots[slot as usize];
        put_into_inbox(entry, (slot, mail), &mut self.links, &mut self.awake);
    }

    /// Delivers to all who listen, but not to the receiver once more; tells how many they are.
    #[inline(never)]
    fn copy_to_subscribers(&mut self, mail: u32, owner: u32) -> u32 {
        let mut recipients = std::mem::take(&mut self.recipients);
        recipients.clear();
        let envelope = &self.posted[mail as usize];
        let topic = envelope.topic();
        let (sender, receiver) = (envelope.sender, envelope.receiver().agent());
        self.mailing_list
            .recipients(sender, receiver, topic, &mut recipients);
        if envelope.is(FOREIGN) && self.ahead.is_some() {
            self.retain_early_listeners(mail, &mut recipients);
        }
        let mut copies = 0;
        let Self {
            slots,
            links,
            awake,
            ..
        } = self;
        for slot in &recipients {
            if *slot != owner {
                copies += 1;
                let entry = &mut slots[*slot as usize];
                put_into_inbox(entry, (*slot, mail), links, awake);
            }
        }
        self.recipients = recipients;
        copies
    }

    /// Links mail that was left unread into the inbox it was in, before anything new.
    fn post_unread(&mut self) {
        let mut unread = std::mem::take(&mut self.unread);
        for (slot, envelope) in unread.drain(..) {
            let mail = crate::narrow(self.posted.len());
            self.posted.push(envelope);
            self.deliver(slot, mail);
        }
        self.unread = unread;
    }

    /// Whether agents left mail unread in the last superstep.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}

/// Puts mail into the inbox of a slot, and wakes its agent.
#[inline(always)]
fn put_into_inbox(
    entry: &mut Slot,
    (slot, mail): (u32, u32),
    links: &mut Vec<Link>,
    awake: &mut Vec<u32>,
) {
    if !entry.inbox.is_empty() {
        // Who has mail was woken by it.
        entry.inbox.append(mail, links);
        return;
    }
    entry.inbox.first = Link::new(mail, NONE);
    if entry.flags & AWAKE == 0 {
        entry.flags |= AWAKE;
        awake.push(slot);
    }
}
