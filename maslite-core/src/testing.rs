//! Tests an agent alone, without a scheduler: the test hands the agent a context, and reads what
//! the agent did.

use crate::agent::{Birth, Context};
use crate::alarm::PendingAlarm;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::message::{Envelope, Mail, MailKey, Message, Receiver};
use crate::{AgentId, Pattern, SimTime};

/// Runs one agent alone in a test. There is no other agent: the harness keeps the agent's mail
/// until the test reads it, alarms never fire, and nothing happens by itself.
///
/// ```
/// use maslite_core::testing::Solo;
/// use maslite_core::{Agent, AgentId, Context, Mail, Receiver, SimDuration, SimTime};
///
/// #[derive(Clone, Debug, PartialEq, maslite_core::Message)]
/// enum Msg { Order { pieces: u32 }, Delivered { pieces: u32 }, Done }
///
/// struct Workshop { minutes_per_piece: u64 }
///
/// impl Agent<Msg> for Workshop {
///     fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
///         match mail.body {
///             Msg::Order { pieces } => {
///                 ctx.send(mail.sender, Msg::Delivered { pieces });
///                 let minutes = u64::from(pieces) * self.minutes_per_piece;
///                 ctx.alarm_in(SimDuration::from_secs(60) * minutes, Msg::Done);
///             }
///             Msg::Delivered { .. } | Msg::Done => {}
///         }
///     }
/// }
///
/// let (workshop, shop) = (AgentId::from("workshop"), AgentId::from("shop"));
/// let mut agent = Workshop { minutes_per_piece: 5 };
/// let mut solo = Solo::new(workshop);
/// solo.deliver(Mail::new(shop, workshop, Msg::Order { pieces: 2 }));
/// agent.update(&mut solo.context());
///
/// assert_eq!(solo.take_sent(), [(Receiver::Agent(shop), Msg::Delivered { pieces: 2 })]);
/// let (alarm, body) = solo.alarms().remove(0);
/// assert_eq!((alarm.time, body), (SimTime::from_secs(600), Msg::Done));
/// ```
#[derive(Debug)]
pub struct Solo<M: Message> {
    kernel: Kernel<M>,
    births: Vec<Birth<M>>,
    slot: u32,
    /// The number of mails delivered so far.
    delivered: u64,
}

impl<M: Message> Solo<M> {
    /// Makes a harness for the agent with this id, at time 0 in a run with seed 0.
    #[must_use]
    pub fn new(id: impl Into<AgentId>) -> Self {
        Self::with_seed(id, 0)
    }

    /// Makes a harness in a run with this seed. The agent draws the same random numbers as in such
    /// a run.
    #[must_use]
    pub fn with_seed(id: impl Into<AgentId>, seed: u64) -> Self {
        let mut kernel = Kernel::new(seed);
        let slot = kernel.allocate_slot(id.into(), 0);
        Self {
            kernel,
            births: Vec::new(),
            slot,
            delivered: 0,
        }
    }

    /// Sets the clock, also to an earlier time. Alarms do not fire.
    pub fn set_now(&mut self, time: SimTime) {
        self.kernel.now = time;
    }

    /// Returns the context to call the agent with, for instance `agent.setup(&mut solo.context())`.
    pub fn context(&mut self) -> Context<'_, M> {
        Context::new(&mut self.kernel, &mut self.births, self.slot)
    }

    /// Puts mail into the agent's inbox, for any addressee.
    pub fn deliver(&mut self, mail: Mail<M>) {
        let key = MailKey::of_owner(self.kernel.now, self.delivered);
        self.delivered += 1;
        let topic = Pattern::topic(mail.topic());
        let mut envelope = Envelope::new(key, mail.sender, mail.receiver, mail.body);
        // A broadcast reaches subscribers only, so the agent subscribes for a moment.
        let listens = match mail.receiver {
            Receiver::Subscribers => self.kernel.mailing_list.subscribe(self.slot, topic),
            Receiver::Agent(_) | Receiver::Direct(_) => {
                envelope.set_slot(self.slot);
                false
            }
        };
        let sent = std::mem::replace(&mut self.kernel.outbox, vec![envelope]);
        self.kernel.post();
        self.kernel.outbox = sent;
        if listens {
            self.kernel.mailing_list.unsubscribe(self.slot, topic);
        }
    }

    /// Takes the messages that the agent sent since the last call, in order.
    pub fn take_sent(&mut self) -> Vec<(Receiver, M)> {
        let sent = self.kernel.outbox.drain(..);
        sent.filter_map(|envelope| Some((envelope.receiver(), envelope.body?)))
            .collect()
    }

    /// Returns the alarms that the agent set and did not clear, in the order in which they would
    /// fire.
    pub fn alarms(&mut self) -> Vec<(PendingAlarm, M)> {
        self.kernel.list_alarms_with_bodies()
    }

    /// Returns the subscriptions of the agent.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Pattern> {
        self.kernel.mailing_list.subscriptions(self.slot).collect()
    }

    /// Takes the ids of the agents that the agent added since the last call, in order.
    pub fn take_added(&mut self) -> Vec<AgentId> {
        self.births.drain(..).map(|birth| birth.id).collect()
    }

    /// Takes the ids of the agents that the agent removed since the last call, in order.
    pub fn take_removed(&mut self) -> Vec<AgentId> {
        self.kernel.removals.drain(..).map(|(id, ..)| id).collect()
    }

    /// Takes the errors that the agent reported since the last call, in order.
    pub fn take_errors(&mut self) -> Vec<String> {
        let errors = self.kernel.errors.drain(..);
        errors.map(|error| error.message).collect()
    }

    /// Whether the agent called `stop_run` since the last time.
    pub fn take_stopped(&mut self) -> bool {
        self.kernel.stopped_by.take().is_some()
    }

    /// Whether the agent asked for an update in every superstep.
    #[must_use]
    pub fn is_kept_awake(&self) -> bool {
        self.kernel.has_kept_awake()
    }

    /// Takes the error with which a run would have ended because of the agent's calls since the
    /// last call.
    pub fn take_error(&mut self) -> Option<Error> {
        self.kernel.failure.take().map(|(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::{Agent, AgentRng, Alarm, SimDuration};

    #[derive(Clone, Debug, PartialEq)]
    struct Say(&'static str);

    impl Message for Say {
        fn topic(&self) -> crate::Topic {
            crate::Topic::new(self.0)
        }
    }

    struct Idle;
    impl Agent<Say> for Idle {}

    /// Does all there is to do, and leaves what is not urgent unread.
    struct Busy {
        heard: Vec<(AgentId, Receiver, &'static str)>,
    }

    impl Agent<Say> for Busy {
        fn setup(&mut self, ctx: &mut Context<'_, Say>) {
            ctx.subscribe(Pattern::topic("News"));
            ctx.keep_awake(true);
            ctx.add("child", Idle);
        }

        fn update(&mut self, ctx: &mut Context<'_, Say>) {
            while let Some(mail) = ctx.next_mail() {
                self.heard.push((mail.sender, mail.receiver, mail.body.0));
                if mail.body.0 == "Enough" {
                    break;
                }
            }
            ctx.send(2, Say("One"));
            ctx.send_direct(3, Say("Two"));
            ctx.broadcast(Say("Three"));
            ctx.alarm_in(SimDuration::from_secs(2), Say("Later"));
            ctx.set_alarm(
                Alarm::after(SimDuration::from_secs(1)).to(AgentId::from(2)),
                Say("Soon"),
            );
        }

        fn teardown(&mut self, ctx: &mut Context<'_, Say>) {
            ctx.remove("child");
            ctx.unsubscribe_all();
            ctx.keep_awake(false);
            ctx.stop_run();
            ctx.alarm_in(SimDuration::MAX, Say("Never"));
        }
    }

    #[test]
    fn what_an_agent_does_can_be_read() {
        let mut solo = Solo::new(1);
        let mut busy = Busy { heard: Vec::new() };
        busy.setup(&mut solo.context());
        assert_eq!(solo.subscriptions(), [Pattern::topic("News")]);
        assert_eq!(solo.take_added(), [AgentId::from("child")]);
        assert_eq!(solo.take_added(), []);
        assert!(solo.is_kept_awake());

        solo.set_now(SimTime::from_secs(10));
        busy.update(&mut solo.context());
        assert_eq!(
            solo.take_sent(),
            [
                (Receiver::Agent(AgentId::from(2)), Say("One")),
                (Receiver::Direct(AgentId::from(3)), Say("Two")),
                (Receiver::Subscribers, Say("Three")),
            ]
        );
        assert_eq!(solo.take_sent(), []);
        let alarms = solo.alarms();
        let due: Vec<_> = alarms
            .iter()
            .map(|(alarm, body)| (alarm.time, body.0))
            .collect();
        assert_eq!(
            due,
            [
                (SimTime::from_secs(11), "Soon"),
                (SimTime::from_secs(12), "Later")
            ]
        );
        assert_eq!(solo.take_error(), None);

        busy.teardown(&mut solo.context());
        assert_eq!(solo.take_removed(), [AgentId::from("child")]);
        assert_eq!(solo.subscriptions(), []);
        assert!(!solo.is_kept_awake());
        assert!(solo.take_stopped() && !solo.take_stopped());
        assert!(matches!(
            solo.take_error(),
            Some(Error::TimeOverflow { .. })
        ));
    }

    #[test]
    fn mail_is_read_in_the_order_it_was_delivered_whomever_it_is_for() {
        let mut solo = Solo::new(1);
        let mut busy = Busy { heard: Vec::new() };
        let (me, other) = (AgentId::from(1), AgentId::from(7));
        busy.update(&mut solo.context());
        for (receiver, topic) in [
            (Receiver::Subscribers, "To all"),
            (me.into(), "To me"),
            (other.into(), "A copy"),
            (me.into(), "Enough"),
            (Receiver::Direct(me), "To me alone"),
        ] {
            solo.deliver(Mail::new(9, receiver, Say(topic)));
        }
        // What was sent before is still there, and was not mixed up with what came in.
        assert_eq!(solo.take_sent().len(), 3);
        assert_eq!(solo.subscriptions(), []);
        busy.update(&mut solo.context());
        assert_eq!(
            solo.context().inbox().collect::<Vec<_>>(),
            [&Say("To me alone")]
        );
        solo.deliver(Mail::new(9, me, Say("After it")));
        busy.update(&mut solo.context());
        let nine = AgentId::from(9);
        assert_eq!(
            busy.heard,
            [
                (nine, Receiver::Subscribers, "To all"),
                (nine, me.into(), "To me"),
                (nine, other.into(), "A copy"),
                (nine, me.into(), "Enough"),
                (nine, Receiver::Direct(me), "To me alone"),
                (nine, me.into(), "After it"),
            ]
        );
    }

    #[test]
    fn mail_comes_behind_what_was_left_when_the_last_was_taken() {
        let mut solo = Solo::new(1);
        let mail = |topic| Mail::new(9, AgentId::from(1), Say(topic));
        for topic in ["A", "B", "C"] {
            solo.deliver(mail(topic));
        }
        let urgent = solo.context().next_mail_by_key(|say| say.0 != "C");
        assert_eq!(urgent.map(|mail| mail.body), Some(Say("C")));
        solo.deliver(mail("D"));
        let mut context = solo.context();
        let rest = std::iter::from_fn(|| context.next_mail()).map(|mail| mail.body);
        assert_eq!(rest.collect::<Vec<_>>(), [Say("A"), Say("B"), Say("D")]);
    }

    #[test]
    fn the_random_numbers_are_those_of_a_run() {
        let mut solo = Solo::<Say>::with_seed("crane", 42);
        let mut expected = AgentRng::new(42, AgentId::from("crane"));
        assert_eq!(solo.context().rng().next_u64(), expected.next_u64());
    }
}
