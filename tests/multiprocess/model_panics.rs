//! A panic in the model outside its agents is an error that says where, in every placement; a panic
//! in a callback of the program goes on to the program and ends the simulation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use maslite_core::Error as ModelError;
use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;
use maslite_mp::{Chain, Error, MpReport};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

/// What of a message panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Flaw {
    None,
    Topic,
    Encoding,
    Decoding,
    Trace,
    Drop,
    /// The value that is thrown panics when it is dropped.
    Thrown,
}

#[derive(Clone, Debug)]
struct Msg {
    flaw: Flaw,
    left: u8,
}

impl Drop for Msg {
    fn drop(&mut self) {
        // A second panic while the first one unwinds would abort any program.
        assert!(
            self.flaw != Flaw::Drop || std::thread::panicking(),
            "no end"
        );
    }
}

struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl Message for Msg {
    fn topic(&self) -> Topic {
        assert!(self.flaw != Flaw::Topic, "no topic");
        if self.flaw == Flaw::Thrown {
            std::panic::panic_any(Spiteful);
        }
        Topic::new("Msg")
    }
}

impl Serialize for Msg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.flaw != Flaw::Encoding, "no encoding");
        (self.flaw, self.left).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Msg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (flaw, left) = Deserialize::deserialize(deserializer)?;
        assert!(flaw != Flaw::Decoding, "no decoding");
        Ok(Self { flaw, left })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Agent1 {
    to: AgentId,
    flaw: Flaw,
}

impl Agent<Msg> for Agent1 {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        // No topic is asked for where there are no subscriptions.
        if matches!(self.flaw, Flaw::Topic | Flaw::Thrown) {
            ctx.subscribe(Pattern::topic("Msg"));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Some(left) = mail.body.left.checked_sub(1) {
            let flaw = if left == 0 { self.flaw } else { Flaw::None };
            ctx.send(self.to, Msg { flaw, left });
        }
    }
}

fn line(delivery: &Delivery<'_, Msg>, line: &mut String) {
    assert!(delivery.mail.body.flaw != Flaw::Trace, "no line");
    *line = format!("{} {}", delivery.superstep, delivery.agent);
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Agent1>()
        .with::<Late>()
        .with_builder("broken", |(): (), _: &mut AgentSet<Msg>| {
            panic!("no agents")
        })
        .with_trace_format(line)
        .entered_by_test("model_panics::child")
        .enter()
}

#[test]
#[ignore = "started by the tests below, as a child process"]
fn child() {
    agents();
}

/// Two agents in two clusters that send each other messages; the last message has a flaw.
fn two(placement: TestPlacement, flaw: Flaw, left: u8) -> MpMain<Msg> {
    two_with(placement, flaw, left, |settings| settings)
}

fn two_with(
    placement: TestPlacement,
    flaw: Flaw,
    left: u8,
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> MpMain<Msg> {
    let settings = settings(MpMain::builder(agents()).on(placement));
    let mut main = settings.build().unwrap();
    for (id, to) in [(1, 2), (2, 1)] {
        let (cluster, to) = (main.new_cluster(), AgentId::from(to));
        main.add_to(cluster, id, Agent1 { to, flaw }).unwrap();
    }
    let flaw = Flaw::None;
    main.send(1, Msg { flaw, left });
    main
}

fn error_of(result: Result<MpReport, Error>) -> String {
    Chain(&result.unwrap_err()).to_string()
}

#[test]
fn a_panic_of_a_message_is_an_error_with_its_place() {
    for (flaw, expected) in [
        (Flaw::Topic, "no topic"),
        (Flaw::Encoding, "no encoding"),
        (Flaw::Decoding, "no decoding"),
        (Flaw::Trace, "no line"),
    ] {
        for placement in ALL {
            let mut main = two_with(placement, flaw, 4, |it| it.trace(|_| {}));
            let error = error_of(main.run(Run::until_idle()));
            let what = match flaw {
                Flaw::Trace => "the format of the trace panicked at 0 s, superstep 4",
                _ => "code outside agents",
            };
            for part in ["cluster ", what, expected, "model_panics.rs:"] {
                assert!(error.contains(part), "{placement:?} {flaw:?}: {error}");
            }
            assert!(
                !error.contains("agent 1") && !error.contains("agent 2"),
                "{placement:?}: {error}"
            );
            assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
        }
    }
}

#[test]
fn a_thrown_value_that_panics_when_it_is_dropped_harms_nobody() {
    for placement in ALL {
        let mut main = two(placement, Flaw::Thrown, 4);
        let error = error_of(main.run(Run::until_idle()));
        assert!(error.contains("no message"), "{placement:?}: {error}");
    }
}

#[test]
fn a_panic_of_a_builder_is_an_error_that_names_the_builder() {
    for placement in ALL {
        let mut main = two(placement, Flaw::None, 1);
        let cluster = main.new_cluster();
        main.build(cluster, "broken", ()).unwrap();
        let error = error_of(main.run(Run::until_idle()));
        for part in [
            "in cluster 3: builder \"broken\" panicked",
            "no agents",
            "model_panics.rs:",
        ] {
            assert!(error.contains(part), "{placement:?}: {error}");
        }
    }
}

/// A message that main cannot handle as it should.
fn sick(flaw: Flaw) -> Msg {
    Msg { flaw, left: 1 }
}

#[test]
fn a_panic_of_a_message_of_main_is_an_error_with_its_place() {
    for (flaw, said) in [
        (Flaw::Topic, "no topic"),
        (Flaw::Encoding, "no encoding"),
        (Flaw::Drop, "no end"),
    ] {
        for placement in ALL {
            for is_reply in [false, true] {
                let mut main = two(placement, Flaw::None, 4);
                if is_reply {
                    let (from, flaw) = (AgentId::from(2), Flaw::None);
                    main.send_mail(Mail::new(from, AgentId::MAIN, Msg { flaw, left: 0 }));
                } else {
                    main.send(1, sick(flaw));
                }
                let result = main.run_with(Run::until_idle(), |_, main| {
                    main.send(AgentId::from(1), sick(flaw));
                });
                let error = error_of(result);
                let what = "code of a message that main or the owner sends";
                for part in [what, said, "at 0 s, superstep 0", "model_panics.rs:"] {
                    assert!(error.contains(part), "{placement:?} {flaw:?}: {error}");
                }
                assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
            }
        }
    }
}

#[test]
fn a_panic_of_the_trace_format_over_mail_to_main_is_an_error() {
    for placement in ALL {
        let mut main = two_with(placement, Flaw::None, 4, |it| it.trace(|_| {}));
        let mail = Mail::new(AgentId::from(2), AgentId::MAIN, sick(Flaw::Trace));
        main.send_mail(mail);
        let error = error_of(main.run_with(Run::until_idle(), |_, _| {}));
        for part in ["the format of the trace panicked at 0 s", "no line"] {
            assert!(error.contains(part), "{placement:?}: {error}");
        }
    }
}

/// Sets alarms that are still pending at the end, and whose messages panic when they are dropped.
#[derive(Debug, Serialize, Deserialize)]
struct Late;

impl Agent<Msg> for Late {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..3 {
            ctx.alarm_in(SimDuration::from_secs(1), sick(Flaw::Drop));
        }
    }
}

#[test]
fn messages_that_panic_when_they_are_dropped_at_the_end_harm_nobody() {
    const SAID: &str = "code outside agents";
    let run = || Run::until(SimTime::from_millis(1));
    for placement in ALL {
        // A cluster that forgets drops its messages before the end.
        let settings = MpMain::builder(agents()).amnesia(None).on(placement);
        let mut main = settings.build().unwrap();
        let cluster = main.new_cluster();
        main.add_to(cluster, 1, Late).unwrap();
        main.run(run()).unwrap();
        let errors = main.shutdown().errors;
        let errors: Vec<_> = errors.iter().map(|it| Chain(it).to_string()).collect();
        assert_eq!(errors.len(), 1, "{placement:?}: {errors:?}");
        assert!(
            errors[0].contains(SAID) && errors[0].contains("no end"),
            "{errors:?}"
        );
    }
    let mut scheduler = Scheduler::builder().amnesia(None).build();
    scheduler.add(1, Late).unwrap();
    scheduler.run(run()).unwrap();
    let error = scheduler.shutdown().ok().unwrap_err().to_string();
    assert!(error.contains(SAID) && error.contains("no end"), "{error}");
}

#[test]
fn a_message_that_panics_alone_is_an_error_of_the_scheduler() {
    let mut scheduler = Scheduler::builder().digest().build();
    let (to, flaw) = (AgentId::from(1), Flaw::Topic);
    scheduler.add(1, Agent1 { to, flaw }).unwrap();
    scheduler.add(2, Agent1 { to, flaw }).unwrap();
    let flaw = Flaw::None;
    let mail = |left| Mail::new(AgentId::MAIN, AgentId::from(1), Msg { flaw, left });
    scheduler.send_mail(mail(2));
    let error = scheduler.run(Run::until_idle()).unwrap_err();
    assert!(error.to_string().contains("no topic"), "{error}");
    assert_eq!(scheduler.run(Run::until_idle()), Err(ModelError::Failed));
}

/// A callback of the program that panics in a run.
#[derive(Clone, Copy, Debug)]
enum Callback {
    Handler,
    Predicate,
    Trace,
}

const CALLBACKS: [Callback; 3] = [Callback::Handler, Callback::Predicate, Callback::Trace];

#[test]
fn a_panic_in_a_callback_of_the_program_ends_the_simulation() {
    for placement in ALL {
        for callback in CALLBACKS {
            let mut main = two_with(placement, Flaw::None, 9, |it| match callback {
                Callback::Trace => it.trace(|line| assert!(line != "3 2", "enough")),
                Callback::Handler | Callback::Predicate => it,
            });
            main.send_mail(Mail::new(
                AgentId::from(2),
                AgentId::MAIN,
                Msg {
                    flaw: Flaw::None,
                    left: 0,
                },
            ));
            main.start().unwrap();
            let (pids, controller) = (main.pids(), main.controller());
            let mut handled = 0;
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut run = Run::until_idle();
                if let Callback::Predicate = callback {
                    run = run.stop_when(|counters| {
                        assert!(counters.delivered < 3, "enough");
                        false
                    });
                }
                main.run_with(run, |_, _| {
                    handled += 1;
                    assert!(!matches!(callback, Callback::Handler), "enough");
                })
            }));
            let payload = result.unwrap_err();
            assert_eq!(
                payload.downcast_ref::<&str>(),
                Some(&"enough"),
                "{callback:?}"
            );
            assert!(matches!(main.run(Run::until_idle()), Err(Error::Ended)));
            assert_eq!(handled, 1, "{callback:?}");
            let asking = std::thread::spawn(move || controller.inspect::<Agent1>(1));
            let why = asking.join().unwrap().unwrap_err().to_string();
            assert!(why.contains("a callback of the program panicked"), "{why}");
            if !placement.is_inline() {
                let left = pids.iter().filter(|(_, pid)| crate::workers::exists(*pid));
                assert_eq!(left.count(), 0, "{callback:?}");
            }
        }
    }
}

#[test]
fn a_panic_in_a_callback_of_a_lone_schedulers_owner_ends_it() {
    for callback in CALLBACKS {
        let mut settings = Scheduler::builder();
        if let Callback::Trace = callback {
            let observer: maslite_core::Observer<Msg> = Box::new(|delivery| {
                assert!(delivery.mail.body.left == 0, "enough");
            });
            settings = settings.observe(observer);
        }
        let mut scheduler = settings.build();
        let (to, flaw) = (AgentId::MAIN, Flaw::None);
        scheduler.add(1, Agent1 { to, flaw }).unwrap();
        let message = Msg { flaw, left: 1 };
        scheduler.send(1, message);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut run = Run::until_idle();
            if let Callback::Predicate = callback {
                run = run.stop_when(|_| panic!("enough"));
            }
            scheduler.run_with(run, |_, _| panic!("enough"))
        }));
        let payload = result.unwrap_err();
        assert_eq!(
            payload.downcast_ref::<&str>(),
            Some(&"enough"),
            "{callback:?}"
        );
        assert_eq!(
            scheduler.run(Run::until_idle()),
            Err(ModelError::Failed),
            "{callback:?}"
        );
    }
}
