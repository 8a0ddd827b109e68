//! Starts child processes and shakes hands with them: main's side ([`start`]) and the child's ([`child_side`]).
//!
//! A child is the same executable, told apart by the environment variable [`MARKER`], which holds its parent's process id. It counts
//! only in a direct child of that parent, or in one that has lost it, so a program that an agent starts is no child of ours.
//!
//! ```text
//! main                                             child
//!  opens a door, makes shared memory, starts the process
//!  ── invitation and memory, through its stdin ──►  reads it, watches its stdin from then on
//!                                                   maps the memory
//!                                                   makes two channels, keeps its own ends
//!  checks everything  ◄── Hello and main's ends ──  knocks at the door
//!  closes the door
//! ```
//!
//! If both have mapped the memory, it is the link, and the channels are closed again. Otherwise they are.
//!
//! - All children of one call are started before the first handshake: they load at the same time, and none inherits the
//!   descriptors of another's handshake. For the same reason the whole process makes one start at a time.
//! - The invitation has a random nonce, which the Hello repeats. It travels through a socket, not through arguments or
//!   environment, which others can read.
//! - No step can hang: a child's exit or the deadline makes main knock at its own doors.
//! - If anything fails, all children of the call are killed and reaped before the error is returned.
//!
//! # The child's standard streams
//!
//! stdin is the control line, a socket both ways, and the agents find `/dev/null` in its place; stdout and stderr are pipes to main,
//! unless it lends them its own (see [`Output`]).

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio, abort, id};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Signal, getpgrp, getpid, kill_process};
use serde::{Deserialize, Serialize};
use shared_child::SharedChild;

use crate::death::{EXIT_INIT_FAILED, EXIT_PROTOCOL_MISMATCH, ExitKind, Explained};
use crate::fleet::Link;
use crate::frame::Framed;
use crate::ipc::{self, Door, Hello, IpcPackets};
use crate::limits;
use crate::logs::Log;
use crate::lookout::Pulse;
use crate::output::{self, Output};
use crate::ring::{self, RingLink};
use crate::supervision::{ASK, Answer, HOLD, Supervisor, Watch};
use crate::transport::{Transport, Wait, now};

/// The environment variable that makes a process a child: the process id of its parent.
pub(crate) const MARKER: &str = "MASLITE_CHILD";

/// Of the invitation, the handshake, the control line and the frames.
pub(crate) const PROTOCOL: u32 = 1;

/// How long a start may take by default.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long the thread at the doors may take to notice that it is not needed any more.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// How the invitation is sent and taken. Files come with it on Linux alone.
#[cfg(target_os = "linux")]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// One start at a time in this process: a child must not inherit what another start has open.
static STARTING: Mutex<()> = Mutex::new(());

/// What the children run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// None: this executable.
    pub(crate) exe: Option<PathBuf>,
    pub(crate) args: Vec<OsString>,
    /// Whether what the children print goes nowhere.
    pub(crate) quiet_stdout: bool,
}

impl Program {
    /// This executable as a test harness that runs nothing but the ignored test `name`, which is the entry of child processes.
    pub(crate) fn test_entry(name: &str) -> Self {
        Self {
            exe: None,
            args: [name, "--exact", "--ignored", "--nocapture"]
                .map(OsString::from)
                .to_vec(),
            quiet_stdout: true,
        }
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = match &self.exe {
            Some(exe) => Command::new(exe),
            None => own_executable()?,
        };
        command.args(&self.args);
        // A group of its own: Ctrl-C then reaches main alone, and main decides.
        command.process_group(0).env(MARKER, id().to_string());
        Ok(command)
    }
}

/// The executable that is running, even if another file has taken its path since.
fn own_executable() -> io::Result<Command> {
    if limits::runs_from_memory() {
        let mut command = Command::new(limits::OWN_PROGRAM);
        if let Some(name) = env::args_os().next() {
            command.arg0(name);
        }
        return Ok(command);
    }
    env::current_exe().map(Command::new)
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) program: Program,
    /// Number and name of each cluster.
    pub(crate) clusters: Vec<(u32, String)>,
    /// What both sides must agree on, as a hash.
    pub(crate) schema: u64,
    /// How long all of it may take: [`START_DEADLINE`].
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

/// Why child processes could not be started. None is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The directory for temporary files cannot hold a socket.
    #[error(
        "the directory for temporary files, {0:?}, is not UTF-8 or longer than 89 bytes: set TMPDIR to a shorter one"
    )]
    TempDir(PathBuf),
    /// No socket can be made in the directory for temporary files: it is not there, full, or not to be written to.
    #[error(
        "no socket can be made in the directory for temporary files, {directory:?}: set TMPDIR to one that can be written to"
    )]
    TempDirUnusable {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This process may not open as many descriptors as so many clusters need, five each. None was started.
    #[error(
        "{asked} clusters need more descriptors than this process has left of its {limit}: {possible} can be started; \
         for more raise the limit (`ulimit -n`)"
    )]
    TooManyClusters {
        /// How many were to be started.
        asked: usize,
        /// How many can be.
        possible: usize,
        /// How many descriptors this process may have open.
        limit: usize,
    },
    /// The file of this program has been replaced or deleted since it started, so the children would run something else. On Linux
    /// children are started from the program that runs, whatever became of its file.
    #[error("the program {0:?} has been replaced or deleted since it was started: start it again")]
    ProgramReplaced(PathBuf),
    /// The system refused what every child needs: descriptors, threads, randomness.
    #[error("no resources to start child processes")]
    Resources(#[source] io::Error),
    /// The process could not be started.
    #[error("the process of cluster {name} ({cluster}) could not be started")]
    Spawn {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process ended before it had introduced itself.
    #[error(
        "the process of cluster {name} ({cluster}) ended before its handshake: it {}",
        before_hello(*.exit, .stderr)
    )]
    ExitedBeforeHello {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// How it ended.
        exit: ExitKind,
        /// The end of its stderr, at most 64 KiB; empty if that was not piped here.
        stderr: String,
    },
    /// The process did not introduce itself in time.
    #[error(
        "the process of cluster {name} ({cluster}) did not introduce itself within {waited:?}: does its program call the entry of child processes in the first line of main? Is ipc-channel's feature `force-inprocess` off?"
    )]
    HandshakeTimeout {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// The deadline.
        waited: Duration,
    },
    /// The handshake broke off.
    #[error("the handshake with the process of cluster {name} ({cluster}) failed")]
    Handshake {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// A ring was asked for, and main and the child cannot share memory.
    #[error(
        "no ring in shared memory for the process of cluster {name} ({cluster}): use Link::Auto or Link::Channel here"
    )]
    NoRing {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system said, here or in the child.
        source: io::Error,
    },
    /// Somebody else answered in the child's place: another process of this user, or one that may write to its temporary directory.
    #[error("a stranger answered in place of the process of cluster {name} ({cluster})")]
    Stranger {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
    },
    /// Main and child are not of the same build.
    #[error(
        "the process of cluster {name} ({cluster}) has {what} {theirs}, this one {ours}: both must be the same build of the program"
    )]
    Mismatch {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What differs.
        what: &'static str,
        /// What this process has.
        ours: String,
        /// What the child has.
        theirs: String,
    },
}

impl SpawnError {
    /// With what is known after the end of the children.
    fn explained(mut self, ends: &[(u32, ExitKind, String)]) -> Self {
        if let Self::ExitedBeforeHello {
            cluster,
            exit,
            stderr,
            ..
        } = &mut self
            && let Some((_, how, said)) = ends.iter().find(|end| end.0 == *cluster)
        {
            (*exit, *stderr) = (*how, said.clone());
        }
        self
    }
}

/// How a child ended that had not said hello, and what its program has most likely forgotten.
fn before_hello(exit: ExitKind, stderr: &str) -> String {
    match exit {
        ExitKind::Success => format!(
            "{exit}; its program has probably not called the entry of child processes, which must be the first line of main"
        ),
        _ => Explained(exit, stderr).to_string(),
    }
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

/// What main tells a child through its stdin: the protocol's number (u32) and a length (u16), little endian, then this in postcard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Invitation {
    cluster: u32,
    nonce: [u8; 16],
    /// Where to knock.
    door: String,
    /// Whether shared memory comes with it.
    ring: bool,
}

impl Invitation {
    /// Writes all at once: it fits into the socket, so this does not wait for the child.
    fn write(&self, control: &UnixStream, memory: Option<&OwnedFd>) -> io::Result<()> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u16::try_from(body.len()).map_err(io::Error::other)?;
        let mut bytes = PROTOCOL.to_le_bytes().to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        let files: Vec<_> = memory.into_iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut enclosed = SendAncillaryBuffer::new(&mut room);
        if !files.is_empty() {
            enclosed.push(SendAncillaryMessage::ScmRights(&files));
        }
        let sent =
            rustix::net::sendmsg(control, &[IoSlice::new(&bytes)], &mut enclosed, NO_SIGNAL)?;
        (&mut &*control).write_all(&bytes[sent..])
    }

    /// Reads it, and nothing of what follows, and takes the memory that comes with it.
    fn read(mut control: &UnixStream) -> Result<(Self, Option<OwnedFd>), ChildError> {
        let mut head = [0; 6];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut enclosed = RecvAncillaryBuffer::new(&mut room);
        // The file comes with the first byte.
        let received = rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut head)],
            &mut enclosed,
            CLOSE_ON_EXEC,
        )
        .map_err(io::Error::from)?;
        let memory = enclosed
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                _ => None,
            })
            .next();
        control.read_exact(&mut head[received.bytes..])?;
        let [p0, p1, p2, p3, l0, l1] = head;
        let protocol = u32::from_le_bytes([p0, p1, p2, p3]);
        if protocol != PROTOCOL {
            return Err(ChildError::Protocol { theirs: protocol });
        }
        let mut body = vec![0; usize::from(u16::from_le_bytes([l0, l1]))];
        control.read_exact(&mut body)?;
        let invitation = postcard::from_bytes(&body)
            .map_err(|error| ChildError::Init(io::Error::other(error)))?;
        Ok((invitation, memory))
    }
}

/// A child's side of its connection with main.
pub(crate) struct ChildSide {
    pub(crate) link: Box<dyn Transport>,
    /// Grants up to this number are to end after the superstep they are in.
    pub(crate) hold: Arc<AtomicU64>,
    /// What it tells main when asked.
    pub(crate) pulse: Arc<Pulse>,
    /// Where it has knocked.
    door: String,
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the children of tests tell themselves apart by it"
        )
    )]
    pub(crate) cluster: u32,
}

/// Why a child could not set itself up. It ends with `exit_code`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// Main speaks another protocol.
    #[error(
        "main speaks protocol {theirs}, this child process {PROTOCOL}: both must be the same build of the program"
    )]
    Protocol {
        /// Main's.
        theirs: u32,
    },
    /// The entry was called a second time.
    #[error("the entry of child processes was called twice")]
    EnteredTwice,
    /// The system refused, or main went away.
    #[error("a child process could not set itself up")]
    Init(#[from] io::Error),
}

impl ChildError {
    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Protocol { .. } => EXIT_PROTOCOL_MISMATCH,
            Self::EnteredTwice | Self::Init(_) => EXIT_INIT_FAILED,
        }
    }
}

/// Whether this process was started as a child of ours. Such a process must not start a simulation of its own.
pub(crate) fn is_child() -> bool {
    marked_parent().is_some_and(|parent| parent == parent_id() || is_orphan())
}

/// Whether this process, which has the marker and another parent, is a child whose main process has died since it was started. What
/// agents start inherits the marker, but it has no control line, and seldom a process group of its own.
///
/// Without this a child that loses its main process before it gets here would take itself for a main process, and begin anew.
fn is_orphan() -> bool {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let is_socket = stdin.is_ok_and(|stdin| UnixStream::from(stdin).local_addr().is_ok());
    is_socket && getpgrp() == getpid()
}

/// The process id in the marker.
fn marked_parent() -> Option<u32> {
    env::var(MARKER).ok()?.parse().ok()
}

/// Sets this process up as a child. None if it is none. `schema` must equal main's; `wait` is for the child's end of the link.
///
/// From here on a thread of this process reads its stdin, and ends the process when main is gone.
pub(crate) fn child_side(schema: u64, wait: Wait) -> Option<Result<ChildSide, ChildError>> {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    if !is_child() {
        return None;
    }
    if ENTERED.swap(true, Ordering::SeqCst) {
        return Some(Err(ChildError::EnteredTwice));
    }
    Some(set_up(schema, wait))
}

fn set_up(schema: u64, wait: Wait) -> Result<ChildSide, ChildError> {
    let control = take_stdin()?;
    let (invitation, memory) = Invitation::read(&control)?;
    let cluster = invitation.cluster;
    let ring = invitation.ring.then(|| match &memory {
        Some(memory) => ring::open(memory, wait),
        // The system drops it without a word if this process may open no more files.
        None => Err(io::Error::other("the memory was lost on its way")),
    });
    show_as(cluster);
    let hold = Arc::new(AtomicU64::new(0));
    let pulse = Arc::new(Pulse::default());
    let (told, shown) = (Arc::clone(&hold), Arc::clone(&pulse));
    let door = invitation.door.clone();
    thread::Builder::new()
        .name("maslite-control".to_owned())
        .spawn(move || {
            // Main is gone, or says what this build does not understand.
            let _ = obey(&control, &told, &shown);
            // Main takes its door away when it has let this child in, if it lives so long.
            ipc::take_away(&door);
            die();
        })?;
    let hello = Hello {
        nonce: invitation.nonce,
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: id(),
        cluster,
        schema,
        no_ring: ring
            .as_ref()
            .and_then(|ring| ring.as_ref().err().map(ToString::to_string)),
    };
    let packets = match ipc::knock(&invitation.door, hello) {
        Ok(packets) => packets,
        Err(error) => {
            ipc::take_away(&invitation.door);
            return Err(error.into());
        }
    };
    let link: Box<dyn Transport> = match ring {
        Some(Ok(ring)) => Box::new(ring),
        _ => Box::new(Framed::new(packets, ipc::frame_limit(), wait)),
    };
    Ok(ChildSide {
        link,
        hold,
        pulse,
        door: invitation.door,
        cluster,
    })
}

impl ChildSide {
    /// Main is gone: takes away what it may have left.
    pub(crate) fn clear_up(&self) {
        ipc::take_away(&self.door);
    }
}

/// Takes the control line and leaves `/dev/null` in its place, so that nothing an agent does or starts reads main's bytes.
///
/// Unbuffered: `std::io::stdin()` would take bytes that are not its own.
fn take_stdin() -> io::Result<UnixStream> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(control))
}

/// Names the process for `ps` and its like, which would call it "exe".
#[cfg(target_os = "linux")]
fn show_as(cluster: u32) {
    if let Ok(name) = std::ffi::CString::new(format!("cluster {}", u64::from(cluster) + 1)) {
        // Only people see it.
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(target_os = "linux"))]
fn show_as(_: u32) {}

/// Makes the kernel kill this process when the thread that started it is gone: unlike the control line, this
/// also reaches a process that has been stopped. Not before main has let this process in: until then it has a door to take away.
#[cfg(target_os = "linux")]
pub(crate) fn die_with_parent() {
    let parent = parent_id();
    // An error leaves the control line, which is enough for all but stopped processes.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if parent_id() != parent || marked_parent() != Some(parent) {
        die();
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_parent() {}

/// Reads the control line, and answers, until main is gone.
fn obey(mut control: &UnixStream, hold: &AtomicU64, pulse: &Pulse) -> io::Result<()> {
    loop {
        let mut command = [0];
        control.read_exact(&mut command)?;
        match command {
            [HOLD] => {
                let mut up_to = [0; 8];
                control.read_exact(&mut up_to)?;
                hold.fetch_max(u64::from_le_bytes(up_to), Ordering::SeqCst);
            }
            [ASK] => Answer::write(pulse, control)?,
            _ => return Ok(()),
        }
    }
}

/// Ends this process at once. Not by `exit`: that runs destructors and handlers beside the agents' thread, and one of them may wait
/// for ever. `_exit` would be right but needs unsafe code; `SIGKILL` does the same, and whoever would read the exit code is gone.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    abort()
}

/// The children of these tests are this test program, started for one of the ignored "tests" named `…_entry`.
#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{ExitStatus, exit};

    use super::*;
    use rustix::process::{Pid, WaitId, WaitIdOptions};

    use crate::lookout::Says;
    use crate::supervision::{EndKind, Failure};
    use crate::transport::LinkError;
    use crate::warning::Activity;

    const SCHEMA: u64 = 0x5CED;

    /// Long enough for anything that happens at all.
    const LONG: Duration = Duration::from_secs(20);

    fn order(entry: &str, clusters: u32) -> Order {
        Order {
            program: Program::test_entry(&format!("spawn::tests::{entry}")),
            clusters: (1..=clusters)
                .map(|number| (number, format!("c{number}")))
                .collect(),
            schema: SCHEMA,
            deadline: LONG,
            wait: Wait::default(),
            carrier: Link::Auto,
            // So that whoever waits for the end of main's stderr waits for the children, too.
            output: Output::Inherit,
            log: Log::here(),
        }
    }

    fn supervisor() -> Supervisor {
        Supervisor::new(LONG).expect("a thread can be had")
    }

    fn started(entry: &str, clusters: u32) -> (Supervisor, Vec<MainSide>) {
        let supervisor = supervisor();
        let sides = start(&supervisor, order(entry, clusters)).expect("the children start");
        (supervisor, sides)
    }

    fn refused(entry: &str, clusters: u32) -> SpawnError {
        let supervisor = supervisor();
        let error = start(&supervisor, order(entry, clusters))
            .err()
            .expect("it fails");
        assert!(supervisor.pids().is_empty(), "none is left");
        error
    }

    fn asked(side: &mut MainSide, question: &[u8]) -> Result<Vec<u8>, LinkError> {
        let mut answer = Vec::new();
        side.link.say(question)?;
        side.link.hear(&mut answer)?;
        Ok(answer)
    }

    fn child() -> ChildSide {
        child_side(SCHEMA, Wait::default())
            .expect("this is a child process")
            .expect("main is there")
    }

    #[test]
    #[ignore = "entry of child processes"]
    fn echo_entry() {
        let mut child = child();
        let mut message = Vec::new();
        while child.link.hear(&mut message).is_ok() {
            let answer = match &*message {
                b"stop" => break,
                b"exit 7" => exit(7),
                b"abort" => abort(),
                b"cluster" => child.cluster.to_le_bytes().to_vec(),
                // Spins until told: what an agent in a long grant does.
                b"hold" => {
                    while child.hold.load(Ordering::SeqCst) == 0 {
                        std::hint::spin_loop();
                    }
                    child.hold.load(Ordering::SeqCst).to_le_bytes().to_vec()
                }
                b"endless" => loop {
                    if child.link.say(&vec![0; 10_000_000]).is_err() {
                        exit(0);
                    }
                },
                b"deaf" => loop {
                    thread::park();
                },
                b"half" => {
                    let mut draft = child.link.draft().expect("main is there");
                    draft.extend(&[7; 1000]);
                    abort()
                }
                b"stdin" => {
                    let mut bytes = Vec::new();
                    io::stdin()
                        .read_to_end(&mut bytes)
                        .expect("it is /dev/null");
                    bytes
                }
                b"grandchild" => {
                    // It inherits the marker, and must not take itself for a child of ours.
                    let output = own_executable()
                        .and_then(|mut command| {
                            command
                                .args(["spawn::tests::is_child_entry", "--exact", "--ignored"])
                                .output()
                        })
                        .expect("it runs");
                    vec![u8::from(output.status.success())]
                }
                other => other.to_vec(),
            };
            if child.link.say(&answer).is_err() {
                break;
            }
        }
        exit(0);
    }

    #[test]
    #[ignore = "entry of a grandchild"]
    fn is_child_entry() {
        assert!(env::var_os(MARKER).is_some());
        assert!(!is_child());
        assert!(child_side(SCHEMA, Wait::default()).is_none());
    }

    #[test]
    fn messages_of_all_sizes_come_back() {
        let (mut supervisor, mut sides) = started("echo_entry", 2);
        for (side, number) in sides.iter_mut().zip(1_u32..) {
            assert_eq!(side.cluster, number);
            assert_eq!(
                asked(side, b"cluster").expect("alive"),
                number.to_le_bytes()
            );
            for length in [0, 1, 1000, 65_536, 250_000, 20_000_000] {
                let message = vec![7; length];
                assert!(
                    asked(side, &message).expect("alive") == message,
                    "{length} bytes"
                );
            }
        }
        supervisor.expect_exits();
        for side in &mut sides {
            side.link.say(b"stop").expect("alive");
        }
        assert!(
            supervisor
                .wait_all(LONG)
                .iter()
                .all(|end| end.how == EndKind::Clean)
        );
    }

    #[test]
    fn a_ring_that_cannot_be_is_replaced_or_an_error() {
        if !cfg!(target_os = "linux") {
            return;
        }
        for (carrier, expected) in [(Link::Auto, Some(Link::Channel)), (Link::Ring, None)] {
            let supervisor = supervisor();
            let mut order = order("no_ring_entry", 2);
            order.carrier = carrier;
            match (start(&supervisor, order), expected) {
                (Ok(mut sides), Some(expected)) => {
                    assert!(sides.iter().all(|side| side.carrier == expected));
                    assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
                }
                (Err(error), None) => {
                    assert!(matches!(error, SpawnError::NoRing { cluster: 1, .. }));
                    assert!(supervisor.pids().is_empty());
                }
                (started, _) => panic!("{carrier:?}: {:?}", started.err()),
            }
        }
    }

    #[test]
    #[ignore = "entry of a child that cannot map memory"]
    fn no_ring_entry() {
        let (_stdin, packets) = introduce(|hello| hello.no_ring = Some("no room".to_owned()));
        let mut link = Framed::new(packets, ipc::frame_limit(), Wait::default());
        let mut message = Vec::new();
        while link.hear(&mut message).is_ok() && link.say(&message).is_ok() {}
        exit(0);
    }

    #[test]
    fn a_child_has_no_use_for_stdin_and_its_children_are_none_of_ours() {
        let (_supervisor, mut sides) = started("echo_entry", 1);
        assert_eq!(asked(&mut sides[0], b"stdin").expect("alive"), b"");
        assert_eq!(asked(&mut sides[0], b"grandchild").expect("alive"), [1]);
    }

    #[test]
    fn a_hold_reaches_a_busy_child() {
        let (supervisor, mut sides) = started("echo_entry", 1);
        let grants = supervisor.grants();
        for _ in 0..40 {
            grants.issue();
        }
        let last = grants.issue();
        supervisor.hold_at(now().checked_add(Duration::from_millis(1)));
        let told = asked(&mut sides[0], b"hold").expect("alive");
        assert_eq!(told, last.to_le_bytes());
        assert!(grants.held());
        supervisor.disarm();
    }

    #[test]
    fn the_control_line_answers_questions_between_holds() {
        let (main, child) = UnixStream::pair().expect("a socket can be had");
        main.set_read_timeout(Some(LONG)).expect("not zero");
        let (hold, pulse) = (AtomicU64::new(0), Pulse::default());
        thread::scope(|scope| {
            scope.spawn(|| {
                // It ends when main's end is closed.
                let _ = obey(&child, &hold, &pulse);
                assert_eq!(hold.load(Ordering::SeqCst), 7);
            });
            let main = main;
            let mut said = Vec::new();
            Answer::write(&pulse, &mut said).expect("a vector takes all");
            for commands in [&b"?"[..], b"H\x07\0\0\0\0\0\0\0?"] {
                (&main).write_all(commands).expect("somebody reads");
                let mut answer = vec![0; said.len()];
                (&main).read_exact(&mut answer).expect("somebody answers");
                assert_eq!(answer, said);
            }
        });
    }

    #[test]
    fn a_busy_child_answers_and_a_stopped_one_does_not() {
        let (supervisor, mut sides) = started("echo_entry", 2);
        sides[0].link.say(b"hold").expect("alive");
        let ask = || {
            let sights = supervisor.run_job(Watch::ask_all).expect("it lives");
            [0, 1].map(|place| sights[place].says)
        };
        let fine = Pulse::default().says();
        assert_eq!(ask(), [fine, fine]);
        let stopped = sides[1].pid;
        signal(stopped, Signal::STOP);
        // Its parent is told when all its threads stand.
        let stands = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(pid_of(stopped)), stands).expect("a child of ours");
        let silent = [fine, Says::Nothing(Activity::Stopped)];
        assert_eq!(ask(), silent);
        assert_eq!(ask(), silent, "still");
        signal(stopped, Signal::CONT);
        let late = supervisor.run_job(|watch| watch.await_late_answer(1));
        assert_eq!(late, Some(true));
        assert_eq!(ask(), [fine, fine]);
    }

    /// Kills cluster 2 of 2 while main waits for an answer from cluster `waiting_on` to `question`.
    fn kill_during(question: &[u8], waiting_on: usize) {
        let (mut supervisor, mut sides) = started("echo_entry", 2);
        let victim = sides[1].pid;
        let side = &mut sides[waiting_on];
        side.link.say(question).expect("alive");
        kill(victim);
        let mut message = Vec::new();
        let error = loop {
            if let Err(error) = side.link.hear(&mut message) {
                break error;
            }
        };
        assert!(matches!(error, LinkError::Disconnected), "{error:?}");
        let Some(Failure::Died {
            cluster,
            name,
            pid,
            exit,
            ..
        }) = supervisor.first_death(Duration::from_secs(1))
        else {
            panic!("no reason is known");
        };
        assert_eq!((cluster, &*name, pid), (2, "c2", victim));
        assert_eq!(exit, ExitKind::Signal(9));
        let ends = supervisor.wait_all(LONG);
        assert_eq!(ends[0].how, EndKind::Killed);
        assert_eq!(ends[1].how, EndKind::Failed(ExitKind::Signal(9)));
    }

    fn kill(pid: u32) {
        signal(pid, Signal::KILL);
    }

    fn signal(pid: u32, signal: Signal) {
        kill_process(pid_of(pid), signal).expect("it is alive");
    }

    fn pid_of(pid: u32) -> Pid {
        let pid = i32::try_from(pid).expect("a process id");
        Pid::from_raw(pid).expect("not zero")
    }

    #[test]
    fn a_kill_while_main_waits_for_that_child() {
        kill_during(b"deaf", 1);
    }

    #[test]
    fn a_kill_while_main_waits_for_another_child() {
        kill_during(b"deaf", 0);
    }

    #[test]
    fn a_kill_in_the_middle_of_a_message() {
        kill_during(b"endless", 1);
    }

    #[test]
    fn an_exit_and_an_abort_are_told_apart() {
        for (question, expected) in [
            (&b"exit 7"[..], ExitKind::Code(7)),
            (b"abort", ExitKind::Signal(6)),
            // Between reserving bytes and publishing them.
            (b"half", ExitKind::Signal(6)),
        ] {
            let (supervisor, mut sides) = started("echo_entry", 1);
            assert!(matches!(
                asked(&mut sides[0], question),
                Err(LinkError::Disconnected)
            ));
            let Some(Failure::Died { exit, .. }) = supervisor.first_death(LONG) else {
                panic!("nobody died");
            };
            assert_eq!(exit, expected);
        }
    }

    #[test]
    fn a_shutdown_does_not_wait_for_a_child_that_ignores_it() {
        let (mut supervisor, mut sides) = started("echo_entry", 2);
        sides[0].link.say(b"deaf").expect("alive");
        supervisor.expect_exits();
        for side in &mut sides {
            side.link.say(b"stop").expect("alive");
        }
        let begin = now();
        let ends = supervisor.wait_all(Duration::from_millis(50));
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "took {:?}",
            begin.elapsed()
        );
        assert_eq!(ends[0].how, EndKind::Killed);
        assert_eq!(ends[1].how, EndKind::Clean);
    }

    #[test]
    fn dropping_the_links_ends_the_children() {
        let (mut supervisor, sides) = started("echo_entry", 2);
        supervisor.expect_exits();
        drop(sides);
        assert!(
            supervisor
                .wait_all(LONG)
                .iter()
                .all(|end| end.how == EndKind::Clean)
        );
    }

    #[test]
    #[ignore = "entry of a child that forgets the entry"]
    fn forgetful_entry() {
        exit(0);
    }

    #[test]
    fn a_child_that_ends_before_its_hello() {
        let error = refused("forgetful_entry", 3);
        let SpawnError::ExitedBeforeHello { exit, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*exit, ExitKind::Success);
        assert!(
            error
                .to_string()
                .contains("has probably not called the entry"),
            "{error}"
        );
    }

    #[test]
    #[ignore = "entry of a child that never says hello"]
    fn silent_entry() {
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_child_that_says_nothing_is_given_up() {
        let supervisor = supervisor();
        let mut order = order("silent_entry", 2);
        order.deadline = Duration::from_millis(50);
        let begin = now();
        let error = start(&supervisor, order).err().expect("it fails");
        assert!(
            matches!(error, SpawnError::HandshakeTimeout { cluster: 1, .. }),
            "{error:?}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "took {:?}",
            begin.elapsed()
        );
        assert!(supervisor.pids().is_empty());
    }

    /// Knocks with something changed in the Hello.
    fn introduce(change: impl FnOnce(&mut Hello)) -> (UnixStream, IpcPackets) {
        let stdin = take_stdin().expect("there is one");
        let (invitation, _) = Invitation::read(&stdin).expect("it was written");
        let mut hello = Hello {
            nonce: invitation.nonce,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: id(),
            cluster: invitation.cluster,
            schema: SCHEMA,
            no_ring: None,
        };
        change(&mut hello);
        let packets = ipc::knock(&invitation.door, hello).expect("main is there");
        (stdin, packets)
    }

    /// Does the same and waits for its end.
    fn lie(change: impl FnOnce(&mut Hello)) -> ! {
        let (mut stdin, _packets) = introduce(change);
        let _ = stdin.read_exact(&mut [0]);
        exit(0);
    }

    #[test]
    #[ignore = "entry of a child with a wrong nonce"]
    fn wrong_nonce_entry() {
        lie(|hello| hello.nonce[3] ^= 1);
    }

    #[test]
    #[ignore = "entry of a child with a wrong process id"]
    fn wrong_pid_entry() {
        lie(|hello| hello.pid += 1);
    }

    #[test]
    #[ignore = "entry of a child of another version"]
    fn wrong_version_entry() {
        lie(|hello| hello.version = "0.0.0".to_owned());
    }

    #[test]
    #[ignore = "entry of a child with another schema"]
    fn wrong_schema_entry() {
        lie(|hello| hello.schema = 1);
    }

    #[test]
    fn a_false_hello_is_refused() {
        let error = refused("wrong_nonce_entry", 2);
        assert!(
            matches!(error, SpawnError::Stranger { cluster: 1, .. }),
            "{error:?}"
        );
        for (entry, differs) in [
            ("wrong_pid_entry", "the process id"),
            ("wrong_version_entry", "maslite"),
            ("wrong_schema_entry", "the schema"),
        ] {
            let error = refused(entry, 2);
            let SpawnError::Mismatch { what, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(what, differs);
        }
    }

    #[test]
    fn a_program_that_is_not_there() {
        let supervisor = supervisor();
        let mut order = order("echo_entry", 2);
        order.program.exe = Some("/nowhere/at/all".into());
        let error = start(&supervisor, order).err().expect("it fails");
        assert!(
            matches!(error, SpawnError::Spawn { cluster: 1, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_start_that_fails_harms_no_earlier_one() {
        let (supervisor, mut sides) = started("echo_entry", 1);
        assert!(start(&supervisor, order("forgetful_entry", 2)).is_err());
        assert_eq!(
            asked(&mut sides[0], b"still here").expect("alive"),
            b"still here"
        );
        let mut more = start(&supervisor, order("echo_entry", 1)).expect("the children start");
        assert_eq!(asked(&mut more[0], b"me too").expect("alive"), b"me too");
        assert!(supervisor.first_death(Duration::ZERO).is_none());
    }

    #[test]
    #[ignore = "entry of the test below"]
    fn long_temp_dir_entry() {
        let error = refused("echo_entry", 1);
        assert!(matches!(error, SpawnError::TempDir(_)), "{error:?}");
    }

    #[test]
    fn a_temporary_directory_that_cannot_hold_a_socket_is_refused() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let status = own_executable()
            .and_then(|mut command| {
                command
                    .args(["spawn::tests::long_temp_dir_entry", "--exact", "--ignored"])
                    .env("TMPDIR", format!("/{}", "a".repeat(89)))
                    .output()
            })
            .expect("it runs")
            .status;
        assert!(status.success());
    }

    /// Runs another entry in a process of its own, with its own directory for temporary files, and waits for it and for all that hold
    /// its standard error. Returns what is left in that directory, too.
    fn run_alone(entry: &str) -> (ExitStatus, String, usize) {
        let temp = env::temp_dir().join(format!("maslite-{}-{entry}", id()));
        fs::create_dir(&temp).expect("it is new");
        let output = own_executable()
            .and_then(|mut command| {
                command
                    .args([&*format!("spawn::tests::{entry}"), "--exact", "--ignored"])
                    .args(["--nocapture", "--test-threads=1"])
                    .env("TMPDIR", &temp)
                    .output()
            })
            .expect("it runs");
        let left = entries(&temp);
        fs::remove_dir_all(&temp).expect("it is there");
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
            left,
        )
    }

    #[test]
    #[ignore = "entry of a child that prints"]
    fn loud_entry() {
        let mut child = child();
        writeln!(io::stdout(), "said {}", child.cluster).expect("main reads");
        writeln!(io::stdout(), "{}", "much ".repeat(50_000)).expect("main reads");
        eprintln!("cried {}", child.cluster);
        child.link.say(b"done").expect("main is there");
        let _ = child.link.recv();
        exit(3);
    }

    /// Starts two children that print, and lets them end.
    fn hear(output: Output) {
        let supervisor = supervisor();
        let mut order = order("loud_entry", 2);
        order.output = output;
        order.program.quiet_stdout = false;
        let mut sides = start(&supervisor, order).expect("the children start");
        for side in &mut sides {
            side.link.recv().expect("they say done");
        }
    }

    #[test]
    #[ignore = "entry of a main process whose children print"]
    fn prefixed_entry() {
        hear(Output::Prefixed);
    }

    #[test]
    #[ignore = "entry of a main process whose children print"]
    fn null_entry() {
        hear(Output::Null);
    }

    #[test]
    fn what_children_print_is_told_apart() {
        // What the test harness says has no name before it.
        let output = |entry: &str| {
            let harness = ["--exact", "--ignored", "--nocapture"];
            let output = own_executable()
                .and_then(|mut command| {
                    command
                        .arg(format!("spawn::tests::{entry}"))
                        .args(harness)
                        .output()
                })
                .expect("it runs");
            [output.stdout, output.stderr].map(|bytes| {
                let text = String::from_utf8(bytes).expect("it is text");
                let lines = text.lines().filter(|line| line.starts_with("[c"));
                let mut lines: Vec<_> = lines.map(str::to_owned).collect();
                lines.retain(|line| !line.contains("running") && line.len() > 5);
                // Only the order within a child is one.
                lines.sort_by_key(|line| line[..4].to_owned());
                lines
            })
        };
        let [stdout, stderr] = output("prefixed_entry");
        assert_eq!(stderr, ["[c1] cried 1", "[c2] cried 2"]);
        let lengths: Vec<_> = stdout.iter().map(|line| (&line[..9], line.len())).collect();
        let mut expected = Vec::new();
        for (said, much) in [("[c1] said", "[c1] much"), ("[c2] said", "[c2] much")] {
            expected.extend([(said, 11), (much, 5 + 65_536)]);
        }
        let whole: Vec<_> = lengths
            .iter()
            .filter(|(begin, _)| !begin.contains('+'))
            .copied()
            .collect();
        assert_eq!(whole, expected);
        let pieces = lengths.iter().filter(|(begin, _)| begin.contains('+'));
        assert_eq!(
            pieces.map(|(_, length)| length - 6).sum::<usize>(),
            2 * (250_000 - 65_536)
        );
        assert_eq!(output("null_entry"), [Vec::<String>::new(), Vec::new()]);
    }

    #[test]
    #[ignore = "entry of a main process that is killed"]
    fn dying_main_entry() {
        let (_supervisor, mut sides) = started("echo_entry", 3);
        sides[0].link.say(b"deaf").expect("alive");
        sides[1].link.say(b"hold").expect("alive");
        kill(id());
    }

    /// The children have inherited their main process's standard error, so its end shows that they are gone too.
    #[test]
    fn no_child_outlives_its_main_process() {
        let begin = now();
        let (status, ..) = run_alone("dying_main_entry");
        assert_eq!(ExitKind::of(Some(status)), ExitKind::Signal(9));
        assert!(begin.elapsed() < LONG, "took {:?}", begin.elapsed());
    }

    fn entries(directory: impl AsRef<Path>) -> usize {
        fs::read_dir(directory).map_or(0, Iterator::count)
    }

    /// In a process of its own, which may open 100 descriptors.
    #[test]
    #[ignore = "entry of the test below"]
    fn few_descriptors_entry() {
        let supervisor = supervisor();
        let mut order = order("echo_entry", 1);
        order.carrier = Link::Channel;
        order.output = Output::Prefixed;
        order.program.quiet_stdout = false;
        let mut sides = start(&supervisor, order.clone()).expect("one can be had");
        let before = entries("/proc/self/fd");
        order.clusters = vec![(7, "c7".to_owned()), (8, "c8".to_owned())];
        sides.extend(start(&supervisor, order.clone()).expect("three can be had"));
        let taken = entries("/proc/self/fd") - before;
        assert_eq!(taken, 2 * limits::DESCRIPTORS_PER_CHILD);
        order.clusters = (10..110)
            .map(|number| (number, format!("c{number}")))
            .collect();
        let error = start(&supervisor, order.clone())
            .err()
            .expect("it is refused");
        let SpawnError::TooManyClusters {
            asked,
            possible,
            limit,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((asked, limit), (100, 100));
        assert_eq!(supervisor.pids().len(), sides.len(), "none was started");
        order.clusters.truncate(possible + 1);
        let error = start(&supervisor, order.clone())
            .err()
            .expect("it is refused");
        assert!(
            matches!(error, SpawnError::TooManyClusters { .. }),
            "{error}"
        );
        order.clusters.truncate(possible);
        sides.extend(start(&supervisor, order.clone()).expect("so many can be had"));
        for side in &mut sides {
            assert_eq!(asked_of(side), b"hello");
        }
    }

    fn asked_of(side: &mut MainSide) -> Vec<u8> {
        asked(side, b"hello").expect("alive")
    }

    #[test]
    fn more_children_than_there_are_descriptors_for_are_refused() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""])
            .arg(env::current_exe().expect("this is it"))
            .args([
                "spawn::tests::few_descriptors_entry",
                "--exact",
                "--ignored",
            ])
            .output()
            .expect("there is a shell");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    #[test]
    #[ignore = "entry of the test below"]
    fn unusable_temp_dir_entry() {
        let error = refused("echo_entry", 1);
        let SpawnError::TempDirUnusable { directory, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*directory, env::temp_dir());
        assert!(error.to_string().contains("set TMPDIR"), "{error}");
    }

    #[test]
    fn a_temporary_directory_that_cannot_be_written_to_is_refused() {
        for directory in ["/nowhere/at/all", "/proc/self", "/dev/null"] {
            let output = own_executable()
                .and_then(|mut command| {
                    command
                        .args([
                            "spawn::tests::unusable_temp_dir_entry",
                            "--exact",
                            "--ignored",
                        ])
                        .env("TMPDIR", directory)
                        .output()
                })
                .expect("it runs");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }

    #[test]
    #[ignore = "entry of the test below"]
    fn deleted_program_entry() {
        let path = env::current_exe().expect("this is it");
        fs::remove_file(&path).expect("it is a copy");
        fs::write(&path, "#!/bin/sh\nexit 55\n").expect("it can be written");
        let (_supervisor, mut sides) = started("echo_entry", 1);
        assert_eq!(asked_of(&mut sides[0]), b"hello");
        fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn a_program_that_was_replaced_while_it_runs_starts_its_own_children() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let copy = env::temp_dir().join(format!("maslite-copy-{}", id()));
        fs::copy(env::current_exe().expect("this is it"), &copy).expect("there is room");
        let output = Command::new(&copy)
            .args([
                "spawn::tests::deleted_program_entry",
                "--exact",
                "--ignored",
            ])
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(!copy.exists());
    }

    /// In a process of its own, where no other test opens files or starts threads.
    #[test]
    #[ignore = "entry of the test below"]
    fn leak_entry() {
        let mut before = None;
        for round in 0..50 {
            let mut supervisor = supervisor();
            let mut order = order("echo_entry", 2);
            order.output = Output::Null;
            let mut sides = start(&supervisor, order).expect("the children start");
            assert_eq!(asked(&mut sides[1], b"hello").expect("alive"), b"hello");
            supervisor.expect_exits();
            let grace = if round % 2 == 0 {
                sides[0].link.say(b"stop").expect("alive");
                LONG
            } else {
                Duration::ZERO
            };
            drop(sides);
            for end in supervisor.wait_all(grace) {
                assert!(!Path::new(&format!("/proc/{}", end.pid)).exists(), "reaped");
            }
            assert!(matches!(
                refused("forgetful_entry", 2),
                SpawnError::ExitedBeforeHello { .. }
            ));
            let open = (entries("/proc/self/fd"), entries("/proc/self/task"));
            assert_eq!(*before.get_or_insert(open), open, "in round {round}");
        }
    }

    #[test]
    fn nothing_is_left_behind() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let (status, stderr, left) = run_alone("leak_entry");
        assert!(status.success(), "{stderr}");
        assert_eq!(left, 0, "temporary files are left");
    }
}
