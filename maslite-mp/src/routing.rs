//! Which cluster owns which agent, who listens to what, and what waits for each cluster.

use std::collections::BTreeMap;

use maslite_core::{Adder, AgentId, MailingList, Receiver, SimTime, Topic};
use rustc_hash::FxHashMap;

use crate::wire::News;

/// What main knows of the clusters' agents, and has for the clusters.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    owners: FxHashMap<AgentId, u32>,
    /// Who added the agents that agents added.
    adders: BTreeMap<AgentId, (AgentId, SimTime)>,
    /// Clusters are its subscribers.
    interest: MailingList,
    pub(crate) inbound: Vec<Inbound>,
    interested: Vec<u32>,
    /// Mail relayed from one cluster to another: one for each that gets it.
    pub(crate) routed: u64,
}

/// What a cluster is to be told in its next grant. Its mail is in the message already.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// How much mail that is.
    pub(crate) mails: u64,
    /// When the first of it arrives, under a lookahead.
    pub(crate) earliest: Option<SimTime>,
    pub(crate) news: News,
}

impl Inbound {
    /// Whether it must be told in this superstep.
    pub(crate) fn is_urgent(&self) -> bool {
        self.mails > 0 || !self.news.dismissed.is_empty()
    }
}

impl Routing {
    pub(crate) fn add_cluster(&mut self) {
        self.inbound.push(Inbound::default());
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

    /// Notes mail that is relayed to a cluster. The first of it arrives at `earliest`, under a lookahead.
    pub(crate) fn note_mail(&mut self, cluster: u32, mails: u32, earliest: SimTime) {
        self.routed += u64::from(mails);
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
