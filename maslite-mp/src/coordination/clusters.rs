//! The clusters of one simulation as `MpMain` reaches them: their links, and the processes behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::SimTime;

use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::state::Standing;
use crate::error::Error;
use crate::error::link::LinkError;
use crate::error::recovery::{Dropped, Recovered};
use crate::error::warning::Warning;
use crate::links::jitter::Jitter;
use crate::links::transport::{Draft, Transport, Wait};
use crate::processes::backend::{Backend, Inline, Model, NewCluster, Processes, Start, explain};
use crate::processes::output::Output;
use crate::processes::spawn::SpawnError;
use crate::processes::supervision::{ChildEnd, Supervisor};
use crate::recording::Recorder;
use crate::recovery::{Kept, Remains, Restart};
use crate::settings::timing::INTERRUPT_GRACE;
use crate::settings::{Link, Placement, Waiting};
use crate::stall::detector::{
    MainActivity, MainState, Patience, ProgressLines, StallDetector, WarningSink,
};
use crate::stall::meter::Meter;
use crate::steering::control_queue::ControlQueue;
use crate::steering::progress::ProgressReporter;
use crate::steering::status::{Account, ClusterSnapshot};

/// One cluster.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// What carries its messages; none if it runs inline.
    pub(crate) carrier: Option<Link>,
    pub(super) link: Option<Box<dyn Transport>>,
    /// Mail for it that cannot be in the message to it yet.
    aside: Vec<u8>,
    pub(crate) snapshot: Arc<ClusterSnapshot>,
    /// What is kept of it, if it is to come back.
    pub(super) kept: Option<Box<Kept>>,
    /// What is left of it, if it was dropped.
    pub(super) remains: Option<Box<Remains>>,
    /// Where it is written down what it is told.
    pub(super) recorder: Option<Box<Recorder>>,
}

/// All clusters.
pub(crate) struct Clusters {
    pub(crate) list: Vec<Cluster>,
    pub(super) backend: Box<dyn Backend>,
    pub(crate) control_queue: Arc<ControlQueue>,
    /// Where the thread that runs shows what it is at.
    pub(crate) main_activity: Arc<MainActivity>,
    /// Where the time of runs goes.
    pub(crate) meter: Meter,
    /// How clusters are brought back, if any is to be.
    pub(super) restart: Option<Restart>,
    /// The clusters that were brought back, in order.
    pub(crate) recovered: Vec<Recovered>,
    /// The clusters that were dropped, in order.
    pub(crate) dropped: Vec<Dropped>,
    /// Those of them whose subscriptions have not ended yet.
    pub(super) newly_dropped: Vec<usize>,
    /// How main waits.
    pub(super) wait: Wait,
    /// The folder for what clusters are told, and the hash of what the registry has.
    pub(crate) recording: Option<(PathBuf, u64)>,
}

impl Clusters {
    /// Warns as `sink` likes it. `progress`: tells at a terminal how far long runs have come.
    pub(crate) fn new(
        placement: Placement,
        control_queue: Arc<ControlQueue>,
        patience: Patience,
        sink: Option<WarningSink>,
        progress: bool,
    ) -> Result<Self, Error> {
        let main_activity = Arc::default();
        control_queue.set_main_activity(Arc::clone(&main_activity));
        let is_told = sink.is_some();
        let detector = StallDetector::new(patience, sink, Arc::clone(&main_activity));
        let progress_reporter = progress
            .then(|| {
                ProgressReporter::at_the_terminal(Arc::clone(&control_queue))
                    .map(|progress_reporter| Box::new(progress_reporter) as Box<dyn ProgressLines>)
            })
            .flatten();
        let is_watched = is_told || patience.warning.is_some() || progress_reporter.is_some();
        let supervisor = || {
            let supervisor = Supervisor::new(INTERRUPT_GRACE).map_err(SpawnError::Resources)?;
            supervisor.run_job(|watch| {
                watch.detector = detector;
                watch.progress_reporter = progress_reporter;
            });
            Ok::<_, Error>(supervisor)
        };
        let backend: Box<dyn Backend> = match placement {
            Placement::Inline => Box::new(Inline::new(is_watched.then(supervisor).transpose()?)),
            Placement::Processes => Box::new(Processes::new(supervisor()?)),
        };
        Ok(Self::on(backend, control_queue, main_activity))
    }

    /// Clusters that this backend runs.
    pub(crate) fn on(
        backend: Box<dyn Backend>,
        control_queue: Arc<ControlQueue>,
        main_activity: Arc<MainActivity>,
    ) -> Self {
        if let Some(observer) = backend.observer() {
            control_queue.set_observer(observer);
        }
        Self {
            list: Vec::new(),
            meter: Meter::new(backend.is_apart()),
            backend,
            control_queue,
            main_activity,
            restart: None,
            recovered: Vec::new(),
            dropped: Vec::new(),
            newly_dropped: Vec::new(),
            wait: Wait::default(),
            recording: None,
        }
    }

    #[cfg(any(test, feature = "dev"))]
    /// Makes clusters, named 0, 1, …, that no scheduler runs: for tests that make up their reports.
    pub(crate) fn unmanned(clusters: usize) -> Result<Self, Error> {
        let nothing = Patience {
            warning: None,
            update: None,
            answer: None,
        };
        let mut all = Self::new(Placement::Inline, Arc::default(), nothing, None, false)?;
        (0..clusters).for_each(|number| all.add(number.to_string()));
        Ok(all)
    }

    pub(crate) fn add(&mut self, name: String) {
        self.list.push(Cluster {
            snapshot: self.control_queue.snapshot.add(name.clone()),
            name,
            pid: 0,
            carrier: None,
            link: None,
            aside: Vec::new(),
            kept: None,
            remains: None,
            recorder: None,
        });
    }

    /// Sets how main waits, and tells how the clusters are to wait.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> Wait {
        let wait = waiting.steps(self.list.len());
        self.wait = wait;
        for cluster in &mut self.list {
            if let Some(link) = &mut cluster.link {
                link.wait_as(wait);
            }
        }
        wait
    }

    /// Starts the clusters that have not been started yet, all at the same time, and tells which.
    pub(crate) fn start(
        &mut self,
        model: &dyn Model,
        carrier: Link,
        output: Output,
    ) -> Result<Vec<usize>, Error> {
        let fresh = (0..self.list.len()).filter(|index| self.list[*index].link.is_none());
        let fresh: Vec<NewCluster> = fresh
            .map(|index| NewCluster {
                index,
                name: self.list[index].name.clone(),
            })
            .collect();
        let start = Start {
            model,
            carrier,
            output,
        };
        for started in self.backend.start(&fresh, &start)? {
            let cluster = &mut self.list[started.index];
            cluster.pid = started.pid;
            cluster.snapshot.lives_in(started.pid);
            cluster.carrier = started.carrier;
            cluster.link = Some(started.link);
            if cluster.kept.is_some() {
                self.backend.note_start(started.pid);
            }
        }
        Ok(fresh.into_iter().map(|cluster| cluster.index).collect())
    }

    /// Adds jitter to main's end of the link to a cluster that has just started.
    pub(crate) fn add_jitter(&mut self, place: usize, jitter: Jitter) {
        let link = self.list[place].link.take();
        self.list[place].link = link.map(|link| self.backend.add_jitter(link, jitter));
    }

    /// Begins a message to a cluster that takes no mail. What mail is written already is put aside.
    pub(crate) fn draft(&mut self, place: usize, time: SimTime) -> Result<Draft<'_>, Error> {
        let (mut draft, aside) = self.open(place, time)?;
        aside.extend_from_slice(draft.bytes());
        draft.clear();
        Ok(draft)
    }

    /// Goes on with a message to a cluster that takes all mail for it.
    pub(crate) fn draft_with_mail(
        &mut self,
        place: usize,
        time: SimTime,
    ) -> Result<Draft<'_>, Error> {
        let (mut draft, aside) = self.open(place, time)?;
        if !aside.is_empty() {
            draft.extend(aside);
            aside.clear();
        }
        Ok(draft)
    }

    /// Writes mail into the next message to a cluster that takes mail.
    pub(crate) fn relay(&mut self, place: usize, mail: &[u8], time: SimTime) -> Result<(), Error> {
        if self.list[place].link.is_some() {
            self.open(place, time)?.0.extend(mail);
        } else {
            // It is lent to the reader of this mail.
            self.list[place].aside.extend_from_slice(mail);
        }
        Ok(())
    }

    /// What is written of the next message to a cluster, and what is put aside.
    fn open(&mut self, place: usize, time: SimTime) -> Result<(Draft<'_>, &mut Vec<u8>), Error> {
        let Self { list, backend, .. } = self;
        let Cluster {
            name,
            pid,
            link,
            aside,
            ..
        } = &mut list[place];
        let draft = link
            .as_mut()
            .map_or(Err(LinkError::Disconnected), |link| link.draft());
        match draft {
            Ok(draft) => Ok((draft, aside)),
            Err(error) => Err(explain(&**backend, name, *pid, error, time)),
        }
    }

    /// Says what has been written to a cluster. `is_to_be_answered`: its answer is awaited before
    /// anything else is said to it.
    pub(crate) fn send(
        &mut self,
        place: usize,
        is_to_be_answered: bool,
        time: SimTime,
    ) -> Result<(), Error> {
        if self.list[place].recorder.is_some() {
            self.record(place, is_to_be_answered, time)?;
        }
        if self.list[place].kept.is_some() {
            self.keep(place, is_to_be_answered, time)?;
        }
        self.hand_over(place, time)
    }

    /// Hands what has been written, and kept, to a cluster.
    pub(super) fn hand_over(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        let cluster = &mut self.list[place];
        self.main_activity.set(MainState::SendTo(place), time);
        let sent = match &mut cluster.link {
            Some(link) => link.send(),
            None => Err(LinkError::Disconnected),
        };
        self.main_activity.set(MainState::Routing, time);
        match sent {
            Ok(()) => {
                if let Some(kept) = &mut cluster.kept {
                    kept.given();
                }
                Ok(())
            }
            // What was to be said is kept, and told the new process.
            Err(error) => self.recover(place, error, time),
        }
    }

    /// Waits for the answer of a cluster.
    pub(crate) fn recv(&mut self, place: usize, time: SimTime) -> Result<Vec<u8>, Error> {
        loop {
            self.main_activity.set(MainState::WaitFor(place), time);
            let received = match &mut self.list[place].link {
                Some(link) => link.recv().map(<[u8]>::to_vec),
                None => Err(LinkError::Disconnected),
            };
            self.main_activity.set(MainState::Routing, time);
            match received {
                Ok(message) => return Ok(message),
                Err(error) => self.recover(place, error, time)?,
            }
        }
    }

    /// Says something to a cluster that is no part of what it is told again in a replay.
    pub(super) fn say_unkept(
        &mut self,
        place: usize,
        message: &[u8],
        time: SimTime,
    ) -> Result<(), LinkError> {
        self.main_activity.set(MainState::SendTo(place), time);
        let link = self.list[place].link.as_mut();
        let said = link.map_or(Err(LinkError::Disconnected), |link| link.say(message));
        self.main_activity.set(MainState::Routing, time);
        said
    }

    /// Waits for the answer to it.
    pub(super) fn recv_unkept(
        &mut self,
        place: usize,
        time: SimTime,
    ) -> Result<Vec<u8>, LinkError> {
        self.main_activity.set(MainState::WaitFor(place), time);
        let link = self.list[place].link.as_mut();
        let received = link.map_or(Err(LinkError::Disconnected), |link| {
            link.recv().map(<[u8]>::to_vec)
        });
        self.main_activity.set(MainState::Routing, time);
        received
    }

    /// Lends the link to a cluster that owes an answer.
    pub(crate) fn lend(
        &mut self,
        place: usize,
        time: SimTime,
    ) -> Result<Box<dyn Transport>, Error> {
        self.main_activity.set(MainState::WaitFor(place), time);
        let link = self.list[place].link.take();
        link.ok_or_else(|| self.explain(place, LinkError::Disconnected, time))
    }

    /// Takes it back, the answer having been heard.
    pub(crate) fn give_back(&mut self, place: usize, link: Box<dyn Transport>) {
        self.list[place].link = Some(link);
    }

    /// Why the link to a cluster broke.
    pub(crate) fn explain(&self, place: usize, error: LinkError, time: SimTime) -> Error {
        let Cluster { name, pid, .. } = &self.list[place];
        explain(&*self.backend, name, *pid, error, time)
    }

    /// Warns as the program likes it.
    pub(crate) fn warn(&self, warning: Warning) {
        self.backend.warn(warning);
    }

    /// From here to the beginning of a run, or to [`end_watching`](Self::end_watching), it is
    /// watched whether the clusters get on.
    pub(crate) fn begin_watching(&self) {
        self.backend.begin_watching();
    }

    pub(crate) fn end_watching(&self) {
        self.backend.end_watching();
    }

    /// Begins a run that is interrupted at `deadline`, if there is one, or when the control queue
    /// says so.
    pub(crate) fn begin_run(&mut self, timeout: Option<Duration>, deadline: Option<Instant>) {
        self.meter.begin_run(self.list.len());
        let interrupt = self.backend.begin_run(timeout, deadline);
        self.control_queue.begin_run(interrupt);
    }

    /// Ends a run.
    pub(crate) fn end_run(&mut self) {
        self.meter.end_run();
        self.backend.end_run();
        self.control_queue.end_run();
    }

    /// Whether the run is interrupted because it is to end: by its timeout, or by a handle.
    pub(crate) fn is_over(&self) -> bool {
        self.backend.is_over()
    }

    /// Writes into the status snapshot how all stand, for other threads.
    pub(crate) fn show(&self, standing: &Standing, routing: &Routing) {
        let Standing {
            time,
            supersteps,
            counters,
            ..
        } = standing;
        let snapshot = &self.control_queue.snapshot;
        snapshot.stands(*time, *supersteps, counters.delivered);
        for place in 0..self.list.len() {
            self.show_cluster(place, standing, routing);
        }
    }

    /// The same of one cluster, whose report is in.
    pub(crate) fn show_cluster(&self, place: usize, standing: &Standing, routing: &Routing) {
        let report = standing.reports.get(place).and_then(Option::as_ref);
        if let Some((report, spent)) = report.zip(self.meter.spent(place)) {
            self.list[place].snapshot.stands(Account {
                time: report.time,
                delivered: report.counters.delivered,
                awake: u64::from(report.awake_last),
                mail: routing.traffic.in_and_out(Traffic::place_of(place)),
                spent,
            });
        }
    }

    /// Lets grants be sent again although the run was interrupted: those that bring all to one
    /// instant.
    pub(crate) fn release(&mut self) {
        self.backend.release();
    }

    /// The number of the next grant, and whether the run is interrupted.
    pub(crate) fn next_grant(&mut self) -> (u64, bool) {
        self.backend.next_grant(&|| self.control_queue.is_raised())
    }

    /// Kills all clusters and leaves nothing behind.
    pub(crate) fn abandon(&mut self) {
        self.backend.kill_all();
        self.list.clear();
    }

    /// Stops all clusters, the last one first, and leaves nothing behind. What they said last is
    /// handed to `heard`, the last one's first. Takes at most `grace` and a little, whatever they
    /// do. Also tells whether all were heard to their ends.
    pub(crate) fn shutdown(
        &mut self,
        stop: &[u8],
        grace: Duration,
        mut heard: impl FnMut(&str, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        self.backend.expect_exits();
        let (mut names, mut links) = (Vec::new(), Vec::new());
        let left = self.list.iter_mut().rev();
        for cluster in left.filter(|cluster| cluster.remains.is_none()) {
            if let Some(mut link) = cluster.link.take() {
                // A link that breaks here belongs to a cluster that has ended already. None blocks:
                // of all that main sends only what is short is without an answer, and a link has
                // room for two such messages.
                let _ = link.say(stop);
                names.push(cluster.name.as_str());
                links.push(link);
            }
        }
        self.backend.drain(links, grace, &mut |number, message| {
            heard(names[number], message);
        })
    }
}
