//! A scheduler as a value, which can be saved, and a scheduler made of such a value.

use super::Scheduler;
use crate::agent_types::AgentCodec;
use crate::clock::Clock;
use crate::engine::{EngineState, LeftOutAgent};
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

/// The state of a scheduler, which stays as it is, and the agents whose states are left out of it.
///
/// # Errors
/// [`Error::Unsaved`] for an agent that `codec` cannot write down, [`Error::Failed`] after a run
/// that failed.
pub fn export_scheduler<M: Message>(
    scheduler: &Scheduler<M>,
    codec: &dyn AgentCodec<M>,
) -> Result<(SchedulerState<M>, Vec<LeftOutAgent>), Error> {
    if scheduler.failed {
        return Err(Error::Failed);
    }
    let (engine, left_out) = scheduler.engine.export_leaving_out(codec)?;
    let state = SchedulerState {
        seed: scheduler.engine.kernel.seed,
        engine,
        queued: scheduler.queued.clone(),
        lost: scheduler.lost.clone(),
    };
    Ok((state, left_out))
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

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::kernel::KernelState;
    use crate::{Agent, AgentTypes, Context, Run, SimDuration, SimTime, Topic};

    #[derive(Clone, Serialize, Deserialize)]
    struct Tick;
    impl Message for Tick {
        fn topic(&self) -> Topic {
            Topic::new("Tick")
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Clock;
    impl Agent<Tick> for Clock {
        fn setup(&mut self, ctx: &mut Context<'_, Tick>) {
            let every = crate::Alarm::every(SimDuration::from_secs(1));
            ctx.set_alarm(every, Tick);
            ctx.send(ctx.id(), Tick);
        }
    }

    type Change = fn(&mut KernelState<Tick>);

    /// Changes the state of a scheduler, and restores another scheduler from it.
    fn restored(change: impl FnOnce(&mut KernelState<Tick>)) -> Result<(), String> {
        let types = AgentTypes::new().with::<Clock>();
        let mut scheduler = Scheduler::builder().build();
        for id in 1..=2_u64 {
            scheduler.add(id, Clock).unwrap();
        }
        scheduler.run(Run::until_idle().supersteps(1)).unwrap();
        let (mut state, _) = export_scheduler(&scheduler, &types).unwrap();
        change(&mut state.engine.kernel);
        let mut other = Scheduler::builder().build();
        // What was not restored is dropped like any other.
        restore_scheduler(&mut other, state, &types).map_err(|why| why.to_string())
    }

    /// Has the first agent find one mail twice.
    fn twice(state: &mut KernelState<Tick>) {
        state.posted.push(state.alarms[0].mail.clone());
        state.slots[0].inbox = vec![0, 0];
    }

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        assert_eq!(restored(|_| ()), Ok(()));
        let cases: [(Change, &str); 7] = [
            (
                |it| it.counters.delivered += 1,
                "more mail is there than was sent",
            ),
            (
                |it| it.counters.undeliverable = u64::MAX,
                "more mail is there than was sent",
            ),
            (twice, "a mail is twice in an inbox, or in the wrong order"),
            (
                |it| it.slots[0].flags = 16,
                "an agent is there that is gone",
            ),
            (
                |it| it.now = SimTime::from_secs(7),
                "an alarm was due before",
            ),
            (
                |it| it.periodics[0].period = SimDuration::ZERO,
                "a periodic alarm has no period",
            ),
            (
                |it| it.slots[1].id = it.slots[0].id,
                "two agents have one id",
            ),
        ];
        for (change, why) in cases {
            let refused = restored(change).unwrap_err();
            assert!(refused.ends_with(why), "{refused:?}, and not {why:?}");
        }
    }
}
