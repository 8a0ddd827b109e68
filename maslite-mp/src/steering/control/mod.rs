//! Steering a simulation from another process of the same user: its control socket, and who speaks
//! to it.
//!
//! ```text
//! maslite, or a program ── a request, a line of JSON ──► Unix socket ──► a thread of main ──► Controller
//!                      ◄── an answer, a line of JSON ──
//! ```
//!
//! A simulation has a socket only if its program opens one:
//! [`MpMain::open_control`](crate::MpMain::open_control). The socket lies in a directory that only
//! its user may enter, has mode 0600 itself, and who connects under another user is sent away.
//! A client of that user may read and stop the simulation, and nothing else: no request brings
//! code, files or agents in.
//!
//! - [`protocol`]: what is asked and answered, with a version.
//! - [`simulations`]: those that can be spoken to.
//! - [`ask`]: asks one of them.
//!
//! **Invariant:** nothing that comes out of the socket, and no client at its other end, holds up a
//! run or changes its trace: requests are bounded in length, clients and their requests in number,
//! and answers wait in memory of this process until they are read.

mod access;
mod client;
mod place;
pub mod protocol;
mod server;

pub use client::{AskError, ask};
pub use place::{Simulation, simulations};

pub(crate) use place::path_for;
pub(crate) use server::ControlSocket;

use maslite_core::internal::AgentIdInternals;
use maslite_core::{AgentId, CommandError, Plain};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cluster::commands;
use crate::cluster::commands::{Question, Shown, View};
use crate::cluster::registry::WireMessage;
use crate::error::control::ControlError;
use crate::settings::ClusterId;
use crate::settings::timing::STATUS_LOOK;
use crate::steering::control_queue::{ControlCommand, Halt, Promise, SaveTarget, StepTarget};
use crate::steering::controller::Controller;
use protocol::{AgentLine, AgentView, AlarmLine, Reply, Request};

/// How many agents are listed in one answer at most.
const AGENTS: u64 = 4_096;

/// Makes a reply of what the run has answered, in the thread that writes the reply.
pub(crate) type Making = Box<dyn FnOnce() -> Reply + Send>;

/// A client with a request, until the answer is there.
pub(crate) struct Asker {
    /// Set once the client has left.
    pub(crate) gone: Arc<AtomicBool>,
    /// Takes the answer, in whichever thread has it.
    pub(crate) take: Box<dyn FnOnce(Making) + Send>,
}

/// Has a request done: now, or by the run once it comes to it. Does not wait for the run.
pub(crate) fn begin<M: WireMessage>(
    controller: &Arc<Controller<M>>,
    request: Request,
    asker: Asker,
) {
    match request {
        Request::Status => {
            let reply = Reply::Status(controller.look(STATUS_LOOK));
            (asker.take)(Box::new(|| reply));
        }
        Request::Pause => order_halt(controller, ControlCommand::Pause, asker),
        Request::Step { supersteps } => go(controller, StepTarget::Supersteps(supersteps), asker),
        Request::StepInstant => go(controller, StepTarget::NextInstant, asker),
        Request::RunUntil { time } => go(controller, StepTarget::Until(time), asker),
        Request::Resume => {
            let reply = controller.resume().map_or_else(refused, |()| Reply::Done);
            (asker.take)(Box::new(|| reply));
        }
        Request::Stop => {
            controller.stop();
            (asker.take)(Box::new(|| Reply::Done));
        }
        Request::Agents { from, limit } => list(controller, from, limit.min(AGENTS), asker),
        Request::Agent { id } => show(controller, id, asker),
        Request::Save { name } => save(controller, name, asker),
    }
}

/// How much of a reason is told \[characters\].
const REASON: usize = 1_000;

fn refused(error: ControlError) -> Reply {
    Reply::Refused {
        message: Plain(&error.to_string(), REASON).to_string(),
    }
}

fn go<M: WireMessage>(controller: &Controller<M>, step_target: StepTarget, asker: Asker) {
    order_halt(
        controller,
        |reply| ControlCommand::Go(step_target, reply),
        asker,
    );
}

fn order_halt<M: WireMessage>(
    controller: &Controller<M>,
    order: impl FnOnce(Promise<Halt>) -> ControlCommand,
    asker: Asker,
) {
    let Asker { gone, take } = asker;
    controller.order_for(order, &gone, move |halt| {
        take(Box::new(move || halt.map_or_else(refused, halted)));
    });
}

fn save<M: WireMessage>(controller: &Controller<M>, name: String, asker: Asker) {
    let Asker { gone, take } = asker;
    let target = SaveTarget::Name(name);
    let order = |reply| ControlCommand::Save { target, reply };
    controller.order_for(order, &gone, move |saved| {
        take(Box::new(move || {
            let saved = saved.and_then(|saved| saved);
            saved.map_or_else(refused, |saved| Reply::Saved {
                path: saved.path.to_string_lossy().into_owned(),
                time: saved.now,
                agents: saved.agents,
                bytes: saved.bytes,
                state_digest: saved.state_digest,
            })
        }));
    });
}

fn list<M: WireMessage>(controller: &Arc<Controller<M>>, from: u64, limit: u64, asker: Asker) {
    let there = Arc::clone(controller);
    ask_run(
        controller,
        commands::ask_agents(from, limit),
        asker,
        move |agents| {
            let mut agents = agents?;
            agents.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            let clusters = names_of_clusters(&there);
            let lines = agents.into_iter().map(|agent| AgentLine {
                id: agent.id.to_string(),
                index: agent.index,
                type_name: agent.type_name,
                cluster: name_of(&clusters, agent.cluster),
            });
            Ok(Reply::Agents(lines.collect()))
        },
    );
}

fn show<M: WireMessage>(controller: &Arc<Controller<M>>, id: String, asker: Asker) {
    let there = Arc::clone(controller);
    ask_run(
        controller,
        commands::ask_show(id_of(&id)),
        asker,
        move |view| {
            let view = match view {
                // The client knows the name; this simulation may not know it.
                Err(ControlError::Agent(CommandError::UnknownAgent(_))) => {
                    let message = format!("there is no agent {id}, or it was removed");
                    return Ok(Reply::Refused { message });
                }
                view => view?,
            };
            let cluster = name_of(&names_of_clusters(&there), view.cluster);
            Ok(Reply::Agent(Box::new(describe(view, id, cluster))))
        },
    );
}

/// Asks clusters something; `reply` makes a reply of the answer, in the thread that writes it.
fn ask_run<M: WireMessage, T: 'static>(
    controller: &Controller<M>,
    question: Result<Question<T>, ControlError>,
    asker: Asker,
    reply: impl FnOnce(Result<T, ControlError>) -> Result<Reply, ControlError> + Send + 'static,
) {
    let Asker { gone, take } = asker;
    let Question {
        scope,
        request,
        read,
    } = match question {
        Ok(question) => question,
        Err(error) => return take(Box::new(move || refused(error))),
    };
    let order = |reply| ControlCommand::Ask {
        scope,
        request,
        reply,
    };
    controller.order_for(order, &gone, move |replies| {
        take(Box::new(move || {
            let answer = replies.and_then(|replies| replies.and_then(read));
            reply(answer).unwrap_or_else(refused)
        }));
    });
}

fn halted(halt: Halt) -> Reply {
    match halt {
        Halt::Paused(time) => Reply::Paused { time },
        Halt::Ended(time, reason) => Reply::Ended {
            time,
            reason: reason.to_string(),
        },
    }
}

fn names_of_clusters<M: WireMessage>(controller: &Controller<M>) -> Vec<String> {
    let clusters = controller.status().clusters.into_iter();
    clusters.map(|cluster| cluster.name).collect()
}

fn name_of(clusters: &[String], cluster: ClusterId) -> String {
    let name = clusters.get(cluster.number() as usize);
    name.cloned()
        .unwrap_or_else(|| cluster.number().to_string())
}

/// Which agent is meant. A name is not made known by being asked for.
fn id_of(text: &str) -> AgentId {
    match text.parse::<u64>() {
        Ok(number) if number < 1 << 63 => AgentId::from(number),
        _ => AgentId::of_name(text),
    }
}

/// An agent as it goes over a control socket.
fn describe(view: View, id: String, cluster: String) -> AgentView {
    let Shown {
        index,
        kind: type_name,
        state,
        alarms,
        subscriptions,
        ..
    } = view.shown;
    let state = state.and_then(|json| serde_json::from_str(&json).map_err(|why| why.to_string()));
    let (state, no_state) = match state {
        Ok(state) => (Some(state), None),
        Err(why) => (None, Some(why)),
    };
    let alarms = alarms.into_iter().map(|alarm| AlarmLine {
        time: alarm.time,
        to: alarm.receiver.agent().map(|agent| agent.to_string()),
        topic: alarm.topic.to_string(),
    });
    AgentView {
        id,
        index,
        type_name,
        cluster,
        state,
        no_state,
        alarms: alarms.collect(),
        subscriptions: subscriptions.iter().map(ToString::to_string).collect(),
    }
}
