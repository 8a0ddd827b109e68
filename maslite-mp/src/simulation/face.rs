//! `MpMain` as a [`Simulation`], for programs that leave open what runs their model.

use maslite_core::{
    Agent, AgentError, AgentId, AlarmFilter, Counters, Digest, Mail, MainContext, Marks,
    PendingAlarm, Run, SimTime, Simulation, StopHandle,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::commands::AgentInfo;
use crate::cluster::registry::WireMessage;
use crate::error::Error;
use crate::error::control::ControlError;
use crate::processes::supervision::ChildEnd;
use crate::settings::ClusterId;
use crate::simulation::mp_main::{MpMain, Shutdown};
use crate::simulation::report::MpReport;

impl<M: WireMessage> Simulation<M> for MpMain<M> {
    type Error = Error;
    type ControlError = ControlError;
    type Report = MpReport;
    type Cluster = ClusterId;
    type ProcessEnd = ChildEnd;

    fn new_cluster(&mut self) -> ClusterId {
        self.new_cluster()
    }

    fn add_to<A: Agent<M> + Serialize>(
        &mut self,
        cluster: ClusterId,
        id: impl Into<AgentId>,
        agent: A,
    ) -> Result<(), Error> {
        self.add_to(cluster, id, agent)
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

    fn run(&mut self, run: Run) -> Result<MpReport, Error> {
        self.run(run)
    }

    fn run_with(
        &mut self,
        run: Run,
        handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<MpReport, Error> {
        self.run_with(run, handler)
    }

    fn inspect<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.inspect(id)
    }

    fn state_of(&mut self, id: impl Into<AgentId>) -> Result<String, ControlError> {
        self.state_of(id)
    }

    fn command(&mut self, id: impl Into<AgentId>, request: M) -> Result<M, ControlError> {
        self.command(id, request)
    }

    fn take_out<A: Agent<M> + Serialize + DeserializeOwned>(
        &mut self,
        id: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.take_out(id)
    }

    fn replace<A: Agent<M> + Serialize>(
        &mut self,
        id: impl Into<AgentId>,
        by: A,
    ) -> Result<(), ControlError> {
        self.replace(id, by)
    }

    fn agents(&mut self) -> Result<Vec<AgentInfo>, ControlError> {
        self.agents()
    }

    fn alarms(&mut self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, ControlError> {
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

    fn marks(&mut self) -> Result<Option<Marks>, ControlError> {
        self.marks()
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
