//! The settings of a program: where clusters run, the kind of link, how processes wait; and the id
//! of a cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use crate::links::kind::Link;
use crate::links::transport::Wait;
use maslite_core::internal::LockEvenPoisoned;

pub(crate) mod timing;

/// Identifies a cluster of a simulation: the agents that share one scheduler. Another `MpMain`
/// refuses it.
///
/// `Display` writes the name of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId {
    simulation: SimulationId,
    number: u32,
    name: &'static str,
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// The one copy of a cluster's name in this process. A name is kept for ever, so that ids can be
/// copied.
fn for_ever(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock_even_poisoned();
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = name.to_owned().leak();
    names.insert(name);
    name
}

impl ClusterId {
    /// A cluster of a simulation, by its place.
    pub(crate) fn new(simulation: SimulationId, place: usize, name: &str) -> Self {
        let number = u32::try_from(place).expect("fewer than 2^32 clusters");
        let name = for_ever(name);
        Self {
            simulation,
            number,
            name,
        }
    }

    /// Returns the name of the cluster: the name that the program gave it, or else its number from
    /// 1.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Its number in its simulation, from 0.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// Its place among the clusters of a simulation, of which there is this number; none if it is
    /// not one of them.
    pub(crate) fn place(self, simulation: SimulationId, clusters: usize) -> Option<usize> {
        let place = self.number as usize;
        (self.simulation == simulation && place < clusters).then_some(place)
    }
}

/// Tells the simulations of one process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SimulationId(u32);

impl Default for SimulationId {
    /// One that was not there before.
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where clusters run. The same model gives the same trace in every placement.
///
/// ```
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Crane;
/// # impl Agent<Msg> for Crane {}
/// # fn main() -> Result<(), maslite_mp::Error> {
/// # let agents = Registry::new().with::<Crane>().enter();
/// let mut main = MpMain::builder(agents).placement(Placement::Inline).build()?; // to debug, say
/// let yard = main.new_cluster();
/// main.add_to(yard, "crane", Crane)?;
/// main.run(Run::until_idle())?;
/// assert_eq!(main.pid(yard), Some(std::process::id()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// Each cluster runs in a child process of its own.
    #[default]
    Processes,
    /// All clusters run in this process, in the thread that calls `run`.
    Inline,
}

/// Whether clusters run ahead of what is final: without a lookahead, each does instants of its own
/// without knowing whether mail will come, and keeps the way back. Nothing leaves a cluster before
/// it is final. It changes how long a run takes, and nothing else.
///
/// What is undone is what an agent [saves](crate::Registry::with) and what the kernel keeps. So the
/// state of an agent must be all in its encoding, and an agent that prints, writes files or talks to
/// services may do so for instants that are then undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Speculation {
    /// No cluster runs ahead.
    #[default]
    Off,
    /// Clusters run ahead where that pays.
    Auto,
    /// Clusters run ahead by chance, as far as chance has it, from this seed: a tool for testing
    /// models, and this crate.
    Random(u64),
}

impl Speculation {
    /// What the environment asks of every simulation of this process. It is a tool for test suites,
    /// so builds for release do not read it.
    pub(crate) fn of_environment(seed: u64) -> Self {
        let asked = cfg!(debug_assertions).then(|| std::env::var("MASLITE_SPECULATION"));
        match asked.and_then(Result::ok).as_deref() {
            Some("auto") => Self::Auto,
            Some("random") => Self::Random(seed),
            _ => Self::default(),
        }
    }
}

/// How a process waits for the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// It looks again and again for 50 µs if the machine has a processor for every cluster and for
    /// main; otherwise it lets others run between two looks, for as long. Then it blocks. Where
    /// processors are short, main looks for 10 µs before that while the one cluster it waits for is
    /// on another processor.
    ///
    /// On a ring it blocks at once for a while when other programs keep the processors busy.
    #[default]
    Auto,
    /// It blocks at once. It takes no processor while it waits, and takes longer to wake up.
    Block,
    /// It looks again and again for this span of wall time, and then blocks.
    Spin(Duration),
    /// It looks, then looks and lets others run in between, then blocks; for so long each, by the
    /// wall clock. Letting others run is for processes in shared memory; over a [`Link::Channel`]
    /// it is not done.
    Steps {
        /// How long it looks without a pause.
        spin: Duration,
        /// How long it lets others run between two looks.
        yielding: Duration,
    },
}

impl Waiting {
    /// The steps, with this number of clusters.
    pub(crate) fn steps(self, clusters: usize) -> Wait {
        /// About twice what it takes to wake a processor that idles: a process that finds the
        /// message meanwhile has saved that.
        const SHORT: Duration = Duration::from_micros(50);
        /// A round with little work is over by then.
        const GLANCE: Duration = Duration::from_micros(10);
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        let (spin, yielding) = match self {
            Self::Auto if clusters < processors => (SHORT, Duration::ZERO),
            Self::Auto => (Duration::ZERO, SHORT),
            Self::Block => (Duration::ZERO, Duration::ZERO),
            Self::Spin(spin) => (spin, Duration::ZERO),
            Self::Steps { spin, yielding } => (spin, yielding),
        };
        let (glance, crowd) = match self {
            // As many as there are of ours, and one for each processor.
            Self::Auto => (GLANCE, u32::try_from(clusters + online_processors()).ok()),
            _ => (Duration::ZERO, None),
        };
        Wait {
            spin,
            yielding,
            glance,
            crowd,
        }
    }
}

/// The processors of the machine, also those that this process may not use.
fn online_processors() -> usize {
    let listed = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let counted = listed.and_then(|text| count_listed(text.trim()));
    counted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// How many numbers are in a list of ranges, as the system writes it: "0-3,6".
fn count_listed(text: &str) -> Option<usize> {
    text.split(',').try_fold(0_usize, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?)?.checked_add(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        for (text, count) in [("0", 1), ("0-1", 2), ("0-3,6,8-9", 7)] {
            assert_eq!(count_listed(text), Some(count), "{text}");
        }
        for text in ["", "3-1", "0-", "all"] {
            assert_eq!(count_listed(text), None, "{text}");
        }
        assert!(online_processors() >= 1);
    }
}
