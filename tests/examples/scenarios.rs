//! `scenario`: reports, errors, and runs that are steered.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{program, told};

/// Writes a file for one test, and tells where.
fn written(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_scenario_tells_more_than_a_report_holds() {
    let ids = Vec::from_iter(2..=30)
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>();
    let agents = ids.iter().map(|id| {
        format!(r#"{{"id": {id}, "subscribe": [], "rules": [], "setup": [{{"keep": {{"awake": true}}}}]}}"#)
    });
    let scenario = format!(
        r#"{{"clusters": [[1], [{}]], "start": [{{"from": 0, "to": 1, "topic": "A", "ttl": 1}}], "run": {{}},
            "agents": [{}, {{"id": 1, "subscribe": [], "rules": [{{"on": "A", "do": [{{"spin": {{"until": "B", "most": 99}}}}]}}]}}]}}"#,
        ids.join(", "),
        agents.collect::<Vec<_>>().join(", "),
    );
    let file = written("many_awake.json", &scenario);
    let mut traces = Vec::new();
    for placement in ["alone", "inline", "processes"] {
        let trace = file.with_extension(placement);
        let arguments = ["--placement", placement, "--trace"];
        let mut arguments = Vec::from(arguments);
        arguments.extend([trace.to_str().unwrap(), file.to_str().unwrap()]);
        told("scenario", &arguments);
        traces.push(std::fs::read_to_string(trace).unwrap());
    }
    // A line for each agent in each of a hundred supersteps.
    assert_eq!(traces[0].lines().count(), 30 * 100);
    assert_eq!(traces[0].matches(r#""awake""#).count(), 29 * 100);
    assert!(traces[1..].iter().all(|trace| *trace == traces[0]));
}

#[test]
fn a_scenario_that_fails_or_cannot_begin_says_so() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let status = |arguments: &[&str]| {
        let output = Command::new(program("scenario")).args(arguments).output();
        output.unwrap().status.code()
    };
    let panics = stories.join("a_panic_in_teardown.json");
    let malformed = written("malformed.json", r#"{"clusters": []}"#);
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("malformed.jsonl");
    for placement in ["alone", "inline", "processes"] {
        let placed = ["--placement", placement];
        assert_eq!(
            status(&[&placed[..], &[panics.to_str().unwrap()]].concat()),
            Some(1)
        );
        let arguments = [
            malformed.to_str().unwrap(),
            "--trace",
            trace.to_str().unwrap(),
        ];
        assert_eq!(status(&[&placed[..], &arguments].concat()), Some(2));
        assert!(!trace.exists());
    }
    assert_eq!(
        status(&["--placement", "threads", panics.to_str().unwrap()]),
        Some(2)
    );
}

#[test]
fn a_steered_scenario_tells_the_same() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    for story in [
        "an_agent_spins_until_it_hears",
        "the_owner_adds_agents",
        "random_3",
    ] {
        let file = stories.join(story).with_extension("json");
        let expected = std::fs::read_to_string(file.with_extension("summary")).unwrap();
        for placement in ["alone", "inline", "processes"] {
            for seed in ["1", "2"] {
                let arguments = ["--placement", placement, "--steer", seed, "--shake", seed];
                let arguments = [&arguments[..], &[file.to_str().unwrap()]].concat();
                assert_eq!(
                    told("scenario", &arguments),
                    expected,
                    "{story} {arguments:?}"
                );
            }
        }
    }
}

#[test]
fn a_scenario_that_is_forgotten_again_and_again_tells_the_same() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let file = stories.join("random_3.json");
    let expected = std::fs::read_to_string(file.with_extension("summary")).unwrap();
    let trace = std::fs::read_to_string(file.with_extension("jsonl")).unwrap();
    // Each cluster counts its own supersteps.
    for (placement, every, amnesias) in [
        ("alone", "1", 28),
        ("inline", "1", 42),
        ("processes", "2", 20),
    ] {
        let lines = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{placement}.forgotten"));
        let arguments = ["--placement", placement, "--amnesia", every, "--trace"];
        let paths = [lines.to_str().unwrap(), file.to_str().unwrap()];
        let told = told("scenario", &[&arguments[..], &paths].concat());
        let summary = expected.trim_end().strip_suffix('}').unwrap();
        assert_eq!(
            told.trim_end(),
            format!(r#"{summary}, "amnesias": {amnesias}}}"#)
        );
        assert_eq!(std::fs::read_to_string(lines).unwrap(), trace);
    }
}

#[test]
fn the_marks_of_a_scenario_are_the_same_in_every_placement() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let file = stories.join("random_3.json");
    let mut seen = Vec::new();
    for how in [
        &["alone"][..],
        &["alone", "--amnesia", "1"],
        &["inline", "--slice", "3"],
        &["processes", "--amnesia", "2"],
        &["processes", "--lose", "2"],
        &["alone", "--save-every", "2"],
        &["inline", "--save-every", "1", "--restore-into", "3"],
        &["processes", "--save-every", "3", "--restore-into", "2"],
    ] {
        let marks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("random_3.marks");
        let paths = ["--marks", marks.to_str().unwrap(), file.to_str().unwrap()];
        told("scenario", &[&["--placement"], how, &paths].concat());
        seen.push(std::fs::read_to_string(marks).unwrap());
    }
    let start = r#"{"schema":1,"covers":"trace","width_ns":"#;
    assert!(seen[0].starts_with(start), "{}", seen[0]);
    for marks in &seen {
        assert_eq!(*marks, seen[0]);
    }
}

#[test]
fn a_scenario_that_is_saved_and_goes_on_elsewhere_tells_the_same() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moved.jsonl");
    let mut restores = 0;
    for story in ["random_3", "random_6", "the_owner_adds_agents"] {
        let file = stories.join(story).with_extension("json");
        for placement in ["alone", "inline", "processes"] {
            for (every, into) in [("1", &[][..]), ("2", &["--restore-into", "5"])] {
                let arguments = ["--placement", placement, "--save-every", every, "--trace"];
                let files = [trace.to_str().unwrap(), file.to_str().unwrap()];
                let told = told("scenario", &[&arguments[..], &files, into].concat());
                let (summary, moved) = told.trim_end().split_once(r#", "restores": "#).unwrap();
                let expected = std::fs::read_to_string(file.with_extension("summary")).unwrap();
                assert_eq!(format!("{summary}}}"), expected.trim_end(), "{story}");
                restores += moved.trim_end_matches('}').parse::<u32>().unwrap();
                let written = std::fs::read_to_string(&trace).unwrap();
                let expected = std::fs::read_to_string(file.with_extension("jsonl")).unwrap();
                assert_eq!(written, expected, "{story}");
            }
        }
    }
    assert!(restores > 20, "{restores}");
}

#[test]
fn a_scenario_whose_processes_are_killed_tells_the_same() {
    let stories =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended");
    let mut recoveries = 0;
    for (seed, story) in ["random_3", "the_owner_adds_agents", "random_1"]
        .iter()
        .enumerate()
    {
        let file = stories.join(story).with_extension("json");
        let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lost.jsonl");
        for link in [&[][..], &["--channel"]] {
            let seed = (seed + 1).to_string();
            let arguments = ["--placement", "processes", "--lose", &seed, "--trace"];
            let files = [trace.to_str().unwrap(), file.to_str().unwrap()];
            let told = told("scenario", &[&arguments[..], &files, link].concat());
            let (summary, lost) = told.trim_end().split_once(r#", "recoveries": "#).unwrap();
            let expected = std::fs::read_to_string(file.with_extension("summary")).unwrap();
            assert_eq!(format!("{summary}}}"), expected.trim_end(), "{story}");
            recoveries += lost.trim_end_matches('}').parse::<u32>().unwrap();
            let written = std::fs::read_to_string(&trace).unwrap();
            let expected = std::fs::read_to_string(file.with_extension("jsonl")).unwrap();
            assert_eq!(written, expected, "{story}");
        }
    }
    assert!(recoveries > 0);
}
