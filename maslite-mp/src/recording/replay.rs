//! One cluster alone, told again what main told it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use maslite_core::{Agent, AgentId, SimTime};

use super::file::{Blocks, ENDING, Head, Kind, ReplayError};
use crate::cluster::commands;
use crate::cluster::mp_scheduler::MpScheduler;
use crate::cluster::registry::{Entered, WireMessage};
use crate::cluster::replay::Again;
use crate::error::control::ControlError;
use crate::links::transport::{Draft, DraftBuffer};
use crate::protocol::replay::take_record;
use crate::protocol::wire::{self, ToMain};

/// The record of one cluster, which [`MpMainBuilder::record`](crate::MpMainBuilder::record) has
/// written.
#[derive(Debug)]
pub struct Replay {
    blocks: Blocks,
    head: Head,
}

impl Replay {
    /// Opens the record of a cluster in a folder.
    ///
    /// # Errors
    /// [`ReplayError::Missing`], [`ReplayError::Unreadable`], [`ReplayError::Damaged`].
    pub fn open(folder: impl AsRef<Path>, cluster: &str) -> Result<Self, ReplayError> {
        let folder = folder.as_ref();
        let unreadable = |source| ReplayError::Unreadable {
            path: folder.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                paths.push(path);
            }
        }
        paths.sort();
        let mut known = Vec::new();
        for path in paths {
            let (blocks, head) = Blocks::open(&path)?;
            if head.cluster == cluster {
                return Ok(Self { blocks, head });
            }
            known.push(head.cluster);
        }
        Err(ReplayError::Missing {
            folder: folder.to_owned(),
            cluster: cluster.to_owned(),
            known,
        })
    }

    /// Makes the cluster in this thread, before all that it was told. `agents` must have the same
    /// types and builders as when it was recorded.
    ///
    /// # Errors
    /// [`ReplayError::OtherProgram`].
    pub fn start<M: WireMessage>(
        self,
        agents: &Entered<M>,
    ) -> Result<ReplayedCluster<M>, ReplayError> {
        let Self { blocks, head } = self;
        if agents.schema() != head.schema {
            return Err(ReplayError::OtherProgram {
                cluster: head.cluster,
            });
        }
        let mut scheduler = MpScheduler::new(Arc::clone(&agents.registry));
        let mut scratch = DraftBuffer::default();
        scheduler.obey(&head.settings, &mut Draft::in_buffer(&mut scratch));
        Ok(ReplayedCluster {
            cluster: head.cluster,
            scheduler,
            blocks,
            records: Vec::new(),
            start: 0,
            messages: 0,
            scratch,
        })
    }
}

/// One cluster alone in this thread. A debugger may be attached to it.
///
/// ```no_run
/// # use maslite_mp::prelude::*;
/// use maslite_mp::recording::Replay;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
/// # #[derive(Serialize, Deserialize)] struct Crane;
/// # use serde::{Deserialize, Serialize};
/// # impl Agent<Msg> for Crane {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let agents: Entered<Msg> = Registry::new().with::<Crane>().enter();
/// let mut one = Replay::open("rec", "2")?.start(&agents)?;
/// let stand = one.run_until(SimTime::from_millis(3_200))?;
/// println!("{stand}; crane 7 is {}", one.state_of(7)?);
/// # Ok(())
/// # }
/// ```
pub struct ReplayedCluster<M: WireMessage> {
    cluster: String,
    scheduler: MpScheduler<M>,
    blocks: Blocks,
    /// The records of a block, and where the next one begins.
    records: Vec<u8>,
    start: usize,
    messages: u64,
    scratch: DraftBuffer,
}

/// Where a replay stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stand {
    /// The cluster.
    pub cluster: String,
    /// Its simulated time.
    pub time: SimTime,
    /// The superstep of the instant that comes next.
    pub superstep: u64,
    /// Messages of main obeyed, all with the recorded answers.
    pub messages: u64,
    /// The record is at its end.
    pub is_over: bool,
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            time,
            superstep,
            messages,
            is_over,
        } = self;
        write!(
            f,
            "cluster {cluster} stands at {time}, superstep {superstep}, after {messages} messages of main, all with the \
             recorded answers{}",
            if *is_over {
                "; the record ends here"
            } else {
                ""
            }
        )
    }
}

impl<M: WireMessage> ReplayedCluster<M> {
    /// Obeys what main said then, up to the first grant after which the cluster stands at `time` or
    /// later, or to the end of the record. Compares each answer with the recorded one.
    ///
    /// # Errors
    /// [`ReplayError::Differs`] with the first grant whose answer is another one,
    /// [`ReplayError::Failed`] for what ended the recorded run, [`ReplayError::Damaged`],
    /// [`ReplayError::Unreadable`].
    pub fn run_until(&mut self, time: SimTime) -> Result<Stand, ReplayError> {
        let mut is_over = false;
        while self.scheduler.engine.now() < time {
            if !self.obey_next()? {
                is_over = true;
                break;
            }
        }
        Ok(Stand {
            cluster: self.cluster.clone(),
            time: self.now(),
            superstep: self.scheduler.engine.superstep(),
            messages: self.messages,
            is_over,
        })
    }

    /// Obeys all that main said then.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub fn run_to_end(&mut self) -> Result<Stand, ReplayError> {
        while self.obey_next()? {}
        self.run_until(SimTime::MAX)
    }

    /// The simulated time of the cluster.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.scheduler.engine.now()
    }

    /// An agent of the cluster, if it is of this type.
    pub fn agent<A: Agent<M>>(&self, id: impl Into<AgentId>) -> Option<&A> {
        let agent: &dyn std::any::Any = self.scheduler.engine.agent(id.into())?;
        agent.downcast_ref()
    }

    /// The state of an agent of the cluster as JSON.
    ///
    /// # Errors
    /// [`ControlError::Agent`] for agents that are not here, [`ControlError::Encode`].
    pub fn state_of(&mut self, agent: impl Into<AgentId>) -> Result<String, ControlError> {
        let question = commands::ask_show(agent.into())?;
        commands::read_state(&self.scheduler.answer(&question.request))
    }

    /// Obeys the next message. False if there is none.
    fn obey_next(&mut self) -> Result<bool, ReplayError> {
        while self.start == self.records.len() {
            match self.blocks.next()? {
                Some((Kind::Records, records)) => (self.records, self.start) = (records, 0),
                Some((Kind::Head | Kind::End, _)) => {}
                None => return Ok(false),
            }
        }
        let mut rest = &self.records[self.start..];
        let Some(record) = take_record(&mut rest) else {
            let end = self.blocks.offset();
            return Err(self.blocks.damaged(end, "a record is cut"));
        };
        let (scheduler, scratch) = (&mut self.scheduler, &mut self.scratch);
        let again = scheduler.obey_again(&record, scratch);
        self.start = self.records.len() - rest.len();
        self.messages += 1;
        match again {
            Again::Same | Again::Unanswered => Ok(true),
            Again::Failed => Err(self.failure()),
            Again::Other(difference) => Err(ReplayError::Differs {
                cluster: self.cluster.clone(),
                grant: difference.grant,
                stands: difference.stands,
            }),
        }
    }

    /// Why the cluster fails, as its answer says.
    fn failure(&self) -> ReplayError {
        let answer = self.scratch.spilled().unwrap_or_default();
        let fault = match wire::take_note(answer) {
            Ok((ToMain::Report(mut report), _)) => report.events.failure.take().map(|it| it.fault),
            Ok((ToMain::Failed(fault), _)) => Some(fault),
            _ => None,
        };
        let source = match fault {
            Some(fault) => fault.blame(&self.cluster),
            None => crate::error::Error::Ended,
        };
        ReplayError::Failed {
            time: self.now(),
            source: Box::new(source),
        }
    }
}

impl<M: WireMessage> fmt::Debug for ReplayedCluster<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayedCluster")
            .field("cluster", &self.cluster)
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}
