//! Finds out who holds the clock when simulated time stands still.
//!
//! ```text
//! agents' threads ── Progress, busy ──► Pulse ─┐ (of this process, or told over the control line)
//! main's thread ── time, chore ───────► Desk ──┼─► Lookout, on the supervisor thread ──► Warning
//! ```
//!
//! Those who work only store numbers. The lookout compares two looks, half the limit apart; it looks
//! at main first, which costs nothing, and at the clusters only if main's time has not moved.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use maslite_core::{Progress, Sample, SimTime};

use crate::warning::{Activity, ClockHolder, Warning};

/// What a cluster shows of itself.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    pub(crate) progress: Arc<Progress>,
    /// It does what main asked for. Otherwise it waits for main.
    busy: AtomicBool,
}

impl Pulse {
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) fn look(&self) -> (bool, Sample) {
        (self.busy.load(Ordering::Relaxed), self.progress.sample())
    }

    pub(crate) fn says(&self) -> Says {
        let (busy, sample) = self.look();
        Says::Fine { busy, sample }
    }
}

/// What main shows of itself.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    time: AtomicU64,
    chore: AtomicU64,
}

/// What main is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    Routing,
    Handler,
    Predicate,
    Trace,
    /// It is paused, and waits for who steers it.
    Pause,
    /// It waits for the cluster at this place.
    WaitFor(usize),
}

impl Desk {
    pub(crate) fn turn_to(&self, chore: Chore, time: SimTime) {
        let chore = match chore {
            Chore::Routing => 0,
            Chore::Handler => 1,
            Chore::Predicate => 2,
            Chore::Trace => 3,
            Chore::Pause => 4,
            Chore::WaitFor(place) => 5 + place as u64,
        };
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.chore.store(chore, Ordering::Relaxed);
    }

    fn time(&self) -> SimTime {
        SimTime::from_nanos(self.time.load(Ordering::Relaxed))
    }

    fn chore(&self) -> Chore {
        match self.chore.load(Ordering::Relaxed) {
            0 => Chore::Routing,
            1 => Chore::Handler,
            2 => Chore::Predicate,
            3 => Chore::Trace,
            4 => Chore::Pause,
            place => Chore::WaitFor(usize::try_from(place - 5).unwrap_or(usize::MAX)),
        }
    }
}

/// What a cluster says of itself when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Fine {
        busy: bool,
        sample: Sample,
    },
    /// It does not answer, and this is what the system says of it.
    Nothing(Activity),
}

/// What one look sees of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) cluster: String,
    /// None inline.
    pub(crate) pid: Option<u32>,
    pub(crate) says: Says,
    pub(crate) debugger: Option<u32>,
}

/// Something seen, and when it was first seen like this.
#[derive(Clone, Copy, Debug)]
struct Seen<T> {
    what: T,
    first: Instant,
    /// What the look before saw instead, if it saw something else.
    before: Option<T>,
}

/// Gets warnings.
pub(crate) type WarningSink = Box<dyn FnMut(&Warning) + Send>;

/// Compares looks, and warns.
pub(crate) struct Lookout {
    /// None: never.
    limit: Option<Duration>,
    sink: Arc<Mutex<WarningSink>>,
    desk: Arc<Desk>,
    /// The clusters of this process.
    pub(crate) inline: Vec<(String, Arc<Pulse>)>,
    stand: Option<Stand>,
    main: Option<Seen<Chore>>,
    clusters: Vec<Option<Seen<Says>>>,
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

/// No sooner than that, whatever was asked for.
const LEAST_LIMIT: Duration = Duration::from_millis(1);

impl Lookout {
    pub(crate) fn new(limit: Option<Duration>, sink: Option<WarningSink>, desk: Arc<Desk>) -> Self {
        Self {
            limit: limit.map(|limit| limit.max(LEAST_LIMIT)),
            sink: Arc::new(Mutex::new(sink.unwrap_or_else(|| Box::new(write_down)))),
            desk,
            inline: Vec::new(),
            stand: None,
            main: None,
            clusters: Vec::new(),
        }
    }

    /// The time between two looks: after two of them the limit has passed.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / 2 + Duration::from_nanos(1))
    }

    /// Looks at main. True if time has moved there, or if nothing can be said yet: then the
    /// standstill, if it is one, begins now.
    pub(crate) fn main_moves(&mut self, run: u64, now: Instant) -> bool {
        let Some(interval) = self.interval() else {
            return true;
        };
        let time = self.desk.time();
        let due = now.checked_add(interval).unwrap_or(now);
        if let Some(stand) = &mut self.stand
            && (stand.run, stand.time) == (run, time)
            && self.desk.chore() != Chore::Pause
            // A look that comes very late was kept from coming, and everybody else perhaps as well.
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
    pub(crate) fn consider(&mut self, sights: &[Sight], now: Instant) -> Option<Warning> {
        let stand = self.stand?;
        let moved = sights.iter().enumerate().any(|(place, sight)| {
            let before = match self.clusters.get(place) {
                Some(Some(Seen {
                    what: Says::Fine { sample, .. },
                    ..
                })) => sample.time,
                _ => stand.time,
            };
            matches!(sight.says, Says::Fine { sample, .. } if sample.time > before)
        });
        self.note(sights, now);
        if moved {
            self.begin(stand.run, stand.time, now, stand.due);
            return None;
        }
        let stood = now.saturating_duration_since(stand.since);
        let limit = self.limit?.checked_mul(1 << stand.warned.min(30))?;
        if stood < limit {
            return None;
        }
        self.stand = Some(Stand {
            warned: stand.warned + 1,
            ..stand
        });
        let (holders, waiting) = self.holders(sights, now);
        let times = holders.iter().filter_map(|holder| holder.time);
        Some(Warning {
            time: times.min().unwrap_or_else(|| self.desk.time()),
            stood,
            holders,
            waiting,
        })
    }

    /// Keeps what was seen, to be compared with the next look.
    pub(crate) fn note(&mut self, sights: &[Sight], now: Instant) {
        let chore = self.desk.chore();
        if self.main.is_none_or(|seen| seen.what != chore) {
            self.main = Some(Seen {
                what: chore,
                first: now,
                before: None,
            });
        }
        self.clusters.resize(sights.len(), None);
        for (seen, sight) in self.clusters.iter_mut().zip(sights) {
            *seen = Some(match *seen {
                Some(seen) if seen.what == sight.says => Seen {
                    before: None,
                    ..seen
                },
                before => Seen {
                    what: sight.says,
                    first: now,
                    before: before.map(|seen| seen.what),
                },
            });
        }
    }

    /// Who holds the clock, by what was noted last, and the names of those who wait.
    pub(crate) fn holders(
        &self,
        sights: &[Sight],
        now: Instant,
    ) -> (Vec<ClockHolder>, Vec<String>) {
        let (mut holders, mut waiting) = (Vec::new(), Vec::new());
        let mut somebody_works = false;
        let awaited = match self.desk.chore() {
            Chore::WaitFor(place) => Some(place),
            _ => None,
        };
        for (sight, seen) in sights.iter().zip(self.clusters.iter().flatten()) {
            let holder = sight.holder(seen, now);
            somebody_works |= matches!(sight.says, Says::Fine { .. }) && holder.is_some();
            match holder {
                Some(holder) => holders.push(holder),
                None => waiting.push(sight.cluster.clone()),
            }
        }
        if let Some(place) = awaited
            && let Some(sight) = sights.get(place)
            && holders.is_empty()
        {
            waiting.remove(place);
            holders.push(sight.hold(Activity::Pending));
        }
        if awaited.is_none() && !somebody_works {
            holders.insert(0, self.main_as_holder(now));
        }
        (holders, waiting)
    }

    fn main_as_holder(&self, now: Instant) -> ClockHolder {
        let chore = self.desk.chore();
        let seen = self.main.filter(|seen| seen.what == chore);
        ClockHolder {
            cluster: None,
            pid: None,
            activity: match chore {
                Chore::Handler => Activity::Handler,
                Chore::Predicate => Activity::Predicate,
                Chore::Trace => Activity::Trace,
                Chore::Routing | Chore::Pause | Chore::WaitFor(_) => Activity::Routing,
            },
            agent: None,
            time: Some(self.desk.time()),
            superstep: None,
            since: seen.map_or(Duration::ZERO, |seen| {
                now.saturating_duration_since(seen.first)
            }),
            debugger: None,
        }
    }

    /// Hands out a warning, in a thread of its own: whoever takes it may block, and the supervisor must not.
    /// One that comes while the last one is still being taken is dropped.
    pub(crate) fn warn(&self, warning: Warning) {
        let sink = Arc::clone(&self.sink);
        // Without a thread there is no warning, and nothing else is amiss.
        let _ = thread::Builder::new()
            .name("maslite-warning".to_owned())
            .spawn(move || {
                if let Ok(mut sink) = sink.try_lock() {
                    sink(&warning);
                }
            });
    }
}

impl Default for Lookout {
    fn default() -> Self {
        Self::new(None, None, Arc::default())
    }
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookout")
            .field("limit", &self.limit)
            .field("stand", &self.stand)
            .finish_non_exhaustive()
    }
}

/// What becomes of warnings if nobody asked for them.
fn write_down(warning: &Warning) {
    // In one piece, so that nobody else's line comes between; and who has closed the stream misses it.
    let _ = io::stderr().write_all(format!("warning: {warning}\n").as_bytes());
}

impl Sight {
    /// How this cluster holds the clock, if it does.
    fn holder(&self, seen: &Seen<Says>, now: Instant) -> Option<ClockHolder> {
        let (busy, sample) = match self.says {
            Says::Fine { busy, sample } => (busy, sample),
            Says::Nothing(activity) => return Some(self.hold(activity)),
        };
        let passed = match seen.before {
            Some(Says::Fine { sample: before, .. }) if before.time == sample.time => {
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
        Some(ClockHolder {
            agent: sample.agent,
            time: Some(sample.time),
            superstep: Some(sample.superstep),
            since: now.saturating_duration_since(seen.first),
            ..self.hold(activity)
        })
    }

    fn hold(&self, activity: Activity) -> ClockHolder {
        ClockHolder {
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

#[cfg(test)]
mod tests {
    use maslite_core::engine::Engine;
    use maslite_core::{Agent, AgentId, Phase};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const INTERVAL: Duration = Duration::from_nanos(2_500_000_001);

    /// A lookout with two clusters, of which only what they say is there.
    struct Scene {
        lookout: Lookout,
        now: Instant,
        says: [Says; 2],
    }

    #[test]
    fn a_paused_run_does_not_stand_still() {
        let desk = Arc::new(Desk::default());
        let mut lookout = Lookout::new(Some(LIMIT), None, Arc::clone(&desk));
        let mut now = crate::transport::now();
        desk.turn_to(Chore::Pause, SimTime::ZERO);
        for _ in 0..3 {
            assert!(lookout.main_moves(1, now));
            now += INTERVAL;
        }
        desk.turn_to(Chore::Routing, SimTime::ZERO);
        assert!(!lookout.main_moves(1, now));
    }

    fn at_rest() -> Says {
        Pulse::default().says()
    }

    fn at_work(time: u64, superstep: u64) -> Says {
        let mut sample = Progress::default().sample();
        sample.time = SimTime::from_secs(time);
        sample.superstep = superstep;
        sample.agent = Some(AgentId::from(3));
        sample.phase = Some(Phase::Update);
        Says::Fine { busy: true, sample }
    }

    impl Scene {
        fn new() -> Self {
            Self {
                lookout: Lookout::new(Some(LIMIT), None, Arc::default()),
                now: crate::transport::now(),
                says: [at_rest(); 2],
            }
        }

        /// The next look, so much later.
        fn look_after(&mut self, wait: Duration) -> Option<Warning> {
            self.now += wait;
            if self.lookout.main_moves(1, self.now) {
                return None;
            }
            let sights = self.says.map(|says| Sight {
                cluster: "a cluster".to_owned(),
                pid: None,
                says,
                debugger: None,
            });
            self.lookout.consider(&sights, self.now)
        }

        fn look(&mut self) -> Option<Warning> {
            self.look_after(INTERVAL)
        }

        fn main_at(&self, seconds: u64) {
            let time = SimTime::from_secs(seconds);
            self.lookout.desk.turn_to(Chore::WaitFor(0), time);
        }
    }

    #[test]
    fn a_standstill_is_warned_of_once_and_again_when_it_has_lasted_twice_as_long() {
        let mut scene = Scene::new();
        scene.says[0] = at_work(0, 0);
        let warned: Vec<_> = (0..20)
            .filter_map(|look| Some((look, scene.look()?)))
            .map(|(look, warning)| (look, warning.stood.as_secs(), warning.holders.len()))
            .collect();
        assert_eq!(warned, [(2, 5, 1), (4, 10, 1), (8, 20, 1), (16, 40, 1)]);
    }

    #[test]
    fn while_time_moves_anywhere_there_is_no_warning() {
        let mut scene = Scene::new();
        for second in 0..20 {
            scene.main_at(second);
            assert_eq!(scene.look(), None);
        }
        // Main waits for a cluster that runs on its own.
        for second in 20..40 {
            scene.says[1] = at_work(second, 0);
            assert_eq!(scene.look(), None, "{second}");
        }
        // And now it stands.
        assert_eq!(scene.look(), None);
        let warning = scene.look().unwrap();
        assert_eq!(warning.time, SimTime::from_secs(39));
        assert_eq!(warning.holders[0].since, INTERVAL * 2);
    }

    #[test]
    fn another_run_begins_anew_and_so_does_a_machine_that_slept() {
        let mut scene = Scene::new();
        scene.says[0] = at_work(0, 0);
        assert_eq!((scene.look(), scene.look()), (None, None));
        assert_eq!(scene.look_after(Duration::from_secs(3_600)), None);
        assert_eq!(scene.look(), None);
        assert!(scene.look().is_some());
        assert!(scene.lookout.main_moves(3, scene.now));
        assert!(
            Lookout::default().main_moves(3, scene.now),
            "it never warns"
        );
        assert_eq!(Lookout::default().interval(), None);
    }

    #[test]
    fn who_holds_the_clock_and_who_waits() {
        let activity_after = |before: Says, after: Says, chore: Chore| {
            let mut scene = Scene::new();
            scene.lookout.desk.turn_to(chore, SimTime::ZERO);
            scene.look();
            scene.says[0] = before;
            scene.look();
            scene.says[0] = after;
            let warning = scene.look().unwrap();
            let holders = warning.holders.iter().map(|holder| holder.activity);
            (holders.collect::<Vec<_>>(), warning.waiting.len())
        };
        let wait = Chore::WaitFor(0);
        let in_agent = Activity::InAgent(Phase::Update);
        let (one, two, nine) = (at_work(0, 1), at_work(0, 2), at_work(0, 9));
        assert_eq!(activity_after(one, one, wait), (vec![in_agent], 1));
        // One superstep more is no exchange yet.
        assert_eq!(activity_after(one, two, wait), (vec![in_agent], 1));
        let exchange = Activity::Exchange { supersteps: 8 };
        assert_eq!(activity_after(one, nine, wait), (vec![exchange], 1));
        let silent = Says::Nothing(Activity::Stopped);
        assert_eq!(
            activity_after(one, silent, wait),
            (vec![Activity::Stopped], 1)
        );
        let rest = at_rest();
        assert_eq!(
            activity_after(rest, rest, wait),
            (vec![Activity::Pending], 1)
        );
        let main = (vec![Activity::Predicate], 2);
        assert_eq!(activity_after(rest, rest, Chore::Predicate), main);
        let both = (vec![Activity::Handler, Activity::Stopped], 1);
        assert_eq!(activity_after(silent, silent, Chore::Handler), both);
    }

    #[test]
    fn a_busy_engine_without_an_agent_at_work_is_told_so() {
        #[derive(Clone, strum::IntoStaticStr)]
        enum Msg {}
        struct Quiet;
        impl Agent<Msg> for Quiet {}
        let pulse = Pulse::default();
        let mut engine = Engine::new(0);
        engine.add(AgentId::from(3), Box::new(Quiet)).unwrap();
        engine.show_progress(Arc::clone(&pulse.progress));
        engine.setup().unwrap();
        engine.step(10).unwrap();
        pulse.set_busy(true);
        let mut scene = Scene::new();
        scene.main_at(0);
        scene.says[1] = pulse.says();
        scene.look();
        scene.look();
        let warning = scene.look().unwrap();
        let holder = &warning.holders[0];
        assert_eq!(holder.activity, Activity::Kernel);
        assert_eq!(
            (holder.agent, holder.superstep),
            (Some(AgentId::from(3)), Some(1))
        );
    }
}
