//! The agents of these tests, and how the tests look at processes.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::id;

use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use crate::test_placement::{PlacedOn, TestPlacement};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
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
    /// Says so, and never returns from its update.
    Stuck,
    /// After this time connects to a gate, a Unix socket at this path, and stays there until it is
    /// let go.
    Gate(SimDuration, PathBuf),
    Panic(When),
    /// Never returns.
    Hang(When),
    /// Panics in its teardown with a message of this number of bytes.
    LastWords(usize),
    /// Writes this number of bytes to the standard error in its teardown.
    Flood(usize),
    /// Starts a program that outlives it, and that holds a gate.
    Grandchild(PathBuf),
    /// Writes this number of lines to the standard error, and to the standard output.
    Print(usize),
    /// Closes all descriptors of its process.
    CloseAll,
    /// Ends its process with a code.
    Exit(i32),
    /// Ends its process with a code in its teardown.
    ExitAtTheEnd(i32),
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
        self.hang(When::Setup);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match self {
            Self::TellPid => ctx.send(AgentId::MAIN, Msg::Pid(id())),
            Self::Tell(to, word) => ctx.send(*to, Msg::Word(word.clone())),
            Self::Forward(to) => ctx.send(*to, mail.body),
            Self::Forever => ctx.send(ctx.id(), Msg::Go),
            Self::Stuck => {
                eprintln!("stuck");
                loop {
                    std::hint::spin_loop();
                }
            }
            Self::Gate(after, _) if mail.body == Msg::Go => {
                ctx.alarm_in(*after, Msg::Word("hello".to_owned()));
            }
            Self::Gate(_, gate) => {
                let mut gate = UnixStream::connect(gate).unwrap();
                gate.read_to_end(&mut Vec::new()).unwrap();
            }
            Self::Panic(When::Update) => panic!("no update for me"),
            Self::Panic(_) | Self::Farewell | Self::Hang(_) => self.hang(When::Update),
            Self::LastWords(_) | Self::Flood(_) | Self::ExitAtTheEnd(_) => {}
            Self::Grandchild(gate) => {
                let gate = OwnedFd::from(UnixStream::connect(gate).unwrap());
                let mut program = std::process::Command::new("sleep");
                // No process waits for it.
                drop(program.arg("1000").stdin(gate).spawn().unwrap());
            }
            Self::Print(lines) => (0..*lines).for_each(|line| {
                eprintln!("line {line}");
                println!("line {line}");
            }),
            Self::CloseAll => (0..1024).for_each(|number| {
                // SAFETY: it is the harm that a careless agent does; no file of this process is
                // used as another one afterwards.
                unsafe {
                    let file = std::os::fd::BorrowedFd::borrow_raw(number);
                    if rustix::io::fcntl_getfd(file).is_ok() {
                        rustix::io::close(number);
                    }
                }
            }),
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
        self.hang(When::Teardown);
        match self {
            Self::LastWords(length) => {
                // Not for those who look at the output of tests.
                std::panic::set_hook(Box::new(|_| ()));
                panic!("{}", "x".repeat(*length));
            }
            Self::ExitAtTheEnd(code) => {
                eprintln!("enough");
                std::process::exit(*code);
            }
            Self::Flood(length) => std::io::stderr().write_all(&vec![b'x'; *length]).unwrap(),
            _ => {}
        }
    }
}

impl Worker {
    fn hang(&self, when: When) {
        if matches!(self, Self::Hang(then) if *then == when) {
            loop {
                std::thread::park();
            }
        }
    }
}

pub(crate) fn registry() -> Registry<Msg> {
    Registry::new().with::<Worker>().with_builder(
        "listeners",
        |ids: Vec<u64>, agents: &mut AgentSet<Msg>| {
            for id in ids {
                agents.add(id, Worker::Listener(0));
            }
        },
    )
}

pub(crate) fn agents() -> Entered<Msg> {
    registry().entered_by_test("workers::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// A simulation of clusters with these workers; agents are numbered from 1 over all clusters.
pub(crate) fn clusters(placement: TestPlacement, workers: &[&[Worker]]) -> MpMain<Msg> {
    clusters_with(placement, workers, |settings| settings)
}

/// The same with settings of their own.
pub(crate) fn clusters_with(
    placement: TestPlacement,
    workers: &[&[Worker]],
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> MpMain<Msg> {
    clusters_in(settings(MpMain::builder(agents()).on(placement)), workers)
}

/// The same, whose child processes start elsewhere.
pub(crate) fn clusters_of(
    agents: Entered<Msg>,
    placement: TestPlacement,
    workers: &[&[Worker]],
) -> MpMain<Msg> {
    clusters_in(MpMain::builder(agents).on(placement), workers)
}

fn clusters_in(settings: MpMainBuilder<Msg>, workers: &[&[Worker]]) -> MpMain<Msg> {
    let mut main = settings.build().unwrap();
    let mut number = 0;
    for workers in workers {
        let cluster = main.new_cluster();
        for worker in *workers {
            number += 1;
            main.add_to(cluster, number, worker.clone()).unwrap();
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

/// Stops a child process, and waits until all its threads stand.
pub(crate) fn stop(pid: u32) {
    stop_by("STOP", pid);
}

/// The same, by a signal of this name.
pub(crate) fn stop_by(name: &str, pid: u32) {
    signal(name, pid);
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let stands = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), stands).unwrap();
}

/// The processes of the clusters.
pub(crate) fn pids(main: &MpMain<Msg>) -> Vec<u32> {
    main.pids().into_iter().map(|(_, pid)| pid).collect()
}

/// Where agents wait until a test lets them go.
pub(crate) struct Gate {
    path: PathBuf,
    listener: UnixListener,
}

impl Gate {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gate-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    pub(crate) fn worker(&self, after: SimDuration) -> Worker {
        Worker::Gate(after, self.path.clone())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Waits for an agent, which goes on when what this returns is dropped.
    pub(crate) fn somebody(&self) -> UnixStream {
        self.listener.accept().unwrap().0
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
