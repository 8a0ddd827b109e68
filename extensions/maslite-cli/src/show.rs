//! Writes answers for people, and as JSON for programs.

use std::fmt::Write;

use maslite_mp::control::Simulation;
use maslite_mp::control::protocol::AgentView;
use maslite_mp::core::internal::is_command;
use maslite_mp::{Plain, RunState, Status};
use serde::Serialize;

/// The longest name that is shown \[characters\], because a table has columns.
const NAME: usize = 40;

/// The longest type, topic or reason that is shown \[characters\].
const LONG: usize = 400;

/// Writes a value as JSON on one line.
pub(crate) fn as_json<T: Serialize>(value: &T) -> String {
    escaped(&serde_json::to_string(value).unwrap_or_default())
}

/// Escapes the characters that a terminal obeys. In JSON they occur in strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_command(c) {
            // Writing into a text cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// Escapes and cuts a name that another process has sent.
pub(crate) fn name(text: &str) -> String {
    Plain(text, NAME).to_string()
}

/// Escapes and cuts a longer text that another process has sent.
pub(crate) fn long(text: &str) -> String {
    Plain(text, LONG).to_string()
}

/// Writes the status of a simulation: one line for the simulation, and one for each cluster.
pub(crate) fn status(simulation: &Simulation, status: &Status) -> String {
    let state = match status.state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Ended => "ended",
        _ => "between runs",
    };
    let mut text = format!("{simulation} {state}: {status}\n");
    let names = status.clusters.iter();
    let names = names.map(|it| name(&it.name).chars().count());
    let width = names.chain([7]).max().unwrap_or(7);
    // Writing into a text cannot fail.
    let _ = writeln!(
        text,
        "{:width$} {:>8} {:>14} {:>6} {:>6} {:>7} {:>10} {:>10} {:>7} {:>10}  at work",
        "cluster",
        "process",
        "time",
        "busy",
        "block",
        "wait",
        "mail in",
        "mail out",
        "awake",
        "memory"
    );
    for it in &status.clusters {
        let all = (it.busy + it.blocked + it.waiting).as_secs_f64().max(1e-9);
        let share =
            |time: std::time::Duration| format!("{:.0} %", 100.0 * time.as_secs_f64() / all);
        let at_work = match &it.agent {
            Some(agent) => format!("agent {}", name(agent)),
            None if it.at_work => "yes".to_owned(),
            None => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "{:width$} {:>8} {:>14} {:>6} {:>6} {:>7} {:>10} {:>10} {:>7} {:>10}  {at_work}",
            name(&it.name),
            it.pid,
            it.time.to_string(),
            share(it.busy),
            share(it.blocked),
            share(it.waiting),
            it.mail_in,
            it.mail_out,
            it.awake,
            it.memory.map_or("-".to_owned(), mebibytes),
        );
    }
    for recovered in &status.recoveries {
        let _ = writeln!(text, "recovery: {}", long(&recovered.to_string()));
    }
    for dropped in &status.dropped {
        let _ = writeln!(text, "dropped: {}", long(&dropped.to_string()));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Writes an agent, with a line for each alarm and each subscription.
pub(crate) fn agent(agent: &AgentView) -> String {
    let AgentView {
        id,
        type_name,
        cluster,
        ..
    } = agent;
    let (id, cluster, type_name) = (name(id), name(cluster), long(type_name));
    let mut text = format!("agent {id} in cluster {cluster}, a {type_name}\n");
    let _ = match (&agent.state, &agent.no_state) {
        (Some(state), _) => writeln!(
            text,
            "state: {}",
            escaped(&serde_json::to_string_pretty(state).unwrap_or_default())
        ),
        (None, why) => writeln!(
            text,
            "state: not shown: {}",
            long(why.as_deref().unwrap_or("the simulation sent none"))
        ),
    };
    for alarm in &agent.alarms {
        let to = name(alarm.to.as_deref().unwrap_or("its subscribers"));
        let topic = long(&alarm.topic);
        let _ = writeln!(text, "alarm at {}: {topic} to {to}", alarm.time);
    }
    for pattern in &agent.subscriptions {
        let _ = writeln!(text, "subscribes to {}", long(pattern));
    }
    text
}
