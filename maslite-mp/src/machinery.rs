//! Whatever runs the clusters: makes them come to rest, tells why one is gone, and ends them all.
//!
//! ```text
//! Fleet ──► Machinery ─┬─ Inline: a signal that the schedulers of this thread look at
//!                      └─ Processes: the supervisor thread, which kills and reaps
//! ```

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use maslite_core::engine::{Signal, Watchdog};

use crate::console::{Brake, Console};
use crate::death::{Death, ExitKind};
use crate::error::Error;
use crate::supervision::{ChildEnd, EndKind, Failure, Supervisor};
use crate::transport::{LinkError, Transport};

/// How long the news of a death may take after its link broke.
pub(crate) const NEWS_LIMIT: Duration = Duration::from_secs(1);

/// How long a held run may go on before it counts as stuck.
pub(crate) const HOLD_GRACE: Duration = Duration::from_secs(2);

/// The bits that hold a run to end it.
const FOR_GOOD: u32 = Signal::STOP | Signal::TIMEOUT;

/// What runs the clusters, by their placement.
pub(crate) enum Machinery {
    Inline(Inline),
    Processes(Supervisor),
}

/// For clusters in the thread that runs.
pub(crate) struct Inline {
    signal: Arc<Signal>,
    watchdog: Option<Watchdog>,
    grants: u64,
    /// Of no processes: its thread looks whether runs move. None if nobody wants to know.
    supervisor: Option<Supervisor>,
    /// The run is to end, not only to be held for a while.
    over: bool,
}

impl Inline {
    pub(crate) fn new(supervisor: Option<Supervisor>) -> Self {
        Self {
            signal: Arc::default(),
            watchdog: None,
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

impl Machinery {
    /// Whose thread looks whether the clusters get on, if one does.
    pub(crate) fn supervisor(&self) -> Option<&Supervisor> {
        match self {
            Self::Inline(inline) => inline.supervisor.as_ref(),
            Self::Processes(supervisor) => Some(supervisor),
        }
    }

    /// Begins a run that is held at `deadline`, if there is one. Returns what others can hold it with.
    pub(crate) fn begin_run(
        &mut self,
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Brake {
        match self {
            Self::Inline(inline) => {
                if let Some(supervisor) = &inline.supervisor {
                    supervisor.hold_at(None);
                }
                inline.over = false;
                inline.watchdog = timeout.map(|timeout| Watchdog::start(&inline.signal, timeout));
                Brake::Inline(inline.signal())
            }
            Self::Processes(supervisor) => {
                supervisor.hold_at(deadline);
                Brake::Processes(supervisor.holder())
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
                inline.watchdog = None;
                inline.signal.lower(u32::MAX);
            }
            Self::Processes(supervisor) => {
                supervisor.disarm();
                supervisor.settle_output();
            }
        }
    }

    /// Whether the run is held because it is to end: by its timeout, or by a handle.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Inline(inline) => inline.over || inline.signal.raised() & FOR_GOOD != 0,
            Self::Processes(supervisor) => supervisor.grants().held(),
        }
    }

    /// Lets grants be sent again although the run was held.
    pub(crate) fn release(&mut self) {
        if let Self::Inline(inline) = self {
            inline.over |= inline.signal.raised() & FOR_GOOD != 0;
            inline.signal.lower(u32::MAX);
        }
    }

    /// The number of the next grant, and whether the run is held. In this order: a grant that is
    /// sent although the run is not held is then one that a Hold ends.
    pub(crate) fn next_grant(&mut self, console: &Console) -> (u64, bool) {
        match self {
            Self::Inline(inline) => {
                inline.grants += 1;
                // Raised for the console as well.
                (inline.grants, inline.signal.raised() != 0)
            }
            Self::Processes(supervisor) => {
                let grants = supervisor.grants();
                (grants.issue(), grants.held() || console.is_raised())
            }
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
        if let Self::Processes(supervisor) = self {
            match supervisor.first_death(NEWS_LIMIT) {
                Some(Failure::Died {
                    name, pid, exit, ..
                }) => {
                    let mut deaths = supervisor.post_mortem();
                    if deaths.is_empty() {
                        deaths.push(Death::bare(name, pid, exit));
                    }
                    return Error::died(deaths.remove(0), deaths, time);
                }
                Some(Failure::Interrupted) => return Error::Interrupted { time },
                Some(Failure::Stuck { limit, holder }) => {
                    let named = holder.as_ref().and_then(|holder| holder.cluster.clone());
                    return Error::Stuck {
                        cluster: named.unwrap_or(cluster),
                        holder,
                        limit,
                        time,
                    };
                }
                None if matches!(error, LinkError::Disconnected) => {
                    let death = Death::bare(cluster, pid, ExitKind::Unknown);
                    return Error::died(death, Vec::new(), time);
                }
                None => {}
            }
        }
        let source = error;
        Error::Link {
            cluster,
            time,
            source,
        }
    }

    /// From here on clusters may end: they are told to.
    pub(crate) fn expect_exits(&self) {
        if let Self::Processes(supervisor) = self {
            supervisor.expect_exits();
        }
    }

    /// Kills all clusters, and returns when nothing is left of them.
    pub(crate) fn kill_all(&mut self) {
        self.expect_exits();
        if let Self::Processes(supervisor) = self {
            supervisor.wait_all(Duration::ZERO);
        }
    }

    /// Waits up to `grace` for the end of clusters that were told to stop, kills who is left, and hands what they said last to
    /// `heard`, with the place of the link it came over.
    pub(crate) fn hear_out(
        &mut self,
        mut links: Vec<Box<dyn Transport>>,
        grace: Duration,
        mut heard: impl FnMut(usize, &[u8]),
    ) -> Vec<ChildEnd> {
        let Self::Processes(supervisor) = self else {
            for (place, link) in links.iter_mut().enumerate() {
                while let Ok(message) = link.recv() {
                    heard(place, message);
                }
            }
            return Vec::new();
        };
        // They are heard while their ends are awaited: last words may be longer than what a link holds.
        let (say, said) = mpsc::channel();
        let hear = move || {
            for (place, mut link) in links.into_iter().enumerate() {
                while let Ok(message) = link.recv() {
                    let _ = say.send((place, message.to_vec()));
                }
            }
        };
        // Without a thread nobody is heard, and whoever says much is killed in the end.
        let listener = thread::Builder::new().name("maslite-listener".to_owned());
        let listener = listener.spawn(hear);
        let ends = supervisor.wait_all(grace);
        if let Ok(listener) = listener
            && !ends.iter().any(|end| end.how == EndKind::Leaked)
        {
            // All links have closed.
            let _ = listener.join();
        }
        for (place, message) in said.try_iter() {
            heard(place, &message);
        }
        ends
    }
}
