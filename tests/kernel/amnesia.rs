//! A scheduler that forgets everything and comes back from its saved state goes on as if nothing
//! had been.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use maslite_core::{
    Agent, AgentTypes, Alarm, AlarmId, Context, Error, Mail, Message, Phase, Run, Scheduler,
    SimDuration, SimTime,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Message, Serialize, Deserialize)]
enum Msg {
    Late,
    Early,
    Clear,
}

/// Keeps the handle of an alarm, and clears the alarm later.
#[derive(Serialize, Deserialize, Default)]
struct Holder {
    late: Option<AlarmId>,
    /// What came of clearing it, each time.
    cleared: Vec<bool>,
    heard: u32,
}

impl Agent<Msg> for Holder {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let late = Alarm::after(SimDuration::from_secs(9)).to(ctx.id());
        self.late = Some(ctx.set_alarm(late, Msg::Late));
        for _ in 0..3 {
            ctx.alarm_in(SimDuration::from_secs(5), Msg::Early);
        }
        ctx.alarm_in(SimDuration::from_secs(1), Msg::Clear);
        ctx.alarm_in(SimDuration::from_secs(2), Msg::Clear);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.heard += 1;
        if let (Msg::Clear, Some(late)) = (mail.body, self.late) {
            self.cleared.push(ctx.clear_alarm(late));
        }
    }
}

#[test]
fn a_handle_that_an_agent_keeps_stays_good() {
    for every in [None, Some(1), Some(2)] {
        let types = AgentTypes::new().with::<Holder>();
        let settings = Scheduler::builder().agent_types(types).amnesia(every);
        let mut scheduler = settings.build();
        for id in 1..=2 {
            scheduler.add(id, Holder::default()).unwrap();
        }
        let report = scheduler.run(Run::until_idle()).unwrap();
        assert_eq!(report.now, SimTime::from_secs(5), "{every:?}");
        assert_eq!(report.total.alarms_cleared, 2);
        // Both are set up before the first superstep, and awake in it.
        let amnesias = every.map_or(0, |every| report.total.supersteps / every);
        assert_eq!((report.total.supersteps, report.amnesias), (4, amnesias));
        for id in 1..=2 {
            let holder: &Holder = scheduler.agent(id).unwrap();
            assert_eq!((&holder.cleared[..], holder.heard), (&[true, false][..], 5));
        }
    }
}

/// Ticks each second, and clears its periodic alarm with the handle that it got at first.
#[derive(Serialize, Deserialize, Default)]
struct Metronome {
    alarm: Option<AlarmId>,
    ticks: u32,
}

impl Agent<Msg> for Metronome {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let each_second = Alarm::every(SimDuration::from_secs(1));
        self.alarm = Some(ctx.set_alarm(each_second, Msg::Early));
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.ticks += 1;
        if let (4, Some(alarm)) = (self.ticks, self.alarm) {
            assert!(ctx.clear_alarm(alarm));
        }
    }
}

#[test]
fn a_handle_of_a_periodic_alarm_stays_good() {
    let types = AgentTypes::new().with::<Metronome>();
    let settings = Scheduler::builder().agent_types(types).amnesia(Some(1));
    let mut scheduler = settings.build();
    scheduler.add(1, Metronome::default()).unwrap();
    let run = Run::until(SimTime::from_secs(60));
    let report = scheduler.run(run).unwrap();
    let ticks = scheduler.agent::<Metronome>(1).map(|it| it.ticks);
    assert_eq!((ticks, report.amnesias), (Some(4), 5));
    assert_eq!(report.counters.alarms_pending, 0);
}

/// The same agents, whose types are not registered: they are kept, and so are their handles.
#[cfg(debug_assertions)]
#[test]
fn a_handle_of_an_agent_that_is_kept_stays_good() {
    // Other tests would be asked, too.
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "amnesia::kept_by_the_environment", "--ignored"])
        .env("MASLITE_AMNESIA", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
#[ignore = "runs with an environment of its own"]
fn kept_by_the_environment() {
    let mut scheduler = Scheduler::new();
    scheduler.add(1, Holder::default()).unwrap();
    let report = scheduler.run(Run::until_idle()).unwrap();
    assert_eq!((report.total.supersteps, report.amnesias), (4, 4));
    let holder: &Holder = scheduler.agent(1).unwrap();
    assert_eq!((&holder.cleared[..], holder.heard), (&[true, false][..], 5));
}

/// Counts how many of it were dropped.
#[derive(Serialize, Deserialize)]
struct Dropped {
    #[serde(skip)]
    count: Arc<AtomicU32>,
}

impl Agent<Msg> for Dropped {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(1), Msg::Early);
    }

    fn teardown(&mut self, _: &mut Context<'_, Msg>) {
        panic!("no agent is torn down when a scheduler forgets");
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn agents_that_are_forgotten_are_dropped_and_not_torn_down() {
    let types = AgentTypes::new().with::<Dropped>();
    let settings = Scheduler::builder().agent_types(types).amnesia(Some(1));
    let mut scheduler = settings.build();
    let first = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&first);
    scheduler.add(1, Dropped { count }).unwrap();
    let report = scheduler.run(Run::until_idle()).unwrap();
    assert_eq!(report.amnesias, 2);
    assert_eq!(first.load(Ordering::Relaxed), 1);
    let now: &Dropped = scheduler.agent(1).unwrap();
    assert_eq!(now.count.load(Ordering::Relaxed), 0);
}

/// Is written as nothing.
#[derive(Serialize, Deserialize)]
struct Mute;

impl Agent<Msg> for Mute {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(1), Msg::Early);
    }
}

/// Is read as one byte more than was written.
#[derive(Serialize)]
struct Swollen;

impl<'de> Deserialize<'de> for Swollen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|_| Self)
    }
}

impl Agent<Msg> for Swollen {}

#[test]
fn what_cannot_be_saved_or_restored_is_an_error_that_names_it() {
    let run = |types: AgentTypes<Msg>| {
        let settings = Scheduler::builder().agent_types(types).amnesia(Some(1));
        let mut scheduler = settings.build();
        scheduler.add("mute", Mute).unwrap();
        scheduler.add("swollen", Swollen).unwrap();
        scheduler.run(Run::until_idle()).unwrap_err()
    };
    let error = run(AgentTypes::new().with::<Swollen>());
    assert!(matches!(error, Error::Unsaved { .. }));
    assert_eq!(
        error.to_string(),
        "at 0 s the state of agent mute of type kernel::amnesia::Mute cannot be saved: \
         its type is not registered: register it, or run without saving states"
    );
    let error = run(AgentTypes::new().with::<Mute>().with::<Swollen>());
    assert!(matches!(error, Error::Unrestored { .. }));
    assert_eq!(
        error.to_string(),
        "at 0 s agent swollen cannot be restored from what was saved: \
         as kernel::amnesia::Swollen, Hit the end of buffer, expected more data"
    );
}

/// Knows a sum that is not encoded, and how often it was read from its encoding since it was made.
#[derive(Serialize, Deserialize, Default)]
struct Ledger {
    entries: Vec<u64>,
    #[serde(skip)]
    sum: u64,
    #[serde(skip)]
    readings: u32,
    is_torn: bool,
}

impl Agent<Msg> for Ledger {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for seconds in 1..=4 {
            ctx.alarm_in(SimDuration::from_secs(seconds), Msg::Early);
        }
    }

    fn restored(&mut self) {
        assert!(!self.is_torn, "a page is missing");
        self.sum = self.entries.iter().sum();
        self.readings += 1;
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let entry = ctx.now().as_nanos();
        self.entries.push(entry);
        self.sum += entry;
        assert_eq!(self.sum, self.entries.iter().sum::<u64>());
    }
}

#[test]
fn an_agent_that_is_read_again_makes_what_serde_has_skipped() {
    let run = |every| {
        let types = AgentTypes::new().with::<Ledger>();
        let settings = Scheduler::builder().agent_types(types).amnesia(every);
        let mut scheduler = settings.digest().build();
        scheduler.add(1, Ledger::default()).unwrap();
        let report = scheduler.run(Run::until_idle()).unwrap();
        let ledger: &Ledger = scheduler.agent(1).unwrap();
        let known = (ledger.entries.len(), ledger.sum, ledger.readings);
        (report.digest, report.amnesias, known)
    };
    let (digest, amnesias, known) = run(None);
    assert_eq!((amnesias, known), (0, (4, 10_000_000_000, 0)));
    // Once for each reading, and without a trace.
    let again = run(Some(1));
    assert_eq!(again, (digest, 5, (4, 10_000_000_000, 1)));
}

#[test]
fn an_agent_that_panics_when_it_is_read_again_is_named() {
    let types = AgentTypes::new().with::<Ledger>();
    let settings = Scheduler::builder().agent_types(types).amnesia(Some(2));
    let mut scheduler = settings.build();
    let is_torn = true;
    let torn = Ledger {
        is_torn,
        ..Ledger::default()
    };
    scheduler.add("whole", Ledger::default()).unwrap();
    scheduler.add("torn", torn).unwrap();
    let error = scheduler.run(Run::until_idle()).unwrap_err();
    let Error::AgentPanicked { agent, phase, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((*agent, *phase), ("torn".into(), Phase::Restored));
    let text = error.to_string();
    let start = "agent torn panicked in restored at 1 s, superstep 1, in tests/kernel/amnesia.rs:";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with(": a page is missing"), "{text}");
}

/// Counts with a factor that its program gives it.
#[derive(Serialize, Deserialize)]
struct Meter {
    count: u64,
    #[serde(skip)]
    factor: Option<Arc<AtomicU32>>,
}

impl Agent<Msg> for Meter {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for seconds in 1..=3 {
            ctx.alarm_in(SimDuration::from_secs(seconds), Msg::Early);
        }
    }

    fn restored(&mut self) {
        assert!(self.factor.is_some(), "parts come first");
    }

    fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {
        let factor = self.factor.as_ref().map(|it| it.load(Ordering::Relaxed));
        self.count += u64::from(factor.unwrap());
    }
}

#[test]
fn an_agent_that_is_read_again_gets_what_the_program_has_for_it() {
    let factor = Arc::new(AtomicU32::new(7));
    let own = Arc::clone(&factor);
    let types = AgentTypes::new()
        .with_parts(move |meter: &mut Meter| {
            assert!(own.load(Ordering::Relaxed) != 0, "no factor");
            meter.factor = Some(Arc::clone(&own));
        })
        .with::<Meter>();
    let settings = Scheduler::builder().agent_types(types).amnesia(Some(1));
    let mut scheduler = settings.build();
    let first = Some(Arc::clone(&factor));
    let meter = Meter {
        count: 0,
        factor: first,
    };
    scheduler.add("meter", meter).unwrap();
    let two = Run::until(SimTime::from_secs(2));
    scheduler.run(two).unwrap();
    assert_eq!(
        scheduler.agent::<Meter>("meter").map(|it| it.count),
        Some(7)
    );
    factor.store(0, Ordering::Relaxed);
    let error = scheduler.run(Run::until_idle()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "at 2 s agent meter cannot be restored from what was saved: as kernel::amnesia::Meter, \
         the program panicked over it: no factor"
    );
}

/// Holds what cannot be written down.
struct Camera(Box<dyn FnMut() -> u64 + Send>, u64);

impl Agent<Msg> for Camera {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for seconds in 1..=3 {
            ctx.alarm_in(SimDuration::from_secs(seconds), Msg::Early);
        }
    }

    fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {
        self.1 = (self.0)();
    }
}

#[test]
fn an_agent_whose_type_is_never_saved_is_kept_while_others_are_forgotten() {
    let types = AgentTypes::new().with::<Ledger>();
    let types = types.never_saved::<Camera>("holds a device");
    let settings = Scheduler::builder().agent_types(types).amnesia(Some(1));
    let mut scheduler = settings.build();
    let mut frames = 0;
    let device = Box::new(move || {
        frames += 1;
        frames
    });
    scheduler.add("ledger", Ledger::default()).unwrap();
    scheduler.add("camera", Camera(device, 0)).unwrap();
    let report = scheduler.run(Run::until_idle()).unwrap();
    assert_eq!(report.amnesias, 5);
    assert_eq!(scheduler.agent::<Camera>("camera").map(|it| it.1), Some(3));
    assert_eq!(
        scheduler.agent::<Ledger>("ledger").map(|it| it.readings),
        Some(1)
    );
}
