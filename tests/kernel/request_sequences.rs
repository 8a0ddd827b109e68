//! Random sequences of runs and requests on a lone scheduler: none makes it panic, and time never
//! goes back.

use std::thread;
use std::time::Duration;

use maslite_core::clock::Speed;
use maslite_core::{
    Agent, AgentId, AgentRng, Alarm, AlarmFilter, Clock, Context, Error, Mail, Receiver, Refusal,
    Run, Scheduler, SimDuration, SimTime, StopReason,
};
use rand::RngExt;

const PLAYERS: u64 = 5;

#[derive(Clone, Debug, maslite_core::Message)]
enum Msg {
    Token(u64),
    Last,
}

struct Player;

impl Agent<Msg> for Player {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Token(hops) if hops > 0 => {
                let to = AgentId::from(ctx.rng().random_range(1..=PLAYERS));
                let delay = SimDuration::from_millis(ctx.rng().random_range(0..4));
                ctx.set_alarm(Alarm::after(delay).to(to), Msg::Token(hops - 1));
            }
            Msg::Token(_) => {
                ctx.alarm_at(SimTime::MAX, Msg::Last);
            }
            Msg::Last => {}
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Last => panic!("no command for me"),
            other => Ok(other),
        }
    }
}

fn some_run(rng: &mut AgentRng, now: SimTime) -> Run {
    let millis = SimDuration::from_millis(rng.random_range(0..20));
    let run = match rng.random_range(0..8) {
        0 => Run::until_idle(),
        1 => Run::lasting(SimDuration::MAX),
        2 => Run::lasting(SimDuration::ZERO),
        3 => Run::until(SimTime::ZERO),
        4 => Run::until(now.saturating_sub(millis)),
        5 => Run::until(SimTime::MAX),
        _ => Run::lasting(millis),
    };
    let run = run.timeout([Duration::ZERO, Duration::from_millis(5)][rng.random_range(0..2)]);
    match rng.random_range(0..4) {
        0 => run.supersteps([0, 1, u64::MAX][rng.random_range(0..3)]),
        1 => run.stop_when(|counters| counters.delivered % 5 == 4),
        _ => run,
    }
}

fn disturb(clock: Clock, seed: u64) {
    let mut rng = AgentRng::new(seed, AgentId::from(1));
    let mut scheduler = Scheduler::builder().seed(seed).clock(clock).build();
    for id in 1..=PLAYERS {
        scheduler.add(id, Player).unwrap();
    }
    let handle = scheduler.controller();
    let sender = thread::spawn(move || {
        let mut rng = AgentRng::new(seed, AgentId::from(2));
        for _ in 0..40 {
            let to = AgentId::from(rng.random_range(0..8));
            match rng.random_range(0..3) {
                0 => handle.stop(),
                _ => handle.send(to, Msg::Token(20)),
            }
        }
    });
    for _ in 0..40 {
        let agent = AgentId::from(rng.random_range(0..8));
        match rng.random_range(0..7) {
            0 => drop(scheduler.remove(agent)),
            1 => drop(scheduler.take_out::<Player>(agent)),
            2 => drop(scheduler.replace(agent, Player)),
            3 => drop(scheduler.command(agent, Msg::Last)),
            4 => drop(scheduler.clear_alarms(AlarmFilter::all().to(agent))),
            _ => scheduler.send(Receiver::from(agent), Msg::Token(9)),
        }
        let before = scheduler.now();
        let run = some_run(&mut rng, before);
        let report = match scheduler.run(run) {
            // An agent that is awake at the end of time may want to go beyond it.
            Err(Error::TimeOverflow { .. }) => break,
            report => report.unwrap(),
        };
        assert!(report.now >= before, "{clock:?}, seed {seed}: {report:?}");
    }
    sender.join().unwrap();
}

#[test]
fn no_sequence_of_requests_makes_a_scheduler_panic() {
    let hasty = Clock::Paced(Speed::new(1e9).unwrap());
    for seed in 0..20 {
        for clock in [Clock::Simulated, hasty, Clock::RealTime] {
            disturb(clock, seed);
        }
    }
}

/// A clock that has come to the end of time, and an alarm there, are no reason to go round and
/// round.
#[test]
fn a_paced_run_ends_with_the_last_instant_of_time() {
    let fastest = Clock::Paced(Speed::new(f64::MAX).unwrap());
    let mut scheduler = Scheduler::builder().clock(fastest).build();
    scheduler.add(1, Player).unwrap();
    scheduler.send(1, Msg::Token(0));
    // A run that does not end by itself shows here, and does not hang the test.
    let run = Run::until_idle().timeout(Duration::from_secs(20));
    let report = scheduler.run(run).unwrap();
    assert_eq!(
        (report.stopped_by, report.now),
        (StopReason::Idle, SimTime::MAX)
    );
    assert_eq!(report.total.alarms_fired, 1);
}
