//! The scripted agent and what it says.

use std::collections::BTreeMap;

use maslite_core::{
    Agent, AgentId, Alarm, Context, Mail, Message, Pattern, Receiver, SimDuration, Topic,
};
use serde::{Deserialize, Serialize};

use crate::file::{Action, Listen, Script, StartMail};

/// A topic, and how many more times it may set something off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScenarioMessage {
    pub(crate) topic: Topic,
    pub(crate) ttl: u64,
}

impl Message for ScenarioMessage {
    fn topic(&self) -> Topic {
        self.topic
    }
}

/// An agent that does what a scenario file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scripted {
    listens_to: Vec<Pattern>,
    rules: BTreeMap<Topic, Vec<Act>>,
}

/// An action in the kernel's words.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Act {
    Send(Receiver, Topic),
    Reply(Topic),
    Alarm(SimDuration, Receiver, Topic),
    Subscribe(Pattern),
    Unsubscribe(Pattern),
}

impl From<&Script> for Scripted {
    fn from(script: &Script) -> Self {
        let rules = script.rules.iter();
        let acts = |actions: &[Action]| actions.iter().map(Act::from).collect();
        Self {
            listens_to: script.subscribe.iter().map(pattern).collect(),
            rules: rules.map(|rule| (rule.on, acts(&rule.actions))).collect(),
        }
    }
}

impl From<&Action> for Act {
    fn from(action: &Action) -> Self {
        match action {
            Action::Send {
                to: Some(to),
                topic,
                direct: true,
            } => Self::Send(Receiver::Direct(AgentId::from(*to)), *topic),
            Action::Send { to, topic, .. } => Self::Send(receiver(*to), *topic),
            Action::Reply { topic } => Self::Reply(*topic),
            Action::Broadcast { topic } => Self::Send(Receiver::Subscribers, *topic),
            Action::Alarm {
                after_ms,
                to,
                topic,
            } => Self::Alarm(SimDuration::from_millis(*after_ms), receiver(*to), *topic),
            Action::Subscribe(listen) => Self::Subscribe(pattern(listen)),
            Action::Unsubscribe(listen) => Self::Unsubscribe(pattern(listen)),
        }
    }
}

impl From<&StartMail> for Mail<ScenarioMessage> {
    fn from(mail: &StartMail) -> Self {
        let StartMail { topic, ttl, .. } = *mail;
        let message = ScenarioMessage { topic, ttl };
        Self::new(AgentId::from(mail.from), receiver(mail.to), message)
    }
}

fn receiver(to: Option<u64>) -> Receiver {
    to.map_or(Receiver::Subscribers, |id| AgentId::from(id).into())
}

fn pattern(listen: &Listen) -> Pattern {
    let (sender, receiver) = (listen.sender, listen.receiver);
    Pattern::new(
        sender.map(AgentId::from),
        receiver.map(AgentId::from),
        listen.topic,
    )
    .expect("a pattern of a file names something")
}

impl Agent<ScenarioMessage> for Scripted {
    fn setup(&mut self, ctx: &mut Context<'_, ScenarioMessage>) {
        for pattern in &self.listens_to {
            ctx.subscribe(*pattern);
        }
    }

    fn receive(&mut self, mail: Mail<ScenarioMessage>, ctx: &mut Context<'_, ScenarioMessage>) {
        let Some(ttl) = mail.body.ttl.checked_sub(1) else {
            return;
        };
        let Some(acts) = self.rules.get(&mail.body.topic) else {
            return;
        };
        for act in acts {
            match *act {
                Act::Send(to, topic) => send(ctx, to, ScenarioMessage { topic, ttl }),
                Act::Reply(topic) => ctx.send(mail.sender, ScenarioMessage { topic, ttl }),
                Act::Alarm(delay, to, topic) => {
                    ctx.set_alarm(Alarm::after(delay).to(to), ScenarioMessage { topic, ttl });
                }
                Act::Subscribe(pattern) => ctx.subscribe(pattern),
                Act::Unsubscribe(pattern) => ctx.unsubscribe(pattern),
            }
        }
    }
}

fn send(ctx: &mut Context<'_, ScenarioMessage>, to: Receiver, message: ScenarioMessage) {
    match to {
        Receiver::Agent(id) => ctx.send(id, message),
        Receiver::Direct(id) => ctx.send_direct(id, message),
        Receiver::Subscribers => ctx.broadcast(message),
    }
}
