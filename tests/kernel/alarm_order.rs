//! Alarms: when they fire, in which order, whom they reach, and how to be rid of them.

use std::sync::{Arc, Mutex};

use maslite_core::{AgentId, Alarm, AlarmFilter, Error, Pattern, Receiver, SimDuration, SimTime};

use crate::actor::{Ctx, Say, World};

fn ms(millis: u64) -> SimDuration {
    SimDuration::from_millis(millis)
}

fn to(receiver: u64) -> Receiver {
    AgentId::from(receiver).into()
}

#[test]
fn alarms_of_one_instant_fire_by_time_set_then_setter_then_sequence() {
    let mut world = World::new();
    // Both set alarms for 10 ms at 0, at 4 and at 10 ms itself; 2 was inserted first.
    for (id, names) in [
        (
            2,
            ["2 set at 0", "2 again at 0", "2 set at 4", "2 set at 10"],
        ),
        (
            1,
            ["1 set at 0", "1 again at 0", "1 set at 4", "1 set at 10"],
        ),
    ] {
        let set = |topic, ctx: &mut Ctx<'_>| {
            ctx.set_alarm(Alarm::at(SimTime::from_millis(10)).to(to(3)), Say(topic));
        };
        let setter = world.actor().setup(move |ctx| {
            ctx.alarm_in(ms(4), Say("Four"));
            set(names[0], ctx);
            ctx.alarm_in(ms(10), Say("Ten"));
            set(names[1], ctx);
        });
        let setter = setter.on("Four", move |_, ctx| set(names[2], ctx));
        world.add(id, setter.on("Ten", move |_, ctx| set(names[3], ctx)));
    }
    world.add_idle(3);
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 2 is set up",
        "0/0 1 is set up",
        "0/0 3 is set up",
        "4/0 2 gets Four from 2",
        "4/0 1 gets Four from 1",
        "10/0 2 gets Ten from 2",
        "10/0 1 gets Ten from 1",
        "10/0 3 gets 2 set at 0 from 2",
        "10/0 3 gets 2 again at 0 from 2",
        "10/0 3 gets 1 set at 0 from 1",
        "10/0 3 gets 1 again at 0 from 1",
        "10/0 3 gets 2 set at 4 from 2",
        "10/0 3 gets 1 set at 4 from 1",
        "10/1 3 gets 2 set at 10 from 2",
        "10/1 3 gets 1 set at 10 from 1",
    ]);
    assert_eq!(report.now, SimTime::from_millis(10));
    assert_eq!(report.total.alarms_fired, 12);
}

#[test]
fn an_alarm_without_delay_fires_in_its_instant_after_the_mail_has_settled() {
    let mut world = World::new();
    let hasty = world.actor().on("Go", |_, ctx| {
        ctx.alarm_in(ms(0), Say("Now"));
        ctx.send(2, Say("One"));
    });
    world.add(1, hasty);
    let chatty = world.actor().sends("One", 3, "Two");
    world.add(2, chatty);
    world.add_idle(3);
    world.mail(9, 1, "Go");
    world.run_until_idle();
    world.log.take();
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    // The supersteps go on counting: 0 to 3 were of the first run.
    world.log.is(&[
        "0/4 1 gets Go from 9",
        "0/5 2 gets One from 1",
        "0/6 3 gets Two from 2",
        "0/7 1 gets Now from 1",
    ]);
    assert_eq!(report.now, SimTime::ZERO);
}

#[test]
fn alarms_reach_others_with_copies_and_as_broadcasts_and_directly() {
    let mut world = World::new();
    let setter = world.actor().setup(|ctx| {
        ctx.set_alarm(Alarm::after(ms(1)).to(to(2)), Say("A"));
        ctx.set_alarm(Alarm::after(ms(2)).to(Receiver::Subscribers), Say("A"));
        ctx.set_alarm(
            Alarm::after(ms(3)).to(Receiver::Direct(AgentId::from(2))),
            Say("A"),
        );
        ctx.set_alarm(Alarm::after(ms(4)).to(to(77)), Say("B"));
    });
    world.add(1, setter);
    world.add_idle(2);
    let spy = world
        .actor()
        .setup(|ctx| ctx.subscribe(Pattern::topic("A")));
    world.add(3, spy);
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 3 is set up",
        "1/0 2 gets A from 1",
        "1/0 3 gets A from 1 to 2",
        "2/0 3 gets A from 1 to all",
        "3/0 2 gets A from 1",
    ]);
    assert_eq!(report.total.undeliverable, 1);
    assert_eq!(report.now, SimTime::from_millis(4));
}

#[test]
fn an_alarm_for_a_time_that_is_past_fires_now() {
    let mut world = World::new();
    let late = world.actor().setup(|ctx| {
        ctx.alarm_at(SimTime::from_millis(5), Say("Five"));
    });
    let late = late.on("Five", |_, ctx| {
        ctx.alarm_in(ms(0), Say("Now"));
        ctx.alarm_at(SimTime::from_millis(3), Say("Past"));
    });
    world.add(1, late);
    world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "5/0 1 gets Five from 1",
        "5/1 1 gets Now from 1",
        "5/1 1 gets Past from 1",
    ]);
}

#[test]
fn an_alarm_beyond_the_end_of_time_is_an_error() {
    let mut world = World::new();
    let dreamer = world.actor().on("Go", |_, ctx| {
        ctx.alarm_in(ms(1), Say("Soon"));
    });
    let dreamer = dreamer.on("Soon", |_, ctx| {
        ctx.alarm_in(SimDuration::MAX, Say("Never"));
    });
    world.add(1, dreamer);
    world.mail(9, 1, "Go");
    let error = world.fails();
    let (agent, time, delay) = (AgentId::from(1), SimTime::from_millis(1), SimDuration::MAX);
    assert_eq!(error, Error::TimeOverflow { agent, time, delay });
}

#[test]
fn an_alarm_at_the_end_of_time_fires() {
    let mut world = World::new();
    let patient = world.actor().setup(|ctx| {
        ctx.alarm_at(SimTime::MAX, Say("End"));
    });
    world.add(1, patient);
    let report = world.run_until_idle();
    assert_eq!(report.now, SimTime::MAX);
    world.log.is(&[
        "0/0 1 is set up",
        "18446744073709551615ns/0 1 gets End from 1",
    ]);
}

#[test]
fn alarms_are_cleared_by_handle_by_receiver_and_by_topic_and_only_ones_own() {
    let mut world = World::new();
    let cleared = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&cleared);
    let setter = world.actor().setup(move |ctx| {
        let first = ctx.alarm_in(ms(1), Say("A"));
        ctx.alarm_in(ms(2), Say("B"));
        ctx.set_alarm(Alarm::after(ms(3)).to(to(2)), Say("A"));
        ctx.set_alarm(Alarm::after(ms(4)).to(to(2)), Say("B"));
        ctx.set_alarm(Alarm::after(ms(5)).to(Receiver::Subscribers), Say("C"));
        let last = ctx.alarm_in(ms(6), Say("D"));
        let mut noted = noted.lock().unwrap();
        noted.push(usize::from(ctx.clear_alarm(first)));
        noted.push(usize::from(ctx.clear_alarm(first)));
        noted.push(ctx.clear_alarms(AlarmFilter::all().to(to(2)).about("A")));
        noted.push(ctx.clear_alarms(AlarmFilter::all().about("B")));
        noted.push(ctx.clear_alarms(AlarmFilter::all().to(Receiver::Subscribers)));
        noted.push(ctx.alarms(AlarmFilter::all()).len());
        assert_eq!(ctx.alarms(AlarmFilter::all())[0].id, last);
    });
    world.add(1, setter);
    let noted = Arc::clone(&cleared);
    let other = world.actor().setup(move |ctx| {
        ctx.alarm_in(ms(7), Say("Mine"));
        let mut noted = noted.lock().unwrap();
        noted.push(ctx.clear_alarms(AlarmFilter::all().about("D")));
        noted.push(ctx.alarms(AlarmFilter::all()).len());
    });
    world.add(2, other);
    let report = world.run_until_idle();
    assert_eq!(*cleared.lock().unwrap(), [1, 0, 1, 2, 1, 1, 0, 1]);
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "6/0 1 gets D from 1",
        "7/0 2 gets Mine from 2",
    ]);
    let counters = report.total;
    assert_eq!((counters.alarms_set, counters.alarms_cleared), (7, 5));
}

#[test]
fn a_handle_is_of_no_use_to_another_agent() {
    let mut world = World::new();
    let shared = Arc::new(Mutex::new(None));
    let given = Arc::clone(&shared);
    let setter = world.actor().setup(move |ctx| {
        *given.lock().unwrap() = Some(ctx.alarm_in(ms(1), Say("Mine")));
    });
    world.add(1, setter);
    let thief = world.actor().setup(move |ctx| {
        let handle = shared.lock().unwrap().unwrap();
        assert!(!ctx.clear_alarm(handle));
    });
    world.add(2, thief);
    assert_eq!(world.run_until_idle().total.alarms_fired, 1);
}

#[test]
fn a_handle_means_nothing_else_after_its_alarm_fired() {
    let mut world = World::new();
    let mut handles = Vec::new();
    let setter = world.actor().update(move |ctx| {
        while ctx.next_mail().is_some() {
            for handle in &handles {
                assert!(!ctx.clear_alarm(*handle), "it fired");
            }
            if handles.len() < 3 {
                handles.push(ctx.alarm_in(ms(1), Say("Again")));
            }
        }
    });
    world.add(1, setter);
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    assert_eq!(report.now, SimTime::from_millis(3));
}

#[test]
fn alarms_are_listed_in_the_order_they_fire() {
    let mut world = World::new();
    for id in [2, 1] {
        let setter = world.actor().setup(move |ctx| {
            ctx.alarm_in(ms(3), Say("Late"));
            ctx.set_alarm(Alarm::after(ms(1)).to(to(3)), Say("Early"));
            ctx.alarm_in(ms(3), Say("Last"));
        });
        world.add(id, setter);
    }
    world.run(maslite_core::Run::until(SimTime::ZERO));
    let listed = world.scheduler.alarms(AlarmFilter::all()).unwrap();
    let text: Vec<_> = listed
        .iter()
        .map(|alarm| {
            format!(
                "{} {} -> {:?} {}",
                alarm.time, alarm.setter, alarm.receiver, alarm.topic
            )
        })
        .collect();
    assert_eq!(
        text,
        [
            "0.001 s 2 -> Agent(3) Early",
            "0.001 s 1 -> Agent(3) Early",
            "0.003 s 2 -> Agent(2) Late",
            "0.003 s 2 -> Agent(2) Last",
            "0.003 s 1 -> Agent(1) Late",
            "0.003 s 1 -> Agent(1) Last",
        ]
    );
    let late = world
        .scheduler
        .alarms(AlarmFilter::all().about("Late").to(to(1)))
        .unwrap();
    assert_eq!(late.len(), 1);
    assert_eq!(
        world
            .scheduler
            .clear_alarms(AlarmFilter::all().about("Last")),
        2
    );
    let report = world.run_until_idle();
    assert_eq!(
        (report.total.alarms_fired, report.total.alarms_cleared),
        (4, 2)
    );
}
