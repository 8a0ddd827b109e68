//! What crossed into a cluster, written to a file; and the cluster alone, from that file.
//!
//! ```text
//! Clusters ── what it tells a cluster ──► Recorder ──► 0.rec
//! 0.rec ──► Replay ──► one scheduler in this thread, which is told all of it again
//! ```
//!
//! A record is the log of recovery without an end. `docs/record-format.md` has the format.

mod file;
mod recorder;
mod replay;

pub use file::ReplayError;
pub(crate) use recorder::Recorder;
pub use replay::{Replay, ReplayedCluster, Stand};
