//! The state of an engine between two supersteps, and main's mail.

use super::Engine;
use crate::alarm::PendingAlarm;
use crate::digest::{ContentSum, Digest, DigestSum};
use crate::directory::Whereabouts;
use crate::kernel::Content;
use crate::marks::{Covers, Marks};
use crate::message::{Mail, Message, Receiver};
use crate::run::Counters;
use crate::{AgentId, AlarmFilter, Pattern, SimTime};

impl<M: Message> Engine<M> {
    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.kernel.now
    }

    /// The superstep within the instant that comes next.
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.kernel.superstep
    }

    /// Moves the clock; to a later instant, or not at all.
    pub fn advance_to(&mut self, time: SimTime) {
        if time > self.kernel.now {
            self.kernel.now = time;
            self.kernel.superstep = 0;
            let progress = &self.kernel.progress;
            progress.stand_at(time, 0);
            progress.count(self.kernel.counters.delivered, self.awake_last as u64);
        }
    }

    /// How many agents were awake in the last superstep.
    #[must_use]
    pub fn awake_last(&self) -> usize {
        self.awake_last
    }

    /// Whether some agent is to be updated in this instant.
    #[must_use]
    #[inline]
    pub fn is_awake(&self) -> bool {
        !self.kernel.awake.is_empty()
    }

    /// The time of the next alarm.
    pub fn next_alarm(&mut self) -> Option<SimTime> {
        self.kernel.alarms.next_time()
    }

    /// Whether an alarm waits that a real-time run must wait for.
    #[must_use]
    pub fn has_required_alarms(&self) -> bool {
        self.kernel.alarms.required() > 0
    }

    /// The pending alarms that the filter names, in the order they will fire.
    pub fn alarms(&mut self, filter: AlarmFilter) -> Vec<PendingAlarm> {
        self.kernel.list_alarms(None, filter)
    }

    /// Clears the alarms of all setters that match the filter. Returns how many they were.
    pub fn clear_alarms(&mut self, filter: AlarmFilter) -> usize {
        self.kernel.clear_alarms(None, filter)
    }

    /// Who subscribed to exactly this pattern, in insertion order.
    pub fn subscribers(&mut self, pattern: Pattern) -> Vec<AgentId> {
        let slots = self.kernel.mailing_list.subscribers(pattern);
        slots
            .iter()
            .map(|slot| self.kernel.slots[*slot as usize].id)
            .collect()
    }

    /// What an agent listens to.
    #[must_use]
    pub fn subscriptions(&self, id: AgentId) -> Vec<Pattern> {
        match self.kernel.directory.find(id) {
            Whereabouts::Here(slot) => self.kernel.mailing_list.subscriptions(slot).collect(),
            _ => Vec::new(),
        }
    }

    /// What was counted since the simulation began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.kernel.counters;
        counters.queued = self.kernel.queued();
        counters.alarms_pending = self.kernel.alarms_pending();
        counters
    }

    /// Sums up a digest of the contents of all deliveries from now on, and one without them.
    pub fn keep_content_digest(&mut self)
    where
        M: serde::Serialize,
    {
        self.keep_digest();
        self.kernel.marks = Some(Marks::new(Covers::Contents));
        self.kernel.content.get_or_insert_with(|| Content {
            sum: ContentSum::default(),
            add: ContentSum::add,
        });
    }

    /// The digest of the contents so far, if one is kept.
    #[must_use]
    pub fn content_digest(&self) -> Option<Digest> {
        let content = self.kernel.content.as_ref();
        content.map(|content| content.sum.value())
    }

    /// The digest so far, if one is kept.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.kernel.digest.as_ref().map(DigestSum::value)
    }

    /// The digest so far in pieces, if one is kept.
    #[must_use]
    pub fn marks(&self) -> Option<&Marks> {
        self.kernel.marks.as_ref()
    }

    // ---- main

    /// Whether mail to main waits to be handled.
    #[must_use]
    #[inline]
    pub fn main_has_mail(&self) -> bool {
        self.kernel.main_has_mail()
    }

    /// Sets whether main has a handler for mail; without one, mail to main is undeliverable.
    pub fn main_listens(&mut self, listens: bool) {
        self.kernel.main_listens = listens;
    }

    /// Takes the mail addressed to main, in order, each with the time at which it was sent.
    pub fn take_main_mail(&mut self) -> Vec<(SimTime, Mail<M>)> {
        self.kernel.take_main_mail()
    }

    /// Sends mail of main, posted with what is posted next.
    pub fn send_from_main(&mut self, receiver: Receiver, body: M) {
        self.kernel.send_from_main(receiver, body);
    }

    /// Posts what waits in the outbox.
    pub fn post(&mut self) {
        self.kernel.post();
    }
}
