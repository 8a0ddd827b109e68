//! Faults of the main process itself: it is killed, stopped and interrupted from outside.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use maslite_mp::MpMainBuilder;
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_testkit::interruptible::interruptible;
use rand::RngExt;
use rustix::process::Signal;

use crate::faults::{
    Chaos, Failure, LIMIT, Round, SPAN, digest, endless, random_time, undisturbed, wrong,
};
use crate::model::{Msg, Stage, defaults, players_with};
use crate::processes::{children_of, pause, reap_all, send};

/// A main process of its own.
struct Host {
    process: Child,
    said: BufReader<ChildStdout>,
}

/// Where a main process begins that is there to be harmed; it tells how far it is.
pub(crate) fn be_host(what: &str, stage: Stage) -> Result<(), Failure> {
    if let Some(folder) = what.strip_prefix(RESUME) {
        return resume(Path::new(folder), stage);
    }
    let settings = |it: MpMainBuilder<Msg>| match what {
        "patient" => it.answer_limit(Some(2 * LIMIT)),
        _ => it,
    };
    let mut main = players_with(Placement::Processes, stage, None, settings)?;
    main.stop_on_ctrl_c()?;
    println!("up");
    main.start()?;
    println!("started");
    let run = match what {
        "short" | "patient" => Run::lasting(SPAN),
        _ => endless(),
    };
    let mut mails = 0;
    main.send(AgentId::MAIN, Msg::Soon);
    let outcome = main.run_with(run, |_, _| {
        println!("runs");
        mails += 1;
        if what == "exit" {
            std::process::exit(3);
        }
    });
    match outcome {
        Ok(report) => println!("{} {}", report.stopped_by, digest(&report)?),
        Err(error) => println!("{error}"),
    }
    if what == "forget" {
        std::mem::forget(main);
    }
    Ok(())
}

/// What a main process is told that goes on from the last snapshot in a folder, before the folder.
const RESUME: &str = "resume:";

/// Goes on from the last snapshot, or begins, and saves the run again and again.
fn resume(folder: &Path, stage: Stage) -> Result<(), Failure> {
    println!("up");
    let saves = Saves::into(folder).every_simulated(BETWEEN_SAVES).keep(2);
    let mut main = match Restore::latest(folder)? {
        Some(snapshot) => {
            let settings = defaults(Placement::Processes, stage);
            snapshot.start(settings.saves(saves))?
        }
        None => players_with(Placement::Processes, stage, None, |it| it.saves(saves))?,
    };
    let report = main.run(Run::until(SimTime::ZERO + SPAN))?;
    println!("{} {}", report.stopped_by, digest(&report)?);
    Ok(())
}

/// Kills main up to four times; each time another main goes on from the last snapshot. The last one
/// ends as an undisturbed one. Tells how long that one took.
pub(crate) fn kill_main_and_resume(chaos: &mut Chaos) -> Round {
    let expected = format!("time limit {}", undisturbed(chaos.stage)?);
    let name = format!("maslite-chaos-{}-resume", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let what = format!("{RESUME}{}", folder.display());
    for _ in 0..chaos.random.random_range(1..=4) {
        let host = Host::start(&what, chaos.stage, "exec")?;
        pause(random_time(chaos, 80));
        let at = wall();
        send(Signal::KILL, host.process.id());
        host.end(at)?;
    }
    let begin = wall();
    let (said, took) = Host::start(&what, chaos.stage, "exec")?.end(begin)?;
    if said.lines().last() != Some(&*expected) {
        return Err(wrong(format!(
            "{said} in place of {expected}; see {}",
            folder.display()
        )));
    }
    // Nothing is left but the snapshots that are kept, and one more: main may have been killed
    // before it removed that.
    let left = std::fs::read_dir(&folder)?.count();
    std::fs::remove_dir_all(&folder)?;
    if left > 3 {
        return Err(wrong(format!("{left} snapshots are left")));
    }
    Ok(took)
}

/// The simulated time between two saves.
const BETWEEN_SAVES: SimDuration = SimDuration::from_millis(2);

impl Host {
    fn start(what: &str, stage: Stage, before: &str) -> Result<Self, Failure> {
        let link = stage.link.to_possible_value();
        let link = link.ok_or_else(|| wrong("a link without a name"))?;
        let (clusters, link) = (stage.clusters, link.get_name());
        let script = format!("{before} \"$0\" --host {what} --clusters {clusters} --link {link}");
        let mut process = interruptible("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe()?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = process.stdout.take().ok_or_else(|| wrong("no output"))?;
        let said = BufReader::new(said);
        Ok(Self { process, said })
    }

    /// Waits until it says so.
    fn says(&mut self, expected: &str) -> Result<(), Failure> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line.trim() == expected {
            Ok(())
        } else {
            Err(wrong(format!("{line:?}, not {expected:?}")))
        }
    }

    /// Waits for its end and for that of its clusters, which this process then inherits. Returns
    /// what else it has said.
    fn end(mut self, since: Instant) -> Result<(String, Duration), Failure> {
        let (_, left) = reap_all(Duration::from_secs(10));
        let took = wall().duration_since(since);
        let mut rest = String::new();
        self.said.read_to_string(&mut rest)?;
        if left > 0 {
            return Err(wrong(format!("{left} processes are left")));
        }
        Ok((rest.trim().to_owned(), took))
    }
}

pub(crate) fn kill_main(chaos: &mut Chaos) -> Round {
    let mut host = Host::start("busy", chaos.stage, "exec")?;
    host.says("up")?;
    let start = 20 + 3 * chaos.stage.clusters;
    pause(random_time(chaos, start));
    let at = wall();
    send(Signal::KILL, host.process.id());
    Ok(host.end(at)?.1)
}

pub(crate) fn stop_main(chaos: &mut Chaos) -> Round {
    let mut host = Host::start("patient", chaos.stage, "exec")?;
    let begin = wall();
    host.says("up")?;
    host.says("started")?;
    host.says("runs")?;
    send(Signal::STOP, host.process.id());
    pause(Duration::from_secs(1));
    send(Signal::CONT, host.process.id());
    let (said, took) = host.end(begin)?;
    if said.starts_with("time limit") {
        Ok(took)
    } else {
        Err(wrong(said))
    }
}

pub(crate) fn exit_main(chaos: &mut Chaos) -> Round {
    host_ends(chaos, "exit")
}

/// A main process that ends without a word to its clusters.
pub(crate) fn host_ends(chaos: &mut Chaos, what: &str) -> Round {
    let mut host = Host::start(what, chaos.stage, "exec")?;
    for expected in ["up", "started", "runs"] {
        host.says(expected)?;
    }
    let at = wall();
    if what == "forget" {
        send(Signal::INT, host.process.id());
    }
    Ok(host.end(at)?.1)
}

/// A main process that must not mind what its shell does before it.
pub(crate) fn undisturbed_host(chaos: &mut Chaos, before: &str) -> Round {
    let begin = wall();
    let host = Host::start("short", chaos.stage, before)?;
    let (said, took) = host.end(begin)?;
    if said
        .lines()
        .last()
        .is_some_and(|line| line.starts_with("time limit"))
    {
        Ok(took)
    } else {
        Err(wrong(said))
    }
}

pub(crate) fn ctrl_c(chaos: &mut Chaos, times: usize) -> Round {
    // Of two equal signals that are not taken yet the system keeps one.
    let signals = [Signal::INT, Signal::TERM];
    interrupted(chaos, &signals[..times])
}

pub(crate) fn ignored_children(chaos: &mut Chaos) -> Round {
    // Not by `trap`: shells keep this signal for themselves.
    let before = "exec env --ignore-signal=CHLD";
    undisturbed_host(chaos, before)?;
    let mut host = Host::start("busy", chaos.stage, before)?;
    for expected in ["up", "started", "runs"] {
        host.says(expected)?;
    }
    let clusters = children_of(host.process.id());
    let victim = clusters.first().ok_or_else(|| wrong("no clusters"))?;
    let at = wall();
    send(Signal::KILL, *victim);
    let (said, took) = host.end(at)?;
    // The others were killed for its sake, and are not blamed.
    if said
        .trim_end()
        .ends_with("ended with an unknown exit status; all clusters were stopped")
    {
        Ok(took)
    } else {
        Err(wrong(said))
    }
}

/// The run that is to come ends at once, however far the start was.
pub(crate) fn ctrl_c_at_start(chaos: &mut Chaos) -> Round {
    let mut host = Host::start("busy", chaos.stage, "exec")?;
    host.says("up")?;
    let start = 20 + 3 * chaos.stage.clusters;
    pause(random_time(chaos, start));
    let at = wall();
    send(Signal::INT, host.process.id());
    let (said, took) = host.end(at)?;
    match said.lines().last() {
        Some(last) if last.starts_with("interrupted ") => Ok(took),
        _ => Err(wrong(said)),
    }
}

pub(crate) fn terminate(chaos: &mut Chaos) -> Round {
    interrupted(chaos, &[Signal::TERM])
}

fn interrupted(chaos: &mut Chaos, signals: &[Signal]) -> Round {
    let mut host = Host::start("busy", chaos.stage, "exec")?;
    for expected in ["up", "started", "runs"] {
        host.says(expected)?;
    }
    let at = wall();
    signals
        .iter()
        .for_each(|signal| send(*signal, host.process.id()));
    let (said, took) = host.end(at)?;
    // The second signal may find that the first has done all, and then it ends the process.
    let silent = signals.len() > 1 && said.is_empty();
    let is_told = said.starts_with("interrupted ") || said.starts_with("a second Ctrl-C ");
    if silent || is_told {
        Ok(took)
    } else {
        Err(wrong(said))
    }
}
