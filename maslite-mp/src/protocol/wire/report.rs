//! What a cluster tells main at the end of a grant, and its encoding.

use maslite_core::internal::{CountersInternals, FailurePlace, LostKey, Newborn};
use maslite_core::{AgentError, AgentId, Counters, LostMail, Pattern, SimTime, StopReason, Topic};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::links::codec::Numbers;
use crate::protocol::rare::{Blank, Rare};
use crate::protocol::wire::fault::Fault;
use crate::protocol::wire::note::END;

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
    /// What it has done ahead of what is final. All else in the report is final.
    pub(crate) ahead: Rare<DoneAhead>,
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

/// What of a report is not a number, in the last bits of one of its numbers: the first of them
/// first.
pub(super) const FLAGS: u32 = 7;

#[cfg(test)]
impl Report {
    /// A report of nothing.
    pub(crate) fn blank(time: SimTime) -> Self {
        Self {
            time,
            superstep: 0,
            supersteps: 0,
            awake: false,
            waiting: false,
            next_alarm: None,
            alarms_may_leave: false,
            kept_awake: false,
            events: Rare::default(),
            ahead: Rare::default(),
            counters: Counters::default(),
            held_back: 0,
            held_back_to_main: 0,
            busy: 0,
            awake_last: 0,
            local: 0,
            digest: None,
            content: None,
            batches: Batches::default(),
            trace: 0,
        }
    }
}

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
        let rest = (&self.batches, &self.events, &self.ahead);
        (numbers, counters, rest).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Report {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (numbers, Numbers(counters), (batches, events, ahead)) =
            Deserialize::deserialize(deserializer)?;
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
            ahead,
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
    /// The first undeliverable mail, with its place among all that is lost.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    /// Topics about which mail came by for the first time.
    pub(crate) heard: Vec<Topic>,
    /// How often it has forgotten everything and come back.
    pub(crate) amnesias: u64,
    /// How many deliveries were undone.
    pub(crate) undone: u64,
    /// Alarms for agents of other clusters that were set, as mail that arrives when they are due; in
    /// the order in which they were set, also those of instants ahead of what is final.
    #[serde(with = "serde_bytes")]
    pub(crate) forecasts: Vec<u8>,
    /// Some of them are wrong, so that all are to be withdrawn.
    pub(crate) forecasts_are_wrong: bool,
    /// What the request of an `Answer` is answered with.
    #[serde(with = "serde_bytes")]
    pub(crate) reply: Vec<u8>,
    /// The pass of the engine's loop after which an interrupt ended the grant; 0 if none did.
    pub(crate) interrupted_at: u64,
    /// Why it cannot go on. What came before the failure is in this report.
    pub(crate) failure: Option<Box<Failure>>,
}

/// What a cluster has done ahead of what is final.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DoneAhead {
    /// The instants, in order, each with its supersteps.
    pub(crate) instants: Vec<(SimTime, u64)>,
    /// When its next alarm after these is due.
    pub(crate) then: Option<SimTime>,
    /// It must not do that instant ahead.
    pub(crate) is_blocked: bool,
    /// How many of the instants are kept from before this grant.
    pub(crate) kept: u64,
}

impl Blank for DoneAhead {
    const BLANK: &'static Self = &Self {
        instants: Vec::new(),
        then: None,
        is_blocked: false,
        kept: 0,
    };
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
        amnesias: 0,
        undone: 0,
        forecasts: Vec::new(),
        forecasts_are_wrong: false,
        reply: Vec::new(),
        interrupted_at: 0,
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
    /// The cluster that owns the receiver, which main knows.
    Owner,
    /// The handler of mail to main.
    Main,
}
