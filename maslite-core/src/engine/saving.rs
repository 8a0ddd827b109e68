//! An engine as one value, and an engine made of such a value.

use serde::{Deserialize, Serialize};

use super::{Engine, Newborn};
use crate::agent::Agent;
use crate::agent_types::AgentCodec;
use crate::directory::NONE;
use crate::error::{Error, Phase};
use crate::kernel::{Content, KernelState};
use crate::marks::Marks;
use crate::message::{Message, PERIODIC, REQUIRED};
use crate::{AgentId, SimTime};

/// All that an engine knows between two supersteps, its agents included, but for the settings of
/// its host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineState<M> {
    pub(crate) kernel: KernelState<M>,
    pub(super) agents: AgentStates,
    pub(super) next_index: u64,
    /// Agents that the host has not taken yet, each with its slot, if it is still there.
    pub(super) newborn: Vec<(Option<u32>, Newborn)>,
    /// The slots of agents that wait for their insertion indices; none for those that have gone.
    pub(super) unnumbered: Vec<Option<u32>>,
    /// How many agents were awake in the last superstep.
    pub(super) awake_last: u32,
}

/// The states of agents, in the order of their slots.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct AgentStates {
    /// The names of their types.
    kinds: Vec<String>,
    /// Of each agent its type, and how many bytes its state takes. [`NONE`] is the type of an agent
    /// whose state is not among these.
    agents: Vec<(u32, u32)>,
    #[serde(with = "serde_bytes")]
    states: Vec<u8>,
}

/// What stands before the name of the type of an agent whose state was left out.
const LEFT_OUT: &str = "left out: ";

/// The name of a type, also of one whose agents were left out.
pub(super) fn name_of_kind(kind: &str) -> &str {
    kind.strip_prefix(LEFT_OUT).unwrap_or(kind)
}

/// An agent whose state is left out of what is saved, because its type is never saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutAgent {
    /// Its id.
    pub id: AgentId,
    /// Its type.
    pub kind: String,
    /// Why that is never saved.
    pub why: String,
}

/// Agents whose states cannot be saved, by their slots.
pub type KeptAgents<M> = Vec<Option<Box<dyn Agent<M>>>>;

/// The marks of an alarm that are the agent's, not its cluster's.
pub(super) const MARKS_OF_ALARMS: u8 = REQUIRED | PERIODIC;

impl AgentStates {
    /// The type and the state of each agent.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.states[..];
        self.agents.iter().map(move |(kind, bytes)| {
            let kind = self.kinds.get(*kind as usize).map_or("", String::as_str);
            let (state, others) = rest.split_at_checked(*bytes as usize).unwrap_or_default();
            rest = others;
            (kind, state)
        })
    }

    /// The slots of the agents that are made of their states, and of those that were left out.
    fn rebuilt_and_left_out(&self) -> (Vec<u32>, Vec<u32>) {
        let is_left_out = |kind: u32| {
            let kind = self.kinds.get(kind as usize);
            kind.is_some_and(|kind| kind.starts_with(LEFT_OUT))
        };
        let agents = (0..).zip(&self.agents);
        let saved = agents.filter(|(_, (kind, _))| *kind != NONE);
        let (left_out, rebuilt): (Vec<_>, Vec<_>) =
            saved.partition(|(_, (kind, _))| is_left_out(*kind));
        let slots = |agents: Vec<(u32, _)>| agents.into_iter().map(|(slot, _)| slot).collect();
        (slots(rebuilt), slots(left_out))
    }

    /// Adds the state of an agent.
    pub(super) fn push_state(&mut self, kind: &str, state: &[u8]) {
        let kind = self.kind(kind);
        self.agents.push((kind, crate::narrow(state.len())));
        self.states.extend_from_slice(state);
    }

    fn kind(&mut self, name: &str) -> u32 {
        let known = self.kinds.iter().position(|known| known == name);
        let place = known.unwrap_or_else(|| {
            self.kinds.push(name.to_owned());
            self.kinds.len() - 1
        });
        crate::narrow(place)
    }

    /// Adds an agent that `codec` knows. False if it does not.
    fn push<M: Message>(
        &mut self,
        agent: &dyn Agent<M>,
        codec: &dyn AgentCodec<M>,
    ) -> Result<bool, String> {
        let before = self.states.len();
        let Some(name) = codec.encode(agent, &mut self.states)? else {
            return Ok(false);
        };
        let bytes = crate::narrow(self.states.len() - before);
        let kind = self.kind(name);
        self.agents.push((kind, bytes));
        Ok(true)
    }
}

impl<M: Message> Engine<M> {
    /// Whether it is between two supersteps, so that it can be saved.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.births.is_empty() && self.kernel.is_at_rest()
    }

    /// All that it knows, its agents included. It stays as it is.
    ///
    /// # Errors
    /// [`Error::Unsaved`] for the first agent that `codec` cannot write down, or whose type is never
    /// saved.
    ///
    /// # Panics
    /// If it is not [at rest](Self::is_at_rest).
    pub fn export(&self, codec: &dyn AgentCodec<M>) -> Result<EngineState<M>, Error> {
        let (agents, left_out) = self.agent_states(codec)?;
        match left_out.into_iter().next() {
            None => Ok(self.export_with(agents)),
            Some(LeftOutAgent { id, kind, why }) => Err(Error::Unsaved {
                agent: id,
                kind: kind.into(),
                time: self.now(),
                why: format!("its type is never saved: {why}").into(),
            }),
        }
    }

    /// As [`export`](Self::export), but without the states of agents whose types are never saved.
    /// An engine that is restored from it evicts these agents.
    ///
    /// # Errors
    /// [`Error::Unsaved`] for the first agent that `codec` cannot write down.
    ///
    /// # Panics
    /// If it is not [at rest](Self::is_at_rest).
    pub fn export_leaving_out(
        &self,
        codec: &dyn AgentCodec<M>,
    ) -> Result<(EngineState<M>, Vec<LeftOutAgent>), Error> {
        let (agents, left_out) = self.agent_states(codec)?;
        Ok((self.export_with(agents), left_out))
    }

    fn agent_states(
        &self,
        codec: &dyn AgentCodec<M>,
    ) -> Result<(AgentStates, Vec<LeftOutAgent>), Error> {
        let (mut agents, mut left_out) = (AgentStates::default(), Vec::new());
        for (id, agent) in self.agents() {
            if let Some((kind, why)) = codec.never_saved(agent) {
                agents.push_state(&format!("{LEFT_OUT}{kind}"), &[]);
                let (kind, why) = (kind.to_owned(), why.to_owned());
                left_out.push(LeftOutAgent { id, kind, why });
                continue;
            }
            let is_known = agents.push(agent, codec);
            let is_known = is_known.map_err(|why| self.unsaved(id, agent, &why))?;
            if !is_known {
                return Err(self.unsaved(id, agent, UNREGISTERED));
            }
        }
        Ok((agents, left_out))
    }

    /// As [`export`](Self::export), but for agents that are kept: those whose types are never saved
    /// and, if that is wanted, those of types that `codec` does not know. They are taken out, and
    /// lie in `kept` at their slots.
    ///
    /// # Errors
    /// [`Error::Unsaved`] for the first agent that `codec` cannot write down, and that is not kept.
    ///
    /// # Panics
    /// If it is not [at rest](Self::is_at_rest).
    pub fn export_and_keep(
        &mut self,
        codec: &dyn AgentCodec<M>,
        keeps_unregistered: bool,
        kept: &mut KeptAgents<M>,
    ) -> Result<EngineState<M>, Error> {
        let mut agents = AgentStates::default();
        for (id, agent) in self.agents() {
            let is_kept = codec.never_saved(agent).is_some();
            if is_kept
                || !agents
                    .push(agent, codec)
                    .map_err(|why| self.unsaved(id, agent, &why))?
            {
                if !is_kept && !keeps_unregistered {
                    return Err(self.unsaved(id, agent, UNREGISTERED));
                }
                agents.agents.push((NONE, 0));
            }
        }
        let places = self.agents.iter_mut().filter(|place| place.is_some());
        let places = places.zip(&agents.agents);
        kept.extend(places.map(|(place, (kind, _))| place.take_if(|_| *kind == NONE)));
        Ok(self.export_with(agents))
    }

    fn unsaved(&self, agent: AgentId, it: &dyn Agent<M>, why: &str) -> Error {
        Error::Unsaved {
            agent,
            kind: it.type_name().into(),
            time: self.now(),
            why: why.into(),
        }
    }

    fn export_with(&self, agents: AgentStates) -> EngineState<M> {
        assert!(self.is_at_rest(), "an engine is saved between supersteps");
        let renumbered = self.kernel.number_slots();
        let number = |slot: u32| {
            let number = renumbered.get(slot as usize).copied();
            number.filter(|number| *number != NONE)
        };
        let newborn = self.newborn.iter();
        EngineState {
            kernel: self.kernel.export(),
            agents,
            next_index: self.next_index,
            newborn: newborn
                .map(|(slot, newborn)| (number(*slot), newborn.clone()))
                .collect(),
            unnumbered: self.unnumbered.iter().map(|slot| number(*slot)).collect(),
            awake_last: crate::narrow(self.awake_last),
        }
    }

    /// Drops all agents and forgets all but the settings of its host.
    ///
    /// # Errors
    /// [`Error::AgentPanicked`] if an agent panics while it is dropped.
    pub fn reset(&mut self) -> Result<(), Error> {
        let mut fresh = Self::new(self.kernel.seed);
        let (old, new) = (&mut self.kernel, &mut fresh.kernel);
        new.has_neighbours = old.has_neighbours;
        new.changed_interest = old.changed_interest.as_ref().map(|_| Vec::new());
        new.ahead = old.ahead.as_ref().map(|ahead| ahead.anew());
        new.digest = old.digest.as_ref().map(|_| Default::default());
        new.content = old.content.as_ref().map(Content::anew);
        new.marks = old.marks.as_ref().map(|marks| Marks::new(marks.covers()));
        new.observer = old.observer.take();
        new.observed_by = old.observed_by;
        new.look_who_notes_deliveries();
        new.progress = std::sync::Arc::clone(&old.progress);
        new.progress_is_shown = old.progress_is_shown;
        let dropped = self.release_all();
        fresh.kernel.show_slots();
        *self = fresh;
        dropped
    }

    /// Takes up a state, with the agents that were kept when it was exported. The engine is new, or
    /// was [reset](Self::reset), and has the settings of its host. Agents that were left out are
    /// evicted: it is as if they had been taken out at this moment.
    ///
    /// # Errors
    /// [`Error::Unrestored`]; [`Error::AgentPanicked`] if an agent panics in `restored`.
    pub fn restore(
        &mut self,
        state: EngineState<M>,
        codec: &dyn AgentCodec<M>,
        kept: KeptAgents<M>,
    ) -> Result<(), Error> {
        let now = state.kernel.now;
        // Until all of it is known to fit, the engine stays empty: it may be dropped.
        let check = state.kernel.check();
        check.map_err(|why| unrestored("the state of the kernel", now, why))?;
        self.agents = restored_agents(&state, codec, kept)?;
        let (rebuilt, left_out) = state.agents.rebuilt_and_left_out();
        let slots = self.agents.len();
        let slot = |slot: Option<u32>| slot.filter(|it| (*it as usize) < slots).unwrap_or(NONE);
        self.kernel.restore(state.kernel);
        self.next_index = state.next_index;
        let newborn = state.newborn.into_iter();
        self.newborn = newborn.map(|(place, it)| (slot(place), it)).collect();
        self.unnumbered = state.unnumbered.into_iter().map(slot).collect();
        self.awake_last = state.awake_last as usize;
        // Those that were set up are known by their flags.
        self.set_up = 0;
        let progress = &self.kernel.progress;
        progress.stand_at(self.kernel.now, self.kernel.superstep);
        for slot in left_out {
            self.kernel.evict(slot);
            let counters = &mut self.kernel.counters;
            counters.agents = counters.agents.saturating_sub(1);
        }
        self.guarded(|engine| engine.tell_restored(&rebuilt))
    }

    /// Calls `restored` of agents that were made of their encodings.
    pub(super) fn tell_restored(&mut self, slots: &[u32]) {
        for slot in slots {
            self.call(*slot, Phase::Restored);
        }
        self.kernel.progress.rest_at(self.kernel.superstep, NONE);
    }
}

const UNREGISTERED: &str = "its type is not registered: register it, or run without saving states";

pub(super) fn unrestored(what: &str, time: SimTime, why: &str) -> Error {
    Error::Unrestored {
        what: what.into(),
        time,
        why: why.into(),
    }
}

/// The agents of a state, in the order of their slots.
fn restored_agents<M: Message>(
    state: &EngineState<M>,
    codec: &dyn AgentCodec<M>,
    kept: KeptAgents<M>,
) -> Result<KeptAgents<M>, Error> {
    let now = state.kernel.now;
    let AgentStates {
        kinds,
        agents,
        states,
    } = &state.agents;
    if agents.len() != state.kernel.slots.len() {
        let why = "there are more or fewer than the kernel knows";
        return Err(unrestored("the agents", now, why));
    }
    let (mut rest, mut kept) = (&states[..], kept.into_iter());
    let mut decode = |kind: u32, bytes: u32| {
        let kept = kept.next().flatten();
        if kind == NONE {
            return kept.map(Some).ok_or_else(|| "it was not saved".to_owned());
        }
        let kind = kinds.get(kind as usize).ok_or("its type is not named")?;
        let cut = rest.split_at_checked(bytes as usize);
        let (state, others) = cut.ok_or("its state is cut")?;
        rest = others;
        if kind.starts_with(LEFT_OUT) {
            return Ok(None);
        }
        let agent = codec.decode(kind, state);
        agent.map(Some).map_err(|why| format!("as {kind}, {why}"))
    };
    let agents = agents.iter().zip(&state.kernel.slots);
    let agents = agents.map(|((kind, bytes), entry)| {
        let agent = decode(*kind, *bytes);
        let what = || format!("agent {}", entry.id);
        agent.map_err(|why| unrestored(&what(), now, &why))
    });
    agents.collect()
}
