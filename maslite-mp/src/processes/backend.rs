//! Whatever runs the clusters: makes them come to rest, tells why one is gone, and ends them all.
//!
//! ```text
//! Clusters ──► Backend ─┬─ Inline: a signal that the schedulers of this thread look at
//!                      ├─ Processes: the supervisor thread, which kills and reaps
//!                      └─ Simulated: a world made up by a test
//! ```

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use maslite_core::engine::{Signal, TimeoutTimer};

#[cfg(test)]
use crate::dev::fault_simulation::World;
use crate::error::Error;
use crate::error::death::{Death, ExitKind};
use crate::error::link::LinkError;
use crate::links::transport::Transport;
use crate::processes::supervision::{ChildEnd, Failure, RunInterrupter, Supervisor};

/// How long the news of a death may take after its link broke.
pub(crate) const NEWS_LIMIT: Duration = Duration::from_secs(1);

/// How long an interrupted run may go on before it counts as stuck.
pub(crate) const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// The bits that interrupt a run to end it.
const FOR_GOOD: u32 = Signal::STOP | Signal::TIMEOUT;

/// What makes the clusters come to rest after the superstep they are in.
pub(crate) enum Interrupt {
    Inline(Arc<Signal>),
    Processes(RunInterrupter),
}

impl Interrupt {
    /// For a moment, and with patience.
    pub(crate) fn raise_for_request(&self) {
        match self {
            Self::Inline(signal) => signal.raise(Signal::REQUEST),
            Self::Processes(interrupter) => interrupter.interrupt_for_request(),
        }
    }

    pub(crate) fn raise_to_stop(&self) {
        match self {
            Self::Inline(signal) => signal.raise(Signal::STOP),
            Self::Processes(interrupter) => interrupter.interrupt_now(),
        }
    }

    pub(crate) fn lower_for_request(&self) {
        match self {
            Self::Inline(signal) => signal.lower(Signal::REQUEST),
            // A call concerns the grants that were under way, and no later ones.
            Self::Processes(_) => {}
        }
    }
}

/// What runs the clusters, by their placement.
pub(crate) enum Backend {
    Inline(Inline),
    Processes(Supervisor),
    #[cfg(test)]
    Simulated(Arc<World>),
}

/// For clusters in the thread that runs.
pub(crate) struct Inline {
    signal: Arc<Signal>,
    timeout_timer: Option<TimeoutTimer>,
    grants: u64,
    /// Of no processes: its thread looks whether runs move. None if nobody wants to know.
    supervisor: Option<Supervisor>,
    /// The run is to end, not only to be interrupted for a while.
    over: bool,
}

impl Inline {
    pub(crate) fn new(supervisor: Option<Supervisor>) -> Self {
        Self {
            signal: Arc::default(),
            timeout_timer: None,
            grants: 0,
            supervisor,
            over: false,
        }
    }

    /// While a bit of it is raised, grants end.
    pub(crate) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }
}

impl Backend {
    /// Whose thread looks whether the clusters get on, if one does.
    pub(crate) fn supervisor(&self) -> Option<&Supervisor> {
        match self {
            Self::Inline(inline) => inline.supervisor.as_ref(),
            Self::Processes(supervisor) => Some(supervisor),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Begins a run that is interrupted at `deadline`, if there is one. Returns what others can interrupt it with.
    pub(crate) fn begin_run(
        &mut self,
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Interrupt {
        match self {
            Self::Inline(inline) => {
                if let Some(supervisor) = &inline.supervisor {
                    supervisor.interrupt_at(None);
                }
                inline.over = false;
                inline.timeout_timer =
                    timeout.map(|timeout| TimeoutTimer::start(&inline.signal, timeout));
                Interrupt::Inline(inline.signal())
            }
            Self::Processes(supervisor) => {
                supervisor.interrupt_at(deadline);
                Interrupt::Processes(supervisor.interrupter())
            }
            #[cfg(test)]
            Self::Simulated(world) => {
                world.begin_run();
                Interrupt::Inline(Arc::default())
            }
        }
    }

    /// Ends a run.
    pub(crate) fn end_run(&mut self) {
        match self {
            Self::Inline(inline) => {
                if let Some(supervisor) = &inline.supervisor {
                    supervisor.disarm();
                }
                inline.timeout_timer = None;
                inline.signal.lower(u32::MAX);
            }
            Self::Processes(supervisor) => {
                supervisor.disarm();
                supervisor.settle_output();
            }
            #[cfg(test)]
            Self::Simulated(world) => world.end_run(),
        }
    }

    /// Whether the run is interrupted because it is to end: by its timeout, or by a handle.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Inline(inline) => inline.over || inline.signal.raised() & FOR_GOOD != 0,
            Self::Processes(supervisor) => supervisor.grants().interrupted(),
            #[cfg(test)]
            Self::Simulated(world) => world.interrupted(),
        }
    }

    /// Lets grants be sent again although the run was interrupted.
    pub(crate) fn release(&mut self) {
        if let Self::Inline(inline) = self {
            inline.over |= inline.signal.raised() & FOR_GOOD != 0;
            inline.signal.lower(u32::MAX);
        }
    }

    /// The number of the next grant, and whether the run is interrupted. In this order: a grant that is
    /// sent although the run is not interrupted is then one that an interrupt ends. `is_requested`: whether a command waits.
    pub(crate) fn next_grant(&mut self, is_requested: impl FnOnce() -> bool) -> (u64, bool) {
        match self {
            Self::Inline(inline) => {
                inline.grants += 1;
                // Raised for commands as well.
                (inline.grants, inline.signal.raised() != 0)
            }
            Self::Processes(supervisor) => {
                let grants = supervisor.grants();
                (grants.issue(), grants.interrupted() || is_requested())
            }
            #[cfg(test)]
            Self::Simulated(world) => (world.issue(), world.interrupted() || is_requested()),
        }
    }

    /// Why a link broke: usually not for its own sake.
    pub(crate) fn explain(
        &self,
        cluster: &str,
        pid: u32,
        error: LinkError,
        time: SimTime,
    ) -> Error {
        let cluster = cluster.to_owned();
        // A closed link has a reason, which may be known a little later; one that was refused here is a reason itself.
        let limit = match error {
            LinkError::Disconnected | LinkError::Io(_) => NEWS_LIMIT,
            LinkError::BadFrame { .. } | LinkError::TooLarge { .. } => Duration::ZERO,
        };
        match self.first_death(limit) {
            Some(Failure::Died {
                name, pid, exit, ..
            }) => {
                let mut deaths = self.post_mortem();
                if deaths.is_empty() {
                    deaths.push(Death::bare(name, pid, exit));
                }
                Error::died(deaths.remove(0), deaths, time)
            }
            Some(Failure::Interrupted) => Error::Interrupted { time },
            Some(Failure::Stuck { limit, blocker }) => {
                let named = blocker.as_ref().and_then(|blocker| blocker.cluster.clone());
                Error::Stuck {
                    cluster: named.unwrap_or(cluster),
                    blocker,
                    limit,
                    time,
                }
            }
            None if matches!(error, LinkError::Disconnected) && self.has_processes() => {
                let death = Death::bare(cluster, pid, ExitKind::Unknown);
                Error::died(death, Vec::new(), time)
            }
            None => Error::Link {
                cluster,
                time,
                source: error,
            },
        }
    }

    fn has_processes(&self) -> bool {
        !matches!(self, Self::Inline(_))
    }

    /// Why the children were stopped, if that becomes known in time.
    fn first_death(&self, limit: Duration) -> Option<Failure> {
        match self {
            Self::Inline(_) => None,
            Self::Processes(supervisor) => supervisor.first_death(limit),
            #[cfg(test)]
            Self::Simulated(world) => world.first_death(limit),
        }
    }

    /// Who ended without being told to, the first one first.
    fn post_mortem(&self) -> Vec<Death> {
        match self {
            Self::Inline(_) => Vec::new(),
            Self::Processes(supervisor) => supervisor.post_mortem(),
            #[cfg(test)]
            Self::Simulated(world) => world.post_mortem(),
        }
    }

    /// From here on clusters may end: they are told to.
    pub(crate) fn expect_exits(&self) {
        match self {
            Self::Inline(_) => {}
            Self::Processes(supervisor) => supervisor.expect_exits(),
            #[cfg(test)]
            Self::Simulated(world) => world.expect_exits(),
        }
    }

    /// Kills all clusters, and returns when nothing is left of them.
    pub(crate) fn kill_all(&mut self) {
        self.expect_exits();
        match self {
            Self::Inline(_) => {}
            Self::Processes(supervisor) => drop(supervisor.wait_all(Duration::ZERO)),
            #[cfg(test)]
            Self::Simulated(world) => world.kill_all(),
        }
    }

    /// Waits up to `grace` for the end of clusters that were told to stop, kills who is left, and hands what they said last to
    /// `heard`, with the place of the link it came over. Also tells whether they were heard to their ends: then whoever has not said
    /// something has not said it.
    pub(crate) fn hear_out(
        &mut self,
        links: Vec<Box<dyn Transport>>,
        grace: Duration,
        mut heard: impl FnMut(usize, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        match self {
            Self::Inline(_) => {
                hear(links, heard);
                (Vec::new(), true)
            }
            Self::Processes(supervisor) => {
                // They are heard while their ends are awaited: last words may be longer than what a link holds.
                let (say, said) = mpsc::channel();
                let listen = move || {
                    hear(links, |place, message| {
                        let _ = say.send((place, message.to_vec()));
                    });
                };
                // Without a thread nobody is heard, and whoever says much is killed in the end.
                let listener = thread::Builder::new().name("maslite-listener".to_owned());
                let listener = listener.spawn(listen);
                let ends = supervisor.wait_all(grace);
                let mut to_the_end = false;
                if let Ok(listener) = listener {
                    // All links have closed, or have been broken.
                    to_the_end = listener.join().is_ok();
                }
                for (place, message) in said.try_iter() {
                    heard(place, &message);
                }
                (ends, to_the_end)
            }
            #[cfg(test)]
            Self::Simulated(world) => {
                world.give(grace);
                hear(links, heard);
                (world.ends(), true)
            }
        }
    }
}

/// Hears what comes over links until they close, one after the other.
fn hear(links: Vec<Box<dyn Transport>>, mut heard: impl FnMut(usize, &[u8])) {
    for (place, mut link) in links.into_iter().enumerate() {
        while let Ok(message) = link.recv() {
            heard(place, message);
        }
    }
}
