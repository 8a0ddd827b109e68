//! Clusters in child processes, under the supervisor thread.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tracing::debug;

use super::{Backend, Interrupt, NewCluster, Observer, Start, Started, hear};
use crate::error::Error;
use crate::error::death::Death;
use crate::error::warning::Warning;
use crate::links::transport::{Transport, Wait};
use crate::processes::logs::Log;
use crate::processes::spawn::{self, StartPlan};
use crate::processes::supervision::{ChildEnd, Failure, RunInterrupter, Supervisor};
use crate::settings::timing::{END_NEWS_LIMIT, START_DEADLINE};
use crate::stall::detector::Probe;

/// Runs clusters in child processes.
pub(crate) struct Processes(Supervisor);

impl Processes {
    pub(crate) fn new(supervisor: Supervisor) -> Self {
        Self(supervisor)
    }
}

impl Backend for Processes {
    fn start(&mut self, clusters: &[NewCluster], start: &Start<'_>) -> Result<Vec<Started>, Error> {
        if clusters.is_empty() {
            return Ok(Vec::new());
        }
        let numbered = clusters.iter().map(|NewCluster { index, name }| {
            let number = u32::try_from(*index).unwrap_or(u32::MAX);
            (number, name.clone())
        });
        let plan = StartPlan {
            program: start.model.program(),
            clusters: numbered.collect(),
            point: start.model.point(),
            deadline: START_DEADLINE,
            wait: Wait::default(),
            carrier: start.carrier,
            output: start.output,
            log: Log::here(),
        };
        let sides = spawn::start(&self.0, plan)?;
        let started = sides.into_iter().zip(clusters).map(|(side, cluster)| {
            debug!(target: "maslite", cluster = %cluster.name, pid = side.pid, "cluster started");
            Started {
                index: side.cluster as usize,
                pid: side.pid,
                carrier: Some(side.carrier),
                link: side.link,
            }
        });
        Ok(started.collect())
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(self.0.interrupter()))
    }

    fn begin_watching(&self) {
        self.0.interrupt_at(None);
    }

    fn end_watching(&self) {
        self.0.disarm();
    }

    fn begin_run(&mut self, _: Option<Duration>, deadline: Option<Instant>) -> Box<dyn Interrupt> {
        self.0.interrupt_at(deadline);
        Box::new(self.0.interrupter())
    }

    fn end_run(&mut self) {
        self.0.disarm();
        self.0.settle_output();
    }

    fn is_over(&self) -> bool {
        self.0.grants().interrupted()
    }

    fn next_grant(&mut self, is_requested: &dyn Fn() -> bool) -> (u64, bool) {
        let grants = self.0.grants();
        (grants.issue(), grants.interrupted() || is_requested())
    }

    fn is_apart(&self) -> bool {
        true
    }

    fn first_death(&self, limit: Duration) -> Option<Failure> {
        self.0.first_death(limit)
    }

    fn post_mortem(&self) -> Vec<Death> {
        self.0.post_mortem()
    }

    fn contain_deaths(&mut self, contained: &[bool]) {
        self.0.contain_deaths(contained);
    }

    fn reap_lost(&mut self, pid: u32, comes_back: bool) -> Option<Death> {
        self.0.reap_lost(pid, END_NEWS_LIMIT, comes_back)
    }

    fn note_start(&mut self, pid: u32) {
        self.0.note_start(pid);
    }

    fn cut(&mut self, pid: u32) {
        self.0.cut(pid);
    }

    fn be_patient(&self, patient: bool) {
        self.0.be_patient(patient);
    }

    fn warn(&self, warning: Warning) {
        self.0.warn(warning);
    }

    fn expect_exits(&self) {
        self.0.expect_exits();
    }

    fn kill_all(&mut self) {
        self.0.expect_exits();
        self.0.wait_all(Duration::ZERO);
    }

    fn drain(
        &mut self,
        links: Vec<Box<dyn Transport>>,
        grace: Duration,
        heard: &mut dyn FnMut(usize, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        // Links are read while their ends are awaited: last words may be longer than what a link
        // holds.
        let (say, said) = mpsc::channel();
        let listen = move || {
            hear(links, |number, message| {
                let _ = say.send((number, message.to_vec()));
            });
        };
        // Without a thread the links are not read, and a cluster that says much is killed in the
        // end.
        let listener = thread::Builder::new().name("maslite-listener".to_owned());
        let listener = listener.spawn(listen);
        let ends = self.0.wait_all(grace);
        let mut to_the_end = false;
        if let Ok(listener) = listener {
            // All links have closed, or have been broken.
            to_the_end = listener.join().is_ok();
        }
        for (number, message) in said.try_iter() {
            heard(number, &message);
        }
        (ends, to_the_end)
    }
}

impl Interrupt for RunInterrupter {
    fn raise_for_request(&self) {
        self.interrupt_for_request();
    }

    fn raise_to_stop(&self) {
        self.interrupt_now();
    }

    fn lower_for_request(&self) {
        // A request concerns the grants that were under way, and no later ones.
    }
}

impl Observer for RunInterrupter {
    fn probe(&self, limit: Duration) -> Option<Vec<Probe>> {
        self.glance(limit)
    }

    fn kill_all(&self) {
        Self::kill_all(self);
    }
}
