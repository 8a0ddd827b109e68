//! A program under `maslite check` or `maslite replay`: it is told what to run, and tells what came
//! of it.

use std::env;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use maslite_core::SimTime;

use super::settings::{CHECK_VARIABLE, CheckSettings, REPLAY_VARIABLE, ReplaySettings};
use super::watch::{Watch, Watched};
use crate::simulation::spread::Spread;

/// The longest line of settings \[bytes\].
const LONGEST: u64 = 4_096;

/// Lets `maslite check` and `maslite replay` run this simulation. Without them nothing is changed.
///
/// `maslite check` may run the agents in other clusters, delay messages on links and have clusters
/// forget everything, and compares the traces. The settings come from the socket in the environment
/// variable [`CHECK_VARIABLE`]. The trace goes there, with all messages, in place of the program's
/// own trace or observer.
///
/// Under `maslite replay` this call runs the recorded cluster that [`REPLAY_VARIABLE`] names, writes
/// to stderr what came of it, and ends the process: with code 0, or with code 1 if the cluster fails
/// or differs.
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
    if let Some(settings) = env::var_os(REPLAY_VARIABLE) {
        replay_and_exit(&builder, settings.as_encoded_bytes());
    }
    match env::var_os(CHECK_VARIABLE) {
        Some(path) => connect(Path::new(&path), builder).map_err(|why| {
            let text = format!("{CHECK_VARIABLE} is set to {}: {why}", path.display());
            io::Error::new(why.kind(), text)
        }),
        None => Ok(builder),
    }
}

/// Replays a cluster, and ends the process.
fn replay_and_exit<B: Watched>(builder: &B, settings: &[u8]) -> ! {
    let settings = serde_json::from_slice::<ReplaySettings>(settings);
    let told = match settings {
        Ok(settings) => builder.replay(&settings),
        Err(why) => Err(format!("{REPLAY_VARIABLE} cannot be read: {why}")),
    };
    let code = i32::from(told.is_err());
    let (Ok(told) | Err(told)) = told;
    let _ = writeln!(io::stderr(), "{told}");
    std::process::exit(code)
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
        // The reader may be gone: then the rest is of no interest.
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
