//! A scheduler as a value, which can be saved, and a scheduler made of such a value.

use super::Scheduler;
use crate::agent_types::AgentCodec;
use crate::clock::Clock;
use crate::engine::EngineState;
use crate::error::Error;
use crate::message::{Mail, Message};
use crate::run::{LostKey, LostMail};

/// All that a scheduler knows between two runs, but for its settings.
#[derive(Clone, Debug)]
pub struct SchedulerState<M> {
    /// The seed of the agents' random numbers.
    pub seed: u64,
    /// The agents, and all that the kernel knows.
    pub engine: EngineState<M>,
    /// The owner's mail for the next run.
    pub queued: Vec<Mail<M>>,
    /// The first undeliverable mail.
    pub lost: Vec<(LostKey, LostMail)>,
}

/// The state of a scheduler, which stays as it is.
///
/// # Errors
/// [`Error::Unsaved`] for an agent that `codec` cannot write down, [`Error::Failed`] after a run
/// that failed.
pub fn export_scheduler<M: Message>(
    scheduler: &Scheduler<M>,
    codec: &dyn AgentCodec<M>,
) -> Result<SchedulerState<M>, Error> {
    if scheduler.failed {
        return Err(Error::Failed);
    }
    Ok(SchedulerState {
        seed: scheduler.engine.kernel.seed,
        engine: scheduler.engine.export(codec)?,
        queued: scheduler.queued.clone(),
        lost: scheduler.lost.clone(),
    })
}

/// Has a new scheduler go on from a state.
///
/// # Errors
/// [`Error::Unrestored`].
pub fn restore_scheduler<M: Message>(
    scheduler: &mut Scheduler<M>,
    state: SchedulerState<M>,
    codec: &dyn AgentCodec<M>,
) -> Result<(), Error> {
    if scheduler.clock == Clock::RealTime {
        return Err(Error::Unrestored {
            what: "a scheduler in real time".into(),
            time: state.engine.now(),
            why: "its time is that of the wall, which cannot be set back: use another clock".into(),
        });
    }
    scheduler.engine.restore(state.engine, codec, Vec::new())?;
    scheduler.queued = state.queued;
    scheduler.lost = state.lost;
    let counters = scheduler.engine.counters();
    scheduler.counted.0 = counters;
    if let Some(memory) = &mut scheduler.memory {
        memory.go_on_from(counters.supersteps);
    }
    Ok(())
}
