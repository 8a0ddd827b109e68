//! The digest: one number for a whole trace.

use maslite_core::{AgentId, Alarm, Receiver, SimDuration};
use maslite_testkit::scenario::file::Scenario;

use crate::actor::{Say, World};
use crate::scenario_traces::{Loaded, whole};

/// What can differ between two small runs.
#[derive(Clone, Copy)]
struct Small {
    receiver: u64,
    topic: &'static str,
    after_ms: u64,
    again: bool,
    direct: bool,
}

const SMALL: Small = Small {
    receiver: 3,
    topic: "T",
    after_ms: 5,
    again: false,
    direct: false,
};

fn digest(small: Small) -> maslite_core::Digest {
    let mut world = World::new();
    let setter = world.actor().on("Go", move |_, ctx| {
        let id = AgentId::from(small.receiver);
        let receiver = if small.direct {
            Receiver::Direct(id)
        } else {
            Receiver::Agent(id)
        };
        let alarm = Alarm::after(SimDuration::from_millis(small.after_ms)).to(receiver);
        ctx.set_alarm(alarm, Say(small.topic));
        if small.again {
            ctx.set_alarm(alarm, Say(small.topic));
        }
    });
    world.add(1, setter);
    for id in [2, 3, 4] {
        world.add_idle(id);
    }
    world.mail(9, 1, "Go");
    world.run_until_idle().digest.unwrap()
}

#[test]
fn equal_runs_have_equal_digests() {
    assert_eq!(digest(SMALL), digest(SMALL));
    // The addressee is the same, and so is who gets it.
    assert_eq!(
        digest(SMALL),
        digest(Small {
            direct: true,
            ..SMALL
        })
    );
}

#[test]
fn one_delivery_that_differs_is_another_digest() {
    let mut digests = vec![digest(SMALL)];
    for other in [
        Small {
            receiver: 4,
            ..SMALL
        },
        Small {
            topic: "U",
            ..SMALL
        },
        Small {
            after_ms: 6,
            ..SMALL
        },
        Small {
            after_ms: 0,
            ..SMALL
        },
        Small {
            again: true,
            ..SMALL
        },
        Small {
            receiver: 77,
            ..SMALL
        },
    ] {
        digests.push(digest(other));
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn two_mails_that_change_places_are_another_digest() {
    let digest = |topics: [&'static str; 2]| {
        let mut world = World::new();
        world.add_idle(1);
        for topic in topics {
            world.mail(9, 1, topic);
        }
        world.run_until_idle().digest.unwrap()
    };
    assert_ne!(digest(["A", "B"]), digest(["B", "A"]));
}

/// Worked out by another program from the golden traces and the formula in the documentation.
#[test]
fn the_digest_is_the_same_on_every_platform() {
    for (name, text, expected) in [
        (
            "copies",
            include_str!("scenarios/copies.json"),
            0xb267_a5db_b1f2_130c,
        ),
        (
            "escapes",
            include_str!("scenarios/escapes.json"),
            0x7654_fdc8_7027_12d0,
        ),
        (
            "random_2",
            include_str!("scenarios/random_2.json"),
            0x2575_2366_0ce6_d2cd,
        ),
    ] {
        let scenario = Scenario::parse(name.as_ref(), text.as_bytes()).unwrap();
        let report = Loaded::new(&scenario).run(whole(&scenario));
        assert_eq!(report.digest.unwrap().as_u64(), expected, "{name}");
    }
}

#[test]
fn there_is_none_unless_asked_for() {
    let mut scheduler = maslite_core::Scheduler::<Say>::new();
    let report = scheduler.run(maslite_core::Run::until_idle()).unwrap();
    assert_eq!(report.digest, None);
}

#[derive(Clone, maslite_core::Message, serde::Serialize)]
enum Said {
    Price { cents: u32 },
    Note(String),
    Nothing,
}

fn digests_of(mails: impl IntoIterator<Item = Said>) -> [Option<maslite_core::Digest>; 2] {
    struct Listener;
    impl maslite_core::Agent<Said> for Listener {}
    let mut scheduler = maslite_core::Scheduler::builder().content_digest().build();
    scheduler.add(1, Listener).unwrap();
    for body in mails {
        let mail = maslite_core::Mail::new(AgentId::MAIN, AgentId::from(1), body);
        scheduler.send_mail(mail);
    }
    let report = scheduler.run(maslite_core::Run::until_idle()).unwrap();
    [report.digest, report.content_digest]
}

/// Worked out by another program from the formula in the documentation.
#[test]
fn the_content_digest_is_the_same_on_every_platform() {
    let digests = digests_of([
        Said::Price { cents: 99 },
        Said::Note("eight and two".to_owned()),
        Said::Note("eight!".to_owned()),
        Said::Nothing,
    ]);
    assert_eq!(
        digests.map(|digest| digest.unwrap().to_string()),
        ["5626c579d4a3b72a", "3925732c9ec2fdc9"]
    );
}

#[test]
fn what_is_said_is_in_the_content_digest_alone() {
    let price = |cents| digests_of([Said::Price { cents }]);
    let (low, high) = (price(99), price(101));
    assert_eq!(low, price(99));
    assert_eq!(low[0], high[0]);
    assert_ne!(low[1], high[1]);
}

#[test]
fn a_message_that_does_not_serialise_has_no_content_digest() {
    #[derive(Clone, maslite_core::Message)]
    struct Secret;
    impl serde::Serialize for Secret {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it is a secret"))
        }
    }
    struct Listener;
    impl maslite_core::Agent<Secret> for Listener {}
    let mut scheduler = maslite_core::Scheduler::builder().content_digest().build();
    scheduler.add(1, Listener).unwrap();
    scheduler.send(1, Secret);
    let error = scheduler.run(maslite_core::Run::until_idle()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("at 0 s message Secret of agent main to agent 1 cannot be serialised"),
        "{error}"
    );
}

#[test]
fn a_trace_can_show_what_is_said() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Listener;
    impl maslite_core::Agent<Said> for Listener {}
    let written = Shared::default();
    let lines = maslite_core::JsonLines::new(written.clone()).with_bodies();
    let mut scheduler = maslite_core::Scheduler::builder().observe(lines).build();
    scheduler.add(1, Listener).unwrap();
    for body in [Said::Price { cents: 99 }, Said::Nothing] {
        scheduler.send(1, body);
    }
    scheduler.run(maslite_core::Run::until_idle()).unwrap();
    let written = written.0.lock().unwrap();
    let expected = r#"{"t_ns":0,"superstep":0,"to":1,"from":"main","receiver":1,"topic":"Price","body":{"Price":{"cents":99}}}
{"t_ns":0,"superstep":0,"to":1,"from":"main","receiver":1,"topic":"Nothing","body":"Nothing"}
"#;
    assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
}
