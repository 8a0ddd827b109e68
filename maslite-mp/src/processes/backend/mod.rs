//! What runs the clusters: starts them, makes them come to rest, tells why one is gone, and ends
//! them all.
//!
//! ```text
//! Clusters ──► Backend ─┬─ Inline: a signal that the schedulers of this thread look at
//!                       ├─ Processes: the supervisor thread, which kills and reaps
//!                       └─ a world that is made up, in tests (`dev::fault_simulation`)
//! ```
//!
//! A further kind is one more file with a type that implements [`Backend`], and a case of
//! [`Placement`](crate::settings::Placement) that chooses it.

mod inline;
mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use maslite_core::internal::Signal;

use crate::error::Error;
use crate::error::death::{Death, ExitKind};
use crate::error::link::LinkError;
use crate::error::warning::Warning;
use crate::links::jitter::{Jitter, JitterLink};
use crate::links::transport::Transport;
use crate::processes::output::Output;
use crate::processes::spawn::Program;
use crate::processes::spawn::entry::Point;
use crate::processes::supervision::{ChildEnd, Failure};
use crate::settings::Link;
use crate::settings::timing::END_NEWS_LIMIT;
use crate::stall::detector::{ClusterActivity, Probe};

pub(crate) use inline::Inline;
pub(crate) use processes::Processes;

/// Runs the clusters of one simulation.
pub(crate) trait Backend: Send {
    /// Starts clusters, all at the same time.
    fn start(&mut self, clusters: &[NewCluster], start: &Start<'_>) -> Result<Vec<Started>, Error>;

    /// Adds jitter to main's end of the link to a cluster that has just started.
    fn add_jitter(&self, link: Box<dyn Transport>, jitter: Jitter) -> Box<dyn Transport> {
        Box::new(JitterLink::new(link, jitter))
    }

    /// What other threads look at the clusters with.
    fn observer(&self) -> Option<Arc<dyn Observer>>;

    /// From here to the beginning of a run, or to [`end_watching`](Self::end_watching), it is
    /// watched whether the clusters get on.
    fn begin_watching(&self) {}

    /// The clusters have their agents, or have answered a request.
    fn end_watching(&self) {}

    /// Begins a run that is interrupted at `deadline`, if there is one. Returns what others can
    /// interrupt it with.
    fn begin_run(
        &mut self,
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Box<dyn Interrupt>;

    /// Ends a run.
    fn end_run(&mut self);

    /// Whether the run is interrupted because it is to end: by its timeout, or by a handle.
    fn is_over(&self) -> bool;

    /// Lets grants be sent again although the run was interrupted.
    fn release(&mut self) {}

    /// The number of the next grant, and whether the run is interrupted. In this order: a grant
    /// that is sent although the run is not interrupted is then one that an interrupt ends.
    /// `is_requested`: whether a command waits.
    fn next_grant(&mut self, is_requested: &dyn Fn() -> bool) -> (u64, bool);

    /// Whether clusters run apart from main, so that one can die and tells itself how long it was
    /// busy.
    fn is_apart(&self) -> bool;

    /// Why the clusters were stopped, if that becomes known in time.
    fn first_death(&self, limit: Duration) -> Option<Failure>;

    /// Which clusters ended without being told to, the first one first.
    fn post_mortem(&self) -> Vec<Death>;

    /// From here on the death of a cluster of which this holds leaves the others alive, and
    /// [`reap_lost`](Self::reap_lost) tells of it.
    fn contain_deaths(&mut self, contained: &[bool]) {
        let _ = contained;
    }

    /// Ends what is left of a cluster whose link is broken, whether it has died by itself or not,
    /// and tells how it died. None if all clusters are to end, or it never was a process.
    /// `comes_back`: another process will print again what this one has printed in part.
    fn reap_lost(&mut self, pid: u32, comes_back: bool) -> Option<Death> {
        let _ = (pid, comes_back);
        None
    }

    /// The process of a cluster that may come back has started, and its agents have done nothing
    /// yet: what it has printed every process of the cluster prints.
    fn note_start(&mut self, pid: u32) {
        let _ = pid;
    }

    /// From here on a cluster with this process would come back from where it is now: what it has
    /// printed so far it would not print again.
    fn cut(&mut self, pid: u32) {
        let _ = pid;
    }

    /// Tells that a cluster is brought back from here on, or no longer. As long as it is, no
    /// cluster counts as stuck.
    fn be_patient(&self, patient: bool) {
        let _ = patient;
    }

    /// Hands out a warning.
    fn warn(&self, warning: Warning);

    /// From here on clusters may end: they are told to.
    fn expect_exits(&self);

    /// Kills all clusters, and returns when nothing is left of them.
    fn kill_all(&mut self);

    /// Waits up to `grace` for the end of clusters that were told to stop, kills those that are
    /// left, and hands what they said last to `heard`, with the number of the link it came over.
    /// Also tells whether they were heard to their ends: then a cluster that has not said something
    /// has not said it.
    fn drain(
        &mut self,
        links: Vec<Box<dyn Transport>>,
        grace: Duration,
        heard: &mut dyn FnMut(usize, &[u8]),
    ) -> (Vec<ChildEnd>, bool);
}

/// A cluster that is to be started.
#[derive(Debug)]
pub(crate) struct NewCluster {
    pub(crate) index: usize,
    pub(crate) name: String,
}

/// A cluster that has started.
pub(crate) struct Started {
    pub(crate) index: usize,
    pub(crate) pid: u32,
    /// What carries its messages; none if it runs inline.
    pub(crate) carrier: Option<Link>,
    /// Main's end of its link.
    pub(crate) link: Box<dyn Transport>,
}

/// How clusters are started.
pub(crate) struct Start<'a> {
    pub(crate) model: &'a dyn Model,
    pub(crate) carrier: Link,
    pub(crate) output: Output,
}

/// What a backend asks of the registered agent types.
pub(crate) trait Model {
    /// Makes the scheduler of a cluster in this thread. Returns main's end of the link to it.
    fn inline(
        &self,
        cluster: &str,
        interrupts: InterruptSource,
        activity: Arc<ClusterActivity>,
    ) -> Box<dyn Transport>;

    /// The program that child processes run.
    fn program(&self) -> Program;

    /// The call of `enter` that they are for.
    fn point(&self) -> Arc<Point>;
}

/// What a scheduler looks at in every superstep, to learn that its grant is to end.
#[derive(Clone, Debug)]
pub(crate) enum InterruptSource {
    /// Grants up to this number are interrupted.
    UpTo(Arc<AtomicU64>),
    /// All are, while a bit is raised.
    While(Arc<Signal>),
}

impl InterruptSource {
    #[inline]
    pub(crate) fn covers(&self, grant: u64) -> bool {
        match self {
            Self::UpTo(number) => number.load(Ordering::Relaxed) >= grant,
            Self::While(signal) => signal.raised() != 0,
        }
    }
}

/// Makes the clusters come to rest after the superstep they are in, from any thread.
pub(crate) trait Interrupt: Send {
    /// To serve a request: the run then goes on, and no cluster counts as stuck.
    fn raise_for_request(&self);

    /// To end the run.
    fn raise_to_stop(&self);

    /// The requests are served.
    fn lower_for_request(&self);
}

/// Looks at clusters, and ends them, from any thread.
pub(crate) trait Observer: Send + Sync {
    /// Asks all clusters what they are at, and waits at most about `limit` for each half of the
    /// way: to be heard, and to be answered. None if no answer comes.
    fn probe(&self, limit: Duration) -> Option<Vec<Probe>>;

    /// Kills all clusters, whether there is a run or not.
    fn kill_all(&self);
}

/// Why a link broke: usually because its cluster, or another one, is gone.
pub(crate) fn explain(
    backend: &dyn Backend,
    cluster: &str,
    pid: u32,
    error: LinkError,
    time: SimTime,
) -> Error {
    let cluster = cluster.to_owned();
    // A closed link has a reason, which may be known a little later; one that was refused here is a
    // reason itself.
    let limit = match error {
        LinkError::Disconnected | LinkError::Io(_) => END_NEWS_LIMIT,
        LinkError::BadFrame { .. } | LinkError::TooLarge { .. } => Duration::ZERO,
    };
    match backend.first_death(limit) {
        Some(Failure::Died {
            name, pid, exit, ..
        }) => {
            let mut deaths = backend.post_mortem();
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
        None if matches!(error, LinkError::Disconnected) && backend.is_apart() => {
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

/// Hears what comes over links until they close, one after the other.
pub(crate) fn hear(links: Vec<Box<dyn Transport>>, mut heard: impl FnMut(usize, &[u8])) {
    for (number, mut link) in links.into_iter().enumerate() {
        while let Ok(message) = link.recv() {
            heard(number, message);
        }
    }
}
