//! The errors and warnings of this crate: what can go wrong between processes.
//!
//! This room may use `maslite-core` only. It must not know how an error is found.

pub(crate) mod control;
pub(crate) mod death;
pub(crate) mod link;
pub(crate) mod message_fault;
pub(crate) mod recovery;
pub(crate) mod snapshot;
pub(crate) mod spawn;
pub(crate) mod warning;

pub use maslite_core::Chain;
use maslite_core::{AgentId, Plain, SimTime};

use crate::error::death::{Death, ExitKind, Explained};
use crate::error::link::{Hex, LinkError};
use crate::error::message_fault::MessageFault;
use crate::error::recovery::{Dropped, NotRecovered};
use crate::error::snapshot::SnapshotError;
use crate::error::spawn::SpawnError;
use crate::error::warning::{Limit, TimeBlocker};

/// Why a call or a run failed.
///
/// After an error from [`MpMain::run`](crate::MpMain::run) all child processes have ended, and the
/// simulation cannot continue.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An agent panicked, or the kernel refused an action of an agent.
    #[error("in cluster {cluster}: {source}")]
    Agent {
        /// Its cluster.
        cluster: String,
        /// The cause, with the agent and the simulated time.
        source: maslite_core::Error,
    },
    /// The model has an error that no single cluster can see.
    #[error(transparent)]
    Model(#[from] maslite_core::Error),
    /// The process of a cluster ended while it was needed.
    #[error(
        "at {time} the process of cluster {cluster} (pid {pid}) {}; all clusters were stopped{}",
        Explained(*.exit, .stderr),
        Others(.others)
    )]
    ClusterDied {
        /// Its cluster.
        cluster: String,
        /// Its process id. Another process may have it by now.
        pid: u32,
        /// How it ended.
        exit: ExitKind,
        /// The simulated time, as far as main knows.
        time: SimTime,
        /// The end of its stderr, at most 64 KiB; empty if its stderr was not piped to main.
        stderr: String,
        /// Other processes that ended by themselves before main could stop them, in order. They are
        /// consequences of the first death, or have the same cause.
        others: Vec<Death>,
    },
    /// A cluster that was to be brought back ([`Recovery::restart`](crate::Recovery::restart)) was
    /// not.
    #[error(
        "cluster {cluster} was not brought back at {time}: {reason}; its deaths: {}; all clusters were stopped",
        Listed(.deaths)
    )]
    NotRecovered {
        /// The cluster.
        cluster: String,
        /// Why not.
        reason: NotRecovered,
        /// The simulated time, as far as main knows.
        time: SimTime,
        /// All deaths of its process, the first one first.
        deaths: Vec<Death>,
    },
    /// All clusters lost their processes and were dropped
    /// ([`Recovery::drop_cluster`](crate::Recovery::drop_cluster)).
    #[error("no cluster is left at {time}, all were dropped; their deaths: {}", Listed(.deaths))]
    NoneLeft {
        /// The simulated time, as far as main knows.
        time: SimTime,
        /// The deaths of all clusters, the first one first.
        deaths: Vec<Death>,
    },
    /// The cluster lost its process and was [dropped](crate::Recovery::drop_cluster), so no agent
    /// can be added to it. The simulation goes on.
    #[error("no agent can be added to cluster {}: {_0}; add it to another cluster", _0.cluster)]
    Dropped(Box<Dropped>),
    /// What a cluster is told cannot be recorded: [`record`](crate::MpMainBuilder::record). No agent
    /// has run.
    #[error(
        "what cluster {cluster} is told cannot be recorded in {}; choose a folder without records, in which files can be \
         written",
        .folder.display()
    )]
    Record {
        /// The cluster.
        cluster: String,
        /// The folder.
        folder: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// During the shutdown the process of a cluster ended before all its agents were torn down: see
    /// [`Shutdown::errors`](crate::Shutdown::errors).
    #[error(
        "cluster {cluster} (pid {pid}) ended at {time} before all its agents were torn down: its process {}",
        Ending(*.exit, .stderr)
    )]
    NotTornDown {
        /// Its cluster.
        cluster: String,
        /// Its process id. Another process may have it by now.
        pid: u32,
        /// How it ended; none if main killed it because it did not end in time.
        exit: Option<ExitKind>,
        /// The end of its stderr, at most 64 KiB; empty if its stderr was not piped to main.
        stderr: String,
        /// The simulated time.
        time: SimTime,
    },
    /// A cluster took too long: an agent or its process is stuck.
    #[error(
        "cluster {cluster} {limit}, at {time} or later: {}; all clusters were stopped",
        Reason(.blocker.as_deref())
    )]
    Stuck {
        /// The cluster that others waited for.
        cluster: String,
        /// What the cluster did; none if main does not know.
        blocker: Option<Box<TimeBlocker>>,
        /// The limit that the cluster exceeded.
        limit: Limit,
        /// The simulated time, as far as main knows.
        time: SimTime,
    },
    /// The link to a cluster broke although its process lives.
    #[error(
        "the link to cluster {cluster} broke at {time} although its process lives; all clusters were stopped"
    )]
    Link {
        /// The cluster.
        cluster: String,
        /// The simulated time, as far as main knows.
        time: SimTime,
        /// How it broke.
        source: LinkError,
    },
    /// The child processes could not be started. No process is left.
    #[error("the clusters could not be started")]
    Start(#[from] SpawnError),
    /// A cluster sent an impossible message in well-formed frames.
    #[error(
        "cluster {cluster} sent an impossible message at {time} (reason {}: {reason}), last bytes {}; its memory is corrupt, \
         or the kernel has a bug; all clusters were stopped",
        *.reason as u8,
        Hex(.tail)
    )]
    Protocol {
        /// The cluster.
        cluster: String,
        /// The simulated time, as far as main knows.
        time: SimTime,
        /// The reason why the message is impossible.
        reason: MessageFault,
        /// The last bytes of the message, at most 64. They hold the summary of the message.
        tail: Vec<u8>,
    },
    /// A cluster received an impossible message, from main or through main from another cluster.
    #[error(
        "cluster {cluster} received an impossible message at {time} (reason {}: {reason}); the memory of another cluster or \
         of main is corrupt, or the kernel has a bug; all clusters were stopped",
        *.reason as u8
    )]
    Refused {
        /// The receiving cluster.
        cluster: String,
        /// The reason why the message is impossible.
        reason: MessageFault,
        /// The simulated time of that cluster.
        time: SimTime,
    },
    /// The type of an agent is not registered.
    #[error(
        "the agent type {kind} is not registered, so no other process can build it: \
         add `.with::<{kind}>()` to the registry; registered types: {}",
        .known.join(", ")
    )]
    UnknownAgentType {
        /// The type of the agent.
        kind: String,
        /// The types that are registered.
        known: Vec<String>,
    },
    /// No builder has this name.
    #[error(
        "no builder has the name {builder:?}: add `.with_builder({builder:?}, …)` to the registry; registered builders: {}",
        .known.join(", ")
    )]
    UnknownBuilder {
        /// The name that the program used.
        builder: String,
        /// The names of the registered builders.
        known: Vec<String>,
    },
    /// The state of an agent, a configuration or a message cannot be serialised.
    #[error("{what} cannot be serialised: {why}; nothing was sent")]
    Encode {
        /// The value that failed.
        what: String,
        /// The serialiser's reason.
        why: String,
    },
    /// A message from an agent to another cluster cannot be serialised.
    #[error("in cluster {cluster}: {what} cannot be serialised: {why}; all clusters were stopped")]
    EncodeInCluster {
        /// The cluster.
        cluster: String,
        /// The value that failed.
        what: String,
        /// The serialiser's reason.
        why: String,
    },
    /// A value that was serialised in another process cannot be deserialised in its cluster.
    #[error(
        "in cluster {cluster}: {what} cannot be deserialised: {why}; its fields are read in the \
         order in which they are written, without names, so serde attributes such as `flatten`, `untagged` and `tag` are not supported"
    )]
    Decode {
        /// The cluster.
        cluster: String,
        /// The value that failed.
        what: String,
        /// The deserialiser's reason.
        why: String,
    },
    /// The `Serialize` and the `Deserialize` of an agent or a message do not fit each other. No
    /// wrong value was delivered.
    #[error(
        "{}{what} is not deserialised as it was serialised: {why}; messages and agents cross between clusters without the \
         names of their fields, \
         so both sides must have the same fields and variants in the same order: put variants with `#[serde(skip)]` behind all \
         others, and do not use `skip_serializing`, `skip_deserializing`, `skip_serializing_if`, `flatten`, `untagged`, `tag`, \
         `content` and `serde_json::Value`",
        In(.cluster.as_deref())
    )]
    Asymmetric {
        /// The cluster that found the error; none if main found it.
        cluster: Option<String>,
        /// The value that failed.
        what: String,
        /// The difference between the two values.
        why: String,
    },
    /// Two clusters have the same name.
    #[error("a cluster with the name {0:?} exists already: give the new cluster another name")]
    DuplicateCluster(String),
    /// A cluster's name has characters that a terminal obeys, or is too long.
    #[error(
        "the name {} is not valid for a cluster: use 1 to 200 characters, and none that a terminal obeys",
        Plain(.0, 40)
    )]
    BadClusterName(String),
    /// Some clusters have a lookahead, and this one has none.
    #[error(
        "cluster {0} has no lookahead while others have: give it one with `set_lookahead`, or all \
         one with `lookahead` of the builder"
    )]
    MissingLookahead(String),
    /// The cluster has started, and its lookahead cannot change any more.
    #[error(
        "cluster {0} has started, so its lookahead cannot be changed: set it before the first run"
    )]
    LateLookahead(String),
    /// The cluster has started, and what happens at its death cannot change any more.
    #[error(
        "cluster {0} has started, so its recovery cannot be changed: set it before the first run"
    )]
    LateRecovery(String),
    /// The handle belongs to another simulation.
    #[error(
        "cluster number {0} does not belong to this simulation: use the `ClusterId` that `new_cluster` of this `MpMain` returned"
    )]
    UnknownCluster(u32),
    /// No agent has this id.
    #[error(
        "there is no agent {0} in this simulation: add an agent with this id first, or check the id"
    )]
    UnknownAgent(AgentId),
    /// A simulation cannot be started within a cluster of another one.
    #[error(
        "this process is a cluster of a simulation, so it cannot start clusters of its own: start simulations in main only"
    )]
    Nested,
    /// This process is a copy, made with `fork`, of the one that the simulation belongs to.
    #[error(
        "this process is a copy of process {owner}, made with `fork`: only process {owner} can use its simulation; build a \
         new simulation in this process"
    )]
    Forked {
        /// The process id of the process that the simulation belongs to.
        owner: u32,
    },
    /// A second Ctrl-C or SIGTERM arrived, and main killed the clusters: see
    /// [`MpMain::stop_on_ctrl_c`](crate::MpMain::stop_on_ctrl_c).
    #[error("a second Ctrl-C or SIGTERM interrupted the run at {time}; all clusters were killed")]
    Interrupted {
        /// The simulated time, as far as main knows.
        time: SimTime,
    },
    /// The handler of signals cannot be installed: see
    /// [`MpMain::stop_on_ctrl_c`](crate::MpMain::stop_on_ctrl_c).
    #[error("cannot install a handler for Ctrl-C; stop runs with a `StopHandle` instead")]
    Signals(#[source] std::io::Error),
    /// The control socket cannot be opened: see
    /// [`MpMain::open_control`](crate::MpMain::open_control).
    #[error("cannot open a control socket for simulation {name:?}")]
    ControlSocket {
        /// The name of the simulation.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A snapshot was not written, or cannot be used. The simulation goes on.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The simulation was shut down, or an earlier run failed.
    #[error(
        "this simulation has ended: it was shut down, or an earlier run ended with an error or with a panic of a callback; \
         build a new one"
    )]
    Ended,
}

maslite_core::readable_debug!(enum Error {
    Agent { cluster, source },
    Model(source),
    ClusterDied { cluster, pid, exit, time, stderr, others },
    NotRecovered { cluster, reason, time, deaths },
    NoneLeft { time, deaths },
    Dropped(source),
    Record { cluster, folder, source },
    NotTornDown { cluster, pid, exit, stderr, time },
    Stuck { cluster, blocker, limit, time },
    Link { cluster, time, source },
    Start(source),
    Protocol { cluster, time, reason, tail },
    Refused { cluster, reason, time },
    UnknownAgentType { kind, known },
    UnknownBuilder { builder, known },
    Encode { what, why },
    EncodeInCluster { cluster, what, why },
    Decode { cluster, what, why },
    Asymmetric { cluster, what, why },
    DuplicateCluster(source),
    BadClusterName(source),
    MissingLookahead(source),
    LateLookahead(source),
    LateRecovery(source),
    UnknownCluster(source),
    UnknownAgent(source),
    Nested,
    Forked { owner },
    Interrupted { time },
    Signals(source),
    ControlSocket { name, source },
    Snapshot(source),
    Ended,
});

/// Shows how a process ended during the shutdown.
struct Ending<'a>(Option<ExitKind>, &'a str);

impl std::fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(exit) => Explained(exit, self.1).fmt(f),
            None => f.write_str(
                "did not end in time and was killed; look for a `teardown` or a `Drop` that does not return",
            ),
        }
    }
}

/// Shows the cluster that found an error, in front of the error.
struct In<'a>(Option<&'a str>);

impl std::fmt::Display for In<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(cluster) => write!(f, "in cluster {cluster}: "),
            None => Ok(()),
        }
    }
}

struct Reason<'a>(Option<&'a TimeBlocker>);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(blocker) => blocker.fmt(f),
            None => f.write_str("an agent's update does not return, or takes longer than that"),
        }
    }
}

impl Error {
    /// Makes the error of a first death and of the deaths after it.
    pub(crate) fn died(first: Death, others: Vec<Death>, time: SimTime) -> Self {
        Self::ClusterDied {
            cluster: first.cluster,
            pid: first.pid,
            exit: first.exit,
            time,
            stderr: first.stderr,
            others,
        }
    }
}

/// Shows deaths.
struct Listed<'a>(&'a [Death]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, death) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { ", " };
            write!(f, "{before}{death}")?;
        }
        Ok(())
    }
}

/// Shows the other deaths.
struct Others<'a>(&'a [Death]);

impl std::fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, death) in self.0.iter().enumerate() {
            let before = if place == 0 { "; after it " } else { ", " };
            write!(f, "{before}{death}")?;
        }
        Ok(())
    }
}
