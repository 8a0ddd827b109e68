//! The scripted agent and what it says.

use std::collections::{BTreeMap, BTreeSet};

use maslite_core::{
    Agent, AgentId, Alarm, AlarmFilter, Context, Mail, Message, Pattern, Receiver, SimDuration,
    Topic,
};
use serde::{Deserialize, Serialize};

use crate::scenario::file::{Action, Listen, Script, StartMail};

/// A topic, and how many more times it may set something off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioMessage {
    pub topic: Topic,
    pub ttl: u64,
}

impl Message for ScenarioMessage {
    fn topic(&self) -> Topic {
        self.topic
    }
}

/// What agents say of themselves with `report_error`, because the kernel's trace does not tell it.
pub const BORN: &str = "born";
pub const GONE: &str = "gone";
pub const AWAKE: &str = "awake";
pub const PAUSED: &str = "paused";

/// The `ttl` of what agents send in `setup` and `teardown`.
const LIFE_TTL: u64 = 2;
/// The `ttl` of what an agent says when it begins or ends.
const NEWS_TTL: u64 = 1;
/// `spawn {}` adds no more agents than this.
const MOST_CHILDREN: u64 = 2;
/// An agent with this id or a later one adds none with `spawn {}`.
const LAST_PARENT: u64 = 3_000;

/// An agent that does what a scenario file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scripted {
    listens_to: Vec<Pattern>,
    part: Part,
    life: Life,
}

/// What an agent is to do. An agent that it adds gets a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    rules: BTreeMap<Topic, Vec<Act>>,
    setup: Vec<Act>,
    teardown: Vec<Act>,
    at_most: Option<u64>,
}

/// What happened to an agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Life {
    /// Another agent has added it.
    is_born: bool,
    is_kept_awake: bool,
    /// The topics of all mail that it has had.
    heard: BTreeSet<Topic>,
    /// How often it has sent itself a message about a topic once more.
    spins: BTreeMap<Topic, u64>,
    /// How many agents it has added with `spawn {}`.
    children: u64,
}

/// What sets actions off.
#[derive(Clone, Copy)]
struct Cause {
    /// The sender and the topic of the mail; none in `setup` and `teardown`.
    mail: Option<(AgentId, Topic)>,
    /// What is sent carries this.
    ttl: u64,
}

impl Cause {
    const LIFE: Self = Self {
        mail: None,
        ttl: LIFE_TTL,
    };
}

/// An action in the kernel's words.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Act {
    Send(Receiver, Topic),
    Reply(Topic),
    Alarm(SimDuration, Receiver, Topic),
    Subscribe(Pattern),
    Unsubscribe(Pattern),
    Spawn(Option<u64>),
    /// None: itself.
    Remove(Option<AgentId>),
    Clear(Option<Receiver>, Option<Topic>),
    Pause,
    Panic {
        unless: Topic,
    },
    Spin {
        until: Topic,
        most: u64,
    },
    Keep(bool),
}

impl From<&Script> for Scripted {
    fn from(script: &Script) -> Self {
        let rules = script.rules.iter();
        let acts = |actions: &[Action]| actions.iter().map(Act::from).collect();
        Self {
            listens_to: script.subscribe.iter().map(pattern).collect(),
            part: Part {
                rules: rules.map(|rule| (rule.on, acts(&rule.actions))).collect(),
                setup: acts(&script.setup),
                teardown: acts(&script.teardown),
                at_most: script.at_most,
            },
            life: Life::default(),
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
            } => Self::Send(Receiver::Direct(agent(*to)), *topic),
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
            Action::Spawn { id } => Self::Spawn(*id),
            Action::Remove { id: 0 } => Self::Remove(None),
            Action::Remove { id } => Self::Remove(Some(agent(*id))),
            Action::Clear { topic, to } => Self::Clear(to.map(receiver), *topic),
            Action::Pause {} => Self::Pause,
            Action::Panic { unless } => Self::Panic { unless: *unless },
            Action::Spin { until, most } => Self::Spin {
                until: *until,
                most: *most,
            },
            Action::Keep { awake } => Self::Keep(*awake),
        }
    }
}

impl From<&StartMail> for Mail<ScenarioMessage> {
    fn from(mail: &StartMail) -> Self {
        let StartMail { topic, ttl, .. } = *mail;
        let message = ScenarioMessage { topic, ttl };
        Self::new(agent(mail.from), receiver(mail.to), message)
    }
}

/// The agent with an id of a file, in which 0 is main.
fn agent(id: u64) -> AgentId {
    match id {
        0 => AgentId::MAIN,
        id => AgentId::from(id),
    }
}

fn receiver(to: Option<u64>) -> Receiver {
    to.map_or(Receiver::Subscribers, |id| agent(id).into())
}

fn pattern(listen: &Listen) -> Pattern {
    let (sender, receiver) = (listen.sender, listen.receiver);
    Pattern::new(sender.map(agent), receiver.map(agent), listen.topic)
        .expect("a pattern of a file names something")
}

impl Agent<ScenarioMessage> for Scripted {
    fn setup(&mut self, ctx: &mut Context<'_, ScenarioMessage>) {
        if self.life.is_born {
            ctx.report_error(BORN);
            ctx.broadcast(message("B", NEWS_TTL));
        }
        for pattern in &self.listens_to {
            ctx.subscribe(*pattern);
        }
        self.life
            .act(&self.part, &self.part.setup, Cause::LIFE, ctx);
    }

    fn update(&mut self, ctx: &mut Context<'_, ScenarioMessage>) {
        let mut read = 0;
        while self.part.at_most.is_none_or(|most| read < most)
            && let Some(mail) = ctx.next_mail()
        {
            read += 1;
            self.receive(mail, ctx);
        }
        if read == 0 && self.life.is_kept_awake {
            ctx.report_error(AWAKE);
        }
    }

    fn receive(&mut self, mail: Mail<ScenarioMessage>, ctx: &mut Context<'_, ScenarioMessage>) {
        let ScenarioMessage { topic, ttl } = mail.body;
        self.life.heard.insert(topic);
        let Some(ttl) = ttl.checked_sub(1) else {
            return;
        };
        if let Some(acts) = self.part.rules.get(&topic) {
            let mail = Some((mail.sender, topic));
            self.life.act(&self.part, acts, Cause { mail, ttl }, ctx);
        }
    }

    fn teardown(&mut self, ctx: &mut Context<'_, ScenarioMessage>) {
        ctx.report_error(GONE);
        ctx.broadcast(message("C", NEWS_TTL));
        self.life
            .act(&self.part, &self.part.teardown, Cause::LIFE, ctx);
    }
}

impl Life {
    fn act(
        &mut self,
        part: &Part,
        acts: &[Act],
        cause: Cause,
        ctx: &mut Context<'_, ScenarioMessage>,
    ) {
        let ttl = cause.ttl;
        for act in acts {
            match *act {
                Act::Send(to, topic) => send(ctx, to, ScenarioMessage { topic, ttl }),
                Act::Reply(topic) => {
                    if let Some((sender, _)) = cause.mail {
                        ctx.send(sender, ScenarioMessage { topic, ttl });
                    }
                }
                Act::Alarm(delay, to, topic) => {
                    ctx.set_alarm(Alarm::after(delay).to(to), ScenarioMessage { topic, ttl });
                }
                Act::Subscribe(pattern) => ctx.subscribe(pattern),
                Act::Unsubscribe(pattern) => ctx.unsubscribe(pattern),
                Act::Spawn(id) => self.spawn(id, part, ttl, ctx),
                Act::Remove(id) => ctx.remove(id.unwrap_or(ctx.id())),
                Act::Clear(to, topic) => {
                    let mut which = AlarmFilter::all();
                    if let Some(to) = to {
                        which = which.to(to);
                    }
                    if let Some(topic) = topic {
                        which = which.about(topic);
                    }
                    ctx.clear_alarms(which);
                }
                Act::Pause => {
                    ctx.report_error(PAUSED);
                    ctx.stop_run();
                }
                Act::Panic { unless } => {
                    assert!(
                        self.heard.contains(&unless),
                        "there was no mail about {unless}"
                    );
                }
                Act::Spin { until, most } => self.spin(until, most, cause, ctx),
                Act::Keep(awake) => {
                    self.is_kept_awake = awake;
                    ctx.keep_awake(awake);
                }
            }
        }
    }

    /// Adds an agent with the same part, and sends it something.
    fn spawn(
        &mut self,
        id: Option<u64>,
        part: &Part,
        ttl: u64,
        ctx: &mut Context<'_, ScenarioMessage>,
    ) {
        let own = ctx.id().as_u64();
        let id = match id {
            Some(id) => id,
            None if self.children == MOST_CHILDREN || own >= LAST_PARENT => return,
            None => {
                self.children += 1;
                100 + 20 * own + self.children - 1
            }
        };
        let child = Scripted {
            listens_to: vec![Pattern::topic("A")],
            part: part.clone(),
            life: Self {
                is_born: true,
                ..Self::default()
            },
        };
        ctx.add(id, child);
        ctx.send(id, message("C", ttl));
    }

    /// Sends itself the message that it reacts to.
    fn spin(
        &mut self,
        until: Topic,
        most: u64,
        cause: Cause,
        ctx: &mut Context<'_, ScenarioMessage>,
    ) {
        let Some((_, topic)) = cause.mail else {
            return;
        };
        let spins = self.spins.entry(topic).or_default();
        if *spins < most && !self.heard.contains(&until) {
            *spins += 1;
            let ttl = cause.ttl + 1;
            ctx.send_direct(ctx.id(), ScenarioMessage { topic, ttl });
        }
    }
}

fn message(topic: &'static str, ttl: u64) -> ScenarioMessage {
    let topic = Topic::new(topic);
    ScenarioMessage { topic, ttl }
}

fn send(ctx: &mut Context<'_, ScenarioMessage>, to: Receiver, message: ScenarioMessage) {
    match to {
        Receiver::Agent(id) => ctx.send(id, message),
        Receiver::Direct(id) => ctx.send_direct(id, message),
        Receiver::Subscribers => ctx.broadcast(message),
    }
}
