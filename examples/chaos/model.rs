//! A simulation that is busy in all its clusters, and an agent in it that does harm.

use std::hint::black_box;
use std::io::Write;
use std::process::{Command, abort, exit};

use maslite_mp::Error;
use maslite_mp::MpMainBuilder;
use maslite_mp::prelude::*;
use maslite_testkit::carrier::Carrier;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an agent does, once, in the middle of a run or where its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    PanicInSetup,
    PanicInUpdate,
    PanicInTeardown,
    PanicInDrop,
    PanicTwice,
    PanicInThread,
    Exit(i32),
    Abort,
    Segfault,
    StackOverflow,
    OutOfMemory,
    Spin,
    TellNobody,
    CannotLeave,
    CannotArrive,
    FloodStderr,
    FloodMain,
    FloodPeer,
    /// Starts a program that outlives it, and ends.
    LeaveProgram,
    /// No harm: has signals interrupt its process instead of ending it.
    EndureSignals,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
pub(crate) enum Msg {
    Tick,
    Ball(u64),
    /// To main: the deed is done in the next instant.
    Soon,
    Odd(Odd),
}

/// A message that no process can hand to another one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Odd {
    CannotLeave,
    CannotArrive,
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::CannotLeave => Err(serde::ser::Error::custom("it does not want to")),
            Self::CannotArrive => serializer.serialize_u8(0),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        Err(serde::de::Error::custom("it does not want to"))
    }
}

/// What all simulations of a fault have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) clusters: u64,
    pub(crate) link: Carrier,
    /// How many balls each player throws at a time.
    pub(crate) balls: u64,
}

/// Throws balls to the next agent, which is often in the next cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Player {
    next: AgentId,
    /// A receiver in another process: an agent of the first cluster, or main if there is one
    /// cluster only.
    elsewhere: AgentId,
    balls: u64,
    deed: Option<Deed>,
    ticks: u64,
    /// It has been set up: this is where it lives, and not a copy on its way there.
    #[serde(skip)]
    lives: bool,
}

/// The time between two throws.
const BEAT: SimDuration = SimDuration::from_millis(1);
/// After how many throws a deed is done.
const DEED_AT: u64 = 5;
/// How many messages, or lines, a flood has.
pub(crate) const FLOOD: u64 = 20_000;

impl Agent<Msg> for Player {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        self.lives = true;
        assert!(self.deed != Some(Deed::PanicInSetup), "chaos in setup");
        if self.deed == Some(Deed::EndureSignals) {
            let flag = std::sync::Arc::default();
            signal_hook::flag::register(signal_hook::consts::SIGUSR1, flag)
                .expect("a handler can be had");
        }
        ctx.alarm_in(BEAT, Msg::Tick);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Tick => {
                self.ticks += 1;
                ctx.alarm_in(BEAT, Msg::Tick);
                for _ in 0..self.balls {
                    ctx.send(self.next, Msg::Ball(self.ticks));
                }
                if let Some(deed) = self.deed {
                    match self.ticks {
                        DEED_AT => self.commit(deed, ctx),
                        ticks if ticks + 1 == DEED_AT => ctx.send(AgentId::MAIN, Msg::Soon),
                        _ => {}
                    }
                }
            }
            Msg::Ball(ball) => {
                black_box((0..ball % 1_000).fold(ball, u64::wrapping_add));
            }
            Msg::Soon | Msg::Odd(_) => {}
        }
    }

    fn teardown(&mut self, _: &mut Context<'_, Msg>) {
        assert!(
            self.deed != Some(Deed::PanicInTeardown),
            "chaos in teardown"
        );
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let panics = matches!(self.deed, Some(Deed::PanicInDrop | Deed::PanicTwice));
        assert!(!(self.lives && panics), "chaos in drop");
    }
}

impl Player {
    fn commit(&self, deed: Deed, ctx: &mut Context<'_, Msg>) {
        match deed {
            Deed::PanicInUpdate => panic!("chaos in update"),
            Deed::PanicTwice => {
                let _second = Player {
                    next: self.next,
                    elsewhere: self.elsewhere,
                    balls: self.balls,
                    deed: self.deed,
                    ticks: 0,
                    lives: true,
                };
                panic!("chaos in update, and once more");
            }
            Deed::PanicInThread => {
                let panicked = std::thread::spawn(|| panic!("chaos in a thread")).join();
                assert!(panicked.is_err());
            }
            Deed::Exit(code) => exit(code),
            Deed::Abort => abort(),
            Deed::Segfault => {
                // The first only takes away the handler that looks for overflows of the stack.
                for _ in 0..2 {
                    kill_process(getpid(), Signal::SEGV).expect("it is this one");
                }
            }
            Deed::StackOverflow => {
                black_box(dig(1));
            }
            Deed::OutOfMemory => {
                let all = usize::try_from(isize::MAX).expect("positive");
                black_box(Vec::<u8>::with_capacity(black_box(all)));
            }
            Deed::Spin => loop {
                std::hint::spin_loop();
            },
            Deed::TellNobody => ctx.send(AgentId::from("nobody"), Msg::Ball(0)),
            Deed::CannotLeave => ctx.send(self.elsewhere, Msg::Odd(Odd::CannotLeave)),
            Deed::CannotArrive => ctx.send(self.elsewhere, Msg::Odd(Odd::CannotArrive)),
            Deed::FloodStderr => {
                let line = [b"chaos ".repeat(16), vec![b'\n']].concat();
                let mut stderr = std::io::stderr();
                (0..FLOOD).for_each(|_| stderr.write_all(&line).expect("somebody reads"));
            }
            Deed::FloodMain => (0..FLOOD).for_each(|_| ctx.send(AgentId::MAIN, Msg::Ball(1))),
            Deed::FloodPeer => (0..FLOOD).for_each(|_| ctx.send(self.next, Msg::Ball(1))),
            Deed::LeaveProgram => {
                Command::new("sleep")
                    .arg("1000")
                    .spawn()
                    .expect("there is one");
                exit(7);
            }
            Deed::PanicInSetup
            | Deed::PanicInTeardown
            | Deed::PanicInDrop
            | Deed::EndureSignals => {}
        }
    }
}

/// Takes a page of the stack at each level.
#[expect(unconditional_recursion, reason = "it is there to end badly")]
fn dig(depth: u64) -> u64 {
    let page = black_box([depth; 512]);
    dig(depth + 1) + page[0]
}

pub(crate) fn agents() -> Entered<Msg> {
    Registry::new().with::<Player>().enter()
}

/// The settings of all simulations.
pub(crate) fn defaults(placement: Placement, stage: Stage) -> MpMainBuilder<Msg> {
    MpMain::builder(agents())
        .placement(placement)
        .link(stage.link.into())
        .warning_after(None)
        .digest()
}

/// A simulation of clusters with two players each. The last player does the deed, if there is one;
/// all of them if it is no harm.
pub(crate) fn players(
    placement: Placement,
    stage: Stage,
    deed: Option<Deed>,
) -> Result<MpMain<Msg>, Error> {
    players_with(placement, stage, deed, |settings| settings)
}

/// The same with settings of their own.
pub(crate) fn players_with(
    placement: Placement,
    stage: Stage,
    deed: Option<Deed>,
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> Result<MpMain<Msg>, Error> {
    let Stage {
        clusters, balls, ..
    } = stage;
    let mut main = settings(defaults(placement, stage)).build()?;
    let last = 2 * clusters;
    let schedulers: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    let schedulers = schedulers.into_iter().flat_map(|scheduler| [scheduler; 2]);
    for (number, scheduler) in (1..=last).zip(schedulers) {
        let all = deed == Some(Deed::EndureSignals);
        let player = Player {
            next: AgentId::from(number % last + 1),
            elsewhere: if clusters == 1 {
                AgentId::MAIN
            } else {
                AgentId::from(1)
            },
            balls,
            deed: deed.filter(|_| all || number == last),
            ticks: 0,
            lives: false,
        };
        main.add_to(scheduler, number, player)?;
    }
    Ok(main)
}
