//! What one scheduler knows besides the agents themselves: who there is, mail under way, inboxes,
//! subscriptions, alarms, counters.
//!
//! Mail flows one way. Agents put it into the outbox; posting swaps the outbox with the mail that
//! was just read and links each mail into the inboxes of its recipients; agents read it there.
//! A message is written once and read once, wherever it stays within the scheduler.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::adders::Adders;
use crate::alarm::{AlarmFilter, PendingAlarm};
use crate::alarm_queue::{AlarmId, AlarmQueue, Load, Pending};
use crate::digest::{ContentSum, DigestSum};
use crate::directory::{Directory, NONE, Whereabouts};
use crate::error::{Adder, Error, FailurePlace, FailureStage};
use crate::mailing_list::{MailingList, Pattern};
use crate::message::{
    COPY, Delivery, ELSEWHERE, Envelope, FOREIGN, Import, LEFT, Mail, MailKey, Message, PERIODIC,
    REQUIRED, Receiver, SETTLED,
};
use crate::periodic::{Periodic, Periodics};
use crate::progress::Progress;
use crate::rng::AgentRng;
use crate::run::{self, AgentError, Counters, LostKey, LostMail, Report, StopReason};
use crate::trace::Observer;
use crate::{AgentId, SimDuration, SimTime, Topic};

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
    inbox: Inbox,
    flags: u8,
}

impl Slot {
    /// The agent was removed.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.flags & GONE != 0
    }
}

/// A list of links, first to last. The first lies here, so that an agent with a single mail, the
/// most common case, needs no other.
#[derive(Clone, Copy, Debug)]
struct Inbox {
    first: Link,
    /// The last of those behind the first, if there are any.
    last: u32,
}

impl Inbox {
    const EMPTY: Self = Self {
        first: Link::NOWHERE,
        last: NONE,
    };

    #[inline]
    fn is_empty(&self) -> bool {
        self.first.mail() == NONE
    }

    /// Takes the oldest mail out.
    #[inline]
    fn take_first(&mut self, links: &[Link]) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let mail = self.first.mail();
        self.first = match self.first.next() {
            NONE => Link::NOWHERE,
            next => links[next as usize],
        };
        Some(mail)
    }

    /// Adds mail behind a first one.
    fn append(&mut self, mail: u32, links: &mut Vec<Link>) {
        let link = crate::narrow(links.len());
        links.push(Link::new(mail, NONE));
        let before = match self.first.next() {
            NONE => &mut self.first,
            _ => &mut links[self.last as usize],
        };
        before.lead_to(link);
        self.last = link;
    }
}

/// One mail in one inbox, and the link that comes next. Two numbers in one word: a processor that
/// reads together what was just written apart has to wait for the writing.
#[derive(Clone, Copy)]
struct Link(u64);

impl Link {
    const NOWHERE: Self = Self(u64::MAX);

    #[inline]
    fn new(mail: u32, next: u32) -> Self {
        Self(u64::from(next) << 32 | u64::from(mail))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn mail(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn next(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn lead_to(&mut self, next: u32) {
        *self = Self::new(self.mail(), next);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} then {}", self.mail(), self.next())
    }
}

/// It is in the list of agents awake in the next superstep.
const AWAKE: u8 = 1;
/// Its `setup` is still to come.
const NEWBORN: u8 = 2;
/// Its `teardown` takes the place of its next update.
const LEAVING: u8 = 4;
/// It wants to be updated in every superstep there is.
const KEPT_AWAKE: u8 = 8;
/// It is no more.
const GONE: u8 = 16;

/// An alarm that may have to leave before it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) alarm: AlarmId,
    setter: AgentId,
    key: MailKey,
}

impl Load for Departure {
    fn key(&self) -> MailKey {
        self.key
    }

    fn setter(&self) -> AgentId {
        self.setter
    }
}

/// What a scheduler keeps under a lookahead: mail to others leaves before it is due.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// The least time that mail to other schedulers takes.
    pub(crate) lookahead: SimDuration,
    /// Alarms that may have to leave, by the time at which that is decided.
    pub(crate) departures: AlarmQueue<Departure>,
    /// When subscriptions were made; those that hold from the start are not in it.
    subscribed_at: BTreeMap<(u32, Pattern), SimTime>,
    /// How long mail from elsewhere was under way. Mail names its place here: there are as many as
    /// others have different lookaheads.
    delays: Vec<SimDuration>,
    /// Agents that others removed, by the time at which that holds.
    pub(crate) dismissals: BTreeMap<SimTime, Vec<AgentId>>,
    /// Setups are under way: what they subscribe to holds from the start.
    pub(crate) starting: bool,
}

impl Ahead {
    pub(crate) fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            departures: AlarmQueue::default(),
            subscribed_at: BTreeMap::new(),
            delays: Vec::new(),
            dismissals: BTreeMap::new(),
            starting: false,
        }
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

/// A digest of contents, and how a message enters it.
pub(crate) struct Content<M> {
    pub(crate) sum: ContentSum,
    pub(crate) add: fn(&mut ContentSum, u64, &M) -> Result<(), String>,
}

pub(crate) struct Kernel<M: Message> {
    pub(crate) now: SimTime,
    /// Within the instant.
    pub(crate) superstep: u64,
    pub(crate) seed: u64,
    /// Mail for unknown receivers belongs to other schedulers, not to nobody.
    pub(crate) has_neighbours: bool,
    /// Somebody elsewhere listens to something, or did.
    pub(crate) others_listen: bool,
    /// Mail posted here to agents here.
    pub(crate) local: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) directory: Directory,
    pub(crate) mailing_list: MailingList,
    pub(crate) alarms: AlarmQueue<Envelope<M>>,
    /// Which of them are periodic, once there was one.
    periodics: Option<Box<Periodics>>,
    /// What holds under a lookahead only.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// Mail not yet posted, in the kernel's order.
    pub(crate) outbox: Vec<Envelope<M>>,
    /// Mail was put there, or something else happened, that those around have not been shown.
    pub(crate) unseen: bool,
    /// Mail posted and not yet read by all.
    posted: Vec<Envelope<M>>,
    /// Mail in inboxes, but for the first of each.
    links: Vec<Link>,
    /// Mail that its receiver left unread, for the same receiver.
    unread: Vec<(u32, Envelope<M>)>,
    /// Slots awake in the next superstep; in no order, each once.
    pub(crate) awake: Vec<u32>,
    kept_awake: Vec<u32>,
    bits: Vec<u64>,
    recipients: Vec<u32>,
    /// Agents to be removed, who asked, and the insertion index of who asked.
    pub(crate) removals: Vec<(AgentId, AgentId, u64)>,
    /// Subscriptions made and withdrawn since somebody last asked, if anybody does.
    pub(crate) changed_interest: Option<Vec<(Pattern, bool, SimTime)>>,
    /// Agents that have gone since somebody last asked, kept for neighbours.
    pub(crate) gone: Vec<AgentId>,
    /// How many slots are those of agents that are gone.
    vacant: usize,
    pub(crate) adders: Adders,
    /// Main reads its mail here, if it listens.
    pub(crate) main_listens: bool,
    main_inbox: Vec<u32>,
    pub(crate) main_delivered: u64,
    pub(crate) main_sequence: u64,
    /// Why an agent has the run end after this superstep, and its insertion index.
    pub(crate) stopped_by: Option<(u64, StopReason)>,
    /// The first mail that nobody got, since somebody last asked; with its place among all that is lost.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    /// The places of the first of them since the beginning, in order.
    first_lost: Vec<LostKey>,
    /// So much mail was left unread by agents that were removed.
    unread_lost: u64,
    /// Errors that agents reported since somebody last asked.
    pub(crate) errors: Vec<AgentError>,
    /// The run ends at the first of them.
    pub(crate) stop_at_error: bool,
    pub(crate) failure: Option<(FailurePlace, Error)>,
    /// An agent that fails is stopped by unwinding: somebody catches it.
    pub(crate) is_guarded: bool,
    /// Where it stands and who is at work: for the error if that agent panics, and for other threads.
    pub(crate) progress: Arc<Progress>,
    pub(crate) counters: Counters,
    pub(crate) digest: Option<DigestSum>,
    pub(crate) content: Option<Content<M>>,
    pub(crate) observer: Option<Observer<M>>,
    /// Whose code sees deliveries.
    pub(crate) observed_by: Outside,
    /// Whose code is called now, if it is no agent's.
    pub(crate) outside: Outside,
}

/// Whose code the kernel calls that is no agent's. A panic there is not blamed on the agent that is at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outside {
    #[default]
    Nobody,
    /// A callback of the simulation's owner: its panic goes on to the owner.
    Owner,
    /// The format of the trace, which is part of the model.
    TraceFormat,
}

impl<M: Message> Kernel<M> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: SimTime::ZERO,
            superstep: 0,
            seed,
            has_neighbours: false,
            others_listen: false,
            local: 0,
            slots: Vec::new(),
            directory: Directory::default(),
            mailing_list: MailingList::default(),
            alarms: AlarmQueue::default(),
            periodics: None,
            ahead: None,
            outbox: Vec::new(),
            unseen: false,
            posted: Vec::new(),
            links: Vec::new(),
            unread: Vec::new(),
            awake: Vec::new(),
            kept_awake: Vec::new(),
            bits: Vec::new(),
            recipients: Vec::new(),
            removals: Vec::new(),
            changed_interest: None,
            gone: Vec::new(),
            vacant: 0,
            adders: Adders::default(),
            main_listens: false,
            main_inbox: Vec::new(),
            main_delivered: 0,
            main_sequence: 0,
            stopped_by: None,
            lost: Vec::new(),
            first_lost: Vec::new(),
            unread_lost: 0,
            errors: Vec::new(),
            stop_at_error: false,
            failure: None,
            is_guarded: false,
            progress: Arc::default(),
            counters: Counters::default(),
            digest: None,
            content: None,
            observer: None,
            observed_by: Outside::Owner,
            outside: Outside::Nobody,
        }
    }

    // ---- agents

    /// Refuses ids that are taken or that nobody may bear.
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
        self.progress.allocate_slot(id);
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
        self.adders.bury(id);
        if self.has_neighbours {
            self.gone.push(id);
        }
    }

    /// Whether so many agents are gone that the slots are to be numbered anew: at least half of all, and so many that it costs
    /// each of them little.
    pub(crate) fn has_many_vacant_slots(&self) -> bool {
        let work = self.slots.len().max(self.alarms.len());
        let work = work.max(self.mailing_list.count());
        self.vacant >= FEW_VACANT && self.vacant >= work / 2
    }

    /// Numbers the slots of the agents that are there anew, in the same order, and forgets the others. Returns the new number of each
    /// slot; [`NONE`] for those of agents that are gone. Call between two supersteps.
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
        self.slots.retain(|slot| !slot.is_gone());
        self.vacant = 0;
        let agents = (0_u32..).zip(&self.slots);
        self.directory
            .lay_out(agents.map(|(slot, entry)| (entry.id, slot)));
        self.mailing_list.renumber(number);
        self.alarms
            .for_each(|envelope| envelope.set_slot(number(envelope.slot())));
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
        self.progress
            .allocate_slots(self.slots.iter().map(|slot| slot.id));
        renumbered
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

    /// Notes that an agent is to leave; its `teardown` takes the place of its next update.
    pub(crate) fn dismiss(&mut self, slot: u32) {
        self.slots[slot as usize].flags |= LEAVING;
        self.wake(slot);
    }

    pub(crate) fn keep_awake(&mut self, slot: u32, keep: bool) {
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
    fn wake(&mut self, slot: u32) {
        let flags = &mut self.slots[slot as usize].flags;
        if *flags & AWAKE == 0 {
            *flags |= AWAKE;
            self.awake.push(slot);
        }
    }

    /// The slots that take part in a superstep: those that are awake, and those that are kept awake; in no order.
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
        if updating.len() > 1 && !updating.is_sorted() {
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

    // ---- mail

    /// Drops all messages, one by one, so that a second call goes on where a panic ended the first.
    pub(crate) fn release_mail(&mut self) {
        while self.outbox.pop().is_some() {}
        while self.posted.pop().is_some() {}
        while self.unread.pop().is_some() {}
        self.alarms.for_each(|envelope| drop(envelope.body.take()));
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

    /// Links all mail of the outbox into the inboxes of its recipients.
    pub(crate) fn post(&mut self) {
        if self.outbox.is_empty() && self.unread.is_empty() {
            return;
        }
        if self.queued() == self.unread.len() as u64 {
            self.links.clear();
            self.posted.clear();
        }
        let mut first = 0;
        if self.posted.is_empty() && self.unread.is_empty() {
            std::mem::swap(&mut self.posted, &mut self.outbox);
        } else {
            self.post_unread();
            first = crate::narrow(self.posted.len());
            self.posted.append(&mut self.outbox);
        }
        let listened = !self.mailing_list.is_empty();
        let (mut sent, mut local) = (0, 0);
        for mail in first..crate::narrow(self.posted.len()) {
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
                        local += u64::from(!envelope.is(FOREIGN));
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
            sent += u64::from(readers);
        }
        self.counters.sent += sent;
        self.local += local;
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

    /// Whether mail that is lost is among the first. It is found in another order where others bring mail in.
    fn is_among_first_lost(&self, key: &LostKey) -> bool {
        let last = self.first_lost.last();
        self.first_lost.len() < Report::LOST_KEPT || last.is_some_and(|last| key < last)
    }

    /// Notes mail that nobody gets and that is among the first.
    fn note_lost(&mut self, key: LostKey, from: AgentId, to: AgentId, topic: Topic) {
        let place = self.first_lost.partition_point(|known| *known <= key);
        self.first_lost.insert(place, key);
        self.first_lost.truncate(Report::LOST_KEPT);
        self.lost
            .push((key, LostMail::new(self.now, from, to, topic)));
    }

    #[inline]
    fn deliver(&mut self, slot: u32, mail: u32) {
        let entry = &mut self.slots[slot as usize];
        if !entry.inbox.is_empty() {
            // Who has mail was woken by it.
            entry.inbox.append(mail, &mut self.links);
            return;
        }
        entry.inbox.first = Link::new(mail, NONE);
        if entry.flags & AWAKE == 0 {
            entry.flags |= AWAKE;
            self.awake.push(slot);
        }
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
        for slot in &recipients {
            if *slot != owner {
                copies += 1;
                self.deliver(*slot, mail);
            }
        }
        self.recipients = recipients;
        copies
    }

    /// Under a lookahead a subscription holds for mail from elsewhere that left one lookahead after
    /// it was made, or later.
    #[cold]
    fn retain_early_listeners(&mut self, mail: u32, recipients: &mut Vec<u32>) {
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

    /// Takes the oldest mail out of an inbox.
    #[inline(always)]
    pub(crate) fn take_first(&mut self, slot: u32) -> Option<Mail<M>> {
        let entry = &mut self.slots[slot as usize];
        let mail = entry.inbox.take_first(&self.links)?;
        Some(self.hand_over(slot, mail))
    }

    /// Takes the mail at `place` out of an inbox, counted from the oldest.
    pub(crate) fn take_nth(&mut self, slot: u32, place: usize) -> Option<Mail<M>> {
        if place == 0 {
            return self.take_first(slot);
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
        Some(self.hand_over(slot, link.mail()))
    }

    /// Counts a delivery and makes the mail that the agent gets.
    #[inline(always)]
    fn hand_over(&mut self, slot: u32, mail: u32) -> Mail<M> {
        self.counters.delivered += 1;
        let entry = &mut self.slots[slot as usize];
        let nth = entry.delivered;
        entry.delivered += 1;
        if self.digest.is_some() || self.observer.is_some() {
            let (agent, index) = (entry.id, entry.index);
            self.show(mail, agent, index, nth);
        }
        if self.posted[mail as usize].is(PERIODIC) {
            self.set_again_when_taken(slot, mail);
        }
        self.unfold(mail)
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
        if let Some(digest) = &mut self.digest {
            let place = digest.add(&delivery);
            if let Some(content) = &mut self.content
                && let Err(why) = (content.add)(&mut content.sum, place, &mail.body)
            {
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
    fn lose_unread(&mut self, slot: u32, from: AgentId, body: &M) {
        self.counters.undeliverable += 1;
        self.unread_lost += 1;
        let (now, superstep) = (self.now.as_nanos(), self.superstep);
        let entry = &self.slots[slot as usize];
        let (to, index) = (entry.id, entry.index);
        // After what was posted before its superstep, in the order in which agents leave and mail came.
        let key = [now, superstep, 1, index, self.unread_lost, 0];
        if self.is_among_first_lost(&key) {
            self.note_lost(key, from, to, body.topic());
        }
    }

    /// Counts the mail in an inbox as undeliverable.
    fn discard_inbox(&mut self, slot: u32) {
        while let Some(mail) = self.slots[slot as usize].inbox.take_first(&self.links) {
            let mail = self.unfold(mail);
            self.lose_unread(slot, mail.sender, &mail.body);
        }
    }

    /// Mail that is posted, or was left unread, and that nobody has read yet.
    pub(crate) fn queued(&self) -> u64 {
        self.counters.sent - self.counters.delivered - self.counters.undeliverable
    }

    // ---- main

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

    // ---- alarms

    /// Sets an alarm of an agent.
    pub(crate) fn set_alarm(
        &mut self,
        slot: u32,
        time: SimTime,
        required: bool,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        let entry = &mut self.slots[slot as usize];
        let key = MailKey::of_agent(self.now, entry.index, entry.sequence);
        entry.sequence += 1;
        self.counters.alarms_set += 1;
        let mut envelope = Envelope::new(key, entry.id, receiver, body);
        envelope.mark_if(REQUIRED, required);
        if self.has_neighbours
            && let Some(id) = receiver.agent()
        {
            match self.directory.find(id) {
                Whereabouts::Here(slot) => envelope.set_slot(slot),
                Whereabouts::Removed => {}
                Whereabouts::Unknown => envelope.mark(ELSEWHERE),
            }
        }
        let may_leave = self.ahead.is_some()
            && (envelope.is(ELSEWHERE) || self.others_listen && !envelope.is_direct());
        let load = envelope;
        let id = self.alarms.set(Pending { time, load });
        if may_leave {
            self.plan_departure(id);
        }
        id
    }

    /// Sets a periodic alarm of an agent: when it is due first, and its period.
    pub(crate) fn set_periodic(
        &mut self,
        slot: u32,
        (time, period): (SimTime, SimDuration),
        required: bool,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        let topic = body.topic();
        let id = self.set_alarm(slot, time, required, receiver, body);
        if let Some(alarm) = self.alarms.pending(id) {
            alarm.load.mark(PERIODIC);
        }
        let periodic = Periodic::new(id, time, period, receiver, topic);
        self.periodics.get_or_insert_default().insert(periodic);
        id
    }

    /// A periodic alarm has fired. One for others is set again now; one for the agent that set it waits until the agent takes it.
    #[cold]
    fn set_again_when_fired(&mut self, envelope: &Envelope<M>) {
        let setter = envelope.sender;
        if envelope.receiver().agent() == Some(setter) {
            return;
        }
        if let (Whereabouts::Here(slot), Some(body)) =
            (self.directory.find(setter), envelope.body.clone())
        {
            self.set_again(slot, envelope.key, envelope.is(REQUIRED), body);
        }
    }

    /// An agent takes the mail of a periodic alarm. If it is the agent's own, it is set again now.
    #[cold]
    fn set_again_when_taken(&mut self, slot: u32, mail: u32) {
        let envelope = &self.posted[mail as usize];
        let taker = self.slots[slot as usize].id;
        if envelope.sender != taker || envelope.receiver().agent() != Some(taker) {
            return;
        }
        let (key, required) = (envelope.key, envelope.is(REQUIRED));
        if let Some(body) = envelope.body.clone() {
            self.set_again(slot, key, required, body);
        }
    }

    /// Sets the next alarm of a periodic one, unless that has ended meanwhile.
    fn set_again(&mut self, slot: u32, key: MailKey, required: bool, body: M) {
        let setter = self.slots[slot as usize].id;
        let before = (setter, key.sequence());
        let periodics = self.periodics.as_ref();
        let Some(periodic) = periodics.and_then(|all| all.of(before)).copied() else {
            return;
        };
        let Some(due) = periodic.next(self.now) else {
            // It would be due beyond the end of time.
            self.end_periodic(periodic.handle);
            return;
        };
        let current = self.set_alarm(slot, due, required, periodic.receiver, body);
        if let Some(alarm) = self.alarms.pending(current) {
            alarm.load.mark(PERIODIC);
        }
        if let Some(periodics) = &mut self.periodics {
            periodics.renew(before, current, due);
        }
    }

    /// Ends a periodic alarm. False if there is none with this handle.
    fn end_periodic(&mut self, handle: AlarmId) -> bool {
        let periodics = self.periodics.as_mut();
        let Some(ended) = periodics.and_then(|all| all.end(handle)) else {
            return false;
        };
        // It may have fired and wait to be taken.
        let (setter, _) = handle.origin();
        let was_pending = self.alarms.clear(setter, ended.current);
        self.counters.alarms_cleared += u64::from(was_pending);
        true
    }

    /// Ends the periodic alarms of an agent that leaves.
    fn end_periodics(&mut self, slot: u32) {
        if self.periodics.is_some() {
            let setter = self.slots[slot as usize].id;
            self.end_periodics_where(Some(setter), AlarmFilter::all());
        }
    }

    /// Ends the periodic alarms of one agent, or of all, that the filter names; tells how many they were.
    fn end_periodics_where(&mut self, setter: Option<AgentId>, filter: AlarmFilter) -> usize {
        let periodics = self.periodics.iter().flat_map(|all| all.of_setter(setter));
        let named = periodics.filter(|it| filter.names(it.receiver, it.topic));
        let handles: Vec<_> = named.map(|periodic| periodic.handle).collect();
        for handle in &handles {
            self.end_periodic(*handle);
        }
        handles.len()
    }

    /// Clears one alarm of an agent. False if it fired, was cleared, or is not this agent's.
    pub(crate) fn clear_alarm(&mut self, setter: AgentId, id: AlarmId) -> bool {
        if id.origin().0 == setter && self.end_periodic(id) {
            return true;
        }
        let cleared = self.alarms.clear(setter, id);
        self.counters.alarms_cleared += u64::from(cleared);
        cleared
    }

    /// Clears the alarms of one agent, or of all, that the filter names; tells how many they were.
    pub(crate) fn clear_alarms(&mut self, setter: Option<AgentId>, filter: AlarmFilter) -> usize {
        let ended = self.end_periodics_where(setter, filter);
        let cleared = self
            .alarms
            .clear_where(setter, |alarm| filter.matches(alarm));
        self.counters.alarms_cleared += cleared as u64;
        ended + cleared
    }

    /// The pending alarms of one agent, or of all, that the filter names, in the order they will fire.
    pub(crate) fn list_alarms(
        &mut self,
        setter: Option<AgentId>,
        filter: AlarmFilter,
    ) -> Vec<PendingAlarm> {
        let periodics = self.periodics.as_ref();
        let pending = self.alarms.list(setter).into_iter();
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
        let bodies = self.alarms.list(None).into_iter();
        let bodies: Vec<_> = bodies.map(|(_, alarm)| alarm.load.body.clone()).collect();
        let pending = self.list_alarms(None, AlarmFilter::all()).into_iter();
        pending
            .zip(bodies)
            .filter_map(|(alarm, body)| Some((alarm, body?)))
            .collect()
    }

    /// Under a lookahead: has an alarm looked at when it would leave.
    #[inline(never)]
    fn plan_departure(&mut self, id: AlarmId) {
        let (Some(ahead), Some(alarm)) = (&mut self.ahead, self.alarms.pending(id)) else {
            return;
        };
        let lookahead = ahead.lookahead.as_nanos();
        let earlier = alarm.time.as_nanos().saturating_sub(lookahead);
        ahead.departures.set(Pending {
            time: SimTime::from_nanos(earlier).max(self.now),
            load: Departure {
                alarm: id,
                setter: alarm.load.sender,
                key: alarm.load.key,
            },
        });
    }

    pub(crate) fn is_starting(&mut self, starting: bool) {
        if let Some(ahead) = &mut self.ahead {
            ahead.starting = starting;
        }
    }

    /// Somebody elsewhere listens from now on, so mail may leave for them, and under a lookahead
    /// alarms before they are due.
    pub(crate) fn expect_listeners(&mut self) {
        if std::mem::replace(&mut self.others_listen, true) || self.ahead.is_none() {
            return;
        }
        let pending = self.alarms.list(None).into_iter();
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
        let mut load = import.into_envelope();
        load.mark(REQUIRED);
        if let Some(ahead) = &mut self.ahead {
            load.origin = ahead.origin(time.since(left_at));
        }
        self.alarms.set(Pending { time, load });
    }

    /// The next time at which anything happens, were it only that mail leaves.
    #[inline]
    pub(crate) fn next_event(&mut self) -> Option<SimTime> {
        if self.ahead.is_none() {
            return self.alarms.next_time();
        }
        self.next_event_ahead()
    }

    #[inline(never)]
    fn next_event_ahead(&mut self) -> Option<SimTime> {
        let mut next = self.alarms.next_time();
        let ahead = self.ahead.as_mut()?;
        let mut or = |time: Option<SimTime>| {
            if let Some(time) = time {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
        };
        or(ahead.departures.next_time());
        or(ahead.dismissals.keys().next().copied());
        next
    }

    /// Puts the alarms due at `time` into the outbox.
    #[inline]
    pub(crate) fn fire(&mut self, time: SimTime) {
        if self.ahead.is_some() {
            return self.fire_ahead(time);
        }
        while let Some(alarm) = self.alarms.pop_due(time) {
            self.counters.alarms_fired += 1;
            // Most alarms are for agents here, and are nothing to others.
            self.unseen |= self.others_listen || alarm.load.slot() == NONE;
            if alarm.load.is(PERIODIC) {
                self.set_again_when_fired(&alarm.load);
            }
            self.outbox.push(alarm.load);
        }
    }

    /// The same under a lookahead: mail from elsewhere is among the alarms, and whether an alarm
    /// leaves was decided before.
    #[inline(never)]
    fn fire_ahead(&mut self, time: SimTime) {
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
        while let Some(alarm) = self.alarms.pop_due(time) {
            let mut envelope = alarm.load;
            envelope.mark(SETTLED);
            if envelope.is(FOREIGN) {
                // The same mail can come twice: for its receiver, and for those who listen.
                if let Some(last) = self.outbox.last_mut()
                    && last.is_the_same_mail(&envelope)
                {
                    last.take_over(&envelope);
                    continue;
                }
            } else {
                self.counters.alarms_fired += 1;
            }
            if envelope.is(PERIODIC) {
                self.set_again_when_fired(&envelope);
            }
            self.outbox.push(envelope);
        }
    }

    // ---- subscriptions

    pub(crate) fn subscribe(&mut self, slot: u32, pattern: Pattern) {
        let superstep = self.superstep;
        let agents = pattern.agents();
        agents.for_each(|id| self.check_name(id, superstep));
        if self.mailing_list.subscribe(slot, pattern) {
            if let Some(ahead) = &mut self.ahead
                && !ahead.starting
            {
                ahead.subscribed_at.insert((slot, pattern), self.now);
            }
            self.note_interest(pattern, true);
        }
    }

    pub(crate) fn unsubscribe(&mut self, slot: u32, pattern: Pattern) {
        if self.mailing_list.unsubscribe(slot, pattern) {
            if let Some(ahead) = &mut self.ahead {
                ahead.subscribed_at.remove(&(slot, pattern));
            }
            self.note_interest(pattern, false);
        }
    }

    fn note_interest(&mut self, pattern: Pattern, begins: bool) {
        if let Some(changes) = &mut self.changed_interest {
            changes.push((pattern, begins, self.now));
        }
    }

    /// Notes an error that an agent reports.
    pub(crate) fn report_error(&mut self, slot: u32, message: String) {
        self.counters.errors += 1;
        let entry = &self.slots[slot as usize];
        if self.errors.len() < Report::ERRORS_KEPT {
            self.errors.push(AgentError {
                agent: entry.id,
                index: entry.index,
                cluster: None,
                time: self.now,
                superstep: self.superstep,
                message,
            });
        }
        if self.stop_at_error && !matches!(self.stopped_by, Some((_, StopReason::AgentError(_)))) {
            self.stopped_by = Some((entry.index, StopReason::AgentError(entry.id)));
            self.unseen = true;
        }
    }

    /// Whether all mail that waits to be posted is for ids that mean one agent each; an error otherwise.
    #[inline]
    pub(crate) fn check_names(&mut self, superstep: u64) -> bool {
        !AgentId::collisions_are_known() || self.check_receivers(superstep)
    }

    #[cold]
    fn check_receivers(&mut self, superstep: u64) -> bool {
        let receivers = self
            .outbox
            .iter()
            .filter_map(|mail| mail.receiver().agent());
        let collision = receivers.filter_map(AgentId::collision).next();
        let passes = collision.is_none();
        if let Some(collision) = collision {
            let place = self.place(superstep, FailureStage::Handover, 0, 0);
            self.fail(place, collision.into());
        }
        passes
    }

    /// Makes sure that an id means one agent only, wherever it is said.
    #[inline]
    pub(crate) fn check_name(&mut self, id: AgentId, superstep: u64) {
        if let Some(collision) = id.collision() {
            let place = self.place(superstep, FailureStage::Handover, 0, 0);
            self.fail(place, collision.into());
        }
    }

    /// Notes the first thing that went wrong in a superstep.
    pub(crate) fn fail(&mut self, place: FailurePlace, error: Error) {
        self.failure.get_or_insert((place, error));
    }

    /// The place of what goes wrong in a superstep.
    pub(crate) fn place(
        &self,
        superstep: u64,
        stage: FailureStage,
        index: u64,
        sequence: u64,
    ) -> FailurePlace {
        let time = self.now;
        FailurePlace {
            time,
            superstep,
            stage,
            index,
            sequence,
        }
    }
}

/// What an agent does in its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Update,
    Other { setup: bool, teardown: bool },
}

impl<M: Message> fmt::Debug for Kernel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("now", &self.now)
            .field("superstep", &self.superstep)
            .field("agents", &self.slots.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
