//! The states of the engines of several clusters as the state of one engine, and back: a simulation
//! that was saved can go on in another number of clusters.
//!
//! Between two supersteps, without a lookahead and with all mail posted, nothing that agents can
//! see depends on how they are divided. What several engines share, main keeps for them
//! ([`MainShare`]); an engine that is alone keeps it itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::EngineState;
use super::saving::{AgentStates, name_of_kind};
use crate::adders::Adders;
use crate::digest::Digest;
use crate::id_set::IdSet;
use crate::kernel::{AlarmState, KernelState, MailState, PeriodicState, SlotState};
use crate::mailing_list::Pattern;
use crate::marks::Marks;
use crate::message::{ELSEWHERE, PERIODIC, REQUIRED};
use crate::run::{Counters, LostKey};
use crate::{AgentId, SimTime, Topic};

/// What main keeps for several engines, and an engine that is alone keeps itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MainShare {
    /// Where the simulation stands.
    pub time: SimTime,
    /// The superstep within the instant that comes next.
    pub superstep: u64,
    /// The insertion index of the next agent.
    pub next_index: u64,
    /// What no engine counts; supersteps are counted here alone.
    pub counters: Counters,
    /// What no engine has added to the digest.
    pub digest: Option<Digest>,
    /// The same of the digest of contents.
    pub content: Option<Digest>,
    /// What no engine has added to the marks.
    pub marks: Option<Marks>,
    /// The ids of the agents that are gone.
    pub removed: IdSet,
    /// Who added the agents.
    pub adders: Adders,
    /// The topics about which mail came by while an agent listened.
    pub heard: BTreeSet<Topic>,
    /// The places of the first undeliverable mail.
    pub first_lost: Vec<LostKey>,
    /// Mail that main has handled.
    pub delivered: u64,
    /// Mail that the handler of main's mail has sent.
    pub sequence: u64,
}

/// An agent of a saved simulation, for who decides in which cluster it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedAgent<'a> {
    /// Its id.
    pub id: AgentId,
    /// Its insertion index.
    pub index: u64,
    /// The name of its type.
    pub kind: &'a str,
}

impl SavedAgent<'_> {
    /// The cluster of this agent if agents go to this number of clusters in turn, in insertion order.
    #[must_use]
    pub fn spread_over(self, clusters: usize) -> usize {
        let remainder = self.index % (clusters.max(1) as u64);
        // It is less than `clusters`.
        usize::try_from(remainder).unwrap_or(0)
    }
}

/// One agent with its mail, taken out of the state of an engine.
struct Taken<M> {
    slot: SlotState,
    kind: String,
    state: Vec<u8>,
    inbox: Vec<MailState<M>>,
}

/// The parts of engine states, on their way to others.
struct Parts<M> {
    agents: Vec<Taken<M>>,
    alarms: Vec<AlarmState<M>>,
    periodics: Vec<PeriodicState>,
    alarms_numbered: u64,
    unread_lost: u64,
    awake_last: u32,
}

impl MainShare {
    /// What an engine that is alone keeps itself.
    fn of<M>(state: &EngineState<M>) -> Self {
        let kernel = &state.kernel;
        let (heard, fresh) = &kernel.heard;
        Self {
            time: kernel.now,
            superstep: kernel.superstep,
            next_index: state.next_index,
            counters: kernel.counters,
            digest: kernel.digest,
            content: kernel.content,
            marks: kernel.marks.clone(),
            removed: kernel.removed.clone(),
            adders: kernel.adders.clone(),
            heard: heard.iter().chain(fresh).copied().collect(),
            first_lost: kernel.first_lost.clone(),
            delivered: kernel.main_delivered,
            sequence: kernel.main_sequence,
        }
    }
}

impl<M: Clone> EngineState<M> {
    /// The state of one engine that is alone, made of the states of all engines of a simulation and
    /// of what main keeps for them.
    ///
    /// # Errors
    /// Why they cannot be joined.
    pub fn join(states: Vec<Self>, main: MainShare) -> Result<Self, &'static str> {
        let mut counters = main.counters;
        let (mut digest, mut content) = (main.digest, main.content);
        let add = |sum: &mut Option<Digest>, part: Option<Digest>| {
            *sum = sum.zip(part).map(|(sum, part)| sum.with(part));
        };
        let mut marks = main.marks;
        let mut parts = Parts::empty();
        for state in states {
            counters.add(&state.kernel.counters);
            add(&mut digest, state.kernel.digest);
            add(&mut content, state.kernel.content);
            marks = marks
                .zip(state.kernel.marks.as_ref())
                .map(|(sum, part)| sum.with(part));
            parts.take(state)?;
        }
        parts.agents.sort_by_key(|agent| agent.slot.index);
        let here = parts.ids();
        let mut joined = parts.into_state(main.time, main.superstep, |alarm| {
            let receiver = alarm.mail.receiver.agent();
            alarm.mail.slot = receiver.and_then(|id| here.get(&id).copied());
            alarm.mail.marks &= !ELSEWHERE;
        });
        joined.next_index = main.next_index;
        let kernel = &mut joined.kernel;
        kernel.counters = counters;
        kernel.digest = digest;
        kernel.content = content;
        kernel.marks = marks;
        kernel.removed = main.removed;
        kernel.adders = main.adders;
        kernel.heard = (main.heard.into_iter().collect(), Vec::new());
        kernel.first_lost = main.first_lost;
        kernel.main_delivered = main.delivered;
        kernel.main_sequence = main.sequence;
        Ok(joined)
    }

    /// The states of several engines and what main keeps for them, made of the state of an engine
    /// that is alone. `place` tells the engine of each agent.
    ///
    /// # Errors
    /// Why it cannot be divided.
    pub fn divide(
        self,
        engines: usize,
        mut place: impl FnMut(SavedAgent<'_>) -> usize,
    ) -> Result<(Vec<Self>, MainShare), &'static str> {
        let next_index = self.next_index;
        let mut main = MainShare::of(&self);
        let mut whole = Parts::empty();
        whole.take(self)?;
        let (alarms_numbered, unread_lost) = (whole.alarms_numbered, whole.unread_lost);
        let mut parts: Vec<Parts<M>> = (0..engines).map(|_| Parts::empty()).collect();
        let mut homes = BTreeMap::new();
        for agent in whole.agents {
            let home = place(SavedAgent {
                id: agent.slot.id,
                index: agent.slot.index,
                kind: name_of_kind(&agent.kind),
            });
            let home = home.min(engines - 1);
            homes.insert(agent.slot.id, home);
            parts[home].agents.push(agent);
        }
        // The alarms of agents that are gone may fire anywhere.
        let home = |setter: &AgentId| homes.get(setter).copied().unwrap_or(0);
        for alarm in whole.alarms {
            parts[home(&alarm.mail.sender)].alarms.push(alarm);
        }
        for periodic in whole.periodics {
            parts[home(&periodic.setter)].periodics.push(periodic);
        }
        let patterns: Vec<BTreeSet<Pattern>> = parts.iter().map(Parts::patterns).collect();
        let mut states = Vec::new();
        for (number, mut part) in parts.into_iter().enumerate() {
            let here = part.ids();
            (part.alarms_numbered, part.unread_lost) = (alarms_numbered, unread_lost);
            let mut state = part.into_state(main.time, main.superstep, |alarm| {
                let receiver = alarm.mail.receiver.agent();
                alarm.mail.slot = receiver.and_then(|id| here.get(&id).copied());
                alarm.mail.marks &= !ELSEWHERE;
                if receiver.is_some() && alarm.mail.slot.is_none() {
                    alarm.mail.marks |= ELSEWHERE;
                }
            });
            let mut others = patterns.iter().enumerate();
            state.kernel.others_listen =
                others.any(|(other, patterns)| other != number && !patterns.is_empty());
            state.next_index = next_index;
            share(&mut state.kernel, &mut main)?;
            states.push(state);
        }
        Ok((states, main))
    }

    /// The patterns that agents here listen to.
    #[must_use]
    pub fn patterns(&self) -> BTreeSet<Pattern> {
        let slots = self.kernel.slots.iter();
        let patterns = slots.flat_map(|slot| &slot.patterns);
        patterns.map(|(pattern, _)| *pattern).collect()
    }

    /// The ids of the agents here, in insertion order.
    pub fn ids(&self) -> impl Iterator<Item = AgentId> + '_ {
        self.kernel.slots.iter().map(|slot| slot.id)
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        self.kernel.now
    }

    /// Has all agents draw other random numbers: as their generators are made anew, from the seed
    /// of their next host.
    pub fn reseed(&mut self) {
        self.kernel
            .slots
            .iter_mut()
            .for_each(|slot| slot.rng = None);
    }
}

/// Gives one of several engines its share of what an engine that was alone knew.
///
/// # Errors
/// If there is more than was counted.
fn share<M>(kernel: &mut KernelState<M>, main: &mut MainShare) -> Result<(), &'static str> {
    let mail: usize = kernel.slots.iter().map(|slot| slot.inbox.len()).sum();
    kernel.counters.sent = mail as u64;
    kernel.counters.agents = kernel.slots.len() as u64;
    let less = |all: u64, part: u64| {
        all.checked_sub(part)
            .ok_or("more is there than was counted")
    };
    main.counters.sent = less(main.counters.sent, kernel.counters.sent)?;
    main.counters.agents = less(main.counters.agents, kernel.counters.agents)?;
    kernel.digest = main.digest.map(|_| Digest::default());
    kernel.content = main.content.map(|_| Digest::default());
    kernel.marks = main.marks.as_ref().map(|marks| Marks::new(marks.covers()));
    let born = kernel.slots.iter().map(|slot| slot.id);
    kernel.adders = main.adders.of(born);
    kernel.heard = (main.heard.iter().copied().collect(), Vec::new());
    kernel.first_lost.clone_from(&main.first_lost);
    Ok(())
}

impl<M> Parts<M> {
    fn empty() -> Self {
        Self {
            agents: Vec::new(),
            alarms: Vec::new(),
            periodics: Vec::new(),
            alarms_numbered: 0,
            unread_lost: 0,
            awake_last: 0,
        }
    }

    /// In which slot each agent will be.
    fn ids(&self) -> BTreeMap<AgentId, u32> {
        let ids = self.agents.iter().map(|agent| agent.slot.id);
        ids.zip(0..).collect()
    }

    fn patterns(&self) -> BTreeSet<Pattern> {
        let patterns = self.agents.iter().flat_map(|agent| &agent.slot.patterns);
        patterns.map(|(pattern, _)| *pattern).collect()
    }
}

impl<M: Clone> Parts<M> {
    /// Adds the agents and alarms of an engine.
    fn take(&mut self, state: EngineState<M>) -> Result<(), &'static str> {
        let EngineState {
            kernel,
            agents,
            newborn,
            unnumbered,
            awake_last,
            ..
        } = state;
        kernel.check()?;
        if kernel.ahead.is_some() {
            return Err("it has a lookahead, so its clusters are part of the model");
        }
        let is_posted = kernel.outbox.is_empty() && kernel.unread.is_empty();
        let is_told = newborn.is_empty() && unnumbered.is_empty() && kernel.removals.is_empty();
        if !is_posted || !is_told {
            return Err("it was saved in the middle of a superstep");
        }
        let mut states = agents.each();
        for slot in kernel.slots {
            let state = states.next();
            let (kind, state) = state.ok_or("an agent has no state")?;
            let inbox = slot.inbox.iter().map(|mail| {
                let mut mail = kernel.posted[*mail as usize].clone();
                // Where it came from was counted when it was posted.
                mail.marks &= PERIODIC | REQUIRED;
                mail.slot = None;
                mail
            });
            let inbox = inbox.collect();
            self.agents.push(Taken {
                slot,
                kind: kind.to_owned(),
                state: state.to_vec(),
                inbox,
            });
        }
        self.alarms.extend(kernel.alarms);
        self.periodics.extend(kernel.periodics);
        // Both tell earlier from later, within one engine.
        self.alarms_numbered = self.alarms_numbered.max(kernel.alarms_numbered);
        self.unread_lost = self.unread_lost.max(kernel.unread_lost);
        self.awake_last = self.awake_last.saturating_add(awake_last);
        Ok(())
    }

    /// The state of an engine that has these agents and alarms, and has counted nothing.
    fn into_state(
        mut self,
        now: SimTime,
        superstep: u64,
        place: impl FnMut(&mut AlarmState<M>),
    ) -> EngineState<M> {
        self.alarms
            .sort_by_key(|alarm| (alarm.time, alarm.mail.key, alarm.mail.marks));
        self.alarms.iter_mut().for_each(place);
        self.periodics
            .sort_by_key(|periodic| (periodic.setter, periodic.handle));
        let (mut slots, mut posted) = (Vec::new(), Vec::new());
        let mut agents = AgentStates::default();
        for agent in self.agents {
            let Taken {
                mut slot,
                kind,
                state,
                inbox,
            } = agent;
            let first = crate::narrow(posted.len());
            slot.inbox = (first..).take(inbox.len()).collect();
            posted.extend(inbox);
            slots.push(slot);
            agents.push_state(&kind, &state);
        }
        let kernel = KernelState {
            slots,
            posted,
            alarms: self.alarms,
            alarms_numbered: self.alarms_numbered,
            periodics: self.periodics,
            unread_lost: self.unread_lost,
            ..KernelState::at(now, superstep)
        };
        EngineState {
            kernel,
            agents,
            next_index: 0,
            newborn: Vec::new(),
            unnumbered: Vec::new(),
            awake_last: self.awake_last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PeriodicState;
    use crate::marks::Covers;
    use crate::message::MailKey;
    use crate::{Adder, AgentRng, Receiver, SimDuration};

    fn id(number: u64) -> AgentId {
        AgentId::from(number)
    }

    fn at(time: u64) -> SimTime {
        SimTime::from_nanos(time)
    }

    /// Mail from the first agent to another one.
    fn mail(number: u32, to: u64, marks: u8, slot: Option<u32>) -> MailState<u32> {
        MailState {
            key: MailKey::of_agent(at(3), 0, number.into()),
            sender: id(11),
            receiver: Receiver::Agent(id(to)),
            marks,
            slot,
            body: number,
        }
    }

    fn slot(number: u64, inbox: Vec<u32>) -> SlotState {
        SlotState {
            id: id(number),
            index: number - 11,
            sequence: 40 + number,
            delivered: 50 + number,
            rng: Some(AgentRng::new(number, id(number))),
            flags: 1,
            inbox,
            patterns: vec![(Pattern::topic("Word"), None)],
        }
    }

    /// The state of an engine that is alone, in which nothing that main keeps for several is as in
    /// a new one. A field that is new belongs here, too.
    fn whole() -> EngineState<u32> {
        let mut kernel = KernelState::at(at(4), 3);
        kernel.slots = vec![slot(11, vec![0]), slot(12, vec![1, 2]), slot(13, vec![])];
        kernel.posted = vec![
            mail(1, 11, 0, None),
            mail(2, 12, PERIODIC, None),
            mail(3, 12, 0, None),
        ];
        kernel.alarms = vec![
            AlarmState {
                time: at(7),
                origin: 0,
                mail: mail(4, 13, PERIODIC, Some(2)),
            },
            AlarmState {
                time: at(8),
                origin: 0,
                mail: mail(5, 11, REQUIRED, Some(0)),
            },
        ];
        kernel.alarms_numbered = 20;
        kernel.periodics = vec![PeriodicState {
            setter: id(11),
            handle: 3,
            current: 4,
            period: SimDuration::from_nanos(9),
            due: at(7),
            receiver: Receiver::Agent(id(13)),
            topic: Topic::new("Word"),
        }];
        kernel.unread_lost = 21;
        kernel.counters =
            Counters::from_numbers([131, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43]);
        (kernel.digest, kernel.content) = (Some(22.into()), Some(23.into()));
        let mut marks = Marks::new(Covers::Contents);
        marks.add(at(2), 99);
        kernel.marks = Some(marks);
        kernel.removed.insert(id(5));
        kernel.adders.insert(id(12), Adder::Agent(id(11), at(2)));
        kernel.heard.0 = vec![Topic::new("Word")];
        kernel.first_lost = vec![[1; 6]];
        (kernel.main_delivered, kernel.main_sequence) = (24, 25);
        let mut agents = AgentStates::default();
        for state in [&[1][..], &[2, 2], &[]] {
            agents.push_state("Talker", state);
        }
        EngineState {
            kernel,
            agents,
            next_index: 9,
            newborn: Vec::new(),
            unnumbered: Vec::new(),
            awake_last: 0,
        }
    }

    #[test]
    fn what_was_divided_and_is_joined_is_as_it_was() {
        for engines in 1..=4 {
            let place = |agent: SavedAgent<'_>| agent.spread_over(engines);
            let (states, main) = whole().divide(engines, place).unwrap();
            assert_eq!(states.len(), engines);
            let joined = EngineState::join(states, main).unwrap();
            assert_eq!(
                format!("{joined:#?}"),
                format!("{:#?}", whole()),
                "{engines}"
            );
        }
    }

    #[test]
    fn each_engine_has_its_share() {
        let (states, main) = whole().divide(2, |agent| agent.spread_over(2)).unwrap();
        let [first, second] = &states[..] else {
            panic!("{states:?}");
        };
        assert_eq!(
            (main.counters.sent, main.counters.agents),
            (131 - 3, 42 - 3)
        );
        assert_eq!(main.counters.delivered, 32);
        for (state, sent, agents) in [(first, 1, 2), (second, 2, 1)] {
            let kernel = &state.kernel;
            assert_eq!(
                (kernel.counters.sent, kernel.counters.agents),
                (sent, agents)
            );
            assert_eq!(kernel.counters.delivered, 0);
            assert_eq!((state.next_index, kernel.others_listen), (9, true));
            assert_eq!((kernel.alarms_numbered, kernel.unread_lost), (20, 21));
            assert_eq!(kernel.heard, (vec![Topic::new("Word")], vec![]));
            assert_eq!(kernel.first_lost, [[1; 6]]);
            let none = Some(Digest::default());
            assert_eq!((kernel.digest, kernel.content), (none, none));
            assert_eq!(kernel.marks, Some(Marks::new(Covers::Contents)));
        }
        let mut adders = Adders::default();
        adders.insert(id(12), Adder::Agent(id(11), at(2)));
        let told = [first, second].map(|it| format!("{:?}", it.kernel.adders));
        let expected = [&Adders::default(), &adders].map(|it| format!("{it:?}"));
        assert_eq!(told, expected);
        // The first and the third agent are in one engine.
        let alarms = first
            .kernel
            .alarms
            .iter()
            .map(|it| (it.mail.slot, it.mail.marks));
        let here = [(Some(1), PERIODIC), (Some(0), REQUIRED)];
        assert_eq!(alarms.collect::<Vec<_>>(), here);
        let (states, _) = whole()
            .divide(2, |agent| usize::from(agent.index > 0))
            .unwrap();
        let alarms = states[0].kernel.alarms.iter();
        let alarms = alarms.map(|it| (it.mail.slot, it.mail.marks));
        let apart = [(None, PERIODIC | ELSEWHERE), (Some(0), REQUIRED)];
        assert_eq!(alarms.collect::<Vec<_>>(), apart);
    }
}
