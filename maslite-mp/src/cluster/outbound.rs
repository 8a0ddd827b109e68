//! Mail that leaves a cluster, in the message to main.
//!
//! The message to main begins with a section for each destination that gets mail. How long a
//! section must be is not known before its mail is encoded, so each is given a little more room
//! than its mail took last time. What has no room in its section, or all of it where the link has
//! no space of its own, is encoded into a buffer and copied behind the sections.
//!
//! ```text
//! │ section of cluster 2 ┆ room │ section of main ┆ room │ rest for cluster 2 │ trace │ note │
//! ```
//!
//! **Invariant:** a destination's mail is in the order in which it was handed out: first the
//! section, then the rest.

use maslite_core::SimTime;
use serde::Serialize;

use crate::links::transport::Draft;
use crate::protocol::wire::{self, Batch, Batches, Destination, MailHead};

/// The least room that a section begins with [bytes]: for a mail with a short message.
const LEAST: usize = 64;

/// The most room that is added to what was needed last time [bytes].
const SPARE: usize = 16 * 1024;

/// All mail that leaves in one message.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// For main, for unknown owners, and for each cluster.
    outs: Vec<Out>,
}

/// Mail for one destination.
#[derive(Debug)]
struct Out {
    to: Destination,
    /// Where its section in the message begins, the mail in it ends, and its room does.
    start: usize,
    end: usize,
    limit: usize,
    /// Mails in the section, and behind it.
    mails: [u32; 2],
    /// What has no room in the section; kept for its memory.
    rest: Vec<u8>,
    /// When the first of it arrives.
    earliest: SimTime,
    /// How long a section is to be: some more than what was needed last time.
    expected: usize,
}

/// Where a mail has been encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded {
    place: usize,
    /// In the message, or else in the rest.
    in_section: bool,
    start: usize,
    end: usize,
}

const TO_MAIN: usize = 0;
const TO_OWNER: usize = 1;
const TO_CLUSTERS: usize = 2;

impl Default for Outbound {
    fn default() -> Self {
        Self {
            outs: vec![Out::new(Destination::Main), Out::new(Destination::Owner)],
        }
    }
}

impl Outbound {
    /// Where in `outs` the mail for a destination is.
    fn place_of(&mut self, to: Destination) -> usize {
        let place = match to {
            Destination::Main => TO_MAIN,
            Destination::Owner => TO_OWNER,
            Destination::Cluster(cluster) => TO_CLUSTERS + cluster as usize,
        };
        while self.outs.len() <= place {
            let cluster = number(self.outs.len() - TO_CLUSTERS);
            self.outs.push(Out::new(Destination::Cluster(cluster)));
        }
        place
    }

    /// Begins a message: forgets what was in the one before but for its length.
    pub(crate) fn begin(&mut self) {
        self.outs.iter_mut().for_each(Out::begin);
    }

    /// Encodes mail for a destination. Tells where it is, for [`copy`](Self::copy).
    ///
    /// # Errors
    /// When the message cannot be encoded; there is then no trace of it.
    #[inline]
    pub(crate) fn encode<M: Serialize>(
        &mut self,
        to: Destination,
        head: &MailHead,
        body: &M,
        draft: &mut Draft<'_>,
    ) -> postcard::Result<Encoded> {
        let place = self.place_of(to);
        let out = &mut self.outs[place];
        if let Ok(length) = wire::write_mail(head, body, out.room(draft)) {
            let start = out.end;
            out.end += length;
            out.count(0, head.arrives);
            return Ok(Encoded {
                place,
                in_section: true,
                start,
                end: out.end,
            });
        }
        // Either it has no room or it cannot be encoded at all: that shows now.
        let start = out.rest.len();
        wire::put_mail(head, body, &mut out.rest)?;
        let end = out.rest.len();
        out.count(1, head.arrives);
        Ok(Encoded {
            place,
            in_section: false,
            start,
            end,
        })
    }

    /// The message of mail that has been encoded.
    #[inline]
    pub(crate) fn body<'a>(
        &'a self,
        encoded: Encoded,
        head: &MailHead,
        draft: &'a mut Draft<'_>,
    ) -> &'a [u8] {
        let bytes = match encoded.in_section {
            true => draft.bytes(),
            false => &self.outs[encoded.place].rest[..],
        };
        &bytes[encoded.start + head.length()..encoded.end]
    }

    /// Hands mail that has been encoded to another cluster as well, whose agents listen to it.
    pub(crate) fn copy(
        &mut self,
        from: Encoded,
        cluster: u32,
        arrives: SimTime,
        draft: &mut Draft<'_>,
    ) {
        let Encoded {
            place,
            in_section,
            start,
            end,
        } = from;
        let length = end - start;
        let to = self.place_of(Destination::Cluster(cluster));
        let Ok([from, out]) = self.outs.get_disjoint_mut([place, to]) else {
            return;
        };
        if out.room(draft).len() >= length {
            let bytes = draft.bytes();
            if in_section {
                bytes.copy_within(start..end, out.end);
            } else {
                bytes[out.end..out.end + length].copy_from_slice(&from.rest[start..end]);
            }
            wire::mark_copy(&mut bytes[out.end..]);
            out.end += length;
            out.count(0, arrives);
            return;
        }
        let copy = out.rest.len();
        out.rest.extend_from_slice(if in_section {
            &draft.bytes()[start..end]
        } else {
            &from.rest[start..end]
        });
        wire::mark_copy(&mut out.rest[copy..]);
        out.count(1, arrives);
    }

    /// Appends what has no room in its section, and tells where all mail is in the message.
    pub(crate) fn finish(&mut self, draft: &mut Draft<'_>) -> Batches {
        let mut batches = Batches::new();
        for out in &self.outs {
            let rest = draft.len();
            draft.extend(&out.rest);
            let parts = [(out.start, out.end - out.start), (rest, out.rest.len())];
            for ((start, length), mails) in parts.into_iter().zip(out.mails) {
                if mails > 0 {
                    batches.push(Batch {
                        to: out.to,
                        mails,
                        start: number(start),
                        bytes: number(length),
                        earliest: out.earliest,
                    });
                }
            }
        }
        batches
    }
}

impl Out {
    fn new(to: Destination) -> Self {
        Self {
            to,
            start: 0,
            end: 0,
            limit: 0,
            mails: [0; 2],
            rest: Vec::new(),
            earliest: SimTime::MAX,
            expected: LEAST,
        }
    }

    fn begin(&mut self) {
        if self.mails != [0; 2] {
            let length = self.end - self.start + self.rest.len();
            self.expected = (length + (length / 4).min(SPARE)).max(LEAST);
        }
        (self.start, self.end, self.limit) = (0, 0, 0);
        self.mails = [0; 2];
        self.rest.clear();
        self.earliest = SimTime::MAX;
    }

    /// The room that is left in its section, which begins with its first mail. None once something
    /// had no room.
    #[inline]
    fn room<'d>(&mut self, draft: &'d mut Draft<'_>) -> &'d mut [u8] {
        if self.mails == [0; 2] {
            let section = draft.reserve(self.expected);
            (self.start, self.end, self.limit) = (section.start, section.start, section.end);
        }
        if self.mails[1] > 0 {
            return &mut [];
        }
        &mut draft.bytes()[self.end..self.limit]
    }

    /// Counts a mail, in the section or behind it.
    #[inline]
    fn count(&mut self, part: usize, arrives: SimTime) {
        self.mails[part] += 1;
        self.earliest = self.earliest.min(arrives);
    }
}

/// A number of things that are far fewer than 2³²: a link carries no longer messages.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use maslite_core::internal::MailKey;
    use maslite_core::{AgentId, Receiver};
    use serde::Serializer;

    use super::*;
    use crate::links::transport::DraftBuffer;

    const MAIN: Destination = Destination::Main;
    const OWNER: Destination = Destination::Owner;
    const TWO: Destination = Destination::Cluster(2);
    const FIVE: Destination = Destination::Cluster(5);

    fn head(sequence: u64) -> MailHead {
        MailHead {
            key: MailKey::of_agent(SimTime::ZERO, 7, sequence),
            sender: AgentId::from(9),
            receiver: Receiver::Agent(AgentId::from(1)),
            arrives: SimTime::from_nanos(1_000 - sequence),
            left: SimTime::ZERO,
            is_copy: false,
        }
    }

    struct Unspeakable;

    impl Serialize for Unspeakable {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            7_u64.serialize(serializer)?;
            Err(serde::ser::Error::custom("words fail"))
        }
    }

    /// Writes `mails` mails with a text, for each destination in turn; every third one also for
    /// cluster 5.
    fn hand_out(outbound: &mut Outbound, draft: &mut Draft<'_>, mails: u64, text: &str) {
        outbound.begin();
        for number in 0..mails {
            let head = head(number);
            for to in [TWO, MAIN, OWNER] {
                let body = (number, text);
                let encoded = outbound.encode(to, &head, &body, draft).unwrap();
                if number % 3 == 0 {
                    outbound.copy(encoded, 5, head.arrives, draft);
                }
                let failed = outbound.encode(to, &head, &Unspeakable, draft);
                failed.expect_err("it cannot be said");
            }
        }
    }

    /// What arrives at a destination, and how much of it was not encoded in its place.
    fn arrivals(
        batches: &[Batch],
        to: Destination,
        message: &[u8],
        text: &str,
    ) -> (Vec<u64>, Vec<u32>) {
        let mut numbers = Vec::new();
        let batches: Vec<_> = batches.iter().filter(|batch| batch.to == to).collect();
        for batch in &batches {
            let mut mails = batch.take(message).unwrap();
            let before = numbers.len();
            while !mails.is_empty() {
                let (taken, mail) = wire::take_mail::<(u64, String)>(&mut mails).unwrap();
                let expected = MailHead {
                    is_copy: to == FIVE,
                    ..head(mail.body.0)
                };
                assert_eq!((taken, &*mail.body.1), (expected, text));
                numbers.push(mail.body.0);
            }
            assert_eq!(batch.mails, number(numbers.len() - before));
        }
        (numbers, batches.iter().map(|batch| batch.bytes).collect())
    }

    #[test]
    fn mail_is_where_it_was_encoded_once_its_length_is_known() {
        for (space, in_place) in [(256 * 1024, true), (3_000, false), (0, false)] {
            let mut space = vec![0; space];
            let mut draft_buffer = DraftBuffer::default();
            let mut outbound = Outbound::default();
            let text = "a text that takes some room";
            for (round, mails) in [(0, 10), (1, 11), (2, 3), (3, 200), (4, 200)] {
                draft_buffer.clear();
                let mut draft = Draft::within(&mut space, &mut draft_buffer);
                hand_out(&mut outbound, &mut draft, mails, text);
                let sections = draft.len();
                let batches = outbound.finish(&mut draft);
                let is_in_place = draft.len() == sections;
                // The first time it is not known, and the fourth time it is far from what was
                // before.
                let known = round != 0 && round != 3;
                assert_eq!(is_in_place, in_place && known, "round {round}");
                for to in [TWO, MAIN, OWNER] {
                    let (numbers, bytes) = arrivals(&batches, to, draft.bytes(), text);
                    assert!(numbers.into_iter().eq(0..mails), "round {round}");
                    assert!(bytes.len() == 1 || !is_in_place);
                    let earliest = batches.iter().map(|batch| batch.earliest).min();
                    assert_eq!(earliest, Some(head(mails - 1).arrives));
                }
                let (numbers, _) = arrivals(&batches, FIVE, draft.bytes(), text);
                let thirds = (0..mails).filter(|number| number % 3 == 0);
                let thirds = thirds.flat_map(|number| [number; 3]);
                assert!(numbers.into_iter().eq(thirds), "round {round}");
            }
        }
    }

    #[test]
    fn what_is_longer_than_the_space_goes_a_detour() {
        let (mut space, mut draft_buffer) = (vec![0; 4096], DraftBuffer::default());
        let mut outbound = Outbound::default();
        for length in [10, 100_000, 10, 10] {
            draft_buffer.clear();
            let mut draft = Draft::within(&mut space, &mut draft_buffer);
            let text = "x".repeat(length);
            hand_out(&mut outbound, &mut draft, 2, &text);
            let batches = outbound.finish(&mut draft);
            let (numbers, _) = arrivals(&batches, TWO, draft.bytes(), &text);
            assert_eq!(numbers, [0, 1]);
            assert_eq!(draft_buffer.spilled().is_some(), length > 4096);
        }
    }

    #[test]
    fn batches_that_are_not_in_the_message_are_refused() {
        let batch = |start, bytes| Batch {
            to: MAIN,
            mails: 1,
            start,
            bytes,
            earliest: SimTime::ZERO,
        };
        assert_eq!(batch(2, 3).take(b"12345"), Ok(&b"345"[..]));
        for (start, bytes) in [(3, 3), (6, 0), (u32::MAX, u32::MAX), (0, u32::MAX)] {
            assert!(batch(start, bytes).take(b"12345").is_err());
        }
    }
}
