//! A simulation that is saved, dropped, and goes on from its snapshot is the same simulation: in the
//! same clusters, in others, in another placement, and in a scheduler alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use maslite_mp::core::Observer;
use maslite_mp::prelude::*;
use maslite_mp::{SnapshotError, save_scheduler};
use maslite_testkit::effort::seeds;
use maslite_testkit::lively::{
    FIRST, Lively, Msg, SEED, Story, cluster_of, compare, handle, in_one_scheduler, start, tell,
};

use serde::{Deserialize, Serialize};

use crate::test_placement::{PlacedOn, TestPlacement};

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Lively>()
        .entered_by_test("saving::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
    let _ = counters().enter();
}

/// A folder of a test, which is removed when the test is over.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("maslite-saving-{}-{name}", std::process::id());
        // In memory, where there is such a folder: a snapshot waits for the disk.
        let shared = PathBuf::from("/dev/shm");
        let parent = if shared.is_dir() {
            shared
        } else {
            std::env::temp_dir()
        };
        let path = parent.join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn at(&self, name: impl AsRef<std::path::Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The trace of a story, written by one simulation after the other.
#[derive(Clone, Default)]
struct Lines {
    written: Arc<Mutex<Vec<String>>>,
    /// Which simulation writes now. One that was saved in the middle of an instant, and ends then,
    /// writes down what the next one will.
    writer: Arc<AtomicU64>,
}

impl Lines {
    /// Where the next simulation writes.
    fn sink(&self) -> impl FnMut(&str) + Send + 'static {
        let this = self.clone();
        let own = this.writer.fetch_add(1, Ordering::Relaxed) + 1;
        move |line| {
            if this.writer.load(Ordering::Relaxed) == own {
                this.written.lock().unwrap().push(line.to_owned());
            }
        }
    }

    /// The simulation that writes now writes no more.
    fn close(&self) {
        self.writer.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a story is told on.
enum Host {
    Clusters(Box<MpMain<Msg>>),
    Alone(Box<Scheduler<Msg>>),
}

/// Where a story goes on.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// In this number of clusters.
    Clusters(usize, TestPlacement),
    /// In the clusters that it was in.
    Same(TestPlacement),
    Alone,
}

fn settings(placement: TestPlacement, lines: &Lines) -> MpMainBuilder<Msg> {
    MpMain::builder(agents())
        .on(placement)
        .digest()
        .trace(lines.sink())
}

fn first(
    seed: u64,
    count: usize,
    placement: TestPlacement,
    lookahead: u64,
    lines: &Lines,
) -> MpMain<Msg> {
    let mut main = settings(placement, lines)
        .seed(SEED + seed)
        .lookahead(SimDuration::from_millis(lookahead))
        .build()
        .unwrap();
    let clusters: Vec<_> = (0..count).map(|_| main.new_cluster()).collect();
    for id in 1..=FIRST {
        let cluster = clusters[cluster_of(id, count)];
        main.add_to(cluster, id, Lively::of(seed)).unwrap();
    }
    start(seed)
        .into_iter()
        .for_each(|mail| main.send_mail(mail));
    main
}

impl Host {
    fn run(&mut self, run: Run, heard: &mut u64) -> Report {
        let handler = |mail, main: &mut MainContext<Msg>| handle(heard, mail, main);
        match self {
            Self::Clusters(main) => main.run_with(run, handler).unwrap().run,
            Self::Alone(scheduler) => scheduler.run_with(run, handler).unwrap(),
        }
    }

    /// Saves it, drops it, and goes on from the snapshot.
    fn go_on(self, next: Next, folder: &Folder, lines: &Lines) -> Self {
        let path = folder.at("story");
        let saved = match self {
            Self::Clusters(mut main) => {
                let digest = main.state_digest().unwrap();
                let saved = main.save(&path).unwrap();
                assert_eq!(digest, saved.state_digest);
                lines.close();
                saved
            }
            Self::Alone(scheduler) => save_scheduler(&scheduler, &agents(), &path).unwrap(),
        };
        let restore = Restore::open(&path).unwrap();
        assert_eq!(restore.state_digest(), saved.state_digest);
        assert_eq!((restore.now(), restore.agents()), (saved.now, saved.agents));
        let mut next = match next {
            Next::Clusters(count, placement) => {
                let place = move |agent: maslite_mp::SavedAgent<'_>| {
                    usize::try_from(agent.id.as_u64() * 7 / 3).unwrap() % count
                };
                let restore = restore.into_clusters(count, place);
                Self::Clusters(Box::new(restore.start(settings(placement, lines)).unwrap()))
            }
            Next::Same(placement) => {
                Self::Clusters(Box::new(restore.start(settings(placement, lines)).unwrap()))
            }
            Next::Alone => {
                let mut sink = lines.sink();
                let observer: Observer<Msg> = Box::new(move |delivery| {
                    let mut line = String::new();
                    delivery.write_json(&mut line);
                    sink(&line);
                });
                let settings = Scheduler::builder().observe(observer);
                Self::Alone(Box::new(restore.alone(settings, &agents()).unwrap()))
            }
        };
        std::fs::remove_dir_all(&path).unwrap();
        if let Self::Clusters(main) = &mut next {
            // What was restored is what was saved.
            let again = main.save(folder.at("again")).unwrap();
            assert_eq!(again.state_digest, saved.state_digest);
            std::fs::remove_dir_all(again.path).unwrap();
        }
        next
    }
}

/// Tells a story in pieces of a number of supersteps, and moves it after each.
fn moved(
    first: impl FnOnce(&Lines) -> MpMain<Msg>,
    supersteps: u64,
    ways: &[Next],
    folder: &Folder,
) -> Story {
    let lines = Lines::default();
    let mut host = Some(Host::Clusters(Box::new(first(&lines))));
    let mut ways = ways.iter().cycle();
    let mut story = tell(&lines.written, |heard| {
        let mut before = host.take().unwrap();
        let report = before.run(Run::until_idle().supersteps(supersteps), heard);
        let next = *ways.next().unwrap();
        host = Some(before.go_on(next, folder, &lines));
        report
    });
    let cut = StopReason::Supersteps.to_string();
    story.stops.retain(|stop| !stop.starts_with(&cut));
    story
}

#[test]
fn a_story_that_moves_is_the_same() {
    use TestPlacement::Inline;
    let ways = [
        Next::Clusters(3, Inline),
        Next::Clusters(1, Inline),
        Next::Alone,
        Next::Clusters(8, Inline),
        Next::Clusters(2, Inline),
        Next::Clusters(4, Inline),
        Next::Alone,
        Next::Clusters(5, Inline),
        Next::Same(Inline),
    ];
    let folder = Folder::new("moves");
    for seed in (700..730).chain([2_021]) {
        let expected = in_one_scheduler(seed);
        let supersteps = 1 + seed % 4;
        let stage = |lines: &Lines| first(seed, 2, Inline, 0, lines);
        let got = moved(stage, supersteps, &ways, &folder);
        compare(seed, &got, &expected, &format!("{supersteps} supersteps"));
    }
}

/// From any number of clusters, and from a scheduler alone, to any other: all 81 ways, each once.
fn all_ways() -> Vec<Next> {
    const HOSTS: usize = 9;
    let host = |number| match number {
        0 => Next::Alone,
        clusters => Next::Clusters(clusters, TestPlacement::Inline),
    };
    let walk = (0..HOSTS).flat_map(|from| {
        let there_and_back = (from + 1..HOSTS).flat_map(move |to| [from, to]);
        std::iter::once(from).chain(there_and_back)
    });
    walk.map(host).collect()
}

#[test]
fn after_each_superstep_a_story_goes_on_in_any_number_of_clusters() {
    let folder = Folder::new("every-superstep");
    for seed in seeds(900..1_050, 6) {
        let expected = in_one_scheduler(seed);
        let mut ways = all_ways();
        // Each story begins elsewhere.
        ways.rotate_left(usize::try_from(seed * 29 % 81).unwrap());
        let stage = |lines: &Lines| first(seed, 2, TestPlacement::Inline, 0, lines);
        let got = moved(stage, 1, &ways, &folder);
        compare(seed, &got, &expected, "after each superstep");
    }
}

#[test]
fn so_it_is_in_processes() {
    use TestPlacement::{Channel, Inline, Ring};
    let ways = [
        Next::Clusters(3, Ring),
        Next::Same(Inline),
        Next::Same(Channel),
        Next::Alone,
        Next::Clusters(2, Channel),
        Next::Same(Ring),
    ];
    let folder = Folder::new("processes");
    for seed in 800..803 {
        let expected = in_one_scheduler(seed);
        let stage = |lines: &Lines| first(seed, 2, Ring, 0, lines);
        let got = moved(stage, 5, &ways, &folder);
        compare(seed, &got, &expected, "in processes");
    }
}

#[test]
fn under_a_lookahead_it_goes_on_in_the_same_clusters() {
    use TestPlacement::{Inline, Ring};
    let folder = Folder::new("lookahead");
    for seed in 850..880 {
        let expected = moved(
            |lines| first(seed, 3, Inline, 2, lines),
            u64::MAX,
            &[Next::Same(Inline)],
            &folder,
        );
        let ways = match seed % 10 {
            0 => vec![Next::Same(Ring), Next::Same(Inline)],
            _ => vec![Next::Same(Inline)],
        };
        let stage = |lines: &Lines| first(seed, 3, Inline, 2, lines);
        let got = moved(stage, 1 + seed % 7, &ways, &folder);
        compare(seed, &got, &expected, "under a lookahead");
    }
}

/// An agent that counts what it gets, and one that no registry knows.
#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl Agent<Msg> for Counter {
    fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {
        self.count += 1;
    }
}

struct Stranger;
impl Agent<Msg> for Stranger {}

fn counters() -> Registry<Msg> {
    Registry::new()
        .with::<Counter>()
        .with_builder("strangers", |count: u64, agents| {
            (0..count).for_each(|number| agents.add(100 + number, Stranger));
        })
        .entered_by_test("saving::child")
}

/// A simulation of two clusters with a counter each, after a run.
fn two_counters(lookahead: u64) -> MpMain<Msg> {
    let mut main = MpMain::builder(counters().enter())
        .placement(Placement::Inline)
        .lookahead(SimDuration::from_millis(lookahead))
        .build()
        .unwrap();
    for id in 1..=2 {
        let cluster = main.new_cluster();
        main.add_to(cluster, id, Counter { count: 0 }).unwrap();
        main.send(id, Msg::Call(0));
    }
    main.run(Run::until_idle()).unwrap();
    main
}

fn snapshot_error<T>(result: Result<T, Error>) -> SnapshotError {
    match result {
        Err(Error::Snapshot(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is refused"),
    }
}

#[test]
fn what_cannot_be_saved_is_an_error_and_the_simulation_goes_on() {
    let folder = Folder::new("unsaved");
    for placement in [Placement::Inline, Placement::Processes] {
        let settings = MpMain::builder(counters().enter());
        let mut main = settings.placement(placement).build().unwrap();
        let cluster = main.new_cluster();
        main.add_to(cluster, 1, Counter { count: 0 }).unwrap();
        main.build(cluster, "strangers", 2_u64).unwrap();
        let error = main.save(folder.at("strangers")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "in cluster 1: at 0 s the state of agent 100 of type multiprocess::saving::Stranger cannot be saved: its type is \
             not registered: register it, or run without saving states"
        );
        main.take_out::<Counter>(1).unwrap();
        main.remove(100).unwrap();
        main.remove(101).unwrap();
        assert_eq!(main.run(Run::until_idle()).unwrap().total.agents, 0);
        // Nothing is left of what was not written.
        assert_eq!(std::fs::read_dir(folder.at("")).unwrap().count(), 0);
        let path = folder.at("empty");
        main.save(&path).unwrap();
        let exists = snapshot_error(main.save(&path));
        assert!(matches!(exists, SnapshotError::Exists { .. }), "{exists}");
        std::fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn what_was_queued_and_what_was_counted_goes_on() {
    let folder = Folder::new("queued");
    let mut main = two_counters(0);
    main.send(2, Msg::Call(0));
    main.save(folder.at("it")).unwrap();
    let restore = Restore::open(folder.at("it")).unwrap();
    assert_eq!(Vec::from_iter(restore.clusters()), ["1", "2"]);
    let agents = counters().enter();
    let settings = MpMain::builder(agents.clone()).placement(Placement::Inline);
    let mut main = restore.start(settings).unwrap();
    assert_eq!(main.counters().delivered, 2);
    let report = main.run(Run::until_idle()).unwrap();
    assert_eq!((report.counters.delivered, report.total.delivered), (1, 3));
    assert_eq!(main.inspect::<Counter>(2).unwrap().count, 2);
    let restore = Restore::open(folder.at("it")).unwrap();
    let mut alone = restore.alone(Scheduler::builder(), &agents).unwrap();
    let report = alone.run(Run::until_idle()).unwrap();
    assert_eq!((report.counters.delivered, report.total.delivered), (1, 3));
    assert_eq!(alone.agent::<Counter>(2).map(|it| it.count), Some(2));
}

#[test]
fn a_snapshot_that_does_not_fit_is_refused_before_anything_starts() {
    let folder = Folder::new("refused");
    let missing = snapshot_error(Restore::open(folder.at("none")));
    assert!(
        matches!(missing, SnapshotError::Missing { .. }),
        "{missing}"
    );
    assert!(Restore::latest(folder.at("none")).unwrap().is_none());

    let path = folder.at("it");
    two_counters(0).save(&path).unwrap();
    let open = || Restore::open(&path).unwrap();
    // Without the type, with other messages, with a digest that there is none of.
    let stranger = Registry::<Msg>::new()
        .entered_by_test("saving::child")
        .enter();
    let error = snapshot_error(open().start(stranger)).to_string();
    let expected = "is of another program: the agent type multiprocess::saving::Counter is not \
                    registered: add `.with::<multiprocess::saving::Counter>()` to the registry";
    assert!(error.ends_with(expected), "{error}");
    let other = Registry::<maslite_testkit::scenario::agent::ScenarioMessage>::new()
        .entered_by_test("saving::child")
        .enter();
    let error = snapshot_error(open().start(other));
    assert!(
        matches!(error, SnapshotError::OtherProgram { .. }),
        "{error}"
    );
    let error = snapshot_error(open().alone(Scheduler::builder().digest(), &counters().enter()));
    assert!(matches!(error, SnapshotError::Refused { .. }), "{error}");
    let error = snapshot_error(open().start(MpMain::builder(counters().enter()).digest()));
    assert!(matches!(error, SnapshotError::Refused { .. }), "{error}");

    // Clusters under a lookahead are part of the model.
    let ahead = folder.at("ahead");
    two_counters(5).save(&ahead).unwrap();
    let divided = Restore::open(&ahead).unwrap().into_clusters(1, |_| 0);
    let error = snapshot_error(divided.start(counters().enter())).to_string();
    assert!(
        error.ends_with("it has a lookahead, so its clusters are part of the model"),
        "{error}"
    );
    let alone = Restore::open(&ahead).unwrap();
    let error = snapshot_error(alone.alone(Scheduler::builder(), &counters().enter()));
    assert!(matches!(error, SnapshotError::Refused { .. }), "{error}");
}

#[test]
fn every_damage_is_found_and_the_snapshot_before_is_taken() {
    let folder = Folder::new("damaged");
    let mut main = two_counters(0);
    main.save(folder.at("first")).unwrap();
    let saved = main.save(folder.at("second")).unwrap();
    let files = ["head", "cluster-0", "cluster-1"].map(|name| saved.path.join(name));
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(file, &damaged).unwrap();
            assert_damaged(&folder, &format!("byte {at} of {}", file.display()));
            std::fs::write(file, &whole[..at]).unwrap();
            assert_damaged(&folder, &format!("cut at {at} of {}", file.display()));
        }
        std::fs::write(file, whole).unwrap();
    }
    // Sections that are whole, and of each other's cluster.
    let swapped = saved.path.join("swapped");
    std::fs::rename(&files[1], &swapped).unwrap();
    std::fs::rename(&files[2], &files[1]).unwrap();
    std::fs::rename(&swapped, &files[2]).unwrap();
    assert_damaged(&folder, "swapped");
    std::fs::remove_file(&files[2]).unwrap();
    assert_damaged(&folder, "a missing section");
}

/// The second snapshot is refused, and the first one is the latest.
fn assert_damaged(folder: &Folder, how: &str) {
    let error = snapshot_error(Restore::open(folder.at("second")));
    let is_typed = matches!(
        error,
        SnapshotError::Corrupt { .. }
            | SnapshotError::Format { .. }
            | SnapshotError::Missing { .. }
    );
    assert!(is_typed, "{how}: {error}");
    let latest = Restore::latest(folder.at("")).unwrap().unwrap();
    assert_eq!(latest.path(), folder.at("first"), "{how}");
    assert_eq!(latest.skipped().len(), 1, "{how}");
}

#[test]
fn a_cluster_that_dies_after_a_save_comes_back_from_it() {
    let folder = Folder::new("recovered");
    let path = folder.at("it");
    let settings = MpMain::builder(counters().enter()).recovery(Recovery::restart());
    let mut main = settings.build().unwrap();
    let cluster = main.new_cluster();
    main.add_to(cluster, 1, Counter { count: 0 }).unwrap();
    for _ in 0..5 {
        main.send(1, Msg::Call(0));
        main.run(Run::until_idle()).unwrap();
    }
    main.save(&path).unwrap();
    // It is held open: removing it takes nothing away.
    std::fs::remove_dir_all(&path).unwrap();
    let mut kill = || {
        let pid = i32::try_from(main.pid(cluster).unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        main.send(1, Msg::Call(0));
        let report = main.run(Run::until_idle()).unwrap();
        let last = report.recoveries.last().unwrap().messages;
        (
            report.recoveries.len(),
            last,
            main.inspect::<Counter>(1).unwrap().count,
        )
    };
    // Nothing of what was before the save is replayed.
    assert_eq!(kill(), (1, 0, 6));
    let (recoveries, messages, count) = kill();
    assert!((1..10).contains(&messages), "{messages}");
    assert_eq!((recoveries, count), (2, 7));
}
