//! Transport: this room carries whole messages in order in both directions, over rings in shared
//! memory, over ipc-channel, or with delays for tests.
//!
//! It may use `error` only. It must not know the meaning of a message.

mod channel;
pub(crate) mod codec;
#[allow(unsafe_code, reason = "it looks at descriptors by their numbers")]
mod descriptors;
pub(crate) mod frame;
pub(crate) mod guarded;
mod ipc;
pub(crate) mod jitter;
pub(crate) mod kind;
pub(crate) mod kinds;
pub(crate) mod outline;
pub(crate) mod probe;
pub(crate) mod ring;
pub(crate) mod round_trip;
pub(crate) mod strict;
pub(crate) mod transport;
