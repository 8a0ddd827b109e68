//! Mail to main under a lookahead: it comes late, is counted apart from what agents get late, and
//! its handler knows when it was sent.

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Minute,
    Sample(u64),
    Cart,
}

const MINUTE: SimDuration = SimDuration::from_secs(60);

/// Sends a sample to main each minute, and a cart to the next zone, which takes a minute.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Zone {
    next: u64,
    carts: u64,
}

impl Agent<Msg> for Zone {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(MINUTE, Msg::Minute);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Minute => {
                ctx.send(AgentId::MAIN, Msg::Sample(self.carts));
                let cart = Alarm::after(MINUTE).to(Receiver::Agent(AgentId::from(self.next)));
                ctx.set_alarm(cart, Msg::Cart);
                ctx.alarm_in(MINUTE, Msg::Minute);
            }
            Msg::Cart => self.carts += 1,
            Msg::Sample(_) => {}
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Zone>()
        .entered_by_test("main_under_lookahead::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// When samples were handled and when they were sent [min], and the report of five minutes and a
/// half.
fn samples(placement: TestPlacement, lookahead: SimDuration) -> (Vec<(u64, u64)>, MpReport) {
    let settings = MpMain::builder(agents()).on(placement);
    let mut main = settings.lookahead(lookahead).build().unwrap();
    for zone in 1..=2_u64 {
        let cluster = main.new_cluster();
        let next = 3 - zone;
        main.add_to(cluster, zone, Zone { next, carts: 0 }).unwrap();
    }
    let mut samples = Vec::new();
    let minutes = |time: SimTime| time.as_nanos() / MINUTE.as_nanos();
    let run = Run::until(SimTime::from_secs(330));
    let report = main.run_with(run, |_, main| {
        samples.push((minutes(main.now()), minutes(main.sent_at())));
    });
    (samples, report.unwrap())
}

#[test]
fn mail_to_main_is_counted_apart_and_tells_when_it_was_sent() {
    for placement in [TestPlacement::Inline].into_iter().chain(PROCESSES) {
        let (at_once, report) = samples(placement, SimDuration::ZERO);
        let each = (1..=5).flat_map(|minute| [(minute, minute); 2]);
        assert_eq!(at_once, each.collect::<Vec<_>>());
        assert_eq!((report.held_back, report.held_back_to_main), (0, 0));

        let (late, report) = samples(placement, MINUTE);
        let each = (1..=4).flat_map(|minute| [(minute + 1, minute); 2]);
        assert_eq!(late, each.collect::<Vec<_>>(), "{placement:?}");
        // No cart is late, all samples are, those of the last minute too.
        assert_eq!((report.held_back, report.held_back_to_main), (0, 10));
    }
}

#[test]
fn a_lone_scheduler_tells_it_too() {
    let mut scheduler = Scheduler::new();
    scheduler.add(1, Zone { next: 1, carts: 0 }).unwrap();
    let mut sent = Vec::new();
    let run = Run::until(SimTime::from_secs(150));
    let report = scheduler.run_with(run, |_, main| sent.push((main.now(), main.sent_at())));
    report.unwrap();
    let minutes = [60, 120].map(SimTime::from_secs);
    assert_eq!(sent, minutes.map(|minute| (minute, minute)));
}
