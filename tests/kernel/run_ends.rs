//! What ends a run, and where everything then stands.

use std::sync::mpsc;
use std::time::Duration;

use maslite_core::{AgentId, Error, Mail, Run, SimDuration, SimTime, StopReason};

use crate::actor::{Say, World};

fn at(millis: u64) -> SimTime {
    SimTime::from_millis(millis)
}

fn ms(millis: u64) -> SimDuration {
    SimDuration::from_millis(millis)
}

/// An agent that ticks every 10 ms, `count` times.
fn ticking(count: u32) -> World {
    let mut world = World::new();
    let mut left = count;
    let ticker = world.actor().setup(|ctx| {
        ctx.alarm_in(ms(10), Say("Tick"));
    });
    let ticker = ticker.on("Tick", move |_, ctx| {
        left -= 1;
        if left > 0 {
            ctx.alarm_in(ms(10), Say("Tick"));
        }
    });
    world.add(1, ticker);
    world
}

/// Two agents that exchange a ball for ever, at one instant.
fn endless() -> World {
    let mut world = World::new();
    let (one, two) = (world.actor(), world.actor());
    world.add(1, one.sends("Ping", 2, "Pong"));
    world.add(2, two.sends("Pong", 1, "Ping"));
    world.mail(9, 1, "Ping");
    world
}

#[test]
fn idle_ends_it_where_the_last_thing_happened() {
    let mut world = ticking(3);
    let report = world.run(Run::until(at(1_000)));
    assert_eq!((report.stopped_by, report.now), (StopReason::Idle, at(30)));
    assert_eq!(report.total.supersteps, 4);
}

#[test]
fn an_empty_simulation_is_idle() {
    let report = World::new().run_until_idle();
    assert_eq!((report.stopped_by, report.now), (StopReason::Idle, at(0)));
    assert_eq!(report.total.supersteps, 0);
}

#[test]
fn at_the_time_limit_nothing_has_happened_yet() {
    let mut world = ticking(5);
    let report = world.run(Run::until(at(20)));
    assert_eq!(
        (report.stopped_by, report.now),
        (StopReason::TimeLimit, at(20))
    );
    world
        .log
        .is(&["0/0 1 is set up", "10/0 1 gets Tick from 1"]);
    let report = world.run(Run::lasting(ms(15)));
    assert_eq!((report.start, report.now), (at(20), at(35)));
    world
        .log
        .is(&["20/0 1 gets Tick from 1", "30/0 1 gets Tick from 1"]);
}

#[test]
fn a_time_limit_that_is_past_lets_nothing_happen() {
    let mut world = ticking(5);
    world.run(Run::until(at(35)));
    world.log.take();
    for limit in [35, 20, 0] {
        let report = world.run(Run::until(at(limit)));
        assert_eq!(
            (report.stopped_by, report.now),
            (StopReason::TimeLimit, at(35))
        );
        world.log.is(&[]);
    }
}

#[test]
fn a_limit_at_the_start_sets_up_and_does_no_more() {
    let mut world = ticking(1);
    world.mail(9, 1, "Other");
    let report = world.run(Run::until(SimTime::ZERO));
    assert_eq!(report.stopped_by, StopReason::TimeLimit);
    assert_eq!((report.total.queued, report.total.supersteps), (1, 0));
    world.log.is(&["0/0 1 is set up"]);
}

#[test]
fn a_run_makes_no_more_supersteps_than_it_is_given() {
    let mut world = endless();
    let report = world.run(Run::until_idle().supersteps(0));
    assert_eq!(
        (report.stopped_by, report.total.supersteps),
        (StopReason::Supersteps, 0)
    );
    world.log.is(&["0/0 1 is set up", "0/0 2 is set up"]);
    let report = world.run(Run::until_idle().supersteps(3));
    assert_eq!(
        (report.stopped_by, report.total.supersteps),
        (StopReason::Supersteps, 3)
    );
    world.log.is(&[
        "0/0 1 gets Ping from 9",
        "0/1 2 gets Pong from 1",
        "0/2 1 gets Ping from 2",
    ]);
}

#[test]
fn supersteps_end_it_before_time_moves() {
    let mut world = ticking(2);
    let report = world.run(Run::until_idle().supersteps(1));
    assert_eq!(
        (report.stopped_by, report.now),
        (StopReason::Supersteps, at(0))
    );
    let report = world.run(Run::until_idle().supersteps(5));
    assert_eq!((report.stopped_by, report.now), (StopReason::Idle, at(20)));
}

#[test]
fn pause_ends_it_after_the_superstep_with_its_mail_posted() {
    let mut world = World::new();
    let pauser = world.actor().on("Go", |_, ctx| {
        ctx.stop_run();
        ctx.send(2, Say("A"));
    });
    world.add(1, pauser);
    let other = world.actor().on("Go", |_, ctx| {
        ctx.stop_run();
        ctx.send(1, Say("B"));
    });
    world.add(2, other);
    world.mail(9, 2, "Go");
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    assert_eq!(
        report.stopped_by,
        StopReason::StoppedByAgent(AgentId::from(1))
    );
    assert_eq!(report.stopped_by.to_string(), "stopped by agent 1");
    assert_eq!(report.total.queued, 2);
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 1 gets Go from 9",
        "0/0 2 gets Go from 9",
    ]);
    assert_eq!(world.run_until_idle().stopped_by, StopReason::Idle);
    world
        .log
        .is(&["0/1 1 gets B from 2", "0/1 2 gets A from 1"]);
}

#[test]
fn pause_in_setup_ends_it_before_the_first_superstep() {
    let mut world = World::new();
    let pauser = world.actor().setup(|ctx| {
        ctx.stop_run();
        ctx.send(1, Say("After"));
    });
    world.add(1, pauser);
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    assert_eq!(
        report.stopped_by,
        StopReason::StoppedByAgent(AgentId::from(1))
    );
    assert_eq!(report.total.supersteps, 0);
    world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 1 gets Go from 9",
        "0/0 1 gets After from 1",
    ]);
}

#[test]
fn a_predicate_over_the_counters_ends_it_between_two_supersteps() {
    let mut world = ticking(10);
    let report = world.run(Run::until_idle().stop_when(|counters| counters.delivered == 4));
    assert_eq!(
        (report.stopped_by, report.now),
        (StopReason::Predicate, at(40))
    );
    let report = world.run(Run::until_idle().stop_when(|_| true));
    assert_eq!(
        (report.stopped_by, report.total.delivered),
        (StopReason::Predicate, 4)
    );
}

#[test]
fn a_timeout_ends_an_endless_exchange() {
    let mut world = endless();
    let run = Run::until_idle().supersteps_per_instant(u64::MAX);
    let timeout = Duration::from_millis(20);
    let report = world.run(run.timeout(timeout));
    assert_eq!(report.stopped_by, StopReason::Timeout);
    assert!(report.wall >= timeout, "{report}");
    assert_eq!(report.total.queued, 1);
    // It has no part in the next run.
    let report = world.run(Run::until_idle().supersteps(1));
    assert_eq!(report.stopped_by, StopReason::Supersteps);
}

/// Holds up the thread that drops it.
struct Sticky(mpsc::Receiver<()>);

impl Drop for Sticky {
    fn drop(&mut self) {
        let _ = self.0.recv_timeout(Duration::from_millis(30));
    }
}

#[test]
fn a_timeout_that_comes_as_the_run_ends_has_no_part_in_the_next() {
    let mut world = ticking(2);
    let (_nobody, sticky) = mpsc::channel();
    let sticky = Sticky(sticky);
    // The predicate is dropped when all is over but the return.
    let run = Run::until(at(15)).stop_when(move |_| {
        let _ = &sticky;
        false
    });
    world.run(run.timeout(Duration::from_millis(10)));
    let report = world.run_until_idle();
    assert_eq!(report.stopped_by, StopReason::Idle);
}

#[test]
fn a_timeout_that_is_not_needed_does_not_hold_up_the_run() {
    let report = ticking(1).run(Run::until_idle().timeout(Duration::from_secs(3_600)));
    assert_eq!(report.stopped_by, StopReason::Idle);
    assert!(report.wall < Duration::from_secs(3_600));
}

#[test]
fn an_endless_exchange_is_found_and_names_the_agents() {
    let mut world = endless();
    world.add_idle(3);
    let run = Run::until_idle().supersteps_per_instant(1_000);
    let error = world.scheduler.run(run).unwrap_err();
    let (time, limit) = (SimTime::ZERO, 1_000);
    let agents = vec![AgentId::from(1)];
    assert_eq!(
        error,
        Error::EndlessExchange {
            time,
            limit,
            agents
        }
    );
    assert_eq!(
        error.to_string(),
        "endless exchange at 0 s: time stands still after 1000 supersteps, awake agents: 1; let time pass between request and \
         answer (`ctx.alarm_in`), or raise the limit on supersteps per instant"
    );
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn an_endless_exchange_is_found_without_asking() {
    let mut world = World::new();
    // Alarms without delay do not let time pass either.
    let hasty = world.actor().on("Go", |_, ctx| {
        ctx.alarm_in(ms(0), Say("Go"));
    });
    world.add("hasty", hasty);
    let hasty = AgentId::from("hasty");
    world
        .scheduler
        .send_mail(Mail::new(hasty, hasty, Say("Go")));
    let error = world.fails();
    assert!(
        error
            .to_string()
            .contains("1000000 supersteps, awake agents: hasty"),
        "{error}"
    );
}

#[test]
fn the_limit_on_supersteps_counts_within_an_instant() {
    let mut world = ticking(50);
    let report = world.run(Run::until_idle().supersteps_per_instant(1));
    assert_eq!(report.total.supersteps, 51);
}

#[test]
fn a_handle_ends_the_run_to_come() {
    let mut world = ticking(1);
    world.scheduler.controller().stop();
    let report = world.run_until_idle();
    assert_eq!(report.stopped_by, StopReason::Interrupted);
    assert_eq!(report.total.supersteps, 0);
    assert_eq!(world.run_until_idle().stopped_by, StopReason::Idle);
}

#[test]
fn a_handle_ends_a_run_from_another_thread() {
    let mut world = endless();
    let (started, has_started) = mpsc::channel();
    let herald = world
        .actor()
        .on("Go", move |_, _| started.send(()).unwrap());
    world.add(3, herald);
    world.mail(9, 3, "Go");
    let handle = world.scheduler.controller();
    let stopper = std::thread::spawn(move || {
        has_started.recv().unwrap();
        handle.stop();
    });
    let report = world.run(Run::until_idle().supersteps_per_instant(u64::MAX));
    assert_eq!(report.stopped_by, StopReason::Interrupted);
    stopper.join().unwrap();
}

#[test]
fn mail_from_another_thread_comes_in_between_two_supersteps() {
    let mut world = endless();
    let (started, has_started) = mpsc::channel();
    let herald = world
        .actor()
        .on("Go", move |_, _| started.send(()).unwrap());
    world.add(3, herald.on("Stop", |_, ctx| ctx.stop_run()));
    world.mail(9, 3, "Go");
    let handle = world.scheduler.controller();
    let sender = std::thread::spawn(move || {
        has_started.recv().unwrap();
        handle.send_mail(Mail::new(9, AgentId::from(3), Say("Stop")));
    });
    let report = world.run(Run::until_idle().supersteps_per_instant(u64::MAX));
    assert_eq!(
        report.stopped_by,
        StopReason::StoppedByAgent(AgentId::from(3))
    );
    sender.join().unwrap();
}
