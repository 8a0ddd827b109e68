//! Links in shared memory: where the system has it, and what takes its place where not.
//!
//! **Invariant:** unsafe code is in `sys` alone, and nothing outside this folder knows that there is any.

#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "what uses it is not there")
)]
pub(crate) mod protocol;

#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "it maps memory and lends it as slices")]
mod sys;

#[cfg(target_os = "linux")]
pub(crate) use link::{RingLink, well_formed};

use std::io;
use std::os::fd::OwnedFd;

use crate::transport::Wait;

/// Bytes of a ring: a message lies there in one piece as long as it fits. More would not be faster, since it would not
/// stay in the caches. It takes memory as far as it has been used.
#[cfg(target_os = "linux")]
const CAPACITY: usize = 256 * 1024;

/// Makes a link's memory. Returns main's end and what the child needs to open its own.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(crate) fn create(wait: Wait) -> io::Result<(RingLink, OwnedFd)> {
    let (ends, file) = sys::create(CAPACITY)?;
    Ok((RingLink::new(ends, wait), file))
}

/// Opens the child's end of a link.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub(crate) fn open(file: &OwnedFd, wait: Wait) -> io::Result<RingLink> {
    sys::open(file, CAPACITY).map(|ends| RingLink::new(ends, wait))
}

#[cfg(not(target_os = "linux"))]
pub(crate) use absent::{RingLink, create, open, well_formed};

#[cfg(not(target_os = "linux"))]
mod absent {
    use super::{OwnedFd, Wait, io};
    use crate::transport::{Draft, LinkError, Transport};

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

    pub(crate) fn create(_: Wait) -> io::Result<(RingLink, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open(_: &OwnedFd, _: Wait) -> io::Result<RingLink> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn well_formed(_: &[u8]) -> usize {
        0
    }
}
