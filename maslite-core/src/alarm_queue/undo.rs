//! Alarms that fire, or are set, on the way ahead of what is final: each can be undone. The state of
//! an alarm that fired is held meanwhile, so that handles to it mean it again when it is put back.

use super::pool::{Entry, NONE};
use super::states::{Hint, IS_REQUIRED, KEPT};
use super::{AlarmQueue, Due, Load, Pack, Pending};
use crate::SimTime;

impl<W: Load, P: Pack> AlarmQueue<W, P> {
    /// Notes whether what is set and what fires from now on may be undone.
    pub(crate) fn set_undoable(&mut self, is_undoable: bool) {
        self.is_undoable = is_undoable;
    }

    /// Whether an entry may have a packed load.
    pub(crate) fn packs_undoable(&self) -> bool {
        !self.kept.is_indexed()
    }

    /// As [`Self::pop_due`]; the state of the alarm is held, and told.
    pub(crate) fn pop_due_held(&mut self, time: SimTime) -> Option<(u32, Due<W, P>)> {
        let place = self.due_place(time)?;
        let entry = self.pool.at_mut(place).take();
        self.hand.advance();
        self.pending -= 1;
        self.states.hold(entry.node);
        let due = match entry.load {
            Some(load) => {
                self.required -= usize::from(load.is_required());
                Due::Packed(load)
            }
            None => Due::Kept(self.take_kept(entry.kept)?),
        };
        Some((entry.node, due))
    }

    /// An alarm has fired for good: its state is free.
    pub(crate) fn let_go(&mut self, node: u32) {
        self.states.release(node);
    }

    /// An alarm whose state was held has not fired. `unpack`: what to keep apart of a packed one,
    /// where no alarm is packed by now.
    pub(crate) fn put_back(
        &mut self,
        (time, node): (SimTime, u32),
        load: Due<W, P>,
        unpack: impl FnOnce(P) -> W,
    ) {
        self.pending += 1;
        self.states.resume(node);
        let load = match load {
            Due::Packed(load) if self.packs_undoable() => {
                self.required += usize::from(load.is_required());
                return self.place(Entry {
                    time: time.as_nanos(),
                    node,
                    kept: NONE,
                    load: Some(load),
                });
            }
            Due::Packed(load) => unpack(load),
            Due::Kept(load) => load,
        };
        self.required += usize::from(load.is_required());
        self.elsewhere += usize::from(load.is_elsewhere());
        self.states.note(node, KEPT);
        let kept = self.kept.insert(node, Pending { time, load });
        self.place(Entry {
            time: time.as_nanos(),
            node,
            kept,
            load: None,
        });
    }

    /// An alarm was never set. One that has fired, and whose state was let go, is none any more.
    pub(crate) fn unset(&mut self, hint: Hint) {
        match self.states.pending(hint) {
            None => {}
            Some((node, flags)) if flags & KEPT != 0 => {
                if let Some(alarm) = self.kept.clear(node) {
                    self.required -= usize::from(alarm.load.is_required());
                    self.elsewhere -= usize::from(alarm.load.is_elsewhere());
                    self.count_cleared(node);
                }
            }
            Some((node, flags)) => {
                self.required -= usize::from(flags & IS_REQUIRED != 0);
                self.count_cleared(node);
            }
        }
    }
}
