//! A scenario's trace is the specification's to the byte.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use maslite_core::{AgentTypes, Mail, Report, Run, Scheduler, SimTime};
use maslite_testkit::scenario::agent::{ScenarioMessage, Scripted};
use maslite_testkit::scenario::file::Scenario;
use maslite_testkit::scenario::trace::Trace;
use maslite_testkit::scenario::{generator, naive};

use crate::actor::balanced;

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

/// A scenario loaded into a scheduler, and its trace so far.
pub(crate) struct Loaded {
    pub(crate) scheduler: Scheduler<ScenarioMessage>,
    trace: Trace<Shared>,
    text: Shared,
}

impl Loaded {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self::with_amnesia(scenario, None)
    }

    /// The same in a scheduler that forgets everything after this number of supersteps.
    fn with_amnesia(scenario: &Scenario, amnesia: Option<u64>) -> Self {
        let text = Shared::default();
        let trace = Trace::new(text.clone());
        let mut scheduler = Scheduler::builder()
            .agent_types(AgentTypes::new().with::<Scripted>())
            .amnesia(amnesia)
            .digest()
            .observe(trace.observer())
            .build();
        for script in &scenario.agents {
            scheduler.add(script.id, Scripted::from(script)).unwrap();
        }
        for mail in &scenario.start {
            scheduler.send_mail(Mail::from(mail));
        }
        Self {
            scheduler,
            trace,
            text,
        }
    }

    pub(crate) fn run(&mut self, run: Run) -> Report {
        balanced(self.scheduler.run(run).unwrap())
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.finish().unwrap();
        String::from_utf8(self.text.0.lock().unwrap().clone()).unwrap()
    }
}

pub(crate) fn whole(scenario: &Scenario) -> Run {
    match scenario.run.until_ms {
        Some(limit) => Run::until(SimTime::from_millis(limit)),
        None => Run::until_idle(),
    }
}

/// Compares two traces; tells of the first line that differs.
pub(crate) fn same_trace(got: &str, expected: &str, of: &str) {
    let mut lines = (1..).zip(got.lines().zip(expected.lines()));
    if let Some((line, (got, expected))) = lines.find(|(_, (got, expected))| got != expected) {
        panic!("{of}: line {line}\n     got {got}\nexpected {expected}");
    }
    let (got, expected) = (got.lines().count(), expected.lines().count());
    assert_eq!(got, expected, "{of}: lines of trace");
}

#[test]
fn random_scenarios_give_the_trace_of_the_model() {
    assert!(deliveries_of_random_scenarios(0..600, None) > 100_000);
}

#[test]
fn a_scheduler_that_forgets_gives_it_too() {
    for every in 1..=3 {
        let seeds = every * 1_000..every * 1_000 + 200;
        assert!(deliveries_of_random_scenarios(seeds, Some(every)) > 30_000);
    }
}

/// Compares scenarios with the specification; returns how much was delivered.
fn deliveries_of_random_scenarios(seeds: Range<u64>, amnesia: Option<u64>) -> u64 {
    let mut deliveries = 0;
    for seed in seeds {
        let scenario = generator::scenario(seed);
        let expected = naive::run(&scenario, u64::MAX).unwrap();
        let mut loaded = Loaded::with_amnesia(&scenario, amnesia);
        let report = loaded.run(whole(&scenario));
        let of = format!("seed {seed}: {}", serde_json::to_string(&scenario).unwrap());
        same_trace(&loaded.trace(), &expected.trace, &of);
        let counters = report.total;
        let got = naive::Outcome {
            trace: expected.trace.clone(),
            instants_ms: expected.instants_ms.clone(),
            sent: counters.sent,
            delivered: counters.delivered,
            undeliverable: counters.undeliverable,
            queued: counters.queued,
            unheard: counters.unheard,
            supersteps: counters.supersteps,
            alarms_pending: counters.alarms_pending,
            now_ms: report.now.as_nanos() / 1_000_000,
        };
        assert_eq!(got, expected, "{of}");
        let amnesias = amnesia.map_or(0, |every| counters.supersteps / every);
        assert_eq!(report.amnesias, amnesias, "{of}");
        deliveries += counters.delivered;
    }
    deliveries
}

/// The golden traces were printed by the specification's own program.
#[test]
fn golden_scenarios_give_the_golden_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/scenarios");
    let files = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    assert_eq!(paths.len(), 12, "scenarios in {}", folder.display());
    for path in paths {
        let scenario = Scenario::load(&path).unwrap();
        let golden = std::fs::read_to_string(path.with_extension("jsonl")).unwrap();
        let mut loaded = Loaded::new(&scenario);
        loaded.run(whole(&scenario));
        let of = path.display().to_string();
        same_trace(&loaded.trace(), &golden, &of);
        assert_eq!(
            naive::run(&scenario, u64::MAX).unwrap().trace,
            golden,
            "{of}"
        );
    }
}

#[test]
fn generated_scenarios_survive_being_written_and_read() {
    for seed in 0..50 {
        let scenario = generator::scenario(seed);
        let text = serde_json::to_string_pretty(&scenario).unwrap();
        let read = Scenario::parse(Path::new("generated"), text.as_bytes());
        assert_eq!(read.unwrap(), scenario, "seed {seed}");
    }
}
