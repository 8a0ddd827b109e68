//! What a build of a simulation must be given so that its run can be compared.

use std::fmt;
use std::sync::{Arc, Mutex};

use maslite_core::internal::LockEvenPoisoned;
use maslite_core::{Observer, SchedulerBuilder, SimTime};

use super::settings::ReplaySettings;
use crate::cluster::registry::WireMessage;
use crate::error::Chain;
use crate::protocol::wire::TraceWindow;
use crate::simulation::builder::MpMainBuilder;
use crate::simulation::spread::Spread;

type Sink = Arc<Mutex<Box<dyn FnMut(&str) + Send>>>;

/// Settings that a comparison adds to a simulation: a content digest, and where lines are compared
/// a trace of some instants. They change no result.
#[derive(Clone)]
pub struct Watch {
    window: Option<TraceWindow>,
    sink: Option<Sink>,
    pub(super) jitter: Option<u64>,
    pub(super) amnesia: Option<u64>,
    pub(super) spread: Spread,
}

impl Watch {
    /// Marks alone.
    pub(super) fn marks() -> Self {
        Self {
            window: None,
            sink: None,
            jitter: None,
            amnesia: None,
            spread: Spread::AsDeclared,
        }
    }

    /// A trace of the instants from the first to the last one, to this sink.
    pub(super) fn trace(
        first: SimTime,
        last: SimTime,
        sink: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        Self {
            window: Some(TraceWindow { first, last }),
            sink: Some(Arc::new(Mutex::new(Box::new(sink)))),
            ..Self::marks()
        }
    }

    /// Adds these settings to those of a simulation. Its own trace, or observer, is not called.
    pub fn on<B: Watched>(&self, builder: B) -> B {
        builder.watched_by(self)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// The settings of a simulation, to which [`Watch::on`] can add: those of a
/// [`Scheduler`](maslite_core::Scheduler) and of an [`MpMain`](crate::MpMain).
pub trait Watched: Sized {
    /// Adds what a comparison needs. [`Watch::on`] calls it.
    fn watched_by(self, watch: &Watch) -> Self;

    /// Replays a recorded cluster. `maslite replay` has it called.
    ///
    /// # Errors
    /// Why not, or how it differs.
    fn replay(&self, settings: &ReplaySettings) -> Result<String, String>;
}

impl<M: WireMessage> Watched for SchedulerBuilder<M> {
    fn watched_by(self, watch: &Watch) -> Self {
        let mut builder = self.content_digest();
        if let Some(every) = watch.amnesia
            && builder.knows_agent_types()
        {
            builder = builder.amnesia(Some(every));
        }
        let (Some(window), Some(sink)) = (watch.window, watch.sink.clone()) else {
            return builder;
        };
        let mut line = String::new();
        let observer: Observer<M> = Box::new(move |delivery| {
            if window.includes(delivery.time) {
                line.clear();
                delivery.write_json_with_body(&mut line);
                (sink.lock_even_poisoned())(&line);
            }
        });
        builder.observe(observer)
    }

    fn replay(&self, _: &ReplaySettings) -> Result<String, String> {
        Err("a lone scheduler has no clusters, so none is recorded".to_owned())
    }
}

impl<M: WireMessage> Watched for MpMainBuilder<M> {
    fn watched_by(self, watch: &Watch) -> Self {
        let mut builder = self.content_digest();
        builder.jitter = watch.jitter.or(builder.jitter);
        if watch.amnesia.is_some() {
            builder.amnesia = Some(watch.amnesia);
        }
        builder.spread = watch.spread;
        let (Some(window), Some(sink)) = (watch.window, watch.sink.clone()) else {
            return builder;
        };
        builder.window = Some(window);
        builder.trace(move |line| (sink.lock_even_poisoned())(line))
    }

    fn replay(&self, settings: &ReplaySettings) -> Result<String, String> {
        let replayed = settings.replay(&self.entered);
        match replayed {
            Ok(stand) => Ok(stand.to_string()),
            Err(why) => Err(Chain(&why).to_string()),
        }
    }
}
