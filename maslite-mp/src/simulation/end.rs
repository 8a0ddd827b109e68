//! How a simulation ends: by a call, when it is dropped, or after an error.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use maslite_core::SimTime;
use maslite_core::clock::wall;
use maslite_core::internal::ShutdownInternals;

use crate::cluster::registry::WireMessage;
use crate::error::Error;
use crate::error::control::ControlError;
use crate::error::death::ExitKind;
use crate::processes::supervision::{ChildEnd, EndKind};
use crate::protocol::wire::{self, ToMain, ToProc};
use crate::settings::timing::{DROP_GRACE, PANIC_DROP_GRACE};
use crate::simulation::mp_main::{MpMain, Shutdown};

/// A cluster has ended without the word that all its agents were torn down: an end that looks clean
/// was none.
fn not_torn_down(cluster: String, end: &mut ChildEnd, time: SimTime) -> Error {
    if end.how == EndKind::Clean {
        end.how = EndKind::Failed(ExitKind::Success);
    }
    let exit = match end.how {
        EndKind::Failed(exit) => Some(exit),
        EndKind::Clean | EndKind::Killed | EndKind::Leaked => None,
    };
    Error::NotTornDown {
        cluster,
        pid: end.pid,
        exit,
        stderr: end.stderr.clone(),
        time,
    }
}

impl<M: WireMessage> MpMain<M> {
    /// Ends the simulation: calls `teardown` of all agents, stops the clusters, the last one first,
    /// and leaves nothing behind. Dropping it does the same.
    #[must_use]
    pub fn shutdown(mut self) -> Shutdown {
        self.end(DROP_GRACE)
    }

    /// Ends after a failure, without asking the clusters.
    pub(super) fn abandon(&mut self, error: &Error) {
        self.ended = true;
        if self.is_copy() {
            return self.let_go();
        }
        self.control_queue.close(ControlError::from(error));
        self.control = None;
        if let Some(mut clusters) = self.clusters.take() {
            clusters.abandon();
        }
        self.control_queue.retire();
    }

    /// The one way to end well; a second time it does nothing.
    pub(super) fn end(&mut self, grace: Duration) -> Shutdown {
        let started = wall();
        self.ended = true;
        if self.is_copy() {
            self.let_go();
            let errors = vec![Error::Forked { owner: self.owner }];
            return Shutdown::new(Duration::ZERO, Vec::new(), errors);
        }
        self.control_queue.close(ControlError::Ended);
        self.control = None;
        let mut errors = Vec::new();
        let (mut ends, mut torn_down) = (Vec::new(), BTreeSet::new());
        if let Some(mut clusters) = self.clusters.take()
            && let Ok(stop) = wire::message(&ToProc::Stop)
        {
            // The trace is the program's own code: if it panics, the clusters are ended all the
            // same.
            let (under_way, trace) = (&mut self.under_way, &mut self.trace);
            let write = || under_way.write_trace_before(None, trace);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(write)) {
                // It is a value of the program, whose `Drop` may panic too.
                std::mem::forget(payload);
            }
            let heard;
            (ends, heard) = clusters.shutdown(&stop, grace, |cluster, message| {
                if let Ok((ToMain::Bye(panic), _)) = wire::take_note(message) {
                    let cluster = cluster.to_owned();
                    torn_down.insert(cluster.clone());
                    errors.extend(panic.map(|source| Error::Agent { cluster, source }));
                }
            });
            for end in ends.iter_mut().rev() {
                let cluster = &self.names[end.cluster as usize];
                if !torn_down.contains(cluster) && (heard || end.how != EndKind::Clean) {
                    let cluster = cluster.clone();
                    errors.push(not_torn_down(cluster, end, self.standing.time));
                }
            }
        }
        Shutdown::new(wall().duration_since(started), ends, errors)
    }
}

impl<M: WireMessage> Drop for MpMain<M> {
    fn drop(&mut self) {
        let grace = if std::thread::panicking() {
            PANIC_DROP_GRACE
        } else {
            DROP_GRACE
        };
        self.end(grace);
        if !self.is_copy() {
            self.control_queue.retire();
        }
    }
}
