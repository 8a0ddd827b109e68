//! Any split of a model into clusters gives the trace of one scheduler, in every placement.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;

use crate::agent::{ScenarioMessage, Scripted};
use crate::file::Scenario;
use crate::ground::{Ground, Grounded, PROCESSES};
use crate::trace::write_line;
use crate::{generator, naive};

pub(crate) fn agents() -> Entered<ScenarioMessage> {
    Registry::new()
        .with::<Scripted>()
        .with_trace_format(write_line)
        .entered_by_test("scenario_traces::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Runs a scenario divided into `clusters` and compares everything with the specification.
pub(crate) fn check(seed: u64, clusters: usize, ground: Ground, shake: Option<u64>) {
    let scenario = generator::scenario(seed);
    let of = || {
        let scenario = serde_json::to_string(&scenario).unwrap();
        format!("seed {seed}, {clusters} clusters, {ground:?}, shake {shake:?}: {scenario}")
    };
    let (report, trace) = run(&scenario, clusters, ground, shake);
    let expected = naive::run(&scenario, u64::MAX).unwrap();
    let lines = (1..).zip(trace.lines().zip(expected.trace.lines()));
    for (line, (got, expected)) in lines {
        assert_eq!(got, expected, "line {line} of {}", of());
    }
    let counters = report.counters;
    let got = naive::Outcome {
        trace,
        instants_ms: expected.instants_ms.clone(),
        sent: counters.sent,
        delivered: counters.delivered,
        undeliverable: counters.undeliverable,
        queued: counters.queued,
        unheard: counters.unheard,
        supersteps: counters.supersteps,
        alarms_pending: counters.alarms_pending,
        now_ms: report.now.as_nanos() / 1_000_000,
    };
    assert_eq!(got, expected, "{}", of());
}

fn run(
    scenario: &Scenario,
    clusters: usize,
    ground: Ground,
    shake: Option<u64>,
) -> (MpReport, String) {
    let text = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&text);
    let mut main = MpMain::new(agents())
        .unwrap()
        .on(ground)
        .with_shake(shake)
        .with_digest()
        .with_trace(move |line| written.lock().unwrap().push_str(line));
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_scheduler()).collect();
    for (place, script) in scenario.agents.iter().enumerate() {
        // A split that follows neither the ids nor the order of insertion.
        let cluster = clusters[(place * 7 + place / 3) % clusters.len()];
        main.add(cluster, script.id, Scripted::from(script))
            .unwrap();
    }
    for mail in &scenario.start {
        main.send(Mail::from(mail));
    }
    let until = match scenario.run.until_ms {
        Some(limit) => Run::until(SimTime::from_millis(limit)),
        None => Run::until_idle(),
    };
    let report = main.run(until).unwrap();
    let counters = report.counters;
    assert_eq!(
        counters.sent,
        counters.delivered + counters.undeliverable + counters.queued
    );
    drop(main);
    let text = text.lock().unwrap().clone();
    (report, text)
}

#[test]
fn in_one_cluster() {
    (0..200).for_each(|seed| check(seed, 1, Ground::Inline, None));
}

#[test]
fn in_two_clusters() {
    (200..400).for_each(|seed| check(seed, 2, Ground::Inline, None));
}

#[test]
fn in_three_clusters() {
    (400..600).for_each(|seed| check(seed, 3, Ground::Inline, None));
}

#[test]
fn in_four_clusters() {
    (600..800).for_each(|seed| check(seed, 4, Ground::Inline, None));
}

#[test]
fn in_eight_clusters() {
    (800..1000).for_each(|seed| check(seed, 8, Ground::Inline, None));
}

#[test]
fn in_processes() {
    for ground in PROCESSES {
        for seed in 1000..1006 {
            for clusters in [1, 2, 3, 4, 8] {
                check(seed, clusters, ground, None);
            }
        }
    }
}
