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

use maslite_core::engine::{FailurePlace, Newborn};
use maslite_core::{
    AgentError, AgentId, Counters, IdError, LostKey, LostMail, Mail, MailKey, Pattern, Receiver,
    SimDuration, SimTime, StopReason, Topic,
};
use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::error::Error;
use crate::error::message_fault::MessageFault;
use crate::links::codec::{self, Appending, Misread, Numbers, Within};
use crate::links::jitter::Jitter;
use crate::links::strict::Whole;
use crate::links::transport::{Draft, DraftBuffer, Wait};
use crate::protocol::rare::{Blank, Rare};

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
    AssignIndices(Vec<u64>),
    /// Do something; answered by [`ToMain::Report`].
    Grant(Grant),
    /// Tear the agents down and end; answered by [`ToMain::Bye`].
    Stop,
}

/// What a scheduler answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMain {
    Loaded(Vec<Loaded>),
    Report(Report),
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
    /// Also one of the contents.
    pub(crate) content: bool,
    pub(crate) trace: bool,
    /// How it waits for messages.
    pub(crate) wait: Wait,
    /// The jitter of its end of the link, if there is any.
    pub(crate) jitter: Option<Jitter>,
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
#[derive(Debug)]
pub(crate) struct Grant {
    /// How manieth grant of all; an interrupt names the last one it ends.
    pub(crate) number: u64,
    /// Where the simulation stands.
    pub(crate) time: SimTime,
    /// The superstep within the instant that comes next.
    pub(crate) superstep: u64,
    pub(crate) task: Task,
    pub(crate) supersteps_per_instant: u64,
    pub(crate) news: Rare<News>,
}

impl Serialize for Grant {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = Numbers([
            self.number,
            self.time.as_nanos(),
            self.superstep,
            self.supersteps_per_instant,
        ]);
        let task = Numbers(self.task.to_numbers());
        (numbers, task, &self.news).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Grant {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (numbers, Numbers(task), news) = Deserialize::deserialize(deserializer)?;
        let Numbers([number, time, superstep, supersteps_per_instant]) = numbers;
        let task = Task::from_numbers(task);
        Ok(Self {
            number,
            time: SimTime::from_nanos(time),
            superstep,
            task: task.ok_or_else(|| D::Error::custom("no such task"))?,
            supersteps_per_instant,
            news,
        })
    }
}

/// What changed elsewhere since the last grant.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// Names of agents.
    pub(crate) names: Vec<String>,
    /// Which cluster owns an id that this scheduler asked for.
    pub(crate) routes: Vec<(AgentId, u32)>,
    /// Forget what was told of that before: many of those agents are gone.
    pub(crate) forget_routes: bool,
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

/// Bits of a number that say which task it is. Those behind them say what of it is given.
const GIVEN: u32 = 8;

/// What to do. Before anything but `Setup`, `Match` and `Answer` the mail that waits is posted, that of the
/// grant included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Call `setup` of all new agents. Nothing is posted.
    Setup {
        /// Agents that report an error thereby end the run that begins.
        stop_at_error: bool,
    },
    /// Look again at the mail that waits: others have begun or ceased to listen to something in
    /// the superstep in which it was sent. Nothing is posted.
    Rematch,
    /// Nothing more than that.
    Post,
    /// Put the alarms due now into the outbox.
    Fire,
    /// If somebody is awake, do one superstep.
    SuperstepIfAwake,
    /// Do one superstep: somebody is awake in some cluster.
    Superstep,
    /// As `Fire` and then `Step`, where no alarm can leave.
    FireAndSuperstep,
    /// Run on, until something leaves, an alarm is not before the horizon, or enough is done.
    RunAlone {
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
    /// Which task it is, together with what of it is given, and its numbers.
    fn to_numbers(self) -> [u64; 4] {
        let simple = |kind| [kind, 0, 0, 0];
        let given = |is_given, bit: u32| u64::from(is_given) << (GIVEN + bit);
        match self {
            Self::Setup { stop_at_error } => simple(given(stop_at_error, 0)),
            Self::Rematch => simple(1),
            Self::Post => simple(2),
            Self::Fire => simple(3),
            Self::SuperstepIfAwake => simple(4),
            Self::Superstep => simple(5),
            Self::FireAndSuperstep => simple(6),
            Self::Answer => simple(7),
            Self::RunAlone {
                horizon,
                supersteps,
                next_index,
            } => [
                8 | given(horizon.is_some(), 0),
                horizon.unwrap_or_default().as_nanos(),
                supersteps,
                next_index,
            ],
            Self::Window { horizon, others } => [
                9 | given(horizon.is_some(), 0) | given(others.is_some(), 1),
                horizon.unwrap_or_default().as_nanos(),
                others.unwrap_or_default().as_nanos(),
                0,
            ],
        }
    }

    fn from_numbers([kind, first, second, third]: [u64; 4]) -> Option<Self> {
        let [first_is_given, second_is_given] = [0, 1].map(|bit| kind >> (GIVEN + bit) & 1 != 0);
        let horizon = first_is_given.then_some(SimTime::from_nanos(first));
        let task = match kind & ((1 << GIVEN) - 1) {
            0 => Self::Setup {
                stop_at_error: first_is_given,
            },
            1 => Self::Rematch,
            2 => Self::Post,
            3 => Self::Fire,
            4 => Self::SuperstepIfAwake,
            5 => Self::Superstep,
            6 => Self::FireAndSuperstep,
            7 => Self::Answer,
            8 => Self::RunAlone {
                horizon,
                supersteps: second,
                next_index: third,
            },
            9 => Self::Window {
                horizon,
                others: second_is_given.then_some(SimDuration::from_nanos(second)),
            },
            _ => return None,
        };
        // What is not given is zero, so that there is one way to say it.
        (task.to_numbers() == [kind, first, second, third]).then_some(task)
    }

    /// It may be granted although the run is interrupted: no agent is updated.
    pub(crate) fn takes_no_time(self) -> bool {
        matches!(
            self,
            Self::Post | Self::Rematch | Self::Setup { .. } | Self::Answer
        )
    }
}

/// What a scheduler did, and where it stands.
#[derive(Debug)]
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
    pub(crate) events: Rare<Events>,
    pub(crate) counters: Counters,
    /// Mail to other clusters that a lookahead held back, since the beginning.
    pub(crate) held_back: u64,
    /// The same of mail to main.
    pub(crate) held_back_to_main: u64,
    /// How long it worked, since it was started \[ns, wall\]; 0 inline, where main finds out.
    pub(crate) busy: u64,
    /// How many agents were awake in its last superstep.
    pub(crate) awake_last: u32,
    /// Mail addressed within the cluster, since the beginning.
    pub(crate) local: u64,
    pub(crate) digest: Option<u64>,
    pub(crate) content: Option<u64>,
    /// The batches before this note.
    pub(crate) batches: Batches,
    /// Bytes of the trace, which is right before it.
    pub(crate) trace: u32,
}

/// What of a report is not a number, in the last bits of one of its numbers: the first of them first.
const FLAGS: u32 = 7;

impl Report {
    fn flags(&self) -> [bool; FLAGS as usize] {
        [
            self.awake,
            self.waiting,
            self.alarms_may_leave,
            self.kept_awake,
            self.next_alarm.is_some(),
            self.digest.is_some(),
            self.content.is_some(),
        ]
    }

    /// The trace among the bytes before this note.
    pub(crate) fn take_trace<'a>(&self, before: &'a [u8]) -> postcard::Result<&'a [u8]> {
        let start = before.len().checked_sub(self.trace as usize);
        start.map(|start| &before[start..]).ok_or(END)
    }
}

impl Serialize for Report {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flags = self.flags().into_iter();
        let numbers = Numbers([
            self.time.as_nanos(),
            self.superstep,
            self.supersteps,
            flags.fold(0, |flags, flag| flags << 1 | u64::from(flag)),
            self.next_alarm.unwrap_or_default().as_nanos(),
            self.held_back,
            self.held_back_to_main,
            self.busy,
            self.awake_last.into(),
            self.local,
            self.digest.unwrap_or_default(),
            self.trace.into(),
            self.content.unwrap_or_default(),
        ]);
        let counters = Numbers(self.counters.to_numbers());
        (numbers, counters, &self.batches, &self.events).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Report {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (numbers, Numbers(counters), batches, events) = Deserialize::deserialize(deserializer)?;
        let Numbers(
            [
                time,
                superstep,
                supersteps,
                flags,
                next_alarm,
                held_back,
                held_back_to_main,
                busy,
                awake_last,
                local,
                digest,
                trace,
                content,
            ],
        ) = numbers;
        let small = |number| u32::try_from(number).map_err(D::Error::custom);
        if flags >> FLAGS != 0 {
            return Err(D::Error::custom("unknown flags"));
        }
        let flag = |number: u32| flags >> (FLAGS - 1 - number) & 1 != 0;
        Ok(Self {
            time: SimTime::from_nanos(time),
            superstep,
            supersteps,
            awake: flag(0),
            waiting: flag(1),
            next_alarm: flag(4).then_some(SimTime::from_nanos(next_alarm)),
            alarms_may_leave: flag(2),
            kept_awake: flag(3),
            events,
            counters: Counters::from_numbers(counters),
            held_back,
            held_back_to_main,
            busy,
            awake_last: small(awake_last)?,
            local,
            digest: flag(5).then_some(digest),
            content: flag(6).then_some(content),
            batches,
            trace: small(trace)?,
        })
    }
}

/// What does not happen under most grants.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// Why agents have the run end, with their insertion indices, and when main hears of it.
    pub(crate) stopped: Vec<(SimTime, u64, StopReason)>,
    /// Agents that were added and wait for their insertion indices.
    pub(crate) newborn: Vec<Newborn>,
    /// Names that the process has heard of, those of added agents among them.
    pub(crate) names: Vec<String>,
    /// Agents of this cluster that are gone.
    pub(crate) gone: Vec<AgentId>,
    /// Agents wanted removed that are not here.
    pub(crate) removals: Vec<Removal>,
    /// With the time at which it changed.
    pub(crate) interest: Vec<(Pattern, bool, SimTime)>,
    /// Errors that agents reported.
    pub(crate) errors: Vec<AgentError>,
    /// The first mail that nobody got, with its place among all that is lost.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    /// Topics about which mail came by for the first time.
    pub(crate) heard: Vec<Topic>,
    /// What the request of an `Answer` is answered with.
    #[serde(with = "serde_bytes")]
    pub(crate) reply: Vec<u8>,
    /// Why it cannot go on. What came before the failure is in this report.
    pub(crate) failure: Option<Box<Failure>>,
}

/// An agent is to be removed that lives elsewhere, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removal {
    pub(crate) id: AgentId,
    /// Who asked, and the insertion index of who asked.
    pub(crate) by: AgentId,
    pub(crate) index: u64,
    /// When that holds.
    pub(crate) time: SimTime,
}

/// What went wrong in a cluster, and where in the kernel's one order.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) place: FailurePlace,
    pub(crate) fault: Fault,
}

impl Blank for News {
    const BLANK: &'static Self = &Self {
        names: Vec::new(),
        routes: Vec::new(),
        forget_routes: false,
        interest: Vec::new(),
        numbers: Vec::new(),
        dismissed: Vec::new(),
        request: Vec::new(),
    };
}

impl Blank for Events {
    const BLANK: &'static Self = &Self {
        stopped: Vec::new(),
        newborn: Vec::new(),
        names: Vec::new(),
        gone: Vec::new(),
        removals: Vec::new(),
        interest: Vec::new(),
        errors: Vec::new(),
        lost: Vec::new(),
        heard: Vec::new(),
        reply: Vec::new(),
        failure: None,
    };
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

/// Most clusters have mail for one other, if any.
pub(crate) type Batches = SmallVec<[Batch; 1]>;

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
    /// Whoever owns the receiver.
    Owner,
    /// The handler of mail to main.
    Main,
}

/// Why a scheduler cannot go on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Fault {
    Agent(maslite_core::Error),
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
    Asymmetric {
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
            Self::Agent(error) => match error {
                // Which cluster heard of the second name is chance; an exchange is not of one cluster.
                maslite_core::Error::BadId(IdError::Collision(..))
                | maslite_core::Error::EndlessExchange { .. } => Error::Model(error),
                source => Error::Agent { cluster, source },
            },
            Self::UnknownKind { kind, known } => Error::UnknownAgentType { kind, known },
            Self::UnknownBuilder { builder, known } => Error::UnknownBuilder { builder, known },
            Self::Decode { what, why } => Error::Decode { cluster, what, why },
            Self::Encode { what, why } => Error::EncodeInCluster { cluster, what, why },
            Self::Asymmetric { what, why } => Error::Asymmetric {
                cluster: Some(cluster),
                what,
                why,
            },
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
/// | 4 | the length of all that follows of this mail, its message included |
/// | 1 | the kind of receiver: 0 an agent, 1 it directly, 2 subscribers; 4 more for mail under a lookahead, 8 more for a copy |
/// | 24, 8 | key, sender |
/// | 8 | the receiver, if it is an agent |
/// | 8, 8 | when it arrives and when it left, under a lookahead |
///
/// Numbers have a fixed width and are little endian: there may be millions of them in a second, and none leaves the machine.
///
/// Each mail has its length, so a message that reads fewer or more bytes than it wrote harms no other mail, and is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MailHead {
    pub(crate) key: MailKey,
    pub(crate) sender: AgentId,
    pub(crate) receiver: Receiver,
    /// When it arrives and when it left, under a lookahead; otherwise zero.
    pub(crate) arrives: SimTime,
    pub(crate) left: SimTime,
    /// It is for those who listen to such mail: its receiver lives in another cluster, which counts it.
    pub(crate) is_copy: bool,
}

/// In the first byte of a head, beside the kind of receiver.
const TIMED: u8 = 4;
const COPY: u8 = 8;

/// Bytes of the length before each mail.
const LENGTH: usize = 4;

/// Bytes of the shortest mail: the head of one to subscribers.
pub(crate) const SHORTEST_MAIL: usize = LENGTH + 1 + 8 * 4;

/// Bytes of the longest head, the length before it included.
const LONGEST_HEAD: usize = LENGTH + 1 + 8 * 7;

/// Marks encoded mail as a copy.
pub(crate) fn mark_copy(mail: &mut [u8]) {
    if let Some(kind) = mail.get_mut(LENGTH) {
        *kind |= COPY;
    }
}

impl MailHead {
    /// Hands its encoding to a flavor of postcard.
    #[inline]
    fn put(&self, into: &mut impl Flavor) -> postcard::Result<()> {
        let mut bytes = [0; LONGEST_HEAD];
        let end = self.write(&mut bytes);
        into.try_extend(&bytes[..end])
    }

    /// Writes its encoding behind the place of the length, and tells where it ends.
    #[inline]
    fn write(&self, bytes: &mut [u8; LONGEST_HEAD]) -> usize {
        let mut end = LENGTH + 1;
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
        bytes[LENGTH] =
            kind | if is_timed { TIMED } else { 0 } | if self.is_copy { COPY } else { 0 };
        end
    }

    /// Bytes of its encoding, the length before it included.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        let receiver = self.receiver.agent().map_or(0, |_| 8);
        let times = if self.arrives > SimTime::ZERO { 16 } else { 0 };
        SHORTEST_MAIL + receiver + times
    }

    /// Takes the head from the front of a mail, behind its length.
    #[inline]
    pub(crate) fn take(bytes: &mut &[u8]) -> postcard::Result<Self> {
        // What every head has is looked for once.
        let (always, mut rest) = bytes
            .split_first_chunk::<{ SHORTEST_MAIL - LENGTH }>()
            .ok_or(END)?;
        let [kind, numbers @ ..] = always;
        let (numbers, _) = numbers.as_chunks();
        let number = |place: usize| u64::from_le_bytes(numbers[place]);
        let mut read = || {
            let (number, after) = rest.split_first_chunk().ok_or(END)?;
            rest = after;
            Ok(u64::from_le_bytes(*number))
        };
        let receiver = match kind & !(TIMED | COPY) {
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
            key: MailKey::from_numbers([number(0), number(1), number(2)]),
            sender: AgentId::from_u64(number(3)),
            receiver,
            arrives,
            left,
            is_copy: kind & COPY != 0,
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
    let mut draft_buffer = DraftBuffer::default();
    put_note(note, &mut Draft::in_buffer(&mut draft_buffer))?;
    Ok(draft_buffer.into_bytes())
}

/// A message's note, and the bytes before it.
pub(crate) fn take_note<T: DeserializeOwned>(message: &[u8]) -> postcard::Result<(T, &[u8])> {
    let (rest, length) = message.split_last_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or(END)?;
    let (before, note) = rest.split_at(start);
    Ok((codec::decode(note).map_err(|_| END)?, before))
}

/// Takes the bytes of one mail, behind its length.
#[inline]
pub(crate) fn take_measured<'a>(bytes: &mut &'a [u8]) -> postcard::Result<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk().ok_or(END)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (taken, rest) = rest.split_at_checked(length).ok_or(END)?;
    *bytes = rest;
    Ok(taken)
}

/// Appends one mail to a batch; after an error nothing is appended.
pub(crate) fn put_mail<M: Serialize>(
    head: &MailHead,
    body: &M,
    into: &mut Vec<u8>,
) -> postcard::Result<()> {
    let start = into.len();
    let put = head.put(&mut Appending(into));
    let put = put.and_then(|()| postcard::serialize_with_flavor(&Whole(body), Appending(into)));
    if put.is_err() {
        into.truncate(start);
    } else {
        write_length(&mut into[start..]);
    }
    put
}

/// Writes its length to the front of a mail.
#[inline]
fn write_length(mail: &mut [u8]) {
    // A link carries no longer messages.
    let length = u32::try_from(mail.len() - LENGTH).unwrap_or(u32::MAX);
    mail[..LENGTH].copy_from_slice(&length.to_le_bytes());
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
    let head = if let Some(room) = space.first_chunk_mut() {
        head.write(room)
    } else {
        let mut within = Within {
            space: &mut *space,
            used: 0,
        };
        head.put(&mut within)?;
        within.used
    };
    let length = head + codec::write(body, &mut space[head..])?;
    write_length(&mut space[..length]);
    Ok(length)
}

/// What is wrong with encoded mail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MailFlaw {
    /// It ends too early, or its head is none.
    Head,
    /// Its message does not deserialise, or leaves bytes over.
    Body(Box<BadBody>),
}

/// Mail with a message that does not deserialise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBody {
    pub(crate) head: MailHead,
    /// The number of the enum's variant, if it is an enum.
    pub(crate) variant: Option<u32>,
    pub(crate) why: Misread,
}

/// Takes one mail from a batch.
#[inline]
pub(crate) fn take_mail<M: DeserializeOwned>(
    bytes: &mut &[u8],
) -> Result<(MailHead, Mail<M>), MailFlaw> {
    let Ok(mut mail) = take_measured(bytes) else {
        return Err(MailFlaw::Head);
    };
    let Ok(head) = MailHead::take(&mut mail) else {
        return Err(MailFlaw::Head);
    };
    let whole = mail;
    match codec::take(&mut mail) {
        Ok(body) if mail.is_empty() => Ok((head, Mail::new(head.sender, head.receiver, body))),
        Ok(_) => Err(bad_body(head, whole, Misread::LeftOver(mail.len()))),
        Err(why) => Err(bad_body(head, whole, why.into())),
    }
}

#[cold]
#[inline(never)]
fn bad_body(head: MailHead, mut body: &[u8], why: Misread) -> MailFlaw {
    let variant = codec::take(&mut body).ok();
    MailFlaw::Body(Box::new(BadBody { head, variant, why }))
}

#[cfg(test)]
mod tests {
    use serde::Serializer;

    use super::*;
    use crate::links::codec::{decode, put};

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

    /// A message that reads fewer or more bytes than it wrote is found, and the mail behind it is what it was.
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

    /// One of which no two numbers are alike; so many of its flags are raised, from the first on.
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
                assert!(busy || bytes.len() == 1 + 13 * 8 + 1 + 13 * 8 + 2);
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
        ];
        let tasks = tasks.into_iter().chain(alone).chain(windows);
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
        for nonsense in [[10, 0, 0, 0], [1, 2, 0, 0], [8, 5, 0, 0], [1 << 9, 0, 0, 0]] {
            assert_eq!(Task::from_numbers(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_no_report_says_is_refused() {
        let mut right = Vec::new();
        put(&report(2, true), &mut right).unwrap();
        let place = |number: usize, byte: usize| 1 + number * 8 + byte;
        for (place, what) in [
            (0, "not so many numbers"),
            (place(3, 0), "an eighth flag"),
            (place(3, 7), "a last flag"),
            (place(8, 4), "more agents than there can be"),
            (place(11, 7), "a trace longer than a message"),
            (place(13, 0), "not so many counters"),
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
}
