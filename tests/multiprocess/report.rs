//! What a run's report tells of clusters and of the mail between them, the same in every placement.

use std::time::Duration;

use maslite_core::Counters;
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_mp::{ClusterReport, Flow};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// Work for this time \[ms\], and hand on one less than this many hops.
    Work { milliseconds: u64, hops: u64 },
    /// To main: it is done.
    Done,
}

/// Works as it is told, and then has the next one work.
#[derive(Serialize, Deserialize)]
struct Smith {
    next: AgentId,
}

impl Agent<Msg> for Smith {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Work { milliseconds, hops } = mail.body else {
            return;
        };
        let end = wall() + Duration::from_millis(milliseconds);
        while wall() < end {
            std::hint::spin_loop();
        }
        if hops == 0 {
            ctx.send(AgentId::MAIN, Msg::Done);
            return;
        }
        let (milliseconds, hops) = (milliseconds, hops - 1);
        let next = Alarm::after(SimDuration::from_secs(1)).to(self.next);
        ctx.set_alarm(next, Msg::Work { milliseconds, hops });
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Smith>()
        .entered_by_test("report::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Two clusters with a smith each, who work in turns, and a third that has nothing to do.
fn smithy(placement: TestPlacement) -> MpMain<Msg> {
    smithy_with(placement, SimDuration::ZERO)
}

fn smithy_with(placement: TestPlacement, lookahead: SimDuration) -> MpMain<Msg> {
    // The report of a simulation that forgets has one name more, which tests of amnesia look at.
    let mut main = MpMain::builder(agents())
        .amnesia(None)
        .on(placement)
        .lookahead(lookahead)
        .seed(7)
        .digest()
        .build()
        .unwrap();
    for (name, id, next) in [("east", 1, 2), ("west", 2, 1)] {
        let cluster = main.new_cluster_named(name).unwrap();
        let next = AgentId::from(next);
        main.add_to(cluster, id, Smith { next }).unwrap();
    }
    main.new_cluster_named("idle").unwrap();
    main
}

fn work(smith: u64, milliseconds: u64, hops: u64) -> Mail<Msg> {
    let work = Msg::Work { milliseconds, hops };
    Mail::new(AgentId::MAIN, AgentId::from(smith), work)
}

fn flows(report: &MpReport) -> Vec<(&str, &str, u64)> {
    let name = |place: &Option<String>| match place.as_deref() {
        Some("east") => "east",
        Some("west") => "west",
        Some(other) => panic!("{other}"),
        None => "main",
    };
    let flows = report.flows.iter();
    flows
        .map(
            |Flow {
                 from, to, mails, ..
             }| (name(from), name(to), *mails),
        )
        .collect()
}

#[test]
fn mail_is_counted_by_where_it_came_from_and_went() {
    for placement in ALL {
        let mut main = smithy(placement);
        main.send_mail(work(1, 0, 4));
        let report = main.run_with(Run::until_idle(), |_, _| ()).unwrap();
        // 1 works, 2, 1, 2 and 1, who tells main.
        let expected = vec![
            ("main", "east", 1),
            ("east", "main", 1),
            ("east", "west", 2),
            ("west", "east", 2),
        ];
        assert_eq!(flows(&report), expected, "{placement:?}");
        assert!(report.flows.iter().all(|flow| flow.bytes > flow.mails * 30));
        let ends = |it: &ClusterReport| (it.mail_in, it.mail_out, it.events);
        let ends: Vec<_> = report.clusters.iter().map(ends).collect();
        assert_eq!(ends, [(3, 3, 3), (2, 2, 2), (0, 0, 0)]);
        assert_eq!(report.events, 6);
        // Numbers are of one run, but for the total.
        main.send_mail(work(1, 0, 0));
        let report = main.run(Run::until_idle()).unwrap();
        let expected = [("main", "east", 1), ("east", "main", 1)];
        assert_eq!(flows(&report), expected, "{placement:?}");
        assert_eq!((report.events, report.routed), (1, 1));
        let [east, west, _] = &report.clusters[..] else {
            panic!("there are three clusters");
        };
        assert_eq!((east.events, east.mail_in, east.mail_out), (1, 1, 1));
        assert_eq!((west.events, west.mail_in, west.mail_out), (0, 0, 0));
        assert_eq!((east.counters.delivered, east.total.delivered), (1, 4));
        let counted = |it: &Counters| (it.delivered, it.undeliverable, it.agents);
        assert_eq!(counted(&report.counters), (1, 1, 2), "{placement:?}");
        assert_eq!(counted(&report.total), (7, 1, 2), "{placement:?}");
    }
}

/// Other programs may keep the processors busy for as long as smiths work, and then times tell of
/// them. So smiths work longer and longer, until what is to hold does.
fn while_smiths_work(mut holds: impl FnMut(u64) -> Result<(), String>) {
    let mut why = String::new();
    for milliseconds in [20, 100, 500, 2_500, 10_000] {
        match holds(milliseconds) {
            Ok(()) => return,
            Err(told) => why = told,
        }
    }
    panic!("{why}");
}

#[test]
fn times_tell_who_worked_who_could_not_and_who_had_nothing_to_do() {
    for placement in ALL {
        while_smiths_work(|milliseconds| times_are_right(placement, milliseconds));
    }
}

fn times_are_right(placement: TestPlacement, milliseconds: u64) -> Result<(), String> {
    let mut main = smithy(placement);
    // The clusters are there before the time is taken.
    main.run(Run::until_idle()).unwrap();
    main.send_mail(work(1, milliseconds, 4));
    let report = main.run(Run::until_idle()).unwrap();
    let [east, west, idle] = &report.clusters[..] else {
        panic!("{report:#}");
    };
    let told = format!("{placement:?}: {report:#}");
    let works = Duration::from_millis(milliseconds);
    assert!(east.busy >= works * 3, "{told}");
    assert!(west.busy >= works * 2, "{told}");
    assert_eq!(idle.blocked, Duration::ZERO, "{told}");
    for cluster in &report.clusters {
        let sum = cluster.busy + cluster.blocked + cluster.waiting;
        // The meter is a little inside what the report takes for the run; how little, depends on
        // what else the machine does.
        assert!(sum <= report.wall, "{sum:?} of {told}");
        assert!(sum >= works * 5, "{sum:?} of {told}");
        let known = cluster.memory.is_some();
        assert_eq!(known, !placement.is_inline() && cfg!(target_os = "linux"));
    }
    let right = placement.is_inline() || told.contains("processes did not pay");
    let right = right && idle.busy < works && idle.waiting > works * 4;
    if right && report.main_busy < report.wall / 2 {
        Ok(())
    } else {
        Err(told)
    }
}

#[test]
fn a_cluster_with_an_alarm_is_blocked_while_another_works() {
    for placement in ALL {
        while_smiths_work(|milliseconds| {
            let mut main = smithy(placement);
            main.run(Run::until_idle()).unwrap();
            // West works for no time and sets an alarm, while east works at the same instant.
            main.send_mail(work(2, 0, 1));
            main.send_mail(work(1, milliseconds, 0));
            let report = main.run(Run::until(SimTime::from_millis(1))).unwrap();
            let [_, west, idle] = &report.clusters[..] else {
                panic!("{report:#}");
            };
            let told = format!("{placement:?}: {report:#}");
            assert_eq!(idle.blocked, Duration::ZERO, "{told}");
            let most = Duration::from_millis(milliseconds) * 3 / 4;
            if west.blocked >= most && idle.waiting >= most {
                Ok(())
            } else {
                Err(told)
            }
        });
    }
}

#[test]
fn a_report_is_an_object_of_known_names() {
    for placement in ALL {
        let mut main = smithy_with(placement, SimDuration::from_millis(5));
        main.send_mail(work(1, 15, 2));
        let report = main.run_with(Run::until_idle(), |_, _| ()).unwrap();
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let names = |value: &Value| {
            let names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            names.join(" ")
        };
        // Names are added in a version, and never changed.
        assert_eq!(
            names(&json),
            "advice clusters counters digest errors events events_per_s flows held_back held_back_to_main \
             local main never_sent now_ns optimised placement processors protocol ratio rounds routed schema \
             seed start_ns startup_ns stopped_by total undeliverable undone version wall_ns"
        );
        assert_eq!(
            names(&json["clusters"][0]),
            "awake blocked_ns busy_ns counters events link lookahead_ns mail_in mail_out \
             memory_bytes name pid total waiting_ns"
        );
        assert_eq!(names(&json["flows"][0]), "bytes from mails to");
        assert_eq!(names(&json["main"]), "busy_ns memory_bytes");
        assert_eq!(json["schema"], 3);
        assert_eq!(json["seed"], 7);
        assert_eq!(json["stopped_by"], "idle");
        assert_eq!(json["now_ns"], report.now.as_nanos());
        let digest = report.digest.unwrap().to_string();
        assert_eq!(json["digest"], digest.as_str());
        assert_eq!(json["flows"][0]["from"], Value::Null);
        assert_eq!(json["flows"][0]["to"], "east");
        assert_eq!(json["clusters"][1]["lookahead_ns"], 5_000_000);
        let (placement, link) = match placement {
            TestPlacement::Inline | TestPlacement::Forgetful => ("inline", Value::Null),
            TestPlacement::Channel => ("processes", "channel".into()),
            _ if cfg!(target_os = "linux") => ("processes", "ring".into()),
            _ => ("processes", "channel".into()),
        };
        assert_eq!(json["placement"], placement);
        assert_eq!(json["clusters"][0]["link"], link);
        // The long form has a line for each cluster and each flow.
        let long = format!("{report:#}");
        assert!(long.starts_with(&report.to_string()), "{long}");
        for line in [
            "\neast ",
            "\nwest ",
            "\nidle ",
            "\nmain ",
            "\nmain    -> east ",
        ] {
            assert!(long.contains(line), "{line:?} in {long}");
        }
    }
}
