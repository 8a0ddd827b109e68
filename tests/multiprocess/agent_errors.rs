//! What agents report as errors comes to the report in the kernel's order, wherever they live.

use maslite_core::internal::AgentErrorInternals;
use maslite_mp::AgentError;
use maslite_mp::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL_AND_FORGETFUL, PROCESSES, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Part { steps: u64 },
}

const MACHINES: u64 = 7;

/// Works on parts, breaks some of them, and passes them on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Machine {
    /// Breaks one in this number of parts; none if zero.
    breaks: u32,
}

impl Agent<Msg> for Machine {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if self.breaks == 1 {
            ctx.report_error("no oil");
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Part { steps } = mail.body;
        if self.breaks > 0 && ctx.rng().random_range(0..self.breaks) == 0 {
            ctx.report_error(format_args!("part broken, {steps} steps to go"));
        }
        if let Some(steps) = steps.checked_sub(1) {
            let next = AgentId::from(ctx.rng().random_range(1..=MACHINES));
            if ctx.rng().random() {
                ctx.send(next, Msg::Part { steps });
            } else {
                let alarm = Alarm::after(SimDuration::from_millis(1)).to(next);
                ctx.set_alarm(alarm, Msg::Part { steps });
            }
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Machine>()
        .entered_by_test("agent_errors::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn part(to: u64, steps: u64) -> Mail<Msg> {
    Mail::new(AgentId::MAIN, AgentId::from(to), Msg::Part { steps })
}

/// The parts of a report that must be the same everywhere.
type Story = Vec<(StopReason, SimTime, Vec<AgentError>, u64, Option<Digest>)>;

/// Runs until idle, however often an error stops it in between.
fn tell(mut run: impl FnMut() -> Report) -> Story {
    let mut story = Vec::new();
    loop {
        let report = run();
        let errors = report.errors.into_iter().map(|mut error| {
            error.cluster = None;
            error
        });
        let counted = report.total.errors;
        let errors = errors.collect();
        story.push((
            report.stopped_by,
            report.now,
            errors,
            counted,
            report.digest,
        ));
        if report.stopped_by == StopReason::Idle {
            return story;
        }
    }
}

fn run(stops: bool) -> Run {
    if stops {
        Run::until_idle().stop_at_error()
    } else {
        Run::until_idle()
    }
}

fn alone(breaks: u32, stops: bool) -> Story {
    let mut scheduler = Scheduler::builder().seed(3).digest().build();
    for id in 1..=MACHINES {
        scheduler.add(id, Machine { breaks }).unwrap();
        scheduler.send_mail(part(id, 30));
    }
    tell(|| scheduler.run(run(stops)).unwrap())
}

fn in_clusters(
    breaks: u32,
    stops: bool,
    clusters: usize,
    placement: TestPlacement,
    lookahead: u64,
) -> Story {
    let mut main = MpMain::builder(agents())
        .on(placement)
        .lookahead(SimDuration::from_millis(lookahead))
        .seed(3)
        .digest()
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for id in 1..=MACHINES {
        let cluster = clusters[usize::try_from(id).unwrap() % clusters.len()];
        main.add_to(cluster, id, Machine { breaks }).unwrap();
        main.send_mail(part(id, 30));
    }
    tell(|| main.run(run(stops)).unwrap().run)
}

#[test]
fn errors_are_collected_in_one_order_in_every_split() {
    for breaks in [1, 9] {
        for stops in [false, true] {
            let expected = alone(breaks, stops);
            let errors = expected.iter().map(|run| run.2.len()).sum::<usize>();
            assert!(errors > 10, "{errors}");
            assert_eq!(expected.len() > 10, stops);
            for placement in ALL_AND_FORGETFUL {
                for clusters in [1, 2, 3] {
                    let got = in_clusters(breaks, stops, clusters, placement, 0);
                    assert_eq!(got, expected, "{clusters} {placement:?} {stops}");
                }
            }
        }
    }
}

#[test]
fn under_a_lookahead_placement_changes_nothing() {
    for stops in [false, true] {
        let inline = in_clusters(9, stops, 3, TestPlacement::Inline, 1);
        assert_eq!(inline.len() > 5, stops);
        let keys = inline
            .iter()
            .flat_map(|run| run.2.iter().map(AgentError::key));
        assert!(stops || keys.is_sorted());
        for placement in PROCESSES {
            assert_eq!(
                in_clusters(9, stops, 3, placement, 1),
                inline,
                "{placement:?}"
            );
        }
    }
}

#[test]
fn an_error_names_agent_cluster_and_time() {
    for placement in ALL_AND_FORGETFUL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        let cluster = main.new_cluster_named("shop floor").unwrap();
        main.add_to(cluster, "mill", Machine { breaks: 1 }).unwrap();
        main.send("mill", Msg::Part { steps: 0 });
        let report = main.run(Run::until_idle().stop_at_error()).unwrap();
        let mill = StopReason::AgentError("mill".into());
        assert_eq!(report.stopped_by, mill);
        let text = "agent mill in cluster shop floor at 0 s, superstep 0: no oil";
        assert_eq!(report.errors[0].to_string(), text);
        let report = main.run(Run::until_idle().stop_at_error()).unwrap();
        assert_eq!(report.stopped_by, mill);
        assert_eq!(report.errors[0].message, "part broken, 0 steps to go");
        assert_eq!(main.errors(), report.errors);
        let report = main.run(Run::until_idle().stop_at_error()).unwrap();
        assert_eq!(report.stopped_by, StopReason::Idle);
        assert_eq!((report.errors.len(), report.total.errors), (0, 2));
    }
}

#[test]
fn a_report_keeps_the_first_thousand_and_counts_all() {
    let mut main = MpMain::builder(agents())
        .on(TestPlacement::Inline)
        .build()
        .unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for id in 1..=MACHINES {
        let cluster = clusters[usize::try_from(id % 2).unwrap()];
        main.add_to(cluster, id, Machine { breaks: 1 }).unwrap();
        main.send_mail(part(id, 299));
    }
    let report = main.run(Run::until_idle()).unwrap();
    assert_eq!(report.total.errors, MACHINES * 301);
    assert_eq!(report.errors.len(), Report::ERRORS_KEPT);
    // Those of the setups come first.
    let (setups, rest) = report.errors.split_at(7);
    assert!(setups.iter().all(|error| error.message == "no oil"));
    assert!(rest.iter().map(AgentError::key).is_sorted());
}
