//! A cluster whose process dies is started again and brought to where it was.
//!
//! ```text
//! Clusters ── what it tells a cluster ──► Log ──┐
//!          ── a link that broke ──► Kept: may it come back? ──► bring_back: start, replay
//! ```
//!
//! A cluster is a function of what main told it and of the pass after which an interrupt ended each
//! grant. So main keeps both, and tells them to a fresh process. Main itself and the other clusters
//! never go back.
//!
//! It may use `processes` and the rooms below. It must not know how main draws conclusions.

mod bring_back;
mod kept;
mod log;
mod policy;

pub(crate) use bring_back::{Back, Restart, Trouble, bring_back};
pub(crate) use kept::Kept;
pub use policy::Recovery;
