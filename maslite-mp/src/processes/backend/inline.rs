//! Clusters in the thread that runs, one after the other.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maslite_core::internal::{LockEvenPoisoned, Signal, TimeoutTimer};

use super::{Backend, Interrupt, InterruptSource, NewCluster, Observer, Start, Started, hear};
use crate::error::Error;
use crate::error::death::Death;
use crate::error::warning::Warning;
use crate::links::jitter::{InlineJitterLink, Jitter};
use crate::links::transport::Transport;
use crate::processes::supervision::{ChildEnd, Failure, Supervisor};
use crate::stall::detector::{ClusterActivity, Probe, write_down};

/// The bits that interrupt a run to end it.
const FOR_GOOD: u32 = Signal::STOP | Signal::TIMEOUT;

/// What clusters of this process show of themselves, by their names.
#[derive(Debug, Default)]
struct Activities(Mutex<Vec<(String, Arc<ClusterActivity>)>>);

/// Runs clusters in this thread.
pub(crate) struct Inline {
    signal: Arc<Signal>,
    timeout_timer: Option<TimeoutTimer>,
    grants: u64,
    /// Has no processes: its thread looks whether runs move. None if neither warnings nor progress
    /// are wanted.
    supervisor: Option<Supervisor>,
    /// The run is to end, not only to be interrupted for a while.
    over: bool,
    activities: Arc<Activities>,
}

impl Inline {
    pub(crate) fn new(supervisor: Option<Supervisor>) -> Self {
        Self {
            signal: Arc::default(),
            timeout_timer: None,
            grants: 0,
            supervisor,
            over: false,
            activities: Arc::default(),
        }
    }
}

impl Backend for Inline {
    fn start(&mut self, clusters: &[NewCluster], start: &Start<'_>) -> Result<Vec<Started>, Error> {
        let mut activities = Vec::new();
        let started = clusters.iter().map(|NewCluster { index, name }| {
            let activity = Arc::new(ClusterActivity::default());
            activities.push((name.clone(), Arc::clone(&activity)));
            let interrupts = InterruptSource::While(Arc::clone(&self.signal));
            Started {
                index: *index,
                pid: std::process::id(),
                carrier: None,
                link: start.model.inline(name, interrupts, activity),
            }
        });
        let started = started.collect();
        let mut known = self.activities.0.lock();
        let known = known.as_deref_mut().unwrap_or_else(|error| error.get_mut());
        known.extend_from_slice(&activities);
        if let Some(supervisor) = &self.supervisor
            && !activities.is_empty()
        {
            supervisor.run_job(|watch| watch.detector.inline.extend(activities));
        }
        Ok(started)
    }

    fn add_jitter(&self, link: Box<dyn Transport>, jitter: Jitter) -> Box<dyn Transport> {
        Box::new(InlineJitterLink::new(link, jitter))
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::clone(&self.activities) as _)
    }

    fn warn(&self, warning: Warning) {
        match &self.supervisor {
            Some(supervisor) => supervisor.warn(warning),
            None => write_down(&warning),
        }
    }

    fn begin_watching(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.interrupt_at(None);
        }
    }

    fn end_watching(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.disarm();
        }
    }

    fn begin_run(&mut self, timeout: Option<Duration>, _: Option<Instant>) -> Box<dyn Interrupt> {
        self.begin_watching();
        self.over = false;
        self.timeout_timer = timeout.map(|timeout| TimeoutTimer::start(&self.signal, timeout));
        Box::new(Arc::clone(&self.signal))
    }

    fn end_run(&mut self) {
        self.end_watching();
        self.timeout_timer = None;
        self.signal.lower(u32::MAX);
    }

    fn is_over(&self) -> bool {
        self.over || self.signal.raised() & FOR_GOOD != 0
    }

    fn release(&mut self) {
        self.over |= self.signal.raised() & FOR_GOOD != 0;
        self.signal.lower(u32::MAX);
    }

    fn next_grant(&mut self, _: &dyn Fn() -> bool) -> (u64, bool) {
        self.grants += 1;
        // The signal is raised for commands as well.
        (self.grants, self.signal.raised() != 0)
    }

    fn is_apart(&self) -> bool {
        false
    }

    fn first_death(&self, _: Duration) -> Option<Failure> {
        None
    }

    fn post_mortem(&self) -> Vec<Death> {
        Vec::new()
    }

    fn expect_exits(&self) {}

    fn kill_all(&mut self) {}

    fn drain(
        &mut self,
        links: Vec<Box<dyn Transport>>,
        _: Duration,
        heard: &mut dyn FnMut(usize, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        hear(links, heard);
        (Vec::new(), true)
    }
}

impl Interrupt for Arc<Signal> {
    fn raise_for_request(&self) {
        self.raise(Signal::REQUEST);
    }

    fn raise_to_stop(&self) {
        self.raise(Signal::STOP);
    }

    fn lower_for_request(&self) {
        self.lower(Signal::REQUEST);
    }
}

impl Observer for Activities {
    fn probe(&self, _: Duration) -> Option<Vec<Probe>> {
        // It is whole at every unlock.
        let known = self.0.lock_even_poisoned();
        Some(known.iter().map(|(name, it)| it.probe(name)).collect())
    }

    fn kill_all(&self) {
        // A call in this process cannot be ended from another thread.
    }
}
