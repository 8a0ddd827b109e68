//! Requests to clusters and agents between two supersteps, and their answers.
//!
//! There is one copy of an agent, in its cluster. A request goes to that cluster as a grant that
//! takes no time, and the answer comes back with a report. So answers are consistent, and main
//! learns of every change.
//!
//! A request and its answer have a type each: what [`answer`] encodes for a [`ClusterRequest`] is
//! what the [`Question`] that holds it decodes.

use std::any::type_name;

use maslite_core::internal::{AgentInfoInternals, Engine, PendingAlarmInternals, discard};
use maslite_core::{
    Agent, AgentId, AlarmFilter, CommandError, Counters, Digest, Marks, Message, Pattern,
    PendingAlarm,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::registry::{Registry, WireMessage};
use crate::error::control::ControlError;
use crate::links::{codec, guarded};
use crate::settings::ClusterId;

/// The longest state of an agent that is shown \[bytes of JSON\].
pub const STATE_LIMIT: usize = 256 * 1_024;

/// The agents that a command is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    kind: Option<&'static str>,
    cluster: Option<ClusterId>,
}

impl Audience {
    /// All agents.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Keeps only the agents of type `A`.
    #[must_use]
    pub fn of_type<A>(mut self) -> Self {
        self.kind = Some(type_name::<A>());
        self
    }

    /// Keeps only the agents in one cluster.
    #[must_use]
    pub fn in_cluster(mut self, cluster: ClusterId) -> Self {
        self.cluster = Some(cluster);
        self
    }
}

/// An agent, as listings show it.
pub type AgentInfo = maslite_core::AgentInfo<ClusterId>;

/// A request to a cluster.
#[derive(Debug, Serialize, Deserialize)]
enum ClusterRequest {
    /// Answered by a `Result<Vec<u8>, ControlError>`: the encoded message.
    Command {
        agent: AgentId,
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// The same of all agents, or those of a type; answered by a `Vec<Said>`.
    CommandAll {
        kind: Option<String>,
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// Answered by a `Result<Vec<u8>, ControlError>`: the encoded state.
    State { agent: AgentId, kind: String },
    /// The same; the agent is then gone.
    TakeOut { agent: AgentId, kind: String },
    /// Answered by a `Result<(), ControlError>`.
    Replace {
        agent: AgentId,
        kind: String,
        #[serde(with = "serde_bytes")]
        state: Vec<u8>,
    },
    /// The agents from the insertion index `from` on, at most `limit` in each cluster. Answered by
    /// a `Vec<(AgentId, u64, String)>`: id, insertion index, type.
    Agents { from: u64, limit: u64 },
    /// Answered by a `Result<Shown, ControlError>`.
    Show { agent: AgentId },
    /// Answered by a `Vec<PendingAlarm>`.
    Alarms,
    /// Answered by a `Vec<(AgentId, Pattern)>`.
    Subscriptions,
    /// Answered by `Counters`.
    Counters,
    /// Answered by an `Option<Marks>`.
    Marks,
    /// Answered by a `Result<Digest, String>`.
    StateDigest,
    /// The first agents that would take part in a superstep now. Answered by a
    /// `Vec<(u64, AgentId)>`, by insertion index.
    Awake,
}

/// One agent's answer to a command for many.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    agent: AgentId,
    index: u64,
    answer: Result<Vec<u8>, ControlError>,
}

/// Answers an encoded request: puts into `into` a `Result<(), ControlError>`, and behind a good one
/// the encoded answer.
pub(crate) fn answer<M: WireMessage>(
    engine: &mut Engine<M>,
    registry: &Registry<M>,
    request: &[u8],
    into: &mut Vec<u8>,
) {
    into.clear();
    let Ok(request) = codec::decode(request) else {
        // The request is empty, or of another build. Main cannot decode the empty answer, and says
        // so.
        return;
    };
    let good: Result<(), ControlError> = Ok(());
    let answered = codec::put(&good, into).map_err(|why| why.to_string());
    let answered = answered.and_then(|()| {
        guarded::catch(|| try_to_answer(engine, registry, request, into))
            .unwrap_or_else(|panic| Err(format!("the program panicked over it: {panic}")))
    });
    if let Err(why) = answered {
        into.clear();
        let what = "an answer".to_owned();
        let bad: Result<(), ControlError> = Err(ControlError::Encode { what, why });
        let _ = codec::put(&bad, into);
    }
}

/// Appends an answer, unless it is too long.
fn say<T: Serialize>(answer: &T, into: &mut Vec<u8>) -> Result<(), String> {
    guarded::put(answer, into, guarded::ANSWER_LIMIT)
}

fn state_digest<M: WireMessage>(
    engine: &Engine<M>,
    registry: &Registry<M>,
) -> Result<Digest, String> {
    let state = engine.export(registry).map_err(|why| why.to_string())?;
    state.digest()
}

fn try_to_answer<M: WireMessage>(
    engine: &mut Engine<M>,
    registry: &Registry<M>,
    request: ClusterRequest,
    into: &mut Vec<u8>,
) -> Result<(), String> {
    match request {
        ClusterRequest::Command { agent, body } => say(&command(engine, agent, &body), into),
        ClusterRequest::CommandAll { kind, body } => {
            let agents = engine.agents();
            let wanted = agents
                .filter(|(_, agent)| kind.as_deref().is_none_or(|kind| kind == agent.type_name()));
            let wanted: Vec<AgentId> = wanted.map(|(id, _)| id).collect();
            let said = wanted.into_iter().map(|agent| Said {
                agent,
                index: engine.index(agent).unwrap_or(u64::MAX),
                answer: command(engine, agent, &body),
            });
            say(&said.collect::<Vec<_>>(), into)
        }
        ClusterRequest::State { agent, kind } => {
            let _at_work = engine.begin_request(agent);
            say(&state(engine, registry, agent, &kind), into)
        }
        ClusterRequest::TakeOut { agent, kind } => {
            let _at_work = engine.begin_request(agent);
            let state = state(engine, registry, agent, &kind).and_then(|state| {
                // What main could not read would be lost.
                revive(registry, agent, &kind, &state)?;
                let taken = engine.take_out(agent)?;
                // Its state is safe, so a panic of what is left of it here is no error.
                let _ = discard(agent, taken);
                Ok(state)
            });
            say(&state, into)
        }
        ClusterRequest::Replace { agent, kind, state } => {
            let _at_work = engine.begin_request(agent);
            let replaced = revive(registry, agent, &kind, &state).and_then(|mut new| {
                complete(registry, agent, &kind, new.as_mut())?;
                engine.replace(agent, new)?;
                Ok(())
            });
            say(&replaced, into)
        }
        ClusterRequest::Agents { from, limit } => {
            let agents = engine.agents().map(|(id, agent)| {
                let index = engine.index(id).unwrap_or(u64::MAX);
                (id, index, agent.type_name())
            });
            let wanted = agents.filter(|(_, index, _)| *index >= from);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            say(&wanted.take(limit).collect::<Vec<_>>(), into)
        }
        ClusterRequest::Show { agent } => say(&show(engine, registry, agent), into),
        ClusterRequest::Alarms => say(&engine.alarms(AlarmFilter::all()), into),
        ClusterRequest::Subscriptions => {
            let subscriptions = engine.agents().flat_map(|(id, _)| {
                let patterns = engine.subscriptions(id).into_iter();
                patterns.map(move |pattern| (id, pattern))
            });
            say(&subscriptions.collect::<Vec<_>>(), into)
        }
        ClusterRequest::Counters => say(&engine.counters(), into),
        ClusterRequest::Marks => say(&engine.marks(), into),
        ClusterRequest::StateDigest => say(&state_digest(engine, registry), into),
        ClusterRequest::Awake => say(&engine.first_awake(), into),
    }
}

fn command<M: WireMessage>(
    engine: &mut Engine<M>,
    agent: AgentId,
    body: &[u8],
) -> Result<Vec<u8>, ControlError> {
    let _at_work = engine.begin_request(agent);
    let request: M = decode(body, || format!("a command for agent {agent}"))?;
    let reply = engine.command(agent, request)?;
    encode(&reply, || format!("the answer of agent {agent}"))
}

/// An agent, as far as it can be shown.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) index: u64,
    pub(crate) kind: String,
    /// As JSON, or why not.
    pub(crate) state: Result<String, String>,
    pub(crate) alarms: Vec<PendingAlarm>,
    pub(crate) subscriptions: Vec<Pattern>,
    /// Names of the agents among the receivers of the alarms, of which others may not have heard.
    pub(crate) names: Vec<String>,
}

fn show<M: WireMessage>(
    engine: &mut Engine<M>,
    registry: &Registry<M>,
    id: AgentId,
) -> Result<Shown, ControlError> {
    let _at_work = engine.begin_request(id);
    let mut alarms = engine.alarms(AlarmFilter::all());
    alarms.retain(|alarm| alarm.setter == id);
    let agent = engine.agent(id).ok_or(CommandError::UnknownAgent(id))?;
    let kind = agent.type_name();
    let state = match registry.kind_of(agent) {
        None => Err(format!(
            "its type is not registered: derive `Serialize` and `Deserialize` for it, and add `.with::<{kind}>()` to the registry"
        )),
        Some(known) => (known.show)(agent, STATE_LIMIT)
            .map_err(|why| format!("its state cannot be written as JSON: {why}")),
    };
    let receivers = alarms.iter().filter_map(|alarm| alarm.receiver.agent());
    Ok(Shown {
        index: engine.index(id).unwrap_or(u64::MAX),
        kind: kind.to_owned(),
        state,
        names: names_of(receivers),
        subscriptions: engine.subscriptions(id),
        alarms,
    })
}

/// What is shown of an agent, and where it lives.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) cluster: ClusterId,
    pub(crate) shown: Shown,
}

pub(crate) fn ask_show(agent: AgentId) -> Result<Question<View>, ControlError> {
    Question::new(
        Scope::Owner(agent),
        &ClusterRequest::Show { agent },
        |replies| {
            let cluster = replies.first().map(|(cluster, _)| *cluster);
            let shown: Result<Shown, ControlError> = the_only(replies)?;
            let shown = shown?;
            let cluster = cluster.expect("an answer comes from a cluster");
            for name in &shown.names {
                let _ = AgentId::named(name);
            }
            Ok(View { cluster, shown })
        },
    )
}

fn state<M: WireMessage>(
    engine: &Engine<M>,
    registry: &Registry<M>,
    id: AgentId,
    asked: &str,
) -> Result<Vec<u8>, ControlError> {
    let agent = engine.agent(id).ok_or(CommandError::UnknownAgent(id))?;
    let found = agent.type_name();
    if found != asked {
        return Err(ControlError::Agent(CommandError::WrongType {
            agent: id,
            asked: asked.to_owned(),
            found: found.to_owned(),
        }));
    }
    let kind = registry
        .kind_of(agent)
        .ok_or_else(|| ControlError::Unregistered {
            agent: id,
            kind: found.to_owned(),
        })?;
    let mut state = Vec::new();
    (kind.copy)(agent, &mut state, guarded::ANSWER_LIMIT).map_err(|why| ControlError::Encode {
        what: format!("agent {id} of type {found}"),
        why,
    })?;
    let what = || format!("agent {id} of type {found}");
    let tried = kind.try_round(agent, &state);
    tried.map_err(|why| ControlError::Decode { what: what(), why })?;
    Ok(state)
}

/// Makes an agent of its encoded state.
fn revive<M: WireMessage>(
    registry: &Registry<M>,
    agent: AgentId,
    kind: &str,
    state: &[u8],
) -> Result<Box<dyn Agent<M>>, ControlError> {
    let unregistered = || ControlError::Unregistered {
        agent,
        kind: kind.to_owned(),
    };
    let known = registry.kind(kind).ok_or_else(unregistered)?;
    let revived = guarded::catch(|| (known.decode)(state));
    let revived = match revived {
        Ok(revived) => revived.map_err(|why| why.to_string()),
        Err(panic) => Err(format!("its `Deserialize` panicked: {panic}")),
    };
    revived.map_err(|why| ControlError::Decode {
        what: format!("agent {agent} of type {kind}"),
        why,
    })
}

/// Gives an agent that is to take the place of another what serde has skipped.
fn complete<M: WireMessage>(
    registry: &Registry<M>,
    id: AgentId,
    kind: &str,
    agent: &mut dyn Agent<M>,
) -> Result<(), ControlError> {
    let completed = guarded::catch(|| {
        if let Some(known) = registry.kind(kind) {
            known.give_parts(agent);
        }
        agent.restored();
    });
    completed.map_err(|panic| ControlError::Decode {
        what: format!("agent {id} of type {kind}"),
        why: format!("its parts or its `restored` panicked: {panic}"),
    })
}

pub(crate) fn encode<T: Serialize>(
    value: &T,
    what: impl FnOnce() -> String,
) -> Result<Vec<u8>, ControlError> {
    let mut bytes = Vec::new();
    let put = guarded::put(value, &mut bytes, guarded::ANSWER_LIMIT);
    put.map_err(|why| ControlError::Encode { what: what(), why })?;
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    what: impl FnOnce() -> String,
) -> Result<T, ControlError> {
    guarded::decode(bytes).map_err(|why| ControlError::Decode { what: what(), why })
}

/// Which clusters a request goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// That of an agent.
    Owner(AgentId),
    Cluster(ClusterId),
    All,
}

/// The encoded answers of clusters, each with its cluster.
pub(crate) type Replies = Vec<(ClusterId, Vec<u8>)>;

/// A request, and how its answers are read.
pub(crate) struct Question<T> {
    pub(crate) scope: Scope,
    pub(crate) request: Vec<u8>,
    pub(crate) read: fn(Replies) -> Result<T, ControlError>,
}

impl<T> Question<T> {
    fn new(
        scope: Scope,
        request: &ClusterRequest,
        read: fn(Replies) -> Result<T, ControlError>,
    ) -> Result<Self, ControlError> {
        let request = encode(request, || "a request".to_owned())?;
        Ok(Self {
            scope,
            request,
            read,
        })
    }
}

/// Reads the answer of the only cluster that was asked.
fn the_only<T: DeserializeOwned>(replies: Replies) -> Result<T, ControlError> {
    let reply = replies.into_iter().next();
    let bytes = reply.map_or_else(Vec::new, |(_, bytes)| bytes);
    read(&bytes, "an answer")
}

/// Reads what a cluster has answered, or why it has not.
fn read<T: DeserializeOwned>(mut bytes: &[u8], what: &str) -> Result<T, ControlError> {
    let what = || what.to_owned();
    let answered: Result<(), ControlError> =
        codec::take(&mut bytes).map_err(|why| ControlError::Decode {
            what: what(),
            why: why.to_string(),
        })?;
    answered.and_then(|()| decode(bytes, what))
}

/// Reads an answer that is itself encoded.
fn the_encoded<T: DeserializeOwned>(replies: Replies) -> Result<T, ControlError> {
    let encoded: Result<Vec<u8>, ControlError> = the_only(replies)?;
    decode(&encoded?, || "an answer".to_owned())
}

pub(crate) fn ask_command<M: WireMessage>(
    agent: AgentId,
    body: &M,
) -> Result<Question<M>, ControlError> {
    let body = encode(body, || format!("a command for agent {agent}"))?;
    let request = ClusterRequest::Command { agent, body };
    Question::new(Scope::Owner(agent), &request, the_encoded)
}

/// The answers of several agents to a command, in insertion order.
pub type Answers<M> = Vec<(AgentId, Result<M, ControlError>)>;

pub(crate) fn ask_command_all<M: WireMessage>(
    audience: Audience,
    body: &M,
) -> Result<Question<Answers<M>>, ControlError> {
    let scope = audience.cluster.map_or(Scope::All, Scope::Cluster);
    let request = ClusterRequest::CommandAll {
        kind: audience.kind.map(str::to_owned),
        body: encode(body, || "a command for several agents".to_owned())?,
    };
    Question::new(scope, &request, |replies| {
        let mut said: Vec<Said> = Vec::new();
        for (_, bytes) in replies {
            said.append(&mut read(&bytes, "answers of agents")?);
        }
        said.sort_by_key(|said| said.index);
        let answers = said.into_iter().map(|said| {
            let what = || format!("the answer of agent {}", said.agent);
            (said.agent, said.answer.and_then(|body| decode(&body, what)))
        });
        Ok(answers.collect())
    })
}

pub(crate) fn ask_state<M: Message, A: Agent<M> + DeserializeOwned>(
    agent: AgentId,
) -> Result<Question<A>, ControlError> {
    let kind = type_name::<A>().to_owned();
    let request = ClusterRequest::State { agent, kind };
    Question::new(Scope::Owner(agent), &request, the_encoded)
}

pub(crate) fn ask_out<M: Message, A: Agent<M> + DeserializeOwned>(
    agent: AgentId,
) -> Result<Question<A>, ControlError> {
    let kind = type_name::<A>().to_owned();
    let request = ClusterRequest::TakeOut { agent, kind };
    Question::new(Scope::Owner(agent), &request, the_encoded)
}

pub(crate) fn ask_replace<M: WireMessage, A: Agent<M>>(
    registry: &Registry<M>,
    agent: AgentId,
    new: &A,
) -> Result<Question<()>, ControlError> {
    let known = registry
        .kind_of(new)
        .ok_or_else(|| ControlError::Unregistered {
            agent,
            kind: type_name::<A>().to_owned(),
        })?;
    let kind = known.name.to_owned();
    let what = || format!("agent {agent} of type {kind}");
    let mut state = Vec::new();
    let copied = (known.copy)(new, &mut state, guarded::ANSWER_LIMIT);
    copied.map_err(|why| ControlError::Encode { what: what(), why })?;
    let request = ClusterRequest::Replace { agent, kind, state };
    Question::new(Scope::Owner(agent), &request, |replies| {
        the_only::<Result<(), ControlError>>(replies)?
    })
}

/// All agents with an insertion index from `from` on, or at least the first `limit` of them.
pub(crate) fn ask_agents(from: u64, limit: u64) -> Result<Question<Vec<AgentInfo>>, ControlError> {
    Question::new(
        Scope::All,
        &ClusterRequest::Agents { from, limit },
        |replies| {
            let mut agents = Vec::new();
            for (cluster, bytes) in replies {
                let here: Vec<(AgentId, u64, String)> = read(&bytes, "a list of agents")?;
                let here = here.into_iter();
                agents
                    .extend(here.map(|(id, index, kind)| AgentInfo::new(id, index, kind, cluster)));
            }
            agents.sort_by_key(|agent| agent.index);
            Ok(agents)
        },
    )
}

/// The alarms of all clusters, in the order they will fire.
pub(crate) fn ask_all_alarms() -> Result<Question<Vec<PendingAlarm>>, ControlError> {
    Question::new(Scope::All, &ClusterRequest::Alarms, |replies| {
        let mut alarms: Vec<PendingAlarm> = Vec::new();
        for (_, bytes) in replies {
            alarms.extend(read::<Vec<PendingAlarm>>(&bytes, "a list of alarms")?);
        }
        alarms.sort_by_key(PendingAlarm::place);
        Ok(alarms)
    })
}

pub(crate) fn ask_alarms(cluster: ClusterId) -> Result<Question<Vec<PendingAlarm>>, ControlError> {
    Question::new(Scope::Cluster(cluster), &ClusterRequest::Alarms, the_only)
}

pub(crate) fn ask_subscriptions(
    cluster: ClusterId,
) -> Result<Question<Vec<(AgentId, Pattern)>>, ControlError> {
    Question::new(
        Scope::Cluster(cluster),
        &ClusterRequest::Subscriptions,
        the_only,
    )
}

pub(crate) fn ask_counters(cluster: ClusterId) -> Result<Question<Counters>, ControlError> {
    Question::new(Scope::Cluster(cluster), &ClusterRequest::Counters, the_only)
}

pub(crate) fn ask_marks() -> Result<Question<Vec<Marks>>, ControlError> {
    Question::new(Scope::All, &ClusterRequest::Marks, |replies| {
        let marks = replies.into_iter().map(|(_, bytes)| read(&bytes, "marks"));
        let marks: Result<Vec<Option<Marks>>, _> = marks.collect();
        Ok(marks?.into_iter().flatten().collect())
    })
}

pub(crate) fn ask_state_digest() -> Result<Question<Digest>, ControlError> {
    Question::new(Scope::All, &ClusterRequest::StateDigest, |replies| {
        let mut sum = Digest::default();
        for (_, bytes) in replies {
            let part: Result<Digest, String> = read(&bytes, "a digest")?;
            sum = sum.with(part.map_err(ControlError::NotSaved)?);
        }
        Ok(sum)
    })
}

pub(crate) fn ask_marks_of(cluster: ClusterId) -> Result<Question<Option<Marks>>, ControlError> {
    Question::new(Scope::Cluster(cluster), &ClusterRequest::Marks, the_only)
}

/// The answer to [`ask_show`] from a cluster alone: the state of the agent.
pub(crate) fn read_state(reply: &[u8]) -> Result<String, ControlError> {
    let shown: Result<Shown, ControlError> = read(reply, "an answer")?;
    let Shown { kind, state, .. } = shown?;
    state.map_err(|why| ControlError::Encode {
        what: format!("an agent of type {kind}"),
        why,
    })
}

/// Asks clusters, in the middle of a run, who would take part in a superstep.
pub(crate) fn ask_awake() -> Result<Vec<u8>, ControlError> {
    encode(&ClusterRequest::Awake, || "a request".to_owned())
}

/// The answer to that.
pub(crate) fn read_awake(reply: &[u8]) -> Result<Vec<(u64, AgentId)>, ControlError> {
    read(reply, "an answer")
}

/// The names among some ids, for a process that may not know them.
fn names_of(ids: impl Iterator<Item = AgentId>) -> Vec<String> {
    ids.filter_map(|id| Some(id.name()?.to_string())).collect()
}
