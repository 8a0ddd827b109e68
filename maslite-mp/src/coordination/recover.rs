//! How a cluster whose link broke comes back, or is dropped, without the knowledge of those who use
//! it.
//!
//! Main notices a death where it uses the link next: when it says something, or waits for an
//! answer. There the cluster is brought back, what was said and not answered is said again, and the
//! mail that was written for it is put into the next message.

use std::time::Instant;

use maslite_core::SimTime;
use tracing::warn;

use crate::coordination::clusters::Clusters;
use crate::error::Error;
use crate::error::link::LinkError;
use crate::error::recovery::Recovered;
use crate::error::warning::Warning;
use crate::links::transport::now;
use crate::processes::backend::{NewCluster, explain};
use crate::protocol::wire::{self, ToMain, ToProc};
use crate::recovery::{Back, Kept, Recovery, Restart, Trouble, bring_back};
use crate::stall::detector::MainState;

impl Clusters {
    /// Whether there are clusters that have not been started.
    pub(crate) fn has_fresh(&self) -> bool {
        self.list.iter().any(|cluster| cluster.link.is_none())
    }

    /// Has the clusters that have not been started yet come back if their processes die, as their
    /// policies say.
    pub(crate) fn keep_all(&mut self, restart: Restart, policies: &[Recovery]) {
        if !self.backend.is_apart() || !policies.iter().any(|policy| policy.contains_deaths()) {
            return;
        }
        let fresh = self.list.iter_mut().zip(policies);
        for (cluster, policy) in fresh.filter(|(cluster, _)| cluster.link.is_none()) {
            let is_contained = policy.contains_deaths();
            cluster.kept = is_contained.then(|| Box::new(Kept::new(*policy)));
        }
        let contained = self.list.iter().map(|cluster| cluster.kept.is_some());
        let contained: Vec<bool> = contained.collect();
        self.backend.contain_deaths(&contained);
        self.restart = Some(restart);
    }

    /// Keeps what is about to be said to a cluster.
    pub(super) fn keep(
        &mut self,
        place: usize,
        is_to_be_answered: bool,
        time: SimTime,
    ) -> Result<(), Error> {
        let cluster = &mut self.list[place];
        let (Some(kept), Some(link)) = (&mut cluster.kept, &mut cluster.link) else {
            return Ok(());
        };
        let message = match link.draft() {
            Ok(mut draft) if is_to_be_answered && kept.log.needs_cut(draft.len()) => {
                draft.bytes().to_vec()
            }
            Ok(mut draft) => {
                if !kept.log.note(draft.bytes(), is_to_be_answered) {
                    self.warn_of_full_log(place, time);
                }
                return Ok(());
            }
            Err(error) => return Err(self.explain(place, error, time)),
        };
        self.cut(place, time)?;
        let (name, pid) = (self.list[place].name.clone(), self.list[place].pid);
        let cluster = &mut self.list[place];
        let (Some(kept), Some(link)) = (&mut cluster.kept, &mut cluster.link) else {
            return Ok(());
        };
        let is_kept = kept.log.note(&message, is_to_be_answered);
        match link.draft() {
            Ok(mut draft) => {
                draft.clear();
                draft.extend(&message);
            }
            Err(error) => return Err(explain(&*self.backend, &name, pid, error, time)),
        }
        if !is_kept {
            self.warn_of_full_log(place, time);
        }
        Ok(())
    }

    fn warn_of_full_log(&self, place: usize, time: SimTime) {
        let cluster = &self.list[place];
        let warning = Warning::LogFull {
            cluster: cluster.name.clone(),
            time,
            limit: cluster.kept.as_ref().map_or(0, |kept| kept.log.limit()),
        };
        warn!(target: "maslite", "{warning}");
        self.backend.warn(warning);
    }

    /// Asks a cluster that has answered everything for its state, and has its log begin with it. If
    /// there is none, because an agent cannot be saved, the log stays as it is.
    #[cold]
    fn cut(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        let Ok(save) = wire::message(&ToProc::Save) else {
            return Ok(());
        };
        loop {
            let cluster = &mut self.list[place];
            let (Some(kept), Some(link)) = (&mut cluster.kept, &mut cluster.link) else {
                return Ok(());
            };
            let answer = match link.say(&save) {
                Ok(()) => link.recv(),
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(message) => {
                    if let Ok((ToMain::Saved, state)) = wire::take_note(message) {
                        kept.log.cut(state.to_vec());
                        self.backend.cut(self.list[place].pid);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            self.recover(place, error, time)?;
        }
    }

    /// Says the first thing to a cluster, its settings, which has been written: every process of
    /// the cluster begins with it.
    pub(crate) fn send_settings(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        self.begin_record(place, time)?;
        let cluster = &mut self.list[place];
        if let (Some(kept), Some(link)) = (&mut cluster.kept, &mut cluster.link) {
            match link.draft() {
                Ok(mut draft) => kept.log.begin(draft.bytes()),
                Err(error) => return Err(self.explain(place, error, time)),
            }
        }
        self.hand_over(place, time)
    }

    /// Notes that a cluster has answered: with an answer of this mark, after an interrupt in this
    /// pass, and when it had worked so long \[ns\].
    #[inline]
    pub(crate) fn note_answer(
        &mut self,
        place: usize,
        pass: u64,
        mark: impl FnOnce() -> u64,
        busy: u64,
    ) {
        let cluster = &mut self.list[place];
        if cluster.kept.is_none() && cluster.recorder.is_none() {
            return;
        }
        let mark = mark();
        if let Some(kept) = &mut cluster.kept {
            kept.answered(pass, mark, busy);
        }
        if let Some(recorder) = &mut cluster.recorder {
            recorder.answered(pass, mark);
        }
    }

    /// The link to a cluster broke. Brings the cluster back if that is wanted.
    ///
    /// # Errors
    /// Why the link broke, or why the cluster cannot come back.
    #[cold]
    pub(crate) fn recover(
        &mut self,
        place: usize,
        error: LinkError,
        time: SimTime,
    ) -> Result<(), Error> {
        let is_lost = matches!(error, LinkError::Disconnected | LinkError::Io(_));
        let Some(mut kept) = self.list[place].kept.take().filter(|_| is_lost) else {
            return Err(self.explain(place, error, time));
        };
        self.backend.be_patient(true);
        let result = match kept.is_to_be_dropped() {
            true => self.drop_cluster(place, error, &kept, time),
            false => self.recover_kept(place, error, &mut kept, time),
        };
        self.backend.be_patient(false);
        if self.list[place].remains.is_none() {
            self.list[place].kept = Some(kept);
        }
        result
    }

    fn recover_kept(
        &mut self,
        place: usize,
        mut error: LinkError,
        kept: &mut Kept,
        time: SimTime,
    ) -> Result<(), Error> {
        let begin = now();
        let link = self.list[place].link.as_mut();
        let salvaged = link.map(|link| link.salvage()).unwrap_or_default();
        let cluster = NewCluster {
            index: place,
            name: self.list[place].name.clone(),
        };
        let mut ended = None;
        let mut back = loop {
            let pid = self.list[place].pid;
            let death = ended.take().or_else(|| self.backend.reap_lost(pid, true));
            let Some(death) = death else {
                return Err(self.explain(place, error, time));
            };
            kept.lose(death, now(), time)?;
            let Some(restart) = &self.restart else {
                return Err(self.explain(place, error, time));
            };
            // Its new process may be stopped, or may say nothing, as any other.
            let main_activity = &self.main_activity;
            let is_started = || main_activity.set(MainState::WaitFor(place), time);
            let (backend, wait) = (&mut *self.backend, self.wait);
            let back = bring_back(backend, restart, &cluster, kept, wait, time, is_started);
            self.main_activity.set(MainState::Routing, time);
            match back {
                Ok(back) => break back,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::DiedAtStart(death)) => ended = Some(death),
                Err(Trouble::Died(pid, again)) => {
                    self.list[place].pid = pid;
                    error = again;
                }
            }
        };
        if !salvaged.is_empty()
            && let Ok(mut draft) = back.started.link.draft()
        {
            draft.extend(&salvaged);
        }
        self.take_back(place, back, kept, begin, time);
        Ok(())
    }

    /// Takes up a cluster that is back, and tells of it.
    fn take_back(&mut self, place: usize, back: Back, kept: &Kept, begin: Instant, time: SimTime) {
        let Back {
            started,
            messages,
            start,
            replay,
        } = back;
        let cluster = &mut self.list[place];
        cluster.pid = started.pid;
        cluster.snapshot.lives_in(started.pid);
        cluster.carrier = started.carrier;
        cluster.link = Some(started.link);
        if let Some(death) = kept.last_death() {
            let recovered = Recovered {
                cluster: cluster.name.clone(),
                pid: started.pid,
                death: death.clone(),
                time,
                took: begin.elapsed(),
                start,
                replay,
                messages,
            };
            warn!(target: "maslite", "{recovered}");
            self.backend.warn(Warning::Recovered(recovered.clone()));
            let snapshot = &self.control_queue.snapshot;
            snapshot.note_recovery(recovered.clone());
            self.recovered.push(recovered);
        }
    }
}
