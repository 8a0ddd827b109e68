//! Kills the processes of a scenario from another thread, which changes nothing of what happens in
//! it: they come back.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maslite_mp::RunState;
use maslite_mp::prelude::*;
use maslite_testkit::scenario::agent::ScenarioMessage;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

/// How many processes are killed at most.
const MOST: u32 = 20;

/// A cluster that dies comes back, however often.
pub(crate) const POLICY: Recovery = Recovery::restart().at_most(MOST, Duration::from_secs(3_600));

/// A thread that kills. It ends with the scenario.
pub(crate) struct Losing {
    thread: JoinHandle<()>,
    /// Dropped when the scenario is over.
    over: Sender<()>,
}

impl Losing {
    /// Starts to kill processes, by chance from a seed.
    pub(crate) fn of(main: &MpMain<ScenarioMessage>, seed: u64) -> Self {
        let dice = AgentRng::new(seed, AgentId::from(2));
        let controller = main.controller();
        let (over, is_over) = mpsc::channel();
        let thread = thread::spawn(move || lose(&controller, dice, &is_over));
        Self { thread, over }
    }

    /// Waits for the thread; the scenario is over.
    pub(crate) fn finish(self) {
        drop(self.over);
        self.thread
            .join()
            .expect("the thread that kills does not panic");
    }
}

/// Who kills the processes of a simulation, and of those that go on from it.
pub(crate) struct Harm {
    seed: Option<u64>,
    losing: Option<Losing>,
    /// How many clusters were brought back in simulations that are over.
    recoveries: usize,
}

impl Harm {
    /// Starts to kill processes, if there is a seed.
    pub(crate) fn of(main: &MpMain<ScenarioMessage>, seed: Option<u64>) -> Self {
        let losing = seed.map(|seed| Losing::of(main, seed));
        Self {
            seed,
            losing,
            recoveries: 0,
        }
    }

    /// Stops while a simulation is saved and another one goes on from there. A cluster that is dead
    /// already comes back to be saved.
    pub(crate) fn pause(&mut self) {
        self.seed = self.seed.map(|seed| seed + 1);
        if let Some(losing) = self.losing.take() {
            losing.finish();
        }
    }

    /// Counts what was brought back in a simulation that is over.
    pub(crate) fn note(&mut self, main: &MpMain<ScenarioMessage>) {
        self.recoveries += recoveries(main);
    }

    /// Starts again.
    pub(crate) fn go_on(&mut self, main: &MpMain<ScenarioMessage>) {
        self.losing = self.seed.map(|seed| Losing::of(main, seed));
    }

    /// Ends it. Returns how many clusters were brought back in all.
    pub(crate) fn finish(mut self, main: Option<&MpMain<ScenarioMessage>>) -> usize {
        if let Some(losing) = self.losing.take() {
            losing.finish();
        }
        self.recoveries + main.map_or(0, recoveries)
    }
}

fn recoveries(main: &MpMain<ScenarioMessage>) -> usize {
    main.controller().status().recoveries.len()
}

fn lose(
    controller: &Controller<ScenarioMessage>,
    mut dice: AgentRng,
    is_over: &mpsc::Receiver<()>,
) {
    // By cluster: its process that was killed last, and where the cluster stood when it was back.
    let mut last: BTreeMap<String, (u32, Option<(SimTime, u64)>)> = BTreeMap::new();
    for _ in 0..MOST {
        let wait = Duration::from_micros(dice.random_range(0..1_500));
        if is_over.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let status = controller.status();
        if status.state == RunState::Ended {
            return;
        }
        // Two deaths at one grant would be taken for its fault, so a cluster has to get on first.
        let victims = status.clusters.iter().filter(|cluster| {
            let now = (cluster.time, cluster.delivered);
            match last.get_mut(&cluster.name) {
                None => cluster.pid != 0,
                Some((killed, _)) if *killed == cluster.pid => false,
                Some((_, back)) => *back.get_or_insert(now) != now,
            }
        });
        let victims: Vec<_> = victims.collect();
        if victims.is_empty() {
            continue;
        }
        let victim = victims[dice.random_range(0..victims.len())];
        last.insert(victim.name.clone(), (victim.pid, None));
        if let Some(pid) = i32::try_from(victim.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
