//! What a scenario is played on: a simulation, which may be replaced by one that goes on from it.

use std::collections::BTreeMap;
use std::io::Write;

use maslite_mp::core::{AgentTypes, SchedulerBuilder};
use maslite_mp::prelude::*;

use crate::scenario::agent::{ScenarioMessage, Scripted};
use crate::scenario::file::{Scenario, Script};
use crate::scenario::trace::Trace;

/// What a scenario is played on.
pub struct Stage<S: Simulation<ScenarioMessage>> {
    /// None only while it is replaced.
    simulation: Option<S>,
    clusters: Vec<S::Cluster>,
    /// Of each agent the number of its cluster in the file.
    homes: BTreeMap<u64, usize>,
    /// It is looked at where a run was interrupted.
    is_looked_at: bool,
}

/// How a simulation is saved and dropped, and goes on from there as another one with these clusters.
pub type GoOn<'a, S> =
    &'a mut dyn FnMut(S) -> Result<(S, Vec<<S as Simulation<ScenarioMessage>>::Cluster>), Error>;

/// The settings of a scheduler that is used alone, with the agents of scenarios and a digest.
pub fn alone_with_trace<W: Write + Send + 'static>(
    settings: SchedulerBuilder<ScenarioMessage>,
    trace: Option<&Trace<W>>,
) -> SchedulerBuilder<ScenarioMessage> {
    let types = AgentTypes::new().with::<Scripted>();
    let settings = settings.agent_types(types).digest();
    match trace {
        Some(trace) => settings.observe(trace.observer()),
        None => settings,
    }
}

/// The settings of clusters, with a digest.
pub fn with_trace<W: Write + Send + 'static>(
    settings: MpMainBuilder<ScenarioMessage>,
    trace: Option<&Trace<W>>,
) -> MpMainBuilder<ScenarioMessage> {
    let settings = settings.digest();
    match trace {
        Some(trace) => {
            let trace = trace.clone();
            settings.trace(move |line| trace.write(line))
        }
        None => settings,
    }
}

impl Stage<Scheduler<ScenarioMessage>> {
    /// A scheduler that is used alone.
    pub fn alone<W: Write + Send + 'static>(
        settings: SchedulerBuilder<ScenarioMessage>,
        scenario: &Scenario,
        trace: Option<&Trace<W>>,
    ) -> Self {
        let settings = alone_with_trace(settings, trace);
        let is_looked_at = true;
        Self {
            is_looked_at,
            ..Self::new(settings.build(), scenario)
        }
    }
}

impl Stage<MpMain<ScenarioMessage>> {
    /// The clusters that the scenario names. The trace of their registry is
    /// [`write_placed`](crate::scenario::trace::write_placed).
    ///
    /// # Errors
    /// As `build` of the settings.
    pub fn clusters<W: Write + Send + 'static>(
        settings: MpMainBuilder<ScenarioMessage>,
        scenario: &Scenario,
        trace: Option<&Trace<W>>,
    ) -> Result<Self, Error> {
        Ok(Self::new(with_trace(settings, trace).build()?, scenario))
    }
}

impl<S: Simulation<ScenarioMessage, Error: Into<Error>>> Stage<S> {
    fn new(mut simulation: S, scenario: &Scenario) -> Self {
        let mut homes = BTreeMap::new();
        let mut clusters = Vec::new();
        for (number, ids) in scenario.clusters.iter().enumerate() {
            clusters.push(simulation.new_cluster());
            homes.extend(ids.iter().map(|id| (*id, number)));
        }
        Self {
            simulation: Some(simulation),
            clusters,
            homes,
            is_looked_at: false,
        }
    }

    /// The simulation that it is played on now.
    pub fn simulation(&mut self) -> &mut S {
        self.simulation.as_mut().expect("it goes on after a move")
    }

    /// The same, if there is one: what could not go on has left none.
    pub fn simulation_left(&self) -> Option<&S> {
        self.simulation.as_ref()
    }

    /// Goes on in another simulation.
    pub(super) fn go_on(&mut self, go_on: GoOn<'_, S>) -> Result<(), Error> {
        let before = self.simulation.take().expect("it goes on after a move");
        let (simulation, clusters) = go_on(before)?;
        self.simulation = Some(simulation);
        self.clusters = clusters;
        Ok(())
    }

    pub(super) fn add(&mut self, script: &Script) -> Result<(), Error> {
        let agent = Scripted::from(script);
        let home = self.homes.get(&script.id);
        // After a move there may be fewer clusters.
        let home = home.and_then(|home| self.clusters.get(home % self.clusters.len().max(1)));
        let added = match home.copied() {
            Some(home) => self.simulation().add_to(home, script.id, agent),
            None => self.simulation().add(script.id, agent),
        };
        added.map_err(Into::into)
    }

    /// Looks at something that changes nothing, where a run was interrupted.
    pub(super) fn look(&mut self) {
        if self.is_looked_at {
            let agents = self.simulation().agents().map_or(0, |agents| agents.len());
            let alarms = self.simulation().alarms(AlarmFilter::all());
            std::hint::black_box((agents, alarms.map_or(0, |alarms| alarms.len())));
        }
    }
}
