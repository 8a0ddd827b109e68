//! How a fresh cluster is brought to where its lost process was: it is told again what main told
//! that one, and what it answers is compared with what was answered then.
//!
//! **Invariant:** nothing that is done in a replay leaves the process but what agents print.

use std::time::Duration;

use crate::cluster::answers::undecodable;
use crate::cluster::mp_scheduler::{MpScheduler, Reply};
use crate::cluster::registry::WireMessage;
use crate::links::transport::{Draft, DraftBuffer};
use crate::protocol::replay::{Record, take_record};
use crate::protocol::wire::{Difference, Fault, Replay, Replayed, ToProc, take_note};

impl<M: WireMessage> MpScheduler<M> {
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
        if let Some(busy) = &mut self.busy {
            *busy = Duration::from_nanos(replay.busy);
        }
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
