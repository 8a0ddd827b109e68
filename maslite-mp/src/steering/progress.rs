//! Tells people at a terminal how far a long run has come.
//!
//! A line is written to the standard error when a run has taken 2 s, 4 s, 8 s, … and from then on
//! once a minute: whole lines, each in one piece, so that neither what children print nor what the
//! program prints tears them. Nothing is written where the standard error is no terminal.
//!
//! The supervisor thread writes it, when it looks whether the run moves: no thread is there for
//! this alone, and those who run do nothing for it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maslite_core::{Plain, SimTime};

use crate::settings::timing::{FIRST_PROGRESS, LONGEST_PROGRESS};
use crate::stall::detector::{Probe, ProgressLines};
use crate::steering::control_queue::ControlQueue;
use crate::steering::status::{Status, StatusSnapshot};

/// Where lines go.
type Sink = Box<dyn FnMut(&str) + Send>;

/// Writes lines while a run goes on.
pub(crate) struct ProgressReporter {
    control_queue: Arc<ControlQueue>,
    sink: Arc<Mutex<Sink>>,
    /// The run that was told of last.
    run: u64,
    /// When the next line of it is due, after its beginning.
    next: Duration,
}

impl ProgressReporter {
    /// One that writes to the terminal, if there is one.
    pub(crate) fn at_the_terminal(control_queue: Arc<ControlQueue>) -> Option<Self> {
        io::stderr()
            .is_terminal()
            .then(|| Self::new(control_queue, Box::new(write_down)))
    }

    fn new(control_queue: Arc<ControlQueue>, sink: Sink) -> Self {
        Self {
            control_queue,
            sink: Arc::new(Mutex::new(sink)),
            run: 0,
            next: FIRST_PROGRESS,
        }
    }

    fn snapshot(&self) -> &StatusSnapshot {
        &self.control_queue.snapshot
    }
}

impl ProgressLines for ProgressReporter {
    fn interval(&self) -> Duration {
        FIRST_PROGRESS
    }

    fn is_due(&mut self, run: u64) -> bool {
        if self.run != run {
            self.run = run;
            self.next = FIRST_PROGRESS;
        }
        let wall = self.snapshot().wall();
        if wall < self.next {
            return false;
        }
        while self.next <= wall {
            self.next += self.next.min(LONGEST_PROGRESS);
        }
        true
    }

    fn tell(&self, probes: &[Probe], time: SimTime) {
        let mut status = self.snapshot().read();
        status.glance(probes, time);
        let line = format!("{}\n", Line(&status));
        let sink = Arc::clone(&self.sink);
        // In a thread of its own: a terminal may be stopped, and the supervisor must not be.
        // Without a thread there is no line.
        let _ = std::thread::Builder::new()
            .name("maslite-progress".to_owned())
            .spawn(move || {
                if let Ok(mut sink) = sink.try_lock() {
                    sink(&line);
                }
            });
    }
}

impl fmt::Debug for ProgressReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressReporter")
            .field("run", &self.run)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn write_down(line: &str) {
    // In one piece, so that no other line comes between. If the stream is closed, the line is lost.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// How a run stands, in a line.
pub(crate) struct Line<'a>(pub(crate) &'a Status);

/// How many clusters a line names.
const SHOWN: usize = 3;

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(status) = self;
        write!(f, "{}", status.time)?;
        if let Some(end) = status.end {
            write!(f, " of {end}")?;
        }
        f.write_str(" simulated")?;
        if let Some(share) = status.share_done() {
            write!(f, " ({:.1} %)", share * 100.0)?;
        }
        write!(
            f,
            " in {:.0} s, {:.1}X; {} events/s",
            status.wall.as_secs_f64(),
            status.ratio(),
            Rate(status.events_per_s())
        )?;
        let blockers = status.blockers().into_iter();
        // Those of another process may say anything.
        let blockers: Vec<String> = blockers.map(|name| Plain(name, 40).to_string()).collect();
        match blockers.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; cluster {one} blocks simulated time"),
            some if some.len() <= SHOWN => {
                write!(f, "; clusters {} block simulated time", some.join(", "))
            }
            all => {
                let (some, rest) = all.split_at(SHOWN);
                let (some, rest) = (some.join(", "), rest.len());
                write!(f, "; clusters {some} and {rest} more block simulated time")
            }
        }
    }
}

/// A line for people.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line(self).fmt(f)
    }
}

/// A rate as people read it.
pub(crate) struct Rate(pub(crate) f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rate) = *self;
        let text = if rate >= 1e6 {
            format!("{:.2} M", rate / 1e6)
        } else if rate >= 1e4 {
            format!("{:.1} k", rate / 1e3)
        } else {
            format!("{rate:.0}")
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use maslite_core::internal::Progress;

    use super::*;
    use crate::stall::detector::ProbeAnswer;
    use crate::steering::status::RunState;

    fn probe(cluster: &str, busy: bool, time: SimTime) -> Probe {
        let mut sample = Progress::default().sample();
        (sample.time, sample.delivered) = (time, 3_000_000);
        Probe {
            cluster: cluster.to_owned(),
            pid: None,
            answer: ProbeAnswer::Answered { busy, sample },
            debugger: None,
            memory: None,
        }
    }

    #[test]
    fn a_line_tells_where_the_run_is_and_who_holds_the_clock() {
        let control_queue = Arc::new(ControlQueue::default());
        let snapshot = &control_queue.snapshot;
        for name in ["north", "south"] {
            snapshot.add(name.to_owned());
        }
        snapshot.note_run(SimTime::ZERO, Some(SimTime::from_secs(60)), 0);
        snapshot.show(RunState::Running);
        let mut status = snapshot.read();
        let (early, late) = (SimTime::from_secs(15), SimTime::from_secs(20));
        status.glance(
            &[probe("north", true, late), probe("south", true, early)],
            SimTime::from_secs(1),
        );
        status.wall = Duration::from_secs(4);
        assert_eq!(
            Line(&status).to_string(),
            "15 s of 60 s simulated (25.0 %) in 4 s, 3.8X; 1.50 M events/s; cluster south blocks simulated time"
        );
        status.end = None;
        status.clusters[0].time = early;
        status.events = 20;
        assert_eq!(
            Line(&status).to_string(),
            "15 s simulated in 4 s, 3.8X; 5 events/s; clusters north, south block simulated time"
        );
        // No cluster is at work just now: main routes, say, or they wait for a processor.
        let mut status = snapshot.read();
        let probes = [probe("north", false, late), probe("south", false, early)];
        status.glance(&probes, SimTime::from_secs(1));
        assert_eq!(status.time, late);
    }

    #[test]
    fn lines_are_due_less_and_less_often_and_anew_in_every_run() {
        let control_queue = Arc::new(ControlQueue::default());
        let mut progress_reporter =
            ProgressReporter::new(Arc::clone(&control_queue), Box::new(|_| ()));
        let mut due_after = |run, seconds| {
            control_queue
                .snapshot
                .set_wall(Duration::from_secs(seconds));
            progress_reporter.is_due(run)
        };
        let due: Vec<u64> = (0..300).filter(|second| due_after(1, *second)).collect();
        assert_eq!(due, [2, 4, 8, 16, 32, 64, 124, 184, 244]);
        let due: Vec<u64> = (0..5).filter(|second| due_after(3, *second)).collect();
        assert_eq!(due, [2, 4]);
    }
}
