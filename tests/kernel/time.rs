//! An engine under a clock that others drive never goes back in time, and passes nothing that is to
//! happen. It refuses in release builds too.

use maslite_core::internal::{Engine, EngineHooks, Limits, MailKey};
use maslite_core::{Agent, AgentId, Context, Mail, SimDuration, SimTime};

use crate::actor::Say;

const ALARM: SimTime = SimTime::from_millis(20);
const NOON: SimTime = SimTime::from_millis(12);
const PAST: SimTime = SimTime::from_millis(11);

struct Sleeper;

impl Agent<Say> for Sleeper {
    fn setup(&mut self, ctx: &mut Context<'_, Say>) {
        ctx.alarm_at(ALARM, Say("Wake"));
    }
}

struct Nobody;

impl EngineHooks<Say> for Nobody {
    fn before_posting(&mut self, _: &mut Engine<Say>) -> bool {
        false
    }

    fn after_posting(&mut self, _: &mut Engine<Say>) -> bool {
        false
    }

    fn wants_attention(&self) -> bool {
        false
    }
}

/// An engine that stands at noon, with an alarm to come.
fn at_noon() -> Engine<Say> {
    let mut engine = Engine::new(0);
    engine.look_ahead(SimDuration::from_millis(1));
    engine.add(AgentId::from(1), Box::new(Sleeper)).unwrap();
    engine.setup().unwrap();
    engine.stand_at(NOON, 0);
    engine
}

fn arrive(engine: &mut Engine<Say>, time: SimTime) {
    let mail = Mail::new(2, AgentId::from(1), Say("Hello"));
    engine.arrive(time, PAST, MailKey::of_owner(PAST, 0), mail);
}

#[test]
fn what_is_in_time_is_taken() {
    let mut engine = at_noon();
    engine.stand_at(NOON, 3);
    arrive(&mut engine, NOON);
    engine.remove_at(NOON, AgentId::from(1));
    engine.advance_to(PAST);
    assert_eq!((engine.now(), engine.superstep()), (NOON, 3));
    engine.fire(NOON);
    engine.stand_at(ALARM, 0);
    engine.fire(ALARM);
}

#[test]
#[should_panic(expected = "time never goes backwards")]
fn it_never_stands_at_an_earlier_time() {
    at_noon().stand_at(PAST, 0);
}

#[test]
#[should_panic(expected = "time never passes an alarm")]
fn it_never_stands_behind_an_alarm() {
    at_noon().stand_at(ALARM + SimDuration::from_nanos(1), 0);
}

#[test]
#[should_panic(expected = "mail comes for a time that is past")]
fn it_takes_no_mail_for_an_earlier_time() {
    arrive(&mut at_noon(), PAST);
}

#[test]
#[should_panic(expected = "a removal comes for a time that is past")]
fn it_removes_nobody_at_an_earlier_time() {
    at_noon().remove_at(PAST, AgentId::from(1));
}

#[test]
#[should_panic(expected = "no alarm fires before its time")]
fn it_fires_no_alarm_early() {
    at_noon().fire(ALARM);
}

#[test]
fn it_runs_no_instant_that_is_past() {
    let mut engine = at_noon();
    engine.advance_to(ALARM + SimDuration::from_nanos(1));
    let limits = Limits {
        horizon: None,
        supersteps: 9,
        supersteps_per_instant: 9,
    };
    let error = engine.run(&limits, &mut Nobody).unwrap_err();
    let told = error.to_string();
    assert!(told.ends_with(": time never goes backwards"), "{told}");
}
