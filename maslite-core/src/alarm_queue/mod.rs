//! Mail for later: pending alarms, earliest first.
//!
//! The queue is a ladder queue: alarms far ahead lie unsorted in buckets of time, and only the few
//! that come next are sorted, so that setting and firing one costs about the same with a thousand
//! pending as with a million. Source: Tang, Goh, Thng, "Ladder queue", ACM TOMACS 15(3), 2005; here
//! the buckets are powers of two wide, and alarms set into the part already sorted find their place
//! there.
//!
//! An alarm is written into the bucket of its time, read when that bucket comes up, and not touched
//! in between. What handles need lies apart, a word for each alarm. What does not fit an entry is
//! kept apart, too.

use crate::message::{ELSEWHERE, Envelope, FOREIGN, LEFT, MailKey, REQUIRED};
use crate::{AgentId, SimTime};

mod export;
mod hand;
mod handles;
mod kept;
mod pool;
mod rung;
mod states;
#[cfg(test)]
mod tests;
mod undo;

pub(crate) use export::Lies;
pub use states::AlarmId;
pub(crate) use states::{Beside, Hint};

use hand::Hand;
use kept::Kept;
use pool::{Bucket, Entry, NONE, Pool};
use rung::Rung;
use states::{IS_ELSEWHERE, IS_REQUIRED, KEPT, States};

/// One pending alarm.
#[derive(Clone, Debug)]
pub(crate) struct Pending<T> {
    pub(crate) time: SimTime,
    pub(crate) load: T,
}

/// What the queue knows of what it keeps.
pub(crate) trait Load {
    /// Its place among all that is due at the same time.
    fn key(&self) -> MailKey;
    fn setter(&self) -> AgentId;
    /// In real time an idle run waits for it.
    fn is_required(&self) -> bool {
        false
    }
    /// It is for an agent that this scheduler has never heard of.
    fn is_elsewhere(&self) -> bool {
        false
    }
    /// It can be cleared.
    fn is_clearable(&self) -> bool {
        true
    }
    /// It can no longer be cleared.
    fn fix(&mut self) {}
}

/// What lies in the queue itself, packed. It must need no drop: what was cleared stays until its
/// entry comes up.
pub(crate) trait Pack {
    /// Its place among all that is due at the same time.
    fn key(&self) -> MailKey;
    fn is_required(&self) -> bool {
        false
    }
    /// It is for an agent that this scheduler has never heard of.
    fn is_elsewhere(&self) -> bool {
        false
    }
    /// Something belongs to it that has no room in the entry.
    fn has_beside(&self) -> bool {
        false
    }
}

impl<M> Load for Envelope<M> {
    #[inline]
    fn key(&self) -> MailKey {
        self.key
    }

    #[inline]
    fn setter(&self) -> AgentId {
        self.sender
    }

    #[inline]
    fn is_required(&self) -> bool {
        self.is(REQUIRED)
    }

    #[inline]
    fn is_elsewhere(&self) -> bool {
        self.is(ELSEWHERE)
    }

    fn is_clearable(&self) -> bool {
        !self.is(LEFT | FOREIGN)
    }

    fn fix(&mut self) {
        self.mark(LEFT);
    }
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due<W, P> {
    Packed(P),
    Kept(W),
}

/// The pending alarms of one scheduler, in the order (time, time they were set at, setter's
/// insertion index, sequence). `P` is how they lie in the queue, `W` how they are kept apart.
#[derive(Debug)]
pub(crate) struct AlarmQueue<W, P> {
    pending: usize,
    required: usize,
    elsewhere: usize,
    /// Cleared alarms whose entries have not come up yet.
    cleared: usize,
    /// Every alarm before this time [ns] is at hand.
    sorted_end: u64,
    /// Every alarm is, also those at the end of time.
    all_at_hand: bool,
    hand: Hand,
    pool: Pool<P>,
    states: States,
    /// Coarse to fine; each one divides a bucket of the one before.
    rungs: Vec<Rung>,
    /// Alarms later than every rung, in no order.
    far: Bucket,
    kept: Kept<W>,
    /// What belongs to the load that was popped last.
    beside: Option<Beside>,
    /// What is set and what fires may be undone.
    is_undoable: bool,
    spare_rungs: Vec<Rung>,
    ties: Vec<((u64, MailKey), u64)>,
}

/// Fewer entries than this are sorted at once, more are first divided into buckets.
const SORT_AT_ONCE: u32 = 256;
/// Fewer cleared alarms than these are not worth looking for.
const FEW_CLEARED: usize = 1_024;

impl<W, P> Default for AlarmQueue<W, P>
where
    W: Load,
{
    fn default() -> Self {
        Self {
            pending: 0,
            required: 0,
            elsewhere: 0,
            cleared: 0,
            sorted_end: 0,
            all_at_hand: false,
            hand: Hand::default(),
            pool: Pool::default(),
            states: States::default(),
            rungs: Vec::new(),
            far: Bucket::EMPTY,
            kept: Kept::default(),
            beside: None,
            is_undoable: false,
            spare_rungs: Vec::new(),
            ties: Vec::new(),
        }
    }
}

impl<W: Load, P: Pack> AlarmQueue<W, P> {
    /// How many alarms are pending.
    pub(crate) fn len(&self) -> usize {
        self.pending
    }

    /// How many of the pending alarms are required.
    pub(crate) fn required(&self) -> usize {
        self.required
    }

    /// How many of the pending alarms are for agents never heard of.
    pub(crate) fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    /// Whether alarms can be packed on the short way; while agents ask for their alarms again and
    /// again, all are kept.
    #[inline]
    pub(crate) fn packs(&self) -> bool {
        !(self.kept.is_indexed() || self.is_undoable)
    }

    /// Adds a packed alarm.
    #[inline(always)]
    pub(crate) fn set_packed(&mut self, time: SimTime, setter: AgentId, load: P) -> AlarmId {
        debug_assert!(self.packs_undoable());
        let required = load.is_required();
        self.pending += 1;
        self.required += usize::from(required);
        let flags = if required { IS_REQUIRED } else { 0 };
        let id = self.states.add((setter, load.key().sequence()), flags);
        self.place(Entry {
            time: time.as_nanos(),
            node: id.hint.node,
            kept: NONE,
            load: Some(load),
        });
        id
    }

    /// Adds a packed alarm with what has no room in its entry.
    #[inline(never)]
    pub(crate) fn set_packed_beside(
        &mut self,
        time: SimTime,
        setter: AgentId,
        (load, beside): (P, Beside),
    ) -> AlarmId {
        let is_elsewhere = load.is_elsewhere();
        self.elsewhere += usize::from(is_elsewhere);
        let id = self.set_packed(time, setter, load);
        self.states.put_beside(id.hint.node, beside);
        if is_elsewhere {
            self.states.note(id.hint.node, IS_ELSEWHERE);
        }
        id
    }

    /// Adds an alarm that is kept apart.
    #[inline(never)]
    pub(crate) fn set(&mut self, alarm: Pending<W>) -> AlarmId {
        let (time, setter) = (alarm.time.as_nanos(), alarm.load.setter());
        let required = alarm.load.is_required();
        self.pending += 1;
        self.required += usize::from(required);
        self.elsewhere += usize::from(alarm.load.is_elsewhere());
        let sequence = alarm.load.key().sequence();
        let id = self.states.add((setter, sequence), KEPT);
        self.kept.was_set(self.pending);
        let kept = self.kept.insert(id.hint.node, alarm);
        self.place(Entry {
            time,
            node: id.hint.node,
            kept,
            load: None,
        });
        id
    }

    /// Writes an entry into the bucket of its time.
    #[inline(always)]
    fn place(&mut self, entry: Entry<P>) {
        let time = entry.time;
        if time < self.sorted_end || self.all_at_hand {
            return self.place_at_hand(entry);
        }
        // The finest rung that reaches so far has the bucket; it is one that is still open,
        // since all closed ones end at or before `sorted_end`.
        for rung in self.rungs.iter_mut().rev() {
            if time <= rung.last {
                return self.pool.push(rung.bucket_of(time), entry);
            }
        }
        self.pool.push(&mut self.far, entry);
    }

    #[inline(never)]
    fn place_at_hand(&mut self, entry: Entry<P>) {
        let Self {
            hand, pool, kept, ..
        } = self;
        let own = || rank(kept, &entry);
        let place = hand.insert(pool, entry.time, own, |pool, place| {
            rank(kept, pool.at(place))
        });
        match place {
            Some(place) => *pool.at_mut(place) = entry,
            None => self.spill(entry),
        }
    }

    /// Puts what is left at hand, and one alarm more, into buckets again: too many were set for
    /// that time.
    #[cold]
    fn spill(&mut self, entry: Entry<P>) {
        let mut all = Bucket::EMPTY;
        for place in self.hand.places() {
            let entry = self.pool.at_mut(place).take();
            self.pool.push(&mut all, entry);
        }
        self.pool.push(&mut all, entry);
        self.hand.end(&mut self.pool);
        // Rungs that end with what was at hand have nothing left.
        while let Some(rung) = self
            .rungs
            .pop_if(|rung| self.all_at_hand || rung.last < self.sorted_end)
        {
            self.spare_rungs.push(rung);
        }
        let span = self.pool.span(all);
        let reach = if self.all_at_hand {
            u64::MAX
        } else {
            self.sorted_end - 1
        };
        self.divide(all, span, Some(reach));
    }

    /// The time of the earliest alarm.
    #[inline]
    pub(crate) fn next_time(&mut self) -> Option<SimTime> {
        loop {
            let place = match self.hand.place(0) {
                Some(place) => place,
                None if self.sort_more() => continue,
                None => return None,
            };
            let entry = self.pool.at(place);
            if self.cleared == 0 || !self.states.is_cleared(entry.node) {
                return Some(SimTime::from_nanos(entry.time));
            }
            self.drop_cleared(place);
        }
    }

    /// Drops the next entry, whose alarm was cleared.
    #[cold]
    fn drop_cleared(&mut self, place: u32) {
        let entry = self.pool.at_mut(place).take();
        Cleared::of(&mut self.states, &mut self.kept, &mut self.cleared).drop(&entry);
        self.hand.advance();
    }

    /// Takes the first alarm due at `time`, which must be what [`Self::next_time`] answered. Nothing
    /// must lie beside any alarm.
    #[inline]
    pub(crate) fn pop_due(&mut self, time: SimTime) -> Option<Due<W, P>> {
        self.pop_due_of::<false>(time)
    }

    /// As [`Self::pop_due`]; `BESIDE` says whether something may lie beside alarms. That is decided
    /// when the program is built: asking for each alarm costs a lone scheduler a twelfth of its time.
    #[inline]
    pub(crate) fn pop_due_of<const BESIDE: bool>(&mut self, time: SimTime) -> Option<Due<W, P>> {
        let place = self.due_place(time)?;
        let entry = self.pool.at_mut(place);
        self.hand.advance();
        self.pending -= 1;
        let node = entry.node;
        if !BESIDE {
            self.states.release(node);
        }
        if let Some(load) = entry.load.take() {
            self.required -= usize::from(load.is_required());
            if BESIDE {
                if load.has_beside() {
                    self.note_beside(node, load.is_elsewhere());
                }
                self.states.release(node);
            }
            return Some(Due::Packed(load));
        }
        let kept = std::mem::replace(&mut entry.kept, NONE);
        if BESIDE {
            self.states.release(node);
        }
        self.take_kept(kept).map(Due::Kept)
    }

    /// The place of the first alarm due at `time`, which must be what [`Self::next_time`] answered.
    #[inline(always)]
    fn due_place(&mut self, time: SimTime) -> Option<u32> {
        loop {
            let place = self.hand.place_until(time.as_nanos())?;
            let entry = self.pool.at(place);
            if entry.time != time.as_nanos() {
                return None;
            }
            if self.cleared == 0 || !self.states.is_cleared(entry.node) {
                return Some(place);
            }
            self.drop_cleared(place);
        }
    }

    #[inline(never)]
    fn note_beside(&mut self, node: u32, is_elsewhere: bool) {
        self.beside = self.states.beside(node);
        self.elsewhere -= usize::from(is_elsewhere);
    }

    /// What belongs to the load that was popped last and has no room in its entry. It is apart from
    /// [`Due`], so that what most alarms do not have does not make that larger.
    pub(crate) fn last_beside(&self) -> Beside {
        let beside = self.beside;
        beside.expect("what belongs to a load lies beside its state")
    }

    /// The packed alarm at this distance behind the next one, if that is known.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Option<&P> {
        let place = self.hand.place(ahead)?;
        self.pool.at(place).load.as_ref()
    }

    #[inline(never)]
    fn take_kept(&mut self, kept: u32) -> Option<W> {
        let alarm = self.kept.take(kept)?.load;
        self.required -= usize::from(alarm.is_required());
        self.elsewhere -= usize::from(alarm.is_elsewhere());
        Some(alarm)
    }

    /// Sorts the next bucket. False if there is nothing left to sort.
    #[inline(never)]
    fn sort_more(&mut self) -> bool {
        self.hand.end(&mut self.pool);
        loop {
            let Some(rung) = self.rungs.last_mut() else {
                let far = std::mem::replace(&mut self.far, Bucket::EMPTY);
                if far.is_empty() {
                    return false;
                }
                if self.take_up(far, None) {
                    return true;
                }
                continue;
            };
            rung.skip_empty();
            if rung.is_over() {
                self.end_rung();
                continue;
            }
            let (bucket, reach) = (rung.take_next(), rung.reach_of_next());
            if self.take_up(bucket, Some(reach)) {
                return true;
            }
        }
    }

    /// What the finest rung covered is over; the coarser one goes on behind it.
    fn end_rung(&mut self) {
        if let Some(rung) = self.rungs.pop() {
            self.is_sorted_to(rung.last);
            self.spare_rungs.push(rung);
        }
    }

    /// Every alarm up to this time is at hand, or there is none.
    fn is_sorted_to(&mut self, last: u64) {
        self.sorted_end = last.saturating_add(1);
        self.all_at_hand = last == u64::MAX;
    }

    /// Sorts a bucket that reaches to `reach`, or divides it. True if an alarm is at hand then.
    fn take_up(&mut self, mut bucket: Bucket, reach: Option<u64>) -> bool {
        if self.cleared > 0 {
            self.drop_cleared_of(&mut bucket);
            if bucket.is_empty() {
                return false;
            }
        }
        let span @ (first, last, count) = self.pool.span(bucket);
        if first < last && self.pool.is_more_than(bucket, SORT_AT_ONCE) {
            if let (Some(_), Some(rung)) = (reach, self.rungs.last_mut()) {
                rung.next += 1;
                if rung.is_over() {
                    let rung = self.rungs.pop().expect("there is a last rung");
                    self.spare_rungs.push(rung);
                }
            }
            self.divide(bucket, span, reach);
            return false;
        }
        self.is_sorted_to(reach.unwrap_or(last));
        let Self {
            hand, pool, kept, ..
        } = self;
        hand.begin(pool, (count, first, last), |chunks| {
            pool.chunks(bucket, chunks);
        });
        hand.settle_ties(&mut self.ties, |place| rank(kept, pool.at(place)));
        true
    }

    /// Spreads a bucket over those of a new rung that reaches to `reach` or, without that, beyond
    /// the latest entry: there must be no gap to the bucket that comes after the one that is
    /// divided.
    fn divide(&mut self, bucket: Bucket, span: (u64, u64, u32), reach: Option<u64>) {
        let (first, last, _) = span;
        let reach = reach.unwrap_or_else(|| last.saturating_add(last - first));
        let mut rung = self.spare_rungs.pop().unwrap_or_default();
        rung.lay_out(span, reach);
        rung.fill(&mut self.pool, bucket);
        self.rungs.push(rung);
        (self.sorted_end, self.all_at_hand) = (first, false);
    }

    fn drop_cleared_of(&mut self, bucket: &mut Bucket) {
        let mut cleared = Cleared::of(&mut self.states, &mut self.kept, &mut self.cleared);
        self.pool.retain(bucket, |entry| !cleared.drop(entry));
    }

    /// Throws out the entries of cleared alarms, so that clearing many does not fill memory. The
    /// others stay in their buckets.
    #[cold]
    fn sweep(&mut self) {
        let mut cleared = Cleared::of(&mut self.states, &mut self.kept, &mut self.cleared);
        let pool = &mut self.pool;
        self.hand.retain(|place| {
            let is_dropped = cleared.drop(pool.at(place));
            if is_dropped {
                pool.at_mut(place).take();
            }
            !is_dropped
        });
        let buckets = self.rungs.iter_mut().flat_map(Rung::filled_buckets);
        for bucket in buckets.chain([&mut self.far]) {
            pool.retain(bucket, |entry| !cleared.drop(entry));
        }
    }
}

/// Frees what cleared alarms still hold.
struct Cleared<'a, W> {
    states: &'a mut States,
    kept: &'a mut Kept<W>,
    count: &'a mut usize,
}

impl<'a, W: Load> Cleared<'a, W> {
    fn of(states: &'a mut States, kept: &'a mut Kept<W>, count: &'a mut usize) -> Self {
        Self {
            states,
            kept,
            count,
        }
    }

    /// True if the alarm of this entry was cleared; its node is free then.
    #[inline]
    fn drop<P>(&mut self, entry: &Entry<P>) -> bool {
        let is_cleared = self.states.is_cleared(entry.node);
        if is_cleared {
            self.states.release(entry.node);
            *self.count -= 1;
            if entry.kept != NONE {
                self.kept.take(entry.kept);
            }
        }
        is_cleared
    }
}

/// The place of an alarm among all.
#[inline]
fn rank<W: Load, P: Pack>(kept: &Kept<W>, entry: &Entry<P>) -> (u64, MailKey) {
    let key = match &entry.load {
        Some(load) => load.key(),
        None => kept
            .key(entry.kept)
            .expect("an entry is packed, or its load is kept"),
    };
    (entry.time, key)
}
