//! What crossed into a cluster is recorded, and the cluster is run again alone from that.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maslite_mp::Error;
use maslite_mp::prelude::*;
use maslite_mp::recording::{Replay, ReplayError};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Parcel { stops: u32 },
    News,
}

const PLACES: u64 = 12;

/// How often an agent of this process has strayed.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Passes parcels on, by chance, sometimes with news for all, sometimes by a carrier of its own.
#[derive(Serialize, Deserialize)]
struct Depot {
    seen: u64,
    news: u64,
    /// At the parcel of this number it panics.
    breaks_at: Option<u64>,
    /// It does what depends on how often agents of its process were called.
    strays: bool,
}

impl Agent<Msg> for Depot {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        if ctx.id().as_u64().is_multiple_of(3) {
            ctx.subscribe(Pattern::topic("News"));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Parcel { stops } = mail.body else {
            self.news += 1;
            return;
        };
        self.seen += 1;
        assert_ne!(Some(self.seen), self.breaks_at, "too many parcels");
        if stops == 0 {
            return;
        }
        let parcel = Msg::Parcel { stops: stops - 1 };
        let to = ctx.rng().random_range(0..PLACES);
        let to = match self.strays {
            true => CALLS.fetch_add(1, Ordering::Relaxed) % PLACES,
            false => to,
        };
        match self.seen % 7 {
            0 => ctx.broadcast(Msg::News),
            3 => {
                let id = 1_000 + ctx.id().as_u64() * 1_000 + self.seen;
                ctx.add(id, Depot::new());
                ctx.send(id, Msg::Parcel { stops: 2 });
            }
            _ => {}
        }
        let delay = SimDuration::from_millis(self.seen % 3);
        ctx.set_alarm(Alarm::after(delay).to(AgentId::from(to)), parcel);
    }
}

impl Depot {
    fn new() -> Self {
        Self {
            seen: 0,
            news: 0,
            breaks_at: None,
            strays: false,
        }
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Depot>();
    registry.entered_by_test("recording::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("record-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// Depots in three clusters, whose words are recorded. One of them, in the second cluster, may be
/// another one.
fn recorded(
    placement: Placement,
    lookahead: SimDuration,
    folder: &Path,
    other: Depot,
) -> MpMain<Msg> {
    let mut main = MpMain::builder(agents())
        .seed(5)
        .placement(placement)
        .lookahead(lookahead)
        .digest()
        .record(folder)
        .build()
        .unwrap();
    let clusters = [main.new_cluster(), main.new_cluster(), main.new_cluster()];
    let mut other = Some(other);
    for (id, cluster) in (0..PLACES).zip(clusters.into_iter().cycle()) {
        let depot = if id == 4 { other.take() } else { None };
        let depot = depot.unwrap_or_else(Depot::new);
        main.add_to(cluster, id, depot).unwrap();
    }
    for to in 0..PLACES {
        main.send(to, Msg::Parcel { stops: 60 });
    }
    main
}

#[test]
fn a_cluster_alone_does_what_it_did_among_others() {
    for (number, (placement, lookahead)) in [
        (Placement::Inline, 0),
        (Placement::Processes, 0),
        (Placement::Inline, 2),
        (Placement::Processes, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = folder(&format!("same-{number}"));
        let lookahead = SimDuration::from_millis(lookahead);
        let mut main = recorded(placement, lookahead, &folder, Depot::new());
        main.run(Run::until(SimTime::from_millis(10))).unwrap();
        let middle = main.state_of(4).unwrap();
        // Wall time decides where this run ends, and the record knows.
        main.run(Run::until_idle().timeout(Duration::from_micros(300)))
            .unwrap();
        main.run(Run::until_idle()).unwrap();
        let mut expected = Vec::new();
        for agent in main.agents().unwrap() {
            let state = main.state_of(agent.id).unwrap();
            expected.push((agent.cluster, agent.id, state));
        }
        assert!(expected.len() as u64 > PLACES, "agents were added");
        main.shutdown().ok().unwrap();
        let mut found = 0;
        for name in ["1", "2", "3"] {
            let open = || Replay::open(&folder, name).unwrap().start(&agents());
            let mut one = open().unwrap();
            let stand = one.run_to_end().unwrap();
            assert!(stand.is_over && stand.messages > 20, "{stand:?}");
            for (cluster, agent, state) in &expected {
                if cluster.to_string() == name {
                    assert_eq!(one.state_of(*agent).unwrap(), *state);
                    found += 1;
                }
            }
            let mut one = open().unwrap();
            let stand = one.run_until(SimTime::from_millis(10)).unwrap();
            assert!(one.now() >= SimTime::from_millis(10) && !stand.is_over);
            if name == "2" {
                assert!(one.agent::<Depot>(4).unwrap().seen > 0);
                assert!(middle.contains("seen"));
            }
        }
        assert_eq!(found, expected.len());
    }
}

#[test]
fn a_panic_is_met_again() {
    for placement in [Placement::Inline, Placement::Processes] {
        let folder = folder(&format!("panic-{placement:?}"));
        let other = Depot {
            breaks_at: Some(20),
            ..Depot::new()
        };
        let mut main = recorded(placement, SimDuration::ZERO, &folder, other);
        let error = main.run(Run::until_idle()).unwrap_err();
        drop(main);
        let mut one = Replay::open(&folder, "2")
            .unwrap()
            .start(&agents())
            .unwrap();
        let again = one.run_to_end().unwrap_err();
        let ReplayError::Failed { source, .. } = again else {
            panic!("{again}");
        };
        let without_trace = |error: &Error| {
            let text = maslite_mp::Chain(error).to_string();
            text.lines().next().map(str::to_owned)
        };
        assert_eq!(without_trace(&source), without_trace(&error));
        assert_eq!(one.agent::<Depot>(4).unwrap().seen, 20);
        let mut other = Replay::open(&folder, "1")
            .unwrap()
            .start(&agents())
            .unwrap();
        other.run_to_end().unwrap();
    }
}

#[test]
fn a_cluster_that_does_something_else_is_named_with_the_grant() {
    let folder = folder("strays");
    let other = Depot {
        strays: true,
        ..Depot::new()
    };
    let mut main = recorded(Placement::Processes, SimDuration::ZERO, &folder, other);
    main.run(Run::until_idle()).unwrap();
    drop(main);
    CALLS.store(1, Ordering::Relaxed);
    let mut one = Replay::open(&folder, "2")
        .unwrap()
        .start(&agents())
        .unwrap();
    let error = one.run_to_end().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ReplayError::Differs { .. }), "{text}");
    // It passes its first parcel on to another agent, a millisecond after the start.
    let start =
        "cluster 2 does not what it did then: at grant 3 it stands at 0.001 s, superstep 0;";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn a_record_that_does_not_fit_or_is_damaged_is_refused() {
    let folder = folder("refused");
    let mut main = recorded(Placement::Inline, SimDuration::ZERO, &folder, Depot::new());
    main.run(Run::until(SimTime::from_millis(1))).unwrap();
    drop(main);
    // Another recording would mix with this one.
    let mut main = recorded(Placement::Inline, SimDuration::ZERO, &folder, Depot::new());
    let error = main.run(Run::until_idle()).unwrap_err();
    assert!(matches!(error, Error::Record { .. }), "{error}");
    let error = Replay::open(&folder, "4").unwrap_err().to_string();
    assert!(
        error.ends_with("has no record of cluster \"4\"; it has records of 1, 2, 3"),
        "{error}"
    );
    let other: Entered<Msg> = Registry::new().enter();
    let error = Replay::open(&folder, "2")
        .unwrap()
        .start(&other)
        .unwrap_err();
    assert!(matches!(error, ReplayError::OtherProgram { .. }), "{error}");
    // Each byte changed, each length.
    let alone = folder.join("alone");
    std::fs::create_dir(&alone).unwrap();
    let file = alone.join("1.rec");
    let bytes = std::fs::read(folder.join("1.rec")).unwrap();
    let replay = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let mut one = Replay::open(&alone, "2")?.start(&agents())?;
        one.run_to_end()
    };
    let whole = replay(&bytes).unwrap();
    let step = (bytes.len() / 400).max(1);
    for place in (0..bytes.len()).step_by(step) {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        match replay(&changed) {
            Err(ReplayError::Damaged { .. }) => {}
            // A length that is too large looks like a block that was cut.
            Ok(stand) => assert!(stand.messages < whole.messages || place + 12 >= bytes.len()),
            Err(error) => panic!("{place}: {error}"),
        }
        match replay(&bytes[..place]) {
            Err(ReplayError::Damaged { .. }) => {}
            Ok(stand) => assert!(stand.messages <= whole.messages),
            Err(error) => panic!("{place}: {error}"),
        }
    }
}
