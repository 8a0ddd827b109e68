//! Starts child processes and shakes hands with them: main's side ([`start`]) and the child's
//! ([`child_side`]).
//!
//! A child is the same executable, told apart by the environment variable [`MARKER`], which holds
//! its parent's process id. It counts only in a direct child of that parent, or in one that has
//! lost it, so a program that an agent starts is no child of ours.
//!
//! ```text
//! main                                             child
//!  makes a link of the first kind, starts the process
//!  ── Invitation, and a descriptor for the link ─►  goes on to the `enter` that is meant, accepts the link
//!  checks everything  ◄──────────────── Hello ────
//!
//!  if the child has refused the link:
//!  ── NextOffer, another kind of link ───────────►  accepts that one
//!  ◄────────────────────────────────── Answer ────
//! ```
//!
//! What a kind of link needs is made without a name, so nothing of a start is ever in the file
//! system. See [`links::kind`](crate::links::kind).
//!
//! - All children of one call are started before the first handshake: they load at the same time,
//!   and none inherits the descriptors of another's handshake. For the same reason the whole
//!   process makes one start at a time.
//! - The invitation has a random nonce, which the Hello repeats. It travels through a socket, not
//!   through arguments or environment, which others can read.
//! - No step can hang: main waits for all control lines at once, up to the deadline,
//!   and the end of a child closes its line.
//! - If anything fails, all children of the call are killed and reaped before the error is
//!   returned.
//!
//! # The child's standard streams
//!
//! stdin is the control line, a socket both ways, and the agents find `/dev/null` in its place;
//! stdout and stderr are pipes to main, unless it lends them its own (see
//! [`Output`](crate::processes::output::Output)).

mod child_side;
pub(crate) mod entry;
pub(crate) mod handshake;
mod main_side;
mod program;
#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "a child asks for its death signal before it executes the program"
)]
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use crate::error::spawn::SpawnError;
pub(crate) use child_side::{Arrival, ChildSide, arrive, is_child, is_passing};
pub(crate) use main_side::{StartPlan, start};
pub(crate) use program::{Program, remember_origin};

/// The environment variable that makes a process a child: the process id of its parent.
pub(crate) const MARKER: &str = "MASLITE_CHILD";

pub(crate) use crate::error::spawn::PROTOCOL;
