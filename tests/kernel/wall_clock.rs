//! Clocks that follow the wall. Nothing here depends on how fast this machine is: a run must not
//! end before the wall allows it, and it may end as late as it likes.

use std::sync::mpsc;
use std::time::Duration;

use maslite_core::{
    AgentId, Alarm, Clock, Mail, Run, Scheduler, SimDuration, SimTime, Speed, StopReason,
};

use crate::actor::{Ctx, Say, World};

fn real_time() -> World {
    World::of(Scheduler::builder().clock(Clock::RealTime))
}

fn paced(factor: f64) -> World {
    let speed = Speed::new(factor).unwrap();
    World::of(Scheduler::builder().clock(Clock::Paced(speed)))
}

fn ms(millis: u64) -> SimDuration {
    SimDuration::from_millis(millis)
}

#[test]
fn a_paced_run_gives_the_trace_of_a_simulated_one_and_takes_its_time() {
    let trace = |mut world: World| {
        let mut left = 4;
        let ticker = world.actor().setup(|ctx| {
            ctx.alarm_in(ms(100), Say("Tick"));
        });
        let ticker = ticker.on("Tick", move |_, ctx| {
            ctx.send(2, Say("Tock"));
            left -= 1;
            if left > 0 {
                ctx.alarm_in(ms(100), Say("Tick"));
            }
        });
        world.add(1, ticker);
        world.add_idle(2);
        let report = world.run_until_idle();
        (world.log.take(), report)
    };
    let (simulated, at_once) = trace(World::new());
    let (paced, report) = trace(paced(10.0));
    assert_eq!(paced, simulated);
    assert_eq!(report.digest, at_once.digest);
    assert_eq!(report.now, SimTime::from_millis(400));
    assert!(report.wall >= Duration::from_millis(40), "{report}");
}

#[test]
fn a_paced_run_waits_for_its_time_limit() {
    let mut world = paced(2.0);
    let patient = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(1_000_000), Say("Much later"));
    });
    world.add(1, patient);
    let report = world.run(Run::until(SimTime::from_millis(60)));
    assert_eq!(
        (report.stopped_by, report.now),
        (StopReason::TimeLimit, SimTime::from_millis(60))
    );
    assert!(report.wall >= Duration::from_millis(30), "{report}");
}

#[test]
fn a_paced_run_that_falls_behind_reports_it() {
    let mut world = paced(1_000_000.0);
    let (never, waits) = mpsc::channel::<()>();
    let slow = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(1), Say("First"));
        ctx.alarm_in(ms(2), Say("Second"));
    });
    let slow = slow.on("First", move |_, _| {
        let _ = waits.recv_timeout(Duration::from_millis(5));
    });
    world.add(1, slow);
    let report = world.run_until_idle();
    drop(never);
    assert!(report.behind >= Duration::from_millis(4), "{report}");
}

#[test]
fn real_time_waits_for_an_alarm_that_is_required() {
    let mut world = real_time();
    let patient = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(30), Say("Alarm"));
    });
    world.add(1, patient);
    let report = world.run_until_idle();
    assert_eq!(report.stopped_by, StopReason::Idle);
    assert_eq!(report.total.alarms_fired, 1);
    assert!(report.now >= SimTime::from_millis(30));
    assert!(report.wall >= Duration::from_millis(30), "{report}");
}

#[test]
fn real_time_drops_alarms_that_are_optional_when_it_goes_idle() {
    let mut world = real_time();
    let patient = world.actor().setup(|ctx| {
        ctx.set_alarm(Alarm::after(ms(10)), Say("Required"));
        ctx.set_alarm(Alarm::after(ms(3_600_000)).optional(), Say("Optional"));
    });
    world.add(1, patient);
    let report = world.run_until_idle();
    let counters = report.total;
    assert_eq!(report.stopped_by, StopReason::Idle);
    assert_eq!((counters.alarms_fired, counters.alarms_cleared), (1, 1));
    assert_eq!(counters.alarms_pending, 0);
}

#[test]
fn an_optional_alarm_fires_while_a_required_one_keeps_the_run_going() {
    let mut world = real_time();
    let patient = world.actor().setup(|ctx| {
        ctx.set_alarm(Alarm::after(ms(20)), Say("Required"));
        ctx.set_alarm(Alarm::after(ms(10)).optional(), Say("Optional"));
    });
    world.add(1, patient);
    let report = world.run_until_idle();
    assert_eq!(report.total.alarms_fired, 2);
}

#[test]
fn real_time_goes_on_between_runs() {
    let mut world = real_time();
    let patient = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(10), Say("Alarm"));
    });
    world.add(1, patient);
    let first = world.run_until_idle();
    let (never, waits) = mpsc::channel::<()>();
    let _ = waits.recv_timeout(Duration::from_millis(15));
    drop(never);
    let patient = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(0), Say("Alarm"));
    });
    world.add(2, patient);
    let second = world.run_until_idle();
    assert!(second.now >= first.now + ms(15), "{second}");
}

#[test]
fn real_time_ends_at_its_limit_while_agents_chat_and_an_alarm_is_due() {
    let mut world = real_time();
    for (id, other) in [(1_u64, 2), (2, 1)] {
        let chatty = world.actor().sends("Chat", other, "Chat");
        world.add(id, chatty);
    }
    let alarmed = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(5), Say("Alarm"));
    });
    world.add(3, alarmed);
    world.mail(9, 1, "Chat");
    let run = Run::lasting(ms(20)).timeout(Duration::from_secs(60));
    let report = world.run(run);
    assert_eq!(report.stopped_by, StopReason::TimeLimit);
    assert!(report.wall >= Duration::from_millis(20), "{report}");
    // Chatter does not keep alarms from firing.
    assert_eq!(report.total.alarms_fired, 1);
}

#[test]
fn what_was_due_before_the_end_happens_though_the_wall_has_leapt_over_both() {
    let mut world = real_time();
    let slow = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(5), Say("Alarm"));
        ctx.alarm_in(ms(3_600_000), Say("In an hour"));
        let (_never, waits) = mpsc::channel::<()>();
        let _ = waits.recv_timeout(Duration::from_millis(25));
    });
    world.add(1, slow);
    let report = world.run(Run::lasting(ms(20)).timeout(Duration::from_secs(60)));
    assert_eq!(report.stopped_by, StopReason::TimeLimit);
    assert_eq!(
        (report.now, report.total.alarms_fired),
        (SimTime::ZERO + ms(20), 1)
    );
    // The alarm comes late, but at an instant of the run.
    let expected = "19999999ns/0 1 gets Alarm from 1";
    assert_eq!(world.log.take().last().map(String::as_str), Some(expected));
}

#[test]
fn a_run_that_waits_can_be_stopped_and_sent_mail() {
    for clock in [Clock::RealTime, Clock::Paced(Speed::new(1.0).unwrap())] {
        let mut world = World::of(Scheduler::builder().clock(clock));
        let (started, has_started) = mpsc::channel();
        let (heard, has_heard) = mpsc::channel();
        let setup = move |ctx: &mut Ctx<'_>| {
            ctx.alarm_in(ms(3_600_000), Say("In an hour"));
        };
        let patient = world.actor().setup(setup);
        world.add(1, patient);
        let listener = world
            .actor()
            .on("Start", move |_, _| started.send(()).unwrap());
        world.add(2, listener.on("Hello", move |_, _| heard.send(()).unwrap()));
        world.mail(9, 2, "Start");
        let handle = world.scheduler.controller();
        let outside = std::thread::spawn(move || {
            has_started.recv().unwrap();
            handle.send_mail(Mail::new(9, AgentId::from(2), Say("Hello")));
            has_heard.recv().unwrap();
            handle.stop();
        });
        let report = world.run_until_idle();
        assert_eq!(report.stopped_by, StopReason::Interrupted);
        outside.join().unwrap();
    }
}
