//! How a fresh cluster is brought to where its lost process was: it is told again what main told
//! that one, and what it answers is compared with what was answered then.
//!
//! **Invariant:** nothing that is done in a replay leaves the process but what agents print.

use std::time::Duration;

use crate::cluster::answers::{undecodable, unsayable};
use crate::cluster::mp_scheduler::{MpScheduler, Reply};
use crate::cluster::registry::WireMessage;
use crate::cluster::state::ClusterState;
use crate::links::transport::{Draft, DraftBuffer};
use crate::protocol::replay::{Record, take_record};
use crate::protocol::wire::{
    Difference, Fault, Replay, Replayed, ToMain, ToProc, put_note, take_note,
};

impl<M: WireMessage> MpScheduler<M> {
    /// Hands out the whole state.
    pub(super) fn save(&mut self, draft: &mut Draft<'_>) -> Result<(), Fault> {
        if !self.loaded.is_empty() || !self.engine.is_at_rest() {
            return Err(undecodable("a wish for the state", "it comes too early"));
        }
        let bytes = self.export()?.encode().map_err(unsayable)?;
        draft.clear();
        draft.extend(&bytes);
        put_note(&ToMain::Saved, draft).map_err(unsayable)
    }

    /// Takes up a state, in a process that has its settings and nothing else.
    pub(super) fn restore_from(
        &mut self,
        replay: &Replay,
        state: &[u8],
    ) -> Result<Replayed, Fault> {
        let state = ClusterState::decode(state);
        let state = state.map_err(|why| undecodable("the state of the cluster", why))?;
        self.restore(state)?;
        if let Some(forgetting) = &mut self.forgetting {
            // As if it had forgotten in time.
            forgetting.note(self.engine.counters().supersteps);
            forgetting.take_count();
        }
        self.take_up(replay);
        Ok(Replayed {
            messages: 0,
            difference: None,
        })
    }

    /// Takes up what was said of wall time.
    fn take_up(&mut self, replay: &Replay) {
        if let Some(busy) = &mut self.busy {
            *busy = Duration::from_nanos(replay.busy);
        }
    }

    /// Obeys what main has said before, up to the first message that it answers otherwise.
    pub(super) fn replay(&mut self, replay: &Replay, records: &[u8]) -> Result<Replayed, Fault> {
        let mut rest = records;
        let mut scratch = DraftBuffer::default();
        let mut messages = 0;
        let mut difference = None;
        while !rest.is_empty() && difference.is_none() {
            let record = take_record(&mut rest)
                .ok_or_else(|| undecodable("a message of main that is replayed", "it is cut"))?;
            difference = self.replay_one(&record, &mut scratch);
            messages += 1;
        }
        self.gateway.replayed = None;
        self.take_up(replay);
        Ok(Replayed {
            messages,
            difference,
        })
    }

    fn replay_one(&mut self, record: &Record<'_>, scratch: &mut DraftBuffer) -> Option<Difference> {
        self.gateway.replayed = Some(record.outcome.pass);
        self.told = 0;
        scratch.clear();
        let mut draft = Draft::in_buffer(scratch);
        let reply = self.try_to_obey(record.message, &mut draft);
        let is_same = match reply {
            Ok(Reply::Nothing) => !record.outcome.answered,
            Ok(Reply::Answer) => record.outcome.answered && record.outcome.mark == self.told,
            Ok(Reply::Bye) | Err(_) => false,
        };
        if is_same {
            return None;
        }
        let grant = match take_note(record.message) {
            Ok((ToProc::Grant(grant), _)) => grant.number,
            _ => 0,
        };
        let (time, superstep) = (self.engine.now(), self.engine.superstep());
        let stands = match reply {
            Err(fault) => format!("{time}, superstep {superstep} ({fault:?})"),
            _ => format!("{time}, superstep {superstep}"),
        };
        Some(Difference { grant, stands })
    }
}
