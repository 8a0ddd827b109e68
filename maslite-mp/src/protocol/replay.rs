//! What main kept of what it told a cluster, as the cluster's next process is told it again.
//!
//! A record is a message of main, and before it what became of it. A replay is records, one behind
//! the other, and a note.
//!
//! ```text
//! │ length, u32 LE │ answered, u32 LE │ pass, u64 LE │ mark, u64 LE │ message of main │
//! ```
//!
//! The *pass* is that after which an interrupt ended the grant, 0 if none did: the one thing of a
//! cluster that does not follow from what main told it. The *mark* of an answer is a number by
//! which another answer is told from it.

use crate::protocol::wire::{Loaded, Report};

/// Bytes of a record before its message.
pub(crate) const RECORD_HEAD: usize = 24;

/// What became of a message of main.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It was answered.
    pub(crate) answered: bool,
    /// The pass after which an interrupt ended the grant.
    pub(crate) pass: u64,
    /// The mark of the answer.
    pub(crate) mark: u64,
}

impl Outcome {
    /// The beginning of the record of a message of this length \[bytes\].
    #[inline]
    pub(crate) fn head(self, length: usize) -> [u8; RECORD_HEAD] {
        // A link carries no longer messages.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut head = [0; RECORD_HEAD];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..8].copy_from_slice(&u32::from(self.answered).to_le_bytes());
        head[8..16].copy_from_slice(&self.pass.to_le_bytes());
        head[16..].copy_from_slice(&self.mark.to_le_bytes());
        head
    }
}

/// A message of main, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) message: &'a [u8],
}

/// Takes the first record off some; none if they do not begin with one.
pub(crate) fn take_record<'a>(records: &mut &'a [u8]) -> Option<Record<'a>> {
    let (length, rest) = records.split_first_chunk()?;
    let (answered, rest) = rest.split_first_chunk()?;
    let (pass, rest) = rest.split_first_chunk()?;
    let (mark, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (message, rest) = rest.split_at_checked(length)?;
    *records = rest;
    let outcome = Outcome {
        answered: u32::from_le_bytes(*answered) != 0,
        pass: u64::from_le_bytes(*pass),
        mark: u64::from_le_bytes(*mark),
    };
    Some(Record { outcome, message })
}

/// Numbers, each by a factor of its own.
#[derive(Debug)]
struct Mark {
    sum: u64,
    factor: u64,
}

impl Mark {
    fn new() -> Self {
        Self {
            sum: 0,
            factor: 0x9e37_79b9_7f4a_7c15,
        }
    }

    #[inline]
    fn add(&mut self, number: u64) {
        self.sum = self.sum.wrapping_add(number.wrapping_mul(self.factor));
        // Odd whenever it was odd, so that no difference of one number is lost.
        self.factor = self.factor.wrapping_mul(0xd134_2543_de82_ef95);
    }
}

/// The mark of a report: all of it that does not depend on wall time and is a number.
#[inline]
pub(crate) fn mark_of_report(report: &Report) -> u64 {
    let mut mark = Mark::new();
    let counters = &report.counters;
    // How mail is divided into batches depends on the room in the link.
    let mails = report.batches.iter().map(|batch| u64::from(batch.mails));
    for number in [
        report.time.as_nanos(),
        report.superstep,
        report.supersteps,
        report
            .next_alarm
            .map_or(0, |alarm| alarm.as_nanos().wrapping_add(1)),
        u64::from(report.awake) | u64::from(report.waiting) << 1,
        report.digest.unwrap_or_default(),
        report.content.unwrap_or_default(),
        counters.sent,
        counters.delivered,
        counters.undeliverable,
        counters.alarms_set,
        counters.agents,
        report.local,
        mails.sum(),
    ] {
        mark.add(number);
    }
    mark.sum
}

/// The mark of what calls made.
pub(crate) fn mark_of_loaded(loaded: &[Loaded]) -> u64 {
    let mut mark = Mark::new();
    for call in loaded {
        mark.add(call.ids.len() as u64);
        call.ids.iter().for_each(|id| mark.add(id.as_u64()));
    }
    mark.sum
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use maslite_core::{AgentId, SimTime};

    use super::*;
    use crate::protocol::wire::{Batch, Destination};

    #[test]
    fn each_number_of_a_report_is_in_its_mark() {
        let changes: [fn(&mut Report); 15] = [
            |it| it.time = SimTime::from_nanos(1),
            |it| it.superstep = 1,
            |it| it.supersteps = 1,
            |it| it.next_alarm = Some(SimTime::ZERO),
            |it| it.awake = true,
            |it| it.waiting = true,
            |it| it.digest = Some(1),
            |it| it.content = Some(1),
            |it| it.counters.sent = 1,
            |it| it.counters.delivered = 1,
            |it| it.counters.undeliverable = 1,
            |it| it.counters.alarms_set = 1,
            |it| it.counters.agents = 1,
            |it| it.local = 1,
            |it| {
                it.batches.push(Batch {
                    to: Destination::Main,
                    mails: 1,
                    bytes: 0,
                    start: 0,
                    earliest: SimTime::ZERO,
                });
            },
        ];
        let marks = changes.map(|change| {
            let mut report = Report::blank(SimTime::ZERO);
            change(&mut report);
            mark_of_report(&report)
        });
        let blank = mark_of_report(&Report::blank(SimTime::ZERO));
        let all: BTreeSet<u64> = marks.into_iter().chain([blank]).collect();
        assert_eq!(all.len(), 16);
    }

    #[test]
    fn the_ids_of_new_agents_are_in_the_mark_of_a_load() {
        let loaded = |ids: &[u64]| Loaded {
            ids: ids.iter().map(|id| AgentId::from(*id)).collect(),
            names: Vec::new(),
        };
        let calls = [
            vec![],
            vec![loaded(&[1])],
            vec![loaded(&[2])],
            vec![loaded(&[1]), loaded(&[])],
            vec![loaded(&[1, 2])],
            vec![loaded(&[1]), loaded(&[2])],
        ];
        let marks: BTreeSet<u64> = calls.iter().map(|it| mark_of_loaded(it)).collect();
        assert_eq!(marks.len(), 5, "a call that makes nothing changes nothing");
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let first = Outcome {
            answered: true,
            pass: 3,
            mark: 9,
        };
        let second = Outcome::default();
        let mut records = Vec::new();
        for (outcome, message) in [(first, &b"one"[..]), (second, b"")] {
            records.extend(outcome.head(message.len()));
            records.extend(message);
        }
        let mut rest = &records[..];
        let record = |outcome, message| Some(Record { outcome, message });
        assert_eq!(take_record(&mut rest), record(first, b"one"));
        assert_eq!(take_record(&mut rest), record(second, b""));
        assert_eq!(take_record(&mut rest), None);
        for cut in 1..RECORD_HEAD + 3 {
            assert_eq!(take_record(&mut &records[..cut]), None, "{cut}");
        }
    }
}
