//! What a kind of link between main and a child process is, and how a link comes to be.
//!
//! A further kind is one new file of this room that implements [`Kind`], its line in
//! [`kinds`](crate::links::kinds), and a variant of [`Link`] for programs that want it alone.
//! Nothing outside this room tells kinds apart: a start offers them to each child in the order of
//! the list, and the child accepts one.
//!
//! ```text
//! main                                            child
//!  Kind::begin, once for all children of a start
//!  Start::offer  ── a descriptor ───────────────►  Kind::accept
//!  Offer::take   ◄─────────────── it has accepted  or why not: main offers the next kind
//! ```

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::links::transport::{Transport, Wait};

/// The kind of link between main and the processes of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Link {
    /// Rings where the system supports them, and channels otherwise.
    #[default]
    Auto,
    /// Rings of bytes in memory that both processes share, on Linux only. If they cannot be made,
    /// the start is an error.
    Ring,
    /// ipc-channel, which uses sockets on Linux. It is slower, and works on all systems.
    Channel,
}

/// As errors name it.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "link",
            Self::Ring => "ring",
            Self::Channel => "channel",
        })
    }
}

/// A kind of link.
pub(crate) trait Kind: Sync {
    /// The setting that allows this kind alone; reports name a link by it.
    fn link(&self) -> Link;

    /// Begins a start of this number of children in main.
    ///
    /// # Errors
    /// Why this process can have no link of this kind.
    fn begin(&self, clusters: usize, wait: Wait) -> io::Result<Box<dyn Start>>;

    /// Makes a child's end of a link from what main has sent.
    ///
    /// # Errors
    /// Why it cannot be made, for main.
    fn accept(&self, sent: OwnedFd, wait: Wait) -> io::Result<Box<dyn Transport>>;
}

/// What main has of a kind of link while it starts children.
pub(crate) trait Start {
    /// Begins a link to one more child. Returns what is to be sent to the child, too.
    ///
    /// # Errors
    /// What the system says.
    fn offer(&mut self) -> io::Result<(Box<dyn Offer>, OwnedFd)>;
}

/// A link that main has offered to a child.
pub(crate) trait Offer {
    /// Returns main's end. The child has accepted.
    ///
    /// # Errors
    /// The child has not done what it says.
    fn take(self: Box<Self>) -> io::Result<MainEnd>;
}

/// Main's end of a link.
pub(crate) struct MainEnd {
    pub(crate) link: Box<dyn Transport>,
    /// Breaks the link when the child's process is gone.
    pub(crate) cut: Box<dyn Fn() + Send>,
}
