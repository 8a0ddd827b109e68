//! Main's side of a start: invites all children of a call, then greets one after the other.
//!
//! ```text
//! start ──► supervisor thread: invite_all ──► a door and a process for each
//!              greet_all ◄── signs ──┬─ greeter: waits at the doors, one after the other
//!                                    └─ waiter of each child: it has ended
//! ```
//!
//! **Invariant:** when [`start`] returns an error, no process of the call is left.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shared_child::SharedChild;

use super::PROTOCOL;
use super::error::SpawnError;
use super::invitation::Invitation;
use super::program::Program;
use crate::death::ExitKind;
use crate::fleet::Link;
use crate::frame::Framed;
use crate::ipc::{self, Door, Hello, IpcPackets};
use crate::limits;
use crate::logs::Log;
use crate::output::{self, Output};
use crate::ring::{self, RingLink};
use crate::supervision::{Supervisor, Watch};
use crate::transport::{Transport, Wait, now};

/// How long the thread at the doors may take to notice that it is not needed any more.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// One start at a time in this process: a child must not inherit what another start has open.
static STARTING: Mutex<()> = Mutex::new(());

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) program: Program,
    /// Number and name of each cluster.
    pub(crate) clusters: Vec<(u32, String)>,
    /// What both sides must agree on, as a hash.
    pub(crate) schema: u64,
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
    if let Some(directory) = ipc::unusable_temp_dir() {
        return Err(SpawnError::TempDir(directory));
    }
    limits::check_temp_dir()?;
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

/// What may happen during a start.
enum Sign {
    /// At the next door in order.
    Knocked(io::Result<Option<(Hello, IpcPackets)>>),
    /// The child with this index.
    Exited(usize, Option<ExitStatus>),
}

/// A child between its start and its Hello.
struct Invited<'a> {
    cluster: u32,
    name: &'a str,
    pid: u32,
    nonce: [u8; 16],
    /// Where main can free the thread at its door.
    door: String,
    ring: Option<RingLink>,
}

fn start_all(watch: &mut Watch, order: &Order) -> Result<Vec<MainSide>, SpawnError> {
    let until = now().checked_add(order.deadline);
    let kept = watch.adopted();
    let (sender, signs) = mpsc::channel();
    let mut invited = Vec::with_capacity(order.clusters.len());
    let greeter = invite_all(watch, order, &mut invited, &sender)
        .and_then(|doors| Greeter::spawn(doors, sender).map_err(SpawnError::Resources));
    let greeter = match greeter {
        Ok(greeter) => greeter,
        Err(error) => {
            watch.disown(kept);
            return Err(error);
        }
    };
    let outcome = greet_all(&signs, &mut invited, order, until).map_err(|error| {
        greeter.cancel(&invited);
        error.explained(&watch.disown(kept))
    });
    greeter.join();
    outcome
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

    /// Frees the thread from the door it waits at, and keeps it from the others.
    fn cancel(&self, invited: &[Invited<'_>]) {
        let mut post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        post.cancelled = true;
        if let Some(index) = post.waits_at {
            ipc::abort(&invited[index].door);
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

/// Invites all children; returns their doors.
fn invite_all<'a>(
    watch: &mut Watch,
    order: &'a Order,
    invited: &mut Vec<Invited<'a>>,
    signs: &Sender<Sign>,
) -> Result<Vec<Door>, SpawnError> {
    ipc::check().map_err(SpawnError::Resources)?;
    order
        .clusters
        .iter()
        .enumerate()
        .map(|(index, (cluster, name))| {
            let (child, door) = invite(watch, order, *cluster, name, index, signs)?;
            invited.push(child);
            Ok(door)
        })
        .collect()
}

/// Makes the memory of a link, if there is to be one: main's end, and the file for the child.
fn offer(order: &Order) -> io::Result<Option<(RingLink, OwnedFd)>> {
    match order.carrier {
        Link::Channel => Ok(None),
        Link::Ring => ring::create(order.wait).map(Some),
        // Whatever is the matter, the channel is there.
        Link::Auto => Ok(ring::create(order.wait).ok()),
    }
}

/// Opens a door for a child, starts the process and sends the invitation.
fn invite<'a>(
    watch: &mut Watch,
    order: &Order,
    cluster: u32,
    name: &'a str,
    index: usize,
    signs: &Sender<Sign>,
) -> Result<(Invited<'a>, Door), SpawnError> {
    let spawn_error = |source| SpawnError::Spawn {
        cluster,
        name: name.to_owned(),
        source,
    };
    let door = Door::open().map_err(SpawnError::Resources)?;
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
        door: door.name().to_owned(),
        ring: ring.is_some(),
    };
    let (control, stdin) = UnixStream::pair().map_err(SpawnError::Resources)?;
    // Before there is a child: should this process die any moment now, the child still learns of the door, to take it away.
    invitation
        .write(&control, memory.as_ref())
        .map_err(spawn_error)?;
    let mut command = order.program.command().map_err(spawn_error)?;
    command.stdin(Stdio::from(OwnedFd::from(stdin)));
    let quiet = order.program.quiet_stdout;
    let outlet = output::connect(&mut command, watch, name, order.output, &order.log, quiet)
        .map_err(SpawnError::Resources)?;
    let process = SharedChild::spawn(&mut command).map_err(spawn_error)?;
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
            },
        )
        .map_err(SpawnError::Resources)?;
    let child = Invited {
        cluster,
        name,
        pid,
        nonce,
        door: door.name().to_owned(),
        ring,
    };
    Ok((child, door))
}

/// Takes the Hellos, which come in the order of the doors, until all children are there or something went wrong.
fn greet_all(
    signs: &Receiver<Sign>,
    invited: &mut [Invited<'_>],
    order: &Order,
    until: Option<Instant>,
) -> Result<Vec<MainSide>, SpawnError> {
    let mut links = Vec::with_capacity(invited.len());
    while let Some(child) = invited.get_mut(links.len()) {
        let sign = match until {
            Some(until) => signs.recv_timeout(until.saturating_duration_since(now())),
            None => signs.recv().map_err(RecvTimeoutError::from),
        };
        match sign {
            Ok(Sign::Knocked(knock)) => links.push(greet(child, knock, order)?),
            Ok(Sign::Exited(index, status)) if index >= links.len() => {
                let child = &invited[index];
                return Err(SpawnError::ExitedBeforeHello {
                    cluster: child.cluster,
                    name: child.name.to_owned(),
                    exit: ExitKind::of(status),
                    stderr: String::new(),
                });
            }
            // It introduced itself and died since: the supervisor's business.
            Ok(Sign::Exited(..)) => {}
            // Disconnected only if the greeter has ended without a word, which it does not.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(SpawnError::HandshakeTimeout {
                    cluster: child.cluster,
                    name: child.name.to_owned(),
                    waited: order.deadline,
                });
            }
        }
    }
    Ok(links)
}

/// Checks a Hello.
fn greet(
    child: &mut Invited<'_>,
    knock: io::Result<Option<(Hello, IpcPackets)>>,
    order: &Order,
) -> Result<MainSide, SpawnError> {
    let (hello, packets) = match knock {
        Ok(Some(knock)) => knock,
        Ok(None) => return Err(child.stranger()),
        Err(source) => {
            return Err(SpawnError::Handshake {
                cluster: child.cluster,
                name: child.name.to_owned(),
                source,
            });
        }
    };
    if hello.nonce != child.nonce {
        return Err(child.stranger());
    }
    child.same("protocol", &PROTOCOL, &hello.protocol)?;
    child.same("maslite", env!("CARGO_PKG_VERSION"), &*hello.version)?;
    child.same("the process id", &child.pid, &hello.pid)?;
    child.same("the cluster number", &child.cluster, &hello.cluster)?;
    child.same(
        "the schema",
        &format!("{:016x}", order.schema),
        &format!("{:016x}", hello.schema),
    )?;
    let (carrier, link): (_, Box<dyn Transport>) = match (child.ring.take(), hello.no_ring) {
        (Some(_), Some(why)) if order.carrier == Link::Ring => {
            return Err(SpawnError::NoRing {
                cluster: child.cluster,
                name: child.name.to_owned(),
                source: io::Error::other(why),
            });
        }
        (Some(ring), None) => (Link::Ring, Box::new(ring)),
        _ => {
            let framed = Framed::new(packets, ipc::frame_limit(), order.wait);
            (Link::Channel, Box::new(framed))
        }
    };
    Ok(MainSide {
        cluster: child.cluster,
        pid: child.pid,
        link,
        carrier,
    })
}

impl Invited<'_> {
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
