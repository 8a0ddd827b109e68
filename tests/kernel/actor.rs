//! Agents made of closures, and a log of what they went through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use maslite_core::{
    Agent, AgentId, Context, Error, Mail, Receiver, Report, Run, Scheduler, SchedulerBuilder,
};

/// A message that is its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Say(pub(crate) &'static str);

impl maslite_core::Message for Say {
    fn topic(&self) -> maslite_core::Topic {
        maslite_core::Topic::new(self.0)
    }
}

pub(crate) type Ctx<'a> = Context<'a, Say>;
type Deed = Box<dyn FnMut(&mut Ctx<'_>) + Send>;
type Reaction = Box<dyn FnMut(Mail<Say>, &mut Ctx<'_>) + Send>;

/// An agent made of closures. It logs its setup and its teardown.
pub(crate) struct Actor {
    log: Log,
    on_setup: Option<Deed>,
    on_update: Option<Deed>,
    on_teardown: Option<Deed>,
    on: BTreeMap<&'static str, Reaction>,
}

impl Actor {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            on_setup: None,
            on_update: None,
            on_teardown: None,
            on: BTreeMap::new(),
        }
    }

    pub(crate) fn setup(mut self, deed: impl FnMut(&mut Ctx<'_>) + Send + 'static) -> Self {
        self.on_setup = Some(Box::new(deed));
        self
    }

    /// Takes the place of reading all mail. It is logged.
    pub(crate) fn update(mut self, deed: impl FnMut(&mut Ctx<'_>) + Send + 'static) -> Self {
        self.on_update = Some(Box::new(deed));
        self
    }

    pub(crate) fn teardown(mut self, deed: impl FnMut(&mut Ctx<'_>) + Send + 'static) -> Self {
        self.on_teardown = Some(Box::new(deed));
        self
    }

    /// What it does on receiving mail about a topic.
    pub(crate) fn on(
        mut self,
        topic: &'static str,
        reaction: impl FnMut(Mail<Say>, &mut Ctx<'_>) + Send + 'static,
    ) -> Self {
        self.on.insert(topic, Box::new(reaction));
        self
    }

    /// The same, for one that sends one message.
    pub(crate) fn sends(self, on: &'static str, to: u64, topic: &'static str) -> Self {
        self.on(on, move |_, ctx| ctx.send(to, Say(topic)))
    }

    fn note(&self, ctx: &Ctx<'_>, what: &str) {
        let (time, step, id) = (millis(ctx.now().as_nanos()), ctx.superstep(), ctx.id());
        self.log.note(format_args!("{time}/{step} {id} {what}"));
    }
}

impl Agent<Say> for Actor {
    fn setup(&mut self, ctx: &mut Ctx<'_>) {
        self.note(ctx, "is set up");
        if let Some(deed) = &mut self.on_setup {
            deed(ctx);
        }
    }

    fn update(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(deed) = &mut self.on_update {
            deed(ctx);
            self.note(ctx, "is updated");
            return;
        }
        while let Some(mail) = ctx.next_mail() {
            self.receive(mail, ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Say>, ctx: &mut Ctx<'_>) {
        if let Some(reaction) = self.on.get_mut(mail.body.0) {
            reaction(mail, ctx);
        }
    }

    fn teardown(&mut self, ctx: &mut Ctx<'_>) {
        self.note(ctx, "is torn down");
        if let Some(deed) = &mut self.on_teardown {
            deed(ctx);
        }
    }
}

/// A time as tests write it: in milliseconds, or else with its unit.
fn millis(nanos: u64) -> String {
    match (nanos / 1_000_000, nanos % 1_000_000) {
        (millis, 0) => millis.to_string(),
        _ => format!("{nanos}ns"),
    }
}

/// Lines, in the order they were noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.0.lock().unwrap().push(what.to_string());
    }

    /// The lines since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Takes the lines and compares them.
    #[track_caller]
    pub(crate) fn is(&self, expected: &[&str]) {
        assert_eq!(self.take(), expected);
    }
}

/// A scheduler of actors. Deliveries and what happens to the actors go to one log.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler<Say>,
    pub(crate) log: Log,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Scheduler::builder())
    }

    pub(crate) fn of(settings: SchedulerBuilder<Say>) -> Self {
        let log = Log::default();
        Self {
            scheduler: settings.digest().observe(observer(log.clone())).build(),
            log,
        }
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::new(&self.log)
    }

    pub(crate) fn add(&mut self, id: impl Into<AgentId>, actor: Actor) {
        self.scheduler.add(id, actor).unwrap();
    }

    /// An agent that only listens.
    pub(crate) fn add_idle(&mut self, id: impl Into<AgentId>) {
        let actor = self.actor();
        self.add(id, actor);
    }

    pub(crate) fn mail(&mut self, from: u64, to: u64, topic: &'static str) {
        let (from, to) = (AgentId::from(from), AgentId::from(to));
        self.scheduler.send_mail(Mail::new(from, to, Say(topic)));
    }

    #[track_caller]
    pub(crate) fn run(&mut self, run: Run) -> Report {
        balanced(self.scheduler.run(run).unwrap())
    }

    #[track_caller]
    pub(crate) fn run_until_idle(&mut self) -> Report {
        self.run(Run::until_idle())
    }

    #[track_caller]
    pub(crate) fn fails(&mut self) -> Error {
        self.scheduler.run(Run::until_idle()).unwrap_err()
    }
}

/// Logs deliveries: `0/1 3 gets B from 1 to 2` is a copy that 3 gets at 0 ms in superstep 1.
fn observer(log: Log) -> maslite_core::Observer<Say> {
    Box::new(move |delivery| {
        let (time, step) = (millis(delivery.time.as_nanos()), delivery.superstep);
        let (agent, sender, topic) = (delivery.agent, delivery.mail.sender, delivery.mail.topic());
        let to = match delivery.mail.receiver {
            Receiver::Agent(id) | Receiver::Direct(id) if id == agent => String::new(),
            Receiver::Agent(id) | Receiver::Direct(id) => format!(" to {id}"),
            Receiver::Subscribers => " to all".to_owned(),
        };
        log.note(format_args!(
            "{time}/{step} {agent} gets {topic} from {sender}{to}"
        ));
    })
}

/// No mail is lost or made up.
#[track_caller]
pub(crate) fn balanced(report: Report) -> Report {
    let counters = &report.total;
    let accounted = counters.delivered + counters.undeliverable + counters.queued;
    assert_eq!(counters.sent, accounted, "{report}");
    let alarms = counters.alarms_fired + counters.alarms_cleared + counters.alarms_pending;
    assert_eq!(counters.alarms_set, alarms, "{report}");
    report
}
