//! Steers a run from other threads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use maslite_core::{
    Agent, AgentId, AlarmFilter, Counters, Mail, Message, Pattern, PendingAlarm, Receiver, SimTime,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::commands;
use crate::cluster::commands::{AgentInfo, Answers, Audience, Question};
use crate::cluster::registry::{Registry, WireMessage};
use crate::error::control::ControlError;
use crate::settings::ClusterId;
use crate::snapshot::saved::Saved;
use crate::steering::control_queue::{
    ControlCommand, ControlQueue, EncodedMail, Halt, Promise, SaveTarget, StepTarget,
};
use crate::steering::status::Status;

/// Steers a simulation from threads other than the one that runs it.
///
/// Requests are answered between two supersteps, with all clusters at one instant. Then the run
/// goes on: its trace and digest are those of a run without requests, unless a command, mail, or
/// taking an agent out changed something. An agent at work is not interrupted, so only
/// [`status`](Self::status) and [`stop`](Self::stop) answer at once.
///
/// Between runs a request waits for the next run; [`MpMain`](crate::MpMain) has the same calls for
/// that time. When the simulation has ended, every call is an error. A paused run goes on when the
/// last controller is dropped.
///
/// ```
/// use maslite_mp::Halt;
/// use maslite_mp::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize, Message)]
/// # enum Msg { Tick }
/// # #[derive(Serialize, Deserialize)]
/// # struct Clock { ticks: u32 }
/// # impl Agent<Msg> for Clock {
/// #     fn setup(&mut self, ctx: &mut Context<'_, Msg>) { ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick); }
/// #     fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
/// #         self.ticks += 1;
/// #         ctx.alarm_in(SimDuration::from_secs(1), Msg::Tick);
/// #     }
/// # }
/// # let agents = Registry::new().with::<Clock>().enter();
/// let mut main = MpMain::builder(agents).placement(Placement::Inline).build()?;
/// let cluster = main.new_cluster();
/// main.add_to(cluster, 1, Clock { ticks: 0 })?;
/// main.pause(); // at the start, until the other thread is ready
/// let controller = main.controller();
/// let steering = std::thread::spawn(move || {
///     let halt = controller.run_until(SimTime::from_secs(10))?;
///     assert_eq!(halt, Halt::Paused(SimTime::from_secs(10)));
///     assert_eq!(controller.inspect::<Clock>(1)?.ticks, 9);
///     controller.stop();
///     Ok::<(), maslite_mp::ControlError>(())
/// });
/// assert_eq!(main.run(Run::until_idle())?.stopped_by, StopReason::Interrupted);
/// steering.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Controller<M: Message> {
    control_queue: Arc<ControlQueue>,
    registry: Arc<Registry<M>>,
}

impl<M: WireMessage> Controller<M> {
    /// Pauses the run after the current superstep. Waits for the pause.
    ///
    /// # Errors
    /// The error that ended the simulation, or [`ControlError::OwnThread`]. This is true of all
    /// calls.
    pub fn pause(&self) -> Result<Halt, ControlError> {
        self.submit(ControlCommand::Pause)
    }

    /// Resumes a paused run.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), ControlError> {
        self.control_queue.leave(ControlCommand::Resume)
    }

    /// Runs this many supersteps, from a pause or not, and waits for the pause after them. Under a
    /// lookahead each cluster counts its own supersteps, and all clusters finish the instant.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn step(&self, supersteps: u64) -> Result<Halt, ControlError> {
        self.go(StepTarget::Supersteps(supersteps))
    }

    /// Runs to the end of this instant, and waits for the pause at the beginning of the next one.
    /// Under a lookahead an instant in which mail leaves a cluster counts as well.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn step_instant(&self) -> Result<Halt, ControlError> {
        self.go(StepTarget::NextInstant)
    }

    /// Runs until simulated time reaches `time`, and waits for the pause there. Nothing that is due
    /// at `time` or later has happened. If `time` is in the past, the run pauses now.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn run_until(&self, time: SimTime) -> Result<Halt, ControlError> {
        self.go(StepTarget::Until(time))
    }

    /// Ends the present run, or the next one, after the current superstep. Does not wait for the
    /// end. A process that does not stop within two seconds is killed, and the run returns an
    /// error.
    pub fn stop(&self) {
        self.control_queue.stop();
    }

    /// Returns the status of the simulation, as far as main knows it. Answers at once, without
    /// waiting for agents.
    #[must_use]
    pub fn status(&self) -> Status {
        self.control_queue.snapshot.read()
    }

    /// Returns the status with answers of the clusters: the times of clusters that run alone, the
    /// agents at work, the memory of their processes. Waits about `limit` for the answers, at most
    /// 1 s. For a cluster that does not answer, the status has what main knows.
    #[must_use]
    pub fn look(&self, limit: Duration) -> Status {
        self.control_queue.look(limit)
    }

    /// Sends a message of main into the simulation, as [`send_mail`](Self::send_mail) does.
    ///
    /// # Errors
    /// As [`send_mail`](Self::send_mail).
    pub fn send(&self, to: impl Into<Receiver>, body: M) -> Result<SimTime, ControlError> {
        self.send_mail(Mail::new(AgentId::MAIN, to, body))
    }

    /// Sends mail into the simulation, and returns the instant at which it was posted. The mail
    /// becomes a part of the trace, like mail that the owner queued before a run that began at that
    /// instant.
    ///
    /// # Errors
    /// As [`pause`](Self::pause), and [`ControlError::Encode`], [`ControlError::Decode`].
    pub fn send_mail(&self, mail: Mail<M>) -> Result<SimTime, ControlError> {
        let what = || format!("message {} from outside", mail.topic());
        let body = commands::encode(&mail.body, what)?;
        let (sender, receiver) = (mail.sender, mail.receiver);
        let mail = EncodedMail {
            sender,
            receiver,
            body,
        };
        self.submit(|reply| ControlCommand::Send { mail, reply })?
    }

    /// Saves the simulation where the run has come to, into a new folder, as
    /// [`MpMain::save`](crate::MpMain::save) does. The run then goes on.
    ///
    /// # Errors
    /// As [`pause`](Self::pause), and [`ControlError::NotSaved`].
    pub fn save(&self, path: impl Into<PathBuf>) -> Result<Saved, ControlError> {
        let target = SaveTarget::Path(path.into());
        self.submit(|reply| ControlCommand::Save { target, reply })?
    }

    /// As [`MpMain::command`](crate::MpMain::command).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn command(&self, agent: impl Into<AgentId>, request: M) -> Result<M, ControlError> {
        self.put(commands::ask_command(agent.into(), &request)?)
    }

    /// As [`MpMain::command_all`](crate::MpMain::command_all).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn command_all(&self, audience: Audience, request: M) -> Result<Answers<M>, ControlError> {
        self.put(commands::ask_command_all(audience, &request)?)
    }

    /// As [`MpMain::inspect`](crate::MpMain::inspect).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn inspect<A: Agent<M> + DeserializeOwned>(
        &self,
        agent: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.put(commands::ask_state::<M, A>(agent.into())?)
    }

    /// As [`MpMain::take_out`](crate::MpMain::take_out).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn take_out<A: Agent<M> + DeserializeOwned>(
        &self,
        agent: impl Into<AgentId>,
    ) -> Result<A, ControlError> {
        self.put(commands::ask_out::<M, A>(agent.into())?)
    }

    /// As [`MpMain::replace`](crate::MpMain::replace).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn replace<A: Agent<M> + Serialize>(
        &self,
        agent: impl Into<AgentId>,
        by: A,
    ) -> Result<(), ControlError> {
        self.put(commands::ask_replace(&self.registry, agent.into(), &by)?)
    }

    /// As [`MpMain::agents`](crate::MpMain::agents).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn agents(&self) -> Result<Vec<AgentInfo>, ControlError> {
        self.put(commands::ask_agents(0, u64::MAX)?)
    }

    /// As [`MpMain::alarms`](crate::MpMain::alarms).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn alarms(&self, filter: AlarmFilter) -> Result<Vec<PendingAlarm>, ControlError> {
        let mut alarms = self.put(commands::ask_all_alarms()?)?;
        alarms.retain(|alarm| filter.includes(alarm));
        Ok(alarms)
    }

    /// As [`MpMain::alarms_of`](crate::MpMain::alarms_of).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn alarms_of(&self, cluster: ClusterId) -> Result<Vec<PendingAlarm>, ControlError> {
        self.put(commands::ask_alarms(cluster)?)
    }

    /// As [`MpMain::subscriptions_of`](crate::MpMain::subscriptions_of).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn subscriptions_of(
        &self,
        cluster: ClusterId,
    ) -> Result<Vec<(AgentId, Pattern)>, ControlError> {
        self.put(commands::ask_subscriptions(cluster)?)
    }

    /// As [`MpMain::counters_of`](crate::MpMain::counters_of).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn counters_of(&self, cluster: ClusterId) -> Result<Counters, ControlError> {
        self.put(commands::ask_counters(cluster)?)
    }

    fn go(&self, step_target: StepTarget) -> Result<Halt, ControlError> {
        self.submit(|reply| ControlCommand::Go(step_target, reply))
    }

    fn put<T>(&self, question: Question<T>) -> Result<T, ControlError> {
        let Question {
            scope,
            request,
            read,
        } = question;
        let replies = self.submit(|reply| ControlCommand::Ask {
            scope,
            request,
            reply,
        })?;
        read(replies?)
    }

    /// Leaves a command in the control queue, and waits for its result.
    fn submit<T: Send + 'static>(
        &self,
        command: impl FnOnce(Promise<T>) -> ControlCommand,
    ) -> Result<T, ControlError> {
        let (reply, answer) = mpsc::channel();
        self.control_queue.leave(command(Promise::from(reply)))?;
        answer.recv().map_err(|_| self.control_queue.why_over())
    }

    /// Leaves a command in the control queue, and handles its result in the thread that has it.
    /// Does not wait.
    pub(crate) fn order_for<T: 'static>(
        &self,
        command: impl FnOnce(Promise<T>) -> ControlCommand,
        gone: &Arc<AtomicBool>,
        then: impl FnOnce(Result<T, ControlError>) + Send + 'static,
    ) {
        let control_queue = Arc::clone(&self.control_queue);
        let deliver = move |answer: Option<T>| then(answer.ok_or_else(|| control_queue.why_over()));
        let promise = Promise::new(deliver, Arc::clone(gone));
        // A command that is not taken is dropped, and its drop reports why.
        let _ = self.control_queue.leave(command(promise));
    }
}

impl<M: Message> Controller<M> {
    pub(crate) fn new(control_queue: &Arc<ControlQueue>, registry: &Arc<Registry<M>>) -> Self {
        control_queue.admit();
        Self {
            control_queue: Arc::clone(control_queue),
            registry: Arc::clone(registry),
        }
    }
}

impl<M: Message> Clone for Controller<M> {
    fn clone(&self) -> Self {
        Self::new(&self.control_queue, &self.registry)
    }
}

impl<M: Message> Drop for Controller<M> {
    fn drop(&mut self) {
        self.control_queue.dismiss();
    }
}

impl<M: Message> fmt::Debug for Controller<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("status", &self.control_queue.snapshot.read())
            .finish_non_exhaustive()
    }
}
