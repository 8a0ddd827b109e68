//! How a program goes on from a snapshot.

use std::path::{Path, PathBuf};

use maslite_core::internal::{SavedAgent, restore_scheduler};
use maslite_core::{AgentId, Scheduler, SchedulerBuilder, SimTime};
use tracing::warn;

use crate::cluster::registry::{Entered, Registry, WireMessage};
use crate::cluster::state::ClusterState;
use crate::coordination::main_state::MainState;
use crate::error::Error;
use crate::error::snapshot::{LeftOut, SnapshotError};
use crate::simulation::builder::MpMainBuilder;
use crate::simulation::counted::Counted;
use crate::simulation::mp_main::MpMain;
use crate::simulation::whole::Whole;
use crate::snapshot::blocks::{self, Kind};
use crate::snapshot::folder;
use crate::snapshot::head::{Head, Shape, section};

/// A snapshot from which a simulation goes on: in as many clusters as before or in others, in
/// processes or inline, or in a [`Scheduler`] alone.
///
/// ```no_run
/// # use maslite_mp::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
/// # fn build(agents: Entered<Msg>) -> Result<MpMain<Msg>, Error> { MpMain::new(agents) }
/// # fn main() -> Result<(), maslite_mp::Error> {
/// # let agents: Entered<Msg> = Registry::new().enter();
/// let mut main = match Restore::latest("runs/port")? {
///     Some(snapshot) => snapshot.start(agents)?,
///     None => build(agents)?,
/// };
/// main.run(Run::lasting(SimDuration::from_secs(3600)))?;
/// main.save("runs/port/after an hour")?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a snapshot does nothing until it is started"]
pub struct Restore {
    path: PathBuf,
    head: Head,
    division: Option<Division>,
    seed: Option<u64>,
    skipped: Vec<SnapshotError>,
    accepts_left_out: bool,
}

/// A snapshot that was found in a folder, or why it cannot be used.
pub type FoundSnapshot = (PathBuf, Result<Restore, Error>);

/// The snapshots in a folder, by name, each with why it cannot be used if it cannot. A folder that is
/// not there has none.
///
/// # Errors
/// If the folder cannot be read.
pub fn snapshots(folder: impl AsRef<Path>) -> Result<Vec<FoundSnapshot>, Error> {
    let paths = folder::list(folder.as_ref())?.into_iter();
    Ok(paths
        .map(|path| {
            let snapshot = Restore::open(&path);
            (path, snapshot)
        })
        .collect())
}

/// In which clusters agents go on.
struct Division {
    clusters: usize,
    place: Box<dyn FnMut(SavedAgent<'_>) -> usize>,
}

impl Restore {
    /// Opens a snapshot: reads what it says of itself, and the checksums of all its files. Nothing
    /// is started yet.
    ///
    /// # Errors
    /// [`Error::Snapshot`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let head = Head::read(path)?;
        Ok(Self {
            path: path.to_owned(),
            head,
            division: None,
            seed: None,
            skipped: Vec::new(),
            accepts_left_out: false,
        })
    }

    /// Opens the snapshot in a folder that was written last; none if there is none. Those that are
    /// damaged or of another format are skipped: there is a warning for each, and
    /// [`skipped`](Self::skipped) has them.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if the folder cannot be read.
    pub fn latest(folder: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let mut latest: Option<Self> = None;
        let mut skipped = Vec::new();
        for path in folder::list(folder.as_ref())? {
            match Head::read(&path) {
                Ok(head) => {
                    let is_later = latest
                        .as_ref()
                        .is_none_or(|last| last.head.saved_at <= head.saved_at);
                    if is_later {
                        latest = Some(Self {
                            path,
                            head,
                            division: None,
                            seed: None,
                            skipped: Vec::new(),
                            accepts_left_out: false,
                        });
                    }
                }
                // A folder that is none of a snapshot may lie there.
                Err(SnapshotError::Missing { .. }) => {}
                Err(error) => {
                    warn!(target: "maslite", "a snapshot is skipped: {error}");
                    skipped.push(error);
                }
            }
        }
        if let Some(latest) = &mut latest {
            latest.skipped = skipped;
        } else if let Some(error) = skipped.pop() {
            // There was something, and nothing of it can be used.
            return Err(error.into());
        }
        Ok(latest)
    }

    /// Has the agents go on in this number of clusters, at least one; `place` tells the cluster of
    /// each agent, counted from 0. Without this they stay in the clusters that they were in.
    pub fn into_clusters(
        mut self,
        clusters: usize,
        place: impl FnMut(SavedAgent<'_>) -> usize + 'static,
    ) -> Self {
        let place = Box::new(place);
        let clusters = clusters.max(1);
        self.division = Some(Division { clusters, place });
        self
    }

    /// Has all agents draw other random numbers from here on: another future of the same past.
    pub fn reseeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Goes on without the agents that were [left out](Self::left_out). They are evicted when the
    /// simulation starts, as if they had been [taken out](MpMain::take_out) at this moment: their
    /// subscriptions end, mail that they have not read is undeliverable, alarms that they have set
    /// for others stay, and their ids are not used again.
    pub fn accept_left_out(mut self) -> Self {
        self.accepts_left_out = true;
        self
    }

    /// The agents whose states are not in it, by their types, because these are
    /// [never saved](Registry::never_saved).
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.head.left_out
    }

    /// The folder of the snapshot.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the simulation stood.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.head.time
    }

    /// The names of the clusters that it was saved in.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        let sections = self.head.sections.iter();
        sections.map(|section| &*section.cluster)
    }

    /// The agents in it, without those that were left out.
    #[must_use]
    pub fn agents(&self) -> u64 {
        let sections = self.head.sections.iter();
        sections.map(|section| section.agents).sum()
    }

    /// The digest of the state.
    #[must_use]
    pub fn state_digest(&self) -> maslite_core::Digest {
        self.head.state
    }

    /// Why later snapshots were not taken by [`latest`](Self::latest).
    #[must_use]
    pub fn skipped(&self) -> &[SnapshotError] {
        &self.skipped
    }

    /// Starts the clusters, which take up what was saved: the simulation then stands between two
    /// runs. `settings` are a registry, or the builder of an [`MpMain`] with more settings; seed,
    /// lookahead and digest are those of the snapshot.
    ///
    /// # Errors
    /// [`Error::Snapshot`] for a snapshot of another program, of types that have changed, or that
    /// cannot go on like that: under a lookahead, where clusters are part of the model, they cannot
    /// be others, and without agents that were left out only if these are
    /// [accepted](Self::accept_left_out) as missing. And those of [`MpMain::start`].
    pub fn start<M: WireMessage>(
        mut self,
        settings: impl Into<MpMainBuilder<M>>,
    ) -> Result<MpMain<M>, Error> {
        let mut settings = settings.into();
        self.check(&settings.entered.registry)?;
        self.check_digest(settings.digest, settings.content)?;
        if settings.record.is_some() {
            let why = "a record begins with the simulation, and this one goes on";
            return Err(self.refuse(why).into());
        }
        settings.seed = self.seed.unwrap_or(self.head.seed);
        settings.digest = self.head.digest.is_some();
        settings.content = self.head.content;
        let (names, states, main_state) = self.load::<M>()?;
        let mut main = settings.build()?;
        for (place, name) in names.into_iter().enumerate() {
            let cluster = main.new_cluster_named(&name)?;
            let lookahead = self.head.sections.get(place).and_then(|it| it.lookahead);
            if let Some(lookahead) = lookahead {
                main.set_lookahead(cluster, lookahead)?;
            }
        }
        main.take_up(states, main_state, &self.head.names)?;
        main.standing.left_out = self.head.left_out;
        Ok(main)
    }

    /// Goes on in one scheduler alone. `agents` has the types of its agents; the seed of `settings`
    /// is that of the snapshot, and so is the digest if one was kept.
    ///
    /// # Errors
    /// As [`start`](Self::start); and [`Error::Model`] for an agent that cannot be restored.
    pub fn alone<M: WireMessage>(
        self,
        settings: SchedulerBuilder<M>,
        agents: &Entered<M>,
    ) -> Result<Scheduler<M>, Error> {
        let registry = &*agents.registry;
        self.check(registry)?;
        self.learn_names();
        let (states, main) = self.read::<M>()?;
        let mut whole = Whole::of_clusters(states, main).map_err(|why| self.refuse(why))?;
        if self.seed.is_some() {
            whole.reseed();
        }
        let seed = self.seed.unwrap_or(self.head.seed);
        let mut settings = settings.seed(seed);
        if self.head.content {
            settings = settings.content_digest();
        } else if self.head.digest.is_some() {
            settings = settings.digest();
        }
        let mut scheduler = settings.build();
        self.check_digest(scheduler.digest().is_some(), false)?;
        restore_scheduler(&mut scheduler, whole.into_scheduler(seed), registry)?;
        Ok(scheduler)
    }

    fn refuse(&self, why: &str) -> SnapshotError {
        SnapshotError::Refused {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }

    /// A digest of all deliveries cannot begin in the middle.
    fn check_digest(&self, digest: bool, content: bool) -> Result<(), SnapshotError> {
        let (has_digest, has_content) = (self.head.digest.is_some(), self.head.content);
        if digest && !has_digest || content && !has_content {
            let why = "it was saved without this digest, which cannot begin in the middle of a simulation";
            return Err(self.refuse(why));
        }
        Ok(())
    }

    /// Whether a program has the types that the snapshot was written with.
    fn check<M: WireMessage>(&self, registry: &Registry<M>) -> Result<(), SnapshotError> {
        let (message, kinds) = registry.shapes();
        let path = || self.path.clone();
        if !self.head.left_out.is_empty() && !self.accepts_left_out {
            let left_out = self.head.left_out.clone();
            return Err(SnapshotError::Incomplete {
                path: path(),
                left_out,
            });
        }
        let other = |why| SnapshotError::OtherProgram { path: path(), why };
        let check_shape = |saved: &Shape, own: &Shape| match saved.shape == own.shape {
            true => Ok(()),
            false => Err(SnapshotError::OtherShape {
                path: path(),
                kind: saved.name.clone(),
            }),
        };
        if self.head.message.name != message.name {
            let (theirs, own) = (&self.head.message.name, &message.name);
            return Err(other(format!(
                "its messages are {theirs}, and these are {own}"
            )));
        }
        check_shape(&self.head.message, message)?;
        for saved in &self.head.kinds {
            match kinds.iter().find(|own| own.name == saved.name) {
                Some(own) => check_shape(saved, own)?,
                None => {
                    let name = &saved.name;
                    return Err(other(format!(
                        "the agent type {name} is not registered: add `.with::<{name}>()` to the registry"
                    )));
                }
            }
        }
        Ok(())
    }

    fn learn_names(&self) {
        for name in &self.head.names {
            let _ = AgentId::named(name);
        }
    }

    /// The states of the clusters as they were saved, and of main.
    fn read<M: WireMessage>(&self) -> Result<(Vec<ClusterState<M>>, MainState<M>), SnapshotError> {
        let states = (0..self.head.sections.len()).map(|place| {
            let file = section(&self.path, place);
            let bytes = blocks::read(&file, Kind::Cluster)?;
            ClusterState::decode(&bytes).map_err(|why| SnapshotError::Format { path: file, why })
        });
        Ok((states.collect::<Result<_, _>>()?, self.read_main()?))
    }

    fn read_main<M: WireMessage>(&self) -> Result<MainState<M>, SnapshotError> {
        let main = MainState::decode(&self.head.main).and_then(|main: MainState<M>| {
            main.check(self.head.sections.len())?;
            Ok(main)
        });
        main.map_err(|why| SnapshotError::Format {
            path: self.path.join("head"),
            why,
        })
    }

    /// The clusters as they go on: their names, their states as bytes, and what main knows.
    fn load<M: WireMessage>(&mut self) -> Result<Loaded<M>, Error> {
        self.learn_names();
        let names: Vec<String> = self.clusters().map(str::to_owned).collect();
        let has_lookahead = self.head.sections.iter().any(|it| it.lookahead.is_some());
        if self.division.is_none() && (self.seed.is_none() || has_lookahead) {
            let mut states = Vec::new();
            for place in 0..names.len() {
                let mut bytes = blocks::read(&section(&self.path, place), Kind::Cluster)?;
                if self.seed.is_some() {
                    let state = ClusterState::<M>::decode(&bytes);
                    let mut state = state.map_err(|why| self.refuse(&why))?;
                    state.reseed();
                    bytes = self.encode(&state)?;
                }
                states.push(bytes);
            }
            return Ok((names, states, self.read_main()?));
        }
        let (states, main) = self.read::<M>()?;
        let homes: Vec<Vec<AgentId>> = states.iter().map(ClusterState::ids).collect();
        let mut whole = Whole::of_clusters(states, main).map_err(|why| self.refuse(why))?;
        if self.seed.is_some() {
            whole.reseed();
        }
        let (names, divided) = match self.division.take() {
            Some(Division { clusters, place }) => {
                let names = if clusters == names.len() {
                    names
                } else {
                    (1..=clusters).map(|number| number.to_string()).collect()
                };
                (names, whole.into_clusters(clusters, place))
            }
            None => {
                let homes = (0..).zip(&homes);
                let homes = homes.flat_map(|(place, ids)| ids.iter().map(move |id| (*id, place)));
                let homes: std::collections::BTreeMap<AgentId, usize> = homes.collect();
                let place = |agent: SavedAgent<'_>| homes.get(&agent.id).copied().unwrap_or(0);
                let clusters = names.len();
                (names, whole.into_clusters(clusters, place))
            }
        };
        let (states, main) = divided.map_err(|why| self.refuse(why))?;
        let states = states.iter().map(|state| self.encode(state));
        Ok((names, states.collect::<Result<_, Error>>()?, main))
    }

    fn encode<M: WireMessage>(&self, state: &ClusterState<M>) -> Result<Vec<u8>, Error> {
        state.encode().map_err(|why| Error::Encode {
            what: format!("the state of a cluster of {}", self.path.display()),
            why: why.to_string(),
        })
    }
}

/// The names of clusters, their states as bytes, and what main knows.
type Loaded<M> = (Vec<String>, Vec<Vec<u8>>, MainState<M>);

impl<M: WireMessage> From<Entered<M>> for MpMainBuilder<M> {
    fn from(agents: Entered<M>) -> Self {
        Self::new(agents)
    }
}

impl<M: WireMessage> MpMain<M> {
    /// Starts the clusters, and has them and main go on from what was saved.
    fn take_up(
        &mut self,
        states: Vec<Vec<u8>>,
        mut main: MainState<M>,
        names: &[String],
    ) -> Result<(), Error> {
        self.start()?;
        let queued = main.take_queued();
        let time = main.share.time;
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        clusters.begin_watching();
        let restored = clusters.restore_all(states, names, time);
        clusters.end_watching();
        restored.inspect_err(|error| self.abandon(error))?;
        main.restore(&mut self.standing, &mut self.routing, &mut self.under_way);
        self.queued = queued;
        // Main has no report of theirs yet.
        let counted = self.between_runs(|rounds| {
            rounds.hear_all()?;
            Ok::<_, Error>(Counted::of(rounds.standing, rounds.routing))
        })?;
        self.counted = counted.inspect_err(|error| self.abandon(error))?;
        Ok(())
    }
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore")
            .field("path", &self.path)
            .field("now", &self.head.time)
            .field("agents", &self.agents())
            .finish_non_exhaustive()
    }
}
