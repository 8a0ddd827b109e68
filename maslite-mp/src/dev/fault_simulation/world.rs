//! The world of a simulated supervisor: links, processes and wall time that are made up, and follow from a seed.
//!
//! Main and the schedulers are the real ones, and so is the protocol of frames. Each has a thread of its own, but one of them works at
//! a time: whoever waits hands the turn to the party whose packet arrives first. Time here passes only while nobody works.
//!
//! ```text
//! MpMain ── Framed ── End ─┐                            ┌─ End ── Framed ── MpScheduler
//!                          ├─ two ways, packets by time ┤
//!                          └─ World: turn, time, deaths ┘
//! ```
//!
//! It does what the supervisor of real processes does: a death closes the link of its child, has the others killed and is the reason
//! that main hears of; and where nobody can move any more, the limit on answers is what ends it.
//!
//! **Invariant:** whatever is drawn by chance is drawn by whoever has the turn. So a seed always gives the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maslite_core::{AgentId, AgentRng};
use rand::RngExt;

use super::faults::{Fault, Plan};
use super::lies::{Liar, Lies};
use crate::cluster::mp_scheduler::MpScheduler;
use crate::cluster::registry::WireMessage;
use crate::error::death::{Death, EXIT_LIFELINE_LOST, EXIT_PROTOCOL_MISMATCH, ExitKind};
use crate::error::link::LinkError;
use crate::error::warning::Limit;
use crate::links::frame::{Framed, Packets};
use crate::links::transport::{Draft, Transport, Wait};
use crate::processes::backend::NEWS_LIMIT;
use crate::processes::spawn::ChildSide;
use crate::processes::supervision::{ChildEnd, EndKind, Failure};
use crate::protocol::wire::{self, Task, ToProc};

/// How long main waits for an answer that does not come.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long the test waits for whoever has the turn. Nobody works for so long: it would be a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Process ids of the children begin here.
const FIRST_PID: u32 = 1_000;

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
    /// A run that goes on when so many packets have been sent is interrupted.
    pub(crate) interrupts: BTreeSet<u64>,
}

/// Who works, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Party {
    Main,
    Child(usize),
}

/// What a party waits for.
#[derive(Clone, Copy, Debug)]
enum Waits {
    /// A packet on a link.
    Packet(usize),
    /// News of a death, until then.
    News(u64),
    /// The end of all children.
    Ends,
}

/// Something that happens by itself.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A child is killed, by us or not.
    Kill { place: usize, by_us: bool },
    /// A child learns that its grants up to a number are interrupted.
    Interrupt(usize, u64),
    /// The grace for those that were told to stop is over.
    GraceIsOver,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Way {
    /// By arrival, and the order in which they were sent; none is a failure of the carrier.
    packets: BTreeMap<(u64, u64), Option<Vec<u8>>>,
    /// When the last one arrives that none may overtake.
    last: u64,
    closed: bool,
}

#[derive(Debug)]
struct Child {
    name: String,
    pid: u32,
    to_proc: Way,
    to_main: Way,
    interrupts: Arc<AtomicU64>,
    waits: bool,
    /// How its process ended. Its thread may have to find out yet.
    end: Option<EndKind>,
    thread: Option<JoinHandle<()>>,
    is_over: bool,
    bell: Arc<Condvar>,
}

#[derive(Debug)]
struct State {
    nature: Nature,
    turn: Party,
    main_waits: Option<Waits>,
    /// [µs]
    now: u64,
    sequence: u64,
    chance: AgentRng,
    packets: u64,
    /// How many messages main has taken in.
    heard: u64,
    struck: Vec<(String, Fault)>,
    events: BTreeMap<(u64, u64), Event>,
    children: Vec<Child>,
    grants: u64,
    running: bool,
    interrupted: bool,
    expecting_exits: bool,
    failure: Option<Failure>,
    deaths: Vec<Death>,
    tasks: BTreeMap<&'static str, u64>,
}

/// What there is between main and its clusters.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    bell: Condvar,
}

/// What happened in a world.
#[derive(Debug, PartialEq)]
pub(crate) struct Chronicle {
    /// How many packets were sent.
    pub(crate) packets: u64,
    /// How many messages main took in.
    pub(crate) heard: u64,
    /// The faults that came about, with the names of the clusters whose links they struck.
    pub(crate) struck: Vec<(String, Fault)>,
    /// How often each task was granted.
    pub(crate) tasks: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(nature: Nature) -> Arc<Self> {
        let chance = AgentRng::new(nature.seed, AgentId::from(0));
        Arc::new(Self {
            state: Mutex::new(State {
                nature,
                turn: Party::Main,
                main_waits: None,
                now: 0,
                sequence: 0,
                chance,
                packets: 0,
                heard: 0,
                struck: Vec::new(),
                events: BTreeMap::new(),
                children: Vec::new(),
                grants: 0,
                running: false,
                interrupted: false,
                expecting_exits: false,
                failure: None,
                deaths: Vec::new(),
                tasks: BTreeMap::new(),
            }),
            bell: Condvar::new(),
        })
    }

    /// Starts a child. Returns main's end of its link, and its process id.
    pub(crate) fn start<M: WireMessage>(
        self: &Arc<Self>,
        name: &str,
        scheduler: MpScheduler<M>,
    ) -> (Box<dyn Transport>, u32) {
        let interrupts = Arc::new(AtomicU64::new(0));
        let mut state = self.lock();
        let (place, frame_limit) = (state.children.len(), state.nature.frame_limit);
        let pid = FIRST_PID + u32::try_from(place).unwrap_or(0);
        state.children.push(Child {
            name: name.to_owned(),
            pid,
            to_proc: Way::default(),
            to_main: Way::default(),
            interrupts: Arc::clone(&interrupts),
            waits: true,
            end: None,
            thread: None,
            is_over: false,
            bell: Arc::default(),
        });
        let end = |party| {
            let world = Arc::clone(self);
            let end = End {
                world,
                party,
                place,
            };
            Framed::new(end, frame_limit, Wait::default())
        };
        let link = Witness {
            link: end(Party::Child(place)),
            world: Arc::clone(self),
        };
        let number = u32::try_from(place).unwrap_or(0);
        let side = ChildSide::in_memory(Box::new(link), interrupts, number);
        let world = Arc::clone(self);
        let live = move || {
            let code = catch_unwind(AssertUnwindSafe(|| scheduler.run(side)));
            world.exited(place, code.ok());
        };
        let thread = thread::Builder::new().name(format!("cluster {name}"));
        state.children[place].thread = thread.spawn(live).ok();
        let world = Arc::clone(self);
        let link = Liar::new(Box::new(end(Party::Main)), move || world.next_lie());
        (Box::new(link), pid)
    }

    /// What of the next message that main takes in is to be a lie, if anything is.
    fn next_lie(&self) -> Option<u64> {
        let mut state = self.lock();
        let number = state.heard;
        state.heard += 1;
        state.nature.lies.remove(&number)
    }

    // ---- what the supervisor of processes does

    pub(crate) fn begin_run(&self) {
        let mut state = self.lock();
        state.running = true;
        state.interrupted = false;
    }

    pub(crate) fn end_run(&self) {
        self.lock().running = false;
    }

    pub(crate) fn issue(&self) -> u64 {
        let mut state = self.lock();
        state.grants += 1;
        state.grants
    }

    pub(crate) fn interrupted(&self) -> bool {
        let state = self.lock();
        state.running && state.interrupted
    }

    /// Why the children were stopped, if that becomes known in time.
    pub(crate) fn first_death(&self, limit: Duration) -> Option<Failure> {
        let mut state = self.lock();
        if state.failure.is_none() && !limit.is_zero() {
            let until = state.now + micros(NEWS_LIMIT);
            state = self.wait(state, Waits::News(until));
        }
        state.failure.clone()
    }

    pub(crate) fn post_mortem(&self) -> Vec<Death> {
        self.lock().deaths.clone()
    }

    pub(crate) fn expect_exits(&self) {
        self.lock().expecting_exits = true;
    }

    /// Has the children that were told to stop killed after a while.
    pub(crate) fn give(&self, grace: Duration) {
        let mut state = self.lock();
        let end = state.now + micros(grace);
        state.happen(end, Event::GraceIsOver);
    }

    /// Waits for the end of all children.
    pub(crate) fn ends(&self) -> Vec<ChildEnd> {
        let mut state = self.lock();
        if state.children.iter().any(|child| !child.is_over) {
            state = self.wait(state, Waits::Ends);
        }
        let children = (0..).zip(&state.children);
        let ends = children.map(|(cluster, child)| ChildEnd {
            cluster,
            pid: child.pid,
            how: child.end.unwrap_or(EndKind::Leaked),
            took: Duration::ZERO,
            stderr: String::new(),
        });
        let ends = ends.collect();
        let threads = state.children.iter_mut();
        let threads: Vec<_> = threads.filter_map(|child| child.thread.take()).collect();
        drop(state);
        for thread in threads {
            let _ = thread.join();
        }
        ends
    }

    /// Kills all children, and returns when they are gone.
    pub(crate) fn kill_all(&self) {
        self.lock().kill_all();
        self.ends();
    }

    /// What happened until now.
    pub(crate) fn chronicle(&self) -> Chronicle {
        let state = self.lock();
        Chronicle {
            packets: state.packets,
            heard: state.heard,
            struck: state.struck.clone(),
            tasks: state.tasks.clone(),
        }
    }

    // ---- turns

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the turn on, and waits until it comes back to main.
    fn wait<'s>(&self, mut state: MutexGuard<'s, State>, what: Waits) -> MutexGuard<'s, State> {
        state.main_waits = Some(what);
        state.pass_on(&self.bell);
        let waiting = |state: &mut State| state.turn != Party::Main;
        let (mut state, timeout) = self
            .bell
            .wait_timeout_while(state, PATIENCE, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "a cluster does not come to rest");
        state.main_waits = None;
        state
    }

    /// The same for a child.
    fn wait_in_child<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        place: usize,
    ) -> MutexGuard<'s, State> {
        // At first it has not had the turn yet.
        if state.turn == Party::Child(place) {
            state.children[place].waits = true;
            state.pass_on(&self.bell);
        }
        let bell = Arc::clone(&state.children[place].bell);
        let waiting = |state: &mut State| state.turn != Party::Child(place);
        let mut state = bell
            .wait_while(state, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state.children[place].waits = false;
        state
    }

    /// A child's thread has come to its end, with a code unless it panicked.
    fn exited(&self, place: usize, code: Option<i32>) {
        let mut state = self.lock();
        let exit = match code {
            Some(0) => ExitKind::Success,
            Some(EXIT_LIFELINE_LOST) => ExitKind::LifelineLost,
            Some(EXIT_PROTOCOL_MISMATCH) => ExitKind::ProtocolMismatch,
            Some(code) => ExitKind::Code(code),
            None => ExitKind::Panic,
        };
        state.die(place, exit, false);
        state.children[place].is_over = true;
        state.pass_on(&self.bell);
    }

    // ---- packets

    fn send(&self, party: Party, place: usize, packet: &[u8]) -> Result<(), LinkError> {
        let mut state = self.lock();
        let gone = state.children[place].end.is_some();
        if gone || state.way(party, place).closed {
            return Err(LinkError::Disconnected);
        }
        let number = state.packets;
        state.packets += 1;
        if state.running && state.nature.interrupts.contains(&number) {
            state.interrupt();
        }
        let Some(fault) = state.nature.faults.remove(&number) else {
            state.carry(party, place, Some(packet.to_vec()), 0);
            return Ok(());
        };
        let name = state.children[place].name.clone();
        state.struck.push((name, fault));
        let mut packet = packet.to_vec();
        fault.mangle(&mut packet);
        match fault {
            Fault::Lost => {}
            Fault::Failed => state.carry(party, place, None, 0),
            Fault::Repeated => {
                state.carry(party, place, Some(packet.clone()), 0);
                state.carry(party, place, Some(packet), 0);
            }
            Fault::Late(delay) => state.carry(party, place, Some(packet), delay),
            Fault::Flipped(_) | Fault::Shortened(_) | Fault::Lengthened(_) => {
                state.carry(party, place, Some(packet), 0);
            }
            Fault::KilledBefore => {
                state.die(place, ExitKind::Signal(9), false);
                return Err(LinkError::Disconnected);
            }
            Fault::KilledAfter => {
                state.carry(party, place, Some(packet), 0);
                state.die(place, ExitKind::Signal(9), false);
            }
            Fault::KilledLater(delay) => {
                state.carry(party, place, Some(packet), 0);
                let at = state.now + delay;
                let by_us = false;
                state.happen(at, Event::Kill { place, by_us });
            }
            Fault::Closed => {
                state.carry(party, place, Some(packet), 0);
                let child = &mut state.children[place];
                child.to_proc.closed = true;
                child.to_main.closed = true;
            }
        }
        Ok(())
    }

    /// The next packet for a party; none if it would have to wait for it.
    fn look(&self, party: Party, place: usize) -> Result<Option<Vec<u8>>, LinkError> {
        self.lock().take(party, place)
    }

    fn recv(&self, party: Party, place: usize) -> Result<Vec<u8>, LinkError> {
        let mut state = self.lock();
        if state.turn != party {
            state = self.wait_in_child(state, place);
        }
        loop {
            if let Some(packet) = state.take(party, place)? {
                return Ok(packet);
            }
            state = match party {
                Party::Main => self.wait(state, Waits::Packet(place)),
                Party::Child(_) => self.wait_in_child(state, place),
            };
        }
    }
}

impl State {
    /// Gives the turn to whoever is next. Those that wait find out.
    fn pass_on(&mut self, main: &Condvar) {
        self.turn = self.next();
        match self.turn {
            Party::Main => main.notify_one(),
            Party::Child(place) => self.children[place].bell.notify_one(),
        }
    }

    /// Lets time pass until somebody can go on.
    fn next(&mut self) -> Party {
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
                    assert!(tries < 3, "nobody can move, and nothing changes that");
                    self.stand_still();
                }
            }
        }
    }

    /// When those that wait can go on, and in which order if at once.
    fn wakes(&self) -> impl Iterator<Item = (u64, u64, Party)> {
        let main = match self.main_waits {
            Some(Waits::Packet(place)) => self.children[place].to_main.wake(self.now),
            Some(Waits::News(until)) => {
                let known = self.failure.is_some();
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

    /// Nobody can move. Whoever main waits for has not answered in time, then.
    fn stand_still(&mut self) {
        if matches!(self.main_waits, Some(Waits::Packet(_))) && !self.expecting_exits {
            self.now += micros(ANSWER_LIMIT);
            self.failure.get_or_insert(Failure::Stuck {
                limit: Limit::Answer(ANSWER_LIMIT),
                blocker: None,
            });
        }
        self.kill_all();
    }

    fn happen(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn see_to(&mut self, event: Event) {
        match event {
            Event::Kill { place, by_us } => self.die(place, ExitKind::Signal(9), by_us),
            Event::Interrupt(place, number) => {
                let interrupts = &self.children[place].interrupts;
                interrupts.fetch_max(number, Ordering::Relaxed);
            }
            Event::GraceIsOver => self.kill_all(),
        }
    }

    fn kill_all(&mut self) {
        for place in 0..self.children.len() {
            self.die(place, ExitKind::Signal(9), true);
        }
    }

    /// A process ends, if it has not ended before: its link closes, and if that was not expected the others are killed.
    fn die(&mut self, place: usize, exit: ExitKind, by_us: bool) {
        let child = &mut self.children[place];
        if child.end.is_some() {
            return;
        }
        child.end = Some(match exit {
            _ if by_us => EndKind::Killed,
            ExitKind::Success => EndKind::Clean,
            other => EndKind::Failed(other),
        });
        child.to_proc.packets.clear();
        child.to_proc.closed = true;
        child.to_main.closed = true;
        if by_us || self.expecting_exits {
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

    /// Interrupts the run: as the supervisor does, first for main and then for the clusters, at the number of the last grant.
    fn interrupt(&mut self) {
        self.interrupted = true;
        for place in 0..self.children.len() {
            let at = self.now + self.latency();
            self.happen(at, Event::Interrupt(place, self.grants));
        }
    }

    fn latency(&mut self) -> u64 {
        self.chance.random_range(0..self.nature.latency)
    }

    /// The way that a party sends on.
    fn way(&mut self, party: Party, place: usize) -> &mut Way {
        let child = &mut self.children[place];
        match party {
            Party::Main => &mut child.to_proc,
            Party::Child(_) => &mut child.to_main,
        }
    }

    /// Has a packet arrive after those before it, or so much later, where others may overtake it.
    fn carry(&mut self, from: Party, place: usize, packet: Option<Vec<u8>>, delay: u64) {
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
    fn take(&mut self, party: Party, place: usize) -> Result<Option<Vec<u8>>, LinkError> {
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
    /// When whoever waits for the next packet can go on.
    fn wake(&self, now: u64) -> Option<(u64, u64)> {
        match self.packets.first_key_value() {
            Some((key, _)) => Some(*key),
            None => self.closed.then_some((now, u64::MAX)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One end of a link.
struct End {
    world: Arc<World>,
    party: Party,
    place: usize,
}

impl Packets for End {
    fn send(&mut self, packet: &[u8]) -> Result<(), LinkError> {
        self.world.send(self.party, self.place, packet)
    }

    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), LinkError> {
        *into = self.world.recv(self.party, self.place)?;
        Ok(())
    }

    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool, LinkError> {
        let packet = self.world.look(self.party, self.place)?;
        Ok(packet.map(|packet| *into = packet).is_some())
    }
}

/// A child's end of a link, of which it is noted what main grants.
struct Witness {
    link: Framed<End>,
    world: Arc<World>,
}

/// Notes what main grants with a message, if it does.
fn note(world: &World, message: &[u8]) {
    if let Ok((ToProc::Grant(grant), _)) = wire::take_note(message) {
        let name = match grant.task {
            Task::Setup { .. } => "setup",
            Task::Rematch => "match",
            Task::Post => "post",
            Task::Fire => "fire",
            Task::SuperstepIfAwake => "step",
            Task::Superstep => "superstep",
            Task::FireAndSuperstep => "fire and step",
            Task::RunAlone { .. } => "solo",
            Task::Answer => "answer",
            Task::Window { .. } => "window",
        };
        *world.lock().tasks.entry(name).or_default() += 1;
    }
}

impl Transport for Witness {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        self.link.draft()
    }

    fn send(&mut self) -> Result<(), LinkError> {
        self.link.send()
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        self.recv_to_answer().map(|(message, _)| message)
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        let Self { link, world } = self;
        let (message, draft) = link.recv_to_answer()?;
        note(world, message);
        Ok((message, draft))
    }

    fn wait_as(&mut self, wait: Wait) {
        self.link.wait_as(wait);
    }
}
