//! How agents are written down and read again, each by its type.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::message::Message;
use crate::panics;

/// Writes agents down and reads them again.
pub trait AgentCodec<M: Message> {
    /// Appends the state of an agent. Returns the name of its type; none if the type is not known.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn encode(&self, agent: &dyn Agent<M>, into: &mut Vec<u8>) -> Result<Option<&str>, String>;

    /// A copy of an agent, to go back to, where that is cheaper than its encoding.
    fn copy(&self, agent: &dyn Agent<M>) -> Option<Box<dyn Agent<M>>> {
        let _ = agent;
        None
    }

    /// The name of an agent's type and the reason why it is in no snapshot, if the program has said
    /// so of that type.
    fn never_saved(&self, agent: &dyn Agent<M>) -> Option<(&str, &str)> {
        let _ = agent;
        None
    }

    /// The name of the type of an agent; none if the type is not known.
    fn name_of(&self, agent: &dyn Agent<M>) -> Option<&str>;

    /// Makes an agent of a type from its state.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn decode(&self, kind: &str, state: &[u8]) -> Result<Box<dyn Agent<M>>, String>;
}

/// The agent types of a model whose state can be saved and restored: those with serde's traits.
///
/// A [`Scheduler`](crate::Scheduler) needs them for [`amnesia`](crate::SchedulerBuilder::amnesia).
///
/// ```
/// use maslite_core::{Agent, AgentTypes, Run, Scheduler};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, maslite_core::Message, Serialize, Deserialize)]
/// enum Msg { Order }
/// #[derive(Serialize, Deserialize)]
/// struct Cook { orders: u32 }
/// impl Agent<Msg> for Cook {
///     fn receive(&mut self, _: maslite_core::Mail<Msg>, _: &mut maslite_core::Context<'_, Msg>) {
///         self.orders += 1;
///     }
/// }
///
/// let types = AgentTypes::new().with::<Cook>();
/// let mut scheduler = Scheduler::builder().agent_types(types).amnesia(Some(1)).build();
/// scheduler.add("cook", Cook { orders: 0 })?;
/// scheduler.send("cook", Msg::Order);
/// assert_eq!(scheduler.run(Run::until_idle())?.amnesias, 1);
/// assert_eq!(scheduler.agent::<Cook>("cook").map(|cook| cook.orders), Some(1));
/// # Ok::<(), maslite_core::Error>(())
/// ```
pub struct AgentTypes<M: Message> {
    by_name: BTreeMap<&'static str, AgentType<M>>,
    names: BTreeMap<TypeId, &'static str>,
    /// Types that are never saved, with the reasons.
    never_saved: BTreeMap<TypeId, (&'static str, String)>,
}

/// How agents of one type are written and read.
struct AgentType<M: Message> {
    encode: fn(&dyn Any, Vec<u8>) -> postcard::Result<Vec<u8>>,
    decode: Decode<M>,
    /// Gives an agent that was decoded what serde has skipped.
    parts: Option<Parts>,
    /// As JSON, for people.
    show: fn(&dyn Any) -> Result<String, String>,
}

type Parts = Box<dyn Fn(&mut dyn Any) + Send + Sync>;

type Decode<M> = fn(&[u8]) -> postcard::Result<Box<dyn Agent<M>>>;

impl<M: Message> AgentTypes<M> {
    /// No types.
    #[must_use]
    pub fn new() -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: BTreeMap::new(),
            never_saved: BTreeMap::new(),
        }
    }

    /// Adds an agent type.
    #[must_use]
    pub fn with<A: Agent<M> + Serialize + DeserializeOwned>(mut self) -> Self {
        let name = type_name::<A>();
        self.names.insert(TypeId::of::<A>(), name);
        let parts = self.by_name.remove(name).and_then(|known| known.parts);
        let agent_type = AgentType {
            encode: |agent, into| match agent.downcast_ref::<A>() {
                Some(agent) => postcard::to_extend(agent, into),
                None => Err(postcard::Error::SerdeSerCustom),
            },
            decode: |state| {
                let (agent, rest) = postcard::take_from_bytes::<A>(state)?;
                match rest {
                    [] => Ok(Box::new(agent)),
                    _ => Err(postcard::Error::SerdeDeCustom),
                }
            },
            parts,
            show: |agent| match agent.downcast_ref::<A>() {
                Some(agent) => serde_json::to_string(agent).map_err(|why| why.to_string()),
                None => Err("it is of another type".to_owned()),
            },
        };
        self.by_name.insert(name, agent_type);
        self
    }

    /// Adds an agent type whose skipped fields need something of the program, such as a shared table
    /// or the handle of a file: `give` puts it into each agent that was read from its encoding,
    /// before the agent is [told](Agent::restored).
    #[must_use]
    pub fn with_parts<A: Agent<M> + Serialize + DeserializeOwned>(
        mut self,
        give: impl Fn(&mut A) + Send + Sync + 'static,
    ) -> Self {
        self = self.with::<A>();
        if let Some(known) = self.by_name.get_mut(type_name::<A>()) {
            known.parts = Some(Box::new(move |agent| {
                if let Some(agent) = agent.downcast_mut() {
                    give(agent);
                }
            }));
        }
        self
    }

    /// Says that agents of a type are never saved, and why: what they hold cannot be written down.
    /// A scheduler with [amnesia](crate::SchedulerBuilder::amnesia) keeps them as they are, and
    /// forgets all others.
    #[must_use]
    pub fn never_saved<A: Agent<M>>(mut self, why: impl Into<String>) -> Self {
        let reason = (type_name::<A>(), why.into());
        self.never_saved.insert(TypeId::of::<A>(), reason);
        self
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The state of an agent as JSON.
    pub(crate) fn show(&self, agent: &dyn Agent<M>) -> Result<String, String> {
        let any: &dyn Any = agent;
        let Some(name) = self.names.get(&any.type_id()) else {
            return Err(format!(
                "its type is not among the agent types: add `.with::<{}>()` to them",
                agent.type_name()
            ));
        };
        (self.by_name[name].show)(any)
    }
}

impl<M: Message> AgentCodec<M> for AgentTypes<M> {
    fn encode(&self, agent: &dyn Agent<M>, into: &mut Vec<u8>) -> Result<Option<&str>, String> {
        let any: &dyn Any = agent;
        let Some(name) = self.names.get(&any.type_id()) else {
            return Ok(None);
        };
        let encode = self.by_name[name].encode;
        *into = encode(any, std::mem::take(into)).map_err(|why| why.to_string())?;
        Ok(Some(name))
    }

    fn never_saved(&self, agent: &dyn Agent<M>) -> Option<(&str, &str)> {
        let any: &dyn Any = agent;
        let (kind, why) = self.never_saved.get(&any.type_id())?;
        Some((kind, why))
    }

    fn name_of(&self, agent: &dyn Agent<M>) -> Option<&str> {
        let any: &dyn Any = agent;
        self.names.get(&any.type_id()).copied()
    }

    fn decode(&self, kind: &str, state: &[u8]) -> Result<Box<dyn Agent<M>>, String> {
        let known = self.by_name.get(kind).ok_or("its type is not registered")?;
        let mut agent = (known.decode)(state).map_err(|why| why.to_string())?;
        if let Some(give) = &known.parts {
            let given = panics::catch(|| give(agent.as_mut()));
            given.map_err(|panic| format!("the program panicked over it: {}", panic.message()))?;
        }
        Ok(agent)
    }
}

impl<M: Message> Default for AgentTypes<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> fmt::Debug for AgentTypes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
