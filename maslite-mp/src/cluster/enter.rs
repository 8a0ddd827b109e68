//! Where a child process turns into a cluster.

use std::panic::Location;
use std::sync::Arc;

use crate::cluster::mp_scheduler::MpScheduler;
use crate::cluster::registry::{Entered, Registry, WireMessage};
use crate::links::transport::Wait;
use crate::processes::spawn::entry::Point;
use crate::processes::spawn::{self, Arrival, remember_origin};
use crate::processes::{limits, logs};

impl<M: WireMessage> Registry<M> {
    /// In a child process: runs its cluster, and ends the process. Elsewhere: what
    /// [`MpMain`](crate::MpMain) needs.
    ///
    /// A child process is this program, started again with the same arguments, and with the
    /// environment and the working directory that this process had when it first came to an
    /// `enter`. So what stands before this call does the same in each child. The child goes on
    /// until it comes to the call that main meant:
    ///
    /// - If no builder captures a value, that is the first one that enters the same types and
    ///   builders.
    /// - Otherwise it is the same call, by its place in the source and its number among the calls
    ///   from there.
    ///
    /// From other calls the child returns as main did. It cannot start clusters with what it was
    /// given there: if it comes to a start of clusters first, it ends, and main's start is an error
    /// that says so. So enter all registries before the first simulation starts, or give builders
    /// what differs as their configuration.
    #[must_use]
    #[track_caller]
    pub fn enter(self) -> Entered<M> {
        limits::remember_program();
        remember_origin();
        let point = Point::reached(Location::caller(), self.signature.clone());
        match spawn::arrive(&point, Wait::default()) {
            Arrival::Main | Arrival::Passing => Entered {
                registry: Arc::new(self),
                point: Arc::new(point),
            },
            Arrival::Child(side) => {
                logs::record();
                std::process::exit(MpScheduler::new(Arc::new(self)).run(side))
            }
            Arrival::Failed(error) => std::process::exit(error.exit_code()),
        }
    }
}
