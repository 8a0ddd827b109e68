//! Shows other threads how far an engine has come, and which agent it calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::lock::LockEvenPoisoned;
use crate::{AgentId, Phase, SimTime};

/// Shows the position of a running engine to other threads. The cost is one plain store for each
/// call of an agent.
///
/// One thread writes, and any number of threads may read. The numbers are read one by one, so a
/// sample of a moving engine may mix two moments. In an engine that stands still, for instance in
/// an agent that does not return, all numbers are correct.
#[derive(Debug)]
// Nothing else shares its cache lines, two of which some processors fetch together. So a reader
// does not slow the writer down.
#[repr(align(128))]
pub struct Progress {
    time: AtomicU64,
    /// The superstep within the instant, the slot of the agent called last, and the phase of the
    /// current call (0 between calls). They share one word, because it is stored for every call.
    position: AtomicU64,
    /// The number of mails that agents had taken when time last moved.
    delivered: AtomicU64,
    /// How many agents were awake in the last superstep before that.
    awake: AtomicU64,
    /// How many requests have begun.
    requests: AtomicU64,
    /// The agent of each slot. It is locked to add an agent and to take a sample.
    agents: Mutex<Vec<AgentId>>,
}

/// A sample of a [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sample {
    /// The simulated time.
    pub time: SimTime,
    /// The superstep within that instant, modulo 2³².
    pub superstep: u64,
    /// The agent called last, if known.
    pub agent: Option<AgentId>,
    /// The method that this agent executes; none between calls. Two equal samples with a phase
    /// belong to the same call, because an agent is called once in a superstep, and requests are
    /// counted.
    pub phase: Option<Phase>,
    /// The number of mails that agents had taken when time last moved.
    pub delivered: u64,
    /// How many agents were awake in the last superstep before that.
    pub awake: u64,
    /// How many requests to agents have begun.
    pub requests: u64,
}

const UPDATE: u64 = 2;
const PHASE_BITS: u32 = 3;
const SLOT_BITS: u32 = 29;

/// Stands for no slot.
const NOBODY: u32 = (1 << SLOT_BITS) - 1;

impl Default for Progress {
    fn default() -> Self {
        Self {
            time: AtomicU64::new(0),
            position: AtomicU64::new(pack(0, NOBODY, 0)),
            delivered: AtomicU64::new(0),
            awake: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            agents: Mutex::default(),
        }
    }
}

impl Progress {
    /// Takes a sample. Any thread may call this.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let position = self.position.load(Ordering::Relaxed);
        Sample {
            time: SimTime::from_nanos(self.time.load(Ordering::Relaxed)),
            superstep: position >> (PHASE_BITS + SLOT_BITS),
            agent: self.agents().get(slot_of(position) as usize).copied(),
            phase: phase_of(position),
            delivered: self.delivered.load(Ordering::Relaxed),
            awake: self.awake.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    fn agents(&self) -> MutexGuard<'_, Vec<AgentId>> {
        self.agents.lock_even_poisoned()
    }

    /// Sets the agent of each slot.
    pub(crate) fn allocate_slots(&self, agents: impl Iterator<Item = AgentId>) {
        let mut known = self.agents();
        known.clear();
        known.extend(agents);
    }

    /// Appends an agent in the next slot.
    pub(crate) fn allocate_slot(&self, agent: AgentId) {
        self.agents().push(agent);
    }

    /// Returns the slot of the agent called last. Only the engine's thread may call this.
    pub(crate) fn at_work(&self) -> Option<(u32, Phase)> {
        let position = self.position.load(Ordering::Relaxed);
        Some((slot_of(position), phase_of(position)?))
    }

    #[inline]
    pub(crate) fn stand_at(&self, time: SimTime, superstep: u64) {
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.rest_at(superstep, NOBODY);
    }

    /// Stores the counters. The engine calls this when time moves, because calling it more often
    /// would cost too much.
    #[inline]
    pub(crate) fn count(&self, delivered: u64, awake: u64) {
        self.delivered.store(delivered, Ordering::Relaxed);
        self.awake.store(awake, Ordering::Relaxed);
    }

    /// Stores that no agent is at work, which superstep comes next, and which slot was called last.
    #[inline]
    pub(crate) fn rest_at(&self, superstep: u64, last: u32) {
        let position = pack(superstep, last, 0);
        self.position.store(position, Ordering::Relaxed);
    }

    /// The position of all updates in a superstep, but for the slot.
    #[inline]
    pub(crate) fn updates_in(superstep: u64) -> u64 {
        pack(superstep, 0, UPDATE)
    }

    /// Stores that the agent in `slot` is updated; `updates` is [`updates_in`](Self::updates_in)
    /// that superstep.
    #[inline]
    pub(crate) fn begin_update(&self, updates: u64, slot: u32) {
        let position = updates | pack(0, slot, 0);
        self.position.store(position, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn begin_call(&self, superstep: u64, slot: u32, phase: Phase) {
        let phase = match phase {
            Phase::Setup => 1,
            Phase::Update => UPDATE,
            Phase::Teardown => 3,
            Phase::Drop => 4,
            Phase::Request => 5,
            Phase::Restored => 6,
        };
        let position = pack(superstep, slot, phase);
        self.position.store(position, Ordering::Relaxed);
    }

    /// Stores that an agent answers a request, until the guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>, superstep: u64, slot: u32) -> RequestGuard {
        let before = self.position.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed) + 1;
        self.requests.store(requests, Ordering::Relaxed);
        self.begin_call(superstep, slot, Phase::Request);
        RequestGuard(Arc::clone(self), before)
    }
}

/// Takes the position back that stood before a request, also when the request panics.
#[derive(Debug)]
pub struct RequestGuard(Arc<Progress>, u64);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.position.store(self.1, Ordering::Relaxed);
    }
}

const fn pack(superstep: u64, slot: u32, phase: u64) -> u64 {
    superstep << (PHASE_BITS + SLOT_BITS) | ((slot & NOBODY) as u64) << PHASE_BITS | phase
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn slot_of(position: u64) -> u32 {
    (position as u32) >> PHASE_BITS
}

fn phase_of(position: u64) -> Option<Phase> {
    match position & ((1 << PHASE_BITS) - 1) {
        0 => None,
        1 => Some(Phase::Setup),
        2 => Some(Phase::Update),
        3 => Some(Phase::Teardown),
        4 => Some(Phase::Drop),
        6 => Some(Phase::Restored),
        _ => Some(Phase::Request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_where_the_engine_stands_and_who_is_at_work() {
        let progress = Progress::default();
        let fresh = progress.sample();
        assert_eq!((fresh.agent, fresh.phase), (None, None));

        let time = SimTime::from_secs(3);
        progress.allocate_slot(AgentId::from(0));
        progress.allocate_slot(AgentId::from(9));
        progress.stand_at(time, 7);
        progress.begin_call(7, 0, Phase::Setup);
        let (agent, phase) = (Some(AgentId::from(0)), Some(Phase::Setup));
        let mut seen = Sample {
            time,
            superstep: 7,
            agent,
            phase,
            delivered: 0,
            awake: 0,
            requests: 0,
        };
        assert_eq!(progress.sample(), seen);
        progress.begin_call(7, 0, Phase::Update);
        seen.phase = Some(Phase::Update);
        assert_eq!(progress.sample(), seen);
        progress.begin_call(7, 1, Phase::Teardown);
        (seen.agent, seen.phase) = (Some(AgentId::from(9)), Some(Phase::Teardown));
        assert_eq!(progress.sample(), seen);
        assert_eq!(progress.at_work(), Some((1, Phase::Teardown)));
        progress.rest_at(8, 1);
        (seen.superstep, seen.phase) = (8, None);
        assert_eq!(progress.sample(), seen);
        assert_eq!(progress.at_work(), None);
        let progress = Arc::new(progress);
        let request = progress.begin_request(8, 0);
        let mut answering = seen;
        (answering.agent, answering.phase) = (Some(AgentId::from(0)), Some(Phase::Request));
        answering.requests = 1;
        assert_eq!(progress.sample(), answering);
        drop(request);
        seen.requests = 1;
        assert_eq!(progress.sample(), seen);
        progress.count(20, 2);
        (seen.delivered, seen.awake) = (20, 2);
        assert_eq!(progress.sample(), seen);
    }
}
