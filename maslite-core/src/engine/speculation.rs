//! An engine runs ahead of what is final, instant by instant, and goes back if it must.
//!
//! An instant in which something leaves, or in which an agent does what cannot be undone, is undone
//! at once: the engine stands before it then, and is *blocked*. The host has the instant done as any
//! other, once all before it is final.

use std::sync::Arc;

use super::saving::unrestored;
use super::{Engine, EngineHooks, Limits, Rest};
use crate::SimTime;
use crate::agent_types::AgentCodec;
use crate::directory::NONE;
use crate::error::Error;
pub use crate::kernel::{Budget, Stood};
use crate::message::Message;
use crate::panics::quietly;

/// How agents are saved on the way ahead.
pub(super) type SharedCodec<M> = Arc<dyn AgentCodec<M> + Send + Sync>;

/// Why an engine that ran ahead came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted {
    /// It stands before an instant that it must not do ahead.
    pub is_blocked: bool,
    /// How many deliveries were undone.
    pub undone: u64,
}

impl<M: Message> Engine<M> {
    /// Whether it stands between two instants, and nothing keeps it from running ahead.
    #[must_use]
    pub fn can_run_ahead(&self) -> bool {
        let kernel = &self.kernel;
        self.is_at_rest()
            && !self.is_awake()
            && !self.has_outbox()
            && !kernel.has_kept_awake()
            && kernel.ahead.is_none()
            && kernel.failure.is_none()
            && kernel.stopped_by.is_none()
    }

    /// Runs instants ahead of what is final, before `limits.horizon`, as long as `hooks` have no
    /// objection and the way back fits the budget. `codec` saves agents.
    ///
    /// # Errors
    /// [`Error::Unrestored`] if an agent cannot be put back, and what panics meanwhile. What fails
    /// on the way ahead is no error: that instant is undone.
    pub fn run_ahead(
        &mut self,
        limits: &Limits,
        budget: Budget,
        codec: SharedCodec<M>,
        hooks: &mut impl EngineHooks<M>,
    ) -> Result<Halted, Error> {
        self.codec = Some(codec);
        let before = self.kernel.begin_undoable(budget);
        let rest = quietly(|| self.run(limits, hooks));
        self.kernel.end_undoable();
        let is_over = matches!(rest, Ok(Rest::Horizon | Rest::Idle)) && self.kernel.is_clean();
        let marks = self.kernel.marks().len();
        let mut halted = Halted {
            is_blocked: !is_over && !matches!(rest, Ok(Rest::Attention)),
            undone: 0,
        };
        if is_over {
            self.kernel.end_last_mark();
        } else if marks > before {
            halted.undone = self.go_back_to(marks - 1)?;
        }
        Ok(halted)
    }

    /// Whether the instant at hand does what cannot be undone.
    #[must_use]
    pub fn is_stray(&self) -> bool {
        self.kernel.is_stray()
    }

    /// Notes the state before an instant. False if it is not to be done ahead now.
    pub(super) fn mark(&mut self, instant: SimTime) -> bool {
        let is_the_same = self
            .kernel
            .marks()
            .last()
            .is_some_and(|it| it.instant == instant);
        if is_the_same || !self.kernel.is_clean() {
            // An alarm without delay fires when the instant has settled in all clusters.
            self.kernel.note_stray();
            return false;
        }
        let awake_last = crate::narrow(self.awake_last);
        instant > self.kernel.now && self.kernel.mark(instant, awake_last)
    }

    /// Saves the agents that take part in a superstep. False if one cannot be saved.
    pub(super) fn save_updating(&mut self) -> bool {
        let Self {
            kernel,
            agents,
            updating,
            codec: Some(codec),
            copies,
            ..
        } = self
        else {
            return false;
        };
        let is_saved = updating.iter().all(|slot| {
            let Some(agent) = &agents[*slot as usize] else {
                return true;
            };
            let copy = |into: &mut Vec<u8>| {
                if let Some(copy) = codec.copy(agent.as_ref()) {
                    let size = size_of_val(&*copy);
                    copies.push(copy);
                    return Ok(Some(size));
                }
                match codec.encode(agent.as_ref(), into) {
                    Ok(Some(_)) => Ok(None),
                    _ => Err(()),
                }
            };
            kernel.save_agent(*slot, copy).is_ok()
        });
        if !is_saved {
            kernel.note_stray();
            kernel.awake.append(updating);
        }
        is_saved
    }

    /// The instants that were done ahead and are not final yet, with their supersteps.
    pub fn instants_ahead(&self) -> impl Iterator<Item = (SimTime, u64)> + '_ {
        let marks = self.kernel.marks().iter();
        marks.map(|mark| (mark.instant, mark.supersteps))
    }

    /// Where it stands, as far as that is final.
    #[must_use]
    pub fn stands_for_good(&self) -> Stood {
        match self.kernel.marks().first() {
            Some(mark) => mark.stood.clone(),
            None => self.kernel.stood(crate::narrow(self.awake_last)),
        }
    }

    /// Whatever happened before a superstep of an instant is final.
    ///
    /// # Errors
    /// [`Error::ModelPanicked`] if a copy of an agent panics when it is dropped.
    pub fn make_final(&mut self, place: (SimTime, u64)) -> Result<(), Error> {
        let marks = self.kernel.marks();
        let count = marks.partition_point(|mark| (mark.instant, mark.supersteps) <= place);
        match count {
            0 => Ok(()),
            _ => self.guarded(|engine| {
                let copied = engine.kernel.forget_marks(count);
                engine.copies.drain(..copied);
            }),
        }
    }

    /// Undoes whatever is not final. Tells how many deliveries that were.
    ///
    /// # Errors
    /// As [`run_ahead`](Self::run_ahead).
    pub fn go_back(&mut self) -> Result<u64, Error> {
        self.go_back_to(0)
    }

    pub(super) fn go_back_to(&mut self, mark: usize) -> Result<u64, Error> {
        let Some(stood) = self.kernel.marks().get(mark).map(|mark| mark.stood.clone()) else {
            return Ok(0);
        };
        let delivered = self.kernel.counters.delivered;
        self.kernel.progress.rest_at(stood.superstep, NONE);
        self.guarded(|engine| engine.undo(mark))??;
        self.failed_at = None;
        self.updating.clear();
        self.awake_last = stood.awake_last as usize;
        let progress = &self.kernel.progress;
        progress.stand_at(stood.now, stood.superstep);
        Ok(delivered - self.kernel.counters.delivered)
    }

    fn undo(&mut self, mark: usize) -> Result<(), Error> {
        self.births.clear();
        let (now, to_restore) = (self.kernel.now, self.kernel.go_back(mark));
        let (Some(undo), Some(codec)) = (&self.kernel.undo, &self.codec) else {
            return Ok(());
        };
        let first = to_restore.last().map(|it| it.state.start);
        let mut rebuilt = Vec::new();
        for it in to_restore {
            let copy = it.is_copied.then(|| self.copies.pop()).flatten();
            let Some(agent) = &mut self.agents[it.slot as usize] else {
                continue;
            };
            if let Some(copy) = copy {
                *agent = copy;
                continue;
            }
            let state = &undo.states()[it.state];
            let name = codec.name_of(agent.as_ref()).unwrap_or_default();
            *agent = codec.decode(name, state).map_err(|why| {
                let id = self.kernel.slots[it.slot as usize].id;
                unrestored(&format!("agent {id}, as {name}"), now, &why)
            })?;
            rebuilt.push(it.slot);
        }
        if let Some(first) = first {
            self.kernel.forget_states(first);
        }
        // Of an agent with several states only the first of them is left.
        rebuilt.sort_unstable();
        rebuilt.dedup();
        self.tell_restored(&rebuilt);
        Ok(())
    }
}
