//! The world of a simulated supervisor: links, processes and wall time that are made up, and follow
//! from a seed.
//!
//! Main and the schedulers are the real ones, and so is the protocol of frames. Each has a thread
//! of its own, but one of them works at a time: a party that waits hands the turn to the party
//! whose packet arrives first. Time here passes only while no party works.
//!
//! ```text
//! MpMain ── Framed ── End ─┐                            ┌─ End ── Framed ── MpScheduler
//!                          ├─ two ways, packets by time ┤
//!                          └─ World: turn, time, deaths ┘
//! ```
//!
//! It does what the supervisor of real processes does: a death closes the link of its child, has
//! the others killed and is the reason that main hears of; and where no party can move any more,
//! the limit on answers ends the run.
//!
//! **Invariant:** only the party that has the turn draws random numbers. So a seed always gives the
//! same events.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use maslite_core::internal::LockEvenPoisoned;
use maslite_core::{AgentId, AgentRng};

use super::events::{Child, Event, Nature, Party, State, Waits, Way, micros};
use super::faults::Fault;
use super::lies::Liar;
use crate::cluster::mp_scheduler::MpScheduler;
use crate::cluster::registry::WireMessage;
use crate::error::death::{Death, EXIT_LIFELINE_LOST, EXIT_PROTOCOL_MISMATCH, ExitKind};
use crate::error::link::LinkError;
use crate::links::frame::{Framed, Packets};
use crate::links::transport::{Draft, Transport, Wait};
use crate::processes::spawn::ChildSide;
use crate::processes::supervision::{ChildEnd, EndKind, Failure};
use crate::protocol::wire::{self, Task, ToProc};
use crate::settings::timing::END_NEWS_LIMIT;

/// How long the test waits for the party that has the turn. No party works for that long: it would
/// be a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Process ids of the children begin here.
const FIRST_PID: u32 = 1_000;

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
    /// How many processes there were.
    pub(crate) processes: usize,
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
                contained: Vec::new(),
                starts: 0,
                interrupted_up_to: 0,
                tasks: BTreeMap::new(),
            }),
            bell: Condvar::new(),
        })
    }

    /// Whether the process that is to start dies before it has a link.
    pub(crate) fn is_stillborn(&self) -> bool {
        let mut state = self.lock();
        let number = state.starts;
        state.starts += 1;
        state.nature.stillborn.contains(&number)
    }

    /// Starts a child. Returns main's end of its link, and its process id.
    pub(crate) fn start<M: WireMessage>(
        self: &Arc<Self>,
        cluster: usize,
        name: &str,
        scheduler: MpScheduler<M>,
    ) -> (Box<dyn Transport>, u32) {
        let mut state = self.lock();
        // A new process of a cluster is told of the interrupt that the lost one was told of.
        let interrupts = Arc::new(AtomicU64::new(state.interrupted_up_to));
        let (place, frame_limit) = (state.children.len(), state.nature.frame_limit);
        let pid = FIRST_PID + u32::try_from(place).unwrap_or(0);
        state.children.push(Child {
            cluster,
            exit: None,
            is_buried: false,
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
        let number = u32::try_from(cluster).unwrap_or(0);
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
            let until = state.now + micros(END_NEWS_LIMIT);
            state = self.wait(state, Waits::News(until));
        }
        state.failure.clone()
    }

    pub(crate) fn contain_deaths(&self, contained: &[bool]) {
        self.lock().contained = contained.to_vec();
    }

    /// Ends what is left of a child whose link is broken, and tells how it died.
    pub(crate) fn reap_lost(&self, pid: u32) -> Option<Death> {
        let mut state = self.lock();
        let place = state.children.iter().position(|child| child.pid == pid)?;
        if state.failure.is_none() && state.children[place].end.is_none() {
            let until = state.now + micros(END_NEWS_LIMIT);
            state = self.wait(state, Waits::End(place, until));
        }
        if state.failure.is_some() {
            return None;
        }
        state.die(place, ExitKind::NoAnswer, true);
        let child = &mut state.children[place];
        child.is_buried = true;
        let exit = child.exit.unwrap_or(ExitKind::Unknown);
        Some(Death::bare(child.name.clone(), pid, exit))
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
        let mut children: Vec<_> = state.children.iter().collect();
        children.retain(|child| !child.is_buried);
        children.sort_by_key(|child| child.cluster);
        let ends = children.into_iter().map(|child| ChildEnd {
            cluster: u32::try_from(child.cluster).unwrap_or(0),
            pid: child.pid,
            how: child.end.unwrap_or(EndKind::Leaked),
            took: Duration::ZERO,
            stderr: String::new(),
        });
        let ends: Vec<ChildEnd> = ends.collect();
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
            processes: state.children.len(),
            heard: state.heard,
            struck: state.struck.clone(),
            tasks: state.tasks.clone(),
        }
    }

    // ---- turns

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_even_poisoned()
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
        if let Some(clusters) = state.nature.kills.remove(&number) {
            clusters.iter().for_each(|cluster| state.kill(*cluster));
            if state.children[place].end.is_some() {
                return Err(LinkError::Disconnected);
            }
        }
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
            Task::Speculate { .. } => "ahead",
            Task::Withdraw => "withdraw",
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
