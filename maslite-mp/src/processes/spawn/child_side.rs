//! The child's side of a start, and of the control line from then on.
//!
//! **Invariant:** from the handshake on a thread reads the control line, and ends the process when that closes; before, who shakes hands
//! reads it. So no child outlives main.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::process::abort;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::process::{Signal, getpgrp, getpid, kill_process};

use super::MARKER;
use super::handshake::{Hello, Invitation, Summons};
use crate::error::spawn::ChildError;
use crate::links::frame::Framed;
use crate::links::ipc;
use crate::links::ring;
use crate::links::transport::{Transport, Wait};
use crate::processes::supervision::{ASK, Answer, HOLD};
use crate::stall::detector::Pulse;

/// A child's side of its connection with main.
pub(crate) struct ChildSide {
    pub(crate) link: Box<dyn Transport>,
    /// Grants up to this number are to end after the superstep they are in.
    pub(crate) hold: Arc<AtomicU64>,
    /// What it tells main when asked.
    pub(crate) pulse: Arc<Pulse>,
    /// Where it has knocked, if its link is a channel.
    door: Option<String>,
    /// It is a process, which goes with main.
    pub(crate) is_process: bool,
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the children of tests tell themselves apart by it"
        )
    )]
    pub(crate) cluster: u32,
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
    let no_ring = ring
        .as_ref()
        .and_then(|ring| ring.as_ref().err().map(ToString::to_string));
    Hello::new(&invitation, schema, no_ring).write(&control)?;
    let hold = Arc::new(AtomicU64::new(0));
    let pulse = Arc::new(Pulse::default());
    let watch = {
        let (told, shown) = (Arc::clone(&hold), Arc::clone(&pulse));
        move |control: UnixStream, door: Option<String>| {
            let watching = thread::Builder::new().name("maslite-control".to_owned());
            watching.spawn(move || {
                // Main is gone, or says what this build does not understand.
                let _ = obey(&control, &told, &shown);
                // Main takes its door away when it has let this child in, if it lives so long.
                door.iter().for_each(|door| ipc::take_away(door));
                die();
            })
        }
    };
    let (link, door): (Box<dyn Transport>, _) = match ring {
        Some(Ok(ring)) => {
            watch(control, None)?;
            (Box::new(ring), None)
        }
        _ => {
            let Summons { door } = Summons::read(&control)?;
            watch(control, Some(door.clone()))?;
            let packets = ipc::knock(&door, invitation.nonce);
            let packets = packets.inspect_err(|_| ipc::take_away(&door))?;
            let framed = Framed::new(packets, ipc::frame_limit(), wait);
            (Box::new(framed), Some(door))
        }
    };
    Ok(ChildSide {
        link,
        hold,
        pulse,
        door,
        is_process: true,
        cluster,
    })
}

impl ChildSide {
    /// Main is gone: takes away what it may have left.
    pub(crate) fn clear_up(&self) {
        if let Some(door) = &self.door {
            ipc::take_away(door);
        }
    }

    /// Main has let this process in, and from here on it goes with main.
    pub(crate) fn settle(&self) {
        if self.is_process {
            die_with_parent();
        }
    }

    #[cfg(test)]
    /// The side of a child that is no process.
    pub(crate) fn in_memory(link: Box<dyn Transport>, hold: Arc<AtomicU64>, cluster: u32) -> Self {
        Self {
            link,
            hold,
            pulse: Arc::default(),
            door: None,
            is_process: false,
            cluster,
        }
    }
}

/// Takes the control line and leaves `/dev/null` in its place, so that nothing an agent does or starts reads main's bytes.
///
/// Unbuffered: `std::io::stdin()` would take bytes that are not its own.
pub(super) fn take_stdin() -> io::Result<UnixStream> {
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
fn die_with_parent() {
    let parent = parent_id();
    // An error leaves the control line, which is enough for all but stopped processes.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if parent_id() != parent || marked_parent() != Some(parent) {
        die();
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() {}

/// Reads the control line, and answers, until main is gone.
pub(super) fn obey(mut control: &UnixStream, hold: &AtomicU64, pulse: &Pulse) -> io::Result<()> {
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
