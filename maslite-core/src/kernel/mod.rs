//! What one scheduler knows besides the agents themselves: who there is, mail under way, inboxes,
//! subscriptions, alarms, counters.
//!
//! Mail flows one way. Agents put it into the outbox; posting swaps the outbox with the mail that
//! was just read and links each mail into the inboxes of its recipients; agents read it there.
//! A message is written once and read once, wherever it stays within the scheduler.

use std::fmt;
use std::sync::Arc;

mod ahead;
mod alarms;
mod forecasts;
mod inbox;
mod periodics;
mod posting;
mod reading;
mod saved;
mod saving;
mod slots;
#[cfg(test)]
mod tests;
mod undo;

pub(crate) use ahead::Ahead;
use forecasts::Forecasts;
pub(crate) use saved::{AlarmState, KernelState, MailState, PeriodicState, SlotState};
pub(crate) use slots::Turn;
use undo::Undo;
pub use undo::{Budget, Stood};

use alarms::Packed;
use inbox::Link;
use slots::Slot;

use crate::adders::Adders;
use crate::alarm_queue::AlarmQueue;
use crate::digest::{ContentSum, DigestSum};
use crate::directory::Directory;
use crate::error::{Error, FailurePlace, FailureStage};
use crate::mailing_list::{MailingList, Pattern};
use crate::marks::Marks;
use crate::message::{Envelope, Message};
use crate::periodic::Periodics;
use crate::progress::Progress;
use crate::run::{AgentError, Counters, LostKey, LostMail, Report, StopReason};
use crate::trace::Observer;
use crate::{AgentId, SimTime};

/// A digest of contents, and how a message enters it.
pub(crate) struct Content<M> {
    pub(crate) sum: ContentSum,
    pub(crate) add: fn(&mut ContentSum, u64, &M) -> Result<u64, String>,
}

impl<M> Content<M> {
    /// The same before the first delivery.
    pub(crate) fn anew(&self) -> Self {
        Self {
            sum: ContentSum::default(),
            add: self.add,
        }
    }
}

pub(crate) struct Kernel<M: Message> {
    pub(crate) now: SimTime,
    /// Within the instant.
    pub(crate) superstep: u64,
    pub(crate) seed: u64,
    /// Mail for unknown receivers belongs to other schedulers and is not undeliverable.
    pub(crate) has_neighbours: bool,
    /// An agent elsewhere listens to something, or did.
    pub(crate) others_listen: bool,
    /// Mail posted here to agents here.
    pub(crate) local: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) directory: Directory,
    pub(crate) mailing_list: MailingList,
    pub(crate) alarms: AlarmQueue<Envelope<M>, Packed<M>>,
    /// Which of them are periodic, once there was one.
    periodics: Option<Box<Periodics>>,
    /// The way back, once it was noted.
    pub(crate) undo: Option<Box<Undo<M>>>,
    /// Whether it is noted now: what happens is not final.
    pub(crate) is_undoable: bool,
    /// What holds under a lookahead only.
    pub(crate) ahead: Option<Box<Ahead<M>>>,
    /// Which alarms are forecast, if any may be.
    pub(crate) forecasts: Option<Box<Forecasts<M>>>,
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
    /// Subscriptions made and withdrawn since the host last took them; none if the host never does.
    pub(crate) changed_interest: Option<Vec<(Pattern, bool, SimTime)>>,
    /// Agents that have gone since the host last took them, kept for neighbours.
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
    /// The first undeliverable mail since the host last took it; with its place among all that is
    /// lost.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    /// The places of the first of them since the beginning, in order.
    first_lost: Vec<LostKey>,
    /// How much mail was left unread by agents that were removed.
    unread_lost: u64,
    /// Errors that agents reported since the host last took them.
    pub(crate) errors: Vec<AgentError>,
    /// The run ends at the first of them.
    pub(crate) stop_at_error: bool,
    pub(crate) failure: Option<(FailurePlace, Error)>,
    /// An agent that fails is stopped by unwinding, and the host catches it.
    pub(crate) is_guarded: bool,
    /// Where it stands and who is at work: for the error if that agent panics, and for other
    /// threads.
    pub(crate) progress: Arc<Progress>,
    /// Other threads read it, and so it must know the agents by their slots.
    pub(crate) progress_is_shown: bool,
    pub(crate) counters: Counters,
    /// There is a digest, an observer or a periodic alarm: one look, for each delivery, at all of
    /// them.
    notes_deliveries: bool,
    pub(crate) digest: Option<DigestSum>,
    pub(crate) content: Option<Content<M>>,
    /// The digest in pieces; of the contents, if one of these is kept.
    pub(crate) marks: Option<Marks>,
    pub(crate) observer: Option<Observer<M>>,
    /// Whose code sees deliveries.
    pub(crate) observed_by: Outside,
    /// Whose code is called now, if it is no agent's.
    pub(crate) outside: Outside,
}

/// Whose code the kernel calls that is no agent's. A panic there is not blamed on the agent that is
/// at work.
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
            undo: None,
            is_undoable: false,
            ahead: None,
            forecasts: None,
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
            progress_is_shown: false,
            counters: Counters::default(),
            notes_deliveries: false,
            digest: None,
            content: None,
            marks: None,
            observer: None,
            observed_by: Outside::Owner,
            outside: Outside::Nobody,
        }
    }

    pub(crate) fn subscribe(&mut self, slot: u32, pattern: Pattern) {
        if self.strays() {
            return;
        }
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
        if self.strays() {
            return;
        }
        if self.mailing_list.unsubscribe(slot, pattern) {
            if let Some(ahead) = &mut self.ahead {
                ahead.subscribed_at.remove(&(slot, pattern));
            }
            self.note_interest(pattern, false);
        }
    }

    pub(super) fn note_interest(&mut self, pattern: Pattern, begins: bool) {
        if let Some(changes) = &mut self.changed_interest {
            changes.push((pattern, begins, self.now));
        }
    }

    /// Notes an error that an agent reports.
    pub(crate) fn report_error(&mut self, slot: u32, message: String) {
        if self.strays() {
            return;
        }
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

    /// Whether all mail that waits to be posted is for ids that mean one agent each; an error
    /// otherwise.
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
