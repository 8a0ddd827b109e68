//! How main takes in the reports of clusters: judges them, sends their mail where it belongs, and
//! notes what they tell.

use std::mem;

use maslite_core::internal::{MailKey, guard_model};
use maslite_core::{AgentId, Mail, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::checks::ReportContext;
use crate::coordination::forecasts::Forecasts;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Traffic;
use crate::coordination::state::UnderWay;
use crate::coordination::state::UnroutedMail;
use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::links::codec;
use crate::protocol::layout;
use crate::protocol::replay::mark_of_report;
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
        loop {
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
            let broken = match received {
                Ok(message) => {
                    let result = self.read_report(place, task, message);
                    self.clusters.give_back(place, link);
                    return result;
                }
                Err(error) => error,
            };
            self.clusters.give_back(place, link);
            self.clusters.recover(place, broken, self.standing.time)?;
        }
    }

    /// Takes in the bytes of one.
    pub(crate) fn read_report(
        &mut self,
        place: usize,
        task: Task,
        message: &[u8],
    ) -> Result<bool, Error> {
        let (mut report, before) = match wire::take_note(message) {
            Ok((ToMain::Report(report), before)) => (report, before),
            Ok((ToMain::Failed(fault), _)) => {
                let error = fault.blame(&self.clusters.list[place].name);
                let at = self.standing.before_the_superstep();
                self.note_failure(place, at, error);
                return Ok(false);
            }
            Ok(_) => {
                return Err(self.blame(place, MessageFault::Untimely.into(), message));
            }
            Err(_) => return Err(self.blame(place, MessageFault::Undecodable.into(), message)),
        };
        if self.clusters.list[place].remains.is_some() {
            self.add_remains(place, &mut report);
        }
        self.clusters.note_answer(
            place,
            report.events.interrupted_at,
            || match report.events.failure {
                // As in a replay.
                Some(_) => 0,
                None => mark_of_report(&report),
            },
            report.busy,
        );
        self.examine(place, task, &report, before)
            .map_err(|flaw| self.blame(place, flaw, message))?;
        let forecasts = match report.events.is_blank() {
            true => Ok(Forecasts::default()),
            false => Forecasts::read(mem::take(&mut report.events.forecasts), report.time),
        };
        let forecasts = forecasts.map_err(|flaw| self.blame(place, flaw.into(), message))?;
        self.pass_on(place, &report, before)?;
        self.keep_forecasts(place, &report.ahead, forecasts)?;
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
        self.standing.owed[place] = None;
        if let Some(first) = self.routing.inbound[place].first_forecast {
            self.expect(place, first);
        }
        if self.watched {
            self.clusters
                .show_cluster(place, self.standing, self.routing);
        }
        Ok(changed)
    }

    /// Judges a report, and takes the mail that main looks into and the trace out of it. Nothing of
    /// a report with a flaw is believed.
    #[inline]
    fn examine(
        &mut self,
        place: usize,
        task: Task,
        report: &Report,
        before: &[u8],
    ) -> Result<(), Flaw> {
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
        let judged = context.judge(report, before.len());
        if context.shows_progress(report) {
            self.idle = 0;
        }
        judged?;
        let into = &mut *self.under_way;
        let mut look = || look_into(&context, report, before, place, into);
        // The messages of mail to main are decoded here, which is code of the model.
        if report.batches.iter().any(|it| it.to == Destination::Main) {
            let stands = (self.standing.time, self.standing.superstep);
            return guard_model(None, stands, look)
                .unwrap_or_else(|panic| Err(Flaw::Panic(Box::new(panic))));
        }
        look()
    }

    /// The error of a cluster whose message has a flaw.
    fn blame(&self, place: usize, flaw: Flaw, message: &[u8]) -> Error {
        let cluster = &self.clusters.list[place].name;
        match flaw {
            Flaw::Impossible(reason) => reason.blame(cluster, self.standing.time, message),
            Flaw::Message(bad) => Error::Decode {
                cluster: cluster.clone(),
                what: layout::describe_mail::<M>(&bad),
                why: bad.why.to_string(),
            },
            Flaw::Panic(source) => Error::Agent {
                cluster: cluster.clone(),
                source: *source,
            },
        }
    }

    /// Sends the mail of a judged report to its clusters, and counts mail to main.
    #[inline]
    fn pass_on(&mut self, place: usize, report: &Report, before: &[u8]) -> Result<(), Error> {
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
        Ok(())
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
        self.standing.undone += events.undone;
        let begin = events.interest.iter().any(|(_, begins, _)| *begins);
        self.standing.withdraws |=
            events.forecasts_are_wrong || begin && self.standing.has_forecasts;
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
                let mail = take_unrouted(context, place, &mut bytes)?;
                into.unrouted.push(mail);
            } else {
                let mail = take_for_main(context, &mut bytes)?;
                into.main_mail.push(mail);
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

/// Takes one mail whose cluster main must find.
fn take_unrouted(
    context: &ReportContext<'_>,
    sender: usize,
    bytes: &mut &[u8],
) -> Result<UnroutedMail, Flaw> {
    let rest = *bytes;
    let mail = wire::take_measured(bytes).map_err(|_| MessageFault::Batch)?;
    let head = MailHead::take(&mut &mail[..]).map_err(|_| MessageFault::Batch)?;
    context.judge_arrival(head.arrives)?;
    let receiver = head.receiver.agent().ok_or(MessageFault::Receiver)?;
    Ok(UnroutedMail {
        arrives: head.arrives,
        sender,
        receiver,
        bytes: rest[..rest.len() - bytes.len()].to_vec(),
    })
}

/// Takes one mail to main, with the time at which it arrives.
fn take_for_main<M: WireMessage>(
    context: &ReportContext<'_>,
    bytes: &mut &[u8],
) -> Result<(SimTime, MailKey, Mail<M>), Flaw> {
    let (head, mail) = match wire::take_mail(bytes) {
        Ok((head, mail)) => (head, Ok(mail)),
        Err(MailFlaw::Head) => return Err(MessageFault::Batch.into()),
        Err(MailFlaw::Body(bad)) => (bad.head, Err(bad)),
    };
    context.judge_arrival(head.arrives)?;
    if head.receiver.agent() != Some(AgentId::MAIN) {
        return Err(MessageFault::Receiver.into());
    }
    let mail = mail.map_err(Flaw::Message)?;
    Ok((head.arrives, head.key, mail))
}

#[cfg(test)]
mod tests;
