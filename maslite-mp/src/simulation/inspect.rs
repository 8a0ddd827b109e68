//! Requests of a program to clusters and agents between runs.

use maslite_core::{Agent, AgentId, AlarmFilter, Counters, Digest, Marks, Pattern, PendingAlarm};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::commands::{
    AgentInfo, Answers, Audience, Question, ask_agents, ask_alarms, ask_all_alarms, ask_command,
    ask_command_all, ask_counters, ask_marks, ask_marks_of, ask_out, ask_replace, ask_show,
    ask_state, ask_state_digest, ask_subscriptions,
};
use crate::cluster::registry::WireMessage;
use crate::error::control::ControlError;
use crate::settings::ClusterId;
use crate::simulation::mp_main::MpMain;

/// Commands and requests before and between runs. A [`Controller`](crate::Controller) makes the
/// same ones during runs.
///
/// They start the clusters, if that has not been done. An error that ends the simulation is one of
/// [`ControlError::ClusterDied`], [`ControlError::Failed`] and [`ControlError::Ended`].
impl<M: WireMessage> MpMain<M> {
    /// Has an agent answer a command, with its [`command`](Agent::command).
    ///
    /// # Errors
    /// [`ControlError::Agent`], [`ControlError::Encode`], [`ControlError::Decode`].
    pub fn command(&mut self, agent: impl Into<AgentId>, request: M) -> Result<M, ControlError> {
        self.put(ask_command(agent.into(), &request)?)
    }

    /// Has several agents answer a command. Their answers, or reasons not to, are in insertion
    /// order.
    ///
    /// # Errors
    /// [`ControlError::UnknownCluster`], [`ControlError::Encode`], [`ControlError::Decode`].
    pub fn command_all(
        &mut self,
        audience: Audience,
        request: M,
    ) -> Result<Answers<M>, ControlError> {
        self.put(ask_command_all(audience, &request)?)
    }

    /// The state of an agent, as a value of its own type. The agent stays where it is: this is how
    /// it looks now, and changes to it go nowhere.
    ///
    /// # Errors
    /// [`ControlError::Agent`] for agents that are unknown or of another type,
    /// [`ControlError::Unregistered`], [`ControlError::Encode`], [`ControlError::Decode`].
    pub fn inspect<A: Agent<M> + DeserializeOwned>(
        &mut self,
        agent: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.put(ask_state::<M, A>(agent.into())?)
    }

    /// The state of an agent as JSON.
    ///
    /// # Errors
    /// [`ControlError::Agent`] for agents that are unknown, [`ControlError::Encode`] for a type
    /// that is not registered, or a state that cannot be JSON.
    pub fn state_of(&mut self, agent: impl Into<AgentId>) -> Result<String, ControlError> {
        let agent = agent.into();
        let shown = self.put(ask_show(agent)?)?.shown;
        shown.state.map_err(|why| ControlError::Encode {
            what: format!("agent {agent} of type {}", shown.kind),
            why,
        })
    }

    /// Takes an agent out of the simulation and hands it over. It is not torn down; otherwise it is
    /// as if it had been removed at this very moment: its subscriptions end, mail that it has not
    /// read is undeliverable, its alarms stay, its id is not used again.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect); the agent then stays.
    pub fn take_out<A: Agent<M> + DeserializeOwned>(
        &mut self,
        agent: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.put(ask_out::<M, A>(agent.into())?)
    }

    /// Puts an agent in the place of another, whose inbox, subscriptions, alarms and random numbers
    /// it takes over. Neither is torn down, nor set up once more. It may be of another type.
    ///
    /// # Errors
    /// [`ControlError::Agent`], [`ControlError::Unregistered`], [`ControlError::Encode`],
    /// [`ControlError::Decode`].
    pub fn replace<A: Agent<M> + Serialize>(
        &mut self,
        agent: impl Into<AgentId>,
        by: A,
    ) -> Result<(), ControlError> {
        self.put(ask_replace(self.registry(), agent.into(), &by)?)
    }

    /// All agents, in insertion order.
    ///
    /// # Errors
    /// Only such that end the simulation.
    pub fn agents(&mut self) -> Result<Vec<AgentInfo>, ControlError> {
        self.put(ask_agents(0, u64::MAX)?)
    }

    /// Returns the pending alarms that match the filter, of all agents, in the order in which they
    /// will fire.
    ///
    /// # Errors
    /// Only such that end the simulation.
    pub fn alarms(&mut self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, ControlError> {
        let mut alarms = self.put(ask_all_alarms()?)?;
        alarms.retain(|alarm| filter.includes(alarm));
        Ok(alarms)
    }

    /// The pending alarms that agents of a cluster have set, in the order they will fire.
    ///
    /// # Errors
    /// [`ControlError::UnknownCluster`].
    pub fn alarms_of(&mut self, cluster: ClusterId) -> Result<Vec<PendingAlarm>, ControlError> {
        self.put(ask_alarms(cluster)?)
    }

    /// Returns the subscriptions of the agents of a cluster, in insertion order.
    ///
    /// # Errors
    /// [`ControlError::UnknownCluster`].
    pub fn subscriptions_of(
        &mut self,
        cluster: ClusterId,
    ) -> Result<Vec<(AgentId, Pattern)>, ControlError> {
        self.put(ask_subscriptions(cluster)?)
    }

    /// Returns the counters of a cluster since the simulation began.
    ///
    /// # Errors
    /// [`ControlError::UnknownCluster`].
    pub fn counters_of(&mut self, cluster: ClusterId) -> Result<Counters, ControlError> {
        self.put(ask_counters(cluster)?)
    }

    /// The digest in pieces of simulated time, if a digest was asked for; that of the contents, if
    /// one of these was. It is the same in every placement. A failed run leaves none, and there is none
    /// once a cluster was dropped.
    ///
    /// # Errors
    /// Only such that end the simulation.
    pub fn marks(&mut self) -> Result<Option<Marks>, ControlError> {
        if !self.digest {
            return Ok(None);
        }
        let of_clusters = self.put(ask_marks()?)?;
        if self.standing.has_dropped {
            return Ok(None);
        }
        let own = self.standing.marks.clone();
        let all = of_clusters.iter().fold(own, |sum, next| sum.with(next));
        Ok(Some(all))
    }

    /// The same of the agents of one cluster.
    ///
    /// # Errors
    /// [`ControlError::UnknownCluster`].
    pub fn marks_of(&mut self, cluster: ClusterId) -> Result<Option<Marks>, ControlError> {
        self.put(ask_marks_of(cluster)?)
    }

    /// The digest of the state that a [`save`](MpMain::save) would write now: of all agents with
    /// their mail, alarms and subscriptions. It is the same in every placement.
    ///
    /// # Errors
    /// [`ControlError::NotSaved`] for an agent whose type is not registered.
    pub fn state_digest(&mut self) -> Result<Digest, ControlError> {
        self.put(ask_state_digest()?)
    }

    fn put<T>(&mut self, question: Question<T>) -> Result<T, ControlError> {
        (question.read)(self.ask(question.scope, &question.request)?)
    }
}
