//! What MASlite's own tests for one scheduler expect, with its traps removed.

use std::sync::{Arc, Mutex};

use maslite_core::{
    Agent, AgentId, Alarm, AlarmFilter, Context, Mail, Pattern, Receiver, Run, Scheduler,
    SimDuration, SimTime, StopReason,
};

use crate::actor::{Say, World, balanced};

#[derive(maslite_core::Message, Clone, Debug)]
enum Ball {
    Ping,
    Pong,
    Smash,
}

struct Player {
    updates: u64,
    outcome: &'static str,
}

const LIMIT: u64 = 5_000;

impl Agent<Ball> for Player {
    fn update(&mut self, ctx: &mut Context<'_, Ball>) {
        self.updates += 1;
        let Some(mail) = ctx.next_mail() else {
            return;
        };
        let back = match mail.body {
            Ball::Smash => {
                self.outcome = "beaten!";
                return;
            }
            _ if self.updates >= LIMIT => {
                self.outcome = "won!";
                Ball::Smash
            }
            Ball::Ping => Ball::Pong,
            Ball::Pong => Ball::Ping,
        };
        ctx.send(mail.sender, back);
    }
}

#[test]
fn ping_pong_to_five_thousand() {
    let mut scheduler = Scheduler::new();
    for id in [1, 2] {
        let (updates, outcome) = (0, "");
        scheduler.add(id, Player { updates, outcome }).unwrap();
    }
    scheduler.send_mail(Mail::new(2, AgentId::from(1), Ball::Ping));
    let report = balanced(scheduler.run(Run::until_idle()).unwrap());
    let player = |id: u64| scheduler.agent::<Player>(id).unwrap();
    // Both were just added, so both are updated in the first superstep; that of 2 counts, too.
    assert_eq!((player(1).updates, player(2).updates), (LIMIT, LIMIT));
    assert_eq!((player(1).outcome, player(2).outcome), ("beaten!", "won!"));
    assert_eq!(report.total.sent, 2 * LIMIT - 1);
}

#[test]
fn six_messages_and_spies_subscribed_in_different_ways() {
    let mut world = World::new();
    let [a, b, c] = [1, 2, 3].map(AgentId::from);
    for id in [a, b, c] {
        world.add_idle(id);
    }
    for (id, patterns) in [
        ("a to b", vec![Pattern::sender(a).sent_to(b)]),
        ("b Hello", vec![Pattern::sender(b).about("Hello")]),
        ("Hello", vec![Pattern::topic("Hello")]),
        ("all c", vec![Pattern::sender(c), Pattern::receiver(c)]),
    ] {
        let spy = world.actor().setup(move |ctx| {
            for pattern in &patterns {
                ctx.subscribe(*pattern);
            }
        });
        world.add(id, spy);
    }
    world.run_until_idle();
    world.log.take();
    let all = Receiver::Subscribers;
    for (from, to, topic, expected) in [
        (a, b.into(), "Hello", ["2", "a to b", "Hello"].as_slice()),
        (b, a.into(), "Hello", &["1", "b Hello", "Hello"]),
        (b, c.into(), "Hello", &["3", "b Hello", "Hello", "all c"]),
        (c, all, "Hello", &["Hello", "all c"]),
        (a, b.into(), "How are you?", &["2", "a to b"]),
        (c, Receiver::Direct(b), "Hello", &["2"]),
    ] {
        world.scheduler.send_mail(Mail::new(from, to, Say(topic)));
        world.run_until_idle();
        let lines = world.log.take();
        let name = |line: &str| {
            let (who, _) = line.split_once(" gets ").unwrap();
            who.split_once(' ').unwrap().1.to_owned()
        };
        let got: Vec<_> = lines.iter().map(|line| name(line)).collect();
        assert_eq!(got, expected, "{topic} from {from} to {to:?}");
    }
}

#[test]
fn alarms_of_two_agents_cleared_one_after_the_other() {
    let mut world = World::new();
    let [a, b] = [1, 2].map(AgentId::from);
    let second = SimDuration::from_secs(1);
    let first = world.actor().setup(move |ctx| {
        ctx.alarm_in(second, Say("Alarm a"));
        ctx.set_alarm(Alarm::after(second).to(b), Say("Alarm b"));
    });
    world.add(a, first);
    let other = world.actor().setup(move |ctx| {
        ctx.alarm_in(second * 2, Say("Alarm b"));
    });
    world.add(b, other);
    world.run(Run::until(SimTime::ZERO));
    let times = |world: &mut World| -> Vec<SimTime> {
        let mut times: Vec<_> = world
            .scheduler
            .alarms(AlarmFilter::all())
            .unwrap()
            .iter()
            .map(|alarm| alarm.time)
            .collect();
        times.dedup();
        times
    };
    let [one, two] = [1, 2].map(SimTime::from_secs);
    assert_eq!(times(&mut world), [one, two]);
    assert_eq!(world.scheduler.clear_alarms(AlarmFilter::all().to(b)), 2);
    assert_eq!(times(&mut world), [one]);
    assert_eq!(world.scheduler.clear_alarms(AlarmFilter::all().to(b)), 0);
    assert_eq!(world.scheduler.clear_alarms(AlarmFilter::all().to(a)), 1);
    assert_eq!(times(&mut world), []);
    // What was cleared is gone, also from the next run.
    let report = world.run_until_idle();
    assert_eq!(
        (report.now, report.stopped_by),
        (SimTime::ZERO, StopReason::Idle)
    );
}

#[test]
fn alarms_cleared_by_topic() {
    let mut world = World::new();
    let setter = world.actor().setup(|ctx| {
        for (seconds, topic) in [(1, "1"), (3, "2"), (1, "3")] {
            ctx.alarm_in(SimDuration::from_secs(seconds), Say(topic));
        }
        assert_eq!(
            ctx.clear_alarms(AlarmFilter::all().to(ctx.id()).about("1")),
            1
        );
        assert_eq!(ctx.clear_alarms(AlarmFilter::all().about("3")), 1);
        let left = ctx.alarms(AlarmFilter::all());
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].time, SimTime::from_secs(3));
    });
    world.add(1, setter);
    world.run_until_idle();
    world.log.is(&["0/0 1 is set up", "3000/0 1 gets 2 from 1"]);
}

#[test]
fn running_until_two_with_alarms_at_one_and_a_half_and_three() {
    let alarms = |world: &World| {
        world.actor().setup(|ctx| {
            for millis in [1_000, 1_500, 3_000] {
                ctx.alarm_in(SimDuration::from_millis(millis), Say("Alarm"));
            }
        })
    };
    let mut world = World::new();
    world.add(1, alarms(&world));
    assert_eq!(world.run_until_idle().now, SimTime::from_secs(3));
    assert_eq!(world.scheduler.alarms(AlarmFilter::all()).unwrap(), []);

    let mut world = World::new();
    world.add(1, alarms(&world));
    assert_eq!(
        world.run(Run::until(SimTime::from_secs(2))).now,
        SimTime::from_secs(2)
    );
    let left = world.scheduler.alarms(AlarmFilter::all()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].time, SimTime::from_secs(3));
}

#[test]
fn ten_runs_of_two_seconds_with_an_alarm_every_three() {
    let mut world = World::new();
    let mut left = 7;
    let ticker = world.actor().setup(|ctx| {
        ctx.alarm_in(SimDuration::from_secs(3), Say("Tick"));
    });
    let ticker = ticker.on("Tick", move |_, ctx| {
        left -= 1;
        if left > 0 {
            ctx.alarm_in(SimDuration::from_secs(3), Say("Tick"));
        }
    });
    world.add(1, ticker);
    for seconds in (2..=20).step_by(2) {
        let report = world.run(Run::lasting(SimDuration::from_secs(2)));
        assert_eq!(report.now, SimTime::from_secs(seconds));
        // At 6, 12 and 18 an alarm is due: it has not fired yet.
        let fired = (seconds - 1) / 3;
        assert_eq!(report.total.alarms_fired, fired, "at {seconds} s");
    }
    assert_eq!(world.run_until_idle().now, SimTime::from_secs(21));
}

/// An update that takes one mail is called until all are taken; Python leaves the rest for a later
/// run.
#[test]
fn three_messages_and_an_agent_that_takes_one_at_a_time() {
    let mut world = World::new();
    let taken = Arc::new(Mutex::new(0));
    let count = Arc::clone(&taken);
    let slow = world.actor().update(move |ctx| {
        *count.lock().unwrap() += u32::from(ctx.next_mail().is_some());
    });
    world.add(1, slow);
    for _ in 0..3 {
        world.mail(9, 1, "One");
    }
    assert_eq!(world.run_until_idle().total.queued, 0);
    assert_eq!(*taken.lock().unwrap(), 3);
}
