//! A scheduler that forgets everything and comes back from its saved state.

use std::sync::Arc;

use super::hooks::SchedulerHooks;
use crate::agent_types::AgentTypes;
use crate::engine::{
    Amnesia, AskedFor, Engine, EngineState, Forgetful, Forgetting, Limits, Rest, Through, keep,
};
use crate::error::Error;
use crate::message::Message;

/// What a scheduler needs to forget and to come back.
pub(super) struct Memory<M: Message> {
    forgetting: Forgetting,
    types: Arc<AgentTypes<M>>,
    through: fn(EngineState<M>) -> Result<Through<M>, String>,
}

impl<M: Message> Memory<M> {
    /// As the program asked for it, or the environment. That of the environment keeps messages and
    /// agents that cannot be saved.
    pub(super) fn new(asked: Option<AskedFor<M>>, types: Arc<AgentTypes<M>>) -> Option<Self> {
        let (amnesia, through) = match asked {
            Some(AskedFor { every, through }) => (Amnesia::every(every)?, through),
            None => (Amnesia::of_environment()?, keep as fn(_) -> _),
        };
        let forgetting = Forgetting::new(amnesia);
        Some(Self {
            forgetting,
            types,
            through,
        })
    }

    /// Tells that the scheduler goes on after this number of supersteps.
    pub(super) fn go_on_from(&mut self, supersteps: u64) {
        self.forgetting.go_on_from(supersteps);
    }

    /// How often the scheduler has forgotten.
    pub(super) fn count(&self) -> u64 {
        self.forgetting.count
    }

    /// Runs an engine that forgets.
    pub(super) fn run(
        &mut self,
        engine: &mut Engine<M>,
        limits: &Limits,
        hooks: &mut SchedulerHooks<'_, M>,
    ) -> Result<Rest, Error> {
        let Self {
            forgetting,
            types,
            through,
        } = self;
        let forget =
            |engine: &mut Engine<M>, _: &mut _, amnesia| engine.forget(amnesia, &**types, *through);
        engine.run(limits, &mut Forgetful::new(hooks, forgetting, forget))
    }
}
