//! What crosses a link between main and a cluster, and its encoding.
//!
//! It may use `links` and `error`. It does not know what a message causes.

pub(crate) mod layout;
pub(crate) mod rare;
pub(crate) mod wire;
