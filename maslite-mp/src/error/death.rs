//! Finds out why a process ended: from its exit status, the end of its stderr, and the system's
//! count of kills for lack of memory.
//!
//! The status alone is not enough. An abort, a stack overflow and a failed allocation all end with
//! `SIGABRT`; the runtime writes to stderr which of them happened. The sender of a `SIGKILL` is
//! unknown; if the system sent it for lack of memory, the system's own count of such kills has
//! risen.

use std::fmt;
use std::fs;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

/// Exit code of a child whose link was lost because its main process is gone.
pub(crate) const EXIT_LIFELINE_LOST: i32 = 90;
/// Exit code of a child that refused a message of its main process, or uses another version of the
/// protocol.
pub(crate) const EXIT_PROTOCOL_MISMATCH: i32 = 91;
/// Exit code of a child that could not set itself up.
pub(crate) const EXIT_INIT_FAILED: i32 = 92;
/// Exit code of a child whose program reached its own start of a simulation instead of the child's
/// entry.
pub(crate) const EXIT_ENTRY_MISSING: i32 = 93;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitKind {
    /// Code 0. It is no success if the process should have lived on: it exited silently.
    Success,
    /// Code 101: a panic in its main thread outside of agents.
    Panic,
    /// Code 90: it lost its connection to its main process.
    LifelineLost,
    /// Code 91: it refused a message of its main process, or uses another version of the protocol.
    ProtocolMismatch,
    /// Code 92: it could not set itself up.
    InitFailed,
    /// Code 93: its program never called the entry of child processes.
    EntryMissing,
    /// Any other code.
    Code(i32),
    /// Its stack overflowed, according to its stderr.
    StackOverflow,
    /// An allocation failed, according to its stderr.
    AllocationFailed {
        /// The size of the allocation \[bytes\].
        bytes: u64,
    },
    /// It panicked during another panic, or in code that must not unwind, according to its stderr.
    DoublePanic,
    /// It was killed, and the system killed processes for lack of memory while it lived.
    OutOfMemory {
        /// The number of such kills: in its control group if the system counts by group, otherwise
        /// on the whole machine.
        kills: u64,
    },
    /// A signal with this number ended it.
    Signal(i32),
    /// Main killed it, because it did not answer in time:
    /// [`MpMainBuilder::answer_limit`](crate::MpMainBuilder::answer_limit).
    NoAnswer,
    /// The system did not keep the exit status, for instance because the program ignores `SIGCHLD`.
    Unknown,
}

impl ExitKind {
    /// Decodes what `wait` returned.
    pub(crate) fn of(status: Option<ExitStatus>) -> Self {
        let Some(status) = status else {
            return Self::Unknown;
        };
        match status.code() {
            Some(0) => Self::Success,
            Some(101) => Self::Panic,
            Some(EXIT_LIFELINE_LOST) => Self::LifelineLost,
            Some(EXIT_PROTOCOL_MISMATCH) => Self::ProtocolMismatch,
            Some(EXIT_INIT_FAILED) => Self::InitFailed,
            Some(EXIT_ENTRY_MISSING) => Self::EntryMissing,
            Some(code) => Self::Code(code),
            None => signal_of(status).map_or(Self::Unknown, Self::Signal),
        }
    }

    /// Refines the kind with the end of its stderr and the count of kills for lack of memory.
    pub(crate) fn explained(self, stderr: &str, kills: u64) -> Self {
        match self {
            Self::Signal(SIGABRT | SIGSEGV) if stderr.contains("has overflowed its stack") => {
                Self::StackOverflow
            }
            Self::Signal(SIGABRT) => match failed_allocation(stderr) {
                Some(bytes) => Self::AllocationFailed { bytes },
                None if stderr.contains("thread panicked while processing panic")
                    || stderr.contains("panic in a destructor during cleanup")
                    || stderr.contains("panic in a function that cannot unwind") =>
                {
                    Self::DoublePanic
                }
                None => self,
            },
            Self::Signal(SIGKILL) if kills > 0 => Self::OutOfMemory { kills },
            _ => self,
        }
    }

    /// Returns what to do about it, if anything is known.
    pub(crate) fn next_step(self) -> Option<&'static str> {
        Some(match self {
            Self::Success | Self::Code(_) => {
                "an agent has probably called `std::process::exit`, which agents must not call"
            }
            Self::StackOverflow => {
                "look for a recursion without end, or start the program with more stack (`ulimit -s`)"
            }
            Self::AllocationFailed { .. } | Self::OutOfMemory { .. } => {
                "give the simulation more memory, or use fewer or smaller clusters"
            }
            Self::DoublePanic => "look for a `Drop` or a callback of foreign code that panics",
            Self::Signal(4 | 5 | 7 | 8 | 10 | SIGSEGV | 31) => {
                "look for `unsafe` code and foreign libraries, with a debugger and a core dump"
            }
            Self::Signal(24 | 25) => "raise the limit (`ulimit -t`, `ulimit -f`)",
            Self::LifelineLost => {
                "if main still lives, an agent has closed descriptors that are not its own"
            }
            Self::InitFailed => "an agent that starts a simulation of its own can cause this, too",
            _ => return None,
        })
    }

    /// Whether the end of its stderr may tell more than this kind.
    fn is_vague(self) -> bool {
        !matches!(
            self,
            Self::StackOverflow
                | Self::AllocationFailed { .. }
                | Self::OutOfMemory { .. }
                | Self::NoAnswer
                | Self::Signal(SIGKILL)
        )
    }
}

/// Returns the number in "memory allocation of 123 bytes failed".
fn failed_allocation(stderr: &str) -> Option<u64> {
    let (_, rest) = stderr.rsplit_once("memory allocation of ")?;
    let (bytes, rest) = rest.split_once(' ')?;
    rest.starts_with("bytes failed")
        .then(|| bytes.parse().ok())
        .flatten()
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_status: ExitStatus) -> Option<i32> {
    None
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("exited silently, with code 0"),
            Self::Panic => f.write_str("panicked outside of its agents' methods (code 101)"),
            Self::LifelineLost => {
                f.write_str("ended itself because it lost its connection to main (code 90)")
            }
            Self::ProtocolMismatch => {
                f.write_str("refused what main sent, or does not speak its protocol (code 91)")
            }
            Self::InitFailed => f.write_str("could not set itself up (code 92)"),
            Self::EntryMissing => f.write_str(
                "started a simulation of its own (code 93); `Registry::enter` must be the first line of main",
            ),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::StackOverflow => f.write_str("overflowed its stack"),
            Self::AllocationFailed { bytes } => {
                write!(f, "ran out of memory: an allocation of {bytes} bytes failed")
            }
            Self::DoublePanic => f.write_str("panicked during a panic, or in code that must not unwind"),
            Self::OutOfMemory { kills } => write!(
                f,
                "was killed (SIGKILL), most likely by the system for lack of memory: its count of such kills, oom_kill, rose by {kills}"
            ),
            Self::Signal(number) => write_signal(*number, f),
            Self::NoAnswer => f.write_str("did not answer in time, and main killed it"),
            Self::Unknown => f.write_str("ended with an unknown exit status"),
        }
    }
}

/// The signals that end processes in practice. Their numbers are the same on Linux and macOS, but
/// for those of SIGBUS and SIGSYS.
fn write_signal(number: i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (what, name) = match number {
        1 => ("was ended", "SIGHUP"),
        2 => ("was interrupted", "SIGINT"),
        3 => ("was ended", "SIGQUIT"),
        4 => ("met an illegal instruction", "SIGILL"),
        5 => ("was trapped", "SIGTRAP"),
        SIGABRT => ("aborted", "SIGABRT"),
        8 => ("had an arithmetic fault", "SIGFPE"),
        SIGKILL => ("was killed", "SIGKILL"),
        SIGSEGV => ("had a segmentation fault", "SIGSEGV"),
        13 => ("was ended", "SIGPIPE"),
        14 => ("was ended", "SIGALRM"),
        15 => ("was terminated", "SIGTERM"),
        24 => ("exceeded its limit of processor time", "SIGXCPU"),
        25 => ("exceeded its limit on the size of files", "SIGXFSZ"),
        7 if cfg!(target_os = "linux") => ("had a bus error", "SIGBUS"),
        10 if cfg!(target_os = "macos") => ("had a bus error", "SIGBUS"),
        31 if cfg!(target_os = "linux") => ("made a forbidden system call", "SIGSYS"),
        _ => return write!(f, "was ended by signal {number}"),
    };
    write!(f, "{what} ({name})")?;
    if number == SIGKILL {
        // The system does not tell who sent this signal.
        f.write_str("; the sender of the signal is unknown")?;
    }
    Ok(())
}

/// The end of a cluster's process, with the evidence of its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// Its cluster.
    pub cluster: String,
    /// Its process id. Another process may have it by now.
    pub pid: u32,
    /// How it ended.
    pub exit: ExitKind,
    /// The end of its stderr, at most 64 KiB; empty if its stderr was not piped to main, and in the
    /// status of a simulation.
    #[serde(skip)]
    pub stderr: String,
}

impl Death {
    /// Makes a death without further evidence.
    pub(crate) fn bare(cluster: String, pid: u32, exit: ExitKind) -> Self {
        Self {
            cluster,
            pid,
            exit,
            stderr: String::new(),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, pid, .. } = self;
        write!(f, "the process of cluster {cluster} (pid {pid}) ")?;
        write!(f, "{}", Explained(self.exit, &self.stderr))
    }
}

/// Shows how a process ended, its last output if that tells more, and the next step.
pub(crate) struct Explained<'a>(pub(crate) ExitKind, pub(crate) &'a str);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(exit, stderr) = self;
        write!(f, "{exit}")?;
        if exit.is_vague()
            && let Some(said) = last_words(stderr)
        {
            write!(f, "; its last output: {said:?}")?;
        }
        match exit.next_step() {
            Some(step) => write!(f, "; {step}"),
            None => Ok(()),
        }
    }
}

/// Returns the most informative lines of a stderr: those of the last panic, otherwise the last
/// line.
fn last_words(stderr: &str) -> Option<String> {
    let lines = || stderr.lines().filter(|line| !line.trim().is_empty());
    let panicked = |line: &str| line.starts_with("thread '") && line.contains(" panicked at ");
    let count = lines().count();
    let last_panic = lines()
        .rev()
        .position(panicked)
        .map(|from_end| count - 1 - from_end);
    let (from, so_many) = match last_panic {
        Some(place) => (place, 2),
        None => (count.checked_sub(1)?, 1),
    };
    let words: Vec<&str> = lines().skip(from).take(so_many).collect();
    Some(words.join(" "))
}

/// Counts the processes that the system killed for lack of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct OomKills {
    /// The file in which the system counts, and the count at the beginning.
    at_first: Option<(String, u64)>,
}

impl OomKills {
    /// Begins to count: by control group if the system does, which is exact, otherwise on the whole
    /// machine.
    pub(crate) fn begin() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let candidates = files_of_groups(&groups).chain(["/proc/vmstat".to_owned()]);
        let mut counted =
            candidates.filter_map(|file| read_count(&file).map(|count| (file, count)));
        Self {
            at_first: counted.next(),
        }
    }

    /// Returns the number of kills since the beginning.
    pub(crate) fn since(&self) -> u64 {
        let Some((file, at_first)) = &self.at_first else {
            return 0;
        };
        read_count(file).map_or(0, |count| count.saturating_sub(*at_first))
    }
}

/// Returns the files with the counts of the groups in `/proc/self/cgroup`, of version 2 and of
/// version 1.
fn files_of_groups(groups: &str) -> impl Iterator<Item = String> + '_ {
    groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (kinds, path) = (parts.next()?, parts.next()?.trim_end_matches('/'));
        if kinds.is_empty() {
            return Some(format!("/sys/fs/cgroup{path}/memory.events"));
        }
        let memory = kinds.split(',').any(|kind| kind == "memory");
        memory.then(|| format!("/sys/fs/cgroup/memory{path}/memory.oom_control"))
    })
}

/// Reads the number behind `oom_kill` in a file of words and numbers.
fn read_count(file: &str) -> Option<u64> {
    count_in(&fs::read_to_string(file).ok()?)
}

fn count_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_explains_an_abort() {
        let abort = ExitKind::Signal(SIGABRT);
        for (stderr, kind) in [
            (
                "\nthread 'main' (77) has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
                ExitKind::StackOverflow,
            ),
            (
                "memory allocation of 5 bytes failed\nmemory allocation of 99887766 bytes failed\n",
                ExitKind::AllocationFailed { bytes: 99_887_766 },
            ),
            ("memory allocation of much more\n", abort),
            (
                "thread 'main' panicked at library/core/src/panicking.rs:230:5:\npanic in a destructor during cleanup\n",
                ExitKind::DoublePanic,
            ),
            ("", abort),
        ] {
            assert_eq!(abort.explained(stderr, 1), kind, "{stderr}");
            // It does not explain what is no abort.
            let code = ExitKind::Code(3);
            assert_eq!(code.explained(stderr, 1), code, "{stderr}");
        }
    }

    #[test]
    fn a_kill_is_for_lack_of_memory_only_with_evidence() {
        let kill = ExitKind::Signal(SIGKILL);
        assert_eq!(kill.explained("", 0), kill);
        assert_eq!(
            kill.to_string(),
            "was killed (SIGKILL); the sender of the signal is unknown"
        );
        let starved = kill.explained("", 2);
        assert_eq!(starved, ExitKind::OutOfMemory { kills: 2 });
        assert_eq!(
            starved.to_string(),
            "was killed (SIGKILL), most likely by the system for lack of memory: its count of such kills, oom_kill, rose by 2"
        );
    }

    #[test]
    fn the_system_counts_by_group_or_for_all() {
        let both = "9:name=systemd:/\n4:memory:/user/7\n3:cpu,cpuacct:/\n0::/app.slice\n";
        assert_eq!(
            files_of_groups(both).collect::<Vec<_>>(),
            [
                "/sys/fs/cgroup/memory/user/7/memory.oom_control",
                "/sys/fs/cgroup/app.slice/memory.events"
            ]
        );
        assert_eq!(count_in("oom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(count_in("nr_free_pages 12\n"), None);
        if cfg!(target_os = "linux") {
            let kills = OomKills::begin();
            assert!(kills.at_first.is_some());
            assert_eq!(kills.since(), 0);
        }
    }

    #[test]
    fn a_death_tells_what_explains_it_and_what_to_do() {
        let death = |exit, stderr: &str| Death {
            cluster: "north".to_owned(),
            pid: 12,
            exit,
            stderr: stderr.to_owned(),
        };
        let panic = "hello\n\nthread 'main' (12) panicked at src/main.rs:3:5:\nout of paint\nnote: run with `RUST_BACKTRACE=1`\n";
        for (exit, stderr, text) in [
            (
                ExitKind::Success,
                "",
                "the process of cluster north (pid 12) exited silently, with code 0; an agent has probably called \
                 `std::process::exit`, which agents must not call",
            ),
            (
                ExitKind::Panic,
                panic,
                "the process of cluster north (pid 12) panicked outside of its agents' methods (code 101); its last output: \
                 \"thread 'main' (12) panicked at src/main.rs:3:5: out of paint\"",
            ),
            (
                ExitKind::Signal(6),
                "one\ntwo\n\n",
                "the process of cluster north (pid 12) aborted (SIGABRT); its last output: \"two\"",
            ),
            (
                ExitKind::Signal(9),
                "nothing of interest\n",
                "the process of cluster north (pid 12) was killed (SIGKILL); the sender of the signal is unknown",
            ),
        ] {
            assert_eq!(death(exit, stderr).to_string(), text);
        }
    }
}
