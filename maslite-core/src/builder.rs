//! The settings of a scheduler, which a program gives before the scheduler is made.

use std::fmt;

use crate::agent_types::AgentTypes;
use crate::clock::Clock;
use crate::engine::{AskedFor, Engine};
use crate::message::{Delivery, Message};
use crate::trace::Observer;

/// How a delivery becomes a line of a trace.
pub type TraceFormat<M> = fn(&Delivery<'_, M>, &mut String);

/// Takes the lines of a trace.
type LineSink = Box<dyn FnMut(&str) + Send>;

/// The settings of a [`Scheduler`](crate::Scheduler); see
/// [`Scheduler::builder`](crate::Scheduler::builder).
#[must_use = "settings do nothing until `build` makes a scheduler of them"]
pub struct SchedulerBuilder<M: Message> {
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    pub(crate) digest: bool,
    /// Has an engine keep a digest of contents.
    pub(crate) content: Option<fn(&mut Engine<M>)>,
    observer: Option<Observer<M>>,
    sink: Option<LineSink>,
    format: TraceFormat<M>,
    pub(crate) agent_types: AgentTypes<M>,
    pub(crate) amnesia: Option<AskedFor<M>>,
}

impl<M: Message> Default for SchedulerBuilder<M> {
    fn default() -> Self {
        Self {
            seed: 0,
            clock: Clock::Simulated,
            digest: false,
            content: None,
            observer: None,
            sink: None,
            format: |delivery, line| delivery.write_json(line),
            agent_types: AgentTypes::new(),
            amnesia: None,
        }
    }
}

impl<M: Message> SchedulerBuilder<M> {
    /// Sets the seed of the agents' random numbers. The default is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets how simulated time relates to wall time. By default it is independent.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a digest of the trace to every report.
    pub fn digest(mut self) -> Self {
        self.digest = true;
        self
    }

    /// Adds a digest of the trace and a digest of the contents of all messages to every report.
    /// [`Report`](crate::Report) says what a digest covers.
    ///
    /// ```
    /// use maslite_core::{Agent, Digest, Message, Run, Scheduler};
    /// #[derive(Clone, Message, serde::Serialize)]
    /// enum Msg { Price { cents: u32 } }
    /// struct Buyer;
    /// impl Agent<Msg> for Buyer {}
    ///
    /// fn digests(cents: u32) -> (Option<Digest>, Option<Digest>) {
    ///     let mut scheduler = Scheduler::builder().content_digest().build();
    ///     scheduler.add("buyer", Buyer).unwrap();
    ///     scheduler.send("buyer", Msg::Price { cents });
    ///     let report = scheduler.run(Run::until_idle()).unwrap();
    ///     (report.digest, report.content_digest)
    /// }
    ///
    /// let (low, high) = (digests(99), digests(101));
    /// assert_eq!(low.0, high.0); // the same mail at the same time
    /// assert_ne!(low.1, high.1); // that says something else
    /// ```
    pub fn content_digest(mut self) -> Self
    where
        M: serde::Serialize,
    {
        self.content = Some(Engine::keep_content_digest);
        self
    }

    /// Hands a line for every delivery to `sink`, in the kernel's one order.
    ///
    /// ```
    /// # use std::sync::{Arc, Mutex};
    /// use maslite_core::{Agent, Run, Scheduler};
    /// # #[derive(Clone, maslite_core::Message)] enum Msg { Ball }
    /// # struct Player;
    /// # impl Agent<Msg> for Player {}
    /// # let lines = Arc::new(Mutex::new(Vec::new()));
    /// # let kept = Arc::clone(&lines);
    /// let sink = move |line: &str| kept.lock().unwrap().push(line.to_owned());
    /// let mut scheduler = Scheduler::builder().trace(sink).build();
    /// scheduler.add("ada", Player)?;
    /// scheduler.send("ada", Msg::Ball);
    /// scheduler.run(Run::until_idle())?;
    /// let line = r#"{"t_ns":0,"superstep":0,"to":"ada","from":"main","receiver":"ada","topic":"Ball"}"#;
    /// assert_eq!(*lines.lock().unwrap(), [line]);
    /// # Ok::<(), maslite_core::Error>(())
    /// ```
    pub fn trace(mut self, sink: impl FnMut(&str) + Send + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Sets how the lines of the trace are written. By default [`JsonLines`](crate::JsonLines)
    /// defines it.
    pub fn trace_format(mut self, format: TraceFormat<M>) -> Self {
        self.format = format;
        self
    }

    /// Shows every delivery to `observer`, in the kernel's one order. See
    /// [`JsonLines`](crate::JsonLines) for one that writes them down.
    pub fn observe(mut self, observer: impl Into<Observer<M>>) -> Self {
        self.observer = Some(observer.into());
        self
    }

    /// Sets the agent types whose state can be saved and restored.
    pub fn agent_types(mut self, types: AgentTypes<M>) -> Self {
        self.agent_types = types;
        self
    }

    /// Whether any agent types are known.
    #[doc(hidden)]
    #[must_use]
    pub fn knows_agent_types(&self) -> bool {
        !self.agent_types.is_empty()
    }

    /// Has the scheduler forget everything after every n-th superstep, and come back from what was
    /// saved of it: a tool for testing models, and this crate. The agents go through their
    /// encoding, so all that they know must be in it. `None`, as without the call, and 0 are never.
    ///
    /// It changes how long a run takes, and nothing else: a digest that differs under it shows an
    /// agent whose encoding leaves something out, or a mistake in this crate. The types of all
    /// agents must be among the [agent types](Self::agent_types): otherwise the run is
    /// [`Error::Unsaved`](crate::Error::Unsaved). Old agents are dropped, and not torn down.
    ///
    /// In debug builds the environment variable `MASLITE_AMNESIA=n` asks the same of every scheduler
    /// without this call. It keeps agents of types that are not registered, and messages, as they
    /// are.
    pub fn amnesia(mut self, every: Option<u64>) -> Self
    where
        M: serde::Serialize + serde::de::DeserializeOwned,
    {
        self.amnesia = Some(AskedFor::new(every));
        self
    }

    /// What shows every delivery to who asked for it.
    pub(crate) fn take_observer(&mut self) -> Option<Observer<M>> {
        let observer = self.observer.take();
        let Some(mut sink) = self.sink.take() else {
            return observer;
        };
        let (mut observer, format) = (observer, self.format);
        let mut line = String::new();
        Some(Box::new(move |delivery| {
            if let Some(observer) = &mut observer {
                observer(delivery);
            }
            line.clear();
            format(delivery, &mut line);
            sink(&line);
        }))
    }
}

impl<M: Message> fmt::Debug for SchedulerBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerBuilder")
            .field("seed", &self.seed)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
