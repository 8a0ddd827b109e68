//! How main takes in the reports of clusters: judges them, sends their mail where it belongs, and
//! notes what they tell.

use std::mem;

use maslite_core::internal::guard_model;
use maslite_core::{AgentId, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::checks::ReportContext;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Traffic;
use crate::coordination::state::UnderWay;
use crate::coordination::state::UnroutedMail;
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::links::codec;
use crate::protocol::layout;
use crate::protocol::wire::{
    self, BadBody, Destination, Events, MailFlaw, MailHead, Report, Task, ToMain, TraceLine,
};
use crate::stall::detector::MainState;

/// What is wrong with what main looks into.
enum Flaw {
    Impossible(MessageFault),
    /// A message of the model does not deserialise.
    Message(Box<BadBody>),
    /// Code of a message panicked.
    Panic(Box<maslite_core::Error>),
}

impl From<MessageFault> for Flaw {
    fn from(reason: MessageFault) -> Self {
        Self::Impossible(reason)
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Takes in one report. Its mail goes to where it belongs, as far as the sender knew; tells
    /// whether other clusters must hear of changed interest. An error of the cluster's own is
    /// noted.
    pub(crate) fn take_report(
        &mut self,
        place: usize,
        task: Task,
        is_last: bool,
    ) -> Result<bool, Error> {
        // The report is read where the link has it, so the link is lent meanwhile.
        let mut link = self.clusters.lend(place, self.standing.time)?;
        let received = if is_last {
            link.recv_last()
        } else {
            link.recv()
        };
        self.clusters
            .main_activity
            .set(MainState::Routing, self.standing.time);
        let result = match received {
            Ok(message) => self.read_report(place, task, message),
            Err(error) => Err(self.clusters.explain(place, error, self.standing.time)),
        };
        self.clusters.give_back(place, link);
        result
    }

    /// Takes in the bytes of one.
    pub(crate) fn read_report(
        &mut self,
        place: usize,
        task: Task,
        message: &[u8],
    ) -> Result<bool, Error> {
        let refuse = |reason: MessageFault, rounds: &Self| {
            let cluster = &rounds.clusters.list[place].name;
            reason.blame(cluster, rounds.standing.time, message)
        };
        let (mut report, before) = match wire::take_note(message) {
            Ok((ToMain::Report(report), before)) => (report, before),
            Ok((ToMain::Failed(fault), _)) => {
                let error = fault.blame(&self.clusters.list[place].name);
                let at = self.standing.before_the_superstep();
                self.note_failure(place, at, error);
                return Ok(false);
            }
            Ok((ToMain::Loaded(_) | ToMain::Bye(_), _)) => {
                return Err(refuse(MessageFault::Untimely, self));
            }
            Err(_) => return Err(refuse(MessageFault::Undecodable, self)),
        };
        let since = match task {
            Task::Window { .. } => self.since.get(place).copied(),
            _ => None,
        };
        let context = ReportContext {
            task,
            time: self.standing.time,
            lookahead: self.lookaheads.get(place).copied(),
            since: since.unwrap_or(SimTime::ZERO),
            before: self.standing.reports[place].as_ref(),
            clusters: self.clusters.list.len(),
        };
        let judged = context.judge(&report, before.len());
        if context.shows_progress(&report) {
            self.idle = 0;
        }
        let judged = judged.map_err(Flaw::from);
        let into = &mut *self.under_way;
        let mut look = || look_into(&context, &report, before, place, into);
        // The messages of mail to main are decoded here, which is code of the model.
        let brings_messages = report.batches.iter().any(|it| it.to == Destination::Main);
        let stands = (self.standing.time, self.standing.superstep);
        let looked = match judged {
            Ok(()) if brings_messages => guard_model(None, stands, look)
                .unwrap_or_else(|panic| Err(Flaw::Panic(Box::new(panic)))),
            judged => judged.and_then(|()| look()),
        };
        match looked {
            Ok(()) => {}
            Err(Flaw::Panic(source)) => {
                let cluster = self.clusters.list[place].name.clone();
                let source = *source;
                return Err(Error::Agent { cluster, source });
            }
            Err(Flaw::Impossible(reason)) => return Err(refuse(reason, self)),
            Err(Flaw::Message(bad)) => {
                return Err(Error::Decode {
                    cluster: self.clusters.list[place].name.clone(),
                    what: layout::describe_mail::<M>(&bad),
                    why: bad.why.to_string(),
                });
            }
        }
        let from = Traffic::place_of(place);
        for batch in &report.batches {
            match batch.to {
                Destination::Cluster(to) => {
                    let bytes = batch.take(before).expect("it was judged to be there");
                    self.relay(from, to, batch.mails, bytes, batch.earliest)?;
                }
                Destination::Main => {
                    let traffic = &mut self.routing.traffic;
                    traffic.count(from, Traffic::MAIN, batch.mails, batch.bytes as usize);
                }
                // It is counted when its cluster is known.
                Destination::Owner => {}
            }
        }
        let changed = !report.events.interest.is_empty();
        if !report.events.is_blank() {
            self.note_events(place, task, &mut report.events);
        }
        if task == Task::Answer {
            self.replies.push(mem::take(&mut report.events.reply));
        }
        let has_plans = report.awake || report.waiting || report.next_alarm.is_some();
        self.clusters
            .meter
            .take_report(place, report.busy, has_plans);
        self.standing.reports[place] = Some(report);
        if self.watched {
            self.clusters
                .show_cluster(place, self.standing, self.routing);
        }
        Ok(changed)
    }

    /// Notes what happens under few grants.
    fn note_events(&mut self, place: usize, task: Task, events: &mut Events) {
        for name in &events.names {
            let _ = AgentId::named(name);
        }
        let cluster = u32::try_from(place).unwrap_or(u32::MAX);
        let at_the_start = matches!(task, Task::Setup { .. }) && self.standing.supersteps == 0;
        for (pattern, begins, time) in &events.interest {
            let from = match self.lookaheads.get(place) {
                Some(lookahead) if !at_the_start => time.saturating_add(*lookahead),
                _ => SimTime::ZERO,
            };
            self.routing.note_interest(cluster, *pattern, *begins, from);
        }
        self.under_way.stops.extend(&events.stopped);
        let removals = events.removals.iter();
        let removals = removals.map(|removal| (*removal, place));
        self.under_way.removals.extend(removals);
        let lost = mem::take(&mut events.lost).into_iter();
        lost.for_each(|(key, lost)| self.standing.note_lost(key, lost));
        self.standing.heard.extend(events.heard.drain(..));
        self.standing.amnesias += events.amnesias;
        if !events.errors.is_empty() {
            let name = &self.clusters.list[place].name;
            let errors = mem::take(&mut events.errors);
            self.standing.note_errors(errors, name);
        }
        if let Some(failure) = events.failure.take() {
            let error = failure.fault.blame(&self.clusters.list[place].name);
            self.note_failure(place, failure.place, error);
        }
    }
}

/// Takes mail that main itself looks into, and the trace, out of a report.
fn look_into<M: WireMessage>(
    context: &ReportContext<'_>,
    report: &Report,
    before: &[u8],
    place: usize,
    into: &mut UnderWay<M>,
) -> Result<(), Flaw> {
    for batch in &report.batches {
        if matches!(batch.to, Destination::Cluster(_)) {
            continue;
        }
        let mut bytes = batch.take(before).map_err(|_| MessageFault::Batch)?;
        for _ in 0..batch.mails {
            if batch.to == Destination::Owner {
                let rest = bytes;
                let mail = wire::take_measured(&mut bytes).map_err(|_| MessageFault::Batch)?;
                let head = MailHead::take(&mut &mail[..]).map_err(|_| MessageFault::Batch)?;
                context.judge_arrival(head.arrives)?;
                let receiver = head.receiver.agent().ok_or(MessageFault::Receiver)?;
                into.unrouted.push(UnroutedMail {
                    arrives: head.arrives,
                    sender: place,
                    receiver,
                    bytes: rest[..rest.len() - bytes.len()].to_vec(),
                });
            } else {
                let (head, mail) = match wire::take_mail(&mut bytes) {
                    Ok((head, mail)) => (head, Ok(mail)),
                    Err(MailFlaw::Head) => return Err(MessageFault::Batch.into()),
                    Err(MailFlaw::Body(bad)) => (bad.head, Err(bad)),
                };
                context.judge_arrival(head.arrives)?;
                if head.receiver.agent() != Some(AgentId::MAIN) {
                    return Err(MessageFault::Receiver.into());
                }
                let mail = mail.map_err(Flaw::Message)?;
                into.main_mail.push((head.arrives, head.key, mail));
            }
        }
        if !bytes.is_empty() {
            return Err(MessageFault::Batch.into());
        }
    }
    let mut lines = report.take_trace(before).map_err(|_| MessageFault::Trace)?;
    while !lines.is_empty() {
        let line: TraceLine = codec::take(&mut lines).map_err(|_| MessageFault::Trace)?;
        into.lines.push(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use maslite_core::internal::MailKey;
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

    /// A message to main: what is said, and the bytes before it.
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

    /// The last report of the cluster, or one that follows it: with mail for another cluster, for
    /// main and for whoever owns its receiver, and a line of a trace.
    fn said(task: Task, follows: bool) -> Said {
        let arrives = match task {
            Task::Window { .. } => LATER.saturating_add(HOUR),
            _ => SimTime::ZERO,
        };
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
        for (to, bytes) in parts.iter().filter(|_| follows) {
            batches.push(Batch {
                to: *to,
                mails: 1,
                start: u32::try_from(before.len()).unwrap(),
                bytes: u32::try_from(bytes.len()).unwrap(),
                earliest: arrives,
            });
            before.extend(bytes);
        }
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

    #[test]
    fn every_impossible_report_is_refused_with_its_reason() {
        use MessageFault as Fault;
        type Change = fn(&mut Said);
        let changes: &[(Fault, Task, &str, Change)] = &[
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
                "mail to nobody before it can",
                |it| {
                    let early = mail(Receiver::Agent(AgentId::from(8)), LATER);
                    let start = it.report.batches[2].start as usize;
                    it.before[start..start + early.len()].copy_from_slice(&early);
                },
            ),
            (Fault::Trace, STEP, "longer than all", |it| {
                it.report.trace = u32::MAX;
            }),
            (Fault::Trace, STEP, "half a line", |it| it.report.trace = 2),
        ];
        for (reason, task, what, change) in changes {
            let mut said = said(*task, true);
            change(&mut said);
            let note = ToMain::Report(said.report);
            let got = take_in(*task, &message(&said.before, &note));
            assert_eq!(got, Some(*reason as u8), "{reason}: {what}");
        }
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
}
