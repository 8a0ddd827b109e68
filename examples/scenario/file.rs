//! Scenario files: reads one, and refuses a malformed one with its path, the line and the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use maslite_core::Topic;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A small model written as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Every agent is in exactly one.
    pub(crate) clusters: Vec<Vec<u64>>,
    /// Their order is the insertion order.
    pub(crate) agents: Vec<Script>,
    /// Mail that lies in the queue before the first superstep, in this order.
    pub(crate) start: Vec<StartMail>,
    pub(crate) run: Until,
}

/// What one agent does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(deserialize_with = "agent_id")]
    pub(crate) id: u64,
    /// In force from the start.
    pub(crate) subscribe: Vec<Listen>,
    /// Of two rules for one topic the later one holds.
    pub(crate) rules: Vec<Rule>,
}

/// What an agent does on receiving a message with a topic, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) on: Topic,
    #[serde(rename = "do")]
    pub(crate) actions: Vec<Action>,
}

/// One thing that an agent does. Messages carry a `ttl` one less than the one reacted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Action {
    /// A message to an agent, or with `direct` to it and nobody else.
    Send {
        #[serde(deserialize_with = "addressee")]
        to: Option<u64>,
        topic: Topic,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        direct: bool,
    },
    /// A message to the sender of the one reacted to.
    Reply {
        topic: Topic,
    },
    /// A message to the subscribers.
    Broadcast {
        topic: Topic,
    },
    /// The same as a `send` that much later.
    Alarm {
        #[serde(deserialize_with = "millis")]
        after_ms: u64,
        #[serde(deserialize_with = "addressee")]
        to: Option<u64>,
        topic: Topic,
    },
    Subscribe(Listen),
    Unsubscribe(Listen),
}

/// A pattern of mail: one to three of sender, receiver, topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub(crate) struct Listen {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receiver: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<Topic>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default, deserialize_with = "addressee")]
    sender: Option<u64>,
    #[serde(default, deserialize_with = "addressee")]
    receiver: Option<u64>,
    topic: Option<Topic>,
}

impl TryFrom<Parts> for Listen {
    type Error = &'static str;

    fn try_from(parts: Parts) -> Result<Self, Self::Error> {
        let Parts {
            sender,
            receiver,
            topic,
        } = parts;
        if sender.is_none() && receiver.is_none() && topic.is_none() {
            return Err("an empty pattern: name a `sender`, a `receiver` or a `topic`");
        }
        Ok(Self {
            sender,
            receiver,
            topic,
        })
    }
}

/// Mail queued before the run. Its sender need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartMail {
    #[serde(deserialize_with = "any_id")]
    pub(crate) from: u64,
    #[serde(deserialize_with = "addressee")]
    pub(crate) to: Option<u64>,
    pub(crate) topic: Topic,
    #[serde(deserialize_with = "ttl")]
    pub(crate) ttl: u64,
}

/// When the run ends; without a limit, when nothing is left to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Until {
    #[serde(default, deserialize_with = "optional_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<u64>,
}

// ---- numbers, each with its range

const LAST_ID: u64 = i64::MAX.unsigned_abs();
/// Simulated time ends 2⁶⁴ ns after its start.
const LAST_MS: u64 = u64::MAX / 1_000_000;

fn agent_id<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let what = "an agent's id: an integer from 1 to 2^63 - 1";
    from.deserialize_u64(Integer(what, 1, LAST_ID))
}

/// An id that some agent may have or not.
fn any_id<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let what = "an id: an integer from 0 to 2^63 - 1";
    from.deserialize_u64(Integer(what, 0, LAST_ID))
}

/// An id, or `null` for no receiver.
fn addressee<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Id(#[serde(deserialize_with = "any_id")] u64);
    Ok(Option::<Id>::deserialize(from)?.map(|id| id.0))
}

fn ttl<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_u64(Integer("a ttl: an integer from 0", 0, u64::MAX))
}

fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let what = "milliseconds: an integer from 0 to 2^64 / 10^6";
    from.deserialize_u64(Integer(what, 0, LAST_MS))
}

fn optional_millis<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Millis(#[serde(deserialize_with = "millis")] u64);
    Ok(Option::<Millis>::deserialize(from)?.map(|millis| millis.0))
}

/// An integer: what it is, and from where to where it goes.
struct Integer(&'static str, u64, u64);

impl Visitor<'_> for Integer {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        if (self.1..=self.2).contains(&number) {
            Ok(number)
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(number), &self))
        }
    }
}

// ---- reading

/// Why there is no scenario.
#[derive(Debug)]
pub(crate) enum LoadError {
    Unreadable(PathBuf, io::Error),
    /// The file, and the line and column where it is wrong, counted from 1.
    Malformed(PathBuf, usize, usize, String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            Self::Malformed(path, line, column, reason) => {
                write!(f, "{}:{line}:{column}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl Scenario {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| LoadError::Unreadable(path.to_owned(), error))?;
        Self::parse(path, &bytes)
    }

    /// Reads the text of a file; `path` is for the error.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let malformed =
            |line, column, reason| LoadError::Malformed(path.to_owned(), line, column, reason);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let (line, column) = position(&bytes[..error.valid_up_to()]);
            malformed(line, column, "not UTF-8: save the file as UTF-8".to_owned())
        })?;
        let scenario: Self = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let place = format!(" at line {line} column {column}");
            let reason = error.to_string().replace(&place, "");
            malformed(
                line,
                column.max(1),
                format!("{reason}; --help shows the format"),
            )
        })?;
        scenario.check().map_err(|(place, reason)| {
            let (line, column) = place.find_in(text).unwrap_or((1, 1));
            malformed(line, column, reason)
        })?;
        Ok(scenario)
    }

    /// What no part shows alone: ids and clusters fit together.
    fn check(&self) -> Result<(), (Place, String)> {
        // Of each agent: whether a cluster has named it.
        let mut in_cluster = BTreeMap::new();
        for (place, agent) in self.agents.iter().enumerate() {
            let id = agent.id;
            if in_cluster.insert(id, false).is_some() {
                let reason = format!("a second agent {id}: give it an id of its own");
                return Err((Place::Agent(place), reason));
            }
            let lonely = |action: &Action| {
                matches!(
                    action,
                    Action::Send {
                        to: None,
                        direct: true,
                        ..
                    }
                )
            };
            if agent
                .rules
                .iter()
                .any(|rule| rule.actions.iter().any(lonely))
            {
                let reason = format!(
                    "agent {id} sends directly to nobody: give the `send` a receiver in `to`"
                );
                return Err((Place::Agent(place), reason));
            }
        }
        for (cluster, ids) in self.clusters.iter().enumerate() {
            for (place, id) in ids.iter().enumerate() {
                let reason = match in_cluster.insert(*id, true) {
                    Some(false) => continue,
                    Some(true) => format!("agent {id} is in a cluster already: name it once"),
                    None => format!("no agent {id}: describe it in `agents` or name another"),
                };
                return Err((Place::Cluster(cluster, place), reason));
            }
        }
        for (place, agent) in self.agents.iter().enumerate() {
            let id = agent.id;
            if in_cluster.get(&id) == Some(&false) {
                let reason = format!("agent {id} is in no cluster: name it in one of `clusters`");
                return Err((Place::Agent(place), reason));
            }
        }
        Ok(())
    }
}

/// A part of a scenario.
#[derive(Clone, Copy)]
enum Place {
    Agent(usize),
    Cluster(usize, usize),
}

/// The parts of a file as they stand in its text.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    clusters: Vec<Vec<&'a RawValue>>,
    #[serde(borrow)]
    agents: Vec<&'a RawValue>,
}

impl Place {
    /// Line and column of the part in the text that the scenario was read from.
    fn find_in(self, text: &str) -> Option<(usize, usize)> {
        let outline: Outline<'_> = serde_json::from_str(text).ok()?;
        let part = match self {
            Self::Agent(place) => outline.agents.get(place)?,
            Self::Cluster(cluster, place) => outline.clusters.get(cluster)?.get(place)?,
        };
        let start = part.get().as_ptr().addr() - text.as_ptr().addr();
        Some(position(&text.as_bytes()[..start]))
    }
}

/// Line and column right after `before`, counted from 1.
fn position(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        + 1;
    (line, column)
}
