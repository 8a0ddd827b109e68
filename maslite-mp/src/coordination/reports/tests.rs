use maslite_core::{Counters, Receiver, Run, SimDuration, StopReason};
use serde::{Deserialize, Serialize};

use super::*;
use crate::coordination::clusters::Clusters;
use crate::coordination::routing::Routing;
use crate::coordination::state::Standing;
use crate::links::transport::{Draft, DraftBuffer};
use crate::protocol::rare::Rare;
use crate::protocol::wire::{Batch, Batches, Removal};

#[derive(Clone, Serialize, Deserialize, maslite_mp::Message)]
enum Msg {
    Hello,
}

const CLUSTERS: usize = 3;
const NOON: SimTime = SimTime::from_millis(12);
const LATER: SimTime = SimTime::from_millis(13);
const LATE: SimTime = SimTime::from_millis(14);
const HOUR: SimDuration = SimDuration::from_millis(1);

const STEP: Task = Task::SuperstepIfAwake;
const RUN_ALONE: Task = Task::RunAlone {
    horizon: Some(LATE),
    supersteps: 5,
    next_index: 9,
};
const WINDOW: Task = Task::Window {
    horizon: Some(LATE),
    others: Some(HOUR),
};

type Counter = fn(&mut Report) -> &mut u64;

/// What never shrinks.
const GROWING: [(&str, Counter); 13] = [
    ("sent", |it| &mut it.counters.sent),
    ("delivered", |it| &mut it.counters.delivered),
    ("undeliverable", |it| &mut it.counters.undeliverable),
    ("unheard", |it| &mut it.counters.unheard),
    ("supersteps", |it| &mut it.counters.supersteps),
    ("alarms set", |it| &mut it.counters.alarms_set),
    ("alarms fired", |it| &mut it.counters.alarms_fired),
    ("alarms cleared", |it| &mut it.counters.alarms_cleared),
    ("alarms late", |it| &mut it.counters.alarms_late),
    ("errors", |it| &mut it.counters.errors),
    ("held back", |it| &mut it.held_back),
    ("held back to main", |it| &mut it.held_back_to_main),
    ("local", |it| &mut it.local),
];

/// What may shrink.
const LEVELS: [(&str, Counter); 3] = [
    ("queued", |it| &mut it.counters.queued),
    ("alarms pending", |it| &mut it.counters.alarms_pending),
    ("agents", |it| &mut it.counters.agents),
];

/// A message to main: its report, and the bytes before the report.
struct Said {
    before: Vec<u8>,
    report: Report,
}

fn mail(receiver: Receiver, arrives: SimTime) -> Vec<u8> {
    let head = MailHead {
        key: MailKey::of_agent(NOON, 3, 9),
        sender: AgentId::from(4),
        receiver,
        arrives,
        left: arrives,
        is_copy: false,
    };
    let mut bytes = Vec::new();
    wire::put_mail(&head, &Msg::Hello, &mut bytes).unwrap();
    bytes
}

/// Three batches of one mail each: for another cluster, for main, and for the cluster that owns its
/// receiver; and their bytes.
fn batches(arrives: SimTime) -> (Vec<u8>, Batches) {
    let stranger = Receiver::Agent(AgentId::from(8));
    let parts = [
        (Destination::Cluster(1), mail(stranger, arrives)),
        (
            Destination::Main,
            mail(Receiver::Agent(AgentId::MAIN), arrives),
        ),
        (Destination::Owner, mail(stranger, arrives)),
    ];
    let (mut before, mut batches) = (Vec::new(), Batches::new());
    for (to, bytes) in parts {
        batches.push(Batch {
            to,
            mails: 1,
            start: u32::try_from(before.len()).unwrap(),
            bytes: u32::try_from(bytes.len()).unwrap(),
            earliest: arrives,
        });
        before.extend(bytes);
    }
    (before, batches)
}

/// The last report of the cluster, or one that follows it: with mail, and a line of a trace.
fn said(task: Task, follows: bool) -> Said {
    let arrives = match task {
        Task::Window { .. } => LATER.saturating_add(HOUR),
        _ => SimTime::ZERO,
    };
    let (mut before, batches) = match follows {
        true => batches(arrives),
        false => Default::default(),
    };
    let line = TraceLine {
        time: NOON,
        superstep: 0,
        index: 3,
        text: "hello".to_owned(),
    };
    let start = before.len();
    if follows {
        codec::put(&line, &mut before).unwrap();
    }
    let time = match task {
        Task::Window { .. } if follows => LATER,
        _ => NOON,
    };
    let mut report = Report {
        time,
        superstep: 1,
        supersteps: u64::from(follows),
        awake: true,
        waiting: true,
        next_alarm: Some(LATE),
        alarms_may_leave: false,
        kept_awake: false,
        ahead: Rare::default(),
        events: Rare::default(),
        counters: Counters::default(),
        held_back: 0,
        held_back_to_main: 0,
        busy: 5_000,
        awake_last: 2,
        local: 0,
        digest: Some(7),
        content: None,
        batches,
        trace: u32::try_from(before.len() - start).unwrap(),
    };
    let count = if follows { 20 } else { 10 };
    for (_, counter) in GROWING {
        *counter(&mut report) = count;
    }
    Said { before, report }
}

fn message(before: &[u8], note: &ToMain) -> Vec<u8> {
    let mut draft_buffer = DraftBuffer::default();
    let mut draft = Draft::in_buffer(&mut draft_buffer);
    draft.extend(before);
    wire::put_note(note, &mut draft).unwrap();
    draft_buffer.into_bytes()
}

/// Has main take in a message of cluster 0 under a grant: the number of the reason if it is
/// refused.
fn take_in(task: Task, message: &[u8]) -> Option<u8> {
    let mut clusters = Clusters::unmanned(CLUSTERS).unwrap();
    let (mut routing, mut standing) = (Routing::default(), Standing::default());
    for _ in 0..CLUSTERS {
        routing.add_cluster();
        let report = said(task, false).report;
        standing.reports.push(Some(report));
        standing.owed.push(None);
        standing.forecasts.push(Default::default());
    }
    standing.time = NOON;
    let mut under_way = UnderWay::<Msg>::default();
    let (mut trace, run) = (None, Run::until_idle());
    let mut rounds = Rounds::new(
        &mut clusters,
        &mut routing,
        &mut standing,
        &mut under_way,
        &mut trace,
        |_, _| {},
        run,
    );
    if matches!(task, Task::Window { .. }) {
        rounds.lookaheads = vec![HOUR; CLUSTERS];
        rounds.since = vec![LATER; CLUSTERS];
    }
    match rounds.read_report(0, task, message) {
        Ok(_) => {
            assert!(rounds.failure.is_none());
            assert_eq!(under_way.main_mail.len(), 1);
            assert_eq!(under_way.unrouted.len(), 1);
            assert_eq!(routing.inbound[1].mails, 1);
            None
        }
        Err(Error::Protocol {
            cluster,
            time,
            reason,
            tail,
        }) => {
            assert_eq!((&cluster[..], time), ("0", NOON));
            assert!(message.ends_with(&tail));
            assert_eq!(routing.inbound[1].mails, 0, "nothing of it is believed");
            Some(reason as u8)
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_a_right_cluster_may_say_is_taken_in() {
    for task in [
        STEP,
        Task::Superstep,
        Task::FireAndSuperstep,
        RUN_ALONE,
        WINDOW,
    ] {
        let Said { before, report } = said(task, true);
        let message = message(&before, &ToMain::Report(report));
        assert_eq!(take_in(task, &message), None, "{task:?}");
    }
}

/// What is wrong with a report, the grant that it answers, how it is wrong, and how it gets so.
type Impossible = (MessageFault, Task, &'static str, fn(&mut Said));

/// Has main take in every report, and compares the reasons for which it is refused.
fn assert_refused(reports: &[Impossible]) {
    for (reason, task, what, change) in reports {
        let mut said = said(*task, true);
        change(&mut said);
        let note = ToMain::Report(said.report);
        let got = take_in(*task, &message(&said.before, &note));
        assert_eq!(got, Some(*reason as u8), "{reason}: {what}");
    }
}

#[test]
fn a_report_of_an_impossible_time_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (
            Fault::TimeBack,
            RUN_ALONE,
            "before where main stands",
            |it| {
                it.report.time = SimTime::ZERO;
            },
        ),
        (Fault::TimeBack, WINDOW, "before its last report", |it| {
            it.report.time = SimTime::ZERO;
        }),
        (Fault::TimeBack, STEP, "an alarm that is past", |it| {
            it.report.next_alarm = Some(SimTime::ZERO);
        }),
        (Fault::TimeBack, WINDOW, "awake before the window", |it| {
            it.report.time = NOON;
        }),
        (
            Fault::TimeBack,
            WINDOW,
            "an alarm before the window",
            |it| {
                it.report.time = NOON;
                it.report.awake = false;
                it.report.next_alarm = Some(NOON);
            },
        ),
        (Fault::TimeBeyond, STEP, "time moves in a step", |it| {
            it.report.time = LATER;
        }),
        (Fault::TimeBeyond, RUN_ALONE, "up to the horizon", |it| {
            it.report.time = LATE;
        }),
        (Fault::TimeBeyond, WINDOW, "up to the horizon", |it| {
            it.report.time = LATE;
        }),
    ]);
}

#[test]
fn a_report_of_impossible_supersteps_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (Fault::Supersteps, STEP, "two in a step", |it| {
            it.report.supersteps = 2;
        }),
        (Fault::Supersteps, Task::Fire, "one where none is", |_| {}),
        (Fault::Supersteps, RUN_ALONE, "one too many", |it| {
            it.report.supersteps = 6;
        }),
        (Fault::Supersteps, WINDOW, "without bounds", |it| {
            it.report.supersteps = u64::MAX;
        }),
        (Fault::Supersteps, STEP, "an instant without bounds", |it| {
            it.report.superstep = u64::MAX;
        }),
    ]);
}

#[test]
fn a_report_with_impossible_batches_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (Fault::Cluster, STEP, "there are three", |it| {
            it.report.batches[0].to = Destination::Cluster(3);
        }),
        (Fault::Batch, STEP, "it begins too late", |it| {
            it.report.batches[2].start += 1;
        }),
        (Fault::Batch, STEP, "where no memory is", |it| {
            it.report.batches[0].start = u32::MAX;
        }),
        (Fault::Batch, STEP, "it is longer than all", |it| {
            it.report.batches[0].bytes = u32::MAX;
        }),
        (Fault::Batch, STEP, "twice the same bytes", |it| {
            it.report.batches.extend(it.report.batches.clone());
        }),
        (Fault::Batch, STEP, "no mail", |it| {
            it.report.batches[0].mails = 0;
        }),
        (Fault::Batch, STEP, "more mail than bytes", |it| {
            it.report.batches[0].mails = 2;
        }),
        (Fault::Batch, STEP, "no head", |it| {
            let start = it.report.batches[1].start as usize;
            it.before[start + 4] = 7;
        }),
        (Fault::Batch, STEP, "a length that is too long", |it| {
            let start = it.report.batches[2].start as usize;
            it.before[start] += 1;
        }),
        (Fault::Batch, STEP, "mail to main, and a rest", |it| {
            it.before.insert(it.report.batches[2].start as usize, 0);
            it.report.batches[1].bytes += 1;
            it.report.batches[2].start += 1;
        }),
    ]);
}

#[test]
fn a_report_with_mail_to_main_for_others_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (Fault::Receiver, STEP, "mail to main for another", |it| {
            it.report.batches[0].to = Destination::Main;
        }),
        (Fault::Receiver, STEP, "mail to main for all", |it| {
            let start = it.report.batches[1].start as usize;
            it.before[start + 4] = 2;
            // The bytes that named the receiver are now of the message, which has the right
            // length without them.
            it.before.drain(start + 4 + 33..start + 4 + 41);
            it.before[start] -= 8;
            it.report.batches[1].bytes -= 8;
            it.report.batches[2].start -= 8;
        }),
    ]);
}

#[test]
fn a_report_of_impossible_arrivals_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (Fault::Arrival, WINDOW, "a batch before it can", |it| {
            it.report.batches[0].earliest = LATER;
        }),
        (Fault::Arrival, STEP, "a batch with a time", |it| {
            it.report.batches[0].earliest = LATER;
        }),
        (Fault::Arrival, WINDOW, "a stop before it can", |it| {
            let stop = (LATER, 3, StopReason::Stopped);
            it.report.events.stopped.push(stop);
        }),
        (Fault::Arrival, WINDOW, "a removal before it can", |it| {
            let (id, by) = (AgentId::from(5), AgentId::from(4));
            let (index, time) = (0, LATER);
            it.report.events.removals.push(Removal {
                id,
                by,
                index,
                time,
            });
        }),
        (Fault::Arrival, WINDOW, "mail to main before it can", |it| {
            let early = mail(Receiver::Agent(AgentId::MAIN), LATER);
            let start = it.report.batches[1].start as usize;
            it.before[start..start + early.len()].copy_from_slice(&early);
        }),
        (
            Fault::Arrival,
            WINDOW,
            "mail to an unknown agent before it can",
            |it| {
                let early = mail(Receiver::Agent(AgentId::from(8)), LATER);
                let start = it.report.batches[2].start as usize;
                it.before[start..start + early.len()].copy_from_slice(&early);
            },
        ),
    ]);
}

#[test]
fn a_report_with_an_impossible_trace_is_refused() {
    use MessageFault as Fault;
    assert_refused(&[
        (Fault::Trace, STEP, "longer than all", |it| {
            it.report.trace = u32::MAX;
        }),
        (Fault::Trace, STEP, "half a line", |it| it.report.trace = 2),
    ]);
}

#[test]
fn counters_that_shrink_or_have_no_bounds_are_refused() {
    let shrinking = GROWING.map(|(name, counter)| (name, counter, 9));
    let all = GROWING.into_iter().chain(LEVELS);
    let endless = all.map(|(name, counter)| (name, counter, u64::MAX));
    for (name, counter, number) in shrinking.into_iter().chain(endless) {
        let Said { before, mut report } = said(STEP, true);
        *counter(&mut report) = number;
        let note = ToMain::Report(report);
        let got = take_in(STEP, &message(&before, &note));
        let expected = MessageFault::Counter as u8;
        assert_eq!(got, Some(expected), "{name} is {number}");
    }
}

#[test]
fn what_is_no_report_is_refused() {
    let Said { before, report } = said(STEP, true);
    let right = message(&before, &ToMain::Report(report));
    let cut = &right[..right.len() - 1];
    let refused = [
        (MessageFault::Undecodable, Vec::new()),
        (MessageFault::Undecodable, cut.to_vec()),
        (MessageFault::Untimely, message(&[], &ToMain::Bye(None))),
        (
            MessageFault::Untimely,
            message(&[], &ToMain::Loaded(Vec::new())),
        ),
    ];
    for (reason, message) in refused {
        assert_eq!(take_in(STEP, &message), Some(reason as u8), "{reason}");
    }
}
