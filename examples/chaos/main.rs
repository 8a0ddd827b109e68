//! *Covers*: what becomes of a simulation when something goes wrong: one clear error, soon, and
//! nothing left behind.
//!
//! *Scenario*: clusters that are busy with each other, and one fault per round: processes are
//! killed and stopped, agents panic, abort, spin and flood, main itself is killed. Each round must
//! come to the right end; how long that took, and what was left of processes, open files and
//! temporary files, is told for each fault.
//!
//! ```sh
//! cargo run --release --example chaos -- --fault kill --rounds 1000
//! ```

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, getpid, set_child_subreaper, set_parent_process_death_signal};

mod faults;
mod main_faults;
mod model;
mod processes;
mod recovery;

use maslite_mp::Recovered;

use faults::{FAULTS, Failure, Fault};
use maslite_testkit::carrier::Carrier;
use model::Stage;

/// Causes faults in busy simulations, and checks that each ends correctly and leaves nothing
/// behind.
#[derive(Debug, Parser)]
#[command(name = "chaos", after_help = EXPLANATION)]
struct Options {
    /// Which fault: a name from the list, or all.
    #[arg(long, default_value = "all")]
    fault: String,
    /// The faults that a simulation survives because clusters come back, or are dropped; in short for
    /// them.
    #[arg(long)]
    recover: bool,
    /// How often each fault happens.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How many clusters each simulation has.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    clusters: u64,
    /// The kind of link between processes.
    #[arg(long, value_enum, default_value_t)]
    link: Carrier,
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print a JSON object for each fault and nothing else.
    #[arg(long)]
    json: bool,
    /// List the faults.
    #[arg(long)]
    list: bool,
    /// Let processes write to the standard error directly.
    #[arg(long)]
    loud: bool,
    /// Used by this program itself: do the rounds here.
    #[arg(long, hide = true)]
    inside: bool,
    /// Used by this program itself: be the main process that suffers the fault.
    #[arg(long, hide = true)]
    host: Option<String>,
}

impl Options {
    fn stage(&self) -> Stage {
        Stage {
            clusters: self.clusters,
            link: self.link,
            balls: 1,
        }
    }
}

const EXPLANATION: &str = "\
right           rounds that came to the right end
p50, p99, max   from the fault to its consequence, or of the run if it has none [ms]
left            processes, open files and temporary files after all rounds
memory          by how much this program has grown from the first tenth of the rounds on [kB]";

fn main() -> ExitCode {
    // A child process goes no further.
    drop(model::agents());
    let options = Options::parse();
    let done = match &options.host {
        Some(what) => main_faults::be_host(what, options.stage()).map(|()| true),
        None if options.list => {
            for fault in FAULTS {
                println!("{:<18} {}", fault.name, fault.about);
            }
            Ok(true)
        }
        None if options.inside => do_rounds(&options),
        None => go_inside(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", maslite_mp::Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Starts this program once more, with a directory for temporary files that is its own.
fn go_inside() -> Result<bool, Failure> {
    let directory = std::env::temp_dir().join(format!("chaos-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let mut inside = Command::new(std::env::current_exe()?);
    inside.args(std::env::args_os().skip(1)).arg("--inside");
    if !std::env::args().any(|argument| argument == "--loud") {
        inside.stderr(Stdio::null());
    }
    let status = inside.env("TMPDIR", &directory).status();
    std::fs::remove_dir_all(&directory)?;
    Ok(status?.success())
}

fn do_rounds(options: &Options) -> Result<bool, Failure> {
    let wanted: Vec<_> = FAULTS
        .iter()
        .filter(|fault| match options.recover {
            true => ["recover", "drop"]
                .iter()
                .any(|it| fault.name.starts_with(it)),
            false => [fault.name, "all"].contains(&&*options.fault),
        })
        .collect();
    if wanted.is_empty() {
        println!("no fault is called {:?}: see --list", options.fault);
        return Ok(false);
    }
    // It goes with the one that started it, too.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A process that outlives its parent becomes a child of this process, and is counted.
    set_child_subreaper(Some(getpid()))?;
    if !options.json {
        println!(
            "{:<18}{:>7}{:>7}{:>9}{:>9}{:>9}  {:<10}{:>7}",
            "fault", "rounds", "right", "p50", "p99", "max", "left", "memory"
        );
    }
    let mut all_right = true;
    for fault in wanted {
        let outcome = Outcome::of(fault, options);
        outcome.print(options);
        all_right &= outcome.is_right();
    }
    Ok(all_right)
}

/// What all rounds of a fault came to.
struct Outcome {
    fault: &'static str,
    rounds: u64,
    /// How long those took that were right, in ascending order.
    took: Vec<Duration>,
    /// What was wrong first.
    wrong: Option<String>,
    left_processes: usize,
    left_fds: usize,
    left_files: usize,
    grown: u64,
    /// Clusters that came back.
    recoveries: Vec<Recovered>,
}

impl Outcome {
    fn of(fault: &Fault, options: &Options) -> Self {
        let mut chaos = faults::chaos(options.seed, fault.name, options.stage());
        // What is opened once and for all is open after a first round, which does not count.
        let _ = (fault.round)(&mut chaos);
        let (fds, files) = (processes::open_files(), processes::temporary_files());
        let (mut took, mut wrong, mut memory) = (Vec::new(), None, 0);
        for round in 0..options.rounds {
            match (fault.round)(&mut chaos) {
                Ok(time) => took.push(time),
                Err(error) => {
                    let text = maslite_mp::Chain(&*error).to_string();
                    wrong.get_or_insert(format!("round {round}: {text}"));
                }
            }
            if round == options.rounds / 10 {
                memory = processes::memory();
            }
        }
        took.sort_unstable();
        Self {
            fault: fault.name,
            rounds: options.rounds,
            took,
            wrong,
            left_processes: processes::children().len(),
            left_fds: processes::open_files().saturating_sub(fds),
            left_files: processes::temporary_files().saturating_sub(files),
            grown: processes::memory().saturating_sub(memory),
            recoveries: chaos.recoveries,
        }
    }

    fn is_right(&self) -> bool {
        let left = (self.left_processes, self.left_fds, self.left_files);
        self.wrong.is_none() && left == (0, 0, 0)
    }

    /// The time [ms] within which this share of the rounds came to its end; none if none did.
    fn ms(&self, percent: usize) -> Option<f64> {
        let place = (self.took.len() * percent).div_ceil(100);
        let time = self.took.get(place.checked_sub(1)?)?;
        Some((time.as_secs_f64() * 1e5).round() / 1e2)
    }

    fn print(&self, options: &Options) {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.ms(percent));
        let right = self.took.len();
        if options.json {
            let mut object = serde_json::json!({
                "fault": self.fault,
                "rounds": self.rounds,
                "right": right,
                "p50_ms": p50,
                "p99_ms": p99,
                "max_ms": max,
                "left_processes": self.left_processes,
                "left_fds": self.left_fds,
                "left_files": self.left_files,
                "memory_kb": self.grown,
            });
            if let Some(wrong) = &self.wrong {
                object["wrong"] = wrong.as_str().into();
            }
            println!("{object}");
            return;
        }
        let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"));
        let left = format!(
            "{}/{}/{}",
            self.left_processes, self.left_fds, self.left_files
        );
        println!(
            "{:<18}{:>7}{right:>7}{:>9}{:>9}{:>9}  {left:<10}{:>7}",
            self.fault,
            self.rounds,
            ms(p50),
            ms(p99),
            ms(max),
            self.grown,
        );
        if let Some(wrong) = &self.wrong {
            println!("  wrong in {wrong}");
        }
        if !self.recoveries.is_empty() {
            let part = |of: fn(&Recovered) -> Duration| {
                let mut times: Vec<_> = self.recoveries.iter().map(of).collect();
                times.sort_unstable();
                let [p50, p99] = [50, 99].map(|percent| times[(times.len() - 1) * percent / 100]);
                format!("{p50:.2?} / {p99:.2?}")
            };
            println!(
                "  {} recoveries, p50 / p99: {}; start {}, replay {}",
                self.recoveries.len(),
                part(|it| it.took),
                part(|it| it.start),
                part(|it| it.replay),
            );
        }
    }
}
