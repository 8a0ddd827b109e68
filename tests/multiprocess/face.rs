//! The calls that every host has, through the one trait: the same program, the same answers,
//! wherever the agents run.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use maslite_mp::core::{Report, Simulation};
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL_AND_FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Ball { hits: u32 },
    Score(u32),
    Tick,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Player {
    opponent: AgentId,
    hits: u32,
}

impl Agent<Msg> for Player {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let milliseconds = 10 + u64::from(self.hits);
        let period = SimDuration::from_millis(milliseconds);
        ctx.set_alarm(Alarm::every(period), Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Ball { hits } = mail.body {
            self.hits += 1;
            if hits == 3 {
                ctx.report_error("out");
                ctx.send(AgentId::MAIN, Msg::Score(self.hits));
            } else {
                ctx.send(self.opponent, Msg::Ball { hits: hits + 1 });
            }
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Score(hits) => {
                self.hits += hits;
                Ok(Msg::Score(self.hits))
            }
            _ => Err(Refusal::new("it counts, and no more")),
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Player>()
        .entered_by_test("face::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Makes every call of the trait, and writes down what it answers.
fn tour<S: Simulation<Msg>>(mut it: S) -> String {
    let mut told = String::new();
    let player = |opponent: &str| Player {
        opponent: opponent.into(),
        hits: 0,
    };
    it.new_cluster();
    it.add("ada", player("bob")).unwrap();
    let other = it.new_cluster();
    it.add("bob", player("ada")).unwrap();
    it.add_to(other, "eve", player("eve")).unwrap();
    let twice = it.add("eve", player("eve")).is_err();
    let unknown = it.remove("carl").is_err();
    writeln!(told, "refused: {twice} {unknown}").unwrap();
    it.send("ada", Msg::Ball { hits: 0 });
    it.send_mail(Mail::new("eve", AgentId::from("bob"), Msg::Score(0)));
    let mut scores = Vec::new();
    let run = Run::until(SimTime::from_millis(25));
    let report = it.run_with(run, |mail, main| {
        scores.push((mail.sender, mail.body));
        main.send("ada", Msg::Score(9));
    });
    let report = report.unwrap();
    let report: &Report = report.as_ref();
    writeln!(told, "{} at {}: {scores:?}", report.stopped_by, it.now()).unwrap();
    let errors = it.errors().iter();
    let errors: Vec<_> = errors.map(|error| (error.agent, &*error.message)).collect();
    writeln!(told, "{errors:?}").unwrap();
    let bob: Player = it.inspect("bob").unwrap();
    let answer = it.command("bob", Msg::Score(5)).unwrap();
    let refusal = it.command("bob", Msg::Tick).unwrap_err();
    writeln!(told, "{} {answer:?} {refusal}", bob.hits).unwrap();
    let eve: Player = it.take_out("eve").unwrap();
    it.replace("bob", Player { hits: 70, ..eve }).unwrap();
    for agent in it.agents().unwrap() {
        let kind = agent.type_name.rsplit("::").next().unwrap().to_owned();
        writeln!(told, "{} {} {kind}", agent.id, agent.index).unwrap();
    }
    let alarms = it.alarms(AlarmFilter::all()).unwrap();
    let alarms = alarms.iter().map(|it| format!("{} {}", it.time, it.setter));
    writeln!(told, "{}", alarms.collect::<Vec<_>>().join(", ")).unwrap();
    it.remove("ada").unwrap();
    it.remove("ada").unwrap();
    it.send("bob", Msg::Ball { hits: 3 });
    let report = it.run_until(SimTime::from_millis(31)).unwrap();
    let report: &Report = report.as_ref();
    writeln!(told, "{} {:?}", report.now, it.digest()).unwrap();
    assert_eq!((report.now, report.digest), (it.now(), it.digest()));
    let counters = it.counters();
    writeln!(told, "{} {}", counters.delivered, counters.alarms_cleared).unwrap();
    it.stop_handle().stop();
    let report = it.run(Run::until_idle()).unwrap();
    let report: &Report = report.as_ref();
    writeln!(told, "{}", report.stopped_by).unwrap();
    it.shutdown().ok().unwrap();
    told
}

const TOLD: &str = "\
refused: true true
time limit at 0.025 s: [(\"bob\", Score(2))]
[(\"bob\", \"out\")]
2 Score(7) agent bob refuses: it counts, and no more
ada 0 Player
bob 1 Player
0.03 s ada, 0.03 s bob
0.031 s Some(191dd9fbd3f71dd1)
15 2
interrupted
";

#[test]
fn every_host_has_the_same_calls_and_gives_the_same_answers() {
    let mut told = vec![tour(Scheduler::builder().digest().build())];
    for placement in ALL_AND_FORGETFUL {
        let settings = MpMain::builder(agents()).on(placement).digest();
        told.push(tour(settings.build().unwrap()));
    }
    for told in told {
        assert_eq!(told, TOLD);
    }
}

#[test]
fn a_scheduler_writes_the_trace_that_clusters_write() {
    let lines = || Arc::new(Mutex::new(Vec::<String>::new()));
    let (alone, divided) = (lines(), lines());
    let write = |lines: &Arc<Mutex<Vec<String>>>| {
        let lines = Arc::clone(lines);
        move |line: &str| lines.lock().unwrap().push(line.to_owned())
    };
    tour(Scheduler::builder().digest().trace(write(&alone)).build());
    let settings = MpMain::builder(agents()).on(TestPlacement::Inline).digest();
    tour(settings.trace(write(&divided)).build().unwrap());
    assert_eq!(*alone.lock().unwrap(), *divided.lock().unwrap());
    let first =
        r#"{"t_ns":0,"superstep":0,"to":"ada","from":"main","receiver":"ada","topic":"Ball"}"#;
    assert_eq!(alone.lock().unwrap()[0], first);
}

#[test]
fn a_cluster_has_its_name_and_its_part_of_the_report() {
    for placement in ALL_AND_FORGETFUL {
        let settings = MpMain::builder(agents()).on(placement);
        let mut main = settings.build().unwrap();
        let first = main.new_cluster();
        let yard = main.new_cluster_named("yard").unwrap();
        assert_eq!((first.name(), yard.to_string()), ("1", "yard".to_owned()));
        assert_eq!(main.clusters(), [first, yard]);
        assert_eq!((main.pid(yard), main.pids()), (None, Vec::new()));
        let (opponent, hits) = ("bob".into(), 0);
        main.add_to(first, "ada", Player { opponent, hits })
            .unwrap();
        main.send("ada", Msg::Ball { hits: 2 });
        let report = main.run_until(SimTime::from_millis(1)).unwrap();
        let names = [first, yard].map(|it| report.cluster(it).unwrap().name.clone());
        assert_eq!(names, ["1", "yard"]);
        assert_eq!(report.cluster(first).unwrap().events, 1);
        assert_eq!(report.cluster_named("yard").unwrap().events, 0);
        assert!(report.cluster_named("port").is_none());
        assert_eq!(report.cluster(yard).unwrap().pid, main.pid(yard).unwrap());
        let mut other = MpMain::new(agents()).unwrap();
        assert!(report.cluster(other.new_cluster()).is_none());
    }
}
