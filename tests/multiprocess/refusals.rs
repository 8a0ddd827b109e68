//! What a program or its model gets wrong is an error of its own, each.

use maslite_mp::prelude::*;
use maslite_mp::{Error, ExitKind, SpawnError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Go,
    Secret(#[serde(serialize_with = "keep")] u8),
}

/// Refuses to serialise.
fn keep<S: Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom("it is a secret"))
}

/// Refuses to deserialise.
fn forget<'de, D: Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
    Err(serde::de::Error::custom("it was forgotten"))
}

/// Sends a secret to agent 2.
#[derive(Serialize, Deserialize)]
struct Gossip;

impl Agent<Msg> for Gossip {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        ctx.send(AgentId::from(2), Msg::Secret(0));
    }
}

#[derive(Serialize, Deserialize)]
struct Secretive(#[serde(serialize_with = "keep")] u8);

impl Agent<Msg> for Secretive {}

#[derive(Serialize, Deserialize)]
struct Forgetful(#[serde(deserialize_with = "forget")] u8);

impl Agent<Msg> for Forgetful {}

/// Starts a simulation of its own.
#[derive(Serialize, Deserialize)]
struct Ambitious;

impl Agent<Msg> for Ambitious {
    fn setup(&mut self, _: &mut Context<'_, Msg>) {
        let _ = agents();
    }
}

fn registry() -> Registry<Msg> {
    let registry = Registry::new().with::<Gossip>().with::<Secretive>();
    registry.with::<Forgetful>().with::<Ambitious>()
}

fn agents() -> Entered<Msg> {
    registry().entered_by_test("refusals::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn main_of(clusters: usize) -> (MpMain<Msg>, Vec<ClusterId>) {
    let mut main = MpMain::new(agents()).unwrap();
    let clusters = (0..clusters).map(|_| main.new_scheduler()).collect();
    (main, clusters)
}

#[test]
fn names_and_numbers_that_do_not_fit_are_refused() {
    let (mut main, clusters) = main_of(2);
    let error = main.new_scheduler_named("2").unwrap_err();
    assert!(
        matches!(&error, Error::DuplicateCluster(name) if name == "2"),
        "{error}"
    );

    let (mut other, _) = main_of(1);
    let error = other.add(clusters[1], 1, Gossip).unwrap_err();
    assert!(matches!(error, Error::UnknownCluster(1)), "{error}");

    let error = main.remove(99).unwrap_err();
    assert!(
        matches!(error, Error::UnknownAgent(id) if id == AgentId::from(99)),
        "{error}"
    );

    let error = main.build(clusters[0], "factory", ()).unwrap_err();
    assert!(
        matches!(&error, Error::UnknownBuilder { builder, .. } if builder == "factory"),
        "{error}"
    );

    main.set_lookahead(clusters[0], SimDuration::from_secs(1))
        .unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        matches!(&error, Error::MissingLookahead(name) if name == "2"),
        "{error}"
    );
}

#[test]
fn what_does_not_serialise_is_named_where_it_happens() {
    let (mut main, clusters) = main_of(2);
    let error = main.add(clusters[0], 1, Secretive(0)).unwrap_err();
    assert!(
        matches!(&error, Error::Encode { what, .. } if what.contains("Secretive")),
        "{error}"
    );

    main.add(clusters[0], 1, Gossip).unwrap();
    main.add(clusters[1], 2, Gossip).unwrap();
    main.send(Mail::new(AgentId::MAIN, AgentId::from(1), Msg::Go));
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        matches!(&error, Error::EncodeInCluster { cluster, .. } if cluster == "1"),
        "{error}"
    );
}

#[test]
fn what_does_not_deserialise_is_named_where_it_happens() {
    let (mut main, clusters) = main_of(2);
    main.add(clusters[1], 7, Forgetful(0)).unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    let Error::Decode { cluster, what, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(cluster, "2");
    assert!(
        what.contains("agent 7") && what.contains("Forgetful"),
        "{what}"
    );
}

#[test]
fn a_program_that_does_not_enter_cannot_start_clusters() {
    let nowhere = registry().entered_by_test("refusals::nowhere").enter();
    let mut main = MpMain::new(nowhere).unwrap();
    let cluster = main.new_scheduler();
    main.add(cluster, 1, Gossip).unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    let Error::Start(SpawnError::ExitedBeforeHello { exit, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*exit, ExitKind::Success);
}

#[test]
fn an_agent_that_starts_a_simulation_ends_its_process() {
    let (mut main, clusters) = main_of(1);
    main.add(clusters[0], 1, Ambitious).unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::ChildDied {
                exit: ExitKind::InitFailed,
                ..
            }
        ),
        "{error}"
    );
}
