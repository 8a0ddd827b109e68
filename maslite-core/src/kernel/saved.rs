//! The state of a kernel between two supersteps, as one value.
//!
//! It says nothing of how a kernel keeps it: links and places in queues are not in it. Slots are
//! those of the kernel that is restored: they are numbered without gaps, in insertion order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::slots::GONE;
use crate::adders::Adders;
use crate::id_set::IdSet;
use crate::mailing_list::Pattern;
use crate::marks::Marks;
use crate::message::{MailKey, Receiver};
use crate::rng::AgentRng;
use crate::run::{AgentError, Counters, LostKey, LostMail, StopReason};
use crate::{AgentId, Digest, SimDuration, SimTime, Topic};

/// All that a kernel knows between two supersteps, but for the settings of its host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KernelState<M> {
    pub(crate) now: SimTime,
    pub(crate) superstep: u64,
    pub(crate) others_listen: bool,
    pub(crate) local: u64,
    /// The agents that are there, in insertion order.
    pub(crate) slots: Vec<SlotState>,
    /// Mail in inboxes, in the order in which it was posted.
    pub(crate) posted: Vec<MailState<M>>,
    pub(crate) outbox: Vec<MailState<M>>,
    /// Mail that its reader has left for its next turn, with the slot of the reader.
    pub(crate) unread: Vec<(u32, MailState<M>)>,
    pub(crate) unseen: bool,
    /// The ids of all agents that are gone.
    pub(crate) removed: IdSet,
    pub(crate) adders: Adders,
    /// The topics that were heard of, and those that the host has not taken yet.
    pub(crate) heard: (Vec<Topic>, Vec<Topic>),
    /// In the order in which they are due.
    pub(crate) alarms: Vec<AlarmState<M>>,
    /// How many alarms have been set.
    pub(crate) alarms_numbered: u64,
    pub(crate) periodics: Vec<PeriodicState>,
    pub(crate) ahead: Option<AheadState>,
    pub(crate) removals: Vec<(AgentId, AgentId, u64)>,
    pub(crate) changed_interest: Vec<(Pattern, bool, SimTime)>,
    /// Agents that have gone and that the host has not taken yet.
    pub(crate) gone: Vec<AgentId>,
    pub(crate) main_listens: bool,
    pub(crate) main_delivered: u64,
    pub(crate) main_sequence: u64,
    pub(crate) stopped_by: Option<(u64, StopReason)>,
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    pub(crate) first_lost: Vec<LostKey>,
    pub(crate) unread_lost: u64,
    pub(crate) errors: Vec<AgentError>,
    pub(crate) stop_at_error: bool,
    pub(crate) counters: Counters,
    pub(crate) digest: Option<Digest>,
    pub(crate) content: Option<Digest>,
    pub(crate) marks: Option<Marks>,
}

/// What a kernel knows of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SlotState {
    pub(crate) id: AgentId,
    pub(crate) index: u64,
    pub(crate) sequence: u64,
    pub(crate) delivered: u64,
    pub(crate) rng: Option<AgentRng>,
    pub(crate) flags: u8,
    /// The places of its mail among all that is in inboxes, oldest first.
    pub(crate) inbox: Vec<u32>,
    /// What it listens to, and under a lookahead since when.
    pub(crate) patterns: Vec<(Pattern, Option<SimTime>)>,
}

/// Mail under way, or an alarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MailState<M> {
    pub(crate) key: MailKey,
    pub(crate) sender: AgentId,
    pub(crate) receiver: Receiver,
    pub(crate) marks: u8,
    /// The slot of its receiver, if that was found out already.
    pub(crate) slot: Option<u32>,
    pub(crate) body: M,
}

/// A pending alarm; under a lookahead also mail from elsewhere that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AlarmState<M> {
    pub(crate) time: SimTime,
    /// The place of its delay, counted from 1; 0 for an alarm.
    pub(crate) origin: u16,
    pub(crate) mail: MailState<M>,
}

/// A periodic alarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeriodicState {
    pub(crate) setter: AgentId,
    /// The sequence numbers of its handle, and of the alarm that stands for it now.
    pub(crate) handle: u64,
    pub(crate) current: u64,
    pub(crate) period: SimDuration,
    pub(crate) due: SimTime,
    pub(crate) receiver: Receiver,
    pub(crate) topic: Topic,
}

/// What a kernel knows under a lookahead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AheadState {
    pub(crate) departures: Vec<DepartureState>,
    pub(crate) delays: Vec<SimDuration>,
    pub(crate) dismissals: BTreeMap<SimTime, Vec<AgentId>>,
}

/// When it is decided whether an alarm leaves. The alarm may have been cleared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DepartureState {
    pub(crate) time: SimTime,
    pub(crate) setter: AgentId,
    pub(crate) key: MailKey,
}

impl<M> KernelState<M> {
    /// The state of a kernel without agents that stands there.
    pub(crate) fn at(now: SimTime, superstep: u64) -> Self {
        Self {
            now,
            superstep,
            others_listen: false,
            local: 0,
            slots: Vec::new(),
            posted: Vec::new(),
            outbox: Vec::new(),
            unread: Vec::new(),
            unseen: false,
            removed: IdSet::default(),
            adders: Adders::default(),
            heard: (Vec::new(), Vec::new()),
            alarms: Vec::new(),
            alarms_numbered: 0,
            periodics: Vec::new(),
            ahead: None,
            removals: Vec::new(),
            changed_interest: Vec::new(),
            gone: Vec::new(),
            main_listens: false,
            main_delivered: 0,
            main_sequence: 0,
            stopped_by: None,
            lost: Vec::new(),
            first_lost: Vec::new(),
            unread_lost: 0,
            errors: Vec::new(),
            stop_at_error: false,
            counters: Counters::default(),
            digest: None,
            content: None,
            marks: None,
        }
    }

    /// Whether all that it says of slots and of mail is there.
    ///
    /// # Errors
    /// What is not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let slots = self.slots.len() as u64;
        let is_slot = |slot: u32| u64::from(slot) < slots;
        let mails = self.posted.iter().chain(&self.outbox);
        let mails = mails.chain(self.unread.iter().map(|(_, mail)| mail));
        let mut mails = mails.chain(self.alarms.iter().map(|alarm| &alarm.mail));
        if !mails.all(|mail| mail.slot.is_none_or(is_slot))
            || !self.unread.iter().all(|(slot, _)| is_slot(*slot))
        {
            return Err("mail is for an agent that is not there");
        }
        let delays = self.ahead.as_ref().map_or(0, |ahead| ahead.delays.len());
        let mut alarms = self.alarms.iter();
        if !alarms.all(|alarm| usize::from(alarm.origin) <= delays) {
            return Err("mail was under way for an unknown time");
        }
        let mut inboxes = self.slots.iter().flat_map(|slot| &slot.inbox);
        if !inboxes.all(|mail| (*mail as usize) < self.posted.len()) {
            return Err("an inbox has mail that is not there");
        }
        let mut ids: Vec<_> = self.slots.iter().map(|slot| slot.id).collect();
        ids.sort_unstable();
        if !ids.is_sorted_by(|first, second| first < second) {
            return Err("two agents have one id");
        }
        self.check_counts_and_times()
    }

    fn check_counts_and_times(&self) -> Result<(), &'static str> {
        let mut inboxes = self.slots.iter().map(|slot| &slot.inbox);
        if !inboxes.all(|inbox| inbox.is_sorted_by(|first, second| first < second)) {
            return Err("a mail is twice in an inbox, or in the wrong order");
        }
        let Counters {
            sent,
            delivered,
            undeliverable,
            ..
        } = self.counters;
        let waiting = self.slots.iter().map(|slot| slot.inbox.len() as u64);
        let past = delivered.checked_add(undeliverable);
        let all = past.and_then(|past| past.checked_add(waiting.sum()));
        if all.is_none_or(|all| all > sent) {
            return Err("more mail is there than was sent");
        }
        if self.slots.iter().any(|slot| slot.flags & GONE != 0) {
            return Err("an agent is there that is gone");
        }
        if self.alarms.iter().any(|alarm| alarm.time < self.now) {
            return Err("an alarm was due before");
        }
        let mut periodics = self.periodics.iter();
        if periodics.any(|periodic| periodic.period == SimDuration::ZERO) {
            return Err("a periodic alarm has no period");
        }
        Ok(())
    }
}
