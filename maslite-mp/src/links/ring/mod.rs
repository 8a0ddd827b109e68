//! Links in shared memory, on systems that support them, and their stand-in on other systems.
//!
//! **Invariant:** unsafe code of rings is in `sys` alone, and nothing outside this folder depends
//! on it.

#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "what uses it is not there")
)]
pub(crate) mod protocol;

#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "it maps memory and lends it as slices")]
mod sys;

#[cfg(target_os = "linux")]
pub(crate) use link::RingLink;
#[cfg(any(test, feature = "dev"))]
pub(crate) use link::well_formed;

use std::io;
use std::os::fd::OwnedFd;

use crate::links::kind::{Kind, Link, MainEnd, Offer, Start};
use crate::links::transport::{Transport, Wait};

/// The kind of link over rings: main sends the child the memory.
pub(crate) struct Rings;

impl Kind for Rings {
    fn link(&self) -> Link {
        Link::Ring
    }

    fn begin(&self, clusters: usize, wait: Wait) -> io::Result<Box<dyn Start>> {
        Ok(Box::new(RingStart { clusters, wait }))
    }

    fn accept(&self, sent: OwnedFd, wait: Wait) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(open(&sent, wait)?))
    }
}

struct RingStart {
    clusters: usize,
    wait: Wait,
}

impl Start for RingStart {
    fn offer(&mut self) -> io::Result<(Box<dyn Offer>, OwnedFd)> {
        let (ring, file) = create(self.wait, self.clusters)?;
        Ok((Box::new(ring), file))
    }
}

impl Offer for RingLink {
    fn take(self: Box<Self>) -> io::Result<MainEnd> {
        let notice = self.death_notice();
        let cut = Box::new(move || notice.post());
        Ok(MainEnd { link: self, cut })
    }
}

/// Bytes of a ring, for this number of clusters. A message lies there in one piece, from when it is
/// written to when it is read, as long as it fits: two messages with ten thousand mails each do. It
/// takes memory as far as it has been used; the rings of many clusters are shorter, so that those
/// of a thousand take no more than half a gigabyte.
#[cfg(target_os = "linux")]
fn capacity(clusters: usize) -> usize {
    const MIB: usize = 1024 * 1024;
    match clusters {
        0..=32 => MIB,
        33..=64 => MIB / 2,
        _ => MIB / 4,
    }
}

/// Makes the memory of a link to one of this number of clusters. Returns main's end and what the
/// child needs to open its own.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(crate) fn create(wait: Wait, clusters: usize) -> io::Result<(RingLink, OwnedFd)> {
    let (ends, file) = sys::create(capacity(clusters))?;
    Ok((RingLink::new(ends, wait), file))
}

/// Opens the child's end of a link.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(crate) fn open(file: &OwnedFd, wait: Wait) -> io::Result<RingLink> {
    sys::open(file).map(|ends| RingLink::new(ends, wait))
}

#[cfg(not(target_os = "linux"))]
pub(crate) use absent::{RingLink, create, open, well_formed};

#[cfg(not(target_os = "linux"))]
mod absent {
    use super::{OwnedFd, Wait, io};
    use crate::error::link::LinkError;
    use crate::links::transport::{Draft, Transport};

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum RingLink {}

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum DeathNotice {}

    impl DeathNotice {
        pub(crate) fn post(&self) {
            match *self {}
        }
    }

    impl RingLink {
        pub(crate) fn death_notice(&self) -> DeathNotice {
            match *self {}
        }
    }

    impl Transport for RingLink {
        fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
            match *self {}
        }

        fn send(&mut self) -> Result<(), LinkError> {
            match *self {}
        }

        fn recv(&mut self) -> Result<&[u8], LinkError> {
            match *self {}
        }

        fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
            match *self {}
        }
    }

    pub(crate) fn create(_: Wait, _: usize) -> io::Result<(RingLink, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open(_: &OwnedFd, _: Wait) -> io::Result<RingLink> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn well_formed(_: &[u8]) -> usize {
        0
    }
}
