//! The corpus of the fuzz targets on a stable toolchain: every file of it, and many changed copies.
//! No panic, no hang; and of each target some file is understood, so that the corpus still reaches
//! what it was made for.

use std::fs;
use std::path::{Path, PathBuf};

use maslite_mp::dev::fuzzing;
use maslite_mp::prelude::*;
use maslite_testkit::scenario::file::Scenario;
use rand::RngExt;

/// Changed copies for each target.
const CHANGED: usize = 20_000;

/// Bytes of the longest of them.
const LONGEST: usize = 4_096;

/// A target: its name, and whether it understands some bytes.
type Target = (&'static str, fn(&[u8]) -> bool);

const TARGETS: [Target; 8] = [
    ("channel", |bytes| fuzzing::channel(bytes) > 0),
    ("ring", |bytes| fuzzing::ring(bytes) > 0),
    ("handshake", |bytes| fuzzing::handshake(bytes) > 0),
    ("to_main", fuzzing::to_main),
    ("to_cluster", |bytes| fuzzing::to_cluster(bytes) > 0),
    ("control", |bytes| fuzzing::control(bytes) > 0),
    ("snapshot", |bytes| fuzzing::snapshot(bytes) > 0),
    ("scenario", |bytes| {
        Scenario::parse(Path::new("changed.json"), bytes).is_ok()
    }),
];

fn folder(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz/corpus").join(target)
}

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Some bytes changed, added, taken away, repeated, or replaced by a piece of another file.
fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut AgentRng) {
    for _ in 0..chance.random_range(1..5_u32) {
        let place = chance.random_range(0..=bytes.len());
        let end = chance.random_range(place..=bytes.len().min(place + 16));
        match chance.random_range(0..6_u32) {
            0 if place < bytes.len() => bytes[place] ^= 1 << chance.random_range(0..8_u32),
            1 if place < bytes.len() => bytes[place] = chance.random(),
            2 => drop(bytes.drain(place..end)),
            3 => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            4 => {
                // What is wrong at the limits of numbers.
                let number = [0, 1, 0x7F, 0x80, u64::MAX >> 1, u64::MAX];
                let number = number[chance.random_range(0..number.len())].to_le_bytes();
                let width = [1, 2, 4, 8][chance.random_range(0..4_usize)];
                let end = bytes.len().min(place + width);
                bytes.splice(place..end, number[..width].iter().copied());
            }
            _ => {
                let other = &others[chance.random_range(0..others.len())];
                let start = chance.random_range(0..=other.len());
                let piece = &other[start..other.len().min(start + 64)];
                bytes.splice(place..end, piece.iter().copied());
            }
        }
    }
    bytes.truncate(LONGEST);
}

#[test]
fn every_file_of_the_corpus_is_survived_and_some_are_understood() {
    for (target, understands) in TARGETS {
        let files = corpus(target);
        let understood = files.iter().filter(|bytes| understands(bytes)).count();
        assert!(understood > 0, "none of {} for {target}", files.len());
        // As few as this is told apart from all that is not.
        assert!(
            understood < files.len() || target == "handshake",
            "{target}"
        );
    }
}

#[test]
fn changed_copies_are_survived() {
    for (number, (target, understands)) in (0..).zip(TARGETS) {
        let files = corpus(target);
        let mut chance = AgentRng::new(0xF022, AgentId::from(number));
        let mut understood = 0;
        for _ in 0..CHANGED {
            let mut bytes = files[chance.random_range(0..files.len())].clone();
            change(&mut bytes, &files, &mut chance);
            understood += usize::from(understands(&bytes));
        }
        // Neither all nor none: the changes are small, and matter.
        assert!(
            (1..CHANGED).contains(&understood),
            "{understood} for {target}"
        );
    }
}
