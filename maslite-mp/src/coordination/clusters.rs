//! The clusters of one simulation as `MpMain` reaches them: their links, and the processes behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use tracing::debug;

use crate::cluster::inline::InlineLink;
use crate::cluster::mp_scheduler::{InterruptSource, MpScheduler};
use crate::cluster::registry::{Entered, WireMessage};
use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::state::Standing;
#[cfg(test)]
use crate::dev::fault_simulation::World;
use crate::error::Error;
use crate::error::link::LinkError;
use crate::links::jitter::{InlineJitterLink, Jitter, JitterLink};
use crate::links::transport::{Draft, Transport, Wait};
use crate::processes::backend::{Backend, INTERRUPT_GRACE, Inline};
use crate::processes::logs::Log;
use crate::processes::output::Output;
use crate::processes::spawn::{self, START_DEADLINE, StartPlan};
use crate::processes::supervision::{ChildEnd, Supervisor};
use crate::settings::{Link, Placement, Waiting};
use crate::stall::detector::{
    ClusterActivity, MainActivity, MainState, Patience, ProgressLines, StallDetector, WarningSink,
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
    link: Option<Box<dyn Transport>>,
    /// Mail for it that cannot be in the message to it yet.
    aside: Vec<u8>,
    pub(crate) snapshot: Arc<ClusterSnapshot>,
}

/// All clusters.
pub(crate) struct Clusters {
    pub(crate) list: Vec<Cluster>,
    backend: Backend,
    pub(crate) control_queue: Arc<ControlQueue>,
    /// Where the thread that runs shows what it is at.
    pub(crate) main_activity: Arc<MainActivity>,
    /// Where the time of runs goes.
    pub(crate) meter: Meter,
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
        let detector = StallDetector::new(patience, sink, Arc::clone(&main_activity));
        let progress_reporter = progress
            .then(|| {
                ProgressReporter::at_the_terminal(Arc::clone(&control_queue))
                    .map(|progress_reporter| Box::new(progress_reporter) as Box<dyn ProgressLines>)
            })
            .flatten();
        let is_watched = patience.warning.is_some() || progress_reporter.is_some();
        let supervisor = || {
            let supervisor =
                Supervisor::new(INTERRUPT_GRACE).map_err(spawn::SpawnError::Resources)?;
            supervisor.run_job(|watch| {
                watch.detector = detector;
                watch.progress_reporter = progress_reporter;
            });
            Ok::<_, Error>(supervisor)
        };
        let backend = match placement {
            Placement::Inline => {
                let supervisor = is_watched.then(supervisor).transpose()?;
                Backend::Inline(Inline::new(supervisor))
            }
            Placement::Processes => {
                let supervisor = supervisor()?;
                control_queue.set_children(supervisor.interrupter());
                Backend::Processes(supervisor)
            }
        };
        Ok(Self {
            list: Vec::new(),
            backend,
            control_queue,
            main_activity,
            meter: Meter::new(placement == Placement::Processes),
        })
    }

    /// So many clusters, named 0, 1, …, that nothing runs: for those who make up what such clusters say.
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

    #[cfg(test)]
    /// In a world made up by a test.
    pub(crate) fn simulated(world: Arc<World>, control_queue: Arc<ControlQueue>) -> Self {
        Self {
            list: Vec::new(),
            backend: Backend::Simulated(world),
            control_queue,
            main_activity: Arc::default(),
            meter: Meter::new(true),
        }
    }

    pub(crate) fn add(&mut self, name: String) {
        self.list.push(Cluster {
            snapshot: self.control_queue.snapshot.add(name.clone()),
            name,
            pid: 0,
            carrier: None,
            link: None,
            aside: Vec::new(),
        });
    }

    /// Sets how main waits, and tells how the clusters are to wait.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> Wait {
        let wait = waiting.steps(self.list.len());
        for cluster in &mut self.list {
            if let Some(link) = &mut cluster.link {
                link.wait_as(wait);
            }
        }
        wait
    }

    /// Starts the clusters that have not been started yet, all at the same time, and tells which.
    pub(crate) fn start<M: WireMessage>(
        &mut self,
        entered: &Entered<M>,
        carrier: Link,
        output: Output,
    ) -> Result<Vec<usize>, Error> {
        let fresh: Vec<usize> = (0..self.list.len())
            .filter(|place| self.list[*place].link.is_none())
            .collect();
        match &self.backend {
            Backend::Inline(inline) => {
                let mut cluster_activities = Vec::new();
                for place in &fresh {
                    let cluster = &mut self.list[*place];
                    let interrupts = InterruptSource::While(inline.signal());
                    let cluster_activity = Arc::new(ClusterActivity::default());
                    let scheduler = MpScheduler::new(Arc::clone(&entered.registry))
                        .interrupted_by(interrupts)
                        .shown_in(Arc::clone(&cluster_activity));
                    cluster_activities.push((cluster.name.clone(), cluster_activity));
                    cluster.link = Some(Box::new(InlineLink::new(scheduler, &cluster.name)));
                    cluster.pid = std::process::id();
                    cluster.snapshot.lives_in(cluster.pid);
                }
                self.control_queue.add_inline(&cluster_activities);
                if let Some(supervisor) = self.backend.supervisor()
                    && !cluster_activities.is_empty()
                {
                    supervisor.run_job(|watch| watch.detector.inline.extend(cluster_activities));
                }
            }
            #[cfg(test)]
            Backend::Simulated(world) => {
                for place in &fresh {
                    let cluster = &mut self.list[*place];
                    let scheduler = MpScheduler::new(Arc::clone(&entered.registry));
                    let (link, pid) = world.start(&cluster.name, scheduler);
                    (cluster.link, cluster.pid) = (Some(link), pid);
                }
            }
            Backend::Processes(_) if fresh.is_empty() => {}
            Backend::Processes(supervisor) => {
                let clusters = fresh.iter().map(|place| {
                    let number = u32::try_from(*place).unwrap_or(u32::MAX);
                    (number, self.list[*place].name.clone())
                });
                let plan = StartPlan {
                    program: entered.registry.program(),
                    clusters: clusters.collect(),
                    point: Arc::clone(&entered.point),
                    deadline: START_DEADLINE,
                    wait: Wait::default(),
                    carrier,
                    output,
                    log: Log::here(),
                };
                for side in spawn::start(supervisor, plan)? {
                    let cluster = &mut self.list[side.cluster as usize];
                    cluster.pid = side.pid;
                    cluster.snapshot.lives_in(side.pid);
                    debug!(target: "maslite", cluster = %cluster.name, pid = side.pid, "cluster started");
                    cluster.carrier = Some(side.carrier);
                    cluster.link = Some(side.link);
                }
            }
        }
        Ok(fresh)
    }

    /// Adds jitter to main's end of the link to a cluster that has just started.
    pub(crate) fn jitter(&mut self, place: usize, jitter: Jitter) {
        let link = self.list[place].link.take();
        self.list[place].link = link.map(|link| match self.backend {
            Backend::Inline(_) => Box::new(InlineJitterLink::new(link, jitter)) as _,
            _ => Box::new(JitterLink::new(link, jitter)) as _,
        });
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
            // It is lent to whoever reads this mail.
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
            Err(error) => Err(backend.explain(name, *pid, error, time)),
        }
    }

    /// Says what has been written to a cluster.
    pub(crate) fn send(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        let cluster = &mut self.list[place];
        self.main_activity.set(MainState::SendTo(place), time);
        let sent = match &mut cluster.link {
            Some(link) => link.send(),
            None => Err(LinkError::Disconnected),
        };
        self.main_activity.set(MainState::Routing, time);
        sent.map_err(|error| self.explain(place, error, time))
    }

    /// Waits for the answer of a cluster.
    pub(crate) fn recv(&mut self, place: usize, time: SimTime) -> Result<&[u8], Error> {
        let Self {
            list,
            backend,
            main_activity,
            ..
        } = self;
        let cluster = &mut list[place];
        main_activity.set(MainState::WaitFor(place), time);
        let Cluster {
            name, pid, link, ..
        } = cluster;
        let received = link
            .as_mut()
            .map_or(Err(LinkError::Disconnected), |link| link.recv());
        main_activity.set(MainState::Routing, time);
        received.map_err(|error| backend.explain(name, *pid, error, time))
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
        self.backend.explain(name, *pid, error, time)
    }

    /// From here to the beginning of a run, or to [`end_loading`](Self::end_loading), it is watched whether the clusters get on.
    pub(crate) fn begin_loading(&self) {
        if let Some(supervisor) = self.backend.supervisor() {
            supervisor.interrupt_at(None);
        }
    }

    pub(crate) fn end_loading(&self) {
        if let Some(supervisor) = self.backend.supervisor() {
            supervisor.disarm();
        }
    }

    /// Begins a run that is interrupted at `deadline`, if there is one, or when the control queue says so.
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

    /// Writes into the status snapshot how all stand, for whoever may look.
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

    /// Lets grants be sent again although the run was interrupted: those that bring all to one instant.
    pub(crate) fn release(&mut self) {
        self.backend.release();
    }

    /// The number of the next grant, and whether the run is interrupted.
    pub(crate) fn next_grant(&mut self) -> (u64, bool) {
        self.backend.next_grant(|| self.control_queue.is_raised())
    }

    /// Kills all clusters and leaves nothing behind.
    pub(crate) fn abandon(&mut self) {
        self.backend.kill_all();
        self.list.clear();
    }

    /// Stops all clusters, the last one first, and leaves nothing behind. What they said last is
    /// handed to `heard`, the last one's first. Takes at most `grace` and a little, whatever they do. Also tells whether all were heard
    /// to their ends.
    pub(crate) fn shutdown(
        &mut self,
        stop: &[u8],
        grace: Duration,
        mut heard: impl FnMut(&str, &[u8]),
    ) -> (Vec<ChildEnd>, bool) {
        self.backend.expect_exits();
        let (mut names, mut links) = (Vec::new(), Vec::new());
        for cluster in self.list.iter_mut().rev() {
            if let Some(mut link) = cluster.link.take() {
                // A link that breaks here belongs to a cluster that has ended already. None blocks: of all that main
                // sends only what is short is without an answer, and a link has room for two such messages.
                let _ = link.say(stop);
                names.push(cluster.name.as_str());
                links.push(link);
            }
        }
        self.backend.hear_out(links, grace, |place, message| {
            heard(names[place], message);
        })
    }
}
