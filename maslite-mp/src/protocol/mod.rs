//! The messages between main and a cluster, and their encoding.
//!
//! This room may use `links` and `error`. It must not know the effect of a message.

pub(crate) mod layout;
pub(crate) mod rare;
pub(crate) mod replay;
pub(crate) mod wire;
