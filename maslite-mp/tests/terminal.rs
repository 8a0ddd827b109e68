//! The program `maslite`, run as somebody at another terminal runs it, against a simulation of this process.

#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    Ping,
}

#[derive(Serialize, Deserialize)]
struct Player {
    seen: u32,
}

impl Agent<Msg> for Player {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        self.seen += 1;
        ctx.send(mail.sender, Msg::Ping);
    }
}

/// What the program says for these arguments, with the process id as `PID`; and its exit code.
fn maslite(arguments: &[&str]) -> (String, Option<i32>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_maslite"));
    let output = program.args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let pid = format!("({})", process::id());
    (
        String::from_utf8(text).unwrap().replace(&pid, "(PID)"),
        output.status.code(),
    )
}

/// Two players with a ball, paused, and where to speak to them.
fn simulation(name: &str) -> (MpMain<Msg>, PathBuf) {
    let entered = Registry::new().with::<Player>().enter();
    let mut main = MpMain::new(entered)
        .unwrap()
        .with_placement(Placement::Inline);
    let cluster = main.new_scheduler();
    main.add(cluster, 1, Player { seen: 0 }).unwrap();
    main.add(cluster, 2, Player { seen: 0 }).unwrap();
    main.send(Mail::new(1, AgentId::from(2), Msg::Ping));
    let path = main.open_control(name).unwrap();
    main.pause();
    (main, path)
}

#[test]
fn what_is_asked_at_another_terminal_is_answered_there() {
    let (mut main, path) = simulation("terminal");
    let asker = thread::spawn(move || {
        let path = path.to_str().unwrap();
        let ask = |words: &[&str]| maslite(&[words, &["--simulation", path]].concat());
        let answers = [
            ask(&["step", "3"]),
            ask(&["agents"]),
            ask(&["agent", "1"]),
            ask(&["agent", "3"]),
            ask(&["pause", "--json"]),
            ask(&["stop"]),
        ];
        (answers, maslite(&["status", "--simulation", "nobody"]).1)
    });
    let run = Run::until_idle().timeout(Duration::from_secs(60));
    main.run(run).unwrap();
    let (answers, nobody) = asker.join().unwrap();
    let answers = answers.map(|(text, code)| format!("{text}{}\n", code.unwrap()));
    assert_eq!(answers.concat(), include_str!("terminal.out"));
    assert_eq!(nobody, Some(2));
}

#[test]
fn simulations_are_listed_and_watched_to_their_end() {
    let (mut main, path) = simulation("watched");
    // What a program leaves that is killed.
    let mut dead = Command::new(env!("CARGO_BIN_EXE_maslite"));
    let mut dead = dead.arg("--help").stdout(Stdio::null()).spawn().unwrap();
    dead.wait().unwrap();
    let left = path.with_file_name(format!("{}-left.sock", dead.id()));
    drop(UnixListener::bind(&left).unwrap());
    let (listed, _) = maslite(&["list"]);
    let line = listed.lines().find(|line| line.contains("  watched  "));
    assert!(line.unwrap().ends_with(path.to_str().unwrap()), "{listed}");
    assert!(!listed.contains("left.sock"), "{listed}");
    assert!(!left.exists());

    let path = path.to_str().unwrap().to_owned();
    let steerer = thread::spawn(move || {
        let mut watch = Command::new(env!("CARGO_BIN_EXE_maslite"))
            .args(["watch", "--json", "--simulation", &path])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        // Before it is paused it may be seen at rest, or setting out.
        let paused = lines.by_ref().map_while(Result::ok).find(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["status"]["phase"] == "paused"
        });
        let stopped = maslite(&["stop", "--simulation", &path]).1;
        (watch, lines, paused, stopped)
    });
    let run = Run::until_idle().timeout(Duration::from_secs(60));
    let report = main.run(run).unwrap();
    let (mut watch, lines, paused, stopped) = steerer.join().unwrap();
    assert_eq!(report.stopped_by, StopReason::Interrupted);
    drop(main);
    // It goes on until there is nobody to ask.
    assert!(
        lines
            .map_while(Result::ok)
            .all(|line| line.starts_with('{'))
    );
    assert_eq!((watch.wait().unwrap().code(), stopped), (Some(0), Some(0)));
    assert!(paused.is_some());
}
