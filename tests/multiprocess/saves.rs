//! Runs that are saved by themselves, or because another thread wants it: nothing changes in them.

use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::saving::Folder;
use crate::signals::Host;
use crate::test_placement::{ALL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
pub(crate) enum Msg {
    Tick,
    Told { ticks: u64 },
}

/// Ticks each second, and tells a neighbour.
#[derive(Serialize, Deserialize)]
struct Clock {
    ticks: u64,
    heard: u64,
}

impl Agent<Msg> for Clock {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.ticks += ctx.rng().random_range(1..4_u64);
                let neighbour = ((ctx.id().as_u64() - 1) ^ 1) + 1;
                ctx.send(neighbour, Msg::Told { ticks: self.ticks });
                ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
            }
            Msg::Told { ticks } => self.heard += ticks,
        }
    }
}

pub(crate) fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Clock>()
        .entered_by_test("saves::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

pub(crate) fn two_clocks(settings: MpMainBuilder<Msg>, placement: TestPlacement) -> MpMain<Msg> {
    let mut main = settings.on(placement).digest().build().unwrap();
    for id in 1..=2 {
        let cluster = main.new_cluster();
        let clock = Clock { ticks: 0, heard: 0 };
        main.add_to(cluster, id, clock).unwrap();
    }
    main
}

/// The digest of a minute that is not saved.
pub(crate) fn undisturbed() -> Digest {
    let mut main = two_clocks(MpMain::builder(agents()), TestPlacement::Inline);
    main.run_until(SimTime::from_secs(60))
        .unwrap()
        .run
        .digest
        .unwrap()
}

fn names(folder: &Folder) -> Vec<String> {
    let snapshots = maslite_mp::snapshots(folder.at("")).unwrap().into_iter();
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    snapshots
        .map(|(path, snapshot)| format!("{} at {}", name(path), snapshot.unwrap().now()))
        .collect()
}

#[test]
fn a_run_is_saved_by_simulated_time_and_goes_on_from_its_last_snapshot() {
    let expected = undisturbed();
    let folder = Folder::new("simulated");
    for placement in ALL {
        let saves = Saves::into(folder.at(""))
            .every_simulated(SimDuration::from_secs(7))
            .keep(3);
        let settings = || MpMain::builder(agents()).saves(saves.clone());
        let mut main = two_clocks(settings(), placement);
        main.run_until(SimTime::from_secs(40)).unwrap();
        let kept = [
            "auto-000003 at 21 s",
            "auto-000004 at 28 s",
            "auto-000005 at 35 s",
        ];
        assert_eq!(names(&folder), kept);
        // As after the death of main.
        drop(main);
        let latest = Restore::latest(folder.at("")).unwrap().unwrap();
        assert_eq!(latest.now(), SimTime::from_secs(35));
        let mut main = latest.start(settings().on(placement)).unwrap();
        let report = main.run_until(SimTime::from_secs(60)).unwrap();
        assert_eq!(report.run.digest, Some(expected), "{placement:?}");
        let kept = [
            "auto-000006 at 42 s",
            "auto-000007 at 49 s",
            "auto-000008 at 56 s",
        ];
        assert_eq!(names(&folder), kept);
        drop(main);
        std::fs::remove_dir_all(folder.at("")).unwrap();
    }
}

#[test]
fn a_run_that_is_stopped_is_saved_if_that_is_wanted() {
    let folder = Folder::new("stopped");
    let saves = Saves::into(folder.at("")).when_stopped();
    let settings = MpMain::builder(agents()).saves(saves);
    let mut main = two_clocks(settings, TestPlacement::Inline);
    main.run_until(SimTime::from_secs(10)).unwrap();
    assert_eq!(names(&folder), [""; 0]);
    main.stop_handle().stop();
    let report = main.run_until(SimTime::from_secs(60)).unwrap();
    assert_eq!(report.run.stopped_by, StopReason::Interrupted);
    assert_eq!(
        names(&folder),
        [format!("auto-000001 at {}", report.run.now)]
    );
}

#[test]
fn another_thread_saves_a_run_and_changes_nothing() {
    let expected = undisturbed();
    let folder = Folder::new("controller");
    for placement in ALL {
        let mut main = two_clocks(MpMain::builder(agents()), placement);
        main.pause();
        let controller = main.controller();
        let path = folder.at("by hand");
        let steering = std::thread::spawn(move || {
            controller.run_until(SimTime::from_secs(20)).unwrap();
            let saved = controller.save(&path).unwrap();
            let again = controller.save(&path).unwrap_err();
            controller.resume().unwrap();
            (saved, again)
        });
        let report = main.run_until(SimTime::from_secs(60)).unwrap();
        assert_eq!(report.run.digest, Some(expected));
        let (saved, again) = steering.join().unwrap();
        assert_eq!((saved.now, saved.agents), (SimTime::from_secs(20), 2));
        assert!(
            matches!(&again, ControlError::NotSaved(why) if why.contains("exists already")),
            "{again}"
        );
        let restore = Restore::open(&saved.path).unwrap();
        let mut alone = restore.alone(Scheduler::builder(), &agents()).unwrap();
        let report = alone.run_until(SimTime::from_secs(60)).unwrap();
        assert_eq!(report.digest, Some(expected));
        std::fs::remove_dir_all(&saved.path).unwrap();
    }
}

#[test]
fn a_save_that_fails_is_warned_of_and_the_third_in_a_row_ends_the_run() {
    let folder = Folder::new("failing");
    std::fs::create_dir_all(folder.at("")).unwrap();
    let file = folder.at("a file");
    std::fs::write(&file, "x").unwrap();
    let saves = Saves::into(&file).every_simulated(SimDuration::from_secs(10));
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&warnings);
    let settings = MpMain::builder(agents())
        .saves(saves)
        .warnings(move |warning| told.lock().unwrap().push(warning.to_string()));
    let mut main = two_clocks(settings, TestPlacement::Inline);
    assert_eq!(
        main.run_until(SimTime::from_secs(25)).unwrap().run.now,
        SimTime::from_secs(25)
    );
    let error = main.run_until(SimTime::from_secs(60)).unwrap_err();
    assert!(matches!(&error, Error::Snapshot(_)), "{error}");
    assert_eq!(main.now(), SimTime::from_secs(30));
}

#[test]
fn a_run_is_saved_by_wall_time() {
    let folder = Folder::new("wall");
    let saves = Saves::into(folder.at(""))
        .every(std::time::Duration::from_millis(2))
        .keep(1);
    let settings = MpMain::builder(agents()).saves(saves);
    let mut main = two_clocks(settings, TestPlacement::Inline);
    // It ends when there is a snapshot.
    let there = folder.at("auto-000001");
    let run = Run::until_idle().timeout(std::time::Duration::from_secs(60));
    let run = run.stop_when(move |_| there.exists());
    let report = main.run(run).unwrap();
    assert_eq!(report.run.stopped_by, StopReason::Predicate);
    let latest = Restore::latest(folder.at("")).unwrap().unwrap();
    assert!(latest.now() <= report.run.now);
}

/// Where a main process saves that a signal stops.
const FOLDER: &str = "MASLITE_TEST_STOPPED";

/// Ticks for ever, and is saved when it is stopped.
#[test]
#[ignore = "a main process"]
fn stopped_entry() {
    let saves = Saves::into(std::env::var_os(FOLDER).unwrap()).when_stopped();
    let settings = MpMain::builder(agents()).saves(saves);
    let mut main = two_clocks(settings, TestPlacement::Inline);
    main.stop_on_ctrl_c().unwrap();
    main.run_until(SimTime::from_secs(10)).unwrap();
    eprintln!("runs:");
    let report = main.run(Run::until_idle()).unwrap();
    eprintln!("ended: {} at {}", report.run.stopped_by, report.run.now);
}

#[test]
fn signals_save_before_they_end_a_program_that_asks_for_it() {
    for name in ["INT", "TERM", "HUP"] {
        let folder = Folder::new(name);
        let before = format!("{FOLDER}='{}'", folder.at("").display());
        let mut host = Host::start_test("saves::stopped_entry", &format!("export {before};"));
        host.says("runs:");
        host.signal(name);
        let ended = host.says("ended:");
        assert!(host.end().success());
        let latest = Restore::latest(folder.at("")).unwrap().unwrap();
        assert_eq!(ended, format!("interrupted at {}", latest.now()), "{name}");
    }
}

/// What this process has spent of the processor's time \[s\].
fn spent() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::try_from(time).unwrap().as_secs_f64()
}

/// What ten futures of an hour cost that part at its fiftieth minute, beside the hour.
#[test]
#[ignore = "a measurement, for a build for release"]
fn ten_futures() {
    let minute = |minute: u64| SimTime::from_secs(60 * minute);
    let folder = Folder::new("futures");
    let settings = MpMain::builder(agents()).on(TestPlacement::Inline).seed(1);
    let mut main = settings.build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for id in 1..=500_u64 {
        let clock = Clock { ticks: 0, heard: 0 };
        main.add_to(clusters[usize::from(id % 2 == 0)], id, clock)
            .unwrap();
    }
    let begin = spent();
    main.run_until(minute(50)).unwrap();
    let saved = main.save(folder.at("it")).unwrap();
    main.run_until(minute(60)).unwrap();
    let whole = spent() - begin;
    let begin = spent();
    for seed in 0..10 {
        let future = Restore::open(&saved.path).unwrap().reseeded(seed);
        let settings = MpMain::builder(agents()).on(TestPlacement::Inline);
        let mut main = future.start(settings).unwrap();
        main.run_until(minute(60)).unwrap();
    }
    let futures = spent() - begin;
    println!(
        "the hour {:.2} s, ten futures of its last ten minutes {:.2} s: {:.2} hours, and not ten; \
         ten times the rest is {:.2}",
        whole,
        futures,
        futures / whole,
        10.0 / 6.0
    );
}
