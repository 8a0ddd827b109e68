//! What lies around the engine of a lone scheduler: main, and who ends a run.

use crate::engine::{Engine, EngineHooks};
use crate::main_context::MainContext;
use crate::message::{Mail, Message};
use crate::run::{Predicate, StopReason};
use crate::signal::Signal;

/// What a run with a handler of mail to main needs besides the engine.
pub(super) struct SchedulerHooks<'a, M: Message> {
    pub(super) signal: &'a Signal,
    pub(super) handler: &'a mut dyn FnMut(Mail<M>, &mut MainContext<M>),
    pub(super) predicate: Option<Predicate>,
    pub(super) stopped_by: Option<StopReason>,
}

impl<M: Message> EngineHooks<M> for SchedulerHooks<'_, M> {
    #[inline]
    fn before_posting(&mut self, _: &mut Engine<M>) -> bool {
        false
    }

    #[inline]
    fn wants_attention(&self) -> bool {
        self.signal.raised() != 0
    }

    #[inline]
    fn after_posting(&mut self, engine: &mut Engine<M>) -> bool {
        if engine.main_has_mail() || self.predicate.is_some() {
            return self.hand_over_and_ask(engine);
        }
        self.stopped_by.is_some()
    }
}

impl<M: Message> SchedulerHooks<'_, M> {
    /// Hands main its mail, and asks the predicate. True if one of them ends the run.
    #[inline(never)]
    fn hand_over_and_ask(&mut self, engine: &mut Engine<M>) -> bool {
        if engine.main_has_mail() {
            let mut main = MainContext::new(engine.now());
            let mails = engine.take_main_mail();
            engine.call_owner(|_| {
                for (sent_at, mail) in mails {
                    main.take_up(sent_at);
                    (self.handler)(mail, &mut main);
                }
            });
            let (mails, stop) = main.into_parts();
            for (receiver, body) in mails {
                engine.send_from_main(receiver, body);
            }
            // Main does not talk to itself: no superstep would end that.
            engine.main_listens(false);
            engine.post();
            engine.main_listens(true);
            if stop {
                self.stopped_by = Some(StopReason::Stopped);
                return true;
            }
        }
        if let Some(predicate) = &mut self.predicate
            && engine.call_owner(|engine| predicate(&engine.counters()))
        {
            self.stopped_by = Some(StopReason::Predicate);
        }
        self.stopped_by.is_some()
    }
}
