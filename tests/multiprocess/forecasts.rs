//! Alarms for agents of other clusters are forecast where clusters run ahead. What comes of it is
//! what one scheduler gives, whatever happens to the alarm before it is due.

use maslite_mp::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::saving::Folder;
use crate::test_placement::{PlacedOn, TestPlacement};

/// A word that can be written, or read, only if it is not a bad one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Good(u64),
    Unwritable,
    Unreadable,
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Good(number) => number.serialize(serializer),
            Self::Unwritable => Err(serde::ser::Error::custom("no such word")),
            Self::Unreadable => u64::MAX.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            u64::MAX => Err(serde::de::Error::custom("it cannot be read")),
            number => Ok(Self::Good(number)),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Word(Word),
    Noise,
}

/// What an agent does once, at its tenth tick, while alarms for agents elsewhere are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
    Nothing,
    ClearOne,
    ClearAll,
    ClearAtOnce,
    List,
    Subscribe,
    SubscribeAndLeave,
    RemoveReceiver,
    RemoveItself,
    AddReceiver,
    ToNobody,
    ToMain,
    Unwritable,
    Unreadable,
    StopRun,
    SendAtOnce,
}

const DEEDS: [Deed; 16] = [
    Deed::Nothing,
    Deed::ClearOne,
    Deed::ClearAll,
    Deed::ClearAtOnce,
    Deed::List,
    Deed::Subscribe,
    Deed::SubscribeAndLeave,
    Deed::RemoveReceiver,
    Deed::RemoveItself,
    Deed::AddReceiver,
    Deed::ToNobody,
    Deed::ToMain,
    Deed::Unwritable,
    Deed::Unreadable,
    Deed::StopRun,
    Deed::SendAtOnce,
];

/// Sets alarms for others, and notes what it hears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Courier {
    deed: Deed,
    others: Vec<String>,
    period_us: u64,
    ticks: u64,
    alarms: Vec<maslite_mp::core::AlarmId>,
    notes: Vec<String>,
}

impl Courier {
    fn new(deed: Deed, others: &[&str], period_us: u64) -> Self {
        Self {
            deed,
            others: others.iter().map(ToString::to_string).collect(),
            period_us,
            ticks: 0,
            alarms: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn alarm(&mut self, ctx: &mut Context<'_, Msg>, to: &str, us: u64, word: Word) {
        let alarm = Alarm::after(SimDuration::from_micros(us)).to(to);
        self.alarms.push(ctx.set_alarm(alarm, Msg::Word(word)));
    }

    fn act(&mut self, ctx: &mut Context<'_, Msg>) {
        match self.deed {
            Deed::Nothing => {}
            Deed::ClearOne => {
                let last = self.alarms.pop();
                let cleared = last.is_some_and(|alarm| ctx.clear_alarm(alarm));
                self.notes.push(format!("cleared {cleared}"));
            }
            Deed::ClearAll => {
                let cleared = ctx.clear_alarms(AlarmFilter::all());
                self.notes.push(format!("cleared {cleared}"));
            }
            Deed::ClearAtOnce => {
                self.alarm(ctx, "far", 7_000, Word::Good(90));
                let last = self.alarms.pop();
                let cleared = last.is_some_and(|alarm| ctx.clear_alarm(alarm));
                self.notes.push(format!("cleared {cleared}"));
            }
            Deed::List => {
                let alarms = ctx.alarms(AlarmFilter::all()).into_iter();
                let due = alarms.map(|alarm| alarm.time.to_string());
                self.notes.push(due.collect::<Vec<_>>().join(", "));
            }
            Deed::Subscribe => ctx.subscribe(Pattern::receiver("far")),
            Deed::SubscribeAndLeave => {
                ctx.subscribe(Pattern::receiver("far"));
                ctx.remove(ctx.id());
            }
            Deed::RemoveReceiver => ctx.remove("far"),
            Deed::RemoveItself => ctx.remove(ctx.id()),
            Deed::AddReceiver => {
                self.alarm(ctx, "child of far", 4_000, Word::Good(91));
                self.alarm(ctx, "child", 5_000, Word::Good(92));
                ctx.add("child", Self::new(Deed::Nothing, &["far"], 1_700));
            }
            Deed::ToNobody => self.alarm(ctx, "nobody", 4_000, Word::Good(93)),
            Deed::ToMain => {
                let alarm = Alarm::after(SimDuration::from_micros(4_000)).to(AgentId::MAIN);
                ctx.set_alarm(alarm, Msg::Word(Word::Good(94)));
            }
            Deed::Unwritable => self.alarm(ctx, "far", 4_000, Word::Unwritable),
            Deed::Unreadable => self.alarm(ctx, "far", 4_000, Word::Unreadable),
            Deed::StopRun => ctx.stop_run(),
            Deed::SendAtOnce => ctx.send("far", Msg::Word(Word::Good(95))),
        }
    }
}

impl Agent<Msg> for Courier {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_micros(self.period_us), Msg::Tick);
        for (other, number) in self.others.clone().iter().zip(1..) {
            self.alarm(ctx, other, 3_000 * number, Word::Good(number));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.ticks += 1;
                ctx.alarm_in(SimDuration::from_micros(self.period_us), Msg::Tick);
                let turn = usize::try_from(self.ticks).unwrap() % self.others.len();
                let (other, ticks) = (self.others[turn].clone(), self.ticks);
                // Some of them are due at one instant with others, and some soon.
                let delay = [200, 1_000, 9_000, 2_500][usize::try_from(ticks % 4).unwrap()];
                self.alarm(ctx, &other, delay, Word::Good(10 + ticks));
                if self.ticks == 10 {
                    self.act(ctx);
                }
                if self.deed == Deed::AddReceiver && self.ticks == 12 {
                    ctx.send("far", Msg::Noise);
                }
            }
            Msg::Word(word) => {
                let heard = format!("{} {word:?} from {}", ctx.now(), mail.sender);
                self.notes.push(heard);
            }
            Msg::Noise => ctx.add("child of far", Self::new(Deed::Nothing, &["doer"], 1_900)),
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Courier>()
        .entered_by_test("forecasts::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// What a run came to, told without what differs between placements.
#[derive(Debug, PartialEq)]
struct Told {
    stops: Vec<String>,
    counters: Option<Counters>,
    digest: Option<maslite_mp::core::Digest>,
    agents: Vec<Option<Courier>>,
}

/// Two in one cluster, two in another, as they are added.
fn couriers(deed: Deed) -> [(&'static str, Courier); 4] {
    let elsewhere = ["far", "farther"];
    [
        ("doer", Courier::new(deed, &elsewhere, 1_000)),
        ("near", Courier::new(Deed::Nothing, &["doer", "far"], 1_300)),
        ("far", Courier::new(Deed::Nothing, &["doer", "near"], 1_000)),
        (
            "farther",
            Courier::new(Deed::Nothing, &["near", "far"], 700),
        ),
    ]
}

const NAMES: [&str; 7] = [
    "doer",
    "near",
    "far",
    "farther",
    "child",
    "child of far",
    "nobody",
];

/// Runs a simulation in which the agents are to the end, or to its error; also tells how many
/// deliveries were undone.
fn tell<S: Simulation<Msg>>(
    simulation: &mut S,
    why: impl Fn(S::Error) -> String,
    look: impl Fn(&mut S, &str) -> Option<Courier>,
) -> (Told, u64) {
    let (mut stops, mut undone) = (Vec::new(), 0);
    let end = SimTime::from_millis(40);
    loop {
        let report = match simulation.run_with(Run::until(end), |_, _| {}) {
            Ok(report) => report,
            Err(error) => {
                stops.push(why(error));
                let told = Told {
                    stops,
                    counters: None,
                    digest: None,
                    agents: Vec::new(),
                };
                return (told, undone);
            }
        };
        let report = report.as_ref();
        undone += report.undone;
        stops.push(format!("{} at {}", report.stopped_by, report.now));
        if report.now >= end {
            let mut agents = NAMES.map(|name| look(simulation, name));
            // Handles that were saved do not tell where the alarm lies.
            agents.iter_mut().flatten().for_each(|it| it.alarms.clear());
            let told = Told {
                stops,
                counters: Some(report.total),
                digest: report.content_digest,
                agents: agents.to_vec(),
            };
            return (told, undone);
        }
    }
}

fn in_one(deed: Deed) -> Scheduler<Msg> {
    let mut scheduler = Scheduler::builder().seed(3).content_digest().build();
    for (name, courier) in couriers(deed) {
        scheduler.add(name, courier).unwrap();
    }
    scheduler
}

fn tell_of_one(scheduler: &mut Scheduler<Msg>) -> Told {
    let why = |error: maslite_mp::core::Error| error.to_string();
    let look = |it: &mut Scheduler<Msg>, name: &str| it.agent::<Courier>(name).cloned();
    tell(scheduler, why, look).0
}

fn alone(deed: Deed) -> Told {
    tell_of_one(&mut in_one(deed))
}

fn settings(placement: TestPlacement, speculation: Speculation) -> MpMainBuilder<Msg> {
    let settings = MpMain::builder(agents()).on(placement).seed(3);
    settings.content_digest().speculation(speculation)
}

/// The same in two clusters.
fn in_two(deed: Deed, settings: MpMainBuilder<Msg>) -> MpMain<Msg> {
    let mut main = settings.build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for (number, (name, courier)) in couriers(deed).into_iter().enumerate() {
        main.add_to(clusters[number / 2], name, courier).unwrap();
    }
    main
}

/// As [`tell`].
fn tell_of_clusters(main: &mut MpMain<Msg>) -> (Told, u64) {
    let why = |error: Error| error.to_string();
    tell(main, why, |it, name| it.inspect::<Courier>(name).ok())
}

/// With how many deliveries were undone.
fn in_clusters(deed: Deed, placement: TestPlacement, speculation: Speculation) -> (Told, u64) {
    tell_of_clusters(&mut in_two(deed, settings(placement, speculation)))
}

/// What is expected. A word that cannot be written or read is one in one scheduler, and an error
/// between clusters, at the time at which its alarm is due.
fn expected(deed: Deed) -> Result<Told, &'static str> {
    match deed {
        Deed::Unwritable | Deed::Unreadable => Err("agent doer to agent far, sent at 0.01 s"),
        _ => Ok(alone(deed)),
    }
}

/// Says where two differ first: all of it is long.
fn assert_same(told: &Told, expected: &Told, what: (Deed, TestPlacement, Speculation)) {
    let lines =
        |it: &Told| -> Vec<String> { format!("{it:#?}").lines().map(str::to_owned).collect() };
    let (told, expected) = (lines(told), lines(expected));
    let place = told.iter().zip(&expected).position(|(one, two)| one != two);
    if let Some(place) = place {
        panic!(
            "{what:?}: told {}, expected {}",
            told[place], expected[place]
        );
    }
    assert_eq!(told.len(), expected.len(), "{what:?}");
}

fn check(deed: Deed, placement: TestPlacement, speculation: Speculation) -> u64 {
    let (told, undone) = in_clusters(deed, placement, speculation);
    match expected(deed) {
        Ok(expected) => assert_same(&told, &expected, (deed, placement, speculation)),
        Err(why) => {
            let without = in_clusters(deed, placement, Speculation::Off).0;
            assert_eq!(told, without, "{deed:?}, {placement:?}, {speculation:?}");
            assert!(told.stops[0].contains(why), "{:?}", told.stops);
        }
    }
    undone
}

#[test]
fn whatever_happens_to_an_alarm_for_others_is_as_in_one_scheduler() {
    let mut undone = 0;
    for deed in DEEDS {
        for seed in 0..8 {
            undone += check(deed, TestPlacement::Inline, Speculation::Random(seed));
        }
        check(deed, TestPlacement::Inline, Speculation::Auto);
        // A state with such a word in it cannot be written down, either.
        if !matches!(deed, Deed::Unwritable | Deed::Unreadable) {
            check(deed, TestPlacement::Forgetful, Speculation::Random(1));
        }
    }
    assert!(undone > 200, "only {undone} deliveries were undone");
}

#[test]
fn between_processes_it_is_so_too() {
    for (number, deed) in (0..).zip(DEEDS) {
        let placement = [TestPlacement::Ring, TestPlacement::Channel][number % 2];
        check(deed, placement, Speculation::Auto);
        check(deed, placement, Speculation::Random(number as u64));
    }
}

#[test]
fn a_simulation_that_is_saved_while_alarms_are_forecast_goes_on() {
    let deed = Deed::ClearAll;
    let pause = SimTime::from_micros(8_100);
    let mut scheduler = in_one(deed);
    scheduler.run_until(pause).unwrap();
    let expected = tell_of_one(&mut scheduler);
    let folder = Folder::new("forecasts");
    for (speculation, name) in [
        (Speculation::Auto, "auto"),
        (Speculation::Random(4), "random"),
    ] {
        let of_inline = || settings(TestPlacement::Inline, speculation);
        let what = (deed, TestPlacement::Inline, speculation);
        let mut main = in_two(deed, of_inline());
        main.run_until(pause).unwrap();
        main.save(folder.at(name)).unwrap();
        // The copies are there still.
        assert_same(&tell_of_clusters(&mut main).0, &expected, what);
        let open = || Restore::open(folder.at(name)).unwrap();
        let spread = open().into_clusters(3, |it| it.spread_over(3));
        for restore in [open(), spread] {
            let mut main = restore.start(of_inline()).unwrap();
            assert_same(&tell_of_clusters(&mut main).0, &expected, what);
        }
        let builder = Scheduler::builder().content_digest();
        let mut scheduler = open().alone(builder, &agents()).unwrap();
        assert_same(&tell_of_one(&mut scheduler), &expected, what);
    }
}

/// A cluster that is added later, and may come back, gets no copies: when it comes back from a
/// snapshot, none would be there.
#[test]
fn a_cluster_that_comes_back_has_missed_no_alarm() {
    let (added, saved) = (SimTime::from_millis(8), SimTime::from_micros(12_100));
    let late = || Courier::new(Deed::Nothing, &["doer"], 1_000);
    let mut scheduler = in_one(Deed::ToNobody);
    scheduler.run_until(added).unwrap();
    scheduler.add("nobody", late()).unwrap();
    scheduler.run_until(saved).unwrap();
    let expected = tell_of_one(&mut scheduler);
    let folder = Folder::new("forecasts-and-killed");
    let settings = settings(TestPlacement::Ring, Speculation::Auto);
    let mut main = in_two(Deed::ToNobody, settings);
    main.run_until(added).unwrap();
    let third = main.new_cluster();
    main.set_recovery(third, Recovery::restart()).unwrap();
    main.add_to(third, "nobody", late()).unwrap();
    main.run_until(saved).unwrap();
    main.save(folder.at("it")).unwrap();
    let pid = i32::try_from(main.pid(third).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let told = tell_of_clusters(&mut main).0;
    assert_same(
        &told,
        &expected,
        (Deed::ToNobody, TestPlacement::Ring, Speculation::Auto),
    );
}
