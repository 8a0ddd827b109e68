//! How all of a simulation is written down: the clusters write their states at the same time, and
//! main writes what it knows when all have.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use maslite_core::clock::wall;
use maslite_core::internal::AgentIdInternals as _;
use maslite_core::{Digest, Mail, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::clusters::Clusters;
use crate::coordination::main_state::MainState;
use crate::coordination::rounds::Rounds;
use crate::coordination::save_plan::HeadSource;
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::error::snapshot::{LeftOut, SnapshotError};
use crate::protocol::wire::{
    self, Replay, Restoration, ToMain, ToProc, Write, Written, WrittenState,
};
use crate::snapshot::folder::Unfinished;
use crate::snapshot::head::{Head, Section, section};
use crate::snapshot::saved::Saved;

/// A snapshot could not be written, and nothing has changed; or else the simulation cannot go on.
pub(crate) enum SaveFailure {
    NotSaved(Error),
    Fatal(Error),
}

impl From<SnapshotError> for SaveFailure {
    fn from(error: SnapshotError) -> Self {
        Self::NotSaved(error.into())
    }
}

impl SaveFailure {
    /// The error, and whether the simulation has ended with it.
    pub(crate) fn into_error(self) -> (Error, bool) {
        match self {
            Self::NotSaved(error) => (error, false),
            Self::Fatal(error) => (error, true),
        }
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Writes a snapshot into a new folder. `queued` is the owner's mail for the next run.
    pub(crate) fn save(
        &mut self,
        subject: &HeadSource<M>,
        target: &Path,
        queued: &[Mail<M>],
    ) -> Result<Saved, SaveFailure> {
        let begin = wall();
        let folder = Unfinished::begin(target)?;
        // All mail is posted and all news are told: what main does not know, a cluster does.
        self.finish_posting().map_err(SaveFailure::Fatal)?;
        if let Some(dropped) = self.clusters.dropped.first() {
            return Err(SaveFailure::from(SnapshotError::Refused {
                path: target.into(),
                why: format!(
                    "cluster {} was dropped at {}",
                    dropped.cluster, dropped.time
                ),
            }));
        }
        let time = self.standing.time;
        let states = self
            .clusters
            .write_states(folder.path(), subject.leaving_out, time)?;
        let states = states.map_err(|never_saved| SnapshotError::NeverSaved {
            path: target.into(),
            never_saved,
        })?;
        let left_out = LeftOut::by_kind(states.iter().flat_map(|it| it.left_out.iter().cloned()));
        let main = self.main_bytes(subject, queued)?;
        let digests = states.iter().map(|state| state.digest);
        let state_digest = digests.fold(Digest::default(), Digest::with);
        let (message, kinds) = subject.registry.shapes().clone();
        let head = Head {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            saved_at: since_1970(),
            time,
            superstep: self.standing.superstep,
            seed: subject.seed,
            digest: subject.has_digest.then(|| self.standing.digest()).flatten(),
            content: self.standing.content.is_some(),
            state: state_digest,
            message,
            kinds,
            sections: self.sections(&states),
            names: maslite_core::AgentId::names_since(&mut 0),
            main,
            left_out,
        };
        let sum = head.write(folder.path())?;
        self.clusters.rest_on(folder.path(), &states)?;
        let bytes: u64 = states.iter().map(|state| state.sum.bytes).sum();
        Ok(Saved {
            path: folder.finish()?,
            now: time,
            agents: states.iter().map(|state| state.agents).sum(),
            bytes: bytes + sum.bytes,
            state_digest,
            left_out: head.left_out,
            took: begin.elapsed(),
        })
    }

    /// Posts all mail, and has each cluster hear all news.
    fn finish_posting(&mut self) -> Result<(), Error> {
        if self.standing.reports.iter().any(Option::is_none) {
            // Clusters that were in no run yet.
            self.hear_all()?;
        }
        self.post_all()?;
        self.hear_all()
    }

    /// Has each cluster hear all news, and hears from it where it stands.
    pub(crate) fn hear_all(&mut self) -> Result<(), Error> {
        let all: Vec<usize> = (0..self.clusters.list.len()).collect();
        self.ask(&all, &[]).map(|_| ())
    }

    fn sections(&self, states: &[WrittenState]) -> Vec<Section> {
        let clusters = self.clusters.list.iter().zip(states);
        let sections = clusters
            .enumerate()
            .map(|(place, (cluster, state))| Section {
                cluster: cluster.name.clone(),
                lookahead: self.lookaheads.get(place).copied(),
                agents: state.agents,
                sum: state.sum,
            });
        sections.collect()
    }

    fn main_bytes(
        &self,
        subject: &HeadSource<M>,
        queued: &[Mail<M>],
    ) -> Result<Vec<u8>, SaveFailure> {
        let (standing, routing) = (&*self.standing, &*self.routing);
        let main = MainState::of(
            standing,
            routing,
            self.under_way,
            queued,
            subject.has_digest,
        );
        main.encode().map_err(|why| {
            SaveFailure::NotSaved(Error::Encode {
                what: "mail that waits in main".to_owned(),
                why: why.to_string(),
            })
        })
    }
}

/// Since 1970 \[ns, wall\].
#[expect(
    clippy::disallowed_methods,
    reason = "of several snapshots it tells which was written last, and nothing else"
)]
pub(crate) fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

impl Clusters {
    /// Has all clusters write their states into files of a folder, at the same time. Tells all the
    /// agents that are never saved if there are some, and they are not to be left out.
    fn write_states(
        &mut self,
        folder: &Path,
        leaving_out: bool,
        time: SimTime,
    ) -> Result<Result<Vec<WrittenState>, Vec<LeftOut>>, SaveFailure> {
        for place in 0..self.list.len() {
            self.ask_to_write(place, &section(folder, place), leaving_out, time)?;
        }
        let (mut states, mut never_saved) = (Vec::new(), Vec::new());
        let mut failure = None;
        for place in 0..self.list.len() {
            match self.hear_written(place, &section(folder, place), leaving_out, time) {
                Ok(Ok(state)) => states.push(state),
                Ok(Err(agents)) => never_saved.extend(agents),
                Err(SaveFailure::Fatal(error)) => return Err(SaveFailure::Fatal(error)),
                // The others answer all the same.
                Err(not_saved) => failure = failure.or(Some(not_saved)),
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if never_saved.is_empty() => Ok(Ok(states)),
            None => Ok(Err(LeftOut::by_kind(never_saved))),
        }
    }

    fn ask_to_write(
        &mut self,
        place: usize,
        file: &Path,
        leaving_out: bool,
        time: SimTime,
    ) -> Result<(), SaveFailure> {
        let path = file.as_os_str().as_bytes().to_vec();
        let wish = Write { path, leaving_out };
        let message = wire::message(&ToProc::Write(wish)).map_err(|why| {
            SaveFailure::NotSaved(Error::Encode {
                what: "a request to save".to_owned(),
                why: why.to_string(),
            })
        })?;
        // A cluster that dies now is brought back when its answer is awaited.
        let _ = self.say_unkept(place, &message, time);
        Ok(())
    }

    fn hear_written(
        &mut self,
        place: usize,
        file: &Path,
        leaving_out: bool,
        time: SimTime,
    ) -> Result<Result<WrittenState, Vec<LeftOut>>, SaveFailure> {
        let message = loop {
            match self.recv_unkept(place, time) {
                Ok(message) => break message,
                Err(error) => {
                    // Its new process does not know of the request, and what the old one may have
                    // written of the file is not whole.
                    self.recover(place, error, time)
                        .map_err(SaveFailure::Fatal)?;
                    let _ = std::fs::remove_file(file);
                    self.ask_to_write(place, file, leaving_out, time)?;
                }
            }
        };
        let cluster = &self.list[place].name;
        let reason = match wire::take_note(&message) {
            Ok((ToMain::Written(Written::State(state)), _)) => return Ok(Ok(state)),
            Ok((ToMain::Written(Written::NeverSaved(agents)), _)) => return Ok(Err(agents)),
            Ok((ToMain::Written(Written::Failed { os_error, why }), _)) => {
                let source =
                    os_error.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error);
                return Err(SnapshotError::io(file, "write", source).into());
            }
            Ok((ToMain::Written(Written::Unsaved(source)), _)) => {
                let cluster = cluster.clone();
                return Err(SaveFailure::NotSaved(Error::Agent { cluster, source }));
            }
            Ok((ToMain::Failed(fault), _)) => {
                return Err(SaveFailure::Fatal(fault.blame(cluster)));
            }
            Ok(_) => MessageFault::Untimely,
            Err(_) => MessageFault::Undecodable,
        };
        Err(SaveFailure::Fatal(reason.blame(cluster, time, &message)))
    }

    /// Has clusters that have just started take up their states, at the same time.
    pub(crate) fn restore_all(
        &mut self,
        states: Vec<Vec<u8>>,
        names: &[String],
        time: SimTime,
    ) -> Result<(), Error> {
        for (place, state) in states.into_iter().enumerate() {
            let mut message = state;
            let end = wire::message(&ToProc::Restore(Restoration {
                replay: Replay { busy: 0 },
                names: names.to_vec(),
            }));
            let end = end.map_err(|why| Error::Encode {
                what: "a request to restore".to_owned(),
                why: why.to_string(),
            })?;
            let length = message.len();
            message.extend(end);
            if let Err(error) = self.say_unkept(place, &message, time) {
                return Err(self.explain(place, error, time));
            }
            if let Some(kept) = &mut self.list[place].kept {
                message.truncate(length);
                kept.log.cut(message);
            }
        }
        for place in 0..self.list.len() {
            let message = match self.recv_unkept(place, time) {
                Ok(message) => message,
                Err(error) => {
                    // A new process begins with the state.
                    self.recover(place, error, time)?;
                    continue;
                }
            };
            let cluster = &self.list[place].name;
            let reason = match wire::take_note(&message) {
                Ok((ToMain::Replayed(_), _)) => continue,
                Ok((ToMain::Failed(fault), _)) => return Err(fault.blame(cluster)),
                Ok(_) => MessageFault::Untimely,
                Err(_) => MessageFault::Undecodable,
            };
            return Err(reason.blame(cluster, time, &message));
        }
        Ok(())
    }

    /// Has the logs of clusters that may come back begin at a snapshot, if all their agents are in it.
    fn rest_on(&mut self, folder: &Path, states: &[WrittenState]) -> Result<(), SnapshotError> {
        for (place, state) in states.iter().enumerate() {
            if !state.left_out.is_empty() {
                continue;
            }
            let pid = self.list[place].pid;
            let Some(kept) = &mut self.list[place].kept else {
                continue;
            };
            let path = section(folder, place);
            kept.log.cut_at(&path)?;
            self.backend.cut(pid);
        }
        Ok(())
    }
}
