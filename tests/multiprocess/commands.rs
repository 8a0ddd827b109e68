//! What is asked of agents before and between runs: the same calls and answers in every placement.

use maslite_mp::MpMainBuilder;
use maslite_mp::core::Message;
use maslite_mp::prelude::*;
use maslite_mp::{CommandError, ControlError};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};
use crate::workers::kill;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
pub(crate) enum Msg {
    /// Is passed on until nothing is left of it.
    Token { hops: u64 },
    /// As a command: how many tokens have you seen? As the answer: their number.
    Count(u64),
    /// As a command: count on from this number.
    Reset(u64),
    /// As a command: panic.
    Panic,
    /// As mail: do not return from the update before this number of milliseconds has passed.
    Work(u64),
}

/// How many players pass tokens on to each other.
pub(crate) const PLAYERS: u64 = 8;

/// Counts tokens and passes each on, to a random player after a random while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Player {
    pub(crate) seen: u64,
}

impl Agent<Msg> for Player {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("Work"));
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Token { hops } => {
                self.seen += 1;
                if hops > 0 {
                    let other = ctx.rng().random_range(1..=PLAYERS);
                    let delay = SimDuration::from_millis(ctx.rng().random_range(0..4));
                    let alarm = Alarm::after(delay).to(AgentId::from(other));
                    ctx.set_alarm(alarm, Msg::Token { hops: hops - 1 });
                }
            }
            Msg::Work(milliseconds) if mail.receiver != Receiver::Subscribers => {
                // Work that a computer does is time that passes.
                let end =
                    maslite_mp::clock::wall() + std::time::Duration::from_millis(milliseconds);
                while maslite_mp::clock::wall() < end {
                    std::hint::spin_loop();
                }
                ctx.send(AgentId::MAIN, Msg::Count(0));
            }
            _ => {}
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Count(_) => Ok(Msg::Count(self.seen)),
            Msg::Reset(seen) => Ok(Msg::Count(std::mem::replace(&mut self.seen, seen))),
            Msg::Panic => panic!("no command for me"),
            other => Err(Refusal::new(format!("{} is mail", other.topic()))),
        }
    }
}

/// Does nothing, and takes no commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spectator {
    pub(crate) hat: String,
}

impl Agent<Msg> for Spectator {}

/// Is made by a builder, and has no state that could cross.
struct Ghost;

impl Agent<Msg> for Ghost {}

pub(crate) fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Player>()
        .with::<Spectator>()
        .with_builder("ghosts", |id: u64, agents: &mut AgentSet<Msg>| {
            agents.add(id, Ghost);
        })
        .entered_by_test("commands::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// Players in `clusters` clusters, one after the other, and a spectator in the last one.
pub(crate) fn game(placement: TestPlacement, clusters: u64, lookahead: u64) -> MpMain<Msg> {
    game_with(placement, clusters, lookahead, |settings| settings)
}

/// The same with settings of its own.
pub(crate) fn game_with(
    placement: TestPlacement,
    clusters: u64,
    lookahead: u64,
    settings: impl FnOnce(MpMainBuilder<Msg>) -> MpMainBuilder<Msg>,
) -> MpMain<Msg> {
    let lookahead = SimDuration::from_millis(lookahead);
    let builder = MpMain::builder(agents()).on(placement).lookahead(lookahead);
    let mut main = settings(builder.digest()).build().unwrap();
    let clusters: Vec<_> = (0..clusters).map(|_| main.new_cluster()).collect();
    for id in 1..=PLAYERS {
        let cluster = clusters[usize::try_from(id).unwrap() % clusters.len()];
        main.add_to(cluster, id, Player { seen: 0 }).unwrap();
    }
    let hat = "blue".to_owned();
    main.add_to(*clusters.last().unwrap(), "fan", Spectator { hat })
        .unwrap();
    main
}

pub(crate) fn token(to: u64, hops: u64) -> Mail<Msg> {
    Mail::new(AgentId::MAIN, AgentId::from(to), Msg::Token { hops })
}

fn counts(main: &mut MpMain<Msg>) -> Vec<(AgentId, Msg)> {
    let audience = Audience::all().of_type::<Player>();
    let answers = main.command_all(audience, Msg::Count(0)).unwrap();
    answers
        .into_iter()
        .map(|(id, answer)| (id, answer.unwrap()))
        .collect()
}

/// For every placement, without and with a lookahead.
pub(crate) fn everywhere(check: impl Fn(TestPlacement, u64)) {
    for placement in ALL {
        for lookahead in [0, 1] {
            check(placement, lookahead);
        }
    }
}

#[test]
fn agents_are_read_before_and_between_runs() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 3, lookahead);
        assert_eq!(main.inspect::<Player>(1).unwrap(), Player { seen: 0 });
        for (tokens, player) in [(10, 1), (20, 5)] {
            main.send_mail(token(player, tokens));
            main.run(Run::until_idle()).unwrap();
        }
        let ids = 1..=PLAYERS;
        let seen = ids.map(|id| main.inspect::<Player>(id).unwrap().seen);
        let seen: Vec<u64> = seen.collect();
        assert_eq!(seen.iter().sum::<u64>(), 11 + 21);
        let told = (1..).zip(&seen);
        let told = told.map(|(id, seen): (u64, _)| (AgentId::from(id), Msg::Count(*seen)));
        assert_eq!(counts(&mut main), told.collect::<Vec<_>>());
        let fan = main.inspect::<Spectator>("fan").unwrap();
        assert_eq!(fan.hat, "blue");
    });
}

#[test]
fn a_run_that_is_asked_in_between_is_as_one_that_is_not() {
    everywhere(|placement, lookahead| {
        let run = |asked: bool| {
            let mut main = game(placement, 3, lookahead);
            (1..=4).for_each(|player| main.send_mail(token(player, 60)));
            let report = loop {
                if asked {
                    main.command_all(Audience::all(), Msg::Count(0)).unwrap();
                    main.inspect::<Player>(2).unwrap();
                    main.agents().unwrap();
                }
                let report = main.run(Run::lasting(SimDuration::from_millis(7))).unwrap();
                if report.stopped_by == StopReason::Idle {
                    break report;
                }
            };
            (report.digest, report.total, report.now)
        };
        assert_eq!(run(true), run(false), "{placement:?} {lookahead}");
    });
}

#[test]
fn what_agents_and_clusters_have_is_listed() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 2, lookahead);
        let (first, second) = (ClusterIds::of(&mut main)[0], ClusterIds::of(&mut main)[1]);
        let agents = main.agents().unwrap();
        let ids: Vec<_> = agents.iter().map(|agent| agent.id).collect();
        let players = (1..=PLAYERS).map(AgentId::from);
        assert_eq!(ids, players.chain(["fan".into()]).collect::<Vec<_>>());
        assert_eq!(agents[0].cluster, second);
        assert_eq!(agents[1].cluster, first);
        assert!(agents[8].type_name.ends_with("Spectator"), "{agents:?}");
        assert_eq!(main.counters_of(first).unwrap().agents, 4);
        assert!(main.subscriptions_of(first).unwrap().is_empty());

        main.send_mail(token(2, 1));
        main.run(Run::until_idle().supersteps(1)).unwrap();
        let alarms = main.alarms_of(first).unwrap();
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        assert_eq!(
            (alarms[0].setter, alarms[0].topic),
            (2.into(), Topic::from("Token"))
        );
        let subscriptions = main.subscriptions_of(first).unwrap();
        let work = Pattern::topic("Work");
        assert_eq!(subscriptions, [2, 4, 6, 8].map(|id| (id.into(), work)));
    });
}

/// The clusters of a simulation, in order, as the listing of its agents shows them.
struct ClusterIds;

impl ClusterIds {
    fn of(main: &mut MpMain<Msg>) -> Vec<ClusterId> {
        let agents = main.agents().unwrap().into_iter();
        let mut clusters: Vec<_> = agents.map(|agent| agent.cluster).collect();
        clusters.sort();
        clusters.dedup();
        clusters
    }
}

#[test]
fn every_reason_not_to_answer_is_an_error_of_its_own() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 2, lookahead);
        let cluster = ClusterIds::of(&mut main)[1];
        main.build(cluster, "ghosts", 77_u64).unwrap();
        let fan = AgentId::from("fan");

        let error = main.inspect::<Player>(99).unwrap_err();
        let unknown = CommandError::UnknownAgent(99.into());
        assert_eq!(error, ControlError::Agent(unknown));
        let error = main.inspect::<Player>("fan").unwrap_err();
        assert!(error.to_string().contains("Spectator, not a "), "{error}");
        assert!(matches!(
            error,
            ControlError::Agent(CommandError::WrongType { agent, .. }) if agent == fan
        ));
        let error = main.inspect::<Stranger>(77).unwrap_err();
        assert!(matches!(
            error,
            ControlError::Agent(CommandError::WrongType { .. })
        ));
        let error = main.command("fan", Msg::Count(0)).unwrap_err();
        assert_eq!(error.to_string(), "agent fan refuses: it takes no commands");
        let error = main.command(1, Msg::Token { hops: 1 }).unwrap_err();
        assert_eq!(error.to_string(), "agent 1 refuses: Token is mail");
        let error = main.command(1, Msg::Panic).unwrap_err();
        let text = "agent 1 panicked while it handled a command: no command for me";
        assert_eq!(error.to_string(), text);
        // None of this did harm.
        assert_eq!(main.command(1, Msg::Reset(5)).unwrap(), Msg::Count(0));
        assert_eq!(main.command(1, Msg::Count(0)).unwrap(), Msg::Count(5));
        main.send_mail(token(1, 3));
        assert_eq!(main.run(Run::until_idle()).unwrap().total.delivered, 4);
    });
}

/// Of the type of no agent.
#[derive(Debug, Serialize, Deserialize)]
struct Stranger;

impl Agent<Msg> for Stranger {}

#[test]
fn an_agent_taken_out_is_gone_and_handed_over() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 2, lookahead);
        main.send_mail(token(2, 0));
        main.run(Run::until_idle()).unwrap();
        // An agent of the wrong type stays.
        main.take_out::<Player>("fan").unwrap_err();
        main.inspect::<Spectator>("fan").unwrap();
        assert_eq!(main.take_out::<Player>(2).unwrap(), Player { seen: 1 });
        let gone = ControlError::Agent(CommandError::UnknownAgent(2.into()));
        assert_eq!(main.inspect::<Player>(2).unwrap_err(), gone);
        main.send_mail(token(2, 0));
        // Its subscription is gone, too.
        let work = Mail::new(AgentId::MAIN, Receiver::Subscribers, Msg::Work(0));
        main.send_mail(work);
        let report = main.run(Run::until_idle()).unwrap();
        let counters = report.total;
        assert_eq!((counters.agents, counters.undeliverable), (8, 1));
        assert_eq!(counters.delivered, 1 + PLAYERS - 1);
    });
}

#[test]
fn an_agent_taken_out_while_it_is_awake_leaves_its_mail() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 2, lookahead);
        main.send_mail(token(2, 5));
        main.send_mail(token(3, 0));
        // The mail is posted, and no agent has read it.
        main.run(Run::until_idle().supersteps(1)).unwrap();
        main.send_mail(token(4, 0));
        main.run(Run::until_idle().supersteps(0)).unwrap();
        main.take_out::<Player>(4).unwrap();
        let report = main.run(Run::until_idle()).unwrap();
        let counters = report.total;
        assert_eq!(counters.queued, 0);
        assert_eq!(counters.sent, counters.delivered + counters.undeliverable);
        assert!(counters.undeliverable >= 1);
    });
}

#[test]
fn an_agent_is_replaced_where_it_sits() {
    everywhere(|placement, lookahead| {
        let mut main = game(placement, 2, lookahead);
        main.send_mail(token(2, 0));
        main.run(Run::until_idle()).unwrap();
        main.replace(2, Player { seen: 40 }).unwrap();
        main.send_mail(token(2, 0));
        let work = Mail::new(AgentId::MAIN, Receiver::Subscribers, Msg::Work(0));
        main.send_mail(work);
        let report = main.run(Run::until_idle()).unwrap();
        assert_eq!(main.inspect::<Player>(2).unwrap().seen, 41);
        assert_eq!(report.total.delivered, 2 + PLAYERS, "it listens still");
        assert!(matches!(
            main.replace(2, Stranger).unwrap_err(),
            ControlError::Unregistered { .. }
        ));
    });
}

#[test]
fn a_cluster_that_died_meanwhile_is_named() {
    let mut main = game(TestPlacement::Ring, 2, 0);
    main.run(Run::until_idle()).unwrap();
    let (second, pid) = main.pids().remove(1);
    kill(pid);
    let error = main.inspect::<Player>(1).unwrap_err();
    match &error {
        ControlError::ClusterDied { cluster, .. } => assert_eq!(*cluster, second.name()),
        other => panic!("{other}"),
    }
    assert_eq!(main.inspect::<Player>(1).unwrap_err(), ControlError::Ended);
}
