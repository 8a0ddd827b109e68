//! A cluster that lies: what main gets of it is well formed, and not what it did.

use maslite_core::internal::Newborn;
use maslite_core::{AgentError, AgentId, Pattern, SimDuration, SimTime, StopReason};

use crate::error::link::LinkError;
use crate::links::codec;
use crate::links::transport::{Draft, DraftBuffer, Transport, Wait};
use crate::protocol::wire::{self, Batch, Destination, Events, Removal, Report, ToMain};

/// Which messages to main are lies, counted from 0 over all links; the number says what of it is
/// changed, and how.
pub(crate) type Lies = std::collections::BTreeMap<u64, u64>;

/// Main's end of a link. It asks for each message whether it is to be a lie.
pub(crate) struct Liar<A> {
    link: Box<dyn Transport>,
    ask: A,
    message: Vec<u8>,
}

impl<A: FnMut() -> Option<u64> + Send> Liar<A> {
    pub(crate) fn new(link: Box<dyn Transport>, ask: A) -> Self {
        let message = Vec::new();
        Self { link, ask, message }
    }
}

impl<A: FnMut() -> Option<u64> + Send> Transport for Liar<A> {
    fn draft(&mut self) -> Result<Draft<'_>, LinkError> {
        self.link.draft()
    }

    fn send(&mut self) -> Result<(), LinkError> {
        self.link.send()
    }

    fn recv(&mut self) -> Result<&[u8], LinkError> {
        let message = self.link.recv()?;
        match (self.ask)() {
            None => Ok(message),
            Some(number) => {
                self.message = distort(message, number);
                Ok(&self.message)
            }
        }
    }

    fn recv_to_answer(&mut self) -> Result<(&[u8], Draft<'_>), LinkError> {
        self.link.recv_to_answer()
    }

    fn wait_as(&mut self, wait: Wait) {
        self.link.wait_as(wait);
    }
}

/// The kinds of lies there are.
const KINDS: u64 = 40;

/// The one that the cluster says that it has something to do.
pub(crate) const AWAKE: u64 = 11;

/// Another message in place of one.
fn distort(message: &[u8], number: u64) -> Vec<u8> {
    let (kind, detail) = (number % KINDS, number / KINDS);
    let Ok((mut note, before)) = wire::take_note::<ToMain>(message) else {
        return message.to_vec();
    };
    let mut before = before.to_vec();
    match (kind, &mut note) {
        (0, _) => note = ToMain::Bye(None),
        (1, _) => note = ToMain::Loaded(Vec::new()),
        (2, _) => return message[..message.len() / 2].to_vec(),
        (3, _) => {
            if let Some(byte) = pick(&mut before, detail) {
                *byte ^= 1 << (detail % 8);
            }
        }
        (_, ToMain::Loaded(loaded)) if detail.is_multiple_of(2) => drop(loaded.pop()),
        (_, ToMain::Loaded(loaded)) => {
            for made in loaded {
                made.ids.push(AgentId::from(detail));
            }
        }
        (_, ToMain::Report(report)) => change(report, kind, detail),
        _ => {}
    }
    let mut draft_buffer = DraftBuffer::default();
    let mut draft = Draft::in_buffer(&mut draft_buffer);
    draft.extend(&before);
    wire::put_note(&note, &mut draft).unwrap();
    draft_buffer.into_bytes()
}

fn pick<T>(among: &mut [T], detail: u64) -> Option<&mut T> {
    let place = usize::try_from(detail % among.len().max(1) as u64);
    among.get_mut(place.unwrap_or(0))
}

/// A time that is wrong, or may be.
fn other_time(time: SimTime, detail: u64) -> SimTime {
    let step = SimDuration::from_millis(1);
    match detail % 4 {
        0 => SimTime::ZERO,
        1 => SimTime::MAX,
        2 => SimTime::from_nanos(time.as_nanos().saturating_sub(step.as_nanos())),
        _ => time.saturating_add(step),
    }
}

/// An error that agent 1 never reported. Only the kernel and a decoder can make one.
fn an_error(time: SimTime, index: u64) -> AgentError {
    let (agent, cluster, superstep) = (AgentId::from(1), None::<String>, index);
    let mut bytes = Vec::new();
    codec::put(&(agent, index, cluster, time, superstep, "no"), &mut bytes).unwrap();
    codec::decode(&bytes).unwrap()
}

/// A number that is too small or too large, or may be.
fn any_number(detail: u64) -> u64 {
    [0, 1, 2, u64::MAX / 2, u64::MAX][usize::try_from(detail % 5).unwrap_or(0)]
}

/// Makes a report say something else.
fn change(report: &mut Report, kind: u64, detail: u64) {
    let any = any_number(detail);
    let small = u32::try_from(any).unwrap_or(u32::MAX);
    let time = other_time(report.time, detail);
    match kind {
        4..7 => report.time = time,
        7 => report.superstep = any,
        8 => report.supersteps = any,
        9 | 10 => report.awake = !report.awake,
        AWAKE => report.awake = true,
        12 => report.waiting = !report.waiting,
        13 => report.next_alarm = None,
        14..17 => report.next_alarm = Some(time),
        17 => report.alarms_may_leave = !report.alarms_may_leave,
        18 => report.kept_awake = !report.kept_awake,
        19 => report.counters.sent = any,
        20 => report.counters.supersteps = any,
        21 => report.counters.queued = any,
        22 => report.held_back = any,
        23 => report.local = any,
        24 => {
            report.busy = any;
            report.awake_last = small;
        }
        25 => report.digest = None,
        26 => report.trace = small,
        27 => report.batches.clear(),
        28 => report.batches.extend(report.batches.clone()),
        29..35 => change_events(&mut report.events, kind, detail, time),
        _ => {
            if let Some(batch) = pick(&mut report.batches, detail / 8) {
                change_batch(batch, kind, detail, time);
            }
        }
    }
}

/// Makes a report tell of other events.
fn change_events(events: &mut Events, kind: u64, detail: u64, time: SimTime) {
    let any = any_number(detail);
    let small = u32::try_from(any).unwrap_or(u32::MAX);
    match kind {
        29 => events.stopped.push((time, any, StopReason::Stopped)),
        30 => {
            let (id, by) = (AgentId::from(detail % 40), AgentId::from(1));
            events.removals.push(Removal {
                id,
                by,
                index: any,
                time,
            });
        }
        31 => {
            let pattern = Pattern::sender(detail % 40);
            let change = (pattern, !detail.is_multiple_of(3), time);
            events.interest.push(change);
        }
        32 if detail.is_multiple_of(2) => events.newborn.clear(),
        32 => {
            let (id, by) = (AgentId::from(detail), AgentId::from(1));
            events.newborn.push(Newborn {
                id,
                adder: any,
                by,
                time,
                superstep: small.into(),
            });
        }
        33 => {
            let again = events.newborn.iter().map(|newborn| newborn.by);
            events.names = again.map(|id| id.to_string()).collect();
        }
        34 if detail.is_multiple_of(2) => events.reply.push(small.to_le_bytes()[0]),
        34 if detail.is_multiple_of(3) => events.amnesias = any,
        _ => events.errors.push(an_error(time, any)),
    }
}

/// Makes a batch another one.
fn change_batch(batch: &mut Batch, kind: u64, detail: u64, time: SimTime) {
    let any = any_number(detail);
    let small = u32::try_from(any).unwrap_or(u32::MAX);
    match kind {
        35 => batch.to = Destination::Cluster(small),
        36 => batch.to = [Destination::Main, Destination::Owner][usize::from(any > 1)],
        37 => batch.mails = small,
        38 => batch.earliest = time,
        _ if detail.is_multiple_of(2) => batch.start = small,
        _ => batch.bytes = small,
    }
}
