//! Why children could not be started, and why a child could not set itself up.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::death::{EXIT_ENTRY_MISSING, EXIT_INIT_FAILED, EXIT_PROTOCOL_MISMATCH, ExitKind};

/// The version of the invitation, the handshake, the control line and the frames.
pub(crate) const PROTOCOL: u32 = 5;

/// Why child processes could not be started. No process is left.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The limit of descriptors is too low for this number of clusters, which need five each. No
    /// process was started.
    #[error(
        "{asked} clusters need more descriptors than this process has left of its limit of {limit}: start at most {possible}, \
         or raise the limit (`ulimit -n`)"
    )]
    TooManyClusters {
        /// The number of clusters to start.
        asked: usize,
        /// The number of clusters that can be started.
        possible: usize,
        /// The limit of open descriptors of this process.
        limit: usize,
    },
    /// The file of this program has been replaced or deleted since it started, so children would
    /// run another program. On Linux this does not happen, because children run the same program as
    /// main in any case.
    #[error("the program {0:?} has been replaced or deleted since it was started: start it again")]
    ProgramReplaced(PathBuf),
    /// The system refused a resource that every child needs: descriptors, threads or random
    /// numbers.
    #[error("the system refused descriptors, threads or random numbers for child processes")]
    Resources(#[source] io::Error),
    /// The process could not be started.
    #[error("the process of cluster {name} ({cluster}) could not be started")]
    Spawn {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The process ended before its handshake.
    #[error(
        "the process of cluster {name} ({cluster}) ended before its handshake: it {}",
        BeforeHello::new(*.exit, .stderr, .test.as_deref(), .passed)
    )]
    ExitedBeforeHello {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// How it ended.
        exit: ExitKind,
        /// The end of its stderr, at most 64 KiB; empty if its stderr was not piped to main.
        stderr: String,
        /// The test that is the entry of child processes, if this program is a test harness: see
        /// [`Registry::entered_by_test`](crate::Registry::entered_by_test).
        test: Option<String>,
        /// The calls of `enter` that the process passed, and how the registries there differ from
        /// the intended one.
        passed: Vec<String>,
    },
    /// The process could not set itself up, and reported why.
    #[error("the process of cluster {name} ({cluster}) could not become a cluster: {why}")]
    ChildFailed {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The reason that the process reported.
        why: String,
    },
    /// The process reached the intended `enter`, and its registry there differs from main's.
    #[error(
        "the process of cluster {name} ({cluster}) has another registry at {point}: {difference}; a program must register the \
         same agents and builders in each of its processes"
    )]
    OtherRegistry {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The call of `enter`.
        point: String,
        /// How its registry differs from the registry of this process.
        difference: String,
    },
    /// The process sent no handshake in time.
    #[error(
        "the process of cluster {name} ({cluster}) sent no handshake within {waited:?}: its program must call \
         `Registry::enter` in the first line of main, before anything that takes long or reads the standard input"
    )]
    HandshakeTimeout {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The deadline.
        waited: Duration,
    },
    /// The handshake failed.
    #[error("the handshake with the process of cluster {name} ({cluster}) failed")]
    Handshake {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The error of the system or of the decoder.
        source: io::Error,
    },
    /// Main and the child cannot have a link of any kind that the program allows.
    #[error(
        "the process of cluster {name} ({cluster}) and main cannot have a {kind} as their link: allow another kind of \
         link, or all kinds with `Link::Auto`"
    )]
    NoLink {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// The kind of link that was tried last: a ring or a channel.
        kind: String,
        /// The error of the system, in main or in the child.
        source: io::Error,
    },
    /// Another process of this user answered in place of the child.
    #[error(
        "another process answered in place of the process of cluster {name} ({cluster}), with a wrong random number: \
             start the simulation again"
    )]
    Stranger {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
    },
    /// Main and child are different builds of the program.
    #[error(
        "the process of cluster {name} ({cluster}) has {what} {theirs}, and main has {ours}: both must be the same build of \
         the program"
    )]
    Mismatch {
        /// The number of the cluster.
        cluster: u32,
        /// The name of the cluster.
        name: String,
        /// What differs.
        what: &'static str,
        /// The value in this process.
        ours: String,
        /// The value in the child.
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
    NoLink { cluster, name, kind, source },
    Stranger { cluster, name },
    Mismatch { cluster, name, what, ours, theirs },
});

impl SpawnError {
    /// Adds to the error how the children ended.
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

/// Shows how a child ended before its handshake, its last output, and what to do. No agent is to
/// blame, because there was none.
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

/// The number of lines of a stderr that are shown, and the number of their characters.
const SHOWN: (usize, usize) = (8, 600);

/// Returns the end of a stderr in one line.
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
    /// Main uses another version of the protocol.
    #[error(
        "main speaks protocol {theirs}, this child process {PROTOCOL}: both must be the same build of the program, \
         which must not read its standard input before `enter`"
    )]
    Protocol {
        /// The version of main.
        theirs: u32,
    },
    /// An agent called `enter` in the process of a cluster.
    #[error(
        "`enter` was called in the process of a cluster, at {place}: an agent cannot start a simulation of its own in a process"
    )]
    EnteredTwice {
        /// Where in the source.
        place: String,
    },
    /// The registry at the intended `enter` differs from main's registry.
    #[error("the registry at `enter` differs from main's registry at that call")]
    OtherRegistry,
    /// The program starts clusters before it reaches the intended `enter`.
    #[error(
        "its program starts a simulation in processes before it reaches {point}, for which this process was started: enter \
         all registries before the first simulation starts, or pass the differences to builders as their configuration"
    )]
    NotReached {
        /// The call of `enter`.
        point: String,
    },
    /// The system refused a resource, or main is gone.
    #[error("{what}")]
    Init {
        /// The action that failed.
        what: &'static str,
        /// The error of the system.
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
    /// Returns the exit code of the child.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Protocol { .. } => EXIT_PROTOCOL_MISMATCH,
            Self::NotReached { .. } => EXIT_ENTRY_MISSING,
            Self::EnteredTwice { .. } | Self::OtherRegistry | Self::Init { .. } => EXIT_INIT_FAILED,
        }
    }

    /// Makes the error of an action that the system refused.
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
