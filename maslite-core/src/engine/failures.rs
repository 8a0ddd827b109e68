//! Panics become errors that name who is to blame; the end of all agents.

use super::Engine;
use crate::directory::NONE;
use crate::error::{AWAKE_NAMED, Error, FailurePlace, FailureStage, Phase};
use crate::kernel::Outside;
use crate::message::Message;
use crate::panics::{self, Panic};
use crate::{AgentId, SimTime};

impl<M: Message> Engine<M> {
    /// Runs something that calls agents; a panic of one becomes an error that names it.
    pub(super) fn guarded<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> Result<T, Error> {
        match panics::catch(|| what(self)) {
            Ok(result) => self.take_failure().map_or(Ok(result), Err),
            Err(panic) => {
                // What unwinds may be the failure of the kernel that is noted already.
                if let Some(error) = self.take_failure() {
                    return Err(error);
                }
                let outside = std::mem::take(&mut self.kernel.outside);
                let at_work = self.kernel.progress.at_work();
                match (outside, at_work) {
                    (Outside::Owner, _) => panic.go_on(),
                    (Outside::TraceFormat, _) => {
                        Err(self.model_panicked("the format of the trace", panic))
                    }
                    (Outside::Nobody, Some((slot, phase))) => {
                        Err(self.panicked(slot, phase, panic))
                    }
                    (Outside::Nobody, None) => Err(self.model_panicked(OF_MESSAGES, panic)),
                }
            }
        }
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        let (place, error) = self.kernel.failure.take()?;
        self.failed_at = Some(place);
        Some(error)
    }

    /// Where the last error of a run was.
    #[must_use]
    pub fn failed_at(&self) -> Option<FailurePlace> {
        self.failed_at
    }

    fn model_panicked(&mut self, what: &str, panic: Panic) -> Error {
        let superstep = self.kernel.superstep;
        let place = match self.kernel.progress.at_work() {
            Some((slot, _)) => {
                let index = self.kernel.slots[slot as usize].index;
                self.kernel.place(superstep, FailureStage::Update, index, 0)
            }
            None => self.kernel.place(superstep, FailureStage::Start, 0, 0),
        };
        self.failed_at = Some(place);
        of_model(what, self.kernel.now, superstep, panic)
    }

    fn panicked(&mut self, slot: u32, phase: Phase, mut panic: Panic) -> Error {
        let (superstep, index) = (
            self.kernel.superstep,
            self.kernel.slots[slot as usize].index,
        );
        let stage = FailureStage::Update;
        self.failed_at = Some(self.kernel.place(superstep, stage, index, 0));
        Error::AgentPanicked {
            agent: self.kernel.slots[slot as usize].id,
            phase,
            time: self.kernel.now,
            superstep: self.kernel.superstep,
            message: panic.message().to_owned(),
            place: panic.place.take(),
            backtrace: panic.backtrace.take(),
        }
    }

    /// The first agents that would take part in a superstep now, by insertion index, each with it.
    #[must_use]
    pub fn first_awake(&self) -> Vec<(u64, AgentId)> {
        let slots = &self.kernel.slots;
        let mut awake: Vec<u32> = self.kernel.taking_part().collect();
        awake.sort_unstable();
        let named = awake.iter().take(AWAKE_NAMED);
        let named = named.map(|slot| &slots[*slot as usize]);
        named.map(|slot| (slot.index, slot.id)).collect()
    }

    pub(super) fn endless(&mut self, limit: u64) -> Error {
        let superstep = self.kernel.superstep;
        self.failed_at = Some(self.kernel.place(superstep, FailureStage::Start, 0, 0));
        let agents = self.first_awake().into_iter();
        Error::EndlessExchange {
            time: self.kernel.now,
            limit,
            agents: agents.map(|(_, id)| id).collect(),
        }
    }

    /// Calls `teardown` of every agent that was set up and is still there, in insertion order, and
    /// then drops all. What they send goes nowhere. Goes on after a panic, and tells of the first.
    ///
    /// # Errors
    /// [`Error::AgentPanicked`].
    pub fn teardown(&mut self) -> Result<(), Error> {
        let mut first = Ok(());
        for place in 0..self.agents.len() {
            let slot = crate::narrow(place);
            if self.kernel.was_set_up(slot) && !self.kernel.is_gone(slot) {
                let result = self.guarded(|engine| engine.call(slot, Phase::Teardown));
                first = first.and(result);
            }
        }
        first = first.and(self.release_all());
        self.kernel.progress.rest_at(self.kernel.superstep, NONE);
        self.set_up = 0;
        first
    }

    /// Drops all agents. Goes on after a panic, and tells of the first.
    pub(super) fn release_all(&mut self) -> Result<(), Error> {
        let mut first = Ok(());
        for place in 0..self.agents.len() {
            let slot = crate::narrow(place);
            first = first.and(self.guarded(|engine| engine.release(slot)));
        }
        self.agents.clear();
        first.and(self.release_mail())
    }

    /// Drops all mail and alarms. Goes on after a panic of a message, and tells of the first.
    fn release_mail(&mut self) -> Result<(), Error> {
        if !std::mem::needs_drop::<M>() {
            return Ok(());
        }
        // No agent is to blame.
        self.kernel.progress.rest_at(self.kernel.superstep, NONE);
        let mut first = Ok(());
        while let Err(error) = self.guarded(|engine| engine.kernel.release_mail()) {
            first = first.and(Err(error));
        }
        first
    }
}

/// Code of messages that is called outside agents.
const OF_MESSAGES: &str = "code outside agents (of a message: its topic, encoding, clone or drop)";

fn of_model(what: &str, time: SimTime, superstep: u64, mut panic: Panic) -> Error {
    Error::ModelPanicked {
        what: what.into(),
        time,
        superstep,
        message: panic.message().into(),
        place: panic.place.take(),
        backtrace: panic.backtrace.take(),
    }
}

/// Calls code of the model outside agents; a panic in it is an error. `what`: how the error names
/// the code, if it is not a message's.
///
/// # Errors
/// [`Error::ModelPanicked`].
pub fn guard_model<T>(
    what: Option<&str>,
    (time, superstep): (SimTime, u64),
    call: impl FnOnce() -> T,
) -> Result<T, Error> {
    let what = what.unwrap_or(OF_MESSAGES);
    panics::catch(call).map_err(|panic| of_model(what, time, superstep, panic))
}
