//! Where other threads leave what they want of a simulation, and read how it stands.
//!
//! ```text
//! Controller ─┐             ┌── taken between two supersteps ──► the thread that runs
//! Controller ─┼── orders ── Console
//! StopHandle ─┘             └── board: how it stands, read at once
//! ```
//!
//! A raised flag is all that a run looks at. Raising it also makes the grants under way end after
//! their superstep, so that the run comes to the console; an agent at work is not interrupted. There is
//! no grace for that: only who stops a run has its clusters count as stuck.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use maslite_core::clock::wall;
use maslite_core::engine::Signal;
use maslite_core::{AgentId, Receiver, SimTime, StopReason};
use serde::{Deserialize, Serialize};

use crate::commands::{ControlError, Replies, Scope};
use crate::supervision::Holder;

/// Where a steered run has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Halt {
    /// It is paused: all clusters stand at this instant, between two supersteps.
    Paused(SimTime),
    /// It has ended there, for this reason.
    Ended(SimTime, StopReason),
}

impl Halt {
    /// The instant at which all clusters stand.
    #[must_use]
    pub fn time(self) -> SimTime {
        match self {
            Self::Paused(time) | Self::Ended(time, _) => time,
        }
    }
}

/// What is wanted of a run.
pub(crate) enum Order {
    Pause(Sender<Halt>),
    Resume,
    /// Go so far, and pause.
    Go(Stretch, Sender<Halt>),
    Ask {
        scope: Scope,
        request: Vec<u8>,
        reply: Sender<Result<Replies, ControlError>>,
    },
    Send {
        mail: EncodedMail,
        reply: Sender<Result<SimTime, ControlError>>,
    },
}

/// How far to go before the next pause.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stretch {
    Supersteps(u64),
    NextInstant,
    Until(SimTime),
}

/// Mail of the simulation's owner.
pub(crate) struct EncodedMail {
    pub(crate) sender: AgentId,
    pub(crate) receiver: Receiver,
    pub(crate) body: Vec<u8>,
}

/// What a run at the console is to do next.
pub(crate) enum Next {
    Do(Order),
    GoOn,
    Stop,
}

/// What makes the clusters come to rest after the superstep they are in.
pub(crate) enum Brake {
    Inline(Arc<Signal>),
    Processes(Holder),
}

impl Brake {
    /// For a moment, and with patience.
    fn touch(&self) {
        match self {
            Self::Inline(signal) => signal.raise(Signal::CALL),
            Self::Processes(holder) => holder.call(),
        }
    }

    fn pull(&self) {
        match self {
            Self::Inline(signal) => signal.raise(Signal::STOP),
            Self::Processes(holder) => holder.hold_now(),
        }
    }

    fn let_go(&self) {
        match self {
            Self::Inline(signal) => signal.lower(Signal::CALL),
            // A call concerns the grants that were under way, and no later ones.
            Self::Processes(_) => {}
        }
    }
}

/// The console of one simulation.
#[derive(Default)]
pub(crate) struct Console {
    /// Somebody wants something.
    raised: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    pub(crate) board: Board,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    stop: bool,
    /// There while a run goes on.
    brake: Option<Brake>,
    /// The thread that runs.
    runner: Option<ThreadId>,
    /// The run is at the console, and its clusters are at rest.
    attended: bool,
    /// How many controllers there are.
    controllers: usize,
    /// There will be no run any more.
    over: Option<ControlError>,
    /// The clusters' processes, once there are any.
    children: Option<Holder>,
    interrupted: Interrupted,
}

/// How far signals have got with this simulation.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Interrupted {
    #[default]
    No,
    Stopped,
    Killed,
}

impl Console {
    /// Whether somebody wants something. A grant is numbered before this is asked, and whoever wants
    /// something raises the flag before the last number is looked up: so either the grant is not
    /// sent, or it ends after its superstep.
    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Leaves an order.
    ///
    /// # Errors
    /// [`ControlError`], if there is nobody who could see to it.
    pub(crate) fn leave(&self, order: Order) -> Result<(), ControlError> {
        let mut state = self.lock();
        if let Some(why) = &state.over {
            return Err(why.clone());
        }
        if state.runner == Some(std::thread::current().id()) {
            return Err(ControlError::OwnThread);
        }
        state.orders.push_back(order);
        if !self.raised.swap(true, Ordering::SeqCst)
            && !state.attended
            && let Some(brake) = &state.brake
        {
            brake.touch();
        }
        drop(state);
        self.wake.notify_all();
        Ok(())
    }

    /// Ends the run that goes on, or the next one.
    pub(crate) fn stop(&self) {
        self.stop_in(&mut self.lock());
    }

    fn stop_in(&self, state: &mut State) {
        state.stop = true;
        self.raised.store(true, Ordering::SeqCst);
        if let Some(brake) = &state.brake {
            brake.pull();
        }
        self.wake.notify_all();
    }

    /// A signal for the simulation: the first stops it, the second kills its processes. False if it has no
    /// use for one.
    pub(crate) fn interrupt(&self) -> bool {
        let mut state = self.lock();
        match state.interrupted {
            Interrupted::No => {
                state.interrupted = Interrupted::Stopped;
                self.stop_in(&mut state);
            }
            Interrupted::Stopped => {
                state.interrupted = Interrupted::Killed;
                if let Some(children) = &state.children {
                    children.kill_all();
                }
            }
            Interrupted::Killed => return false,
        }
        true
    }

    /// Makes the clusters' processes known, so that they can be killed.
    pub(crate) fn set_children(&self, children: Holder) {
        self.lock().children = Some(children);
    }

    /// The simulation has ended: signals are not for it any more.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.children = None;
        state.interrupted = Interrupted::Killed;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Has the next run begin with a pause.
    pub(crate) fn pause_at_the_start(&self) {
        let (nobody, _) = std::sync::mpsc::channel();
        self.lock().orders.push_front(Order::Pause(nobody));
        self.raised.store(true, Ordering::SeqCst);
    }

    pub(crate) fn begin_run(&self, brake: Brake) {
        let mut state = self.lock();
        if state.stop {
            brake.pull();
        } else {
            state.interrupted = Interrupted::No;
        }
        state.brake = Some(brake);
        state.runner = Some(std::thread::current().id());
        self.board.show(Phase::Running);
    }

    pub(crate) fn end_run(&self) {
        let mut state = self.lock();
        state.brake = None;
        state.runner = None;
        state.stop = false;
        state.attended = false;
        self.raised
            .store(!state.orders.is_empty(), Ordering::SeqCst);
        self.board.show(Phase::Resting);
    }

    /// There will be no further run: whoever waits or comes later is told why.
    pub(crate) fn close(&self, why: ControlError) {
        let mut state = self.lock();
        state.over.get_or_insert(why);
        // Who has left an order sees it dropped.
        state.orders.clear();
        state.brake = None;
        state.runner = None;
        self.board.show(Phase::Ended);
    }

    /// Why there is no answer to an order that was dropped.
    pub(crate) fn why_over(&self) -> ControlError {
        self.lock().over.clone().unwrap_or(ControlError::Ended)
    }

    /// What to do next, for a run whose clusters are at rest. If it is paused, waits for orders until
    /// `deadline`; but not for orders that nobody can give.
    pub(crate) fn next(&self, paused: bool, deadline: Option<Instant>) -> Next {
        let mut state = self.lock();
        state.attended = true;
        loop {
            if state.stop {
                return Next::Stop;
            }
            if let Some(order) = state.orders.pop_front() {
                return Next::Do(order);
            }
            self.raised.store(false, Ordering::SeqCst);
            if let Some(brake) = &state.brake {
                brake.let_go();
            }
            if !paused || state.controllers == 0 {
                state.attended = false;
                self.board.show(Phase::Running);
                return Next::GoOn;
            }
            state = match deadline.map(|until| until.saturating_duration_since(wall())) {
                Some(Duration::ZERO) => return Next::Stop,
                Some(rest) => {
                    let waited = self.wake.wait_timeout(state, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.wake.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// The orders that are left at the end of a run.
    pub(crate) fn take_left(&self) -> VecDeque<Order> {
        std::mem::take(&mut self.lock().orders)
    }

    pub(crate) fn admit(&self) {
        self.lock().controllers += 1;
    }

    /// Whether somebody may look at the board. Between two runs controllers come and go; during one
    /// there come only copies of those that are there.
    pub(crate) fn has_controllers(&self) -> bool {
        self.lock().controllers > 0
    }

    pub(crate) fn dismiss(&self) {
        self.lock().controllers -= 1;
        self.wake.notify_all();
    }

    /// The state is consistent at every unlock, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a simulation is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// No run goes on.
    #[default]
    Resting,
    /// A run goes on.
    Running,
    /// A run is paused.
    Paused,
    /// There will be no run any more.
    Ended,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Resting, Self::Running, Self::Paused, Self::Ended];
}

/// How a simulation stands, as far as main knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// The simulated time. While one cluster runs on its own, that of its last report.
    pub time: SimTime,
    /// Supersteps since the simulation began.
    pub supersteps: u64,
    /// The clusters that have been started.
    pub clusters: Vec<ClusterStatus>,
}

/// How a cluster stands, as far as main knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// The process it runs in.
    pub pid: u32,
    /// Where it stood when it last reported.
    pub time: SimTime,
    /// Mail that its agents had taken by then.
    pub delivered: u64,
    /// Main waits for its next report.
    pub at_work: bool,
}

/// What main writes down as it goes if there are controllers, for them to read at once. They see each number as it was
/// a moment ago, not all of one moment.
#[derive(Debug, Default)]
pub(crate) struct Board {
    phase: AtomicU8,
    time: AtomicU64,
    supersteps: AtomicU64,
    clusters: Mutex<Vec<Arc<ClusterBoard>>>,
}

/// The same of one cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterBoard {
    name: String,
    pid: AtomicU32,
    time: AtomicU64,
    delivered: AtomicU64,
    at_work: AtomicBool,
}

impl ClusterBoard {
    pub(crate) fn lives_in(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_at_work(&self, at_work: bool) {
        self.at_work.store(at_work, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn stands(&self, time: SimTime, delivered: u64) {
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.delivered.store(delivered, Ordering::Relaxed);
    }
}

impl Board {
    pub(crate) fn add(&self, name: String) -> Arc<ClusterBoard> {
        let cluster = Arc::new(ClusterBoard {
            name,
            ..ClusterBoard::default()
        });
        self.clusters().push(Arc::clone(&cluster));
        cluster
    }

    #[inline]
    pub(crate) fn stands(&self, time: SimTime, supersteps: u64) {
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.supersteps.store(supersteps, Ordering::Relaxed);
    }

    pub(crate) fn show(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Status {
        let time = |time: &AtomicU64| SimTime::from_nanos(time.load(Ordering::Relaxed));
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        let clusters = self.clusters();
        let clusters = clusters.iter().map(|cluster| ClusterStatus {
            name: cluster.name.clone(),
            pid: cluster.pid.load(Ordering::Relaxed),
            time: time(&cluster.time),
            delivered: cluster.delivered.load(Ordering::Relaxed),
            at_work: cluster.at_work.load(Ordering::Relaxed),
        });
        Status {
            phase: Phase::ALL[phase],
            time: time(&self.time),
            supersteps: self.supersteps.load(Ordering::Relaxed),
            clusters: clusters.collect(),
        }
    }

    fn clusters(&self) -> MutexGuard<'_, Vec<Arc<ClusterBoard>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
