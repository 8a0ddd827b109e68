//! Which simulation is meant, and what can go wrong.

use std::io;
use std::path::Path;

use maslite_mp::control::{AskError, Simulation, simulations};

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No simulation runs that can be spoken to.
    #[error(
        "no simulation can be spoken to: start one that opens a control socket (`--control` in the examples)"
    )]
    Nobody,
    /// None of them is meant.
    #[error("there is no simulation {asked:?}; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Several may be meant.
    #[error("several simulations run: choose one with --simulation: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The sockets cannot be listed.
    #[error("the simulations cannot be listed")]
    List(#[source] io::Error),
    /// There is no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There is one that answers nothing that was asked.
    #[error("the simulation answers {0}: it is none, or its memory is corrupt")]
    Nonsense(&'static str),
    /// The answer cannot be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl Failure {
    /// What the program exits with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Nobody | Self::Unknown { .. } | Self::Several(_) | Self::List(_) => 2,
            Self::Ask(_) | Self::Nonsense(_) | Self::Output(_) => 1,
        }
    }
}

/// The simulation that is asked for by process id, name or path; or the only one.
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
