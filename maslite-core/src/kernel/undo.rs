//! The way back: what a kernel notes on the way ahead of what is final, so that it can go back.
//!
//! A *mark* is the state before an instant. What many instants change, and how, is noted behind it:
//! agents before their first update, alarms that are set and that fire. Whatever else an agent does
//! is not done but noted as *stray*: the instant is undone then, and done again once all before it is
//! final. So each way in which an agent changes the kernel is either noted here, or asks
//! [`Kernel::strays`] first. Source: Steinman, "Breathing Time Buckets", 1991–94; local rollback, no anti-messages.

use super::Kernel;
use super::alarms::Packed;
use super::inbox::Inbox;
use super::slots::AWAKE;
use crate::alarm_queue::{Due, Hint};
use crate::digest::DigestSum;
use crate::message::{Envelope, FOREIGN, Message};
use crate::periodic::Periodic;
use crate::rng::AgentRng;
use crate::run::Counters;
use crate::{AgentId, Digest, SimTime};

/// What it takes to go back.
pub(crate) struct Undo<M: Message> {
    pub(crate) marks: Vec<Mark>,
    agents: Vec<SavedAgent>,
    /// The encoded states of these agents, one behind the other.
    states: Vec<u8>,
    /// The size of all copies of them [bytes].
    copied: usize,
    set: Vec<Hint>,
    fired: Vec<Fired<M>>,
    renewed: Vec<((AgentId, u64), Periodic)>,
    /// What the instants add to the digest in pieces.
    pieces: Vec<Piece>,
    /// By slot: the mark behind which the agent was saved last, by its number.
    saved_behind: Vec<u64>,
    /// Counts marks.
    number: u64,
    /// The instant at hand does what cannot be undone.
    pub(crate) is_stray: bool,
    /// How many topics were freshly heard of when the engine began to run ahead.
    heard: usize,
    budget: Budget,
}

/// How much may be done ahead of what is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most instants that are not final.
    pub instants: u64,
    /// About the most memory that the way back takes \[bytes\].
    pub bytes: u64,
}

/// The state before an instant.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The instant that comes.
    pub(crate) instant: SimTime,
    /// The supersteps that it had, once it is over.
    pub(crate) supersteps: u64,
    pub(crate) stood: Stood,
    agents: usize,
    states: usize,
    set: usize,
    fired: usize,
    renewed: usize,
    /// Alarms that were forecast and not yet shown, since the engine last began to run ahead.
    fresh: usize,
    /// Alarms that are forecast and were pending.
    forecast: u64,
}

/// Where a kernel stood, and what it had counted.
#[derive(Clone, Debug)]
pub struct Stood {
    /// The simulated time.
    pub now: SimTime,
    /// The superstep within the instant that came next.
    pub superstep: u64,
    /// What was counted; with what waited.
    pub counters: Counters,
    /// Mail from agents here to agents here.
    pub local: u64,
    /// The digest, and that of contents.
    pub digest: Option<Digest>,
    /// The digest of contents.
    pub content: Option<Digest>,
    /// How many agents took part in the last superstep.
    pub awake_last: u32,
}

struct SavedAgent {
    slot: u32,
    /// The size of its copy, which the engine keeps; none if the agent was encoded.
    copied: Option<usize>,
    start: usize,
    sequence: u64,
    delivered: u64,
    rng: Option<AgentRng>,
}

struct Fired<M: Message> {
    time: SimTime,
    node: u32,
    load: Due<Envelope<M>, Packed<M>>,
}

#[derive(Clone, Copy)]
struct Piece {
    instant: SimTime,
    hash: u64,
}

/// What is to be put back of an agent: its slot, whether there is a copy, and where its state lies
/// otherwise.
pub(crate) struct ToRestore {
    pub(crate) slot: u32,
    pub(crate) is_copied: bool,
    pub(crate) state: std::ops::Range<usize>,
}

impl<M: Message> Undo<M> {
    fn new(heard: usize, budget: Budget) -> Self {
        Self {
            marks: Vec::new(),
            agents: Vec::new(),
            states: Vec::new(),
            copied: 0,
            set: Vec::new(),
            fired: Vec::new(),
            renewed: Vec::new(),
            pieces: Vec::new(),
            saved_behind: Vec::new(),
            number: 0,
            is_stray: false,
            heard,
            budget,
        }
    }

    /// How much memory the way back takes, about [bytes].
    fn bytes(&self) -> usize {
        self.states.len()
            + self.copied
            + self.agents.len() * size_of::<SavedAgent>()
            + self.fired.len() * size_of::<Fired<M>>()
            + self.set.len() * size_of::<Hint>()
    }

    fn is_full(&self) -> bool {
        let Budget { instants, bytes } = self.budget;
        self.marks.len() as u64 >= instants || self.bytes() as u64 >= bytes
    }

    /// The states of saved agents.
    pub(crate) fn states(&self) -> &[u8] {
        &self.states
    }

    /// Saves an agent: `copy` tells the size of a copy, or appends the state.
    ///
    /// # Errors
    /// Of `copy`.
    fn save<E>(
        &mut self,
        mut saved: SavedAgent,
        copy: impl FnOnce(&mut Vec<u8>) -> Result<Option<usize>, E>,
    ) -> Result<(), E> {
        match copy(&mut self.states) {
            Ok(copied) => {
                self.copied += copied.unwrap_or(0);
                saved.copied = copied;
                self.agents.push(saved);
                Ok(())
            }
            Err(why) => {
                self.states.truncate(saved.start);
                Err(why)
            }
        }
    }
}

impl<M: Message> Kernel<M> {
    /// Begins to note the way back, or goes on with that. Tells how many marks there are.
    pub(crate) fn begin_undoable(&mut self, budget: Budget) -> usize {
        let heard = self.mailing_list.freshly_heard();
        let undo = self
            .undo
            .get_or_insert_with(|| Box::new(Undo::new(heard, budget)));
        (undo.heard, undo.budget) = (heard, budget);
        undo.is_stray = false;
        self.is_undoable = true;
        self.alarms.set_undoable(true);
        undo.marks.len()
    }

    /// The states before each instant that is not final.
    pub(crate) fn marks(&self) -> &[Mark] {
        self.undo.as_ref().map_or(&[], |undo| &undo.marks)
    }

    /// Notes no more; what was noted stays.
    pub(crate) fn end_undoable(&mut self) {
        self.is_undoable = false;
        self.alarms.set_undoable(false);
    }

    /// Notes that something happens that cannot be undone. True if it is therefore not to be done.
    #[inline]
    pub(crate) fn strays(&mut self) -> bool {
        if self.is_undoable {
            self.note_stray();
        }
        self.is_undoable
    }

    /// The same for what has to be answered: the update ends here, as with a panic.
    #[inline]
    pub(crate) fn end_stray_update(&mut self) {
        if self.strays() {
            std::panic::resume_unwind(Box::new("the instant is undone"));
        }
    }

    #[cold]
    pub(crate) fn note_stray(&mut self) {
        if let Some(undo) = &mut self.undo {
            undo.is_stray = true;
            self.unseen = true;
        }
    }

    /// Whether the instant at hand does what cannot be undone.
    pub(crate) fn is_stray(&self) -> bool {
        self.undo.as_ref().is_some_and(|undo| undo.is_stray)
    }

    /// Whether an instant that is over can stay as it is: it was one, and nothing waits.
    pub(crate) fn is_clean(&self) -> bool {
        let Some(undo) = &self.undo else { return true };
        // Where alarms that are forecast fire, others have the superstep.
        let was_silent = self.forecasts.as_ref().is_some_and(|it| it.was_silent);
        let had_one = undo.marks.is_empty() || self.superstep > 0 || was_silent;
        had_one
            && !undo.is_stray
            && self.unread.is_empty()
            && self.outbox.is_empty()
            && self.awake.is_empty()
            && undo.heard == self.mailing_list.freshly_heard()
    }

    /// Notes the state before an instant. False if the way back is too long already.
    pub(crate) fn mark(&mut self, instant: SimTime, awake_last: u32) -> bool {
        self.end_last_mark();
        let stood = self.stood(awake_last);
        let forecasts = self.forecasts.as_ref();
        let (fresh, forecast) = forecasts.map_or((0, 0), |it| (it.fresh.len(), it.pending));
        let Some(undo) = self.undo.as_mut().filter(|undo| !undo.is_full()) else {
            return false;
        };
        undo.number += 1;
        undo.marks.push(Mark {
            instant,
            supersteps: 0,
            stood,
            agents: undo.agents.len(),
            states: undo.states.len(),
            set: undo.set.len(),
            fired: undo.fired.len(),
            renewed: undo.renewed.len(),
            fresh,
            forecast,
        });
        true
    }

    /// Notes how many supersteps the last instant had, which is over.
    pub(crate) fn end_last_mark(&mut self) {
        let superstep = self.superstep;
        if let Some(last) = self.undo.as_mut().and_then(|undo| undo.marks.last_mut()) {
            last.supersteps = superstep;
        }
    }

    /// Where it stands.
    pub(crate) fn stood(&self, awake_last: u32) -> Stood {
        let mut counters = self.counters;
        counters.queued = self.queued();
        counters.alarms_pending = self.alarms_pending();
        Stood {
            now: self.now,
            superstep: self.superstep,
            counters,
            local: self.local,
            digest: self.digest.as_ref().map(DigestSum::value),
            content: self.content.as_ref().map(|it| it.sum.value()),
            awake_last,
        }
    }

    /// Saves an agent before it is updated, unless it was saved behind the last mark.
    ///
    /// # Errors
    /// Of `copy`, which tells the size of a copy, or appends the state.
    pub(crate) fn save_agent<E>(
        &mut self,
        slot: u32,
        copy: impl FnOnce(&mut Vec<u8>) -> Result<Option<usize>, E>,
    ) -> Result<(), E> {
        let Some(undo) = &mut self.undo else {
            return Ok(());
        };
        if undo.saved_behind.len() < self.slots.len() {
            undo.saved_behind.resize(self.slots.len(), 0);
        }
        let behind = &mut undo.saved_behind[slot as usize];
        if *behind == undo.number {
            return Ok(());
        }
        *behind = undo.number;
        let entry = &self.slots[slot as usize];
        let saved = SavedAgent {
            slot,
            copied: None,
            start: undo.states.len(),
            sequence: entry.sequence,
            delivered: entry.delivered,
            rng: entry.rng.as_deref().cloned(),
        };
        undo.save(saved, copy)
    }

    /// Notes an alarm that is set.
    #[inline]
    pub(super) fn note_set(&mut self, hint: Hint) {
        if self.is_undoable
            && let Some(undo) = &mut self.undo
        {
            undo.set.push(hint);
        }
    }

    /// Notes that another alarm stands for a periodic one.
    pub(super) fn note_renewed(&mut self, current: (AgentId, u64), before: Periodic) {
        if self.is_undoable
            && let Some(undo) = &mut self.undo
        {
            undo.renewed.push((current, before));
        }
    }

    /// Turns the alarms due at `time` into mail, and notes them.
    pub(super) fn fire_undoable(&mut self, time: SimTime) {
        while let Some((node, load)) = self.alarms.pop_due_held(time) {
            let Some(undo) = &mut self.undo else { return };
            // Noted first: a clone that panics loses no alarm.
            undo.fired.push(Fired { time, node, load });
            let due = match undo.fired.last() {
                Some(Fired {
                    load: Due::Packed(load),
                    ..
                }) => Due::Packed(load.clone()),
                Some(Fired {
                    load: Due::Kept(load),
                    ..
                }) => Due::Kept(load.clone()),
                None => return,
            };
            self.queue_due(due);
        }
        if let Some(forecasts) = &mut self.forecasts {
            forecasts.was_silent = self.outbox.is_empty();
        }
    }

    /// Adds a delivery to the digest in pieces; on the way ahead that waits until it is final.
    #[inline]
    pub(super) fn add_to_pieces(&mut self, hash: u64) {
        let Some(pieces) = &mut self.marks else {
            return;
        };
        match &mut self.undo {
            Some(undo) if self.is_undoable => {
                let instant = self.now;
                undo.pieces.push(Piece { instant, hash });
            }
            _ => pieces.add(self.now, hash),
        }
    }

    /// What happened before the mark of this number, which is not 0, is final. Returns how many
    /// copies of agents, the oldest ones, are no longer needed.
    pub(crate) fn forget_marks(&mut self, count: usize) -> usize {
        let Some(undo) = &mut self.undo else { return 0 };
        let next = undo.marks.get(count).cloned();
        let upto = |all: usize, mark: fn(&Mark) -> usize| next.as_ref().map_or(all, mark);
        let agents = upto(undo.agents.len(), |it| it.agents);
        let states = upto(undo.states.len(), |it| it.states);
        let set = upto(undo.set.len(), |it| it.set);
        let fired = upto(undo.fired.len(), |it| it.fired);
        let renewed = upto(undo.renewed.len(), |it| it.renewed);
        let last = undo.marks[count - 1].instant;
        undo.marks.drain(..count);
        let copied = undo.agents.drain(..agents);
        let copied: Vec<usize> = copied.filter_map(|it| it.copied).collect();
        undo.copied -= copied.iter().sum::<usize>();
        undo.states.drain(..states);
        undo.set.drain(..set);
        undo.renewed.drain(..renewed);
        for fired in undo.fired.drain(..fired) {
            self.alarms.let_go(fired.node);
        }
        undo.agents.iter_mut().for_each(|it| it.start -= states);
        for mark in &mut undo.marks {
            mark.agents -= agents;
            mark.states -= states;
            mark.set -= set;
            mark.fired -= fired;
            mark.renewed -= renewed;
        }
        let pieces = undo.pieces.partition_point(|piece| piece.instant <= last);
        let pieces = undo.pieces.drain(..pieces);
        if let Some(marks) = &mut self.marks {
            pieces.for_each(|piece| marks.add(piece.instant, piece.hash));
        }
        copied.len()
    }

    /// Goes back to the mark of this number, but for the agents, which are told.
    pub(crate) fn go_back(&mut self, to: usize) -> Vec<ToRestore> {
        self.end_undoable();
        self.forget_mail_under_way();
        let Some(mut undo) = self.undo.take() else {
            return Vec::new();
        };
        undo.is_stray = false;
        self.failure = None;
        self.stopped_by = None;
        self.removals.clear();
        self.mailing_list.unhear(undo.heard);
        let mut agents = Vec::new();
        if let Some(mark) = undo.marks.get(to).cloned() {
            self.go_back_to(&mark, &mut undo);
            for saved in undo.agents.drain(mark.agents..).rev() {
                let end = agents
                    .last()
                    .map_or(undo.states.len(), |last: &ToRestore| last.state.start);
                let entry = &mut self.slots[saved.slot as usize];
                (entry.sequence, entry.delivered) = (saved.sequence, saved.delivered);
                entry.rng = saved.rng.map(Box::new);
                entry.inbox = Inbox::EMPTY;
                entry.flags &= !AWAKE;
                undo.copied -= saved.copied.unwrap_or(0);
                agents.push(ToRestore {
                    slot: saved.slot,
                    is_copied: saved.copied.is_some(),
                    state: saved.start..end,
                });
            }
            undo.marks.truncate(to);
            // Agents that were saved behind marks that are gone are to be saved anew.
            undo.number += 1;
        }
        self.undo = Some(undo);
        agents
    }

    /// Puts alarms, clock and counters back.
    fn go_back_to(&mut self, mark: &Mark, undo: &mut Undo<M>) {
        let Self {
            alarms,
            slots,
            forecasts,
            ..
        } = self;
        if let Some(forecasts) = forecasts {
            forecasts.fresh.truncate(mark.fresh);
            forecasts.pending = mark.forecast;
        }
        for Fired { time, node, load } in undo.fired.drain(mark.fired..).rev() {
            if let (Some(forecasts), Due::Kept(envelope)) = (&mut *forecasts, &load) {
                forecasts.copies += u64::from(envelope.is(FOREIGN));
            }
            alarms.put_back((time, node), load, |packed| packed.kept_apart(slots, None));
        }
        for hint in undo.set.drain(mark.set..).rev() {
            alarms.unset(hint);
        }
        if let Some(periodics) = &mut self.periodics {
            for (current, before) in undo.renewed.drain(mark.renewed..).rev() {
                periodics.take_back(current, before);
            }
        }
        let pieces = undo.pieces.partition_point(|it| it.instant < mark.instant);
        undo.pieces.truncate(pieces);
        let stood = &mark.stood;
        (self.now, self.superstep) = (stood.now, stood.superstep);
        self.counters = stood.counters;
        // These two are reckoned when they are asked for.
        (self.counters.queued, self.counters.alarms_pending) = (0, 0);
        self.local = stood.local;
        if let (Some(digest), Some(before)) = (&mut self.digest, stood.digest) {
            digest.go_back(before);
        }
        if let (Some(content), Some(before)) = (&mut self.content, stood.content) {
            content.sum.go_back(before);
        }
    }

    /// Forgets the states of agents behind the last mark, once they are put back.
    pub(crate) fn forget_states(&mut self, from: usize) {
        if let Some(undo) = &mut self.undo {
            undo.states.truncate(from);
        }
    }

    /// Drops all mail under way.
    fn forget_mail_under_way(&mut self) {
        self.outbox.clear();
        self.unread.clear();
        self.unseen = false;
        for slot in std::mem::take(&mut self.awake) {
            let entry = &mut self.slots[slot as usize];
            entry.flags &= !AWAKE;
            entry.inbox = Inbox::EMPTY;
        }
        self.posted.clear();
        self.links.clear();
    }
}
