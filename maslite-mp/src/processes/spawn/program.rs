//! The program that children run: this very one, with the input that it had itself.
//!
//! What stands before `enter` runs in a child as it ran in main, so it must see the same: the
//! arguments, among them the name of the program; and the working directory and the environment
//! that main had when it came to its first `enter`.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use rustix::process::Signal;

use super::MARKER;
use crate::processes::limits;

/// What the children run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// None: this executable.
    pub(crate) exe: Option<PathBuf>,
    /// The ignored test that is the entry of child processes, if this is a test harness.
    pub(crate) test: Option<String>,
    /// Whether what the children print goes nowhere.
    pub(crate) quiet_stdout: bool,
}

impl Program {
    /// This executable as a test harness that runs nothing but the ignored test `name`, which is
    /// the entry of child processes.
    pub(crate) fn test_entry(name: &str) -> Self {
        Self {
            exe: None,
            test: Some(name.to_owned()),
            quiet_stdout: true,
        }
    }

    pub(super) fn command(&self) -> io::Result<Command> {
        let mut command = match &self.exe {
            Some(exe) => Command::new(exe),
            None => own_executable()?,
        };
        match &self.test {
            Some(name) => command.args([name, "--exact", "--ignored", "--nocapture"]),
            None => command.args(env::args_os().skip(1)),
        };
        if let Some(origin) = ORIGIN.get() {
            origin.give_to(&mut command);
        }
        // A group of its own: Ctrl-C then reaches main alone, and main decides.
        command.process_group(0).env(MARKER, id().to_string());
        Ok(command)
    }
}

impl Program {
    /// What children are sent when main is gone, until they ask for something else. Only the first
    /// thread of a process can do that, and the harness enters in another one: there they are woken
    /// from the beginning.
    #[cfg(target_os = "linux")]
    pub(super) fn death_signal(&self) -> Signal {
        match self.test {
            None => Signal::KILL,
            Some(_) => Signal::CONT,
        }
    }
}

/// What this program found when it came to its first `enter`.
#[derive(Debug)]
struct Origin {
    directory: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

static ORIGIN: OnceLock<Origin> = OnceLock::new();

/// Keeps what children are to find, the first time.
pub(crate) fn remember_origin() {
    ORIGIN.get_or_init(|| Origin {
        directory: env::current_dir().ok(),
        environment: env::vars_os().collect(),
    });
}

/// The directory that children are started in, if it is not the present one.
fn other_directory() -> Option<&'static Path> {
    let origin = ORIGIN.get()?.directory.as_deref()?;
    let is_here = env::current_dir().is_ok_and(|here| here == origin);
    (!is_here).then_some(origin)
}

/// The present directory, if children are started in another one: they go there when they enter.
pub(super) fn directory_to_go_to() -> Option<PathBuf> {
    other_directory()?;
    env::current_dir().ok()
}

/// Says so if a process could not be started because the directory that it was to be started in is
/// gone.
pub(super) fn explain_failure(error: io::Error) -> io::Error {
    match other_directory() {
        Some(directory) if !directory.is_dir() => io::Error::new(
            error.kind(),
            format!(
                "{directory:?}, the working directory that main had at `enter`, is gone ({error})"
            ),
        ),
        _ => error,
    }
}

impl Origin {
    fn give_to(&self, command: &mut Command) {
        if let Some(directory) = other_directory() {
            command.current_dir(directory);
        }
        if !env::vars_os().eq(self.environment.iter().cloned()) {
            let environment = self.environment.iter();
            command
                .env_clear()
                .envs(environment.map(|(name, value)| (name, value)));
        }
    }
}

/// The executable that is running, even if another file has taken its path since, under the name
/// that it was started by.
pub(super) fn own_executable() -> io::Result<Command> {
    let mut command = if limits::runs_from_memory() {
        Command::new(limits::OWN_PROGRAM)
    } else {
        Command::new(env::current_exe()?)
    };
    if let Some(name) = env::args_os().next() {
        command.arg0(name);
    }
    Ok(command)
}
