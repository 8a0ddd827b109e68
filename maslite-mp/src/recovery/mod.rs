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
//! A cluster may also be dropped. Then a scheduler without agents, in main's process, stands where
//! it was: `vacant`.
//!
//! It may use `processes` and the rooms below. It must not know how main draws conclusions.

mod bring_back;
mod kept;
mod log;
mod policy;
mod vacant;

pub(crate) use bring_back::{Back, Restart, Trouble, bring_back};
pub(crate) use kept::Kept;
pub use policy::Recovery;
pub(crate) use vacant::{Remains, vacant};
