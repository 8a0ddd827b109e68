//! Alarms on both paths: packed into the queue, and kept apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::alarm::AlarmFilter;
use crate::alarm_queue::{AlarmId, Lies};
use crate::engine::Engine;
use crate::message::{Import, Mail, MailKey, Message};
use crate::{Agent, AgentId, Receiver, SimDuration, SimTime, Topic};

struct Idle;

impl<M: Message> Agent<M> for Idle {}

/// A message that needs no drop.
#[derive(Clone, Debug)]
struct Number(u32);

impl Message for Number {
    fn topic(&self) -> Topic {
        Topic::new("Number")
    }
}

/// A message that counts how many there are of it.
#[derive(Debug)]
struct Counted(u32, Arc<AtomicIsize>);

impl Counted {
    fn new(number: u32, live: &Arc<AtomicIsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(number, Arc::clone(live))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.0, &self.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Message for Counted {
    fn topic(&self) -> Topic {
        Topic::new("Counted")
    }
}

const LOOKAHEAD: SimDuration = SimDuration::from_nanos(4);

fn id(number: u64) -> AgentId {
    AgentId::from(number)
}

fn to(number: u64) -> Receiver {
    Receiver::Agent(id(number))
}

fn at(nanos: u64) -> SimTime {
    SimTime::from_nanos(nanos)
}

/// An engine with the agents 1 and 2, in the slots 0 and 1; under a lookahead with neighbours.
fn engine<M: Message>(has_lookahead: bool) -> Engine<M> {
    let mut engine = Engine::new(0);
    if has_lookahead {
        engine.join_neighbours();
        engine.look_ahead(LOOKAHEAD);
    }
    for number in [1, 2] {
        engine.add(id(number), Box::new(Idle)).expect("a new agent");
    }
    engine
}

/// Sets an alarm of agent 1.
fn set<M: Message>(engine: &mut Engine<M>, time: u64, receiver: u64, body: M) -> AlarmId {
    engine
        .kernel
        .set_alarm(0, at(time), false, to(receiver), body)
}

/// Fires what is due at `time`, the next event; what agents 1 and 2 get of it.
fn fire<M: Message>(engine: &mut Engine<M>, time: u64) -> Vec<Mail<M>> {
    let kernel = &mut engine.kernel;
    assert_eq!(kernel.next_event(), Some(at(time)));
    kernel.now = at(time);
    kernel.fire(at(time));
    kernel.post();
    let mut mails = Vec::new();
    for slot in [0, 1] {
        mails.extend(std::iter::from_fn(|| kernel.take_first(slot)));
    }
    mails
}

/// The sequence numbers of the alarms that leave at `time`.
fn depart<M: Message>(engine: &mut Engine<M>, time: u64) -> Vec<u64> {
    assert_eq!(engine.next_event(), Some(at(time)));
    let mut sequences = Vec::new();
    engine.departures(at(time), |mail, due| {
        assert_eq!(due, at(time).saturating_add(LOOKAHEAD));
        assert!(mail.receiver_is_elsewhere);
        sequences.push(mail.key.sequence());
        true
    });
    sequences
}

/// How many pending alarms are packed, and how many are kept apart.
fn packed_and_apart<M: Message>(engine: &Engine<M>) -> (usize, usize) {
    let all = engine.kernel.alarms.iter();
    let packed = all.map(|(_, lies)| matches!(lies, Lies::Packed(..)));
    let (packed, apart): (Vec<_>, Vec<_>) = packed.partition(|packed| *packed);
    (packed.len(), apart.len())
}

fn arrive<M: Message>(engine: &mut Engine<M>, time: u64, sequence: u64, body: M) {
    let key = MailKey::of_agent(SimTime::ZERO, 7, sequence);
    let mail = Mail::new(id(9), to(2), body);
    engine.take_in(at(time), SimTime::ZERO, Import::from((key, mail)));
}

/// The last sequence number but one that can be packed.
const NEARLY: u64 = u32::MAX as u64 - 1;

#[test]
fn sequences_beyond_32_bits_keep_their_order_on_both_paths() {
    let mut engine = engine::<Number>(false);
    engine.kernel.slots[0].sequence = NEARLY;
    let ids = [0, 1, 2, 3, 4, 5].map(|number| set(&mut engine, 10, 2, Number(number)));
    assert_eq!(packed_and_apart(&engine), (2, 4));
    for cleared in [ids[1], ids[4]] {
        assert!(engine.kernel.clear_alarm(id(1), cleared));
        assert!(!engine.kernel.clear_alarm(id(1), cleared));
    }
    let fired = fire(&mut engine, 10);
    assert!(fired.iter().map(|mail| mail.body.0).eq([0, 2, 3, 5]));
    assert_eq!(engine.kernel.slots[0].sequence, NEARLY + 6);
}

#[test]
fn under_a_lookahead_sequences_beyond_32_bits_leave_and_arrive_in_order() {
    let mut engine = engine::<Number>(true);
    engine.kernel.slots[0].sequence = NEARLY;
    for number in 0..4 {
        set(&mut engine, 10, 9, Number(number));
    }
    assert_eq!(packed_and_apart(&engine), (0, 4));
    assert!(engine.has_alarms_elsewhere());
    for sequence in (NEARLY..NEARLY + 4).rev() {
        arrive(&mut engine, 10, sequence, Number(0));
    }
    assert_eq!(packed_and_apart(&engine), (0, 8));
    assert_eq!(
        depart(&mut engine, 6),
        [NEARLY, NEARLY + 1, NEARLY + 2, NEARLY + 3]
    );
    let fired = fire(&mut engine, 10);
    assert_eq!(fired.len(), 4);
    assert!(
        fired
            .iter()
            .all(|mail| mail.sender == id(9) && mail.receiver == to(2))
    );
    assert!(!engine.has_alarms_elsewhere());
    assert_eq!(engine.kernel.counters.alarms_fired, 4);
    assert_eq!(engine.kernel.next_event(), None);
}

#[test]
fn an_alarm_for_an_agent_elsewhere_is_cleared_and_listed_until_it_leaves() {
    for is_listed in [false, true] {
        let mut engine = engine::<Number>(true);
        let ids = [10, 10, 11].map(|time| set(&mut engine, time, 9, Number(0)));
        let list = |engine: &mut Engine<Number>| {
            let alarms = engine.kernel.list_alarms(Some(id(1)), AlarmFilter::all());
            let alarms = alarms.iter().map(|alarm| (alarm.time, alarm.receiver));
            alarms.collect::<Vec<_>>()
        };
        if is_listed {
            let all = [(at(10), to(9)), (at(10), to(9)), (at(11), to(9))];
            assert_eq!(list(&mut engine), all);
        }
        assert!(engine.kernel.clear_alarm(id(1), ids[0]));
        assert_eq!(depart(&mut engine, 6), [1]);
        assert!(!engine.kernel.clear_alarm(id(1), ids[1]), "it has left");
        assert!(engine.kernel.clear_alarm(id(1), ids[2]));
        assert!(depart(&mut engine, 7).is_empty());
        assert_eq!(list(&mut engine), [(at(10), to(9))]);
        assert!(fire(&mut engine, 10).is_empty());
        assert_eq!(engine.kernel.counters.alarms_fired, 1);
        assert_eq!(engine.kernel.alarms.len(), 0);
        assert!(!engine.has_alarms_elsewhere());
    }
}

#[test]
fn a_message_with_a_drop_is_dropped_once_whatever_becomes_of_its_alarm() {
    let live = Arc::new(AtomicIsize::new(0));
    let is_live = |expected| assert_eq!(live.load(Ordering::Relaxed), expected);
    for has_lookahead in [false, true] {
        let mut engine = engine::<Counted>(has_lookahead);
        let mut ids = Vec::new();
        for number in 0..9 {
            let receiver = 1 + u64::from(number % 3 == 0);
            ids.push(set(
                &mut engine,
                10 + u64::from(number),
                receiver,
                Counted::new(number, &live),
            ));
        }
        is_live(9);
        assert_eq!(packed_and_apart(&engine), (0, 9));
        for cleared in &ids[1..4] {
            assert!(engine.kernel.clear_alarm(id(1), *cleared));
        }
        is_live(6);
        let fired = fire(&mut engine, 10);
        assert_eq!(fired.len(), 1);
        is_live(6);
        drop(fired);
        is_live(5);
        assert_eq!(engine.kernel.list_alarms(None, AlarmFilter::all()).len(), 5);
        if has_lookahead {
            set(&mut engine, 16, 9, Counted::new(9, &live));
            arrive(&mut engine, 14, 0, Counted::new(10, &live));
            is_live(7);
            assert_eq!(depart(&mut engine, 12), [9]);
            assert_eq!(fire(&mut engine, 14).len(), 2);
            is_live(5);
        }
        // The rest goes with the engine.
        drop(engine);
        is_live(0);
    }
}

#[test]
fn mail_from_elsewhere_is_handed_over_with_its_sender_or_lost_with_its_receiver() {
    let mut engine = engine::<Number>(true);
    arrive(&mut engine, 5, 0, Number(7));
    arrive(&mut engine, 6, 1, Number(8));
    set(&mut engine, 5, 2, Number(6));
    assert_eq!(packed_and_apart(&engine), (1, 2));
    let fired = fire(&mut engine, 5);
    let got: Vec<_> = fired
        .iter()
        .map(|mail| (mail.sender, mail.body.0))
        .collect();
    assert_eq!(got, [(id(1), 6), (id(9), 7)]);
    engine.kernel.free_slot(1);
    assert!(fire(&mut engine, 6).is_empty());
    let counters = &engine.kernel.counters;
    assert_eq!((counters.undeliverable, counters.alarms_fired), (1, 1));
}
