//! What serde skips of an agent is made anew, wherever the agent is read from its encoding.

use std::sync::Arc;
use std::time::Duration;

use maslite_mp::prelude::*;
use maslite_mp::{ControlError, save_scheduler};
use serde::{Deserialize, Serialize};

use crate::saving::Folder;
use crate::test_placement::{ALL_AND_FORGETFUL, PlacedOn, TestPlacement};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Message)]
enum Msg {
    Tick,
    Entry(u64),
    /// Asked and answered: a sum, and how often the agent was read since it was made.
    Sum(u64, u32),
}

/// Knows a sum that is not encoded. It notices when that is wrong.
#[derive(Serialize, Deserialize, Default)]
struct Ledger {
    entries: Vec<u64>,
    is_torn: bool,
    #[serde(skip)]
    sum: u64,
    #[serde(skip)]
    readings: u32,
}

impl Agent<Msg> for Ledger {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.set_alarm(Alarm::every(SimDuration::from_millis(1)), Msg::Tick);
    }

    fn restored(&mut self) {
        assert!(!self.is_torn, "a page is missing");
        self.sum = self.entries.iter().sum();
        self.readings += 1;
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let entry = match mail.body {
            Msg::Entry(entry) => entry,
            // To any of them, so that clusters that run ahead have to go back.
            _ => match ctx.rng().random_range(1..=30_u64) {
                other @ 1..=4 => return ctx.send(other, Msg::Entry(self.sum % 97)),
                entry => entry,
            },
        };
        self.entries.push(entry);
        self.sum += entry;
        assert_eq!(self.sum, self.entries.iter().sum::<u64>());
    }

    fn command(&mut self, _: Msg) -> Result<Msg, Refusal> {
        Ok(Msg::Sum(self.sum, self.readings))
    }
}

/// Reads prices in a table that its program gives it.
#[derive(Serialize, Deserialize, Default)]
struct Clerk {
    asked: usize,
    #[serde(skip)]
    prices: Arc<[u64]>,
}

impl Agent<Msg> for Clerk {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        assert_eq!(self.prices.len(), 5, "parts are there before `setup`");
        ctx.set_alarm(Alarm::every(SimDuration::from_millis(1)), Msg::Tick);
    }

    fn restored(&mut self) {
        assert_eq!(self.prices.len(), 5, "parts are there before `restored`");
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if mail.body == Msg::Tick {
            let price = self.prices[self.asked % 5];
            self.asked += 1;
            let other: u64 = ctx.rng().random_range(1..=4);
            ctx.send(other, Msg::Entry(price));
            ctx.send(AgentId::MAIN, Msg::Entry(price));
        }
    }

    fn command(&mut self, _: Msg) -> Result<Msg, Refusal> {
        Ok(Msg::Sum(self.prices.iter().sum(), 0))
    }
}

/// The program keeps the table, so a child has one of its own.
fn agents() -> Entered<Msg> {
    agents_with(&Arc::from([3, 5, 7, 11, 13]))
}

fn agents_with(prices: &Arc<[u64]>) -> Entered<Msg> {
    let prices = Arc::clone(prices);
    Registry::new()
        .with_parts(move |clerk: &mut Clerk| {
            assert!(!prices.is_empty(), "the table is lost");
            clerk.prices = Arc::clone(&prices);
        })
        .with::<Clerk>() // takes nothing away
        .with::<Ledger>()
        .entered_by_test("parts::child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

const FIRST: SimTime = SimTime::from_millis(20);
const END: SimTime = SimTime::from_millis(60);

/// The sums of the four ledgers in the middle and at the end.
const SUMS: [[u64; 4]; 2] = [[483, 411, 362, 575], [1373, 1067, 958, 1596]];

/// Four ledgers in two clusters, in the middle of their story.
fn ledgers(settings: MpMainBuilder<Msg>) -> MpMain<Msg> {
    let mut main = settings.seed(11).build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for id in 1..=4 {
        let cluster = clusters[usize::from(id > 2)];
        main.add_to(cluster, id, Ledger::default()).unwrap();
    }
    main.run_until(FIRST).unwrap();
    main
}

/// What each ledger knows, and how often it was read.
fn known<S: Simulation<Msg>>(simulation: &mut S) -> ([u64; 4], [u32; 4])
where
    S::ControlError: std::fmt::Debug,
{
    let mut known = ([0; 4], [0; 4]);
    for (place, id) in (1..=4_u64).enumerate() {
        let Msg::Sum(sum, readings) = simulation.command(id, Msg::Tick).unwrap() else {
            panic!("a ledger answers with its sum");
        };
        (known.0[place], known.1[place]) = (sum, readings);
    }
    known
}

/// A simulation that does not forget because the environment asks for it.
fn remembering() -> MpMainBuilder<Msg> {
    MpMain::builder(agents())
        .amnesia(None)
        .speculation(Speculation::Off)
}

#[test]
fn a_skipped_field_is_there_in_every_placement() {
    for placement in ALL_AND_FORGETFUL {
        let mut main = ledgers(MpMain::builder(agents()).on(placement));
        assert_eq!(known(&mut main).0, SUMS[0], "{placement:?}");
        main.run_until(END).unwrap();
        assert_eq!(known(&mut main).0, SUMS[1], "{placement:?}");
    }
}

#[test]
fn it_is_there_after_clusters_that_ran_ahead_went_back() {
    let mut undone = 0;
    for seed in 0..10 {
        let speculation = Speculation::Random(seed);
        let settings = MpMain::builder(agents()).on(TestPlacement::Inline);
        let mut main = ledgers(settings.speculation(speculation));
        let report = main.run_until(END).unwrap();
        undone += report.run.undone;
        let (sums, readings) = known(&mut main);
        assert_eq!(sums, SUMS[1], "{seed}");
        // An agent whose state was read twice on the way back is told once.
        assert!(
            readings.iter().all(|readings| *readings < 2),
            "{readings:?}"
        );
    }
    assert!(undone > 50, "{undone}");
}

#[test]
fn it_is_there_once_a_simulation_goes_on_from_a_snapshot() {
    let folder = Folder::new("skipped");
    let mut main = ledgers(remembering().on(TestPlacement::Inline));
    main.save(folder.at("it")).unwrap();
    // A save reads nothing.
    assert_eq!(known(&mut main), (SUMS[0], [0; 4]));
    let open = || Restore::open(folder.at("it")).unwrap();
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        for clusters in [None, Some(3)] {
            let restore = match clusters {
                None => open(),
                Some(count) => open().into_clusters(count, move |it| it.spread_over(count)),
            };
            let mut main = restore.start(remembering().on(placement)).unwrap();
            assert_eq!(known(&mut main), (SUMS[0], [1; 4]));
            main.run_until(END).unwrap();
            assert_eq!(known(&mut main), (SUMS[1], [1; 4]));
        }
    }
    let alone = |path| {
        let restore = Restore::open(path).unwrap();
        restore.alone(Scheduler::builder(), &agents()).unwrap()
    };
    let mut first = alone(folder.at("it"));
    assert_eq!(known(&mut first), (SUMS[0], [1; 4]));
    save_scheduler(&first, &agents(), folder.at("again")).unwrap();
    let mut second = alone(folder.at("again"));
    second.run_until(END).unwrap();
    assert_eq!(known(&mut second), (SUMS[1], [1; 4]));
}

#[test]
fn it_is_there_in_a_cluster_that_comes_back() {
    let folder = Folder::new("skipped-and-killed");
    let policy = Recovery::restart().at_most(9, Duration::from_secs(60));
    let mut main = ledgers(remembering().on(TestPlacement::Ring).recovery(policy));
    let first = main.clusters()[0];
    let kill = |main: &mut MpMain<Msg>| {
        let pid = i32::try_from(main.pid(first).unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    // It is told again all that it was told: its agents are set up, and not read.
    kill(&mut main);
    assert_eq!(known(&mut main), (SUMS[0], [0; 4]));
    // It comes back from the state that was saved.
    main.save(folder.at("it")).unwrap();
    kill(&mut main);
    assert_eq!(known(&mut main), (SUMS[0], [1, 1, 0, 0]));
    main.run_until(END).unwrap();
    assert_eq!(known(&mut main), (SUMS[1], [1, 1, 0, 0]));
}

#[test]
fn an_agent_that_takes_the_place_of_another_is_told() {
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        let mut main = ledgers(remembering().on(placement));
        let mut other = main.inspect::<Ledger>(3).unwrap();
        assert_eq!((other.sum, other.readings), (0, 0));
        other.entries.push(1_000);
        main.replace(3, other).unwrap();
        let (mut sums, readings) = known(&mut main);
        sums[2] -= 1_000;
        assert_eq!((sums, readings), (SUMS[0], [0, 0, 1, 0]));
        let torn = Ledger {
            is_torn: true,
            ..Ledger::default()
        };
        let error = main.replace(3, torn).unwrap_err();
        assert!(matches!(error, ControlError::Decode { .. }));
        let said = error.to_string();
        let expected = "its parts or its `restored` panicked: a page is missing";
        assert!(said.contains(expected), "{said}");
        assert_eq!(known(&mut main).1, readings);
    }
}

#[test]
fn an_agent_that_panics_when_a_snapshot_is_read_is_named() {
    let folder = Folder::new("torn");
    let mut main = MpMain::builder(agents())
        .on(TestPlacement::Inline)
        .amnesia(None)
        .build()
        .unwrap();
    let torn = Ledger {
        is_torn: true,
        ..Ledger::default()
    };
    main.add("whole", Ledger::default()).unwrap();
    main.add("torn", torn).unwrap();
    main.save(folder.at("it")).unwrap();
    let open = || Restore::open(folder.at("it")).unwrap();
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        let error = open().start(MpMain::builder(agents()).on(placement));
        let said = error.map(|_| ()).unwrap_err().to_string();
        let start = "in cluster 1: agent torn panicked in restored at 0 s, superstep 0, in ";
        assert!(said.starts_with(start), "{said}");
        assert!(said.ends_with(": a page is missing"), "{said}");
    }
    let error = open().alone(Scheduler::builder(), &agents());
    let said = error.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("agent torn panicked in restored"), "{said}");
}

/// Four clerks in two clusters, and what main has heard from them.
fn clerks(settings: MpMainBuilder<Msg>, heard: &mut u64) -> MpMain<Msg> {
    let mut main = settings.seed(12).build().unwrap();
    let clusters = [main.new_cluster(), main.new_cluster()];
    for id in 1..=4 {
        let cluster = clusters[usize::from(id > 2)];
        main.add_to(cluster, id, Clerk::default()).unwrap();
    }
    hear(&mut main, FIRST, heard);
    main
}

fn hear<S: Simulation<Msg>>(simulation: &mut S, until: SimTime, heard: &mut u64)
where
    S::Error: std::fmt::Debug,
{
    let handler = |mail: Mail<Msg>, _: &mut MainContext<Msg>| {
        if let Msg::Entry(price) = mail.body {
            *heard += price;
        }
    };
    simulation.run_with(Run::until(until), handler).unwrap();
}

/// What main has heard in the middle and at the end, of four clerks: after each whole reading of the
/// table, and the first four prices of it, which they have read once more.
const HEARD: [u64; 2] = [4 * (3 * 39 + 26), 4 * (11 * 39 + 26)];

#[test]
fn a_table_of_the_program_is_there_in_every_placement() {
    let ahead = [TestPlacement::Ahead, TestPlacement::AheadRing];
    for placement in ALL_AND_FORGETFUL.into_iter().chain(ahead) {
        let mut heard = 0;
        let mut main = clerks(MpMain::builder(agents()).on(placement), &mut heard);
        assert_eq!(heard, HEARD[0], "{placement:?}");
        hear(&mut main, END, &mut heard);
        assert_eq!(heard, HEARD[1], "{placement:?}");
        // One that takes the place of another gets it, and a copy does not.
        let copy = main.inspect::<Clerk>(1).unwrap();
        assert!(copy.prices.is_empty());
        main.replace(2, copy).unwrap();
        assert_eq!(known(&mut main).0, [39; 4]);
    }
}

#[test]
fn it_is_there_in_a_simulation_that_goes_on_from_a_snapshot() {
    let folder = Folder::new("table");
    let mut before = 0;
    let settings = remembering().on(TestPlacement::Inline);
    clerks(settings, &mut before).save(folder.at("it")).unwrap();
    let open = || Restore::open(folder.at("it")).unwrap();
    for placement in [TestPlacement::Inline, TestPlacement::Ring] {
        let mut heard = before;
        let mut main = open().start(remembering().on(placement)).unwrap();
        hear(&mut main, END, &mut heard);
        assert_eq!(heard, HEARD[1]);
    }
    // All agents of a process have one table.
    let prices: Arc<[u64]> = Arc::from([3, 5, 7, 11, 13]);
    let agents = agents_with(&prices);
    let mut alone = open().alone(Scheduler::builder(), &agents).unwrap();
    assert_eq!(Arc::strong_count(&prices), 6);
    let mut heard = before;
    hear(&mut alone, END, &mut heard);
    assert_eq!(heard, HEARD[1]);
    // A program that has lost it says so.
    let agents = agents_with(&Arc::default());
    let error = open().start(MpMain::builder(agents).placement(Placement::Inline));
    let said = error.map(|_| ()).unwrap_err().to_string();
    let expected = "in cluster 1: at 0.02 s agent 1 cannot be restored from what was saved: as \
                    multiprocess::parts::Clerk, the program panicked over it: the table is lost";
    assert_eq!(said, expected);
}
