//! Where clusters run, and how agents get there, changes nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;

use crate::test_placement::{ALL_AND_FORGETFUL, PROCESSES, PlacedOn};
use crate::workers::{Msg, Worker, agents, clusters, clusters_with, go};

/// The same with a trace of the run, a line for each delivery.
fn traced(settings: MpMainBuilder<Msg>, lines: &Arc<Mutex<Vec<String>>>) -> MpMainBuilder<Msg> {
    let sink = Arc::clone(lines);
    settings.trace(move |line| sink.lock().unwrap().push(line.to_owned()))
}

#[test]
fn words_cross_clusters_and_come_to_main() {
    for placement in ALL_AND_FORGETFUL {
        let forward = |to: u64| Worker::Forward(AgentId::from(to));
        let tell = Worker::Tell(AgentId::from(3), "hello".to_owned());
        let lines = Arc::default();
        let workers: [&[Worker]; 2] = [
            &[tell, forward(4)],
            &[forward(2), Worker::Forward(AgentId::MAIN)],
        ];
        let mut main = clusters_with(placement, &workers, |it| traced(it, &lines));
        main.send_mail(go(1));
        let mut told = Vec::new();
        let report = main.run_with(Run::until_idle(), |mail, main| {
            told.push((mail.sender, mail.body));
            main.stop();
        });
        let report = report.unwrap();
        assert_eq!(told, [(AgentId::from(4), Msg::Word("hello".to_owned()))]);
        assert_eq!(report.stopped_by, StopReason::Stopped);
        assert_eq!(
            *lines.lock().unwrap(),
            [
                r#"{"t_ns":0,"superstep":0,"to":1,"from":"main","receiver":1,"topic":"Go"}"#,
                r#"{"t_ns":0,"superstep":1,"to":3,"from":1,"receiver":3,"topic":"Word"}"#,
                r#"{"t_ns":0,"superstep":2,"to":2,"from":3,"receiver":2,"topic":"Word"}"#,
                r#"{"t_ns":0,"superstep":3,"to":4,"from":2,"receiver":4,"topic":"Word"}"#,
                r#"{"t_ns":0,"superstep":4,"to":"main","from":4,"receiver":"main","topic":"Word"}"#,
            ]
        );
        // Four from cluster to cluster or from the owner; the last one went to main.
        assert_eq!((report.local, report.routed), (0, 4));
    }
}

#[test]
fn a_message_of_many_frames_arrives_whole() {
    for placement in ALL_AND_FORGETFUL {
        let word: String = (0..300_000_u32)
            .map(|n| char::from_digit(n % 36, 36).unwrap())
            .collect();
        let tell = Worker::Tell(AgentId::from(2), word.clone());
        let mut main = clusters(placement, &[&[tell], &[Worker::Forward(AgentId::MAIN)]]);
        main.send_mail(go(1));
        let mut told = Vec::new();
        let run = main.run_with(Run::until_idle(), |mail, _| told.push(mail.body));
        assert_eq!(run.unwrap().total.delivered, 3);
        assert_eq!(told, [Msg::Word(word)]);
    }
}

/// Agents get their insertion indices in the order of the calls, however they were made.
#[test]
fn builders_and_added_agents_are_numbered_by_call() {
    let order = |placement| {
        let lines = Arc::default();
        let settings = traced(MpMain::builder(agents()).on(placement), &lines);
        let mut main = settings.build().unwrap();
        let (east, west) = (main.new_cluster(), main.new_cluster());
        main.build(west, "listeners", vec![9_u64, 8]).unwrap();
        main.add_to(east, 7, Worker::Listener(0)).unwrap();
        main.build(east, "listeners", vec![6_u64]).unwrap();
        main.add_to(west, 5, Worker::Listener(0)).unwrap();
        (5..10).for_each(|agent| main.send_mail(go(agent)));
        main.run(Run::until_idle()).unwrap();
        let lines = lines.lock().unwrap();
        let receivers = lines
            .iter()
            .map(|line| line.split("\"to\":").nth(1).unwrap()[..1].to_owned());
        receivers.collect::<Vec<_>>()
    };
    for placement in ALL_AND_FORGETFUL {
        assert_eq!(order(placement), ["9", "8", "7", "6", "5"]);
    }
}

/// How processes wait for each other changes nothing but how long it takes.
#[test]
fn waiting_changes_nothing() {
    for placement in PROCESSES {
        let told = |waiting| {
            let forward = |to: u64| Worker::Forward(AgentId::from(to));
            let tell = Worker::Tell(AgentId::from(2), "hello".to_owned());
            let workers: [&[Worker]; 2] = [&[tell], &[forward(1)]];
            let lines = Arc::default();
            let traced = |it| traced(it, &lines).waiting(waiting);
            let mut main = clusters_with(placement, &workers, traced);
            (0..3).for_each(|_| main.send_mail(go(1)));
            let report = main.run(Run::until_idle().supersteps(100)).unwrap();
            (lines.lock().unwrap().clone(), report.total)
        };
        let blocking = told(Waiting::Block);
        assert!(blocking.0.len() > 5, "{blocking:?}");
        for spin in [Duration::from_micros(20), Duration::from_millis(5)] {
            assert_eq!(told(Waiting::Spin(spin)), blocking);
        }
        assert_eq!(told(Waiting::Auto), blocking);
    }
}

#[test]
fn names_survive_the_journey() {
    for placement in ALL_AND_FORGETFUL {
        let lines = Arc::default();
        let settings = traced(MpMain::builder(agents()).on(placement), &lines);
        let mut main = settings.build().unwrap();
        let (east, west) = (main.new_cluster(), main.new_cluster());
        let crane = AgentId::from("crane");
        main.add_to(east, "foreman", Worker::Tell(crane, "up".to_owned()))
            .unwrap();
        main.add_to(west, "crane", Worker::Listener(0)).unwrap();
        main.send_mail(Mail::new(crane, AgentId::from("foreman"), Msg::Go));
        main.run(Run::until_idle()).unwrap();
        let expected = r#"{"t_ns":0,"superstep":1,"to":"crane","from":"foreman","receiver":"crane","topic":"Word"}"#;
        assert_eq!(lines.lock().unwrap()[1], expected);
    }
}

/// A handler that mails main would otherwise never come to an end.
#[test]
fn main_does_not_talk_to_itself() {
    for placement in ALL_AND_FORGETFUL {
        let mut main = clusters(placement, &[&[Worker::Forward(AgentId::MAIN)]]);
        main.send_mail(go(1));
        let mut heard = 0;
        let run = main.run_with(Run::until_idle(), |mail, main| {
            heard += 1;
            main.send(AgentId::MAIN, mail.body);
        });
        let counters = run.unwrap().total;
        assert_eq!((heard, counters.undeliverable), (1, 1));
        assert_eq!((counters.sent, counters.delivered), (3, 2));
    }
}
