//! What crosses a link between main and a cluster, and its encoding.
//!
//! It may use `error` and `links`. It does not know who sends a message and what the message causes.

pub(crate) mod codec;
pub(crate) mod rare;
pub(crate) mod wire;
