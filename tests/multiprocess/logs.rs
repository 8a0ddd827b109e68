//! What agents record with `tracing` comes out of main's subscriber: once, whole, in order, with
//! time, cluster and agent.

use std::io::{self, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};

use maslite_mp::prelude::*;
use maslite_mp::{Error, Output};
use serde::{Deserialize, Serialize};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Metadata, Subscriber, debug, info, info_span, warn};
use tracing_subscriber::EnvFilter;

use crate::test_placement::TestPlacement;
use crate::workers::{Worker, clusters, go};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Writer {
    /// Records something of every kind now and in a second.
    Steady,
    /// Records a number of lines of a number of bytes, in between others, and kills its process.
    Doomed(usize, usize),
    /// Prints what may look like a record.
    Forger(Vec<String>),
    /// Prints a number of records, each of a place of its own with a target of this length
    /// \[bytes\].
    Places(usize, usize),
}

impl Agent<Msg> for Writer {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match self {
            Self::Steady => {
                info!(
                    speed = 1.5,
                    left = -3,
                    name = "crane",
                    ok = true,
                    "it\nticks"
                );
                let _inside = info_span!("job", number = 7).entered();
                warn!("slow");
                debug!("unheard");
                if ctx.now() < SimTime::from_secs(2) {
                    ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
                }
            }
            Self::Forger(records) => {
                for record in records {
                    eprintln!("\x1e{record}");
                }
                info!("true");
            }
            Self::Places(count, length) => {
                for place in 0..*count {
                    let target = format!("{place}{}", "x".repeat(*length));
                    eprintln!("\x1e{}", record(&target, &[("a", "b")]));
                }
            }
            Self::Doomed(lines, bytes) => {
                let text = "x".repeat(*bytes);
                for line in 0..*lines {
                    eprintln!("line {line}");
                    info!(line, "{text}");
                }
                std::process::abort();
            }
        }
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Writer>();
    registry.entered_by_test("logs::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs these agents, each in a cluster, and returns what a subscriber with this filter wrote.
fn recorded(
    filter: &str,
    placement: Placement,
    writers: &[(&str, Writer)],
) -> (Result<MpReport, Error>, String) {
    // With one subscriber alone `tracing` asks that of the thread that is the first to come by a
    // span: another test's, which has none, would switch the span off here.
    let _another = Dispatch::new(NoSubscriber::new());
    let page = Page::default();
    let writer = page.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, || {
        let mut main = MpMain::builder(agents())
            .placement(placement)
            .output(Output::Null)
            .build()?;
        for (number, (name, writer)) in writers.iter().enumerate() {
            let cluster = main.new_cluster_named(name)?;
            main.add_to(cluster, number as u64, writer.clone())?;
        }
        main.run(Run::until_idle())
    });
    let bytes = page.0.lock().unwrap().clone();
    (result, String::from_utf8(bytes).unwrap())
}

#[test]
fn records_of_children_have_time_cluster_and_agent() {
    let writers = [("north", Writer::Steady), ("south", Writer::Steady)];
    let filter = "multiprocess::logs=info";
    let (result, text) = recorded(filter, Placement::Processes, &writers);
    result.unwrap();
    for (cluster, agent) in [("north", 0), ("south", 1)] {
        let own: Vec<&str> = text.lines().filter(|line| line.contains(cluster)).collect();
        let mut expected = Vec::new();
        for second in [1, 2] {
            let place = format!("sim_time={second} s agent={agent} phase=update cluster={cluster}");
            expected.push(format!(
                " INFO multiprocess::logs: it\\nticks speed=1.5 left=-3 name=\"crane\" ok=true {place}"
            ));
            expected.push(format!(" WARN multiprocess::logs: slow number=7 {place}"));
        }
        assert_eq!(own, expected);
    }
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn inline_they_stand_in_spans() {
    let filter = "multiprocess::logs=info,maslite=error";
    let (result, text) = recorded(filter, Placement::Inline, &[("north", Writer::Steady)]);
    result.unwrap();
    let slow: Vec<&str> = text.lines().filter(|line| line.ends_with("slow")).collect();
    assert_eq!(
        slow,
        [1, 2].map(|second| format!(
            " WARN cluster{{cluster=\"north\"}}:agent{{sim_time={second} s agent=0 phase=update}}:job{{number=7}}: multiprocess::logs: slow"
        ))
    );
}

#[test]
fn the_kernel_records_too() {
    let (result, text) = recorded(
        "maslite=trace",
        Placement::Processes,
        &[("north", Writer::Steady)],
    );
    result.unwrap();
    let supersteps: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("superstep="))
        .collect();
    assert_eq!(
        supersteps,
        ["0 s", "1 s", "2 s"].map(|time| format!(
            "TRACE maslite: superstep sim_time={time} superstep=0 awake=1 cluster=north"
        ))
    );
    assert!(
        text.contains("DEBUG maslite: cluster started cluster=north pid="),
        "{text}"
    );
}

#[test]
fn what_was_recorded_right_before_a_death_is_not_lost() {
    let (lines, bytes) = (50, 100_000);
    let (result, text) = recorded(
        "info",
        Placement::Processes,
        &[("north", Writer::Doomed(lines, bytes))],
    );
    let Err(Error::ClusterDied { stderr, .. }) = result else {
        panic!("{result:?}");
    };
    let heard: Vec<&str> = text.lines().collect();
    assert_eq!(heard.len(), lines);
    for (line, heard) in heard.into_iter().enumerate() {
        let end = format!("x line={line} sim_time=1 s agent=0 phase=update cluster=north");
        assert!(
            heard.ends_with(&end) && heard.len() > bytes,
            "{}",
            &heard[bytes..]
        );
    }
    let said: Vec<String> = (0..lines).map(|line| format!("line {line}")).collect();
    assert_eq!(stderr.lines().collect::<Vec<_>>(), said);
}

/// A record as a child writes it, from a place of this name, with these fields of text.
fn record(target: &str, fields: &[(&str, &str)]) -> String {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let values = fields
        .iter()
        .map(|(_, text)| serde_json::json!({ "Text": text }));
    serde_json::json!({
        "place": {
            "name": "event", "target": target, "level": 3,
            "module": null, "file": null, "line": null, "names": names,
        },
        "values": values.collect::<Vec<_>>(),
    })
    .to_string()
}

#[test]
fn records_that_no_child_of_ours_makes_are_text() {
    let many: Vec<(String, &str)> = (0..40).map(|it| (format!("f{it}"), "")).collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, text)| (name.as_str(), *text))
        .collect();
    let forged = [
        record("logs", &[("message", "x"), ("cluster", "south")]),
        record("logs", &[("message", "x"), ("message", "y")]),
        record("logs\n INFO a", &[("message", "x")]),
        record("logs", &[("a\u{202e}b", "x")]),
        record(&"x".repeat(10_000), &[("message", "x")]),
        record("logs", &many),
    ];
    let lines = record("logs", &[("message", "one\n INFO logs: two\x1b[2J")]);
    let records = forged.iter().cloned().chain([lines]).collect();
    let writers = [("north", Writer::Forger(records))];
    let (result, text) = recorded("info", Placement::Processes, &writers);
    result.unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            " INFO logs: one\\n INFO logs: two\\u{1b}[2J cluster=north",
            " INFO multiprocess::logs: true sim_time=1 s agent=0 phase=update cluster=north",
        ]
    );
}

/// How much memory this process has in use \[bytes\].
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

#[test]
#[ignore = "started by the test below"]
fn long_places() {
    // Almost as long as a record may be.
    let writer = Writer::Places(60, 3_000_000);
    let before = memory();
    let (result, _) = recorded("info", Placement::Processes, &[("north", writer)]);
    result.unwrap();
    // Their places are 180 MB.
    let (more, small) = (memory().saturating_sub(before), 100 << 20);
    println!("{more} bytes more");
    assert!(more < small, "{more} bytes more");
}

#[test]
#[cfg(target_os = "linux")]
fn places_without_end_do_not_fill_main() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["logs::long_places", "--exact", "--ignored"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Panics over everything it is to record, as one does that cannot write.
struct Sick;

impl Subscriber for Sick {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        // What main records itself is its own matter.
        assert!(
            event.metadata().target() != "multiprocess::logs",
            "the disk is full"
        );
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_subscriber_that_panics_ends_no_run() {
    let report = tracing::subscriber::with_default(Sick, || {
        let mut main = MpMain::builder(agents())
            .output(Output::Null)
            .build()
            .unwrap();
        for number in 0..2_u64 {
            let cluster = main.new_cluster();
            main.add_to(cluster, number, Writer::Steady).unwrap();
        }
        main.run(Run::until_idle()).unwrap();
        // The pump still reads: a child that floods it goes on.
        let cluster = main.new_cluster();
        let flood = vec!["x".repeat(1_000); 1_000];
        main.add_to(cluster, 2, Writer::Forger(flood)).unwrap();
        main.run(Run::until_idle()).unwrap()
    });
    assert_eq!(report.total.delivered, 5);
}

#[test]
#[ignore = "started by the test below"]
fn into_stderr() {
    let subscriber = tracing_subscriber::fmt().with_writer(io::stderr).finish();
    let report = tracing::subscriber::with_default(subscriber, || {
        let mut main = MpMain::new(agents()).unwrap();
        for number in 0..3_u64 {
            let cluster = main.new_cluster();
            let lines = vec!["x".repeat(1_000); 1_000];
            let writer = [Writer::Steady, Writer::Forger(lines)];
            main.add_to(cluster, number, writer[usize::from(number == 2)].clone())
                .unwrap();
        }
        main.run(Run::until_idle()).unwrap()
    });
    assert_eq!(report.total.delivered, 5);
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_error_that_is_full_ends_no_run() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["logs::into_stderr", "--exact", "--ignored", "--nocapture"])
        .stderr(full)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

/// A process whose standard output takes nothing: the device is full, or its reader is gone.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "started by the test below"]
fn onto_a_standard_output_that_takes_nothing() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    let (_, unread) = io::pipe().unwrap();
    for output in [full.unwrap().into(), std::os::fd::OwnedFd::from(unread)] {
        rustix::stdio::dup2_stdout(output).unwrap();
        let mut main = clusters(
            TestPlacement::Ring,
            &[&[Worker::Print(1_000)], &[Worker::Farewell]],
        );
        main.send_mail(go(1));
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(report.total.delivered, 1);
        let shutdown = main.shutdown();
        assert!(shutdown.errors.is_empty(), "{shutdown:?}");
    }
    // The test harness would print into it.
    std::process::exit(0);
}

/// What children print there is lost, and nothing else.
#[test]
#[cfg(target_os = "linux")]
fn a_standard_output_that_takes_nothing_ends_no_run() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["logs::onto_a_standard_output_that_takes_nothing", "--exact"])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("line 999"), "{text}");
}

#[test]
#[ignore = "started by the test below"]
fn silent() {
    let mut main = MpMain::new(agents()).unwrap();
    let cluster = main.new_cluster();
    main.add_to(cluster, 1, Writer::Steady).unwrap();
    main.run(Run::until_idle()).unwrap();
}

#[test]
fn without_a_subscriber_nothing_is_recorded() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["logs::silent", "--exact", "--ignored", "--nocapture"])
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
