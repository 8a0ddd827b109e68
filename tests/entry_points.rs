//! A child sees before `enter` what main saw, and becomes a cluster at the `enter` that main meant.
//!
//! What stands before `enter` matters here, so this program has a `main` of its own and no test
//! harness. It starts itself for each story, in a directory of its own, and compares what the story
//! prints.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, id};

use maslite_mp::prelude::*;
use maslite_mp::{Chain, Error};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    Here(String),
}

/// Tells main one thing.
#[derive(Serialize, Deserialize)]
struct Stall(String);

impl Agent<Msg> for Stall {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.send(AgentId::MAIN, Msg::Here(self.0.clone()));
    }
}

/// Another type of agent: it tells what it sees where it lives.
#[derive(Serialize, Deserialize)]
struct Witness;

impl Agent<Msg> for Witness {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let here = env::current_dir().unwrap();
        let arguments: Vec<String> = env::args().collect();
        ctx.send(
            AgentId::MAIN,
            Msg::Here(format!("{arguments:?} in {}", base(&here))),
        );
    }
}

fn base(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// A market of as many stalls as are captured, each of which says the same.
fn market(stalls: u64, word: String) -> Registry<Msg> {
    Registry::new().with_builder("market", move |(): (), agents: &mut AgentSet<Msg>| {
        (0..stalls).for_each(|stall| agents.add(stall, Stall(word.clone())));
    })
}

/// Builds a market in a process of its own, and returns what its stalls say.
fn said_in(agents: Entered<Msg>, placement: Placement) -> Result<Vec<String>, Error> {
    let mut main = MpMain::builder(agents).placement(placement).build()?;
    let cluster = main.new_cluster();
    main.build(cluster, "market", ())?;
    run(main)
}

fn run(mut main: MpMain<Msg>) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    main.run_with(Run::until_idle(), |mail, _| {
        let Msg::Here(word) = mail.body;
        said.push(word);
    })?;
    Ok(said)
}

/// How many stalls there are, and what they say.
fn summary(said: &[String]) -> String {
    format!("{} {}", said.len(), said[0])
}

/// The environment variable of processes that play a story.
const STORY: &str = "MASLITE_STORY";

type Story = fn() -> Result<(), Error>;

const STORIES: &[(&str, Story, &str)] = &[
    ("arguments", arguments, "3 a b\n"),
    ("own_name", own_name, "[\"stalls\", \"own_name\"]\n"),
    (
        "directory",
        directory,
        "1 from the file\n[\"stalls\", \"directory\"] in other\n",
    ),
    ("environment", environment, "1 red\n"),
    (
        "two_of_one_name",
        two_of_one_name,
        "1000 x\n10 x\n1000 x\n10 x\n",
    ),
    (
        "two_of_other_types",
        two_of_other_types,
        "1 socket\n1 a\n1 b\n",
    ),
    ("in_a_loop", in_a_loop, "2 x\n3 x\n4 x\n"),
    ("again_and_again", again_and_again, "1 x\n1 x\n1 x\n"),
    ("inline_before", inline_before, "3 x\n4 x\n"),
    (
        "too_late",
        too_late,
        "1 x\nthe clusters could not be started: the process of cluster 1 (0) could not become a cluster: its program starts a \
         simulation in processes before it reaches `enter` at {too_late} (call 2 from there), for which this process was started: \
         enter all registries before the first simulation starts, or pass the differences to builders as their configuration\n",
    ),
    (
        "never_there",
        never_there,
        "the clusters could not be started: the process of cluster 1 (0) ended before its handshake: it exited silently, with code 0; \
         it passed `enter` at {never_there} (builder \"market\" is missing, agent type entry_points::Stall is there in \
         addition), and did not reach the `enter` that it was started for: enter all registries before the first simulation starts\n",
    ),
    (
        "changed",
        changed,
        "the clusters could not be started: the process of cluster 1 (0) has another registry at `enter` at {changed}: builder \
         \"first\" is missing, builder \"later\" is there in addition; a program must register the same agents and builders \
         in each of its processes\n",
    ),
    (
        "usage",
        usage,
        "the clusters could not be started: the process of cluster 1 (0) ended before its handshake: it exited with code 2; \
         its last output: \"error: this is the second time usage: once\"; its program ended before it reached \
         `Registry::enter`, which should be the first line of main: code before that line runs in every child process, with the same arguments\n",
    ),
];

/// Arguments that are parsed before `enter`, and captured.
fn arguments() -> Result<(), Error> {
    let words: Vec<String> = env::args().skip(2).collect();
    let agents = market(words.len() as u64 + 1, words.join(" ")).enter();
    println!("{}", summary(&said_in(agents, Placement::Processes)?));
    Ok(())
}

fn own_name() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().collect();
    let agents = market(1, format!("{arguments:?}")).enter();
    println!("{}", said_in(agents, Placement::Processes)?[0]);
    Ok(())
}

/// The program goes somewhere else after `enter`: what stands before `enter` does not see it, and
/// agents do.
fn directory() -> Result<(), Error> {
    if !Path::new("word").exists() {
        fs::write("word", "from the file").unwrap();
        fs::create_dir("other").unwrap();
    }
    let word = fs::read_to_string("word").unwrap();
    let agents = market(1, word).with::<Witness>().enter();
    env::set_current_dir("other").unwrap();
    println!(
        "{}",
        summary(&said_in(agents.clone(), Placement::Processes)?)
    );
    let mut main = MpMain::new(agents)?;
    let cluster = main.new_cluster();
    main.add_to(cluster, 1, Witness)?;
    println!("{}", run(main)?[0]);
    Ok(())
}

fn environment() -> Result<(), Error> {
    let colour = env::var("COLOUR").unwrap_or("none".to_owned());
    let agents = market(1, colour).enter();
    // SAFETY: there is no other thread.
    unsafe { env::set_var("COLOUR", "blue") };
    println!("{}", summary(&said_in(agents, Placement::Processes)?));
    Ok(())
}

fn two_of_one_name() -> Result<(), Error> {
    let [few, many] = [10, 1000].map(|stalls| market(stalls, "x".to_owned()).enter());
    for placement in [Placement::Inline, Placement::Processes] {
        println!("{}", summary(&said_in(many.clone(), placement)?));
        println!("{}", summary(&said_in(few.clone(), placement)?));
    }
    Ok(())
}

fn two_of_other_types() -> Result<(), Error> {
    let one = Registry::new().with::<Stall>().enter();
    let mut first = MpMain::new(one)?;
    // The child that passes by opens none and minds no signals.
    let socket = first.open_control("first").unwrap();
    first.stop_on_ctrl_c().unwrap();
    let open = |path: &Path| {
        let beside = fs::read_dir(path.parent().unwrap()).unwrap();
        let names = beside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".sock")).count()
    };
    let cluster = first.new_cluster();
    first.add_to(cluster, 1, Stall("a".to_owned()))?;
    let other = market(1, "b".to_owned()).with::<Witness>().enter();
    let mut second = MpMain::new(other)?;
    let cluster = second.new_cluster();
    second.build(cluster, "market", ())?;
    second.start()?;
    println!("{} socket", open(&socket));
    println!("{}", summary(&run(first)?));
    println!("{}", summary(&run(second)?));
    Ok(())
}

fn in_a_loop() -> Result<(), Error> {
    let all: Vec<_> = (2..5)
        .map(|stalls| market(stalls, "x".to_owned()).enter())
        .collect();
    for agents in all {
        println!("{}", summary(&said_in(agents, Placement::Processes)?));
    }
    Ok(())
}

/// A registry without captures is the same whenever it is entered.
fn again_and_again() -> Result<(), Error> {
    let agents = || {
        let registry = Registry::new();
        registry
            .with_builder("market", |(): (), agents: &mut AgentSet<Msg>| {
                agents.add(1, Stall("x".to_owned()));
            })
            .enter()
    };
    for _ in 0..3 {
        println!("{}", summary(&said_in(agents(), Placement::Processes)?));
    }
    Ok(())
}

/// What runs in this process before `enter` runs in the child as well.
fn inline_before() -> Result<(), Error> {
    for (stalls, placement) in [(3, Placement::Inline), (4, Placement::Processes)] {
        let agents = market(stalls, "x".to_owned()).enter();
        println!("{}", summary(&said_in(agents, placement)?));
    }
    Ok(())
}

fn too_late() -> Result<(), Error> {
    let simulate = |stalls| {
        let agents = market(stalls, "x".to_owned()).enter(); // too_late
        said_in(agents, Placement::Processes)
    };
    println!("{}", summary(&simulate(1)?));
    simulate(2).map(drop)
}

/// Does something in the first process only.
fn is_first() -> bool {
    let is_first = !Path::new("first").exists();
    fs::write("first", "").unwrap();
    is_first
}

fn never_there() -> Result<(), Error> {
    let is_first = is_first();
    drop(Registry::<Msg>::new().with::<Stall>().enter()); // never_there
    if is_first {
        said_in(market(1, "x".to_owned()).enter(), Placement::Processes)?;
    }
    Ok(())
}

fn changed() -> Result<(), Error> {
    let name = if is_first() { "first" } else { "later" };
    let registry = Registry::new().with_builder(name, |(): (), _: &mut AgentSet<Msg>| {});
    let mut main = MpMain::new(registry.enter())?; // changed
    main.new_cluster();
    run(main).map(drop)
}

fn usage() -> Result<(), Error> {
    if !is_first() {
        eprintln!("error: this is the second time\n\nusage: once");
        std::process::exit(2);
    }
    said_in(market(1, "x".to_owned()).enter(), Placement::Processes).map(drop)
}

/// Plays the story in this process.
fn play(name: &str) {
    let story = STORIES.iter().find(|story| story.0 == name).unwrap().1;
    if let Err(error) = story() {
        println!("{}", Chain(&error));
    }
}

/// Starts this program for a story, and returns what it prints.
fn told(name: &str) -> String {
    use std::os::unix::process::CommandExt;
    let directory = env::temp_dir().join(format!("maslite-entry-{}-{name}", id()));
    fs::create_dir(&directory).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg0("stalls").arg(name);
    if name == "arguments" {
        command.args(["a", "b"]);
    }
    let output = command
        .current_dir(&directory)
        .env("COLOUR", "red")
        .env("XDG_RUNTIME_DIR", &directory)
        .env(STORY, "")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{name}: {out}{err}");
    // What children print on their way is not the story's.
    let lines = out.lines().filter(|line| !line.starts_with('['));
    let own = lines.map(|line| format!("{line}\n")).collect::<String>();
    if name == "own_name" || name == "directory" {
        out
    } else {
        own
    }
}

/// Puts the place of the call that is marked with this name into a text.
fn placed(text: &str, name: &str) -> String {
    let source = include_str!("entry_points.rs");
    let mark = format!("// {name}");
    let found = source
        .lines()
        .zip(1..)
        .find(|(line, _)| line.ends_with(&mark));
    let Some((line, number)) = found else {
        return text.to_owned();
    };
    let column = line.find(".enter()").unwrap() + 2;
    text.replace(
        &format!("{{{name}}}"),
        &format!("{}:{number}:{column}", file!()),
    )
}

fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    if env::var_os(STORY).is_some() {
        // Whatever goes wrong, a story does not tell all stories.
        play(&wanted);
        return ExitCode::SUCCESS;
    }
    // The rest is what `cargo test` gives to harnesses: a part of a name, and options.
    let listing = env::args().any(|argument| argument == "--list");
    for (name, _, expected) in STORIES {
        if listing {
            println!("{name}: test");
        } else if wanted.starts_with('-') || name.contains(&*wanted) {
            let told = told(name);
            assert_eq!(told, placed(expected, name), "{name}");
            println!("story {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}
