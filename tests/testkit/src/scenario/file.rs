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
pub struct Scenario {
    /// Every agent is in exactly one.
    pub clusters: Vec<Vec<u64>>,
    /// Their order is the insertion order.
    pub agents: Vec<Script>,
    /// Mail that lies in the queue before the first superstep, in this order.
    pub start: Vec<StartMail>,
    pub run: Until,
    /// What the owner does after the first pause, the second, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Vec<OwnerAction>>,
}

/// What one agent does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(deserialize_with = "agent_id")]
    pub id: u64,
    /// In force from the start.
    pub subscribe: Vec<Listen>,
    /// Of two rules for one topic the later one holds.
    pub rules: Vec<Rule>,
    /// What it does in its `setup`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Action>,
    /// What it does in its `teardown`, if it is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teardown: Vec<Action>,
    /// The most mail that it reads in an update.
    #[serde(default, deserialize_with = "optional_count")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
}

/// What an agent does on receiving a message with a topic, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub on: Topic,
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

/// One thing that an agent does. Messages carry a `ttl` one less than the one reacted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Action {
    /// A message to an agent, or with `direct` to it alone.
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
    /// Adds an agent with the same script and sends it C.
    Spawn {
        /// Without an id the new one has an id that follows from this agent's.
        #[serde(default, deserialize_with = "optional_id")]
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    },
    /// Removes an agent; 0 is the agent itself.
    Remove {
        #[serde(deserialize_with = "any_id")]
        id: u64,
    },
    /// Clears alarms of this agent.
    Clear {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Topic>,
        /// `null` is no receiver, as in `alarm`; without the field it is any.
        #[serde(default, deserialize_with = "any_addressee")]
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Option<u64>>,
    },
    /// Ends the run after this superstep.
    Pause {},
    /// Panics, unless the agent has had mail about this topic.
    Panic {
        unless: Topic,
    },
    /// The agent sends itself the message that it reacts to once more, so often and until it has
    /// had mail about a topic.
    Spin {
        until: Topic,
        #[serde(deserialize_with = "times")]
        most: u64,
    },
    Keep {
        awake: bool,
    },
}

/// One thing that the owner of a scenario does between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum OwnerAction {
    Add(Script),
    Send(StartMail),
    Remove {
        #[serde(deserialize_with = "agent_id")]
        id: u64,
    },
}

/// A pattern of mail: one to three of sender, receiver, topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Listen {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
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
pub struct StartMail {
    #[serde(deserialize_with = "any_id")]
    pub from: u64,
    #[serde(deserialize_with = "addressee")]
    pub to: Option<u64>,
    pub topic: Topic,
    #[serde(deserialize_with = "ttl")]
    pub ttl: u64,
}

/// When the run ends; without a limit, when nothing is left to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    #[serde(default, deserialize_with = "optional_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// An instant with more is an endless exchange. There is no limit unless one is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "optional_times")]
    pub supersteps_per_instant: Option<u64>,
    /// Main stops the run on mail about this topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on: Option<Topic>,
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

/// The same in a field that may be missing.
fn any_addressee<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    addressee(from).map(Some)
}

fn optional_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Id(#[serde(deserialize_with = "agent_id")] u64);
    Ok(Option::<Id>::deserialize(from)?.map(|id| id.0))
}

fn optional_count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct Count(u64);
    impl<'de> Deserialize<'de> for Count {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let what = "how much mail: an integer from 1";
            from.deserialize_u64(Integer(what, 1, u64::MAX)).map(Self)
        }
    }
    Ok(Option::<Count>::deserialize(from)?.map(|count| count.0))
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_u64(Integer("how often: an integer from 0", 0, u64::MAX))
}

fn optional_times<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Times(#[serde(deserialize_with = "times")] u64);
    Ok(Option::<Times>::deserialize(from)?.map(|times| times.0))
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
pub enum LoadError {
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
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| LoadError::Unreadable(path.to_owned(), error))?;
        Self::parse(path, &bytes)
    }

    /// Reads the text of a file; `path` is for the error.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
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

    /// The agents of the file, those that the owner adds later included, each with its place.
    pub fn scripts(&self) -> impl Iterator<Item = (Place, &Script)> {
        let first = self.agents.iter().enumerate();
        let first = first.map(|(place, agent)| (Place::Agent(place), agent));
        let later = self.between.iter().enumerate().flat_map(|(pause, acts)| {
            let acts = acts.iter().enumerate();
            acts.filter_map(move |(place, act)| match act {
                OwnerAction::Add(agent) => Some((Place::Between(pause, place), agent)),
                OwnerAction::Send(_) | OwnerAction::Remove { .. } => None,
            })
        });
        first.chain(later)
    }

    /// What no part shows alone: ids and clusters fit together.
    fn check(&self) -> Result<(), (Place, String)> {
        // Of each agent: whether a cluster has named it.
        let mut in_cluster = BTreeMap::new();
        for (place, agent) in self.scripts() {
            let id = agent.id;
            if in_cluster.insert(id, false).is_some() {
                let reason = format!("a second agent {id}: give it an id of its own");
                return Err((place, reason));
            }
            if agent.actions().any(Action::is_lonely) {
                let reason = format!(
                    "agent {id} sends directly to nobody: give the `send` a receiver in `to`"
                );
                return Err((place, reason));
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
        for (place, agent) in self.scripts() {
            let id = agent.id;
            if in_cluster.get(&id) == Some(&false) {
                let reason = format!("agent {id} is in no cluster: name it in one of `clusters`");
                return Err((place, reason));
            }
        }
        Ok(())
    }
}

impl Script {
    /// All that it ever does.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        let rules = self.rules.iter().flat_map(|rule| &rule.actions);
        rules.chain(&self.setup).chain(&self.teardown)
    }
}

impl Action {
    /// Mail to one agent alone, without an agent.
    fn is_lonely(&self) -> bool {
        let Self::Send { to, direct, .. } = self else {
            return false;
        };
        to.is_none() && *direct
    }
}

/// A part of a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Agent(usize),
    Cluster(usize, usize),
    /// Which pause, and which of the actions after it.
    Between(usize, usize),
}

/// The parts of a file as they stand in its text.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    clusters: Vec<Vec<&'a RawValue>>,
    #[serde(borrow)]
    agents: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    between: Vec<Vec<&'a RawValue>>,
}

impl Place {
    /// Line and column of the part in the text that the scenario was read from.
    fn find_in(self, text: &str) -> Option<(usize, usize)> {
        let outline: Outline<'_> = serde_json::from_str(text).ok()?;
        let part = match self {
            Self::Agent(place) => outline.agents.get(place)?,
            Self::Cluster(cluster, place) => outline.clusters.get(cluster)?.get(place)?,
            Self::Between(pause, place) => outline.between.get(pause)?.get(place)?,
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
