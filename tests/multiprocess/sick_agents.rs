//! Agents and messages that fail when they are looked at: an error of that request, in every
//! placement, and the run goes on as if there had been no request.

use std::thread;
use std::time::Duration;

use maslite_mp::ControlError;
use maslite_mp::control::ask;
use maslite_mp::control::protocol::{Reply, Request};
use maslite_mp::prelude::*;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

/// Longer than anything here takes, and shorter than a test may hang.
const LIMIT: Option<Duration> = Some(Duration::from_secs(600));

/// What happens when something is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Ill {
    /// Its `Serialize` panics.
    Writes,
    /// Its `Deserialize` does.
    Reads,
    /// It contains itself, again and again.
    Deep,
    /// It has this number of mebibytes.
    Long(u64),
}

/// What agents are asked about, and the agent's reply to it.
const ILLS: [Ill; 5] = [
    Ill::Writes,
    Ill::Reads,
    Ill::Deep,
    Ill::Long(1),
    Ill::Long(300),
];

/// Something with that illness.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Patient(Ill);

struct Within;

impl Serialize for Within {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(&Within)
    }
}

impl Serialize for Patient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_tuple(2)?;
        parts.serialize_element(&self.0)?;
        match self.0 {
            Ill::Writes => panic!("cannot be written"),
            Ill::Reads => {}
            Ill::Deep => parts.serialize_element(&Within)?,
            Ill::Long(length) => {
                let mebibyte = "x".repeat(1024 * 1024);
                (0..length).try_for_each(|_| parts.serialize_element(&mebibyte))?;
            }
        }
        parts.end()
    }
}

impl<'de> Deserialize<'de> for Patient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Patient;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a patient")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Patient, A::Error> {
                let ill = parts.next_element()?.expect("there are many parts");
                match ill {
                    Ill::Reads => panic!("cannot be read"),
                    Ill::Long(length) => {
                        for _ in 0..length {
                            let _: Option<String> = parts.next_element()?;
                        }
                    }
                    Ill::Writes | Ill::Deep => {}
                }
                Ok(Patient(ill))
            }
        }

        deserializer.deserialize_tuple(usize::MAX, Parts)
    }
}

impl Agent<Msg> for Patient {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_millis(1), Msg::Tick(0));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Tick(ticks) = mail.body
            && ticks < 50
        {
            ctx.alarm_in(SimDuration::from_millis(1), Msg::Tick(ticks + 1));
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Answer(ill) => Ok(Msg::Ill(Patient(ill))),
            other => Ok(other),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Tick(u64),
    /// As a command: answer with a message that is ill.
    Answer(Ill),
    Ill(Patient),
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Patient>()
        .with_builder("patients", |(), agents: &mut AgentSet<Msg>| {
            (0..)
                .zip(ILLS)
                .for_each(|(id, ill): (u64, _)| agents.add(id, Patient(ill)));
        })
        .entered_by_test("sick_agents::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn ward(placement: TestPlacement) -> MpMain<Msg> {
    let mut main = MpMain::builder(agents())
        .on(placement)
        .digest()
        .build()
        .unwrap();
    let first = main.new_cluster();
    let _second = main.new_cluster();
    main.build(first, "patients", ()).unwrap();
    main
}

const TYPE: &str = "multiprocess::sick_agents::Patient";

/// What an attempt to write something with this illness comes to; none: it is written.
fn reason(ill: Ill) -> Option<&'static str> {
    match ill {
        Ill::Writes => Some("its `Serialize` panicked: cannot be written"),
        Ill::Deep => Some("it is nested too deeply"),
        Ill::Long(length) if length > 256 => Some("it is longer than the limit of 268435456 bytes"),
        Ill::Reads | Ill::Long(_) => None,
    }
}

const UNREADABLE: &str = "an answer cannot be deserialised: its `Deserialize` panicked: cannot be read; \
     serde attributes such as `flatten` and `untagged` are not supported";

/// Checks the errors of all that can be asked.
fn check(
    mut inspect: impl FnMut(u64) -> Result<Patient, ControlError>,
    mut command: impl FnMut(Msg) -> Result<Msg, ControlError>,
) {
    for (id, ill) in (0..).zip(ILLS) {
        let state = inspect(id).map(drop).map_err(|why| why.to_string());
        let answer = command(Msg::Answer(ill))
            .map(drop)
            .map_err(|why| why.to_string());
        let (of_state, of_answer) = match (ill, reason(ill)) {
            (_, Some(why)) => (
                format!("agent {id} of type {TYPE} cannot be serialised: {why}"),
                format!("the answer of agent 0 cannot be serialised: {why}"),
            ),
            (Ill::Reads, None) => (UNREADABLE.to_owned(), UNREADABLE.to_owned()),
            // It is long, but not too long.
            (_, None) => {
                assert_eq!((state, answer), (Ok(()), Ok(())), "{ill:?}");
                continue;
            }
        };
        assert_eq!((state, answer), (Err(of_state), Err(of_answer)), "{ill:?}");
        // A command that cannot even be sent is an error of the requester.
        let asked = command(Msg::Ill(Patient(ill))).unwrap_err().to_string();
        let what = "a command for agent 0 cannot be";
        let expected = match reason(ill) {
            Some(why) => format!("{what} serialised: {why}"),
            None => format!(
                "{what} deserialised: its `Deserialize` panicked: cannot be read; \
                 serde attributes such as `flatten` and `untagged` are not supported"
            ),
        };
        assert_eq!(asked, expected);
    }
}

#[test]
fn an_agent_that_cannot_be_looked_at_is_an_error_of_who_looks() {
    for placement in ALL {
        let expected = ward(placement).run(Run::until_idle()).unwrap();

        let mut main = ward(placement);
        main.run(Run::until(SimTime::from_millis(7))).unwrap();
        // Both need it, one after the other.
        let main_cell = std::cell::RefCell::new(&mut main);
        check(
            |id| main_cell.borrow_mut().inspect::<Patient>(id),
            |request| main_cell.borrow_mut().command(0, request),
        );
        main.pause();
        let path = main.open_control(&format!("sick-{placement:?}")).unwrap();
        let controller = main.controller();
        let asker = thread::spawn(move || {
            controller.run_until(SimTime::from_millis(9)).unwrap();
            check(
                |id| controller.inspect::<Patient>(id),
                |request| controller.command(0, request),
            );
            // Mail is decoded by main itself, which would be lost.
            let mail = |ill| Mail::new(AgentId::MAIN, AgentId::from(0), Msg::Ill(Patient(ill)));
            let errors = [Ill::Writes, Ill::Reads].map(|ill| controller.send_mail(mail(ill)));
            assert!(
                matches!(errors[0], Err(ControlError::Encode { .. })),
                "{errors:?}"
            );
            assert!(
                matches!(errors[1], Err(ControlError::Decode { .. })),
                "{errors:?}"
            );
            // So it is with agents that are to take a place.
            for ill in ILLS.into_iter().filter(|ill| *ill != Ill::Long(1)) {
                assert!(controller.replace(0, Patient(ill)).is_err(), "{ill:?}");
            }
            for (id, ill) in (0..).zip(ILLS) {
                let id: u64 = id;
                let request = Request::Agent { id: id.to_string() };
                let Ok(Reply::Agent(shown)) = ask(&path, request, LIMIT) else {
                    panic!("no agent");
                };
                let why = match (ill, reason(ill)) {
                    (Ill::Long(_), _) => Some("it is longer than the limit of 262144 bytes"),
                    (_, why) => why,
                };
                let why = why.map(|why| format!("its state cannot be written as JSON: {why}"));
                assert_eq!(
                    (shown.state.is_some(), shown.no_state),
                    (why.is_none(), why)
                );
            }
            controller.resume().unwrap();
        });
        let report = main.run(Run::until_idle()).unwrap();
        assert!(asker.join().is_ok(), "{placement:?}");
        assert_eq!(report.digest, expected.digest, "{placement:?}");
        assert_eq!(report.total, expected.total, "{placement:?}");
    }
}
