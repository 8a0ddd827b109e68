//! Snapshots on disk: files that tell whether they are whole, folders that are there whole or not
//! at all, and what stands in the head of a snapshot.
//!
//! This room may use `settings`, `links` and `error`. It must not know what a simulation is made
//! of: states are bytes here.

pub(crate) mod blocks;
pub(crate) mod folder;
pub(crate) mod head;
pub(crate) mod saved;
pub(crate) mod saves;
pub(crate) mod steps;
