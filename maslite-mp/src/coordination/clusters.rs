//! The clusters of one simulation as `MpMain` reaches them: their links, and the processes behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maslite_core::SimTime;
use tracing::debug;

use crate::cluster::inline::InlineLink;
use crate::cluster::mp_scheduler::{Hold, MpScheduler};
use crate::cluster::registry::{Entered, WireMessage};
use crate::coordination::routing::{Routing, Traffic};
use crate::coordination::state::Standing;
#[cfg(test)]
use crate::dev::fault_simulation::World;
use crate::error::Error;
use crate::error::link::LinkError;
use crate::links::jitter::{Shake, Shaken, ShakenInline};
use crate::links::transport::{Draft, Transport, Wait};
use crate::processes::backend::{HOLD_GRACE, Inline, Machinery};
use crate::processes::logs::Log;
use crate::processes::output::Output;
use crate::processes::spawn::{self, Order, START_DEADLINE};
use crate::processes::supervision::{ChildEnd, Supervisor};
use crate::settings::{Link, Placement, Waiting};
use crate::stall::detector::{Chore, Desk, Lookout, Patience, ProgressLines, Pulse, WarningSink};
use crate::stall::meter::Meter;
use crate::steering::control_queue::Console;
use crate::steering::progress::Teller;
use crate::steering::status::{Account, ClusterBoard};

/// One cluster.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// What carries its messages; none if it runs inline.
    pub(crate) carrier: Option<Link>,
    link: Option<Box<dyn Transport>>,
    /// Mail for it that cannot be in the message to it yet.
    aside: Vec<u8>,
    pub(crate) board: Arc<ClusterBoard>,
}

/// All clusters.
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
    machinery: Machinery,
    pub(crate) console: Arc<Console>,
    /// Where the thread that runs shows what it is at.
    pub(crate) desk: Arc<Desk>,
    /// Where the time of runs goes.
    pub(crate) meter: Meter,
}

impl Fleet {
    /// Warns as `sink` likes it. `progress`: tells at a terminal how far long runs have come.
    pub(crate) fn new(
        placement: Placement,
        console: Arc<Console>,
        patience: Patience,
        sink: Option<WarningSink>,
        progress: bool,
    ) -> Result<Self, Error> {
        let desk = Arc::default();
        console.set_desk(Arc::clone(&desk));
        let lookout = Lookout::new(patience, sink, Arc::clone(&desk));
        let teller = progress
            .then(|| {
                Teller::at_the_terminal(Arc::clone(&console))
                    .map(|teller| Box::new(teller) as Box<dyn ProgressLines>)
            })
            .flatten();
        let is_watched = patience.warning.is_some() || teller.is_some();
        let supervisor = || {
            let supervisor = Supervisor::new(HOLD_GRACE).map_err(spawn::SpawnError::Resources)?;
            supervisor.run_job(|watch| {
                watch.lookout = lookout;
                watch.teller = teller;
            });
            Ok::<_, Error>(supervisor)
        };
        let machinery = match placement {
            Placement::Inline => {
                let supervisor = is_watched.then(supervisor).transpose()?;
                Machinery::Inline(Inline::new(supervisor))
            }
            Placement::Processes => {
                let supervisor = supervisor()?;
                console.set_children(supervisor.holder());
                Machinery::Processes(supervisor)
            }
        };
        Ok(Self {
            members: Vec::new(),
            machinery,
            console,
            desk,
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
        let mut fleet = Self::new(Placement::Inline, Arc::default(), nothing, None, false)?;
        (0..clusters).for_each(|number| fleet.add(number.to_string()));
        Ok(fleet)
    }

    #[cfg(test)]
    /// In a world made up by a test.
    pub(crate) fn simulated(world: Arc<World>, console: Arc<Console>) -> Self {
        Self {
            members: Vec::new(),
            machinery: Machinery::Simulated(world),
            console,
            desk: Arc::default(),
            meter: Meter::new(true),
        }
    }

    pub(crate) fn add(&mut self, name: String) {
        self.members.push(Member {
            board: self.console.board.add(name.clone()),
            name,
            pid: 0,
            carrier: None,
            link: None,
            aside: Vec::new(),
        });
    }

    /// Sets how main waits, and tells how the clusters are to wait.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> Wait {
        let wait = waiting.steps(self.members.len());
        for member in &mut self.members {
            if let Some(link) = &mut member.link {
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
        let fresh: Vec<usize> = (0..self.members.len())
            .filter(|place| self.members[*place].link.is_none())
            .collect();
        match &self.machinery {
            Machinery::Inline(inline) => {
                let mut pulses = Vec::new();
                for place in &fresh {
                    let member = &mut self.members[*place];
                    let hold = Hold::While(inline.signal());
                    let pulse = Arc::new(Pulse::default());
                    let scheduler = MpScheduler::new(Arc::clone(&entered.registry))
                        .held_by(hold)
                        .shown_in(Arc::clone(&pulse));
                    pulses.push((member.name.clone(), pulse));
                    member.link = Some(Box::new(InlineLink::new(scheduler, &member.name)));
                    member.pid = std::process::id();
                    member.board.lives_in(member.pid);
                }
                self.console.add_inline(&pulses);
                if let Some(supervisor) = self.machinery.supervisor()
                    && !pulses.is_empty()
                {
                    supervisor.run_job(|watch| watch.lookout.inline.extend(pulses));
                }
            }
            #[cfg(test)]
            Machinery::Simulated(world) => {
                for place in &fresh {
                    let member = &mut self.members[*place];
                    let scheduler = MpScheduler::new(Arc::clone(&entered.registry));
                    let (link, pid) = world.start(&member.name, scheduler);
                    (member.link, member.pid) = (Some(link), pid);
                }
            }
            Machinery::Processes(_) if fresh.is_empty() => {}
            Machinery::Processes(supervisor) => {
                let clusters = fresh.iter().map(|place| {
                    let number = u32::try_from(*place).unwrap_or(u32::MAX);
                    (number, self.members[*place].name.clone())
                });
                let order = Order {
                    program: entered.registry.program(),
                    clusters: clusters.collect(),
                    point: Arc::clone(&entered.point),
                    deadline: START_DEADLINE,
                    wait: Wait::default(),
                    carrier,
                    output,
                    log: Log::here(),
                };
                for side in spawn::start(supervisor, order)? {
                    let member = &mut self.members[side.cluster as usize];
                    member.pid = side.pid;
                    member.board.lives_in(side.pid);
                    debug!(target: "maslite", cluster = %member.name, pid = side.pid, "cluster started");
                    member.carrier = Some(side.carrier);
                    member.link = Some(side.link);
                }
            }
        }
        Ok(fresh)
    }

    /// Has main's end of the link to a cluster that has just started dawdle.
    pub(crate) fn shake(&mut self, place: usize, shake: Shake) {
        let link = self.members[place].link.take();
        self.members[place].link = link.map(|link| match self.machinery {
            Machinery::Inline(_) => Box::new(ShakenInline::new(link, shake)) as _,
            _ => Box::new(Shaken::new(link, shake)) as _,
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
        if self.members[place].link.is_some() {
            self.open(place, time)?.0.extend(mail);
        } else {
            // It is lent to whoever reads this mail.
            self.members[place].aside.extend_from_slice(mail);
        }
        Ok(())
    }

    /// What is written of the next message to a cluster, and what is put aside.
    fn open(&mut self, place: usize, time: SimTime) -> Result<(Draft<'_>, &mut Vec<u8>), Error> {
        let Self {
            members, machinery, ..
        } = self;
        let Member {
            name,
            pid,
            link,
            aside,
            ..
        } = &mut members[place];
        let draft = link
            .as_mut()
            .map_or(Err(LinkError::Disconnected), |link| link.draft());
        match draft {
            Ok(draft) => Ok((draft, aside)),
            Err(error) => Err(machinery.explain(name, *pid, error, time)),
        }
    }

    /// Says what has been written to a cluster.
    pub(crate) fn send(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        let member = &mut self.members[place];
        self.desk.turn_to(Chore::SendTo(place), time);
        let sent = match &mut member.link {
            Some(link) => link.send(),
            None => Err(LinkError::Disconnected),
        };
        self.desk.turn_to(Chore::Routing, time);
        sent.map_err(|error| self.explain(place, error, time))
    }

    /// Waits for the answer of a cluster.
    pub(crate) fn recv(&mut self, place: usize, time: SimTime) -> Result<&[u8], Error> {
        let Self {
            members,
            machinery,
            desk,
            ..
        } = self;
        let member = &mut members[place];
        desk.turn_to(Chore::WaitFor(place), time);
        let Member {
            name, pid, link, ..
        } = member;
        let received = link
            .as_mut()
            .map_or(Err(LinkError::Disconnected), |link| link.recv());
        desk.turn_to(Chore::Routing, time);
        received.map_err(|error| machinery.explain(name, *pid, error, time))
    }

    /// Lends the link to a cluster that owes an answer.
    pub(crate) fn lend(
        &mut self,
        place: usize,
        time: SimTime,
    ) -> Result<Box<dyn Transport>, Error> {
        self.desk.turn_to(Chore::WaitFor(place), time);
        let link = self.members[place].link.take();
        link.ok_or_else(|| self.explain(place, LinkError::Disconnected, time))
    }

    /// Takes it back, the answer having been heard.
    pub(crate) fn give_back(&mut self, place: usize, link: Box<dyn Transport>) {
        self.members[place].link = Some(link);
    }

    /// Why the link to a cluster broke.
    pub(crate) fn explain(&self, place: usize, error: LinkError, time: SimTime) -> Error {
        let Member { name, pid, .. } = &self.members[place];
        self.machinery.explain(name, *pid, error, time)
    }

    /// From here to the beginning of a run, or to [`end_loading`](Self::end_loading), it is watched whether the clusters get on.
    pub(crate) fn begin_loading(&self) {
        if let Some(supervisor) = self.machinery.supervisor() {
            supervisor.hold_at(None);
        }
    }

    pub(crate) fn end_loading(&self) {
        if let Some(supervisor) = self.machinery.supervisor() {
            supervisor.disarm();
        }
    }

    /// Begins a run that is held at `deadline`, if there is one, or when the console says so.
    pub(crate) fn begin_run(&mut self, timeout: Option<Duration>, deadline: Option<Instant>) {
        self.meter.begin_run(self.members.len());
        let brake = self.machinery.begin_run(timeout, deadline);
        self.console.begin_run(brake);
    }

    /// Ends a run.
    pub(crate) fn end_run(&mut self) {
        self.meter.end_run();
        self.machinery.end_run();
        self.console.end_run();
    }

    /// Whether the run is held because it is to end: by its timeout, or by a handle.
    pub(crate) fn is_over(&self) -> bool {
        self.machinery.is_over()
    }

    /// Writes down on the board how all stand, for whoever may look.
    pub(crate) fn show(&self, standing: &Standing, routing: &Routing) {
        let Standing {
            time,
            supersteps,
            counters,
            ..
        } = standing;
        let board = &self.console.board;
        board.stands(*time, *supersteps, counters.delivered);
        for place in 0..self.members.len() {
            self.show_cluster(place, standing, routing);
        }
    }

    /// The same of one cluster, whose report is in.
    pub(crate) fn show_cluster(&self, place: usize, standing: &Standing, routing: &Routing) {
        let report = standing.reports.get(place).and_then(Option::as_ref);
        if let Some((report, spent)) = report.zip(self.meter.spent(place)) {
            self.members[place].board.stands(Account {
                time: report.time,
                delivered: report.counters.delivered,
                awake: u64::from(report.awake_last),
                mail: routing.traffic.in_and_out(Traffic::place_of(place)),
                spent,
            });
        }
    }

    /// Lets grants be sent again although the run was held: those that bring all to one instant.
    pub(crate) fn release(&mut self) {
        self.machinery.release();
    }

    /// The number of the next grant, and whether the run is held.
    pub(crate) fn next_grant(&mut self) -> (u64, bool) {
        self.machinery.next_grant(|| self.console.is_raised())
    }

    /// Kills all clusters and leaves nothing behind.
    pub(crate) fn abandon(&mut self) {
        self.machinery.kill_all();
        self.members.clear();
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
        self.machinery.expect_exits();
        let (mut names, mut links) = (Vec::new(), Vec::new());
        for member in self.members.iter_mut().rev() {
            if let Some(mut link) = member.link.take() {
                // A link that breaks here belongs to a cluster that has ended already. None blocks: of all that main
                // sends only what is short is without an answer, and a link has room for two such messages.
                let _ = link.say(stop);
                names.push(member.name.as_str());
                links.push(link);
            }
        }
        self.machinery.hear_out(links, grace, |place, message| {
            heard(names[place], message);
        })
    }
}
