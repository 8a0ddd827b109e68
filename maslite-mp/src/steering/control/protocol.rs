//! What is asked of a simulation through its control socket, and the answers.
//!
//! A request is one line of JSON, an answer another: `{"version":2,"request":"pause"}` is answered
//! with `{"version":2,"reply":{"paused":{"time_ns":3000000000}}}`. A client asks as often as it
//! likes, one thing after the other. Times are whole nanoseconds.
//!
//! **Invariant:** what is not a request of this version is answered with [`Reply::Refused`], and
//! nothing happens.

use maslite_core::{Digest, SimTime};
use serde::{Deserialize, Serialize};

use crate::steering::status::Status;

/// The version of the protocol. A client and a simulation of different versions do not understand
/// each other.
pub const VERSION: u32 = 2;

/// The longest request, with its end of line \[bytes\].
pub const REQUEST_LIMIT: usize = 4_096;

pub use crate::cluster::commands::STATE_LIMIT;

/// A request, as it is written on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// How it stands. Answered at once with [`Reply::Status`], whatever agents do.
    Status,
    /// Let the superstep at hand finish, and pause.
    Pause,
    /// Go on for `supersteps` supersteps, and pause.
    Step {
        /// How many.
        supersteps: u64,
    },
    /// Finish this instant, and pause at the next one.
    StepInstant,
    /// Go on until this time, and pause there.
    RunUntil {
        /// When (`time_ns`).
        #[serde(rename = "time_ns")]
        time: SimTime,
    },
    /// Go on. Answered at once with [`Reply::Done`].
    Resume,
    /// End the run. Answered at once with [`Reply::Done`].
    Stop,
    /// The agents, in insertion order. Answered with [`Reply::Agents`]; if there may be more than
    /// one answer has, ask again from the index after the last agent's on.
    Agents {
        /// The least insertion index.
        from: u64,
        /// How many agents at most. A simulation may answer with fewer.
        limit: u64,
    },
    /// Save it in the folder that the program has named for its snapshots
    /// ([`Saves`](crate::Saves)). Answered with [`Reply::Saved`].
    Save {
        /// The name of the snapshot.
        name: String,
    },
    /// One agent. Answered with [`Reply::Agent`].
    Agent {
        /// Its number or name.
        id: String,
    },
}

/// An answer, as it is written on a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What is answered.
    pub reply: Reply,
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// How it stands.
    Status(Status),
    /// The run is paused, and all clusters stand at this instant.
    Paused {
        /// When (`time_ns`).
        #[serde(rename = "time_ns")]
        time: SimTime,
    },
    /// The run has ended before it could be paused.
    Ended {
        /// Where all clusters stand (`time_ns`).
        #[serde(rename = "time_ns")]
        time: SimTime,
        /// Why.
        reason: String,
    },
    /// It is done, or will be after the superstep at hand.
    Done,
    /// Some of the agents.
    Agents(Vec<AgentLine>),
    /// One agent.
    Agent(Box<AgentView>),
    /// It is saved, and goes on.
    Saved {
        /// The folder of the snapshot.
        path: String,
        /// Where all clusters stood (`time_ns`).
        #[serde(rename = "time_ns")]
        time: SimTime,
        /// The agents in it.
        agents: u64,
        /// How large it is \[bytes\].
        bytes: u64,
        /// The digest of the state.
        state_digest: Digest,
    },
    /// It cannot be done.
    Refused {
        /// Why, in one line.
        message: String,
    },
}

/// An agent, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentLine {
    /// Its number or name.
    pub id: String,
    /// Its place in the order of all additions to the simulation.
    pub index: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The name of the cluster where it lives.
    pub cluster: String,
}

/// An agent, as far as it can be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentView {
    /// Its number or name.
    pub id: String,
    /// Its place in the order of all additions to the simulation.
    pub index: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The name of the cluster where it lives.
    pub cluster: String,
    /// Its state as its type serialises it; none if it cannot be shown. In it other agents are
    /// numbers.
    pub state: Option<serde_json::Value>,
    /// Why there is no state.
    pub no_state: Option<String>,
    /// The alarms it has set, in the order they will fire.
    pub alarms: Vec<AlarmLine>,
    /// What it listens to.
    pub subscriptions: Vec<String>,
}

/// A pending alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AlarmLine {
    /// When it is due (`time_ns`).
    #[serde(rename = "time_ns")]
    pub time: SimTime,
    /// The number or name of its receiver; none: its subscribers.
    pub to: Option<String>,
    /// What it is about.
    pub topic: String,
}

/// Reads a request.
///
/// # Errors
/// Why it is none, in one line.
pub(crate) fn read(line: &[u8]) -> Result<Request, String> {
    /// The part that all versions have.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Head { version } =
        serde_json::from_slice(line).map_err(|why| format!("this is not a request: {why}"))?;
    if version != VERSION {
        return Err(format!(
            "this simulation speaks version {VERSION} of the protocol, not {version}: use the `maslite` of its own version, {}",
            env!("CARGO_PKG_VERSION")
        ));
    }
    serde_json::from_slice(line)
        .map(|question: Question| question.request)
        .map_err(|why| format!("this is not a request: {why}"))
}

/// Writes an answer, with its end of line.
pub(crate) fn write(reply: Reply) -> Vec<u8> {
    let version = VERSION;
    let mut line = serde_json::to_vec(&Answer { version, reply }).unwrap_or_default();
    line.push(b'\n');
    line
}
