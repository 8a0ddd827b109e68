//! All that crosses a link: what main tells a scheduler, and what it answers.
//!
//! A message is mail and traces as bytes, if there are any, and behind them a *note*: what is said
//! of them and otherwise, encoded with postcard. The note comes last because mail is written into a
//! message as it leaves, before anything can be said of it.
//!
//! ```text
//! │ mail of a grant, or batches of mail │ trace │ note │ length of the note, u32 LE │
//! ```
//!
//! `MpMain` relays batches as they are: it looks into the envelope of mail only where the sender
//! did not know the receiver, and at the message itself only in mail to main.

mod fault;
mod grant;
mod mail;
mod note;
mod replay;
mod report;
mod saving;

use maslite_core::internal::Amnesia;
use maslite_core::{AgentId, SimDuration, SimTime};
use serde::{Deserialize, Serialize};

use crate::links::jitter::Jitter;
use crate::links::transport::Wait;

pub(crate) use fault::Fault;
pub(crate) use grant::{Grant, News, Task};
pub(crate) use mail::{
    BadBody, MailFlaw, MailHead, SHORTEST_MAIL, TraceLine, mark_copy, put_mail, take_mail,
    write_mail,
};
pub(crate) use note::{message, put_note, take_measured, take_note};
pub(crate) use replay::{Difference, Replay, Replayed};
pub(crate) use report::{Batch, Batches, Destination, DoneAhead, Events, Failure, Removal, Report};
pub(crate) use saving::{Restoration, Write, Written, WrittenState};

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
    /// Obey what was said to the process before this one; answered by [`ToMain::Replayed`].
    Replay(Replay),
    /// Hand out the whole state; answered by [`ToMain::Saved`].
    Save,
    /// Write the whole state into a file; answered by [`ToMain::Written`].
    Write(Write),
    /// Take up the state that is before this note; answered by [`ToMain::Replayed`].
    Restore(Restoration),
}

/// What a scheduler answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMain {
    Loaded(Vec<Loaded>),
    Report(Report),
    /// It cannot go on, and has sent all it will.
    Failed(Fault),
    Bye(Option<maslite_core::Error>),
    Replayed(Replayed),
    /// Its state is before this note.
    Saved,
    /// What became of its state.
    Written(Written),
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
    /// The trace is of these instants alone, and has the messages.
    pub(crate) window: Option<TraceWindow>,
    /// How it waits for messages.
    pub(crate) wait: Wait,
    /// The jitter of its end of the link, if there is any.
    pub(crate) jitter: Option<Jitter>,
    /// The least simulated time that its mail to other clusters takes, if it is not zero.
    pub(crate) lookahead: Option<SimDuration>,
    /// When it forgets everything, if it does.
    pub(crate) amnesia: Option<Amnesia>,
    /// It may be told to run ahead of what is final.
    pub(crate) speculates: bool,
    /// Its alarms for agents of other clusters are forecast.
    pub(crate) forecasts: bool,
}

/// The instants of which there is a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TraceWindow {
    pub(crate) first: SimTime,
    pub(crate) last: SimTime,
}

impl TraceWindow {
    #[inline]
    pub(crate) fn includes(&self, time: SimTime) -> bool {
        (self.first..=self.last).contains(&time)
    }
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

#[cfg(test)]
mod tests;
