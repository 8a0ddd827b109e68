//! Main is killed, or the disk fails, at every step of a save: the snapshot before is there or the
//! new one, whole, and the next save cleans up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use maslite_mp::SnapshotError;
use maslite_mp::dev::save_steps::{Fate, decide};
use maslite_mp::prelude::*;

use crate::saves::{agents, two_clocks, undisturbed};
use crate::saving::Folder;
use crate::test_placement::TestPlacement::Inline;

/// What a save on the disk has at least: it makes a folder, two sections and a head of at least
/// three steps each, syncs, renames, syncs, and removes the oldest snapshot with its four.
const LEAST: u32 = 18;

fn at(seconds: u64) -> SimTime {
    SimTime::from_secs(seconds)
}

/// Saved every ten seconds; the last two are kept.
fn policy(folder: &Path) -> Saves {
    let every = SimDuration::from_secs(10);
    Saves::into(folder).every_simulated(every).keep(2)
}

/// The times of the snapshots in a folder.
fn times(folder: &Path) -> Vec<u64> {
    let found = maslite_mp::snapshots(folder).unwrap().into_iter();
    found
        .map(|(_, it)| it.unwrap().now().as_nanos() / 1_000_000_000)
        .collect()
}

/// The same, where nothing else is in the folder.
fn snapshots(folder: &Path) -> Vec<u64> {
    let times = times(folder);
    assert_eq!(times.len(), std::fs::read_dir(folder).unwrap().count());
    times
}

/// The variables that tell a main process its folder, and before which step it is killed.
const FOLDER: &str = "MASLITE_TEST_SAVES";
const STEP: &str = "MASLITE_TEST_STEP";

/// Saves at 10, 20, 30 s, and is killed at a step of the save at 40 s.
#[test]
#[ignore = "a main process"]
fn killed_entry() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let step = std::env::var(STEP).unwrap().parse().unwrap();
    let settings = MpMain::builder(agents()).saves(policy(&folder));
    let mut main = two_clocks(settings, Inline);
    main.run_until(at(31)).unwrap();
    decide(Some((step, Fate::IsKilled)));
    main.run_until(at(41)).unwrap();
}

#[test]
fn main_is_killed_before_every_step_of_a_save_and_goes_on() {
    let (expected, folder) = (undisturbed(), Folder::new("killed"));
    let mut latest = Vec::new();
    for step in 0.. {
        let path = folder.at(format!("at-{step}"));
        let this = std::env::current_exe().unwrap();
        let run = Command::new(this)
            .args(["save_steps::killed_entry", "--exact", "--ignored"])
            .env(FOLDER, &path)
            .env(STEP, step.to_string())
            .output()
            .unwrap();
        if run.status.success() {
            assert!(step >= LEAST, "{step} steps");
            assert_eq!(snapshots(&path), [30, 40]);
            break;
        }
        let killed = std::os::unix::process::ExitStatusExt::signal(&run.status);
        assert_eq!(killed, Some(9), "step {step}: {run:?}");
        let restore = Restore::latest(&path).unwrap().unwrap();
        assert_eq!(restore.skipped().len(), 0, "step {step}");
        latest.push(restore.now());
        let settings = MpMain::builder(agents()).saves(policy(&path));
        let settings = settings.placement(Placement::Inline);
        let mut main = restore.start(settings).unwrap();
        let report = main.run_until(at(60)).unwrap();
        assert_eq!(report.run.digest, Some(expected), "step {step}");
        assert_eq!(snapshots(&path), [50, 60], "step {step}");
    }
    // The one before up to the renaming, and the new one from there on.
    assert!(latest.is_sorted());
    assert!(
        latest.contains(&at(30)) && latest.contains(&at(40)),
        "{latest:?}"
    );
}

#[test]
fn a_disk_that_fails_or_is_full_at_every_step_leaves_what_was_there() {
    let expected = undisturbed();
    for fate in [Fate::Fails, Fate::IsFull] {
        let folder = Folder::new(&format!("disk-{fate:?}"));
        let mut warned = 0;
        for step in 0.. {
            let path = folder.at(format!("at-{step}"));
            let (sink, warnings) = mpsc::channel();
            let settings = MpMain::builder(agents()).saves(policy(&path));
            let settings = settings.warnings(move |warning| drop(sink.send(warning.clone())));
            let mut main = two_clocks(settings, Inline);
            main.run_until(at(31)).unwrap();
            decide(Some((step, fate)));
            main.run_until(at(41)).unwrap();
            let left = decide(None);
            let is_over = left.is_some_and(|(steps, _)| steps > 0);
            let there = times(&path);
            // Of a full disk only what does not write may have been left to do.
            if left.is_none() || !there.contains(&40) {
                warned += 1;
                let Ok(Warning::NotSaved { time, why }) = warnings.recv() else {
                    panic!("step {step}: another warning");
                };
                assert_eq!(time, at(40));
                let told = match fate {
                    Fate::IsFull => "No space left on device",
                    _ => "Input/output error",
                };
                assert!(why.contains(told), "step {step}: {why}");
                // Unless it was there already, and an old one could not be removed.
                let is_kept = there.starts_with(&[20, 30]) || there == [30, 40];
                assert!(is_kept, "step {step}: {there:?}");
            } else {
                assert_eq!(there, [30, 40], "step {step}");
            }
            let report = main.run_until(at(60)).unwrap();
            assert_eq!(report.run.digest, Some(expected), "step {step}");
            assert_eq!(snapshots(&path), [50, 60], "step {step}");
            if is_over {
                assert!(step >= LEAST, "{step} steps");
                break;
            }
        }
        assert!(warned >= 8, "{warned} for {fate:?}");
    }
}

#[test]
fn a_save_by_hand_onto_a_full_disk_is_a_typed_error_and_leaves_nothing() {
    let folder = Folder::new("by-hand");
    let mut main = two_clocks(MpMain::builder(agents()), Inline);
    main.run_until(at(31)).unwrap();
    main.save(folder.at("before")).unwrap();
    let mut failures = 0;
    for step in 0.. {
        decide(Some((step, Fate::IsFull)));
        let saved = main.save(folder.at("it"));
        let is_over = decide(None).is_some_and(|(steps, _)| steps > 0);
        match saved {
            Ok(saved) => {
                assert_eq!(saved.now, at(31));
                std::fs::remove_dir_all(&saved.path).unwrap();
            }
            Err(Error::Snapshot(SnapshotError::Io { source, .. })) => {
                failures += 1;
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                assert_eq!(snapshots(&folder.at("")), [31], "step {step}");
            }
            Err(other) => panic!("step {step}: {other}"),
        }
        if is_over {
            break;
        }
    }
    assert!(failures >= 8, "{failures}");
    assert_eq!(
        main.run_until(at(60)).unwrap().run.digest,
        Some(undisturbed())
    );
}
