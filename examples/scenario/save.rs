//! How a simulation that was saved into a temporary folder goes on from there.

use std::path::{Path, PathBuf};

use maslite_mp::prelude::*;
use maslite_mp::{SavedAgent, save_scheduler};
use maslite_testkit::scenario::agent::ScenarioMessage;

/// A folder that is gone when this is dropped.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn new() -> Self {
        let name = format!("maslite-scenario-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Goes on from the snapshot in a folder: in this number of clusters, or in the clusters that were
/// saved.
pub(crate) fn restore(
    folder: &Temporary,
    settings: MpMainBuilder<ScenarioMessage>,
    clusters: Option<u32>,
) -> Result<MpMain<ScenarioMessage>, Error> {
    let restore = Restore::open(folder.path())?;
    let Some(clusters) = clusters else {
        return restore.start(settings);
    };
    let clusters = clusters as usize;
    let place = move |agent: SavedAgent<'_>| agent.spread_over(clusters);
    restore.into_clusters(clusters, place).start(settings)
}

/// A scheduler alone as another one.
pub(crate) fn go_on_alone(
    scheduler: Scheduler<ScenarioMessage>,
    agents: &Entered<ScenarioMessage>,
    settings: maslite_mp::core::SchedulerBuilder<ScenarioMessage>,
) -> Result<Scheduler<ScenarioMessage>, Error> {
    let folder = Temporary::new();
    save_scheduler(&scheduler, agents, folder.path())?;
    drop(scheduler);
    Restore::open(folder.path())?.alone(settings, agents)
}
