//! The status of a simulation, which other threads can read at once during a run.
//!
//! ```text
//! the thread that runs ── numbers ──► StatusSnapshot ──► Status (any thread)
//! clusters ── ClusterActivity, or an answer over the control line ──► Glance ──┘ (who has a moment)
//! ```
//!
//! **Invariant:** a reader never waits for the thread that runs, and the thread that runs never
//! waits for a reader.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use maslite_core::clock::wall;
use maslite_core::internal::LockEvenPoisoned;
use serde::{Deserialize, Serialize};

use crate::error::recovery::{Dropped, Recovered, nanos};
use crate::stall::detector::{Probe, ProbeAnswer};
use crate::stall::meter::Spent;

/// The state of a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RunState {
    /// No run goes on.
    #[default]
    Resting,
    /// A run goes on.
    Running,
    /// A run is paused.
    Paused,
    /// The simulation has ended.
    Ended,
}

impl RunState {
    const ALL: [Self; 4] = [Self::Resting, Self::Running, Self::Paused, Self::Ended];
}

/// The status of a simulation. In JSON, times are whole nanoseconds, and fields have the names in
/// brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The state.
    pub state: RunState,
    /// The simulated time (`time_ns`). While a cluster runs alone, the time of its last report, or
    /// of its answer if it was asked.
    #[serde(rename = "time_ns")]
    pub time: SimTime,
    /// The simulated time at which the run began (`start_ns`); between runs, that of the last run.
    #[serde(rename = "start_ns")]
    pub start: SimTime,
    /// The time limit of the run, if it has one (`end_ns`).
    #[serde(rename = "end_ns")]
    pub end: Option<SimTime>,
    /// The duration of the run so far \[wall\] (`wall_ns`); between runs, the duration of the last
    /// run.
    #[serde(rename = "wall_ns", with = "nanos")]
    pub wall: Duration,
    /// Supersteps since the simulation began.
    pub supersteps: u64,
    /// The number of mails that agents and main took in this run.
    pub events: u64,
    /// The clusters that have been started, those that were dropped among them.
    pub clusters: Vec<ClusterStatus>,
    /// The clusters that lost their processes and were brought back, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<Recovered>,
    /// The clusters that lost their processes and were dropped, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
}

/// The status of a cluster. Times are of the present run, or of the last one. The numbers of mails
/// count from the start of the simulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// The id of its process.
    pub pid: u32,
    /// The simulated time of its last report, or of its answer (`time_ns`).
    #[serde(rename = "time_ns")]
    pub time: SimTime,
    /// The number of mails that its agents had taken by then.
    pub delivered: u64,
    /// Whether main waits for its next report.
    pub at_work: bool,
    /// The agent at work, by name or number; none if no agent is at work or the cluster was not
    /// asked.
    pub agent: Option<String>,
    /// The number of agents that were awake in its last superstep.
    pub awake: u64,
    /// The number of mails from other clusters and main.
    pub mail_in: u64,
    /// The number of mails to other clusters and main.
    pub mail_out: u64,
    /// The time for which it worked \[wall\] (`busy_ns`).
    #[serde(rename = "busy_ns", with = "nanos")]
    pub busy: Duration,
    /// The time for which it had work, but had to wait for other clusters \[wall\] (`blocked_ns`).
    #[serde(rename = "blocked_ns", with = "nanos")]
    pub blocked: Duration,
    /// The time for which it had no work \[wall\] (`waiting_ns`).
    #[serde(rename = "waiting_ns", with = "nanos")]
    pub waiting: Duration,
    /// The memory in use by its process \[bytes\]; none inline, on systems that do not tell it, and
    /// if the cluster was not asked.
    pub memory: Option<u64>,
}

impl Status {
    /// Returns the finished share of the run, from 0 to 1, if it has a limit of simulated time.
    #[must_use]
    pub fn share_done(&self) -> Option<f64> {
        let whole = self.end?.since(self.start).as_secs_f64();
        let done = self.time.since(self.start).as_secs_f64();
        (whole > 0.0).then(|| (done / whole).min(1.0))
    }

    /// Returns simulated time divided by wall time in this run.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.time.since(self.start).as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// Returns the number of mails taken per second of wall time in this run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub fn events_per_s(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// Returns the names of the clusters for which simulated time waits: the clusters at work that
    /// are the farthest behind. Empty if no run goes on, or main itself is at work.
    #[must_use]
    pub fn blockers(&self) -> Vec<&str> {
        if self.state != RunState::Running {
            return Vec::new();
        }
        let at_work = self.clusters.iter().filter(|cluster| cluster.at_work);
        let least = at_work.clone().map(|cluster| cluster.time).min();
        at_work
            .filter(|cluster| Some(cluster.time) == least)
            .map(|cluster| cluster.name.as_str())
            .collect()
    }

    /// Adds what clusters say of themselves, and where main stands.
    pub(crate) fn glance(&mut self, probes: &[Probe], time: SimTime) {
        for (cluster, probe) in self.clusters.iter_mut().zip(probes) {
            cluster.memory = probe.memory;
            let ProbeAnswer::Answered { busy, sample } = probe.answer else {
                continue;
            };
            // It may have reported since it was asked.
            cluster.time = cluster.time.max(sample.time);
            let before = cluster.delivered;
            cluster.delivered = before.max(sample.delivered);
            self.events += cluster.delivered - before;
            if busy {
                cluster.awake = sample.awake;
                let working = sample.phase.and(sample.agent);
                cluster.agent = working.map(|agent| agent.to_string());
            }
            cluster.at_work = busy;
        }
        self.time = self.time.max(time);
        // A cluster that runs ahead under a lookahead is not where the simulation is. If no cluster
        // is at work just now, all have come as far as they may, and a cluster with nothing to do
        // is behind.
        let at_work = self.clusters.iter().filter(|cluster| cluster.at_work);
        let least = at_work.map(|cluster| cluster.time).min();
        let farthest = self.clusters.iter().map(|cluster| cluster.time).max();
        self.time = self.time.max(least.or(farthest).unwrap_or_default());
    }
}

/// What main writes down as it goes if there is a controller, which may read it at once. A reader
/// sees each number as it was a moment ago, not all of one moment.
#[derive(Debug)]
pub(crate) struct StatusSnapshot {
    /// From which moments are counted.
    epoch: Instant,
    state: AtomicU8,
    time: AtomicU64,
    supersteps: AtomicU64,
    delivered_by_main: AtomicU64,
    run: Mutex<RunSnapshot>,
    clusters: Mutex<Vec<Arc<ClusterSnapshot>>>,
    recoveries: Mutex<Vec<Recovered>>,
    dropped: Mutex<Vec<Dropped>>,
}

/// What stays the same in a run.
#[derive(Clone, Copy, Debug)]
struct RunSnapshot {
    began: Instant,
    /// How long it took, once it is over.
    took: Option<Duration>,
    start: SimTime,
    end: Option<SimTime>,
    /// What had been delivered before it.
    delivered: u64,
}

/// The same of one cluster.
#[derive(Debug)]
pub(crate) struct ClusterSnapshot {
    name: String,
    epoch: Instant,
    pid: AtomicU32,
    time: AtomicU64,
    delivered: AtomicU64,
    at_work: AtomicBool,
    /// When it was last given something to do.
    granted: AtomicU64,
    awake: AtomicU64,
    mail_in: AtomicU64,
    mail_out: AtomicU64,
    busy: AtomicU64,
    blocked: AtomicU64,
    waiting: AtomicU64,
    /// Until when these three are.
    until: AtomicU64,
    has_plans: AtomicBool,
}

/// What one report told of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) time: SimTime,
    pub(crate) delivered: u64,
    pub(crate) awake: u64,
    pub(crate) mail: (u64, u64),
    pub(crate) spent: Spent,
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl ClusterSnapshot {
    pub(crate) fn lives_in(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// It is given something to do.
    pub(crate) fn begins(&self) {
        let now = nanos_of(wall().saturating_duration_since(self.epoch));
        self.granted.store(now, Ordering::Relaxed);
        self.at_work.store(true, Ordering::Relaxed);
    }

    /// It has done it.
    pub(crate) fn stands(&self, account: Account) {
        let Account {
            time,
            delivered,
            awake,
            mail: (mail_in, mail_out),
            spent,
        } = account;
        let until = spent.until.saturating_duration_since(self.epoch);
        for (number, value) in [
            (&self.time, time.as_nanos()),
            (&self.delivered, delivered),
            (&self.awake, awake),
            (&self.mail_in, mail_in),
            (&self.mail_out, mail_out),
            (&self.busy, nanos_of(spent.busy)),
            (&self.blocked, nanos_of(spent.blocked)),
            (&self.waiting, nanos_of(spent.waiting)),
            (&self.until, nanos_of(until)),
        ] {
            number.store(value, Ordering::Relaxed);
        }
        self.has_plans.store(spent.has_plans, Ordering::Relaxed);
        self.at_work.store(false, Ordering::Relaxed);
    }

    /// `now`: how long after the epoch \[ns\]; none if no run goes on, so that no time passes.
    fn read(&self, now: Option<u64>) -> ClusterStatus {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let at_work = self.at_work.load(Ordering::Relaxed);
        let [mut busy, mut blocked, mut waiting] =
            [&self.busy, &self.blocked, &self.waiting].map(number);
        if let Some(now) = now {
            let until = number(&self.until);
            let granted = if at_work { number(&self.granted) } else { now };
            let rested = granted.saturating_sub(until);
            if self.has_plans.load(Ordering::Relaxed) {
                blocked += rested;
            } else {
                waiting += rested;
            }
            busy += now.saturating_sub(granted.max(until));
        }
        ClusterStatus {
            name: self.name.clone(),
            pid: self.pid.load(Ordering::Relaxed),
            time: SimTime::from_nanos(number(&self.time)),
            delivered: number(&self.delivered),
            at_work,
            agent: None,
            awake: number(&self.awake),
            mail_in: number(&self.mail_in),
            mail_out: number(&self.mail_out),
            busy: Duration::from_nanos(busy),
            blocked: Duration::from_nanos(blocked),
            waiting: Duration::from_nanos(waiting),
            memory: None,
        }
    }
}

impl Default for StatusSnapshot {
    fn default() -> Self {
        let epoch = wall();
        Self {
            epoch,
            state: AtomicU8::default(),
            time: AtomicU64::default(),
            supersteps: AtomicU64::default(),
            delivered_by_main: AtomicU64::default(),
            run: Mutex::new(RunSnapshot {
                began: epoch,
                took: Some(Duration::ZERO),
                start: SimTime::ZERO,
                end: None,
                delivered: 0,
            }),
            clusters: Mutex::default(),
            recoveries: Mutex::default(),
            dropped: Mutex::default(),
        }
    }
}

impl StatusSnapshot {
    pub(crate) fn add(&self, name: String) -> Arc<ClusterSnapshot> {
        let cluster = Arc::new(ClusterSnapshot {
            name,
            epoch: self.epoch,
            pid: AtomicU32::default(),
            time: AtomicU64::default(),
            delivered: AtomicU64::default(),
            at_work: AtomicBool::default(),
            granted: AtomicU64::default(),
            awake: AtomicU64::default(),
            mail_in: AtomicU64::default(),
            mail_out: AtomicU64::default(),
            busy: AtomicU64::default(),
            blocked: AtomicU64::default(),
            waiting: AtomicU64::default(),
            until: AtomicU64::default(),
            has_plans: AtomicBool::default(),
        });
        self.clusters().push(Arc::clone(&cluster));
        cluster
    }

    /// A run begins, or has ended after so long.
    pub(crate) fn note_run(&self, start: SimTime, end: Option<SimTime>, delivered: u64) {
        *self.run() = RunSnapshot {
            began: wall(),
            took: None,
            start,
            end,
            delivered,
        };
    }

    pub(crate) fn note_end_of_run(&self) {
        let mut run = self.run();
        let took = wall().saturating_duration_since(run.began);
        run.took.get_or_insert(took);
    }

    #[inline]
    pub(crate) fn stands(&self, time: SimTime, supersteps: u64, delivered_by_main: u64) {
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.supersteps.store(supersteps, Ordering::Relaxed);
        let delivered = &self.delivered_by_main;
        delivered.store(delivered_by_main, Ordering::Relaxed);
    }

    /// For how long the run goes on, or how long the last one took.
    pub(crate) fn wall(&self) -> Duration {
        let run = self.run();
        run.took
            .unwrap_or_else(|| wall().saturating_duration_since(run.began))
    }

    #[cfg(test)]
    /// As if a run had taken so long.
    pub(crate) fn set_wall(&self, took: Duration) {
        self.run().took = Some(took);
    }

    pub(crate) fn show(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Status {
        let state = usize::from(self.state.load(Ordering::Relaxed));
        let run = *self.run();
        let now = wall();
        let epochs = nanos_of(now.saturating_duration_since(self.epoch));
        let passing = run.took.is_none().then_some(epochs);
        let clusters: Vec<_> = self
            .clusters()
            .iter()
            .map(|cluster| cluster.read(passing))
            .collect();
        let delivered: u64 = clusters.iter().map(|cluster| cluster.delivered).sum();
        let delivered = delivered + self.delivered_by_main.load(Ordering::Relaxed);
        Status {
            state: RunState::ALL[state],
            time: SimTime::from_nanos(self.time.load(Ordering::Relaxed)),
            start: run.start,
            end: run.end,
            wall: run
                .took
                .unwrap_or_else(|| now.saturating_duration_since(run.began)),
            supersteps: self.supersteps.load(Ordering::Relaxed),
            events: delivered.saturating_sub(run.delivered),
            clusters,
            recoveries: self.recoveries().clone(),
            dropped: self.dropped.lock_even_poisoned().clone(),
        }
    }

    /// A cluster was brought back.
    pub(crate) fn note_recovery(&self, recovered: Recovered) {
        self.recoveries().push(recovered);
    }

    /// A cluster was dropped.
    pub(crate) fn note_drop(&self, dropped: Dropped) {
        self.dropped.lock_even_poisoned().push(dropped);
    }

    fn recoveries(&self) -> MutexGuard<'_, Vec<Recovered>> {
        self.recoveries.lock_even_poisoned()
    }

    fn run(&self) -> MutexGuard<'_, RunSnapshot> {
        self.run.lock_even_poisoned()
    }

    fn clusters(&self) -> MutexGuard<'_, Vec<Arc<ClusterSnapshot>>> {
        self.clusters.lock_even_poisoned()
    }
}

/// The memory that a process has in use \[bytes\], where the system tells.
pub(crate) fn memory_of(pid: u32) -> Option<u64> {
    // Linux only: sizes in pages, the second one of what is resident.
    let sizes = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident: u64 = sizes.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}
