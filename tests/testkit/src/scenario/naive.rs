//! The kernel's semantics once more, as slow and as plain as can be: what a scenario must print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::scenario::file::{Action, Listen, Scenario};
use crate::scenario::trace::quote;

/// What came of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A line for every delivery.
    pub trace: String,
    pub sent: u64,
    pub delivered: u64,
    pub undeliverable: u64,
    pub queued: u64,
    pub unheard: u64,
    pub supersteps: u64,
    pub alarms_pending: u64,
    /// Where the clock stands \[ms\].
    pub now_ms: u64,
    /// The instants that there were \[ms\].
    pub instants_ms: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Letter {
    sender: u64,
    receiver: Option<u64>,
    topic: &'static str,
    ttl: u64,
    direct: bool,
}

/// Due at, set at, insertion index of the setter, sequence.
type AlarmKey = (u64, u64, usize, u64);

struct Model<'a> {
    scenario: &'a Scenario,
    index: BTreeMap<u64, usize>,
    /// Subscriptions, each with the insertion index of the subscriber.
    listeners: Vec<(usize, Listen)>,
    step: u64,
    sequence: u64,
    alarms: Vec<(AlarmKey, Letter)>,
    outbox: Vec<Letter>,
    inboxes: Vec<Vec<Letter>>,
    outcome: Outcome,
}

/// Runs a scenario; none if it has more deliveries than that.
pub fn run(scenario: &Scenario, most_deliveries: u64) -> Option<Outcome> {
    let mut model = Model {
        scenario,
        index: BTreeMap::new(),
        listeners: Vec::new(),
        step: 0,
        sequence: 0,
        alarms: Vec::new(),
        outbox: Vec::new(),
        inboxes: vec![Vec::new(); scenario.agents.len()],
        outcome: Outcome::default(),
    };
    for (index, script) in scenario.agents.iter().enumerate() {
        model.index.insert(script.id, index);
        for listen in &script.subscribe {
            model.subscribe(index, *listen);
        }
    }
    model.outbox = scenario
        .start
        .iter()
        .map(|mail| Letter {
            sender: mail.from,
            receiver: mail.to,
            topic: mail.topic.as_str(),
            ttl: mail.ttl,
            direct: false,
        })
        .collect();
    model.run(most_deliveries).then_some(model.outcome)
}

impl Model<'_> {
    /// False if there are more deliveries than that.
    fn run(&mut self, most_deliveries: u64) -> bool {
        let until = self.scenario.run.until_ms;
        self.post();
        loop {
            let inboxes = self.inboxes.iter();
            self.outcome.queued = inboxes.map(|inbox| inbox.len() as u64).sum();
            self.outcome.alarms_pending = self.alarms.len() as u64;
            if self.outcome.delivered > most_deliveries {
                return false;
            }
            // Rule 2: agents just added are awake, with mail or without.
            let just_added = self.outcome.supersteps == 0 && !self.inboxes.is_empty();
            if self.outcome.queued == 0 && !just_added {
                self.alarms.sort_by_key(|(key, _)| *key);
                let Some(((time, ..), _)) = self.alarms.first() else {
                    return true;
                };
                let time = *time;
                if let Some(until) = until.filter(|until| time >= *until) {
                    self.outcome.now_ms = until;
                    return true;
                }
                if time > self.outcome.now_ms {
                    self.outcome.now_ms = time;
                    self.step = 0;
                }
                let due = self.alarms.iter().filter(|(key, _)| key.0 == time).count();
                let due = self.alarms.drain(..due);
                self.outbox = due.map(|(_, letter)| letter).collect();
                self.post();
                continue;
            }
            if until.is_some_and(|until| self.outcome.now_ms >= until) {
                return true;
            }
            if self.outcome.queued > 0 {
                self.outcome.instants_ms.insert(self.outcome.now_ms);
            }
            for index in 0..self.inboxes.len() {
                for letter in std::mem::take(&mut self.inboxes[index]) {
                    self.deliver(index, &letter);
                }
            }
            self.step += 1;
            self.outcome.supersteps += 1;
            self.post();
        }
    }

    fn subscribe(&mut self, who: usize, listen: Listen) {
        self.unsubscribe(who, listen);
        self.listeners.push((who, listen));
    }

    fn unsubscribe(&mut self, who: usize, listen: Listen) {
        self.listeners.retain(|held| *held != (who, listen));
    }

    fn post(&mut self) {
        for letter in std::mem::take(&mut self.outbox) {
            let mut readers = BTreeSet::new();
            if let Some(receiver) = letter.receiver {
                match self.index.get(&receiver) {
                    Some(index) => drop(readers.insert(*index)),
                    None => {
                        self.outcome.sent += 1;
                        self.outcome.undeliverable += 1;
                    }
                }
            }
            if !letter.direct {
                let fits = |listen: &Listen| {
                    listen.sender.is_none_or(|sender| sender == letter.sender)
                        && (listen.receiver.is_none() || listen.receiver == letter.receiver)
                        && listen
                            .topic
                            .is_none_or(|topic| topic.as_str() == letter.topic)
                };
                let listening = self.listeners.iter().filter(|(_, listen)| fits(listen));
                readers.extend(listening.map(|(who, _)| *who));
            }
            if letter.receiver.is_none() && readers.is_empty() {
                self.outcome.unheard += 1;
            }
            self.outcome.sent += readers.len() as u64;
            for reader in readers {
                self.inboxes[reader].push(letter.clone());
            }
        }
    }

    fn deliver(&mut self, index: usize, letter: &Letter) {
        let script = &self.scenario.agents[index];
        let (now, id) = (self.outcome.now_ms, script.id);
        self.outcome.delivered += 1;
        let line = &mut self.outcome.trace;
        let receiver = letter
            .receiver
            .map_or("null".to_owned(), |id| id.to_string());
        let _ = write!(
            line,
            r#"{{"t_ms": {now}, "step": {}, "to": {id}, "#,
            self.step
        );
        let _ = write!(
            line,
            r#""from": {}, "receiver": {receiver}, "#,
            letter.sender
        );
        line.push_str(r#""topic": "#);
        quote(letter.topic, line);
        let _ = writeln!(line, r#", "ttl": {}}}"#, letter.ttl);
        if letter.ttl == 0 {
            return;
        }
        let ttl = letter.ttl - 1;
        let mut rules = script.rules.iter().rev();
        let Some(rule) = rules.find(|rule| rule.on.as_str() == letter.topic) else {
            return;
        };
        for action in &rule.actions {
            let (receiver, topic, direct) = match action {
                Action::Subscribe(listen) => {
                    self.subscribe(index, *listen);
                    continue;
                }
                Action::Unsubscribe(listen) => {
                    self.unsubscribe(index, *listen);
                    continue;
                }
                Action::Send { to, topic, direct } => (*to, topic, *direct),
                Action::Alarm { to, topic, .. } => (*to, topic, false),
                Action::Reply { topic } => (Some(letter.sender), topic, false),
                Action::Broadcast { topic } => (None, topic, false),
                other => unreachable!("a plain scenario has no {other:?}"),
            };
            let answer = Letter {
                sender: id,
                receiver,
                topic: topic.as_str(),
                ttl,
                direct,
            };
            if let Action::Alarm { after_ms, .. } = action {
                self.sequence += 1;
                let key = (now + after_ms, now, index, self.sequence);
                self.alarms.push((key, answer));
            } else {
                self.outbox.push(answer);
            }
        }
    }
}
