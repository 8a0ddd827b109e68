//! A report as JSON.

use maslite_core::{AgentError, Counters, Digest, LostMail, SimDuration, Topic};
use serde::{Serialize, Serializer};

use super::{ClusterReport, Dropped, Flow, LeftOut, MpReport, Recovered, link, nanos, placement};

/// The fields of a report as programs read them. They are named in its documentation.
#[derive(Serialize)]
struct Fields<'a> {
    schema: u32,
    stopped_by: &'static str,
    start_ns: u64,
    now_ns: u64,
    wall_ns: u64,
    startup_ns: Option<u64>,
    ratio: f64,
    events: u64,
    events_per_s: f64,
    counters: &'a Counters,
    total: &'a Counters,
    digest: Option<Digest>,
    /// Absent unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_digest: Option<Digest>,
    /// Absent unless there was one.
    #[serde(skip_serializing_if = "is_zero")]
    amnesias: u64,
    errors: Vec<ErrorFields<'a>>,
    undeliverable: Vec<LostFields>,
    never_sent: &'a [Topic],
    advice: String,
    seed: u64,
    placement: &'static str,
    version: &'static str,
    protocol: u32,
    optimised: bool,
    processors: usize,
    local: u64,
    routed: u64,
    held_back: u64,
    held_back_to_main: u64,
    rounds: u64,
    undone: u64,
    flows: &'a [Flow],
    main: MainFields,
    clusters: Vec<ClusterFields<'a>>,
    /// Absent unless there were some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recoveries: Vec<RecoveryFields<'a>>,
    /// Absent unless there were some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<DropFields<'a>>,
    /// Absent unless there were some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOutFields<'a>>,
}

#[derive(Serialize)]
struct LeftOutFields<'a> {
    kind: &'a str,
    why: &'a str,
    agents: Vec<String>,
}

#[derive(Serialize)]
struct DropFields<'a> {
    cluster: &'a str,
    death: String,
    time_ns: u64,
}

#[derive(Serialize)]
struct RecoveryFields<'a> {
    cluster: &'a str,
    pid: u32,
    death: String,
    time_ns: u64,
    took_ns: u64,
    start_ns: u64,
    replay_ns: u64,
    messages: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "so serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    agent: String,
    cluster: Option<&'a str>,
    time_ns: u64,
    superstep: u64,
    message: &'a str,
}

#[derive(Serialize)]
struct LostFields {
    time_ns: u64,
    from: String,
    to: String,
    topic: Topic,
}

#[derive(Serialize)]
struct MainFields {
    busy_ns: u64,
    memory_bytes: Option<u64>,
}

#[derive(Serialize)]
struct ClusterFields<'a> {
    name: &'a str,
    pid: u32,
    link: Option<&'static str>,
    lookahead_ns: Option<u64>,
    events: u64,
    busy_ns: u64,
    blocked_ns: u64,
    waiting_ns: u64,
    mail_in: u64,
    mail_out: u64,
    awake: u64,
    memory_bytes: Option<u64>,
    counters: &'a Counters,
    total: &'a Counters,
}

impl<'a> ClusterFields<'a> {
    fn of(cluster: &'a ClusterReport) -> Self {
        Self {
            name: &cluster.name,
            pid: cluster.pid,
            link: cluster.link.map(link),
            lookahead_ns: cluster.lookahead.map(SimDuration::as_nanos),
            events: cluster.events,
            busy_ns: nanos(cluster.busy),
            blocked_ns: nanos(cluster.blocked),
            waiting_ns: nanos(cluster.waiting),
            mail_in: cluster.mail_in,
            mail_out: cluster.mail_out,
            awake: cluster.awake,
            memory_bytes: cluster.memory,
            counters: &cluster.counters,
            total: &cluster.total,
        }
    }
}

impl<'a> ErrorFields<'a> {
    fn of(error: &'a AgentError) -> Self {
        Self {
            agent: error.agent.to_string(),
            cluster: error.cluster.as_deref(),
            time_ns: error.time.as_nanos(),
            superstep: error.superstep,
            message: &error.message,
        }
    }
}

impl LostFields {
    fn of(lost: &LostMail) -> Self {
        Self {
            time_ns: lost.time.as_nanos(),
            from: lost.from.to_string(),
            to: lost.to.to_string(),
            topic: lost.topic,
        }
    }
}

impl<'a> RecoveryFields<'a> {
    fn of(recovery: &'a Recovered) -> Self {
        Self {
            cluster: &recovery.cluster,
            pid: recovery.pid,
            death: recovery.death.to_string(),
            time_ns: recovery.time.as_nanos(),
            took_ns: nanos(recovery.took),
            start_ns: nanos(recovery.start),
            replay_ns: nanos(recovery.replay),
            messages: recovery.messages,
        }
    }
}

impl<'a> LeftOutFields<'a> {
    fn of(left_out: &'a LeftOut) -> Self {
        Self {
            kind: &left_out.kind,
            why: &left_out.why,
            agents: left_out.agents.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<'a> DropFields<'a> {
    fn of(dropped: &'a Dropped) -> Self {
        Self {
            cluster: &dropped.cluster,
            death: dropped.death.to_string(),
            time_ns: dropped.time.as_nanos(),
        }
    }
}

impl Serialize for MpReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fields {
            schema: 3,
            stopped_by: self.stopped_by.name(),
            start_ns: self.start.as_nanos(),
            now_ns: self.now.as_nanos(),
            wall_ns: nanos(self.wall),
            startup_ns: self.startup.map(nanos),
            ratio: self.ratio(),
            events: self.events,
            events_per_s: self.events_per_s(),
            counters: &self.counters,
            total: &self.total,
            digest: self.digest,
            content_digest: self.content_digest,
            amnesias: self.amnesias,
            errors: self.run.errors.iter().map(ErrorFields::of).collect(),
            undeliverable: self.lost.iter().map(LostFields::of).collect(),
            never_sent: &self.silent,
            advice: self.advice(),
            seed: self.seed,
            placement: placement(self.placement),
            version: self.versions.maslite,
            protocol: self.versions.protocol,
            optimised: self.versions.optimised,
            processors: self.versions.processors,
            local: self.local,
            routed: self.routed,
            held_back: self.held_back,
            held_back_to_main: self.held_back_to_main,
            rounds: self.rounds,
            undone: self.undone,
            flows: &self.flows,
            main: MainFields {
                busy_ns: nanos(self.main_busy),
                memory_bytes: self.main_memory,
            },
            clusters: self.clusters.iter().map(ClusterFields::of).collect(),
            recoveries: self.recoveries.iter().map(RecoveryFields::of).collect(),
            dropped: self.dropped.iter().map(DropFields::of).collect(),
            left_out: self.left_out.iter().map(LeftOutFields::of).collect(),
        }
        .serialize(serializer)
    }
}
