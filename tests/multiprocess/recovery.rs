//! A cluster whose process dies comes back, and the run goes on to the same digest and trace.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maslite_mp::prelude::*;
use maslite_mp::{Error, ExitKind, NotRecovered, Output};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Hop(u64),
    Tick,
}

/// Passes hops on by chance, and once ends its process, if it has not done so before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hopper {
    agents: u64,
    seen: u64,
    ends: Vec<End>,
}

/// When and how an agent ends its process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct End {
    /// After this number of hops.
    at: u64,
    how: How,
    /// How often it ends at most: a file for each time.
    times: u32,
    marks: PathBuf,
    /// Only in a process that comes after one that left this file.
    after: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Signal(i32),
    Exit(i32),
    Abort,
    OutOfMemory,
}

impl End {
    /// Once, noted in this folder.
    fn once(at: u64, how: How, folder: &Folder) -> Self {
        let (times, marks, after) = (1, folder.0.clone(), None);
        Self {
            at,
            how,
            times,
            marks,
            after,
        }
    }

    /// Whether this is one of the times; it is not the next time.
    fn is_due(&self) -> bool {
        if self.after.as_ref().is_some_and(|mark| !mark.exists()) {
            return false;
        }
        (0..self.times).any(|time| {
            let mark = self.marks.join(time.to_string());
            std::fs::File::create_new(mark).is_ok()
        })
    }

    fn come(&self) {
        match self.how {
            How::Signal(number) => {
                let signal = format!("-{number}");
                let pid = std::process::id().to_string();
                let _ = Command::new("kill").args([&signal, &pid]).status();
                // The signal may reach another thread first.
                loop {
                    std::thread::park();
                }
            }
            How::Exit(code) => std::process::exit(code),
            How::Abort => std::process::abort(),
            How::OutOfMemory => drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 60))),
        }
    }
}

impl Agent<Msg> for Hopper {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_millis(3), Msg::Tick);
        self.hop(ctx, 40);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.seen += 1;
        if self.ends.iter().any(|end| end.at == self.seen) {
            // The next line goes on with it.
            eprint!("{} still lives, and ", ctx.id());
        }
        for end in &self.ends {
            if end.at == self.seen && end.is_due() {
                end.come();
            }
        }
        match mail.body {
            Msg::Hop(0) => ctx.send(AgentId::MAIN, Msg::Hop(self.seen)),
            Msg::Hop(left) => self.hop(ctx, left - 1),
            Msg::Tick => {
                println!("{} has seen {}", ctx.id(), self.seen);
                eprintln!("{} is at {}", ctx.id(), ctx.now());
                if self.seen < 100 {
                    ctx.alarm_in(SimDuration::from_millis(2), Msg::Tick);
                }
            }
        }
    }
}

impl Hopper {
    fn hop(&self, ctx: &mut Context<'_, Msg>, left: u64) {
        let to = ctx.rng().random_range(1..=self.agents);
        if ctx.rng().random_range(0..3_u32) == 0 {
            ctx.send(to, Msg::Hop(left));
        } else {
            let delay = SimDuration::from_micros(ctx.rng().random_range(1..900));
            ctx.set_alarm(Alarm::after(delay).to(AgentId::from(to)), Msg::Hop(left));
        }
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Hopper>().with::<Fickle>();
    let registry = registry.with::<Penpal>();
    registry.entered_by_test("recovery::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    // Every process of a cluster does this, also one that comes back from a state.
    eprintln!("the program starts");
    let _ = agents();
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("maslite-recovery-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What came of a run.
#[derive(Debug, PartialEq)]
struct Came {
    digest: Option<Digest>,
    counters: Counters,
    trace: Vec<String>,
    /// What main's handler heard.
    heard: Vec<u64>,
}

const AGENTS: u64 = 12;

/// Three clusters, of which the agent 2, in the second, ends its process.
fn play(
    settings: MpMainBuilder<Msg>,
    ends: &[End],
) -> (Result<MpReport, Error>, Came, MpMain<Msg>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let settings = settings.seed(5).digest().warning_after(None);
    let settings = settings.trace(move |line| written.lock().unwrap().push(line.to_owned()));
    let mut main = settings.build().unwrap();
    let clusters = [0, 1, 2].map(|_| main.new_cluster());
    for id in 1..=AGENTS {
        let hopper = Hopper {
            agents: AGENTS,
            seen: 0,
            ends: if id == 2 { ends.to_vec() } else { Vec::new() },
        };
        let cluster = clusters[usize::try_from((id - 1) % 3).unwrap()];
        main.add_to(cluster, id, hopper).unwrap();
    }
    let mut heard = Vec::new();
    let mut handle = |mail: Mail<Msg>, _: &mut MainContext<Msg>| {
        if let Msg::Hop(seen) = mail.body {
            heard.push(seen);
        }
    };
    let first = main.run_with(Run::until(SimTime::from_millis(4)), &mut handle);
    let result = first.and_then(|_| main.run_with(Run::until_idle(), &mut handle));
    let report = result.as_ref().ok();
    let trace = std::mem::take(&mut *lines.lock().unwrap());
    let came = Came {
        digest: report.and_then(|report| report.digest),
        counters: report.map_or_else(Counters::default, |report| report.total),
        trace,
        heard,
    };
    (result, came, main)
}

fn settings() -> MpMainBuilder<Msg> {
    let settings = MpMain::builder(agents()).output(Output::Null);
    settings.warnings(|_| ())
}

fn undisturbed() -> Came {
    let (result, came, _) = play(settings().placement(Placement::Inline), &[]);
    assert!(result.is_ok() && came.heard.len() == 12, "{came:?}");
    came
}

const ALWAYS: Recovery = Recovery::restart().at_most(1_000, Duration::from_secs(60));

/// Ends the process of the second cluster, and compares all that comes of the run with the
/// undisturbed one. Tells how its process died.
fn survive(name: &str, at: u64, how: How, settings: MpMainBuilder<Msg>) -> Vec<ExitKind> {
    let folder = Folder::new(name);
    survive_all(&[End::once(at, how, &folder)], settings)
}

/// The same with several ends.
fn survive_all(ends: &[End], settings: MpMainBuilder<Msg>) -> Vec<ExitKind> {
    let (result, came, main) = play(settings, ends);
    let report = result.unwrap();
    assert_eq!(came, undisturbed());
    let deaths = report.recoveries.iter().map(|it| {
        assert_eq!(it.cluster, "2");
        assert_ne!(it.death.pid, it.pid, "{it}");
        it.death.exit
    });
    let deaths = deaths.collect();
    assert_eq!(report.clusters[1].pid, report.recoveries[0].pid);
    let ends = main.shutdown().ends;
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(ends.iter().all(|end| end.how == maslite_mp::EndKind::Clean));
    deaths
}

#[test]
fn a_killed_cluster_comes_back() {
    for (link, name) in [(Link::Ring, "ring"), (Link::Channel, "channel")] {
        for at in [1, 7, 20] {
            let settings = settings().link(link).recovery(ALWAYS);
            let name = format!("killed-{name}-{at}");
            let deaths = survive(&name, at, How::Signal(9), settings);
            assert_eq!(deaths, [ExitKind::Signal(9)]);
        }
    }
}

#[test]
fn a_cluster_that_exits_aborts_or_runs_out_of_memory_comes_back() {
    let bytes = 1 << 60;
    for (name, how, exit) in [
        ("exit", How::Exit(0), ExitKind::Success),
        ("code", How::Exit(7), ExitKind::Code(7)),
        ("abort", How::Abort, ExitKind::Signal(6)),
        (
            "memory",
            How::OutOfMemory,
            ExitKind::AllocationFailed { bytes },
        ),
    ] {
        let deaths = survive(name, 9, how, settings().recovery(ALWAYS));
        assert_eq!(deaths, [exit], "{name}");
    }
}

/// The cluster comes back from its state, and from what it was told since.
#[test]
fn a_cluster_whose_log_was_full_comes_back() {
    for (at, limit) in [(7, 3_000), (20, 2_000)] {
        let settings = settings().recovery(ALWAYS.log_limit(limit));
        let name = format!("cut-{at}");
        let deaths = survive(&name, at, How::Signal(9), settings);
        assert_eq!(deaths, [ExitKind::Signal(9)]);
    }
}

#[test]
fn a_stopped_cluster_is_killed_and_comes_back() {
    let limit = Some(Duration::from_millis(200));
    let settings = settings().answer_limit(limit).recovery(ALWAYS);
    let deaths = survive("stopped", 9, How::Signal(19), settings);
    assert_eq!(deaths, [ExitKind::NoAnswer]);
}

/// An agent stops its process in the replay, before what it did when it was killed.
#[test]
fn a_cluster_that_is_stopped_while_it_comes_back_comes_back() {
    let (killed, stopped) = (Folder::new("killed"), Folder::new("killed-and-stopped"));
    let kill = End::once(20, How::Signal(9), &killed);
    let stop = End {
        after: Some(killed.0.join("0")),
        ..End::once(9, How::Signal(19), &stopped)
    };
    let limit = Some(Duration::from_millis(200));
    let settings = settings().answer_limit(limit).recovery(ALWAYS);
    // One recovery, at the second attempt, which tells of the last death.
    let deaths = survive_all(&[kill, stop], settings);
    assert_eq!(deaths, [ExitKind::NoAnswer]);
}

#[test]
fn a_policy_of_one_cluster_goes_before_that_of_all() {
    let folder = Folder::new("own");
    let end = End::once(5, How::Exit(7), &folder);
    let mut main = settings().recovery(ALWAYS).build().unwrap();
    let cluster = main.new_cluster();
    main.set_recovery(cluster, Recovery::stop()).unwrap();
    let hopper = Hopper {
        agents: 1,
        seen: 0,
        ends: vec![end],
    };
    main.add_to(cluster, 1, hopper).unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ClusterDied {
                exit: ExitKind::Code(7),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_cluster_that_dies_twice_at_one_grant_ends_the_run_with_both_deaths() {
    let folder = Folder::new("poison");
    let end = End {
        times: 2,
        ..End::once(9, How::Exit(7), &folder)
    };
    let (result, _, _) = play(settings().recovery(ALWAYS), &[end]);
    match result.unwrap_err() {
        Error::NotRecovered {
            cluster,
            reason: NotRecovered::SameGrant,
            deaths,
            ..
        } => {
            let exits: Vec<_> = deaths.iter().map(|death| death.exit).collect();
            assert_eq!((&*cluster, &*exits), ("2", &[ExitKind::Code(7); 2][..]));
        }
        error => panic!("{error}"),
    }
}

/// Its agents look at something else than their mail: a replay gives something else.
#[test]
fn a_replay_that_differs_is_an_error_that_names_the_grant() {
    let folder = Folder::new("differs");
    let end = End::once(9, How::Exit(7), &folder);
    let mut main = settings().recovery(ALWAYS).build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for id in 1..=2_u64 {
        let hopper = Fickle {
            other: 3 - id,
            seen: 0,
            end: (id == 2).then(|| end.clone()),
        };
        let cluster = clusters[usize::try_from(id - 1).unwrap()];
        main.add_to(cluster, id, hopper).unwrap();
    }
    match main.run(Run::until_idle()).unwrap_err() {
        Error::NotRecovered {
            reason: NotRecovered::Differs { grant, stands },
            ..
        } => assert!(
            grant > 1 && stands.contains("superstep"),
            "{grant} {stands}"
        ),
        error => panic!("{error}"),
    }
}

/// Answers each sender, and never says a name.
#[derive(Serialize, Deserialize)]
struct Penpal {
    seen: u64,
    end: Option<End>,
}

impl Agent<Msg> for Penpal {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.seen += 1;
        if let Some(end) = &self.end
            && end.at == self.seen
            && end.is_due()
        {
            end.come();
        }
        if self.seen < 30 {
            ctx.reply(Msg::Tick);
        }
    }
}

/// The new process has heard of no names but those of the state.
#[test]
fn a_cluster_that_comes_back_from_its_state_knows_the_names_of_agents() {
    let folder = Folder::new("names");
    let trace_of = |settings: MpMainBuilder<Msg>, end: Option<End>| {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let settings = settings.trace(move |line| written.lock().unwrap().push(line.to_owned()));
        let mut main = settings.build().unwrap();
        let clusters = [main.new_cluster(), main.new_cluster()];
        let penpal = |end| Penpal { seen: 0, end };
        let saved = folder.0.join(format!("saved, {}", end.is_some()));
        main.add_to(clusters[0], "alice", penpal(None)).unwrap();
        main.add_to(clusters[1], "bob", penpal(end)).unwrap();
        let first = Mail::new(AgentId::from("alice"), AgentId::from("bob"), Msg::Tick);
        main.send_mail(first);
        main.run(Run::until_idle().supersteps(10)).unwrap();
        // From here on it comes back from its state. A limit of the log would not do: the log has
        // the names that other tests of this process say meanwhile.
        main.save(saved).unwrap();
        let report = main.run(Run::until_idle()).unwrap();
        let trace = std::mem::take(&mut *lines.lock().unwrap());
        (trace, report.recoveries.len())
    };
    let (undisturbed, _) = trace_of(settings().placement(Placement::Inline), None);
    assert!(undisturbed.len() > 50 && undisturbed[40].contains("alice"));
    let end = End::once(20, How::Signal(9), &folder);
    let disturbed = trace_of(settings().recovery(ALWAYS), Some(end));
    assert_eq!(disturbed, (undisturbed, 1));
}

/// Sends one mail more in a process that has come back.
#[derive(Serialize, Deserialize)]
struct Fickle {
    other: u64,
    seen: u64,
    end: Option<End>,
}

impl Agent<Msg> for Fickle {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.send(self.other, Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.seen += 1;
        if self.seen > 20 || matches!(mail.body, Msg::Hop(_)) {
            return;
        }
        if let Some(end) = &self.end {
            if self.seen == 4 && end.marks.join("0").exists() {
                ctx.send(self.other, Msg::Hop(0));
            }
            if self.seen == end.at && end.is_due() {
                end.come();
            }
        }
        ctx.send(self.other, Msg::Tick);
    }
}

/// Prints what the agents of [`play`] print, with two kills in the middle if there is a folder.
#[test]
#[ignore = "its output is compared"]
fn printing() {
    let marks = std::env::var_os("MASLITE_TEST_MARKS").map(PathBuf::from);
    let ends = [(20, "first"), (60, "second")].map(|(at, name)| End {
        at,
        how: How::Signal(9),
        times: u32::from(marks.is_some()),
        marks: marks.clone().unwrap_or_default().join(name),
        after: None,
    });
    let limit = std::env::var("MASLITE_TEST_LOG").unwrap().parse().unwrap();
    let settings = MpMain::builder(agents()).recovery(ALWAYS.log_limit(limit));
    play(settings.warnings(|_| ()), &ends).0.unwrap();
}

#[test]
fn a_cluster_that_comes_back_prints_no_line_twice() {
    let printed = |marks: Option<&PathBuf>, limit: u32| {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "recovery::printing", "--ignored", "--nocapture"]);
        program.env("MASLITE_TEST_LOG", limit.to_string());
        if let Some(marks) = marks {
            program.env("MASLITE_TEST_MARKS", marks);
        }
        let output = program.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // Lines of different clusters come in any order.
        [output.stdout, output.stderr].map(|said| {
            let said = String::from_utf8(said).unwrap();
            let lines = said.lines().filter(|line| line.starts_with("[2] "));
            Vec::from_iter(lines.map(str::to_owned))
        })
    };
    let undisturbed = printed(None, 1 << 20);
    assert!(undisturbed[1].len() > 50, "{undisturbed:?}");
    assert_eq!(undisturbed[1][0], "[2] the program starts");
    // Also where it comes back from its state.
    for limit in [1 << 20, 3_000] {
        let folder = Folder::new(&format!("printing-{limit}"));
        let kills = ["first", "second"].map(|name| folder.0.join(name));
        kills.iter().for_each(|it| std::fs::create_dir(it).unwrap());
        let disturbed = printed(Some(&folder.0), limit);
        let killed = kills.map(|it| it.join("0").exists());
        assert_eq!(killed, [true, true]);
        assert_eq!(disturbed, undisturbed, "{limit}");
    }
}
