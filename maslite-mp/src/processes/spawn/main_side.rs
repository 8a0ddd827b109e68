//! Main's side of a start: invites all children of a call, hears who they are, and lets those in
//! whose link is a channel.
//!
//! ```text
//! start ──► supervisor thread: invite_all ──► a process for each
//!              hear_all ◄── Hellos, through the control lines
//!              let_all_in ◄── main's ends of channels, through one socket for all
//! ```
//!
//! All of it waits for control lines and that socket at once, up to the deadline. The waiter of a
//! child that ends closes its control line.
//!
//! **Invariant:** when [`start`] returns an error, no process of the call is left.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maslite_core::internal::LockEvenPoisoned;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shared_child::SharedChild;

use super::PROTOCOL;
use super::child_side::refuse_to_start;
use super::entry::Point;
use super::handshake::{ConnectRequest, Hello, Invitation, Word};
use super::program::{Program, directory_to_go_to, explain_failure};
use crate::error::death::ExitKind;
use crate::error::spawn::SpawnError;
use crate::links::frame::Framed;
use crate::links::ipc::{self, IpcPackets, RendezvousSocket};
use crate::links::ring::{self, RingLink};
use crate::links::transport::{Transport, Wait, now};
use crate::processes::limits;
use crate::processes::logs::Log;
use crate::processes::output::{self, Output};
use crate::processes::supervision::{Supervisor, Watch};
use crate::settings::Link;

/// How long the news of an end may take to come.
const NEWS_LIMIT: Duration = Duration::from_secs(1);

/// One start at a time in this process: a child must not inherit what another start has open.
static STARTING: Mutex<()> = Mutex::new(());

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct StartPlan {
    pub(crate) program: Program,
    /// Number and name of each cluster.
    pub(crate) clusters: Vec<(u32, String)>,
    /// Where the children become clusters, and the registry that both sides must have there.
    pub(crate) point: Arc<Point>,
    /// How long all of it may take: [`START_DEADLINE`](super::START_DEADLINE).
    pub(crate) deadline: Duration,
    /// How main's ends of the links wait.
    pub(crate) wait: Wait,
    /// What is to carry the messages.
    pub(crate) carrier: Link,
    /// What becomes of what the children print.
    pub(crate) output: Output,
    /// Where what they record goes.
    pub(crate) log: Log,
}

/// Main's side of a child that has started.
pub(crate) struct MainSide {
    pub(crate) cluster: u32,
    pub(crate) pid: u32,
    pub(crate) link: Box<dyn Transport>,
    /// What the link is: a ring or a channel.
    pub(crate) carrier: Link,
}

/// Starts the children on the supervisor's thread and returns main's sides, in the order of the
/// clusters.
///
/// # Errors
///
/// As [`SpawnError`] says; no child of this call is then left.
pub(crate) fn start(supervisor: &Supervisor, plan: StartPlan) -> Result<Vec<MainSide>, SpawnError> {
    refuse_to_start();
    limits::open_standard_streams().map_err(SpawnError::Resources)?;
    if plan.carrier == Link::Channel {
        ipc::check().map_err(SpawnError::Resources)?;
    }
    if plan.program.exe.is_none() {
        limits::check_program()?;
    }
    supervisor
        .run_job(move |watch| {
            let _one_at_a_time = STARTING.lock_even_poisoned();
            limits::check_descriptors(plan.clusters.len())?;
            start_all(watch, &plan)
        })
        .unwrap_or_else(|| {
            Err(SpawnError::Resources(io::Error::other(
                "the supervisor thread has ended",
            )))
        })
}

/// A child has ended: the one with this index.
struct Exited(usize, Option<ExitStatus>);

/// A child between its start and the end of the handshake.
struct Invited<'a> {
    cluster: u32,
    name: &'a str,
    pid: u32,
    nonce: [u8; 16],
    /// Its control line. Its end shows there, whoever else may hold the other end.
    control: Arc<UnixStream>,
    /// What has come of its next word.
    come: Vec<u8>,
    /// The calls of `enter` that it has passed, for people.
    passed: Vec<String>,
    is_known: bool,
    /// Main's end of a ring, as long as both can have it.
    ring: Option<RingLink>,
}

fn start_all(watch: &mut Watch, plan: &StartPlan) -> Result<Vec<MainSide>, SpawnError> {
    let until = now().checked_add(plan.deadline);
    let kept = watch.adopted();
    shake_hands(watch, plan, until).map_err(|error| error.explained(&watch.disown(kept)))
}

fn shake_hands(
    watch: &mut Watch,
    plan: &StartPlan,
    until: Option<Instant>,
) -> Result<Vec<MainSide>, SpawnError> {
    let (sender, signs) = mpsc::channel();
    let mut invited = invite_all(watch, plan, &sender)?;
    hear_all(&signs, &mut invited, plan, until)?;
    let links = let_all_in(&signs, &mut invited, plan, until)?;
    let sides = invited.into_iter().zip(links).map(|(child, link)| {
        let (carrier, link): (_, Box<dyn Transport>) = match link {
            Ends::Ring(ring) => {
                let notice = ring.death_notice();
                watch.link(child.pid, move || notice.post());
                (Link::Ring, ring)
            }
            Ends::Channel(packets) => {
                let notice = packets.death_notice();
                watch.link(child.pid, move || notice.post());
                let framed = Framed::new(packets, ipc::frame_limit(), plan.wait);
                (Link::Channel, Box::new(framed))
            }
        };
        MainSide {
            cluster: child.cluster,
            pid: child.pid,
            link,
            carrier,
        }
    });
    Ok(sides.collect())
}

/// Main's end of a link.
enum Ends {
    Ring(Box<RingLink>),
    Channel(IpcPackets),
}

/// Invites all children.
fn invite_all<'a>(
    watch: &mut Watch,
    plan: &'a StartPlan,
    signs: &Sender<Exited>,
) -> Result<Vec<Invited<'a>>, SpawnError> {
    let clusters = plan.clusters.iter().enumerate();
    clusters
        .map(|(index, (cluster, name))| invite(watch, plan, *cluster, name, index, signs))
        .collect()
}

/// Makes the memory of a link, if there is to be one: main's end, and the file for the child.
fn offer(plan: &StartPlan) -> io::Result<Option<(RingLink, OwnedFd)>> {
    let ring = || ring::create(plan.wait, plan.clusters.len());
    match plan.carrier {
        Link::Channel => Ok(None),
        Link::Ring => ring().map(Some),
        // Whatever is the matter, the channel is there.
        Link::Auto => Ok(ring().ok()),
    }
}

/// Starts the process of a child and sends the invitation.
fn invite<'a>(
    watch: &mut Watch,
    plan: &StartPlan,
    cluster: u32,
    name: &'a str,
    index: usize,
    signs: &Sender<Exited>,
) -> Result<Invited<'a>, SpawnError> {
    let (ring, memory) = match offer(plan) {
        Ok(offer) => offer.unzip(),
        Err(source) => {
            return Err(SpawnError::NoRing {
                cluster,
                name: name.to_owned(),
                source,
            });
        }
    };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| SpawnError::Resources(error.into()))?;
    let invitation = Invitation {
        cluster,
        nonce,
        ring: ring.is_some(),
        place: plan.point.place.clone(),
        call: plan.point.call,
        schema: plan.point.signature.hash(),
        by_test: plan.program.test.is_some(),
        directory: directory_to_go_to().map(|path| path.into_os_string().into_vec()),
    };
    let (control, stdin) = UnixStream::pair().map_err(SpawnError::Resources)?;
    invitation
        .write(&control, memory.as_ref())
        .map_err(|source| spawn_error(cluster, name, source))?;
    let control = Arc::new(control);
    let heard = Arc::downgrade(&control);
    let signs = signs.clone();
    let exited = move |status| {
        let _ = signs.send(Exited(index, status));
        if let Some(control) = heard.upgrade() {
            let _ = control.shutdown(Shutdown::Read);
        }
    };
    let pid = start_process(watch, plan, (cluster, name), stdin, &control, exited)?;
    Ok(Invited {
        cluster,
        name,
        pid,
        nonce,
        control,
        come: Vec::new(),
        passed: Vec::new(),
        is_known: false,
        ring,
    })
}

/// Starts the process of a cluster, whose stdin is its control line, and has the supervisor watch
/// it; `exited` is called when it has ended. Returns its process id.
fn start_process(
    watch: &mut Watch,
    plan: &StartPlan,
    (cluster, name): (u32, &str),
    stdin: UnixStream,
    control: &Arc<UnixStream>,
    exited: impl FnOnce(Option<ExitStatus>) + Send + 'static,
) -> Result<u32, SpawnError> {
    let spawn_error = |source| spawn_error(cluster, name, source);
    let mut command = plan.program.command().map_err(spawn_error)?;
    #[cfg(target_os = "linux")]
    super::sys::signal_with_end_of_parent(&mut command, plan.program.death_signal());
    command.stdin(Stdio::from(OwnedFd::from(stdin)));
    let quiet = plan.program.quiet_stdout;
    let outlet = output::connect(
        &mut command,
        watch,
        (cluster, name),
        plan.output,
        &plan.log,
        quiet,
    )
    .map_err(SpawnError::Resources)?;
    let process = SharedChild::spawn(&mut command)
        .map_err(explain_failure)
        .map_err(spawn_error)?;
    // It holds the child's ends.
    drop(command);
    let pid = process.id();
    let (name, control) = (name.to_owned(), Arc::clone(control));
    watch
        .adopt(cluster, name, process, control, outlet, exited)
        .map_err(SpawnError::Resources)?;
    Ok(pid)
}

fn spawn_error(cluster: u32, name: &str, source: io::Error) -> SpawnError {
    SpawnError::Spawn {
        cluster,
        name: name.to_owned(),
        source,
    }
}

/// Takes and checks the Hellos, as they come, until all children are known or something went wrong.
fn hear_all(
    signs: &Receiver<Exited>,
    invited: &mut [Invited<'_>],
    plan: &StartPlan,
    until: Option<Instant>,
) -> Result<(), SpawnError> {
    loop {
        let unknown = invited
            .iter()
            .enumerate()
            .filter(|(_, child)| !child.is_known);
        let unknown: Vec<usize> = unknown.map(|(index, _)| index).collect();
        let Some(first) = unknown.first() else {
            return Ok(());
        };
        let controls = unknown.iter().map(|index| &*invited[*index].control);
        let mut lines: Vec<_> = controls
            .map(|control| PollFd::new(control, PollFlags::IN))
            .collect();
        match poll(&mut lines, remaining(until).as_ref()) {
            Ok(0) => return Err(invited[*first].late(plan)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SpawnError::Resources(error.into())),
        }
        let speaks = lines.iter().map(|line| !line.revents().is_empty());
        let speaking: Vec<usize> = unknown
            .iter()
            .zip(speaks)
            .filter(|(_, speaks)| *speaks)
            .map(|(index, _)| *index)
            .collect();
        for index in speaking {
            let child = &mut invited[index];
            while !child.is_known {
                match Word::take(&child.control, &mut child.come) {
                    Ok(None) => break,
                    Ok(Some(word)) => child.listen(word, plan)?,
                    Err(source) => return Err(child.gone(index, plan, signs, source)),
                }
            }
        }
    }
}

/// The time until then.
fn remaining(until: Option<Instant>) -> Option<Timespec> {
    let remaining = until?.saturating_duration_since(now());
    Timespec::try_from(remaining).ok()
}

/// Has the children whose links are channels hand over main's ends, until all have done so or
/// something went wrong. Returns main's ends of all links, in the order of the children.
fn let_all_in(
    signs: &Receiver<Exited>,
    invited: &mut [Invited<'_>],
    plan: &StartPlan,
    until: Option<Instant>,
) -> Result<Vec<Ends>, SpawnError> {
    let rings = invited.iter_mut().map(|child| child.ring.take());
    let mut ends: Vec<Option<Ends>> = rings
        .map(|ring| ring.map(|ring| Ends::Ring(Box::new(ring))))
        .collect();
    let invited = &*invited;
    if ends.iter().any(Option::is_none) {
        let rendezvous = ask_for_channels(invited, &ends, plan)?;
        while let Some(first) = ends.iter().position(Option::is_none) {
            let news = look_out(invited, &ends, &rendezvous, until)?;
            if news.is_empty() {
                return Err(invited[first].late(plan));
            }
            while let Some((nonce, packets)) = rendezvous
                .take()
                .map_err(|source| invited[first].broken(source))?
            {
                let child = invited.iter().position(|child| child.nonce == nonce);
                let end = child.and_then(|child| ends.get_mut(child));
                match end {
                    Some(end @ None) => *end = Some(Ends::Channel(packets)),
                    _ => return Err(invited[first].stranger()),
                }
            }
            // It was let in and has ended since: the supervisor's business.
            let mut gone = news.gone.into_iter();
            if let Some(index) = gone.find(|index| ends[*index].is_none()) {
                let closed = io::ErrorKind::UnexpectedEof.into();
                return Err(invited[index].gone(index, plan, signs, closed));
            }
        }
    }
    Ok(ends.into_iter().flatten().collect())
}

/// Makes the sockets through which the children whose links are channels hand them over, and gives
/// them theirs.
fn ask_for_channels(
    invited: &[Invited<'_>],
    ends: &[Option<Ends>],
    plan: &StartPlan,
) -> Result<RendezvousSocket, SpawnError> {
    if plan.carrier != Link::Channel {
        ipc::check().map_err(SpawnError::Resources)?;
    }
    let rendezvous = RendezvousSocket::open().map_err(SpawnError::Resources)?;
    for (child, end) in invited.iter().zip(ends) {
        if end.is_some() {
            continue;
        }
        match ConnectRequest.write(&child.control, rendezvous.theirs()) {
            Ok(()) => {}
            // It has ended, which its control line shows.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => return Err(child.broken(source)),
        }
    }
    Ok(rendezvous)
}

/// What there is to see while children are let in.
#[derive(Default)]
struct News {
    /// Channels were handed over.
    channels: bool,
    /// These children, who have not been let in, have ended, or say what no child says: their
    /// indices.
    gone: Vec<usize>,
}

impl News {
    fn is_empty(&self) -> bool {
        !self.channels && self.gone.is_empty()
    }
}

/// Waits until there are news. There are none when the time has passed.
fn look_out(
    invited: &[Invited<'_>],
    ends: &[Option<Ends>],
    rendezvous: &RendezvousSocket,
    until: Option<Instant>,
) -> Result<News, SpawnError> {
    let outside: Vec<usize> = (0..ends.len())
        .filter(|index| ends[*index].is_none())
        .collect();
    let mut lines = vec![PollFd::new(rendezvous, PollFlags::IN)];
    let controls = outside.iter().map(|index| &*invited[*index].control);
    lines.extend(controls.map(|control| PollFd::new(control, PollFlags::IN)));
    loop {
        match poll(&mut lines, remaining(until).as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(SpawnError::Resources(error.into())),
        }
    }
    let mut speak = lines.iter().map(|line| !line.revents().is_empty());
    let channels = speak.next().unwrap_or_default();
    let gone = outside.into_iter().zip(speak);
    let gone = gone.filter_map(|(index, speaks)| speaks.then_some(index));
    Ok(News {
        channels,
        gone: gone.collect(),
    })
}

impl Invited<'_> {
    fn listen(&mut self, word: Word, plan: &StartPlan) -> Result<(), SpawnError> {
        let (cluster, name) = (self.cluster, self.name.to_owned());
        match word {
            Word::Hello(hello) if self.come.is_empty() => self.meet(hello, plan),
            // Nobody asked it anything.
            Word::Hello(_) => Err(self.broken(io::ErrorKind::InvalidData.into())),
            Word::Passed(point, signature) => {
                let difference = plan.point.signature.differences(&signature);
                self.passed.push(match &*difference {
                    "" => point,
                    difference => format!("{point} ({difference})"),
                });
                Ok(())
            }
            Word::Changed(signature) => Err(SpawnError::OtherRegistry {
                cluster,
                name,
                point: plan.point.to_string(),
                difference: plan.point.signature.differences(&signature),
            }),
            Word::Failed(why) => Err(SpawnError::ChildFailed { cluster, name, why }),
        }
    }

    /// Checks a Hello.
    fn meet(&mut self, hello: Hello, plan: &StartPlan) -> Result<(), SpawnError> {
        if hello.nonce != self.nonce {
            return Err(self.stranger());
        }
        self.same("protocol", &PROTOCOL, &hello.protocol)?;
        self.same("maslite", env!("CARGO_PKG_VERSION"), &*hello.version)?;
        self.same("the process id", &self.pid, &hello.pid)?;
        self.same("the cluster number", &self.cluster, &hello.cluster)?;
        self.same(
            "the schema",
            &format!("{:016x}", plan.point.signature.hash()),
            &format!("{:016x}", hello.schema),
        )?;
        if let Some(why) = hello.no_ring
            && self.ring.take().is_some()
            && plan.carrier == Link::Ring
        {
            return Err(SpawnError::NoRing {
                cluster: self.cluster,
                name: self.name.to_owned(),
                source: io::Error::other(why),
            });
        }
        self.is_known = true;
        Ok(())
    }

    /// Its control line has closed, or says what no child says.
    fn gone(
        &self,
        index: usize,
        plan: &StartPlan,
        signs: &Receiver<Exited>,
        source: io::Error,
    ) -> SpawnError {
        if source.kind() != io::ErrorKind::InvalidData {
            // If it has ended, its end is known now or in a moment.
            while let Ok(Exited(ended, status)) = signs.recv_timeout(NEWS_LIMIT) {
                if ended == index {
                    return self.ended(status, plan);
                }
            }
        }
        self.broken(source)
    }

    fn ended(&self, status: Option<ExitStatus>, plan: &StartPlan) -> SpawnError {
        SpawnError::ExitedBeforeHello {
            cluster: self.cluster,
            name: self.name.to_owned(),
            exit: ExitKind::of(status),
            stderr: String::new(),
            test: plan.program.test.clone(),
            passed: self.passed.clone(),
        }
    }

    fn broken(&self, source: io::Error) -> SpawnError {
        SpawnError::Handshake {
            cluster: self.cluster,
            name: self.name.to_owned(),
            source,
        }
    }

    fn late(&self, plan: &StartPlan) -> SpawnError {
        SpawnError::HandshakeTimeout {
            cluster: self.cluster,
            name: self.name.to_owned(),
            waited: plan.deadline,
        }
    }

    fn stranger(&self) -> SpawnError {
        SpawnError::Stranger {
            cluster: self.cluster,
            name: self.name.to_owned(),
        }
    }

    fn same<T: PartialEq + ToString + ?Sized>(
        &self,
        what: &'static str,
        ours: &T,
        theirs: &T,
    ) -> Result<(), SpawnError> {
        if ours == theirs {
            return Ok(());
        }
        Err(SpawnError::Mismatch {
            cluster: self.cluster,
            name: self.name.to_owned(),
            what,
            ours: ours.to_string(),
            theirs: theirs.to_string(),
        })
    }
}
