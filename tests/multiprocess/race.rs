//! Mail arrives at the instant it was sent at, however busy its receiver's cluster is meanwhile.
//!
//! One cluster has an alarm each second and then calls an agent of the other, which has an alarm
//! each millisecond. A main that moves the clock to the earliest alarm without counting mail that
//! is under way lets the calls arrive some alarms late, each time at another one.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use maslite_testkit::effort::seeds;
use serde::{Deserialize, Serialize};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};

const CALLER: u64 = 1;
const CALLED: u64 = 2;
const SECONDS: u64 = 4;
/// Of the one who is called, after each second.
const ALARMS: u64 = 100;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Second,
    Millisecond,
    Call,
    Answer,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Racer {
    Caller,
    Called,
}

impl Agent<Msg> for Racer {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for second in 1..=SECONDS {
            match self {
                Self::Caller => {
                    ctx.alarm_at(SimTime::from_secs(second), Msg::Second);
                }
                Self::Called => {
                    for millisecond in 0..ALARMS {
                        let time = SimTime::from_millis(1_000 * second + millisecond);
                        ctx.alarm_at(time, Msg::Millisecond);
                    }
                }
            }
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Second => ctx.send(AgentId::from(CALLED), Msg::Call),
            Msg::Call => ctx.send(mail.sender, Msg::Answer),
            Msg::Millisecond | Msg::Answer => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Racer>()
        .entered_by_test("race::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Runs it, and returns when calls and answers arrived, with their superstep; and how much mail
/// did.
fn race(placement: TestPlacement, jitter: Option<u64>) -> (Vec<String>, u64) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .jitter(jitter)
        .trace(move |line| written.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    for (id, racer) in [(CALLER, Racer::Caller), (CALLED, Racer::Called)] {
        let cluster = main.new_cluster();
        main.add_to(cluster, id, racer).unwrap();
    }
    let report = main.run(Run::until_idle()).unwrap();
    let lines = lines.lock().unwrap();
    let exchanged = lines
        .iter()
        .filter(|line| line.contains("Call") || line.contains("Answer"));
    (exchanged.cloned().collect(), report.total.delivered)
}

fn check(placement: TestPlacement, jitter: Option<u64>) {
    let expected = [
        r#"{"t_ns":1000000000,"superstep":1,"to":2,"from":1,"receiver":2,"topic":"Call"}"#,
        r#"{"t_ns":1000000000,"superstep":2,"to":1,"from":2,"receiver":1,"topic":"Answer"}"#,
        r#"{"t_ns":2000000000,"superstep":1,"to":2,"from":1,"receiver":2,"topic":"Call"}"#,
        r#"{"t_ns":2000000000,"superstep":2,"to":1,"from":2,"receiver":1,"topic":"Answer"}"#,
        r#"{"t_ns":3000000000,"superstep":1,"to":2,"from":1,"receiver":2,"topic":"Call"}"#,
        r#"{"t_ns":3000000000,"superstep":2,"to":1,"from":2,"receiver":1,"topic":"Answer"}"#,
        r#"{"t_ns":4000000000,"superstep":1,"to":2,"from":1,"receiver":2,"topic":"Call"}"#,
        r#"{"t_ns":4000000000,"superstep":2,"to":1,"from":2,"receiver":1,"topic":"Answer"}"#,
    ];
    let (exchanged, delivered) = race(placement, jitter);
    assert_eq!(exchanged, expected, "{placement:?} {jitter:?}");
    assert_eq!(delivered, SECONDS * (ALARMS + 3));
}

#[test]
fn inline() {
    check(TestPlacement::Inline, None);
    (0..20).for_each(|jitter| check(TestPlacement::Inline, Some(jitter)));
}

#[test]
fn in_processes() {
    for placement in PROCESSES {
        seeds(0..20, 7).for_each(|_| check(placement, None));
    }
}

#[test]
fn in_processes_with_jitter() {
    for placement in PROCESSES {
        seeds(0..20, 7).for_each(|jitter| check(placement, Some(jitter)));
    }
}
