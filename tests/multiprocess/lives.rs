//! Agents that come and go by the thousand: slots are numbered anew meanwhile, and nothing of it is
//! seen.

use maslite_mp::prelude::*;
use maslite_testkit::effort::is_full;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To the elders, from the owner.
    Begin,
    /// The end of a life is due.
    Age,
    /// Told to all who listen.
    News(u64),
    /// An answer to it.
    Heard,
    /// To an agent that is often gone by then.
    Late,
}

const ELDERS: u64 = 4;
const LIVES: u64 = 600;

/// Stays, listens to all news, answers them, and has alarms of its own between those who come and
/// go.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Elder {
    id: u64,
}

/// Lives for a few milliseconds of chance. It is followed by another agent with a new id, sometimes
/// by two, until `lives` more have lived.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mortal {
    id: u64,
    /// How many still follow it.
    lives: u64,
}

impl Agent<Msg> for Elder {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("News"));
        ctx.keep_awake(self.id == 2);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Begin => {
                let id = 1_000_000 * self.id;
                ctx.add(id, Mortal { id, lives: LIVES });
            }
            Msg::News(number) if number % ELDERS == self.id % ELDERS => {
                ctx.send(mail.sender, Msg::Heard);
                let late = Alarm::after(SimDuration::from_millis(4));
                ctx.set_alarm(late.to(Receiver::Agent(mail.sender)), Msg::Late);
            }
            _ => {}
        }
    }
}

impl Agent<Msg> for Mortal {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let delay = ctx.rng().random_range(1..6);
        ctx.alarm_in(SimDuration::from_millis(delay), Msg::Age);
        if self.id.is_multiple_of(3) {
            ctx.subscribe(Pattern::topic("Heard"));
        }
        ctx.broadcast(Msg::News(self.id));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if matches!(mail.body, Msg::Age) {
            if let Some(lives) = self.lives.checked_sub(1) {
                let id = self.id + 1;
                ctx.add(id, Self { id, lives });
                if lives.is_multiple_of(50) {
                    let id = id + 500_000;
                    ctx.add(id, Self { id, lives: 0 });
                }
            }
            ctx.remove(ctx.id());
        }
    }

    fn teardown(&mut self, ctx: &mut Context<'_, Msg>) {
        // Who died before it is no agent any more.
        ctx.send(self.id.saturating_sub(2), Msg::Late);
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Elder>()
        .with::<Mortal>()
        .entered_by_test("lives::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn begin() -> impl Iterator<Item = Mail<Msg>> {
    (1..=ELDERS).map(|id| Mail::new(AgentId::MAIN, AgentId::from(id), Msg::Begin))
}

fn clusters(placement: TestPlacement, count: usize, lookahead: bool, pieces: u64) -> MpReport {
    let settings = MpMain::builder(agents()).on(placement).digest();
    // There are too many supersteps to forget after each.
    let forgets = pieces == 2 && placement.is_inline();
    let amnesia = forgets.then_some(211);
    let settings = settings.amnesia(amnesia);
    let lookahead = SimDuration::from_millis(u64::from(lookahead));
    let mut main = settings.lookahead(lookahead).build().unwrap();
    let schedulers: Vec<_> = (0..count).map(|_| main.new_cluster()).collect();
    for id in 1..=ELDERS {
        let scheduler = schedulers[usize::try_from(id).unwrap() % count];
        main.add_to(scheduler, id, Elder { id }).unwrap();
    }
    begin().for_each(|mail| main.send_mail(mail));
    for piece in 1..pieces {
        main.run(Run::until(SimTime::from_millis(300 * piece)))
            .unwrap();
    }
    main.run(Run::until_idle()).unwrap()
}

fn alone() -> Report {
    let mut scheduler = Scheduler::builder().digest().build();
    for id in 1..=ELDERS {
        scheduler.add(id, Elder { id }).unwrap();
    }
    begin().for_each(|mail| scheduler.send_mail(mail));
    scheduler.run(Run::until_idle()).unwrap()
}

#[test]
fn they_are_the_same_in_every_placement() {
    let expected = alone();
    assert_eq!(expected.total.agents, ELDERS);
    // What it was when no slot was used twice.
    assert_eq!(expected.digest.unwrap().to_string(), "9978defae61b68f7");
    for placement in ALL {
        let all = [(3, 5), (2, 1), (1, 1), (4, 1), (3, 2)];
        let few = placement != TestPlacement::Inline && !is_full();
        for (count, pieces) in all.into_iter().take(if few { 2 } else { 5 }) {
            let report = clusters(placement, count, false, pieces);
            assert_eq!(report.digest, expected.digest, "{count} on {placement:?}");
            assert_eq!(report.total, expected.total, "{count} on {placement:?}");
        }
    }
}

#[test]
fn under_a_lookahead_they_are_the_same_wherever_the_clusters_run() {
    for count in [2, 4] {
        let expected = clusters(TestPlacement::Inline, count, true, 1);
        assert_eq!(expected.total.agents, ELDERS);
        for placement in ALL {
            let few = placement != TestPlacement::Inline && !is_full();
            for pieces in [5, 2, 1].into_iter().take(if few { 1 } else { 3 }) {
                let report = clusters(placement, count, true, pieces);
                assert_eq!(report.digest, expected.digest, "{count} on {placement:?}");
                let (got, expected) = (report.total, expected.total);
                assert_eq!(got.delivered, expected.delivered);
                assert_eq!(got.undeliverable, expected.undeliverable);
            }
        }
    }
}
