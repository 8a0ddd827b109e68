//! What main lets a cluster do, and its encoding.

use maslite_core::{AgentId, Pattern, SimDuration, SimTime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::links::codec::Numbers;
use crate::protocol::rare::{Blank, Rare};

/// Leave to do something, and all a scheduler must know first. Before it in the message is the mail
/// that has come for it.
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
    /// Agents that are to leave; and when, if the simulation's owner has not said so between two
    /// runs.
    pub(crate) dismissed: Vec<(AgentId, Option<SimTime>)>,
    /// What an `Answer` is about.
    #[serde(with = "serde_bytes")]
    pub(crate) request: Vec<u8>,
}

impl News {
    /// Whether they change nothing of what a cluster has done ahead of what is final.
    pub(crate) fn leaves_all_as_it_is(&self) -> bool {
        // A new field has to be thought of here.
        let Self {
            names: _,
            routes: _,
            forget_routes: _,
            interest,
            numbers,
            dismissed,
            request,
        } = self;
        interest.is_empty() && numbers.is_empty() && dismissed.is_empty() && request.is_empty()
    }
}

/// Bits of a number that say which task it is. Those behind them say what of it is given.
const GIVEN: u32 = 8;

/// What to do. Before anything but `Setup`, `Match` and `Answer` the mail that waits is posted,
/// that of the grant included.
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
    /// If an agent is awake, do one superstep.
    SuperstepIfAwake,
    /// Do one superstep: an agent is awake in some cluster.
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
    /// Run instants ahead of what is final, before `until`, and keep the way back.
    Speculate {
        until: Option<SimTime>,
        /// The most instants that are not final.
        instants: u64,
        /// About the most memory that the way back takes [bytes].
        bytes: u64,
    },
    /// Forget the copies of others' alarms, and that one's own are forecast.
    Withdraw,
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
    pub(super) fn to_numbers(self) -> [u64; 4] {
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
            Self::Withdraw => simple(11),
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
            Self::Speculate {
                until,
                instants,
                bytes,
            } => [
                10 | given(until.is_some(), 0),
                until.unwrap_or_default().as_nanos(),
                instants,
                bytes,
            ],
            Self::Window { horizon, others } => [
                9 | given(horizon.is_some(), 0) | given(others.is_some(), 1),
                horizon.unwrap_or_default().as_nanos(),
                others.unwrap_or_default().as_nanos(),
                0,
            ],
        }
    }

    pub(super) fn from_numbers([kind, first, second, third]: [u64; 4]) -> Option<Self> {
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
            10 => Self::Speculate {
                until: horizon,
                instants: second,
                bytes: third,
            },
            11 => Self::Withdraw,
            _ => return None,
        };
        // What is not given is zero, so that there is one way to say it.
        (task.to_numbers() == [kind, first, second, third]).then_some(task)
    }

    /// It may be granted although the run is interrupted: no agent is updated.
    pub(crate) fn takes_no_time(self) -> bool {
        matches!(
            self,
            Self::Post | Self::Rematch | Self::Setup { .. } | Self::Answer | Self::Withdraw
        )
    }
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
