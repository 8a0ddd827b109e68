//! Watches the child processes: learns of every exit, stops all when one dies, interrupts and ends
//! runs in time, reaps everything.
//!
//! ```text
//! MpMain ── commands ──┐
//! waiter of child 1 ───┼── events ──► supervisor thread ──► SIGKILL, interrupts, first failure, ends
//! waiter of child 2 ───┘
//! ```
//!
//! One supervisor thread lives from [`Supervisor::new`] to [`Supervisor::wait_all`]; one waiter
//! thread per child blocks until its child exits. All of them wait for events, none polls.
//!
//! - **Fail-stop.** With synchronised simulated time a lost cluster makes the run wrong. So the
//!   first unexpected exit is recorded and all other children are killed. That closes their links:
//!   `MpMain`, wherever it waits, gets
//!   [`Disconnected`](crate::error::link::LinkError::Disconnected) and asks
//!   [`Supervisor::first_death`] for the reason.
//! - **Control line.** A child's stdin is a socket. It carries the invitation and after it two
//!   kinds of commands: `H` and eight bytes, little endian, *interrupt all grants up to this
//!   number*; and `?`, *what are you at*, to which a thread of the child answers at once with an
//!   [`Answer`], whatever its agents do. It is the child's lifeline as well: when it closes,
//!   because this process is gone, the child ends itself.
//! - **Questions.** They are asked only when something stands still: see
//!   [`StallDetector`](crate::stall::detector::StallDetector). All children are asked, then all
//!   answers are awaited, up to one deadline. Who owes an answer is not asked again, so a stopped
//!   child costs that wait once.
//! - **Interrupts.** [`Grants`] numbers the grants. An interrupt names the last number issued, so
//!   that it ends what is under way and nothing later. Children that are still at it after a
//!   further grace are stuck, and all are killed.
//! - **Groups.** Each child leads a process group. When it ends, and before it is reaped, the rest
//!   of its group is killed, so that nothing an agent has started stays behind.
//! - **Reaping.** Signals go only to processes that are not yet reaped, so never to another process
//!   that has got the same pid. Children that the program started otherwise are not touched.
//!
//! **Invariant:** children are started on the supervisor thread, because Linux ties the death
//! signal of a child to the thread that started it.

mod child;
mod grants;
mod reaping;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) use child::{ASK, Answer, INTERRUPT};
pub(crate) use grants::Grants;
pub(crate) use watch::Watch;

use crate::error::death::{Death, ExitKind};
use crate::error::warning::{Limit, TimeBlocker};
use crate::stall::detector::Probe;
use maslite_core::internal::LockEvenPoisoned;

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
    /// A cluster is over a limit. Without a blocker it is the cluster for whose answer main waits.
    Stuck {
        limit: Limit,
        blocker: Option<Box<TimeBlocker>>,
    },
    /// All were to be killed at once.
    Interrupted,
}

/// How a child ended, for the report of a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildEnd {
    /// The number of its cluster.
    pub cluster: u32,
    /// Its process id; another process may have it by now.
    pub pid: u32,
    /// What its end was like.
    pub how: EndKind,
    /// Time \[wall\] from the start of the shutdown to its end; zero if it had ended before.
    pub took: Duration,
    /// The end of its stderr, at most 64 KiB; empty if that was not piped here.
    pub stderr: String,
}

/// What a child's end was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndKind {
    /// It said that all its agents were torn down, and ended itself with code 0.
    Clean,
    /// It ended by itself in another way: also with code 0, if some agents were not torn down.
    Failed(ExitKind),
    /// We killed it: because another cluster failed, or because it did not end in time.
    Killed,
    /// It was killed and is still not gone; the kernel is stuck with it.
    Leaked,
}

/// Ends one run, from any thread. Does nothing to a later one.
#[derive(Clone, Debug)]
pub(crate) struct RunInterrupter {
    events: Sender<Event>,
    run: u64,
}

impl RunInterrupter {
    /// Interrupts the run under way: its children end their grants after the superstep they are in.
    /// Does nothing if there is none.
    pub(crate) fn interrupt_now(&self) {
        // A supervisor that is gone has no run.
        let _ = self.events.send(Event::InterruptNow { run: self.run });
    }

    /// Has the grants under way end after the superstep they are in, and nothing more: the run goes
    /// on, and no cluster counts as stuck.
    pub(crate) fn interrupt_for_request(&self) {
        let _ = self
            .events
            .send(Event::InterruptForRequest { run: self.run });
    }

    /// Asks all children what they are at, and waits at most about `limit` for each half of the
    /// way: to be heard, and to be answered. None if no answer comes, or the supervisor is busy.
    pub(crate) fn glance(&self, limit: Duration) -> Option<Vec<Probe>> {
        let (reply, answer) = mpsc::channel();
        let job = Job(Box::new(move |watch| {
            let _ = reply.send(watch.ask_all(limit));
        }));
        self.events.send(Event::Job(job)).ok()?;
        answer.recv_timeout(limit.saturating_mul(2)).ok()
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
    /// Starts the supervisor thread. `interrupt_grace`: how long an interrupted run may go on
    /// before its children count as stuck.
    pub(crate) fn new(interrupt_grace: Duration) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let grants = Arc::new(Grants::default());
        let watch = Watch::new(
            (events.clone(), receiver),
            Arc::clone(&shared),
            Arc::clone(&grants),
            interrupt_grace,
        );
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

    /// A handle that interrupts the run under way from other threads.
    pub(crate) fn interrupter(&self) -> RunInterrupter {
        RunInterrupter {
            events: self.events.clone(),
            run: self.grants.run.load(Ordering::SeqCst),
        }
    }

    /// Begins a run, which is interrupted at `deadline` if there is one. Ends the run before, if it
    /// was not disarmed.
    pub(crate) fn interrupt_at(&self, deadline: Option<Instant>) {
        self.disarm();
        let run = self.grants.run.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(at) = deadline {
            let _ = self.events.send(Event::InterruptAt { at, run });
        }
        if !self.grants.watched.swap(true, Ordering::SeqCst) {
            let _ = self.events.send(Event::Look);
        }
    }

    #[cfg(test)]
    /// As [`RunInterrupter::interrupt_now`].
    pub(crate) fn interrupt_now(&self) {
        self.interrupter().interrupt_now();
    }

    /// Ends the run: neither its deadline nor an interrupt sent for it has consequences any more.
    pub(crate) fn disarm(&self) {
        if self.grants.current_run().is_some() {
            self.grants.run.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Why the children were stopped. Waits up to `limit` for the news, which may be later than the
    /// disconnection it explains.
    pub(crate) fn first_death(&self, limit: Duration) -> Option<Failure> {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.failure.is_none() && !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        state.failure.clone()
    }

    /// Who ended without being told to, the first one first, and what each said last. Waits for the
    /// end of all children, which have been killed.
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

    /// Waits up to `grace` for all children to end, kills those that have not, and reaps all. Calls
    /// after the first return the same and take no time.
    pub(crate) fn wait_all(&mut self, grace: Duration) -> Vec<ChildEnd> {
        if let Some(thread) = self.thread.take() {
            let (reply, ends) = mpsc::channel();
            let _ = self.events.send(Event::Finish { grace, reply });
            self.ends = ends.recv().unwrap_or_default();
            // An error would be its panic, which has been reported; the children are then ended by
            // their lifelines.
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
        self.state.lock_even_poisoned()
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
    InterruptAt {
        at: Instant,
        run: u64,
    },
    InterruptNow {
        run: u64,
    },
    InterruptForRequest {
        run: u64,
    },
    KillAll,
    /// A run has begun, and no look at whether it moves is due.
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
