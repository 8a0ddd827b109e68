//! Of several failures the one counts that a lone scheduler meets first; the trace and the errors
//! of a failed run hold what came before it, and nothing else.

use std::sync::{Arc, Mutex};

use maslite_core::Observer;
use maslite_mp::Error;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Step(u64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Act {
    Panic,
    /// In `setup`.
    PanicAtFirst,
    /// In `teardown`.
    PanicAtLast,
    PauseAtLast,
    Add(u64),
    Remove(u64),
    Report,
    ReportAtLast,
    Pause,
    /// Sets an alarm beyond the end of time.
    Overflow,
    /// Lets a second pass.
    Wait,
}

/// Does in each of five steps what it is told to; between two steps a superstep passes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Doer {
    acts: Vec<(u64, Act)>,
}

impl Doer {
    fn has(&self, step: u64, wanted: fn(&Act) -> bool) -> bool {
        self.acts.iter().any(|(at, act)| *at == step && wanted(act))
    }
}

impl Agent<Msg> for Doer {
    fn setup(&mut self, _: &mut Context<'_, Msg>) {
        assert!(
            !self.has(0, |act| matches!(act, Act::PanicAtFirst)),
            "at first"
        );
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Step(step) = mail.body;
        let mut delay = None;
        for (_, act) in self.acts.iter().filter(|(at, _)| *at == step) {
            match *act {
                Act::Panic => panic!("at step {step}"),
                Act::Add(id) => ctx.add(id, Self { acts: Vec::new() }),
                Act::Remove(id) => ctx.remove(id),
                Act::Report => ctx.report_error(format!("step {step}")),
                Act::Pause => ctx.stop_run(),
                Act::Overflow => drop(ctx.alarm_in(SimDuration::MAX, Msg::Step(0))),
                Act::Wait => delay = Some(SimDuration::from_secs(1)),
                Act::PanicAtFirst | Act::PanicAtLast | Act::PauseAtLast | Act::ReportAtLast => {}
            }
        }
        let (id, next) = (ctx.id(), Msg::Step(step + 1));
        match delay {
            Some(delay) => drop(ctx.alarm_in(delay, next)),
            None if step < 4 => ctx.send(id, next),
            None => {}
        }
    }

    fn teardown(&mut self, ctx: &mut Context<'_, Msg>) {
        for (_, act) in &self.acts {
            match act {
                Act::PanicAtLast => panic!("at last"),
                Act::PauseAtLast => ctx.stop_run(),
                Act::ReportAtLast => ctx.report_error("at last"),
                _ => {}
            }
        }
    }
}

fn line(delivery: &Delivery<'_, Msg>, line: &mut String) {
    let Delivery {
        time,
        superstep,
        agent,
        ..
    } = delivery;
    *line = format!("{time} {superstep} {agent}");
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Doer>()
        .with_trace_format(line)
        .entered_by_test("first_failure::child")
        .enter()
}

#[test]
#[ignore = "started by the tests below, as a child process"]
fn child() {
    agents();
}

/// What came of a run: the trace, how it ended, and what agents reported.
#[derive(Debug, PartialEq)]
struct Outcome {
    trace: Vec<String>,
    end: String,
    errors: Vec<String>,
}

fn told(errors: &[maslite_core::AgentError]) -> Vec<String> {
    let told = errors.iter();
    told.map(|it| format!("{} {} {}: {}", it.time, it.superstep, it.agent, it.message))
        .collect()
}

const RUN: fn() -> Run = || Run::until_idle();

/// Agents 1, 2, … in one scheduler without a supervisor.
fn alone(doers: &[Vec<(u64, Act)>], run: Run) -> Outcome {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let observer: Observer<Msg> = Box::new(move |delivery| {
        let mut text = String::new();
        line(delivery, &mut text);
        seen.lock().unwrap().push(text);
    });
    let mut scheduler = Scheduler::builder().observe(observer).build();
    for (id, acts) in (1_u64..).zip(doers) {
        let acts = acts.clone();
        scheduler.add(id, Doer { acts }).unwrap();
        scheduler.send(id, Msg::Step(0));
    }
    let result = scheduler.run(run);
    let end = match &result {
        Ok(report) => report.stopped_by.to_string(),
        Err(error) => error.to_string(),
    };
    let errors = told(scheduler.errors());
    let trace = lines.lock().unwrap().clone();
    Outcome { trace, end, errors }
}

/// The same over clusters: each is a list of the agents in it.
fn divided(
    doers: &[Vec<(u64, Act)>],
    run: Run,
    clusters: &[&[usize]],
    placement: TestPlacement,
) -> Outcome {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .trace(move |line| seen.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    let ids: Vec<_> = clusters.iter().map(|_| main.new_cluster()).collect();
    for (nth, acts) in doers.iter().enumerate() {
        let place = clusters
            .iter()
            .position(|agents| agents.contains(&(nth + 1)));
        let (id, acts) = (nth as u64 + 1, acts.clone());
        main.add_to(ids[place.unwrap()], id, Doer { acts }).unwrap();
        main.send(id, Msg::Step(0));
    }
    let result = main.run(run);
    let end = match &result {
        Ok(report) => report.stopped_by.to_string(),
        // The cluster of the agent at fault is named; all else is as without clusters.
        Err(Error::Agent { source, .. }) => source.to_string(),
        Err(other) => panic!("{other}"),
    };
    let errors = told(main.errors());
    drop(main);
    let trace = lines.lock().unwrap().clone();
    Outcome { trace, end, errors }
}

/// Runs agents alone and in clusters. Tells how it ended.
fn check_with(doers: &[Vec<(u64, Act)>], run: fn() -> Run) -> Outcome {
    let expected = alone(doers, run());
    let splits: [&[&[usize]]; 5] = [
        &[&[1, 2, 3]],
        &[&[2], &[1, 3]],
        &[&[1], &[2, 3]],
        &[&[3], &[2], &[1]],
        &[&[], &[3, 1, 2]],
    ];
    for clusters in splits {
        for placement in ALL {
            let outcome = divided(doers, run(), clusters, placement);
            assert_eq!(outcome, expected, "{doers:?} {clusters:?} {placement:?}");
        }
    }
    expected
}

fn check(doers: &[Vec<(u64, Act)>]) -> String {
    check_with(doers, RUN).end
}

#[test]
fn of_two_panics_that_of_the_agent_added_first_counts() {
    let end = check(&[
        vec![(2, Act::Panic)],
        vec![(2, Act::Panic)],
        vec![(2, Act::Report)],
    ]);
    assert!(
        end.starts_with("agent 1 panicked in update at 0 s, superstep 2"),
        "{end}"
    );
    // The sooner superstep counts before the order of the agents.
    let end = check(&[vec![(3, Act::Panic)], vec![], vec![(2, Act::Panic)]]);
    assert!(
        end.starts_with("agent 3 panicked in update at 0 s, superstep 2"),
        "{end}"
    );
    let end = check(&[
        vec![],
        vec![(0, Act::PanicAtFirst)],
        vec![(0, Act::PanicAtFirst)],
    ]);
    assert!(end.starts_with("agent 2 panicked in setup"), "{end}");
}

#[test]
fn panics_come_before_births_and_births_before_removals() {
    let end = check(&[
        vec![(1, Act::Add(3))],
        vec![(1, Act::Panic)],
        vec![(1, Act::Remove(9))],
    ]);
    assert!(end.starts_with("agent 2 panicked"), "{end}");
    let end = check(&[vec![(1, Act::Remove(9))], vec![], vec![(1, Act::Add(2))]]);
    assert_eq!(
        end,
        "agent 2 was added twice, by the simulation's owner and by agent 3 at 0 s: give one of them another id"
    );
}

#[test]
fn of_two_births_or_removals_that_of_the_agent_added_first_counts() {
    let end = check(&[
        vec![(1, Act::Add(2)), (1, Act::Add(2))],
        vec![],
        vec![(1, Act::Add(1))],
    ]);
    assert!(
        end.starts_with("agent 2 was added twice, by the simulation's owner and by agent 1"),
        "{end}"
    );
    let end = check(&[
        vec![(1, Act::Add(7))],
        vec![(1, Act::Add(7))],
        vec![(1, Act::Add(8))],
    ]);
    assert!(
        end.starts_with("agent 7 was added twice, by agent 1 at 0 s and by agent 2"),
        "{end}"
    );
    let end = check(&[vec![], vec![(1, Act::Remove(8))], vec![(1, Act::Remove(9))]]);
    assert_eq!(
        end,
        "at 0 s agent 2 removed agent 8, but no agent ever had this id: remove only agents that were added"
    );
    let twice = vec![(1, Act::Remove(9)), (1, Act::Remove(8))];
    let end = check(&[twice, vec![(1, Act::Remove(7))], vec![]]);
    assert_eq!(
        end,
        "at 0 s agent 1 removed agent 9, but no agent ever had this id: remove only agents that were added"
    );
}

#[test]
fn an_id_that_is_taken_is_found_where_a_cluster_runs_alone() {
    // Agent 1 goes on alone while the others have nothing to do; the trace ends with the superstep
    // of the birth.
    let alone = vec![
        (4, Act::Wait),
        (5, Act::Wait),
        (6, Act::Add(2)),
        (6, Act::Wait),
        (7, Act::Report),
    ];
    let outcome = check_with(&[alone, vec![], vec![]], RUN);
    assert!(outcome.end.contains("by agent 1 at 2 s"), "{}", outcome.end);
    assert_eq!(outcome.trace.last().unwrap(), "2 s 0 1");
    assert_eq!(outcome.errors, Vec::<String>::new());
}

#[test]
fn the_trace_and_the_errors_of_a_failed_run_end_with_the_failure() {
    let report = |at| (at, Act::Report);
    let doers = [
        vec![report(0), report(2)],
        vec![report(1), (2, Act::Report), (2, Act::Panic), report(2)],
        vec![report(1), report(2)],
    ];
    let outcome = check_with(&doers, RUN);
    assert_eq!(
        outcome.errors,
        [
            "0 s 0 1: step 0",
            "0 s 1 2: step 1",
            "0 s 1 3: step 1",
            "0 s 2 1: step 2",
            "0 s 2 2: step 2",
        ]
    );
    let trace = [
        "0 s 0 1", "0 s 0 2", "0 s 0 3", "0 s 1 1", "0 s 1 2", "0 s 1 3", "0 s 2 1", "0 s 2 2",
    ];
    assert_eq!(outcome.trace, trace);
    let wait = (2, Act::Wait);
    let doers = [
        vec![wait],
        vec![wait, (3, Act::Overflow), (3, Act::Report)],
        vec![wait, (3, Act::Panic)],
    ];
    let outcome = check_with(&doers, RUN);
    let end = &outcome.end;
    assert!(end.starts_with("at 1 s agent 2 set an alarm"), "{end}");
    assert_eq!(outcome.trace.last().unwrap(), "1 s 0 2");
    assert_eq!(outcome.errors, Vec::<String>::new());
}

#[test]
fn who_is_torn_down_keeps_its_place_among_those_who_pause_or_fail() {
    let leaves = |act| vec![(0, Act::Remove(1)), (0, act)];
    let end = check(&[leaves(Act::PauseAtLast), vec![(1, Act::Pause)], vec![]]);
    assert_eq!(end, "stopped by agent 1");
    let end = check(&[leaves(Act::PanicAtLast), vec![(1, Act::Panic)], vec![]]);
    assert!(end.starts_with("agent 1 panicked in teardown"), "{end}");
    let stop = || Run::until_idle().stop_at_error();
    let end = check_with(
        &[leaves(Act::ReportAtLast), vec![(1, Act::Report)], vec![]],
        stop,
    )
    .end;
    assert_eq!(end, "stopped by an error of agent 1");
}

/// Under a lookahead the clusters are part of the model; where they run is not.
#[test]
fn under_a_lookahead_the_trace_ends_with_the_failure_too() {
    let wait = |at| (at, Act::Wait);
    let doers = [
        vec![wait(4), wait(5), wait(6), (7, Act::Report), (7, Act::Panic)],
        vec![
            wait(4),
            wait(5),
            (6, Act::Report),
            wait(6),
            (7, Act::Report),
        ],
        vec![wait(0), wait(1), wait(2), (3, Act::Report), (4, Act::Panic)],
    ];
    let trace = [
        "0 s 0 1", "0 s 0 2", "0 s 0 3", "0 s 1 1", "0 s 1 2", "0 s 2 1", "0 s 2 2", "0 s 3 1",
        "0 s 3 2", "0 s 4 1", "0 s 4 2", "1 s 0 1", "1 s 0 2", "1 s 0 3", "2 s 0 1", "2 s 0 2",
        "2 s 0 3", "3 s 0 1",
    ];
    for clusters in [
        &[&[1][..], &[2, 3]][..],
        &[&[3], &[2], &[1]],
        &[&[2, 1], &[3]],
    ] {
        for placement in ALL {
            let outcome = ahead(&doers, clusters, placement);
            assert!(
                outcome.end.starts_with("agent 1 panicked in update at 3 s"),
                "{}",
                outcome.end
            );
            assert_eq!(outcome.errors, ["2 s 0 2: step 6", "3 s 0 1: step 7"]);
            assert_eq!(outcome.trace, trace);
        }
    }
}

fn ahead(doers: &[Vec<(u64, Act)>], clusters: &[&[usize]], placement: TestPlacement) -> Outcome {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .lookahead(SimDuration::from_secs(60))
        .trace(move |line| seen.lock().unwrap().push(line.to_owned()))
        .build()
        .unwrap();
    let ids: Vec<_> = clusters.iter().map(|_| main.new_cluster()).collect();
    for (nth, acts) in doers.iter().enumerate() {
        let place = clusters
            .iter()
            .position(|agents| agents.contains(&(nth + 1)));
        let (id, acts) = (nth as u64 + 1, acts.clone());
        main.add_to(ids[place.unwrap()], id, Doer { acts }).unwrap();
        main.send(id, Msg::Step(0));
    }
    let Err(Error::Agent { source, .. }) = main.run(Run::until_idle()) else {
        panic!("no error");
    };
    let errors = told(main.errors());
    drop(main);
    let trace = lines.lock().unwrap().clone();
    let end = source.to_string();
    Outcome { trace, end, errors }
}
