//! The program `maslite`, run as somebody at another terminal runs it, against a simulation of this process.

#![cfg(feature = "cli")]

use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, strum::IntoStaticStr)]
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

#[test]
fn what_is_asked_at_another_terminal_is_answered_there() {
    let entered = Registry::new().with::<Player>().enter();
    let mut main = MpMain::new(entered)
        .unwrap()
        .with_placement(Placement::Inline);
    let cluster = main.new_scheduler();
    main.add(cluster, 1, Player { seen: 0 }).unwrap();
    main.add(cluster, 2, Player { seen: 0 }).unwrap();
    main.send(Mail::new(1, AgentId::from(2), Msg::Ping));
    let path = main.open_control("terminal").unwrap();
    main.pause();
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
