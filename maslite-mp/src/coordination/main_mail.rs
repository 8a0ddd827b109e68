//! Mail to and from main, and the trace.

use std::mem;

use maslite_core::internal::{AgentIdInternals, MailKey, MainContextInternals, guard_model};
use maslite_core::{AgentId, Delivery, Mail, MainContext, SimTime};

use crate::cluster::registry::WireMessage;
use crate::coordination::rounds::Rounds;
use crate::coordination::routing::Traffic;
use crate::error::Error;
use crate::links::round_trip::{self, Difference};
use crate::protocol::layout;
use crate::protocol::wire::{self, MailHead, TraceLine};
use crate::stall::detector::MainState;

/// Code of the model that runs in the process of main: how an error names it if it panics.
const SENT_BY_MAIN: &str =
    "code of a message that main or the owner sends (its topic, encoding, clone or drop)";

const READ_BY_MAIN: &str = "code of a message to main (its topic, encoding or drop)";

const TRACE_FORMAT: &str = "the format of the trace";

/// Makes sure that an id means one agent only.
pub(crate) fn check_name(id: AgentId) -> Result<(), Error> {
    let checked = id.check_name();
    checked.map_err(|collision| Error::Model(collision.into()))
}

impl<M: WireMessage> Rounds<'_, '_, M> {
    /// Writes down what happened before a time, or all there is. Nothing can come before it.
    pub(crate) fn write_trace_before(&mut self, time: Option<SimTime>) {
        if self.under_way.lines.is_empty() {
            return;
        }
        let main_activity = &self.clusters.main_activity;
        main_activity.set(MainState::Trace, self.standing.time);
        self.under_way.write_trace_before(time, self.trace);
        main_activity.set(MainState::Routing, self.standing.time);
    }

    /// Hands mail that has come to main by `time` to the handler, in the kernel's order. True if
    /// it stops.
    pub(crate) fn handle_main_mail(&mut self, time: SimTime) -> Result<bool, Error> {
        let mut mails = mem::take(&mut self.under_way.main_mail);
        mails.sort_by_key(|(arrives, key, _)| (*arrives, *key));
        let later = mails.split_off(mails.partition_point(|(arrives, _, _)| *arrives <= time));
        self.under_way.main_mail = later;
        let mut context = MainContext::new(self.standing.time);
        for (_, key, mail) in mails {
            if self.handler.is_none() {
                let (sender, place) = (mail.sender, self.standing.place());
                let topic = guard_model(Some(READ_BY_MAIN), place, || {
                    let topic = mail.topic();
                    drop(mail);
                    topic
                })?;
                self.standing.lose(key, sender, AgentId::MAIN, topic);
                continue;
            }
            self.count_delivery(&mail)?;
            if let Some(handler) = &mut self.handler {
                self.clusters
                    .main_activity
                    .set(MainState::Handler, self.standing.time);
                context.take_up(key.sent_at());
                handler(mail, &mut context);
                self.clusters
                    .main_activity
                    .set(MainState::Routing, self.standing.time);
            }
        }
        let (replies, stop) = context.into_parts();
        for (receiver, body) in replies {
            let key = MailKey::of_main(self.standing.time, self.standing.sequence);
            self.standing.sequence += 1;
            self.send(key, Mail::new(AgentId::MAIN, receiver, body), true)?;
        }
        Ok(stop)
    }

    fn count_delivery(&mut self, mail: &Mail<M>) -> Result<(), Error> {
        self.standing.counters.sent += 1;
        self.standing.counters.delivered += 1;
        let delivery = Delivery {
            time: self.standing.time,
            superstep: self.standing.superstep,
            agent: AgentId::MAIN,
            index: u64::MAX,
            nth: self.standing.delivered,
            mail,
        };
        self.standing.delivered += 1;
        let place = (delivery.time, delivery.superstep);
        let standing = &mut *self.standing;
        guard_model(Some(READ_BY_MAIN), place, || {
            standing.add_to_digests(&delivery)
        })??;
        let is_traced = self
            .window
            .is_none_or(|window| window.includes(delivery.time));
        if self.trace.is_some() && is_traced {
            let mut text = String::new();
            let format = self.trace_format;
            guard_model(Some(TRACE_FORMAT), place, || format(&delivery, &mut text))?;
            // Main handles its mail before the agents are updated.
            self.under_way.lines.push(TraceLine {
                time: delivery.time,
                superstep: delivery.superstep,
                index: 0,
                text,
            });
        }
        if self.lookaheads.is_empty() {
            self.write_trace_before(self.standing.has_lines_before());
        }
        Ok(())
    }

    /// Sends mail of the simulation's owner, or a reply of main.
    pub(super) fn send(
        &mut self,
        key: MailKey,
        mail: Mail<M>,
        is_reply: bool,
    ) -> Result<(), Error> {
        guard_model(Some(SENT_BY_MAIN), self.standing.place(), || {
            self.send_unguarded(key, mail, is_reply)
        })?
    }

    fn send_unguarded(&mut self, key: MailKey, mail: Mail<M>, is_reply: bool) -> Result<(), Error> {
        let (sender, receiver, topic) = (mail.sender, mail.receiver, mail.topic());
        receiver.agent().map_or(Ok(()), check_name)?;
        let clusters = self.routing.destinations(sender, receiver, topic);
        match receiver.agent() {
            // Main does not talk to itself: no superstep would end that.
            Some(AgentId::MAIN) if is_reply => {
                self.standing.lose(key, sender, AgentId::MAIN, topic);
            }
            Some(AgentId::MAIN) => {
                // Without a lookahead main's mail has one order, no matter who sent it.
                let arrives = if self.lookaheads.is_empty() {
                    SimTime::ZERO
                } else {
                    self.standing.time
                };
                self.under_way.main_mail.push((arrives, key, mail.clone()));
            }
            Some(id) if self.routing.owner(id).is_none() => {
                self.standing.lose(key, sender, id, topic);
            }
            None if clusters.is_empty() => self.standing.counters.unheard += 1,
            _ => {}
        }
        let mut bytes = self.encode(key, &mail, is_reply)?;
        let owner = receiver.agent().and_then(|id| self.routing.owner(id));
        let earliest = self.standing.time;
        if let Some(owner) = owner {
            self.relay(Traffic::MAIN, owner, 1, &bytes, earliest)?;
        }
        wire::mark_copy(&mut bytes);
        for cluster in clusters {
            if Some(cluster) != owner {
                self.relay(Traffic::MAIN, cluster, 1, &bytes, earliest)?;
            }
        }
        Ok(())
    }

    /// Encodes mail of main. A message that is not read as it was written is an error.
    fn encode(&mut self, key: MailKey, mail: &Mail<M>, is_reply: bool) -> Result<Vec<u8>, Error> {
        // Mail that the owner queued waits already; a reply arrives now, as main has no lookahead.
        let arrives = if is_reply && !self.lookaheads.is_empty() {
            self.standing.time
        } else {
            SimTime::ZERO
        };
        let head = MailHead {
            key,
            sender: mail.sender,
            receiver: mail.receiver,
            arrives,
            left: arrives,
            is_copy: false,
        };
        let mut bytes = Vec::new();
        wire::put_mail(&head, &mail.body, &mut bytes).map_err(|why| Error::Encode {
            what: layout::name_mail(&head, mail.topic()),
            why: layout::reason(&mail.body, why),
        })?;
        let trips = &mut self.under_way.trips;
        let body = &bytes[head.length()..];
        if trips.wants(body)
            && let Err(Difference::Other(why)) =
                round_trip::make(&mail.body, body, &mut trips.scratch)
        {
            return Err(Error::Asymmetric {
                cluster: None,
                what: layout::name_mail(&head, mail.topic()),
                why,
            });
        }
        Ok(bytes)
    }
}
