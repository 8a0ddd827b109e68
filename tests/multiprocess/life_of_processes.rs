//! Clusters are processes of their own, and none outlives its supervisor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::id;
use std::time::Duration;

use maslite_mp::core::Counters;
use maslite_mp::prelude::*;

use crate::test_placement::{ALL, PROCESSES, PlacedOn, TestPlacement};
use crate::workers::{Msg, Worker, agents, clusters, clusters_with, exists, go, pids};

/// The ids of the processes that two agents say they live in.
fn told_pids(placement: TestPlacement) -> Vec<u32> {
    let mut main = clusters(placement, &[&[Worker::TellPid], &[Worker::TellPid]]);
    main.send_mail(go(1));
    main.send_mail(go(2));
    let mut told = Vec::new();
    let run = main.run_with(Run::until_idle(), |mail, _| {
        if let Msg::Pid(pid) = mail.body {
            told.push(pid);
        }
    });
    assert_eq!(run.unwrap().stopped_by, StopReason::Idle);
    assert_eq!(told, pids(&main));
    told
}

#[test]
fn children_are_other_processes() {
    for placement in PROCESSES {
        let told = told_pids(placement);
        assert_ne!(told[0], told[1]);
        assert!(!told.contains(&id()));
        assert_eq!(told_pids(TestPlacement::Inline), [id(), id()]);
    }
}

#[test]
fn what_carries_the_messages_can_be_chosen_and_is_told() {
    let told = |main: MpMain<Msg>| {
        let mut main = main;
        let report = main.run(Run::until_idle()).unwrap();
        report.clusters[0].link
    };
    let workers: [&[Worker]; 1] = [&[Worker::TellPid]];
    let best = if cfg!(target_os = "linux") {
        Link::Ring
    } else {
        Link::Channel
    };
    let auto = clusters_with(TestPlacement::Ring, &workers, |it| it.link(Link::Auto));
    assert_eq!(told(auto), Some(best));
    assert_eq!(told(clusters(TestPlacement::Ring, &workers)), Some(best));
    let channel = clusters(TestPlacement::Channel, &workers);
    assert_eq!(told(channel), Some(Link::Channel));
    assert_eq!(told(clusters(TestPlacement::Inline, &workers)), None);
}

#[test]
fn none_is_left_after_drop() {
    for placement in PROCESSES {
        let mut main = clusters(placement, &[&[Worker::Farewell], &[]]);
        main.start().unwrap();
        let pids = pids(&main);
        assert!(pids.iter().all(|pid| exists(*pid)), "{pids:?}");
        drop(main);
        assert!(!pids.iter().any(|pid| exists(*pid)), "{pids:?}");
    }
}

#[test]
fn none_is_left_after_a_panic_in_the_scope() {
    for placement in PROCESSES {
        let mut seen = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut main = clusters(placement, &[&[Worker::Farewell], &[]]);
            main.start().unwrap();
            seen = pids(&main);
            panic!("the program has a bug");
        }));
        assert!(result.is_err());
        assert_eq!(seen.len(), 2);
        assert!(!seen.iter().any(|pid| exists(*pid)), "{seen:?}");
    }
}

/// A run that would never end, with timeouts until it has got somewhere: on a busy machine the
/// first may be over before that.
fn cut_short(main: &mut MpMain<Msg>) -> Counters {
    let before = main.counters().supersteps;
    loop {
        let run = Run::until_idle()
            .timeout(Duration::from_millis(30))
            .supersteps_per_instant(u64::MAX);
        let report = main.run(run).unwrap();
        assert_eq!(report.stopped_by, StopReason::Timeout);
        if report.total.supersteps > before {
            return report.total;
        }
    }
}

#[test]
fn a_timeout_ends_a_run_that_never_would_and_the_next_goes_on() {
    for placement in ALL {
        let mut main = clusters(placement, &[&[Worker::Forever], &[Worker::Forever]]);
        main.send_mail(go(1));
        cut_short(&mut main);
        main.send_mail(go(2));
        let counters = cut_short(&mut main);
        assert_eq!(counters.sent, counters.delivered + counters.queued);
        assert_eq!(counters.queued, 2);
        let pids = pids(&main);
        drop(main);
        if !placement.is_inline() {
            assert!(!pids.iter().any(|pid| exists(*pid)), "{pids:?}");
        }
    }
}

/// Under a lookahead the clusters are at different times when a timeout finds them.
#[test]
fn a_timeout_ends_a_run_under_a_lookahead_too() {
    for placement in ALL {
        let workers: [&[Worker]; 2] = [&[Worker::Forever], &[Worker::Forever]];
        let lookahead = SimDuration::from_millis(1);
        let mut main = clusters_with(placement, &workers, |it| it.lookahead(lookahead));
        main.send_mail(go(1));
        for run in 1..=2 {
            assert_eq!(cut_short(&mut main).queued, 1, "run {run}");
        }
    }
}

#[test]
fn a_handle_ends_a_run_from_another_thread() {
    for placement in ALL {
        let mut main = clusters(placement, &[&[Worker::Forever], &[]]);
        main.send_mail(go(1));
        let handle = main.stop_handle();
        // Asked for before the run or during it: either way the run ends.
        let stopper = std::thread::spawn(move || handle.stop());
        let run = Run::until_idle().supersteps_per_instant(u64::MAX);
        let report = main.run(run).unwrap();
        assert_eq!(report.stopped_by, StopReason::Interrupted);
        stopper.join().unwrap();
    }
}

#[test]
fn clusters_without_agents_and_supervisors_without_clusters_are_idle() {
    for placement in ALL {
        let mut main = MpMain::builder(agents()).on(placement).build().unwrap();
        assert_eq!(
            main.run(Run::until_idle()).unwrap().stopped_by,
            StopReason::Idle
        );
        main.new_cluster();
        assert_eq!(
            main.run(Run::until_idle()).unwrap().stopped_by,
            StopReason::Idle
        );
        let report = main.run(Run::until(SimTime::from_secs(1))).unwrap();
        assert_eq!(report.stopped_by, StopReason::Idle);
    }
}

#[test]
fn many_starts_and_stops_leave_nothing_running() {
    for placement in PROCESSES {
        let mut seen = Vec::new();
        for _ in 0..20 {
            let mut main = clusters(placement, &[&[Worker::TellPid], &[]]);
            main.send_mail(go(1));
            main.run_with(Run::until_idle(), |_, _| {}).unwrap();
            seen.extend(pids(&main));
        }
        assert_eq!(seen.len(), 40);
        assert!(!seen.iter().any(|pid| exists(*pid)), "{seen:?}");
    }
}

/// A program may fork, and its copy drops what the program had.
#[test]
fn a_forked_copy_of_main_touches_nothing() {
    use std::os::unix::process::CommandExt;
    for placement in PROCESSES {
        let mut main = clusters(placement, &[&[Worker::TellPid], &[Worker::TellPid]]);
        let socket = main.open_control(&format!("forked-{placement:?}")).unwrap();
        main.start().unwrap();
        let address = &raw const main as usize;
        let mut copy = std::process::Command::new("true");
        // SAFETY: the closure is called in a forked copy of this process, which has a `main` of its
        // own and no other use for it. What it allocates there is fine: the C library keeps its
        // heap usable across a fork.
        unsafe {
            copy.pre_exec(move || {
                let mut copied = std::ptr::read(address as *const MpMain<Msg>);
                let refused = copied.run(Run::until_idle());
                let fine =
                    matches!(refused, Err(maslite_mp::Error::Forked { owner }) if owner != id());
                drop(copied);
                fine.then_some(())
                    .ok_or_else(|| std::io::ErrorKind::Other.into())
            });
        }
        assert!(copy.status().unwrap().success());
        assert!(socket.exists());
        let told = pids(&main);
        assert!(told.iter().all(|pid| exists(*pid)));
        main.send_mail(go(1));
        let mut heard = 0;
        main.run_with(Run::until_idle(), |_, _| heard += 1).unwrap();
        assert_eq!(heard, 1);
        let shutdown = main.shutdown();
        assert!(shutdown.errors.is_empty(), "{shutdown:?}");
        assert!(!socket.exists());
    }
}

/// In a process of its own, which closes its standard streams.
#[test]
#[ignore = "started by the test below"]
fn without_standard_streams() {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: nothing here uses them from here on but those who find other files there.
    (0..3).for_each(|number| drop(unsafe { OwnedFd::from_raw_fd(number) }));
    let outcome = std::panic::catch_unwind(|| {
        for placement in PROCESSES {
            let mut main = clusters(placement, &[&[Worker::Print(1000)], &[Worker::Print(1000)]]);
            main.send_mail(go(1));
            main.send_mail(go(2));
            main.run(Run::until_idle()).unwrap();
            // What main prints goes where it went before: nowhere.
            eprintln!("{}", "main prints, too. ".repeat(1000));
            println!("{}", "main prints, too. ".repeat(1000));
            main.send_mail(go(2));
            main.run(Run::until_idle()).unwrap();
            let shutdown = main.shutdown();
            assert!(shutdown.errors.is_empty(), "{shutdown:?}");
        }
    });
    std::process::exit(if outcome.is_ok() { 42 } else { 1 });
}

#[test]
fn main_may_have_closed_its_standard_streams() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "life_of_processes::without_standard_streams",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .status();
    assert_eq!(status.unwrap().code(), Some(42));
}
