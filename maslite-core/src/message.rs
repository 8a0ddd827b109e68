//! What agents exchange.

use serde::{Deserialize, Serialize};

use crate::{AgentId, SimTime, Topic};

/// The message type of a simulation: one type for all agents, usually an enum.
///
/// `#[derive(Message)]` makes the name of the variant the topic. `#[message(topic = "…")]` on a
/// variant gives another one. A type whose topic depends on its content implements the trait by
/// hand.
///
/// ```
/// use maslite_core::{Message, Topic};
///
/// #[derive(Clone, Message)]
/// enum Msg { Order { pieces: u32 }, #[message(topic = "Arrival")] Delivered }
/// assert_eq!(Msg::Order { pieces: 3 }.topic(), Topic::new("Order"));
/// assert_eq!(Msg::Delivered.topic(), Topic::new("Arrival"));
///
/// #[derive(Clone)]
/// struct Reading { celsius: f64 }
/// impl Message for Reading {
///     fn topic(&self) -> Topic {
///         Topic::new(if self.celsius > 90.0 { "Alarm" } else { "Reading" })
///     }
/// }
/// assert_eq!(Reading { celsius: 95.0 }.topic(), Topic::new("Alarm"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message",
    label = "the trait `Message` is missing",
    note = "write `#[derive(Clone, Message)]` above `{Self}`, or implement `Message` by hand"
)]
pub trait Message: Clone + Send + 'static {
    /// Returns the topic of the message. Subscriptions can name it.
    fn topic(&self) -> Topic;
}

/// The receiver of mail. Copies go to agents that subscribed to mail like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Receiver {
    /// One agent, and a copy for every subscriber.
    Agent(AgentId),
    /// One agent, without copies to subscribers.
    Direct(AgentId),
    /// A broadcast: the subscribers, and no one else.
    Subscribers,
}

impl Receiver {
    /// The agent the mail is addressed to; none for a broadcast.
    #[must_use]
    #[inline]
    pub const fn agent(self) -> Option<AgentId> {
        match self {
            Self::Agent(id) | Self::Direct(id) => Some(id),
            Self::Subscribers => None,
        }
    }
}

/// Whatever is an id: a number, a name, or an [`AgentId`].
impl<T: Into<AgentId>> From<T> for Receiver {
    fn from(id: T) -> Self {
        Self::Agent(id.into())
    }
}

/// A message with its sender and receiver, as it reaches an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mail<M> {
    /// The sender.
    pub sender: AgentId,
    /// The receiver in its address: not this agent, where it is a copy for a subscriber.
    pub receiver: Receiver,
    /// The message.
    pub body: M,
}

impl<M> Mail<M> {
    /// Mail made by hand, to hand to an agent in a test.
    pub fn new(sender: impl Into<AgentId>, receiver: impl Into<Receiver>, body: M) -> Self {
        Self {
            sender: sender.into(),
            receiver: receiver.into(),
            body,
        }
    }
}

impl<M: Message> Mail<M> {
    /// Returns the topic of the message.
    pub fn topic(&self) -> Topic {
        self.body.topic()
    }
}

/// One delivery, as trace and digest see it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a, M> {
    /// When \[simulated\].
    pub time: SimTime,
    /// The superstep within the instant, from 0.
    pub superstep: u64,
    /// The agent that gets it. For a copy this is the subscriber, not the addressee.
    pub agent: AgentId,
    /// The insertion index of the agent that gets it.
    pub index: u64,
    /// How manieth delivery to it, from 0.
    pub nth: u64,
    /// The mail.
    pub mail: &'a Mail<M>,
}

/// Mail from another engine.
#[derive(Debug)]
pub struct Import<M> {
    /// Its place in the kernel's order.
    pub key: MailKey,
    /// The mail.
    pub mail: Mail<M>,
    /// It is for those who listen here: its receiver lives in another engine, which counts it.
    /// Other mail whose receiver was never here is counted as undeliverable.
    pub is_copy: bool,
}

/// A place in the kernel's one order of mail: when it was sent, its sender, and its number among
/// the mail of that sender.
///
/// It is compared in this order and never by arrival, so that every placement agrees. For mail of
/// a superstep the time is the same for all; for alarms it is the time they were set at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailKey {
    sent_at: SimTime,
    /// 0 for the simulation's owner, whose mail comes before all other; the insertion index plus
    /// one for agents; the largest number for main, whose mail comes after all other.
    rank: u64,
    sequence: u64,
}

impl MailKey {
    /// Before and after all places that there are.
    pub(crate) const FIRST: Self = Self::of_owner(SimTime::ZERO, 0);
    pub(crate) const LAST: Self = Self::of_main(SimTime::MAX, u64::MAX);

    /// The place of mail that the simulation's owner queued.
    #[must_use]
    pub const fn of_owner(sent_at: SimTime, sequence: u64) -> Self {
        let rank = 0;
        Self {
            sent_at,
            rank,
            sequence,
        }
    }

    /// The place of mail that an agent sent, or of an alarm that it set.
    #[must_use]
    #[inline]
    pub const fn of_agent(sent_at: SimTime, index: u64, sequence: u64) -> Self {
        let rank = index + 1;
        Self {
            sent_at,
            rank,
            sequence,
        }
    }

    /// The place of mail that the handler of mail to main sent.
    #[must_use]
    pub const fn of_main(sent_at: SimTime, sequence: u64) -> Self {
        let rank = u64::MAX;
        Self {
            sent_at,
            rank,
            sequence,
        }
    }

    /// How manieth mail or alarm of its sender it is.
    #[must_use]
    #[inline]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it was sent, or the alarm was set.
    #[must_use]
    #[inline]
    pub const fn sent_at(&self) -> SimTime {
        self.sent_at
    }

    /// All there is to it, as numbers: to be written down.
    #[must_use]
    #[inline]
    pub const fn to_numbers(self) -> [u64; 3] {
        [self.sent_at.as_nanos(), self.rank, self.sequence]
    }

    /// The place that [`to_numbers`](Self::to_numbers) told of.
    #[must_use]
    #[inline]
    pub const fn from_numbers([sent_at, rank, sequence]: [u64; 3]) -> Self {
        let sent_at = SimTime::from_nanos(sent_at);
        Self {
            sent_at,
            rank,
            sequence,
        }
    }
}

/// Mail under way, or an alarm, which will be. With a small message it fits a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<M> {
    pub(crate) key: MailKey,
    pub(crate) sender: AgentId,
    /// The receiver's id, and apart from it what kind of receiver it is: together they would take
    /// twice the room.
    to: AgentId,
    kind: ReceiverKind,
    marks: u8,
    /// Under a lookahead: how long it was under way between schedulers, as a number of the
    /// kernel's; 0 if it was not.
    pub(crate) origin: u16,
    /// Before it is posted: where the receiver sits, if that was found out already. From then on:
    /// how many agents have yet to read it.
    slot_or_readers: u32,
    pub(crate) body: Option<M>,
}

/// It came from another cluster, which counts what becomes of it there.
pub(crate) const FOREIGN: u8 = 1;
/// A copy of it, or it itself, went to another cluster. An alarm can then no longer be cleared.
pub(crate) const LEFT: u8 = 2;
/// Who gets it elsewhere was decided before: under a lookahead an alarm leaves before it fires.
pub(crate) const SETTLED: u8 = 4;
/// In real time an idle run waits for this alarm; without, it is dropped.
pub(crate) const REQUIRED: u8 = 8;
/// This alarm is for an agent that this scheduler has never heard of.
pub(crate) const ELSEWHERE: u8 = 16;
/// It came for those who listen here; its receiver lives elsewhere, where it is counted.
pub(crate) const COPY: u8 = 32;
/// A periodic alarm: it is set again when it has fired.
pub(crate) const PERIODIC: u8 = 64;
/// This alarm is forecast: it fires in the receiver's scheduler, which has a copy of it.
pub(crate) const FORECAST: u8 = 128;

#[derive(Clone, Copy, Debug)]
enum ReceiverKind {
    Agent,
    Direct,
    Subscribers,
}

impl<M: Message> Envelope<M> {
    /// What the message is about.
    pub(crate) fn topic(&self) -> Topic {
        let body = self.body.as_ref();
        body.expect("unread mail has a body").topic()
    }
}

impl<M> Envelope<M> {
    #[inline]
    pub(crate) fn new(key: MailKey, sender: AgentId, receiver: Receiver, body: M) -> Self {
        let (kind, to) = match receiver {
            Receiver::Agent(id) => (ReceiverKind::Agent, id),
            Receiver::Direct(id) => (ReceiverKind::Direct, id),
            Receiver::Subscribers => (ReceiverKind::Subscribers, AgentId::NOBODY),
        };
        Self {
            key,
            sender,
            to,
            kind,
            marks: 0,
            origin: 0,
            slot_or_readers: crate::directory::NONE,
            body: Some(body),
        }
    }

    #[inline]
    pub(crate) fn receiver(&self) -> Receiver {
        match self.kind {
            ReceiverKind::Agent => Receiver::Agent(self.to),
            ReceiverKind::Direct => Receiver::Direct(self.to),
            ReceiverKind::Subscribers => Receiver::Subscribers,
        }
    }

    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.kind, ReceiverKind::Direct)
    }

    /// Whether it bears one of these marks.
    #[inline]
    pub(crate) fn is(&self, marks: u8) -> bool {
        self.marks & marks != 0
    }

    pub(crate) fn marks(&self) -> u8 {
        self.marks
    }

    #[inline]
    pub(crate) fn mark(&mut self, marks: u8) {
        self.marks |= marks;
    }

    /// Marks it, or takes the marks away.
    #[inline]
    pub(crate) fn mark_if(&mut self, marks: u8, holds: bool) {
        self.marks = self.marks & !marks | if holds { marks } else { 0 };
    }

    /// Whether both came from another cluster and are the same mail.
    pub(crate) fn is_the_same_mail(&self, other: &Self) -> bool {
        self.is(FOREIGN) && other.is(FOREIGN) && self.key == other.key
    }

    /// Stands for the same mail that came another time: it is a copy only if both are.
    pub(crate) fn take_over(&mut self, other: &Self) {
        self.mark_if(COPY, self.is(COPY) && other.is(COPY));
    }

    /// Where the receiver sits, or [`NONE`](crate::directory::NONE); asked before it is posted.
    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        self.slot_or_readers
    }

    /// Notes where the receiver sits, before it is posted.
    #[inline]
    pub(crate) fn set_slot(&mut self, slot: u32) {
        self.slot_or_readers = slot;
    }

    /// How many agents have yet to read it, once it is posted.
    #[inline]
    pub(crate) fn readers(&self) -> u32 {
        self.slot_or_readers
    }

    /// Notes how many agents are to read it: it is posted now.
    #[inline]
    pub(crate) fn set_readers(&mut self, readers: u32) {
        self.slot_or_readers = readers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_keeps_its_receiver_and_fits_a_cache_line() {
        let key = MailKey::of_owner(SimTime::ZERO, 0);
        for receiver in [
            Receiver::Agent(AgentId::from(7)),
            Receiver::Direct(AgentId::MAIN),
            Receiver::Subscribers,
        ] {
            let envelope = Envelope::new(key, AgentId::from(1), receiver, [0_u32; 3]);
            assert_eq!(envelope.receiver(), receiver);
            assert_eq!(size_of_val(&envelope), 64);
        }
    }
}
