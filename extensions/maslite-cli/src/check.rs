//! `maslite check`: runs a program in several ways, two at a time, and compares the traces.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitStatus;

use maslite_mp::Plain;
use maslite_mp::comparison::{CheckSettings, Deviation};
use serde_json::json;

use crate::choice::Failure;
use crate::running::{Folder, Lines, Running};

/// The number of lines that are shown before a difference, and looked at behind it.
const BEFORE: usize = 8;
const BEHIND: usize = 2_000;

/// How the other run differs from the run of the program as it is.
struct Way {
    name: &'static str,
    settings: CheckSettings,
    reasons: &'static str,
}

fn ways(clusters: u32) -> [Way; 5] {
    let as_it_is = CheckSettings {
        schema: CheckSettings::SCHEMA,
        ..CheckSettings::default()
    };
    [
        Way {
            name: "as it is, again",
            settings: as_it_is,
            reasons: "a `HashMap` or `HashSet` that is walked, wall time (`Instant::now`, `SystemTime::now`), threads, \
                      random numbers that do not come from `ctx.rng()`, addresses in memory, process ids, files that \
                      another run has changed",
        },
        Way {
            name: "in one cluster",
            settings: CheckSettings {
                clusters: Some(1),
                ..as_it_is
            },
            reasons: "statics, thread locals or files that agents of one process share, process ids",
        },
        Way {
            name: "in several clusters",
            settings: CheckSettings {
                clusters: Some(clusters),
                ..as_it_is
            },
            reasons: "statics, thread locals or files that agents of one process share, process ids",
        },
        Way {
            name: "with jitter",
            settings: CheckSettings {
                jitter: Some(1),
                ..as_it_is
            },
            reasons: "wall time, threads, mail from outside, files that agents share",
        },
        Way {
            name: "with amnesia",
            settings: CheckSettings {
                amnesia: Some(1),
                ..as_it_is
            },
            reasons: "state that the encoding of an agent leaves out (`#[serde(skip)]`), the order of a `HashMap`, \
                      which is another one after decoding",
        },
    ]
}

/// What came of two runs.
enum Outcome {
    /// All deliveries were the same. Has their number, and how both runs ended if they failed.
    Same(u64, Option<ExitStatus>),
    Parts(Box<Deviation>, [String; 2]),
    /// The deliveries are the same, and the ends are not.
    Ends([String; 2]),
    /// The program asked for no check.
    Unchecked(String),
}

/// Checks a program. Tells of each way in which it ran.
pub(crate) fn check(
    out: &mut impl Write,
    program: &[OsString],
    clusters: u32,
    json: bool,
) -> Result<(), Failure> {
    let folder = Folder::new().map_err(Failure::Check)?;
    for way in ways(clusters) {
        let outcome = compare(program, &way, &folder).map_err(Failure::Check)?;
        let name = way.name;
        match outcome {
            Outcome::Unchecked(stderr) => return Err(Failure::Unchecked { stderr }),
            Outcome::Same(deliveries, end) if json => {
                let well = end.is_none();
                let line =
                    json!({ "way": name, "same": true, "deliveries": deliveries, "well": well });
                writeln!(out, "{line}")?;
            }
            Outcome::Same(deliveries, end) => {
                write!(out, "{name}: {deliveries} deliveries, all the same")?;
                match end {
                    Some(end) => writeln!(out, "; both times the program ended with {end}")?,
                    None => writeln!(out)?,
                }
            }
            Outcome::Ends(ends) => {
                let ends = ends.map(|end| Plain(&end, 2_000).to_string());
                if json {
                    let line = json!({ "way": name, "same": false, "ends": ends });
                    writeln!(out, "{line}")?;
                } else {
                    writeln!(
                        out,
                        "{name}: all deliveries are the same, and the ends differ:"
                    )?;
                    writeln!(out, "  - {}\n  + {}", ends[0], ends[1])?;
                }
                return Err(Failure::Strayed);
            }
            Outcome::Parts(deviation, ends) => {
                show(out, &way, &deviation, &ends, json)?;
                return Err(Failure::Strayed);
            }
        }
    }
    Ok(())
}

fn show(
    out: &mut impl Write,
    way: &Way,
    deviation: &Deviation,
    ends: &[String; 2],
    json: bool,
) -> io::Result<()> {
    if json {
        let line = json!({
            "way": way.name,
            "same": false,
            "deliveries": deviation.same,
            "agent": deviation.stray.agent(),
            "t_ns": deviation.time.as_nanos(),
            "superstep": deviation.superstep,
            "before": deviation.before,
            "lines": deviation.lines,
            "reasons": way.reasons,
        });
        return writeln!(out, "{line}");
    }
    writeln!(out, "{}: the runs differ", way.name)?;
    write!(out, "{deviation}")?;
    for (mark, end) in ["-", "+"].into_iter().zip(ends) {
        if !end.is_empty() {
            writeln!(out, "  {mark} {}", Plain(end, 2_000))?;
        }
    }
    writeln!(out, "usual reasons: {}", way.reasons)
}

/// Runs the program as it is and in another way, both at the same time, and compares line by line.
fn compare(program: &[OsString], way: &Way, folder: &Folder) -> io::Result<Outcome> {
    let as_it_is = CheckSettings {
        schema: CheckSettings::SCHEMA,
        ..CheckSettings::default()
    };
    let mut one = Running::start(program, as_it_is, folder, "one")?;
    let mut other = Running::start(program, way.settings, folder, "other")?;
    let (mut simulations, mut deliveries) = (0, 0);
    loop {
        let traces = (one.next_trace()?, other.next_trace()?);
        match traces {
            (None, None) => break,
            (Some(first), Some(second)) => {
                simulations += 1;
                let mut traces = [first, second];
                if let Some(deviation) = part(&mut traces, &mut deliveries)? {
                    let ends = [
                        end_of_cut(&mut one, &deviation.lines[0])?,
                        end_of_cut(&mut other, &deviation.lines[1])?,
                    ];
                    return Ok(Outcome::Parts(Box::new(deviation), ends));
                }
            }
            (first, _) => {
                let made = "a further simulation".to_owned();
                let ended = match first {
                    Some(_) => [made, end(&mut other)?],
                    None => [end(&mut one)?, made],
                };
                return Ok(Outcome::Ends(ended));
            }
        }
    }
    let ends = [end(&mut one)?, end(&mut other)?];
    if simulations == 0 {
        let [end, _] = ends;
        return Ok(Outcome::Unchecked(end));
    }
    let (one, other) = (one.end()?.0, other.end()?.0);
    Ok(match one == other {
        true => Outcome::Same(deliveries, Some(one).filter(|it| !it.success())),
        false => Outcome::Ends(ends),
    })
}

/// Why a trace ends before the other.
fn end_of_cut(program: &mut Running, line: &Option<String>) -> io::Result<String> {
    match line {
        Some(_) => Ok(String::new()),
        None => end(program),
    }
}

/// How a program ended, in words.
fn end(program: &mut Running) -> io::Result<String> {
    let (status, stderr) = program.end()?;
    Ok(match stderr.as_str() {
        "" => format!("the program ended with {status}"),
        stderr => format!("the program ended with {status}, and wrote: {stderr}"),
    })
}

/// Reads two traces side by side, up to their ends or the first difference.
fn part(traces: &mut [Lines; 2], deliveries: &mut u64) -> io::Result<Option<Deviation>> {
    let mut before: VecDeque<String> = VecDeque::new();
    let mut same = 0;
    loop {
        let [one, other] = traces;
        let lines = [one.next()?, other.next()?];
        let [first, second] = lines;
        if first != second {
            let mut rest = [Vec::from_iter(first), Vec::from_iter(second)];
            for (rest, trace) in rest.iter_mut().zip(traces) {
                while !rest.is_empty()
                    && rest.len() < BEHIND
                    && let Some(line) = trace.next()?
                {
                    rest.push(line);
                }
            }
            let rest = [&rest[0][..], &rest[1][..]];
            return Ok(Deviation::between(same, before.into(), rest));
        }
        let Some(line) = first else {
            return Ok(None);
        };
        same += 1;
        *deliveries += 1;
        if before.len() == BEFORE {
            before.pop_front();
        }
        before.push_back(line);
    }
}
