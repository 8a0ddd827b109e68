//! The last instant of simulated time happens as any other, in every placement.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};

/// Of each cluster, one for each agent.
const LOOKAHEADS: [SimDuration; 3] = [
    SimDuration::from_millis(2),
    SimDuration::from_nanos(1),
    SimDuration::MAX,
];

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// Due in the last instant.
    End,
    /// Due one nanosecond before it.
    Eve,
    /// Set in the last instant, for it.
    Again,
    Call,
    Report,
    Reply,
}

/// Waits for the end of time, and calls the next of the three agents in it and shortly before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Patient {
    next: u64,
}

impl Agent<Msg> for Patient {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let eve = SimTime::MAX.saturating_sub(SimDuration::from_nanos(1));
        ctx.alarm_at(SimTime::MAX, Msg::End);
        ctx.alarm_at(eve, Msg::Eve);
        let to_the_next = Alarm::at(SimTime::MAX).to(Receiver::Agent(AgentId::from(self.next)));
        ctx.set_alarm(to_the_next, Msg::Call);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Eve => ctx.send(AgentId::from(self.next), Msg::Call),
            Msg::End => {
                ctx.alarm_at(SimTime::MAX, Msg::Again);
                ctx.send(AgentId::from(self.next), Msg::Call);
                ctx.send(AgentId::MAIN, Msg::Report);
            }
            Msg::Again | Msg::Call | Msg::Report | Msg::Reply => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Patient>()
        .entered_by_test("end_of_time::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn patients() -> impl Iterator<Item = (u64, Patient)> {
    (1..=3).map(|id| (id, Patient { next: id % 3 + 1 }))
}

fn clusters(placement: TestPlacement, lookaheads: bool) -> (MpMain<Msg>, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .digest()
        .trace(move |line| written.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    for ((id, patient), lookahead) in patients().zip(LOOKAHEADS) {
        let cluster = main.new_cluster();
        if lookaheads {
            main.set_lookahead(cluster, lookahead).unwrap();
        }
        main.add_to(cluster, id, patient).unwrap();
    }
    (main, lines)
}

fn reply(mail: Mail<Msg>, main: &mut MainContext<Msg>) {
    main.send(mail.sender, Msg::Reply);
}

/// Runs all of it, in pieces of `piece` supersteps if that is given. Returns what arrived in the
/// last instant as `step receiver<sender topic`, and the report.
fn run(placement: TestPlacement, lookaheads: bool, piece: Option<u64>) -> (Vec<String>, MpReport) {
    let (mut main, lines) = clusters(placement, lookaheads);
    let report = loop {
        let run = match piece {
            Some(supersteps) => Run::until_idle().supersteps(supersteps),
            None => Run::until_idle(),
        };
        let report = main.run_with(run, reply).unwrap();
        if report.stopped_by == StopReason::Idle {
            break report;
        }
        assert_eq!(report.stopped_by, StopReason::Supersteps);
    };
    let _ = main.shutdown();
    let lines = lines.lock().unwrap();
    let last = lines.iter().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut time = "";
        if value["t_ns"] != u64::MAX {
            time = "eve ";
        }
        let text = |key: &str| value[key].to_string().replace('"', "");
        let (step, to) = (text("superstep"), text("to"));
        format!("{time}{step} {to}<{} {}", text("from"), text("topic"))
    });
    (last.collect(), report)
}

fn all_placements() -> impl Iterator<Item = TestPlacement> {
    [TestPlacement::Inline].into_iter().chain(PROCESSES)
}

#[test]
fn without_a_lookahead_it_is_that_of_a_lone_scheduler() {
    let mut alone = Scheduler::builder().digest().build();
    for (id, patient) in patients() {
        alone.add(id, patient).unwrap();
    }
    let expected = alone.run_with(Run::until_idle(), reply).unwrap();
    assert_eq!(expected.now, SimTime::MAX);
    assert_eq!(expected.total.alarms_fired, 12);
    for placement in all_placements() {
        let (_, report) = run(placement, false, None);
        assert_eq!(report.stopped_by, StopReason::Idle);
        assert_eq!(report.now, SimTime::MAX, "{placement:?}");
        assert_eq!(report.digest, expected.digest, "{placement:?}");
        assert_eq!(report.total, expected.total, "{placement:?}");
    }
}

/// Mail that would cross after the end of time crosses in the last instant, when no agent has
/// anything else to do in it.
#[test]
fn under_a_lookahead_all_that_is_due_happens_and_what_crosses_arrives() {
    let expected = [
        "eve 0 1<1 Eve",
        "eve 0 2<2 Eve",
        "eve 0 3<3 Eve",
        "0 1<1 End",
        "0 1<3 Call",
        "0 1<3 Call",
        "0 main<1 Report",
        "0 main<2 Report",
        "0 main<3 Report",
        "0 2<1 Call",
        "0 2<2 End",
        "0 2<1 Call",
        "0 3<2 Call",
        "0 3<3 End",
        "0 3<2 Call",
        "1 1<1 Again",
        "1 1<3 Call",
        "1 1<main Reply",
        "1 2<1 Call",
        "1 2<2 Again",
        "1 2<main Reply",
        "1 3<2 Call",
        "1 3<3 Again",
        "1 3<main Reply",
    ];
    for placement in all_placements() {
        for piece in [None, Some(1), Some(2), Some(5)] {
            let (lines, report) = run(placement, true, piece);
            assert_eq!(lines, expected, "{placement:?}, pieces of {piece:?}");
            assert_eq!(report.now, SimTime::MAX);
            assert_eq!(report.total.alarms_fired, 12);
            assert_eq!(report.total.alarms_pending, 0);
            assert_eq!(report.total.undeliverable, 0);
        }
    }
}

#[test]
fn a_time_limit_at_the_end_of_time_leaves_the_last_instant_out() {
    for placement in all_placements() {
        for lookaheads in [false, true] {
            let (mut main, lines) = clusters(placement, lookaheads);
            let report = main.run(Run::until(SimTime::MAX)).unwrap();
            assert_eq!(report.stopped_by, StopReason::TimeLimit);
            assert_eq!(report.now, SimTime::MAX);
            let of_the_end = format!(r#""t_ns":{}"#, u64::MAX);
            let lines = lines.lock().unwrap();
            assert!(!lines.is_empty());
            assert!(!lines.iter().any(|line| line.contains(&of_the_end)));
        }
    }
}
