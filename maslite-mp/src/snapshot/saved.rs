//! What a save has come to.

use std::path::PathBuf;
use std::time::Duration;

use maslite_core::{Digest, SimTime};

use crate::error::snapshot::{LeftOut, List};

/// A snapshot that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Where the simulation stood.
    pub now: SimTime,
    /// The agents in it.
    pub agents: u64,
    /// The agents that were left out of it, by their types.
    pub left_out: Vec<LeftOut>,
    /// How large it is \[bytes\].
    pub bytes: u64,
    /// The digest of the state: of all agents with what they have before them, the same in every
    /// placement.
    pub state_digest: Digest,
    /// How long it took \[wall\].
    pub took: Duration,
}

impl std::fmt::Display for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            path,
            now,
            agents,
            left_out,
            bytes,
            state_digest,
            took,
        } = self;
        let (path, took) = (path.display(), took.as_secs_f64());
        write!(
            f,
            "saved {path} at {now}: {agents} agents, {bytes} bytes, state {state_digest}, in {took:.3} s"
        )?;
        match &left_out[..] {
            [] => Ok(()),
            left_out => write!(f, "; without {}", List(left_out)),
        }
    }
}
