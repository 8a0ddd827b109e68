//! The program that children run: this very one.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, id};

use super::MARKER;
use crate::processes::limits;

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

    pub(super) fn command(&self) -> io::Result<Command> {
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
pub(super) fn own_executable() -> io::Result<Command> {
    if limits::runs_from_memory() {
        let mut command = Command::new(limits::OWN_PROGRAM);
        if let Some(name) = env::args_os().next() {
            command.arg0(name);
        }
        return Ok(command);
    }
    env::current_exe().map(Command::new)
}
