//! How the clusters of a simulation start, and get their agents.

use std::sync::Arc;

use maslite_core::{Adder, AgentId, SimDuration, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::clusters::Clusters;
use crate::coordination::routing::Routing;
use crate::coordination::state::Standing;
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::links::jitter::Jitter;
use crate::protocol::replay::mark_of_loaded;
use crate::protocol::wire::{self, Call, Loaded, Settings, ToMain, ToProc};
use crate::recovery::{Recovery, Restart};
use crate::settings::Speculation;
use crate::simulation::mp_main::MpMain;
use crate::simulation::spread::Spread;

fn tell(clusters: &mut Clusters, place: usize, what: &ToProc, time: SimTime) -> Result<(), Error> {
    let put = wire::put_note(what, &mut clusters.draft(place, time)?);
    put.map_err(|why| Error::Encode {
        what: "a message to a cluster".to_owned(),
        why: why.to_string(),
    })?;
    if matches!(what, ToProc::Settings(_)) {
        // It is the beginning of every process of this cluster, and no part of its log.
        return clusters.send_settings(place, time);
    }
    let is_answered = matches!(what, ToProc::Load(_));
    clusters.send(place, is_answered, time)
}

/// What a number of calls made in a cluster.
fn recv_loaded(
    clusters: &mut Clusters,
    place: usize,
    calls: usize,
    time: SimTime,
) -> Result<Vec<Loaded>, Error> {
    let cluster = clusters.list[place].name.clone();
    let message = clusters.recv(place, time)?;
    let reason = match wire::take_note(&message) {
        Ok((ToMain::Loaded(loaded), _)) if loaded.len() == calls => {
            clusters.note_answer(place, 0, || mark_of_loaded(&loaded), 0);
            return Ok(loaded);
        }
        Ok((ToMain::Loaded(_), _)) => MessageFault::Loaded,
        Ok((ToMain::Failed(fault), _)) => return Err(fault.blame(&cluster)),
        Ok(_) => MessageFault::Untimely,
        Err(_) => MessageFault::Undecodable,
    };
    Err(reason.blame(&cluster, time, &message))
}

impl<M: WireMessage> MpMain<M> {
    /// Starts clusters and ships agents that are new since the last run. `run` does it too.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Decode`], [`Error::Model`] for ids used twice,
    /// [`Error::ClusterDied`], [`Error::Link`], [`Error::Protocol`].
    pub fn start(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        let result = self.try_to_start();
        if let Err(error) = &result {
            self.abandon(error);
        }
        result
    }

    /// The place of the cluster to which an agent goes: the one that the program says, unless agents
    /// are divided otherwise. Under a lookahead the division is part of the model.
    pub(super) fn spread_over(&mut self, declared: u32) -> u32 {
        let has_lookahead = self.lookahead.is_some() || self.lookaheads.iter().any(Option::is_some);
        let (Spread::Over(clusters), false) = (self.spread, has_lookahead) else {
            return declared;
        };
        while self.names.len() < clusters as usize {
            self.push_cluster(format!("more {}", self.names.len() + 1));
        }
        self.calls_made += 1;
        self.spread.place(declared, self.calls_made - 1)
    }

    /// The lookahead of each cluster; empty if none has one.
    pub(super) fn effective_lookaheads(&self) -> Result<Vec<SimDuration>, Error> {
        let later = self.lookaheads.iter().skip(self.kept_lookaheads.len());
        let later = later.map(|own| own.or(self.lookahead));
        let declared = self.kept_lookaheads.iter().copied().chain(later);
        let lookaheads: Vec<_> = declared.clone().flatten().collect();
        match declared.clone().position(|lookahead| lookahead.is_none()) {
            Some(place) if !lookaheads.is_empty() => {
                Err(Error::MissingLookahead(self.names[place].clone()))
            }
            _ => Ok(lookaheads),
        }
    }

    /// Whether alarms for agents of other clusters are forecast, where there is no lookahead. A
    /// cluster that may have to come back, or that is recorded, makes none.
    fn makes_forecasts(&self) -> bool {
        let own = self.recoveries.iter().flatten();
        let mut policies = own.chain([&self.recovery]);
        self.speculation != Speculation::Off
            && self.amnesia.is_none()
            && self.record.is_none()
            && policies.all(|policy| *policy == Recovery::stop())
    }

    fn try_to_start(&mut self) -> Result<(), Error> {
        let lookaheads = self.effective_lookaheads()?;
        self.start_clusters(&lookaheads)?;
        self.kept_lookaheads = (0..self.names.len())
            .map(|place| lookaheads.get(place).copied())
            .collect();
        if self.calls.is_empty() {
            return Ok(());
        }
        self.load_agents()
    }

    /// Starts the clusters that do not run yet, and tells them their settings.
    fn start_clusters(&mut self, lookaheads: &[SimDuration]) -> Result<(), Error> {
        let forecasts = lookaheads.is_empty() && self.makes_forecasts();
        let clusters = match &mut self.clusters {
            Some(clusters) => clusters,
            none => none.insert(Clusters::new(
                self.placement,
                Arc::clone(&self.control_queue),
                self.patience,
                self.warnings.take(),
                self.progress,
            )?),
        };
        for name in &self.names[clusters.list.len()..] {
            clusters.add(name.clone());
        }
        if let Some(folder) = &self.record {
            clusters.recording = Some((folder.clone(), self.entered.schema()));
        }
        if clusters.has_fresh() {
            let restart = Restart {
                model: Box::new(self.entered.clone()),
                carrier: self.carrier,
                output: self.output,
                jitter: self.jitter,
            };
            let policies = self.recoveries.iter();
            let policies = policies.map(|own| own.unwrap_or(self.recovery));
            let policies: Vec<Recovery> = policies.collect();
            // First of all: they may die as soon as they have started.
            clusters.keep_all(restart, &policies);
        }
        let fresh = clusters.start(&self.entered, self.carrier, self.output)?;
        let wait = clusters.wait(self.waiting);
        for place in fresh {
            let settings = Settings {
                lookahead: lookaheads.get(place).copied(),
                amnesia: self.amnesia,
                speculates: self.speculation != Speculation::Off,
                forecasts,
                seed: self.seed,
                digest: self.digest,
                content: self.content,
                trace: self.trace.is_some(),
                window: self.window,
                wait,
                jitter: self.jitter.map(|seed| Jitter::child_side(seed, place)),
            };
            if let Some(seed) = self.jitter {
                clusters.add_jitter(place, Jitter::main_side(seed, place));
            }
            let settings = ToProc::Settings(settings);
            tell(clusters, place, &settings, self.standing.time)?;
            self.routing.tell_interest(place);
        }
        Ok(())
    }

    /// Ships the agents that were added since the last run. All clusters build at the same time;
    /// then main tells each the insertion indices of its agents.
    fn load_agents(&mut self) -> Result<(), Error> {
        let time = self.standing.time;
        let clusters = self.clusters.as_mut().expect("clusters have started");
        clusters.begin_watching();
        let calls = std::mem::take(&mut self.calls);
        // The number of agents that a call builds decides the indices of the agents after it.
        let order: Vec<(u32, bool)> = calls
            .iter()
            .map(|(cluster, call)| (*cluster, matches!(call, Call::Add { .. })))
            .collect();
        let mut per_cluster: Vec<Vec<Call>> = self.names.iter().map(|_| Vec::new()).collect();
        for (cluster, call) in calls {
            per_cluster[cluster as usize].push(call);
        }
        let mut asked = Vec::new();
        for (place, calls) in per_cluster.into_iter().enumerate() {
            if !calls.is_empty() {
                asked.push((place, calls.len()));
                tell(clusters, place, &ToProc::Load(calls), time)?;
            }
        }
        let mut loaded: Vec<std::vec::IntoIter<Loaded>> = Vec::new();
        loaded.resize_with(self.names.len(), Default::default);
        for (place, calls) in &asked {
            loaded[*place] = recv_loaded(clusters, *place, *calls, time)?.into_iter();
        }
        let mut indices: Vec<Vec<u64>> = self.names.iter().map(|_| Vec::new()).collect();
        for (cluster, is_add) in order {
            let place = cluster as usize;
            let built = loaded[place]
                .next()
                .expect("there are as many answers as calls");
            indices[place].push(self.standing.next_index);
            note_built(
                &mut self.standing,
                &mut self.routing,
                cluster,
                is_add,
                built,
            )?;
        }
        for (place, _) in asked {
            let indices = std::mem::take(&mut indices[place]);
            tell(clusters, place, &ToProc::AssignIndices(indices), time)?;
        }
        clusters.end_watching();
        Ok(())
    }
}

/// Notes the agents that a cluster built under one call. The id of an agent that was added by
/// itself is known already.
fn note_built(
    standing: &mut Standing,
    routing: &mut Routing,
    cluster: u32,
    is_add: bool,
    built: Loaded,
) -> Result<(), Error> {
    for name in &built.names {
        let _ = AgentId::named(name);
    }
    if is_add {
        standing.next_index += 1;
        return Ok(());
    }
    standing.next_index += built.ids.len() as u64;
    for id in built.ids {
        routing.insert(id, cluster, Adder::Owner)?;
    }
    Ok(())
}
