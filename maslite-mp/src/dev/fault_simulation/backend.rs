//! Runs clusters in a world that is made up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::internal::Signal;

use super::world::World;
use crate::cluster::mp_scheduler::MpScheduler;
use crate::cluster::registry::{Registry, WireMessage};
use crate::error::Error;
use crate::error::death::{Death, ExitKind};
use crate::error::spawn::SpawnError;
use crate::links::transport::Transport;
use crate::processes::backend::{Backend, Interrupt, NewCluster, Observer, Start, Started, hear};
use crate::processes::supervision::{ChildEnd, Failure};

/// The backend of a world.
pub(crate) struct Simulated<M: WireMessage> {
    world: Arc<World>,
    registry: Arc<Registry<M>>,
}

impl<M: WireMessage> Simulated<M> {
    pub(crate) fn new(world: Arc<World>, registry: Arc<Registry<M>>) -> Self {
        Self { world, registry }
    }
}

impl<M: WireMessage> Backend for Simulated<M> {
    /// Warnings are dropped.
    fn warn(&self, _: crate::error::warning::Warning) {}

    fn start(&mut self, clusters: &[NewCluster], _: &Start<'_>) -> Result<Vec<Started>, Error> {
        let started = clusters.iter().map(|NewCluster { index, name }| {
            if self.world.is_stillborn() {
                return Err(Error::Start(SpawnError::ExitedBeforeHello {
                    cluster: u32::try_from(*index).unwrap_or(0),
                    name: name.clone(),
                    exit: ExitKind::Signal(9),
                    stderr: String::new(),
                    test: None,
                    passed: Vec::new(),
                }));
            }
            let scheduler = MpScheduler::new(Arc::clone(&self.registry));
            let (link, pid) = self.world.start(*index, name, scheduler);
            Ok(Started {
                index: *index,
                pid,
                carrier: None,
                link,
            })
        });
        started.collect()
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    fn begin_run(&mut self, _: Option<Duration>, _: Option<Instant>) -> Box<dyn Interrupt> {
        self.world.begin_run();
        Box::<Arc<Signal>>::default()
    }

    fn end_run(&mut self) {
        self.world.end_run();
    }

    fn is_over(&self) -> bool {
        self.world.interrupted()
    }

    fn next_grant(&mut self, is_requested: &dyn Fn() -> bool) -> (u64, bool) {
        let number = self.world.issue();
        (number, self.world.interrupted() || is_requested())
    }

    fn is_apart(&self) -> bool {
        true
    }

    fn first_death(&self, limit: Duration) -> Option<Failure> {
        self.world.first_death(limit)
    }

    fn post_mortem(&self) -> Vec<Death> {
        self.world.post_mortem()
    }

    fn contain_deaths(&mut self, contained: &[bool]) {
        self.world.contain_deaths(contained);
    }

    fn reap_lost(&mut self, pid: u32, _: bool) -> Option<Death> {
        self.world.reap_lost(pid)
    }

    fn expect_exits(&self) {
        self.world.expect_exits();
    }

    fn kill_all(&mut self) {
        self.world.expect_exits();
        self.world.kill_all();
    }

    fn drain(
        &mut self,
        links: Vec<Box<dyn Transport>>,
        grace: Duration,
        heard: &mut dyn FnMut(usize, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        self.world.give(grace);
        hear(links, heard);
        (self.world.ends(), true)
    }
}
