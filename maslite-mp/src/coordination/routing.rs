//! Which cluster owns which agent, who listens to what, and what waits for each cluster.

use std::collections::{BTreeMap, BTreeSet};

use maslite_core::internal::{Adders, AgentIdInternals, IdSet, MailingList};
use maslite_core::{Adder, AgentId, Pattern, Receiver, SimTime, Topic};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::protocol::rare::Rare;
use crate::protocol::wire::News;
use crate::settings::{ClusterId, SimulationId};

/// What main knows of the clusters' agents, and has for the clusters.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Of which simulation the clusters are.
    pub(crate) simulation: SimulationId,
    /// The clusters, in the order in which they were made.
    pub(crate) ids: Vec<ClusterId>,
    owners: FxHashMap<AgentId, u32>,
    /// Agents that have gone.
    gone: IdSet,
    adders: Adders,
    /// How many have gone since the clusters were last told to forget routes.
    forgettable: usize,
    /// Clusters are its subscribers.
    interest: MailingList,
    pub(crate) inbound: Vec<Inbound>,
    /// The news of some cluster has many changes of interest.
    pub(crate) has_long_news: bool,
    interested: Vec<u32>,
    /// Mail relayed to a cluster: one for each that gets it.
    pub(crate) routed: u64,
    pub(crate) traffic: Traffic,
}

/// When fewer agents have gone, clusters need not forget the routes to them.
const FEW_GONE: usize = 1024;

/// Fewer changes of interest in the news for a cluster are left as they are.
const MANY_CHANGES: usize = 256;

/// A change of interest, as clusters are told it: whose it is, in what, whether it begins, and for
/// mail from when on.
type Change = (u32, Pattern, bool, SimTime);

/// Takes out what comes to nothing for mail that leaves at `until` or later.
fn condense(changes: &mut Vec<Change>, until: SimTime) {
    // The first change tells what the cluster knew before: the opposite.
    let mut firsts: BTreeMap<(u32, Pattern), bool> = BTreeMap::new();
    let mut lasts: BTreeMap<(u32, Pattern), usize> = BTreeMap::new();
    for (place, (cluster, pattern, begins, from)) in changes.iter().enumerate() {
        if *from <= until {
            firsts.entry((*cluster, *pattern)).or_insert(*begins);
            lasts.insert((*cluster, *pattern), place);
        }
    }
    let mut place = 0..;
    changes.retain(|(cluster, pattern, begins, from)| {
        let place = place.next();
        let key = (*cluster, *pattern);
        let is_last = lasts.get(&key).copied() == place;
        *from > until || is_last && firsts.get(&key) == Some(begins)
    });
}

/// What main passed on, by where it came from and where it went. Main is the first place, the
/// clusters come after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// For each place what went from it, and where, in ascending order: most talk to few.
    rows: Vec<Vec<(usize, Crossing)>>,
    /// Mail that each place got, and sent.
    got_and_sent: Vec<(u64, u64)>,
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
        self.got_and_sent.resize(places, (0, 0));
    }

    /// Counts mail from one place to another.
    #[inline]
    pub(crate) fn count(&mut self, from: usize, to: usize, mails: u32, bytes: usize) {
        let row = &mut self.rows[from];
        let place = row.binary_search_by_key(&to, |(to, _)| *to);
        let place = place.unwrap_or_else(|place| {
            row.insert(place, (to, Crossing::default()));
            place
        });
        let crossing = &mut row[place].1;
        crossing.mails += u64::from(mails);
        crossing.bytes += bytes as u64;
        self.got_and_sent[to].0 += u64::from(mails);
        self.got_and_sent[from].1 += u64::from(mails);
    }

    /// Returns what was passed on since an earlier time, when it was `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (row, before) in since.rows.iter_mut().zip(&before.rows) {
            for (to, Crossing { mails, bytes }) in before {
                if let Ok(place) = row.binary_search_by_key(to, |(to, _)| *to) {
                    row[place].1.mails -= mails;
                    row[place].1.bytes -= bytes;
                }
            }
        }
        for (now, before) in since.got_and_sent.iter_mut().zip(&before.got_and_sent) {
            *now = (now.0 - before.0, now.1 - before.1);
        }
        since
    }

    /// What came from each place, with the places that it went to, in ascending order.
    pub(crate) fn rows(&self) -> &[Vec<(usize, Crossing)>] {
        &self.rows
    }

    /// Mail that a place has got, and sent.
    pub(crate) fn in_and_out(&self, place: usize) -> (u64, u64) {
        self.got_and_sent[place]
    }
}

/// What a cluster is to be told in its next grant. Its mail is in the message already.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// How much mail that is.
    pub(crate) mails: u64,
    /// When the first of it arrives, under a lookahead.
    pub(crate) earliest: Option<SimTime>,
    /// When the first alarm is due that was forecast for it.
    pub(crate) first_forecast: Option<SimTime>,
    pub(crate) news: Rare<News>,
    /// How many of the names that this process has heard of it was told.
    names_told: usize,
    /// How many changes of interest in the news are many.
    condense_at: usize,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            mails: 0,
            earliest: None,
            first_forecast: None,
            news: Rare::default(),
            names_told: 0,
            condense_at: MANY_CHANGES,
        }
    }
}

impl Inbound {
    /// Whether others have begun to listen to something, which it has not been told: its alarms may
    /// leave although it does not know.
    pub(crate) fn brings_listeners(&self) -> bool {
        let mut interest = self.news.interest.iter();
        interest.any(|(_, _, begins, _)| *begins)
    }

    /// Puts the names among the news that this process has heard of since: of agents, and of those
    /// that were written to, so that two with one id are found where they meet, and all processes
    /// write the same traces.
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

/// What main knows of the clusters' agents, as it is saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoutingState {
    /// The cluster of each agent, by id.
    pub(crate) owners: Vec<(AgentId, u32)>,
    /// What each cluster listens to.
    pub(crate) interest: Vec<(u32, Pattern)>,
}

impl Routing {
    /// What is saved of it, but for agents that are gone and who added whom.
    pub(crate) fn export(&self) -> RoutingState {
        let mut owners: Vec<_> = self.owners.iter().map(|(id, at)| (*id, *at)).collect();
        owners.sort_unstable();
        RoutingState {
            owners,
            interest: self.interest.iter().collect(),
        }
    }

    /// The ids of the agents that are gone, and who added agents.
    pub(crate) fn past(&self) -> (IdSet, Adders) {
        (self.gone.clone(), self.adders.clone())
    }

    /// Takes up what was saved. Clusters that were restored know what others listen to.
    pub(crate) fn restore(&mut self, state: RoutingState, (gone, adders): (IdSet, Adders)) {
        self.owners = state.owners.into_iter().collect();
        for (cluster, pattern) in state.interest {
            self.interest.subscribe(cluster, pattern);
        }
        (self.gone, self.adders) = (gone, adders);
    }

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
        let is_gone = self.gone.contains(id);
        if is_gone || self.owners.contains_key(&id) {
            let first = self.adders.adder(id, is_gone);
            let second = adder;
            return Err(maslite_core::Error::DuplicateAgent { id, first, second });
        }
        self.owners.insert(id, cluster);
        self.adders.insert(id, adder);
        Ok(())
    }

    /// The topics to which agents listen and that are not among those that were heard.
    pub(crate) fn silent_topics(&self, heard: &BTreeSet<Topic>) -> Vec<Topic> {
        let mut topics = self.interest.topics();
        topics.retain(|topic| !heard.contains(topic));
        topics
    }

    /// Notes that an agent of a cluster is gone. What a cluster says of agents elsewhere changes
    /// nothing.
    pub(crate) fn note_gone(&mut self, id: AgentId, cluster: u32) {
        if self.owner(id) != Some(cluster) {
            return;
        }
        self.owners.remove(&id);
        self.gone.insert(id);
        self.adders.note_gone(id);
        self.forgettable += 1;
        // As often as that costs each of those that have gone little.
        if self.forgettable >= FEW_GONE.max(self.owners.len()) {
            self.forgettable = 0;
            for inbound in &mut self.inbound {
                // Routes that are told with it are of agents that are there.
                inbound.news.forget_routes = true;
            }
        }
    }

    /// Whether an agent was there and is gone.
    pub(crate) fn is_gone(&self, id: AgentId) -> bool {
        self.gone.contains(id)
    }

    /// The cluster that an agent lives in.
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
        pattern: Pattern,
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
                self.has_long_news |= inbound.news.interest.len() >= inbound.condense_at;
            }
        }
    }

    /// Ends all that the agents of a cluster listen to.
    pub(crate) fn end_interest(&mut self, cluster: usize) {
        let cluster = u32::try_from(cluster).unwrap_or(u32::MAX);
        let interest = self.interest.iter();
        let own = interest.filter(|(other, _)| *other == cluster);
        let patterns: Vec<Pattern> = own.map(|(_, pattern)| pattern).collect();
        for pattern in patterns {
            self.note_interest(cluster, pattern, false, SimTime::ZERO);
        }
    }

    /// Takes changes of interest out of the news that others have undone, where there are many of
    /// them: a cluster that has nothing to do is told nothing for long. No mail leaves before
    /// `until` any more.
    #[cold]
    pub(crate) fn condense_news(&mut self, until: SimTime) {
        self.has_long_news = false;
        for inbound in &mut self.inbound {
            if inbound.news.interest.len() >= inbound.condense_at {
                condense(&mut inbound.news.interest, until);
                inbound.condense_at = MANY_CHANGES.max(2 * inbound.news.interest.len());
            }
        }
    }

    /// Notes mail that is relayed to a cluster, from a place as [`Traffic`] counts them. The first
    /// of it arrives at `earliest`, under a lookahead.
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

    /// Notes an alarm that is forecast for a cluster, from a place as [`Traffic`] counts them.
    pub(crate) fn note_forecast(&mut self, from: usize, cluster: u32, bytes: usize, due: SimTime) {
        self.routed += 1;
        let to = Traffic::place_of(cluster as usize);
        self.traffic.count(from, to, 1, bytes);
        let first = &mut self.inbound[cluster as usize].first_forecast;
        *first = Some(first.map_or(due, |first| first.min(due)));
    }

    /// Whether agents listen to anything.
    pub(crate) fn has_listeners(&self) -> bool {
        !self.interest.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_interest_that_come_to_nothing_are_taken_out() {
        let (early, late) = (SimTime::from_millis(1), SimTime::from_millis(9));
        let (word, call, old) = (
            Pattern::topic("Word"),
            Pattern::topic("Call"),
            Pattern::topic("Old"),
        );
        let mut changes = vec![
            (1, word, true, early),
            (1, old, false, early),
            (2, word, true, early),
            (1, word, false, early),
            (2, word, false, early),
            (1, old, true, early),
            (2, word, true, early),
            (1, call, false, early),
            (1, call, true, late),
            (1, call, false, late),
        ];
        condense(&mut changes, SimTime::from_millis(5));
        let left = [
            (2, word, true, early),
            (1, call, false, early),
            (1, call, true, late),
            (1, call, false, late),
        ];
        assert_eq!(changes, left);
    }

    #[test]
    fn an_agent_that_is_gone_is_forgotten_but_for_its_id() {
        let mut routing = Routing::default();
        (0..3).for_each(|_| routing.add_cluster());
        let (id, by) = (AgentId::from(7_u64), AgentId::from(5_u64));
        let adder = Adder::Agent(by, SimTime::ZERO);
        routing.insert(id, 1, adder).unwrap();
        routing.note_gone(id, 2);
        assert_eq!(routing.owner(id), Some(1), "it is not the other's");
        routing.note_gone(id, 1);
        assert_eq!((routing.owner(id), routing.is_gone(id)), (None, true));
        let again = routing.insert(id, 1, Adder::Owner).unwrap_err();
        let (first, second) = (adder, Adder::Owner);
        let error = maslite_core::Error::DuplicateAgent { id, first, second };
        assert_eq!(again, error);
        for number in 10..10 + FEW_GONE as u64 {
            let id = AgentId::from(number);
            routing.insert(id, 0, Adder::Owner).unwrap();
            routing.note_gone(id, 0);
        }
        assert!(
            routing
                .inbound
                .iter()
                .all(|inbound| inbound.news.forget_routes)
        );
    }

    #[test]
    fn traffic_takes_memory_for_those_who_talk() {
        let mut traffic = Traffic::default();
        (0..10_000).for_each(|_| traffic.add_cluster());
        traffic.count(9_000, 3, 2, 20);
        traffic.count(9_000, Traffic::MAIN, 1, 10);
        traffic.count(9_000, 3, 1, 5);
        let crossing = |mails, bytes| Crossing { mails, bytes };
        let row = [(Traffic::MAIN, crossing(1, 10)), (3, crossing(3, 25))];
        assert_eq!(traffic.rows()[9_000], row);
        assert_eq!(
            (traffic.in_and_out(3), traffic.in_and_out(9_000)),
            ((3, 0), (0, 4))
        );
        let rows = traffic.rows().iter();
        assert_eq!(rows.map(Vec::capacity).filter(|room| *room > 0).count(), 1);
    }
}
