//! The settings of `MpMain`, which a program gives before it is made.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use maslite_core::SimDuration;

use crate::cluster::registry::{Entered, WireMessage};
use crate::coordination::state::TraceSink;
use crate::error::warning::Warning;
use crate::processes::output::Output;
use crate::protocol::wire::TraceWindow;
use crate::recovery::Recovery;
use crate::settings::{Link, Placement, Speculation, Waiting};
use crate::simulation::spread::Spread;
use crate::snapshot::saves::Saves;
use crate::stall::detector::{Patience, WarningSink};

/// The settings of a supervisor; see [`MpMain::builder`](crate::MpMain::builder).
#[must_use = "settings do nothing until `build` makes a supervisor of them"]
pub struct MpMainBuilder<M: WireMessage> {
    pub(crate) entered: Entered<M>,
    pub(crate) placement: Placement,
    pub(crate) seed: u64,
    pub(crate) digest: bool,
    pub(crate) content: bool,
    pub(crate) lookahead: Option<SimDuration>,
    pub(crate) waiting: Waiting,
    pub(crate) jitter: Option<u64>,
    pub(crate) amnesia: Option<Option<u64>>,
    pub(crate) speculation: Option<Speculation>,
    pub(crate) carrier: Link,
    pub(crate) output: Output,
    pub(crate) trace: Option<TraceSink>,
    /// The trace is of these instants alone, and has the messages.
    pub(crate) window: Option<TraceWindow>,
    pub(crate) spread: Spread,
    pub(crate) patience: Patience,
    pub(crate) warnings: Option<WarningSink>,
    pub(crate) progress: bool,
    pub(crate) recovery: Recovery,
    pub(crate) record: Option<PathBuf>,
    pub(crate) saves: Option<Saves>,
}

impl<M: WireMessage> MpMainBuilder<M> {
    /// The default settings.
    pub(crate) fn new(entered: Entered<M>) -> Self {
        Self {
            entered,
            placement: Placement::default(),
            seed: 0,
            digest: false,
            content: false,
            lookahead: None,
            waiting: Waiting::default(),
            jitter: None,
            amnesia: None,
            speculation: None,
            carrier: Link::default(),
            output: Output::default(),
            trace: None,
            window: None,
            spread: Spread::default(),
            patience: Patience::default(),
            warnings: None,
            progress: true,
            recovery: Recovery::stop(),
            record: None,
            saves: None,
        }
    }

    /// Sets where the clusters run. By default each runs in a process of its own.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// How processes wait for each other. It changes how long a run
    /// takes, and nothing else.
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Holds up messages on links, by chance from a seed: a tool for testing models, and this
    /// crate. Messages on links chosen by chance take up to 200 µs longer in either direction, and
    /// one in 64 up to 3 ms; clusters that run inline work in another order instead.
    ///
    /// It changes how long a run takes, and nothing else: a digest that differs under it shows a
    /// model that looks at more than its mail and its clock, or a mistake in this crate. With
    /// `None`, as without the call, links are what they are, and nothing is paid for it.
    pub fn jitter(mut self, seed: Option<u64>) -> Self {
        self.jitter = seed;
        self
    }

    /// Whether clusters run ahead, once that is settled.
    pub(super) fn runs_ahead(&self) -> Speculation {
        let of_environment = || Speculation::of_environment(self.seed);
        self.speculation.unwrap_or_else(of_environment)
    }

    /// Sets whether clusters run ahead of what is final, where there is no lookahead. By default none
    /// does.
    ///
    /// In debug builds the environment variable `MASLITE_SPECULATION`, which is `auto` or `random`,
    /// asks the same of every simulation without this call.
    pub fn speculation(mut self, speculation: Speculation) -> Self {
        self.speculation = Some(speculation);
        self
    }

    /// Has every cluster forget everything after every n-th superstep of its own, and come back
    /// from what was saved of it: a tool for testing models, and this crate. The agents go through
    /// their encoding, so all that they know must be in it. `None`, as without the call, and 0 are
    /// never.
    ///
    /// It changes how long a run takes, and nothing else: a digest that differs under it shows an
    /// agent whose encoding leaves something out, or a mistake in this crate. The types of all
    /// agents must be registered, also of those that builders make: otherwise the run is
    /// [`Unsaved`](maslite_core::Error::Unsaved). Old agents are dropped, and not torn down.
    ///
    /// In debug builds the environment variable `MASLITE_AMNESIA=n` asks the same of every
    /// simulation without this call. It keeps agents of types that are not registered as they are.
    pub fn amnesia(mut self, every: Option<u64>) -> Self {
        self.amnesia = Some(every);
        self
    }

    /// Sets the kind of link between processes. It changes how long a run takes, and nothing else.
    pub fn link(mut self, link: Link) -> Self {
        self.carrier = link;
        self
    }

    /// Sets what main does with the output of child processes. It has no effect inline.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Sets the seed of the agents' random numbers. The default is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Has every report tell a digest of the trace.
    pub fn digest(mut self) -> Self {
        self.digest = true;
        self
    }

    /// Adds a digest of the trace and a digest of the contents of all messages to every report.
    /// What a digest covers is in [`Report`](maslite_core::Report). The content digest is the same
    /// on every placement, as the other is.
    pub fn content_digest(mut self) -> Self {
        self.digest = true;
        self.content = true;
        self
    }

    /// Hands a line for every delivery to `sink`, in the kernel's one order. How lines are written
    /// is the registry's matter. Under a lookahead a run that is stopped in the middle of an
    /// instant leaves what happened in it to the next run, or to the end: other clusters may have
    /// lines that go before.
    pub fn trace(mut self, sink: impl FnMut(&str) + Send + 'static) -> Self {
        self.trace = Some(Box::new(sink));
        self
    }

    /// How long \[wall\] simulated time may stand still during a run
    /// before there is a [`Warning`]; it is 5 s otherwise. None: there are no warnings.
    ///
    /// A standstill is found after this time and half of it again at the latest, and warned of
    /// once; then again when it has lasted twice, four times, … as long.
    pub fn warning_after(mut self, patience: Option<Duration>) -> Self {
        self.patience.warning = patience;
        self
    }

    /// Limits how long \[wall\] one call of an agent (`setup`, an update, a command or another
    /// request to it) may take; there is none otherwise. If one takes longer, the simulation ends
    /// with [`Error::Stuck`](crate::Error::Stuck), which names the cluster, the agent and how long
    /// it has been at it.
    ///
    /// It is found after this time and half of it again at the latest. Time in which the process is
    /// stopped, or a debugger attached to it, does not count. Inline, where a call cannot be ended,
    /// the limit has no effect.
    pub fn update_limit(mut self, limit: Option<Duration>) -> Self {
        self.patience.update = limit;
        self
    }

    /// Limits how long \[wall\] main waits for a cluster whose process does not get on: a signal
    /// has stopped it, it gets no processor time at all, or it waits for main, so that a message
    /// must have been lost. It is 5 s otherwise; with `None` main waits for ever. A run in which a
    /// cluster takes longer is [`Error::Stuck`](crate::Error::Stuck). Agents that compute are none
    /// of its business, however long they do.
    ///
    /// It is found after this time and half of it again at the latest. Time in which main is
    /// stopped itself, or a debugger attached to the cluster, does not count.
    pub fn answer_limit(mut self, limit: Option<Duration>) -> Self {
        self.patience.answer = limit;
        self
    }

    /// Hands warnings of standstills to `sink`, which is called in a thread of its own.
    /// Otherwise they are written to the standard error, a line for each.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # fn show(agents: Entered<Msg>, dialog: std::sync::mpsc::Sender<String>) {
    /// let settings = MpMain::builder(agents).warnings(move |warning| {
    ///     let _ = dialog.send(warning.to_string());
    /// });
    /// # }
    /// ```
    pub fn warnings(mut self, sink: impl FnMut(&Warning) + Send + 'static) -> Self {
        self.warnings = Some(Box::new(sink));
        self
    }

    /// Sets whether a long run writes lines about its progress. By default it does.
    ///
    /// They are written to the standard error if it is a terminal, and nowhere otherwise: when a
    /// run has taken 2 s \[wall\], 4 s, 8 s and so on, and in the end once a minute. They say where
    /// simulated time is, the share of the run that is done if it has a limit of simulated time,
    /// events per second, the ratio of simulated to wall time, and which cluster blocks simulated
    /// time. A [`Controller`](crate::Controller) finds out the same with
    /// [`status`](crate::Controller::status).
    pub fn progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// Sets what happens when the process of a cluster dies, for all clusters that have no
    /// [policy of their own](crate::MpMain::set_recovery). By default the run ends. Inline no
    /// cluster can die, so it has no effect.
    ///
    /// With [`Recovery::restart`] the cluster gets a new process, which is told again what main
    /// told the lost one, and the run goes on to the same trace and the same digest. Main keeps
    /// what it tells each cluster, up to a limit. An agent that panics still ends the run.
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # fn show(agents: Entered<Msg>) {
    /// let settings = MpMain::builder(agents)
    ///     .recovery(Recovery::restart().at_most(3, Duration::from_secs(60)));
    /// # }
    /// ```
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Records what main tells each cluster, in a file for each in this folder. From its file a
    /// cluster can be run again alone, in this thread, with a debugger if wished:
    /// [`recording::Replay`](crate::recording::Replay). A folder with records is refused.
    ///
    /// The files have all mail that came to the cluster from others, and its agents as they were
    /// added. `docs/record-format.md` has the format.
    pub fn record(mut self, folder: impl Into<PathBuf>) -> Self {
        self.record = Some(folder.into());
        self
    }

    /// Has runs saved by themselves, and names the folder for snapshots that others ask for: see
    /// [`Saves`].
    ///
    /// ```
    /// # use maslite_mp::prelude::*;
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Message)] enum Msg { Tick }
    /// # fn show(agents: Entered<Msg>) {
    /// let settings = MpMain::builder(agents)
    ///     .saves(Saves::into("runs/port").every(Duration::from_secs(60)).keep(3));
    /// # }
    /// ```
    pub fn saves(mut self, saves: Saves) -> Self {
        self.saves = Some(saves);
        self
    }

    /// The lookahead of all clusters that have none of their own: the least simulated time that
    /// mail from one cluster to another takes. Clusters then run at the same time, and are part of
    /// the model. Zero is no lookahead.
    pub fn lookahead(mut self, lookahead: SimDuration) -> Self {
        self.lookahead = (lookahead > SimDuration::ZERO).then_some(lookahead);
        self
    }
}

impl<M: WireMessage> fmt::Debug for MpMainBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpMainBuilder")
            .field("placement", &self.placement)
            .field("seed", &self.seed)
            .field("lookahead", &self.lookahead)
            .finish_non_exhaustive()
    }
}
