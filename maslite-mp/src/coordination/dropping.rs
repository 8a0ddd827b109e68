//! How a cluster is dropped, and what the others must know.
//!
//! Its agents stay known as agents of that cluster, so that mail for them is brought to where they
//! were. A scheduler without agents is there, which counts the mail as undeliverable. What the cluster
//! had counted until its last report is added to the reports of that scheduler.

use maslite_core::SimTime;
use tracing::warn;

use crate::cluster::registry::WireMessage;
use crate::coordination::clusters::Clusters;
use crate::coordination::rounds::Rounds;
use crate::error::Error;
use crate::error::link::LinkError;
use crate::error::recovery::Dropped;
use crate::error::warning::Warning;
use crate::protocol::wire::Report;
use crate::recovery::{Kept, Remains, vacant};

impl Clusters {
    /// That a cluster was dropped, if it was.
    pub(crate) fn dropped(&self, place: usize) -> Option<&Dropped> {
        let remains = self.list.get(place)?.remains.as_ref()?;
        Some(&remains.dropped)
    }

    /// Puts a scheduler without agents in the place of a cluster whose link broke, and gives it what
    /// the cluster had not answered.
    pub(super) fn drop_cluster(
        &mut self,
        place: usize,
        error: LinkError,
        kept: &Kept,
        time: SimTime,
    ) -> Result<(), Error> {
        let pid = self.list[place].pid;
        let death = self.backend.reap_lost(pid, false);
        let Some((death, restart)) = death.zip(self.restart.as_ref()) else {
            return Err(self.explain(place, error, time));
        };
        let name = &self.list[place].name;
        let mut link = match vacant(&*restart.model, name, kept.log.settings()) {
            Ok(link) => link,
            Err(error) => return Err(self.explain(place, error, time)),
        };
        let told = match kept.log.outstanding() {
            Some(message) => link.say(message),
            None => Ok(()),
        };
        let cluster = &mut self.list[place];
        let salvaged = cluster.link.as_mut().map(|link| link.salvage());
        let salvaged = salvaged.unwrap_or_default();
        let written = told.and_then(|()| {
            link.draft()?.extend(&salvaged);
            Ok(())
        });
        let dropped = Dropped {
            cluster: cluster.name.clone(),
            death,
            time,
        };
        cluster.carrier = None;
        cluster.link = Some(link);
        cluster.remains = Some(Box::new(Remains::new(dropped.clone())));
        if let Err(error) = written {
            return Err(self.explain(place, error, time));
        }
        self.tell_of_drop(place, dropped, time)
    }

    /// Tells of a cluster that was dropped.
    ///
    /// # Errors
    /// [`Error::NoneLeft`]
    fn tell_of_drop(&mut self, place: usize, dropped: Dropped, time: SimTime) -> Result<(), Error> {
        warn!(target: "maslite", "{dropped}");
        self.backend.warn(Warning::Dropped(dropped.clone()));
        self.control_queue.snapshot.note_drop(dropped.clone());
        self.newly_dropped.push(place);
        self.dropped.push(dropped);
        if self.list.iter().any(|cluster| cluster.remains.is_none()) {
            return Ok(());
        }
        let deaths = self.dropped.iter().map(|dropped| dropped.death.clone());
        Err(Error::NoneLeft {
            time,
            deaths: deaths.collect(),
        })
    }
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Adds what a cluster that was dropped had counted to a report of what stands in its place.
    #[cold]
    pub(super) fn add_remains(&mut self, place: usize, report: &mut Report) {
        let last = self.standing.reports[place].as_ref();
        if let Some(remains) = &mut self.clusters.list[place].remains {
            remains.add_to(report, last);
        }
    }

    /// Ends the subscriptions of clusters that were dropped in this round. Digests mean nothing from
    /// here on.
    pub(super) fn settle_drops(&mut self) {
        for place in std::mem::take(&mut self.clusters.newly_dropped) {
            self.standing.has_dropped = true;
            self.routing.end_interest(place);
        }
    }
}
