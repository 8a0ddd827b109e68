//! The agents of these tests, and how the tests look at processes.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::id;

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ground::{Ground, Grounded};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::IntoStaticStr)]
pub(crate) enum Msg {
    /// Do what you are there for.
    Go,
    /// The process id of the sender.
    Pid(u32),
    Word(String),
}

/// Does one thing when told to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Worker {
    /// Tells main in which process it lives.
    TellPid,
    /// Tells an agent something.
    Tell(AgentId, String),
    /// Passes on what it is told.
    Forward(AgentId),
    /// Goes on at one instant for ever, with itself.
    Forever,
    /// Never returns from its update.
    Stuck,
    /// So much later knocks at a gate, a Unix socket at this path, and stays there until it is let go.
    Gate(SimDuration, PathBuf),
    Panic(When),
    /// Ends its process with a code.
    Exit(i32),
    /// Ends its process without a word.
    KillItself,
    /// Says a word to main at the end.
    Farewell,
    /// Counts words and keeps them.
    Listener(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum When {
    Setup,
    Update,
    Teardown,
}

impl Agent<Msg> for Worker {
    fn setup(&mut self, _: &mut Context<'_, Msg>) {
        assert!(!matches!(self, Self::Panic(When::Setup)), "no setup for me");
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match self {
            Self::TellPid => ctx.send(AgentId::MAIN, Msg::Pid(id())),
            Self::Tell(to, word) => ctx.send(*to, Msg::Word(word.clone())),
            Self::Forward(to) => ctx.send(*to, mail.body),
            Self::Forever => ctx.send(ctx.id(), Msg::Go),
            Self::Stuck => loop {
                std::hint::spin_loop();
            },
            Self::Gate(after, _) if mail.body == Msg::Go => {
                ctx.alarm_in(*after, Msg::Word("knock".to_owned()));
            }
            Self::Gate(_, gate) => {
                let mut gate = UnixStream::connect(gate).unwrap();
                gate.read_to_end(&mut Vec::new()).unwrap();
            }
            Self::Panic(When::Update) => panic!("no update for me"),
            Self::Panic(_) | Self::Farewell => {}
            Self::Exit(code) => std::process::exit(*code),
            Self::KillItself => kill(id()),
            Self::Listener(heard) => *heard += 1,
        }
    }

    fn teardown(&mut self, _: &mut Context<'_, Msg>) {
        assert!(
            !matches!(self, Self::Panic(When::Teardown)),
            "no teardown for me"
        );
    }
}

pub(crate) fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Worker>()
        .with_builder("listeners", |ids: Vec<u64>, crew: &mut Crew<Msg>| {
            for id in ids {
                crew.add(id, Worker::Listener(0));
            }
        })
        .entered_by_test("workers::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// A supervisor of clusters with these workers; agents are numbered from 1 over all clusters.
pub(crate) fn clusters(ground: Ground, workers: &[&[Worker]]) -> MpMain<Msg> {
    let mut main = MpMain::new(agents()).unwrap().on(ground);
    let mut number = 0;
    for workers in workers {
        let cluster = main.new_scheduler();
        for worker in *workers {
            number += 1;
            main.add(cluster, number, worker.clone()).unwrap();
        }
    }
    main
}

/// Mail of the simulation's owner that makes an agent do what it is there for.
pub(crate) fn go(agent: u64) -> Mail<Msg> {
    Mail::new(AgentId::MAIN, AgentId::from(agent), Msg::Go)
}

/// Whether a process exists, be it as a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Kills a process as nothing else can be killed.
pub(crate) fn kill(pid: u32) {
    signal("KILL", pid);
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = std::process::Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// The processes of the clusters.
pub(crate) fn pids(main: &MpMain<Msg>) -> Vec<u32> {
    main.pids().into_iter().map(|(_, pid)| pid).collect()
}
