//! Random scenarios. A seed always gives the same one.

use maslite_core::{AgentId, AgentRng, Topic};
use rand::RngExt;

use crate::scenario::file::{Action, Listen, Rule, Scenario, Script, StartMail, Until};
use crate::scenario::naive;

const TOPICS: [&str; 5] = ["A", "B", "C", "D", "wie geht's? \"gut\" é"];
/// Enough that every rule comes to bear, and few enough that a run takes no time.
const MOST_DELIVERIES: u64 = 1_500;

/// A scenario with 1 to 8 agents in 1 to 4 clusters.
pub fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed);
    // Ids in no order, so that they differ from the order of insertion.
    let mut ids: Vec<u64> = (1..=20).collect();
    for place in 0..8 {
        let other = dice.below(ids.len() - place) + place;
        ids.swap(place, other);
    }
    ids.truncate(1 + dice.below(8));
    let mut clusters = vec![Vec::new(); 1 + dice.below(4)];
    for id in &ids {
        let cluster = dice.below(clusters.len());
        clusters[cluster].push(*id);
    }
    dice.ids.clone_from(&ids);
    let agents = ids.iter().map(|id| dice.script(*id)).collect();
    let start = (0..1 + dice.below(4)).map(|_| dice.start_mail()).collect();
    let mut scenario = Scenario {
        clusters,
        agents,
        start,
        run: Until::default(),
        between: Vec::new(),
    };
    let outcome = loop {
        match naive::run(&scenario, MOST_DELIVERIES) {
            Some(outcome) => break outcome,
            None => {
                for mail in &mut scenario.start {
                    mail.ttl = mail.ttl.saturating_sub(1);
                }
            }
        }
    };
    scenario.run.until_ms = match dice.below(4) {
        0 => Some(dice.delay_ms()),
        1 => {
            // Exactly when something happens.
            let instants: Vec<_> = outcome.instants_ms.into_iter().collect();
            (!instants.is_empty()).then(|| dice.any(&instants))
        }
        _ => None,
    };
    scenario
}

/// Chance, and what there is to choose from.
struct Dice {
    rng: AgentRng,
    ids: Vec<u64>,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self {
            rng: AgentRng::new(seed, AgentId::from(0)),
            ids: Vec::new(),
        }
    }

    fn below(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn topic(&mut self) -> Topic {
        Topic::new(self.any(&TOPICS))
    }

    fn delay_ms(&mut self) -> u64 {
        self.any(&[0, 0, 0, 1, 1, 2, 3, 5, 10, 250])
    }

    /// Mostly an agent, now and then an id of no agent.
    fn id(&mut self) -> u64 {
        if self.below(10) == 0 {
            self.any(&[21, 22, 1_000_000_007])
        } else {
            let place = self.below(self.ids.len());
            self.ids[place]
        }
    }

    fn listen(&mut self) -> Listen {
        // All seven combinations, those with a topic more often.
        let parts = self.any(&[1, 1, 1, 2, 3, 3, 4, 5, 6, 7]);
        Listen {
            topic: (parts & 1 != 0).then(|| self.topic()),
            receiver: (parts & 2 != 0).then(|| self.id()),
            sender: (parts & 4 != 0).then(|| self.id()),
        }
    }

    fn script(&mut self, id: u64) -> Script {
        let subscribe = (0..self.below(4)).map(|_| self.listen()).collect();
        let mut rules = Vec::new();
        for topic in TOPICS {
            // Sometimes twice: then the later rule holds.
            let count = self.any(&[0, 1, 1, 1, 1, 1, 1, 2]);
            for _ in 0..count {
                let actions = (0..1 + self.below(3)).map(|_| self.action()).collect();
                let on = Topic::new(topic);
                rules.push(Rule { on, actions });
            }
        }
        Script {
            id,
            subscribe,
            rules,
            setup: Vec::new(),
            teardown: Vec::new(),
            at_most: None,
        }
    }

    fn action(&mut self) -> Action {
        let topic = self.topic();
        match self.below(16) {
            0..4 => Action::Send {
                to: Some(self.id()),
                topic,
                direct: false,
            },
            4 => Action::Send {
                to: Some(self.id()),
                topic,
                direct: true,
            },
            5..7 => Action::Reply { topic },
            7..9 => Action::Broadcast { topic },
            9..13 => {
                let to = if self.below(8) == 0 {
                    None
                } else {
                    Some(self.id())
                };
                Action::Alarm {
                    after_ms: self.delay_ms(),
                    to,
                    topic,
                }
            }
            13..15 => Action::Subscribe(self.listen()),
            _ => Action::Unsubscribe(self.listen()),
        }
    }

    fn start_mail(&mut self) -> StartMail {
        StartMail {
            from: self.id(),
            to: if self.below(8) == 0 {
                None
            } else {
                Some(self.id())
            },
            topic: self.topic(),
            ttl: self.any(&[0, 3, 6, 9, 12]),
        }
    }
}
