//! A scheduler as one cluster of several: does what main grants, and reports.
//!
//! It is the same in a child process and inline: a message comes in, at most one goes out.
//!
//! The mail that leaves is written into the message of the answer as it leaves
//! ([`outbound`](crate::cluster::outbound)).
//!
//! **Invariant:** whenever it reports, mail that leaves has been handed out, and its own mail of
//! the last superstep is not posted yet. So main can bring in what others sent in the same
//! superstep, and the next grant posts all of it in the kernel's order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maslite_core::internal::{
    Engine, FailurePlace, FailureStage, Forgetting, Import, Limits, LockEvenPoisoned, Rest,
    guard_model,
};
use maslite_core::{Digest, Message, Pattern, SimTime};

use crate::cluster::answers::{fault, give_up, misread, send, undecodable, unsayable, write_alone};
use crate::cluster::commands;
use crate::cluster::gateway::{Ahead, Gateway};
use crate::cluster::names::Names;
use crate::cluster::registry::{AgentSet, Registry, TraceFormat, WireMessage, write_compared};
use crate::cluster::state::TRACE_LIMIT;
use crate::error::message_fault::MessageFault;
use crate::links::jitter::{Jitter, JitterLink};
use crate::links::transport::{Draft, Wait, now};
use crate::processes::backend::InterruptSource;
use crate::processes::spawn::ChildSide;
use crate::protocol::rare::Rare;
use crate::protocol::replay::{mark_of_loaded, mark_of_report};
use crate::protocol::wire::{
    self, Call, DoneAhead, Events, Failure, Fault, Grant, Loaded, News, Report, Restoration,
    Settings, Task, ToMain, ToProc, TraceLine,
};
use crate::stall::detector::ClusterActivity;

mod forecasts;
mod saving;
mod speculation;
#[cfg(test)]
mod tests;

/// The scheduler of one cluster.
pub(crate) struct MpScheduler<M: Message> {
    registry: Arc<Registry<M>>,
    pub(crate) engine: Engine<M>,
    pub(super) gateway: Gateway<M>,
    /// Agents that wait for their insertion indices, as one list per call.
    pub(super) loaded: Vec<AgentSet<M>>,
    /// Mail of a grant, before the engine takes it in; kept for its memory.
    arrived: Vec<Import<M>>,
    trace: Arc<Mutex<Vec<TraceLine>>>,
    /// The lines of the trace as they go into the report at hand.
    lines: Vec<u8>,
    /// How to wait for messages, when that has just been told.
    wait: Option<Wait>,
    /// The jitter of this end of the link, when that has just been told.
    jitter: Option<Jitter>,
    /// What others see of it while it works.
    cluster_activity: Arc<ClusterActivity>,
    /// How long it worked under grants, if it is to tell.
    pub(super) busy: Option<Duration>,
    /// In a replay: the mark of the answer that it has just written.
    pub(super) told: u64,
    names: Names,
    /// When it forgets everything, if it does.
    pub(super) forgetting: Option<Forgetting>,
    /// It may run ahead of what is final.
    speculates: bool,
    /// Its alarms for agents of other clusters are forecast.
    forecasts: bool,
    /// What it has done ahead under the grant at hand.
    ahead: DoneAhead,
    /// How many instants ahead it kept from before the grant at hand.
    kept: u64,
    /// How many deliveries were undone since main was told.
    undone: u64,
    /// A forecast was wrong since main was told.
    forecasts_are_wrong: bool,
}

/// What a scheduler has to say to a message of main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Answer,
    /// Its last answer.
    Bye,
}

impl<M: WireMessage> MpScheduler<M> {
    pub(crate) fn new(registry: Arc<Registry<M>>) -> Self {
        Self {
            registry,
            engine: Engine::new(0),
            gateway: Gateway::new(InterruptSource::While(Arc::default())),
            loaded: Vec::new(),
            arrived: Vec::new(),
            trace: Arc::default(),
            lines: Vec::new(),
            wait: None,
            jitter: None,
            cluster_activity: Arc::default(),
            busy: None,
            told: 0,
            names: Names::default(),
            forgetting: None,
            speculates: false,
            forecasts: false,
            ahead: DoneAhead::default(),
            kept: 0,
            undone: 0,
            forecasts_are_wrong: false,
        }
    }

    /// Sets what interrupts a grant of this cluster.
    pub(crate) fn interrupted_by(mut self, interrupts: InterruptSource) -> Self {
        self.gateway.interrupts = interrupts;
        self
    }

    /// The same, showing itself in `cluster_activity`.
    pub(crate) fn shown_in(mut self, cluster_activity: Arc<ClusterActivity>) -> Self {
        self.cluster_activity = cluster_activity;
        self
    }

    /// Obeys main until it says stop. Returns the code to exit with.
    pub(crate) fn run(self, mut side: ChildSide) -> i32 {
        let interrupts = InterruptSource::UpTo(Arc::clone(&side.interrupts));
        let mut this = self
            .interrupted_by(interrupts)
            .shown_in(Arc::clone(&side.cluster_activity));
        // Elsewhere than in a process there is no wall time of its own.
        this.busy = side.is_process.then_some(Duration::ZERO);
        this.names.is_told = side.is_process;
        loop {
            let reply = match side.link.recv_to_answer() {
                Ok((message, mut draft)) => this.obey(message, &mut draft),
                Err(error) => return give_up(side, &error),
            };
            if let Some(wait) = this.wait.take() {
                side.settle();
                side.link.wait_as(wait);
                if let Some(jitter) = this.jitter.take() {
                    side.link = Box::new(JitterLink::new(side.link, jitter));
                }
            }
            if reply == Reply::Nothing {
                continue;
            }
            // A cluster that has not handed over its answer is not done.
            this.cluster_activity.set_busy(true);
            if let Err(error) = send(&mut *side.link) {
                return give_up(side, &error);
            }
            this.cluster_activity.set_busy(false);
            if reply == Reply::Bye {
                return 0;
            }
        }
    }

    /// Does what one message says, and writes the answer into the draft, if there is any.
    pub(crate) fn obey(&mut self, message: &[u8], draft: &mut Draft<'_>) -> Reply {
        self.cluster_activity.set_busy(true);
        let reply = self.try_to_obey(message, draft).unwrap_or_else(|fault| {
            write_alone(&ToMain::Failed(fault), draft);
            Reply::Answer
        });
        self.cluster_activity.set_busy(false);
        reply
    }

    pub(super) fn try_to_obey(
        &mut self,
        message: &[u8],
        draft: &mut Draft<'_>,
    ) -> Result<Reply, Fault> {
        let (note, mail) =
            wire::take_note(message).map_err(|why| undecodable("a message of main", why))?;
        Ok(match note {
            ToProc::Settings(settings) => {
                self.settle_in(&settings);
                Reply::Nothing
            }
            ToProc::Load(calls) => {
                let calls = calls.into_iter();
                let loaded: Result<Vec<_>, Fault> = calls.map(|call| self.load(call)).collect();
                let loaded = loaded?;
                self.told = mark_of_loaded(&loaded);
                write_alone(&ToMain::Loaded(loaded), draft);
                Reply::Answer
            }
            ToProc::AssignIndices(indices) => {
                self.assign_indices(&indices)?;
                Reply::Nothing
            }
            ToProc::Replay(replay) => {
                let replayed = self.replay(&replay, mail)?;
                write_alone(&ToMain::Replayed(replayed), draft);
                Reply::Answer
            }
            ToProc::Save => {
                self.give_up_ahead()?;
                self.save(draft)?;
                Reply::Answer
            }
            ToProc::Write(wish) => {
                self.give_up_ahead()?;
                let written = self.write_state(&wish)?;
                write_alone(&ToMain::Written(written), draft);
                Reply::Answer
            }
            ToProc::Restore(Restoration { replay, names }) => {
                self.names.learn(&names);
                let replayed = self.restore_from(&replay, mail)?;
                write_alone(&ToMain::Replayed(replayed), draft);
                Reply::Answer
            }
            ToProc::Grant(grant) => {
                self.obey_grant(grant, mail, draft)?;
                Reply::Answer
            }
            ToProc::Stop => {
                self.give_up_ahead()?;
                write_alone(&ToMain::Bye(self.engine.teardown().err()), draft);
                Reply::Bye
            }
        })
    }

    /// Answers a request outside any grant.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut reply = Vec::new();
        commands::answer(&mut self.engine, &self.registry, request, &mut reply);
        reply
    }

    fn settle_in(&mut self, settings: &Settings) {
        self.engine = Engine::new(settings.seed);
        self.engine
            .show_progress(Arc::clone(&self.cluster_activity.progress));
        self.engine.join_neighbours();
        self.wait = Some(settings.wait);
        self.jitter = settings.jitter;
        self.forgetting = settings.amnesia.map(Forgetting::new);
        self.speculates = settings.speculates;
        self.forecasts = settings.forecasts;
        if self.forecasts {
            self.engine.forecast_alarms();
        }
        if let Some(lookahead) = settings.lookahead {
            self.engine.look_ahead(lookahead);
            self.gateway.ahead = Some(Ahead::new(lookahead));
        }
        if settings.digest {
            self.engine.keep_digest();
        }
        if settings.content {
            self.engine.keep_content_digest();
        }
        if settings.trace {
            let (lines, window) = (Arc::clone(&self.trace), settings.window);
            let format: TraceFormat<M> = match window {
                Some(_) => write_compared,
                None => self.registry.trace_format(),
            };
            let full = Arc::clone(&self.gateway.full);
            self.engine.observe_for_model(Box::new(move |delivery| {
                if window.is_some_and(|window| !window.includes(delivery.time)) {
                    return;
                }
                let mut text = String::new();
                format(delivery, &mut text);
                let mut lines = lock(&lines);
                lines.push(TraceLine {
                    time: delivery.time,
                    superstep: delivery.superstep,
                    index: delivery.index,
                    text,
                });
                full.store(lines.len() >= TRACE_LIMIT, Ordering::Relaxed);
            }));
        }
    }

    /// Makes the agents of one call, and tells who they are if main cannot know.
    fn load(&mut self, call: Call) -> Result<Loaded, Fault> {
        let mut agents = AgentSet::new();
        let mut loaded = Loaded {
            ids: Vec::new(),
            names: Vec::new(),
        };
        match call {
            Call::Add {
                id,
                name,
                kind,
                state,
            } => {
                self.names.learn(name.as_slice());
                let known = self
                    .registry
                    .kind(&kind)
                    .ok_or_else(|| Fault::UnknownKind {
                        kind: kind.clone(),
                        known: self.registry.kind_names(),
                    })?;
                let what = format!("decoding agent {id} of type {kind}");
                let agent = self.guard(&what, || known.rebuild(&state))?;
                let agent =
                    agent.map_err(|why| undecodable(&format!("agent {id} of type {kind}"), why))?;
                agents.agents.push((id, agent));
            }
            Call::Build { builder, config } => {
                let build = self.registry.builder(&builder).ok_or_else(|| {
                    let (builder, known) = (builder.clone(), self.registry.builder_names());
                    Fault::UnknownBuilder { builder, known }
                })?;
                let what = || format!("the configuration of builder {builder:?}");
                let built = self.guard(&format!("builder {builder:?}"), || {
                    build(&config, &mut agents)
                })?;
                built.map_err(|why| undecodable(&what(), why))?;
                loaded.ids = agents.agents.iter().map(|(id, _)| *id).collect();
            }
        }
        loaded.names = self.names.take();
        self.loaded.push(agents);
        Ok(loaded)
    }

    /// Calls code of the model that is no agent's.
    fn guard<T>(&self, what: &str, call: impl FnOnce() -> T) -> Result<T, Fault> {
        let stands = (self.engine.now(), self.engine.superstep());
        guard_model(Some(what), stands, call).map_err(fault)
    }

    fn assign_indices(&mut self, indices: &[u64]) -> Result<(), Fault> {
        for (agents, first) in std::mem::take(&mut self.loaded).into_iter().zip(indices) {
            for ((id, agent), index) in agents.agents.into_iter().zip(*first..) {
                self.engine.add_at(id, index, agent).map_err(fault)?;
            }
        }
        Ok(())
    }

    fn obey_grant(
        &mut self,
        mut grant: Grant,
        mail: &[u8],
        draft: &mut Draft<'_>,
    ) -> Result<(), Fault> {
        draft.clear();
        self.gateway.outbound.begin();
        self.gateway.interrupted_at.set(0);
        let Grant {
            number,
            task,
            supersteps_per_instant,
            ..
        } = grant;
        let begin = self.busy.map(|_| now());
        self.stand(&grant, mail)?;
        let (mut interest, mut request) = (Vec::new(), Vec::new());
        if let Some(mut news) = grant.news.take() {
            request = std::mem::take(&mut news.request);
            interest = self.learn(*news)?;
        }
        let before = self.engine.counters().supersteps;
        let stands = (self.engine.now(), self.engine.superstep());
        let mut reply = Vec::new();
        let done = guard_model(None, stands, || {
            self.take_in(mail, task)?;
            let done = match task {
                Task::Rematch => {
                    let mut open = self.gateway.writing(draft);
                    open.rematch(&mut self.engine, &interest);
                    Ok(())
                }
                Task::Answer => {
                    commands::answer(&mut self.engine, &self.registry, &request, &mut reply);
                    Ok(())
                }
                Task::Speculate { .. } => {
                    self.speculate(task, number, supersteps_per_instant)?;
                    Ok(())
                }
                Task::RunAlone { .. } | Task::Window { .. } => {
                    self.run_on(task, number, supersteps_per_instant, draft)
                }
                _ => self.step_on(task, supersteps_per_instant, draft),
            };
            Ok::<_, Fault>(done.and_then(|()| self.forget_if_due()))
        });
        let failed = self.failed_in(done)?;
        let failure = self.failure_to_report(failed);
        if let (Some(busy), Some(begin)) = (&mut self.busy, begin) {
            *busy += begin.elapsed();
        }
        let place = (grant.time, grant.superstep);
        if matches!(task, Task::Speculate { .. }) {
            return self.report(place, 0, reply, failure, draft);
        }
        let supersteps = self.engine.counters().supersteps - before;
        let place = (self.engine.now(), self.engine.superstep());
        self.report(place, supersteps, reply, failure, draft)
    }

    /// What failed in a grant, and where.
    fn failed_in(
        &self,
        done: Result<Result<Result<(), maslite_core::Error>, Fault>, maslite_core::Error>,
    ) -> Result<Option<(FailurePlace, Fault)>, Fault> {
        let error = match done {
            Ok(done) => match done? {
                Ok(()) => return Ok(None),
                Err(error) => error,
            },
            // Code of a message, where no agent was at work.
            Err(error) => return Ok(Some((self.place_of_next(), Fault::Agent(error)))),
        };
        // What cannot be saved or restored fails between two supersteps, outside of the engine.
        let place = self.engine.failed_at();
        let place = place.unwrap_or_else(|| self.place_of_next());
        Ok(Some((place, Fault::Agent(error))))
    }

    /// The failure of a grant: what failed in it, or else mail that could not be handed over.
    fn failure_to_report(&mut self, failed: Option<(FailurePlace, Fault)>) -> Option<Box<Failure>> {
        let unsent = self.gateway.failure.take();
        let unsent = unsent.map(|fault| (self.place_of_handover(), fault));
        let (place, fault) = failed.or(unsent)?;
        Some(Box::new(Failure { place, fault }))
    }

    /// Takes in the mail of a grant, and posts it with what waits here.
    fn take_in(&mut self, mut mail: &[u8], task: Task) -> Result<(), Fault> {
        while !mail.is_empty() {
            if self.speculates && self.take_forecast(&mut mail)? {
                continue;
            }
            let (head, mail) = wire::take_mail::<M>(&mut mail).map_err(misread::<M>)?;
            let is_timed = head.arrives > SimTime::ZERO;
            if is_timed && (head.arrives < self.engine.now() || self.gateway.ahead.is_none()) {
                return Err(self.refuse(MessageFault::Arrival));
            }
            let import = Import {
                key: head.key,
                mail,
                is_copy: head.is_copy,
            };
            if is_timed {
                self.engine.take_in(head.arrives, head.left, import);
            } else {
                self.arrived.push(import);
            }
        }
        self.engine.import(self.arrived.drain(..));
        if !matches!(task, Task::Setup { .. } | Task::Rematch | Task::Answer) {
            self.engine.post();
        }
        Ok(())
    }

    /// Does at most one superstep, and hands out the mail that leaves.
    fn step_on(
        &mut self,
        task: Task,
        supersteps_per_instant: u64,
        draft: &mut Draft<'_>,
    ) -> Result<(), maslite_core::Error> {
        match task {
            Task::Setup { stop_at_error } => {
                self.engine.stop_at_error(stop_at_error);
                self.engine.setup()?;
            }
            Task::Fire => self.fire(),
            Task::Withdraw => self.engine.withdraw_forecasts(),
            Task::SuperstepIfAwake if !self.engine.is_awake() => {}
            Task::SuperstepIfAwake | Task::Superstep => self.engine.step(supersteps_per_instant)?,
            Task::FireAndSuperstep => {
                self.fire();
                self.engine.post();
                if self.engine.is_awake() {
                    self.engine.step(supersteps_per_instant)?;
                }
            }
            _ => {}
        }
        // What a failing superstep sent goes nowhere.
        self.gateway.writing(draft).hand_out(&mut self.engine);
        Ok(())
    }

    /// Runs many supersteps; the mail that leaves is handed out on the way.
    fn run_on(
        &mut self,
        task: Task,
        number: u64,
        supersteps_per_instant: u64,
        draft: &mut Draft<'_>,
    ) -> Result<(), maslite_core::Error> {
        self.gateway.grant = number;
        self.gateway.passes = 0;
        let mut limits = Limits {
            horizon: None,
            supersteps: u64::MAX,
            supersteps_per_instant,
        };
        match task {
            Task::RunAlone {
                horizon,
                supersteps,
                next_index,
            } => {
                self.engine.number_from(next_index);
                (limits.horizon, limits.supersteps) = (horizon, supersteps);
            }
            Task::Window { horizon, others } => {
                limits.horizon = horizon;
                if let Some(ahead) = &mut self.gateway.ahead {
                    ahead.others = others;
                    ahead.limit = None;
                }
            }
            _ => {}
        }
        let rest = self.run_engine(&limits, draft)?;
        if let (Task::RunAlone { .. }, Rest::Asked(reason)) = (task, rest) {
            self.gateway.stopped = Some((0, reason));
        }
        Ok(())
    }

    /// The place before the superstep that comes next.
    fn place_of_next(&self) -> FailurePlace {
        FailurePlace {
            time: self.engine.now(),
            superstep: self.engine.superstep(),
            stage: FailureStage::Start,
            index: 0,
            sequence: 0,
        }
    }

    fn refuse(&self, reason: MessageFault) -> Fault {
        let time = self.engine.now();
        Fault::Refused { reason, time }
    }

    /// Takes news in. Tells what others began to listen to.
    fn learn(&mut self, news: News) -> Result<Vec<(u32, Pattern)>, Fault> {
        self.names.learn(&news.names);
        if news.forget_routes {
            self.gateway.routes.clear();
        }
        self.gateway.routes.extend(news.routes);
        let mut begun = Vec::new();
        for (cluster, pattern, begins, from) in news.interest {
            if begins {
                self.engine.expect_listeners();
            }
            match &mut self.gateway.ahead {
                Some(ahead) if from > SimTime::ZERO => {
                    let coming = ahead.coming.entry(from).or_default();
                    coming.push((cluster, pattern, begins));
                }
                _ => {
                    self.gateway.change_interest(cluster, pattern, begins);
                    if begins {
                        begun.push((cluster, pattern));
                    }
                }
            }
        }
        self.engine.number(&news.numbers);
        for (id, time) in news.dismissed {
            match time {
                // Not at once, although it may have come to that instant already: it leaves with
                // the alarms of the instant.
                Some(time) if self.gateway.ahead.is_some() => {
                    if time < self.engine.now() {
                        return Err(self.refuse(MessageFault::Arrival));
                    }
                    self.engine.remove_at(time, id);
                }
                _ => {
                    self.engine.remove(id);
                }
            }
        }
        Ok(begun)
    }

    fn fire(&mut self) {
        let now = self.engine.now();
        if self.engine.next_alarm() == Some(now) {
            self.engine.fire(now);
        }
    }

    /// Where mail is that cannot leave: after all else of the last superstep.
    fn place_of_handover(&self) -> FailurePlace {
        FailurePlace {
            time: self.engine.now(),
            superstep: self.engine.superstep().saturating_sub(1),
            stage: FailureStage::Handover,
            index: 0,
            sequence: 0,
        }
    }

    fn report(
        &mut self,
        (time, superstep): (SimTime, u64),
        supersteps: u64,
        reply: Vec<u8>,
        failure: Option<Box<Failure>>,
        draft: &mut Draft<'_>,
    ) -> Result<(), Fault> {
        let ahead = std::mem::take(&mut self.ahead);
        let forecasts = self.tell_forecasts();
        let stood = self.engine.stands_for_good();
        self.take_lines(&stood)?;
        let engine = &mut self.engine;
        let gateway = &mut self.gateway;
        let newborn = engine.take_newborn();
        let next = ahead.instants.first().map(|(instant, _)| *instant);
        let (held_back, held_back_to_main) = gateway.held_back();
        let report = Report {
            time,
            superstep,
            supersteps,
            awake: engine.is_awake() || engine.has_mail_for_itself(),
            waiting: engine.has_outbox(),
            next_alarm: next.or_else(|| engine.next_event()),
            alarms_may_leave: engine.has_alarms_elsewhere() || !gateway.others.is_empty(),
            kept_awake: engine.has_kept_awake(),
            events: Rare::from(Events {
                stopped: gateway.take_stops(engine),
                names: self.names.take(),
                newborn,
                gone: engine.take_gone(),
                removals: gateway.take_removals(engine),
                interest: gateway.interest(engine.take_changed_interest()),
                errors: engine.take_errors(),
                lost: engine.take_lost(),
                heard: engine.take_heard(),
                amnesias: self.forgetting.as_mut().map_or(0, Forgetting::take_count),
                undone: std::mem::take(&mut self.undone),
                forecasts,
                forecasts_are_wrong: std::mem::take(&mut self.forecasts_are_wrong)
                    | engine.take_wrong_forecasts(),
                reply,
                interrupted_at: gateway.interrupted_at.get(),
                failure,
            }),
            ahead: Rare::from(ahead),
            counters: stood.counters,
            held_back,
            held_back_to_main,
            busy: self
                .busy
                .map_or(0, |busy| u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)),
            awake_last: stood.awake_last,
            local: stood.local,
            digest: stood.digest.map(Digest::as_u64),
            content: stood.content.map(Digest::as_u64),
            batches: gateway.outbound.finish(draft),
            // A link carries no longer messages.
            trace: u32::try_from(self.lines.len()).unwrap_or(u32::MAX),
        };
        if gateway.replayed.is_some() {
            self.told = match report.events.failure {
                None => mark_of_report(&report),
                Some(_) => 0,
            };
        }
        draft.extend(&self.lines);
        wire::put_note(&ToMain::Report(report), draft).map_err(unsayable)
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock_even_poisoned()
}
