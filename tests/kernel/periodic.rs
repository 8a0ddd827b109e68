//! Periodic alarms: when they are due, how they end; and replies.

use std::sync::{Arc, Mutex};

use maslite_core::{
    Agent, AgentId, Alarm, AlarmFilter, AlarmId, Context, Error, Mail, Run, Scheduler, SimDuration,
    SimTime,
};

use crate::actor::{Ctx, Say, World};

fn ms(millis: u64) -> SimDuration {
    SimDuration::from_millis(millis)
}

fn until(millis: u64) -> Run {
    Run::until(SimTime::from_millis(millis))
}

/// Sets a periodic alarm in `setup`, and keeps its handle where a test finds it.
fn every(period: SimDuration, topic: &'static str) -> (impl FnMut(&mut Ctx<'_>) + Send, Kept) {
    let kept = Kept::default();
    let keeper = Kept::clone(&kept);
    let set = move |ctx: &mut Ctx<'_>| {
        *keeper.lock().unwrap() = Some(ctx.set_alarm(Alarm::every(period), Say(topic)));
    };
    (set, kept)
}

type Kept = Arc<Mutex<Option<AlarmId>>>;

#[test]
fn it_is_due_each_period_and_keeps_its_handle_until_it_is_cleared() {
    let mut world = World::new();
    let (set, kept) = every(ms(10), "Tick");
    let log = world.log.clone();
    let ticker = world.actor().setup(set).on("Tick", move |_, ctx| {
        let handle = *kept.lock().unwrap();
        let pending = ctx.alarms(AlarmFilter::all());
        let pending: Vec<_> = pending
            .iter()
            .map(|it| (Some(it.id) == handle, it.time.to_string(), it.period))
            .collect();
        log.note(format_args!("{pending:?}"));
        if ctx.now() == SimTime::from_millis(30) {
            let cleared = handle.map(|handle| (ctx.clear_alarm(handle), ctx.clear_alarm(handle)));
            log.note(format_args!("{cleared:?}"));
        }
    });
    world.add(1, ticker);
    let report = world.run_until_idle();
    world.log.is(&[
        "0/0 1 is set up",
        "10/0 1 gets Tick from 1",
        r#"[(true, "0.02 s", Some(SimDuration(10000000)))]"#,
        "20/0 1 gets Tick from 1",
        r#"[(true, "0.03 s", Some(SimDuration(10000000)))]"#,
        "30/0 1 gets Tick from 1",
        r#"[(true, "0.04 s", Some(SimDuration(10000000)))]"#,
        "Some((true, false))",
    ]);
    let counters = report.total;
    let alarms = (
        counters.alarms_set,
        counters.alarms_fired,
        counters.alarms_cleared,
    );
    assert_eq!((report.now, alarms), (SimTime::from_millis(30), (4, 3, 1)));
}

#[test]
fn the_first_time_can_be_given() {
    let mut world = World::new();
    let at = |ctx: &mut Ctx<'_>| {
        let early = Alarm::every(ms(10)).first_at(SimTime::from_millis(3));
        ctx.set_alarm(early, Say("At"));
        ctx.set_alarm(Alarm::every(ms(10)).first_in(ms(4)), Say("In"));
    };
    let actor = world.actor().setup(at);
    world.add(1, actor);
    world.run(until(20));
    world.log.is(&[
        "0/0 1 is set up",
        "3/0 1 gets At from 1",
        "4/0 1 gets In from 1",
        "13/0 1 gets At from 1",
        "14/0 1 gets In from 1",
    ]);
}

#[test]
fn one_for_others_is_set_again_when_it_fires() {
    let mut world = World::new();
    let set = |ctx: &mut Ctx<'_>| {
        ctx.set_alarm(Alarm::every(ms(10)).to(AgentId::from(2)), Say("Poke"));
        let to_all = Alarm::every(ms(15)).to(maslite_core::Receiver::Subscribers);
        ctx.set_alarm(to_all, Say("News"));
    };
    let actor = world.actor().setup(set);
    world.add(1, actor);
    let listener = world
        .actor()
        .setup(|ctx| ctx.subscribe(maslite_core::Pattern::topic("News")));
    world.add(2, listener);
    world.run(until(31));
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "10/0 2 gets Poke from 1",
        "15/0 2 gets News from 1 to all",
        "20/0 2 gets Poke from 1",
        "30/0 2 gets News from 1 to all",
        "30/0 2 gets Poke from 1",
    ]);
    let pending = world.scheduler.alarms(AlarmFilter::all()).unwrap();
    let due: Vec<_> = pending
        .iter()
        .map(|it| (it.time.as_millis(), it.topic.to_string()))
        .collect();
    assert_eq!(due, [(40, "Poke".to_owned()), (45, "News".to_owned())]);
}

#[test]
fn it_dies_with_its_agent_and_other_alarms_of_it_do_not() {
    let mut world = World::new();
    let set = |ctx: &mut Ctx<'_>| {
        ctx.set_alarm(Alarm::every(ms(10)), Say("Tick"));
        ctx.set_alarm(Alarm::every(ms(10)).to(AgentId::from(2)), Say("Poke"));
        ctx.set_alarm(Alarm::after(ms(50)).to(AgentId::from(2)), Say("Last"));
    };
    let mortal = world.actor().setup(set).on("Tick", |_, ctx| {
        if ctx.now() == SimTime::from_millis(20) {
            ctx.remove(ctx.id());
        }
    });
    world.add(1, mortal);
    world.add_idle(2);
    // With an end, so that an alarm that outlives its agent fails the test instead of hanging it.
    let report = world.run(Run::until(SimTime::from_secs(1)));
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 2 is set up",
        "10/0 1 gets Tick from 1",
        "10/0 2 gets Poke from 1",
        "20/0 1 gets Tick from 1",
        "20/0 2 gets Poke from 1",
        "20/1 1 is torn down",
        "50/0 2 gets Last from 1",
    ]);
    assert_eq!(
        (report.total.alarms_cleared, report.total.alarms_pending),
        (2, 0)
    );
}

#[test]
fn cleared_between_firing_and_reading_that_mail_is_the_last() {
    for by_filter in [false, true] {
        let mut world = World::new();
        let (mut set, kept) = every(ms(10), "Tick");
        let before = move |ctx: &mut Ctx<'_>| {
            // It was set before the tick, so it is read before it.
            ctx.alarm_in(ms(10), Say("Before"));
            set(ctx);
        };
        let log = world.log.clone();
        let actor = world.actor().setup(before).on("Before", move |_, ctx| {
            let ended = match *kept.lock().unwrap() {
                Some(handle) if !by_filter => usize::from(ctx.clear_alarm(handle)),
                _ => ctx.clear_alarms(AlarmFilter::all().about("Tick")),
            };
            log.note(format_args!("ended {ended}"));
        });
        world.add(1, actor);
        let report = world.run_until_idle();
        world.log.is(&[
            "0/0 1 is set up",
            "10/0 1 gets Before from 1",
            "ended 1",
            "10/0 1 gets Tick from 1",
        ]);
        assert_eq!(report.total.alarms_cleared, 0);
    }
}

#[test]
fn the_owner_sees_it_and_can_clear_it() {
    let mut world = World::new();
    let (set, _) = every(ms(10), "Tick");
    let actor = world.actor().setup(set);
    world.add(1, actor);
    world.run(until(25));
    let pending = world.scheduler.alarms(AlarmFilter::all()).unwrap();
    assert_eq!(
        (pending[0].time, pending[0].period),
        (SimTime::from_millis(30), Some(ms(10)))
    );
    assert_eq!(world.scheduler.clear_alarms(AlarmFilter::all()), 1);
    assert_eq!(world.run_until_idle().now, SimTime::from_millis(25));
}

#[test]
fn it_ends_with_time() {
    let mut world = World::new();
    let last = SimTime::MAX - SimDuration::from_nanos(1);
    let set = move |ctx: &mut Ctx<'_>| {
        ctx.set_alarm(Alarm::every(ms(1)).first_at(last), Say("Tick"));
    };
    let actor = world.actor().setup(set);
    world.add(1, actor);
    assert_eq!(world.run_until_idle().total.alarms_fired, 1);
}

#[test]
fn a_period_of_zero_is_an_error_that_names_the_agent() {
    let mut world = World::new();
    let (set, _) = every(SimDuration::ZERO, "Tick");
    let actor = world.actor().setup(set);
    world.add(1, actor);
    let error = world.fails();
    assert_eq!(
        error.to_string(),
        "at 0 s agent 1 set a periodic alarm with a period of zero, which would never let time pass: give it a longer period"
    );
}

#[test]
fn in_real_time_an_optional_one_does_not_keep_a_run_from_being_idle() {
    let clock = maslite_core::Clock::RealTime;
    let mut world = World::of(Scheduler::builder().clock(clock));
    let set = |ctx: &mut Ctx<'_>| {
        ctx.set_alarm(
            Alarm::every(SimDuration::from_hours(1)).optional(),
            Say("Tick"),
        );
    };
    let actor = world.actor().setup(set);
    world.add(1, actor);
    let report = world.run_until_idle();
    assert_eq!(
        (report.stopped_by.name(), report.total.alarms_cleared),
        ("idle", 1)
    );
}

/// Answers whatever it gets.
struct Echo;

impl Agent<Say> for Echo {
    fn receive(&mut self, mail: Mail<Say>, ctx: &mut Context<'_, Say>) {
        if mail.body.0 != "Echo" {
            ctx.reply(Say("Echo"));
        }
    }
}

#[test]
fn a_reply_goes_to_the_sender_be_it_an_agent_the_setter_of_an_alarm_or_main() {
    let mut world = World::new();
    world.scheduler.add("echo", Echo).unwrap();
    let asker = world.actor().setup(|ctx| {
        ctx.send("echo", Say("Hello"));
        ctx.set_alarm(Alarm::after(ms(5)).to(AgentId::from("echo")), Say("Later"));
        ctx.alarm_in(ms(7), Say("Mine"));
    });
    let asker = asker.on("Mine", |_, ctx| ctx.reply(Say("Mine as well")));
    world.add(1, asker);
    let (main, echo) = (AgentId::MAIN, AgentId::from("echo"));
    world
        .scheduler
        .send_mail(Mail::new(main, echo, Say("Main")));
    let mut heard = Vec::new();
    let run = Run::until_idle();
    let report = world
        .scheduler
        .run_with(run, |mail, _| heard.push((mail.sender, mail.body)));
    assert_eq!(heard, [(echo, Say("Echo"))]);
    assert_eq!(report.unwrap().total.undeliverable, 0);
    world.log.is(&[
        "0/0 1 is set up",
        "0/0 echo gets Main from main",
        "0/0 echo gets Hello from 1",
        "0/1 main gets Echo from echo",
        "0/1 1 gets Echo from echo",
        "5/0 echo gets Later from 1",
        "5/1 1 gets Echo from echo",
        "7/0 1 gets Mine from 1",
        "7/1 1 gets Mine as well from 1",
    ]);
}

#[test]
fn a_reply_to_nothing_is_an_error_that_names_the_agent() {
    let mut world = World::new();
    let actor = world.actor().setup(|ctx| ctx.reply(Say("Well")));
    world.add(1, actor);
    assert_eq!(
        world.fails(),
        Error::NothingToReplyTo {
            agent: AgentId::from(1),
            time: SimTime::ZERO
        }
    );
}
