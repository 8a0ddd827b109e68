//! What snapshots there are in a folder.

use std::io::Write;
use std::path::Path;

use maslite_mp::Plain;
use serde_json::json;

use crate::choice::Failure;

/// Lists the snapshots in a folder.
pub(crate) fn list(out: &mut impl Write, folder: &Path, json: bool) -> Result<(), Failure> {
    let all = maslite_mp::snapshots(folder).map_err(Failure::Snapshots)?;
    for (path, snapshot) in &all {
        let path = path.to_string_lossy();
        match snapshot {
            Ok(snapshot) if json => {
                let mut value = json!({
                    "path": path,
                    "time_ns": snapshot.now(),
                    "agents": snapshot.agents(),
                    "clusters": Vec::from_iter(snapshot.clusters()),
                    "state_digest": snapshot.state_digest(),
                });
                if let missing @ 1.. = missing(snapshot) {
                    value["left_out"] = json!(missing);
                }
                writeln!(out, "{value}")?;
            }
            Ok(snapshot) => {
                let (time, agents) = (snapshot.now(), snapshot.agents());
                let (clusters, state) = (snapshot.clusters().count(), snapshot.state_digest());
                let missing = match missing(snapshot) {
                    0 => String::new(),
                    missing => format!("; {missing} more were left out"),
                };
                writeln!(
                    out,
                    "{}: at {time}, {agents} agents in {clusters} clusters, state {state}{missing}",
                    Plain(&path, 4_096)
                )?;
            }
            Err(why) if json => {
                writeln!(out, "{}", json!({ "path": path, "why": why.to_string() }))?;
            }
            Err(why) => writeln!(out, "{}", Plain(&why.to_string(), 4_096))?,
        }
    }
    if all.is_empty() && !json {
        writeln!(out, "there is no snapshot in {}", folder.display())?;
    }
    Ok(())
}

/// How many agents were left out of a snapshot.
fn missing(snapshot: &maslite_mp::Restore) -> usize {
    let left_out = snapshot.left_out().iter();
    left_out.map(|it| it.agents.len()).sum()
}
