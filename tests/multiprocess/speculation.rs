//! Clusters run ahead of what is final: what comes of it is what one scheduler gives, whatever
//! agents do on the way.

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Deed,
    Word(u64),
    Ring,
}

/// What an agent does once, in the middle of a run: one thing of each kind that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Deed {
    Nothing,
    SendAcross,
    SendAtHome,
    SendToMain,
    SendToNobody,
    SendAlarmAcross,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Add,
    Remove,
    RemoveAcross,
    KeepAwake,
    SetAlarmNow,
    SetPeriodic,
    ClearAlarm,
    ClearAlarms,
    ListAlarms,
    StopRun,
    ReportError,
    LeaveUnread,
    DrawRandomNumbers,
}

const DEEDS: [Deed; 22] = [
    Deed::Nothing,
    Deed::SendAcross,
    Deed::SendAtHome,
    Deed::SendToMain,
    Deed::SendToNobody,
    Deed::SendAlarmAcross,
    Deed::Broadcast,
    Deed::Subscribe,
    Deed::Unsubscribe,
    Deed::Add,
    Deed::Remove,
    Deed::RemoveAcross,
    Deed::KeepAwake,
    Deed::SetAlarmNow,
    Deed::SetPeriodic,
    Deed::ClearAlarm,
    Deed::ClearAlarms,
    Deed::ListAlarms,
    Deed::StopRun,
    Deed::ReportError,
    Deed::LeaveUnread,
    Deed::DrawRandomNumbers,
];

/// Ticks, and does its deed at the seventh tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Doer {
    deed: Deed,
    period_us: u64,
    ticks: u64,
    notes: Vec<String>,
    late: Option<maslite_mp::core::AlarmId>,
}

impl Doer {
    fn new(deed: Deed, period_us: u64) -> Self {
        Self {
            deed,
            period_us,
            ticks: 0,
            notes: Vec::new(),
            late: None,
        }
    }

    fn act(&mut self, ctx: &mut Context<'_, Msg>) {
        let millis = SimDuration::from_millis;
        match self.deed {
            Deed::Nothing | Deed::LeaveUnread => {}
            Deed::SendAcross => ctx.send("across", Msg::Word(1)),
            Deed::SendAtHome => ctx.send("neighbour", Msg::Word(2)),
            Deed::SendToMain => ctx.send(AgentId::MAIN, Msg::Word(3)),
            Deed::SendToNobody => ctx.send("nobody", Msg::Word(4)),
            Deed::SendAlarmAcross => {
                ctx.set_alarm(Alarm::after(millis(3)).to("across"), Msg::Word(5));
            }
            Deed::Broadcast => ctx.broadcast(Msg::Ring),
            Deed::Subscribe => ctx.subscribe(Pattern::sender("across")),
            Deed::Unsubscribe => ctx.unsubscribe(Pattern::topic(Msg::Ring.topic())),
            Deed::Add => ctx.add("child", Doer::new(Deed::Nothing, 900)),
            Deed::Remove => ctx.remove("neighbour"),
            Deed::RemoveAcross => ctx.remove("across"),
            Deed::KeepAwake => ctx.keep_awake(true),
            Deed::SetAlarmNow => drop(ctx.alarm_in(SimDuration::ZERO, Msg::Word(6))),
            Deed::SetPeriodic => drop(ctx.set_alarm(Alarm::every(millis(2)), Msg::Word(7))),
            Deed::ClearAlarm => {
                let cleared = self.late.is_some_and(|late| ctx.clear_alarm(late));
                self.notes.push(format!("cleared {cleared}"));
            }
            Deed::ClearAlarms => {
                let cleared = ctx.clear_alarms(AlarmFilter::all());
                self.notes.push(format!("cleared {cleared}"));
                ctx.alarm_in(millis(1), Msg::Tick);
            }
            Deed::ListAlarms => {
                let alarms = ctx.alarms(AlarmFilter::all());
                let due = alarms.iter().map(|alarm| alarm.time.to_string());
                self.notes.push(due.collect::<Vec<_>>().join(", "));
            }
            Deed::StopRun => ctx.stop_run(),
            Deed::ReportError => ctx.report_error("a deed"),
            Deed::DrawRandomNumbers => {
                let number: u32 = ctx.rng().random();
                self.notes.push(format!("drew {number}"));
            }
        }
    }
}

impl Agent<Msg> for Doer {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_micros(self.period_us), Msg::Tick);
        self.late = Some(ctx.alarm_in(SimDuration::from_millis(25), Msg::Word(0)));
        ctx.set_alarm(Alarm::every(SimDuration::from_micros(2_700)), Msg::Word(8));
        ctx.subscribe(Pattern::topic(Msg::Ring.topic()));
    }

    fn update(&mut self, ctx: &mut Context<'_, Msg>) {
        if self.deed == Deed::LeaveUnread && self.ticks == 7 {
            // What is left is read in the next update.
            self.ticks += 1;
            return;
        }
        while let Some(mail) = ctx.next_mail() {
            self.receive(mail, ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.ticks += 1;
                ctx.alarm_in(SimDuration::from_micros(self.period_us), Msg::Tick);
                if self.ticks == 7 {
                    ctx.send(ctx.id(), Msg::Deed);
                }
            }
            Msg::Deed => self.act(ctx),
            Msg::Word(word) => {
                let told = format!("{} heard {word} from {}", ctx.now(), mail.sender);
                self.notes.push(told);
            }
            Msg::Ring => self.notes.push(format!("{} rings", ctx.now())),
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Doer>()
        .entered_by_test("speculation::child")
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
    counters: Counters,
    digest: Option<maslite_mp::core::Digest>,
    lost: usize,
    errors: usize,
    agents: Vec<Option<Doer>>,
}

const NAMES: [&str; 4] = ["doer", "neighbour", "across", "child"];

/// Runs a simulation in which the agents are to the end; also tells how many deliveries were undone.
fn tell<S: Simulation<Msg>>(
    simulation: &mut S,
    look: impl Fn(&mut S, &str) -> Option<Doer>,
) -> (Told, u64)
where
    S::Error: std::fmt::Debug,
{
    let (mut stops, mut errors, mut undone) = (Vec::new(), 0, 0);
    let end = SimTime::from_millis(40);
    loop {
        let report = simulation.run_with(Run::until(end), |_, _| {}).unwrap();
        let report = report.as_ref();
        errors += report.errors.len();
        undone += report.undone;
        stops.push(format!("{} at {}", report.stopped_by, report.now));
        if report.now >= end {
            let told = Told {
                stops,
                counters: report.total,
                digest: report.content_digest,
                lost: report.lost.len(),
                errors,
                agents: NAMES.map(|name| look(simulation, name)).to_vec(),
            };
            return (told, undone);
        }
    }
}

fn alone(deed: Deed) -> Told {
    let mut scheduler = Scheduler::builder().seed(3).content_digest().build();
    scheduler.add("doer", Doer::new(deed, 1_000)).unwrap();
    scheduler
        .add("neighbour", Doer::new(Deed::Nothing, 1_300))
        .unwrap();
    scheduler
        .add("across", Doer::new(Deed::Nothing, 700))
        .unwrap();
    tell(&mut scheduler, |it, name| it.agent::<Doer>(name).cloned()).0
}

/// The same in two clusters; with how many deliveries were undone.
fn in_clusters(deed: Deed, placement: TestPlacement, speculation: Speculation) -> (Told, u64) {
    let settings = MpMain::builder(agents()).on(placement).seed(3);
    let settings = settings.content_digest().speculation(speculation);
    let mut main = settings.build().unwrap();
    let (home, other) = (main.new_cluster(), main.new_cluster());
    main.add_to(home, "doer", Doer::new(deed, 1_000)).unwrap();
    let neighbour = Doer::new(Deed::Nothing, 1_300);
    main.add_to(home, "neighbour", neighbour).unwrap();
    main.add_to(other, "across", Doer::new(Deed::Nothing, 700))
        .unwrap();
    tell(&mut main, |it, name| it.inspect::<Doer>(name).ok())
}

#[test]
fn whatever_an_agent_does_ahead_is_done_as_in_one_scheduler() {
    let mut undone = 0;
    for deed in DEEDS {
        let expected = alone(deed);
        for seed in 0..12 {
            let speculation = Speculation::Random(seed);
            let (told, count) = in_clusters(deed, TestPlacement::Inline, speculation);
            assert_eq!(told, expected, "{deed:?}, seed {seed}");
            undone += count;
        }
        for placement in [TestPlacement::Forgetful, TestPlacement::Inline] {
            let (told, _) = in_clusters(deed, placement, Speculation::Auto);
            assert_eq!(told, expected, "{deed:?}, {placement:?}");
        }
    }
    assert!(undone > 500, "only {undone} deliveries were undone");
}

#[test]
fn whatever_an_agent_does_ahead_in_a_process_is_done_as_in_one_scheduler() {
    for (number, deed) in (0..).zip(DEEDS) {
        let placement = [TestPlacement::Ring, TestPlacement::Channel][number % 2];
        for speculation in [Speculation::Auto, Speculation::Random(number as u64)] {
            let (told, _) = in_clusters(deed, placement, speculation);
            assert_eq!(
                told,
                alone(deed),
                "{deed:?}, {placement:?}, {speculation:?}"
            );
        }
    }
}
