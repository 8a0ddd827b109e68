//! A ring with nothing behind it, for those who measure what the kernel adds to it.
//!
//! No part of what this crate promises: it may change or go at any time.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::error::link::LinkError;
use crate::links::ring::{self, RingLink};
use crate::links::transport::Transport;
use crate::settings::Waiting;

/// One end of a ring between two processes.
pub struct BareRing(RingLink);

impl BareRing {
    /// Makes a ring that waits as the links of this number of clusters do, and the file that the
    /// other process opens.
    ///
    /// # Errors
    /// What the system says; there is none but on Linux.
    pub fn create(waiting: Waiting, clusters: usize) -> io::Result<(Self, OwnedFd)> {
        let (link, file) = ring::create(waiting.steps(clusters), clusters)?;
        Ok((Self(link), file))
    }

    /// Opens the other end.
    ///
    /// # Errors
    /// What the system says; there is none but on Linux.
    pub fn open(file: &OwnedFd, waiting: Waiting, clusters: usize) -> io::Result<Self> {
        ring::open(file, waiting.steps(clusters)).map(Self)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.say(frame).map_err(gone)
    }

    /// Waits for a frame.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        self.0.recv().map_err(gone)
    }
}

fn gone(error: LinkError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl fmt::Debug for BareRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareRing").finish_non_exhaustive()
    }
}
