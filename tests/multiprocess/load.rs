//! However much is sent, memory stays bounded, and all of it is accounted for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maslite_mp::prelude::*;

use crate::ground::{ALL, Ground};
use crate::workers::{Worker, clusters, go, pids};

/// A cluster that runs on its own for long hands over its part of the trace now and then.
#[test]
fn a_long_trace_is_told_in_parts() {
    for ground in ALL {
        let told = Arc::new(AtomicU64::new(0));
        let lines = Arc::clone(&told);
        let workers: [&[Worker]; 2] = [&[Worker::Forever], &[Worker::Farewell]];
        let mut main = clusters(ground, &workers).with_trace(move |_| {
            lines.fetch_add(1, Ordering::Relaxed);
        });
        main.send(go(1));
        let run = Run::until_idle()
            .supersteps(25_000)
            .supersteps_per_instant(u64::MAX);
        let report = main.run(run).unwrap();
        assert_eq!(report.stopped_by, StopReason::Supersteps);
        assert_eq!(told.load(Ordering::Relaxed), report.counters.delivered);
        assert!(report.counters.delivered >= 24_999, "{report}");
        // Setup, one for 10,000 deliveries each, and the end.
        assert!((4..=6).contains(&report.exchanges), "{}", report.exchanges);
    }
}

/// The memory of a process that is in use [kB].
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// Children only: this process runs other tests at the same time.
#[test]
fn mail_that_crosses_leaves_nothing_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let across = [Worker::Forward(2.into()), Worker::Forward(1.into())];
    let mut main = clusters(Ground::Ring, &[&across[..1], &across[1..]]);
    main.send(go(1));
    let run = |main: &mut MpMain<_>, supersteps| {
        let run = Run::until_idle()
            .supersteps(supersteps)
            .supersteps_per_instant(u64::MAX);
        let counters = main.run(run).unwrap().counters;
        let accounted = counters.delivered + counters.undeliverable + counters.queued;
        assert_eq!(counters.sent, accounted, "{counters:?}");
        assert_eq!(counters.queued, 1);
    };
    run(&mut main, 1_000);
    let before: Vec<u64> = pids(&main).into_iter().map(memory).collect();
    run(&mut main, 10_000);
    for (pid, before) in pids(&main).into_iter().zip(before) {
        let grown = memory(pid).saturating_sub(before);
        assert!(grown < 1_024, "{grown} kB more than {before}");
    }
}
