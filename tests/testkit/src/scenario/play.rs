//! Plays a scenario from start to end, whatever ends its runs, and writes down what happens.

use std::fmt::Write as _;
use std::io::Write;

use maslite_mp::core::{Adder, Digest};
use maslite_mp::prelude::*;

use crate::scenario::agent::{PAUSED, ScenarioMessage};
use crate::scenario::file::{Action, OwnerAction, Scenario};
use crate::scenario::stage::{GoOn, Stage};
use crate::scenario::trace::{Trace, line_of, millis, number, seat};

/// In which pieces a scenario is played. None of this changes what happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pieces {
    /// The most supersteps of a run.
    pub supersteps: Option<u64>,
    /// The most simulated time of a run \[ms\], where the scenario has a time limit.
    pub millis: Option<u64>,
    /// Each run asks a predicate that never holds.
    pub watched: bool,
    /// Each run ends when an agent reports something.
    pub to_errors: bool,
    /// The supersteps after which every cluster forgets everything and comes back; for the settings
    /// of a stage.
    pub amnesia: Option<u64>,
    /// Clusters may run ahead of what is final; for the settings of a stage.
    pub speculates: bool,
}

/// When a simulation is saved, and how it goes on.
pub struct Moves<'a, S: Simulation<ScenarioMessage>> {
    /// After this number of supersteps, and again after as many.
    pub every: u64,
    pub go_on: GoOn<'a, S>,
}

/// What is printed at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    counters: Counters,
    sim_ms: u64,
    stopped_by: &'static str,
    digest: Digest,
    pauses: u64,
    /// How often a cluster forgot everything and came back; none if that was not asked for.
    amnesias: Option<u64>,
    /// How many deliveries were undone, if clusters were to run ahead.
    undone: Option<u64>,
    /// How often the simulation went on from a snapshot, if it was to be saved.
    restores: Option<u64>,
    /// How many clusters were brought back, if they were to be lost.
    recoveries: Option<usize>,
}

impl Summary {
    /// One JSON object, in the style of Python's `json.dumps`.
    pub fn to_json(&self) -> String {
        let of = &self.counters;
        let counts = [
            ("sent", of.sent),
            ("delivered", of.delivered),
            ("undeliverable", of.undeliverable),
            ("queued", of.queued),
            ("unheard", of.unheard),
            ("supersteps", of.supersteps),
            ("alarms_set", of.alarms_set),
            ("alarms_fired", of.alarms_fired),
            ("alarms_cleared", of.alarms_cleared),
            ("alarms_pending", of.alarms_pending),
            ("agents", of.agents),
            ("sim_ms", self.sim_ms),
        ];
        let mut json = "{".to_owned();
        for (name, count) in counts {
            let _ = write!(json, r#""{name}": {count}, "#);
        }
        let Self {
            stopped_by,
            digest,
            pauses,
            amnesias,
            undone,
            restores,
            recoveries,
            ..
        } = self;
        let _ = write!(
            json,
            r#""stopped_by": "{stopped_by}", "digest": "{digest}", "pauses": {pauses}"#
        );
        if let Some(amnesias) = amnesias {
            let _ = write!(json, r#", "amnesias": {amnesias}"#);
        }
        if let Some(undone) = undone {
            let _ = write!(json, r#", "undone": {undone}"#);
        }
        if let Some(restores) = restores {
            let _ = write!(json, r#", "restores": {restores}"#);
        }
        if let Some(recoveries) = recoveries {
            let _ = write!(json, r#", "recoveries": {recoveries}"#);
        }
        json.push('}');
        json
    }

    /// The same, telling how many clusters were brought back.
    #[must_use]
    pub fn with_recoveries(mut self, recoveries: usize) -> Self {
        self.recoveries = Some(recoveries);
        self
    }
}

/// The topics about which main answers, each with the next one.
const TOPICS: &str = "ABCDEF";

/// What main does with mail: it answers as long as the `ttl` lasts. True if it stops the run.
fn answer(
    mail: &Mail<ScenarioMessage>,
    stop_on: Option<Topic>,
    main: &mut MainContext<ScenarioMessage>,
) -> bool {
    let ScenarioMessage { topic, ttl } = mail.body;
    if let Some(ttl) = ttl.checked_sub(1) {
        let next = TOPICS.find(topic.as_str()).map_or(0, |place| place + 1);
        let next = next % TOPICS.len();
        let topic = Topic::new(&TOPICS[next..=next]);
        main.send(mail.sender, ScenarioMessage { topic, ttl });
    }
    let stops = stop_on == Some(topic);
    if stops {
        main.stop();
    }
    stops
}

/// Whether agents of a scenario may have something to say that the kernel's trace does not tell.
pub fn has_notes(scenario: &Scenario) -> bool {
    let may_say = |action: &Action| {
        matches!(
            action,
            Action::Spawn { .. } | Action::Remove { .. } | Action::Keep { .. }
        )
    };
    let removes = |action: &OwnerAction| matches!(action, OwnerAction::Remove { .. });
    let mut actions = scenario.scripts().flat_map(|(_, script)| script.actions());
    actions.any(may_say) || scenario.between.iter().flatten().any(removes)
}

/// Why a scenario was not played to its end.
#[derive(Debug)]
pub enum Cut {
    /// It failed; the trace ends with the failure.
    Failed(Error),
    /// Agents had more to say in one run than a report holds. With fewer supersteps in a run a
    /// report holds all.
    Untold,
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// One scenario being played.
struct Play<'a, W, S: Simulation<ScenarioMessage>> {
    scenario: &'a Scenario,
    pieces: Pieces,
    stage: &'a mut Stage<S>,
    trace: Option<&'a Trace<W>>,
    pauses: u64,
    amnesias: u64,
    undone: u64,
    moves: Option<Moves<'a, S>>,
    /// Supersteps since the last move.
    since: u64,
    restores: u64,
}

/// Plays a scenario on a stage that has none of its agents yet.
///
/// # Errors
/// What ended the scenario before its end.
pub fn play<W, S>(
    scenario: &Scenario,
    pieces: Pieces,
    stage: &mut Stage<S>,
    trace: Option<&Trace<W>>,
) -> Result<Summary, Cut>
where
    W: Write + Send + 'static,
    S: Simulation<ScenarioMessage, Error: Into<Error>>,
{
    play_and_move(scenario, pieces, stage, trace, None)
}

/// The same on a stage that is replaced now and then, if it is to be.
///
/// # Errors
/// What ended the scenario before its end.
pub fn play_and_move<'a, W, S>(
    scenario: &'a Scenario,
    pieces: Pieces,
    stage: &'a mut Stage<S>,
    trace: Option<&'a Trace<W>>,
    moves: Option<Moves<'a, S>>,
) -> Result<Summary, Cut>
where
    W: Write + Send + 'static,
    S: Simulation<ScenarioMessage, Error: Into<Error>>,
{
    let mut play = Play {
        scenario,
        pieces,
        stage,
        trace,
        pauses: 0,
        amnesias: 0,
        undone: 0,
        moves,
        since: 0,
        restores: 0,
    };
    let result = play.finish();
    if let (Err(Cut::Failed(error)), Some(trace)) = (&result, trace)
        && let Some(simulation) = play.stage.simulation_left()
    {
        let place = (simulation.now(), 0, 0);
        trace.settle(line_of_error(error).map(|line| (place, line)));
    }
    result
}

impl<W, S> Play<'_, W, S>
where
    W: Write + Send + 'static,
    S: Simulation<ScenarioMessage, Error: Into<Error>>,
{
    fn finish(&mut self) -> Result<Summary, Cut> {
        for script in &self.scenario.agents {
            self.stage.add(script)?;
        }
        for mail in &self.scenario.start {
            self.stage.simulation().send_mail(Mail::from(mail));
        }
        let mut between = self.scenario.between.iter();
        loop {
            let (report, paused_by) = self.run()?;
            self.amnesias += report.amnesias;
            self.undone += report.undone;
            if let Some(who) = paused_by {
                self.pauses += 1;
                self.note_pause(who);
                self.move_on(report.counters.supersteps)?;
                for action in between.next().into_iter().flatten() {
                    self.act(action)?;
                }
                continue;
            }
            let over = match report.stopped_by {
                StopReason::Idle => true,
                StopReason::TimeLimit => self.end().is_some_and(|end| end <= report.now),
                _ => false,
            };
            if over {
                return Ok(Summary {
                    counters: report.total,
                    sim_ms: millis(report.now),
                    stopped_by: report.stopped_by.name(),
                    digest: report.digest.unwrap_or_default(),
                    pauses: self.pauses,
                    amnesias: self.pieces.amnesia.map(|_| self.amnesias),
                    undone: self.pieces.speculates.then_some(self.undone),
                    restores: self.moves.as_ref().map(|_| self.restores),
                    recoveries: None,
                });
            }
            self.move_on(report.counters.supersteps)?;
            self.stage.look();
        }
    }

    /// One run, and the agent that paused it, if one did.
    fn run(&mut self) -> Result<(Report, Option<AgentId>), Cut> {
        let stop_on = self.scenario.run.stop_on;
        let mut stopped = false;
        let run = self.next_run();
        let result = self.stage.simulation().run_with(run, |mail, main| {
            stopped |= answer(&mail, stop_on, main);
        });
        if self.stage.simulation().errors().len() >= Report::ERRORS_KEPT {
            return Err(Cut::Untold);
        }
        self.settle();
        let report = result.map_err(Into::into)?.as_ref().clone();
        let paused_by = match report.stopped_by {
            StopReason::StoppedByAgent(agent) => Some(agent),
            // The error of a superstep hides that it was paused, too.
            StopReason::AgentError(_) => {
                let pauses = report.errors.iter().filter(|error| error.message == PAUSED);
                pauses
                    .min_by_key(|error| error.index)
                    .map(|error| error.agent)
            }
            _ => None,
        };
        Ok((report, paused_by.or(stopped.then_some(AgentId::MAIN))))
    }

    fn end(&self) -> Option<SimTime> {
        self.scenario.run.until_ms.map(SimTime::from_millis)
    }

    fn next_run(&mut self) -> Run {
        let run = match (self.end(), self.pieces.millis) {
            (None, _) => Run::until_idle(),
            (Some(end), None) => Run::until(end),
            (Some(end), Some(millis)) => {
                let piece = SimDuration::from_millis(millis);
                Run::until(end.min(self.stage.simulation().now().saturating_add(piece)))
            }
        };
        // Without a limit every reaction uses up some ttl, so no exchange is endless, however long
        // it is.
        let limit = self.scenario.run.supersteps_per_instant;
        let mut run = run.supersteps_per_instant(limit.unwrap_or(u64::MAX));
        let until_move = self.moves.as_ref().map(|moves| moves.every - self.since);
        let supersteps = self.pieces.supersteps.into_iter().chain(until_move).min();
        if let Some(supersteps) = supersteps {
            run = run.supersteps(supersteps);
        }
        if self.pieces.watched {
            run = run.stop_when(|_| false);
        }
        if self.pieces.to_errors {
            run = run.stop_at_error();
        }
        run
    }

    /// Writes down what happened in a run, together with what agents said.
    fn settle(&mut self) {
        let Some(trace) = self.trace else { return };
        let notes = self.stage.simulation().errors().iter();
        let notes = notes.filter(|note| note.message != PAUSED).map(|note| {
            let place = (note.time, note.superstep, seat(note.index));
            let line = line_of(note.time, note.superstep, &note.message, note.agent);
            (place, line)
        });
        trace.settle(notes);
    }

    /// Saves the simulation if it is due after these supersteps, and goes on from there.
    fn move_on(&mut self, supersteps: u64) -> Result<(), Error> {
        self.since += supersteps;
        let Some(moves) = &mut self.moves else {
            return Ok(());
        };
        if self.since < moves.every {
            return Ok(());
        }
        self.since = 0;
        self.restores += 1;
        self.stage.go_on(moves.go_on)
    }

    fn note_pause(&mut self, who: AgentId) {
        if let Some(trace) = self.trace {
            let (now, step) = (
                self.stage.simulation().now(),
                self.stage.simulation().superstep(),
            );
            trace.settle([((now, step, 0), line_of(now, step, "paused", who))]);
        }
    }

    /// What the owner does between two runs.
    fn act(&mut self, action: &OwnerAction) -> Result<(), Error> {
        match action {
            OwnerAction::Add(script) => self.stage.add(script)?,
            OwnerAction::Send(mail) => self.stage.simulation().send_mail(Mail::from(mail)),
            // There may be none with this id.
            OwnerAction::Remove { id } => drop(self.stage.simulation().remove(*id)),
        }
        Ok(())
    }
}

/// How the trace ends with an error, if it is one that scenarios have a word for.
fn line_of_error(error: &Error) -> Option<String> {
    use maslite_mp::core::Error as Cause;
    let (Error::Agent { source: cause, .. } | Error::Model(cause)) = error else {
        return None;
    };
    let line = match cause {
        Cause::AgentPanicked {
            agent,
            phase,
            time,
            superstep,
            ..
        } => {
            let (agent, t_ms) = (number(*agent), millis(*time));
            format!(
                r#"{{"error": "panic", "agent": {agent}, "phase": "{phase}", "t_ms": {t_ms}, "step": {superstep}}}"#
            )
        }
        Cause::EndlessExchange {
            time,
            limit,
            agents,
        } => {
            let t_ms = millis(*time);
            let agents: Vec<_> = agents.iter().map(|id| number(*id).to_string()).collect();
            let agents = agents.join(", ");
            format!(
                r#"{{"error": "endless", "t_ms": {t_ms}, "step": {limit}, "agents": [{agents}]}}"#
            )
        }
        Cause::DuplicateAgent { id, first, second } => {
            let (id, first, second) = (number(*id), adder(first), adder(second));
            format!(r#"{{"error": "duplicate", "id": {id}, "first": {first}, "second": {second}}}"#)
        }
        Cause::RemovedUnknown { id, by, time } => {
            let (id, by, t_ms) = (number(*id), number(*by), millis(*time));
            format!(r#"{{"error": "removed unknown", "id": {id}, "by": {by}, "t_ms": {t_ms}}}"#)
        }
        _ => return None,
    };
    Some(line + "\n")
}

fn adder(adder: &Adder) -> String {
    match adder {
        Adder::Owner | Adder::Forgotten => "null".to_owned(),
        Adder::Agent(id, time) => {
            let (by, t_ms) = (number(*id), millis(*time));
            format!(r#"{{"by": {by}, "t_ms": {t_ms}}}"#)
        }
    }
}
