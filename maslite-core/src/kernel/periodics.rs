//! Periodic alarms: each is set again when it fires, or when its agent takes it.

use super::Kernel;
use crate::alarm::AlarmFilter;
use crate::alarm_queue::AlarmId;
use crate::directory::Whereabouts;
use crate::message::{Envelope, MailKey, Message, PERIODIC, REQUIRED, Receiver};
use crate::periodic::Periodic;
use crate::{AgentId, SimDuration, SimTime};

/// The marks of a periodic alarm.
fn marks(required: bool) -> u8 {
    if required {
        PERIODIC | REQUIRED
    } else {
        PERIODIC
    }
}

impl<M: Message> Kernel<M> {
    /// Sets a periodic alarm of an agent: when it is due first, and its period.
    pub(crate) fn set_periodic(
        &mut self,
        slot: u32,
        (time, period): (SimTime, SimDuration),
        required: bool,
        receiver: Receiver,
        body: M,
    ) -> AlarmId {
        self.end_stray_update();
        let topic = body.topic();
        let marks = marks(required);
        let id = self.set_alarm_apart(slot, time, marks, receiver, body);
        let periodic = Periodic::new(id, time, period, receiver, topic);
        self.periodics.get_or_insert_default().insert(periodic);
        self.look_who_notes_deliveries();
        id
    }

    /// A periodic alarm has fired. One for others is set again now; one for the agent that set it
    /// waits until the agent takes it.
    #[cold]
    pub(super) fn set_again_when_fired(&mut self, envelope: &Envelope<M>) {
        let setter = envelope.sender;
        if envelope.receiver().agent() == Some(setter) {
            return;
        }
        if let (Whereabouts::Here(slot), Some(body)) =
            (self.directory.find(setter), envelope.body.clone())
        {
            self.set_again(slot, envelope.key, envelope.is(REQUIRED), body);
        }
    }

    /// An agent takes the mail of a periodic alarm. If it is the agent's own, it is set again now.
    #[cold]
    pub(super) fn set_again_when_taken(&mut self, slot: u32, mail: u32) {
        let envelope = &self.posted[mail as usize];
        let taker = self.slots[slot as usize].id;
        if envelope.sender != taker || envelope.receiver().agent() != Some(taker) {
            return;
        }
        let (key, required) = (envelope.key, envelope.is(REQUIRED));
        if let Some(body) = envelope.body.clone() {
            self.set_again(slot, key, required, body);
        }
    }

    /// Sets the next alarm of a periodic one, unless that has ended meanwhile.
    fn set_again(&mut self, slot: u32, key: MailKey, required: bool, body: M) {
        let setter = self.slots[slot as usize].id;
        let before = (setter, key.sequence());
        let periodics = self.periodics.as_ref();
        let Some(periodic) = periodics.and_then(|all| all.of(before)).copied() else {
            return;
        };
        let Some(due) = periodic.next(self.now) else {
            // It would be due beyond the end of time.
            if !self.strays() {
                self.end_periodic(periodic.handle);
            }
            return;
        };
        let marks = marks(required);
        let current = self.set_alarm_apart(slot, due, marks, periodic.receiver, body);
        self.note_renewed(current.origin(), periodic);
        if let Some(periodics) = &mut self.periodics {
            periodics.renew(before, current, due);
        }
    }

    /// Ends a periodic alarm. False if there is none with this handle.
    pub(super) fn end_periodic(&mut self, handle: AlarmId) -> bool {
        let periodics = self.periodics.as_mut();
        let Some(ended) = periodics.and_then(|all| all.end(handle)) else {
            return false;
        };
        // It may have fired and wait to be taken.
        let (setter, _) = handle.origin();
        let slots = &self.slots;
        let was_pending = self.alarms.clear(setter, ended.current, |alarm, beside| {
            alarm.kept_apart(slots, beside)
        });
        self.counters.alarms_cleared += u64::from(was_pending);
        true
    }

    /// Ends the periodic alarms of an agent that leaves.
    pub(super) fn end_periodics(&mut self, slot: u32) {
        if self.periodics.is_some() {
            let setter = self.slots[slot as usize].id;
            self.end_periodics_where(Some(setter), AlarmFilter::all());
        }
    }

    /// Ends the periodic alarms of one agent, or of all, that the filter names; tells how many they
    /// were.
    pub(super) fn end_periodics_where(
        &mut self,
        setter: Option<AgentId>,
        filter: AlarmFilter,
    ) -> usize {
        let periodics = self.periodics.iter().flat_map(|all| all.of_setter(setter));
        let named = periodics.filter(|it| filter.names(it.receiver, it.topic));
        let handles: Vec<_> = named.map(|periodic| periodic.handle).collect();
        for handle in &handles {
            self.end_periodic(*handle);
        }
        handles.len()
    }
}
