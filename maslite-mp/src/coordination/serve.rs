//! A run that can be steered: it serves the control queue when a command waits there, and then goes
//! on as if nothing had been.
//!
//! **Invariant:** while the control queue is served all clusters stand at one instant, between two
//! supersteps, and no mail waits to be posted.

use std::time::Instant;

use maslite_core::{CommandError, Mail, SimDuration, SimTime, StopReason};

use crate::cluster::commands;
use crate::cluster::commands::{Replies, Scope};
use crate::cluster::registry::WireMessage;
use crate::coordination::clusters::Clusters;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Routing;
use crate::coordination::state::{Standing, UnderWay};
use crate::error::Error;
use crate::error::control::ControlError;
use crate::protocol::wire::Task;
use crate::stall::detector::MainState;
use crate::steering::control_queue::{
    ControlCommand, ControlQueue, EncodedMail, Halt, Next, Promise, StepTarget,
};
use crate::steering::status::RunState;

/// How far the run is to go.
struct Course {
    paused: bool,
    /// When to pause, if before the run's own end.
    end: Option<SimTime>,
    supersteps: u64,
    /// To pause where the next thing happens, once this instant is over.
    to_the_next: bool,
    /// Who waits for the next pause.
    waiting: Vec<Promise<Halt>>,
}

impl Course {
    /// To the end of the run, unless a controller says otherwise.
    fn free() -> Self {
        Self {
            paused: false,
            end: None,
            supersteps: u64::MAX,
            to_the_next: false,
            waiting: Vec::new(),
        }
    }

    /// Sets a course; who waits for the next pause waits on.
    fn go(&mut self, step_target: Option<StepTarget>, now: SimTime) {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self::free();
        self.waiting = waiting;
        match step_target {
            None => {}
            Some(StepTarget::Supersteps(count)) => self.supersteps = count,
            // Time that is past has been reached.
            Some(StepTarget::Until(time)) => self.end = Some(time.max(now)),
            Some(StepTarget::NextInstant) => {
                self.end = now.checked_add(SimDuration::from_nanos(1));
                self.to_the_next = true;
            }
        }
    }

    /// Has a client wait for the next pause; clients that have left do not wait any more.
    fn await_pause(&mut self, reply: Promise<Halt>) {
        self.waiting.retain(Promise::is_wanted);
        self.waiting.push(reply);
    }

    fn tell(&mut self, halt: Halt) {
        for waiting in self.waiting.drain(..) {
            waiting.keep(halt);
        }
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Runs until something ends it, and does meanwhile what is wanted from outside. Mail that came
    /// too late for this run is handed back.
    pub(crate) fn run_steered(
        &mut self,
        control_queue: &ControlQueue,
        deadline: Option<Instant>,
    ) -> Result<(StopReason, Vec<Mail<M>>), Error> {
        self.watched = control_queue.has_controllers();
        if self.watched {
            self.clusters.show(self.standing, self.routing);
        }
        let mut course = Course::free();
        let steered = self.steer(control_queue, deadline, &mut course);
        let mut reason = steered.inspect_err(|_| {
            control_queue.put_back(std::mem::take(&mut course.waiting));
        })?;
        if reason == StopReason::Timeout && control_queue.is_stopped() {
            reason = StopReason::Interrupted;
        }
        // Of an instant that is not over, some clusters have told what happened in it and others
        // will yet.
        let is_over = self.lookaheads.is_empty() || reason == StopReason::Idle;
        self.write_trace_before((!is_over).then_some(self.standing.time));
        self.clusters.show(self.standing, self.routing);
        let halt = Halt::Ended(self.standing.time, reason);
        course.tell(halt);
        let mut late = Vec::new();
        for command in control_queue.take_left() {
            match command {
                ControlCommand::Resume | ControlCommand::SaveDue => {}
                ControlCommand::Save { target, reply } => {
                    reply.keep(self.save_for(target, &late)?);
                }
                ControlCommand::Pause(reply) | ControlCommand::Go(_, reply) => {
                    reply.keep(halt);
                }
                ControlCommand::Ask {
                    scope,
                    request,
                    reply,
                } => self.reply(scope, &request, reply)?,
                ControlCommand::Send { mail, reply } => {
                    let mail = mail.decode();
                    let taken = mail.map(|mail| late.push(mail));
                    reply.keep(taken.map(|()| halt.time()));
                }
            }
        }
        Ok((reason, late))
    }

    fn steer(
        &mut self,
        control_queue: &ControlQueue,
        deadline: Option<Instant>,
        course: &mut Course,
    ) -> Result<StopReason, Error> {
        let (end, mut supersteps) = (self.end, self.supersteps);
        loop {
            if course.paused || control_queue.is_raised() {
                self.clusters.show(self.standing, self.routing);
                if !self.attend(control_queue, deadline, course)? {
                    return Ok(StopReason::Timeout);
                }
            }
            let save = self.next_save();
            let nearest = end.into_iter().chain(course.end).chain(save).min();
            // Time only moves forward: an end that is past is now.
            self.end = nearest.map(|end| end.max(self.standing.time));
            self.supersteps = supersteps.min(course.supersteps);
            let before = self.supersteps;
            let reason = self.run_on()?;
            let done = before - self.supersteps;
            supersteps = supersteps.saturating_sub(done);
            course.supersteps = course.supersteps.saturating_sub(done);
            let now = self.standing.time;
            match reason {
                // A command waits in the control queue.
                StopReason::Timeout if !self.clusters.is_over() => self.interrupted = false,
                StopReason::TimeLimit if end.is_none_or(|end| now < end) => {
                    self.save_if_due()?;
                    if course.end.is_none_or(|end| now < end) {
                        continue;
                    }
                    match self.next_time() {
                        Some(next) if course.to_the_next => {
                            course.to_the_next = false;
                            course.end = Some(next);
                        }
                        _ => self.pause(course)?,
                    }
                }
                StopReason::Supersteps if supersteps > 0 => self.pause(course)?,
                reason => {
                    if reason == StopReason::TimeLimit {
                        self.save_if_due()?;
                    }
                    return Ok(reason);
                }
            }
        }
    }

    /// Does what is wanted, and waits as long as the run is paused. False if it is to end.
    fn attend(
        &mut self,
        control_queue: &ControlQueue,
        deadline: Option<Instant>,
        course: &mut Course,
    ) -> Result<bool, Error> {
        loop {
            let now = self.standing.time;
            self.clusters.main_activity.set(MainState::Pause, now);
            let next = control_queue.next(course.paused, deadline);
            self.clusters.main_activity.set(MainState::Routing, now);
            match next {
                Next::Stop => return Ok(false),
                Next::GoOn => {
                    if course.paused {
                        // No controller is left that could let it go on.
                        course.go(None, now);
                    }
                    return Ok(true);
                }
                Next::Do(ControlCommand::Resume) => course.go(None, now),
                Next::Do(ControlCommand::Pause(reply)) => {
                    course.await_pause(reply);
                    self.pause(course)?;
                }
                Next::Do(ControlCommand::Go(step_target, reply)) => {
                    course.await_pause(reply);
                    course.go(Some(step_target), now);
                }
                Next::Do(ControlCommand::Ask {
                    scope,
                    request,
                    reply,
                }) => self.reply(scope, &request, reply)?,
                Next::Do(ControlCommand::SaveDue) => self.want_save(),
                Next::Do(ControlCommand::Save { target, reply }) => {
                    reply.keep(self.save_for(target, &[])?);
                }
                Next::Do(ControlCommand::Send { mail, reply }) => {
                    let taken = match mail.decode() {
                        Ok(mail) => self.setup(vec![mail]).map(|()| Ok(now))?,
                        Err(error) => Err(error),
                    };
                    reply.keep(taken);
                }
            }
        }
    }

    /// Pauses: each cluster now stands where main stands, and main has its report of that.
    fn pause(&mut self, course: &mut Course) -> Result<(), Error> {
        let all: Vec<usize> = (0..self.clusters.list.len()).collect();
        self.ask(&all, &[])?;
        course.paused = true;
        self.clusters.control_queue.snapshot.show(RunState::Paused);
        course.tell(Halt::Paused(self.standing.time));
        Ok(())
    }

    /// Asks clusters something for a controller.
    fn reply(
        &mut self,
        scope: Scope,
        request: &[u8],
        reply: Promise<Result<Replies, ControlError>>,
    ) -> Result<(), Error> {
        let replies = match places_of(scope, self.routing, self.under_way, self.clusters) {
            Err(error) => Err(error),
            Ok(places) => match self.ask(&places, request) {
                Ok(replies) => replies_of(scope, self.routing, self.clusters, places, replies),
                Err(error) => {
                    reply.keep(Err(ControlError::from(&error)));
                    return Err(error);
                }
            },
        };
        reply.keep(replies);
        Ok(())
    }

    /// Shows those who may look what the clusters begin to do.
    #[cold]
    pub(crate) fn show_work(&self, tasks: &[(usize, Task)]) {
        let Standing {
            time,
            supersteps,
            counters,
            ..
        } = &*self.standing;
        let snapshot = &self.clusters.control_queue.snapshot;
        snapshot.stands(*time, *supersteps, counters.delivered);
        for (place, _) in tasks {
            self.clusters.list[*place].snapshot.begins();
        }
    }
}

impl EncodedMail {
    fn decode<M: WireMessage>(&self) -> Result<Mail<M>, ControlError> {
        let body = commands::decode(&self.body, || "mail from outside".to_owned())?;
        Ok(Mail::new(self.sender, self.receiver, body))
    }
}

/// The places of the clusters that a request goes to. One to all goes to those that are left.
pub(crate) fn places_of<M>(
    scope: Scope,
    routing: &Routing,
    under_way: &UnderWay<M>,
    clusters: &Clusters,
) -> Result<Vec<usize>, ControlError> {
    let number = clusters.list.len();
    let place = match scope {
        Scope::Owner(agent) => {
            let owner = routing.owner(agent).map(|owner| owner as usize);
            // One that waits for its insertion index lives already.
            let owner = owner.or_else(|| under_way.birthplace(agent));
            owner.ok_or(CommandError::UnknownAgent(agent))?
        }
        Scope::Cluster(cluster) => {
            let place = cluster.place(routing.simulation, number);
            place.ok_or_else(|| ControlError::UnknownCluster(cluster.number()))?
        }
        Scope::All => {
            let places = 0..number;
            let left = places.filter(|place| clusters.dropped(*place).is_none());
            return Ok(left.collect());
        }
    };
    match clusters.dropped(place) {
        Some(dropped) => Err(ControlError::Dropped(Box::new(dropped.clone()))),
        None => Ok(vec![place]),
    }
}

/// The answers of the clusters at these places. Of those that were dropped over the request there
/// is none.
pub(crate) fn replies_of(
    scope: Scope,
    routing: &Routing,
    clusters: &Clusters,
    places: Vec<usize>,
    replies: Vec<Vec<u8>>,
) -> Result<Replies, ControlError> {
    let mut answers = Vec::new();
    for (place, reply) in places.into_iter().zip(replies) {
        match (clusters.dropped(place), scope) {
            (None, _) => answers.push((routing.ids[place], reply)),
            (Some(_), Scope::All) => {}
            (Some(dropped), Scope::Owner(_) | Scope::Cluster(_)) => {
                return Err(ControlError::Dropped(Box::new(dropped.clone())));
            }
        }
    }
    Ok(answers)
}
