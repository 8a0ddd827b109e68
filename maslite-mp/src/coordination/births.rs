//! What reports change of the agents there are: births, removals, and mail whose receiver was not
//! known.

use std::mem;

use maslite_core::internal::{FailurePlace, FailureStage, Newborn};
use maslite_core::{Adder, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::main_mail::check_name;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Traffic;
use crate::coordination::state::UnroutedMail;
use crate::error::Error;
use crate::protocol::wire::{self, Removal, Task};

/// Newborns as a cluster lists them, each with which one it is of those in its superstep.
pub(crate) fn in_order(newborn: Vec<Newborn>) -> impl Iterator<Item = (u64, Newborn)> {
    let mut last = None;
    let mut sequence = 0;
    newborn.into_iter().map(move |newborn| {
        let superstep = Some((newborn.time, newborn.superstep));
        sequence = if superstep == last { sequence + 1 } else { 0 };
        last = superstep;
        (sequence, newborn)
    })
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Gives the agents that were added in this round their insertion indices, in the order of
    /// supersteps and of who added them. Notes the first id that is taken.
    pub(super) fn number_births(&mut self, tasks: &[(usize, Task)]) {
        let mut births = Vec::new();
        for (place, _) in tasks {
            let newborn = self.take_newborn(*place);
            births.extend(in_order(newborn).map(|(sequence, newborn)| (*place, sequence, newborn)));
        }
        births.sort_by_key(|(_, _, newborn)| (newborn.time, newborn.superstep, newborn.adder));
        for (place, sequence, newborn) in births {
            if !self.add_newborn(place, sequence, &newborn) {
                return;
            }
            self.routing.inbound[place]
                .news
                .numbers
                .push(self.standing.next_index);
            self.standing.next_index += 1;
        }
    }

    /// Notes where a newborn lives; `sequence`: which one it is of those in its superstep and
    /// cluster. False if its id is taken, which is noted as an error.
    pub(crate) fn add_newborn(&mut self, place: usize, sequence: u64, newborn: &Newborn) -> bool {
        let cluster = u32::try_from(place).unwrap_or(u32::MAX);
        let adder = Adder::Agent(newborn.by, newborn.time);
        let Err(source) = self.routing.insert(newborn.id, cluster, adder) else {
            return true;
        };
        let at = FailurePlace {
            time: newborn.time,
            superstep: newborn.superstep,
            stage: FailureStage::Birth,
            index: newborn.adder,
            sequence,
        };
        let cluster = self.clusters.list[place].name.clone();
        self.note_error(at, Error::Agent { cluster, source });
        false
    }

    /// The agents added in a cluster, as its last report tells.
    pub(crate) fn take_newborn(&mut self, place: usize) -> Vec<Newborn> {
        match &mut self.standing.reports[place] {
            Some(report) if !report.events.newborn.is_empty() => {
                mem::take(&mut report.events.newborn)
            }
            _ => Vec::new(),
        }
    }

    /// Finds the clusters of receivers that the senders did not know.
    pub(super) fn find_homes(&mut self) -> Result<(), Error> {
        for mail in mem::take(&mut self.under_way.unrouted) {
            self.route_unrouted(&mail)?;
        }
        Ok(())
    }

    /// Finds the homes that are known already: an agent never moves, so nothing has to wait.
    pub(super) fn find_known_homes(&mut self) -> Result<(), Error> {
        let mails = mem::take(&mut self.under_way.unrouted).into_iter();
        let (known, unknown): (Vec<_>, Vec<_>) =
            mails.partition(|mail| self.routing.owner(mail.receiver).is_some());
        self.under_way.unrouted = unknown;
        known.iter().try_for_each(|mail| self.route_unrouted(mail))
    }

    pub(crate) fn route_unrouted(&mut self, mail: &UnroutedMail) -> Result<(), Error> {
        check_name(mail.receiver)?;
        match self.routing.owner(mail.receiver) {
            Some(cluster) => {
                let from = Traffic::place_of(mail.sender);
                self.relay(from, cluster, 1, &mail.bytes, mail.arrives)?;
                let route = (mail.receiver, cluster);
                self.routing.inbound[mail.sender].news.routes.push(route);
            }
            None if self.standing.keeps_lost() => {
                let what = match wire::take_mail::<M>(&mut &mail.bytes[..]) {
                    Ok((head, mail)) => Some((head, mail.topic())),
                    Err(_) => None,
                };
                match what {
                    Some((head, topic)) => {
                        self.standing
                            .lose(head.key, head.sender, mail.receiver, topic);
                    }
                    // What it was about is in the message alone.
                    None => self.standing.count_undeliverable(),
                }
            }
            None => self.standing.count_undeliverable(),
        }
        Ok(())
    }

    /// Writes mail into the next message to a cluster, from a place as [`Traffic`] counts them. The
    /// first of it arrives at `earliest`, under a lookahead.
    pub(crate) fn relay(
        &mut self,
        from: usize,
        cluster: u32,
        mails: u32,
        bytes: &[u8],
        earliest: SimTime,
    ) -> Result<(), Error> {
        self.routing
            .note_mail(from, cluster, mails, bytes.len(), earliest);
        self.clusters
            .relay(cluster as usize, bytes, self.standing.time)
    }

    /// Tells the clusters of agents that others removed.
    pub(super) fn dismiss(&mut self) {
        let mut removals = mem::take(&mut self.under_way.removals);
        // Of one agent they are in the order of its calls.
        removals.sort_by_key(|(removal, _)| removal.index);
        for (removal, place) in removals {
            self.dismiss_one(removal, place);
        }
    }

    pub(crate) fn dismiss_one(&mut self, removal: Removal, place: usize) {
        let Removal {
            id,
            by,
            index,
            time,
        } = removal;
        if let Err(error) = check_name(id) {
            self.note_error(self.standing.before_the_superstep(), error);
            return;
        }
        if self.routing.is_gone(id) {
            return;
        }
        let owner = self.routing.owner(id);
        if owner.is_some_and(|owner| self.clusters.dropped(owner as usize).is_some()) {
            return;
        }
        let Some(owner) = owner else {
            let at = FailurePlace {
                time,
                superstep: self.standing.superstep.saturating_sub(1),
                stage: FailureStage::Removal,
                index,
                sequence: 0,
            };
            let cluster = self.clusters.list[place].name.clone();
            let source = maslite_core::Error::RemovedUnknown { id, by, time };
            self.note_error(at, Error::Agent { cluster, source });
            return;
        };
        let dismissed = &mut self.routing.inbound[owner as usize].news.dismissed;
        dismissed.push((id, Some(time)));
    }
}
