//! When a simulation is saved by itself.

use std::path::PathBuf;
use std::time::Duration;

use maslite_core::SimDuration;

/// When a simulation is saved by itself, and where: for
/// [`MpMainBuilder::saves`](crate::MpMainBuilder::saves). [`Restore::latest`](crate::Restore::latest)
/// finds the last snapshot of the folder.
///
/// A snapshot is taken when an instant is over. Its folder is `auto-000001`, `auto-000002` and so
/// on. When it is on the disk, older ones of these are removed; what was saved by hand stays.
/// Saving never takes more than a twentieth of the time: after a save that took a second, the next
/// one by wall time comes twenty seconds later at the earliest.
///
/// A save that fails is a [`Warning`](crate::Warning), and the run goes on. The third in a row ends
/// it with the error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it does nothing until it is given to the builder"]
pub struct Saves {
    pub(crate) folder: PathBuf,
    pub(crate) every: Option<Duration>,
    pub(crate) every_simulated: Option<SimDuration>,
    pub(crate) keep: usize,
    pub(crate) when_stopped: bool,
    pub(crate) leaving_out: bool,
}

/// How a simulation is saved, for [`MpMain::save_with`](crate::MpMain::save_with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it does nothing until something is saved with it"]
pub struct SaveOptions {
    pub(crate) leaving_out: bool,
}

impl SaveOptions {
    /// As [`MpMain::save`](crate::MpMain::save).
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out agents whose types are [never saved](crate::Registry::never_saved). The snapshot
    /// tells which these are, and [`Restore`](crate::Restore) goes on from it only if these are
    /// [accepted](crate::Restore::accept_left_out) as missing.
    pub fn leaving_out(mut self) -> Self {
        self.leaving_out = true;
        self
    }
}

impl Saves {
    /// Into this folder, which is made if it is not there. By itself that saves nothing.
    pub fn into(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            every: None,
            every_simulated: None,
            keep: 2,
            when_stopped: false,
            leaving_out: false,
        }
    }

    /// Saves after this time \[wall\], and again after as much.
    pub fn every(mut self, time: Duration) -> Self {
        self.every = Some(time.max(Duration::from_millis(1)));
        self
    }

    /// Saves after this time \[simulated\], and again after as much.
    pub fn every_simulated(mut self, time: SimDuration) -> Self {
        self.every_simulated = (time > SimDuration::ZERO).then_some(time);
        self
    }

    /// How many snapshots are kept, at least one; 2 otherwise.
    pub fn keep(mut self, snapshots: usize) -> Self {
        self.keep = snapshots.max(1);
        self
    }

    /// Saves when a run is stopped by a [`StopHandle`](crate::StopHandle), by a controller or, with
    /// [`MpMain::stop_on_ctrl_c`](crate::MpMain::stop_on_ctrl_c), by Ctrl-C, `SIGTERM` or
    /// `SIGHUP`. The save
    /// is on the disk when `run` returns.
    pub fn when_stopped(mut self) -> Self {
        self.when_stopped = true;
        self
    }

    /// Leaves out agents whose types are [never saved](crate::Registry::never_saved), as
    /// [`SaveOptions::leaving_out`] does; also where another thread or `maslite save` wants the save.
    pub fn leaving_out(mut self) -> Self {
        self.leaving_out = true;
        self
    }
}
