//! Main's side of a start: invites all children of a call, hears who they are, and lets those in whose link is a channel.
//!
//! ```text
//! start ──► supervisor thread: invite_all ──► a process for each
//!              hear_all ◄── Hellos, through the control lines; they close with the children
//!              let_in ◄── signs ──┬─ greeter: waits at the doors, one after the other
//!                                 └─ waiter of each child: it has ended
//! ```
//!
//! **Invariant:** when [`start`] returns an error, no process of the call is left.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shared_child::SharedChild;

use super::PROTOCOL;
use super::child_side::refuse_to_start;
use super::entry::Point;
use super::handshake::{Hello, Invitation, Summons, Word};
use super::program::{Program, directory_to_go_to, explain_failure};
use crate::error::death::ExitKind;
use crate::error::spawn::SpawnError;
use crate::links::frame::Framed;
use crate::links::ipc::{self, Door, IpcPackets};
use crate::links::ring::{self, RingLink};
use crate::links::transport::{Transport, Wait, now};
use crate::processes::limits;
use crate::processes::logs::Log;
use crate::processes::output::{self, Output};
use crate::processes::supervision::{Supervisor, Watch};
use crate::settings::Link;

/// How long the thread at the doors may take to notice that it is not needed any more, and the news of an end to come.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// One start at a time in this process: a child must not inherit what another start has open.
static STARTING: Mutex<()> = Mutex::new(());

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
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

/// Starts the children on the supervisor's thread and returns main's sides, in the order of the clusters.
///
/// # Errors
///
/// As [`SpawnError`] says; no child of this call is then left.
pub(crate) fn start(supervisor: &Supervisor, order: Order) -> Result<Vec<MainSide>, SpawnError> {
    refuse_to_start();
    limits::open_standard_streams().map_err(SpawnError::Resources)?;
    if order.carrier == Link::Channel {
        check_doors()?;
    }
    if order.program.exe.is_none() {
        limits::check_program()?;
    }
    supervisor
        .run_job(move |watch| {
            let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            limits::check_descriptors(order.clusters.len())?;
            start_all(watch, &order)
        })
        .unwrap_or_else(|| {
            Err(SpawnError::Resources(io::Error::other(
                "the supervisor thread has ended",
            )))
        })
}

/// Refuses to start children whose links are channels where doors, or channels, cannot be had.
fn check_doors() -> Result<(), SpawnError> {
    if let Some(directory) = ipc::unusable_temp_dir() {
        return Err(SpawnError::TempDir(directory));
    }
    limits::check_temp_dir()?;
    ipc::check().map_err(SpawnError::Resources)
}

/// What may happen during a start.
enum Sign {
    /// At the next door in order.
    Knocked(io::Result<Option<([u8; 16], IpcPackets)>>),
    /// The child with this index.
    Exited(usize, Option<ExitStatus>),
}

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

fn start_all(watch: &mut Watch, order: &Order) -> Result<Vec<MainSide>, SpawnError> {
    let until = now().checked_add(order.deadline);
    let kept = watch.adopted();
    let mut greeter = None;
    let outcome = shake_hands(watch, order, until, &mut greeter)
        .map_err(|error| error.explained(&watch.disown(kept)));
    if let Some(greeter) = greeter {
        greeter.join();
    }
    outcome
}

fn shake_hands(
    watch: &mut Watch,
    order: &Order,
    until: Option<Instant>,
    greeter: &mut Option<Greeter>,
) -> Result<Vec<MainSide>, SpawnError> {
    let (sender, signs) = mpsc::channel();
    let mut invited = invite_all(watch, order, &sender)?;
    hear_all(&signs, &mut invited, order, until)?;
    let waiting = invited.iter().enumerate();
    let waiting = waiting.filter(|(_, child)| child.ring.is_none());
    let waiting: Vec<usize> = waiting.map(|(index, _)| index).collect();
    let mut channels = Vec::new();
    if !waiting.is_empty() {
        let doors = summon(&invited, &waiting, order)?;
        let names: Vec<_> = doors.iter().map(|door| door.name().to_owned()).collect();
        let greeter = greeter.insert(Greeter::spawn(doors, sender).map_err(SpawnError::Resources)?);
        channels = let_in(&signs, &invited, &waiting, order, until)
            .inspect_err(|_| greeter.cancel(&names))?;
    }
    let mut channels = channels.into_iter();
    let sides = invited.into_iter().filter_map(|child| {
        let (carrier, link): (_, Box<dyn Transport>) = match child.ring {
            Some(ring) => (Link::Ring, Box::new(ring)),
            None => {
                let packets = channels.next()?;
                let framed = Framed::new(packets, ipc::frame_limit(), order.wait);
                (Link::Channel, Box::new(framed))
            }
        };
        Some(MainSide {
            cluster: child.cluster,
            pid: child.pid,
            link,
            carrier,
        })
    });
    Ok(sides.collect())
}

/// The thread that waits at the doors, one after the other: the children knock when they like, and are let in in order.
struct Greeter {
    thread: JoinHandle<()>,
    post: Arc<Mutex<Post>>,
    /// Disconnected by the end of the thread.
    done: Receiver<()>,
}

/// Where the greeter stands.
#[derive(Default)]
struct Post {
    /// The door it waits at.
    waits_at: Option<usize>,
    cancelled: bool,
}

impl Greeter {
    fn spawn(doors: Vec<Door>, signs: Sender<Sign>) -> io::Result<Self> {
        let post = Arc::new(Mutex::new(Post::default()));
        let (working, done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("maslite-greeter".to_owned())
            .spawn({
                let post = Arc::clone(&post);
                move || {
                    let _working: Sender<()> = working;
                    for (index, door) in doors.into_iter().enumerate() {
                        {
                            let mut post = post.lock().unwrap_or_else(PoisonError::into_inner);
                            if post.cancelled {
                                return;
                            }
                            post.waits_at = Some(index);
                        }
                        let knock = door.accept();
                        post.lock().unwrap_or_else(PoisonError::into_inner).waits_at = None;
                        let _ = signs.send(Sign::Knocked(knock));
                    }
                }
            })?;
        Ok(Self { thread, post, done })
    }

    /// Frees the thread from the door it waits at, of those with these names, and keeps it from the others.
    fn cancel(&self, names: &[String]) {
        let mut post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        post.cancelled = true;
        if let Some(index) = post.waits_at {
            ipc::abort(&names[index]);
        }
    }

    /// Waits for the thread's end, which all knocks or a cancelling and the end of the children have brought about. Not for ever: a
    /// stranger who came in and says nothing keeps it at the door, and must not keep us.
    fn join(self) {
        if self.done.recv_timeout(JOIN_LIMIT) != Err(RecvTimeoutError::Timeout) {
            let _ = self.thread.join();
        }
    }
}

/// Invites all children.
fn invite_all<'a>(
    watch: &mut Watch,
    order: &'a Order,
    signs: &Sender<Sign>,
) -> Result<Vec<Invited<'a>>, SpawnError> {
    let clusters = order.clusters.iter().enumerate();
    clusters
        .map(|(index, (cluster, name))| invite(watch, order, *cluster, name, index, signs))
        .collect()
}

/// Makes the memory of a link, if there is to be one: main's end, and the file for the child.
fn offer(order: &Order) -> io::Result<Option<(RingLink, OwnedFd)>> {
    let ring = || ring::create(order.wait, order.clusters.len());
    match order.carrier {
        Link::Channel => Ok(None),
        Link::Ring => ring().map(Some),
        // Whatever is the matter, the channel is there.
        Link::Auto => Ok(ring().ok()),
    }
}

/// Starts the process of a child and sends the invitation.
fn invite<'a>(
    watch: &mut Watch,
    order: &Order,
    cluster: u32,
    name: &'a str,
    index: usize,
    signs: &Sender<Sign>,
) -> Result<Invited<'a>, SpawnError> {
    let spawn_error = |source| SpawnError::Spawn {
        cluster,
        name: name.to_owned(),
        source,
    };
    let (ring, memory) = match offer(order) {
        Ok(offer) => offer.unzip(),
        Err(source) => {
            return Err(SpawnError::NoRing {
                cluster,
                name: name.to_owned(),
                source,
            });
        }
    };
    let death_notice = ring.as_ref().map(RingLink::death_notice);
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| SpawnError::Resources(error.into()))?;
    let invitation = Invitation {
        cluster,
        nonce,
        ring: ring.is_some(),
        place: order.point.place.clone(),
        call: order.point.call,
        schema: order.point.signature.hash(),
        by_test: order.program.test.is_some(),
        directory: directory_to_go_to().map(|path| path.into_os_string().into_vec()),
    };
    let (control, stdin) = UnixStream::pair().map_err(SpawnError::Resources)?;
    let hearing = control.try_clone().map_err(SpawnError::Resources)?;
    let hearing = Arc::new(hearing);
    let heard = Arc::downgrade(&hearing);
    invitation
        .write(&control, memory.as_ref())
        .map_err(spawn_error)?;
    let mut command = order.program.command().map_err(spawn_error)?;
    command.stdin(Stdio::from(OwnedFd::from(stdin)));
    let quiet = order.program.quiet_stdout;
    let outlet = output::connect(&mut command, watch, name, order.output, &order.log, quiet)
        .map_err(SpawnError::Resources)?;
    let process = SharedChild::spawn(&mut command)
        .map_err(explain_failure)
        .map_err(spawn_error)?;
    // It holds the child's ends.
    drop(command);
    let pid = process.id();
    let signs = signs.clone();
    watch
        .adopt(
            cluster,
            name.to_owned(),
            process,
            control,
            outlet,
            move |status| {
                if let Some(notice) = death_notice {
                    notice.post();
                }
                let _ = signs.send(Sign::Exited(index, status));
                if let Some(control) = heard.upgrade() {
                    let _ = control.shutdown(Shutdown::Read);
                }
            },
        )
        .map_err(SpawnError::Resources)?;
    Ok(Invited {
        cluster,
        name,
        pid,
        nonce,
        control: hearing,
        come: Vec::new(),
        passed: Vec::new(),
        is_known: false,
        ring,
    })
}

/// Takes and checks the Hellos, as they come, until all children are known or something went wrong.
fn hear_all(
    signs: &Receiver<Sign>,
    invited: &mut [Invited<'_>],
    order: &Order,
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
            Ok(0) => return Err(invited[*first].late(order)),
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
                    Ok(Some(word)) => child.listen(word, order)?,
                    Err(source) => return Err(child.gone(index, order, signs, source)),
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

/// Opens doors for the children whose links are channels, and tells them where.
fn summon(
    invited: &[Invited<'_>],
    waiting: &[usize],
    order: &Order,
) -> Result<Vec<Door>, SpawnError> {
    if order.carrier != Link::Channel {
        check_doors()?;
    }
    let doors = waiting.iter().map(|index| {
        let child = &invited[*index];
        let door = Door::open().map_err(SpawnError::Resources)?;
        // At once: should this process die any moment now, the child still learns of the door, to take it away.
        let door_name = door.name().to_owned();
        let summons = Summons { door: door_name };
        match summons.write(&child.control) {
            Ok(()) => Ok(door),
            // It is dead, which is seen when it does not knock.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(door),
            Err(source) => Err(child.broken(source)),
        }
    });
    doors.collect()
}

/// Takes the channels, which come in the order of the doors, until all are there or something went wrong.
fn let_in(
    signs: &Receiver<Sign>,
    invited: &[Invited<'_>],
    waiting: &[usize],
    order: &Order,
    until: Option<Instant>,
) -> Result<Vec<IpcPackets>, SpawnError> {
    let mut channels = Vec::with_capacity(waiting.len());
    while let Some(index) = waiting.get(channels.len()) {
        let child = &invited[*index];
        let sign = match until {
            Some(until) => signs.recv_timeout(until.saturating_duration_since(now())),
            None => signs.recv().map_err(RecvTimeoutError::from),
        };
        match sign {
            Ok(Sign::Knocked(Ok(Some((nonce, packets))))) if nonce == child.nonce => {
                channels.push(packets);
            }
            Ok(Sign::Knocked(Ok(_))) => return Err(child.stranger()),
            Ok(Sign::Knocked(Err(source))) => return Err(child.broken(source)),
            Ok(Sign::Exited(index, status)) if waiting[channels.len()..].contains(&index) => {
                return Err(invited[index].ended(status, order));
            }
            // It was let in and died since: the supervisor's business.
            Ok(Sign::Exited(..)) => {}
            // Disconnected only if the greeter has ended without a word, which it does not.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(child.late(order));
            }
        }
    }
    Ok(channels)
}

impl Invited<'_> {
    fn listen(&mut self, word: Word, order: &Order) -> Result<(), SpawnError> {
        let (cluster, name) = (self.cluster, self.name.to_owned());
        match word {
            Word::Hello(hello) if self.come.is_empty() => self.meet(hello, order),
            // Nobody asked it anything.
            Word::Hello(_) => Err(self.broken(io::ErrorKind::InvalidData.into())),
            Word::Passed(point, signature) => {
                let difference = order.point.signature.differences(&signature);
                self.passed.push(match &*difference {
                    "" => point,
                    difference => format!("{point} ({difference})"),
                });
                Ok(())
            }
            Word::Changed(signature) => Err(SpawnError::OtherRegistry {
                cluster,
                name,
                point: order.point.to_string(),
                difference: order.point.signature.differences(&signature),
            }),
            Word::Failed(why) => Err(SpawnError::ChildFailed { cluster, name, why }),
        }
    }

    /// Checks a Hello.
    fn meet(&mut self, hello: Hello, order: &Order) -> Result<(), SpawnError> {
        if hello.nonce != self.nonce {
            return Err(self.stranger());
        }
        self.same("protocol", &PROTOCOL, &hello.protocol)?;
        self.same("maslite", env!("CARGO_PKG_VERSION"), &*hello.version)?;
        self.same("the process id", &self.pid, &hello.pid)?;
        self.same("the cluster number", &self.cluster, &hello.cluster)?;
        self.same(
            "the schema",
            &format!("{:016x}", order.point.signature.hash()),
            &format!("{:016x}", hello.schema),
        )?;
        if let Some(why) = hello.no_ring
            && self.ring.take().is_some()
            && order.carrier == Link::Ring
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
        order: &Order,
        signs: &Receiver<Sign>,
        source: io::Error,
    ) -> SpawnError {
        if source.kind() != io::ErrorKind::InvalidData {
            // If it has ended, its end is known now or in a moment.
            while let Ok(sign) = signs.recv_timeout(JOIN_LIMIT) {
                if let Sign::Exited(ended, status) = sign
                    && ended == index
                {
                    return self.ended(status, order);
                }
            }
        }
        self.broken(source)
    }

    fn ended(&self, status: Option<ExitStatus>, order: &Order) -> SpawnError {
        SpawnError::ExitedBeforeHello {
            cluster: self.cluster,
            name: self.name.to_owned(),
            exit: ExitKind::of(status),
            stderr: String::new(),
            test: order.program.test.clone(),
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

    fn late(&self, order: &Order) -> SpawnError {
        SpawnError::HandshakeTimeout {
            cluster: self.cluster,
            name: self.name.to_owned(),
            waited: order.deadline,
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
