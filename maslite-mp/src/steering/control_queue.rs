//! Where other threads leave what they want of a simulation, and read how it stands.
//!
//! ```text
//! Controller ─┐             ┌── taken between two supersteps ──► the thread that runs
//! Controller ─┼── commands ── ControlQueue
//! StopHandle ─┘             └── snapshot: how it stands, read at once
//! ```
//!
//! A raised flag is all that a run looks at. Raising it also makes the grants under way end after
//! their superstep, so that the run comes to the queue; an agent at work is not interrupted. There
//! is no grace for that: only who stops a run has its clusters count as stuck.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use maslite_core::clock::wall;
use maslite_core::internal::LockEvenPoisoned;
use maslite_core::{AgentId, Receiver, SimTime, StopReason};
use serde::{Deserialize, Serialize};

use crate::cluster::commands::{Replies, Scope};
use crate::error::control::ControlError;
use crate::processes::backend::{Interrupt, Observer};
use crate::settings::timing::LONGEST_LOOK;
use crate::snapshot::saved::Saved;
use crate::stall::detector::MainActivity;
use crate::steering::status::{RunState, Status, StatusSnapshot};

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

/// Hands an answer to the requester, in the thread that has the answer; none if there will be no
/// answer.
type Deliver<T> = Box<dyn FnOnce(Option<T>) + Send>;

/// The answer to an order whose requester waits. Dropped, it tells that there will be none.
pub(crate) struct Promise<T> {
    deliver: Option<Deliver<T>>,
    /// Set once the requester has left.
    gone: Option<Arc<AtomicBool>>,
}

impl<T> Promise<T> {
    pub(crate) fn new(
        deliver: impl FnOnce(Option<T>) + Send + 'static,
        gone: Arc<AtomicBool>,
    ) -> Self {
        Self {
            deliver: Some(Box::new(deliver)),
            gone: Some(gone),
        }
    }

    /// The answer to an order whose requester does not wait.
    pub(crate) fn to_nobody() -> Self {
        Self {
            deliver: None,
            gone: None,
        }
    }

    pub(crate) fn keep(mut self, answer: T) {
        if let Some(deliver) = self.deliver.take() {
            deliver(Some(answer));
        }
    }

    /// Whether the requester may still want the answer.
    pub(crate) fn is_wanted(&self) -> bool {
        let gone = self.gone.as_ref();
        gone.is_none_or(|gone| !gone.load(Ordering::Relaxed))
    }
}

impl<T: Send + 'static> From<Sender<T>> for Promise<T> {
    fn from(sender: Sender<T>) -> Self {
        let deliver: Deliver<T> = Box::new(move |answer| {
            if let Some(answer) = answer {
                // Who has gone meanwhile does not want to know.
                let _ = sender.send(answer);
            }
        });
        Self {
            deliver: Some(deliver),
            gone: None,
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(deliver) = self.deliver.take() {
            deliver(None);
        }
    }
}

/// What is wanted of a run.
pub(crate) enum ControlCommand {
    Pause(Promise<Halt>),
    Resume,
    /// Go so far, and pause.
    Go(StepTarget, Promise<Halt>),
    Ask {
        scope: Scope,
        request: Vec<u8>,
        reply: Promise<Result<Replies, ControlError>>,
    },
    Send {
        mail: EncodedMail,
        reply: Promise<Result<SimTime, ControlError>>,
    },
    Save {
        target: SaveTarget,
        reply: Promise<Result<Saved, ControlError>>,
    },
    /// It is time to save the run by itself.
    SaveDue,
}

/// Where a snapshot is to be.
#[derive(Clone, Debug)]
pub(crate) enum SaveTarget {
    Path(PathBuf),
    /// In the folder that the program has named for its snapshots.
    Name(String),
}

impl ControlCommand {
    /// Whether its requester is still there. A pause holds for all controllers, so its requester
    /// does not matter.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Resume | Self::Pause(_) | Self::SaveDue => true,
            Self::Save { reply, .. } => reply.is_wanted(),
            Self::Go(_, reply) => reply.is_wanted(),
            Self::Ask { reply, .. } => reply.is_wanted(),
            Self::Send { reply, .. } => reply.is_wanted(),
        }
    }
}

/// How far to go before the next pause.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StepTarget {
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

/// What a run that serves the queue is to do next.
pub(crate) enum Next {
    Do(ControlCommand),
    GoOn,
    Stop,
}

/// The control queue of one simulation.
#[derive(Default)]
pub(crate) struct ControlQueue {
    /// An order waits.
    raised: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    pub(crate) snapshot: StatusSnapshot,
}

#[derive(Default)]
struct State {
    commands: VecDeque<ControlCommand>,
    stop: bool,
    /// There while a run goes on.
    interrupt: Option<Box<dyn Interrupt>>,
    /// The thread that runs.
    runner: Option<ThreadId>,
    /// The run serves the queue, and its clusters are at rest.
    attended: bool,
    /// How many controllers there are.
    controllers: usize,
    /// There will be no run any more.
    over: Option<ControlError>,
    /// What looks at the clusters, and ends them, once there are any.
    observer: Option<Arc<dyn Observer>>,
    /// Where the thread that runs shows what it is at.
    main_activity: Option<Arc<MainActivity>>,
    signals: SignalsSeen,
}

/// How far signals have got with this simulation.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum SignalsSeen {
    #[default]
    No,
    Stopped,
    Killed,
}

impl ControlQueue {
    /// Whether an order waits. A grant is numbered before this is asked, and a requester raises the
    /// flag before it looks up the last number: so either the grant is not sent, or it ends after
    /// its superstep.
    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Leaves an order.
    ///
    /// # Errors
    /// [`ControlError`], if no run can carry it out.
    pub(crate) fn leave(&self, command: ControlCommand) -> Result<(), ControlError> {
        let mut state = self.lock();
        if let Some(why) = &state.over {
            return Err(why.clone());
        }
        if state.runner == Some(std::thread::current().id()) {
            return Err(ControlError::OwnThread);
        }
        let left: VecDeque<ControlCommand>;
        (left, state.commands) = std::mem::take(&mut state.commands)
            .into_iter()
            .partition(|command| !command.is_wanted());
        state.commands.push_back(command);
        if !self.raised.swap(true, Ordering::SeqCst)
            && !state.attended
            && let Some(interrupt) = &state.interrupt
        {
            interrupt.raise_for_request();
        }
        drop(state);
        drop(left);
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
        if let Some(interrupt) = &state.interrupt {
            interrupt.raise_to_stop();
        }
        self.wake.notify_all();
    }

    /// A signal for the simulation: the first stops it, the second kills its processes. False if it
    /// has no use for one.
    pub(crate) fn on_signal(&self) -> bool {
        let mut state = self.lock();
        match state.signals {
            SignalsSeen::No => {
                state.signals = SignalsSeen::Stopped;
                self.stop_in(&mut state);
            }
            SignalsSeen::Stopped => {
                state.signals = SignalsSeen::Killed;
                if let Some(observer) = &state.observer {
                    observer.kill_all();
                }
            }
            SignalsSeen::Killed => return false,
        }
        true
    }

    /// Makes known what looks at the clusters, and ends them.
    pub(crate) fn set_observer(&self, observer: Arc<dyn Observer>) {
        self.lock().observer = Some(observer);
    }

    /// Makes known where to look during a run.
    pub(crate) fn set_main_activity(&self, main_activity: Arc<MainActivity>) {
        self.lock().main_activity = Some(main_activity);
    }

    /// How the simulation stands, with what its clusters say of themselves. They are given about
    /// `limit` to answer.
    pub(crate) fn look(&self, limit: Duration) -> Status {
        let state = self.lock();
        let observer = state.observer.clone();
        let main_activity = state.main_activity.clone();
        drop(state);
        let probes = observer.and_then(|observer| observer.probe(limit.min(LONGEST_LOOK)));
        let probes = probes.unwrap_or_default();
        let mut status = self.snapshot.read();
        let time = main_activity.map_or(SimTime::ZERO, |main_activity| main_activity.time());
        if matches!(status.state, RunState::Running | RunState::Paused) {
            status.glance(&probes, time);
        }
        status
    }

    /// The simulation has ended: signals are not for it any more.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.observer = None;
        state.signals = SignalsSeen::Killed;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Has the next run begin with a pause.
    pub(crate) fn pause_at_the_start(&self) {
        let command = ControlCommand::Pause(Promise::to_nobody());
        self.lock().commands.push_front(command);
        self.raised.store(true, Ordering::SeqCst);
    }

    pub(crate) fn begin_run(&self, interrupt: Box<dyn Interrupt>) {
        let mut state = self.lock();
        if state.stop {
            interrupt.raise_to_stop();
        } else {
            state.signals = SignalsSeen::No;
        }
        state.interrupt = Some(interrupt);
        state.runner = Some(std::thread::current().id());
        self.snapshot.show(RunState::Running);
    }

    pub(crate) fn end_run(&self) {
        let mut state = self.lock();
        state.interrupt = None;
        state.runner = None;
        state.stop = false;
        state.attended = false;
        self.raised
            .store(!state.commands.is_empty(), Ordering::SeqCst);
        self.snapshot.note_end_of_run();
        self.snapshot.show(RunState::Resting);
    }

    /// There will be no further run: each requester that waits or comes later is told why.
    pub(crate) fn close(&self, why: ControlError) {
        let mut state = self.lock();
        state.over.get_or_insert(why);
        let commands = std::mem::take(&mut state.commands);
        state.interrupt = None;
        state.runner = None;
        drop(state);
        // Who has left an order sees it dropped, and may ask why.
        drop(commands);
        self.snapshot.note_end_of_run();
        self.snapshot.show(RunState::Ended);
    }

    /// Why there is no answer to an order that was dropped.
    pub(crate) fn why_over(&self) -> ControlError {
        self.lock().over.clone().unwrap_or(ControlError::Ended)
    }

    /// What to do next, for a run whose clusters are at rest. If it is paused, waits for orders
    /// until `deadline`; but not if no controller is left that could give one.
    pub(crate) fn next(&self, paused: bool, deadline: Option<Instant>) -> Next {
        let mut state = self.lock();
        state.attended = true;
        loop {
            if state.stop {
                return Next::Stop;
            }
            if let Some(command) = state.commands.pop_front() {
                return Next::Do(command);
            }
            self.raised.store(false, Ordering::SeqCst);
            if let Some(interrupt) = &state.interrupt {
                interrupt.lower_for_request();
            }
            if !paused || state.controllers == 0 {
                state.attended = false;
                self.snapshot.show(RunState::Running);
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

    /// Keeps those who wait for a run that has failed, until it is known why.
    pub(crate) fn put_back(&self, waiting: Vec<Promise<Halt>>) {
        let commands = waiting.into_iter().map(ControlCommand::Pause);
        self.lock().commands.extend(commands);
    }

    /// The orders that are left at the end of a run.
    pub(crate) fn take_left(&self) -> VecDeque<ControlCommand> {
        std::mem::take(&mut self.lock().commands)
    }

    pub(crate) fn admit(&self) {
        self.lock().controllers += 1;
    }

    /// Whether a controller may look at the snapshot. Between two runs controllers come and go;
    /// during one there come only copies of those that are there.
    pub(crate) fn has_controllers(&self) -> bool {
        self.lock().controllers > 0
    }

    pub(crate) fn dismiss(&self) {
        self.lock().controllers -= 1;
        self.wake.notify_all();
    }

    /// The state is consistent at every unlock, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock_even_poisoned()
    }
}
