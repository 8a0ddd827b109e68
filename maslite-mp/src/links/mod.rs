//! How whole messages travel, in order, each way: over rings in shared memory, over ipc-channel, or delayed for tests.
//!
//! It may use `error` only. It does not know what a message says.

pub(crate) mod codec;
#[allow(unsafe_code, reason = "it looks at descriptors by their numbers")]
mod descriptors;
pub(crate) mod frame;
pub(crate) mod guarded;
pub(crate) mod ipc;
pub(crate) mod jitter;
pub(crate) mod outline;
pub(crate) mod probe;
pub(crate) mod ring;
pub(crate) mod round_trip;
pub(crate) mod strict;
pub(crate) mod transport;
