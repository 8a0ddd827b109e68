//! Stories in which agents come and go, runs are paused, and something goes wrong: the trace is the
//! specification's to the byte in every placement, in one piece or in many.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use maslite_mp::Error;
use maslite_mp::prelude::*;
use maslite_testkit::effort::seeds;
use maslite_testkit::extended::{Told, generator, naive};
use maslite_testkit::scenario::agent::{ScenarioMessage, Scripted};
use maslite_testkit::scenario::file::Scenario;
use maslite_testkit::scenario::play::{Cut, Pieces, has_notes, play};
use maslite_testkit::scenario::stage::Stage;
use maslite_testkit::scenario::trace::{Trace, write_placed};

use crate::test_placement::{PlacedOn, TestPlacement};

fn agents() -> Entered<ScenarioMessage> {
    Registry::new()
        .with::<Scripted>()
        .with_trace_format(write_placed)
        .entered_by_test("extended::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// A writer that can be read while a clone of it is written to.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a story is played.
#[derive(Clone, Copy, Debug)]
enum Place {
    Alone,
    Clusters(TestPlacement),
}

const PLACES: [Place; 4] = [
    Place::Alone,
    Place::Clusters(TestPlacement::Inline),
    Place::Clusters(TestPlacement::Ring),
    Place::Clusters(TestPlacement::Channel),
];

fn tell(scenario: &Scenario, place: Place, pieces: Pieces, jitter: Option<u64>) -> Told {
    perform(scenario, place, pieces, jitter).0
}

/// Plays a story: what is told of it, and how it failed, if it did.
fn perform(
    scenario: &Scenario,
    place: Place,
    pieces: Pieces,
    jitter: Option<u64>,
) -> (Told, Option<Error>) {
    let text = Shared::default();
    let trace = if has_notes(scenario) {
        Trace::in_pieces(text.clone())
    } else {
        Trace::new(text.clone())
    };
    let result = match place {
        Place::Alone => {
            let settings = Scheduler::builder().amnesia(pieces.amnesia);
            let mut stage = Stage::alone(settings, scenario, Some(&trace));
            play(scenario, pieces, &mut stage, Some(&trace))
        }
        Place::Clusters(placement) => {
            let settings = MpMain::builder(agents()).on(placement).jitter(jitter);
            let settings = settings.amnesia(pieces.amnesia);
            let mut stage = Stage::clusters(settings, scenario, Some(&trace)).unwrap();
            play(scenario, pieces, &mut stage, Some(&trace))
        }
    };
    trace.finish().unwrap();
    let trace = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    let (summary, error) = match result {
        Ok(summary) => (Some(without_amnesias(&summary.to_json(), pieces)), None),
        Err(Cut::Failed(error)) => (None, Some(error)),
        Err(Cut::Untold) => panic!("too much for a report"),
    };
    (Told { trace, summary }, error)
}

/// A summary without the count of amnesias, which is there if they were asked for.
fn without_amnesias(summary: &str, pieces: Pieces) -> String {
    let cut = summary.split_once(r#", "amnesias": "#);
    assert_eq!(cut.is_some(), pieces.amnesia.is_some(), "{summary}");
    match cut {
        Some((before, count)) => {
            let amnesias: u64 = count.strip_suffix('}').unwrap().parse().unwrap();
            let has_steps = !summary.contains(r#""supersteps": 0,"#);
            assert!(amnesias > 0 || pieces.amnesia != Some(1) || !has_steps);
            format!("{before}}}")
        }
        None => summary.to_owned(),
    }
}

/// Compares two stories; tells of the first line that differs.
fn same(got: &Told, expected: &Told, of: &str) {
    let mut lines = (1..).zip(got.trace.lines().zip(expected.trace.lines()));
    if let Some((line, (got, expected))) = lines.find(|(_, (got, expected))| got != expected) {
        panic!("{of}: line {line}\n     got {got}\nexpected {expected}");
    }
    assert_eq!(got, expected, "{of}");
}

/// The ways to cut a story into runs that must change nothing.
fn ways() -> Vec<Pieces> {
    let whole = Pieces::default();
    vec![
        whole,
        Pieces {
            supersteps: Some(1),
            ..whole
        },
        Pieces {
            supersteps: Some(3),
            ..whole
        },
        Pieces {
            watched: true,
            ..whole
        },
        Pieces {
            to_errors: true,
            ..whole
        },
        FORGETFUL,
        Pieces {
            supersteps: Some(3),
            amnesia: Some(2),
            ..whole
        },
    ]
}

/// Every cluster forgets everything after each of its supersteps.
const FORGETFUL: Pieces = Pieces {
    supersteps: None,
    millis: None,
    watched: false,
    to_errors: false,
    amnesia: Some(1),
    speculates: false,
};

/// The stories whose traces and summaries were printed by the specification's own program.
fn golden() -> Vec<(String, Scenario, Told)> {
    let files = std::fs::read_dir(stories_folder()).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    assert!(paths.len() >= 60, "only {} stories", paths.len());
    let stories = paths.into_iter().map(|path| {
        let scenario = Scenario::load(&path).unwrap();
        let trace = std::fs::read_to_string(path.with_extension("jsonl")).unwrap();
        let summary = std::fs::read_to_string(path.with_extension("summary")).ok();
        let summary = summary.map(|summary| summary.trim_end().to_owned());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, scenario, Told { trace, summary })
    });
    stories.collect()
}

fn check_golden(place: Place, ways: &[Pieces], jitter: Option<u64>) {
    for (name, scenario, expected) in golden() {
        for pieces in ways {
            let got = tell(&scenario, place, *pieces, jitter);
            same(&got, &expected, &format!("{name}, {place:?}, {pieces:?}"));
        }
    }
}

fn stories_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/multiprocess/scenarios/extended")
}

/// What a golden story fails with, in every placement.
fn failure(name: &str) -> String {
    let path = stories_folder().join(name).with_extension("json");
    let scenario = Scenario::load(&path).unwrap();
    let failures = PLACES.map(|place| {
        let (_, error) = perform(&scenario, place, Pieces::default(), None);
        match error {
            Some(Error::Model(error)) => error.to_string(),
            other => panic!("{name}, {place:?}: {other:?}"),
        }
    });
    let [first, others @ ..] = &failures;
    assert!(others.iter().all(|other| other == first), "{failures:#?}");
    first.clone()
}

#[test]
fn an_endless_exchange_names_agents_of_all_clusters() {
    let cause = |awake| {
        format!(
            "{awake}; let time pass between request and answer (`ctx.alarm_in`), or raise the limit on supersteps per instant"
        )
    };
    assert_eq!(
        failure("an_endless_exchange_names_those_kept_awake"),
        cause(
            "endless exchange at 0 s: time stands still after 3 supersteps, awake agents: 1, 2, 3"
        )
    );
    assert_eq!(
        failure("an_endless_exchange_names_the_first_sixteen"),
        cause(
            "endless exchange at 0 s: time stands still after 2 supersteps, awake agents: 24, 23, 22, 21, 20, 19, 18, 17, 16, \
             15, 14, 13, 12, 11, 10, 9"
        )
    );
    assert_eq!(
        failure("no_superstep_in_an_instant"),
        cause("endless exchange at 0 s: time stands still after 0 supersteps, awake agents: 1, 2")
    );
}

#[test]
fn golden_stories_in_one_scheduler() {
    check_golden(Place::Alone, &ways(), None);
}

#[test]
fn golden_stories_inline() {
    check_golden(Place::Clusters(TestPlacement::Inline), &ways(), None);
}

#[test]
fn golden_stories_inline_with_jitter() {
    for jitter in 1..3 {
        let whole = [Pieces::default()];
        check_golden(Place::Clusters(TestPlacement::Inline), &whole, Some(jitter));
    }
}

#[test]
fn golden_stories_in_processes_over_rings() {
    check_golden(
        Place::Clusters(TestPlacement::Ring),
        &[Pieces::default()],
        None,
    );
}

#[test]
fn golden_stories_in_processes_over_channels() {
    check_golden(
        Place::Clusters(TestPlacement::Channel),
        &[Pieces::default()],
        None,
    );
}

#[test]
fn golden_stories_in_processes_that_forget() {
    for placement in [TestPlacement::Ring, TestPlacement::Channel] {
        check_golden(Place::Clusters(placement), &[FORGETFUL], None);
    }
}

#[test]
fn golden_stories_of_clusters_that_run_ahead() {
    let whole = Pieces::default();
    let ahead = Place::Clusters(TestPlacement::Ahead);
    check_golden(ahead, &[whole, FORGETFUL], Some(1));
    check_golden(Place::Clusters(TestPlacement::AheadRing), &[whole], None);
}

#[test]
fn random_stories_of_clusters_that_run_ahead() {
    let ahead = Place::Clusters(TestPlacement::Ahead);
    for seed in seeds(2_000..2_120, 40) {
        check_random(seed, &[(ahead, &[Pieces::default()])]);
    }
}

/// A summary without the digest, which the naive program does not keep.
fn without_digest(told: &Told) -> Told {
    let summary = told.summary.as_ref().map(|summary| {
        let (before, rest) = summary.split_once(r#""digest": ""#).unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        format!(r#"{before}"digest": "?"{after}"#)
    });
    let trace = told.trace.clone();
    Told { trace, summary }
}

/// Compares a random story with what the naive program tells, on each place in each way.
fn check_random(seed: u64, places: &[(Place, &[Pieces])]) {
    let (scenario, expected) = generator::story(seed);
    let alone = tell(&scenario, Place::Alone, Pieces::default(), None);
    let of = |place, pieces| {
        let scenario = serde_json::to_string(&scenario).unwrap();
        format!("seed {seed}, {place:?}, {pieces:?}: {scenario}")
    };
    same(
        &without_digest(&alone),
        &expected,
        &of(Place::Alone, Pieces::default()),
    );
    for (place, ways) in places {
        for pieces in *ways {
            let got = tell(&scenario, *place, *pieces, seed.checked_sub(1));
            same(&got, &alone, &of(*place, *pieces));
        }
    }
}

#[test]
fn random_stories_in_one_scheduler_and_inline() {
    let inline = Place::Clusters(TestPlacement::Inline);
    let ways = ways();
    let (mut failed, mut lines) = (0, 0);
    let seeds = seeds(0..240, 80);
    let stories = usize::try_from(seeds.end).unwrap();
    for seed in seeds {
        let way = &ways[usize::try_from(seed).unwrap() % ways.len()..][..1];
        check_random(
            seed,
            &[(inline, &ways[..1]), (inline, way), (Place::Alone, way)],
        );
        let (_, told) = generator::story(seed);
        failed += usize::from(told.summary.is_none());
        lines += told.trace.lines().count();
    }
    // Neither too tame nor too rash a generator.
    let right = stories / 8..stories / 2;
    assert!(right.contains(&failed), "{failed} of {stories} failed");
    assert!(
        lines > 16 * stories,
        "only {lines} lines in {stories} stories"
    );
}

#[test]
fn random_stories_in_processes() {
    let whole = [Pieces::default(), FORGETFUL];
    for seed in 1_000..1_012 {
        let placement = [TestPlacement::Ring, TestPlacement::Channel][usize::from(seed % 2 == 0)];
        check_random(seed, &[(Place::Clusters(placement), &whole)]);
    }
}

#[test]
#[ignore = "takes minutes"]
fn many_random_stories() {
    let ways = ways();
    for seed in 10_000..14_000 {
        let mut places = vec![
            (Place::Alone, &ways[..]),
            (Place::Clusters(TestPlacement::Inline), &ways[..]),
        ];
        if seed % 10 == 0 {
            places.push((Place::Clusters(TestPlacement::Ring), &ways[..1]));
            places.push((Place::Clusters(TestPlacement::Channel), &ways[..1]));
        }
        check_random(seed, &places);
    }
}

#[test]
fn golden_stories_are_what_the_naive_program_tells() {
    for (name, scenario, expected) in golden() {
        let got = naive::tell(&scenario, usize::MAX).unwrap();
        same(&got, &without_digest(&expected), &name);
    }
}

#[test]
fn random_stories_survive_being_written_and_read() {
    for seed in 0..50 {
        let (scenario, _) = generator::story(seed);
        let text = serde_json::to_string_pretty(&scenario).unwrap();
        let read = Scenario::parse(Path::new("generated"), text.as_bytes());
        assert_eq!(read.unwrap(), scenario, "seed {seed}");
    }
}
