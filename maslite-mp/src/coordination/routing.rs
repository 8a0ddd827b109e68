//! Which cluster owns which agent, who listens to what, and what waits for each cluster.

use std::collections::BTreeMap;

use maslite_core::{Adder, AgentId, MailingList, Receiver, SimTime, Topic};
use rustc_hash::FxHashMap;

use crate::protocol::rare::Seldom;
use crate::protocol::wire::News;
use crate::settings::SimulationId;

/// What main knows of the clusters' agents, and has for the clusters.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Of which simulation the clusters are.
    pub(crate) simulation: SimulationId,
    owners: FxHashMap<AgentId, u32>,
    /// Who added the agents that agents added.
    adders: BTreeMap<AgentId, (AgentId, SimTime)>,
    /// Clusters are its subscribers.
    interest: MailingList,
    pub(crate) inbound: Vec<Inbound>,
    interested: Vec<u32>,
    /// Mail relayed to a cluster: one for each that gets it.
    pub(crate) routed: u64,
    pub(crate) traffic: Traffic,
}

/// What main passed on, by where it came from and where it went. Main is the first place, the clusters
/// come after it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    rows: Vec<Vec<Crossing>>,
}

/// Mail that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crossing {
    pub(crate) mails: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    /// Where main is.
    pub(crate) const MAIN: usize = 0;

    /// Where a cluster is.
    pub(crate) const fn place_of(cluster: usize) -> usize {
        cluster + 1
    }

    fn add_cluster(&mut self) {
        let places = self.rows.len().max(1) + 1;
        self.rows.resize_with(places, Vec::new);
        for row in &mut self.rows {
            row.resize(places, Crossing::default());
        }
    }

    /// Counts mail from one place to another.
    #[inline]
    pub(crate) fn count(&mut self, from: usize, to: usize, mails: u32, bytes: usize) {
        let crossing = &mut self.rows[from][to];
        crossing.mails += u64::from(mails);
        crossing.bytes += bytes as u64;
    }

    /// What came from each place, by where it went.
    pub(crate) fn rows(&self) -> &[Vec<Crossing>] {
        &self.rows
    }

    /// Mail that a place has got, and sent.
    pub(crate) fn in_and_out(&self, place: usize) -> (u64, u64) {
        let came = self.rows.iter().map(|row| row[place].mails).sum();
        let went = self.rows[place].iter().map(|crossing| crossing.mails).sum();
        (came, went)
    }
}

/// What a cluster is to be told in its next grant. Its mail is in the message already.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// How much mail that is.
    pub(crate) mails: u64,
    /// When the first of it arrives, under a lookahead.
    pub(crate) earliest: Option<SimTime>,
    pub(crate) news: Seldom<News>,
    /// How many of the names that this process has heard of it was told.
    names_told: usize,
}

impl Inbound {
    /// Whether others have begun to listen to something, which it has not been told: its alarms may leave although it does not know.
    pub(crate) fn brings_listeners(&self) -> bool {
        let mut interest = self.news.interest.iter();
        interest.any(|(_, _, begins, _)| *begins)
    }

    /// Puts the names among the news that this process has heard of since: of agents, and of those that were written to, so that two
    /// with one id are found where they meet, and all processes write the same traces.
    #[inline]
    pub(crate) fn tell_names(&mut self) {
        let fresh = AgentId::names_since(&mut self.names_told);
        if !fresh.is_empty() {
            self.news.names.extend(fresh);
        }
    }

    /// Whether it must be told in this superstep.
    pub(crate) fn is_urgent(&self) -> bool {
        self.mails > 0 || !self.news.dismissed.is_empty()
    }
}

impl Routing {
    pub(crate) fn add_cluster(&mut self) {
        self.inbound.push(Inbound::default());
        self.traffic.add_cluster();
    }

    /// Makes an agent known.
    ///
    /// # Errors
    /// [`maslite_core::Error::DuplicateAgent`] and [`maslite_core::Error::BadId`].
    pub(crate) fn insert(
        &mut self,
        id: AgentId,
        cluster: u32,
        adder: Adder,
    ) -> Result<(), maslite_core::Error> {
        id.check()?;
        if self.owners.contains_key(&id) {
            let first = match self.adders.get(&id) {
                Some((by, time)) => Adder::Agent(*by, *time),
                None => Adder::Owner,
            };
            let second = adder;
            return Err(maslite_core::Error::DuplicateAgent { id, first, second });
        }
        self.owners.insert(id, cluster);
        if let Adder::Agent(by, time) = adder {
            self.adders.insert(id, (by, time));
        }
        Ok(())
    }

    /// The cluster that an agent lives, or lived, in.
    pub(crate) fn owner(&self, id: AgentId) -> Option<u32> {
        self.owners.get(&id).copied()
    }

    /// Makes the clusters in `from` and after it known to others, and others to them.
    pub(crate) fn tell_interest(&mut self, cluster: usize) {
        for (other, pattern) in self.interest.iter() {
            if other as usize != cluster {
                let news = &mut self.inbound[cluster].news;
                news.interest.push((other, pattern, true, SimTime::ZERO));
            }
        }
    }

    /// Notes that the agents of a cluster began or ceased to listen to something, for mail that
    /// leaves at `from` or later.
    pub(crate) fn note_interest(
        &mut self,
        cluster: u32,
        pattern: maslite_core::Pattern,
        begins: bool,
        from: SimTime,
    ) {
        if begins {
            self.interest.subscribe(cluster, pattern);
        } else {
            self.interest.unsubscribe(cluster, pattern);
        }
        for (other, inbound) in (0..).zip(&mut self.inbound) {
            if other != cluster {
                let change = (cluster, pattern, begins, from);
                inbound.news.interest.push(change);
            }
        }
    }

    /// Notes mail that is relayed to a cluster, from a place as [`Traffic`] counts them. The first of it arrives at `earliest`,
    /// under a lookahead.
    pub(crate) fn note_mail(
        &mut self,
        from: usize,
        cluster: u32,
        mails: u32,
        bytes: usize,
        earliest: SimTime,
    ) {
        self.routed += u64::from(mails);
        let to = Traffic::place_of(cluster as usize);
        self.traffic.count(from, to, mails, bytes);
        let inbound = &mut self.inbound[cluster as usize];
        inbound.mails += u64::from(mails);
        let first = inbound
            .earliest
            .map_or(earliest, |first| first.min(earliest));
        inbound.earliest = Some(first);
    }

    /// The clusters that mail of main goes to.
    pub(crate) fn destinations(
        &mut self,
        sender: AgentId,
        receiver: Receiver,
        topic: Topic,
    ) -> Vec<u32> {
        self.interested.clear();
        if !matches!(receiver, Receiver::Direct(_)) {
            let interested = &mut self.interested;
            self.interest
                .recipients(sender, receiver.agent(), topic, interested);
        }
        let owner = receiver.agent().and_then(|id| self.owner(id));
        let mut clusters = self.interested.clone();
        clusters.extend(owner);
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }
}
