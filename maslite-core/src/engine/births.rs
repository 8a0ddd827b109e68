//! Agents that come and go between two supersteps, and the slots that this leaves empty.

use tracing::debug;

use super::{Engine, Newborn};
use crate::directory::{NONE, Whereabouts};
use crate::error::{Error, FailureStage};
use crate::message::Message;

impl<M: Message> Engine<M> {
    #[cold]
    pub(super) fn allocate_newborn(&mut self, superstep: u64) {
        self.close_up();
        let time = self.kernel.now;
        for (sequence, birth) in (0..).zip(std::mem::take(&mut self.births)) {
            if let Err(error) = self.kernel.check_new(birth.id, birth.adder(time)) {
                let stage = FailureStage::Birth;
                let place = self.kernel.place(superstep, stage, birth.adder, sequence);
                self.kernel.fail(place, error);
                return;
            }
            debug!(target: "maslite", sim_time = %time, agent = %birth.id, by = %birth.by, "agent added");
            self.kernel.adders.insert(birth.id, birth.adder(time));
            let slot = self.kernel.allocate_slot(birth.id, self.next_index);
            self.next_index += 1;
            if self.kernel.has_neighbours {
                let (id, adder, by) = (birth.id, birth.adder, birth.by);
                let newborn = Newborn {
                    id,
                    adder,
                    by,
                    time,
                    superstep,
                };
                self.newborn.push((slot, newborn));
                self.kernel.unseen = true;
            }
            self.agents.push(Some(birth.agent));
            self.kernel.counters.agents += 1;
        }
    }

    /// Numbers the slots anew if those of many agents that are gone lie between them. Slots grow in
    /// number only by births, so nothing else has to look.
    pub(super) fn close_up(&mut self) {
        if !self.kernel.has_many_vacant_slots() {
            return;
        }
        let renumbered = self.kernel.close_up();
        let number = |slot: &mut u32| {
            *slot = renumbered.get(*slot as usize).copied().unwrap_or(NONE);
        };
        let mut place = 0..;
        self.agents.retain(|_| {
            let place = place.next().and_then(|place: usize| renumbered.get(place));
            place.is_some_and(|slot| *slot != NONE)
        });
        let set_up = renumbered.iter().take(self.set_up);
        self.set_up = set_up.filter(|slot| **slot != NONE).count();
        self.updating.iter_mut().for_each(number);
        self.unnumbered.iter_mut().for_each(number);
        self.newborn.iter_mut().for_each(|(slot, _)| number(slot));
        let last = self.updating.last().copied().unwrap_or(NONE);
        self.kernel.progress.rest_at(self.kernel.superstep, last);
    }

    #[cold]
    pub(super) fn dismiss_removed(&mut self, superstep: u64) {
        let removals = std::mem::take(&mut self.kernel.removals);
        for (sequence, (id, by, index)) in (0..).zip(removals) {
            debug!(target: "maslite", sim_time = %self.kernel.now, agent = %id, %by, "agent removed");
            self.kernel.check_name(id, superstep);
            match self.kernel.directory.find(id) {
                Whereabouts::Here(slot) => self.kernel.dismiss(slot),
                Whereabouts::Removed => {}
                Whereabouts::Unknown if self.kernel.has_neighbours => {
                    self.kernel.removals.push((id, by, index));
                    self.kernel.unseen = true;
                }
                Whereabouts::Unknown => {
                    let time = self.kernel.now;
                    let stage = FailureStage::Removal;
                    let place = self.kernel.place(superstep, stage, index, sequence);
                    self.kernel
                        .fail(place, Error::RemovedUnknown { id, by, time });
                }
            }
        }
    }
}
