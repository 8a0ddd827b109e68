use maslite_core::internal::{CountersInternals, MailKey};
use maslite_core::{Counters, Receiver, SimTime};
use serde::Serializer;

use super::note::END;
use super::report::FLAGS;
use super::*;
use crate::links::codec::Misread;
use crate::links::codec::{decode, put};
use crate::protocol::rare::Rare;

/// Begins well and cannot be encoded to its end.
struct Unfinished;

impl Serialize for Unfinished {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        7_u64.serialize(serializer)?;
        Err(serde::ser::Error::custom("unfinished"))
    }
}

#[test]
fn what_was_there_outlives_what_cannot_be_encoded() {
    let mut bytes = Vec::new();
    put(&(300_u64, "a text longer than a number"), &mut bytes).unwrap();
    let before = bytes.clone();
    assert!(put(&(1_u8, Unfinished), &mut bytes).is_err());
    assert_eq!(bytes, before);
    let (number, text): (u64, String) = decode(&bytes).unwrap();
    assert_eq!(
        (number, text.as_str()),
        (300, "a text longer than a number")
    );
}

/// Heads of all kinds.
fn heads() -> Vec<MailHead> {
    let key = MailKey::of_agent(SimTime::from_millis(3), 7, 1 << 40);
    let sender = AgentId::from(9);
    let mut heads = Vec::new();
    for receiver in [
        Receiver::Agent(AgentId::from(1)),
        Receiver::Direct(AgentId::MAIN),
        Receiver::Subscribers,
    ] {
        for (arrives, left, is_copy) in [(0, 0, false), (8, 5, false), (0, 0, true)] {
            let [arrives, left] = [arrives, left].map(SimTime::from_millis);
            heads.push(MailHead {
                key,
                sender,
                receiver,
                arrives,
                left,
                is_copy,
            });
        }
    }
    heads
}

#[test]
fn mail_comes_out_of_a_batch_as_it_went_in() {
    let heads = heads();
    let mut batch = Vec::new();
    for (head, body) in heads.iter().zip(100_u32..) {
        put_mail(head, &body, &mut batch).unwrap();
        assert!(put_mail(head, &Unfinished, &mut batch).is_err());
    }
    let mut rest = &batch[..];
    for (head, body) in heads.iter().zip(100_u32..) {
        assert_eq!(take_mail::<u32>(&mut &rest[..20]), Err(MailFlaw::Head));
        let mut space = [0; 100];
        let length = write_mail(head, &body, &mut space).unwrap();
        assert_eq!(space[..length], rest[..length]);
        assert!(write_mail(head, &body, &mut space[..length - 1]).is_err());
        let (taken, mail) = take_mail::<u32>(&mut rest).unwrap();
        assert_eq!((taken, mail.body), (*head, body));
    }
    assert!(rest.is_empty());
    assert!(MailHead::take(&mut &[3_u8; 64][..]).is_err());
    assert!(MailHead::take(&mut &[16_u8; 64][..]).is_err());
}

/// A message that reads fewer or more bytes than it wrote is found, and the mail behind it is what
/// it was.
#[test]
fn mail_that_reads_other_than_it_wrote_harms_no_other() {
    let [head, ..] = heads()[..] else {
        panic!("there are some")
    };
    let mut batch = Vec::new();
    for body in [1_u8, 2] {
        put_mail(&head, &(body, 7_u8), &mut batch).unwrap();
    }
    let mut rest = &batch[..];
    let bad = |why| {
        MailFlaw::Body(Box::new(BadBody {
            head,
            variant: Some(1),
            why,
        }))
    };
    let short = take_mail::<u8>(&mut rest);
    assert_eq!(short, Err(bad(Misread::LeftOver(1))));
    let (_, mail) = take_mail::<(u8, u8)>(&mut rest).unwrap();
    assert_eq!((mail.body, rest), ((2, 7), &[][..]));
    let mut rest = &batch[..];
    let long = take_mail::<(u8, u8, u8)>(&mut rest);
    assert_eq!(long, Err(bad(Misread::Refused(END))));
    assert!(take_mail::<(u8, u8)>(&mut rest).is_ok());
}

#[test]
fn a_copy_is_marked_where_its_head_says_so() {
    for head in heads() {
        let mut bytes = Vec::new();
        put_mail(&head, &1_u8, &mut bytes).unwrap();
        mark_copy(&mut bytes);
        let (taken, _) = take_mail::<u8>(&mut &bytes[..]).unwrap();
        let is_copy = true;
        assert_eq!(taken, MailHead { is_copy, ..head });
    }
}

#[test]
fn rare_news_take_a_byte_while_there_are_none() {
    let grant = |news| Grant {
        number: 1,
        time: SimTime::ZERO,
        superstep: 0,
        task: Task::SuperstepIfAwake,
        supersteps_per_instant: 1,
        news: Rare::from(news),
    };
    let encoded = |news| {
        let mut bytes = Vec::new();
        put(&grant(news), &mut bytes).unwrap();
        bytes
    };
    assert_eq!(encoded(News::default()).len(), 1 + 4 * 8 + 1 + 4 * 8 + 1);
    let routes = vec![(AgentId::from(7), 2)];
    let numbers = vec![9];
    let news = News {
        routes: routes.clone(),
        numbers: numbers.clone(),
        ..News::default()
    };
    let decoded: Grant = decode(&encoded(news)).unwrap();
    assert_eq!(
        (&decoded.news.routes, &decoded.news.numbers),
        (&routes, &numbers)
    );
}

/// A report with different numbers in all places; the first `flags` of its flags are raised.
fn report(flags: usize, busy: bool) -> Report {
    let is_raised = |flag| flag < flags;
    let event = SimTime::from_nanos(5);
    let batch = Batch {
        to: Destination::Cluster(6),
        mails: 7,
        start: 8,
        bytes: 9,
        earliest: SimTime::ZERO,
    };
    let events = Events {
        interrupted_at: u64::from(busy) * 7,
        removals: vec![Removal {
            id: AgentId::from(10),
            by: AgentId::from(11),
            index: 12,
            time: event,
        }],
        ..Events::default()
    };
    let some = Some(event).filter(|_| busy);
    Report {
        time: SimTime::from_nanos(u64::MAX),
        superstep: 1,
        supersteps: 2,
        awake: is_raised(0),
        waiting: is_raised(1),
        next_alarm: Some(SimTime::from_nanos(3)).filter(|_| is_raised(4)),
        alarms_may_leave: is_raised(2),
        kept_awake: is_raised(3),
        ahead: Rare::from(DoneAhead {
            instants: if busy { vec![(event, 13)] } else { Vec::new() },
            then: some,
            is_blocked: busy,
            kept: u64::from(busy),
        }),
        events: some.map_or_else(Rare::default, |_| events.into()),
        counters: Counters::from_numbers(std::array::from_fn(|number| 20 + number as u64)),
        held_back: 12,
        held_back_to_main: 5,
        busy: 13,
        awake_last: 14,
        local: 15,
        digest: Some(16).filter(|_| is_raised(5)),
        content: Some(18).filter(|_| is_raised(6)),
        batches: some.iter().map(|_| batch).collect(),
        trace: 17,
    }
}

#[test]
fn a_report_comes_out_as_it_went_in() {
    for flags in 0..=FLAGS as usize {
        for busy in [false, true] {
            let mut bytes = Vec::new();
            put(&report(flags, busy), &mut bytes).unwrap();
            let taken: Report = decode(&bytes).unwrap();
            assert_eq!(format!("{taken:?}"), format!("{:?}", report(flags, busy)));
            // As long as its numbers, and the lengths of what else there is.
            assert!(busy || bytes.len() == 1 + 13 * 8 + 1 + 13 * 8 + 3);
        }
    }
}

#[test]
fn a_task_comes_out_as_it_went_in() {
    let times = [
        None,
        Some(SimTime::ZERO),
        Some(SimTime::from_nanos(u64::MAX)),
    ];
    let windows = times.into_iter().flat_map(|horizon| {
        let others = [None, Some(SimDuration::ZERO), Some(SimDuration::MAX)];
        others.map(|others| Task::Window { horizon, others })
    });
    let alone = times.map(|horizon| Task::RunAlone {
        horizon,
        supersteps: u64::MAX,
        next_index: 7,
    });
    let tasks = [
        Task::Setup {
            stop_at_error: true,
        },
        Task::Setup {
            stop_at_error: false,
        },
        Task::Rematch,
        Task::Post,
        Task::Fire,
        Task::SuperstepIfAwake,
        Task::Superstep,
        Task::FireAndSuperstep,
        Task::Answer,
        Task::Withdraw,
    ];
    let ahead = times.map(|until| Task::Speculate {
        until,
        instants: u64::MAX,
        bytes: 9,
    });
    let tasks = tasks.into_iter().chain(alone).chain(windows).chain(ahead);
    for task in tasks {
        let numbers = task.to_numbers();
        assert_eq!(Task::from_numbers(numbers), Some(task));
        // A bit too much is no task, or another one.
        for bit in 0..64 {
            let mut wrong = numbers;
            wrong[0] ^= 1 << bit;
            assert_ne!(Task::from_numbers(wrong), Some(task), "{task:?}, bit {bit}");
        }
    }
    for nonsense in [[12, 0, 0, 0], [1, 2, 0, 0], [8, 5, 0, 0], [1 << 9, 0, 0, 0]] {
        assert_eq!(Task::from_numbers(nonsense), None, "{nonsense:?}");
    }
}

#[test]
fn what_no_report_says_is_refused() {
    let mut right = Vec::new();
    put(&report(2, true), &mut right).unwrap();
    let place = |number: usize, byte: usize| 1 + number * 8 + byte;
    for (place, what) in [
        (0, "another count of numbers"),
        (place(3, 0), "an eighth flag"),
        (place(3, 7), "a last flag"),
        (place(8, 4), "more agents than there can be"),
        (place(11, 7), "a trace longer than a message"),
        (place(13, 0), "another count of counters"),
    ] {
        let mut wrong = right.clone();
        wrong[place] ^= 1 << 7;
        assert!(decode::<Report>(&wrong).is_err(), "{what}");
    }
    for length in 0..right.len() {
        assert!(decode::<Report>(&right[..length]).is_err(), "{length}");
    }
    let _: Report = decode(&right).unwrap();
}
