//! Ctrl-C: these tests signal a process of its own, which is this program, started for one ignored
//! "test".

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};

use maslite_mp::Error;
use maslite_mp::prelude::*;
use maslite_testkit::interruptible::interruptible;

use crate::test_placement::TestPlacement;
use crate::workers::{Worker, clusters, exists, go, pids, signal};

/// How the last line of a main process begins.
const LAST: &str = "alone:";

/// A main process that was started by a test.
pub(crate) struct Host {
    process: Child,
    /// On which it tells how far it is, line by line.
    said: BufReader<ChildStderr>,
}

impl Host {
    /// Starts the ignored test of this name, with the shell's `before` before it.
    fn start(entry: &str, before: &str) -> Self {
        Self::start_test(&format!("signals::{entry}"), before)
    }

    /// The same for a test of another file.
    pub(crate) fn start_test(entry: &str, before: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        let script = format!("{before} exec \"$0\" {entry} --exact --ignored --nocapture");
        let mut process = interruptible("sh")
            .args(["-c", &script])
            .arg(this)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        Self { process, said }
    }

    /// Waits for the next line that begins with `head`, and gives the rest of it. After its last
    /// line the process waits for a signal, so that line ends this as well.
    pub(crate) fn says(&mut self, head: &str) -> String {
        let mut said = String::new();
        loop {
            let begin = said.len();
            let length = self.said.read_line(&mut said).unwrap();
            let line = &said[begin..];
            if let Some(rest) = line.strip_prefix(head) {
                return rest.trim().to_owned();
            }
            assert!(
                length > 0 && !line.starts_with(LAST),
                "no {head:?} in {said:?}"
            );
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.process.id());
    }

    /// Waits for its end, and for that of all that hold its standard error: the clusters.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut rest = Vec::new();
        self.said.read_to_end(&mut rest).unwrap();
        self.process.wait().unwrap()
    }
}

impl Drop for Host {
    /// A test that failed leaves nothing behind. One that did not has seen the end of it.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A simulation that never ends, and says how it did.
#[test]
#[ignore = "a main process"]
fn forever_entry() {
    run_and_tell(Worker::Forever);
}

/// The same with an agent that never returns.
#[test]
#[ignore = "a main process"]
fn stuck_entry() {
    run_and_tell(Worker::Stuck);
}

fn run_and_tell(worker: Worker) {
    let mut main = clusters(TestPlacement::Ring, &[&[worker], &[Worker::Farewell]]);
    main.stop_on_ctrl_c().unwrap();
    main.send_mail(go(1));
    main.start().unwrap();
    eprintln!("pids: {:?}", pids(&main));
    let run = Run::until_idle().supersteps_per_instant(u64::MAX);
    match main.run(run) {
        Ok(report) => eprintln!("ended: {}", report.stopped_by),
        Err(error) => eprintln!("failed: {error}"),
    }
    eprintln!("left: {}", pids(&main).iter().any(|pid| exists(*pid)));
    drop(main);
    // Only the system listens for them now.
    eprintln!("{LAST}");
    std::thread::park();
}

#[test]
fn the_first_signal_ends_a_run_with_a_report_and_the_last_one_the_process() {
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let mut host = Host::start("forever_entry", "");
        host.says("pids:");
        host.signal(name);
        assert_eq!(host.says("ended:"), "interrupted");
        host.says(LAST);
        host.signal(name);
        assert_eq!(host.end().signal(), Some(number));
    }
}

#[test]
fn the_second_signal_kills_the_clusters_and_the_third_the_process() {
    let mut host = Host::start("stuck_entry", "");
    // Before that the first signal would end the run at its beginning, and there would be no use
    // for a second.
    host.says("[1] stuck");
    host.signal("INT");
    host.signal("TERM");
    let failed = host.says("failed:");
    assert!(
        failed.starts_with("a second Ctrl-C or SIGTERM interrupted the run"),
        "{failed}"
    );
    assert_eq!(host.says("left:"), "false");
    host.says(LAST);
    host.signal("INT");
    assert_eq!(host.end().signal(), Some(2), "the shell sees 130");
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let mut host = Host::start("forever_entry", "trap '' INT;");
    host.says("pids:");
    host.signal("INT");
    host.signal("INT");
    host.signal("TERM");
    assert_eq!(host.says("ended:"), "interrupted");
    host.says(LAST);
    host.signal("TERM");
    assert_eq!(host.end().signal(), Some(15));
}

/// A program with a handler of its own, which this library leaves alone.
#[test]
#[ignore = "a main process"]
fn taken_entry() {
    let flag = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGINT, flag).unwrap();
    let main = clusters(TestPlacement::Ring, &[&[Worker::Farewell]]);
    match main.stop_on_ctrl_c() {
        Err(error @ Error::Signals(_)) => eprintln!("refused: {}", maslite_mp::Chain(&error)),
        other => eprintln!("refused: {other:?}"),
    }
}

#[test]
fn a_handler_of_the_program_is_left_alone() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let mut host = Host::start("taken_entry", "");
    assert_eq!(
        host.says("refused:"),
        "cannot install a handler for Ctrl-C; stop runs with a `StopHandle` instead: this program handles \
         SIGINT or SIGTERM itself"
    );
    assert!(host.end().success());
}
