//! Under a lookahead: mail leaves before it is due, and arrives at a time of its own.

use super::{Engine, Outgoing};
use crate::alarm_queue::{Due, Pack};
use crate::directory::Whereabouts;
use crate::kernel::{Ahead, Kernel};
use crate::message::{Import, LEFT, Mail, MailKey, Message};
use crate::{AgentId, SimDuration, SimTime};

/// How many departures ahead the state of an alarm is fetched.
const FETCH_STATE: usize = 4;

impl<M: Message> Engine<M> {
    /// Puts the engine under a lookahead: the least simulated time that mail to others takes.
    pub fn look_ahead(&mut self, lookahead: SimDuration) {
        self.kernel.ahead = Some(Box::new(Ahead::new(lookahead)));
    }

    /// Under a lookahead: the next time at which anything happens, were it only that mail leaves.
    pub fn next_event(&mut self) -> Option<SimTime> {
        self.kernel.next_event()
    }

    /// Under a lookahead: takes in mail from another engine that arrives at `time`, and left there
    /// at `left_at`. It is posted among the alarms of that time.
    ///
    /// # Panics
    /// If the engine has passed that time: the caller that grants time has broken its promise.
    pub fn arrive(&mut self, time: SimTime, left_at: SimTime, key: MailKey, mail: Mail<M>) {
        self.take_in(time, left_at, (key, mail).into());
    }

    /// As [`arrive`](Self::arrive), for mail that may be a copy.
    ///
    /// # Panics
    /// As [`arrive`](Self::arrive).
    pub fn take_in(&mut self, time: SimTime, left_at: SimTime, import: Import<M>) {
        assert!(
            time >= self.kernel.now,
            "mail comes for a time that is past"
        );
        self.kernel.arrive(time, left_at, import);
    }

    /// Under a lookahead: removes an agent at `time`.
    ///
    /// # Panics
    /// If the engine has passed that time: the caller that grants time has broken its promise.
    pub fn remove_at(&mut self, time: SimTime, id: AgentId) {
        assert!(
            time >= self.kernel.now,
            "a removal comes for a time that is past"
        );
        if let Some(ahead) = &mut self.kernel.ahead {
            ahead.dismissals.entry(time).or_default().push(id);
        }
    }

    /// Agents elsewhere listen to something from now on.
    pub fn expect_listeners(&mut self) {
        self.kernel.expect_listeners();
    }

    pub(super) fn departs_at(&mut self, time: SimTime) -> bool {
        match &mut self.kernel.ahead {
            None => false,
            Some(ahead) => ahead.next_departure == Some(time),
        }
    }

    /// Under a lookahead: shows `visit` the alarms that would leave at `time`, with the time they
    /// are due. It answers whether the alarm did leave.
    pub fn departures(
        &mut self,
        time: SimTime,
        mut visit: impl FnMut(Outgoing<'_, M>, SimTime) -> bool,
    ) {
        let Kernel {
            ahead,
            alarms,
            directory,
            ..
        } = &mut self.kernel;
        let Some(ahead) = ahead else { return };
        let is_elsewhere = |id| directory.find(id) == Whereabouts::Unknown;
        // What was decided before is not here any more.
        while ahead.departures.next_time() == Some(time)
            && let Some(departure) = ahead.departures.pop_due(time)
        {
            let departure = match departure {
                Due::Kept(departure) => departure,
                Due::Packed(leaving) => {
                    if let Some(later) = ahead.departures.peek(FETCH_STATE) {
                        alarms.fetch_state(later.alarm);
                    }
                    if !alarms.is_pending(leaving.alarm) {
                        continue;
                    }
                    let outgoing = Outgoing {
                        key: leaving.key(),
                        sender: leaving.setter,
                        receiver: leaving.receiver(),
                        body: &leaving.body,
                        receiver_is_elsewhere: is_elsewhere(leaving.receiver),
                    };
                    if visit(outgoing, leaving.due) {
                        alarms.fix(leaving.alarm);
                    }
                    continue;
                }
            };
            let Some(alarm) = alarms.pending(departure.alarm) else {
                continue;
            };
            let envelope = &mut alarm.load;
            let receiver = envelope.receiver();
            let elsewhere = receiver.agent();
            let elsewhere = elsewhere.is_some_and(is_elsewhere);
            let Some(body) = &envelope.body else { continue };
            let left = visit(
                Outgoing {
                    key: envelope.key,
                    sender: envelope.sender,
                    receiver,
                    body,
                    receiver_is_elsewhere: elsewhere,
                },
                alarm.time,
            );
            envelope.mark_if(LEFT, left);
        }
        ahead.next_departure = ahead.departures.next_time();
    }
}
