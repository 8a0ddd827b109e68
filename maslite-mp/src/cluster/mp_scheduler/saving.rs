//! A cluster's scheduler as a value: how it forgets everything and comes back, how it is exported
//! and restored.

use maslite_core::internal::{Engine, Forgetful, Limits, Rest};

use super::MpScheduler;
use crate::cluster::answers::fault;
use crate::cluster::gateway::OpenGateway;
use crate::cluster::registry::WireMessage;
use crate::cluster::state::{self, ClusterState, Parts};
use crate::links::transport::Draft;
use crate::protocol::wire::Fault;

impl<M: WireMessage> MpScheduler<M> {
    /// Runs the engine, which forgets on the way if that is asked for.
    pub(super) fn run_engine(
        &mut self,
        limits: &Limits,
        draft: &mut Draft<'_>,
    ) -> Result<Rest, maslite_core::Error> {
        let mut hooks = self.gateway.writing(draft);
        let Some(forgetting) = &mut self.forgetting else {
            return self.engine.run(limits, &mut hooks);
        };
        let (registry, trace, names) = (&*self.registry, &*self.trace, &mut self.names);
        let forget = |engine: &mut Engine<M>, hooks: &mut OpenGateway<'_, '_, M>, amnesia| {
            let gateway = &mut *hooks.gateway;
            let mut parts = Parts {
                registry,
                engine,
                gateway,
                trace,
                names,
            };
            parts.forget(amnesia)
        };
        let mut hooks = Forgetful::new(&mut hooks, forgetting, forget);
        self.engine.run(limits, &mut hooks)
    }

    /// Forgets everything and comes back, if that is due after the last superstep.
    pub(super) fn forget_if_due(&mut self) -> Result<(), maslite_core::Error> {
        let supersteps = self.engine.counters().supersteps;
        let due = self.forgetting.as_mut();
        let Some(forgetting) = due.filter(|forgetting| forgetting.is_due(supersteps)) else {
            return Ok(());
        };
        forgetting.note(supersteps);
        let amnesia = forgetting.amnesia;
        self.parts().forget(amnesia)
    }

    fn parts(&mut self) -> Parts<'_, M> {
        Parts {
            registry: &self.registry,
            engine: &mut self.engine,
            gateway: &mut self.gateway,
            trace: &self.trace,
            names: &mut self.names,
        }
    }

    /// All that the cluster is between two grants, but for its settings.
    ///
    /// # Errors
    /// [`Unsaved`](maslite_core::Error::Unsaved) for the first agent that cannot be saved.
    pub(crate) fn export(&self) -> Result<ClusterState<M>, Fault> {
        let engine = self.engine.export(&*self.registry).map_err(fault)?;
        let (gateway, trace, names) = (&self.gateway, &*self.trace, &self.names);
        Ok(state::export(engine, gateway, trace, names))
    }

    /// Becomes the cluster that was exported. It must be new, and have been told its settings.
    ///
    /// # Errors
    /// [`Unrestored`](maslite_core::Error::Unrestored) for what cannot be restored.
    pub(crate) fn restore(&mut self, state: ClusterState<M>) -> Result<(), Fault> {
        self.parts().rebuild(state).map_err(fault)?;
        if let Some(forgetting) = &mut self.forgetting {
            forgetting.go_on_from(self.engine.counters().supersteps);
        }
        Ok(())
    }
}
