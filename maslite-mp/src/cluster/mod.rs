//! A cluster's side: the agent types it knows, the grants it obeys, the mail that leaves it, its reports.
//!
//! It may use `processes` and the rooms below. It does not know main's state or other clusters.

mod answers;
pub(crate) mod commands;
pub(crate) mod enter;
mod gateway;
pub(crate) mod inline;
pub(crate) mod mp_scheduler;
pub(crate) mod outbound;
pub(crate) mod registry;
