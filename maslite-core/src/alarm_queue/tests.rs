use proptest::prelude::*;

use super::*;

/// An alarm of a test, packed or kept apart.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Test {
    key: MailKey,
    setter: AgentId,
    required: bool,
}

impl Load for Test {
    fn key(&self) -> MailKey {
        self.key
    }

    fn setter(&self) -> AgentId {
        self.setter
    }

    fn is_required(&self) -> bool {
        self.required
    }
}

impl Pack for Test {
    fn key(&self) -> MailKey {
        self.key
    }

    fn is_required(&self) -> bool {
        self.required
    }
}

type Queue = AlarmQueue<Test, Test>;

fn load(set_at: u64, index: u64, sequence: u64) -> Test {
    Test {
        key: MailKey::of_agent(SimTime::from_nanos(set_at), index, sequence),
        setter: AgentId::from(index),
        required: sequence.is_multiple_of(3),
    }
}

fn set(queue: &mut Queue, time: u64, load: Test, is_packed: bool) -> AlarmId {
    let time = SimTime::from_nanos(time);
    if is_packed && queue.packs() {
        queue.set_packed(time, load.setter, load)
    } else {
        queue.set(Pending { time, load })
    }
}

fn fired(due: Due<Test, Test>) -> Test {
    match due {
        Due::Packed(load) | Due::Kept(load) => load,
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Sets `count` alarms at once.
    Set {
        delay: u64,
        spread: u64,
        count: u64,
        setter: u64,
        is_packed: bool,
    },
    /// Several instants.
    Fire(usize),
    Clear(usize),
    /// Every alarm whose number can be divided by this.
    ClearMany(usize),
    ClearSetter(u64),
    ListAll,
}

/// Delays that are hard on queues which divide time.
fn delays() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..4_u64,
        0..1_000_u64,
        0..1_000_000_000_u64,
        Just(1_000_000_000),
        1_000_000_000_000..1_000_001_000_000_u64,
        (1..1_000_u64).prop_map(|ticks| ticks * 1_000_000),
        Just(u64::MAX - 1),
        Just(u64::MAX),
        (0..63_u32).prop_map(|shift| 1 << shift),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let count = prop_oneof![8 => 1..4_u64, 1 => 1..600_u64];
    let spread = prop_oneof![Just(0), Just(1), 0..5_000_u64, 0..1_000_000_000_u64];
    let set = (delays(), spread, count, 0..5_u64, any::<bool>()).prop_map(
        |(delay, spread, count, setter, is_packed)| Act::Set {
            delay,
            spread,
            count,
            setter,
            is_packed,
        },
    );
    prop::collection::vec(
        prop_oneof![
            12 => set,
            8 => (1..20_usize).prop_map(Act::Fire),
            4 => (0..50_usize).prop_map(Act::Clear),
            1 => (1..4_usize).prop_map(Act::ClearMany),
            1 => (0..9_u64).prop_map(Act::ClearSetter),
            1 => Just(Act::ListAll),
        ],
        0..300,
    )
}

/// What a queue must do, as a list that is searched through.
#[derive(Default)]
struct Naive {
    held: Vec<(u64, Test, AlarmId)>,
}

impl Naive {
    fn sort(&mut self) {
        self.held.sort_by_key(|(time, load, _)| (*time, load.key));
    }

    fn loads(&mut self) -> Vec<Test> {
        self.sort();
        self.held.iter().map(|(_, load, _)| *load).collect()
    }
}

fn fire(queue: &mut Queue, naive: &mut Naive, now: &mut u64) -> Result<(), TestCaseError> {
    naive.sort();
    let time = naive.held.first().map(|first| first.0);
    prop_assert_eq!(queue.next_time().map(SimTime::as_nanos), time);
    let Some(time) = time else { return Ok(()) };
    *now = time;
    let due = naive.held.partition_point(|held| held.0 == time);
    for (_, load, _) in naive.held.drain(..due) {
        let next = queue.pop_due(SimTime::from_nanos(time));
        prop_assert_eq!(next.map(fired), Some(load));
    }
    prop_assert!(queue.pop_due(SimTime::from_nanos(time)).is_none());
    Ok(())
}

fn clear(queue: &mut Queue, held: &(u64, Test, AlarmId)) -> Result<(), TestCaseError> {
    let (_, load, id) = held;
    prop_assert!(
        !queue.clear(AgentId::from(99), *id, |load, _| load),
        "not the setter's"
    );
    prop_assert!(queue.clear(load.setter, *id, |load, _| load));
    prop_assert!(!queue.clear(load.setter, *id, |load, _| load));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
    #[test]
    fn fires_as_a_sorted_list_does(acts in acts()) {
        let mut queue = Queue::default();
        let mut naive = Naive::default();
        let (mut now, mut sequence) = (0_u64, 0_u64);
        for act in acts {
            match act {
                Act::Set { delay, spread, count, setter, is_packed } => {
                    for _ in 0..count {
                        sequence += 1;
                        let after = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (spread + 1);
                        let time = now.saturating_add(delay).saturating_add(after);
                        let load = load(now, setter, sequence);
                        let id = set(&mut queue, time, load, is_packed);
                        naive.held.push((time, load, id));
                    }
                }
                Act::Fire(times) => {
                    for _ in 0..times {
                        fire(&mut queue, &mut naive, &mut now)?;
                    }
                }
                Act::Clear(which) => {
                    if which < naive.held.len() {
                        clear(&mut queue, &naive.held.swap_remove(which))?;
                    }
                }
                Act::ClearMany(divisor) => {
                    let mut number = 0_usize;
                    let (gone, held) = std::mem::take(&mut naive.held).into_iter().partition(|_| {
                        number += 1;
                        number.is_multiple_of(divisor)
                    });
                    naive.held = held;
                    let gone: Vec<_> = gone;
                    for held in &gone {
                        clear(&mut queue, held)?;
                    }
                }
                Act::ClearSetter(setter) => {
                    let before = naive.held.len();
                    let setter = AgentId::from(setter);
                    naive.held.retain(|held| held.1.setter != setter);
                    let cleared = queue.clear_where(Some(setter), |load, _| load, |_| true);
                    prop_assert_eq!(cleared, before - naive.held.len());
                }
                Act::ListAll => {
                    let listed = queue.list(None, |load, _| load);
                    let listed: Vec<_> = listed.iter().map(|(id, alarm)| (*id, alarm.load)).collect();
                    naive.sort();
                    let expected: Vec<_> = naive.held.iter().map(|(_, load, id)| (*id, *load)).collect();
                    prop_assert_eq!(listed, expected);
                }
            }
            prop_assert_eq!(queue.len(), naive.held.len());
            let required = naive.held.iter().filter(|(_, load, _)| load.required);
            prop_assert_eq!(queue.required(), required.count());
        }
        let all = naive.loads();
        let listed: Vec<_> = queue.list(None, |load, _| load).iter().map(|(_, alarm)| alarm.load).collect();
        prop_assert_eq!(&listed, &all);
        while !naive.held.is_empty() {
            fire(&mut queue, &mut naive, &mut now)?;
        }
        prop_assert_eq!(queue.next_time(), None);
        prop_assert_eq!(queue.cleared, 0);
    }
}

/// SplitMix64. Source: Steele, Lea, Flood, OOPSLA 2014.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hold model with `pending` alarms, against the standard library's heap; one of ten is cleared
/// and set anew.
fn holds(pending: u64, events: u64, delay: fn(&mut u64) -> u64) {
    let mut queue = Queue::default();
    let mut heap = std::collections::BinaryHeap::new();
    let (mut state, mut sequence, mut now) = (1, 0, 0);
    let mut timeout: Option<(AlarmId, Test, u64)> = None;
    let mut gone = std::collections::BTreeSet::new();
    for _ in 0..pending {
        let (time, load) = (delay(&mut state), load(0, sequence % 7, sequence));
        set(&mut queue, time, load, !sequence.is_multiple_of(16));
        heap.push(std::cmp::Reverse((time, load.key)));
        sequence += 1;
    }
    for event in 0..events {
        let std::cmp::Reverse((time, key)) = heap.pop().unwrap();
        if gone.remove(&key) {
            continue;
        }
        if time > now || event == 0 {
            assert!(queue.pop_due(SimTime::from_nanos(now)).is_none() || event == 0);
            assert_eq!(queue.next_time(), Some(SimTime::from_nanos(time)));
            now = time;
        }
        // What is set for this very instant comes after all that was set before it.
        let due = queue.pop_due(SimTime::from_nanos(time)).map(fired).unwrap();
        assert_eq!(due.key, key, "event {event}");
        let (time, load) = (
            now.saturating_add(delay(&mut state)),
            load(now, sequence % 7, sequence),
        );
        let id = set(&mut queue, time, load, !sequence.is_multiple_of(16));
        heap.push(std::cmp::Reverse((time, load.key)));
        sequence += 1;
        if event % 10 == 0 {
            if let Some((id, load, due)) = timeout.take()
                && due > now
            {
                assert!(queue.clear(load.setter, id, |load, _| load));
                gone.insert(load.key);
            }
            timeout = Some((id, load, time));
        }
    }
}

#[test]
fn skewed_times_fire_in_order() {
    let (pending, events) = if cfg!(miri) {
        (300, 300)
    } else {
        (5_000, 40_000)
    };
    let delays: [fn(&mut u64) -> u64; 9] = [
        |state| 1 + (next(state) >> 33),
        |_| 1_000_000_000,
        |state| 1_000_000_000_000 + (next(state) >> 33),
        |state| 1 + (next(state) >> 54),
        |state| match next(state) {
            bits if bits.is_multiple_of(10) => 100_000_000_000 + (bits >> 33),
            bits => 1 + (bits >> 43),
        },
        |state| 1 << (next(state) >> 59),
        |state| 1_000_000_000 + (next(state) >> 54),
        |state| 1_000_000 * (1 + (next(state) >> 54)),
        |state| match next(state) {
            bits if bits.is_multiple_of(1_000) => 1 << 60,
            bits => 1 + (bits >> 43),
        },
    ];
    for delay in delays {
        holds(pending, events, delay);
        holds(100, events, delay);
    }
}

#[test]
#[cfg_attr(miri, ignore = "a million take hours there")]
fn a_million_at_one_time_and_more_set_for_it_meanwhile() {
    let mut queue = Queue::default();
    for sequence in 0..200_000 {
        set(&mut queue, 10, load(0, 1, sequence), true);
    }
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(10)));
    for sequence in 200_000..400_000 {
        set(&mut queue, 10, load(1, 0, sequence), true);
    }
    let fired = std::iter::from_fn(|| queue.pop_due(SimTime::from_nanos(10)).map(fired));
    assert!(fired.map(|load| load.key.sequence()).eq(0..400_000));
}

#[test]
#[cfg_attr(miri, ignore = "many take hours there")]
fn many_that_interleave_at_an_instant_at_hand_find_their_places() {
    let mut queue = Queue::default();
    // What is due first brings all of it to hand; then each round comes between the alarms of those
    // before it.
    set(&mut queue, 10, load(0, 0, 0), true);
    set(&mut queue, 20, load(0, 0, 1), true);
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(10)));
    for round in 0..20 {
        for index in 0..5_000 {
            set(&mut queue, 15, load(5, index, round), true);
        }
    }
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(10)));
    assert!(queue.pop_due(SimTime::from_nanos(10)).is_some());
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(15)));
    for index in 0..5_000 {
        for round in 0..20 {
            let due = queue.pop_due(SimTime::from_nanos(15)).map(fired);
            assert_eq!(due, Some(load(5, index, round)));
        }
    }
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(20)));
}

#[test]
fn clearing_everything_again_and_again_keeps_memory_bounded() {
    let mut queue = Queue::default();
    let rounds = if cfg!(miri) { 4 } else { 100 };
    for round in 0..rounds {
        let mut ids = Vec::new();
        for sequence in 0..2_000 {
            let load = load(0, round, sequence);
            ids.push(set(&mut queue, 1_000_000 + sequence, load, true));
        }
        let setter = AgentId::from(round);
        if round % 2 == 0 {
            assert!(
                ids.into_iter()
                    .all(|id| queue.clear(setter, id, |load, _| load))
            );
        } else {
            assert_eq!(
                queue.clear_where(Some(setter), |load, _| load, |_| true),
                2_000
            );
        }
    }
    assert_eq!(queue.len(), 0);
    let nodes = queue.states.len();
    assert!(nodes < 6_000, "{nodes} nodes");
    let places = queue.pool.iter_mut().count();
    assert!(places < 6_000, "{places} places");
    assert_eq!(queue.next_time(), None);
}

#[test]
fn alarms_that_come_and_go_before_a_late_one_take_no_more_room() {
    let mut queue = Queue::default();
    for sequence in 0..20 {
        set(
            &mut queue,
            1_000_000_000 + sequence,
            load(0, 1, sequence),
            true,
        );
    }
    let rounds = if cfg!(miri) { 200 } else { 100_000 };
    for sequence in 20..rounds {
        let now = sequence;
        // Five wait at any time, behind which and before which the others come.
        set(&mut queue, now + 5, load(now, 1, sequence), true);
        if sequence >= 25 {
            let time = queue.next_time().unwrap();
            assert_eq!(time, SimTime::from_nanos(now));
            assert!(queue.pop_due(time).is_some());
        }
    }
    let places = queue.pool.iter_mut().count();
    assert!(places <= 128, "{places} places");
}

#[test]
fn bursts_before_a_late_alarm_leave_no_rungs_behind() {
    let mut queue = Queue::default();
    set(&mut queue, u64::MAX - 1, load(0, 1, 0), true);
    let (mut sequence, mut now) = (1_u64, 0_u64);
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        for _ in 0..2_000 {
            let time = now + 1 + sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000;
            set(&mut queue, time, load(now, 1, sequence), true);
            sequence += 1;
        }
        while queue.len() > 1 {
            let time = queue.next_time().unwrap();
            assert!(time.as_nanos() > now);
            now = time.as_nanos();
            while queue.pop_due(time).is_some() {}
        }
        assert!(queue.rungs.len() <= 4, "{} rungs", queue.rungs.len());
    }
}

#[test]
fn alarms_are_packed_again_when_nobody_asks_for_a_while() {
    let mut queue = Queue::default();
    for sequence in 0..10 {
        set(&mut queue, sequence, load(0, 1, sequence), true);
    }
    assert_eq!(queue.list(Some(AgentId::from(1)), |load, _| load).len(), 10);
    assert!(!queue.packs());
    let mut sequence = 10;
    while !queue.packs() {
        let id = set(&mut queue, sequence, load(0, 1, sequence), true);
        assert!(queue.clear(AgentId::from(1), id, |load, _| load));
        sequence += 1;
        assert!(sequence < 20_000);
    }
    set(&mut queue, sequence, load(0, 1, sequence), true);
    let listed = queue.list(Some(AgentId::from(1)), |load, _| load);
    let listed = listed.iter().map(|(_, alarm)| alarm.load.key.sequence());
    assert!(listed.eq((0..10).chain([sequence])));
}

#[test]
fn a_handle_means_nothing_else_when_its_place_is_used_again() {
    let mut queue = Queue::default();
    let (one, two) = (AgentId::from(1), AgentId::from(2));
    let old = set(&mut queue, 5, load(0, 1, 0), true);
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(5)));
    assert!(queue.pop_due(SimTime::from_nanos(5)).is_some());
    let new = set(&mut queue, 7, load(5, 1, 1), true);
    assert!(!queue.clear(one, old, |load, _| load), "it fired");
    assert!(
        !queue.clear(two, new, |load, _| load),
        "another agent set it"
    );
    assert!(queue.clear(one, new, |load, _| load));
}

/// Each packed and kept apart in turn, due in the order in which they are set.
fn set_some(queue: &mut Queue, sequences: impl Iterator<Item = u64>) -> Vec<AlarmId> {
    let set = sequences.map(|sequence| {
        let time = 10 + sequence;
        set(queue, time, load(0, 1, sequence), sequence % 2 == 0)
    });
    set.collect()
}

#[test]
fn a_handle_that_was_saved_finds_its_alarm() {
    let setter = AgentId::from(1);
    let mut queue = Queue::default();
    let ids = set_some(&mut queue, 0..6);
    assert!(queue.pop_due(SimTime::from_nanos(10)).is_none(), "not yet");
    assert_eq!(queue.next_time(), Some(SimTime::from_nanos(10)));
    assert!(queue.pop_due(SimTime::from_nanos(10)).is_some());
    for (place, id) in ids.into_iter().enumerate() {
        let saved: AlarmId = postcard::from_bytes(&postcard::to_stdvec(&id).unwrap()).unwrap();
        assert_eq!(saved, id);
        assert!(!queue.clear(AgentId::from(2), saved, |load, _| load));
        let is_pending = place > 0;
        assert_eq!(queue.clear(setter, saved, |load, _| load), is_pending);
        assert!(
            !queue.clear(setter, saved, |load, _| load),
            "it was cleared"
        );
        assert!(!queue.clear(setter, id, |load, _| load), "it was cleared");
    }
    assert_eq!((queue.len(), queue.required()), (0, 0));
}

#[test]
fn a_handle_of_the_queue_before_clears_its_alarm_and_no_other() {
    let setter = AgentId::from(1);
    let mut before = Queue::default();
    let ids = set_some(&mut before, 0..6);
    let mut queue = Queue::default();
    queue.number_from(before.numbered());
    // They are set again in another order, so that each has the node of another; two have fired.
    set_some(&mut queue, (2..6).rev());
    for (sequence, id) in (0..).zip(ids) {
        assert_eq!(queue.clear(setter, id, |load, _| load), sequence >= 2);
        let left = queue.list(None, |load, _| load);
        let mut left: Vec<_> = left.iter().map(|(id, _)| id.sequence).collect();
        left.sort_unstable();
        assert!(left.into_iter().eq(2.max(sequence + 1)..6));
    }
}

#[test]
fn what_is_pending_is_shown_and_stays_as_it_is() {
    let mut queue = Queue::default();
    let ids = set_some(&mut queue, 0..40);
    assert!(queue.next_time().is_some(), "some are at hand now");
    for id in ids.iter().step_by(3) {
        assert!(queue.clear(AgentId::from(1), *id, |load, _| load));
    }
    let mut shown: Vec<_> = queue
        .iter()
        .map(|(time, lies)| {
            let (Lies::Packed(load, _) | Lies::Apart(load)) = lies;
            (time.as_nanos(), load.key.sequence())
        })
        .collect();
    shown.sort_unstable();
    let expected = (0..40).filter(|sequence| sequence % 3 > 0);
    assert!(shown.into_iter().eq(expected.map(|it| (10 + it, it))));
    assert!(queue.packs());
    assert_eq!(queue.numbered(), 40);
}
