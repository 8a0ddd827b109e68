//! Any split of a model into clusters gives the trace of one scheduler, in every placement.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use maslite_testkit::scenario::agent::{ScenarioMessage, Scripted};
use maslite_testkit::scenario::file::Scenario;
use maslite_testkit::scenario::trace::write_line;
use maslite_testkit::scenario::{generator, naive};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};

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
pub(crate) fn check(seed: u64, clusters: usize, placement: TestPlacement, jitter: Option<u64>) {
    check_scenario(
        seed,
        &generator::scenario(seed),
        clusters,
        placement,
        jitter,
    );
}

fn check_scenario(
    seed: u64,
    scenario: &Scenario,
    clusters: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
) {
    let of = || {
        let scenario = serde_json::to_string(scenario).unwrap();
        format!("seed {seed}, {clusters} clusters, {placement:?}, jitter {jitter:?}: {scenario}")
    };
    let (report, trace) = run(scenario, clusters, placement, jitter);
    let expected = naive::run(scenario, u64::MAX).unwrap();
    let lines = (1..).zip(trace.lines().zip(expected.trace.lines()));
    for (line, (got, expected)) in lines {
        assert_eq!(got, expected, "line {line} of {}", of());
    }
    let counters = report.total;
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
    placement: TestPlacement,
    jitter: Option<u64>,
) -> (MpReport, String) {
    let text = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&text);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .jitter(jitter)
        .digest()
        .trace(move |line| written.lock().unwrap().push_str(line))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for (place, script) in scenario.agents.iter().enumerate() {
        // A split that follows neither the ids nor the order of insertion.
        let cluster = clusters[(place * 7 + place / 3) % clusters.len()];
        main.add_to(cluster, script.id, Scripted::from(script))
            .unwrap();
    }
    for mail in &scenario.start {
        main.send_mail(Mail::from(mail));
    }
    let until = match scenario.run.until_ms {
        Some(limit) => Run::until(SimTime::from_millis(limit)),
        None => Run::until_idle(),
    };
    let report = main.run(until).unwrap();
    let counters = report.total;
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
    (0..200).for_each(|seed| check(seed, 1, TestPlacement::Inline, None));
}

#[test]
fn in_clusters_that_forget() {
    for seed in 3_000..3_100 {
        let clusters = usize::try_from(seed).unwrap() % 4 + 1;
        check(seed, clusters, TestPlacement::Forgetful, None);
    }
    (3_200..3_203).for_each(|seed| check(seed, 2, TestPlacement::ForgetfulRing, None));
}

#[test]
fn in_two_clusters() {
    (200..400).for_each(|seed| check(seed, 2, TestPlacement::Inline, None));
}

#[test]
fn in_three_clusters() {
    (400..600).for_each(|seed| check(seed, 3, TestPlacement::Inline, None));
}

#[test]
fn in_four_clusters() {
    (600..800).for_each(|seed| check(seed, 4, TestPlacement::Inline, None));
}

#[test]
fn in_eight_clusters() {
    (800..1000).for_each(|seed| check(seed, 8, TestPlacement::Inline, None));
}

#[test]
fn in_processes() {
    for placement in PROCESSES {
        for seed in 1000..1006 {
            for clusters in [1, 2, 3, 4, 8] {
                check(seed, clusters, placement, None);
            }
        }
    }
}

/// A random scenario in which no agent listens at first.
pub(crate) fn without_listeners(seed: u64) -> Scenario {
    let mut scenario = generator::scenario(seed);
    let agents = scenario.agents.iter_mut();
    agents.for_each(|agent| agent.subscribe.clear());
    scenario
}

#[test]
fn where_nobody_listens_at_first() {
    for clusters in [2, 3, 4] {
        for seed in 1006..1156 {
            let scenario = without_listeners(seed);
            check_scenario(seed, &scenario, clusters, TestPlacement::Inline, None);
        }
    }
}

/// Two clusters have alarms due at once, set before the third one began to listen to them.
#[test]
fn alarms_that_wait_are_heard_by_those_who_begin_to_listen() {
    let scenario: Scenario = serde_json::from_str(
        r#"{"clusters": [[1], [2], [3]], "run": {}, "agents": [
            {"id": 1, "subscribe": [], "rules": [
                {"on": "Set", "do": [{"alarm": {"after_ms": 10, "to": 1, "topic": "Ring"}}]}]},
            {"id": 2, "subscribe": [], "rules": [
                {"on": "Set", "do": [{"alarm": {"after_ms": 10, "to": 2, "topic": "Ring"}}]}]},
            {"id": 3, "subscribe": [], "rules": [
                {"on": "Set", "do": [{"alarm": {"after_ms": 5, "to": 3, "topic": "Listen"}}]},
                {"on": "Listen", "do": [{"subscribe": {"topic": "Ring"}}]}]}],
            "start": [
                {"from": 0, "to": 1, "topic": "Set", "ttl": 30},
                {"from": 0, "to": 2, "topic": "Set", "ttl": 30},
                {"from": 0, "to": 3, "topic": "Set", "ttl": 30}]}"#,
    )
    .unwrap();
    let ahead = [TestPlacement::Ahead, TestPlacement::AheadRing];
    let placements = [TestPlacement::Inline].into_iter().chain(PROCESSES);
    for placement in placements.chain(ahead) {
        for clusters in 1..=3 {
            check_scenario(0, &scenario, clusters, placement, None);
        }
    }
}
