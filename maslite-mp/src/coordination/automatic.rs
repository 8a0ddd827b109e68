//! How a run is saved by itself, or because another thread wants it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use maslite_core::clock::wall;
use maslite_core::{Mail, SimTime, StopReason};
use tracing::{info, warn};

use crate::cluster::registry::WireMessage;
use crate::coordination::rounds::Rounds;
use crate::coordination::save_plan::{Automatic, Saving};
use crate::coordination::saving::SaveFailure;
use crate::error::control::ControlError;
use crate::error::snapshot::SnapshotError;
use crate::error::warning::Warning;
use crate::error::{Chain, Error};
use crate::snapshot::folder;
use crate::snapshot::saved::Saved;
use crate::steering::control_queue::{ControlCommand, ControlQueue, SaveTarget};

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// When the run is to come by to be saved.
    pub(super) fn next_save(&mut self) -> Option<SimTime> {
        let now = self.standing.time;
        let automatic = self.saving.as_mut()?.automatic.as_mut()?;
        automatic.upcoming(now)
    }

    /// A save by wall time is wanted, once this instant is over.
    pub(super) fn want_save(&mut self) {
        let now = self.standing.time;
        if let Some(saving) = &mut self.saving
            && let Some(automatic) = &mut saving.automatic
        {
            automatic.want(now);
        }
    }

    /// Saves the run, if that is due.
    pub(super) fn save_if_due(&mut self) -> Result<(), Error> {
        let now = self.standing.time;
        let automatic = self.saving.as_ref().and_then(|it| it.automatic.as_ref());
        if automatic.is_some_and(|automatic| automatic.is_due(now)) {
            self.save_automatically(&[])?;
        }
        Ok(())
    }

    /// Saves the run into the folder of its policy. A failure is warned of; the third in a row is
    /// an error.
    fn save_automatically(&mut self, queued: &[Mail<M>]) -> Result<(), Error> {
        let Some(saving) = self.saving.take() else {
            return Ok(());
        };
        let result = self.save_by_policy(saving, queued);
        self.saving = Some(saving);
        result
    }

    /// Saves a run that was stopped, if its policy says so.
    pub(crate) fn save_if_stopped(
        &mut self,
        by: StopReason,
        late: &[Mail<M>],
    ) -> Result<(), Error> {
        let automatic = self.saving.as_ref().and_then(|it| it.automatic.as_ref());
        let saves = automatic.is_some_and(|automatic| automatic.policy.when_stopped);
        if by == StopReason::Interrupted && saves {
            self.save_automatically(late)?;
        }
        Ok(())
    }

    fn save_by_policy(&mut self, saving: &mut Saving<M>, queued: &[Mail<M>]) -> Result<(), Error> {
        let (now, begin) = (self.standing.time, wall());
        let Some(automatic) = &mut saving.automatic else {
            return Ok(());
        };
        automatic.begin();
        let folder = automatic.policy.folder.clone();
        // A main that was killed may have left one more.
        let kept = folder::keep_automatic(&folder, automatic.policy.keep);
        let target = kept.and_then(|()| folder::next_automatic(&folder));
        let saved = target
            .map_err(SaveFailure::from)
            .and_then(|target| self.save(&saving.subject, &target, queued));
        automatic.rest_after(begin.elapsed());
        match saved {
            Ok(saved) => {
                automatic.succeed();
                info!(target: "maslite", "{saved}");
                if let Err(error) = folder::keep_automatic(&folder, automatic.policy.keep) {
                    self.warn_of_save(now, &error.into());
                }
                Ok(())
            }
            Err(SaveFailure::Fatal(error)) => Err(error),
            Err(SaveFailure::NotSaved(error)) => {
                self.warn_of_save(now, &error);
                if automatic.fail() { Err(error) } else { Ok(()) }
            }
        }
    }

    fn warn_of_save(&self, time: SimTime, error: &Error) {
        let why = Chain(error).to_string();
        let warning = Warning::NotSaved { time, why };
        warn!(target: "maslite", "{warning}");
        self.clusters.warn(warning);
    }

    /// Saves the run for another thread. The outer error ends the run.
    pub(super) fn save_for(
        &mut self,
        target: SaveTarget,
        queued: &[Mail<M>],
    ) -> Result<Result<Saved, ControlError>, Error> {
        let not_saved = |error: &Error| ControlError::NotSaved(Chain(error).to_string());
        let Some(saving) = self.saving.take() else {
            return Ok(Err(ControlError::Ended));
        };
        let path = path_of(target, saving.automatic.as_ref());
        let saved = path.map_err(SaveFailure::from);
        let saved = saved.and_then(|path| self.save(&saving.subject, &path, queued));
        self.saving = Some(saving);
        match saved {
            Ok(saved) => Ok(Ok(saved)),
            Err(SaveFailure::NotSaved(error)) => Ok(Err(not_saved(&error))),
            Err(SaveFailure::Fatal(error)) => Err(error),
        }
    }
}

/// Where a save goes that another thread or program wants.
fn path_of(target: SaveTarget, automatic: Option<&Automatic>) -> Result<PathBuf, SnapshotError> {
    let name = match target {
        SaveTarget::Path(path) => return Ok(path),
        SaveTarget::Name(name) => name,
    };
    let refuse = |why: &str| SnapshotError::Refused {
        path: PathBuf::from(&name),
        why: why.to_owned(),
    };
    let Some(automatic) = automatic else {
        return Err(refuse(
            "the program names no folder for its snapshots: call `saves` of its builder",
        ));
    };
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Err(refuse(
            "it is a name without a path, and without a dot before it",
        ));
    }
    Ok(automatic.policy.folder.join(name))
}

/// A thread that asks a run to be saved again and again. It ends with the run.
pub(crate) struct SaveTimer {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SaveTimer {
    /// Asks after this time, and again after as much.
    pub(crate) fn start(every: Duration, queue: Arc<ControlQueue>) -> std::io::Result<Self> {
        let (over, is_over) = mpsc::channel();
        let ask = move || {
            while is_over.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if queue.leave(ControlCommand::SaveDue).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("maslite saves".to_owned());
        Ok(Self {
            over: Some(over),
            thread: Some(thread.spawn(ask)?),
        })
    }
}

impl Drop for SaveTimer {
    fn drop(&mut self) {
        self.over = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
