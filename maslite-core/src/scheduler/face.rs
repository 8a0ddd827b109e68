//! A scheduler as a [`Simulation`], one method for each of its own.

use std::convert::Infallible;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Scheduler;
use crate::agent::Agent;
use crate::alarm::PendingAlarm;
use crate::command::CommandError;
use crate::error::Error;
use crate::main_context::MainContext;
use crate::message::{Mail, Message};
use crate::run::{AgentError, Counters, Report, Run};
use crate::simulation::{AgentInfo, Shutdown, Simulation, StopHandle};
use crate::{AgentId, AlarmFilter, Digest, Marks, SimTime};

impl<M: Message> Simulation<M> for Scheduler<M> {
    type Error = Error;
    type ControlError = CommandError;
    type Report = Report;
    type Cluster = ();
    type ProcessEnd = Infallible;

    fn new_cluster(&mut self) {}

    fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        (): (),
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        self.add(id, agent)
    }

    fn add<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        self.add(id, agent)
    }

    fn remove(&mut self, id: impl Into<AgentId>) -> Result<(), Error> {
        self.remove(id)
    }

    fn send_mail(&mut self, mail: Mail<M>) {
        self.send_mail(mail);
    }

    fn run(&mut self, run: Run) -> Result<Report, Error> {
        self.run(run)
    }

    fn run_with(
        &mut self,
        run: Run,
        handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<Report, Error> {
        self.run_with(run, handler)
    }

    fn inspect<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, CommandError> {
        self.inspect(id)
    }

    fn state_of(&mut self, id: impl Into<AgentId>) -> Result<String, CommandError> {
        self.state_of(id)
    }

    fn command(&mut self, id: impl Into<AgentId>, request: M) -> Result<M, CommandError> {
        self.command(id, request)
    }

    fn take_out<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, CommandError> {
        self.take_out(id)
    }

    fn replace<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        by: A,
    ) -> Result<(), CommandError> {
        self.replace(id, by)
    }

    fn agents(&mut self) -> Result<Vec<AgentInfo>, CommandError> {
        self.agents()
    }

    fn alarms(&mut self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, CommandError> {
        self.alarms(filter)
    }

    fn now(&self) -> SimTime {
        self.now()
    }

    fn superstep(&self) -> u64 {
        self.superstep()
    }

    fn counters(&self) -> Counters {
        self.counters()
    }

    fn digest(&self) -> Option<Digest> {
        self.digest()
    }

    fn marks(&mut self) -> Result<Option<Marks>, CommandError> {
        Ok(Self::marks(self))
    }

    fn errors(&self) -> &[AgentError] {
        self.errors()
    }

    fn stop_handle(&self) -> StopHandle {
        self.stop_handle()
    }

    fn shutdown(self) -> Shutdown {
        self.shutdown()
    }
}
