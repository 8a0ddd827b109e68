//! All faults: how each is brought about, and what must come of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maslite_mp::clock::wall;
use maslite_mp::core::{Error as ModelError, Phase};
use maslite_mp::prelude::*;
use maslite_mp::{Activity, EndKind, Error, ExitKind, Limit, MpMainBuilder, Recovered, Shutdown};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;

use crate::main_faults::{
    ctrl_c, ctrl_c_at_start, exit_main, host_ends, ignored_children, kill_main,
    kill_main_and_resume, stop_main, terminate, undisturbed_host,
};
use crate::model::{Deed, FLOOD, Msg, Stage, players, players_with};
use crate::processes::{children, exists, pause, reap_all, send};
use crate::recovery;

/// What a round came to: how long it took from the fault to its consequence, or what was wrong.
pub(crate) type Round = Result<Duration, Failure>;
pub(crate) type Failure = Box<dyn std::error::Error>;

/// What a round is given.
pub(crate) struct Chaos {
    pub(crate) random: SmallRng,
    pub(crate) stage: Stage,
    /// Clusters that came back.
    pub(crate) recoveries: Vec<Recovered>,
}

/// A fault by its name.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) round: fn(&mut Chaos) -> Round,
}

macro_rules! faults {
    ($($name:ident: $about:literal => $round:expr;)*) => {
        &[$(Fault { name: stringify!($name), about: $about, round: $round }),*]
    };
}

pub(crate) const FAULTS: &[Fault] = faults! {
    cycles: "nothing: two clusters are started and stopped" => cycle;
    kill: "a cluster is killed at a random moment of a run" => |chaos| kill(chaos, 1);
    kill_under_load: "a cluster is killed while all throw 1,000 messages at each other in each superstep" => kill_under_load;
    kill_two: "two clusters are killed at once" => |chaos| kill(chaos, 2);
    kill_at_start: "a cluster is killed while they all start" => kill_at_start;
    kill_between_runs: "a cluster is killed while nothing runs" => kill_between_runs;
    kill_at_stop: "a cluster is killed while all are stopped" => kill_at_stop;
    recover: "up to three of two to eight clusters are killed at random moments, and come back" => recovery::kill;
    recover_all: "all clusters are killed at once, and come back" => recovery::kill_all;
    recover_stopped: "a cluster is stopped for good, killed after 100 ms, and comes back" => recovery::stop;
    drop_some: "up to three of two to eight clusters are killed at random moments, and dropped" => recovery::drop_some;
    stop_and_continue: "clusters are stopped for up to 50 ms, again and again" => stop_and_continue;
    stop: "a cluster is stopped, and main waits 100 ms for an answer" => stop;
    stop_at_shutdown: "a cluster is stopped when all are to end" => stop_at_shutdown;
    signals: "a storm of signals interrupts the clusters" => signals;
    panic_in_setup: "an agent panics in setup" => |chaos| panic(chaos, Deed::PanicInSetup, Phase::Setup);
    panic_in_update: "an agent panics in an update" => |chaos| panic(chaos, Deed::PanicInUpdate, Phase::Update);
    panic_in_teardown: "an agent panics in teardown" => |chaos| panic_at_the_end(chaos, Deed::PanicInTeardown, Phase::Teardown);
    panic_in_drop: "an agent panics when it is dropped" => |chaos| panic_at_the_end(chaos, Deed::PanicInDrop, Phase::Drop);
    panic_twice: "an agent panics while it panics" => |chaos| death(chaos, Deed::PanicTwice, |exit| *exit == ExitKind::DoublePanic);
    panic_in_thread: "a thread of an agent panics, which the agent knows" => |chaos| harmless(chaos, Deed::PanicInThread);
    panic_in_main: "the program panics during a run" => panic_in_main;
    exit_0: "an agent exits with code 0" => |chaos| death(chaos, Deed::Exit(0), |exit| *exit == ExitKind::Success);
    exit_7: "an agent exits with code 7" => |chaos| death(chaos, Deed::Exit(7), |exit| *exit == ExitKind::Code(7));
    abort: "an agent aborts" => |chaos| death(chaos, Deed::Abort, |exit| *exit == ExitKind::Signal(6));
    segfault: "a segmentation fault" => |chaos| death(chaos, Deed::Segfault, |exit| *exit == ExitKind::Signal(11));
    stack_overflow: "an agent's stack overflows" => |chaos| death(chaos, Deed::StackOverflow, |exit| *exit == ExitKind::StackOverflow);
    out_of_memory: "an agent asks for all memory there is" => |chaos| death(chaos, Deed::OutOfMemory, |exit| matches!(exit, ExitKind::AllocationFailed { .. }));
    spin: "an agent never returns, with a limit of 100 ms" => spin;
    unknown_receiver: "mail for an unknown agent, which is counted" => unknown_receiver;
    cannot_leave: "a message that does not serialise" => |chaos| message(chaos, Deed::CannotLeave);
    cannot_arrive: "a message that does not deserialise" => |chaos| message(chaos, Deed::CannotArrive);
    flood_stderr: "an agent writes 2 MB to its standard error" => |chaos| harmless(chaos, Deed::FloodStderr);
    flood_main: "20,000 messages to main in one superstep" => |chaos| flood(chaos, Deed::FloodMain);
    flood_peer: "20,000 messages to another cluster in one superstep" => |chaos| flood(chaos, Deed::FloodPeer);
    leave_program: "an agent starts a program and exits" => leave_program;
    kill_main: "main is killed at a random moment, its start included" => kill_main;
    kill_main_and_resume: "main is killed again and again while it saves itself, and another main goes on" => kill_main_and_resume;
    stop_main: "main is stopped for a second, with a limit of 200 ms for answers" => stop_main;
    exit_main: "main exits in the middle of a run" => exit_main;
    forget_main: "main forgets its `MpMain` and exits" => |chaos| host_ends(chaos, "forget");
    closed_stdin: "main has no standard input" => |chaos| undisturbed_host(chaos, "exec <&-; exec");
    ignored_children: "main ignores SIGCHLD, so that no exit status is kept, and a cluster is killed" => ignored_children;
    ctrl_c: "Ctrl-C, once" => |chaos| ctrl_c(chaos, 1);
    ctrl_c_at_start: "Ctrl-C while the clusters start" => ctrl_c_at_start;
    ctrl_c_twice: "Ctrl-C, twice" => |chaos| ctrl_c(chaos, 2);
    terminate: "SIGTERM" => terminate;
};

/// Long enough for anything that happens at all.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// What is waited for answers, and for updates, where a limit is to be exceeded.
pub(crate) const LIMIT: Duration = Duration::from_millis(100);
/// How long runs last that are to come to a good end, in simulated time.
pub(crate) const SPAN: SimDuration = SimDuration::from_millis(40);

/// A run without end, but for one that would be an error.
pub(crate) fn endless() -> Run {
    Run::until_idle().timeout(LONG)
}

pub(crate) fn wrong(what: impl std::fmt::Display) -> Failure {
    what.to_string().into()
}

/// The processes of the clusters.
pub(crate) fn pids(main: &MpMain<Msg>) -> Vec<u32> {
    main.pids().into_iter().map(|(_, pid)| pid).collect()
}

/// How long it took since a moment, if no process is left.
pub(crate) fn gone(pids: &[u32], since: Instant) -> Round {
    let took = wall().duration_since(since);
    match pids.iter().find(|pid| exists(**pid)) {
        Some(pid) => Err(wrong(format!("process {pid} is left"))),
        None => Ok(took),
    }
}

fn random_pid(chaos: &mut Chaos, pids: &[u32]) -> u32 {
    pids[chaos.random.random_range(0..pids.len())]
}

pub(crate) fn random_time(chaos: &mut Chaos, up_to_ms: u64) -> Duration {
    Duration::from_micros(chaos.random.random_range(0..=up_to_ms * 1_000))
}

/// The error of a run without end in which `strike` happens after a while; and when it did.
fn struck(
    main: &mut MpMain<Msg>,
    after: Duration,
    strike: impl FnOnce() + Send,
) -> Result<(Error, Instant), Failure> {
    let (outcome, at) = std::thread::scope(|scope| {
        let striker = scope.spawn(move || {
            pause(after);
            let at = wall();
            strike();
            at
        });
        (main.run(endless()), striker.join())
    });
    let at = at.map_err(|_| wrong("the striker panicked"))?;
    match outcome {
        Ok(report) => Err(wrong(format!("the run ended well: {report}"))),
        Err(error) => Ok((error, at)),
    }
}

/// The error of a run without end in which an agent does something; and when it was about to.
pub(crate) fn done(main: &mut MpMain<Msg>) -> Result<(Error, Instant), Failure> {
    let mut at = wall();
    let outcome = main.run_with(endless(), |mail, _| {
        if matches!(mail.body, Msg::Soon) {
            at = wall();
        }
    });
    match outcome {
        Ok(report) => Err(wrong(format!("the run ended well: {report}"))),
        Err(error) => Ok((error, at)),
    }
}

/// Whether an error says that one of these processes died, and how.
fn died(error: &Error, victims: &[u32], how: impl Fn(&ExitKind) -> bool) -> Result<(), Failure> {
    match error {
        Error::ClusterDied { pid, exit, .. } if victims.contains(pid) && how(exit) => Ok(()),
        other => Err(wrong(other)),
    }
}

/// It counts as one of the system's kills if that made some meanwhile.
fn is_kill(exit: &ExitKind) -> bool {
    matches!(exit, ExitKind::Signal(9) | ExitKind::OutOfMemory { .. })
}

// ---- from outside

fn cycle(chaos: &mut Chaos) -> Round {
    let begin = wall();
    let two = Stage {
        clusters: 2,
        ..chaos.stage
    };
    let mut main = players(Placement::Processes, two, None)?;
    main.start()?;
    let pids = pids(&main);
    all_clean(&main.shutdown())?;
    gone(&pids, begin)
}

fn all_clean(shutdown: &Shutdown) -> Result<(), Failure> {
    if shutdown.ends.iter().all(|end| end.how == EndKind::Clean) && shutdown.errors.is_empty() {
        Ok(())
    } else {
        Err(wrong(format!("{shutdown:?}")))
    }
}

fn kill(chaos: &mut Chaos, victims: usize) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    main.start()?;
    let pids = pids(&main);
    let first = random_pid(chaos, &pids);
    let others = pids.iter().copied().filter(|pid| *pid != first);
    let victims: Vec<u32> = [first].into_iter().chain(others).take(victims).collect();
    let strike = || victims.iter().for_each(|pid| send(Signal::KILL, *pid));
    let (error, at) = struck(&mut main, random_time(chaos, 30), strike)?;
    let took = gone(&pids, at)?;
    died(&error, &victims, is_kill)?;
    Ok(took)
}

/// The killed cluster is most likely about to write into a link or to read from it, and so is main.
fn kill_under_load(chaos: &mut Chaos) -> Round {
    chaos.stage.balls = 1_000;
    kill(chaos, 1)
}

/// Kills a cluster that exists at a random moment of the start. A round without one is right.
fn kill_at_start(chaos: &mut Chaos) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    let after = random_time(chaos, 15);
    let (outcome, struck) = std::thread::scope(|scope| {
        let striker = scope.spawn(|| {
            pause(after);
            let victim = children().first().copied();
            let at = wall();
            victim.inspect(|victim| send(Signal::KILL, *victim));
            (victim, at)
        });
        (main.start(), striker.join())
    });
    let (victim, at) = struck.map_err(|_| wrong("the striker panicked"))?;
    let outcome = outcome.and_then(|()| main.run(endless().supersteps(10)).map(drop));
    match (victim, outcome) {
        // It came too early, or it hit the very end.
        (None, Ok(())) => Ok(Duration::ZERO),
        (
            Some(victim),
            Err(Error::Start(maslite_mp::SpawnError::ExitedBeforeHello { exit, .. })),
        ) if is_kill(&exit) => gone(&[victim], at),
        (Some(victim), Err(error)) => {
            died(&error, &[victim], is_kill)?;
            gone(&[victim], at)
        }
        (victim, outcome) => Err(wrong(format!("{victim:?}: {outcome:?}"))),
    }
}

fn kill_between_runs(chaos: &mut Chaos) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    main.run(Run::lasting(SPAN))?;
    let pids = pids(&main);
    let victim = random_pid(chaos, &pids);
    let at = wall();
    send(Signal::KILL, victim);
    let Err(error) = main.run(endless()) else {
        return Err(wrong("the run ended well"));
    };
    died(&error, &[victim], is_kill)?;
    gone(&pids, at)
}

fn kill_at_stop(chaos: &mut Chaos) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    main.run(Run::lasting(SPAN))?;
    let pids = pids(&main);
    let victim = random_pid(chaos, &pids);
    let at = wall();
    send(Signal::KILL, victim);
    let shutdown = main.shutdown();
    let end = shutdown.ends.iter().find(|end| end.pid == victim);
    match end.map(|end| end.how) {
        Some(EndKind::Failed(exit)) if is_kill(&exit) => gone(&pids, at),
        _ => Err(wrong(format!("{shutdown:?}"))),
    }
}

fn stop_and_continue(chaos: &mut Chaos) -> Round {
    let expected = undisturbed(chaos.stage)?;
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    main.start()?;
    let pids = pids(&main);
    let stops: Vec<_> = (0..3)
        .map(|_| {
            (
                random_pid(chaos, &pids),
                random_time(chaos, 5),
                random_time(chaos, 50),
            )
        })
        .collect();
    let begin = wall();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            for (pid, before, length) in stops {
                pause(before);
                send(Signal::STOP, pid);
                pause(length);
                send(Signal::CONT, pid);
            }
        });
        main.run(Run::lasting(SPAN))
    });
    same(&report?, expected)?;
    let took = wall().duration_since(begin);
    all_clean(&main.shutdown())?;
    gone(&pids, begin)?;
    Ok(took)
}

/// The digest of a run in this process.
pub(crate) fn undisturbed(stage: Stage) -> Result<Digest, Failure> {
    let mut main = players(Placement::Inline, stage, None)?;
    digest(&main.run(Run::lasting(SPAN))?)
}

pub(crate) fn digest(report: &MpReport) -> Result<Digest, Failure> {
    report.digest.ok_or_else(|| wrong("no digest"))
}

fn same(report: &MpReport, expected: Digest) -> Result<(), Failure> {
    if digest(report)? == expected {
        Ok(())
    } else {
        Err(wrong(format!("another result: {report}")))
    }
}

/// The process is named, since its agents cannot be asked.
fn stop(chaos: &mut Chaos) -> Round {
    let settings = |it: MpMainBuilder<Msg>| it.answer_limit(Some(LIMIT));
    let mut main = players_with(Placement::Processes, chaos.stage, None, settings)?;
    main.start()?;
    let pids = pids(&main);
    let victim = random_pid(chaos, &pids);
    let after = random_time(chaos, 30);
    let (error, at) = struck(&mut main, after, || send(Signal::STOP, victim))?;
    let Error::Stuck {
        blocker: Some(blocker),
        limit: Limit::Answer(_),
        ..
    } = &error
    else {
        return Err(wrong(error));
    };
    if (blocker.pid, blocker.activity) != (Some(victim), Activity::Stopped) {
        return Err(wrong(error));
    }
    gone(&pids, at)
}

fn stop_at_shutdown(chaos: &mut Chaos) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, None)?;
    main.run(Run::lasting(SPAN))?;
    let pids = pids(&main);
    let victim = random_pid(chaos, &pids);
    send(Signal::STOP, victim);
    let at = wall();
    let shutdown = main.shutdown();
    let took = gone(&pids, at)?;
    let wrongly = shutdown
        .ends
        .iter()
        .any(|end| (end.how == EndKind::Killed) != (end.pid == victim));
    if wrongly || took > Duration::from_secs(10) {
        return Err(wrong(format!("{shutdown:?}")));
    }
    Ok(took)
}

fn signals(chaos: &mut Chaos) -> Round {
    let expected = undisturbed(chaos.stage)?;
    let mut main = players(Placement::Processes, chaos.stage, Some(Deed::EndureSignals))?;
    // Now all of them have their handlers.
    main.run(Run::until_idle().supersteps(0))?;
    let pids = pids(&main);
    let over = AtomicBool::new(false);
    let begin = wall();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pids.iter().for_each(|pid| send(Signal::USR1, *pid));
                pause(Duration::from_millis(1));
            }
        });
        let report = main.run(Run::lasting(SPAN));
        over.store(true, Ordering::Relaxed);
        report
    });
    same(&report?, expected)?;
    let took = wall().duration_since(begin);
    all_clean(&main.shutdown())?;
    gone(&pids, begin)?;
    Ok(took)
}

// ---- by an agent

fn panic(chaos: &mut Chaos, deed: Deed, expected: Phase) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, Some(deed))?;
    main.start()?;
    let pids = pids(&main);
    let (error, at) = done(&mut main)?;
    match &error {
        Error::Agent {
            source: ModelError::AgentPanicked { agent, phase, .. },
            ..
        } if *agent == AgentId::from(2 * chaos.stage.clusters) && *phase == expected => {}
        other => return Err(wrong(other)),
    }
    gone(&pids, at)
}

/// A shutdown after a run, its processes, and when it began.
fn ended(chaos: &Chaos, deed: Deed) -> Result<(Shutdown, Vec<u32>, Instant), Failure> {
    let mut main = players(Placement::Processes, chaos.stage, Some(deed))?;
    main.run(Run::lasting(SPAN))?;
    let (pids, at) = (pids(&main), wall());
    Ok((main.shutdown(), pids, at))
}

fn panic_at_the_end(chaos: &mut Chaos, deed: Deed, phase: Phase) -> Round {
    let (shutdown, pids, at) = ended(chaos, deed)?;
    match shutdown.errors.as_slice() {
        [
            Error::Agent {
                source:
                    ModelError::AgentPanicked {
                        phase: in_phase, ..
                    },
                ..
            },
        ] if *in_phase == phase => gone(&pids, at),
        _ => Err(wrong(format!("{shutdown:?}"))),
    }
}

fn panic_in_main(chaos: &mut Chaos) -> Round {
    let mut seen = (Vec::new(), wall());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut main = players(Placement::Processes, chaos.stage, Some(Deed::PanicInThread))?;
        main.start()?;
        seen.0 = pids(&main);
        main.run_with(endless(), |_, _| {
            seen.1 = wall();
            panic!("chaos in main");
        })
    }));
    match panicked {
        Err(_) => gone(&seen.0, seen.1),
        Ok(outcome) => Err(wrong(format!("{outcome:?}"))),
    }
}

/// The last cluster dies of what its agent does.
fn death(chaos: &mut Chaos, deed: Deed, how: fn(&ExitKind) -> bool) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, Some(deed))?;
    main.start()?;
    let pids = pids(&main);
    let (error, at) = done(&mut main)?;
    let took = gone(&pids, at)?;
    died(&error, &pids[pids.len() - 1..], how)?;
    Ok(took)
}

/// The program is killed as well, and then a child of this process, as are all that have lost their
/// parents.
fn leave_program(chaos: &mut Chaos) -> Round {
    let took = death(chaos, Deed::LeaveProgram, |exit| *exit == ExitKind::Code(7))?;
    match reap_all(Duration::from_secs(10)) {
        (_, 0) => Ok(took),
        (_, left) => Err(wrong(format!("{left} processes are left"))),
    }
}

fn spin(chaos: &mut Chaos) -> Round {
    let settings = |it: MpMainBuilder<Msg>| it.update_limit(Some(LIMIT));
    let deed = Some(Deed::Spin);
    let mut main = players_with(Placement::Processes, chaos.stage, deed, settings)?;
    main.start()?;
    let pids = pids(&main);
    let (error, at) = done(&mut main)?;
    let Error::Stuck {
        blocker: Some(blocker),
        limit: Limit::Update(_),
        ..
    } = &error
    else {
        return Err(wrong(error));
    };
    let expected = (
        Some(AgentId::from(2 * chaos.stage.clusters)),
        Activity::InAgent(Phase::Update),
    );
    if (blocker.agent, blocker.activity) != expected {
        return Err(wrong(error));
    }
    gone(&pids, at)
}

fn message(chaos: &mut Chaos, deed: Deed) -> Round {
    let mut main = players(Placement::Processes, chaos.stage, Some(deed))?;
    main.start()?;
    let pids = pids(&main);
    let (error, at) = done(&mut main)?;
    match (deed, &error) {
        (Deed::CannotLeave, Error::EncodeInCluster { .. })
        | (Deed::CannotArrive, Error::Decode { .. }) => gone(&pids, at),
        _ => Err(wrong(error)),
    }
}

/// The report of a run with a deed in it that does no harm, how long it took, and whether all ended
/// well.
fn lived_through(chaos: &Chaos, deed: Deed) -> Result<(MpReport, u64, Duration), Failure> {
    let mut main = players(Placement::Processes, chaos.stage, Some(deed))?;
    main.start()?;
    let (pids, begin, mut to_main) = (pids(&main), wall(), 0);
    let report = main.run_with(Run::lasting(SPAN), |_, _| to_main += 1)?;
    let took = wall().duration_since(begin);
    all_clean(&main.shutdown())?;
    gone(&pids, begin)?;
    let counters = report.total;
    if counters.sent != counters.delivered + counters.undeliverable + counters.queued {
        return Err(wrong(format!("mail is unaccounted for: {report}")));
    }
    Ok((report, to_main, took))
}

fn harmless(chaos: &mut Chaos, deed: Deed) -> Round {
    let (report, _, took) = lived_through(chaos, deed)?;
    match report.stopped_by {
        StopReason::TimeLimit => Ok(took),
        other => Err(wrong(other)),
    }
}

fn unknown_receiver(chaos: &mut Chaos) -> Round {
    let (report, _, took) = lived_through(chaos, Deed::TellNobody)?;
    match report.counters.undeliverable {
        1 => Ok(took),
        _ => Err(wrong(report)),
    }
}

fn flood(chaos: &mut Chaos, deed: Deed) -> Round {
    let (plain, ..) = lived_through(chaos, Deed::PanicInThread)?;
    let (flooded, to_main, took) = lived_through(chaos, deed)?;
    let more = flooded.counters.delivered - plain.counters.delivered;
    let expected = if deed == Deed::FloodMain {
        FLOOD + 1
    } else {
        1
    };
    if (more, to_main) != (FLOOD, expected) {
        return Err(wrong(format!("{more} more, {to_main} to main: {flooded}")));
    }
    Ok(took)
}

/// A generator for the rounds of a fault.
pub(crate) fn chaos(seed: u64, fault: &str, stage: Stage) -> Chaos {
    // The same rounds for a fault, whichever others are tried.
    let name = fault.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let random = SmallRng::seed_from_u64(seed ^ name);
    Chaos {
        random,
        stage,
        recoveries: Vec::new(),
    }
}
