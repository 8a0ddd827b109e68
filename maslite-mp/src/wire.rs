//! All that crosses a link: what main tells a scheduler, and what it answers.
//!
//! A message is mail and traces as bytes, if there are any, and behind them a *note*: what is said of them and otherwise, encoded
//! with postcard. The note comes last because mail is written into a message as it leaves, before anything can be said of it.
//!
//! ```text
//! │ mail of a grant, or batches of mail │ trace │ note │ length of the note, u32 LE │
//! ```
//!
//! `MpMain` relays batches as they are: it looks into the envelope of mail only where the sender
//! did not know the receiver, and at the message itself only in mail to main.

use maslite_core::engine::Newborn;
use maslite_core::{
    AgentError, AgentId, Counters, Mail, MailKey, Pattern, Receiver, SimDuration, SimTime,
    StopReason,
};
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checks::MessageFault;
use crate::error::Error;
use crate::shake::Shake;
use crate::transport::{Draft, Sheet, Wait};

/// Something ends before it should.
const END: postcard::Error = postcard::Error::DeserializeUnexpectedEnd;

/// What main tells a scheduler.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToProc {
    /// The first message.
    Settings(Settings),
    /// New agents; answered by [`ToMain::Loaded`].
    Load(Vec<Call>),
    /// The insertion index of the first agent of each call before; not answered.
    Seat(Vec<u64>),
    /// Do something; answered by [`ToMain::Report`].
    Grant(Grant),
    /// Tear the agents down and end; answered by [`ToMain::Bye`].
    Stop,
}

/// What a scheduler answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMain {
    Loaded(Vec<Loaded>),
    Report(Box<Report>),
    /// It cannot go on, and has sent all it will.
    Failed(Fault),
    Bye(Option<maslite_core::Error>),
}

/// What a scheduler must know before anything else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The run's seed.
    pub(crate) seed: u64,
    pub(crate) digest: bool,
    pub(crate) trace: bool,
    /// How it waits for messages.
    pub(crate) wait: Wait,
    /// What its end of the link is shaken with, if it is.
    pub(crate) shake: Option<Shake>,
    /// The least simulated time that its mail to other clusters takes, if it is not zero.
    pub(crate) lookahead: Option<SimDuration>,
}

/// One call of `add` or `build`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Add {
        id: AgentId,
        /// Of the id, if it was made of one.
        name: Option<String>,
        kind: String,
        #[serde(with = "serde_bytes")]
        state: Vec<u8>,
    },
    Build {
        builder: String,
        #[serde(with = "serde_bytes")]
        config: Vec<u8>,
    },
}

/// The agents that a call made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Their ids, if main cannot know them: it knows who it adds.
    pub(crate) ids: Vec<AgentId>,
    pub(crate) names: Vec<String>,
}

/// Leave to do something, and all a scheduler must know first. Before it in the message is the mail that has come for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// How manieth grant of all; a Hold names the last one it ends.
    pub(crate) number: u64,
    /// Where the simulation stands.
    pub(crate) time: SimTime,
    /// The superstep within the instant that comes next.
    pub(crate) superstep: u64,
    pub(crate) task: Task,
    pub(crate) supersteps_per_instant: u64,
    #[serde(with = "rarely")]
    pub(crate) news: News,
}

/// What changed elsewhere since the last grant.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// Names of agents.
    pub(crate) names: Vec<String>,
    /// Which cluster owns an id that this scheduler asked for.
    pub(crate) routes: Vec<(AgentId, u32)>,
    /// Patterns that some agent of a cluster began (true) or ceased to listen to, and for mail
    /// from when on.
    pub(crate) interest: Vec<(u32, Pattern, bool, SimTime)>,
    /// The insertion indices of agents that were reported as added, in the order of the reports.
    pub(crate) numbers: Vec<u64>,
    /// Agents that are to leave; and when, if the simulation's owner has not said so between two runs.
    pub(crate) dismissed: Vec<(AgentId, Option<SimTime>)>,
    /// What an `Answer` is about.
    #[serde(with = "serde_bytes")]
    pub(crate) request: Vec<u8>,
}

/// What to do. Before anything but `Setup`, `Match` and `Answer` the mail that waits is posted, that of the
/// grant included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Call `setup` of all new agents. Nothing is posted.
    Setup {
        /// Agents that report an error thereby end the run that begins.
        stop_at_error: bool,
    },
    /// Look again at the mail that waits: others have begun or ceased to listen to something in
    /// the superstep in which it was sent. Nothing is posted.
    Match,
    /// Nothing more than that.
    Post,
    /// Put the alarms due now into the outbox.
    Fire,
    /// If somebody is awake, do one superstep.
    Step,
    /// Do one superstep: somebody is awake in some cluster.
    Superstep,
    /// As `Fire` and then `Step`, where no alarm can leave.
    FireAndStep,
    /// Run on, until something leaves, an alarm is not before the horizon, or enough is done.
    Solo {
        horizon: Option<SimTime>,
        supersteps: u64,
        /// Of the next agent that an agent adds.
        next_index: u64,
    },
    /// Answer the request among the news. What arrived waits, as in `Match`.
    Answer,
    /// Under a lookahead: run on, until an event is not before the horizon. Mail that leaves does
    /// not end it, but no answer to it can come earlier than `others` after it arrives.
    Window {
        horizon: Option<SimTime>,
        others: Option<SimDuration>,
    },
}

impl Task {
    /// It may be granted although the run is held: no agent is updated.
    pub(crate) fn takes_no_time(self) -> bool {
        matches!(
            self,
            Self::Post | Self::Match | Self::Setup { .. } | Self::Answer
        )
    }
}

/// What a scheduler did, and where it stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) time: SimTime,
    /// The superstep within the instant that comes next.
    pub(crate) superstep: u64,
    /// Supersteps of this grant.
    pub(crate) supersteps: u64,
    /// Some agent is awake, or may be when the mail that waits is posted.
    pub(crate) awake: bool,
    /// Mail waits to be posted.
    pub(crate) waiting: bool,
    /// Under a lookahead also when an alarm leaves.
    pub(crate) next_alarm: Option<SimTime>,
    /// An alarm that fires next may be for another cluster.
    pub(crate) alarms_may_leave: bool,
    /// Some agent wants to be updated in every superstep there is.
    pub(crate) kept_awake: bool,
    pub(crate) newborn: Vec<Newborn>,
    #[serde(with = "rarely")]
    pub(crate) events: Events,
    pub(crate) counters: Counters,
    /// Mail that a lookahead held back, since the beginning.
    pub(crate) held_back: u64,
    /// How long it worked, since it was started \[ns, wall\]; 0 inline, where main finds out.
    pub(crate) busy: u64,
    /// How many agents were awake in its last superstep.
    pub(crate) awake_last: u32,
    /// Mail addressed within the cluster, since the beginning.
    pub(crate) local: u64,
    pub(crate) digest: Option<u64>,
    /// The batches before this note.
    pub(crate) batches: Vec<Batch>,
    /// Bytes of the trace, which is right before it.
    pub(crate) trace: u32,
}

impl Report {
    /// The trace among the bytes before this note.
    pub(crate) fn take_trace<'a>(&self, before: &'a [u8]) -> postcard::Result<&'a [u8]> {
        let start = before.len().checked_sub(self.trace as usize);
        start.map(|start| &before[start..]).ok_or(END)
    }
}

/// What does not happen under most grants.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Why agents have the run end, with their insertion indices, and when main hears of it.
    pub(crate) paused: Vec<(SimTime, u64, StopReason)>,
    /// Names of newborn agents.
    pub(crate) names: Vec<String>,
    /// Agents wanted removed that are not here, with who asked, and when that holds.
    pub(crate) removals: Vec<(AgentId, AgentId, SimTime)>,
    /// With the time at which it changed.
    pub(crate) interest: Vec<(Pattern, bool, SimTime)>,
    /// Errors that agents reported.
    pub(crate) errors: Vec<AgentError>,
    /// What the request of an `Answer` is answered with.
    #[serde(with = "serde_bytes")]
    pub(crate) reply: Vec<u8>,
}

/// Encodes what nearly always is the default as one byte when it is.
mod rarely {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize + Default + PartialEq, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let value = Some(value).filter(|value| **value != T::default());
        value.serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or_default())
    }
}

/// Mail for one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) to: Destination,
    pub(crate) mails: u32,
    /// Where in the message it begins.
    pub(crate) start: u32,
    pub(crate) bytes: u32,
    /// When the first of it arrives.
    pub(crate) earliest: SimTime,
}

impl Batch {
    /// Its mail among the bytes before the note that tells of it.
    pub(crate) fn take<'a>(&self, before: &'a [u8]) -> postcard::Result<&'a [u8]> {
        let start = self.start as usize;
        let end = start.checked_add(self.bytes as usize).ok_or(END)?;
        before.get(start..end).ok_or(END)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Destination {
    Cluster(u32),
    /// Whoever owns the receiver. Each mail is preceded by its length.
    Owner,
    /// The handler of mail to main.
    Main,
}

/// Why a scheduler cannot go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Fault {
    Agent {
        error: maslite_core::Error,
        /// Of agents that main may not have heard of.
        names: Vec<String>,
    },
    UnknownKind {
        kind: String,
        known: Vec<String>,
    },
    UnknownBuilder {
        builder: String,
        known: Vec<String>,
    },
    Decode {
        what: String,
        why: String,
    },
    Encode {
        what: String,
        why: String,
    },
    /// Mail that was brought cannot be.
    Refused {
        reason: MessageFault,
        time: SimTime,
    },
}

impl Fault {
    /// The error that it is to the user.
    pub(crate) fn blame(self, cluster: &str) -> Error {
        let cluster = cluster.to_owned();
        match self {
            Self::Agent { error, names } => {
                for name in &names {
                    let _ = AgentId::named(name);
                }
                let source = error;
                Error::Agent { cluster, source }
            }
            Self::UnknownKind { kind, known } => Error::UnknownAgentType { kind, known },
            Self::UnknownBuilder { builder, known } => Error::UnknownBuilder { builder, known },
            Self::Decode { what, why } => Error::Decode { cluster, what, why },
            Self::Encode { what, why } => Error::EncodeInCluster { cluster, what, why },
            Self::Refused { reason, time } => Error::Refused {
                cluster,
                reason,
                time,
            },
        }
    }
}

/// What is known of mail without its message.
///
/// | bytes | meaning |
/// |---|---|
/// | 1 | the kind of receiver: 0 an agent, 1 it directly, 2 subscribers; and 4 more for mail under a lookahead |
/// | 24, 8 | key, sender |
/// | 8 | the receiver, if it is an agent |
/// | 8, 8 | when it arrives and when it left, under a lookahead |
///
/// Numbers are as wide as they are, little endian: there may be millions of them in a second, and none leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MailHead {
    pub(crate) key: MailKey,
    pub(crate) sender: AgentId,
    pub(crate) receiver: Receiver,
    /// When it arrives and when it left, under a lookahead; otherwise zero.
    pub(crate) arrives: SimTime,
    pub(crate) left: SimTime,
}

/// In the first byte of a head, beside the kind of receiver.
const TIMED: u8 = 4;

impl MailHead {
    /// Hands its encoding to a flavor of postcard.
    #[inline]
    fn put(&self, into: &mut impl Flavor) -> postcard::Result<()> {
        let mut bytes = [0; 1 + 8 * 7];
        let mut end = 1;
        let mut write = |number: u64| {
            bytes[end..end + 8].copy_from_slice(&number.to_le_bytes());
            end += 8;
        };
        self.key.to_numbers().into_iter().for_each(&mut write);
        write(self.sender.as_u64());
        let kind = match self.receiver {
            Receiver::Agent(_) => 0,
            Receiver::Direct(_) => 1,
            Receiver::Subscribers => 2,
        };
        if let Some(id) = self.receiver.agent() {
            write(id.as_u64());
        }
        let is_timed = self.arrives > SimTime::ZERO;
        if is_timed {
            write(self.arrives.as_nanos());
            write(self.left.as_nanos());
        }
        bytes[0] = kind | if is_timed { TIMED } else { 0 };
        into.try_extend(&bytes[..end])
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> postcard::Result<Self> {
        let (kind, mut rest) = bytes.split_first().ok_or(END)?;
        let mut read = || {
            let (number, after) = rest.split_first_chunk().ok_or(END)?;
            rest = after;
            Ok(u64::from_le_bytes(*number))
        };
        let key = MailKey::from_numbers([read()?, read()?, read()?]);
        let sender = AgentId::from_u64(read()?);
        let receiver = match kind & !TIMED {
            0 => Receiver::Agent(AgentId::from_u64(read()?)),
            1 => Receiver::Direct(AgentId::from_u64(read()?)),
            2 => Receiver::Subscribers,
            _ => return Err(postcard::Error::DeserializeBadEnum),
        };
        let mut times = [SimTime::ZERO; 2];
        if kind & TIMED != 0 {
            times = [SimTime::from_nanos(read()?), SimTime::from_nanos(read()?)];
        }
        *bytes = rest;
        let [arrives, left] = times;
        Ok(Self {
            key,
            sender,
            receiver,
            arrives,
            left,
        })
    }
}

/// One delivery, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TraceLine {
    pub(crate) time: SimTime,
    pub(crate) superstep: u64,
    /// The insertion index of the agent.
    pub(crate) index: u64,
    pub(crate) text: String,
}

/// Appends the encoding of a value; after an error nothing is appended.
pub(crate) fn put<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> postcard::Result<()> {
    let start = into.len();
    let put = postcard::serialize_with_flavor(value, Appending(into));
    if put.is_err() {
        into.truncate(start);
    }
    put
}

/// Where postcard puts what it encodes: behind what is there.
struct Appending<'a>(&'a mut Vec<u8>);

/// The same within some bytes, of which so many are used.
struct Within<'a, 's> {
    space: &'s mut [u8],
    used: &'a mut usize,
}

/// Bytes up to which a slice is pushed byte by byte: a number is one byte or a few, and calling
/// upon `memcpy` for them takes longer than they do.
const SHORT: usize = 10;

impl Flavor for Appending<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() <= SHORT {
            bytes.iter().for_each(|byte| self.0.push(*byte));
        } else {
            self.0.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Flavor for Within<'_, '_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let place = self.space.get_mut(*self.used);
        *place.ok_or(postcard::Error::SerializeBufferFull)? = byte;
        *self.used += 1;
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let place = self.space.get_mut(*self.used..*self.used + bytes.len());
        let place = place.ok_or(postcard::Error::SerializeBufferFull)?;
        if bytes.len() <= SHORT {
            for (place, byte) in place.iter_mut().zip(bytes) {
                *place = *byte;
            }
        } else {
            place.copy_from_slice(bytes);
        }
        *self.used += bytes.len();
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Ends a message with its note; after an error nothing is appended.
pub(crate) fn put_note<T: Serialize>(note: &T, draft: &mut Draft<'_>) -> postcard::Result<()> {
    let start = draft.len();
    draft.put(note)?;
    // A link carries no longer messages.
    let length = u32::try_from(draft.len() - start).unwrap_or(u32::MAX);
    draft.extend(&length.to_le_bytes());
    Ok(())
}

/// A message of a note alone.
pub(crate) fn message<T: Serialize>(note: &T) -> postcard::Result<Vec<u8>> {
    let mut sheet = Sheet::default();
    put_note(note, &mut Draft::in_buffer(&mut sheet))?;
    Ok(sheet.into_bytes())
}

/// A message's note, and the bytes before it.
pub(crate) fn take_note<T: DeserializeOwned>(message: &[u8]) -> postcard::Result<(T, &[u8])> {
    let (rest, length) = message.split_last_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or(END)?;
    let (before, note) = rest.split_at(start);
    Ok((decode(note)?, before))
}

/// Takes a value from the front of some bytes.
pub(crate) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> postcard::Result<T> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(value)
}

/// Takes bytes that have their length before them, as mail for owners that its sender does not know.
pub(crate) fn take_measured<'a>(bytes: &mut &'a [u8]) -> postcard::Result<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (taken, rest) = rest.split_at_checked(length).ok_or(END)?;
    *bytes = rest;
    Ok(taken)
}

/// Decodes a value that is all there is.
pub(crate) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> postcard::Result<T> {
    let value = take(&mut bytes)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(postcard::Error::DeserializeBadEncoding)
    }
}

/// Appends one mail to a batch; after an error nothing is appended.
pub(crate) fn put_mail<M: Serialize>(
    head: &MailHead,
    body: &M,
    into: &mut Vec<u8>,
) -> postcard::Result<()> {
    let start = into.len();
    let put = head.put(&mut Appending(into));
    let put = put.and_then(|()| postcard::serialize_with_flavor(body, Appending(into)));
    if put.is_err() {
        into.truncate(start);
    }
    put
}

/// Writes one mail to the front of some bytes, and tells how many it takes.
///
/// # Errors
/// Also when it does not fit; what is written then is of no use.
#[inline]
pub(crate) fn write_mail<M: Serialize>(
    head: &MailHead,
    body: &M,
    space: &mut [u8],
) -> postcard::Result<usize> {
    let mut used = 0;
    let mut within = Within {
        space: &mut *space,
        used: &mut used,
    };
    head.put(&mut within)?;
    postcard::serialize_with_flavor(body, within)?;
    Ok(used)
}

/// Takes one mail from a batch.
pub(crate) fn take_mail<M: DeserializeOwned>(
    bytes: &mut &[u8],
) -> postcard::Result<(MailHead, Mail<M>)> {
    let head = MailHead::take(bytes)?;
    let body = take(bytes)?;
    Ok((head, Mail::new(head.sender, head.receiver, body)))
}

#[cfg(test)]
mod tests {
    use serde::Serializer;

    use super::*;

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

    #[test]
    fn mail_comes_out_of_a_batch_as_it_went_in() {
        let key = MailKey::of_agent(SimTime::from_millis(3), 7, 1 << 40);
        let sender = AgentId::from(9);
        let mut heads = Vec::new();
        for receiver in [
            Receiver::Agent(AgentId::from(1)),
            Receiver::Direct(AgentId::MAIN),
            Receiver::Subscribers,
        ] {
            for (arrives, left) in [(0, 0), (8, 5)] {
                let [arrives, left] = [arrives, left].map(SimTime::from_millis);
                heads.push(MailHead {
                    key,
                    sender,
                    receiver,
                    arrives,
                    left,
                });
            }
        }
        let mut batch = Vec::new();
        for (head, body) in heads.iter().zip(100_u32..) {
            put_mail(head, &body, &mut batch).unwrap();
            assert!(put_mail(head, &Unfinished, &mut batch).is_err());
        }
        let mut rest = &batch[..];
        for (head, body) in heads.iter().zip(100_u32..) {
            let mut short = &rest[..20];
            assert!(MailHead::take(&mut short).is_err());
            let taken = MailHead::take(&mut rest).unwrap();
            assert_eq!((taken, take(&mut rest)), (*head, Ok(body)));
        }
        assert!(rest.is_empty());
        assert!(MailHead::take(&mut &[3_u8; 64][..]).is_err());
    }

    #[test]
    fn rare_news_take_a_byte_while_there_are_none() {
        let grant = |news| Grant {
            number: 1,
            time: SimTime::ZERO,
            superstep: 0,
            task: Task::Step,
            supersteps_per_instant: 1,
            news,
        };
        let encoded = |news| {
            let mut bytes = Vec::new();
            put(&grant(news), &mut bytes).unwrap();
            bytes
        };
        assert_eq!(encoded(News::default()), [1, 0, 0, 4, 1, 0]);
        let routes = vec![(AgentId::from(7), 2)];
        let numbers = vec![9];
        let news = News {
            routes: routes.clone(),
            numbers: numbers.clone(),
            ..News::default()
        };
        let decoded: Grant = decode(&encoded(news)).unwrap();
        assert_eq!(
            (decoded.news.routes, decoded.news.numbers),
            (routes, numbers)
        );
    }
}
