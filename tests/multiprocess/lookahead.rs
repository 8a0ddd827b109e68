//! Under a lookahead the clusters are part of the model, and where they run still changes nothing.
//!
//! The specification of it is a slow model of its own, which knows no windows: every mail is put
//! into the queue of every cluster at once, and the instants are gone through one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use maslite_testkit::effort::seeds;
use maslite_testkit::scenario::agent::Scripted;
use maslite_testkit::scenario::file::{Action, Listen, Scenario};
use maslite_testkit::scenario::generator;
use maslite_testkit::scenario::trace::quote;

use crate::scenario_traces::{agents, without_listeners};
use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};

/// The lookahead of each cluster [ms].
const LOOKAHEADS: [u64; 8] = [2, 1, 5, 3, 2, 7, 1, 4];

fn cluster_of(place: usize, clusters: usize) -> usize {
    (place * 7 + place / 3) % clusters
}

#[derive(Clone, Debug)]
struct Letter {
    sender: u64,
    receiver: Option<u64>,
    topic: &'static str,
    ttl: u64,
    direct: bool,
}

/// Mail in a cluster's queue: due at, sent at, rank of the sender, sequence; and for mail of
/// another cluster when it left there.
type Due = ((u64, u64, usize, u64), Option<u64>, Letter);

#[derive(Default)]
struct Cluster {
    queue: Vec<Due>,
    outbox: Vec<Letter>,
    inboxes: BTreeMap<usize, Vec<Letter>>,
}

struct Model<'a> {
    scenario: &'a Scenario,
    count: usize,
    clusters: Vec<Cluster>,
    /// Who listens to what, and since when; those without a time have from the start.
    listeners: BTreeMap<(usize, String), (Listen, Option<u64>)>,
    sequences: Vec<u64>,
    /// By time, superstep, index and then as they come.
    trace: Vec<((u64, u64, usize), String)>,
}

impl Model<'_> {
    fn index(&self, id: u64) -> Option<usize> {
        self.scenario.agents.iter().position(|agent| agent.id == id)
    }

    fn home(&self, index: usize) -> usize {
        cluster_of(index, self.count)
    }

    /// Puts mail into the inboxes of one cluster; `left` if it comes from another.
    fn post(&mut self, cluster: usize, letter: &Letter, left: Option<u64>) {
        let mut recipients = BTreeSet::new();
        recipients.extend(letter.receiver.and_then(|id| self.index(id)));
        if !letter.direct {
            for ((index, _), (listen, since)) in &self.listeners {
                let lookahead = LOOKAHEADS[self.home(*index)];
                let holds = match (since, left) {
                    (Some(since), Some(left)) => since + lookahead <= left,
                    _ => true,
                };
                let asked = listen.sender.is_none_or(|sender| sender == letter.sender)
                    && listen.receiver.is_none_or(|id| Some(id) == letter.receiver)
                    && listen
                        .topic
                        .is_none_or(|topic| topic.as_str() == letter.topic);
                if holds && asked {
                    recipients.insert(*index);
                }
            }
        }
        recipients.retain(|index| self.home(*index) == cluster);
        for index in recipients {
            let inboxes = &mut self.clusters[cluster].inboxes;
            inboxes.entry(index).or_default().push(letter.clone());
        }
    }

    /// Mail of an agent, due after a delay at home and after a lookahead at least elsewhere.
    fn send(&mut self, now: u64, index: usize, delay: Option<u64>, letter: Letter) {
        let home = self.home(index);
        let sequence = self.sequences[index];
        self.sequences[index] += 1;
        let due = now + delay.unwrap_or(0);
        match delay {
            None => self.clusters[home].outbox.push(letter.clone()),
            Some(_) => {
                let key = (due, now, index + 1, sequence);
                self.clusters[home].queue.push((key, None, letter.clone()));
            }
        }
        let arrives = due.max(now + LOOKAHEADS[home]);
        let left = arrives - LOOKAHEADS[home];
        for (other, cluster) in self.clusters.iter_mut().enumerate() {
            if other != home {
                let key = (arrives, now, index + 1, sequence);
                cluster.queue.push((key, Some(left), letter.clone()));
            }
        }
    }

    fn run(mut self) -> String {
        for mail in &self.scenario.start {
            let letter = Letter {
                sender: mail.from,
                receiver: mail.to,
                topic: mail.topic.as_str(),
                ttl: mail.ttl,
                direct: false,
            };
            (0..self.count).for_each(|cluster| self.post(cluster, &letter, None));
        }
        let until = self.scenario.run.until_ms.unwrap_or(u64::MAX);
        let mut now = 0;
        while now < until {
            for cluster in 0..self.count {
                self.run_instant(cluster, now);
            }
            let queues = self.clusters.iter().flat_map(|cluster| &cluster.queue);
            let Some(next) = queues.map(|due| due.0.0).min() else {
                break;
            };
            now = next;
        }
        self.trace.sort_by_key(|(key, _)| *key);
        self.trace.into_iter().map(|(_, line)| line).collect()
    }

    fn run_instant(&mut self, cluster: usize, now: u64) {
        let mut step = 0;
        loop {
            for letter in std::mem::take(&mut self.clusters[cluster].outbox) {
                self.post(cluster, &letter, None);
            }
            let inboxes = std::mem::take(&mut self.clusters[cluster].inboxes);
            if inboxes.is_empty() {
                let queue = &mut self.clusters[cluster].queue;
                queue.sort_by_key(|due| due.0);
                let later = queue.partition_point(|due| due.0.0 <= now);
                let due: Vec<Due> = queue.drain(..later).collect();
                if due.is_empty() {
                    return;
                }
                for (_, left, letter) in due {
                    self.post(cluster, &letter, left);
                }
                continue;
            }
            for (index, letters) in inboxes {
                for letter in letters {
                    self.deliver(now, step, index, &letter);
                }
            }
            step += 1;
        }
    }

    fn deliver(&mut self, now: u64, step: u64, index: usize, letter: &Letter) {
        let scenario = self.scenario;
        let me = scenario.agents[index].id;
        let mut line = format!(
            r#"{{"t_ms": {now}, "step": {step}, "to": {me}, "from": {}, "receiver": "#,
            letter.sender
        );
        match letter.receiver {
            Some(receiver) => write!(line, "{receiver}").unwrap(),
            None => line.push_str("null"),
        }
        line.push_str(r#", "topic": "#);
        quote(letter.topic, &mut line);
        writeln!(line, r#", "ttl": {}}}"#, letter.ttl).unwrap();
        self.trace.push(((now, step, index), line));
        let rules = scenario.agents[index].rules.iter().rev();
        let rule = rules
            .filter(|_| letter.ttl > 0)
            .find(|rule| rule.on.as_str() == letter.topic);
        for action in rule.iter().flat_map(|rule| &rule.actions) {
            let mail = |receiver, topic: &Topic, direct| Letter {
                sender: me,
                receiver,
                topic: topic.as_str(),
                ttl: letter.ttl - 1,
                direct,
            };
            match action {
                Action::Send { to, topic, direct } => {
                    self.send(now, index, None, mail(*to, topic, *direct));
                }
                Action::Reply { topic } => {
                    self.send(now, index, None, mail(Some(letter.sender), topic, false));
                }
                Action::Broadcast { topic } => {
                    self.send(now, index, None, mail(None, topic, false));
                }
                Action::Alarm {
                    after_ms,
                    to,
                    topic,
                } => {
                    self.send(now, index, Some(*after_ms), mail(*to, topic, false));
                }
                Action::Subscribe(listen) => {
                    let key = (index, format!("{listen:?}"));
                    self.listeners.entry(key).or_insert((*listen, Some(now)));
                }
                Action::Unsubscribe(listen) => {
                    self.listeners.remove(&(index, format!("{listen:?}")));
                }
                other => unreachable!("a plain scenario has no {other:?}"),
            }
        }
    }
}

fn specified(scenario: &Scenario, count: usize) -> String {
    let mut model = Model {
        scenario,
        count,
        clusters: (0..count).map(|_| Cluster::default()).collect(),
        listeners: BTreeMap::new(),
        sequences: vec![0; scenario.agents.len()],
        trace: Vec::new(),
    };
    for (index, script) in scenario.agents.iter().enumerate() {
        for listen in &script.subscribe {
            let key = (index, format!("{listen:?}"));
            model.listeners.insert(key, (*listen, None));
        }
    }
    model.run()
}

/// Runs a scenario in a number of clusters, stopping and going on at these times [ms].
fn run(
    scenario: &Scenario,
    count: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
    cuts: &[u64],
) -> String {
    let text = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&text);
    let mut main = MpMain::builder(agents())
        .on(placement)
        .jitter(jitter)
        .digest()
        .trace(move |line| written.lock().unwrap().push_str(line))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..count).map(|_| main.new_cluster()).collect();
    for (cluster, lookahead) in clusters.iter().zip(LOOKAHEADS) {
        let lookahead = SimDuration::from_millis(lookahead);
        main.set_lookahead(*cluster, lookahead).unwrap();
    }
    for (place, script) in scenario.agents.iter().enumerate() {
        let cluster = clusters[cluster_of(place, count)];
        main.add_to(cluster, script.id, Scripted::from(script))
            .unwrap();
    }
    for mail in &scenario.start {
        main.send_mail(Mail::from(mail));
    }
    let until = scenario.run.until_ms;
    for cut in cuts
        .iter()
        .filter(|cut| until.is_none_or(|until| **cut < until))
    {
        main.run(Run::until(SimTime::from_millis(*cut))).unwrap();
    }
    let last = until.map_or(Run::until_idle(), |until| {
        Run::until(SimTime::from_millis(until))
    });
    let counters = main.run(last).unwrap().total;
    assert_eq!(
        counters.sent,
        counters.delivered + counters.undeliverable + counters.queued
    );
    drop(main);
    text.lock().unwrap().clone()
}

pub(crate) fn check(
    seed: u64,
    count: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
    cuts: &[u64],
) {
    check_scenario(
        seed,
        generator::scenario(seed),
        count,
        placement,
        jitter,
        cuts,
    );
}

fn check_scenario(
    seed: u64,
    mut scenario: Scenario,
    count: usize,
    placement: TestPlacement,
    jitter: Option<u64>,
    cuts: &[u64],
) {
    // Delays at home and elsewhere differ, so a window can take more mail than without.
    for mail in &mut scenario.start {
        mail.ttl = mail.ttl.min(6);
    }
    let expected = specified(&scenario, count);
    let trace = run(&scenario, count, placement, jitter, cuts);
    let of = || {
        let scenario = serde_json::to_string(&scenario).unwrap();
        format!(
            "seed {seed}, {count} clusters, {placement:?}, jitter {jitter:?}, cuts {cuts:?}: {scenario}"
        )
    };
    for (line, (got, expected)) in (1..).zip(trace.lines().zip(expected.lines())) {
        assert_eq!(got, expected, "line {line} of {}", of());
    }
    assert_eq!(trace.lines().count(), expected.lines().count(), "{}", of());
}

#[test]
fn windows_give_the_trace_of_the_model() {
    for count in [1, 2, 3, 4, 8] {
        seeds(0..150, 40).for_each(|seed| check(seed, count, TestPlacement::Inline, None, &[]));
    }
}

#[test]
fn runs_that_stop_and_go_on_give_it_too() {
    for count in [2, 3] {
        seeds(150..300, 50)
            .for_each(|seed| check(seed, count, TestPlacement::Inline, None, &[1, 2, 5, 6, 11]));
    }
}

#[test]
fn so_do_those_in_which_nobody_listens_at_first() {
    for count in [2, 3, 4] {
        for seed in seeds(450..600, 50) {
            let scenario = without_listeners(seed);
            let cuts = [&[][..], &[1, 2, 5, 6, 11]][usize::from(seed.is_multiple_of(2))];
            check_scenario(seed, scenario, count, TestPlacement::Inline, None, cuts);
        }
    }
}

#[test]
fn clusters_that_forget_give_it_too() {
    for count in [2, 3, 4] {
        for seed in seeds(600..700, 28) {
            let scenario = match seed % 2 {
                0 => without_listeners(seed),
                _ => generator::scenario(seed),
            };
            let cuts = [&[][..], &[1, 2, 5, 6, 11]][usize::from(seed % 4 < 2)];
            check_scenario(seed, scenario, count, TestPlacement::Forgetful, None, cuts);
        }
    }
    (300..304).for_each(|seed| check(seed, 3, TestPlacement::ForgetfulRing, None, &[]));
}

#[test]
fn processes_give_it_too() {
    for placement in PROCESSES {
        for count in [2, 3, 4, 8] {
            (300..304).for_each(|seed| check(seed, count, placement, None, &[]));
        }
    }
}

#[test]
fn all_clusters_have_a_lookahead_or_none() {
    let mut main = MpMain::new(agents()).unwrap();
    let east = main.new_cluster();
    main.new_cluster_named("west").unwrap();
    main.set_lookahead(east, SimDuration::from_millis(1))
        .unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        error.to_string().contains("cluster west has no lookahead"),
        "{error}"
    );
}

/// The first agent of another cluster that listens, and how far it has gone meanwhile, matters to
/// alarms that no agent elsewhere wanted when they were set.
#[test]
fn alarms_that_wait_are_heard_by_those_who_begin_to_listen() {
    let scenario: Scenario = serde_json::from_str(
        r#"{"clusters": [[1], [2]], "run": {}, "agents": [
            {"id": 1, "subscribe": [], "rules": [
                {"on": "Set", "do": [{"alarm": {"after_ms": 20, "to": 1, "topic": "Ring"}}]}]},
            {"id": 2, "subscribe": [], "rules": [
                {"on": "Set", "do": [
                    {"alarm": {"after_ms": 1, "to": 2, "topic": "Tick"}},
                    {"alarm": {"after_ms": 5, "to": 2, "topic": "Listen"}}]},
                {"on": "Tick", "do": [{"alarm": {"after_ms": 1, "to": 2, "topic": "Tick"}}]},
                {"on": "Listen", "do": [{"subscribe": {"topic": "Ring"}}]}]}],
            "start": [
                {"from": 0, "to": 1, "topic": "Set", "ttl": 30},
                {"from": 0, "to": 2, "topic": "Set", "ttl": 30}]}"#,
    )
    .unwrap();
    let expected = specified(&scenario, 2);
    assert!(expected.contains(r#"{"t_ms": 20, "step": 0, "to": 2, "from": 1, "receiver": 1"#));
    for placement in [TestPlacement::Inline].into_iter().chain(PROCESSES) {
        for cuts in [&[][..], &[3, 5, 6, 17, 18, 20]] {
            let got = run(&scenario, 2, placement, None, cuts);
            assert_eq!(got, expected, "{placement:?}, cuts {cuts:?}");
        }
    }
}
