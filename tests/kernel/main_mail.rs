//! Mail to the simulation's owner, and what it answers.

use maslite_core::{AgentId, Pattern, Receiver, Run, Scheduler, StopReason};

use crate::actor::{Say, World, balanced};

/// An agent that asks main something and passes the answer on.
fn asking() -> World {
    let mut world = World::new();
    let asker = world.actor().on("Go", |_, ctx| {
        ctx.send(AgentId::MAIN, Say("Ask"));
        ctx.send(2, Say("Asked"));
    });
    world.add(1, asker);
    world.add_idle(2);
    world.mail(9, 1, "Go");
    world
}

#[test]
fn without_a_handler_it_is_undeliverable() {
    let mut world = asking();
    let report = world.run_until_idle();
    assert_eq!((report.total.sent, report.total.undeliverable), (3, 1));
}

#[test]
fn an_answer_arrives_in_the_next_superstep_after_mail_of_agents() {
    let mut world = asking();
    let chatty = world.actor().on("Go", |_, ctx| ctx.send(2, Say("Chat")));
    world.add(3, chatty);
    world.mail(9, 3, "Go");
    let log = world.log.clone();
    let run = Run::until_idle();
    let report = world.scheduler.run_with(run, |mail, main| {
        log.note(format_args!(
            "handled {} from {}",
            mail.topic(),
            mail.sender
        ));
        main.send(AgentId::from(2), Say("Answer"));
        main.send(Receiver::Subscribers, Say("Unheard"));
    });
    let report = balanced(report.unwrap());
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 3 is set up",
        "0/0 1 gets Go from 9",
        "0/0 3 gets Go from 9",
        "0/1 main gets Ask from 1",
        "handled Ask from 1",
        "0/1 2 gets Asked from 1",
        "0/1 2 gets Chat from 3",
        "0/1 2 gets Answer from main",
    ]);
    assert_eq!((report.total.sent, report.total.delivered), (6, 6));
    assert_eq!((report.total.unheard, report.total.undeliverable), (1, 0));
}

#[test]
fn the_handler_stops_the_run_when_all_its_mail_is_handled() {
    let mut world = asking();
    let other = world
        .actor()
        .on("Go", |_, ctx| ctx.send(AgentId::MAIN, Say("Ask")));
    world.add(3, other);
    world.mail(9, 3, "Go");
    let mut handled = 0;
    let report = world.scheduler.run_with(Run::until_idle(), |_, main| {
        handled += 1;
        main.stop();
    });
    let report = balanced(report.unwrap());
    assert_eq!((handled, report.stopped_by), (2, StopReason::Stopped));
    assert_eq!((report.total.queued, report.total.supersteps), (1, 1));
    world.log.take();
    world.run_until_idle();
    world.log.is(&["0/1 2 gets Asked from 1"]);
}

#[test]
fn main_can_be_listened_to() {
    let mut world = asking();
    let spy = world.actor().setup(|ctx| {
        ctx.subscribe(Pattern::receiver(AgentId::MAIN));
        ctx.subscribe(Pattern::sender(AgentId::MAIN));
    });
    world.add(3, spy);
    let report = world.scheduler.run_with(Run::until_idle(), |_, main| {
        main.send(AgentId::from(1), Say("Answer"));
    });
    balanced(report.unwrap());
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "0/0 3 is set up",
        "0/0 1 gets Go from 9",
        "0/1 main gets Ask from 1",
        "0/1 1 gets Answer from main",
        "0/1 2 gets Asked from 1",
        "0/1 3 gets Ask from 1 to main",
        "0/1 3 gets Answer from main to 1",
    ]);
}

#[test]
fn no_agent_may_be_called_main() {
    let mut world = World::new();
    let usurper = world.actor();
    let error = world.scheduler.add(AgentId::MAIN, usurper).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the id main is reserved for the kernel: give the agent another number or a name"
    );
}

#[test]
fn a_panic_of_the_handler_is_its_own_and_no_agents() {
    let mut world = asking();
    let run = std::panic::AssertUnwindSafe(|| {
        let handler = |_, _: &mut _| panic!("the handler's own");
        let _ = world.scheduler.run_with(Run::until_idle(), handler);
    });
    let payload = std::panic::catch_unwind(run).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"the handler's own"));
    assert_eq!(world.fails(), maslite_core::Error::Failed);
}

/// A handler that mails main would otherwise never come to an end.
#[test]
fn main_does_not_talk_to_itself() {
    let mut scheduler = Scheduler::new();
    scheduler.send(AgentId::MAIN, Say("Hello"));
    let mut heard = 0;
    let run = scheduler.run_with(Run::until_idle(), |mail, main| {
        heard += 1;
        main.send(AgentId::MAIN, mail.body);
    });
    let counters = run.unwrap().total;
    assert_eq!((heard, counters.undeliverable), (1, 1));
    assert_eq!((counters.sent, counters.delivered), (2, 1));
}
