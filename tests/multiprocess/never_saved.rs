//! Agents whose types are never saved: what a save, a restore, amnesia and a recovery make of them.

use std::path::Path;
use std::time::Duration;

use maslite_mp::prelude::*;
use maslite_mp::{LeftOut, SnapshotError, Warning, save_scheduler, save_scheduler_with};
use serde::{Deserialize, Serialize};

use crate::saving::Folder;
use crate::test_placement::{PlacedOn, TestPlacement};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Look,
    Seen(u64),
}

/// Asks a camera again and again, and sums up what it sees.
#[derive(Serialize, Deserialize, Default)]
struct Guard {
    sum: u64,
}

impl Agent<Msg> for Guard {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.set_alarm(Alarm::every(SimDuration::from_millis(1)), Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Seen(seen) => self.sum += seen,
            _ => ctx.send(100, Msg::Look),
        }
    }

    fn command(&mut self, _: Msg) -> Result<Msg, Refusal> {
        Ok(Msg::Seen(self.sum))
    }
}

/// Holds what cannot be written down.
struct Camera {
    device: Box<dyn FnMut() -> u64 + Send>,
}

impl Agent<Msg> for Camera {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("Look"));
        // It arrives after the camera is gone.
        let late = Alarm::after(SimDuration::from_millis(30)).to(1_u64);
        ctx.set_alarm(late, Msg::Seen(1_000_000));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if mail.receiver.agent() == Some(ctx.id()) {
            ctx.send(mail.sender, Msg::Seen((self.device)()));
        }
    }
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Guard>()
        .never_saved::<Camera>("holds a device")
        .with_builder("cameras", |ids: Vec<u64>, agents| {
            for id in ids {
                let mut frames = 0;
                let device = Box::new(move || {
                    frames += 1;
                    frames
                });
                agents.add(id, Camera { device });
            }
        })
        .entered_by_test("never_saved::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

const FIRST: SimTime = SimTime::from_millis(20);
const END: SimTime = SimTime::from_millis(60);

/// Two clusters with a guard each, and three cameras.
fn start(settings: MpMainBuilder<Msg>) -> MpMain<Msg> {
    let mut main = settings.digest().build().unwrap();
    let [gate, yard] = [main.new_cluster(), main.new_cluster()];
    main.add_to(gate, 1, Guard::default()).unwrap();
    main.add_to(yard, 2, Guard::default()).unwrap();
    main.build(gate, "cameras", vec![100_u64, 101]).unwrap();
    main.build(yard, "cameras", vec![200_u64]).unwrap();
    main.run_until(FIRST).unwrap();
    main
}

fn settings(placement: TestPlacement) -> MpMainBuilder<Msg> {
    MpMain::builder(agents()).on(placement)
}

fn sums<S: Simulation<Msg>>(simulation: &mut S) -> [Msg; 2]
where
    S::ControlError: std::fmt::Debug,
{
    [1_u64, 2].map(|id| simulation.command(id, Msg::Tick).unwrap())
}

/// What the guards have seen in the middle.
const MIDDLE: [Msg; 2] = [Msg::Seen(361), Msg::Seen(380)];
/// What they have seen at the end.
const SEEN: [Msg; 2] = [Msg::Seen(3_003_481), Msg::Seen(3_540)];
/// What they have seen at the end if the cameras are missing from the middle on: only the alarms that
/// these had set are still to come.
const MISSED: [Msg; 2] = [Msg::Seen(3_000_361), Msg::Seen(380)];

/// The digest of such a simulation.
const DIGEST: &str = "1032d150ee74e9a3";

/// The cameras, as a snapshot names them.
const CAMERAS: &str = "3 agents of type multiprocess::never_saved::Camera (100, 101, 200), which is \
                       never saved: holds a device";

fn snapshot_error<T>(result: Result<T, Error>) -> SnapshotError {
    match result {
        Err(Error::Snapshot(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is refused"),
    }
}

fn leaving_out() -> SaveOptions {
    SaveOptions::new().leaving_out()
}

#[test]
fn a_save_is_refused_while_such_agents_live() {
    let folder = Folder::new("never-saved");
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        let mut main = start(settings(placement));
        let error = snapshot_error(main.save(folder.at("it")));
        assert!(matches!(error, SnapshotError::NeverSaved { .. }));
        let expected = format!(
            "no snapshot was written at {}: {CAMERAS}; remove these agents first, or leave them out \
             with `SaveOptions::leaving_out`",
            folder.at("it").display()
        );
        assert_eq!(error.to_string(), expected);
        // Nothing is left, and the simulation goes on.
        assert_eq!(std::fs::read_dir(folder.at("")).unwrap().count(), 0);
        main.run_until(END).unwrap();
        assert_eq!(sums(&mut main), SEEN);
        // Once they are gone it is saved.
        for id in [100, 101, 200] {
            main.remove(id).unwrap();
        }
        main.run(Run::lasting(SimDuration::from_millis(1))).unwrap();
        let saved = main.save(folder.at("it")).unwrap();
        assert_eq!((saved.agents, saved.left_out), (2, Vec::new()));
        let restore = Restore::open(&saved.path).unwrap();
        assert!(restore.left_out().is_empty());
        restore.start(settings(TestPlacement::Inline)).unwrap();
        std::fs::remove_dir_all(&saved.path).unwrap();
    }
}

/// Saves the simulation without its cameras, and lets it go on.
fn save(path: &Path) {
    let mut main = start(settings(TestPlacement::Inline).amnesia(None));
    let saved = main.save_with(path, leaving_out()).unwrap();
    assert_eq!(saved.agents, 2);
    assert_eq!(saved.left_out.len(), 1);
    assert_eq!(saved.left_out[0].to_string(), CAMERAS);
    assert!(saved.to_string().ends_with(&format!("; without {CAMERAS}")));
    // It changes nothing.
    assert_eq!(sums(&mut main), MIDDLE);
    main.run_until(END).unwrap();
    assert_eq!(sums(&mut main), SEEN);
}

/// What came of a simulation that goes on without its cameras.
fn assert_missed<S: Simulation<Msg>>(simulation: &mut S, how: &str)
where
    S::Error: std::fmt::Debug,
    S::ControlError: std::fmt::Debug,
{
    let there = simulation.agents().unwrap();
    let there: Vec<u64> = there.iter().map(|it| it.id.as_u64()).collect();
    assert_eq!(there, [1, 2], "{how}");
    let report = simulation.run_with(Run::until(END), |_, _| {}).unwrap();
    let report = report.as_ref();
    assert_eq!(sums(simulation), MISSED, "{how}");
    let counted = (report.total.agents, report.counters.undeliverable);
    assert_eq!(counted, (2, 80), "{how}");
    assert_eq!(report.digest.unwrap().to_string(), DIGEST, "{how}");
}

#[test]
fn a_snapshot_without_them_is_refused_by_who_does_not_accept_that() {
    let folder = Folder::new("left-out-refused");
    let path = folder.at("it");
    save(&path);
    let open = || Restore::open(&path).unwrap();
    let refused = [
        snapshot_error(open().start(settings(TestPlacement::Inline))),
        snapshot_error(open().alone(Scheduler::builder(), &self::agents())),
    ];
    for error in refused {
        assert!(matches!(error, SnapshotError::Incomplete { .. }));
        let expected = format!(
            "the snapshot at {} is not complete: it has no states of {CAMERAS}; call \
             `accept_left_out` to go on without these agents",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_snapshot_without_them_goes_on_once_that_is_accepted() {
    let folder = Folder::new("left-out");
    let path = folder.at("it");
    save(&path);
    let open = || Restore::open(&path).unwrap();
    let left_out = open().left_out().to_vec();
    let [
        LeftOut {
            kind, why, agents, ..
        },
    ] = &left_out[..]
    else {
        panic!("{left_out:?}");
    };
    assert_eq!(kind, "multiprocess::never_saved::Camera");
    assert_eq!(why, "holds a device");
    assert_eq!(agents[..], [100, 101, 200].map(AgentId::from));
    assert_eq!(open().agents(), 2);
    for placement in [
        TestPlacement::Inline,
        TestPlacement::Ring,
        TestPlacement::Forgetful,
    ] {
        for clusters in [None, Some(1), Some(3)] {
            let restore = match clusters {
                None => open(),
                Some(count) => open().into_clusters(count, move |it| {
                    let is_camera = it.id.as_u64() >= 100;
                    assert_eq!(it.kind.ends_with("::Camera"), is_camera, "{it:?}");
                    it.spread_over(count)
                }),
            };
            let restore = restore.accept_left_out();
            let mut main = restore.start(settings(placement)).unwrap();
            assert_missed(&mut main, &format!("{placement:?}, {clusters:?}"));
            let report = main.run(Run::until(END)).unwrap();
            assert_eq!(report.left_out, left_out);
            let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
            let expected = serde_json::json!([{
                "kind": kind, "why": why, "agents": ["100", "101", "200"],
            }]);
            assert_eq!(json["left_out"], expected);
            // Their ids are not used again.
            let again = main
                .add(100, Guard::default())
                .map(|()| main.run_until(END));
            assert!(!matches!(again, Ok(Ok(_))));
        }
    }
    let alone = || {
        open()
            .accept_left_out()
            .alone(Scheduler::builder(), &self::agents())
    };
    assert_missed(&mut alone().unwrap(), "alone");
    // They are gone from the next snapshot, too, and nobody has to accept that.
    let again = folder.at("again");
    save_scheduler(&alone().unwrap(), &self::agents(), &again).unwrap();
    let mut main = Restore::open(&again)
        .unwrap()
        .start(settings(TestPlacement::Inline))
        .unwrap();
    assert_missed(&mut main, "again");
}

#[test]
fn a_scheduler_alone_is_saved_without_them() {
    let folder = Folder::new("left-out-alone");
    let mut scheduler = Scheduler::builder().build();
    scheduler.add(1, Guard::default()).unwrap();
    let device = Box::new(|| 5);
    scheduler.add(100, Camera { device }).unwrap();
    scheduler.run_until(FIRST).unwrap();
    let path = folder.at("it");
    let error = snapshot_error(save_scheduler(&scheduler, &agents(), &path));
    assert!(matches!(error, SnapshotError::NeverSaved { .. }));
    let saved = save_scheduler_with(&scheduler, &agents(), &path, leaving_out()).unwrap();
    assert_eq!((saved.agents, saved.left_out.len()), (1, 1));
    let restore = Restore::open(&path).unwrap().accept_left_out();
    let mut alone = restore.alone(Scheduler::builder(), &agents()).unwrap();
    let report = alone.run_until(END).unwrap();
    let counted = (report.total.agents, report.counters.undeliverable);
    assert_eq!(counted, (1, 40));
}

#[test]
fn they_are_kept_by_clusters_that_forget_and_do_not_run_ahead() {
    for placement in [
        TestPlacement::Forgetful,
        TestPlacement::ForgetfulRing,
        TestPlacement::Ahead,
    ] {
        let mut main = start(settings(placement));
        assert_eq!(sums(&mut main), MIDDLE, "{placement:?}");
        let report = main.run_until(END).unwrap();
        assert_eq!(sums(&mut main), SEEN, "{placement:?}");
        let forgets = placement != TestPlacement::Ahead;
        assert_eq!(report.amnesias > 0, forgets, "{placement:?}");
    }
}

#[test]
fn their_cluster_comes_back_from_all_that_it_was_told() {
    let folder = Folder::new("left-out-and-killed");
    let policy = Recovery::restart().at_most(9, Duration::from_secs(60));
    let settings = settings(TestPlacement::Ring).amnesia(None).recovery(policy);
    let mut main = start(settings.speculation(Speculation::Off));
    let [gate, _] = main.clusters()[..] else {
        panic!("there are two clusters");
    };
    main.save_with(folder.at("it"), leaving_out()).unwrap();
    let pid = i32::try_from(main.pid(gate).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let report = main.run_until(END).unwrap();
    let [recovered] = &report.recoveries[..] else {
        panic!("{:?}", report.recoveries);
    };
    // Its cameras are not in the snapshot, so that is of no use.
    assert!(recovered.messages > 10, "{recovered}");
    assert_eq!(sums(&mut main), SEEN);
}

#[test]
fn a_run_that_is_saved_by_itself_leaves_them_out_if_its_policy_says_so() {
    let folder = Folder::new("left-out-by-itself");
    let policy = |name| {
        let saves = Saves::into(folder.at(name));
        saves.every_simulated(SimDuration::from_millis(10))
    };
    let saves = policy("without").leaving_out();
    let mut main = start(settings(TestPlacement::Inline).saves(saves));
    main.run_until(END).unwrap();
    assert_eq!(sums(&mut main), SEEN);
    let latest = Restore::latest(folder.at("without")).unwrap().unwrap();
    assert_eq!(latest.left_out()[0].to_string(), CAMERAS);
    // Otherwise it is warned of, and the third time ends the run.
    let (sender, warnings) = std::sync::mpsc::channel();
    let quiet = settings(TestPlacement::Inline).warnings(move |warning| {
        if let Warning::NotSaved { why, .. } = warning {
            sender.send(why.clone()).unwrap();
        }
    });
    let mut main = start(quiet.saves(policy("refused")));
    let error = snapshot_error(main.run_until(END));
    assert!(matches!(error, SnapshotError::NeverSaved { .. }));
    drop(main);
    let said: Vec<String> = warnings.iter().collect();
    assert_eq!(said.len(), 3);
    assert!(said[0].contains(CAMERAS), "{}", said[0]);
}
