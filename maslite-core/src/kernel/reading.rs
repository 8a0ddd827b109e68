//! The path of mail from inboxes to agents, and what becomes of mail that is not read.

use super::inbox::Link;
use super::{Kernel, Outside};
use crate::directory::NONE;
use crate::error::{Error, FailurePlace, FailureStage};
use crate::message::{Delivery, Envelope, Mail, MailKey, Message, PERIODIC, Receiver};
use crate::{AgentId, SimTime};

impl<M: Message> Kernel<M> {
    #[inline]
    pub(crate) fn has_mail(&self, slot: u32) -> bool {
        !self.slots[slot as usize].inbox.is_empty()
    }

    /// The mail in an inbox, oldest first, without taking it.
    pub(crate) fn inbox(&self, slot: u32) -> impl Iterator<Item = &Envelope<M>> + '_ {
        let mut link = self.slots[slot as usize].inbox.first;
        std::iter::from_fn(move || {
            let envelope = self.posted.get(link.mail() as usize)?;
            link = *self
                .links
                .get(link.next() as usize)
                .unwrap_or(&Link::NOWHERE);
            Some(envelope)
        })
    }

    /// Takes the oldest mail out of an inbox, and tells whether it was the last one there.
    #[inline(always)]
    pub(crate) fn take_first(&mut self, slot: u32) -> Option<(Mail<M>, bool)> {
        let entry = &mut self.slots[slot as usize];
        let mail = entry.inbox.take_first(&self.links)?;
        let is_last = entry.inbox.is_empty();
        entry.delivered += 1;
        Some((self.hand_over(slot, mail), is_last))
    }

    /// Takes the mail at `place` out of an inbox, counted from the oldest.
    pub(crate) fn take_nth(&mut self, slot: u32, place: usize) -> Option<Mail<M>> {
        if place == 0 {
            return self.take_first(slot).map(|(mail, _)| mail);
        }
        let inbox = &mut self.slots[slot as usize].inbox;
        let (mut before, mut at) = (NONE, inbox.first.next());
        for _ in 1..place {
            before = at;
            at = self.links.get(at as usize)?.next();
        }
        let link = *self.links.get(at as usize)?;
        match before {
            NONE => inbox.first.lead_to(link.next()),
            before => self.links[before as usize].lead_to(link.next()),
        }
        if inbox.last == at {
            inbox.last = before;
        }
        self.slots[slot as usize].delivered += 1;
        Some(self.hand_over(slot, link.mail()))
    }

    /// Counts a delivery, which the agent counts already, and makes the mail that the agent gets.
    #[inline(always)]
    fn hand_over(&mut self, slot: u32, mail: u32) -> Mail<M> {
        self.counters.delivered += 1;
        debug_assert_eq!(self.notes_deliveries, self.must_note_deliveries());
        if self.notes_deliveries {
            self.note_delivery(slot, mail);
        }
        self.unfold(mail)
    }

    /// Looks whether deliveries are to be noted: a digest, an observer or periodic alarms came.
    pub(crate) fn look_who_notes_deliveries(&mut self) {
        self.notes_deliveries = self.must_note_deliveries();
    }

    fn must_note_deliveries(&self) -> bool {
        self.digest.is_some() || self.observer.is_some() || self.periodics.is_some()
    }

    /// What few simulations need of each delivery, apart from the others' way.
    #[inline(never)]
    fn note_delivery(&mut self, slot: u32, mail: u32) {
        if self.digest.is_some() || self.observer.is_some() {
            let entry = &self.slots[slot as usize];
            self.show(mail, entry.id, entry.index, entry.delivered - 1);
        }
        if self.posted[mail as usize].is(PERIODIC) {
            self.set_again_when_taken(slot, mail);
        }
    }

    /// Shows a delivery to who keeps the digest and to who observes, before it is made: what
    /// is handed to the agent then need not lie in memory on its way.
    #[inline(never)]
    fn show(&mut self, mail: u32, agent: AgentId, index: u64, nth: u64) {
        let envelope = &mut self.posted[mail as usize];
        let Some(body) = envelope.body.take() else {
            return;
        };
        let mail = Mail {
            sender: envelope.sender,
            receiver: envelope.receiver(),
            body,
        };
        let delivery = Delivery {
            time: self.now,
            superstep: self.superstep,
            agent,
            index,
            nth,
            mail: &mail,
        };
        let mut piece = None;
        if let Some(digest) = &mut self.digest {
            let (place, mut hash) = digest.add(&delivery);
            let content = self.content.as_mut();
            let content = content.map(|it| (it.add)(&mut it.sum, place, &mail.body));
            if let Some(Ok(of_contents)) = content {
                hash = of_contents;
            }
            piece = Some(hash);
            if let Some(Err(why)) = content {
                let place = FailurePlace {
                    time: self.now,
                    superstep: self.superstep,
                    stage: FailureStage::Update,
                    index,
                    sequence: nth,
                };
                let error = Error::Undigested {
                    topic: mail.topic(),
                    sender: mail.sender,
                    agent,
                    time: self.now,
                    why,
                };
                self.failure.get_or_insert((place, error));
            }
        }
        if let Some(observer) = &mut self.observer {
            self.outside = self.observed_by;
            observer(&delivery);
            self.outside = Outside::Nobody;
        }
        envelope.body = Some(mail.body);
        if let Some(hash) = piece {
            self.add_to_pieces(hash);
        }
    }

    /// The last reader gets the message itself, the others a clone.
    #[inline(always)]
    fn unfold(&mut self, mail: u32) -> Mail<M> {
        let envelope = &mut self.posted[mail as usize];
        let body = if envelope.readers() == 1 {
            envelope.body.take()
        } else {
            envelope.set_readers(envelope.readers() - 1);
            envelope.body.clone()
        };
        Mail {
            sender: envelope.sender,
            receiver: envelope.receiver(),
            body: body.expect("mail in an inbox has a body"),
        }
    }

    /// Keeps the mail that an agent did not read for its next turn.
    #[cold]
    pub(crate) fn keep_unread(&mut self, slot: u32) {
        if self.strays() {
            return;
        }
        while let Some(mail) = self.slots[slot as usize].inbox.take_first(&self.links) {
            let key = self.posted[mail as usize].key;
            let periodic = self.posted[mail as usize].is(PERIODIC);
            let Mail {
                sender,
                receiver,
                body,
            } = self.unfold(mail);
            let mut envelope = Envelope::new(key, sender, receiver, body);
            envelope.set_readers(1);
            envelope.mark_if(PERIODIC, periodic);
            self.unread.push((slot, envelope));
        }
    }

    /// Counts mail as undeliverable that an agent has not read.
    pub(super) fn lose_unread(&mut self, slot: u32, from: AgentId, body: &M) {
        self.counters.undeliverable += 1;
        self.unread_lost += 1;
        let (now, superstep) = (self.now.as_nanos(), self.superstep);
        let entry = &self.slots[slot as usize];
        let (to, index) = (entry.id, entry.index);
        // After what was posted before its superstep, in the order in which agents leave and mail
        // came.
        let key = [now, superstep, 1, index, self.unread_lost, 0];
        if self.is_among_first_lost(&key) {
            self.note_lost(key, from, to, body.topic());
        }
    }

    /// Counts the mail in an inbox as undeliverable.
    pub(super) fn discard_inbox(&mut self, slot: u32) {
        while let Some(mail) = self.slots[slot as usize].inbox.take_first(&self.links) {
            let mail = self.unfold(mail);
            self.lose_unread(slot, mail.sender, &mail.body);
        }
    }

    /// Mail that is posted, or was left unread, and that no agent has read yet.
    pub(crate) fn queued(&self) -> u64 {
        self.counters.sent - self.counters.delivered - self.counters.undeliverable
    } // ---- main

    /// Takes the mail addressed to main, in order, each with the time at which it was sent.
    pub(crate) fn take_main_mail(&mut self) -> Vec<(SimTime, Mail<M>)> {
        let mut inbox = std::mem::take(&mut self.main_inbox);
        let mails = inbox
            .drain(..)
            .map(|mail| {
                let sent_at = self.posted[mail as usize].key.sent_at();
                (sent_at, self.hand_over_to_main(mail))
            })
            .collect();
        self.main_inbox = inbox;
        mails
    }

    pub(crate) fn main_has_mail(&self) -> bool {
        !self.main_inbox.is_empty()
    }

    fn hand_over_to_main(&mut self, mail: u32) -> Mail<M> {
        self.counters.delivered += 1;
        let nth = self.main_delivered;
        self.main_delivered += 1;
        self.show(mail, AgentId::MAIN, u64::MAX, nth);
        self.unfold(mail)
    }

    /// Puts mail of main into the outbox.
    pub(crate) fn send_from_main(&mut self, receiver: Receiver, body: M) {
        let key = MailKey::of_main(self.now, self.main_sequence);
        self.main_sequence += 1;
        self.outbox
            .push(Envelope::new(key, AgentId::MAIN, receiver, body));
        self.unseen = true;
    }
}
