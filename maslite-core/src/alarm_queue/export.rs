//! All pending alarms, to be saved; and what a queue that is restored must know of the one before.

use super::pool::NONE;
use super::{AlarmQueue, Beside, Load, Pack};
use crate::SimTime;

/// How a pending alarm lies in its queue.
pub(crate) enum Lies<'a, W, P> {
    Packed(&'a P, Option<Beside>),
    Apart(&'a W),
}

impl<W: Load, P: Pack> AlarmQueue<W, P> {
    /// Every pending alarm with the time it is due, in no order. The queue stays as it is.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SimTime, Lies<'_, W, P>)> {
        self.pool.iter().filter_map(|entry| {
            let time = SimTime::from_nanos(entry.time);
            if let Some(load) = &entry.load {
                let is_cleared = self.states.is_cleared(entry.node);
                let beside = self.states.beside(entry.node);
                return (!is_cleared).then_some((time, Lies::Packed(load, beside)));
            }
            if entry.kept == NONE {
                return None;
            }
            let load = self.kept.at(entry.kept)?;
            Some((time, Lies::Apart(load)))
        })
    }

    /// How many alarms have been set, also in the queues that this one was restored from.
    pub(crate) fn numbered(&self) -> u64 {
        self.states.number()
    }

    /// Begins a queue that is restored. `numbered` is how many alarms had been set in the queue
    /// before. Handles of that queue are looked up by setter and sequence.
    pub(crate) fn number_from(&mut self, numbered: u64) {
        self.states.number_from(numbered);
    }
}
