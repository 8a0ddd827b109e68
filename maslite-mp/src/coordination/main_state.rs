//! What main knows between two runs, as one value: with the states of the clusters it is all there
//! is of a simulation.

use maslite_core::internal::{ContentSum, DigestSum, LostKey, MailKey, MainShare};
use maslite_core::{AgentId, LostMail, Mail, Receiver, SimTime, StopReason};
use serde::{Deserialize, Serialize};

use crate::cluster::registry::WireMessage;
use crate::coordination::routing::{Routing, RoutingState};
use crate::coordination::state::{Births, Standing, UnderWay, UnroutedMail};
use crate::links::codec;
use crate::protocol::wire::{Removal, TraceLine};

/// What main knows, but for its settings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MainState<M> {
    /// What an engine that is alone would keep itself.
    pub(crate) share: MainShare,
    pub(crate) routing: RoutingState,
    /// The first undeliverable mail.
    pub(crate) lost: Vec<(LostKey, LostMail)>,
    pub(crate) owner_sequence: u64,
    /// The owner's mail for the next run.
    pub(crate) queued: Vec<(AgentId, Receiver, M)>,
    pub(crate) under_way: UnderWayState<M>,
}

/// What has left its cluster and is not yet where it goes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnderWayState<M> {
    main_mail: Vec<MainMail<M>>,
    unrouted: Vec<UnroutedMail>,
    stops: Vec<(SimTime, u64, StopReason)>,
    removals: Vec<(Removal, u64)>,
    births: Vec<Births>,
    lines: Vec<TraceLine>,
}

/// Mail to main.
#[derive(Debug, Serialize, Deserialize)]
struct MainMail<M> {
    arrives: SimTime,
    key: MailKey,
    sender: AgentId,
    receiver: Receiver,
    body: M,
}

impl<M> Default for UnderWayState<M> {
    fn default() -> Self {
        Self {
            main_mail: Vec::new(),
            unrouted: Vec::new(),
            stops: Vec::new(),
            removals: Vec::new(),
            births: Vec::new(),
            lines: Vec::new(),
        }
    }
}

impl<M> UnderWayState<M> {
    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.main_mail.is_empty()
            && self.unrouted.is_empty()
            && self.stops.is_empty()
            && self.removals.is_empty()
            && self.births.is_empty()
    }
}

impl<M: WireMessage> MainState<M> {
    /// What main knows. The clusters have been told all news, and all mail is posted.
    pub(crate) fn of(
        standing: &Standing,
        routing: &Routing,
        under_way: &UnderWay<M>,
        queued: &[Mail<M>],
        has_digest: bool,
    ) -> Self {
        let (removed, adders) = routing.past();
        let mut counters = standing.counters;
        counters.supersteps = standing.supersteps;
        let share = MainShare {
            time: standing.time,
            superstep: standing.superstep,
            next_index: standing.next_index,
            counters,
            digest: has_digest.then(|| standing.digest.value()),
            content: standing.content.as_ref().map(ContentSum::value),
            marks: has_digest.then(|| standing.marks.clone()),
            removed,
            adders,
            heard: standing.heard.clone(),
            first_lost: standing.lost.iter().map(|(key, _)| *key).collect(),
            delivered: standing.delivered,
            sequence: standing.sequence,
        };
        Self {
            share,
            routing: routing.export(),
            lost: standing.lost.clone(),
            owner_sequence: standing.owner_sequence,
            queued: parts_of(queued),
            under_way: UnderWayState::of(under_way),
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// If a message cannot be encoded.
    pub(crate) fn encode(&self) -> postcard::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        codec::put(self, &mut bytes)?;
        Ok(bytes)
    }

    /// From [`encode`](Self::encode).
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        codec::decode(bytes).map_err(|why| why.to_string())
    }

    /// Whether it is of a simulation with this number of clusters.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check(&self, clusters: usize) -> Result<(), &'static str> {
        let under_way = &self.under_way;
        let routing = &self.routing;
        let owners = routing.owners.iter().map(|(_, cluster)| *cluster);
        let interest = routing.interest.iter().map(|(cluster, _)| *cluster);
        let removals = under_way.removals.iter().map(|(_, place)| *place);
        let births = under_way.births.iter().map(|births| births.place as u64);
        let unrouted = under_way.unrouted.iter().map(|mail| mail.sender as u64);
        let known = owners.chain(interest).map(u64::from);
        let mut places = known.chain(removals).chain(births).chain(unrouted);
        if places.any(|place| place >= clusters as u64) {
            return Err("it speaks of a cluster that is not in it");
        }
        Ok(())
    }

    /// The owner's mail.
    pub(crate) fn take_queued(&mut self) -> Vec<Mail<M>> {
        let queued = std::mem::take(&mut self.queued).into_iter();
        let mail = |(sender, receiver, body)| Mail::new(sender, receiver, body);
        queued.map(mail).collect()
    }

    /// Has a main that has just started its clusters go on from here.
    pub(crate) fn restore(
        self,
        standing: &mut Standing,
        routing: &mut Routing,
        under_way: &mut UnderWay<M>,
    ) {
        let share = self.share;
        standing.time = share.time;
        standing.superstep = share.superstep;
        standing.supersteps = share.counters.supersteps;
        standing.next_index = share.next_index;
        standing.counters = share.counters;
        standing.lost = self.lost;
        standing.heard = share.heard;
        if let Some(digest) = share.digest {
            standing.digest = DigestSum::resumed(digest);
        }
        standing.content = share.content.map(ContentSum::resumed);
        if let Some(marks) = share.marks {
            standing.marks = marks;
        }
        standing.delivered = share.delivered;
        standing.sequence = share.sequence;
        standing.owner_sequence = self.owner_sequence;
        routing.restore(self.routing, (share.removed, share.adders));
        self.under_way.restore(under_way);
    }
}

/// Mail in parts that can be written down.
pub(crate) fn parts_of<M: Clone>(mails: &[Mail<M>]) -> Vec<(AgentId, Receiver, M)> {
    let mails = mails.iter();
    let mail = |mail: &Mail<M>| (mail.sender, mail.receiver, mail.body.clone());
    mails.map(mail).collect()
}

impl<M: WireMessage> UnderWayState<M> {
    fn of(under_way: &UnderWay<M>) -> Self {
        let main_mail = under_way.main_mail.iter();
        let main_mail = main_mail.map(|(arrives, key, mail)| MainMail {
            arrives: *arrives,
            key: *key,
            sender: mail.sender,
            receiver: mail.receiver,
            body: mail.body.clone(),
        });
        let removals = under_way.removals.iter();
        Self {
            main_mail: main_mail.collect(),
            unrouted: under_way.unrouted.clone(),
            stops: under_way.stops.clone(),
            removals: removals
                .map(|(removal, place)| (*removal, *place as u64))
                .collect(),
            births: under_way.births.clone(),
            lines: under_way.lines.clone(),
        }
    }

    fn restore(self, under_way: &mut UnderWay<M>) {
        let main_mail = self.main_mail.into_iter();
        let main_mail = main_mail.map(|mail| {
            let parts = Mail::new(mail.sender, mail.receiver, mail.body);
            (mail.arrives, mail.key, parts)
        });
        under_way.main_mail = main_mail.collect();
        under_way.unrouted = self.unrouted;
        under_way.stops = self.stops;
        let removals = self.removals.into_iter();
        under_way.removals = removals
            .map(|(removal, place)| (removal, usize::try_from(place).unwrap_or(usize::MAX)))
            .collect();
        under_way.births = self.births;
        under_way.lines = self.lines;
    }
}

#[cfg(test)]
mod tests {
    use maslite_core::internal::{Adders, CountersInternals, IdSet, LostMailInternals, Newborn};
    use maslite_core::{Adder, Counters, Covers, Digest, Marks, Message, Pattern, Topic};

    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize, Message)]
    enum Msg {
        Word(u32),
    }

    fn id(number: u64) -> AgentId {
        AgentId::from(number)
    }

    fn at(time: u64) -> SimTime {
        SimTime::from_nanos(time)
    }

    fn full_share() -> MainShare {
        let mut removed = IdSet::default();
        removed.insert(id(5));
        let mut adders = Adders::default();
        adders.insert(id(2), Adder::Agent(id(1), at(2)));
        let mut marks = Marks::new(Covers::Contents);
        marks.add(at(2), 99);
        MainShare {
            time: at(4),
            superstep: 3,
            next_index: 21,
            counters: Counters::from_numbers([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
            digest: Some(Digest::from(22)),
            content: Some(Digest::from(23)),
            marks: Some(marks),
            removed,
            adders,
            heard: [Topic::new("Word")].into(),
            first_lost: vec![[1; 6]],
            delivered: 24,
            sequence: 25,
        }
    }

    fn full_under_way() -> UnderWayState<Msg> {
        let removal = Removal {
            id: id(1),
            by: id(2),
            index: 1,
            time: at(9),
        };
        let newborn = Newborn {
            id: id(7),
            adder: 1,
            by: id(2),
            time: at(4),
            superstep: 2,
        };
        UnderWayState {
            main_mail: vec![MainMail {
                arrives: at(8),
                key: MailKey::of_agent(at(3), 1, 26),
                sender: id(2),
                receiver: Receiver::Agent(AgentId::MAIN),
                body: Msg::Word(27),
            }],
            unrouted: vec![UnroutedMail {
                arrives: at(8),
                sender: 1,
                receiver: id(7),
                bytes: vec![28],
            }],
            stops: vec![(at(9), 1, StopReason::StoppedByAgent(id(2)))],
            removals: vec![(removal, 1)],
            births: vec![Births {
                time: at(4),
                superstep: 2,
                place: 1,
                newborn: vec![newborn],
            }],
            lines: vec![TraceLine {
                time: at(4),
                superstep: 2,
                index: 1,
                text: "a line".to_owned(),
            }],
        }
    }

    /// A state in which nothing is as in a new main. A field that is new belongs here, too.
    fn full_state() -> MainState<Msg> {
        let lost = LostMail::new(at(1), id(1), id(5), Topic::new("Word"));
        MainState {
            share: full_share(),
            routing: RoutingState {
                owners: vec![(id(1), 0), (id(2), 1)],
                interest: vec![(1, Pattern::topic("Word"))],
            },
            lost: vec![([1; 6], lost)],
            owner_sequence: 29,
            queued: vec![(id(3), Receiver::Agent(id(1)), Msg::Word(30))],
            under_way: full_under_way(),
        }
    }

    #[test]
    fn a_main_that_is_restored_is_saved_as_it_was() {
        let (mut standing, mut routing) = (Standing::default(), Routing::default());
        let mut under_way = UnderWay::default();
        let saved = || MainState::<Msg>::decode(&full_state().encode().unwrap()).unwrap();
        let mut state = saved();
        let queued = state.take_queued();
        state.restore(&mut standing, &mut routing, &mut under_way);
        let again = MainState::of(&standing, &routing, &under_way, &queued, true);
        assert_eq!(format!("{again:#?}"), format!("{:#?}", saved()));
    }
}
