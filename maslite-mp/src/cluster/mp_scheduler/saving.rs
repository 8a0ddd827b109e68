//! A cluster's scheduler as a value: how it forgets everything and comes back, how it is exported
//! and restored.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use maslite_core::internal::{Engine, Forgetful, Limits, Rest, guard_model};

use super::MpScheduler;
use crate::cluster::answers::{fault, undecodable};
use crate::cluster::gateway::OpenGateway;
use crate::cluster::registry::WireMessage;
use crate::cluster::state::{self, ClusterState, Parts};
use crate::error::snapshot::LeftOut;
use crate::links::transport::Draft;
use crate::protocol::wire::{Fault, Write, Written, WrittenState};
use crate::snapshot::blocks::{self, Kind};

/// Code of the model that may panic while a state is written.
const ENCODING: &str = "the encoding of an agent or a message that is saved";

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
        self.go_back()?;
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

    /// Writes all that the cluster is into a new file.
    ///
    /// # Errors
    /// If it comes at the wrong time. What keeps the state from being written is no error: the
    /// cluster goes on.
    pub(crate) fn write_state(&self, wish: &Write) -> Result<Written, Fault> {
        if !self.loaded.is_empty() || !self.engine.is_at_rest() {
            return Err(undecodable("a wish for the state", "it comes too early"));
        }
        let stands = (self.engine.now(), self.engine.superstep());
        let encoded = guard_model(Some(ENCODING), stands, || {
            let (engine, left_out) = self.engine.export_leaving_out(&*self.registry)?;
            let missing = left_out.len() as u64;
            let left_out = LeftOut::by_kind(left_out.into_iter().map(LeftOut::from));
            if missing > 0 && !wish.leaving_out {
                return Ok(Err(left_out));
            }
            let (gateway, trace, names) = (&self.gateway, &*self.trace, &self.names);
            let state = state::export(engine, gateway, trace, names);
            let agents = state.agents() - missing;
            Ok::<_, maslite_core::Error>(Ok((agents, left_out, state.digest(), state.encode())))
        });
        let failed = |why: String| Written::Failed {
            os_error: None,
            why,
        };
        let (agents, left_out, digest, bytes) = match encoded.and_then(|encoded| encoded) {
            Ok(Ok(encoded)) => encoded,
            Ok(Err(never_saved)) => return Ok(Written::NeverSaved(never_saved)),
            Err(error) => return Ok(Written::Unsaved(error)),
        };
        let (digest, bytes) = match (digest, bytes) {
            (Ok(digest), Ok(bytes)) => (digest, bytes),
            (Err(why), _) => return Ok(failed(why)),
            (_, Err(why)) => return Ok(failed(why.to_string())),
        };
        let path = Path::new(OsStr::from_bytes(&wish.path));
        Ok(match blocks::write(path, Kind::Cluster, &bytes) {
            Ok(sum) => Written::State(WrittenState {
                agents,
                left_out,
                digest,
                sum,
            }),
            Err(error) => Written::Failed {
                os_error: error.raw_os_error(),
                why: error.to_string(),
            },
        })
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
