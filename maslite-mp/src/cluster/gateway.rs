//! Mail from and to other clusters, as a cluster sees it: which mail leaves, when, and who listens
//! to it elsewhere.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maslite_core::internal::{Engine, EngineHooks, MailingList, Outgoing};
use maslite_core::{AgentId, Pattern, Receiver, SimDuration, SimTime, StopReason};

use crate::cluster::outbound::Outbound;
use crate::cluster::registry::WireMessage;
use crate::cluster::routes::Routes;
use crate::links::round_trip::{self, Difference, Trips};
use crate::links::transport::Draft;
use crate::links::{codec, guarded};
use crate::processes::backend::InterruptSource;
use crate::protocol::layout;
use crate::protocol::wire::{Destination, Fault, MailHead, Removal};

/// How much of the mail that stays in a cluster makes a round trip in release builds; in debug
/// builds all of it does.
pub(super) const LOCAL_TRIPS: u32 = 64;

/// What the scheduler of a cluster knows of the others, and what it has for them.
pub(super) struct Gateway<M> {
    pub(super) interrupts: InterruptSource,
    pub(super) ahead: Option<Ahead>,
    /// The number of the grant at hand.
    pub(super) grant: u64,
    /// How often its run has come by. It does something before it is interrupted.
    pub(super) passes: u64,
    /// The pass after which an interrupt ended the grant at hand; 0 if none did.
    pub(super) interrupted_at: Cell<u64>,
    /// The grant at hand is a replay, and this is what that number was then.
    pub(super) replayed: Option<u64>,
    /// The clusters of agents that are elsewhere, as far as known.
    pub(super) routes: Routes,
    /// What other clusters listen to; they are its subscribers.
    pub(super) others: MailingList,
    /// How many agents here subscribed to a pattern.
    pub(super) listeners: BTreeMap<Pattern, u64>,
    pub(super) outbound: Outbound,
    pub(super) interested: Vec<u32>,
    pub(super) stopped: Option<(u64, StopReason)>,
    /// Mail that could not be encoded, or is not read as it was written.
    pub(super) failure: Option<Fault>,
    /// Which mail makes a round trip.
    pub(super) trips: Trips,
    /// How much mail that stays here is still to make one.
    pub(super) local_trips: u32,
    /// When the first alarm is due of which main is to make a forecast.
    pub(super) first_forecast: Option<SimTime>,
    /// Enough deliveries wait to be written down that main is to have them now.
    pub(super) full: Arc<AtomicBool>,
    pub(super) message: std::marker::PhantomData<fn(M)>,
}

/// What a scheduler knows of the others under a lookahead.
pub(super) struct Ahead {
    /// The least time that its mail to other clusters takes.
    pub(super) lookahead: SimDuration,
    /// How long after mail arrives elsewhere an answer may come, at the earliest.
    pub(super) others: Option<SimDuration>,
    /// No event at this time or later may happen before main has brought answers.
    pub(super) limit: Option<SimTime>,
    pub(super) stops: Vec<(SimTime, u64, StopReason)>,
    pub(super) removals: Vec<Removal>,
    /// What others will listen to, or no longer, for mail from when on.
    pub(super) coming: BTreeMap<SimTime, Vec<(u32, Pattern, bool)>>,
    pub(super) held_back: u64,
    pub(super) held_back_to_main: u64,
}

impl Ahead {
    pub(super) fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            others: None,
            limit: None,
            stops: Vec::new(),
            removals: Vec::new(),
            coming: BTreeMap::new(),
            held_back: 0,
            held_back_to_main: 0,
        }
    }

    pub(super) fn limit_to(&mut self, time: SimTime) {
        self.limit = Some(self.limit.map_or(time, |limit| limit.min(time)));
    }

    /// Something leaves now for main, which has no lookahead of its own. Tells when it arrives.
    pub(super) fn leave_for_main(&mut self, now: SimTime) -> SimTime {
        let arrives = now.saturating_add(self.lookahead);
        self.limit_to(arrives);
        arrives
    }

    /// Mail leaves at `left` and is due at `due`; copies of it go to `listeners` clusters. Returns
    /// when it leaves and when it arrives, counts it if it is held back, and limits how far this
    /// cluster may run before main has brought answers to it.
    #[inline]
    fn depart(
        &mut self,
        to: Option<Destination>,
        listeners: usize,
        left: SimTime,
        due: SimTime,
    ) -> (SimTime, SimTime) {
        let arrives = left.saturating_add(self.lookahead);
        // What would arrive after the end of time arrives at the end, as if it had left in time.
        let left = arrives.saturating_sub(self.lookahead);
        let late = u64::from(due < arrives);
        if to == Some(Destination::Main) {
            self.held_back_to_main += late;
            self.held_back += late.min(listeners as u64);
        } else {
            self.held_back += late;
        }
        if matches!(to, Some(Destination::Main | Destination::Owner)) {
            self.limit_to(arrives);
        } else if let Some(others) = self.others {
            self.limit_to(arrives.saturating_add(others));
        }
        (left, arrives)
    }
}

/// Reads a message from what was written of it, and compares the two. A message that cannot be read
/// is no fault here: it is an error where it arrives.
pub(super) fn make_round_trip<M: WireMessage>(
    head: &MailHead,
    body: &M,
    bytes: &[u8],
    trips: &mut Trips,
) -> Result<(), Fault> {
    match round_trip::make(body, bytes, &mut trips.scratch) {
        Err(Difference::Other(why)) => {
            let what = layout::name_mail(head, body.topic());
            Err(Fault::Asymmetric { what, why })
        }
        _ => Ok(()),
    }
}

/// The gateway while mail leaves through it, into the message to main.
pub(super) struct OpenGateway<'b, 'd, M> {
    pub(super) gateway: &'b mut Gateway<M>,
    pub(super) draft: &'b mut Draft<'d>,
}

impl<M: WireMessage> Gateway<M> {
    pub(super) fn new(interrupts: InterruptSource) -> Self {
        Self {
            interrupts,
            ahead: None,
            grant: 0,
            passes: 0,
            interrupted_at: Cell::new(0),
            replayed: None,
            routes: Routes::default(),
            others: MailingList::default(),
            listeners: BTreeMap::new(),
            outbound: Outbound::default(),
            interested: Vec::new(),
            stopped: None,
            failure: None,
            trips: Trips::default(),
            local_trips: LOCAL_TRIPS,
            first_forecast: None,
            full: Arc::default(),
            message: std::marker::PhantomData,
        }
    }

    /// How much mail was held back, and how much of mail to main.
    pub(super) fn held_back(&self) -> (u64, u64) {
        let ahead = self.ahead.as_ref();
        ahead.map_or((0, 0), |it| (it.held_back, it.held_back_to_main))
    }

    /// Sets how much was held back, and how much of that for main.
    pub(super) fn keep_held_back(&mut self, held_back: (u64, u64)) {
        if let Some(ahead) = &mut self.ahead {
            (ahead.held_back, ahead.held_back_to_main) = held_back;
        }
    }

    /// Forgets its state. What the host gave it stays, and what belongs to the grant at hand.
    pub(super) fn reset(&mut self) {
        // A new field has to be put on one of the two sides.
        let Self {
            ahead,
            routes,
            others,
            listeners,
            interrupts: _,
            grant: _,
            passes: _,
            interrupted_at: _,
            replayed: _,
            outbound: _,
            interested: _,
            stopped: _,
            failure: _,
            trips: _,
            local_trips: _,
            first_forecast: _,
            full: _,
            message: _,
        } = self;
        *ahead = ahead.take().map(|ahead| Ahead {
            others: ahead.others,
            limit: ahead.limit,
            ..Ahead::new(ahead.lookahead)
        });
        routes.clear();
        *others = MailingList::default();
        listeners.clear();
    }

    /// Counts how many agents here subscribed to a pattern, as far as that was asked for.
    pub(super) fn count_listeners(&mut self, engine: &Engine<M>) {
        self.listeners.clear();
        for pattern in engine.all_subscriptions() {
            *self.listeners.entry(pattern).or_default() += 1;
        }
        for (pattern, begins, _) in engine.changed_interest().iter().rev() {
            let listeners = self.listeners.entry(*pattern).or_default();
            *listeners = if *begins {
                *listeners - 1
            } else {
                *listeners + 1
            };
        }
        self.listeners.retain(|_, listeners| *listeners > 0);
    }

    pub(super) fn writing<'b, 'd>(
        &'b mut self,
        draft: &'b mut Draft<'d>,
    ) -> OpenGateway<'b, 'd, M> {
        let gateway = self;
        OpenGateway { gateway, draft }
    }

    /// Whether an interrupt ends the grant at hand after this pass, which is noted. A grant does
    /// something before it is interrupted.
    #[inline]
    pub(super) fn is_interrupted(&self) -> bool {
        let ends = match self.replayed {
            None => self.passes > 1 && self.interrupts.covers(self.grant),
            Some(pass) => self.passes == pass,
        };
        if ends {
            self.interrupted_at.set(self.passes);
        }
        ends
    }

    pub(super) fn change_interest(&mut self, cluster: u32, pattern: Pattern, begins: bool) {
        if begins {
            self.others.subscribe(cluster, pattern);
        } else {
            self.others.unsubscribe(cluster, pattern);
        }
    }

    /// Under a lookahead: what others listen to, for mail that leaves now.
    #[inline]
    pub(super) fn catch_up_with_interest(&mut self, now: SimTime) {
        while let Some(ahead) = &mut self.ahead
            && !ahead.coming.is_empty()
            && let Some(coming) = ahead.coming.first_entry()
            && *coming.key() <= now
        {
            for (cluster, pattern, begins) in coming.remove() {
                self.change_interest(cluster, pattern, begins);
            }
        }
    }

    pub(super) fn take_stops(&mut self, engine: &mut Engine<M>) -> Vec<(SimTime, u64, StopReason)> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.stops);
        }
        let stopped = self.stopped.take().or_else(|| engine.take_stopped());
        let now = engine.now();
        let stopped = stopped.into_iter();
        stopped
            .map(|(index, reason)| (now, index, reason))
            .collect()
    }

    pub(super) fn take_removals(&mut self, engine: &mut Engine<M>) -> Vec<Removal> {
        if let Some(ahead) = &mut self.ahead {
            return std::mem::take(&mut ahead.removals);
        }
        let now = engine.now();
        let removals = engine.take_removals_elsewhere().into_iter();
        let removal = |(id, by, index)| Removal {
            id,
            by,
            index,
            time: now,
        };
        removals.map(removal).collect()
    }

    /// Under a lookahead: if agents here begin to listen where none did, goes no further than
    /// others know it. Until then they think that none of their alarms leaves before it is due.
    pub(super) fn await_attention(&mut self, engine: &Engine<M>) {
        if self.listeners.is_empty()
            && engine.has_changed_interest()
            && let Some(ahead) = &mut self.ahead
        {
            ahead.leave_for_main(engine.now());
        }
    }

    /// Under a lookahead: notes what main is to hear. True if main must number agents first.
    pub(super) fn look_around(&mut self, engine: &mut Engine<M>) -> bool {
        let now = engine.now();
        if let Some(ahead) = &mut self.ahead {
            if let Some((index, reason)) = engine.take_stopped() {
                let arrives = ahead.leave_for_main(now);
                ahead.stops.push((arrives, index, reason));
            }
            for (id, by, index) in engine.take_removals_elsewhere() {
                let time = ahead.leave_for_main(now);
                ahead.removals.push(Removal {
                    id,
                    by,
                    index,
                    time,
                });
            }
        }
        engine.has_newborn()
    }

    /// Where mail goes: to main, its owner or the cluster of its receiver, if it is not here; and
    /// into `interested`. Also tells whether any cluster listens to it.
    #[inline]
    pub(super) fn destinations(&mut self, mail: &Outgoing<'_, M>) -> (Option<Destination>, bool) {
        self.interested.clear();
        let mut to = None;
        if let Some(id) = mail.receiver.agent()
            && mail.receiver_is_elsewhere
        {
            to = Some(match self.routes.find(id) {
                Some(cluster) => Destination::Cluster(cluster),
                None if id == AgentId::MAIN => Destination::Main,
                None => Destination::Owner,
            });
        }
        if !self.others.is_empty() && !matches!(mail.receiver, Receiver::Direct(_)) {
            let (receiver, topic) = (mail.receiver.agent(), mail.body.topic());
            let interested = &mut self.interested;
            self.others
                .recipients(mail.sender, receiver, topic, interested);
        }
        (to, !self.interested.is_empty())
    }

    /// Has mail that stays here make a round trip: so a type that is not read as it is written is
    /// an error in one cluster, too.
    #[cold]
    pub(super) fn try_local(&mut self, engine: &mut Engine<M>) {
        let Self {
            failure,
            trips,
            local_trips,
            ..
        } = self;
        let mut bytes = std::mem::take(&mut trips.written);
        engine.waiting(|mail| {
            if *local_trips == 0 {
                return;
            }
            if !cfg!(debug_assertions) {
                *local_trips -= 1;
            }
            bytes.clear();
            // One that cannot be written need not be, as long as it stays here.
            let written = guarded::catch(|| codec::put(mail.body, &mut bytes));
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
            let Err(difference) = round_trip::make(mail.body, &bytes, &mut trips.scratch) else {
                return;
            };
            let what = layout::name(mail.key, mail.sender, mail.receiver, mail.body.topic());
            failure.get_or_insert(match difference {
                Difference::Unreadable(why) => Fault::Decode { what, why },
                Difference::Other(why) => Fault::Asymmetric { what, why },
            });
        });
        trips.written = bytes;
    }

    /// The patterns that the first agent here began, or the last one ceased, to listen to; and
    /// when. Without a lookahead only what came of it counts.
    pub(super) fn interest(
        &mut self,
        changes: Vec<(Pattern, bool, SimTime)>,
    ) -> Vec<(Pattern, bool, SimTime)> {
        let mut interest: Vec<(Pattern, bool, SimTime)> = Vec::new();
        for (pattern, begins, time) in changes {
            let listeners = self.listeners.entry(pattern).or_default();
            let before = *listeners;
            *listeners = if begins { before + 1 } else { before - 1 };
            if before.min(*listeners) > 0 {
                continue;
            }
            let undone = interest.iter().position(|change| change.0 == pattern);
            match undone.filter(|_| self.ahead.is_none()) {
                Some(place) => drop(interest.remove(place)),
                None => interest.push((pattern, begins, time)),
            }
        }
        self.listeners.retain(|_, listeners| *listeners > 0);
        interest
    }
}

impl<M: WireMessage> OpenGateway<'_, '_, M> {
    /// Hands out the mail that leaves. True if some does.
    pub(super) fn hand_out(&mut self, engine: &mut Engine<M>) -> bool {
        let mut any = false;
        let now = engine.now();
        self.gateway.catch_up_with_interest(now);
        engine.outgoing(|mail| {
            let (to, is_heard) = self.gateway.destinations(&mail);
            any |= self.hand_to(&mail, to, now, now);
            is_heard
        });
        if self.gateway.local_trips > 0 {
            self.gateway.try_local(engine);
        }
        any
    }

    /// Looks again at the mail that waits: to which agents it goes in addition, and whether any
    /// cluster listens to it now.
    pub(super) fn rematch(&mut self, engine: &mut Engine<M>, begun: &[(u32, Pattern)]) {
        let now = engine.now();
        engine.outgoing(|mail| {
            if matches!(mail.receiver, Receiver::Direct(_)) {
                return false;
            }
            let (receiver, topic) = (mail.receiver.agent(), mail.body.topic());
            let Gateway {
                interested, others, ..
            } = &mut *self.gateway;
            interested.clear();
            others.recipients(mail.sender, receiver, topic, interested);
            let is_heard = !interested.is_empty();
            let matching = begun
                .iter()
                .filter(|(_, pattern)| pattern.matches(mail.sender, receiver, topic));
            let clusters: BTreeSet<_> = matching.map(|(cluster, _)| *cluster).collect();
            interested.clear();
            interested.extend(clusters);
            self.hand_to(&mail, None, now, now);
            is_heard
        });
    }

    /// Encodes mail and hands it to a destination and to the clusters in `interested`. True if
    /// there is any. It leaves at `left`, and is due at `due` if that is not too soon.
    #[inline]
    pub(super) fn hand_to(
        &mut self,
        mail: &Outgoing<'_, M>,
        to: Option<Destination>,
        left: SimTime,
        due: SimTime,
    ) -> bool {
        let Gateway {
            ahead,
            interested,
            outbound,
            failure,
            trips,
            ..
        } = &mut *self.gateway;
        let mut others = interested.iter();
        let Some(first) = to.or_else(|| others.next().copied().map(Destination::Cluster)) else {
            return false;
        };
        let (left, arrives) = match ahead {
            None => (SimTime::ZERO, SimTime::ZERO),
            Some(ahead) => ahead.depart(to, interested.len(), left, due),
        };
        let Outgoing {
            key,
            sender,
            receiver,
            body,
            ..
        } = *mail;
        let head = MailHead {
            key,
            sender,
            receiver,
            arrives,
            left,
            is_copy: to.is_none(),
        };
        match outbound.encode(first, &head, body, self.draft) {
            Ok(encoded) => {
                let bytes = outbound.body(encoded, &head, self.draft);
                if trips.wants(bytes)
                    && let Err(fault) = make_round_trip(&head, body, bytes, trips)
                {
                    failure.get_or_insert(fault);
                }
                for cluster in others {
                    if first != Destination::Cluster(*cluster) {
                        outbound.copy(encoded, *cluster, arrives, self.draft);
                    }
                }
            }
            Err(why) => {
                let what = layout::name_mail(&head, body.topic());
                let why = layout::reason(body, why);
                failure.get_or_insert(Fault::Encode { what, why });
            }
        }
        true
    }
}

impl<M: WireMessage> EngineHooks<M> for OpenGateway<'_, '_, M> {
    #[inline]
    fn before_posting(&mut self, engine: &mut Engine<M>) -> bool {
        if self.gateway.ahead.is_some() {
            self.hand_out(engine);
            return self.gateway.look_around(engine) || self.gateway.failure.is_some();
        }
        self.hand_out(engine) || engine.has_removals_elsewhere()
    }

    #[inline]
    fn after_posting(&mut self, engine: &mut Engine<M>) -> bool {
        self.gateway.passes += 1;
        if self.gateway.ahead.is_some() {
            self.gateway.await_attention(engine);
            return false;
        }
        self.gateway.first_forecast = engine.first_forecast();
        engine.has_many_to_tell_of()
    }

    #[inline]
    fn wants_attention(&self) -> bool {
        let gateway = &*self.gateway;
        gateway.failure.is_some()
            || gateway.is_interrupted()
            || gateway.ahead.is_none() && gateway.full.load(Ordering::Relaxed)
    }

    #[inline]
    fn horizon(&self, horizon: Option<SimTime>) -> Option<SimTime> {
        let ahead = self.gateway.ahead.as_ref();
        // What is forecast fires in its receiver's cluster, which must have it by then.
        let limit = ahead.map_or(self.gateway.first_forecast, |ahead| ahead.limit);
        match (horizon, limit) {
            (Some(horizon), Some(limit)) => Some(horizon.min(limit)),
            (horizon, limit) => horizon.or(limit),
        }
    }

    fn departing(&mut self, engine: &mut Engine<M>, time: SimTime) {
        self.gateway.catch_up_with_interest(time);
        engine.departures(time, |mail, due| {
            let (to, is_heard) = self.gateway.destinations(&mail);
            self.hand_to(&mail, to, time, due) || is_heard
        });
    }
}
