//! Why children could not be started, and why a child could not set itself up.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::death::{EXIT_ENTRY_MISSING, EXIT_INIT_FAILED, EXIT_PROTOCOL_MISMATCH, ExitKind};

/// The version of the invitation, the handshake, the control line and the frames.
pub(crate) const PROTOCOL: u32 = 2;

/// Why child processes could not be started. None is left running.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This process may not open as many descriptors as so many clusters need, five each. None was started.
    #[error(
        "{asked} clusters need more descriptors than this process has left of its limit of {limit}: start at most {possible}, \
         or raise the limit (`ulimit -n`)"
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
    #[error("the system refused descriptors, threads or random numbers for child processes")]
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
        BeforeHello::new(*.exit, .stderr, .test.as_deref(), .passed)
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
        /// The test that was to be its entry, if this program is a test harness:
        /// see [`Registry::entered_by_test`](crate::Registry::entered_by_test).
        test: Option<String>,
        /// The calls of `enter` that it had passed, and how the registries there differ from the one that was meant.
        passed: Vec<String>,
    },
    /// The process could not set itself up, and said why.
    #[error("the process of cluster {name} ({cluster}) could not become a cluster: {why}")]
    ChildFailed {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What it said.
        why: String,
    },
    /// The process came to the `enter` that was meant, and the registry there is another one.
    #[error(
        "the process of cluster {name} ({cluster}) has another registry at {point}: {difference}; a program must register the \
         same agents and builders in each of its processes"
    )]
    OtherRegistry {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// The call of `enter`.
        point: String,
        /// What differs in it from the registry of this process.
        difference: String,
    },
    /// The process did not introduce itself in time.
    #[error(
        "the process of cluster {name} ({cluster}) sent no handshake within {waited:?}: its program must call \
         `Registry::enter` in the first line of main, before anything that takes long or reads the standard input"
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
        "the process of cluster {name} ({cluster}) and main cannot share the memory of a ring: use `Link::Auto` or \
         `Link::Channel` on this system"
    )]
    NoRing {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
        /// What the system said, here or in the child.
        source: io::Error,
    },
    /// Somebody else answered in the child's place: another process of this user.
    #[error(
        "another process answered in place of the process of cluster {name} ({cluster}), with a wrong random number: \
             start the simulation again"
    )]
    Stranger {
        /// Its cluster's number.
        cluster: u32,
        /// Its cluster's name.
        name: String,
    },
    /// Main and child are not of the same build.
    #[error(
        "the process of cluster {name} ({cluster}) has {what} {theirs}, and main has {ours}: both must be the same build of \
         the program"
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

maslite_core::readable_debug!(enum SpawnError {
    TooManyClusters { asked, possible, limit },
    ProgramReplaced(source),
    Resources(source),
    Spawn { cluster, name, source },
    ExitedBeforeHello { cluster, name, exit, stderr, test, passed },
    ChildFailed { cluster, name, why },
    OtherRegistry { cluster, name, point, difference },
    HandshakeTimeout { cluster, name, waited },
    Handshake { cluster, name, source },
    NoRing { cluster, name, source },
    Stranger { cluster, name },
    Mismatch { cluster, name, what, ours, theirs },
});

impl SpawnError {
    /// With what is known after the end of the children.
    pub(crate) fn explained(mut self, ends: &[(u32, ExitKind, String)]) -> Self {
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

/// Shows how a child ended that had not said hello, what it said last, and what to do. No agent is to blame: there was none.
struct BeforeHello<'a> {
    exit: ExitKind,
    stderr: &'a str,
    test: Option<&'a str>,
    passed: &'a [String],
}

impl<'a> BeforeHello<'a> {
    fn new(exit: ExitKind, stderr: &'a str, test: Option<&'a str>, passed: &'a [String]) -> Self {
        Self {
            exit,
            stderr,
            test,
            passed,
        }
    }
}

impl fmt::Display for BeforeHello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            exit,
            stderr,
            test,
            passed,
        } = *self;
        write!(f, "{exit}")?;
        if let Some(said) = last_lines(stderr) {
            write!(f, "; its last output: {said:?}")?;
        }
        if let [first, others @ ..] = passed {
            write!(f, "; it passed {first}")?;
            others.iter().try_for_each(|other| write!(f, ", {other}"))?;
            return f.write_str(
                ", and did not reach the `enter` that it was started for: enter all registries before the first simulation \
                 starts",
            );
        }
        match (exit, test) {
            (ExitKind::Success, Some(test)) => write!(
                f,
                "; no ignored test of this program has the name {test:?}, or that test does not call `enter`: give \
                 `entered_by_test` the full name of the test, with its modules, and write `#[ignore]` above the test"
            ),
            (ExitKind::Success, None) => f.write_str(
                "; its program has probably not called `Registry::enter`, which must be the first line of main",
            ),
            (ExitKind::Code(_) | ExitKind::Panic, None) => f.write_str(
                "; its program ended before it reached `Registry::enter`, which should be the first line of main: code before \
                 that line runs in every child process, with the same arguments",
            ),
            (ExitKind::Code(_) | ExitKind::Panic, Some(test)) => {
                write!(f, "; the test {test:?} ended before it reached `enter`")
            }
            _ => exit
                .next_step()
                .map_or(Ok(()), |step| write!(f, "; {step}")),
        }
    }
}

/// How many lines of a stderr are shown, and how many characters of them.
const SHOWN: (usize, usize) = (8, 600);

/// The end of a stderr in one line.
fn last_lines(stderr: &str) -> Option<String> {
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    let text = lines[lines.len().saturating_sub(SHOWN.0)..].join(" ");
    let cut = text.char_indices().rev().nth(SHOWN.1 - 1);
    let text = &text[cut.map_or(0, |(place, _)| place)..];
    (!text.is_empty()).then(|| text.to_owned())
}

/// Why a child could not set itself up. It ends with `exit_code`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// Main speaks another protocol.
    #[error(
        "main speaks protocol {theirs}, this child process {PROTOCOL}: both must be the same build of the program, \
         which must not read its standard input before `enter`"
    )]
    Protocol {
        /// Main's.
        theirs: u32,
    },
    /// The entry was called in the process of a cluster.
    #[error(
        "`enter` was called in the process of a cluster, at {place}: an agent cannot start a simulation of its own in a process"
    )]
    EnteredTwice {
        /// Where in the source.
        place: String,
    },
    /// The registry at the `enter` that main meant is not main's.
    #[error("the registry at `enter` differs from main's registry at that call")]
    OtherRegistry,
    /// The program came to a start of clusters before it came to the `enter` that main meant.
    #[error(
        "its program starts a simulation in processes before it reaches {point}, for which this process was started: enter \
         all registries before the first simulation starts, or pass the differences to builders as their configuration"
    )]
    NotReached {
        /// The call of `enter`.
        point: String,
    },
    /// The system refused, or main went away.
    #[error("{what}")]
    Init {
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

maslite_core::readable_debug!(enum ChildError {
    Protocol { theirs },
    EnteredTwice { place },
    OtherRegistry,
    NotReached { point },
    Init { what, source },
});

impl ChildError {
    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Protocol { .. } => EXIT_PROTOCOL_MISMATCH,
            Self::NotReached { .. } => EXIT_ENTRY_MISSING,
            Self::EnteredTwice { .. } | Self::OtherRegistry | Self::Init { .. } => EXIT_INIT_FAILED,
        }
    }

    /// Of something that the system refused.
    pub(crate) fn refused(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Init { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: ExitKind, stderr: &str, test: Option<&str>, passed: &[&str]) -> String {
        let error = SpawnError::ExitedBeforeHello {
            cluster: 0,
            name: "north".to_owned(),
            exit,
            stderr: stderr.to_owned(),
            test: test.map(str::to_owned),
            passed: passed.iter().map(|&passed| passed.to_owned()).collect(),
        };
        let text = error.to_string();
        let head = "the process of cluster north (0) ended before its handshake: it ";
        text.strip_prefix(head).expect("it begins so").to_owned()
    }

    #[test]
    fn no_agent_is_blamed_for_an_end_before_the_handshake() {
        let usage = "error: unexpected argument\n\nUsage: shop [OPTIONS]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            ended(ExitKind::Code(2), usage, None, &[]),
            "exited with code 2; its last output: \"error: unexpected argument Usage: shop [OPTIONS] For more information, \
             try '--help'.\"; \
             its program ended before it reached `Registry::enter`, which should be the first line of main: code before that line runs in every child process, with the same arguments"
        );
        assert_eq!(
            ended(ExitKind::Success, "", Some("shop::chid"), &[]),
            "exited silently, with code 0; no ignored test of this program has the name \"shop::chid\", or that test does not \
             call `enter`: give `entered_by_test` the full name of the test, with its modules, and write `#[ignore]` above the test"
        );
        assert_eq!(
            ended(
                ExitKind::Success,
                "",
                None,
                &["`enter` at a.rs:1:2 (agent type B is missing)"]
            ),
            "exited silently, with code 0; it passed `enter` at a.rs:1:2 (agent type B is missing), and did not reach the \
             `enter` that it was started for: enter all registries before the first simulation starts"
        );
    }
}
