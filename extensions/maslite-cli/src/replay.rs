//! `maslite replay`: becomes the program, which is told to run one recorded cluster.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use maslite_mp::comparison::{REPLAY_VARIABLE, ReplaySettings};
use maslite_mp::core::{SimDuration, SimTime};

use crate::choice::Failure;

/// Becomes the program. Returns only if that fails.
pub(crate) fn replay(
    folder: &Path,
    cluster: &str,
    until: Option<f64>,
    program: &[OsString],
) -> Failure {
    match settings(folder, cluster, until) {
        Ok(settings) => {
            let Some((executable, arguments)) = program.split_first() else {
                return Failure::Replay(io::ErrorKind::NotFound.into());
            };
            let mut command = Command::new(executable);
            command.args(arguments).env(REPLAY_VARIABLE, settings);
            Failure::Replay(command.exec())
        }
        Err(why) => Failure::Replay(why),
    }
}

fn settings(folder: &Path, cluster: &str, until: Option<f64>) -> io::Result<String> {
    let until = until.map(SimDuration::try_from_secs_f64).transpose();
    let until = until.map_err(io::Error::other)?;
    // The program may change its working directory.
    let folder: PathBuf = std::path::absolute(folder)?;
    let settings = ReplaySettings {
        folder,
        cluster: cluster.to_owned(),
        until_ns: until.map(|until| (SimTime::ZERO + until).as_nanos()),
    };
    Ok(serde_json::to_string(&settings)?)
}
