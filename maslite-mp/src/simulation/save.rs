//! How a program saves a simulation between two runs.

use std::path::Path;
use std::sync::Arc;

use maslite_core::clock::wall;
use maslite_core::internal::{AgentIdInternals as _, export_scheduler};
use maslite_core::{AgentId, Scheduler};

use crate::cluster::registry::{Entered, WireMessage};
use crate::coordination::save_plan::HeadSource;
use crate::coordination::saving::since_1970;
use crate::error::Error;
use crate::error::snapshot::{LeftOut, SnapshotError};
use crate::simulation::mp_main::MpMain;
use crate::simulation::whole::Whole;
use crate::snapshot::blocks::{self, Kind};
use crate::snapshot::folder::Unfinished;
use crate::snapshot::head::{Head, Section, section};
use crate::snapshot::saved::Saved;
use crate::snapshot::saves::SaveOptions;

impl<M: WireMessage> MpMain<M> {
    /// Writes all of the simulation into a new folder, from which [`Restore`](crate::Restore) goes
    /// on. It changes nothing: the next run is as if it had not been saved.
    ///
    /// The folder is there whole or not at all, even if a process is killed meanwhile. Each cluster
    /// writes its part itself, at the same time as the others, and everything has reached the disk
    /// when this returns. What is saved: all agents, their mail, alarms, subscriptions and random
    /// numbers, what was counted, and what was queued with [`send`](Self::send). What is not: the
    /// settings of the builder but for seed, digest and lookahead, and what the program around it
    /// knows, as the handler of main's mail.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it cannot be written, or if agents live whose types are
    /// [never saved](crate::Registry::never_saved), [`Error::Agent`] for an agent whose type is not
    /// registered, [`Error::Encode`] for a message that cannot be serialised: the simulation then
    /// goes on, and nothing is left in the folder. And those of [`start`](Self::start), after which
    /// it has ended.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<Saved, Error> {
        self.save_with(path, SaveOptions::new())
    }

    /// As [`save`](Self::save), as the options say.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with(
        &mut self,
        path: impl AsRef<Path>,
        options: SaveOptions,
    ) -> Result<Saved, Error> {
        self.start()?;
        let subject = self.subject(options.leaving_out);
        let queued = std::mem::take(&mut self.queued);
        let saved = self.between_runs(|rounds| rounds.save(&subject, path.as_ref(), &queued));
        self.queued = queued;
        saved?.map_err(|failure| {
            let (error, is_fatal) = failure.into_error();
            if is_fatal {
                self.abandon(&error);
            }
            error
        })
    }

    /// What the head of a snapshot says of this simulation.
    pub(super) fn subject(&self, leaving_out: bool) -> HeadSource<M> {
        HeadSource {
            registry: Arc::clone(&self.entered.registry),
            seed: self.seed,
            has_digest: self.digest,
            leaving_out,
        }
    }
}

/// Writes all of a scheduler that is used alone into a new folder, as
/// [`MpMain::save`](crate::MpMain::save) does: [`Restore`](crate::Restore) goes on from it alone or
/// in clusters. `agents` has the types of its agents.
///
/// # Errors
/// [`Error::Snapshot`], [`Error::Model`] for an agent whose type is not registered,
/// [`Error::Encode`].
pub fn save_scheduler<M: WireMessage>(
    scheduler: &Scheduler<M>,
    agents: &Entered<M>,
    path: impl AsRef<Path>,
) -> Result<Saved, Error> {
    save_scheduler_with(scheduler, agents, path, SaveOptions::new())
}

/// As [`save_scheduler`], as the options say.
///
/// # Errors
/// As [`save_scheduler`].
pub fn save_scheduler_with<M: WireMessage>(
    scheduler: &Scheduler<M>,
    agents: &Entered<M>,
    path: impl AsRef<Path>,
    options: SaveOptions,
) -> Result<Saved, Error> {
    let begin = wall();
    let folder = Unfinished::begin(path.as_ref())?;
    let registry = &*agents.registry;
    let (state, left_out) = export_scheduler(scheduler, registry)?;
    let missing = left_out.len() as u64;
    let left_out = LeftOut::by_kind(left_out.into_iter().map(LeftOut::from));
    if missing > 0 && !options.leaving_out {
        let path = path.as_ref().into();
        let never_saved = left_out;
        return Err(SnapshotError::NeverSaved { path, never_saved }.into());
    }
    let seed = state.seed;
    let divided = Whole::of_scheduler(state).into_clusters(1, |_| 0);
    let (mut states, main) = divided.map_err(|why| SnapshotError::Refused {
        path: path.as_ref().into(),
        why: why.to_owned(),
    })?;
    let state = states.remove(0);
    let not_encoded = |why: String| Error::Encode {
        what: "the state of the scheduler".to_owned(),
        why,
    };
    let state_digest = state.digest().map_err(not_encoded)?;
    let bytes = state.encode().map_err(|why| not_encoded(why.to_string()))?;
    let main_bytes = main.encode().map_err(|why| not_encoded(why.to_string()))?;
    let file = section(folder.path(), 0);
    let sum = blocks::write(&file, Kind::Cluster, &bytes);
    let sum = sum.map_err(|source| SnapshotError::io(&file, "write", source))?;
    let (message, kinds) = registry.shapes().clone();
    let head = Head {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        saved_at: since_1970(),
        time: main.share.time,
        superstep: main.share.superstep,
        seed,
        digest: main.share.digest,
        content: main.share.content.is_some(),
        state: state_digest,
        message,
        kinds,
        sections: vec![Section {
            cluster: "1".to_owned(),
            lookahead: None,
            agents: state.agents() - missing,
            sum,
        }],
        names: AgentId::names_since(&mut 0),
        main: main_bytes,
        left_out,
    };
    let head_sum = head.write(folder.path())?;
    Ok(Saved {
        path: folder.finish()?,
        now: head.time,
        agents: state.agents() - missing,
        left_out: head.left_out,
        bytes: sum.bytes + head_sum.bytes,
        state_digest,
        took: begin.elapsed(),
    })
}
