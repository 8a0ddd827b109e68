//! How a fresh cluster is brought to where its lost process was: it is told again what main told
//! that one, and what it answers is compared with what was answered then.
//!
//! **Invariant:** nothing that is done in a replay leaves the process but what agents print.

use std::time::Duration;

use crate::cluster::answers::{undecodable, unsayable, write_alone};
use crate::cluster::mp_scheduler::{MpScheduler, Reply};
use crate::cluster::registry::WireMessage;
use crate::cluster::state::ClusterState;
use crate::links::transport::{Draft, DraftBuffer};
use crate::protocol::replay::{Record, take_record};
use crate::protocol::wire::{
    Difference, Fault, Replay, Replayed, ToMain, ToProc, put_note, take_note,
};

/// How a cluster took a message that it was told before.
#[derive(Debug, PartialEq)]
pub(crate) enum Again {
    /// It answered as it did then.
    Same,
    /// Main did not hear its answer then, so that answer is not known.
    Unanswered,
    /// It failed, and if its answer was heard it failed then.
    Failed,
    Other(Difference),
}

/// Whether an answer tells of a failure.
fn is_failure(answer: &DraftBuffer) -> bool {
    match take_note(answer.spilled().unwrap_or_default()) {
        Ok((ToMain::Report(report), _)) => report.events.failure.is_some(),
        Ok((ToMain::Failed(_), _)) => true,
        _ => false,
    }
}

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
            difference = match self.obey_again(&record, &mut scratch) {
                Again::Same => None,
                Again::Other(difference) => Some(difference),
                Again::Unanswered | Again::Failed => Some(self.difference(&record, None)),
            };
            messages += 1;
        }
        self.gateway.replayed = None;
        self.take_up(replay);
        Ok(Replayed {
            messages,
            difference,
        })
    }

    /// Obeys a message of main again. The answer is in `scratch`.
    pub(crate) fn obey_again(&mut self, record: &Record<'_>, scratch: &mut DraftBuffer) -> Again {
        self.gateway.replayed = Some(record.outcome.pass);
        self.told = 0;
        scratch.clear();
        let mut draft = Draft::in_buffer(scratch);
        let reply = self.try_to_obey(record.message, &mut draft);
        let was_answered = record.outcome.answered;
        match reply {
            Ok(Reply::Nothing) if !was_answered => Again::Same,
            // The mark of a failure is 0, and not only that.
            Ok(Reply::Answer)
                if self.told == 0 && record.outcome.mark == 0 && is_failure(scratch) =>
            {
                Again::Failed
            }
            Ok(Reply::Answer) if !was_answered => Again::Unanswered,
            Ok(Reply::Answer) if record.outcome.mark == self.told => Again::Same,
            Ok(_) => Again::Other(self.difference(record, None)),
            Err(fault) if !was_answered => {
                write_alone(&ToMain::Failed(fault), &mut Draft::in_buffer(scratch));
                Again::Failed
            }
            Err(fault) => Again::Other(self.difference(record, Some(&fault))),
        }
    }

    fn difference(&self, record: &Record<'_>, fault: Option<&Fault>) -> Difference {
        let grant = match take_note(record.message) {
            Ok((ToProc::Grant(grant), _)) => grant.number,
            _ => 0,
        };
        let (time, superstep) = (self.engine.now(), self.engine.superstep());
        let stands = match fault {
            Some(fault) => format!("{time}, superstep {superstep} ({fault:?})"),
            None => format!("{time}, superstep {superstep}"),
        };
        Difference { grant, stands }
    }
}
