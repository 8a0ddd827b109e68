//! Random stories in which agents come and go. A seed always gives the same one.

use maslite_mp::prelude::*;
use rand::RngExt;

use super::{Told, naive};
use crate::scenario::file::{
    Action, Listen, OwnerAction, Rule, Scenario, Script, StartMail, Until,
};

const TOPICS: [&str; 7] = ["A", "B", "C", "D", "E", "F", "Tea & \"buns\""];
/// Enough that much happens, and few enough that a run takes no time.
const MOST_LINES: usize = 300;

/// A story with 1 to 8 agents at first, in 1 to 5 clusters; and what must be told of it.
pub fn story(seed: u64) -> (Scenario, Told) {
    let mut dice = Dice::new(seed);
    let mut scenario = dice.scenario();
    loop {
        if let Some(told) = naive::tell(&scenario, MOST_LINES) {
            return (scenario, told);
        }
        let sent = scenario.between.iter_mut().flatten();
        let sent = sent.filter_map(|action| match action {
            OwnerAction::Send(mail) => Some(mail),
            OwnerAction::Add(_) | OwnerAction::Remove { .. } => None,
        });
        for mail in scenario.start.iter_mut().chain(sent) {
            mail.ttl = mail.ttl.saturating_sub(1);
        }
        // What agents do of their own accord is worn down, too.
        let run = &mut scenario.run;
        run.until_ms = Some(run.until_ms.map_or(40, |until| until / 2));
        run.supersteps_per_instant = Some(run.supersteps_per_instant.map_or(64, |most| most / 2));
    }
}

struct Dice {
    rng: AgentRng,
    ids: Vec<u64>,
    /// Whether something may go wrong.
    is_rash: bool,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self {
            rng: AgentRng::new(seed, AgentId::from(3)),
            ids: Vec::new(),
            is_rash: seed % 5 < 2,
        }
    }

    fn below(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn topic(&mut self) -> Topic {
        Topic::new(self.any(&TOPICS))
    }

    /// Agents mostly; main, children of agents, and ids of no agent as well.
    fn id(&mut self) -> u64 {
        let place = self.below(self.ids.len());
        let id = self.ids[place];
        match self.below(16) {
            0 | 1 => 0,
            2 => 100 + 20 * id,
            3 => self.any(&[77, 7_000, 7_001]),
            _ => id,
        }
    }

    fn receiver(&mut self) -> Option<u64> {
        (!self.one_in(9)).then(|| self.id())
    }

    fn listen(&mut self) -> Listen {
        let parts = self.any(&[1, 1, 1, 2, 3, 4, 5, 6, 7]);
        Listen {
            topic: (parts & 1 != 0).then(|| self.topic()),
            receiver: (parts & 2 != 0).then(|| self.id()),
            sender: (parts & 4 != 0).then(|| self.id()),
        }
    }

    fn scenario(&mut self) -> Scenario {
        let mut ids: Vec<u64> = (1..=24).collect();
        for place in 0..11 {
            let other = self.below(ids.len() - place) + place;
            ids.swap(place, other);
        }
        let first = 1 + self.below(8);
        let later = self.below(4);
        ids.truncate(first + later);
        self.ids.clone_from(&ids);
        let mut clusters = vec![Vec::new(); 1 + self.below(5)];
        for id in &ids {
            let cluster = self.below(clusters.len());
            clusters[cluster].push(*id);
        }
        let agents = ids[..first].iter().map(|id| self.script(*id)).collect();
        let start = (0..self.below(5)).map(|_| self.mail()).collect();
        let mut between: Vec<Vec<OwnerAction>> = (0..1 + self.below(3))
            .map(|_| (0..self.below(3)).map(|_| self.deed()).collect())
            .collect();
        for id in &ids[first..] {
            let pause = self.below(between.len());
            let script = self.script(*id);
            between[pause].push(OwnerAction::Add(script));
        }
        Scenario {
            clusters,
            agents,
            start,
            run: Until {
                until_ms: self.one_in(3).then(|| self.any(&[0, 1, 3, 5, 10, 30])),
                supersteps_per_instant: self.is_rash.then(|| self.any(&[0, 1, 3, 8, 20, 60])),
                stop_on: self.one_in(3).then(|| self.topic()),
            },
            between,
        }
    }

    fn mail(&mut self) -> StartMail {
        StartMail {
            from: self.id(),
            to: self.receiver(),
            topic: self.topic(),
            ttl: self.any(&[0, 2, 4, 6, 8]),
        }
    }

    /// What the owner does.
    fn deed(&mut self) -> OwnerAction {
        if self.one_in(3) {
            // Of those that it knows from the start.
            let place = self.below(self.ids.len());
            let id = self.ids[place];
            return OwnerAction::Remove { id };
        }
        OwnerAction::Send(self.mail())
    }

    fn script(&mut self, id: u64) -> Script {
        let mut rules = Vec::new();
        for topic in TOPICS {
            if !self.one_in(3) {
                let actions = self.actions();
                let on = Topic::new(topic);
                rules.push(Rule { on, actions });
            }
        }
        Script {
            id,
            subscribe: (0..self.below(3)).map(|_| self.listen()).collect(),
            rules,
            setup: if self.one_in(3) {
                self.actions()
            } else {
                Vec::new()
            },
            teardown: if self.one_in(3) {
                self.actions()
            } else {
                Vec::new()
            },
            at_most: self.one_in(4).then(|| self.any(&[1, 2, 3])),
        }
    }

    fn actions(&mut self) -> Vec<Action> {
        (0..1 + self.below(3)).map(|_| self.action()).collect()
    }

    fn action(&mut self) -> Action {
        let topic = self.topic();
        match self.below(32) {
            0..7 => Action::Send {
                to: Some(self.id()),
                topic,
                direct: self.one_in(5),
            },
            7..9 => Action::Broadcast { topic },
            9..13 => Action::Alarm {
                after_ms: self.any(&[0, 0, 1, 1, 2, 3, 5]),
                to: self.receiver(),
                topic,
            },
            13..15 => Action::Subscribe(self.listen()),
            15 => Action::Unsubscribe(self.listen()),
            16..19 => Action::Spawn { id: None },
            19 => Action::Remove { id: self.leaver() },
            20 | 21 => Action::Keep {
                awake: !self.one_in(3),
            },
            22 => Action::Pause {},
            23 => Action::Spin {
                until: topic,
                most: self.any(&[1, 3, 9]),
            },
            24 => Action::Clear {
                topic: self.one_in(2).then_some(topic),
                to: self.one_in(2).then(|| self.receiver()),
            },
            25 if self.is_rash => Action::Panic { unless: topic },
            26 if self.is_rash => Action::Spawn {
                id: Some(self.any(&[7_000, 7_001, 7_002])),
            },
            _ => Action::Reply { topic },
        }
    }

    /// Who is to be removed: the agent itself, another; if it is rash also one that may never be.
    fn leaver(&mut self) -> u64 {
        if self.is_rash && self.one_in(4) {
            return self.any(&[7_000, 9_999, 140]);
        }
        // The first agents of a file are always there.
        if self.one_in(2) { 0 } else { self.ids[0] }
    }
}
