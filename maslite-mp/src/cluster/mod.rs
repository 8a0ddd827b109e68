//! A cluster's side of a simulation: this room registers agent types, obeys grants, hands out mail
//! that leaves the cluster, and reports to main.
//!
//! It may use `processes` and the rooms below. It must not know main's state or other clusters.

mod answers;
pub(crate) mod commands;
pub(crate) mod enter;
mod gateway;
pub(crate) mod inline;
pub(crate) mod mp_scheduler;
mod names;
pub(crate) mod outbound;
pub(crate) mod registry;
pub(crate) mod replay;
mod routes;
pub(crate) mod state;
