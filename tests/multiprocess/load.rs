//! However much is sent, memory stays bounded, and all of it is accounted for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maslite_mp::Error;
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PROCESSES, PlacedOn, TestPlacement};
use crate::workers::{self, When, Worker, clusters, clusters_with, exists, go, pids};

/// A cluster that runs on its own for long hands over its part of the trace now and then.
#[test]
fn a_long_trace_is_told_in_parts() {
    for placement in ALL {
        let told = Arc::new(AtomicU64::new(0));
        let lines = Arc::clone(&told);
        let workers: [&[Worker]; 2] = [&[Worker::Forever], &[Worker::Farewell]];
        // A cluster that forgets writes down thousands of lines after each of 25,000 supersteps.
        let mut main = clusters_with(placement, &workers, |it| {
            it.amnesia(None).trace(move |_| {
                lines.fetch_add(1, Ordering::Relaxed);
            })
        });
        main.send_mail(go(1));
        let run = Run::until_idle()
            .supersteps(25_000)
            .supersteps_per_instant(u64::MAX);
        let report = main.run(run).unwrap();
        assert_eq!(report.stopped_by, StopReason::Supersteps);
        assert_eq!(told.load(Ordering::Relaxed), report.total.delivered);
        assert!(report.total.delivered >= 24_999, "{report}");
        // Setup, one for 10,000 deliveries each, and the end.
        assert!((4..=6).contains(&report.rounds), "{}", report.rounds);
    }
}

/// A figure of a process's memory, by its name in `/proc` [kB].
fn figure(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// The memory of a process that is in use [kB].
fn memory(pid: u32) -> u64 {
    figure(pid, "VmRSS")
}

/// The most that it ever had in use [kB].
fn peak(pid: u32) -> u64 {
    figure(pid, "VmHWM")
}

/// Children only: this process runs other tests at the same time.
#[test]
fn mail_that_crosses_leaves_nothing_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let across = [Worker::Forward(2.into()), Worker::Forward(1.into())];
    let mut main = clusters(TestPlacement::Ring, &[&across[..1], &across[1..]]);
    main.send_mail(go(1));
    let run = |main: &mut MpMain<_>, supersteps| {
        let run = Run::until_idle()
            .supersteps(supersteps)
            .supersteps_per_instant(u64::MAX);
        let counters = main.run(run).unwrap().total;
        let accounted = counters.delivered + counters.undeliverable + counters.queued;
        assert_eq!(counters.sent, accounted, "{counters:?}");
        assert_eq!(counters.queued, 1);
    };
    // A ring takes memory until all of it has been written to once, which is at most a mebibyte.
    run(&mut main, 20_000);
    let before: Vec<u64> = pids(&main).into_iter().map(memory).collect();
    run(&mut main, 20_000);
    for (pid, before) in pids(&main).into_iter().zip(before) {
        let grown = memory(pid).saturating_sub(before);
        assert!(grown < 512, "{grown} kB more than {before}");
    }
}

/// Mail of the simulation's owner for an agent, far longer than what a link holds.
fn long(agent: u64) -> Mail<workers::Msg> {
    let word = "x".repeat(3_000_000);
    Mail::new(
        AgentId::MAIN,
        AgentId::from(agent),
        workers::Msg::Word(word),
    )
}

/// Both directions of both links are full at once.
#[test]
fn clusters_that_flood_each_other_go_on() {
    for placement in PROCESSES {
        let across = [Worker::Forward(2.into()), Worker::Forward(1.into())];
        let mut main = clusters(placement, &[&across[..1], &across[1..]]);
        main.send_mail(long(1));
        main.send_mail(long(2));
        let report = main.run(Run::until_idle().supersteps(8)).unwrap();
        let counters = report.total;
        assert_eq!(
            (counters.delivered, counters.queued, counters.sent),
            (16, 2, 18),
            "{placement:?}: {report}"
        );
    }
}

/// Those that are in the middle of long messages are not heard to their ends.
#[test]
fn a_failure_does_not_wait_for_floods() {
    for placement in PROCESSES {
        let workers: [&[Worker]; 3] = [
            &[Worker::Panic(When::Update)],
            &[Worker::Forward(3.into())],
            &[Worker::Forward(2.into())],
        ];
        let mut main = clusters(placement, &workers);
        main.start().unwrap();
        let pids = pids(&main);
        main.send_mail(go(1));
        main.send_mail(long(2));
        main.send_mail(long(3));
        let begin = wall();
        let error = main.run(Run::until_idle()).unwrap_err();
        assert!(
            matches!(&error, Error::Agent { cluster, .. } if cluster == "1"),
            "{error:?}"
        );
        let took = wall().duration_since(begin);
        assert!(took < Duration::from_secs(60), "took {took:?}");
        assert!(!pids.into_iter().any(exists), "all are gone");
    }
}

/// Throws the same number of balls at each of the others in every superstep, for a number of
/// supersteps.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Thrower {
    others: Vec<AgentId>,
    balls: u32,
    rest: u32,
    caught: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Thrown {
    Ball(u32),
    /// To main: how many were caught.
    Caught(u32),
}

impl Agent<Thrown> for Thrower {
    fn update(&mut self, ctx: &mut Context<'_, Thrown>) {
        while let Some(mail) = ctx.next_mail() {
            self.caught += u32::from(matches!(mail.body, Thrown::Ball(_)));
        }
        if self.rest == 0 {
            ctx.send(AgentId::MAIN, Thrown::Caught(self.caught));
            return;
        }
        self.rest -= 1;
        for other in &self.others {
            for ball in 0..self.balls {
                ctx.send(*other, Thrown::Ball(ball));
            }
        }
    }
}

fn throwers() -> Entered<Thrown> {
    Registry::new()
        .with::<Thrower>()
        .entered_by_test("load::throwers_child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn throwers_child() {
    let _ = throwers();
}

/// All players throw at all others, through main, and after each superstep all is accounted for.
#[test]
fn bursts_of_all_to_all_are_accounted_for() {
    const CLUSTERS: u32 = 8;
    const BALLS: u32 = 200;
    const BURSTS: u32 = 5;
    for placement in PROCESSES {
        let mut main = MpMain::builder(throwers()).on(placement).build().unwrap();
        let ids: Vec<_> = (1..=u64::from(CLUSTERS)).map(AgentId::from).collect();
        for id in &ids {
            let cluster = main.new_cluster();
            let others = ids.iter().filter(|other| *other != id);
            let thrower = Thrower {
                others: others.copied().collect(),
                balls: BALLS,
                rest: BURSTS,
                caught: 0,
            };
            main.add_to(cluster, *id, thrower).unwrap();
        }
        let mut told = Vec::new();
        let burst = u64::from(CLUSTERS * (CLUSTERS - 1) * BALLS);
        let bursts = u64::from(BURSTS);
        for superstep in 1..=bursts + 1 {
            let one = Run::until_idle().supersteps(1);
            let report = main.run_with(one, |mail, _| told.push(mail.body)).unwrap();
            let counters = report.total;
            let thrown = burst * superstep.min(bursts);
            let caught = burst * (superstep - 1);
            let heard = told.len() as u64;
            assert_eq!(
                counters.delivered,
                caught + heard,
                "{placement:?}: {report}"
            );
            assert_eq!(counters.undeliverable, 0, "{placement:?}: {report}");
            assert_eq!(
                counters.sent,
                counters.delivered + counters.queued,
                "{placement:?}: {report}"
            );
            assert!(counters.sent >= thrown, "{placement:?}: {report}");
        }
        let report = main
            .run_with(Run::until_idle(), |mail, _| told.push(mail.body))
            .unwrap();
        assert_eq!(report.total.queued, 0);
        let each = (CLUSTERS - 1) * BALLS * BURSTS;
        assert_eq!(told.len(), CLUSTERS as usize);
        assert!(
            told.iter()
                .all(|told| matches!(told, Thrown::Caught(caught) if *caught == each)),
            "{told:?}"
        );
    }
}

/// Those who have little to say have it said in every superstep, however much others say.
#[test]
fn a_flood_between_two_clusters_delays_no_other() {
    for placement in PROCESSES {
        let across = [2, 1, 4, 3].map(|other: u64| [Worker::Forward(other.into())]);
        let workers: Vec<&[Worker]> = across.iter().map(|workers| &workers[..]).collect();
        let mut main = clusters(placement, &workers);
        main.send_mail(long(1));
        main.send_mail(long(2));
        main.send_mail(go(3));
        main.send_mail(go(4));
        for superstep in 1..=6 {
            let report = main.run(Run::until_idle().supersteps(1)).unwrap();
            let counters = report.total;
            assert_eq!(
                (counters.delivered, counters.queued),
                (4 * superstep, 4),
                "{placement:?}: {report}"
            );
        }
    }
}

/// Sends mail to another cluster at every tick, without ever waiting for an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Firehose {
    target: AgentId,
    ticks: u64,
}

/// Takes its time over all that it gets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sluggard {
    heard: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Load {
    Tick,
    Parcel(String),
}

/// How much comes with a tick, and how long each is.
const PARCELS: u64 = 5_000;
const PARCEL: usize = 100;

const TICK: SimDuration = SimDuration::from_secs(1);

impl Agent<Load> for Firehose {
    fn setup(&mut self, ctx: &mut Context<'_, Load>) {
        ctx.alarm_in(TICK, Load::Tick);
    }

    fn receive(&mut self, _: Mail<Load>, ctx: &mut Context<'_, Load>) {
        for _ in 0..PARCELS {
            ctx.send(self.target, Load::Parcel("x".repeat(PARCEL)));
        }
        self.ticks -= 1;
        if self.ticks > 0 {
            ctx.alarm_in(TICK, Load::Tick);
        }
    }
}

impl Agent<Load> for Sluggard {
    fn receive(&mut self, mail: Mail<Load>, _: &mut Context<'_, Load>) {
        let Load::Parcel(parcel) = mail.body else {
            return;
        };
        // As slow as the sender, or slower.
        for _ in 0..5 {
            std::hint::black_box(parcel.bytes().map(u64::from).sum::<u64>());
        }
        self.heard += 1;
    }
}

fn loaders() -> Entered<Load> {
    Registry::new()
        .with::<Firehose>()
        .with::<Sluggard>()
        .entered_by_test("load::loaders_child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn loaders_child() {
    let _ = loaders();
}

/// In a process of its own, so that all its memory is that of one simulation.
#[test]
#[ignore = "a main process"]
fn slow_entry() {
    // A million messages in all, 25 megabytes each time, which would be seen if they were kept
    // anywhere.
    const TICKS: u64 = 50;
    const WARM: u64 = 10;
    const ROOM_KB: u64 = 8 * 1_024;
    for placement in PROCESSES {
        for lookahead in [None, Some(TICK * 3)] {
            let settings = MpMain::builder(loaders()).on(placement);
            let mut main = settings
                .lookahead(lookahead.unwrap_or_default())
                .build()
                .unwrap();
            let (quick, slow) = (main.new_cluster(), main.new_cluster());
            let target = AgentId::from(2);
            let ticks = TICKS;
            main.add_to(quick, 1, Firehose { target, ticks }).unwrap();
            main.add_to(slow, target, Sluggard::default()).unwrap();
            let warm = Run::until(SimTime::ZERO + TICK * WARM);
            main.run(warm).unwrap();
            let pids = main.pids().into_iter().map(|(_, pid)| pid);
            let pids: Vec<u32> = std::iter::once(std::process::id()).chain(pids).collect();
            let before: Vec<u64> = pids.iter().map(|pid| peak(*pid)).collect();
            let report = main.run(Run::until_idle()).unwrap();
            assert_eq!(
                (report.total.delivered, report.total.undeliverable),
                (TICKS * (PARCELS + 1), 0),
                "{report}"
            );
            for (pid, before) in pids.into_iter().zip(before) {
                let grown = peak(pid) - before;
                assert!(
                    grown < ROOM_KB,
                    "{placement:?}: {grown} kB more than {before}"
                );
            }
        }
    }
}

/// The sender does not run ahead of the reader by more than the model allows, so nothing piles up
/// in between.
#[test]
fn a_slow_cluster_fills_nobodys_memory() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["load::slow_entry", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&process.stderr);
    assert!(process.status.success(), "{said}");
}
