//! Answers as people and programs read them.

use std::fmt::Write;

use maslite_mp::control::Simulation;
use maslite_mp::control::protocol::AgentView;
use maslite_mp::{Phase, Status};
use serde::Serialize;

/// Anything as JSON on one line.
pub(crate) fn as_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// How a simulation stands: a line, and one for each cluster.
pub(crate) fn status(simulation: &Simulation, status: &Status) -> String {
    let phase = match status.phase {
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Ended => "ended",
        _ => "between runs",
    };
    let mut text = format!("{simulation} {phase}: {status}\n");
    let names = status.clusters.iter().map(|it| it.name.chars().count());
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
            Some(agent) => format!("agent {agent}"),
            None if it.at_work => "yes".to_owned(),
            None => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "{:width$} {:>8} {:>14} {:>6} {:>6} {:>7} {:>10} {:>10} {:>7} {:>10}  {at_work}",
            it.name,
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
    text
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// An agent, with a line for each alarm and each subscription.
pub(crate) fn agent(agent: &AgentView) -> String {
    let AgentView {
        id,
        type_name,
        cluster,
        ..
    } = agent;
    let mut text = format!("agent {id} in cluster {cluster}, a {type_name}\n");
    let _ = match (&agent.state, &agent.no_state) {
        (Some(state), _) => writeln!(
            text,
            "state: {}",
            serde_json::to_string_pretty(state).unwrap_or_default()
        ),
        (None, why) => writeln!(
            text,
            "state: not shown, because {}",
            why.as_deref().unwrap_or("there is none")
        ),
    };
    for alarm in &agent.alarms {
        let to = alarm.to.as_deref().unwrap_or("its subscribers");
        let _ = writeln!(text, "alarm at {}: {} to {to}", alarm.time, alarm.topic);
    }
    for pattern in &agent.subscriptions {
        let _ = writeln!(text, "listens to {pattern}");
    }
    text
}
