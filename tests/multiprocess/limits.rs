//! Who takes too long for a limit is an error that names it, and no process is left.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use maslite_mp::core::Phase;
use maslite_mp::prelude::*;
use maslite_mp::{Activity, ControlError, Error, Limit};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::test_placement::{PROCESSES, PlacedOn, TestPlacement};
use crate::workers::{
    Gate, Msg, When, Worker, agents, clusters, clusters_with, exists, go, pids, signal, stop,
    stop_by,
};

const LIMIT: Duration = Duration::from_millis(40);

/// Runs until there is an error, which is that the second cluster is stuck.
fn stuck(mut main: MpMain<Msg>, limit: Limit) -> maslite_mp::TimeBlocker {
    let pids = pids(&main);
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(!pids.iter().any(|pid| exists(*pid)), "{error}");
    let text = error.to_string();
    let Error::Stuck {
        cluster,
        blocker,
        limit: over,
        ..
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!((cluster.as_str(), over), ("2", limit), "{text}");
    let blocker = *blocker.unwrap();
    assert_eq!(blocker.pid, Some(pids[1]));
    assert!(blocker.since >= LIMIT, "{text}");
    assert!(text.starts_with("cluster 2 "), "{text}");
    assert!(text.ends_with("; all clusters were stopped"), "{text}");
    blocker
}

#[test]
fn an_update_over_its_limit_is_an_error_that_names_the_agent() {
    for placement in PROCESSES {
        let workers: [&[Worker]; 2] = [&[Worker::Farewell], &[Worker::Stuck]];
        let mut main = clusters_with(placement, &workers, |it| it.update_limit(Some(LIMIT)));
        main.send_mail(go(2));
        main.start().unwrap();
        let blocker = stuck(main, Limit::Update(LIMIT));
        assert_eq!(blocker.agent, Some(AgentId::from(2)));
        assert_eq!(blocker.activity, Activity::InAgent(Phase::Update));
    }
}

#[test]
fn so_is_a_setup_over_its_limit() {
    let workers: [&[Worker]; 2] = [&[], &[Worker::Hang(When::Setup)]];
    let mut main = clusters_with(TestPlacement::Ring, &workers, |it| {
        it.update_limit(Some(LIMIT))
    });
    main.start().unwrap();
    let blocker = stuck(main, Limit::Update(LIMIT));
    assert_eq!(blocker.activity, Activity::InAgent(Phase::Setup));
}

#[test]
fn a_child_that_stays_stopped_is_killed_and_named() {
    for placement in PROCESSES {
        let workers: [&[Worker]; 2] = [&[Worker::Farewell], &[Worker::Farewell]];
        let mut main = clusters_with(placement, &workers, |it| it.answer_limit(Some(LIMIT)));
        main.start().unwrap();
        stop(pids(&main)[1]);
        let blocker = stuck(main, Limit::Answer(LIMIT));
        assert_eq!((blocker.activity, blocker.agent), (Activity::Stopped, None));
    }
}

/// As a terminal with `tostop` does to a child that writes to it.
#[test]
fn a_child_that_the_terminal_has_stopped_says_what_to_do() {
    for (placement, name) in [(PROCESSES[0], "TTOU"), (PROCESSES[1], "TTIN")] {
        let workers: [&[Worker]; 2] = [&[Worker::Farewell], &[Worker::Farewell]];
        let mut main = clusters_with(placement, &workers, |it| it.answer_limit(Some(LIMIT)));
        main.start().unwrap();
        stop_by(name, pids(&main)[1]);
        let blocker = stuck(main, Limit::Answer(LIMIT));
        assert_eq!(blocker.activity, Activity::StoppedByTerminal);
        let text = blocker.to_string();
        assert!(
            text.contains("run `stty -tostop`, or use `Output::Prefixed`"),
            "{text}"
        );
    }
}

/// Main waits for agents to be made, without a run.
#[test]
fn a_child_that_is_stopped_outside_of_a_run_is_found_as_well() {
    let settings = MpMain::builder(agents()).answer_limit(Some(LIMIT));
    let mut main = settings.build().unwrap();
    let cluster = main.new_cluster();
    main.start().unwrap();
    let pid = pids(&main)[0];
    stop(pid);
    main.add_to(cluster, 1, Worker::Farewell).unwrap();
    let error = main.start().unwrap_err();
    assert!(
        matches!(&error, Error::Stuck { cluster, .. } if cluster == "1"),
        "{error}"
    );
    assert!(!exists(pid));
}

#[test]
fn a_child_that_is_stopped_for_a_while_goes_on() {
    for placement in PROCESSES {
        let gate = Gate::new("paused");
        let worker = gate.worker(SimDuration::from_secs(3));
        let mut main = clusters(placement, &[&[worker], &[Worker::Farewell]]);
        main.send_mail(go(1));
        main.start().unwrap();
        let pid = pids(&main)[0];
        let report = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _held = gate.somebody();
                stop(pid);
                signal("CONT", pid);
            });
            main.run(Run::until_idle()).unwrap()
        });
        assert_eq!(report.now, SimTime::from_secs(3));
    }
}

/// An agent that computes for longer than main waits for answers is none of its business.
#[test]
fn a_busy_child_is_not_silent() {
    let gate = Gate::new("busy");
    let worker = gate.worker(SimDuration::from_secs(3));
    let (sender, warnings) = std::sync::mpsc::channel();
    let workers: [&[Worker]; 2] = [&[worker], &[Worker::Farewell]];
    let mut main = clusters_with(TestPlacement::Ring, &workers, |settings| {
        let settings = settings
            .answer_limit(Some(LIMIT))
            .warning_after(Some(4 * LIMIT));
        settings.warnings(move |warning| {
            if let Warning::Standstill(it) = warning {
                let _ = sender.send(it.clone());
            }
        })
    });
    main.send_mail(go(1));
    let report = std::thread::scope(|scope| {
        let gate = &gate;
        scope.spawn(move || {
            let _held = gate.somebody();
            let long = |warning: maslite_mp::Standstill| warning.blockers[0].since >= 2 * LIMIT;
            while !warnings.recv().is_ok_and(long) {}
        });
        main.run(Run::until_idle()).unwrap()
    });
    assert_eq!(report.now, SimTime::from_secs(3));
}

/// Attaches to a process as a debugger does. None where that cannot be: there is no strace, or the
/// system does not let it.
fn attach(pid: u32) -> Option<Child> {
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=none", "-p", &pid.to_string()]);
    let mut strace = strace.stderr(Stdio::piped()).spawn().ok()?;
    let mut said = String::new();
    let mut stderr = BufReader::new(strace.stderr.take()?);
    stderr.read_line(&mut said).ok()?;
    if said.contains("attached") {
        return Some(strace);
    }
    strace.wait().ok()?;
    None
}

#[test]
fn time_in_a_debugger_does_not_count() {
    let gate = Gate::new("traced");
    let worker = gate.worker(SimDuration::from_secs(3));
    let (sender, warnings) = std::sync::mpsc::channel();
    let workers: [&[Worker]; 2] = [&[worker], &[Worker::Farewell]];
    let mut main = clusters_with(TestPlacement::Ring, &workers, |settings| {
        let settings = settings
            .update_limit(Some(LIMIT))
            .warning_after(Some(4 * LIMIT));
        settings.warnings(move |warning| {
            if let Warning::Standstill(it) = warning {
                let _ = sender.send(it.clone());
            }
        })
    });
    main.send_mail(go(1));
    main.start().unwrap();
    let Some(mut debugger) = attach(pids(&main)[0]) else {
        eprintln!("no process can be traced here");
        return;
    };
    let report = std::thread::scope(|scope| {
        let (gate, debugger) = (&gate, debugger.id());
        scope.spawn(move || {
            let _held = gate.somebody();
            // By then the limit is past more than once.
            let warning = warnings.recv().unwrap();
            assert_eq!(warning.blockers[0].debugger, Some(debugger), "{warning}");
        });
        main.run(Run::until_idle()).unwrap()
    });
    assert_eq!(report.now, SimTime::from_secs(3));
    drop(main);
    debugger.wait().unwrap();
}

/// Whether this process is one in which a [`Sphinx`] was set up. It is not a part of its state,
/// since registration writes states of all kinds.
static ASKED_FOR_EVER: AtomicBool = AtomicBool::new(false);

/// After its setup it cannot be looked at, nor asked, nor replaced: that does not end.
#[derive(Debug, Default, Deserialize)]
struct Sphinx {
    riddles: u8,
}

impl Sphinx {
    fn answer(&self) {
        while ASKED_FOR_EVER.load(Ordering::Relaxed) {
            std::thread::park();
        }
    }
}

impl Serialize for Sphinx {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.answer();
        let mut fields = serializer.serialize_struct("Sphinx", 1)?;
        fields.serialize_field("riddles", &self.riddles)?;
        fields.end()
    }
}

impl Drop for Sphinx {
    fn drop(&mut self) {
        self.answer();
    }
}

impl Agent<Msg> for Sphinx {
    fn setup(&mut self, _: &mut Context<'_, Msg>) {
        ASKED_FOR_EVER.store(true, Ordering::Relaxed);
    }

    fn receive(&mut self, _: Mail<Msg>, _: &mut Context<'_, Msg>) {}

    fn command(&mut self, _: Msg) -> Result<Msg, Refusal> {
        self.answer();
        Err(Refusal::new("it has no answer"))
    }
}

fn sphinxes() -> Entered<Msg> {
    let registry = Registry::new().with::<Worker>().with::<Sphinx>();
    registry.entered_by_test("limits::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = sphinxes();
}

/// In each way in which an agent can be asked, between two runs and during one.
#[test]
fn a_request_over_the_limit_of_an_update_is_an_error_that_names_the_agent() {
    type Ask = fn(&mut MpMain<Msg>) -> Result<(), ControlError>;
    let ways: [Ask; 4] = [
        |main| main.inspect::<Sphinx>(2).map(drop),
        |main| main.take_out::<Sphinx>(2).map(drop),
        |main| main.command(2, Msg::Go).map(drop),
        |main| main.replace(2, Worker::Farewell),
    ];
    for (placement, ask) in PROCESSES.into_iter().cycle().zip(ways) {
        // The agent takes for ever to be written down, which a cluster that forgets does at once.
        let settings = MpMain::builder(sphinxes()).on(placement).amnesia(None);
        let mut main = settings.update_limit(Some(LIMIT)).build().unwrap();
        let _first = main.new_cluster();
        let second = main.new_cluster();
        main.add_to(second, 2, Sphinx::default()).unwrap();
        main.run(Run::until_idle()).unwrap();
        let pids = pids(&main);
        let ControlError::Failed(why) = ask(&mut main).unwrap_err() else {
            panic!("{placement:?}");
        };
        let over =
            "cluster 2 has an agent that took longer than the limit of 40ms, at 0 s or later";
        let doing = "has been answering a request for agent 2 for ";
        let text = format!("{over}: cluster 2 (process {}) {doing}", pids[1]);
        assert!(why.starts_with(&text), "{why}");
        assert!(!pids.iter().any(|pid| exists(*pid)));
    }
}
