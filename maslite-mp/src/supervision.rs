//! Watches the child processes: learns of every exit, stops all when one dies, holds and ends runs in time, reaps everything.
//!
//! ```text
//! MpMain ── commands ──┐
//! waiter of child 1 ───┼── events ──► supervisor thread ──► SIGKILL, Hold bytes, first failure, ends
//! waiter of child 2 ───┘
//! ```
//!
//! One supervisor thread lives from [`Supervisor::new`] to [`Supervisor::wait_all`]; one waiter thread per child blocks until its
//! child exits. All of them wait for events, none polls.
//!
//! - **Fail-stop.** With synchronised simulated time a lost cluster makes the run wrong. So the first unexpected exit is
//!   recorded and all other children are killed. That closes their links: `MpMain`, wherever it waits, gets
//!   [`Disconnected`](crate::transport::LinkError::Disconnected) and asks [`Supervisor::first_death`] for the reason.
//! - **Control line.** A child's stdin is a socket. It carries the invitation and after it two kinds of commands: `H` and eight bytes, little endian,
//!   *hold all grants up to this number*; and `?`, *what are you at*, to which a thread of the child answers at once with an [`Answer`],
//!   whatever its agents do. It is the child's lifeline as well: when it closes, because this process is gone, the child ends itself.
//! - **Questions.** They are asked only when something stands still: see [`Lookout`]. All children are asked, then all answers are
//!   awaited, up to one deadline. Who owes an answer is not asked again, so a stopped child costs that wait once.
//! - **Hold.** [`Grants`] numbers the grants. A Hold names the last number issued, so that it ends what is under way and nothing later.
//!   Children that are still at it after a further grace are stuck, and all are killed.
//! - **Groups.** Each child leads a process group. When it ends, and before it is reaped, the rest of its group is killed, so that nothing
//!   an agent has started stays behind.
//! - **Reaping.** Signals go only to processes that are not yet reaped, so never to a stranger with a used pid; nobody
//!   else's children are touched.
//!
//! **Invariant:** children are started on the supervisor thread, because Linux ties the death signal of a child to the thread that
//! started it.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use maslite_core::{AgentId, Sample};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};
use shared_child::SharedChild;

use crate::death::{Death, ExitKind, OomKills};
use crate::lookout::{Lookout, Pulse, Says, Sight};
use crate::output::{self, Closing, Outlet, Pump};
use crate::transport::now;
use crate::warning::{Activity, ClockHolder, Limit};
use crate::wire;

/// The first byte of a Hold in the control line.
pub(crate) const HOLD: u8 = b'H';

/// The question in the control line.
pub(crate) const ASK: u8 = b'?';

/// How long an answer may take before its child counts as not answering. So long, at most, the news of a death may be late.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);

const SIGKILL: i32 = 9;

/// How long a killed process may take to become reapable. Longer only if the kernel itself is stuck with it.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// Why the children were stopped.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A child's process ended without being asked to.
    Died {
        #[cfg_attr(not(test), expect(dead_code, reason = "the name says it to people"))]
        cluster: u32,
        name: String,
        pid: u32,
        exit: ExitKind,
    },
    /// A cluster is over a limit. If the holder does not say which, whoever waits for its answer knows.
    Stuck {
        limit: Limit,
        holder: Option<Box<ClockHolder>>,
    },
    /// All were to be killed at once.
    Interrupted,
}

/// What a child answers when asked what it is at: a length (u32, little endian), then this in postcard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    busy: bool,
    sample: Sample,
    /// The name of the agent, if it has one.
    name: Option<String>,
}

impl Answer {
    /// Writes down what a cluster is at.
    pub(crate) fn write(pulse: &Pulse, mut into: impl Write) -> io::Result<()> {
        let (busy, sample) = pulse.look();
        let name = sample.agent.and_then(AgentId::name);
        let answer = Self {
            busy,
            sample,
            name: name.map(|name| name.to_string()),
        };
        let mut bytes = vec![0; 4];
        wire::put(&answer, &mut bytes).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        // All at once: a reader gets it whole or not at all, unless a name is very long.
        into.write_all(&bytes)
    }

    /// Takes an answer off the front of what has arrived, if it is there.
    fn take(arrived: &mut Vec<u8>) -> Option<Self> {
        let (length, rest) = arrived.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let answer = wire::decode(rest.get(..length)?).ok();
        arrived.drain(..4 + length);
        answer
    }
}

/// How a child ended, for the report of a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildEnd {
    /// The number of its cluster.
    pub cluster: u32,
    /// Its process id; somebody else may have it by now.
    pub pid: u32,
    /// What its end was like.
    pub how: EndKind,
    /// Time \[wall\] from the start of the shutdown to its end; zero if it had ended before.
    pub took: Duration,
}

/// What a child's end was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndKind {
    /// It ended itself with code 0.
    Clean,
    /// It ended by itself in another way.
    Failed(ExitKind),
    /// We killed it: because another cluster failed, or because it did not end in time.
    Killed,
    /// It was killed and is still not gone; the kernel is stuck with it.
    Leaked,
}

/// Numbers the grants of all clusters, and tells whether the run is held.
///
/// The order of the two counts: `MpMain` issues a number and *then* asks [`held`](Self::held); the supervisor marks the run as held and
/// *then* reads the last number. So each grant is either covered by the Hold, or `MpMain` sees in time that it must not be sent.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// The last number issued.
    issued: AtomicU64,
    /// Counts beginnings and ends of runs: odd while a run is on.
    run: AtomicU64,
    /// The run that is held, as counted by `run`.
    held: AtomicU64,
    /// The supervisor looks now and then whether the run moves, until it finds that there is none. Runs that follow each other
    /// closely need not tell it of every one.
    watched: AtomicBool,
}

impl Grants {
    /// The number of the next grant; from 1, over all runs.
    pub(crate) fn issue(&self) -> u64 {
        self.issued.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether the run under way is held: then only grants that bring all clusters to one instant may still be sent.
    pub(crate) fn held(&self) -> bool {
        self.current_run()
            .is_some_and(|run| self.held.load(Ordering::SeqCst) == run)
    }

    /// The run under way, if any.
    fn current_run(&self) -> Option<u64> {
        let run = self.run.load(Ordering::SeqCst);
        (run % 2 == 1).then_some(run)
    }
}

/// Ends one run, from any thread. Does nothing to a later one.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    events: Sender<Event>,
    run: u64,
}

impl Holder {
    /// Holds the run under way: its children end their grants after the superstep they are in. Does nothing if there is none.
    pub(crate) fn hold_now(&self) {
        // A supervisor that is gone has no run.
        let _ = self.events.send(Event::HoldNow { run: self.run });
    }

    /// Has the grants under way end after the superstep they are in, and nothing more: the run goes on,
    /// and nobody counts as stuck.
    pub(crate) fn call(&self) {
        let _ = self.events.send(Event::Call { run: self.run });
    }

    /// Kills all children, whether there is a run or not.
    pub(crate) fn kill_all(&self) {
        let _ = self.events.send(Event::KillAll);
    }
}

/// Owns the child processes of one `MpMain`: whatever happens, dropping it leaves none behind.
#[derive(Debug)]
pub(crate) struct Supervisor {
    events: Sender<Event>,
    shared: Arc<Shared>,
    grants: Arc<Grants>,
    /// None once it has been joined.
    thread: Option<JoinHandle<()>>,
    /// Kept for callers that shut down twice.
    ends: Vec<ChildEnd>,
}

impl Supervisor {
    /// Starts the supervisor thread. `hold_grace`: how long a held run may go on before its children count as stuck.
    pub(crate) fn new(hold_grace: Duration) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let grants = Arc::new(Grants::default());
        let watch = Watch {
            children: Vec::new(),
            next_key: 0,
            events: receiver,
            sender: events.clone(),
            shared: Arc::clone(&shared),
            grants: Arc::clone(&grants),
            hold_grace,
            timers: Vec::new(),
            lookout: Lookout::default(),
            expecting_exits: false,
            kills: OomKills::begin(),
            pump: None,
        };
        let thread = thread::Builder::new()
            .name("maslite-supervisor".to_owned())
            .spawn(move || watch.run())?;
        Ok(Self {
            events,
            shared,
            grants,
            thread: Some(thread),
            ends: Vec::new(),
        })
    }

    /// Runs `job` on the supervisor thread and waits for it. None if that thread is gone.
    pub(crate) fn run_job<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Watch) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = mpsc::channel();
        let job = Job(Box::new(move |watch| {
            let _ = reply.send(job(watch));
        }));
        self.events.send(Event::Job(job)).ok()?;
        answer.recv().ok()
    }

    /// The numbers of the grants.
    pub(crate) fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants)
    }

    /// A handle that holds the run under way from other threads.
    pub(crate) fn holder(&self) -> Holder {
        Holder {
            events: self.events.clone(),
            run: self.grants.run.load(Ordering::SeqCst),
        }
    }

    /// Begins a run, which is held at `deadline` if there is one. Ends the run before, if it was not disarmed.
    pub(crate) fn hold_at(&self, deadline: Option<Instant>) {
        self.disarm();
        let run = self.grants.run.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(at) = deadline {
            let _ = self.events.send(Event::HoldAt { at, run });
        }
        if !self.grants.watched.swap(true, Ordering::SeqCst) {
            let _ = self.events.send(Event::Look);
        }
    }

    #[cfg(test)]
    /// As [`Holder::hold_now`].
    pub(crate) fn hold_now(&self) {
        self.holder().hold_now();
    }

    /// Ends the run: neither its deadline nor a Hold sent for it has consequences any more.
    pub(crate) fn disarm(&self) {
        if self.grants.current_run().is_some() {
            self.grants.run.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Why the children were stopped. Waits up to `limit` for the news, which may be later than the disconnection it explains.
    pub(crate) fn first_death(&self, limit: Duration) -> Option<Failure> {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.failure.is_none() && !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        state.failure.clone()
    }

    /// Who ended without being told to, the first one first, and what each said last. Waits for the end of all children, which have been killed.
    pub(crate) fn post_mortem(&self) -> Vec<Death> {
        self.run_job(Watch::post_mortem).unwrap_or_default()
    }

    /// Passes on all that children have printed so far.
    pub(crate) fn settle_output(&self) {
        self.run_job(|watch| {
            if let Some(pump) = &watch.pump {
                pump.settle();
            }
        });
    }

    #[cfg(test)]
    /// The clusters whose processes are alive, as far as is known, and their process ids.
    pub(crate) fn pids(&self) -> Vec<(u32, u32)> {
        self.shared.lock().alive.clone()
    }

    /// From here on exits are no failures. Call before telling the children to stop.
    pub(crate) fn expect_exits(&self) {
        let _ = self.events.send(Event::ExpectExits);
    }

    /// Waits up to `grace` for all children to end, kills those that have not, and reaps all. Calls after the first return
    /// the same and take no time.
    pub(crate) fn wait_all(&mut self, grace: Duration) -> Vec<ChildEnd> {
        if let Some(thread) = self.thread.take() {
            let (reply, ends) = mpsc::channel();
            let _ = self.events.send(Event::Finish { grace, reply });
            self.ends = ends.recv().unwrap_or_default();
            // An error would be its panic, which has been reported; the children are then ended by their lifelines.
            let _ = thread.join();
        }
        self.ends.clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.wait_all(Duration::ZERO);
    }
}

/// What callers of the supervisor may see of its state.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    /// Cluster and pid.
    alive: Vec<(u32, u32)>,
    /// The supervisor thread has ended: there will be no news.
    over: bool,
}

impl Shared {
    /// The state is consistent at every unlock, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the supervisor thread is told.
#[derive(Debug)]
enum Event {
    Job(Job),
    Exited {
        child: u64,
        status: Option<ExitStatus>,
        at: Instant,
    },
    HoldAt {
        at: Instant,
        run: u64,
    },
    HoldNow {
        run: u64,
    },
    Call {
        run: u64,
    },
    KillAll,
    /// A run has begun, and nobody looks whether it moves.
    Look,
    ExpectExits,
    Finish {
        grace: Duration,
        reply: Sender<Vec<ChildEnd>>,
    },
}

/// Something to be done on the supervisor thread.
struct Job(Box<dyn FnOnce(&mut Watch) + Send>);

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// What to do next without being told. There is one of each kind at most.
#[derive(Clone, Copy, Debug)]
struct Timer {
    at: Instant,
    due: Due,
}

/// The numbers are of runs: the timer means nothing once its run is over.
#[derive(Clone, Copy, Debug)]
enum Due {
    Hold(u64),
    Kill(u64),
    Look,
}

/// A child process under supervision.
#[derive(Debug)]
struct Watched {
    /// By which its waiter names it; never used twice.
    key: u64,
    cluster: u32,
    name: String,
    pid: u32,
    process: Arc<SharedChild>,
    /// Closing it ends the child.
    control: UnixStream,
    waiter: Option<JoinHandle<()>>,
    /// What it prints, if that is piped here.
    outlet: Option<Outlet>,
    exit: Option<(ExitKind, Instant)>,
    /// What it said last, once that has been asked for.
    stderr: String,
    /// By us, while it lived.
    killed: bool,
    /// It was asked and has not answered.
    owes_answer: bool,
    /// What of an answer has arrived.
    arrived: Vec<u8>,
}

impl Watched {
    /// Asks what it is at, unless it has not answered the last time. True if it was asked.
    fn ask(&mut self) -> bool {
        // An answer that has come too late is to a question of long ago.
        let _ = self.hear(None);
        if self.exit.is_some() || self.owes_answer {
            return false;
        }
        self.owes_answer = self.control.write_all(&[ASK]).is_ok();
        self.owes_answer
    }

    /// Waits for an answer, or takes one that has arrived.
    fn hear(&mut self, until: Option<Instant>) -> Option<Answer> {
        let mut chunk = [0; 512];
        while self.owes_answer {
            if let Some(answer) = Answer::take(&mut self.arrived) {
                self.owes_answer = false;
                return Some(answer);
            }
            let rest = until.map(|until| until.saturating_duration_since(now()));
            // A timeout of zero would be none.
            let rest = rest.unwrap_or_default().max(Duration::from_micros(1));
            self.control.set_read_timeout(Some(rest)).ok()?;
            match (&self.control).read(&mut chunk) {
                Ok(length @ 1..) => self.arrived.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing came, or nothing will ever come.
                _ => return None,
            }
        }
        None
    }

    /// What it says of itself, if an answer is awaited, or else what the system says of it.
    fn sight(&mut self, until: Option<Instant>) -> Sight {
        let answer = until.and_then(|until| self.hear(Some(until)));
        let (state, debugger) = state_of(self.pid);
        let says = match answer {
            Some(Answer { busy, sample, name }) => {
                if let Some(name) = name {
                    let _ = AgentId::named(&name);
                }
                Says::Fine { busy, sample }
            }
            None => Says::Nothing(match state {
                Some('T') => Activity::Stopped,
                Some('t') => Activity::Traced,
                _ => Activity::Silent,
            }),
        };
        Sight {
            cluster: self.name.clone(),
            pid: Some(self.pid),
            says,
            debugger,
        }
    }

    fn kill(&mut self) {
        if self.exit.is_none() && matches!(self.process.try_wait(), Ok(None)) {
            self.killed = true;
            // It fails only for a process that is gone already.
            let _ = self.process.kill();
        }
    }

    /// Whether its end was its own, and no consequence of another's.
    fn ended_itself(&self) -> bool {
        match self.exit {
            None => false,
            Some((exit, _)) => !self.killed || exit != ExitKind::Signal(SIGKILL),
        }
    }
}

/// Waits for the end of a process, and kills whatever it has started and left in its process group. Until it is reaped, its id is
/// also the group's, and nobody else's.
fn kill_group_at_end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return;
    };
    let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), end), Err(Errno::INTR)) {}
    // It fails if the process was alone, as most are.
    let _ = kill_process_group(pid, Signal::KILL);
}

/// The state of a process, as a letter, and the process id of its debugger, as far as the system tells.
fn state_of(pid: u32) -> (Option<char>, Option<u32>) {
    // There is no such file but on Linux.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let state = field("State:").and_then(|state| state.chars().next());
    let debugger = field("TracerPid:").and_then(|pid| pid.parse().ok());
    (state, debugger.filter(|pid| *pid != 0))
}

/// The state of the supervisor thread.
#[derive(Debug)]
pub(crate) struct Watch {
    children: Vec<Watched>,
    /// Of the next child.
    next_key: u64,
    events: Receiver<Event>,
    /// For the waiters.
    sender: Sender<Event>,
    shared: Arc<Shared>,
    grants: Arc<Grants>,
    hold_grace: Duration,
    timers: Vec<Timer>,
    pub(crate) lookout: Lookout,
    expecting_exits: bool,
    kills: OomKills,
    /// Reads what children print, from the first that is to be heard. After them, because it ends when they have let go of it.
    pump: Option<Pump>,
}

impl Watch {
    /// The thread that reads what children print.
    pub(crate) fn pump(&mut self) -> io::Result<&mut Pump> {
        match &mut self.pump {
            Some(pump) => Ok(pump),
            none => Ok(none.insert(Pump::start()?)),
        }
    }

    /// Puts a child under supervision. `exited` is called by its waiter thread, once, before the exit counts here.
    ///
    /// # Errors
    ///
    /// When no thread can be had; the child has then been killed and reaped.
    pub(crate) fn adopt(
        &mut self,
        cluster: u32,
        name: String,
        process: SharedChild,
        control: UnixStream,
        outlet: Option<Outlet>,
        exited: impl FnOnce(Option<ExitStatus>) + Send + 'static,
    ) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        let process = Arc::new(process);
        let pid = process.id();
        let waiter = thread::Builder::new()
            .name(format!("maslite-wait-{cluster}"))
            .spawn({
                let process = Arc::clone(&process);
                let events = self.sender.clone();
                move || {
                    kill_group_at_end(pid);
                    let status = process.wait().ok();
                    let at = now();
                    exited(status);
                    let _ = events.send(Event::Exited {
                        child: key,
                        status,
                        at,
                    });
                }
            });
        let waiter = match waiter {
            Ok(waiter) => waiter,
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                return Err(error);
            }
        };
        self.children.push(Watched {
            key,
            cluster,
            name,
            pid,
            process,
            control,
            waiter: Some(waiter),
            outlet,
            exit: None,
            stderr: String::new(),
            killed: false,
            owes_answer: false,
            arrived: Vec::new(),
        });
        self.shared.lock().alive.push((cluster, pid));
        Ok(())
    }

    /// How many children have been adopted so far.
    pub(crate) fn adopted(&self) -> usize {
        self.children.len()
    }

    /// Kills, reaps and forgets the children adopted after the first `kept`: a start that failed. Tells of those that had ended before,
    /// by their clusters, how they did and what they said last.
    pub(crate) fn disown(&mut self, kept: usize) -> Vec<(u32, ExitKind, String)> {
        let expecting = mem::replace(&mut self.expecting_exits, true);
        for child in &mut self.children[kept..] {
            child.kill();
        }
        self.await_exits(kept, now().checked_add(REAP_LIMIT));
        self.explain_exits(kept);
        let ended = self.children[kept..].iter_mut();
        let ended = ended.filter(|child| child.ended_itself());
        let ends = ended.filter_map(|child| {
            let (exit, _) = child.exit?;
            Some((child.cluster, exit, mem::take(&mut child.stderr)))
        });
        let ends = ends.collect();
        for child in &mut self.children[kept..] {
            if child.exit.is_some()
                && let Some(waiter) = child.waiter.take()
            {
                let _ = waiter.join();
            }
        }
        self.children.truncate(kept);
        self.expecting_exits = expecting;
        ends
    }

    fn run(mut self) {
        loop {
            match self.next(self.timers.iter().map(|timer| timer.at).min()) {
                Some(Event::Finish { grace, reply }) => {
                    let ends = self.finish(grace);
                    let _ = reply.send(ends);
                    return;
                }
                Some(event) => self.handle(event),
                None => self.ring(),
            }
        }
    }

    /// Waits for the next event. None when `until` has passed without one.
    fn next(&self, until: Option<Instant>) -> Option<Event> {
        match until {
            Some(until) => self
                .events
                .recv_timeout(until.saturating_duration_since(now()))
                .ok(),
            // It cannot disconnect: `self.sender` is one of its senders.
            None => self.events.recv().ok(),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Job(Job(job)) => job(self),
            Event::Exited { child, status, at } => self.record_exit(child, status, at),
            Event::HoldAt { at, run } => self.set(Some(at), Due::Hold(run)),
            Event::HoldNow { run } if self.grants.current_run() == Some(run) => self.hold(run),
            Event::Call { run } if self.grants.current_run() == Some(run) => self.end_grants(),
            Event::KillAll => self.fail(Failure::Interrupted),
            Event::Look => self.look(),
            Event::ExpectExits => self.expecting_exits = true,
            // A Finish is only ever sent once, and taken out before: see `run`; the others are for a run that is over.
            Event::Finish { .. } | Event::HoldNow { .. } | Event::Call { .. } => {}
        }
    }

    /// Sets a timer, in place of another of its kind; none for a time beyond the end of the clock.
    fn set(&mut self, at: Option<Instant>, due: Due) {
        let kind = mem::discriminant(&due);
        self.timers
            .retain(|timer| mem::discriminant(&timer.due) != kind);
        self.timers.extend(at.map(|at| Timer { at, due }));
    }

    /// The first of the timers has run out.
    fn ring(&mut self) {
        let first = (0..self.timers.len()).min_by_key(|place| self.timers[*place].at);
        let Some(first) = first.map(|place| self.timers.swap_remove(place)) else {
            return;
        };
        let current = self.grants.current_run();
        match first.due {
            Due::Hold(run) if current == Some(run) => self.hold(run),
            Due::Kill(run) if current == Some(run) => self.give_up(run),
            Due::Hold(_) | Due::Kill(_) => {}
            Due::Look => self.look(),
        }
    }

    /// The children that were held are still at it.
    fn give_up(&mut self, run: u64) {
        let sights = self.ask_all();
        if self.grants.current_run() != Some(run) {
            // They came to rest at the last moment.
            return;
        }
        if sights.iter().any(|sight| sight.debugger.is_some()) {
            // Whoever looks at it has time.
            self.set(now().checked_add(self.hold_grace), Due::Kill(run));
            return;
        }
        self.lookout.note(&sights, now());
        let (holders, _) = self.lookout.holders(&sights, now());
        let failure = Failure::Stuck {
            limit: Limit::Rest(self.hold_grace),
            holder: holders.into_iter().next().map(Box::new),
        };
        self.fail(failure);
    }

    #[cfg(test)]
    /// Waits for an answer to an earlier question.
    pub(crate) fn await_late_answer(&mut self, place: usize) -> bool {
        let limit = now().checked_add(Duration::from_secs(20));
        self.children[place].hear(limit).is_some()
    }

    /// Asks all clusters what they are at.
    pub(crate) fn ask_all(&mut self) -> Vec<Sight> {
        let inline = self.lookout.inline.iter().map(|(name, pulse)| Sight {
            cluster: name.clone(),
            pid: None,
            says: pulse.says(),
            debugger: None,
        });
        let inline: Vec<_> = inline.collect();
        let asked: Vec<_> = self.children.iter_mut().map(Watched::ask).collect();
        let until = now().checked_add(ANSWER_LIMIT);
        let children = self.children.iter_mut().zip(asked);
        let sights = children.map(|(child, asked)| child.sight(until.filter(|_| asked)));
        inline.into_iter().chain(sights).collect()
    }

    /// Looks whether the run under way moves; warns if it does not, and ends it if a limit says so. Does so again after a while.
    fn look(&mut self) {
        let Some(interval) = self.lookout.interval() else {
            return;
        };
        let Some(run) = self.grants.current_run() else {
            self.grants.watched.store(false, Ordering::SeqCst);
            // A run that began in between either sees that, or is seen here.
            if self.grants.current_run().is_none()
                || self.grants.watched.swap(true, Ordering::SeqCst)
            {
                return;
            }
            self.set(now().checked_add(interval), Due::Look);
            return;
        };
        let begin = now();
        self.set(begin.checked_add(interval), Due::Look);
        if self.lookout.main_moves(run, begin) {
            return;
        }
        let sights = self.ask_all();
        let warning = self.lookout.consider(&sights, now());
        if self.grants.current_run() != Some(run) {
            // It has ended while its clusters were asked.
            return;
        }
        if let Some(warning) = warning {
            self.lookout.warn(warning);
        }
        if let Some((limit, holder)) = self.lookout.overdue(&sights, now()) {
            let holder = Some(Box::new(holder));
            self.fail(Failure::Stuck { limit, holder });
        }
    }

    /// Tells the children to end their grants, and sets the timer for those that do not.
    fn hold(&mut self, run: u64) {
        if self.grants.held.swap(run, Ordering::SeqCst) == run {
            // Told already, and the timer is set.
            return;
        }
        self.end_grants();
        // To be compared with what they are at when the timer rings.
        let sights = self.ask_all();
        self.lookout.note(&sights, now());
        self.set(now().checked_add(self.hold_grace), Due::Kill(run));
    }

    /// Tells the children to end the grants issued so far.
    fn end_grants(&mut self) {
        let up_to = self.grants.issued.load(Ordering::SeqCst);
        let mut bytes = [HOLD; 9];
        bytes[1..].copy_from_slice(&up_to.to_le_bytes());
        for child in self
            .children
            .iter_mut()
            .filter(|child| child.exit.is_none())
        {
            // Few bytes a round do not fill a socket, and a child that has closed it is about to be found dead.
            let _ = child.control.write_all(&bytes);
        }
    }

    fn record_exit(&mut self, key: u64, status: Option<ExitStatus>, at: Instant) {
        let Some(child) = self.children.iter_mut().find(|child| child.key == key) else {
            // Disowned, and took too long to die.
            return;
        };
        let exit = ExitKind::of(status);
        child.exit = Some((exit, at));
        let failure = Failure::Died {
            cluster: child.cluster,
            name: child.name.clone(),
            pid: child.pid,
            exit,
        };
        let (pid, killed) = (child.pid, child.killed);
        self.shared.lock().alive.retain(|alive| alive.1 != pid);
        if !self.expecting_exits && !killed {
            self.fail(failure);
        }
    }

    /// Records the first failure and kills all children.
    fn fail(&mut self, failure: Failure) {
        // Before the killing, so that whoever is woken by it finds the reason.
        self.shared.lock().failure.get_or_insert(failure);
        self.shared.changed.notify_all();
        self.children.iter_mut().for_each(Watched::kill);
    }

    /// Handles events until all children from the first `kept` on have exited, or `until` has passed.
    fn await_exits(&mut self, kept: usize, until: Option<Instant>) {
        while self.children[kept..]
            .iter()
            .any(|child| child.exit.is_none())
        {
            let Some(event) = self.next(until) else {
                return;
            };
            self.handle(event);
        }
    }

    fn post_mortem(&mut self) -> Vec<Death> {
        self.await_exits(0, now().checked_add(REAP_LIMIT));
        self.explain_exits(0);
        let mut ended: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.ended_itself())
            .filter_map(|child| child.exit.map(|(exit, at)| (exit, at, child)))
            .collect();
        // Who lost its link to us lost it because of somebody else.
        ended.sort_by_key(|(exit, at, _)| (*exit == ExitKind::LifelineLost, *at));
        let deaths = ended.into_iter().map(|(exit, _, child)| Death {
            cluster: child.name.clone(),
            pid: child.pid,
            exit,
            stderr: child.stderr.clone(),
        });
        deaths.collect()
    }

    /// Reads the last words of the children from the first `kept` on that have ended, and draws conclusions.
    fn explain_exits(&mut self, kept: usize) {
        let kills = self.kills.since();
        let until = now().checked_add(output::LIMIT);
        let ended = self.children[kept..].iter_mut();
        let ended = ended.filter(|child| child.exit.is_some());
        let closing: Vec<(&mut Watched, Closing)> = ended
            .filter_map(|child| child.outlet.take().map(|outlet| (child, outlet.close())))
            .collect();
        for (child, closing) in closing {
            child.stderr = closing.wait(until);
        }
        for child in &mut self.children[kept..] {
            if let Some((exit, _)) = &mut child.exit
                && !child.killed
            {
                *exit = exit.explained(&child.stderr, kills);
            }
        }
    }

    fn finish(&mut self, grace: Duration) -> Vec<ChildEnd> {
        self.expecting_exits = true;
        let begin = now();
        self.await_exits(0, begin.checked_add(grace));
        self.children.iter_mut().for_each(Watched::kill);
        self.await_exits(0, now().checked_add(REAP_LIMIT));
        self.explain_exits(0);
        let ends = self
            .children
            .iter_mut()
            .map(|child| child.end(begin))
            .collect();
        // Lifelines go last: until its child is reaped, closing one would race with the kill for the blame.
        self.children.clear();
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        ends
    }
}

impl Watched {
    /// Joins the waiter of a child that has been reaped and sums up.
    fn end(&mut self, begin: Instant) -> ChildEnd {
        let (how, took) = match self.exit {
            None => (EndKind::Leaked, begin.elapsed()),
            Some((exit, at)) => {
                if let Some(waiter) = self.waiter.take() {
                    let _ = waiter.join();
                }
                let how = match exit {
                    ExitKind::Signal(SIGKILL) if self.killed => EndKind::Killed,
                    ExitKind::Success => EndKind::Clean,
                    other => EndKind::Failed(other),
                };
                (how, at.saturating_duration_since(begin))
            }
        };
        ChildEnd {
            cluster: self.cluster,
            pid: self.pid,
            how,
            took,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    /// Puts a shell that runs `script` under supervision; its process id.
    fn adopt(supervisor: &Supervisor, cluster: u32, script: &'static str) -> u32 {
        supervisor
            .run_job(move |watch| {
                let (control, stdin) = UnixStream::pair().expect("a socket can be had");
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command.stdin(Stdio::from(OwnedFd::from(stdin)));
                let process = SharedChild::spawn(&mut command).expect("there is a shell");
                let pid = process.id();
                watch
                    .adopt(
                        cluster,
                        format!("number {cluster}"),
                        process,
                        control,
                        None,
                        |_| {},
                    )
                    .expect("a thread can be had");
                pid
            })
            .expect("the supervisor thread lives")
    }

    fn supervisor() -> Supervisor {
        Supervisor::new(Duration::from_millis(50)).expect("a thread can be had")
    }

    /// Long enough for anything that happens at all.
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn exits_are_decoded() {
        for (script, kind, text) in [
            ("exit 0", ExitKind::Success, "exited silently, with code 0"),
            ("exit 3", ExitKind::Code(3), "exited with code 3"),
            (
                "exit 101",
                ExitKind::Panic,
                "panicked outside of its agents' methods (code 101)",
            ),
            (
                "exit 91",
                ExitKind::ProtocolMismatch,
                "does not speak our protocol (code 91)",
            ),
            (
                "kill -9 $$",
                ExitKind::Signal(9),
                "was killed (SIGKILL); by whom is not known",
            ),
            (
                "kill -15 $$",
                ExitKind::Signal(15),
                "was terminated (SIGTERM)",
            ),
            (
                "ulimit -c 0; kill -6 $$",
                ExitKind::Signal(6),
                "aborted (SIGABRT)",
            ),
        ] {
            let supervisor = supervisor();
            adopt(&supervisor, 4, script);
            let Some(Failure::Died { cluster, exit, .. }) = supervisor.first_death(LONG) else {
                panic!("no death after {script}");
            };
            assert_eq!((cluster, exit), (4, kind), "{script}");
            assert_eq!(exit.to_string(), text);
        }
    }

    #[test]
    fn one_death_ends_all() {
        let mut supervisor = supervisor();
        let first = adopt(&supervisor, 1, "exec cat");
        let second = adopt(&supervisor, 2, "read line; exit 7");
        let third = adopt(&supervisor, 3, "exec cat");
        assert_eq!(supervisor.pids(), [(1, first), (2, second), (3, third)]);
        assert!(supervisor.first_death(Duration::ZERO).is_none());
        supervisor.run_job(|watch| {
            writeln!(watch.children[1].control, "die").expect("it reads");
        });
        let Some(Failure::Died {
            cluster,
            name,
            pid,
            exit,
            ..
        }) = supervisor.first_death(LONG)
        else {
            panic!("nobody died");
        };
        assert_eq!(
            (cluster, name.as_str(), pid, exit),
            (2, "number 2", second, ExitKind::Code(7))
        );
        let ends = supervisor.wait_all(LONG);
        let how: Vec<_> = ends.iter().map(|end| end.how).collect();
        assert_eq!(
            how,
            [
                EndKind::Killed,
                EndKind::Failed(ExitKind::Code(7)),
                EndKind::Killed
            ]
        );
        assert!(supervisor.pids().is_empty());
        assert_eq!(
            supervisor.wait_all(LONG),
            ends,
            "a second shutdown says the same"
        );
    }

    #[test]
    fn those_that_died_before_we_could_kill_them_are_told_in_order() {
        let supervisor = supervisor();
        for cluster in 1..=4 {
            adopt(&supervisor, cluster, "exec cat");
        }
        supervisor.run_job(|watch| {
            for place in [2, 0] {
                let process = Arc::clone(&watch.children[place].process);
                process.kill().expect("it lives");
                process.wait().expect("it can be waited for");
                // The waiter says when it ended.
                if let Some(waiter) = watch.children[place].waiter.take() {
                    waiter.join().expect("no panic");
                }
            }
        });
        assert!(supervisor.first_death(LONG).is_some());
        let deaths = supervisor.post_mortem();
        let deaths: Vec<_> = deaths.iter().map(ToString::to_string).collect();
        assert_eq!(deaths.len(), 2, "{deaths:?}");
        for (death, name) in deaths.iter().zip(["number 3", "number 1"]) {
            let begin = format!("the process of cluster {name} (pid ");
            assert!(death.starts_with(&begin), "{death}");
            assert!(
                death.ends_with("was killed (SIGKILL); by whom is not known"),
                "{death}"
            );
        }
    }

    #[test]
    fn expected_exits_are_no_failure() {
        let mut supervisor = supervisor();
        adopt(&supervisor, 1, "read line; exit 0");
        adopt(&supervisor, 2, "read line; exit 5");
        supervisor.expect_exits();
        supervisor.run_job(|watch| {
            for child in &mut watch.children {
                writeln!(child.control, "stop").expect("it reads");
            }
        });
        let how: Vec<_> = supervisor
            .wait_all(LONG)
            .iter()
            .map(|end| end.how)
            .collect();
        assert_eq!(how, [EndKind::Clean, EndKind::Failed(ExitKind::Code(5))]);
        assert!(supervisor.first_death(Duration::ZERO).is_none());
    }

    #[test]
    fn a_stopped_child_is_killed_after_the_grace() {
        let mut supervisor = supervisor();
        adopt(&supervisor, 1, "kill -STOP $$");
        let begin = now();
        let ends = supervisor.wait_all(Duration::from_millis(20));
        assert_eq!(ends[0].how, EndKind::Killed);
        assert!(begin.elapsed() < REAP_LIMIT, "took {:?}", begin.elapsed());
    }

    #[test]
    fn a_hold_that_is_ignored_ends_all() {
        let supervisor = supervisor();
        adopt(&supervisor, 1, "exec sleep 100");
        supervisor.hold_at(now().checked_add(Duration::from_millis(10)));
        assert!(matches!(
            supervisor.first_death(LONG),
            Some(Failure::Stuck { .. })
        ));
        assert!(supervisor.grants().held());
    }

    #[test]
    fn who_owes_an_answer_is_not_asked_again() {
        let supervisor = supervisor();
        adopt(&supervisor, 1, "exec sleep 100");
        let sights = supervisor.run_job(Watch::ask_all).expect("it lives");
        assert_eq!(sights[0].says, Says::Nothing(Activity::Silent));
        let again = supervisor.run_job(|watch| watch.children[0].ask());
        assert_eq!(again, Some(false));
    }

    #[test]
    fn answers_come_in_pieces_and_one_after_the_other() {
        let (pulse, mut bytes) = (Pulse::default(), Vec::new());
        for _ in 0..2 {
            Answer::write(&pulse, &mut bytes).expect("a vector takes all");
        }
        let (busy, sample) = pulse.look();
        let answer = Answer {
            busy,
            sample,
            name: None,
        };
        let (mut arrived, mut heard) = (Vec::new(), Vec::new());
        for byte in bytes {
            arrived.push(byte);
            heard.extend(Answer::take(&mut arrived));
        }
        assert_eq!(heard.len(), 2);
        assert!(heard.iter().all(|heard| *heard == answer) && arrived.is_empty());
    }

    #[test]
    fn a_run_that_ends_in_time_is_not_held() {
        let mut supervisor = supervisor();
        adopt(&supervisor, 1, "exec cat >/dev/null");
        let grants = supervisor.grants();
        supervisor.hold_now();
        supervisor.run_job(|_| ());
        assert!(!grants.held(), "there was no run");

        supervisor.hold_at(None);
        supervisor.hold_now();
        supervisor.run_job(|_| ());
        assert!(grants.held());
        supervisor.disarm();
        assert!(!grants.held());

        supervisor.hold_at(now().checked_add(Duration::from_millis(1)));
        supervisor.disarm();
        // Longer than deadline and grace together: neither has consequences.
        assert!(supervisor.first_death(Duration::from_millis(120)).is_none());
        assert_eq!(supervisor.pids().len(), 1);
        supervisor.expect_exits();
        let ends = supervisor.wait_all(Duration::ZERO);
        assert_eq!(ends[0].how, EndKind::Killed);
    }

    #[test]
    fn grants_are_numbered_from_one() {
        let grants = Grants::default();
        assert_eq!([grants.issue(), grants.issue(), grants.issue()], [1, 2, 3]);
        assert!(!grants.held());
    }
}
