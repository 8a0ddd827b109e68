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
    // A cluster that forgets writes messages down before they are to leave, and refuses them there.
    let mut main = MpMain::builder(agents()).amnesia(None).build().unwrap();
    let clusters = (0..clusters).map(|_| main.new_cluster()).collect();
    (main, clusters)
}

#[test]
fn names_and_numbers_that_do_not_fit_are_refused() {
    let (mut main, clusters) = main_of(2);
    let error = main.new_cluster_named("2").unwrap_err();
    assert!(
        matches!(&error, Error::DuplicateCluster(name) if name == "2"),
        "{error}"
    );

    let (mut other, _) = main_of(1);
    let error = other.add_to(clusters[1], 1, Gossip).unwrap_err();
    assert!(matches!(error, Error::UnknownCluster(1)), "{error}");

    // The number would fit; the simulation does not.
    let error = other.add_to(clusters[0], 1, Gossip).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cluster number 0 does not belong to this simulation: use the `ClusterId` that `new_cluster` of this `MpMain` returned"
    );
    for refused in [
        other.build(clusters[0], "factory", ()).unwrap_err(),
        other
            .set_lookahead(clusters[0], SimDuration::ZERO)
            .unwrap_err(),
    ] {
        assert!(matches!(refused, Error::UnknownCluster(0)), "{refused}");
    }
    let settings = MpMain::builder(agents()).placement(Placement::Inline);
    let mut inline = settings.build().unwrap();
    inline.new_cluster();
    let foreign = maslite_mp::ControlError::UnknownCluster(0);
    assert_eq!(inline.alarms_of(clusters[0]).unwrap_err(), foreign);
    assert_eq!(inline.subscriptions_of(clusters[0]).unwrap_err(), foreign);
    assert_eq!(inline.counters_of(clusters[0]).unwrap_err(), foreign);
    let audience = Audience::all().in_cluster(clusters[0]);
    let refused = inline.command_all(audience, Msg::Go).err();
    assert_eq!(refused, Some(foreign), "a cluster of another simulation");

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
    let error = main.add_to(clusters[0], 1, Secretive(0)).unwrap_err();
    assert!(
        matches!(&error, Error::Encode { what, .. } if what.contains("Secretive")),
        "{error}"
    );

    main.add_to(clusters[0], 1, Gossip).unwrap();
    main.add_to(clusters[1], 2, Gossip).unwrap();
    main.send(1, Msg::Go);
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(
        matches!(&error, Error::EncodeInCluster { cluster, .. } if cluster == "1"),
        "{error}"
    );
}

#[test]
fn what_does_not_deserialise_is_named_where_it_happens() {
    let (mut main, clusters) = main_of(2);
    main.add_to(clusters[1], 7, Forgetful(0)).unwrap();
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

/// A slip in the name, a test that is not ignored, and one that does not enter: the harness runs
/// nothing, or the wrong thing.
#[test]
fn a_test_that_is_no_entry_is_named() {
    for test in [
        "refusals::nowhere",
        "refusals::names_and_numbers_that_do_not_fit_are_refused",
        "refusals::idle",
    ] {
        let nowhere = registry().entered_by_test(test).enter();
        let mut main = MpMain::new(nowhere).unwrap();
        let cluster = main.new_cluster();
        main.add_to(cluster, 1, Gossip).unwrap();
        let error = main.run(Run::until_idle()).unwrap_err();
        let Error::Start(error @ SpawnError::ExitedBeforeHello { exit, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!(*exit, ExitKind::Success);
        let expected = format!(
            "the process of cluster 1 (0) ended before its handshake: it exited silently, with code 0; no ignored test of \
             this program has the name {test:?}, or that test does not call `enter`: give `entered_by_test` the full name of the test, with its modules, and write `#[ignore]` above the test"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
#[ignore = "what child processes are started for by mistake"]
fn idle() {}

/// A test may be the entry of several registries; the builders behind their names must be the same.
#[test]
fn another_registry_in_the_entry_is_told() {
    let other = Registry::<Msg>::new().with_builder("factory", |(): (), _| {});
    let mut main = MpMain::new(other.entered_by_test("refusals::child").enter()).unwrap();
    main.new_cluster();
    let error = main.start().unwrap_err();
    let Error::Start(SpawnError::ExitedBeforeHello { passed, .. }) = &error else {
        panic!("{error}");
    };
    let [passed] = passed.as_slice() else {
        panic!("{passed:?}");
    };
    assert!(passed.starts_with("`enter` at "), "{passed}");
    assert!(
        passed.ends_with(
            "(builder \"factory\" is missing, agent type multiprocess::refusals::Ambitious is there in addition, \
             agent type multiprocess::refusals::Forgetful is there in addition, \
             agent type multiprocess::refusals::Gossip is there in addition, and 1 more differences)"
        ),
        "{passed}"
    );
}

#[test]
fn an_agent_that_starts_a_simulation_ends_its_process() {
    let (mut main, clusters) = main_of(1);
    main.add_to(clusters[0], 1, Ambitious).unwrap();
    let error = main.run(Run::until_idle()).unwrap_err();
    let Error::ClusterDied { exit, stderr, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*exit, ExitKind::InitFailed);
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with("`enter` was called in the process of a cluster, at ")
            && last.ends_with(": an agent cannot start a simulation of its own in a process"),
        "{last}"
    );
    assert!(error.to_string().contains(last), "{error}");
}

#[test]
fn names_of_clusters_that_a_terminal_would_obey_are_refused() {
    let agents: Entered<Msg> = Registry::new().entered_by_test("refusals::child").enter();
    let mut main = MpMain::new(agents).unwrap();
    let long = "x".repeat(201);
    for (bad, shown) in [
        ("", ""),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\u{1b}[2J"),
        ("\u{202e}north", "\\u{202e}north"),
        (&long, &format!("{}…", "x".repeat(40))),
    ] {
        let error = main.new_cluster_named(bad).unwrap_err();
        let expected = format!(
            "the name {shown} is not valid for a cluster: use 1 to 200 characters, and none that a terminal obeys"
        );
        assert_eq!(error.to_string(), expected);
    }
    main.new_cluster_named("nördlich 北 7").unwrap();
}

/// More clusters than this process may have descriptors for are refused when they are made, and
/// before that there is no table of all of them by all of them.
#[test]
fn more_clusters_than_can_be_started_are_refused_when_they_are_made() {
    let mut main = MpMain::new(agents()).unwrap();
    for made in 0..60_000 {
        let Err(error) = main.new_cluster_named(&format!("zone {made}")) else {
            continue;
        };
        let Error::Start(SpawnError::TooManyClusters {
            asked, possible, ..
        }) = error
        else {
            panic!("{error}");
        };
        assert_eq!((asked, possible), (made + 1, made));
        // One that is made without a name is refused with its first agent.
        let cluster = main.new_cluster();
        let error = main.add_to(cluster, 1, Gossip).unwrap_err();
        assert!(matches!(
            error,
            Error::Start(SpawnError::TooManyClusters { .. })
        ));
        return;
    }
    // This machine may have more.
}
