//! Setup, update and teardown: each when it is due, and once. Births and removals at any moment.

use maslite_core::{Adder, AgentId, Error, Run, SimTime};

use crate::actor::{Actor, Say, World};

#[test]
fn setup_comes_once_and_before_all_mail_and_teardown_once_at_the_end() {
    let mut world = World::new();
    let two = world.actor().setup(|ctx| ctx.send(1, Say("Hello")));
    world.add(2, two.teardown(|ctx| ctx.send(1, Say("Nobody reads this"))));
    world.add_idle(1);
    world.mail(9, 1, "Go");
    world.run_until_idle();
    // Mail queued before the run comes first, mail that setups sent comes after it.
    world.log.is(&[
        "0/0 2 is set up",
        "0/0 1 is set up",
        "0/0 1 gets Go from 9",
        "0/0 1 gets Hello from 2",
    ]);
    world.run_until_idle();
    world.log.is(&[]);
    world.scheduler.shutdown().ok().unwrap();
    world.log.is(&["0/1 2 is torn down", "0/1 1 is torn down"]);
}

#[test]
fn dropping_the_scheduler_tears_down_what_was_set_up() {
    let mut world = World::new();
    world.add_idle(1);
    world.run_until_idle();
    world.add_idle(2);
    drop(world.scheduler);
    world.log.is(&["0/0 1 is set up", "0/1 1 is torn down"]);
}

#[test]
fn subscriptions_of_setup_hold_for_mail_queued_before_the_run() {
    let mut world = World::new();
    let spy = world.actor().setup(|ctx| {
        ctx.subscribe(maslite_core::Pattern::topic("Go"));
    });
    world.add_idle(1);
    world.add(2, spy);
    world.mail(9, 1, "Go");
    world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 1 gets Go from 9",
        "0/0 2 gets Go from 9 to 1",
    ]);
}

#[test]
fn a_new_agent_exists_for_the_mail_of_its_superstep_and_is_awake_in_the_next() {
    let mut world = World::new();
    let log = world.log.clone();
    let parent = world.actor().on("Go", move |_, ctx| {
        ctx.send(5, Say("Welcome"));
        let child = Actor::new(&log).setup(|ctx| ctx.send(1, Say("Born")));
        ctx.add(5, child);
        ctx.add(4, Actor::new(&log).update(|_| ()));
    });
    world.add(1, parent);
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 1 gets Go from 9",
        "0/1 5 is set up",
        "0/1 5 gets Welcome from 1",
        "0/1 4 is set up",
        "0/1 4 is updated",
        "0/2 1 gets Born from 5",
    ]);
    assert_eq!(report.total.agents, 3);
}

#[test]
fn agents_added_in_one_superstep_are_numbered_by_their_adders_index() {
    let mut world = World::new();
    for (id, children) in [(2, [21, 20]), (1, [11, 10])] {
        let log = world.log.clone();
        let parent = world.actor().on("Go", move |_, ctx| {
            for child in children {
                let listener = Actor::new(&log).setup(|ctx| {
                    ctx.subscribe(maslite_core::Pattern::topic("All"));
                });
                ctx.add(child, listener);
            }
        });
        world.add(id, parent);
    }
    // The mail goes to 1 first, but 2 was inserted first.
    world.mail(9, 1, "Go");
    world.mail(9, 2, "Go");
    world.run_until_idle();
    world.log.take();
    world.mail(1, 3, "All");
    world.run_until_idle();
    world.log.is(&[
        "0/2 21 gets All from 1 to 3",
        "0/2 20 gets All from 1 to 3",
        "0/2 11 gets All from 1 to 3",
        "0/2 10 gets All from 1 to 3",
    ]);
}

#[test]
fn an_agent_added_in_setup_exists_for_mail_queued_before_the_run() {
    let mut world = World::new();
    let log = world.log.clone();
    let parent = world.actor().setup(move |ctx| ctx.add(7, Actor::new(&log)));
    world.add(1, parent);
    world.add_idle(2);
    world.mail(9, 7, "Go");
    world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 7 is set up",
        "0/0 7 gets Go from 9",
    ]);
}

#[test]
fn an_agent_added_between_runs_is_set_up_when_the_next_one_starts() {
    let mut world = World::new();
    world.add_idle(1);
    world.run_until_idle();
    let late = world.actor().setup(|ctx| ctx.send(1, Say("Late")));
    world.add(2, late);
    world.log.take();
    world.mail(9, 2, "Go");
    world.run_until_idle();
    world.log.is(&[
        "0/1 2 is set up",
        "0/1 1 gets Late from 2",
        "0/1 2 gets Go from 9",
    ]);
}

#[test]
fn teardown_takes_the_place_of_the_next_update_whoever_removes_whom() {
    let mut world = World::new();
    for id in [1, 2, 3, 4] {
        let actor = world.actor().on("Go", move |_, ctx| {
            if id == 2 {
                // A later agent, an earlier one, and itself.
                for other in [3, 1, 2] {
                    ctx.remove(other);
                }
            }
            ctx.send(3, Say("Unread"));
        });
        world.add(id, actor.teardown(|ctx| ctx.send(4, Say("Bye"))));
        world.mail(9, id, "Go");
    }
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 3 is set up",
        "0/0 4 is set up",
        "0/0 1 gets Go from 9",
        "0/0 2 gets Go from 9",
        "0/0 3 gets Go from 9",
        "0/0 4 gets Go from 9",
        "0/1 1 is torn down",
        "0/1 2 is torn down",
        "0/1 3 is torn down",
        "0/2 4 gets Bye from 1",
        "0/2 4 gets Bye from 2",
        "0/2 4 gets Bye from 3",
    ]);
    let counters = report.total;
    assert_eq!((counters.agents, counters.undeliverable), (1, 4));
    world.scheduler.shutdown().ok().unwrap();
    world.log.is(&["0/3 4 is torn down"]);
}

#[test]
fn a_leaving_agent_can_still_read_its_mail_in_teardown() {
    let mut world = World::new();
    let leaver = world.actor().on("Go", |_, ctx| {
        ctx.remove(1);
        ctx.send(1, Say("Last"));
        ctx.send(1, Say("Unread"));
    });
    world.add(1, leaver.teardown(|ctx| assert!(ctx.next_mail().is_some())));
    world.mail(9, 1, "Go");
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 1 gets Go from 9",
        "0/1 1 is torn down",
        "0/1 1 gets Last from 1",
    ]);
    assert_eq!(report.total.undeliverable, 1);
}

#[test]
fn an_agent_removed_as_it_is_born_is_set_up_and_torn_down() {
    let mut world = World::new();
    let log = world.log.clone();
    let parent = world.actor().on("Go", move |_, ctx| {
        ctx.remove(5);
        ctx.add(5, Actor::new(&log).update(|_| ()));
    });
    world.add(1, parent);
    world.mail(9, 1, "Go");
    world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 1 gets Go from 9",
        "0/1 5 is set up",
        "0/1 5 is torn down",
    ]);
}

#[test]
fn removing_an_agent_again_changes_nothing() {
    let mut world = World::new();
    for id in [1, 2] {
        let actor = world.actor().on("Go", |_, ctx| {
            ctx.remove(3);
            ctx.remove(3);
        });
        world.add(id, actor);
    }
    world.add_idle(3);
    world.mail(9, 1, "Go");
    world.mail(9, 2, "Go");
    world.run_until_idle();
    world.log.take();
    world.mail(9, 2, "Go");
    world.run_until_idle();
    world.log.is(&["0/2 2 gets Go from 9"]);
    assert_eq!(world.scheduler.remove(3), Ok(()), "it is gone already");
    let unknown = world.scheduler.remove(77).unwrap_err();
    assert_eq!(unknown, Error::UnknownAgent(AgentId::from(77)));
    assert_eq!(
        unknown.to_string(),
        "no agent 77 was ever added to this simulation"
    );
}

#[test]
fn the_owner_removes_an_agent_between_runs() {
    let mut world = World::new();
    world.add_idle(1);
    world.add_idle(2);
    world.run_until_idle();
    world.scheduler.remove(1).unwrap();
    world.mail(2, 1, "Unread");
    let report = world.run_until_idle();
    world
        .log
        .is(&["0/0 1 is set up", "0/0 2 is set up", "0/1 1 is torn down"]);
    assert_eq!(report.total.undeliverable, 1);
}

#[test]
fn removing_an_agent_that_never_was_is_an_error() {
    let mut world = World::new();
    let remover = world.actor().on("Go", |_, ctx| ctx.remove(77));
    world.add(1, remover);
    world.mail(9, 1, "Go");
    let error = world.fails();
    assert_eq!(
        error.to_string(),
        "at 0 s agent 1 removed agent 77, but no agent ever had this id: remove only agents that were added"
    );
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn an_id_is_never_used_twice_and_the_error_names_both_adders() {
    let mut world = World::new();
    world.add_idle(1);
    let again = world.actor();
    let error = world.scheduler.add(1, again).unwrap_err();
    assert_eq!(
        error.to_string(),
        "agent 1 was added twice, by the simulation's owner and by the simulation's owner: \
         give one of them another id"
    );
    world.run_until_idle();

    let adder = |world: &World, id| {
        let log = world.log.clone();
        world
            .actor()
            .on("Go", move |_, ctx| ctx.add(id, Actor::new(&log)))
    };
    let mut world = World::new();
    world.add("crane", adder(&world, 5));
    world.add(2, adder(&world, 5));
    world.scheduler.send_mail(maslite_core::Mail::new(
        9,
        AgentId::from("crane"),
        Say("Go"),
    ));
    world.run_until_idle();
    world.mail(9, 2, "Go");
    let (id, crane) = (AgentId::from(5), AgentId::from("crane"));
    let (first, second) = (
        Adder::Agent(crane, SimTime::ZERO),
        Adder::Agent(AgentId::from(2), SimTime::ZERO),
    );
    assert_eq!(world.fails(), Error::DuplicateAgent { id, first, second });

    let mut world = World::new();
    world.add(1, adder(&world, 1));
    world.mail(9, 1, "Go");
    assert_eq!(
        world.fails().to_string(),
        "agent 1 was added twice, by the simulation's owner and by agent 1 at 0 s: \
         give one of them another id"
    );
}

#[test]
fn the_id_of_a_removed_agent_is_not_free() {
    let mut world = World::new();
    world.add_idle(1);
    world.run_until_idle();
    world.scheduler.remove(1).unwrap();
    world.run_until_idle();
    let again = world.actor();
    let error = world.scheduler.add(1, again).unwrap_err();
    assert!(matches!(error, Error::DuplicateAgent { .. }), "{error}");
}

#[test]
fn mail_left_unread_keeps_an_agent_awake_and_comes_before_what_is_new() {
    let mut world = World::new();
    let slow = world.actor().update(|ctx| {
        let mail = ctx.next_mail();
        if mail.is_some_and(|mail| mail.body == Say("A")) {
            ctx.send(1, Say("D"));
        }
    });
    world.add(1, slow);
    for topic in ["A", "B", "C"] {
        world.mail(9, 1, topic);
    }
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 1 gets A from 9",
        "0/0 1 is updated",
        "0/1 1 gets B from 9",
        "0/1 1 is updated",
        "0/2 1 gets C from 9",
        "0/2 1 is updated",
        "0/3 1 gets D from 1",
        "0/3 1 is updated",
    ]);
    assert_eq!((report.total.sent, report.total.delivered), (4, 4));
}

#[test]
fn mail_left_unread_is_counted_as_queued() {
    let mut world = World::new();
    let lazy = world.actor().update(|_| ());
    world.add(1, lazy);
    world.mail(9, 1, "A");
    world.mail(9, 1, "B");
    let report = world.run(Run::until_idle().supersteps(3));
    assert_eq!((report.total.queued, report.total.delivered), (2, 0));
    assert_eq!(report.total.supersteps, 3);
}

#[test]
fn keep_awake_gives_an_update_in_every_superstep_there_is_and_makes_none() {
    let mut world = World::new();
    // The players exchange three balls, the last of them later. The referee sits between them.
    let first = world.actor().sends("Ping", 3, "Pong");
    world.add(1, first);
    let mut updates = 0;
    let referee = world
        .actor()
        .setup(|ctx| ctx.keep_awake(true))
        .update(move |ctx| {
            updates += 1;
            ctx.keep_awake(updates < 4);
        });
    world.add(2, referee);
    let second = world.actor().on("Pong", |_, ctx| {
        ctx.alarm_in(maslite_core::SimDuration::from_millis(5), Say("Pause"));
    });
    world.add(3, second.sends("Pause", 1, "Ping"));
    world.mail(9, 1, "Ping");
    let report = world.run(Run::until(SimTime::from_millis(7)));
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 3 is set up",
        "0/0 1 gets Ping from 9",
        "0/0 2 is updated",
        "0/1 2 is updated",
        "0/1 3 gets Pong from 1",
        // It does not block simulated time: no superstep 2.
        "5/0 2 is updated",
        "5/0 3 gets Pause from 3",
        "5/1 1 gets Ping from 3",
        "5/1 2 is updated",
        // It asked no longer.
        "5/2 3 gets Pong from 1",
    ]);
    assert_eq!(report.total.supersteps, 5);
}

#[test]
fn keep_awake_does_not_prevent_idle() {
    let mut world = World::new();
    let restless = world
        .actor()
        .setup(|ctx| ctx.keep_awake(true))
        .update(|_| ());
    world.add(1, restless);
    let report = world.run_until_idle();
    assert_eq!(report.stopped_by, maslite_core::StopReason::Idle);
    world.log.is(&["0/0 1 is set up", "0/0 1 is updated"]);
    world.run_until_idle();
    world.log.is(&[]);
}
