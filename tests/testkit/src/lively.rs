//! The agents, what main does, and what comes of it. Shared with the simulation of faulty links.

use std::sync::{Arc, Mutex};

use maslite_core::Observer;
use maslite_mp::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// How many agents there are at first.
pub const FIRST: u64 = 9;
pub const SEED: u64 = 5;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
pub enum Msg {
    Call(u32),
    News(u32),
    Later(u32),
}

impl Msg {
    fn energy(&self) -> u32 {
        match self {
            Self::Call(energy) | Self::News(energy) | Self::Later(energy) => *energy,
        }
    }
}

/// Does something by chance with whatever it gets, as long as that has energy left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lively {
    born: u64,
    /// How often it may still act without mail.
    restless: u8,
    /// The least delay \[ms\].
    patience: u64,
    /// It mostly sets alarms for itself, and rarely listens: so clusters have long to themselves,
    /// and then hear of each other.
    homely: bool,
}

impl Lively {
    pub fn new(patience: u64) -> Self {
        Self {
            born: 0,
            restless: 2,
            patience,
            homely: false,
        }
    }

    /// One for the story of a seed.
    pub fn of(seed: u64) -> Self {
        Self {
            homely: is_homely(seed),
            ..Self::new(0)
        }
    }

    fn anybody(&self, ctx: &mut Context<'_, Msg>) -> AgentId {
        if self.homely && ctx.rng().random_range(0..8_u32) > 0 {
            return ctx.id();
        }
        AgentId::from(ctx.rng().random_range(1..=FIRST + 1))
    }

    fn act(&mut self, energy: u32, ctx: &mut Context<'_, Msg>) {
        let other = self.anybody(ctx);
        let stays = self.homely && ctx.rng().random_range(0..3_u32) > 0;
        let deed = if stays {
            9
        } else {
            ctx.rng().random_range(0..24_u32)
        };
        match deed {
            0..5 => ctx.send(other, Msg::Call(energy)),
            5..7 => ctx.send_direct(other, Msg::Call(energy)),
            7..9 => ctx.broadcast(Msg::News(energy)),
            9..14 => {
                let delay = ctx.rng().random_range(0..4) + self.patience;
                let alarm = Alarm::after(SimDuration::from_millis(delay)).to(other);
                ctx.set_alarm(alarm, Msg::Later(energy));
            }
            14 => ctx.subscribe(Pattern::topic("News")),
            15 => ctx.subscribe(Pattern::receiver(other)),
            16 => ctx.unsubscribe_all(),
            17..20 => {
                // A new id of its own: the parent's, and how manieth child.
                self.born += 1;
                let id = ctx.id().as_u64() * 40 + self.born + 100;
                if self.born < 40 && id < 1 << 40 {
                    let homely = self.homely;
                    ctx.add(
                        id,
                        Lively {
                            homely,
                            ..Lively::new(self.patience)
                        },
                    );
                    ctx.send(id, Msg::Call(energy));
                }
            }
            20 if ctx.rng().random_range(0..3_u32) == 0 => {
                let leaves = if ctx.rng().random() { ctx.id() } else { other };
                if leaves != AgentId::from(FIRST + 1) {
                    ctx.remove(leaves);
                }
            }
            21 => {
                let keep = ctx.rng().random();
                ctx.keep_awake(keep);
            }
            22 if ctx.rng().random_range(0..4_u32) == 0 => ctx.stop_run(),
            _ => ctx.send(AgentId::MAIN, Msg::News(energy)),
        }
    }
}

impl Agent<Msg> for Lively {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let listens = !self.homely || ctx.rng().random_range(0..16_u32) == 0;
        if listens && ctx.rng().random() {
            ctx.subscribe(Pattern::topic("News"));
        }
        if ctx.id().as_u64() <= 2 {
            self.act(3, ctx);
        }
    }

    fn update(&mut self, ctx: &mut Context<'_, Msg>) {
        // Kept awake, it sometimes acts without mail; and it does not always read all of it.
        let idle = ctx.inbox().next().is_none() && self.restless > 0;
        if idle && ctx.rng().random_range(0..4_u32) == 0 {
            self.restless -= 1;
            ctx.send(AgentId::from(1), Msg::News(0));
        }
        let most = ctx.rng().random_range(1..4);
        for _ in 0..most {
            let Some(mail) = ctx.next_mail() else { return };
            // Copies are read and set nothing off, or there would be no end to it.
            let mine = mail.receiver.agent() == Some(ctx.id());
            let heard = mail.receiver == Receiver::Subscribers && ctx.rng().random();
            if let Some(energy) = mail.body.energy().checked_sub(if mine { 1 } else { 4 })
                && (mine || heard)
            {
                self.act(energy, ctx);
                self.act(energy, ctx);
            }
        }
    }

    fn teardown(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.send(AgentId::from(2), Msg::Call(0));
    }
}

/// What main does with mail: answers some, stops at some.
pub fn handle(heard: &mut u64, mail: Mail<Msg>, main: &mut MainContext<Msg>) {
    *heard += 1;
    if let Some(energy) = mail.body.energy().checked_sub(2)
        && heard.is_multiple_of(3)
    {
        main.send(mail.sender, Msg::Call(energy));
    }
    if heard.is_multiple_of(25) {
        main.stop();
    }
}

/// Whether the agents of the story of a seed keep to themselves.
fn is_homely(seed: u64) -> bool {
    seed % 3 == 2
}

pub fn start(seed: u64) -> Vec<Mail<Msg>> {
    let mail = |to: u64, energy| Mail::new(AgentId::MAIN, AgentId::from(to), Msg::Call(energy));
    if is_homely(seed) {
        return (1..=FIRST).map(|to| mail(to, 5)).collect();
    }
    vec![mail(1, 6), mail(seed % FIRST + 1, 7), mail(FIRST + 1, 1)]
}

/// A split that follows neither the ids nor the order of insertion.
pub fn cluster_of(id: u64, clusters: usize) -> usize {
    usize::try_from(id * 5 + id / 2).unwrap() % clusters
}

/// How the runs ended, the last report, and the trace.
#[derive(Debug, PartialEq)]
pub struct Story {
    pub stops: Vec<String>,
    pub now: SimTime,
    pub counters: Counters,
    pub digest: Option<Digest>,
    pub lost: Vec<String>,
    pub silent: Vec<Topic>,
    pub trace: Vec<String>,
}

/// Goes on after stops and pauses until the simulation is idle.
pub fn tell(lines: &Arc<Mutex<Vec<String>>>, mut run: impl FnMut(&mut u64) -> Report) -> Story {
    let (mut stops, mut heard) = (Vec::new(), 0);
    loop {
        let report = run(&mut heard);
        let counters = report.total;
        let posted = counters.delivered + counters.undeliverable + counters.queued;
        assert_eq!(counters.sent, posted, "{report}");
        stops.push(format!("{} at {}", report.stopped_by, report.now));
        if report.stopped_by == StopReason::Idle {
            return Story {
                stops,
                now: report.now,
                counters,
                digest: report.digest,
                lost: report.lost.iter().map(ToString::to_string).collect(),
                silent: report.silent,
                trace: std::mem::take(&mut lines.lock().unwrap()),
            };
        }
    }
}

pub fn in_one_scheduler(seed: u64) -> Story {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let observer: Observer<Msg> = Box::new(move |delivery| {
        let mut line = String::new();
        delivery.write_json(&mut line);
        written.lock().unwrap().push(line);
    });
    let mut scheduler = Scheduler::builder()
        .seed(SEED + seed)
        .digest()
        .observe(observer)
        .build();
    for id in 1..=FIRST {
        scheduler.add(id, Lively::of(seed)).unwrap();
    }
    start(seed)
        .into_iter()
        .for_each(|mail| scheduler.send_mail(mail));
    tell(&lines, |heard| {
        let run = scheduler.run_with(Run::until_idle(), |mail, main| handle(heard, mail, main));
        run.unwrap()
    })
}

pub fn compare(seed: u64, got: &Story, expected: &Story, of: &str) {
    let lines = (1..).zip(got.trace.iter().zip(&expected.trace));
    for (line, (got, expected)) in lines {
        assert_eq!(got, expected, "line {line} of seed {seed}, {of}");
    }
    assert_eq!(got, expected, "seed {seed}, {of}");
}
