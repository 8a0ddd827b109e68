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
