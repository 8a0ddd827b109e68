//! Disturbs a scenario from another thread, which changes nothing of what happens in it.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maslite_mp::prelude::*;
use maslite_testkit::scenario::agent::{ScenarioMessage, Scripted};
use rand::RngExt;

/// After this number of disturbances a scenario is left alone.
const MOST: u32 = 300;

/// A thread that disturbs a scenario. It ends with the scenario.
pub(crate) struct Steering {
    thread: JoinHandle<()>,
    /// Dropped when the scenario is over.
    over: Sender<()>,
}

impl Steering {
    /// Starts to interrupt runs, by chance from a seed.
    pub(crate) fn interrupting(handle: StopHandle, seed: u64) -> Self {
        let dice = AgentRng::new(seed, AgentId::from(1));
        let (over, is_over) = mpsc::channel();
        let thread = thread::spawn(move || interrupt(&handle, dice, &is_over));
        Self { thread, over }
    }

    /// Starts to steer a simulation of several clusters, by chance from a seed.
    pub(crate) fn of(main: &MpMain<ScenarioMessage>, seed: u64) -> Self {
        let dice = AgentRng::new(seed, AgentId::from(1));
        let (controller, clusters) = (main.controller(), main.clusters().to_vec());
        let thread = thread::spawn(move || {
            // Whatever ends the simulation ends this.
            let _ = steer(&controller, clusters, dice);
        });
        let (over, _) = mpsc::channel();
        Self { thread, over }
    }

    /// Waits for the thread; the scenario is over.
    pub(crate) fn finish(self) {
        drop(self.over);
        self.thread
            .join()
            .expect("the thread that steers does not panic");
    }
}

/// Interrupts a scheduler again and again.
fn interrupt(handle: &StopHandle, mut dice: AgentRng, is_over: &mpsc::Receiver<()>) {
    for _ in 0..MOST {
        let wait = Duration::from_micros(dice.random_range(0..300));
        if is_over.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        handle.stop();
    }
}

/// Pauses, steps, asks and resumes.
fn steer(
    controller: &Controller<ScenarioMessage>,
    clusters: Vec<ClusterId>,
    mut dice: AgentRng,
) -> Result<(), ControlError> {
    for _ in 0..MOST {
        let cluster = clusters.get(dice.random_range(0..clusters.len().max(1)));
        match (dice.random_range(0..9_u32), cluster) {
            (0, _) => drop(controller.pause()?),
            (1, _) => drop(controller.step(dice.random_range(1..4))?),
            (2, _) => drop(controller.step_instant()?),
            (3, _) => {
                // Where it stands, so that the time is not past.
                if let Halt::Paused(now) = controller.pause()? {
                    let later = SimDuration::from_millis(dice.random_range(0..4));
                    controller.run_until(now.saturating_add(later))?;
                }
            }
            (4, _) => inspect(controller, &mut dice)?,
            (5, Some(cluster)) => drop(controller.alarms_of(*cluster)?),
            (6, Some(cluster)) => drop(controller.subscriptions_of(*cluster)?),
            (7, Some(cluster)) => drop(controller.counters_of(*cluster)?),
            _ => controller.resume()?,
        }
    }
    Ok(())
}

/// Looks at some agent.
fn inspect(
    controller: &Controller<ScenarioMessage>,
    dice: &mut AgentRng,
) -> Result<(), ControlError> {
    let agents = controller.agents()?;
    if agents.is_empty() {
        return Ok(());
    }
    let agent = agents[dice.random_range(0..agents.len())].id;
    match controller.inspect::<Scripted>(agent) {
        // It is gone meanwhile.
        Ok(_) | Err(ControlError::Agent(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
