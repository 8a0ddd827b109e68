//! A child under supervision: what it is asked and answers, and its end.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maslite_core::AgentId;
use maslite_core::internal::{LockEvenPoisoned, Sample, is_reporting_panic};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};
use shared_child::SharedChild;

use super::{ChildEnd, EndKind};
use crate::error::death::ExitKind;
use crate::error::warning::Activity;
use crate::links::codec;
use crate::links::transport::now;
use crate::processes::output::Outlet;
use crate::processes::printed::Printed;
use crate::processes::spawn::handshake::NO_SIGNAL;
use crate::stall::detector::{ClusterActivity, Probe, ProbeAnswer};

/// The first byte of an interrupt in the control line.
pub(crate) const INTERRUPT: u8 = b'H';

/// The question in the control line.
pub(crate) const ASK: u8 = b'?';

pub(super) const SIGKILL: i32 = 9;

/// No answer is as long as this \[bytes\]. What comes beyond is left in the socket, where a child
/// that floods it has to wait.
pub(super) const ANSWER_LENGTH: usize = 1 << 20;

/// What a child answers when asked what it is at: a length (u32, little endian), then this in
/// postcard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    busy: bool,
    sample: Sample,
    /// The name of the agent, if it has one.
    name: Option<String>,
    /// It is reporting a panic, which may take long.
    reports_panic: bool,
}

impl Answer {
    /// Writes down what a cluster is at.
    pub(crate) fn write(
        cluster_activity: &ClusterActivity,
        mut into: impl Write,
    ) -> io::Result<()> {
        let (busy, sample) = cluster_activity.look();
        let name = sample.agent.and_then(AgentId::name);
        let answer = Self {
            busy,
            sample,
            name: name.map(|name| name.to_string()),
            reports_panic: is_reporting_panic(),
        };
        let mut bytes = vec![0; 4];
        codec::put(&answer, &mut bytes).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        // All at once: a reader gets it whole or not at all, unless a name is very long.
        into.write_all(&bytes)
    }

    /// Takes an answer off the front of what has arrived, if it is there.
    pub(crate) fn take(arrived: &mut Vec<u8>) -> Option<Self> {
        let (length, rest) = arrived.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let answer = codec::decode(rest.get(..length)?).ok();
        arrived.drain(..4 + length);
        answer
    }
}

/// The link to a child, as far as others than its user may break it.
#[derive(Default)]
pub(super) struct Lifeline(Mutex<Line>);

#[derive(Default)]
enum Line {
    /// There is no link yet.
    #[default]
    Loose,
    Tied(Box<dyn Fn() + Send>),
    Cut,
}

impl Lifeline {
    /// Takes what breaks the link. If it is to be broken already, that happens now.
    pub(super) fn tie(&self, cut: impl Fn() + Send + 'static) {
        let mut line = self.lock();
        if matches!(*line, Line::Cut) {
            cut();
        } else {
            *line = Line::Tied(Box::new(cut));
        }
    }

    /// Breaks the link. A thread that waits at main's end of it is woken, whatever has become of
    /// the child.
    pub(super) fn cut(&self) {
        if let Line::Tied(cut) = mem::replace(&mut *self.lock(), Line::Cut) {
            cut();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock_even_poisoned()
    }
}

impl fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lifeline")
    }
}

/// A child process under supervision.
#[derive(Debug)]
pub(super) struct Watched {
    /// By which its waiter names it; never used twice.
    pub(super) key: u64,
    pub(super) cluster: u32,
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) process: Arc<SharedChild>,
    /// Closing it ends the child.
    pub(super) control: Arc<UnixStream>,
    /// Broken when it has ended, or is given up.
    pub(super) link: Arc<Lifeline>,
    pub(super) waiter: Option<JoinHandle<()>>,
    /// What it prints, if that is piped here.
    pub(super) outlet: Option<Outlet>,
    /// What it had printed when a replay would begin.
    pub(super) printed_before: Printed,
    /// What it printed before it was one of the clusters.
    pub(super) printed_at_start: Printed,
    pub(super) exit: Option<(ExitKind, Instant)>,
    /// What it said last, once that has been asked for.
    pub(super) stderr: String,
    /// By us, while it lived.
    pub(super) killed: bool,
    /// By us, because it did not answer.
    pub(super) given_up: bool,
    /// It was asked and has not answered.
    pub(super) owes_answer: bool,
    /// What of an answer has arrived.
    pub(super) arrived: Vec<u8>,
    #[cfg(test)]
    /// No signal reaches it, as if the kernel were stuck with it.
    pub(super) immortal: bool,
}

impl Watched {
    /// Writes to its control line, if there is room. There is none only if it has not read for
    /// hundreds of commands, and a child that has closed the line is about to be found dead.
    pub(super) fn tell(&self, bytes: &[u8]) -> bool {
        let flags = SendFlags::DONTWAIT | NO_SIGNAL;
        let sent = retry_on_intr(|| rustix::net::send(&self.control, bytes, flags));
        sent == Ok(bytes.len())
    }

    /// Asks what it is at, unless it has not answered the last time. True if it was asked.
    pub(super) fn ask(&mut self) -> bool {
        // An answer that has come too late is to a question of long ago.
        let _ = self.hear(None);
        if self.exit.is_some() || self.owes_answer {
            return false;
        }
        self.owes_answer = self.tell(&[ASK]);
        self.owes_answer
    }

    /// Waits for an answer, or takes one that has arrived.
    pub(super) fn hear(&mut self, until: Option<Instant>) -> Option<Answer> {
        let mut chunk = [0; 512];
        while self.owes_answer {
            if let Some(answer) = Answer::take(&mut self.arrived) {
                self.owes_answer = false;
                return Some(answer);
            }
            if self.arrived.len() >= ANSWER_LENGTH {
                return None;
            }
            let rest = until.map(|until| until.saturating_duration_since(now()));
            // A timeout of zero would be none.
            let rest = rest.unwrap_or_default().max(Duration::from_micros(1));
            self.control.set_read_timeout(Some(rest)).ok()?;
            match (&*self.control).read(&mut chunk) {
                Ok(length @ 1..) => self.arrived.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing came, or nothing will ever come.
                _ => return None,
            }
        }
        None
    }

    /// What it says of itself, if an answer is awaited, or else what the system says of it.
    pub(super) fn probe(&mut self, until: Option<Instant>) -> Probe {
        let answer = until.and_then(|until| self.hear(Some(until)));
        let StateOf {
            state,
            debugger,
            memory,
        } = state_of(self.pid);
        let answer = match answer {
            Some(Answer {
                busy, sample, name, ..
            }) => {
                if let Some(name) = name {
                    let _ = AgentId::named(&name);
                }
                ProbeAnswer::Answered { busy, sample }
            }
            None => ProbeAnswer::Silent(match state {
                Some('T') if is_stopped_by_terminal(self.pid) => Activity::StoppedByTerminal,
                Some('T') => Activity::Stopped,
                Some('t') => Activity::Traced,
                _ => Activity::Silent,
            }),
        };
        Probe {
            cluster: self.name.clone(),
            pid: Some(self.pid),
            answer,
            debugger,
            memory,
        }
    }

    /// Whether it is reporting a panic, as far as it says so.
    pub(super) fn reports_panic(&mut self, until: Option<Instant>) -> bool {
        self.ask() && self.hear(until).is_some_and(|answer| answer.reports_panic)
    }

    pub(super) fn kill(&mut self) {
        if self.exit.is_none() && matches!(self.process.try_wait(), Ok(None)) {
            self.killed = true;
            #[cfg(test)]
            if self.immortal {
                return;
            }
            // It fails only for a process that is gone already.
            let _ = self.process.kill();
        }
    }

    /// Whether its end was its own, and no consequence of another's. Where the system keeps no
    /// status, who was killed died of that.
    pub(super) fn ended_itself(&self) -> bool {
        match self.exit {
            None => false,
            Some((ExitKind::Signal(SIGKILL) | ExitKind::Unknown, _)) => !self.killed,
            Some(_) => true,
        }
    }

    /// Joins the waiter of a child that has been reaped and sums up.
    pub(super) fn end(&mut self, begin: Instant) -> ChildEnd {
        let (how, took) = match self.exit {
            None => (EndKind::Leaked, begin.elapsed()),
            Some((exit, at)) => {
                if let Some(waiter) = self.waiter.take() {
                    let _ = waiter.join();
                }
                let how = match exit {
                    ExitKind::Signal(SIGKILL) if self.killed => EndKind::Killed,
                    ExitKind::Success => EndKind::Clean,
                    other => EndKind::Failed(other),
                };
                (how, at.saturating_duration_since(begin))
            }
        };
        ChildEnd {
            cluster: self.cluster,
            pid: self.pid,
            how,
            took,
            stderr: std::mem::take(&mut self.stderr),
        }
    }
}

/// Waits for the end of a process, and kills whatever it has started and left in its process group.
/// Until it is reaped, its id is also the group's, and no other process has it.
pub(super) fn kill_group_at_end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return;
    };
    let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), end), Err(Errno::INTR)) {}
    // It fails if the process was alone, as most are.
    let _ = kill_process_group(pid, Signal::KILL);
}

/// Whether a child was stopped because it used a terminal in whose foreground it is not: children
/// are in process groups of their own.
fn is_stopped_by_terminal(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let stop = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let status = pid.and_then(|pid| waitid(WaitId::Pid(pid), stop).ok().flatten());
    let signal = status.and_then(|status| status.stopping_signal());
    signal.is_some_and(|signal| [Signal::TTOU.as_raw(), Signal::TTIN.as_raw()].contains(&signal))
}

/// What the system tells of a process.
struct StateOf {
    /// As a letter.
    state: Option<char>,
    /// The process id of its debugger.
    debugger: Option<u32>,
    /// The memory it has in use \[bytes\].
    memory: Option<u64>,
}

fn state_of(pid: u32) -> StateOf {
    // There is no such file but on Linux.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let state = field("State:").and_then(|state| state.chars().next());
    let debugger = field("TracerPid:").and_then(|pid| pid.parse().ok());
    let memory = field("VmRSS:").and_then(|size| size.strip_suffix(" kB"));
    let memory: Option<u64> = memory.and_then(|size| size.trim().parse().ok());
    StateOf {
        state,
        debugger: debugger.filter(|pid| *pid != 0),
        memory: memory.map(|kibibytes| kibibytes * 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_pieces_and_one_after_the_other() {
        let (cluster_activity, mut bytes) = (ClusterActivity::default(), Vec::new());
        for _ in 0..2 {
            Answer::write(&cluster_activity, &mut bytes).expect("a vector takes all");
        }
        let (busy, sample) = cluster_activity.look();
        let answer = Answer {
            busy,
            sample,
            name: None,
            reports_panic: false,
        };
        let (mut arrived, mut heard) = (Vec::new(), Vec::new());
        for byte in bytes {
            arrived.push(byte);
            heard.extend(Answer::take(&mut arrived));
        }
        assert_eq!(heard.len(), 2);
        assert!(heard.iter().all(|heard| *heard == answer) && arrived.is_empty());
    }
}
