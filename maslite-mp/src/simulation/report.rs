//! The report of a run, for people and for programs.

mod json;

use std::fmt;
use std::fmt::Write as _;
use std::ops::Deref;
use std::time::Duration;

use maslite_core::{Counters, Report, SimDuration};
use serde::Serialize;

use crate::error::recovery::{Dropped, Recovered};
use crate::error::snapshot::LeftOut;
use crate::processes::spawn::PROTOCOL;
use crate::settings::{ClusterId, Link, Placement};

/// What a run over several clusters did: enough to tell whether processes paid, and where the next
/// cut should be. It is also a [`Report`].
///
/// All numbers are of this run, but for `total` of the run and of each cluster, which counts since
/// the simulation began. What happens between two runs is counted in the later one. Printed with
/// `{}` it is three lines for people, and with `{:#}` it is all there is, with an
/// [`advice`](Self::advice).
///
/// # As JSON
///
/// Serialised, and as [`to_json`](Self::to_json), it is one object. Names end in their units, ids
/// and the digest are text, what is not known is null. Within a version of `schema`, which is 3,
/// fields are added and never changed:
///
/// - of the run: `schema`, `stopped_by`, `start_ns`, `now_ns` \[simulated\]; `wall_ns`,
///   `startup_ns`, `ratio`, `events`, `events_per_s`, `counters` and `total` (objects), `digest`
///   (16 hexadecimal digits), `content_digest` (the same, only if it was asked for), `amnesias`
///   (only if there was one), `errors`, `undeliverable` (a list of `time_ns`, `from`, `to`,
///   `topic`: the first ten), `never_sent` (topics that have subscribers), `advice`;
/// - of how it was run: `seed`, `placement` (`"processes"` or `"inline"`), `version`, `protocol`,
///   `optimised`, `processors`;
/// - of mail between clusters: `local`, `routed`, `held_back`, `held_back_to_main`, `rounds`,
///   `undone`; and
///   `flows`, a list of `from`, `to` (cluster names, null for main), `mails`,
///   `bytes`;
/// - `main`: `busy_ns`, `memory_bytes`;
/// - `clusters`, a list of `name`, `pid`, `link` (`"ring"`, `"channel"`), `lookahead_ns`, `events`,
///   `busy_ns`, `blocked_ns`, `waiting_ns`, `mail_in`, `mail_out`, `awake`, `memory_bytes`,
///   `counters`;
/// - `recoveries`, only if there were some: a list of `cluster`, `pid`, `death` (text), `time_ns`,
///   `took_ns` and `messages`;
/// - `dropped`, only if there were some: a list of `cluster`, `death` (text), `time_ns`. The digests
///   are then null;
/// - `left_out`, only if the simulation goes on from a snapshot that left out agents: a list of `kind`,
///   `why` and `agents` (texts).
///
/// ```
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Word }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Gossip { next: u64 }
/// # impl Agent<Msg> for Gossip {
/// #     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
/// #         ctx.send(self.next, Msg::Word);
/// #     }
/// # }
/// # fn main() -> Result<(), maslite_mp::Error> {
/// # let agents = Registry::new().with::<Gossip>().enter();
/// # let mut main = MpMain::builder(agents).placement(Placement::Inline).build()?;
/// let (left, right) = (main.new_cluster(), main.new_cluster());
/// main.add_to(left, 1, Gossip { next: 2 })?; // each tells the next
/// main.add_to(left, 2, Gossip { next: 3 })?;
/// main.add_to(right, 3, Gossip { next: 4 })?; // and there is no fourth
/// main.send(1, Msg::Word);
///
/// let report = main.run(Run::until_idle())?;
/// assert_eq!((report.local, report.routed), (1, 2)); // 1 to 2; main to 1, and 2 to 3
/// assert_eq!((report.counters.delivered, report.counters.undeliverable), (3, 1));
/// assert_eq!(report.clusters[1].counters.delivered, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MpReport {
    /// What any run reports.
    pub run: Report,
    /// Mail that agents and main took in this run.
    pub events: u64,
    /// Mail addressed within its cluster.
    pub local: u64,
    /// Mail that main relayed to a cluster, one for each that got it.
    pub routed: u64,
    /// Mail that arrived in another cluster later than it was due, because of the lookahead.
    pub held_back: u64,
    /// The same of mail to main. It changes nothing that agents do, unless main answers it.
    pub held_back_to_main: u64,
    /// Rounds of grants and reports.
    pub rounds: u64,
    /// The seed of the agents' random numbers.
    pub seed: u64,
    /// Where the clusters run.
    pub placement: Placement,
    /// Wall time from the call of `MpMain::new` to its first superstep.
    pub startup: Option<Duration>,
    /// How long main itself was at work \[wall\]: it granted, routed, and handled its own mail.
    pub main_busy: Duration,
    /// The memory that main's process has in use \[bytes\]; none where the system does not tell,
    /// and for runs shorter than 10 ms \[wall\], which to ask would make longer.
    pub main_memory: Option<u64>,
    /// The mail that crossed, by where it came from and went: main first, then the clusters, in the
    /// order in which they were made. Only where there was some.
    pub flows: Vec<Flow>,
    /// The clusters, in the order in which they were made.
    pub clusters: Vec<ClusterReport>,
    /// The clusters that lost their processes and were brought back, in order, since the simulation
    /// began.
    pub recoveries: Vec<Recovered>,
    /// The clusters that lost their processes and were [dropped](crate::Recovery::drop_cluster), in
    /// order, since the simulation began. If there are some, there is no digest.
    pub dropped: Vec<Dropped>,
    /// The agents that the snapshot from which the simulation goes on had
    /// [left out](crate::Restore::left_out), by their types.
    pub left_out: Vec<LeftOut>,
    /// What ran it.
    pub versions: Versions,
}

/// What one cluster did in a run; [`total`](Self::total) counts since the simulation began. `busy`,
/// `blocked` and `waiting` add up to the wall time of the run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterReport {
    /// The cluster.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// The process it runs in; if it was dropped, the process that it lost.
    pub pid: u32,
    /// What carries its messages, a [`Link::Ring`] or a [`Link::Channel`]; none if it runs inline or
    /// was dropped.
    pub link: Option<Link>,
    /// Its lookahead, if it has one.
    pub lookahead: Option<SimDuration>,
    /// Mail that its agents took in this run.
    pub events: u64,
    /// How long it worked \[wall\].
    pub busy: Duration,
    /// How long it had something to do, but others had to get as far first \[wall\].
    pub blocked: Duration,
    /// How long it had nothing to do \[wall\].
    pub waiting: Duration,
    /// Mail that came to it from other clusters and main.
    pub mail_in: u64,
    /// Mail that it sent to other clusters and main.
    pub mail_out: u64,
    /// How many agents were awake in its last superstep.
    pub awake: u64,
    /// The memory that its process has in use \[bytes\]; none inline, and as
    /// [`MpReport::main_memory`].
    pub memory: Option<u64>,
    /// What it counted in this run; the supersteps are those in which it had a part.
    pub counters: Counters,
    /// What it counted since the simulation began.
    pub total: Counters,
}

/// Mail that crossed one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Flow {
    /// The cluster it came from; none: main.
    pub from: Option<String>,
    /// The cluster it went to; none: main.
    pub to: Option<String>,
    /// How many, one for each cluster that got it.
    pub mails: u64,
    /// Their length on the link \[bytes\].
    pub bytes: u64,
}

/// What ran a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Versions {
    /// Of this crate.
    pub maslite: &'static str,
    /// Of what crosses the links.
    pub protocol: u32,
    /// It was built without debug assertions: figures of other builds say little.
    pub optimised: bool,
    /// Processors that this process may use.
    pub processors: usize,
}

impl Versions {
    pub(crate) fn here() -> Self {
        Self {
            maslite: env!("CARGO_PKG_VERSION"),
            protocol: PROTOCOL,
            optimised: !cfg!(debug_assertions),
            processors: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

impl Deref for MpReport {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.run
    }
}

impl AsRef<Report> for MpReport {
    fn as_ref(&self) -> &Report {
        &self.run
    }
}

/// A share of a run that is worth a remark.
const WORTH_A_REMARK: f64 = 0.1;

/// What a round of processes takes, roughly, on processors that are free \[s\].
const ROUND: f64 = 10e-6;

/// Where the wall time of a run went \[s\].
struct Load<'a> {
    wall: f64,
    /// Of all clusters together.
    work: f64,
    /// Of the one that worked longest.
    most: f64,
    heaviest: &'a str,
    /// Of main.
    main: f64,
}

/// What costs a run in processes most.
#[derive(Clone, Copy)]
enum Cause {
    Rounds,
    Main,
    Heaviest,
}

#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
fn float(count: u64) -> f64 {
    count as f64
}

impl MpReport {
    /// What a cluster did; none for a cluster of another simulation, or one made since.
    #[must_use]
    pub fn cluster(&self, cluster: ClusterId) -> Option<&ClusterReport> {
        self.clusters.iter().find(|it| it.id == cluster)
    }

    /// What the cluster with this name did, if there is one.
    #[must_use]
    pub fn cluster_named(&self, name: &str) -> Option<&ClusterReport> {
        self.clusters.iter().find(|it| it.name == name)
    }

    /// Mail taken per second of wall time in this run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    pub fn events_per_s(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// All of it as one JSON object.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Crane;
    /// # impl Agent<Msg> for Crane {}
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let agents = Registry::new().with::<Crane>().enter();
    /// # let mut main = MpMain::builder(agents).placement(Placement::Inline).build()?;
    /// # let yard = main.new_cluster_named("yard")?;
    /// # main.add_to(yard, "crane", Crane)?;
    /// let report = main.run(Run::until_idle())?;
    /// let json: serde_json::Value = serde_json::from_str(&report.to_json())?;
    /// assert_eq!(json["schema"], 3);
    /// assert_eq!(json["stopped_by"], "idle");
    /// assert_eq!(json["clusters"][0]["name"], "yard");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, texts and lists of them can be written")
    }

    /// Whether processes paid or would pay, and which cause costs this run most, in a sentence or
    /// two: as far as the times tell.
    ///
    /// What is measured is wall time. Clusters that have to share processors seem busier than they
    /// are, and then nothing is said of what one process would take.
    #[must_use]
    pub fn advice(&self) -> String {
        let Some(load) = self.load() else {
            return "there are no clusters".to_owned();
        };
        if self.clusters.len() == 1 {
            let share = Share(load.most / load.wall);
            return format!("one cluster, at work for {share} of the time");
        }
        let mut text = match self.placement {
            Placement::Inline => self.what_processes_would_do(&load),
            Placement::Processes => self.what_processes_did(&load),
        };
        if let Some(Flow {
            from, to, mails, ..
        }) = self.widest()
        {
            // Writing into a text cannot fail.
            let _ = write!(
                text,
                "; most mail between clusters, {mails} mails, goes from {from} to {to}",
                from = Place(from.as_deref()),
                to = Place(to.as_deref())
            );
        }
        text
    }

    fn load(&self) -> Option<Load<'_>> {
        let busy = |it: &ClusterReport| it.busy.as_secs_f64();
        let heaviest = self.clusters.iter().max_by_key(|it| it.busy)?;
        Some(Load {
            wall: self.wall.as_secs_f64().max(1e-9),
            work: self.clusters.iter().map(busy).sum(),
            most: busy(heaviest),
            heaviest: &heaviest.name,
            main: self.main_busy.as_secs_f64(),
        })
    }

    /// Of a run in one process: what processes could gain.
    fn what_processes_would_do(&self, load: &Load<'_>) -> String {
        let Load {
            wall, work, most, ..
        } = *load;
        let processors = self.versions.processors;
        // The heaviest part has to be waited for, and no more parts work at a time than there are
        // processors.
        let at_best = (most + load.main).max((work + load.main) / float(processors as u64));
        let waits = float(self.rounds) * ROUND;
        if at_best + waits >= wall {
            return format!(
                "processes would not pay: {} rounds would take longer than parallel work saves; {}",
                self.rounds,
                self.fewer_rounds()
            );
        }
        format!(
            "cluster {} does {} of the work of all clusters and there are {processors} processors, so processes could \
             make this run at most {:.1} times as fast",
            load.heaviest,
            Share(most / work.max(1e-9)),
            wall / (at_best + waits),
        )
    }

    /// Of a run in processes: whether they paid, and what cost most.
    fn what_processes_did(&self, load: &Load<'_>) -> String {
        let Load {
            wall, work, main, ..
        } = *load;
        let (clusters, processors) = (self.clusters.len(), self.versions.processors);
        let verdict = if work < wall {
            format!(
                "processes did not pay: all clusters together worked for {work:.3} s, so one process would take about as \
                 long, and the run took {wall:.3} s"
            )
        } else if clusters > processors {
            format!("{clusters} clusters share {processors} processors")
        } else {
            let at_a_time = work / wall;
            format!(
                "processes paid: on average {at_a_time:.1} of {clusters} clusters were at work at the same time"
            )
        };
        // What the run would be shorter by: while no process works, messages are under way; main
        // works alone; the heaviest part works on when the others have done.
        let idle = wall - work - main;
        let alone = load.most - work / float(clusters.min(processors) as u64);
        let (most, cause) = if idle >= main.max(alone) {
            (idle, Cause::Rounds)
        } else if main >= alone {
            (main, Cause::Main)
        } else {
            (alone, Cause::Heaviest)
        };
        if most < WORTH_A_REMARK * wall {
            return verdict;
        }
        let share = Share(most / wall);
        let fewer = self.fewer_rounds();
        match cause {
            Cause::Rounds => format!(
                "{verdict}; for {share} of the time no process worked, and all waited for the messages of {} rounds: {fewer}",
                self.rounds,
            ),
            Cause::Main => format!(
                "{verdict}; main was at work for {share} of the time, while clusters waited: {fewer}"
            ),
            Cause::Heaviest => format!(
                "{verdict}; cluster {} does {} of the work, and the others wait for it for {share} of the time: divide it",
                load.heaviest,
                Share(load.most / work.max(1e-9)),
            ),
        }
    }

    /// What makes rounds fewer.
    fn fewer_rounds(&self) -> &'static str {
        if self.clusters.iter().all(|it| it.lookahead.is_some()) {
            "a longer lookahead, or a single cluster, would need fewer rounds"
        } else {
            "a lookahead, or a single cluster, would avoid most rounds"
        }
    }

    /// Where most mail crossed between two clusters.
    fn widest(&self) -> Option<&Flow> {
        let between = self
            .flows
            .iter()
            .filter(|flow| flow.from.is_some() && flow.to.is_some());
        // The first of several.
        between.rev().max_by_key(|flow| flow.mails)
    }
}

/// A share as people read it.
struct Share(f64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.0 * 100.0)
    }
}

/// A place that mail comes from or goes to.
struct Place<'a>(Option<&'a str>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.unwrap_or("main"))
    }
}

/// A memory as people read it; a dash if it is not known.
pub(crate) struct Mebibytes(pub(crate) Option<u64>);

impl fmt::Display for Mebibytes {
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => f.pad(&format!("{:.1} MiB", bytes as f64 / 1_048_576.0)),
            None => f.pad("-"),
        }
    }
}

impl fmt::Display for MpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; {} clusters: {} mails within, {} across, {} rounds",
            self.run,
            self.clusters.len(),
            self.local,
            self.routed,
            self.rounds,
        )?;
        if f.alternate() {
            self.write_all(f)?;
        }
        Ok(())
    }
}

impl MpReport {
    /// All that the short form does not say.
    fn write_all(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_run(f)?;
        let names = self.clusters.iter().map(|it| it.name.chars().count());
        let width = names.chain([7]).max().unwrap_or(0);
        self.write_clusters(f, width)?;
        self.write_main(f, width)?;
        for flow in &self.flows {
            let (from, to) = (Place(flow.from.as_deref()), Place(flow.to.as_deref()));
            let (mails, bytes) = (flow.mails, flow.bytes);
            write!(
                f,
                "\n{from:width$} -> {to:width$} {mails:>10} mails {bytes:>12} bytes"
            )?;
        }
        write!(f, "\n{}", self.advice())
    }

    /// A line about the run as a whole, and about what runs it.
    fn write_run(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Versions {
            maslite,
            protocol,
            optimised,
            processors,
        } = self.versions;
        write!(
            f,
            "\n{} events in this run, {:.0} a second; {} held back, {} to main; seed {}; {}; maslite {maslite}{}, protocol \
             {protocol}, {processors} processors",
            self.events,
            self.events_per_s(),
            self.held_back,
            self.held_back_to_main,
            self.seed,
            placement(self.placement),
            if optimised { "" } else { " (not optimised)" },
        )?;
        if let Some(startup) = self.startup {
            write!(f, "; started in {:.6} s", startup.as_secs_f64())?;
        }
        Ok(())
    }

    /// A table of the clusters.
    fn write_clusters(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        write!(
            f,
            "\n{:width$} {:>8} {:>8} {:>12} {:>11} {:>11} {:>11} {:>10} {:>10} {:>8} {:>11} {:>12}",
            "cluster",
            "process",
            "link",
            "lookahead",
            "busy",
            "blocked",
            "waiting",
            "mail in",
            "mail out",
            "awake",
            "memory",
            "events",
        )?;
        for it in &self.clusters {
            let lookahead = it.lookahead.map(|lookahead| lookahead.to_string());
            write!(
                f,
                "\n{:width$} {:>8} {:>8} {:>12} {:>11} {:>11} {:>11} {:>10} {:>10} {:>8} {:>11} {:>12}",
                it.name,
                it.pid,
                it.link.map_or("inline", link),
                lookahead.as_deref().unwrap_or("-"),
                Seconds(it.busy),
                Seconds(it.blocked),
                Seconds(it.waiting),
                it.mail_in,
                it.mail_out,
                it.awake,
                Mebibytes(it.memory),
                it.events,
            )?;
        }
        Ok(())
    }

    /// Main's line of the table.
    fn write_main(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        write!(
            f,
            "\n{:width$} {:>8} {:>8} {:>12} {:>11} {:>11} {:>11} {:>10} {:>10} {:>8} {:>11}",
            "main",
            std::process::id(),
            "",
            "",
            Seconds(self.main_busy),
            "",
            Seconds(self.wall.saturating_sub(self.main_busy)),
            "",
            "",
            "",
            Mebibytes(self.main_memory),
        )
    }
}

/// A time in a column.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.4} s", self.0.as_secs_f64()))
    }
}

fn placement(placement: Placement) -> &'static str {
    match placement {
        Placement::Processes => "processes",
        Placement::Inline => "inline",
    }
}

fn link(link: Link) -> &'static str {
    match link {
        Link::Ring => "ring",
        Link::Channel => "channel",
        Link::Auto => "auto",
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
