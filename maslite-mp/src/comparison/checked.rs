//! A program under `maslite check`: it is told how to run, and tells its trace.

use std::env;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use maslite_core::SimTime;
use serde::{Deserialize, Serialize};

use super::watch::{Watch, Watched};
use crate::simulation::spread::Spread;

/// The environment variable with the path of the socket at which `maslite check` listens.
pub const CHECK_VARIABLE: &str = "MASLITE_CHECK";

/// The longest line of settings \[bytes\].
const LONGEST: u64 = 4_096;

/// How `maslite check` wants a program to run: one line of JSON, which it sends first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSettings {
    /// The version of this line.
    pub schema: u32,
    /// All clusters forget everything after this number of supersteps.
    #[serde(default)]
    pub amnesia: Option<u64>,
    /// Links delay messages at random, from this seed.
    #[serde(default)]
    pub jitter: Option<u64>,
    /// Agents are divided among this number of clusters.
    #[serde(default)]
    pub clusters: Option<u32>,
}

impl CheckSettings {
    /// The version that this library reads.
    pub const SCHEMA: u32 = 1;
}

/// Lets `maslite check` run this simulation: it may run its agents in other clusters, delay
/// messages on its links and make it forget, and it compares the traces. Without `maslite check`
/// nothing is changed.
///
/// The settings come from the socket in the environment variable [`CHECK_VARIABLE`]. The trace goes
/// there, with all messages, in place of the program's own trace or observer.
///
/// ```
/// use maslite_mp::comparison::checked;
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let agents: Entered<Msg> = Registry::new().enter();
/// let main = checked(MpMain::builder(agents).seed(42))?.build()?;
/// # drop(main);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the variable is set, and the socket cannot be reached or says something else.
pub fn checked<B: Watched>(builder: B) -> io::Result<B> {
    match env::var_os(CHECK_VARIABLE) {
        Some(path) => connect(Path::new(&path), builder).map_err(|why| {
            let text = format!("{CHECK_VARIABLE} is set to {}: {why}", path.display());
            io::Error::new(why.kind(), text)
        }),
        None => Ok(builder),
    }
}

fn connect<B: Watched>(path: &Path, builder: B) -> io::Result<B> {
    let socket = UnixStream::connect(path)?;
    let mut line = String::new();
    let mut reader = BufReader::new(io::Read::take(&socket, LONGEST));
    reader.read_line(&mut line)?;
    let settings: CheckSettings = serde_json::from_str(&line)?;
    if settings.schema != CheckSettings::SCHEMA {
        let why = format!(
            "its settings have schema {}, and this program reads schema {}",
            settings.schema,
            CheckSettings::SCHEMA
        );
        return Err(io::Error::other(why));
    }
    let mut into = Some(BufWriter::with_capacity(1 << 16, socket));
    let sink = move |line: &str| {
        // Nobody may listen any more: then the rest is of no interest.
        let writer = into.as_mut();
        if writer.is_some_and(|into| writeln!(into, "{line}").is_err()) {
            into = None;
        }
    };
    let mut watch = Watch::trace(SimTime::ZERO, SimTime::MAX, sink);
    watch.jitter = settings.jitter;
    watch.amnesia = settings.amnesia;
    watch.spread = settings.clusters.map_or(Spread::AsDeclared, Spread::Over);
    Ok(watch.on(builder))
}
