//! Several runs one after the other are as one: wherever they are cut, nothing changes.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use maslite_core::{
    Agent, AgentId, AgentRng, Alarm, Context, Mail, Pattern, Receiver, Report, Run, Scheduler,
    SimDuration, SimTime, StopReason,
};
use maslite_testkit::scenario::generator;
use rand::RngExt;

use crate::actor::balanced;
use crate::scenario_traces::{Loaded, same_trace, whole};

/// Cuts a simulation into runs; each asks for a piece and tells what came of it.
fn cut_up(seed: u64, mut run: impl FnMut(Run) -> Report, end: Option<SimTime>) -> Report {
    let mut dice = AgentRng::new(seed, AgentId::from(1));
    let run_on = |end: Option<SimTime>| end.map_or(Run::until_idle(), Run::until);
    loop {
        let piece = match dice.random_range(0..6) {
            0 | 1 => run_on(end).supersteps(dice.random_range(0..4)),
            2 | 3 => {
                // Short enough to fall on an alarm as often as not.
                let short = Run::lasting(SimDuration::from_millis(dice.random_range(0..4)));
                match end {
                    None => short,
                    Some(end) => {
                        let now = run(Run::until(SimTime::ZERO)).now;
                        let next = now + SimDuration::from_millis(dice.random_range(0..4));
                        Run::until(next.min(end))
                    }
                }
            }
            4 => {
                let more = dice.random_range(1..10);
                let mut first = None;
                run_on(end).stop_when(move |counters| {
                    counters.delivered >= *first.get_or_insert(counters.delivered) + more
                })
            }
            _ => run_on(end).stop_when(|counters| counters.queued > 3),
        };
        let report = run(piece.supersteps_per_instant(u64::MAX));
        let at_end = end.is_some_and(|end| report.now >= end);
        if report.stopped_by == StopReason::Idle
            || (at_end && report.stopped_by == StopReason::TimeLimit)
        {
            return report;
        }
    }
}

#[test]
fn scenarios_cut_anywhere_go_on_as_if_nothing_had_been() {
    for seed in 0..150 {
        let scenario = generator::scenario(seed);
        let mut undisturbed = Loaded::new(&scenario);
        let expected = undisturbed.run(whole(&scenario));
        for cut in 0..3 {
            let mut cut_model = Loaded::new(&scenario);
            let end = scenario.run.until_ms.map(SimTime::from_millis);
            let got = cut_up(seed * 7 + cut, |run| cut_model.run(run), end);
            let of = format!("seed {seed}, cut {cut}");
            same_trace(&cut_model.trace(), &undisturbed.trace(), &of);
            assert_eq!(got.digest, expected.digest, "{of}");
            assert_eq!(got.total, expected.total, "{of}");
        }
    }
}

/// What unruly agents say to each other.
#[derive(Clone, Debug)]
struct Dare {
    topic: &'static str,
    ttl: u32,
}

impl maslite_core::Message for Dare {
    fn topic(&self) -> maslite_core::Topic {
        maslite_core::Topic::new(self.topic)
    }
}

/// Does everything that an agent can do, by chance. Chance depends on how often it was updated.
struct Unruly {
    generation: u32,
    children: Vec<u64>,
    updates: u64,
    /// Whether `pause` is called, or only thought of.
    pauses: bool,
    log: Arc<Mutex<String>>,
}

impl Unruly {
    fn new(generation: u32, pauses: bool, log: &Arc<Mutex<String>>) -> Self {
        Self {
            generation,
            children: Vec::new(),
            updates: 0,
            pauses,
            log: Arc::clone(log),
        }
    }

    fn note(&self, ctx: &Context<'_, Dare>, what: &str) {
        let (time, step, id) = (ctx.now(), ctx.superstep(), ctx.id());
        let mut log = self.log.lock().unwrap();
        let _ = writeln!(log, "{time} {step} {id} {what} {}", self.updates);
    }

    fn act(&mut self, ctx: &mut Context<'_, Dare>, ttl: u32) {
        let topic = ["A", "B", "C"][ctx.rng().random_range(0..3)];
        let dare = Dare { topic, ttl };
        let somebody = AgentId::from(ctx.rng().random_range(1..40));
        let delay = SimDuration::from_millis(ctx.rng().random_range(0..5));
        match ctx.rng().random_range(0..16) {
            0..4 => ctx.send(somebody, dare),
            4 => ctx.broadcast(dare),
            5 => ctx.send_direct(somebody, dare),
            6..8 => {
                ctx.alarm_in(delay, dare);
            }
            8 => {
                let alarm = Alarm::after(delay).to(Receiver::Agent(somebody));
                ctx.set_alarm(alarm, dare);
            }
            9 | 10 if self.generation < 3 && self.children.len() < 3 => {
                let child = ctx.id().as_u64() * 3 + 2 + self.children.len() as u64;
                self.children.push(child);
                ctx.add(
                    child,
                    Self::new(self.generation + 1, self.pauses, &self.log),
                );
                ctx.send(child, dare);
            }
            11 => {
                if let Some(child) = self.children.last() {
                    ctx.remove(*child);
                }
            }
            12 => {
                let keep = ctx.rng().random();
                ctx.keep_awake(keep);
            }
            13 => ctx.subscribe(Pattern::topic(topic)),
            14 if ttl == 1 => ctx.remove(ctx.id()),
            14 => ctx.unsubscribe_all(),
            _ if self.pauses => ctx.stop_run(),
            _ => {}
        }
    }
}

impl Agent<Dare> for Unruly {
    fn setup(&mut self, ctx: &mut Context<'_, Dare>) {
        self.note(ctx, "is set up");
        self.act(ctx, 3);
        self.act(ctx, 2);
    }

    fn update(&mut self, ctx: &mut Context<'_, Dare>) {
        self.updates += 1;
        let waiting = ctx.inbox().count();
        self.note(ctx, &format!("is updated with {waiting}"));
        // Now and then something stays in the inbox.
        let reads = ctx.rng().random_range(1..=4);
        for _ in 0..reads {
            let Some(mail) = ctx.next_mail() else { break };
            self.receive(mail, ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Dare>, ctx: &mut Context<'_, Dare>) {
        if let Some(ttl) = mail.body.ttl.checked_sub(1) {
            self.act(ctx, ttl);
            self.act(ctx, ttl);
        }
    }

    fn teardown(&mut self, ctx: &mut Context<'_, Dare>) {
        self.note(ctx, "is torn down");
        self.act(ctx, 2);
    }
}

/// A scheduler of unruly agents, and the log of all that happens.
fn unruly(seed: u64, pauses: bool) -> (Scheduler<Dare>, Arc<Mutex<String>>) {
    let log = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&log);
    let mut scheduler = Scheduler::builder()
        .seed(seed)
        .digest()
        .observe(
            Box::new(move |delivery: &maslite_core::Delivery<'_, Dare>| {
                let mut line = String::new();
                delivery.write_json(&mut line);
                let _ = writeln!(seen.lock().unwrap(), "{line}");
            }) as maslite_core::Observer<Dare>,
        )
        .build();
    for id in [3, 1, 2] {
        scheduler.add(id, Unruly::new(0, pauses, &log)).unwrap();
        let dare = Dare { topic: "A", ttl: 7 };
        scheduler.send_mail(Mail::new(id, AgentId::from(id), dare));
    }
    (scheduler, log)
}

#[test]
fn births_removals_and_unread_mail_are_cut_as_well() {
    let (mut births, mut removals, mut supersteps) = (0, 0, 0);
    for seed in 0..150 {
        let (mut scheduler, log) = unruly(seed, false);
        let expected = balanced(scheduler.run(Run::until_idle()).unwrap());
        let undisturbed = log.lock().unwrap().clone();
        births += undisturbed.matches("is set up").count() - 3;
        removals += undisturbed.matches("is torn down").count();
        supersteps += expected.total.supersteps;
        for cut in 0..3 {
            let (mut scheduler, log) = unruly(seed, cut == 2);
            let run = |run| balanced(scheduler.run(run).unwrap());
            let got = cut_up(seed * 7 + cut, run, None);
            let of = format!("seed {seed}, cut {cut}");
            same_trace(&log.lock().unwrap(), &undisturbed, &of);
            assert_eq!(got.digest, expected.digest, "{of}");
            assert_eq!(got.total, expected.total, "{of}");
        }
    }
    let enough = births > 300 && removals > 100 && supersteps > 3_000;
    assert!(
        enough,
        "too tame: {births} births, {removals} removals, {supersteps} supersteps"
    );
}
