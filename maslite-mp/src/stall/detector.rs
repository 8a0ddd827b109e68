//! Finds out which cluster blocks simulated time when it stands still.
//!
//! ```text
//! agents' threads ── Progress, busy ──► ClusterActivity ─┐ (of this process, or told over the control line)
//! main's thread ── time, state ───────► MainActivity ────┼─► StallDetector, on the supervisor thread ──► Warning
//! ```
//!
//! Those who work only store numbers. The detector compares two looks, half the limit apart; it
//! looks at main first, which costs nothing, and at the clusters only if main's time has not moved.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use maslite_core::internal::{Progress, Sample};

use crate::error::warning::{Activity, Limit, Standstill, TimeBlocker, Warning};
use crate::settings::timing::{ANSWER_LIMIT, LEAST_STALL_LIMIT, WARNING_AFTER};

/// What a cluster shows of itself.
#[derive(Debug, Default)]
pub(crate) struct ClusterActivity {
    pub(crate) progress: Arc<Progress>,
    /// It does what main asked for. Otherwise it waits for main.
    busy: AtomicBool,
}

impl ClusterActivity {
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) fn look(&self) -> (bool, Sample) {
        (self.busy.load(Ordering::Relaxed), self.progress.sample())
    }

    pub(crate) fn answer(&self) -> ProbeAnswer {
        let (busy, sample) = self.look();
        ProbeAnswer::Answered { busy, sample }
    }

    /// How a cluster of this process looks.
    pub(crate) fn probe(&self, cluster: &str) -> Probe {
        Probe {
            cluster: cluster.to_owned(),
            pid: None,
            answer: self.answer(),
            debugger: None,
            memory: None,
        }
    }
}

/// What main shows of itself.
#[derive(Debug, Default)]
pub(crate) struct MainActivity {
    time: AtomicU64,
    main_state: AtomicU64,
    /// Counts the chores, so that a long one is told from many of a kind.
    turn: AtomicU64,
}

/// What main is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MainState {
    Routing,
    Handler,
    Predicate,
    Trace,
    /// It is paused, and waits for who steers it.
    Pause,
    /// It waits for an answer of the cluster at this place.
    WaitFor(usize),
    /// It sends to the cluster at this place, which may have to make room for it.
    SendTo(usize),
}

impl MainState {
    /// The place of the cluster without which main does not go on.
    fn awaited(self) -> Option<usize> {
        match self {
            Self::WaitFor(place) | Self::SendTo(place) => Some(place),
            _ => None,
        }
    }
}

impl MainActivity {
    pub(crate) fn set(&self, main_state: MainState, time: SimTime) {
        let main_state = match main_state {
            MainState::Routing => 0,
            MainState::Handler => 1,
            MainState::Predicate => 2,
            MainState::Trace => 3,
            MainState::Pause => 4,
            MainState::WaitFor(place) => 5 + 2 * place as u64,
            MainState::SendTo(place) => 6 + 2 * place as u64,
        };
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.main_state.store(main_state, Ordering::Relaxed);
        // One thread writes, so this needs no atomic addition.
        let turn = self.turn.load(Ordering::Relaxed) + 1;
        self.turn.store(turn, Ordering::Relaxed);
    }

    pub(crate) fn time(&self) -> SimTime {
        SimTime::from_nanos(self.time.load(Ordering::Relaxed))
    }

    fn main_state(&self) -> MainState {
        match self.main_state.load(Ordering::Relaxed) {
            0 => MainState::Routing,
            1 => MainState::Handler,
            2 => MainState::Predicate,
            3 => MainState::Trace,
            4 => MainState::Pause,
            other => {
                let place = usize::try_from((other - 5) / 2).unwrap_or(usize::MAX);
                if other % 2 == 1 {
                    MainState::WaitFor(place)
                } else {
                    MainState::SendTo(place)
                }
            }
        }
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }
}

/// What a cluster says of itself when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAnswer {
    Answered {
        busy: bool,
        sample: Sample,
    },
    /// It does not answer, and this is what the system says of it.
    Silent(Activity),
}

/// What one look sees of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) cluster: String,
    /// None inline.
    pub(crate) pid: Option<u32>,
    pub(crate) answer: ProbeAnswer,
    pub(crate) debugger: Option<u32>,
    /// The memory that its process has in use \[bytes\]; none inline.
    pub(crate) memory: Option<u64>,
}

/// Something seen, and when it was first seen like this.
#[derive(Clone, Copy, Debug)]
struct Seen<T> {
    what: T,
    first: Instant,
    /// Since when it counts against the limits: not while a debugger is attached.
    counts: Instant,
    /// What the look before saw instead, if it saw something else.
    before: Option<T>,
}

impl<T> Seen<T> {
    fn new(what: T, now: Instant) -> Self {
        Self {
            what,
            first: now,
            counts: now,
            before: None,
        }
    }
}

/// Gets warnings.
pub(crate) type WarningSink = Box<dyn FnMut(&Warning) + Send>;

/// How long \[wall\] is too long. None: nothing is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For simulated time to stand still, before there is a warning.
    pub(crate) warning: Option<Duration>,
    /// For one call of an agent.
    pub(crate) update: Option<Duration>,
    /// For a cluster to say nothing, or to do nothing, while main waits for it.
    pub(crate) answer: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            warning: Some(WARNING_AFTER),
            update: None,
            answer: Some(ANSWER_LIMIT),
        }
    }
}

/// Compares looks, warns, and finds who is over a limit.
pub(crate) struct StallDetector {
    patience: Patience,
    sink: Arc<Mutex<WarningSink>>,
    main_activity: Arc<MainActivity>,
    /// The clusters of this process.
    pub(crate) inline: Vec<(String, Arc<ClusterActivity>)>,
    stand: Option<Stand>,
    /// What main is at, and its turn.
    main: Option<Seen<(MainState, u64)>>,
    clusters: Vec<Option<Seen<ProbeAnswer>>>,
}

/// An instant at which a run stands.
#[derive(Clone, Copy, Debug)]
struct Stand {
    run: u64,
    /// Where main stood.
    time: SimTime,
    since: Instant,
    /// When the next look is due, to find out that this process was stopped itself.
    due: Instant,
    /// How often it was warned of.
    warned: u32,
}

impl StallDetector {
    pub(crate) fn new(
        patience: Patience,
        sink: Option<WarningSink>,
        main_activity: Arc<MainActivity>,
    ) -> Self {
        let least = |limit: Option<Duration>| limit.map(|limit| limit.max(LEAST_STALL_LIMIT));
        Self {
            patience: Patience {
                warning: least(patience.warning),
                update: least(patience.update),
                answer: least(patience.answer),
            },
            sink: Arc::new(Mutex::new(sink.unwrap_or_else(|| Box::new(write_down)))),
            main_activity,
            inline: Vec::new(),
            stand: None,
            main: None,
            clusters: Vec::new(),
        }
    }

    /// The time between two looks. After two of them it may be time for a warning. For a limit
    /// there are more: the first finds that main stands, the second what its clusters are at.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let Patience {
            warning,
            update,
            answer,
        } = self.patience;
        let parts = [
            warning.map(|limit| limit / 2),
            update.map(|limit| limit / 4),
            answer.map(|limit| limit / 4),
        ];
        let shortest = parts.into_iter().flatten().min();
        shortest.map(|part| part + Duration::from_nanos(1))
    }

    /// Where main stands in simulated time.
    pub(crate) fn time_of_main(&self) -> SimTime {
        self.main_activity.time()
    }

    /// Looks at main. True if time has moved there, or if nothing can be said yet: then the
    /// standstill, if it is one, begins now.
    pub(crate) fn main_moves(&mut self, run: u64, now: Instant) -> bool {
        let Some(interval) = self.interval() else {
            return true;
        };
        let time = self.main_activity.time();
        let due = now.checked_add(interval).unwrap_or(now);
        if let Some(stand) = &mut self.stand
            && (stand.run, stand.time) == (run, time)
            && self.main_activity.main_state() != MainState::Pause
            // If a look comes very late, the clusters perhaps got no processor time either.
            && now.saturating_duration_since(stand.due) <= interval
        {
            stand.due = due;
            return false;
        }
        self.begin(run, time, now, due);
        self.clusters.clear();
        self.main = None;
        true
    }

    fn begin(&mut self, run: u64, time: SimTime, now: Instant, due: Instant) {
        self.stand = Some(Stand {
            run,
            time,
            since: now,
            due,
            warned: 0,
        });
    }

    /// Looks at the clusters, when main's time has not moved. Some if it is time to warn.
    pub(crate) fn consider(&mut self, probes: &[Probe], now: Instant) -> Option<Standstill> {
        let stand = self.stand?;
        let moved = probes.iter().enumerate().any(|(place, probe)| {
            let before = match self.clusters.get(place) {
                Some(Some(Seen {
                    what: ProbeAnswer::Answered { sample, .. },
                    ..
                })) => sample.time,
                _ => stand.time,
            };
            matches!(probe.answer, ProbeAnswer::Answered { sample, .. } if sample.time > before)
        });
        self.note(probes, now);
        if moved {
            self.begin(stand.run, stand.time, now, stand.due);
            return None;
        }
        let stood = now.saturating_duration_since(stand.since);
        let limit = self.patience.warning?;
        let limit = limit.checked_mul(1 << stand.warned.min(30))?;
        if stood < limit {
            return None;
        }
        self.stand = Some(Stand {
            warned: stand.warned + 1,
            ..stand
        });
        let (blockers, waiting) = self.blockers(probes, now);
        let times = blockers.iter().filter_map(|blocker| blocker.time);
        Some(Standstill {
            time: times.min().unwrap_or_else(|| self.main_activity.time()),
            stood,
            blockers,
            waiting,
        })
    }

    /// Keeps what was seen, to be compared with the next look.
    pub(crate) fn note(&mut self, probes: &[Probe], now: Instant) {
        let main_state = (self.main_activity.main_state(), self.main_activity.turn());
        if self.main.is_none_or(|seen| seen.what != main_state) {
            self.main = Some(Seen::new(main_state, now));
        }
        self.clusters.resize(probes.len(), None);
        for (seen, probe) in self.clusters.iter_mut().zip(probes) {
            let mut next = match *seen {
                Some(seen) if seen.what == probe.answer => Seen {
                    before: None,
                    ..seen
                },
                before => Seen {
                    before: before.map(|seen| seen.what),
                    ..Seen::new(probe.answer, now)
                },
            };
            if probe.debugger.is_some() {
                next.counts = now;
            }
            *seen = Some(next);
        }
    }

    /// Which cluster is over a limit, by what was noted last. Those of this process never are: they
    /// could not be ended.
    pub(crate) fn overdue(&self, probes: &[Probe], now: Instant) -> Option<(Limit, TimeBlocker)> {
        let main = self.main?;
        let (main_state, _) = main.what;
        let waited = now.saturating_duration_since(main.first);
        let clusters = probes.iter().zip(self.clusters.iter().flatten());
        clusters.enumerate().find_map(|(place, (probe, seen))| {
            probe.pid?;
            let lasted = now.saturating_duration_since(seen.counts);
            let (limit, blocker) = match probe.answer {
                ProbeAnswer::Answered { busy: true, sample } => {
                    sample.phase?;
                    (
                        Limit::Update(self.patience.update?),
                        probe.blocker(seen, now)?,
                    )
                }
                ProbeAnswer::Answered { busy: false, .. }
                    if main_state == MainState::WaitFor(place) =>
                {
                    let limit = Limit::Answer(self.patience.answer?);
                    (limit, probe.as_blocker(Activity::Idle))
                }
                ProbeAnswer::Silent(activity) if main_state.awaited() == Some(place) => (
                    Limit::Answer(self.patience.answer?),
                    probe.as_blocker(activity),
                ),
                _ => return None,
            };
            let (lasted, least) = match limit {
                Limit::Answer(limit) => (lasted.min(waited), limit),
                Limit::Update(limit) | Limit::Rest(limit) => (lasted, limit),
            };
            let since = lasted;
            (lasted >= least).then_some((limit, TimeBlocker { since, ..blocker }))
        })
    }

    /// Who blocks simulated time, by what was noted last, and the names of those who wait.
    pub(crate) fn blockers(
        &self,
        probes: &[Probe],
        now: Instant,
    ) -> (Vec<TimeBlocker>, Vec<String>) {
        let (mut blockers, mut waiting) = (Vec::new(), Vec::new());
        let mut somebody_works = false;
        let awaited = self.main_activity.main_state().awaited();
        for (probe, seen) in probes.iter().zip(self.clusters.iter().flatten()) {
            let blocker = probe.blocker(seen, now);
            somebody_works |=
                matches!(probe.answer, ProbeAnswer::Answered { .. }) && blocker.is_some();
            match blocker {
                Some(blocker) => blockers.push(blocker),
                None => waiting.push(probe.cluster.clone()),
            }
        }
        if let Some(place) = awaited
            && let Some(probe) = probes.get(place)
            && blockers.is_empty()
        {
            waiting.remove(place);
            blockers.push(probe.as_blocker(Activity::Pending));
        }
        if awaited.is_none() && !somebody_works {
            blockers.insert(0, self.main_as_blocker(now));
        }
        (blockers, waiting)
    }

    fn main_as_blocker(&self, now: Instant) -> TimeBlocker {
        let main_state = self.main_activity.main_state();
        let seen = self.main.filter(|seen| seen.what.0 == main_state);
        TimeBlocker {
            cluster: None,
            pid: None,
            activity: match main_state {
                MainState::Handler => Activity::Handler,
                MainState::Predicate => Activity::Predicate,
                MainState::Trace => Activity::Trace,
                MainState::Routing
                | MainState::Pause
                | MainState::WaitFor(_)
                | MainState::SendTo(_) => Activity::Routing,
            },
            agent: None,
            time: Some(self.main_activity.time()),
            superstep: None,
            since: seen.map_or(Duration::ZERO, |seen| {
                now.saturating_duration_since(seen.first)
            }),
            debugger: None,
        }
    }

    /// Hands out a warning, in a thread of its own: the program's handler may block, and the
    /// supervisor must not. One of a standstill that comes while the last one is still being taken
    /// is dropped.
    pub(crate) fn warn(&self, warning: Warning) {
        let sink = Arc::clone(&self.sink);
        // Without a thread there is no warning, and nothing else is amiss.
        let _ = thread::Builder::new()
            .name("maslite-warning".to_owned())
            .spawn(move || {
                let sink = match &warning {
                    Warning::Standstill(_) => sink.try_lock().ok(),
                    Warning::Recovered(_)
                    | Warning::Dropped(_)
                    | Warning::LogFull { .. }
                    | Warning::RecordStopped { .. }
                    | Warning::NotSaved { .. } => sink.lock().ok(),
                };
                if let Some(mut sink) = sink {
                    sink(&warning);
                }
            });
    }
}

impl Default for StallDetector {
    fn default() -> Self {
        let patience = Patience {
            warning: None,
            update: None,
            answer: None,
        };
        Self::new(patience, None, Arc::default())
    }
}

impl fmt::Debug for StallDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StallDetector")
            .field("patience", &self.patience)
            .field("stand", &self.stand)
            .finish_non_exhaustive()
    }
}

/// Writes a warning to stderr: the handler of a program that sets none.
pub(crate) fn write_down(warning: &Warning) {
    // In one piece, so that no other line comes between. If the stream is closed, the line is lost.
    let _ = io::stderr().write_all(format!("warning: {warning}\n").as_bytes());
}

impl Probe {
    /// How this cluster blocks simulated time, if it does.
    fn blocker(&self, seen: &Seen<ProbeAnswer>, now: Instant) -> Option<TimeBlocker> {
        let (busy, sample) = match self.answer {
            ProbeAnswer::Answered { busy, sample } => (busy, sample),
            ProbeAnswer::Silent(activity) => return Some(self.as_blocker(activity)),
        };
        let passed = match seen.before {
            Some(ProbeAnswer::Answered { sample: before, .. }) if before.time == sample.time => {
                sample.superstep.saturating_sub(before.superstep)
            }
            _ => 0,
        };
        let activity = match sample.phase {
            // One superstep may just have been its last.
            _ if passed > 1 => Activity::Exchange { supersteps: passed },
            Some(phase) if busy => Activity::InAgent(phase),
            None if busy => Activity::Kernel,
            _ => return None,
        };
        Some(TimeBlocker {
            agent: sample.agent,
            time: Some(sample.time),
            superstep: Some(sample.superstep),
            since: now.saturating_duration_since(seen.first),
            ..self.as_blocker(activity)
        })
    }

    fn as_blocker(&self, activity: Activity) -> TimeBlocker {
        TimeBlocker {
            cluster: Some(self.cluster.clone()),
            pid: self.pid,
            activity,
            agent: None,
            time: None,
            superstep: None,
            since: Duration::ZERO,
            debugger: self.debugger,
        }
    }
}

/// Tells people how far a run has come, when the supervisor looks at it.
pub(crate) trait ProgressLines: fmt::Debug + Send {
    /// How long after a look the next one is due.
    fn interval(&self) -> Duration;

    /// Whether a line is due, in a run that goes on.
    fn is_due(&mut self, run: u64) -> bool;

    /// Tells how a run stands, as seen just now; main stands at `time`.
    fn tell(&self, probes: &[Probe], time: SimTime);
}

#[cfg(test)]
mod tests;
