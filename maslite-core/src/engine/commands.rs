//! What can be done to single agents between two supersteps.

use super::Engine;
use crate::AgentId;
use crate::agent::Agent;
use crate::command::CommandError;
use crate::message::Message;
use crate::panics::{self, Panic};
use crate::progress::RequestGuard;

impl<M: Message> Engine<M> {
    /// Shows other threads that this agent answers a request, until the guard is dropped. There is
    /// nothing to show of an agent that is not here.
    #[must_use]
    pub fn begin_request(&self, id: AgentId) -> Option<RequestGuard> {
        let slot = self.slot(id)?;
        let superstep = self.kernel.superstep;
        Some(self.kernel.progress.begin_request(superstep, slot))
    }

    /// Has an agent answer a command.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::Refused`], [`CommandError::Panicked`].
    pub fn command(&mut self, id: AgentId, request: M) -> Result<M, CommandError> {
        let agent = self.occupied(id)?;
        // The one who asked is told that the agent lives on half changed.
        match panics::catch(|| agent.command(request)) {
            Ok(answer) => answer.map_err(|refusal| CommandError::Refused { agent: id, refusal }),
            Err(panic) => Err(panicked_over_command(id, &panic)),
        }
    }

    /// Makes sure that an agent is here and of this type.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`], [`CommandError::WrongType`].
    pub fn check_type<A: Agent<M>>(&self, id: AgentId) -> Result<(), CommandError> {
        let agent = self.agent(id).ok_or(CommandError::UnknownAgent(id))?;
        let any: &dyn std::any::Any = agent;
        if any.is::<A>() {
            return Ok(());
        }
        Err(CommandError::WrongType {
            agent: id,
            asked: std::any::type_name::<A>().to_owned(),
            found: agent.type_name().to_owned(),
        })
    }

    /// Puts an agent in the place of another, with its inbox, subscriptions, alarms and random
    /// numbers. The other is dropped and not torn down; nor is the new one set up, if the other
    /// was.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`]; [`CommandError::Panicked`] if the other panicked when it was
    /// dropped: it is replaced all the same.
    pub fn replace(&mut self, id: AgentId, agent: Box<dyn Agent<M>>) -> Result<(), CommandError> {
        let other = std::mem::replace(self.occupied(id)?, agent);
        discard(id, other)
    }

    /// Takes an agent out, as it is: it is not torn down. Otherwise it is as if it had been
    /// removed.
    ///
    /// # Errors
    /// [`CommandError::UnknownAgent`].
    pub fn take_out(&mut self, id: AgentId) -> Result<Box<dyn Agent<M>>, CommandError> {
        let unknown = CommandError::UnknownAgent(id);
        let slot = self.slot(id).ok_or(unknown.clone())?;
        let agent = self.agents[slot as usize].take().ok_or(unknown)?;
        self.kernel.evict(slot);
        self.kernel.counters.agents -= 1;
        Ok(agent)
    }
}

/// Drops an agent that is no longer here, which may panic in it.
///
/// # Errors
/// [`CommandError::Panicked`].
pub fn discard<M: Message>(id: AgentId, agent: Box<dyn Agent<M>>) -> Result<(), CommandError> {
    panics::catch(|| drop(agent)).map_err(|panic| panicked_over_command(id, &panic))
}

fn panicked_over_command(agent: AgentId, panic: &Panic) -> CommandError {
    CommandError::Panicked {
        agent,
        message: panic.message().to_owned(),
    }
}
