//! A periodic alarm is as an agent that sets the next one at the start of its `receive`, in every
//! placement; and replies reach the sender, wherever it lives.

use std::sync::{Arc, Mutex};

use maslite_mp::core::Digest;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL_AND_FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Other,
    Question,
    Answer,
    Leave,
}

/// Ticks with a period, and does other things due at the same instants: before its tick is read and
/// after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ticker {
    period: SimDuration,
    /// It sets each tick itself.
    by_hand: bool,
    ticks: u32,
    /// It asks this agent at each tick.
    asks: u64,
}

impl Ticker {
    fn set(&self, ctx: &mut Context<'_, Msg>) {
        if self.by_hand {
            ctx.alarm_in(self.period, Msg::Tick);
        } else {
            ctx.set_alarm(Alarm::every(self.period), Msg::Tick);
        }
    }
}

impl Agent<Msg> for Ticker {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("Other"));
        // Due with the first tick, and read before it.
        ctx.alarm_in(self.period, Msg::Other);
        self.set(ctx);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                if self.by_hand {
                    self.set(ctx);
                }
                self.ticks += 1;
                ctx.broadcast(Msg::Other);
                ctx.send(self.asks, Msg::Question);
                // Due with the next tick, and set after it.
                ctx.alarm_in(self.period, Msg::Other);
                if self.ticks == 6 {
                    ctx.remove(ctx.id());
                }
            }
            Msg::Other if mail.sender == ctx.id() => {
                // Due with the next tick; of what is read before the tick it is set before it.
                let to = Alarm::after(self.period).to(AgentId::from(self.asks));
                ctx.set_alarm(to, Msg::Question);
            }
            Msg::Question => ctx.reply(Msg::Answer),
            Msg::Other | Msg::Answer | Msg::Leave => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Ticker>()
        .entered_by_test("periodic::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// The agents: the third ticks when the first and the second do.
fn tickers(by_hand: bool) -> [(u64, Ticker); 3] {
    [(1, 20, 2), (2, 30, 3), (3, 10, 1)].map(|(id, millis, asks)| {
        let period = SimDuration::from_millis(millis);
        let ticks = 0;
        let ticker = Ticker {
            period,
            by_hand,
            ticks,
            asks,
        };
        (id, ticker)
    })
}

/// What a run gave: its trace, its digest and what it counted.
type Outcome = (Vec<String>, Option<Digest>, Counters);

/// In one scheduler. By hand the alarm of an agent that has gone still fires, so what is counted at
/// the end differs in it.
fn alone(by_hand: bool) -> Outcome {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let observer: maslite_mp::core::Observer<Msg> = Box::new(move |delivery| {
        let mut line = String::new();
        delivery.write_json(&mut line);
        written.lock().unwrap().push(line);
    });
    let mut scheduler = Scheduler::builder().digest().observe(observer).build();
    for (id, ticker) in tickers(by_hand) {
        scheduler.add(id, ticker).unwrap();
    }
    let report = scheduler.run(Run::until(SimTime::from_millis(50))).unwrap();
    let lines = lines.lock().unwrap().clone();
    (lines, report.digest, report.total)
}

fn divided(
    placement: TestPlacement,
    by_hand: bool,
    lookahead: Option<u64>,
    clusters: usize,
) -> Outcome {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let lookahead = SimDuration::from_millis(lookahead.unwrap_or(0));
    let mut main = MpMain::builder(agents())
        .on(placement)
        .digest()
        .lookahead(lookahead)
        .trace(move |line| written.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for (place, (id, ticker)) in tickers(by_hand).into_iter().enumerate() {
        main.add_to(clusters[place % clusters.len()], id, ticker)
            .unwrap();
    }
    let report = main.run(Run::until(SimTime::from_millis(50))).unwrap();
    drop(main);
    let lines = lines.lock().unwrap().clone();
    (lines, report.digest, report.total)
}

#[test]
fn it_is_as_one_that_is_set_again_by_hand_and_placement_changes_nothing() {
    let expected = alone(true);
    assert!(expected.0.len() > 40, "{} deliveries", expected.0.len());
    assert_eq!(alone(false), expected);
    for placement in ALL_AND_FORGETFUL {
        for clusters in [1, 2, 3] {
            assert_eq!(
                divided(placement, true, None, clusters),
                expected,
                "{placement:?}"
            );
            assert_eq!(
                divided(placement, false, None, clusters),
                expected,
                "{placement:?}"
            );
        }
    }
}

#[test]
fn so_it_is_under_a_lookahead() {
    // Shorter and longer than the periods.
    for lookahead in [3, 15] {
        for clusters in [2, 3] {
            let expected = divided(TestPlacement::Inline, true, Some(lookahead), clusters);
            assert!(expected.0.len() > 30, "{} deliveries", expected.0.len());
            for placement in ALL_AND_FORGETFUL {
                let outcome = divided(placement, false, Some(lookahead), clusters);
                assert_eq!(outcome, expected, "{placement:?} {lookahead} {clusters}");
            }
        }
    }
}
