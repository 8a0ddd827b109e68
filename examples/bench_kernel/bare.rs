//! Bare loops: the least work that gives the same deliveries in the same order, without a kernel.
//!
//! They look ids and subscriptions up as the kernel must, call agents through `dyn`, and keep
//! inboxes and a double buffer of mail. They count nothing, have no names, refuse nothing, and know
//! no removal, unread mail, limits, clocks or panics.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use rustc_hash::FxHashMap;

use crate::models::{
    Chance, END_OF_TIME, HOLDERS, Msg, PHOLD_EVENTS, PHOLD_LOOKAHEAD, PHOLD_MEAN, PHOLD_REMOTE,
    Skew, TIMEOUT,
};

#[derive(Clone, Copy)]
struct Mail {
    sender: u64,
    /// [`NOBODY`] for a broadcast.
    receiver: u64,
    body: Msg,
}

const NOBODY: u64 = u64::MAX;

trait Agent {
    fn receive(&mut self, own: u64, mail: &Mail, outbox: &mut Vec<Mail>);
}

/// What a pattern names: sender, receiver, topic, each or none.
type Key = (u64, u64, &'static str);

/// Agents that exchange mail.
pub(crate) struct World {
    agents: Vec<(u64, Box<dyn Agent>)>,
    slots: FxHashMap<u64, u32>,
    /// Subscribers by pattern; the number of a map tells in three bits what its patterns name.
    patterns: [FxHashMap<Key, Vec<u32>>; 8],
    inboxes: Vec<Vec<Mail>>,
    outbox: Vec<Mail>,
    awake: Vec<u32>,
    updating: Vec<u32>,
    bits: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            agents: Vec::new(),
            slots: FxHashMap::default(),
            patterns: Default::default(),
            inboxes: Vec::new(),
            outbox: Vec::new(),
            awake: Vec::new(),
            updating: Vec::new(),
            bits: Vec::new(),
        }
    }

    fn add(&mut self, id: u64, agent: impl Agent + 'static) -> u32 {
        let slot = u32::try_from(self.agents.len()).expect("fewer than 2^32 agents");
        self.agents.push((id, Box::new(agent)));
        self.slots.insert(id, slot);
        self.inboxes.push(Vec::new());
        slot
    }

    fn send(&mut self, sender: u64, receiver: u64, body: Msg) {
        self.outbox.push(Mail {
            sender,
            receiver,
            body,
        });
    }

    /// Runs this number of supersteps and tells how much mail was delivered in them.
    pub(crate) fn run(&mut self, supersteps: u64) -> u64 {
        let mut delivered = 0;
        for _ in 0..supersteps {
            self.post();
            delivered += self.update();
        }
        black_box(delivered)
    }

    fn post(&mut self) {
        for mail in &self.outbox {
            let mut deliver = |slot: u32| {
                let inbox = &mut self.inboxes[slot as usize];
                if inbox.is_empty() {
                    self.awake.push(slot);
                }
                inbox.push(*mail);
            };
            let mut owner = None;
            if mail.receiver != NOBODY
                && let Some(slot) = self.slots.get(&mail.receiver)
            {
                owner = Some(*slot);
                deliver(*slot);
            }
            for (kind, patterns) in self.patterns.iter().enumerate() {
                if patterns.is_empty() {
                    continue;
                }
                let topic = maslite_core::Message::topic(&mail.body).as_str();
                let key = (
                    if kind & 4 == 0 { 0 } else { mail.sender },
                    if kind & 2 == 0 { 0 } else { mail.receiver },
                    if kind & 1 == 0 { "" } else { topic },
                );
                for slot in patterns.get(&key).into_iter().flatten() {
                    if owner != Some(*slot) {
                        deliver(*slot);
                    }
                }
            }
        }
        self.outbox.clear();
    }

    fn update(&mut self) -> u64 {
        std::mem::swap(&mut self.awake, &mut self.updating);
        if self.updating.len() > 1 && !self.updating.is_sorted() {
            self.sort();
        }
        let mut delivered = 0;
        for slot in &self.updating {
            let (own, agent) = &mut self.agents[*slot as usize];
            let inbox = &mut self.inboxes[*slot as usize];
            for mail in inbox.iter() {
                agent.receive(*own, mail, &mut self.outbox);
            }
            delivered += inbox.len() as u64;
            inbox.clear();
        }
        self.updating.clear();
        delivered
    }

    fn sort(&mut self) {
        if self.updating.len() < 64 {
            self.updating.sort_unstable();
            return;
        }
        self.bits.resize(self.agents.len().div_ceil(64), 0);
        for slot in self.updating.drain(..) {
            self.bits[slot as usize / 64] |= 1 << (slot % 64);
        }
        for (word, bits) in (0_u32..).zip(&mut self.bits) {
            while *bits != 0 {
                self.updating.push(word * 64 + bits.trailing_zeros());
                *bits &= *bits - 1;
            }
        }
    }
}

struct Player {
    hits: u64,
}

impl Agent for Player {
    fn receive(&mut self, own: u64, mail: &Mail, outbox: &mut Vec<Mail>) {
        if let Msg::Ball(count) = mail.body {
            self.hits += 1;
            outbox.push(Mail {
                sender: own,
                receiver: mail.sender,
                body: Msg::Ball(count + 1),
            });
        }
    }
}

pub(crate) fn ping_pong() -> World {
    let mut world = World::new();
    for id in 0..2 {
        world.add(id, Player { hits: 0 });
    }
    world.send(0, 1, Msg::Ball(0));
    world
}

struct Hand {
    count: u64,
    next: Next,
}

enum Next {
    Is(u64),
    AnyBelow(u64, Chance),
}

impl Agent for Hand {
    fn receive(&mut self, own: u64, mail: &Mail, outbox: &mut Vec<Mail>) {
        if let Msg::Token(count) = mail.body {
            self.count += 1;
            let next = match &mut self.next {
                Next::Is(next) => *next,
                Next::AnyBelow(count, chance) => chance.below(*count),
            };
            outbox.push(Mail {
                sender: own,
                receiver: next,
                body: Msg::Token(count + 1),
            });
        }
    }
}

pub(crate) fn ring(agents: u64) -> World {
    let mut world = World::new();
    for id in 0..agents {
        let next = Next::Is((id + 1) % agents);
        world.add(id, Hand { count: 0, next });
        world.send(id, id, Msg::Token(0));
    }
    world
}

pub(crate) fn random_ten_awake(agents: u64) -> World {
    let mut world = World::new();
    for id in 0..agents {
        let next = Next::AnyBelow(agents, Chance(id));
        world.add(id, Hand { count: 0, next });
    }
    for which in 0..10 {
        world.send(which, which, Msg::Token(0));
    }
    world
}

struct Speaker;

impl Agent for Speaker {
    fn receive(&mut self, own: u64, _: &Mail, outbox: &mut Vec<Mail>) {
        outbox.push(Mail {
            sender: own,
            receiver: NOBODY,
            body: Msg::News(1),
        });
        outbox.push(Mail {
            sender: own,
            receiver: own,
            body: Msg::Again,
        });
    }
}

struct Listener {
    heard: u64,
}

impl Agent for Listener {
    fn receive(&mut self, _: u64, mail: &Mail, _: &mut Vec<Mail>) {
        if let Msg::News(count) = mail.body {
            self.heard += count;
        }
    }
}

pub(crate) fn fan_out(listeners: u64) -> World {
    let mut world = World::new();
    world.add(0, Speaker);
    for id in 1..=listeners {
        let slot = world.add(id, Listener { heard: 0 });
        let list = world.patterns[1].entry((0, 0, "News")).or_default();
        list.push(slot);
    }
    world.send(0, 0, Msg::Again);
    world
}

struct Sleeper {
    _state: u64,
}

impl Agent for Sleeper {
    fn receive(&mut self, _: u64, _: &Mail, _: &mut Vec<Mail>) {}
}

pub(crate) fn sleepers(agents: u64) -> World {
    let mut world = World::new();
    for id in 0..agents {
        world.add(id, Sleeper { _state: id });
    }
    world
}

pub(crate) fn woken_sleepers(agents: u64) -> World {
    let mut world = sleepers(agents);
    for id in 0..agents {
        world.send(id, id, Msg::Again);
    }
    world.run(2);
    world
}

trait Holder {
    /// The delay until its next alarm [ns].
    fn receive(&mut self, body: Msg) -> u64;
}

struct Held {
    fired: u64,
    chance: Chance,
}

impl Holder for Held {
    fn receive(&mut self, body: Msg) -> u64 {
        if let Msg::Due(_) = body {
            self.fired += 1;
        }
        self.chance.ahead()
    }
}

struct SkewedHeld {
    chance: Chance,
    skew: Skew,
}

impl Holder for SkewedHeld {
    fn receive(&mut self, _: Msg) -> u64 {
        self.skew.delay(&mut self.chance)
    }
}

/// The hold model on the standard library's heap, over a slab of events.
pub(crate) struct Hold {
    agents: Vec<Box<dyn Holder>>,
    /// When it is due, and its sequence and its place in the slab as one number.
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    slab: Vec<(u32, Msg)>,
    sequence: u64,
}

/// Bits for the place in the slab.
const PLACE: u32 = 24;

pub(crate) fn hold(pending: u64) -> Hold {
    let mut hold = Hold {
        agents: Vec::new(),
        heap: BinaryHeap::new(),
        slab: Vec::new(),
        sequence: 0,
    };
    for (agent, id) in (0_u32..).zip(0..HOLDERS) {
        let mut chance = Chance(id);
        for _ in 0..pending / HOLDERS {
            let place = hold.slab.len() as u64;
            hold.slab.push((agent, Msg::Due(0)));
            hold.heap
                .push(Reverse((chance.ahead(), hold.sequence << PLACE | place)));
            hold.sequence += 1;
        }
        hold.agents.push(Box::new(Held { fired: 0, chance }));
    }
    hold
}

impl Hold {
    /// Fires `events` alarms.
    pub(crate) fn run(&mut self, events: u64) -> u64 {
        for _ in 0..events {
            let Some(Reverse((time, key))) = self.heap.pop() else {
                break;
            };
            let place = key & ((1 << PLACE) - 1);
            let (agent, body) = &mut self.slab[usize::try_from(place).expect("below 2^24")];
            let delay = self.agents[*agent as usize].receive(*body);
            if let Msg::Due(count) = body {
                *count += 1;
            }
            self.heap.push(Reverse((
                time.saturating_add(delay),
                self.sequence << PLACE | place,
            )));
            self.sequence += 1;
        }
        black_box(events)
    }
}

/// The hold model with skewed delays.
pub(crate) fn skewed(skew: Skew, pending: u64) -> Hold {
    let mut hold = hold(0);
    hold.agents.clear();
    for (agent, id) in (0_u32..).zip(0..HOLDERS) {
        let mut chance = Chance(id);
        for _ in 0..pending / HOLDERS {
            let delay = skew.delay(&mut chance);
            hold.set(delay, agent);
        }
        if skew.has_last() {
            hold.set(END_OF_TIME, agent);
        }
        hold.agents.push(Box::new(SkewedHeld { chance, skew }));
    }
    hold
}

impl Hold {
    fn set(&mut self, time: u64, agent: u32) {
        let place = self.slab.len() as u64;
        self.slab.push((agent, Msg::Due(0)));
        self.heap
            .push(Reverse((time, self.sequence << PLACE | place)));
        self.sequence += 1;
    }
}

/// The hold model of agents that clear and set a timeout with every event: timeouts lie in the
/// order in which they were set, and those that were cleared are passed over.
pub(crate) struct Clearing {
    hold: Hold,
    /// The timeout of each agent that counts, and all that were set, with their times.
    current: Vec<u64>,
    timeouts: std::collections::VecDeque<(u64, u32, u64)>,
}

pub(crate) fn clearing(pending: u64) -> Clearing {
    Clearing {
        hold: hold(pending),
        current: HOLDERS_RANGE.map(|_| 0).collect(),
        timeouts: std::collections::VecDeque::new(),
    }
}

const HOLDERS_RANGE: std::ops::Range<u64> = 0..HOLDERS;

impl Clearing {
    /// Fires `events` alarms.
    pub(crate) fn run(&mut self, events: u64) -> u64 {
        for number in 0..events {
            let Some(&Reverse((time, key))) = self.hold.heap.peek() else {
                break;
            };
            let place = usize::try_from(key & ((1 << PLACE) - 1)).expect("below 2^24");
            let agent = self.hold.slab[place].0;
            while let Some(&(due, owner, timeout)) = self.timeouts.front()
                && (due <= time || self.current[owner as usize] != timeout)
            {
                self.timeouts.pop_front();
            }
            self.current[agent as usize] = time + number;
            self.timeouts
                .push_back((time + TIMEOUT, agent, time + number));
            self.hold.run(1);
        }
        black_box(events)
    }
}

#[derive(Clone, Copy)]
struct Event {
    /// [ns]
    time: u64,
    sequence: u64,
    agent: u32,
    count: u32,
}

trait PholdAgent {
    /// The delay [ns] and the receiver of the event that follows.
    fn receive(&mut self, own: u32, count: u32) -> (u64, u32);
}

struct Relay {
    agents: u64,
    chance: Chance,
    fired: u64,
}

impl PholdAgent for Relay {
    fn receive(&mut self, own: u32, count: u32) -> (u64, u32) {
        self.fired += u64::from(count > 0);
        let delay = PHOLD_LOOKAHEAD + self.chance.exponential(PHOLD_MEAN - PHOLD_LOOKAHEAD);
        let to = if self.chance.below(100) < PHOLD_REMOTE {
            u32::try_from(self.chance.below(self.agents)).expect("few agents")
        } else {
            own
        };
        (delay, to)
    }
}

/// PHOLD over buckets one lookahead wide, which are sorted when time reaches them: an event never
/// causes one in its own bucket.
pub(crate) struct Phold {
    agents: Vec<Box<dyn PholdAgent>>,
    buckets: Vec<Vec<Event>>,
    /// The bucket at hand, counted from the start of time.
    now: u64,
    sequence: u64,
}

/// Delays end at 32 means, which these buckets reach.
const BUCKETS: u64 = 512;

fn bucket(number: u64) -> usize {
    usize::try_from(number % BUCKETS).expect("few buckets")
}

pub(crate) fn phold(agents: u64) -> Phold {
    let mut phold = Phold {
        agents: Vec::new(),
        buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
        now: 0,
        sequence: 0,
    };
    for (own, id) in (0_u32..).zip(0..agents) {
        let (chance, fired) = (Chance(id), 0);
        let mut relay = Relay {
            agents,
            chance,
            fired,
        };
        for _ in 0..PHOLD_EVENTS {
            let (time, agent) = relay.receive(own, 0);
            phold.set(time, agent, 0);
        }
        phold.agents.push(Box::new(relay));
    }
    phold
}

impl Phold {
    fn set(&mut self, time: u64, agent: u32, count: u32) {
        let event = Event {
            time,
            sequence: self.sequence,
            agent,
            count,
        };
        self.sequence += 1;
        self.buckets[bucket(time / PHOLD_LOOKAHEAD)].push(event);
    }

    /// Fires at least `events` events, and tells how many.
    pub(crate) fn run(&mut self, events: u64) -> u64 {
        let mut fired = 0;
        while fired < events {
            let mut due = std::mem::take(&mut self.buckets[bucket(self.now)]);
            due.sort_unstable_by_key(|event| (event.time, event.sequence));
            for event in &due {
                let agent = &mut self.agents[event.agent as usize];
                let (delay, to) = agent.receive(event.agent, event.count);
                self.set(event.time + delay, to, event.count + 1);
                fired += 1;
            }
            due.clear();
            self.buckets[bucket(self.now)] = due;
            self.now += 1;
        }
        black_box(fired)
    }
}
