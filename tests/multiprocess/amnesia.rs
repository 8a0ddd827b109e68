//! Clusters that forget everything: what their reports tell, and agents that cannot be saved.

use maslite_mp::Error;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Unsaid(Mute),
}

/// It cannot be written down.
#[derive(Clone, Debug, Deserialize)]
struct Mute;

impl Serialize for Mute {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("words fail"))
    }
}

/// How many ticks a clock has left that sets an alarm which cannot be written down.
const MUTE: u8 = 99;

/// Ticks three times.
#[derive(Serialize, Deserialize)]
struct Clock {
    left: u8,
}

impl Agent<Msg> for Clock {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if self.left == MUTE {
            ctx.alarm_in(SimDuration::from_secs(1), Msg::Unsaid(Mute));
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
        }
    }
}

/// Its type is not registered.
struct Ghost;

impl Agent<Msg> for Ghost {}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Clock>()
        .with::<Blot>()
        .with_builder("ghosts", |id: u64, agents: &mut AgentSet<Msg>| {
            agents.add(id, Ghost);
        })
        .entered_by_test("amnesia::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

#[test]
fn a_report_tells_how_often_clusters_have_forgotten() {
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        for (every, amnesias) in [
            (None, [0, 0]),
            (Some(0), [0, 0]),
            (Some(1), [4, 4]),
            (Some(3), [0, 2]),
        ] {
            let settings = MpMain::builder(agents()).on(placement).amnesia(every);
            let mut main = settings.build().unwrap();
            for id in 1..=2_u64 {
                let cluster = main.new_cluster();
                main.add_to(cluster, id, Clock { left: 3 }).unwrap();
                main.send(id, Msg::Tick);
            }
            // Each cluster has four supersteps.
            let until = main.run(Run::until(SimTime::from_millis(1_500))).unwrap();
            let report = main.run(Run::until_idle()).unwrap();
            assert_eq!(report.total.supersteps, 4);
            let told = [until.amnesias, report.amnesias];
            assert_eq!(told, amnesias, "{placement:?}, {every:?}");
            let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
            assert_eq!(
                json.get("amnesias").and_then(serde_json::Value::as_u64),
                (told[1] > 0).then_some(told[1])
            );
        }
    }
}

#[test]
fn an_agent_that_cannot_be_saved_is_an_error_that_names_it() {
    for placement in FORGETFUL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        let _first = main.new_cluster();
        let second = main.new_cluster();
        main.build(second, "ghosts", 7_u64).unwrap();
        let error = main.run(Run::until_idle()).unwrap_err();
        let Error::Agent { cluster, source } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(cluster, "2");
        assert_eq!(
            source.to_string(),
            "at 0 s the state of agent 7 of type multiprocess::amnesia::Ghost cannot be saved: \
             its type is not registered: register it, or run without saving states"
        );
    }
}

/// What a blot does when it is read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Flaw {
    Refuses,
    Panics,
}

/// Ticks three times, and cannot be read after the second one.
#[derive(Serialize)]
struct Blot {
    left: u8,
    flaw: Flaw,
}

impl<'de> Deserialize<'de> for Blot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (left, flaw) = Deserialize::deserialize(deserializer)?;
        match flaw {
            Flaw::Refuses if left == 1 => Err(serde::de::Error::custom("a blot")),
            Flaw::Panics if left == 1 => panic!("a splash"),
            _ => Ok(Self { left, flaw }),
        }
    }
}

impl Agent<Msg> for Blot {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
        }
    }
}

/// The cluster has nothing left then, and still tells what is wrong.
#[test]
fn an_agent_that_cannot_be_restored_is_an_error_that_names_it() {
    for placement in FORGETFUL {
        for lookahead in [0, 5] {
            for (flaw, expected) in [
                (
                    Flaw::Refuses,
                    "in cluster 2: at 1 s agent 2 cannot be restored from what was saved: \
                     as multiprocess::amnesia::Blot, Serde Deserialization Error",
                ),
                (
                    Flaw::Panics,
                    "in cluster 2: code outside agents (of a message: its topic, encoding, clone or \
                     drop) panicked at 1 s",
                ),
            ] {
                let settings = MpMain::builder(agents()).on(placement);
                let settings = settings.lookahead(SimDuration::from_millis(lookahead));
                let mut main = settings.build().unwrap();
                let clusters = [main.new_cluster(), main.new_cluster()];
                main.add_to(clusters[0], 1, Clock { left: 9 }).unwrap();
                main.add_to(clusters[1], 2, Blot { left: 3, flaw }).unwrap();
                main.send(1, Msg::Tick);
                main.send(2, Msg::Tick);
                let error = main.run(Run::until_idle()).unwrap_err().to_string();
                assert!(error.starts_with(expected), "{placement:?}: {error}");
            }
        }
    }
}

/// Both clusters are awake at once, so each has one superstep in a grant, and forgets behind it.
#[test]
fn a_message_that_cannot_be_saved_is_an_error_of_the_run() {
    for placement in FORGETFUL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        for (id, left) in [(1_u64, 3), (2, MUTE)] {
            let cluster = main.new_cluster();
            main.add_to(cluster, id, Clock { left }).unwrap();
            main.send(id, Msg::Tick);
        }
        let error = main.run(Run::until_idle()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "in cluster 2: at 0 s the state of the cluster cannot be restored from what was saved: \
             Serde Serialization Error"
        );
    }
}
