//! Finds the first delivery that is not the same in two runs: by marks, then by traces.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use maslite_core::internal::LockEvenPoisoned;
use maslite_core::{AgentId, Marks, Plain, Run, SimTime, Simulation};

use super::deviation::{BEFORE, Delivered, Deviation};
use super::recorder::Recorder;
use super::watch::Watch;
use crate::cluster::registry::WireMessage;
use crate::error::Chain;

/// How many lines behind the first difference are read, to find the agent that strayed.
const BEHIND: u64 = 2_000;

/// A state is shown up to this length \[bytes\].
const SHOWN: usize = 2_000;

type Failure = Box<dyn Error + Send + Sync>;

/// What [`first_difference`] runs: it makes a simulation as often as it is asked, always the same
/// one. A closure that takes a [`Watch`] and returns a simulation is one.
pub trait Subject<M: WireMessage> {
    /// What runs the agents.
    type Simulation: Simulation<M>;

    /// Makes the simulation with its agents, before its first run. Its settings go through
    /// [`Watch::on`].
    ///
    /// # Errors
    /// Why it cannot be made.
    fn build(&mut self, watch: Watch) -> Result<Self::Simulation, Failure>;

    /// Runs the simulation. A subject with a handler of mail to main hands it over here.
    ///
    /// # Errors
    /// Why the run failed.
    fn run(&mut self, simulation: &mut Self::Simulation, run: Run) -> Result<(), Failure> {
        simulation.run(run)?;
        Ok(())
    }
}

impl<M, S, E, F> Subject<M> for F
where
    M: WireMessage,
    S: Simulation<M>,
    E: Into<Failure>,
    F: FnMut(Watch) -> Result<S, E>,
{
    type Simulation = S;

    fn build(&mut self, watch: Watch) -> Result<S, Failure> {
        self(watch).map_err(Into::into)
    }
}

/// Why two runs could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComparisonError {
    /// A simulation could not be made.
    #[error("the {which} simulation could not be made: {why}")]
    Build {
        /// "first" or "second".
        which: &'static str,
        /// Why.
        why: String,
    },
    /// The two runs differed, and the same two runs, repeated, did not differ there.
    #[error(
        "the runs differed between {} and {}, and not when they were repeated: one of them is not the same each \
         time it is run; `maslite check` finds the agent",
        .piece.start(),
        .piece.end()
    )]
    NotRepeatable {
        /// The instants between which the first runs differed.
        piece: RangeInclusive<SimTime>,
    },
    /// All deliveries are the same, and one run failed.
    #[error("all deliveries are the same, and the runs end differently: {}; {}", .ends[0], .ends[1])]
    OnlyEnds {
        /// How each ended.
        ends: [String; 2],
    },
}

/// The first difference of two runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FirstDifference {
    /// The delivery, and who strayed.
    pub deviation: Deviation,
    /// What is known of each run.
    pub sides: [Side; 2],
    /// How often each run was repeated.
    pub reruns: u32,
}

/// One of two runs that differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Side {
    /// How the run ended.
    pub end: String,
    /// The agents that sent and got the mail of the delivery, each with its state before the
    /// superstep of the delivery as JSON, or why there is none.
    pub states: Vec<(AgentId, Result<String, String>)>,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deviation.fmt(f)?;
        for (mark, side) in ["-", "+"].into_iter().zip(&self.sides) {
            for (agent, state) in &side.states {
                match state {
                    Ok(state) => writeln!(f, "  {mark} agent {agent} was {}", Plain(state, SHOWN))?,
                    Err(why) => {
                        writeln!(f, "  {mark} agent {agent}: no state: {}", Plain(why, SHOWN))?;
                    }
                }
            }
            writeln!(f, "  {mark} the run ended: {}", Plain(&side.end, SHOWN))?;
        }
        Ok(())
    }
}

/// Runs two simulations and finds the first delivery that is not the same in both; none if all are.
///
/// Each is run once with marks. If these differ, both are run again up to the first piece of time
/// that differs, at most three times: to find the lines of the trace, to get them, and to get the
/// states of the agents. Only deliveries in that piece are written down, so memory is bounded. The
/// two may run on different hosts: in a lone [`Scheduler`](maslite_core::Scheduler), inline and in
/// processes, in any division. `run` tells how long they run.
///
/// ```
/// use maslite_mp::comparison::{Watch, first_difference};
/// use maslite_mp::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// enum Msg { Tick(u32) }
///
/// #[derive(Serialize, Deserialize)]
/// struct Clock { step: u32, ticks: u32 }
/// impl Agent<Msg> for Clock {
///     fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
///         ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick(0));
///     }
///     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         self.ticks += if self.ticks < 90 { 1 } else { self.step };
///         ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick(self.ticks));
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let agents = Registry::new().with::<Clock>().enter();
///     let build = |step| {
///         let agents = agents.clone();
///         move |watch: Watch| {
///             let mut main = watch.on(MpMain::builder(agents.clone())).build()?;
///             main.add("clock", Clock { step, ticks: 0 })?;
///             Ok::<_, Error>(main)
///         }
///     };
///     let minutes = || Run::until(SimTime::from_secs(200));
///     assert!(first_difference(minutes, build(1), build(1))?.is_none());
///     let found = first_difference(minutes, build(1), build(2))?.expect("they differ");
///     assert_eq!(found.deviation.stray.agent(), Some("clock"));
///     assert_eq!(found.deviation.time, SimTime::from_secs(92));
///     assert_eq!(found.sides[1].states[0].1.as_deref(), Ok(r#"{"step":2,"ticks":92}"#));
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`ComparisonError::Build`]; [`ComparisonError::NotRepeatable`] if a simulation is not the same
/// each time it is made and run; [`ComparisonError::OnlyEnds`].
pub fn first_difference<M: WireMessage>(
    run: impl Fn() -> Run,
    mut one: impl Subject<M>,
    mut other: impl Subject<M>,
) -> Result<Option<FirstDifference>, ComparisonError> {
    let first = mark("first", &mut one, run())?;
    let second = mark("second", &mut other, run())?;
    let ends = [first.end, second.end];
    let pieces = first.marks.as_ref().zip(second.marks.as_ref());
    let whole = SimTime::ZERO..=SimTime::MAX;
    let piece = match pieces.map(|(one, other)| one.first_difference(other)) {
        Some(None) if ends[0] == ends[1] => return Ok(None),
        Some(None) => return Err(ComparisonError::OnlyEnds { ends }),
        Some(Some(piece)) => piece,
        // A run over clusters that fails leaves no marks.
        None => whole.clone(),
    };
    let is_whole = piece == whole;
    let begin = pieces.map_or(SimTime::ZERO, |(marks, _)| {
        with_lines_before(marks, *piece.start())
    });
    let traced = begin..=*piece.end();
    let up_to = || match piece.end().as_nanos().checked_add(1) {
        Some(end) if !is_whole => Run::until(SimTime::from_nanos(end)),
        _ => run(),
    };
    let mut lines = |recorder: fn(&std::ops::Range<u64>) -> Recorder, wanted: &_| {
        let one = record("first", &mut one, &traced, up_to(), recorder(wanted))?;
        let other = record("second", &mut other, &traced, up_to(), recorder(wanted))?;
        Ok::<_, ComparisonError>([one, other])
    };
    let [mut one_lines, mut other_lines] = lines(|_| Recorder::default(), &(0..0))?;
    let Some(chunk) = one_lines.first_difference(&mut other_lines) else {
        return match is_whole {
            true if ends[0] == ends[1] => Ok(None),
            true => Err(ComparisonError::OnlyEnds { ends }),
            false => Err(ComparisonError::NotRepeatable { piece }),
        };
    };
    let wanted = chunk.start.saturating_sub(BEFORE as u64)..chunk.end + BEHIND;
    let [one_lines, other_lines] = lines(|it| Recorder::keeping(it.clone()), &wanted)?;
    let before = pieces.map_or(0, |(marks, _)| deliveries_before(marks, begin));
    let rest = [&one_lines.kept[..], &other_lines.kept[..]];
    let deviation = Deviation::between(before + wanted.start, Vec::new(), rest);
    let Some(deviation) = deviation else {
        return Err(ComparisonError::NotRepeatable { piece });
    };
    let [one_end, other_end] = ends;
    let sides = [
        side("first", &mut one, &deviation, one_end)?,
        side("second", &mut other, &deviation, other_end)?,
    ];
    Ok(Some(FirstDifference {
        deviation,
        sides,
        reruns: 3,
    }))
}

/// Where the pieces begin that have the lines to be shown before those of a piece.
fn with_lines_before(marks: &Marks, start: SimTime) -> SimTime {
    let before = marks.iter().take_while(|(begin, _)| *begin < start);
    let before: Vec<_> = before.collect();
    let mut lines = 0;
    let enough = before.iter().rev().find(|(_, mark)| {
        lines += mark.deliveries;
        lines >= BEFORE as u64
    });
    enough.map_or(SimTime::ZERO, |(begin, _)| *begin)
}

/// A run of which marks are known, unless it failed.
struct Marked {
    marks: Option<Marks>,
    end: String,
}

fn make<M: WireMessage, S: Subject<M>>(
    which: &'static str,
    subject: &mut S,
    watch: Watch,
) -> Result<S::Simulation, ComparisonError> {
    subject.build(watch).map_err(|why| ComparisonError::Build {
        which,
        why: Chain(&*why).to_string(),
    })
}

fn mark<M: WireMessage, S: Subject<M>>(
    which: &'static str,
    subject: &mut S,
    run: Run,
) -> Result<Marked, ComparisonError> {
    let mut simulation = make(which, subject, Watch::marks())?;
    let end = match subject.run(&mut simulation, run) {
        Ok(()) => "without an error".to_owned(),
        Err(why) => Chain(&*why).to_string(),
    };
    let marks = simulation.marks().ok().flatten();
    Ok(Marked { marks, end })
}

/// Runs with a trace of one piece of time.
fn record<M: WireMessage, S: Subject<M>>(
    which: &'static str,
    subject: &mut S,
    piece: &RangeInclusive<SimTime>,
    run: Run,
    recorder: Recorder,
) -> Result<Recorder, ComparisonError> {
    let recorder = Arc::new(Mutex::new(recorder));
    let into = Arc::clone(&recorder);
    let watch = Watch::trace(*piece.start(), *piece.end(), move |line| {
        into.lock_even_poisoned().note(line);
    });
    let mut simulation = make(which, subject, watch)?;
    // What it comes to is known from the first run. A failed one has written what came before.
    let _ = subject.run(&mut simulation, run);
    drop(simulation.shutdown());
    let mut recorder = recorder.lock_even_poisoned();
    Ok(std::mem::take(&mut *recorder))
}

fn deliveries_before(marks: &Marks, time: SimTime) -> u64 {
    let before = marks.iter().take_while(|(start, _)| *start < time);
    before.map(|(_, mark)| mark.deliveries).sum()
}

/// Runs up to the superstep of a delivery, and asks for the states of its agents.
fn side<M: WireMessage, S: Subject<M>>(
    which: &'static str,
    subject: &mut S,
    deviation: &Deviation,
    end: String,
) -> Result<Side, ComparisonError> {
    let mut simulation = make(which, subject, Watch::marks())?;
    let mut result = subject.run(&mut simulation, Run::until(deviation.time));
    if deviation.superstep > 0 && result.is_ok() {
        let rest = Run::until_idle().supersteps(deviation.superstep);
        result = subject.run(&mut simulation, rest);
    }
    let delivered = deviation.lines.iter().flatten();
    let delivered = delivered.filter_map(|line| Delivered::read(line));
    let mut agents: Vec<AgentId> = Vec::new();
    for agent in delivered.flat_map(|it| it.agents()).flatten() {
        if !agents.contains(&agent) {
            agents.push(agent);
        }
    }
    let states = agents.into_iter().map(|agent| {
        let state = match &result {
            Ok(()) => simulation
                .state_of(agent)
                .map_err(|why| Chain(&why).to_string()),
            Err(why) => Err(Chain(&**why).to_string()),
        };
        (agent, state)
    });
    let states = states.collect();
    Ok(Side { end, states })
}
