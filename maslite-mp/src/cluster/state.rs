//! The state of a cluster between two grants, or two supersteps, as one value: all that it must be
//! told to be what it was.
//!
//! What a host gives a cluster is not in it: its settings, its links, and where it shows itself.
//! Nor is what belongs to the grant at hand: its number, its limits, the mail that has left in it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use maslite_core::internal::{AgentCodec, Amnesia, Engine, EngineState, LockEvenPoisoned};
use maslite_core::{Agent, AgentId, Digest, Error, Message, Pattern, SimTime, StopReason};
use serde::{Deserialize, Serialize};

use crate::cluster::gateway::Gateway;
use crate::cluster::names::{Names, NamesState};
use crate::cluster::registry::{Registry, WireMessage};
use crate::links::{codec, guarded};
use crate::protocol::wire::{Removal, TraceLine};

/// How many deliveries a cluster that runs on its own keeps for the trace before it reports.
pub(super) const TRACE_LIMIT: usize = 10_000;

/// The version of the encoding. Another one is refused.
const VERSION: u32 = 1;

/// The state of a cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClusterState<M> {
    engine: EngineState<M>,
    gateway: GatewayState,
    /// Deliveries that main has not been told of.
    trace: Vec<TraceLine>,
    names: NamesState,
}

/// What a gateway knows of the other clusters, and has for them.
#[derive(Debug, Serialize, Deserialize)]
struct GatewayState {
    /// The clusters of agents that are elsewhere.
    routes: BTreeMap<AgentId, u32>,
    /// What other clusters listen to.
    others: Vec<(u32, Pattern)>,
    ahead: Option<AheadState>,
}

/// What a gateway knows under a lookahead.
#[derive(Debug, Serialize, Deserialize)]
struct AheadState {
    stops: Vec<(SimTime, u64, StopReason)>,
    removals: Vec<Removal>,
    coming: BTreeMap<SimTime, Vec<(u32, Pattern, bool)>>,
    held_back: u64,
    held_back_to_main: u64,
}

impl<M: WireMessage> ClusterState<M> {
    /// The state of a cluster that has this engine, and others that listen to something.
    pub(crate) fn of(engine: EngineState<M>, others: Vec<(u32, Pattern)>) -> Self {
        Self {
            engine,
            gateway: GatewayState {
                routes: BTreeMap::new(),
                others,
                ahead: None,
            },
            trace: Vec::new(),
            names: NamesState::default(),
        }
    }

    /// The state of its engine.
    pub(crate) fn into_engine(self) -> EngineState<M> {
        self.engine
    }

    /// Has its agents draw other random numbers.
    pub(crate) fn reseed(&mut self) {
        self.engine.reseed();
    }

    /// The ids of its agents.
    pub(crate) fn ids(&self) -> Vec<AgentId> {
        self.engine.ids().collect()
    }

    /// How many agents there are.
    pub(crate) fn agents(&self) -> u64 {
        self.engine.ids().count() as u64
    }

    /// The digest of the state.
    ///
    /// # Errors
    /// If a message cannot be encoded.
    pub(crate) fn digest(&self) -> Result<Digest, String> {
        self.engine.digest()
    }

    /// The state as bytes, behind the version of the encoding.
    ///
    /// # Errors
    /// If a message cannot be encoded.
    pub(crate) fn encode(&self) -> postcard::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        codec::put(&(VERSION, self), &mut bytes)?;
        Ok(bytes)
    }

    /// The state from [`encode`](Self::encode).
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let version: u32 = codec::take(&mut rest).map_err(|why| why.to_string())?;
        if version != VERSION {
            return Err(format!(
                "its version is {version}, and this program reads version {VERSION}"
            ));
        }
        codec::decode(rest).map_err(|why| why.to_string())
    }
}

/// The parts of a cluster that its state is in.
pub(super) struct Parts<'a, M: Message> {
    pub(super) registry: &'a Registry<M>,
    pub(super) engine: &'a mut Engine<M>,
    pub(super) gateway: &'a mut Gateway<M>,
    pub(super) trace: &'a Mutex<Vec<TraceLine>>,
    pub(super) names: &'a mut Names,
}

impl<M: WireMessage> Parts<'_, M> {
    /// Forgets everything, and comes back from the bytes of its state. After an error nothing is left
    /// but the accounts: the report of the error is compared with the report before it.
    ///
    /// # Errors
    /// [`Error::Unsaved`], [`Error::Unrestored`], [`Error::AgentPanicked`],
    /// [`Error::ModelPanicked`].
    pub(super) fn forget(&mut self, amnesia: Amnesia) -> Result<(), Error> {
        let (accounts, held_back) = (self.engine.accounts(), self.gateway.held_back());
        let forgotten = accounts.guard(|| self.forget_and_return(amnesia));
        if forgotten.is_err() {
            self.engine.keep_accounts(&accounts);
            self.gateway.keep_held_back(held_back);
        }
        forgotten
    }

    fn forget_and_return(&mut self, amnesia: Amnesia) -> Result<(), Error> {
        let (engine, kept) = self.engine.save(amnesia, self.registry)?;
        let state = export(engine, self.gateway, self.trace, self.names);
        let bytes = state.encode().map_err(|why| self.unrestored(&why))?;
        drop(state);
        self.engine.reset()?;
        self.gateway.reset();
        self.names.reset();
        lock(self.trace).clear();
        let state = ClusterState::decode(&bytes).map_err(|why| self.unrestored(&why))?;
        let engine = self.restore(state);
        self.engine.restore(engine, self.registry, kept)?;
        self.gateway.count_listeners(self.engine);
        Ok(())
    }

    fn unrestored(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Unrestored {
            what: "the state of the cluster".into(),
            time: self.engine.now(),
            why: why.to_string().into(),
        }
    }

    /// Takes up a state but for that of the engine, which is returned.
    fn restore(&mut self, state: ClusterState<M>) -> EngineState<M> {
        let ClusterState {
            engine,
            gateway,
            trace,
            names,
        } = state;
        gateway.restore(self.gateway);
        let is_full = trace.len() >= TRACE_LIMIT;
        self.gateway.full.store(is_full, Ordering::Relaxed);
        *lock(self.trace) = trace;
        self.names.restore(names);
        engine
    }

    /// Takes up a state. The cluster is new, and has its settings.
    ///
    /// # Errors
    /// [`Error::Unrestored`].
    pub(super) fn rebuild(&mut self, state: ClusterState<M>) -> Result<(), Error> {
        let engine = self.restore(state);
        self.engine.restore(engine, self.registry, Vec::new())?;
        self.gateway.count_listeners(self.engine);
        Ok(())
    }
}

/// The state of a cluster with an engine of this state.
pub(super) fn export<M: WireMessage>(
    engine: EngineState<M>,
    gateway: &Gateway<M>,
    trace: &Mutex<Vec<TraceLine>>,
    names: &Names,
) -> ClusterState<M> {
    ClusterState {
        engine,
        gateway: GatewayState::of(gateway),
        trace: lock(trace).clone(),
        names: names.export(),
    }
}

impl GatewayState {
    fn of<M>(gateway: &Gateway<M>) -> Self {
        let routes = gateway.routes.iter();
        let ahead = gateway.ahead.as_ref().map(|ahead| AheadState {
            stops: ahead.stops.clone(),
            removals: ahead.removals.clone(),
            coming: ahead.coming.clone(),
            held_back: ahead.held_back,
            held_back_to_main: ahead.held_back_to_main,
        });
        Self {
            routes: routes.collect(),
            others: gateway.others.iter().collect(),
            ahead,
        }
    }

    /// The gateway is new, and has the settings of its cluster.
    fn restore<M: WireMessage>(self, gateway: &mut Gateway<M>) {
        gateway.routes.extend(self.routes);
        for (cluster, pattern) in self.others {
            gateway.others.subscribe(cluster, pattern);
        }
        if let (Some(ahead), Some(state)) = (&mut gateway.ahead, self.ahead) {
            ahead.stops = state.stops;
            ahead.removals = state.removals;
            ahead.coming = state.coming;
            ahead.held_back = state.held_back;
            ahead.held_back_to_main = state.held_back_to_main;
        }
    }
}

impl<M: Message> AgentCodec<M> for Registry<M> {
    fn encode(&self, agent: &dyn Agent<M>, into: &mut Vec<u8>) -> Result<Option<&str>, String> {
        let Some(kind) = self.kind_of(agent) else {
            return Ok(None);
        };
        if self.never_saved_of(agent).is_some() {
            return Ok(None);
        }
        (kind.encode)(agent, into).map_err(|why| why.to_string())?;
        Ok(Some(kind.name))
    }

    fn copy(&self, agent: &dyn Agent<M>) -> Option<Box<dyn Agent<M>>> {
        self.copy_of(agent)
    }

    fn never_saved(&self, agent: &dyn Agent<M>) -> Option<(&str, &str)> {
        self.never_saved_of(agent)
    }

    fn name_of(&self, agent: &dyn Agent<M>) -> Option<&str> {
        self.kind_of(agent).map(|kind| kind.name)
    }

    fn decode(&self, kind: &str, state: &[u8]) -> Result<Box<dyn Agent<M>>, String> {
        let known = self.kind(kind).ok_or("its type is not registered")?;
        let mut agent = (known.decode)(state).map_err(|why| why.to_string())?;
        let given = guarded::catch(|| known.give_parts(agent.as_mut()));
        given.map_err(|panic| format!("the program panicked over it: {panic}"))?;
        Ok(agent)
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock_even_poisoned()
}
