//! What main knows: where the simulation stands, and what has left its cluster and is not yet where
//! it goes.

use std::collections::BTreeSet;

use maslite_core::internal::{
    AgentErrorInternals, ContentSum, DigestSum, FailurePlace, FailureStage, LostKey,
    LostMailInternals, MailKey, Newborn,
};
use maslite_core::{
    AgentError, AgentId, Counters, Delivery, Digest, LostMail, Mail, Marks, SimTime, StopReason,
    Topic,
};

use serde::{Deserialize, Serialize};

use crate::cluster::registry::WireMessage;
use crate::coordination::forecasts::Forecasts;
use crate::error::Error;
use crate::error::snapshot::LeftOut;
use crate::links::round_trip::Trips;
use crate::protocol::wire::{Removal, Report, TraceLine};

/// Where the simulation stands.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) time: SimTime,
    /// The superstep within the instant that comes next.
    pub(crate) superstep: u64,
    /// All supersteps so far.
    pub(crate) supersteps: u64,
    /// The insertion index of the next agent.
    pub(crate) next_index: u64,
    /// The last report of each cluster; none before its first.
    pub(crate) reports: Vec<Option<Report>>,
    /// What main itself counted: mail to it, and undeliverable mail.
    pub(crate) counters: Counters,
    /// The first undeliverable mail, by its place among all that is lost.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    /// Topics about which mail came by while an agent listened.
    pub(crate) heard: BTreeSet<Topic>,
    /// How often a cluster has forgotten everything and come back.
    pub(crate) amnesias: u64,
    /// How many deliveries were undone.
    pub(crate) undone: u64,
    /// Of each cluster, from when on it has not told of what is final.
    pub(crate) owed: Vec<Option<SimTime>>,
    /// Of each cluster, what it has forecast and is not final yet.
    pub(crate) forecasts: Vec<Forecasts>,
    /// Clusters have copies of others' alarms.
    pub(crate) has_forecasts: bool,
    /// All of these are to be withdrawn before the next instant.
    pub(crate) withdraws: bool,
    /// How many instants that were done ahead do not stay, since clusters last ran ahead.
    pub(crate) wasted: usize,
    /// A cluster was dropped, so that digests mean nothing.
    pub(crate) has_dropped: bool,
    pub(crate) digest: DigestSum,
    /// Of the contents, if one is kept.
    pub(crate) content: Option<ContentSum>,
    /// The digest of mail to main in pieces; of its contents, if one of these is kept.
    pub(crate) marks: Marks,
    pub(crate) delivered: u64,
    pub(crate) sequence: u64,
    pub(crate) owner_sequence: u64,
    /// Grants so far.
    pub(crate) rounds: u64,
    /// What agents reported in the last run.
    pub(crate) errors: Vec<AgentError>,
    /// How many of these were reported in `setup`, before the first superstep.
    pub(crate) errors_of_setup: usize,
    /// Agents that the snapshot from which the simulation goes on had left out.
    pub(crate) left_out: Vec<LeftOut>,
}

impl Standing {
    /// Adds a delivery to main to the digests.
    pub(crate) fn add_to_digests<M: WireMessage>(
        &mut self,
        delivery: &Delivery<'_, M>,
    ) -> Result<(), Error> {
        let (place, hash) = self.digest.add(delivery);
        let Some(content) = &mut self.content else {
            self.marks.add(delivery.time, hash);
            return Ok(());
        };
        let hash = content.add(place, &delivery.mail.body);
        let hash = hash.map_err(|why| {
            Error::Model(maslite_core::Error::Undigested {
                topic: delivery.mail.topic(),
                sender: delivery.mail.sender,
                agent: AgentId::MAIN,
                time: delivery.time,
                why,
            })
        })?;
        self.marks.add(delivery.time, hash);
        Ok(())
    }

    /// The instant, and the superstep in it that comes next.
    pub(crate) fn place(&self) -> (SimTime, u64) {
        (self.time, self.superstep)
    }

    /// What was counted in all clusters.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.counters;
        for report in self.reports.iter().flatten() {
            counters.add(&report.counters);
        }
        counters.supersteps = self.supersteps;
        counters
    }

    /// Keeps errors of agents in the kernel's order, and no more than a report has.
    pub(crate) fn note_errors(&mut self, errors: Vec<AgentError>, cluster: &str) {
        self.errors.extend(errors.into_iter().map(|mut error| {
            error.cluster = Some(cluster.to_owned());
            error
        }));
        self.errors[self.errors_of_setup..].sort_by_key(AgentError::key);
        self.errors.truncate(maslite_core::Report::ERRORS_KEPT);
    }

    /// The place of a failure that comes before all agents of the superstep that is next.
    pub(crate) fn before_the_superstep(&self) -> FailurePlace {
        FailurePlace {
            time: self.time,
            superstep: self.superstep,
            stage: FailureStage::Start,
            index: 0,
            sequence: 0,
        }
    }

    /// Forgets errors that agents reported after a failure.
    pub(crate) fn cut_errors(&mut self, place: &FailurePlace) {
        let mut nth = 0;
        self.errors.retain(|error| {
            nth += 1;
            // Those of `setup` have come before the first superstep.
            nth <= self.errors_of_setup || place.is_after(error.time, error.superstep, error.index)
        });
    }

    pub(crate) fn count_undeliverable(&mut self) {
        self.counters.sent += 1;
        self.counters.undeliverable += 1;
    }

    /// The digest of contents over all clusters, if they keep one.
    pub(crate) fn content_digest(&self) -> Option<Digest> {
        if self.has_dropped {
            return None;
        }
        let own = self.content.as_ref()?.value();
        let mut reports = self.reports.iter().flatten();
        reports.try_fold(own, |sum, report| Some(sum.with(report.content?.into())))
    }

    /// Counts mail that main finds undeliverable.
    pub(crate) fn lose(&mut self, key: MailKey, from: AgentId, to: AgentId, topic: Topic) {
        self.count_undeliverable();
        let time = self.time;
        let key = maslite_core::internal::lost_when_posted(time, self.superstep, key);
        self.note_lost(key, LostMail::new(time, from, to, topic));
    }

    /// Keeps the first undeliverable mail, in the kernel's order.
    pub(crate) fn note_lost(&mut self, key: LostKey, lost: LostMail) {
        let place = self.lost.partition_point(|(known, _)| *known <= key);
        if place < maslite_core::Report::LOST_KEPT {
            self.lost.insert(place, (key, lost));
            self.lost.truncate(maslite_core::Report::LOST_KEPT);
        }
    }

    /// Whether mail that is lost now may be among the first.
    pub(crate) fn keeps_lost(&self) -> bool {
        let last = self.lost.last();
        self.lost.len() < maslite_core::Report::LOST_KEPT
            || last.is_some_and(|(key, _)| key[..2] >= [self.time.as_nanos(), self.superstep][..])
    }

    /// The digest over all clusters, if they keep one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        if self.has_dropped {
            return None;
        }
        self.reports
            .iter()
            .flatten()
            .try_fold(self.digest.value(), |sum, report| {
                Some(sum.with(report.digest?.into()))
            })
    }
}

/// What has left its cluster and is not yet where it goes; without a lookahead that is so only
/// within a round.
#[derive(Debug)]
pub(crate) struct UnderWay<M> {
    /// Mail to main, with the time it arrives.
    pub(crate) main_mail: Vec<(SimTime, MailKey, Mail<M>)>,
    /// Mail for owners that the senders did not know.
    pub(crate) unrouted: Vec<UnroutedMail>,
    /// Why agents have the run end, with their insertion indices, and when that holds.
    pub(crate) stops: Vec<(SimTime, u64, StopReason)>,
    /// Agents to be removed, and where that was asked.
    pub(crate) removals: Vec<(Removal, usize)>,
    /// Agents that wait for their insertion indices.
    pub(crate) births: Vec<Births>,
    /// Deliveries that are not written down yet.
    pub(crate) lines: Vec<TraceLine>,
    /// Which mail of main and of the owner makes a round trip.
    pub(crate) trips: Trips,
}

impl<M> Default for UnderWay<M> {
    fn default() -> Self {
        Self {
            main_mail: Vec::new(),
            unrouted: Vec::new(),
            stops: Vec::new(),
            removals: Vec::new(),
            births: Vec::new(),
            lines: Vec::new(),
            trips: Trips::default(),
        }
    }
}

impl<M> UnderWay<M> {
    /// The place of the cluster in which an agent lives that waits for its insertion index.
    pub(crate) fn birthplace(&self, id: AgentId) -> Option<usize> {
        let births = self.births.iter().find(|births| births.include(id));
        births.map(|births| births.place)
    }

    /// Hands over what happened before a time, or all there is, in order.
    pub(crate) fn write_trace_before(
        &mut self,
        time: Option<SimTime>,
        trace: &mut Option<TraceSink>,
    ) {
        self.lines
            .sort_by_key(|line| (line.time, line.superstep, line.index));
        let ready = match time {
            Some(time) => self.lines.partition_point(|line| line.time < time),
            None => self.lines.len(),
        };
        for line in self.lines.drain(..ready) {
            if let Some(sink) = trace {
                sink(&line.text);
            }
        }
    }
}

/// Agents that wait for their insertion indices, and with them their cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Births {
    pub(crate) time: SimTime,
    pub(crate) superstep: u64,
    pub(crate) place: usize,
    pub(crate) newborn: Vec<Newborn>,
}

impl Births {
    pub(crate) fn key(&self) -> (SimTime, u64, usize) {
        (self.time, self.superstep, self.place)
    }

    pub(crate) fn include(&self, id: AgentId) -> bool {
        self.newborn.iter().any(|newborn| newborn.id == id)
    }
}

/// Mail whose receiver only main can find, when it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnroutedMail {
    pub(crate) arrives: SimTime,
    pub(crate) sender: usize,
    pub(crate) receiver: AgentId,
    pub(crate) bytes: Vec<u8>,
}

/// Gets the lines of a trace, in order.
pub(crate) type TraceSink = Box<dyn FnMut(&str) + Send>;
