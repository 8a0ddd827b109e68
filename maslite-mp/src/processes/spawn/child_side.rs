//! The child's side of a start, and of the control line from then on.
//!
//! **Invariant:** from the handshake on a thread reads the control line, and ends the process when
//! that closes; before, who shakes hands reads it. So no child outlives main.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::process::{abort, exit, id};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use maslite_core::internal::LockEvenPoisoned;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
#[cfg(target_os = "linux")]
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::process::{Signal, getpgrp, getpid, kill_process, kill_process_group};

use super::MARKER;
use super::entry::{Meant, Point, write_point};
use super::handshake::{Hello, Invitation, NextOffer, Word};
use crate::error::Chain;
use crate::error::death::EXIT_LIFELINE_LOST;
use crate::error::spawn::ChildError;
use crate::links::kinds::{KindNumber, numbered};
use crate::links::transport::{Transport, Wait};
use crate::processes::supervision::{ASK, Answer, INTERRUPT};
use crate::settings::timing::{CHILD_END_LIMIT, END_NEWS_LIMIT};
use crate::stall::detector::ClusterActivity;

/// A child's side of its connection with main.
pub(crate) struct ChildSide {
    pub(crate) link: Box<dyn Transport>,
    /// Grants up to this number are to end after the superstep they are in.
    pub(crate) interrupts: Arc<AtomicU64>,
    /// What it tells main when asked.
    pub(crate) cluster_activity: Arc<ClusterActivity>,
    /// It is a process, which goes with main.
    pub(crate) is_process: bool,
    /// Where a process sees whether main is gone.
    watch: Option<Arc<MainWatch>>,
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the children of tests tell themselves apart by it"
        )
    )]
    pub(crate) cluster: u32,
}

/// Whether this process was started as a child of ours. Such a process must not start a simulation
/// of its own.
pub(crate) fn is_child() -> bool {
    let is_marked = || marked_parent().is_some_and(|parent| parent == parent_id() || is_orphan());
    // What tells an orphan is gone once it has taken its control line.
    STARTED_AS_CHILD.get() == Some(&id()) || is_marked()
}

/// The process id of this process, if it is a child that has come to an `enter`.
static STARTED_AS_CHILD: OnceLock<u32> = OnceLock::new();

/// Whether this process, which has the marker and another parent, is a child whose main process has
/// died since it was started. What agents start inherits the marker, but it has no control line,
/// and rarely a process group of its own.
///
/// Without this a child that loses its main process before it gets here would take itself for a
/// main process, and begin anew.
fn is_orphan() -> bool {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let is_socket = stdin.is_ok_and(|stdin| UnixStream::from(stdin).local_addr().is_ok());
    is_socket && getpgrp() == getpid()
}

/// The process id in the marker.
fn marked_parent() -> Option<u32> {
    env::var(MARKER).ok()?.parse().ok()
}

/// What a call of `enter` comes to.
pub(crate) enum Arrival {
    /// This process is no child.
    Main,
    /// It is a child, and goes on: another call of `enter` is meant.
    Passing,
    /// It is a child, and from here on a cluster.
    Child(ChildSide),
    Failed(ChildError),
}

/// What has become of this process as a child.
enum Progress {
    /// It has not come to any `enter`.
    Fresh,
    /// It has not come to the `enter` that main meant.
    Passing(Guest),
    Entered,
}

static PROGRESS: Mutex<Progress> = Mutex::new(Progress::Fresh);

/// A child that is not set up yet.
struct Guest {
    control: UnixStream,
    invitation: Invitation,
    /// What came with the invitation for the link.
    sent: Option<OwnedFd>,
}

/// Sets this process up as a child, if it is one, and main meant this call of `enter`. `wait` is
/// for the child's end of the link.
///
/// From the handshake on a thread of this process reads its control line, and ends the process when
/// main is gone.
pub(crate) fn arrive(point: &Point, wait: Wait) -> Arrival {
    if !is_child() {
        return Arrival::Main;
    }
    STARTED_AS_CHILD.get_or_init(id);
    let mut progress = PROGRESS.lock_even_poisoned();
    let guest = match mem::replace(&mut *progress, Progress::Entered) {
        Progress::Fresh => Guest::receive(),
        Progress::Passing(guest) => Ok(guest),
        Progress::Entered => {
            let place = point.place.clone();
            let error = ChildError::EnteredTwice { place };
            say_in_stderr(&error);
            return Arrival::Failed(error);
        }
    };
    let guest = match guest {
        Ok(guest) => guest,
        Err(error) => return Arrival::Failed(error),
    };
    match guest.invitation.is_for(point) {
        Meant::Here => guest
            .set_up(point, wait)
            .map_or_else(Arrival::Failed, Arrival::Child),
        Meant::HereButChanged => {
            // If main is gone, the word is not needed.
            let _ = Word::Changed(point.signature.clone()).write(&guest.control);
            Arrival::Failed(ChildError::OtherRegistry)
        }
        Meant::Elsewhere => {
            let passed = Word::Passed(point.to_string(), point.signature.clone());
            let _ = passed.write(&guest.control);
            *progress = Progress::Passing(guest);
            Arrival::Passing
        }
    }
}

/// Whether this process is a child that has not come to the `enter` that main meant.
pub(crate) fn is_passing() -> bool {
    let progress = PROGRESS.lock_even_poisoned();
    matches!(*progress, Progress::Passing(_)) && is_child()
}

/// Ends this process if it is a child that has not come to the `enter` that main meant: clusters of
/// its own would be started in main as well, and theirs would have clusters again. It cannot get
/// past what the program does with their results.
pub(super) fn refuse_to_start() {
    if !is_passing() {
        return;
    }
    let mut progress = PROGRESS.lock_even_poisoned();
    if let Progress::Passing(guest) = mem::replace(&mut *progress, Progress::Entered) {
        let mut point = String::new();
        let _ = write_point(&guest.invitation.place, guest.invitation.call, &mut point);
        let error = ChildError::NotReached { point };
        guest.say(&error);
        exit(error.exit_code());
    }
}

/// Says it where main may find it, when there is no other way.
fn say_in_stderr(error: &ChildError) {
    let _ = writeln!(io::stderr(), "{}", Chain(error));
}

impl Guest {
    /// Takes the control line, and the invitation that lies in it.
    fn receive() -> Result<Self, ChildError> {
        let control = io::stdin().as_fd().try_clone_to_owned();
        let control = control
            .map_err(ChildError::refused("the control line cannot be taken"))
            .inspect_err(say_in_stderr)?;
        let control = UnixStream::from(control);
        let received = leave_nothing_in_stdin()
            .map_err(ChildError::refused("/dev/null cannot be opened"))
            .and_then(|()| Invitation::read(&control));
        match received {
            Ok((invitation, sent)) => Ok(Self {
                control,
                invitation,
                sent,
            }),
            Err(error) => {
                say(&control, &error);
                Err(error)
            }
        }
    }

    /// Tells main why this process ends.
    fn say(&self, error: &ChildError) {
        say(&self.control, error);
    }

    fn set_up(mut self, point: &Point, wait: Wait) -> Result<ChildSide, ChildError> {
        let prepared = self.prepare(wait);
        let prepared = prepared.inspect_err(|error| self.say(error))?;
        let Self {
            control,
            invitation,
            ..
        } = self;
        let control = Arc::new(MainWatch::new(control));
        let Prepared {
            link,
            interrupts,
            cluster_activity,
            watch,
        } = prepared;
        let lost = || ChildError::refused("main is gone");
        let refusal = link.as_ref().err().map(ToString::to_string);
        let hello = Hello::new(&invitation, point.signature.hash(), refusal);
        Word::Hello(hello).write(&control.line).map_err(lost())?;
        let link = match link {
            Ok(link) => link,
            Err(_) => accept_another(&control.line, wait).map_err(lost())?,
        };
        let _ = watch.send(Arc::clone(&control));
        Ok(ChildSide {
            link,
            interrupts,
            cluster_activity,
            is_process: true,
            watch: Some(control),
            cluster: invitation.cluster,
        })
    }

    /// Does all that may fail before main hears that this child is ready.
    fn prepare(&mut self, wait: Wait) -> Result<Prepared, ChildError> {
        if let Some(directory) = &self.invitation.directory {
            env::set_current_dir(OsStr::from_bytes(directory)).map_err(ChildError::refused(
                "the working directory of main cannot be entered",
            ))?;
        }
        let link = accept(self.invitation.kind, self.sent.take(), wait);
        show_as(self.invitation.cluster);
        let interrupts = Arc::new(AtomicU64::new(0));
        let cluster_activity = Arc::new(ClusterActivity::default());
        let (watch, line) = mpsc::channel::<Arc<MainWatch>>();
        let (told, shown) = (Arc::clone(&interrupts), Arc::clone(&cluster_activity));
        let watching = thread::Builder::new().name("maslite-control".to_owned());
        watching
            .spawn(move || {
                let Ok(control) = line.recv() else {
                    return;
                };
                let end = obey(&control, &told, &shown);
                if is_gone(&end) && control.line.local_addr().is_ok() {
                    die();
                }
                // Main may live. An agent of this process has closed the line, and another file may
                // have its number by now.
                end_telling();
            })
            .map_err(ChildError::refused("no thread can be started"))?;
        Ok(Prepared {
            link,
            interrupts,
            cluster_activity,
            watch,
        })
    }
}

/// Makes this child's end of a link from what main has sent.
fn accept(kind: KindNumber, sent: Option<OwnedFd>, wait: Wait) -> io::Result<Box<dyn Transport>> {
    // The system drops it without an error if this process may open no more files.
    let lost = || io::Error::other("what main sent for the link was lost on its way");
    numbered(kind)?.accept(sent.ok_or_else(lost)?, wait)
}

/// Accepts another kind of link, as soon as main offers one that this child can have.
fn accept_another(control: &UnixStream, wait: Wait) -> io::Result<Box<dyn Transport>> {
    loop {
        let (NextOffer(kind), sent) = NextOffer::read(control)?;
        let link = accept(kind, sent, wait);
        let refusal = link.as_ref().err().map(ToString::to_string);
        Word::Answer(refusal).write(control)?;
        if let Ok(link) = link {
            return Ok(link);
        }
    }
}

/// What a child has when nothing can fail any more before its Hello.
struct Prepared {
    /// Its end of the link it was offered, or why it cannot have that.
    link: io::Result<Box<dyn Transport>>,
    interrupts: Arc<AtomicU64>,
    cluster_activity: Arc<ClusterActivity>,
    /// To the thread that reads the control line once main has heard of this child.
    watch: Sender<Arc<MainWatch>>,
}

/// Tells main over the control line why this process ends, or in its stderr if main does not hear.
fn say(control: &UnixStream, error: &ChildError) {
    if Word::Failed(Chain(error).to_string())
        .write(control)
        .is_err()
    {
        say_in_stderr(error);
    }
}

impl ChildSide {
    /// Main has let this process in. From here on all that its agents start goes with main, too.
    pub(crate) fn settle(&self) {
        if self.is_process {
            wake_with_end_of_parent();
        }
    }

    /// The link is broken. If that is because main is gone, ends this process and all that its
    /// agents have started: main cannot.
    pub(crate) fn end_with_main(&self) {
        if self.watch.as_ref().is_some_and(|main| main.is_going()) {
            die();
        }
    }

    #[cfg(test)]
    /// The side of a child that is no process.
    pub(crate) fn in_memory(
        link: Box<dyn Transport>,
        interrupts: Arc<AtomicU64>,
        cluster: u32,
    ) -> Self {
        Self {
            link,
            interrupts,
            cluster_activity: Arc::default(),
            is_process: false,
            watch: None,
            cluster,
        }
    }
}

/// Leaves `/dev/null` in the place of the control line, so that nothing an agent does or starts
/// reads main's bytes.
///
/// The line itself is read without a buffer: `std::io::stdin()` would take bytes that are not its
/// own.
fn leave_nothing_in_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}

#[cfg(test)]
/// Takes the control line as a child does.
pub(super) fn take_stdin() -> io::Result<UnixStream> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    leave_nothing_in_stdin()?;
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

/// Makes the kernel wake this process when the thread that started it is gone. Until now it would
/// have killed it ([`Program::death_signal`](super::Program::death_signal)), and only it: from here
/// on there are agents, what they start is to end as well, and only this process can see to that.
/// Its control thread does, which the kernel has to wake if the process has been stopped.
#[cfg(target_os = "linux")]
fn wake_with_end_of_parent() {
    let parent = parent_id();
    // An error leaves it killed.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
    if parent_id() != parent || marked_parent() != Some(parent) {
        die();
    }
}

#[cfg(not(target_os = "linux"))]
fn wake_with_end_of_parent() {}

/// By which a child sees that main is gone.
#[derive(Debug)]
pub(super) struct MainWatch {
    /// The control line: it closes when no process holds main's end.
    pub(super) line: UnixStream,
    /// The process itself, since one that it has forked may hold that end. None where the system
    /// cannot tell.
    process: Option<OwnedFd>,
}

impl MainWatch {
    pub(super) fn new(line: UnixStream) -> Self {
        let process = main_process();
        Self { line, process }
    }

    /// Waits until the line or the process shows one of these events; not for ever, if there is a
    /// limit. Tells whether the line does, and whether the process has ended.
    fn look(&self, events: PollFlags, limit: Option<&Timespec>) -> io::Result<(bool, bool)> {
        let mut both = vec![PollFd::new(&self.line, events)];
        let process = self.process.as_ref();
        both.extend(process.map(|process| PollFd::new(process, PollFlags::IN)));
        retry_on_intr(|| poll(&mut both, limit))?;
        // An agent may have closed them: that is neither.
        let mut seen = both.iter().map(PollFd::revents);
        let line = seen.next().unwrap_or_else(PollFlags::empty);
        let process = seen.next().unwrap_or_else(PollFlags::empty);
        Ok((
            line.intersects(events | PollFlags::HUP),
            process.contains(PollFlags::IN),
        ))
    }

    /// Whether main is gone, or is just about to be.
    fn is_going(&self) -> bool {
        let limit = Timespec::try_from(END_NEWS_LIMIT).expect("a second can be waited for");
        match self.look(CLOSED, Some(&limit)) {
            Ok((line, process)) => line || process,
            Err(_) => true,
        }
    }
}

/// Nothing but the end of the line.
#[cfg(target_os = "linux")]
const CLOSED: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const CLOSED: PollFlags = PollFlags::HUP;

/// A descriptor of the main process, if it is still there.
#[cfg(target_os = "linux")]
fn main_process() -> Option<OwnedFd> {
    let parent = marked_parent()?;
    let pid = Pid::from_raw(i32::try_from(parent).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // As long as it is our parent, no other process has its number.
    (parent_id() == parent).then_some(process)
}

#[cfg(not(target_os = "linux"))]
fn main_process() -> Option<OwnedFd> {
    None
}

/// Reads the control line, and answers, until main is gone.
pub(super) fn obey(
    main: &MainWatch,
    interrupts: &AtomicU64,
    cluster_activity: &ClusterActivity,
) -> io::Result<()> {
    let mut control = &main.line;
    loop {
        if let (_, true) = main.look(PollFlags::IN, None)? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut command = [0];
        control.read_exact(&mut command)?;
        match command {
            [INTERRUPT] => {
                let mut up_to = [0; 8];
                control.read_exact(&mut up_to)?;
                interrupts.fetch_max(u64::from_le_bytes(up_to), Ordering::SeqCst);
            }
            [ASK] => Answer::write(cluster_activity, control)?,
            _ => return Ok(()),
        }
    }
}

/// Whether main has closed the control line, or is gone.
fn is_gone(end: &io::Result<()>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let kind = end.as_ref().map_err(io::Error::kind);
    matches!(kind, Err(BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Ends this process with a code that says why, or without one if that takes long: destructors and
/// handlers run beside the agents' thread, and one of them may wait for ever.
fn end_telling() -> ! {
    let watch = thread::Builder::new().name("maslite-end".to_owned());
    let watching = watch.spawn(|| {
        thread::park_timeout(CHILD_END_LIMIT);
        die();
    });
    if watching.is_err() {
        die();
    }
    exit(EXIT_LIFELINE_LOST)
}

/// Ends this process at once, and all in its process group: what its agents have started. Not by
/// `exit`: that runs destructors and handlers beside the agents' thread, and one of them may wait
/// for ever. `_exit` would be right but needs unsafe code; `SIGKILL` does the same, and the exit
/// code is not read.
fn die() -> ! {
    let this = getpid();
    // It fails if an agent has taken this process to another group; that one is none of ours.
    let _ = kill_process_group(this, Signal::KILL);
    let _ = kill_process(this, Signal::KILL);
    abort()
}
