//! Alarms on both paths: packed into the queue, and kept apart. A kernel as a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use super::Kernel;
use super::saved::{
    AheadState, AlarmState, DepartureState, KernelState, MailState, PeriodicState, SlotState,
};
use super::slots::{AWAKE, KEPT_AWAKE};
use crate::adders::Adders;
use crate::alarm::AlarmFilter;
use crate::alarm_queue::{AlarmId, Lies};
use crate::engine::Engine;
use crate::id_set::IdSet;
use crate::marks::{Covers, Marks};
use crate::message::{
    COPY, ELSEWHERE, FOREIGN, Import, LEFT, Mail, MailKey, Message, PERIODIC, REQUIRED, SETTLED,
};
use crate::{
    Adder, Agent, AgentError, AgentId, AgentRng, Counters, Digest, LostMail, Pattern, Receiver,
    SimDuration, SimTime, StopReason, Topic,
};

struct Idle;

impl<M: Message> Agent<M> for Idle {}

/// A message that needs no drop.
#[derive(Clone, Debug, serde::Serialize)]
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
        mails.extend(std::iter::from_fn(|| {
            kernel.take_first(slot).map(|(mail, _)| mail)
        }));
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
    assert_eq!(packed_and_apart(&engine), (2, 2));
    assert!(engine.has_alarms_elsewhere());
    for sequence in (NEARLY..NEARLY + 4).rev() {
        arrive(&mut engine, 10, sequence, Number(0));
    }
    assert_eq!(packed_and_apart(&engine), (4, 4));
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
        assert_eq!(packed_and_apart(&engine).1, if is_listed { 3 } else { 0 });
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
    assert_eq!(packed_and_apart(&engine), (3, 0));
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

/// Mail with these marks, and one for each of the numbers that tell it from others.
fn mail(number: u32, marks: u8, slot: Option<u32>) -> MailState<Number> {
    MailState {
        key: MailKey::of_agent(SimTime::from_nanos(3), 7, number.into()),
        sender: id(11),
        receiver: Receiver::Agent(id(12)),
        marks,
        slot,
        body: Number(number),
    }
}

fn slot_state(number: u64, flags: u8, inbox: Vec<u32>) -> SlotState {
    SlotState {
        id: id(number),
        index: number - 10,
        sequence: 40 + number,
        delivered: 50 + number,
        rng: Some(AgentRng::new(number, id(number))),
        flags,
        inbox,
        patterns: vec![(Pattern::topic("Word"), Some(SimTime::from_nanos(number)))],
    }
}

/// Alarms, periodic ones, and what is planned under a lookahead.
fn full_alarms() -> (Vec<AlarmState<Number>>, Vec<PeriodicState>, AheadState) {
    let at = SimTime::from_nanos;
    let alarm = |time, origin, mail| AlarmState {
        time: at(time),
        origin,
        mail,
    };
    let first = mail(61, PERIODIC, Some(1));
    let periodic = PeriodicState {
        setter: id(11),
        handle: 20,
        current: 61,
        period: SimDuration::from_nanos(9),
        due: at(7),
        receiver: Receiver::Agent(id(12)),
        topic: Topic::new("Number"),
    };
    let departure = DepartureState {
        time: at(5),
        setter: id(11),
        key: first.key,
    };
    let alarms = vec![
        alarm(6, 0, mail(60, LEFT | ELSEWHERE | REQUIRED, None)),
        alarm(7, 0, first),
        alarm(8, 1, mail(62, FOREIGN | COPY | REQUIRED, None)),
    ];
    let ahead = AheadState {
        departures: vec![departure],
        delays: vec![SimDuration::from_nanos(4)],
        dismissals: [(at(9), vec![id(12)])].into(),
    };
    (alarms, vec![periodic], ahead)
}

/// A state in which nothing is as in a new kernel. A field that is new belongs here, too.
fn full_state() -> KernelState<Number> {
    let at = SimTime::from_nanos;
    let word = Topic::new("Word");
    let mut removed = IdSet::default();
    removed.insert(id(5));
    let mut adders = Adders::default();
    adders.insert(id(12), Adder::Agent(id(11), at(2)));
    let mut marks = Marks::new(Covers::Contents);
    marks.add(at(2), 99);
    let (alarms, periodics, ahead) = full_alarms();
    KernelState {
        now: at(4),
        superstep: 3,
        others_listen: true,
        local: 21,
        slots: vec![
            slot_state(11, AWAKE, vec![0, 1]),
            slot_state(12, KEPT_AWAKE, vec![]),
        ],
        posted: vec![mail(1, 0, None), mail(2, PERIODIC, None)],
        outbox: vec![
            mail(3, LEFT | SETTLED, None),
            mail(4, REQUIRED | PERIODIC, Some(1)),
            mail(5, ELSEWHERE, None),
            mail(6, FOREIGN | COPY, None),
        ],
        unread: vec![(0, mail(7, PERIODIC, None))],
        unseen: true,
        removed,
        adders,
        heard: (vec![word], vec![word]),
        alarms,
        alarms_numbered: 64,
        periodics,
        ahead: Some(ahead),
        removals: vec![(id(70), id(11), 1)],
        changed_interest: vec![(Pattern::topic("Word"), true, at(4))],
        gone: vec![id(5)],
        main_listens: true,
        main_delivered: 22,
        main_sequence: 23,
        stopped_by: Some((1, StopReason::StoppedByAgent(id(11)))),
        lost: vec![([1; 6], LostMail::new(at(1), id(11), id(5), word))],
        first_lost: vec![[1; 6]],
        unread_lost: 24,
        errors: vec![AgentError {
            agent: id(11),
            index: 1,
            cluster: None,
            time: at(4),
            superstep: 2,
            message: "of mine".to_owned(),
        }],
        stop_at_error: true,
        counters: Counters::from_numbers([91, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        digest: Some(Digest::from(25)),
        content: Some(Digest::from(26)),
        marks: Some(marks),
    }
}

#[test]
fn a_kernel_that_is_restored_is_exported_as_it_was() {
    let mut engine = Engine::<Number>::new(1);
    engine.join_neighbours();
    engine.look_ahead(LOOKAHEAD);
    engine.keep_content_digest();
    let state = full_state();
    state.check().unwrap();
    engine.kernel.restore(state.clone());
    // Both lists follow from the flags of the slots.
    let Kernel {
        awake, kept_awake, ..
    } = &engine.kernel;
    assert_eq!((&awake[..], &kept_awake[..]), (&[0][..], &[1][..]));
    let mut again = engine.kernel.export();
    // Alarms get numbers of their own when they are set again.
    again.alarms_numbered -= state.alarms.len() as u64;
    assert_eq!(format!("{again:#?}"), format!("{state:#?}"));
}

#[test]
fn mail_that_comes_twice_is_handed_over_once_though_the_cluster_forgets_between_both() {
    for forgets in [false, true] {
        let mut engine = engine::<Number>(true);
        let twice = |is_copy| Import {
            key: MailKey::of_agent(SimTime::ZERO, 7, 0),
            mail: Mail::new(id(9), to(2), Number(7)),
            is_copy,
        };
        // The copy was for a subscriber that is gone when both are due.
        engine.take_in(at(5), SimTime::ZERO, twice(true));
        if forgets {
            let state = engine.kernel.export();
            engine.reset().expect("no agent panics when it is dropped");
            engine.kernel.restore(state);
        }
        // What is set for the bucket at hand comes before what is equal to it.
        assert_eq!(engine.next_event(), Some(at(5)));
        engine.take_in(at(5), SimTime::ZERO, twice(false));
        assert_eq!(packed_and_apart(&engine), (1, 1));
        assert_eq!(fire(&mut engine, 5).len(), 1);
        assert_eq!(engine.kernel.counters.sent, 1);
    }
}
