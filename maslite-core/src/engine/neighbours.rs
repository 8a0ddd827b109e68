//! Other engines under the same clock: what leaves for them, what comes from them, what they must
//! know.

use super::Engine;
use crate::directory::{NONE, Whereabouts};
use crate::kernel::Kernel;
use crate::message::{
    COPY, Envelope, FOREIGN, Import, LEFT, Mail, MailKey, Message, Receiver, SETTLED,
};
use crate::run::{AgentError, LostKey, LostMail, StopReason};
use crate::{AgentId, Pattern, SimTime, Topic};

/// How many agents that came or went are kept at most before the neighbours are told of them.
const MANY: usize = 10_000;

/// Mail of this engine that waits to be posted.
#[derive(Debug)]
pub struct Outgoing<'a, M> {
    /// Its place in the kernel's order.
    pub key: MailKey,
    /// Who sent it.
    pub sender: AgentId,
    /// Its receiver.
    pub receiver: Receiver,
    /// The message.
    pub body: &'a M,
    /// The receiver is an agent that this engine has never heard of.
    pub receiver_is_elsewhere: bool,
}

impl<M> From<(MailKey, Mail<M>)> for Import<M> {
    fn from((key, mail): (MailKey, Mail<M>)) -> Self {
        let is_copy = false;
        Self { key, mail, is_copy }
    }
}

impl<M> Import<M> {
    #[inline]
    pub(crate) fn into_envelope(self) -> Envelope<M> {
        let Mail {
            sender,
            receiver,
            body,
        } = self.mail;
        let mut envelope = Envelope::new(self.key, sender, receiver, body);
        envelope.mark(FOREIGN | if self.is_copy { COPY } else { 0 });
        envelope
    }
}

/// A new agent, as other engines need to know of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Newborn {
    /// Its id.
    pub id: AgentId,
    /// The insertion index of the agent that added it.
    pub adder: u64,
    /// The agent that added it.
    pub by: AgentId,
    /// When.
    pub time: SimTime,
    /// The superstep within that instant.
    pub superstep: u64,
}

impl<M: Message> Engine<M> {
    /// Makes this engine one of several. From now on mail for unknown receivers is for others,
    /// and what others must know of is kept until it is asked for.
    pub fn join_neighbours(&mut self) {
        self.kernel.has_neighbours = true;
        self.kernel.changed_interest.get_or_insert_default();
    }

    /// Sets where the simulation stands: the instant, and the superstep in it that comes next.
    ///
    /// # Panics
    /// If the engine has passed that time, or would pass an alarm: the caller that grants time has
    /// broken its promise.
    pub fn stand_at(&mut self, time: SimTime, superstep: u64) {
        assert!(time >= self.kernel.now, "time never goes backwards");
        assert!(
            time == self.kernel.now || self.kernel.next_event().is_none_or(|event| event >= time),
            "time never passes an alarm"
        );
        let moves = (time, superstep) != (self.kernel.now, self.kernel.superstep);
        if moves && !self.kernel.outbox.is_empty() && !self.has_mail_for_itself() {
            // No agent here gets it, or the next superstep would be this engine's too. It
            // is lost when it was sent.
            self.kernel.post();
        }
        self.kernel.now = time;
        self.kernel.superstep = superstep;
        let progress = &self.kernel.progress;
        progress.stand_at(time, superstep);
        progress.count(self.kernel.counters.delivered, self.awake_last as u64);
    }

    /// Shows `visit` the mail that waits to be posted and may be for others, in order. It answers
    /// whether agents of other engines listen to it, so that a broadcast without a listener here is
    /// not unheard.
    pub fn outgoing(&mut self, mut visit: impl FnMut(Outgoing<'_, M>) -> bool) {
        let Kernel {
            outbox,
            directory,
            slots,
            others_listen,
            ..
        } = &mut self.kernel;
        for envelope in outbox {
            if envelope.is(FOREIGN | SETTLED) {
                continue;
            }
            let mut receiver_is_elsewhere = false;
            if let Some(id) = envelope.receiver().agent() {
                match envelope.slot() {
                    NONE => match directory.find(id) {
                        Whereabouts::Here(slot) => envelope.set_slot(slot),
                        Whereabouts::Removed => {}
                        Whereabouts::Unknown => receiver_is_elsewhere = true,
                    },
                    // It was removed since an alarm was set for it.
                    slot if slots[slot as usize].is_gone() => envelope.set_slot(NONE),
                    _ => {}
                }
            }
            let Some(body) = &envelope.body else {
                continue;
            };
            if !receiver_is_elsewhere && !*others_listen {
                continue;
            }
            let left = visit(Outgoing {
                key: envelope.key,
                sender: envelope.sender,
                receiver: envelope.receiver(),
                body,
                receiver_is_elsewhere,
            });
            envelope.mark_if(LEFT, left);
        }
    }

    /// Shows `visit` the mail of agents here that waits to be posted and that agents here may get.
    /// [`outgoing`](Self::outgoing) comes before it.
    pub fn waiting(&self, mut visit: impl FnMut(Outgoing<'_, M>)) {
        for envelope in &self.kernel.outbox {
            let receiver = envelope.receiver();
            let stays = envelope.slot() != NONE || receiver == Receiver::Subscribers;
            if !stays || envelope.is(FOREIGN) {
                continue;
            }
            let Some(body) = &envelope.body else { continue };
            visit(Outgoing {
                key: envelope.key,
                sender: envelope.sender,
                receiver,
                body,
                receiver_is_elsewhere: false,
            });
        }
    }

    /// How much mail of agents here was posted to agents here.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.kernel.local
    }

    /// Whether mail waits to be posted that some agent here may get.
    #[must_use]
    pub fn has_mail_for_itself(&self) -> bool {
        let Kernel {
            outbox,
            mailing_list,
            ..
        } = &self.kernel;
        let listens = !mailing_list.is_empty();
        self.kernel.has_unread()
            || outbox.iter().any(|envelope| {
                envelope.slot() != NONE
                    || (listens && !matches!(envelope.receiver(), Receiver::Direct(_)))
            })
    }

    /// Whether mail waits to be posted.
    #[must_use]
    pub fn has_outbox(&self) -> bool {
        !self.kernel.outbox.is_empty() || self.kernel.has_unread()
    }

    /// Takes in mail from other engines: it is posted with what waits here, in the kernel's order.
    /// Of mail that came twice one is kept.
    pub fn import<I: Into<Import<M>>>(&mut self, mails: impl IntoIterator<Item = I>) {
        let outbox = &mut self.kernel.outbox;
        let own = outbox.len();
        outbox.extend(mails.into_iter().map(|mail| mail.into().into_envelope()));
        if outbox.len() > own {
            outbox.sort_by_key(|envelope| envelope.key);
            outbox.dedup_by(|second, first| {
                let is_the_same = first.is_the_same_mail(second);
                if is_the_same {
                    first.take_over(second);
                }
                is_the_same
            });
        }
    }

    /// Tells which insertion index the next agent that is added gets.
    pub fn number_from(&mut self, next_index: u64) {
        self.next_index = next_index;
    }

    /// Takes the agents that agents added since the last time, in order. They wait for their
    /// insertion indices.
    pub fn take_newborn(&mut self) -> Vec<Newborn> {
        let taken = std::mem::take(&mut self.newborn).into_iter();
        taken
            .map(|(slot, newborn)| {
                self.unnumbered.push(slot);
                newborn
            })
            .collect()
    }

    /// Gives the agents that wait for them their insertion indices, in order.
    pub fn number(&mut self, indices: &[u64]) {
        let numbered = indices.len().min(self.unnumbered.len());
        for (slot, index) in self.unnumbered.drain(..numbered).zip(indices) {
            if let Some(entry) = self.kernel.slots.get_mut(slot as usize) {
                entry.index = *index;
            }
        }
    }

    /// Takes the ids of the agents that have gone since the last time.
    pub fn take_gone(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.kernel.gone)
    }

    /// Whether enough agents have come and gone that neighbours are to be told now.
    #[must_use]
    #[inline]
    pub fn has_many_to_tell_of(&self) -> bool {
        self.newborn.len() + self.kernel.gone.len() >= MANY
    }

    /// Takes the ids that agents want removed and that are not here, each with who asked and that
    /// agent's insertion index.
    pub fn take_removals_elsewhere(&mut self) -> Vec<(AgentId, AgentId, u64)> {
        std::mem::take(&mut self.kernel.removals)
    }

    /// Whether agents want others removed that are not here.
    #[must_use]
    #[inline]
    pub fn has_removals_elsewhere(&self) -> bool {
        !self.kernel.removals.is_empty()
    }

    /// Whether agents were added since the host last took them.
    #[must_use]
    #[inline]
    pub fn has_newborn(&self) -> bool {
        !self.newborn.is_empty()
    }

    /// Whether agents here began or ceased to listen to something since that was asked for.
    #[must_use]
    #[inline]
    pub fn has_changed_interest(&self) -> bool {
        let changed = self.kernel.changed_interest.as_ref();
        changed.is_some_and(|changed| !changed.is_empty())
    }

    /// What all agents here listen to, once for each agent.
    pub fn all_subscriptions(&self) -> impl Iterator<Item = Pattern> + '_ {
        self.kernel.mailing_list.iter().map(|(_, pattern)| pattern)
    }

    /// The subscriptions made (true) and withdrawn since they were last taken, with the time.
    #[must_use]
    pub fn changed_interest(&self) -> &[(Pattern, bool, SimTime)] {
        self.kernel.changed_interest.as_deref().unwrap_or_default()
    }

    /// Takes the subscriptions made (true) and withdrawn since the last time, with the time.
    pub fn take_changed_interest(&mut self) -> Vec<(Pattern, bool, SimTime)> {
        self.kernel
            .changed_interest
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Whether an alarm waits whose receiver is an agent that this engine has never heard of.
    #[must_use]
    pub fn has_alarms_elsewhere(&self) -> bool {
        self.kernel.has_alarms_elsewhere()
    }

    /// Whether some agent wants to be updated in every superstep there is.
    #[must_use]
    pub fn has_kept_awake(&self) -> bool {
        self.kernel.has_kept_awake()
    }

    /// Takes why an agent had the run end after the last superstep, with its insertion index; of
    /// several that stopped it, the first.
    pub fn take_stopped(&mut self) -> Option<(u64, StopReason)> {
        self.kernel.stopped_by.take()
    }

    /// The errors that agents reported since they were last taken, in order.
    #[must_use]
    pub fn errors(&self) -> &[AgentError] {
        &self.kernel.errors
    }

    /// Takes the errors that agents reported since the last time, in order.
    pub fn take_errors(&mut self) -> Vec<AgentError> {
        std::mem::take(&mut self.kernel.errors)
    }

    /// Takes the first undeliverable mail since the last time, at most as much as a report has
    /// since the beginning; with its place among all that is lost.
    pub fn take_lost(&mut self) -> Vec<(LostKey, LostMail)> {
        std::mem::take(&mut self.kernel.lost)
    }

    /// The topics to which agents listen and about which no mail came by.
    #[must_use]
    pub fn silent_topics(&self) -> Vec<Topic> {
        self.kernel.mailing_list.silent_topics()
    }

    /// Takes the topics to which agents listen and about which mail came by for the first time,
    /// since the last time.
    pub fn take_heard(&mut self) -> Vec<Topic> {
        self.kernel.mailing_list.take_heard()
    }

    /// Sets whether agents that report an error thereby end the run.
    pub fn stop_at_error(&mut self, stop: bool) {
        self.kernel.stop_at_error = stop;
    }
}
