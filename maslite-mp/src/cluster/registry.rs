//! Registers the types of agents, so that other processes can build them.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use maslite_core::{Agent, AgentId, Delivery, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::links::codec::Misread;
use crate::links::round_trip::{self, Difference};
use crate::links::{codec, guarded, probe};
use crate::processes::spawn::entry::{Point, Signature};
use crate::processes::spawn::{Program, remember_origin};
use crate::snapshot::head::Shape;

/// A message that can cross to another process. Every message with serde's traits is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross to another process: it needs `Message`, `Clone`, `Serialize` and `Deserialize`",
    label = "no message that can cross",
    note = "write `#[derive(Clone, serde::Serialize, serde::Deserialize, Message)]` above `{Self}`"
)]
pub trait WireMessage: Message + Serialize + DeserializeOwned {}

impl<M: Message + Serialize + DeserializeOwned> WireMessage for M {}

/// How agents of one type cross.
pub(crate) struct AgentType<M: Message> {
    pub(crate) name: &'static str,
    pub(crate) encode: fn(&dyn Any, &mut Vec<u8>) -> postcard::Result<()>,
    pub(crate) decode: DecodeFn<M>,
    /// Gives an agent that was decoded what serde has skipped.
    parts: Option<PartsFn>,
    /// How many were encoded.
    encoded: AtomicU64,
    /// How an agent that was read differs from what was written.
    make_trip: fn(&dyn Any, &[u8]) -> Result<(), Difference>,
    /// What is wrong with the type.
    examine: fn() -> Result<(), String>,
    /// A number for its fields and variants.
    shape: fn() -> u64,
    /// The same for a request, of at most this number of bytes.
    pub(crate) copy: fn(&dyn Any, &mut Vec<u8>, usize) -> Result<(), String>,
    /// As JSON of at most this number of bytes, for people.
    pub(crate) show: fn(&dyn Any, usize) -> Result<String, String>,
}

/// How many agents of a type make a round trip; from there on fewer and fewer do.
const FIRST: u64 = if cfg!(debug_assertions) { 10_000 } else { 64 };

impl<M: Message> AgentType<M> {
    /// Makes an agent that is to live of its encoding.
    pub(crate) fn rebuild(&self, bytes: &[u8]) -> Result<Box<dyn Agent<M>>, Misread> {
        let mut agent = (self.decode)(bytes)?;
        self.give_parts(agent.as_mut());
        Ok(agent)
    }

    /// Gives an agent that was decoded its parts, if its type has any.
    pub(crate) fn give_parts(&self, agent: &mut dyn Agent<M>) {
        if let Some(give) = &self.parts {
            give(agent);
        }
    }

    /// Has an agent make a round trip, if it is among the first of its type.
    ///
    /// # Errors
    /// How it is read as another one. One that cannot be read is an error where it arrives.
    pub(crate) fn try_round(&self, agent: &dyn Any, bytes: &[u8]) -> Result<(), String> {
        let number = self.encoded.fetch_add(1, Ordering::Relaxed);
        if number >= FIRST && !number.is_power_of_two() {
            return Ok(());
        }
        match (self.make_trip)(agent, bytes) {
            Err(Difference::Other(why)) => Err(why),
            _ => Ok(()),
        }
    }
}

type DecodeFn<M> = fn(&[u8]) -> Result<Box<dyn Agent<M>>, Misread>;

type PartsFn = Box<dyn Fn(&mut dyn Any) + Send + Sync>;

type BuilderFn<M> = Box<dyn Fn(&[u8], &mut AgentSet<M>) -> Result<(), Misread> + Send + Sync>;

/// How a delivery becomes a line of a trace.
pub(crate) type TraceFormat<M> = fn(&Delivery<'_, M>, &mut String);

/// Holds the agent types and builders of a program. Child processes start in
/// [`enter`](Self::enter).
///
/// A child process is the same program, started again. So make the registry and call
/// [`enter`](Self::enter) in the first line of `main`: a child goes no further.
///
/// ```
/// use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Crane;
/// # impl Agent<Msg> for Crane {}
/// fn main() -> Result<(), maslite_mp::Error> {
///     let agents = Registry::new().with::<Crane>().enter();
///     let mut main = MpMain::new(agents)?;
///     // …
/// #   let s1 = main.new_cluster(); main.add_to(s1, 1, Crane)?;
///     Ok(())
/// }
/// ```
pub struct Registry<M: Message> {
    kinds: BTreeMap<&'static str, AgentType<M>>,
    by_type: BTreeMap<TypeId, &'static str>,
    copies: BTreeMap<TypeId, CopyFn<M>>,
    /// Types that are never saved, with the reasons.
    never_saved: BTreeMap<TypeId, (&'static str, String)>,
    builders: BTreeMap<String, BuilderFn<M>>,
    /// What child processes must have, too.
    pub(crate) signature: Signature,
    trace_format: TraceFormat<M>,
    program: Program,
    /// What is wrong with a type, and how, once that was looked for.
    flaw: OnceLock<Option<(String, String)>>,
    shapes: OnceLock<(Shape, Vec<Shape>)>,
}

impl<M: WireMessage> Default for Registry<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies an agent of the type that it is for.
type CopyFn<M> = fn(&dyn Any) -> Option<Box<dyn Agent<M>>>;

/// How a delivery is written where traces are compared.
pub(crate) fn write_compared<M: WireMessage>(delivery: &Delivery<'_, M>, line: &mut String) {
    delivery.write_json_with_body(line);
}

impl<M: WireMessage> Registry<M> {
    /// Makes a registry without types and builders.
    #[must_use]
    pub fn new() -> Self {
        let mut signature = Signature::default();
        let version = format!("maslite {}", env!("CARGO_PKG_VERSION"));
        signature.add(version, ());
        let message = format!("message type {}", type_name::<M>());
        signature.add(message, TypeId::of::<M>());
        Self {
            kinds: BTreeMap::new(),
            by_type: BTreeMap::new(),
            copies: BTreeMap::new(),
            never_saved: BTreeMap::new(),
            builders: BTreeMap::new(),
            signature,
            trace_format: |delivery, line| delivery.write_json(line),
            program: Program::default(),
            flaw: OnceLock::new(),
            shapes: OnceLock::new(),
        }
    }

    /// Has agents of a type copied, and not encoded, where clusters [run ahead](crate::Speculation)
    /// and may have to go back. A copy mostly costs less. The type need not be added, too, if only
    /// builders make such agents.
    #[must_use]
    pub fn with_copies<A: Agent<M> + Clone>(mut self) -> Self {
        let copy: CopyFn<M> = |agent| {
            let agent = agent.downcast_ref::<A>()?;
            Some(Box::new(agent.clone()))
        };
        self.copies.insert(TypeId::of::<A>(), copy);
        self
    }

    /// Adds an agent type.
    #[must_use]
    pub fn with<A: Agent<M> + Serialize + DeserializeOwned>(mut self) -> Self {
        let name = type_name::<A>();
        self.by_type.insert(TypeId::of::<A>(), name);
        let what = format!("agent type {name}");
        self.signature.add(what, TypeId::of::<A>());
        let parts = self.kinds.remove(name).and_then(|kind| kind.parts);
        self.kinds.insert(
            name,
            AgentType {
                name,
                encode: |agent, into| match agent.downcast_ref::<A>() {
                    Some(agent) => codec::put(agent, into),
                    None => Err(postcard::Error::SerdeSerCustom),
                },
                decode: |bytes| Ok(Box::new(codec::decode::<A>(bytes)?)),
                parts,
                encoded: AtomicU64::new(0),
                make_trip: |agent, bytes| {
                    let agent = agent.downcast_ref::<A>();
                    let made = agent.map(|it| round_trip::make(it, bytes, &mut Vec::new()));
                    // What dropping an agent does is not meant for a copy of it.
                    made.transpose().map(std::mem::forget)
                },
                examine: probe::examine::<A>,
                shape: probe::shape::<A>,
                copy: |agent, into, limit| match agent.downcast_ref::<A>() {
                    Some(agent) => guarded::put(agent, into, limit),
                    None => Err(postcard::Error::SerdeSerCustom.to_string()),
                },
                show: |agent, limit| match agent.downcast_ref::<A>() {
                    Some(agent) => guarded::show(agent, limit),
                    None => Err(postcard::Error::SerdeSerCustom.to_string()),
                },
            },
        );
        self
    }

    /// Adds an agent type whose skipped fields need something of the program, such as a shared table
    /// or the handle of a file: `give` puts it into each agent that was read from its encoding and is
    /// to live. That is when the agent arrives in its cluster, before `setup`, and whenever it is
    /// [restored](Agent::restored), before that. It is called in the process of the cluster.
    ///
    /// Agents that builders or other agents make have what these give them, until they are restored.
    /// What the owner inspects or takes out is a copy without parts.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Truck {
    ///     place: usize,
    ///     #[serde(skip)]
    ///     distances: Arc<[u32]>, // one table for all trucks of a process
    /// }
    /// # impl Agent<Msg> for Truck {}
    /// let distances: Arc<[u32]> = Arc::from([0, 7, 12]);
    /// let registry = Registry::<Msg>::new().with_parts(move |truck: &mut Truck| {
    ///     truck.distances = Arc::clone(&distances);
    /// });
    /// # let _ = registry;
    /// ```
    #[must_use]
    pub fn with_parts<A: Agent<M> + Serialize + DeserializeOwned>(
        mut self,
        give: impl Fn(&mut A) + Send + Sync + 'static,
    ) -> Self {
        let name = type_name::<A>();
        let what = format!("parts of agent type {name}");
        self.signature.add_function(what, &give);
        self = self.with::<A>();
        if let Some(kind) = self.kinds.get_mut(name) {
            kind.parts = Some(Box::new(move |agent| {
                if let Some(agent) = agent.downcast_mut() {
                    give(agent);
                }
            }));
        }
        self
    }

    /// Says that agents of a type are in no snapshot, and why: what they hold cannot be written down,
    /// as a connection to a device. The type need not be added, too, if only builders make such
    /// agents.
    ///
    /// While such an agent lives, a save is [`SnapshotError::NeverSaved`](crate::SnapshotError), unless
    /// it is to [leave them out](crate::SaveOptions::leaving_out). Amnesia keeps these agents as they
    /// are. Their clusters come back from the log of all that main told them, and not from a saved
    /// state; when the log is full, they cannot come back. Where clusters run ahead, these agents do
    /// not, unless they are [copied](Self::with_copies).
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # struct Camera;
    /// # impl Agent<Msg> for Camera {}
    /// let registry = Registry::<Msg>::new().never_saved::<Camera>("holds a device");
    /// # let _ = registry;
    /// ```
    #[must_use]
    pub fn never_saved<A: Agent<M>>(mut self, why: impl Into<String>) -> Self {
        let name = type_name::<A>();
        let what = format!("agent type {name}, never saved");
        self.signature.add(what, TypeId::of::<A>());
        self.never_saved
            .insert(TypeId::of::<A>(), (name, why.into()));
        self
    }

    /// Adds a builder: a function that makes agents in the process where they will live, from a
    /// small configuration. So the agents do not cross a link, and need no `serde`.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # struct Machine { power: f64 }
    /// # impl Agent<Msg> for Machine {}
    /// let registry = Registry::<Msg>::new().with_builder("shop floor", |machines: u64, agents| {
    ///     for number in 0..machines {
    ///         agents.add(number, Machine { power: 1.5 });
    ///     }
    /// });
    /// # let _ = registry;
    /// ```
    #[must_use]
    pub fn with_builder<C: DeserializeOwned>(
        mut self,
        name: impl Into<String>,
        build: impl Fn(C, &mut AgentSet<M>) + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let what = format!("builder {name:?}");
        self.signature.add_function(what, &build);
        let build = move |bytes: &[u8], agents: &mut AgentSet<M>| {
            build(codec::decode(bytes)?, agents);
            Ok(())
        };
        self.builders.insert(name, Box::new(build));
        self
    }

    /// Sets how a delivery is written into a trace. The function is called in the process of the
    /// delivery. The default is [`Delivery::write_json`].
    #[must_use]
    pub fn with_trace_format(mut self, format: fn(&Delivery<'_, M>, &mut String)) -> Self {
        self.trace_format = format;
        // Programs lie at other addresses in each process, as a whole.
        let place = (format as usize).wrapping_sub(remember_origin as fn() as usize);
        self.signature.add("trace format".to_owned(), place);
        self
    }

    /// Adds the message as JSON behind `"body"` to each line of a trace.
    #[must_use]
    pub fn with_bodies_in_trace(self) -> Self {
        self.with_trace_format(write_compared)
    }

    /// Names the entry of child processes in a test harness. Child processes run only the ignored
    /// test with this name (with its modules), and that test must call `enter`.
    ///
    /// The test may enter several registries: a child becomes a cluster at the first one with the
    /// same types and builders. Captures of builders cannot be compared, so they must be the same
    /// there.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// fn agents() -> Entered<Msg> {
    ///     Registry::new().entered_by_test("child").enter()
    /// }
    ///
    /// // #[test]
    /// // #[ignore = "where child processes start"]
    /// fn child() {
    ///     let _ = agents();
    /// }
    /// ```
    #[must_use]
    pub fn entered_by_test(mut self, name: &str) -> Self {
        self.program = Program::test_entry(name);
        self
    }
}

/// An entered registry in a process that is no child, for [`MpMain::new`](crate::MpMain::new).
/// Clone it for several simulations in one program.
pub struct Entered<M: Message> {
    pub(crate) registry: Arc<Registry<M>>,
    pub(crate) point: Arc<Point>,
}

impl<M: WireMessage> Registry<M> {
    /// The message type, and the agent types, each with a number for its fields and variants.
    pub(crate) fn shapes(&self) -> &(Shape, Vec<Shape>) {
        self.shapes.get_or_init(|| {
            let message = Shape {
                name: type_name::<M>().to_owned(),
                shape: probe::shape::<M>(),
            };
            let kinds = self.kinds.values().map(|kind| Shape {
                name: kind.name.to_owned(),
                shape: (kind.shape)(),
            });
            (message, kinds.collect())
        })
    }

    /// Looks for types that are not read as they are written, once.
    ///
    /// # Errors
    /// [`Error::Asymmetric`].
    pub(crate) fn examine(&self) -> Result<(), Error> {
        let flaw = self.flaw.get_or_init(|| {
            let message = (
                "message",
                type_name::<M>(),
                probe::examine::<M> as fn() -> _,
            );
            let kinds = self.kinds.values();
            let kinds = kinds.map(|kind| ("agent", kind.name, kind.examine));
            let mut all = std::iter::once(message).chain(kinds);
            all.find_map(|(what, name, examine)| {
                let why = examine().err()?;
                Some((format!("{what} type {name}"), why))
            })
        });
        match flaw {
            None => Ok(()),
            Some((what, why)) => Err(Error::Asymmetric {
                cluster: None,
                what: what.clone(),
                why: why.clone(),
            }),
        }
    }
}

impl<M: Message> Registry<M> {
    pub(crate) fn kind(&self, name: &str) -> Option<&AgentType<M>> {
        self.kinds.get(name)
    }

    /// A copy of an agent, if its type is to be copied.
    pub(crate) fn copy_of(&self, agent: &dyn Agent<M>) -> Option<Box<dyn Agent<M>>> {
        let any: &dyn Any = agent;
        (self.copies.get(&any.type_id())?)(any)
    }

    /// The name of an agent's type and the reason why it is in no snapshot, if that is so.
    pub(crate) fn never_saved_of(&self, agent: &dyn Any) -> Option<(&str, &str)> {
        let (kind, why) = self.never_saved.get(&agent.type_id())?;
        Some((kind, why))
    }

    pub(crate) fn kind_of(&self, agent: &dyn Any) -> Option<&AgentType<M>> {
        self.kind(self.by_type.get(&agent.type_id())?)
    }

    /// The name of an agent's type, and its encoded state.
    pub(crate) fn encode<A: Agent<M>>(
        &self,
        id: AgentId,
        agent: &A,
    ) -> Result<(String, Vec<u8>), Error> {
        let kind = self.kind_of(agent).ok_or_else(|| Error::UnknownAgentType {
            kind: type_name::<A>().to_owned(),
            known: self.kind_names(),
        })?;
        let mut state = Vec::new();
        let what = || format!("agent {id} of type {}", kind.name);
        (kind.encode)(agent, &mut state).map_err(|why| Error::Encode {
            what: what(),
            why: why.to_string(),
        })?;
        kind.try_round(agent, &state)
            .map_err(|why| Error::Asymmetric {
                cluster: None,
                what: what(),
                why,
            })?;
        Ok((kind.name.to_owned(), state))
    }

    pub(crate) fn kind_names(&self) -> Vec<String> {
        self.kinds.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn builder(&self, name: &str) -> Option<&BuilderFn<M>> {
        self.builders.get(name)
    }

    pub(crate) fn builder_names(&self) -> Vec<String> {
        self.builders.keys().cloned().collect()
    }

    pub(crate) fn trace_format(&self) -> TraceFormat<M> {
        self.trace_format
    }

    pub(crate) fn program(&self) -> Program {
        self.program.clone()
    }
}

/// Collects the agents that a builder makes, in insertion order.
pub struct AgentSet<M: Message> {
    pub(crate) agents: Vec<(AgentId, Box<dyn Agent<M>>)>,
}

impl<M: Message> AgentSet<M> {
    pub(crate) fn new() -> Self {
        Self { agents: Vec::new() }
    }

    /// Adds an agent. A second agent with the same id is an error before the first superstep.
    pub fn add(&mut self, id: impl Into<AgentId>, agent: impl Agent<M>) {
        self.agents.push((id.into(), Box::new(agent)));
    }
}

impl<M: Message> fmt::Debug for Registry<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("kinds", &self.kind_names())
            .field("builders", &self.builder_names())
            .finish_non_exhaustive()
    }
}

impl<M: Message> Entered<M> {
    /// The hash of the types and builders.
    pub(crate) fn schema(&self) -> u64 {
        self.point.signature.hash()
    }
}

impl<M: Message> Clone for Entered<M> {
    fn clone(&self) -> Self {
        Self {
            registry: Arc::clone(&self.registry),
            point: Arc::clone(&self.point),
        }
    }
}

impl<M: Message> fmt::Debug for Entered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entered").field(&self.registry).finish()
    }
}

impl<M: Message> fmt::Debug for AgentSet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.agents.iter().map(|(id, _)| id).collect();
        f.debug_tuple("AgentSet").field(&ids).finish()
    }
}
