//! The state of a made-up world, and the events that change it: packets arrive, children die, time
//! passes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::Duration;

use maslite_core::AgentRng;
use rand::RngExt;

use super::faults::{Fault, Plan};
use super::lies::Lies;
use crate::error::death::{Death, ExitKind};
use crate::error::link::LinkError;
use crate::error::warning::Limit;
use crate::processes::supervision::{EndKind, Failure};

/// How long main waits for an answer that does not come.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How a world is.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    pub(crate) seed: u64,
    /// Bytes of the longest frame.
    pub(crate) frame_limit: usize,
    /// Packets take less than this [µs].
    pub(crate) latency: u64,
    pub(crate) faults: Plan,
    pub(crate) lies: Lies,
    /// The clusters that are killed, by the number of packets sent before.
    pub(crate) kills: BTreeMap<u64, Vec<usize>>,
    /// The processes that die before they have a link, by their numbers over all starts.
    pub(crate) stillborn: BTreeSet<u64>,
    /// The numbers of packets after which the run at hand is interrupted.
    pub(crate) interrupts: BTreeSet<u64>,
}

/// Who works, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    Main,
    Child(usize),
}

/// What a party waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    /// A packet on a link.
    Packet(usize),
    /// News of a death, until then.
    News(u64),
    /// The end of a child, until then.
    End(usize, u64),
    /// The end of all children.
    Ends,
}

/// Something that happens by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A child is killed, by us or not.
    Kill { place: usize, by_us: bool },
    /// A child learns that its grants up to a number are interrupted.
    Interrupt(usize, u64),
    /// The grace for those that were told to stop is over.
    GraceIsOver,
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// By arrival, and the order in which they were sent; none is a failure of the carrier.
    pub(super) packets: BTreeMap<(u64, u64), Option<Vec<u8>>>,
    /// When the last one arrives that none may overtake.
    pub(super) last: u64,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) cluster: usize,
    pub(super) exit: Option<ExitKind>,
    /// Main knows of its end, and has gone on without it.
    pub(super) is_buried: bool,
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) to_proc: Way,
    pub(super) to_main: Way,
    pub(super) interrupts: Arc<AtomicU64>,
    pub(super) waits: bool,
    /// How its process ended. Its thread may have to find out yet.
    pub(super) end: Option<EndKind>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) is_over: bool,
    pub(super) bell: Arc<Condvar>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) nature: Nature,
    pub(super) turn: Party,
    pub(super) main_waits: Option<Waits>,
    /// [µs]
    pub(super) now: u64,
    pub(super) sequence: u64,
    pub(super) chance: AgentRng,
    pub(super) packets: u64,
    /// How many messages main has taken in.
    pub(super) heard: u64,
    pub(super) struck: Vec<(String, Fault)>,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) children: Vec<Child>,
    pub(super) grants: u64,
    pub(super) running: bool,
    pub(super) interrupted: bool,
    pub(super) expecting_exits: bool,
    pub(super) failure: Option<Failure>,
    pub(super) deaths: Vec<Death>,
    /// The clusters whose deaths are their own matter.
    pub(super) contained: Vec<bool>,
    /// How many processes were started.
    pub(super) starts: u64,
    /// The last grant that was interrupted.
    pub(super) interrupted_up_to: u64,
    pub(super) tasks: BTreeMap<&'static str, u64>,
}

impl State {
    /// Gives the turn to the party that is next, and wakes it.
    pub(super) fn pass_on(&mut self, main: &Condvar) {
        self.turn = self.next();
        match self.turn {
            Party::Main => main.notify_one(),
            Party::Child(place) => self.children[place].bell.notify_one(),
        }
    }

    /// Lets time pass until a party can go on.
    pub(super) fn next(&mut self) -> Party {
        let mut tries = 0;
        loop {
            let wake = self.wakes().min();
            let event = self.events.first_key_value().map(|(key, _)| *key);
            match (wake, event) {
                (Some((time, _, party)), event) if event.is_none_or(|(at, _)| time < at) => {
                    self.now = self.now.max(time);
                    return party;
                }
                (_, Some(_)) => {
                    if let Some(((at, _), event)) = self.events.pop_first() {
                        self.now = self.now.max(at);
                        self.see_to(event);
                    }
                }
                _ => {
                    tries += 1;
                    assert!(tries < 3, "no party can move, and nothing changes that");
                    self.stand_still();
                }
            }
        }
    }

    /// When those that wait can go on, and in which order if at once.
    pub(super) fn wakes(&self) -> impl Iterator<Item = (u64, u64, Party)> {
        let main = match self.main_waits {
            Some(Waits::Packet(place)) => self.children[place].to_main.wake(self.now),
            Some(Waits::News(until)) => {
                let known = self.failure.is_some();
                Some((if known { self.now } else { until }, u64::MAX))
            }
            Some(Waits::End(place, until)) => {
                let known = self.failure.is_some() || self.children[place].end.is_some();
                Some((if known { self.now } else { until }, u64::MAX))
            }
            Some(Waits::Ends) => {
                let all = self.children.iter().all(|child| child.is_over);
                all.then_some((self.now, u64::MAX))
            }
            None => None,
        };
        let main = main.map(|(time, order)| (time, order, Party::Main));
        let children = self.children.iter().enumerate();
        let children = children.filter_map(|(place, child)| {
            let waits = child.waits && !child.is_over;
            let (time, order) = waits.then(|| child.to_proc.wake(self.now))??;
            Some((time, order, Party::Child(place)))
        });
        main.into_iter().chain(children)
    }

    /// No party can move: the cluster that main waits for has not answered in time.
    pub(super) fn stand_still(&mut self) {
        if matches!(self.main_waits, Some(Waits::Packet(_))) && !self.expecting_exits {
            self.now += micros(ANSWER_LIMIT);
            self.failure.get_or_insert(Failure::Stuck {
                limit: Limit::Answer(ANSWER_LIMIT),
                blocker: None,
            });
        }
        self.kill_all();
    }

    pub(super) fn happen(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    pub(super) fn see_to(&mut self, event: Event) {
        match event {
            Event::Kill { place, by_us } => self.die(place, ExitKind::Signal(9), by_us),
            Event::Interrupt(place, number) => {
                let interrupts = &self.children[place].interrupts;
                interrupts.fetch_max(number, Ordering::Relaxed);
            }
            Event::GraceIsOver => self.kill_all(),
        }
    }

    pub(super) fn kill_all(&mut self) {
        for place in 0..self.children.len() {
            self.die(place, ExitKind::Signal(9), true);
        }
    }

    /// The process that a cluster has now is killed.
    pub(super) fn kill(&mut self, cluster: usize) {
        let place = self
            .children
            .iter()
            .rposition(|child| child.cluster == cluster);
        if let Some(place) = place {
            self.die(place, ExitKind::Signal(9), false);
        }
    }

    /// A process ends, if it has not ended before: its link closes, and if that was not expected
    /// the others are killed.
    pub(super) fn die(&mut self, place: usize, exit: ExitKind, by_us: bool) {
        let child = &mut self.children[place];
        if child.end.is_some() {
            return;
        }
        child.end = Some(match exit {
            _ if by_us => EndKind::Killed,
            ExitKind::Success => EndKind::Clean,
            other => EndKind::Failed(other),
        });
        child.exit = Some(exit);
        child.to_proc.packets.clear();
        child.to_proc.closed = true;
        child.to_main.closed = true;
        let is_contained = self.contained.get(child.cluster).copied().unwrap_or(false);
        if by_us || self.expecting_exits || is_contained {
            return;
        }
        let (name, pid) = (child.name.clone(), child.pid);
        self.deaths.push(Death::bare(name.clone(), pid, exit));
        if self.failure.is_none() {
            self.failure = Some(Failure::Died {
                cluster: u32::try_from(place).unwrap_or(0),
                name,
                pid,
                exit,
            });
            for place in 0..self.children.len() {
                let at = self.now + self.latency();
                let by_us = true;
                self.happen(at, Event::Kill { place, by_us });
            }
        }
    }

    /// Interrupts the run: as the supervisor does, first for main and then for the clusters, at the
    /// number of the last grant.
    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
        self.interrupted_up_to = self.grants;
        for place in 0..self.children.len() {
            let at = self.now + self.latency();
            self.happen(at, Event::Interrupt(place, self.grants));
        }
    }

    pub(super) fn latency(&mut self) -> u64 {
        self.chance.random_range(0..self.nature.latency)
    }

    /// The way that a party sends on.
    pub(super) fn way(&mut self, party: Party, place: usize) -> &mut Way {
        let child = &mut self.children[place];
        match party {
            Party::Main => &mut child.to_proc,
            Party::Child(_) => &mut child.to_main,
        }
    }

    /// Has a packet arrive after those before it, or `delay` later, where others may overtake it.
    pub(super) fn carry(&mut self, from: Party, place: usize, packet: Option<Vec<u8>>, delay: u64) {
        let arrival = self.now + self.latency();
        self.sequence += 1;
        let sequence = self.sequence;
        let way = self.way(from, place);
        let arrival = arrival.max(way.last);
        if delay == 0 {
            way.last = arrival;
        }
        way.packets.insert((arrival + delay, sequence), packet);
    }

    /// A packet that has arrived for a party.
    pub(super) fn take(
        &mut self,
        party: Party,
        place: usize,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let now = self.now;
        let child = &mut self.children[place];
        let way = match party {
            Party::Main => &mut child.to_main,
            Party::Child(_) => &mut child.to_proc,
        };
        match way.packets.first_entry() {
            Some(packet) if packet.key().0 <= now => match packet.remove() {
                None => Err(io::Error::other("the carrier failed").into()),
                packet => Ok(packet),
            },
            None if way.closed => Err(LinkError::Disconnected),
            _ => Ok(None),
        }
    }
}

impl Way {
    /// When the party that waits for the next packet can go on.
    pub(super) fn wake(&self, now: u64) -> Option<(u64, u64)> {
        match self.packets.first_key_value() {
            Some((key, _)) => Some(*key),
            None => self.closed.then_some((now, u64::MAX)),
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
