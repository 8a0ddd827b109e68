//! The program `maslite`, run as a user at another terminal runs it, against a simulation of this
//! process.

use std::io::{BufRead, BufReader, Write};
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
    simulation_of(MpMain::builder(entered), name)
}

fn simulation_of(settings: MpMainBuilder<Msg>, name: &str) -> (MpMain<Msg>, PathBuf) {
    let mut main = settings.placement(Placement::Inline).build().unwrap();
    let cluster = main.new_cluster();
    main.add_to(cluster, 1, Player { seen: 0 }).unwrap();
    main.add_to(cluster, 2, Player { seen: 0 }).unwrap();
    main.send_mail(Mail::new(1, AgentId::from(2), Msg::Ping));
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
fn a_simulation_is_saved_where_its_program_wants_it() {
    let folder = std::env::temp_dir().join(format!("maslite-terminal-{}", process::id()));
    let entered = Registry::new().with::<Player>().enter();
    let settings = MpMain::builder(entered).saves(Saves::into(&folder));
    let (mut main, path) = simulation_of(settings, "saved");
    let asker = thread::spawn(move || {
        let path = path.to_str().unwrap();
        let ask = |words: &[&str]| maslite(&[words, &["--simulation", path]].concat());
        let answers = [
            ask(&["step", "3"]),
            ask(&["save", "noon"]),
            ask(&["save", "noon"]),
            ask(&["save", "../noon"]),
        ];
        (answers, ask(&["stop"]))
    });
    let run = Run::until_idle().timeout(Duration::from_secs(60));
    main.run(run).unwrap();
    let (answers, _) = asker.join().unwrap();
    let [
        _,
        (saved, done),
        (again, refused),
        (outside, outside_refused),
    ] = answers;
    assert!(saved.contains("/noon: 2 agents"), "{saved}");
    assert_eq!(
        (done, refused, outside_refused),
        (Some(0), Some(1), Some(1))
    );
    assert!(again.contains("exists already"), "{again}");
    assert!(outside.contains("a name without a path"), "{outside}");
    let (listed, code) = maslite(&["snapshots", folder.to_str().unwrap()]);
    assert!(
        listed.contains("noon: at 0 s, 2 agents in 1 clusters"),
        "{listed}"
    );
    assert_eq!(code, Some(0));
    std::fs::remove_dir_all(folder).unwrap();
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
            line["status"]["state"] == "paused"
        });
        let stopped = maslite(&["stop", "--simulation", &path]).1;
        (watch, lines, paused, stopped)
    });
    let run = Run::until_idle().timeout(Duration::from_secs(60));
    let report = main.run(run).unwrap();
    let (mut watch, lines, paused, stopped) = steerer.join().unwrap();
    assert_eq!(report.stopped_by, StopReason::Interrupted);
    drop(main);
    // It goes on until there is no simulation to ask.
    assert!(
        lines
            .map_while(Result::ok)
            .all(|line| line.starts_with('{'))
    );
    assert_eq!((watch.wait().unwrap().code(), stopped), (Some(0), Some(0)));
    assert!(paused.is_some());
}

/// A process that only looks like a simulation: it says this to every request; nothing at all if
/// that is empty.
fn impostor(name: &str, says: Vec<u8>) -> PathBuf {
    let (main, path) = simulation(&format!("{name}-place"));
    let path = path.with_file_name(format!("{}-{name}.sock", process::id()));
    drop(main);
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            if says.is_empty() {
                silent.push(socket);
                continue;
            }
            let mut request = String::new();
            // A client that only looks whether a simulation is there asks nothing, and may leave
            // before all is said.
            if BufReader::new(socket.try_clone().unwrap())
                .read_line(&mut request)
                .is_ok()
            {
                let _ = socket.write_all(&says);
            }
        }
    });
    path
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    let path = impostor("mute", Vec::new());
    let path = path.to_str().unwrap();
    let words: [&[&str]; 4] = [&["status"], &["pause"], &["agents"], &["watch", "--json"]];
    thread::scope(|scope| {
        let asked = words
            .map(|words| scope.spawn(move || maslite(&[words, &["--simulation", path]].concat())));
        for asked in asked {
            let expected = "maslite: the simulation did not answer: there was no answer in time: \
                            its main program may be stopped\n";
            assert_eq!(asked.join().unwrap(), (expected.to_owned(), Some(1)));
        }
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn answers_that_go_on_for_ever_are_refused() {
    let agent = |index: u64| {
        format!(
            "{{\"version\":2,\"reply\":{{\"agents\":[{{\"id\":\"x\",\"index\":{index},\
             \"type\":\"T\",\"cluster\":\"c\"}}]}}}}\n"
        )
    };
    let nonsense = |what: &str| {
        format!(
            "maslite: the simulation answers {what}: it is no simulation, or its memory is corrupt\n"
        )
    };
    let long = "maslite: the simulation did not answer: its answer is longer than 16777216 bytes\n";
    for (name, words, says, expected) in [
        (
            "last",
            "agents",
            agent(u64::MAX).into_bytes(),
            nonsense("agents in no order"),
        ),
        (
            "same",
            "agents",
            agent(0).into_bytes(),
            nonsense("agents in no order"),
        ),
        (
            "other",
            "agents",
            b"{\"version\":2,\"reply\":\"done\"}\n".to_vec(),
            nonsense("another question than the one about its agents"),
        ),
        ("long", "status", vec![b' '; 40 << 20], long.to_owned()),
    ] {
        let path = impostor(name, says);
        let (text, code) = maslite(&[words, "--simulation", path.to_str().unwrap()]);
        std::fs::remove_file(path).unwrap();
        assert!(text.ends_with(&expected), "{name}: {text}");
        assert_eq!(code, Some(1));
    }
}

#[test]
fn nothing_that_a_simulation_says_is_obeyed_by_the_terminal() {
    let bad = "x\u{1b}]0;owned\u{7}\n\u{202e}forged row\u{9b}2J";
    let huge = bad.repeat(300_000);
    for (number, text) in [bad, &huge].into_iter().enumerate() {
        let view = serde_json::json!({ "agent": {
            "id": text, "index": 0, "type": text, "cluster": text, "state": null, "no_state": text,
            "alarms": [{ "time_ns": 0, "to": text, "topic": text }], "subscriptions": [text],
        }});
        let refused = serde_json::json!({ "refused": { "message": text } });
        let ended = serde_json::json!({ "ended": { "time_ns": 0, "reason": text } });
        let status = serde_json::json!({ "status": {
            "state": "running", "time_ns": 0, "start_ns": 0, "end_ns": null, "wall_ns": 0,
            "supersteps": 0, "events": 0, "clusters": [{
                "name": text, "pid": 1, "time_ns": 0, "delivered": 0, "at_work": true,
                "agent": text, "awake": 0, "mail_in": 0, "mail_out": 0, "busy_ns": 0,
                "blocked_ns": 0, "waiting_ns": 0, "memory": 1,
            }],
        }});
        for (place, reply) in [view, refused, ended, status].into_iter().enumerate() {
            let mut says = serde_json::json!({ "version": 2, "reply": reply }).to_string();
            says.push('\n');
            let path = impostor(&format!("loud-{number}-{place}"), says.into_bytes());
            let path = path.to_str().unwrap();
            for words in [&["status"][..], &["agent", "1"], &["status", "--json"]] {
                if number == 1 && words.contains(&"--json") {
                    continue;
                }
                let (text, _) = maslite(&[words, &["--simulation", path]].concat());
                let commands = |c: char| c != '\n' && maslite_mp::core::internal::is_command(c);
                assert!(!text.contains(commands), "{text:?}");
                assert!(text.len() < 10_000, "{} bytes", text.len());
                assert!(
                    !text.lines().any(|line| line.starts_with("forged")),
                    "{text}"
                );
            }
            std::fs::remove_file(path).unwrap();
        }
    }
}
