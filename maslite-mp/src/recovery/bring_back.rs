//! Starts one process anew, and brings it to where the lost one was.

use std::time::Duration;

use maslite_core::SimTime;

use super::kept::Kept;
use crate::error::Error;
use crate::error::death::Death;
use crate::error::link::LinkError;
use crate::error::message_fault::MessageFault;
use crate::error::recovery::NotRecovered;
use crate::error::snapshot::SnapshotError;
use crate::error::spawn::SpawnError;
use crate::links::jitter::Jitter;
use crate::links::transport::{Transport, Wait, now};
use crate::processes::backend::{Backend, Model, NewCluster, Start, Started};
use crate::processes::output::Output;
use crate::protocol::wire::{self, Replay, Replayed, Restoration, ToMain, ToProc};
use crate::settings::Link;

/// How a process is started anew.
pub(crate) struct Restart {
    pub(crate) model: Box<dyn Model + Send>,
    pub(crate) carrier: Link,
    pub(crate) output: Output,
    pub(crate) jitter: Option<u64>,
}

/// A cluster that is back.
pub(crate) struct Back {
    pub(crate) started: Started,
    /// How many messages were replayed.
    pub(crate) messages: u64,
    /// How long the start and the replay took.
    pub(crate) start: Duration,
    pub(crate) replay: Duration,
}

/// Why a cluster is not back.
pub(crate) enum Trouble {
    /// Its link broke: its new process, with this id, died.
    Died(u32, LinkError),
    /// Its new process died before it had a link.
    DiedAtStart(Death),
    /// Nothing helps.
    Final(Error),
}

/// Starts the process of a cluster anew, and tells it what the lost one was told. Whatever waits
/// for an answer is sent again. `is_started` is called when main begins to wait for the new process.
pub(crate) fn bring_back(
    backend: &mut dyn Backend,
    restart: &Restart,
    cluster: &NewCluster,
    kept: &mut Kept,
    wait: Wait,
    time: SimTime,
    is_started: impl FnOnce(),
) -> Result<Back, Trouble> {
    let begin = now();
    let start = Start {
        model: &*restart.model,
        carrier: restart.carrier,
        output: restart.output,
    };
    let started = backend.start(std::slice::from_ref(cluster), &start);
    let mut started = started.map_err(|error| why_not_started(error, &cluster.name))?;
    let Some(mut started) = started.pop() else {
        let lost = std::io::Error::other("no process was started");
        return Err(Trouble::Final(SpawnError::Resources(lost).into()));
    };
    backend.note_start(started.pid);
    started.link.wait_as(wait);
    if let Some(seed) = restart.jitter {
        let jitter = Jitter::main_side(seed, cluster.index);
        started.link = backend.add_jitter(started.link, jitter);
    }
    let start = begin.elapsed();
    is_started();
    let messages = match replay(&mut *started.link, &cluster.name, kept, time) {
        Ok(messages) => messages,
        Err(Stopped::Link(error)) => return Err(Trouble::Died(started.pid, error)),
        Err(Stopped::Final(error)) => return Err(Trouble::Final(error)),
    };
    Ok(Back {
        started,
        messages,
        start,
        replay: begin.elapsed().saturating_sub(start),
    })
}

/// A process that dies in its start is lost like any other; whatever else is amiss stays so.
fn why_not_started(error: Error, cluster: &str) -> Trouble {
    match error {
        Error::Start(SpawnError::ExitedBeforeHello { exit, stderr, .. }) => {
            let mut death = Death::bare(cluster.to_owned(), 0, exit);
            death.stderr = stderr;
            Trouble::DiedAtStart(death)
        }
        error => Trouble::Final(error),
    }
}

/// Why a replay stopped.
enum Stopped {
    Link(LinkError),
    Final(Error),
}

impl From<LinkError> for Stopped {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<SnapshotError> for Stopped {
    fn from(error: SnapshotError) -> Self {
        Self::Final(error.into())
    }
}

fn replay(
    link: &mut dyn Transport,
    cluster: &str,
    kept: &mut Kept,
    time: SimTime,
) -> Result<u64, Stopped> {
    link.say(kept.log.settings())?;
    if let Some(state) = kept.log.base()? {
        let replay = Replay { busy: kept.busy };
        let names = Vec::new();
        say_after(
            link,
            &state,
            &ToProc::Restore(Restoration { replay, names }),
        )?;
        hear(link, cluster, time)?;
    }
    let mut messages = 0;
    let mut difference = None;
    for records in kept.log.parts().into_iter().flatten() {
        say_after(link, records, &ToProc::Replay(Replay { busy: kept.busy }))?;
        let replayed = hear(link, cluster, time)?;
        messages += replayed.messages;
        difference = replayed.difference;
        if difference.is_some() {
            break;
        }
    }
    if let Some(difference) = difference {
        let reason = NotRecovered::Differs {
            grant: difference.grant,
            stands: difference.stands,
        };
        return Err(Stopped::Final(kept.refuse(reason, time)));
    }
    if let Some(message) = kept.log.outstanding() {
        link.say(message)?;
    }
    kept.given();
    Ok(messages)
}

/// Says something with bytes before it.
fn say_after(link: &mut dyn Transport, bytes: &[u8], note: &ToProc) -> Result<(), Stopped> {
    let mut draft = link.draft()?;
    draft.clear();
    draft.extend(bytes);
    wire::put_note(note, &mut draft).map_err(|why| {
        Stopped::Final(Error::Encode {
            what: "a replay".to_owned(),
            why: why.to_string(),
        })
    })?;
    Ok(link.send()?)
}

/// Waits for the answer to a replay.
fn hear(link: &mut dyn Transport, cluster: &str, time: SimTime) -> Result<Replayed, Stopped> {
    let message = link.recv()?;
    let reason = match wire::take_note(message) {
        Ok((ToMain::Replayed(replayed), _)) => return Ok(replayed),
        Ok((ToMain::Failed(fault), _)) => return Err(Stopped::Final(fault.blame(cluster))),
        Ok(_) => MessageFault::Untimely,
        Err(_) => MessageFault::Undecodable,
    };
    Err(Stopped::Final(reason.blame(cluster, time, message)))
}
