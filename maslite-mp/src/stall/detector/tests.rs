use maslite_core::internal::Engine;
use maslite_core::{Agent, AgentId, Phase};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_nanos(2_500_000_001);
const PATIENCE: Patience = Patience {
    warning: Some(LIMIT),
    update: None,
    answer: None,
};

/// A detector with two clusters, of which only what they say is there.
struct Scene {
    detector: StallDetector,
    now: Instant,
    answer: [ProbeAnswer; 2],
    debugger: Option<u32>,
    overdue: Option<(Limit, TimeBlocker)>,
}

#[test]
fn a_paused_run_does_not_stand_still() {
    let main_activity = Arc::new(MainActivity::default());
    let mut detector = StallDetector::new(PATIENCE, None, Arc::clone(&main_activity));
    let mut now = crate::links::transport::now();
    main_activity.set(MainState::Pause, SimTime::ZERO);
    for _ in 0..3 {
        assert!(detector.main_moves(1, now));
        now += INTERVAL;
    }
    main_activity.set(MainState::Routing, SimTime::ZERO);
    assert!(!detector.main_moves(1, now));
}

fn at_rest() -> ProbeAnswer {
    ClusterActivity::default().answer()
}

fn at_work(time: u64, superstep: u64) -> ProbeAnswer {
    let mut sample = Progress::default().sample();
    sample.time = SimTime::from_secs(time);
    sample.superstep = superstep;
    sample.agent = Some(AgentId::from(3));
    sample.phase = Some(Phase::Update);
    ProbeAnswer::Answered { busy: true, sample }
}

impl Scene {
    fn new() -> Self {
        Self {
            detector: StallDetector::new(PATIENCE, None, Arc::default()),
            now: crate::links::transport::now(),
            answer: [at_rest(); 2],
            debugger: None,
            overdue: None,
        }
    }

    /// The next look, after this time.
    fn look_after(&mut self, wait: Duration) -> Option<Standstill> {
        self.now += wait;
        if self.detector.main_moves(1, self.now) {
            return None;
        }
        let probes = self.answer.map(|answer| Probe {
            memory: None,
            cluster: "a cluster".to_owned(),
            pid: Some(7),
            answer,
            debugger: self.debugger,
        });
        let warning = self.detector.consider(&probes, self.now);
        self.overdue = self.detector.overdue(&probes, self.now);
        warning
    }

    /// A scene with limits of 4 s, in which main waits for the first cluster.
    fn with_limits() -> Self {
        let mut scene = Self::new();
        scene.detector.patience = Patience {
            warning: None,
            update: Some(Duration::from_secs(4)),
            answer: Some(Duration::from_secs(4)),
        };
        scene.main_at(0);
        scene
    }

    /// The first of some looks, a second apart, at which a cluster is over a limit.
    fn overdue_at(&mut self, mut before: impl FnMut(&mut Self, usize)) -> Option<usize> {
        (0..12).find(|look| {
            before(self, *look);
            assert_eq!(self.look_after(Duration::from_secs(1)), None);
            self.overdue.is_some()
        })
    }

    fn look(&mut self) -> Option<Standstill> {
        self.look_after(INTERVAL)
    }

    fn main_at(&self, seconds: u64) {
        let time = SimTime::from_secs(seconds);
        self.detector.main_activity.set(MainState::WaitFor(0), time);
    }
}

#[test]
fn a_standstill_is_warned_of_once_and_again_when_it_has_lasted_twice_as_long() {
    let mut scene = Scene::new();
    scene.answer[0] = at_work(0, 0);
    let warned: Vec<_> = (0..20)
        .filter_map(|look| Some((look, scene.look()?)))
        .map(|(look, warning)| (look, warning.stood.as_secs(), warning.blockers.len()))
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
        scene.answer[1] = at_work(second, 0);
        assert_eq!(scene.look(), None, "{second}");
    }
    // And now it stands.
    assert_eq!(scene.look(), None);
    let warning = scene.look().unwrap();
    assert_eq!(warning.time, SimTime::from_secs(39));
    assert_eq!(warning.blockers[0].since, INTERVAL * 2);
}

#[test]
fn another_run_begins_anew_and_so_does_a_machine_that_slept() {
    let mut scene = Scene::new();
    scene.answer[0] = at_work(0, 0);
    assert_eq!((scene.look(), scene.look()), (None, None));
    assert_eq!(scene.look_after(Duration::from_secs(3_600)), None);
    assert_eq!(scene.look(), None);
    assert!(scene.look().is_some());
    assert!(scene.detector.main_moves(3, scene.now));
    assert!(
        StallDetector::default().main_moves(3, scene.now),
        "it never warns"
    );
    assert_eq!(StallDetector::default().interval(), None);
}

#[test]
fn who_holds_the_clock_and_who_waits() {
    let activity_after = |before: ProbeAnswer, after: ProbeAnswer, main_state: MainState| {
        let mut scene = Scene::new();
        scene.detector.main_activity.set(main_state, SimTime::ZERO);
        scene.look();
        scene.answer[0] = before;
        scene.look();
        scene.answer[0] = after;
        let warning = scene.look().unwrap();
        let blockers = warning.blockers.iter().map(|blocker| blocker.activity);
        (blockers.collect::<Vec<_>>(), warning.waiting.len())
    };
    let wait = MainState::WaitFor(0);
    let in_agent = Activity::InAgent(Phase::Update);
    let (one, two, nine) = (at_work(0, 1), at_work(0, 2), at_work(0, 9));
    assert_eq!(activity_after(one, one, wait), (vec![in_agent], 1));
    // One superstep more is no exchange yet.
    assert_eq!(activity_after(one, two, wait), (vec![in_agent], 1));
    let exchange = Activity::Exchange { supersteps: 8 };
    assert_eq!(activity_after(one, nine, wait), (vec![exchange], 1));
    let silent = ProbeAnswer::Silent(Activity::Stopped);
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
    assert_eq!(activity_after(rest, rest, MainState::Predicate), main);
    let both = (vec![Activity::Handler, Activity::Stopped], 1);
    assert_eq!(activity_after(silent, silent, MainState::Handler), both);
}

/// The first look finds that main stands, the second what the clusters are at; then four seconds
/// pass.
#[test]
fn who_takes_too_long_is_over_a_limit() {
    let silent = |activity| {
        (
            ProbeAnswer::Silent(activity),
            Limit::Answer as fn(_) -> _,
            activity,
        )
    };
    let in_agent = Activity::InAgent(Phase::Update);
    for (answer, limit, activity) in [
        (at_work(0, 0), Limit::Update as fn(_) -> _, in_agent),
        silent(Activity::Stopped),
        silent(Activity::Silent),
        (at_rest(), Limit::Answer, Activity::Idle),
    ] {
        let mut scene = Scene::with_limits();
        scene.answer[0] = answer;
        assert_eq!(scene.overdue_at(|_, _| ()), Some(5), "{answer:?}");
        let (over, blocker) = scene.overdue.unwrap();
        assert_eq!(over, limit(Duration::from_secs(4)));
        assert_eq!(blocker.activity, activity);
        assert_eq!(blocker.since, Duration::from_secs(4));
    }
}

#[test]
fn main_must_wait_for_those_that_do_not_answer() {
    let silent = ProbeAnswer::Silent(Activity::Stopped);
    for answer in [silent, at_rest()] {
        let mut scene = Scene::with_limits();
        scene.answer[1] = answer;
        scene.answer[0] = at_work(0, 0);
        scene.detector.patience.update = None;
        assert_eq!(
            scene.overdue_at(|_, _| ()),
            None,
            "main waits for the other"
        );

        let mut scene = Scene::with_limits();
        scene.answer[0] = answer;
        let again_and_again = |scene: &mut Scene, _| scene.main_at(0);
        assert_eq!(
            scene.overdue_at(again_and_again),
            None,
            "it gets its answers"
        );
    }
    let mut scene = Scene::with_limits();
    let sends = |scene: &mut Scene| {
        scene
            .detector
            .main_activity
            .set(MainState::SendTo(0), SimTime::ZERO);
    };
    sends(&mut scene);
    assert_eq!(
        scene.overdue_at(|_, _| ()),
        None,
        "it takes in a long message"
    );
    scene.answer[0] = silent;
    assert_eq!(scene.overdue_at(|_, _| ()), Some(4));
}

#[test]
fn time_in_which_a_debugger_or_a_signal_stops_somebody_does_not_count() {
    for answer in [
        at_work(0, 0),
        at_rest(),
        ProbeAnswer::Silent(Activity::Traced),
    ] {
        let mut scene = Scene::with_limits();
        scene.answer[0] = answer;
        scene.debugger = Some(9);
        assert_eq!(scene.overdue_at(|_, _| ()), None, "{answer:?}");
        scene.debugger = None;
        assert_eq!(scene.overdue_at(|_, _| ()), Some(3), "{answer:?}");
    }
    // The cluster is stopped for a while, in the middle of a call.
    let mut scene = Scene::with_limits();
    let stopped_a_while = |scene: &mut Scene, look| {
        let stopped = (3..6).contains(&look);
        scene.answer[0] = if stopped {
            ProbeAnswer::Silent(Activity::Stopped)
        } else {
            at_work(0, 0)
        };
    };
    assert_eq!(scene.overdue_at(stopped_a_while), Some(10));
    // Main itself is, and blames no cluster for it.
    let mut scene = Scene::with_limits();
    scene.answer[0] = at_work(0, 0);
    scene.look_after(Duration::from_secs(1));
    scene.look_after(Duration::from_secs(1));
    scene.look_after(Duration::from_secs(3_600));
    assert!(scene.overdue.is_none());
    assert_eq!(scene.overdue_at(|_, _| ()), Some(4));
}

#[test]
fn limits_set_how_often_to_look() {
    let interval = |warning: Option<u64>, update: Option<u64>, answer: Option<u64>| {
        let [warning, update, answer] =
            [warning, update, answer].map(|s| s.map(Duration::from_secs));
        let patience = Patience {
            warning,
            update,
            answer,
        };
        let interval = StallDetector::new(patience, None, Arc::default()).interval();
        interval.map(|interval| interval.as_secs())
    };
    assert_eq!(interval(None, None, None), None);
    assert_eq!(interval(Some(6), None, None), Some(3));
    assert_eq!(interval(Some(6), Some(8), None), Some(2));
    assert_eq!(interval(Some(6), Some(8), Some(4)), Some(1));
}

#[test]
fn a_busy_engine_without_an_agent_at_work_is_told_so() {
    #[derive(Clone, maslite_mp::Message)]
    enum Msg {}
    struct Quiet;
    impl Agent<Msg> for Quiet {}
    let cluster_activity = ClusterActivity::default();
    let mut engine = Engine::new(0);
    engine.add(AgentId::from(3), Box::new(Quiet)).unwrap();
    engine.show_progress(Arc::clone(&cluster_activity.progress));
    engine.setup().unwrap();
    engine.step(10).unwrap();
    cluster_activity.set_busy(true);
    let mut scene = Scene::new();
    scene.main_at(0);
    scene.answer[1] = cluster_activity.answer();
    scene.look();
    scene.look();
    let warning = scene.look().unwrap();
    let blocker = &warning.blockers[0];
    assert_eq!(blocker.activity, Activity::Kernel);
    assert_eq!(
        (blocker.agent, blocker.superstep),
        (Some(AgentId::from(3)), Some(1))
    );
}
