//! Chooses the simulation that the arguments name, and defines the errors of the program.

use std::io;
use std::path::{Path, PathBuf};

use maslite_mp::control::{AskError, Simulation, simulations};

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No simulation with a control socket runs.
    #[error(
        "no simulation with a control socket runs: start one that opens a control socket (`--control` in the examples)"
    )]
    Nobody,
    /// No running simulation matches the argument.
    #[error("there is no simulation {asked:?}; running simulations: {}", .known.join(", "))]
    Unknown {
        /// The argument.
        asked: String,
        /// The simulations that run.
        known: Vec<String>,
    },
    /// Several simulations run, and no argument chooses one.
    #[error("several simulations run: choose one with --simulation: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The sockets cannot be listed.
    #[error("the simulations cannot be listed")]
    List(#[source] io::Error),
    /// The simulation did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The simulation sent an impossible answer.
    #[error("the simulation answers {0}: it is no simulation, or its memory is corrupt")]
    Nonsense(&'static str),
    /// The snapshots in a folder cannot be listed.
    #[error("the snapshots cannot be listed")]
    Snapshots(#[source] maslite_mp::Error),
    /// A program that is checked cannot be run.
    #[error("the program cannot be checked")]
    Check(#[source] io::Error),
    /// A program cannot be started to replay a record.
    #[error("the record cannot be replayed")]
    Replay(#[source] io::Error),
    /// A program that is checked has made no simulation that asks for it.
    #[error(
        "the program ended without a simulation that can be checked: give its settings to \
         `maslite_mp::comparison::checked` before `build`; {stderr}"
    )]
    Unchecked {
        /// How it ended, and what it wrote last.
        stderr: String,
    },
    /// Two runs differ.
    #[error("the runs differ")]
    Strayed,
    /// A file of marks cannot be read.
    #[error("the marks in {} cannot be read: {why}", .path.display())]
    BadMarks {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The answer cannot be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Nobody
            | Self::Unknown { .. }
            | Self::Several(_)
            | Self::List(_)
            | Self::Check(_)
            | Self::Replay(_)
            | Self::Snapshots(_)
            | Self::Unchecked { .. }
            | Self::BadMarks { .. } => 2,
            Self::Ask(_) | Self::Nonsense(_) | Self::Output(_) | Self::Strayed => 1,
        }
    }
}

/// Returns the simulation with this process id, name or path. Without an argument: the only
/// simulation that runs.
pub(crate) fn choose(asked: Option<&str>) -> Result<Simulation, Failure> {
    let mut known = simulations().map_err(Failure::List)?;
    let names = |known: &[Simulation]| known.iter().map(ToString::to_string).collect::<Vec<_>>();
    if let Some(asked) = asked {
        let is_meant = |it: &Simulation| {
            it.name == asked || it.pid.to_string() == asked || it.path == Path::new(asked)
        };
        let all = names(&known);
        known.retain(is_meant);
        if known.is_empty() && !all.is_empty() {
            let asked = asked.to_owned();
            return Err(Failure::Unknown { asked, known: all });
        }
    }
    match known.len() {
        0 => Err(Failure::Nobody),
        1 => Ok(known.remove(0)),
        _ => Err(Failure::Several(names(&known))),
    }
}
