//! Under a lookahead: mail to other schedulers leaves before it is due, and mail from them is among
//! the alarms.

use std::collections::BTreeMap;

use super::Kernel;
use super::alarms::Packed;
use crate::alarm_queue::{AlarmId, AlarmQueue, Due, Load, Pack, Pending};
use crate::directory::Whereabouts;
use crate::mailing_list::Pattern;
use crate::message::{
    ELSEWHERE, Envelope, FOREIGN, Import, MailKey, Message, PERIODIC, REQUIRED, SETTLED,
};
use crate::{AgentId, SimDuration, SimTime};

/// An alarm that may have to leave before it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) alarm: AlarmId,
    setter: AgentId,
    key: MailKey,
}

impl Departure {
    /// The setter and the key of the alarm.
    pub(super) fn of(&self) -> (AgentId, MailKey) {
        (self.setter, self.key)
    }
}

impl Load for Departure {
    fn key(&self) -> MailKey {
        self.key
    }

    fn setter(&self) -> AgentId {
        self.setter
    }
}

impl Pack for Departure {
    fn key(&self) -> MailKey {
        self.key
    }
}

/// What a scheduler keeps under a lookahead: mail to others leaves before it is due.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// The least time that mail to other schedulers takes.
    pub(crate) lookahead: SimDuration,
    /// Alarms that may have to leave, by the time at which that is decided.
    pub(crate) departures: AlarmQueue<Departure, Departure>,
    /// When subscriptions were made; those that hold from the start are not in it.
    pub(super) subscribed_at: BTreeMap<(u32, Pattern), SimTime>,
    /// How long mail from elsewhere was under way. Mail names its place here: there are as many as
    /// others have different lookaheads.
    pub(super) delays: Vec<SimDuration>,
    /// Agents that others removed, by the time at which that holds.
    pub(crate) dismissals: BTreeMap<SimTime, Vec<AgentId>>,
    /// Setups are under way: what they subscribe to holds from the start.
    pub(crate) starting: bool,
}

impl Ahead {
    pub(crate) fn new(lookahead: SimDuration) -> Self {
        Self {
            lookahead,
            departures: AlarmQueue::default(),
            subscribed_at: BTreeMap::new(),
            delays: Vec::new(),
            dismissals: BTreeMap::new(),
            starting: false,
        }
    }

    /// The same at the beginning of a simulation.
    pub(crate) fn anew(&self) -> Box<Self> {
        Box::new(Self::new(self.lookahead))
    }

    /// Has it decided at `time` whether an alarm leaves.
    pub(super) fn depart_at(&mut self, time: SimTime, alarm: AlarmId, of: (AgentId, MailKey)) {
        let (setter, key) = of;
        let departure = Departure { alarm, setter, key };
        self.departures.set_packed(time, setter, departure);
    }

    /// The place of a delay among those of mail from elsewhere, counted from 1.
    fn origin(&mut self, delay: SimDuration) -> u16 {
        let known = self.delays.iter().position(|known| *known == delay);
        let place = known.unwrap_or_else(|| {
            self.delays.push(delay);
            self.delays.len() - 1
        });
        u16::try_from(place + 1).expect("there are as many delays as clusters, at most")
    }
}

impl<M: Message> Kernel<M> {
    /// Under a lookahead: has an alarm looked at when it would leave.
    #[inline(never)]
    pub(super) fn plan_departure(&mut self, id: AlarmId) {
        let (Some(ahead), Some(alarm)) = (&mut self.ahead, self.alarms.pending(id)) else {
            return;
        };
        let lookahead = ahead.lookahead.as_nanos();
        let earlier = alarm.time.as_nanos().saturating_sub(lookahead);
        let time = SimTime::from_nanos(earlier).max(self.now);
        let of = (alarm.load.sender, alarm.load.key);
        ahead.depart_at(time, id, of);
    }

    pub(crate) fn is_starting(&mut self, starting: bool) {
        if let Some(ahead) = &mut self.ahead {
            ahead.starting = starting;
        }
    }

    /// An agent elsewhere listens from now on, so mail may leave for them, and under a lookahead
    /// alarms before they are due.
    pub(crate) fn expect_listeners(&mut self) {
        if std::mem::replace(&mut self.others_listen, true) || self.ahead.is_none() {
            return;
        }
        let slots = &self.slots;
        let pending = self
            .alarms
            .list(None, |alarm| alarm.kept_apart(slots))
            .into_iter();
        // Those for agents elsewhere are looked at already.
        let own = pending
            .filter(|(_, alarm)| !alarm.load.is(FOREIGN | ELSEWHERE) && !alarm.load.is_direct());
        let ids: Vec<_> = own.map(|(id, _)| id).collect();
        for id in ids {
            self.plan_departure(id);
        }
    }

    /// Under a lookahead: takes in mail that arrives at `time`.
    pub(crate) fn arrive(&mut self, time: SimTime, left_at: SimTime, import: Import<M>) {
        let mut load = import.into_envelope();
        load.mark(REQUIRED);
        if let Some(ahead) = &mut self.ahead {
            load.origin = ahead.origin(time.since(left_at));
        }
        self.alarms.set(Pending { time, load });
    }

    #[inline(never)]
    pub(super) fn next_event_ahead(&mut self) -> Option<SimTime> {
        let mut next = self.alarms.next_time();
        let ahead = self.ahead.as_mut()?;
        let mut or = |time: Option<SimTime>| {
            if let Some(time) = time {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
        };
        or(ahead.departures.next_time());
        or(ahead.dismissals.keys().next().copied());
        next
    }
    /// The same under a lookahead: mail from elsewhere is among the alarms, and whether an alarm
    /// leaves was decided before.
    #[inline(never)]
    pub(super) fn fire_ahead(&mut self, time: SimTime) {
        let Some(ahead) = &mut self.ahead else { return };
        if !ahead.dismissals.is_empty() {
            let dismissed = ahead.dismissals.remove(&time);
            for id in dismissed.into_iter().flatten() {
                if let Whereabouts::Here(slot) = self.directory.find(id) {
                    self.dismiss(slot);
                }
            }
        }
        if self.alarms.next_time() != Some(time) {
            return;
        }
        let mut due = if self.reaches_receivers_alone() && !self.others_listen {
            self.fire_to_inboxes(time)
        } else {
            self.alarms.pop_due(time)
        };
        while let Some(alarm) = due {
            self.queue_settled(alarm);
            due = self.alarms.pop_due(time);
        }
    }

    /// Queues what is due, and whether it leaves was decided before.
    fn queue_settled(&mut self, due: Due<Envelope<M>, Packed<M>>) {
        let mut envelope = self.due_mail(due);
        envelope.mark(SETTLED);
        if envelope.is(FOREIGN) {
            // The same mail can come twice: for its receiver, and for those who listen.
            if let Some(last) = self.outbox.last_mut()
                && last.is_the_same_mail(&envelope)
            {
                return last.take_over(&envelope);
            }
        } else {
            self.counters.alarms_fired += 1;
        }
        if envelope.is(PERIODIC) {
            self.set_again_when_fired(&envelope);
        }
        self.outbox.push(envelope);
    }

    /// Under a lookahead a subscription holds for mail from elsewhere that left one lookahead after
    /// it was made, or later.
    #[cold]
    pub(super) fn retain_early_listeners(&mut self, mail: u32, recipients: &mut Vec<u32>) {
        let envelope = &self.posted[mail as usize];
        let Some(ahead) = &mut self.ahead else { return };
        // What the owner queued did not travel.
        let Some(origin) = usize::from(envelope.origin).checked_sub(1) else {
            return;
        };
        let delay = ahead.delays[origin];
        let left_at = self.now.as_nanos().saturating_sub(delay.as_nanos());
        let left_at = SimTime::from_nanos(left_at);
        let (sender, receiver) = (envelope.sender, envelope.receiver().agent());
        let topic = envelope.topic();
        let holds = |slot: u32, pattern: &Pattern| {
            let made = ahead.subscribed_at.get(&(slot, *pattern));
            made.is_none_or(|made| {
                let from = made.checked_add(ahead.lookahead);
                from.is_some_and(|from| from <= left_at)
            })
        };
        let list = &self.mailing_list;
        recipients.retain(|slot| {
            let mut patterns = list.subscriptions(*slot);
            patterns
                .any(|pattern| pattern.matches(sender, receiver, topic) && holds(*slot, &pattern))
        });
    }
}
