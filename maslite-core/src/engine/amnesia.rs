//! Amnesia: an engine forgets everything and comes back from what was saved of it, again and again.
//! It costs time and changes no result, so it shows whether the saved state is complete.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failures::guard_model;
use super::{Engine, EngineHooks, EngineState, KeptAgents};
use crate::SimTime;
use crate::agent_types::AgentCodec;
use crate::error::{Error, FailureStage};
use crate::message::Message;
use crate::run::Counters;

/// When an engine forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amnesia {
    /// After this many supersteps, and again after as many.
    pub every: u64,
    /// Agents of types that are not registered are kept. Otherwise they are an error.
    pub keeps_unregistered: bool,
}

impl Amnesia {
    /// After every n-th superstep, if at all. 0 is never.
    #[must_use]
    pub fn every(supersteps: Option<u64>) -> Option<Self> {
        let every = supersteps.filter(|every| *every > 0)?;
        let keeps_unregistered = false;
        Some(Self {
            every,
            keeps_unregistered,
        })
    }

    /// What the environment asks of every simulation of this process: after how many supersteps.
    /// It is a tool for test suites, so builds for release do not read it.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        if !cfg!(debug_assertions) {
            return None;
        }
        let text = std::env::var("MASLITE_AMNESIA").ok()?;
        let own = Self::every(text.trim().parse().ok())?;
        let keeps_unregistered = true;
        Some(Self {
            keeps_unregistered,
            ..own
        })
    }
}

/// When an engine forgets next, and how often it has forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Forgetting {
    /// What was asked for.
    pub amnesia: Amnesia,
    next: u64,
    /// How often it has forgotten since the count was last taken.
    pub count: u64,
}

impl Forgetting {
    /// Of an engine that has done nothing yet.
    #[must_use]
    pub fn new(amnesia: Amnesia) -> Self {
        Self {
            amnesia,
            next: amnesia.every,
            count: 0,
        }
    }

    /// Whether an engine that has done this number of supersteps is to forget now.
    #[inline]
    #[must_use]
    pub fn is_due(&self, supersteps: u64) -> bool {
        supersteps >= self.next
    }

    /// How often it has forgotten since this was last asked.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// Notes that it forgets after this number of supersteps.
    pub fn note(&mut self, supersteps: u64) {
        self.go_on_from(supersteps);
        self.count += 1;
    }

    /// Of an engine that has done this number of supersteps, and has forgotten whenever that was
    /// due.
    pub fn go_on_from(&mut self, supersteps: u64) {
        let every = self.amnesia.every;
        self.next = (supersteps / every + 1).saturating_mul(every);
    }
}

/// Hooks that have an engine forget, besides what others do.
#[derive(Debug)]
pub struct Forgetful<'a, H, F> {
    hooks: &'a mut H,
    forgetting: &'a mut Forgetting,
    forget: F,
}

impl<'a, H, F> Forgetful<'a, H, F> {
    /// The hooks of others, when the engine forgets, and how.
    pub fn new(hooks: &'a mut H, forgetting: &'a mut Forgetting, forget: F) -> Self {
        Self {
            hooks,
            forgetting,
            forget,
        }
    }
}

impl<M, H, F> EngineHooks<M> for Forgetful<'_, H, F>
where
    M: Message,
    H: EngineHooks<M>,
    F: FnMut(&mut Engine<M>, &mut H, Amnesia) -> Result<(), Error>,
{
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool {
        self.hooks.before_posting(engine)
    }

    fn after_posting(&mut self, engine: &mut Engine<M>) -> bool {
        let rests = self.hooks.after_posting(engine);
        let supersteps = engine.kernel.counters.supersteps;
        if self.forgetting.is_due(supersteps) && engine.is_at_rest() {
            self.forgetting.note(supersteps);
            let amnesia = self.forgetting.amnesia;
            if let Err(error) = (self.forget)(engine, self.hooks, amnesia) {
                let superstep = engine.kernel.superstep;
                let stage = FailureStage::Start;
                let place = engine.kernel.place(superstep, stage, 0, 0);
                engine.kernel.fail(place, error);
                return true;
            }
        }
        rests
    }

    fn wants_attention(&self) -> bool {
        self.hooks.wants_attention()
    }

    fn horizon(&self, horizon: Option<SimTime>) -> Option<SimTime> {
        self.hooks.horizon(horizon)
    }

    fn departing(&mut self, engine: &mut Engine<M>, time: SimTime) {
        self.hooks.departing(engine, time);
    }
}

impl<M: Message> Engine<M> {
    /// What is saved of it; agents that are not saved and are to be kept are taken out.
    ///
    /// # Errors
    /// [`Error::Unsaved`].
    pub fn save(
        &mut self,
        amnesia: Amnesia,
        codec: &dyn AgentCodec<M>,
    ) -> Result<(EngineState<M>, KeptAgents<M>), Error> {
        let mut kept = KeptAgents::new();
        let state = self.export_and_keep(codec, amnesia.keeps_unregistered, &mut kept)?;
        Ok((state, kept))
    }

    /// Forgets everything, and comes back from what was saved of it, which goes `through` a form in
    /// which it could be kept. After an error nothing of it is left but its accounts.
    ///
    /// # Errors
    /// [`Error::Unsaved`], [`Error::Unrestored`], [`Error::AgentPanicked`],
    /// [`Error::ModelPanicked`].
    pub fn forget(
        &mut self,
        amnesia: Amnesia,
        codec: &dyn AgentCodec<M>,
        through: impl FnOnce(EngineState<M>) -> Result<Through<M>, String>,
    ) -> Result<(), Error> {
        let accounts = self.accounts();
        let forgotten = accounts.guard(|| self.forget_and_return(amnesia, codec, through));
        if forgotten.is_err() {
            self.keep_accounts(&accounts);
        }
        forgotten
    }

    fn forget_and_return(
        &mut self,
        amnesia: Amnesia,
        codec: &dyn AgentCodec<M>,
        through: impl FnOnce(EngineState<M>) -> Result<Through<M>, String>,
    ) -> Result<(), Error> {
        let now = self.now();
        let (state, kept) = self.save(amnesia, codec)?;
        let unread = |why: String| Error::Unrestored {
            what: "the state of the scheduler".into(),
            time: now,
            why: why.into(),
        };
        let through = through(state).map_err(unread)?;
        self.reset()?;
        let state = through().map_err(unread)?;
        self.restore(state, codec, kept)
    }

    /// How it stands, and what it has counted.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        Accounts {
            now: self.kernel.now,
            superstep: self.kernel.superstep,
            local: self.kernel.local,
            counters: self.kernel.counters,
        }
    }

    /// Stands where it stood before it failed to come back, and has counted what it had counted: its
    /// host tells of the failure, and of these with it.
    pub fn keep_accounts(&mut self, accounts: &Accounts) {
        let Accounts {
            now,
            superstep,
            local,
            counters,
        } = *accounts;
        let kernel = &mut self.kernel;
        (kernel.now, kernel.superstep, kernel.local) = (now, superstep, local);
        kernel.counters = counters;
    }
}

/// How an engine stands, and what it has counted.
#[derive(Clone, Copy, Debug)]
pub struct Accounts {
    now: SimTime,
    superstep: u64,
    local: u64,
    counters: Counters,
}

impl Accounts {
    /// Forgets and comes back. A panic on the way is an error that tells when it was.
    ///
    /// # Errors
    /// Those of `forget`, and [`Error::ModelPanicked`].
    pub fn guard(&self, forget: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        guard_model(None, (self.now, self.superstep), forget)?
    }
}

/// Reads again what was written.
pub type Through<M> = Box<dyn FnOnce() -> Result<EngineState<M>, String>>;

/// The amnesia that a program asked for.
pub(crate) struct AskedFor<M: Message> {
    pub(crate) every: Option<u64>,
    pub(crate) through: fn(EngineState<M>) -> Result<Through<M>, String>,
}

impl<M: Message + Serialize + DeserializeOwned> AskedFor<M> {
    /// Every n-th superstep, through bytes.
    pub(crate) fn new(every: Option<u64>) -> Self {
        let through = write;
        Self { every, through }
    }
}

/// Writes a state down, to be read again.
fn write<M: Message + Serialize + DeserializeOwned>(
    state: EngineState<M>,
) -> Result<Through<M>, String> {
    let bytes = postcard::to_stdvec(&state).map_err(|why| why.to_string())?;
    drop(state);
    Ok(Box::new(move || {
        postcard::from_bytes(&bytes).map_err(|why| why.to_string())
    }))
}

/// Keeps a state whose messages may have no serde.
#[expect(clippy::unnecessary_wraps, reason = "it stands for `write`")]
pub(crate) fn keep<M: Message>(state: EngineState<M>) -> Result<Through<M>, String> {
    Ok(Box::new(|| Ok(state)))
}
