//! A panic of an agent ends the run with an error that names it.

use maslite_core::{AgentId, Error, Phase, SimDuration, SimTime};

use crate::actor::{Say, World};

fn panicked(agent: impl Into<AgentId>, phase: Phase, millis: u64, superstep: u64) -> Error {
    Error::AgentPanicked {
        agent: agent.into(),
        phase,
        time: SimTime::from_millis(millis),
        superstep,
        message: "out of paint".to_owned(),
        place: None,
        backtrace: None,
    }
}

/// The error without what depends on where things stand in this file, and on the environment.
fn bare(mut error: Error) -> Error {
    if let Error::AgentPanicked {
        place, backtrace, ..
    } = &mut error
    {
        let place = place.take().expect("the hook saw it");
        assert!(place.contains("panics.rs:"), "{place}");
        *backtrace = None;
    }
    error
}

#[test]
fn in_setup() {
    let mut world = World::new();
    world.add_idle(1);
    let painter = world.actor().setup(|_| panic!("out of {}", "paint"));
    world.add("painter", painter);
    world.add_idle(3);
    assert_eq!(bare(world.fails()), panicked("painter", Phase::Setup, 0, 0));
    world.log.is(&["0/0 1 is set up", "0/0 painter is set up"]);
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn in_update_at_some_time() {
    let mut world = World::new();
    let painter = world.actor().setup(|ctx| {
        ctx.alarm_in(SimDuration::from_millis(250), Say("Paint"));
    });
    let painter = painter.sends("Paint", 2, "Paint");
    world.add(1, painter);
    let other = world.actor().on("Paint", |_, _| panic!("out of paint"));
    world.add(2, other);
    let error = world.fails();
    let said = error.to_string();
    let place = format!("in {}:{}:", file!(), line!() - 4);
    assert!(
        said.starts_with("agent 2 panicked in update at 0.25 s, superstep 1, in "),
        "{said}"
    );
    assert!(said.contains(&place), "{said}, not {place}");
    assert!(said.ends_with(": out of paint"), "{said}");
    assert_eq!(bare(error), panicked(2, Phase::Update, 250, 1));
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn in_the_setup_of_a_newborn() {
    let mut world = World::new();
    let log = world.log.clone();
    let parent = world.actor().on("Go", move |_, ctx| {
        let child = crate::actor::Actor::new(&log).setup(|_| panic!("out of paint"));
        ctx.add(5, child);
    });
    world.add(1, parent);
    world.mail(9, 1, "Go");
    assert_eq!(bare(world.fails()), panicked(5, Phase::Setup, 0, 1));
}

#[test]
fn in_the_teardown_of_a_removed_agent() {
    let mut world = World::new();
    let painter = world.actor().on("Go", |_, ctx| ctx.remove(1));
    world.add(1, painter.teardown(|_| panic!("out of paint")));
    world.mail(9, 1, "Go");
    assert_eq!(bare(world.fails()), panicked(1, Phase::Teardown, 0, 1));
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn in_the_teardown_at_the_end_and_the_others_are_torn_down_all_the_same() {
    let mut world = World::new();
    for id in [1, 2, 3] {
        let actor = world.actor().teardown(move |_| {
            assert!(id == 1, "out of paint");
        });
        world.add(id, actor);
    }
    world.run_until_idle();
    world.log.take();
    // The first of two tells.
    let error = world.scheduler.shutdown().ok().unwrap_err();
    assert_eq!(bare(error), panicked(2, Phase::Teardown, 0, 1));
    world.log.is(&[
        "0/1 1 is torn down",
        "0/1 2 is torn down",
        "0/1 3 is torn down",
    ]);
}

/// Panics when it is dropped, unless a panic is on its way already.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "out of paint");
    }
}

#[test]
fn in_the_drop_of_a_removed_agent() {
    let mut world = World::new();
    let fragile = Fragile;
    let painter = world.actor().on("Go", move |_, ctx| {
        let _held = &fragile;
        ctx.remove(1);
    });
    world.add(1, painter);
    world.mail(9, 1, "Go");
    assert_eq!(bare(world.fails()), panicked(1, Phase::Drop, 0, 1));
    assert_eq!(world.fails(), Error::Failed);
}

#[test]
fn in_the_drop_at_the_end_and_the_others_are_dropped_all_the_same() {
    let mut world = World::new();
    for id in [1, 2, 3] {
        let fragile = if id == 1 { None } else { Some(Fragile) };
        let actor = world.actor().teardown(move |_| {
            let _held = &fragile;
        });
        world.add(id, actor);
    }
    world.run_until_idle();
    let error = world.scheduler.shutdown().ok().unwrap_err();
    assert_eq!(bare(error), panicked(2, Phase::Drop, 0, 1));
}

#[test]
fn after_a_failure_no_drop_harms_the_program() {
    let mut world = World::new();
    for id in [1, 2] {
        let fragile = Fragile;
        let actor = world.actor().on("Go", move |_, _| {
            let _held = &fragile;
            panic!("out of paint");
        });
        world.add(id, actor);
    }
    world.mail(9, 1, "Go");
    assert_eq!(bare(world.fails()), panicked(1, Phase::Update, 0, 0));
    drop(world);
}

#[test]
fn dropping_keeps_silent_about_it() {
    let mut world = World::new();
    let painter = world.actor().teardown(|_| panic!("out of paint"));
    world.add(1, painter);
    world.run_until_idle();
    drop(world);
}

#[test]
fn after_a_failure_nobody_is_torn_down() {
    let mut world = World::new();
    let painter = world.actor().on("Go", |_, _| panic!("out of paint"));
    world.add(1, painter);
    world.mail(9, 1, "Go");
    world.fails();
    world.log.take();
    world.scheduler.shutdown().ok().unwrap();
    world.log.is(&[]);
}
