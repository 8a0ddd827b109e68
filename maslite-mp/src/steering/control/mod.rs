//! Steering a simulation from another process of the same user: its control socket, and who speaks to it.
//!
//! ```text
//! maslite, or a program ── a request, a line of JSON ──► Unix socket ──► a thread of main ──► Controller
//!                      ◄── an answer, a line of JSON ──
//! ```
//!
//! A simulation has a socket only if its program opens one: [`MpMain::open_control`](crate::MpMain::open_control). The socket lies in a
//! directory that only its user may enter, has mode 0600 itself, and who connects under another user is sent away. Whoever may
//! speak to it may read and stop the simulation, and nothing else: no request brings code, files or agents in.
//!
//! - [`protocol`]: what is asked and answered, with a version.
//! - [`simulations`]: those that can be spoken to.
//! - [`ask`]: asks one of them.
//!
//! **Invariant:** nothing that comes out of the socket, and nobody at its other end, holds up a run or changes its trace: requests are
//! bounded in length, clients and their requests in number, and answers wait in memory of this process until they are read.

mod client;
mod place;
pub mod protocol;
mod server;

pub use client::{AskError, ask};
pub use place::{Simulation, simulations};

pub(crate) use place::path_for;
pub(crate) use server::ControlSocket;

use maslite_core::{AgentId, CommandError};

use crate::cluster::registry::WireMessage;
use crate::steering::commands::ControlError;
use crate::steering::control_queue::Halt;
use crate::steering::controller::Controller;
use protocol::{AgentLine, Reply, Request};

/// How long clusters are given to say where they are, before the answer is what main knows.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(4);

/// At most so many agents are listed in one answer.
const AGENTS: u64 = 4_096;

/// Does what a request asks for, and waits for it.
pub(crate) fn answer<M: WireMessage>(controller: &Controller<M>, request: Request) -> Reply {
    try_to_answer(controller, request).unwrap_or_else(|error| Reply::Refused {
        message: error.to_string(),
    })
}

fn try_to_answer<M: WireMessage>(
    controller: &Controller<M>,
    request: Request,
) -> Result<Reply, ControlError> {
    Ok(match request {
        Request::Status => Reply::Status(controller.look(GLANCE)),
        Request::Pause => halted(controller.pause()?),
        Request::Step { supersteps } => halted(controller.step(supersteps)?),
        Request::StepInstant => halted(controller.step_instant()?),
        Request::RunUntil { time } => halted(controller.run_until(time)?),
        Request::Resume => {
            controller.resume()?;
            Reply::Done
        }
        Request::Stop => {
            controller.stop();
            Reply::Done
        }
        Request::Agents { from, limit } => {
            let agents = controller.agents_from(from, limit.min(AGENTS))?;
            let clusters = names_of_clusters(controller);
            let lines = agents.into_iter().map(|agent| AgentLine {
                id: agent.id.to_string(),
                index: agent.index,
                type_name: agent.type_name,
                cluster: clusters[agent.cluster.number() as usize].clone(),
            });
            Reply::Agents(lines.collect())
        }
        Request::Agent { id } => {
            let view = match controller.show(id_of(&id)) {
                // The name is known to whoever asked, and maybe to nobody here.
                Err(ControlError::Agent(CommandError::UnknownAgent(_))) => {
                    let message = format!("there is no agent {id}, or it was removed");
                    return Ok(Reply::Refused { message });
                }
                view => view?,
            };
            let clusters = names_of_clusters(controller);
            let cluster = clusters[view.cluster.number() as usize].clone();
            Reply::Agent(Box::new(view.describe(id, cluster)))
        }
    })
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

/// Which agent is meant. A name is not made known by being asked for.
fn id_of(text: &str) -> AgentId {
    match text.parse::<u64>() {
        Ok(number) if number < 1 << 63 => AgentId::from(number),
        _ => AgentId::of_name(text),
    }
}
