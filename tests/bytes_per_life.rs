//! What is kept of agents that are gone is a few bytes each, wherever they lived.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

thread_local! {
    /// Bytes that this thread has allocated and not given back.
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

#[expect(clippy::cast_possible_wrap, reason = "no allocation is so large")]
fn count(bytes: usize, sign: isize) {
    // The last of a thread may come after its locals are gone.
    let _ = BYTES.try_with(|count| count.set(count.get() + sign * bytes as isize));
}

// SAFETY: every call is handed on to the system's allocator as it is. Counting neither allocates
// nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above, for `dealloc`; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Age,
    Hello,
    Word,
}

/// How the ids of those who follow each other are made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Ids {
    /// They are counted up.
    Counted,
    /// They have no order.
    Mixed,
}

impl Ids {
    fn id(self, life: u64) -> u64 {
        match self {
            Self::Counted => 1_000 + life,
            Self::Mixed => (1_000 + life).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1,
        }
    }
}

/// Lives for a millisecond, in which it listens, draws a number and sends mail, and is followed by
/// another one.
#[derive(Debug, Serialize, Deserialize)]
struct Mortal {
    ids: Ids,
    life: u64,
}

impl Agent<Msg> for Mortal {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("Word"));
        let _ = ctx.rng();
        ctx.alarm_in(SimDuration::from_millis(1), Msg::Age);
        ctx.send(KEEPER, Msg::Hello);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if matches!(mail.body, Msg::Age) {
            let (ids, life) = (self.ids, self.life + 1);
            ctx.add(ids.id(life), Self { ids, life });
            ctx.remove(ctx.id());
        }
    }
}

const KEEPER: u64 = 1;

/// Answers all senders.
#[derive(Debug, Serialize, Deserialize)]
struct Keeper;

impl Agent<Msg> for Keeper {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if matches!(mail.body, Msg::Hello) {
            ctx.send(mail.sender, Msg::Word);
        }
    }
}

/// Lives that pass before those that count: whatever grows once has grown.
const BEFORE: u64 = 5_000;
const LIVES: u64 = 20_000;

/// Bytes that stay of each life.
#[expect(clippy::cast_precision_loss, reason = "a ratio of small numbers")]
fn bytes_per_life(mut live: impl FnMut(u64)) -> f64 {
    live(BEFORE);
    let before = BYTES.get();
    live(LIVES);
    let after = BYTES.get();
    (after - before) as f64 / LIVES as f64
}

fn lasting(lives: u64) -> Run {
    Run::lasting(SimDuration::from_millis(1) * lives)
}

fn alone(ids: Ids) -> f64 {
    let mut scheduler = Scheduler::new();
    scheduler.add(KEEPER, Keeper).unwrap();
    scheduler.add(ids.id(0), Mortal { ids, life: 0 }).unwrap();
    bytes_per_life(|lives| {
        let report = scheduler.run(lasting(lives)).unwrap();
        assert_eq!(report.total.agents, 2);
    })
}

fn agents() -> Entered<Msg> {
    Registry::new()
        .with::<Mortal>()
        .with::<Keeper>()
        .entered_by_test("child")
        .enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

/// The keeper in a cluster of its own, the mortals in another, and a third cluster without agents.
fn clusters(ids: Ids, lookahead: bool, placement: Placement) -> MpMain<Msg> {
    let lookahead = SimDuration::from_micros(if lookahead { 100 } else { 0 });
    let settings = MpMain::builder(agents()).placement(placement);
    // The memory of a ring is used little by little.
    let settings = settings.link(Link::Channel).lookahead(lookahead);
    let mut main = settings.build().unwrap();
    let [here, there, _] = [0; 3].map(|_| main.new_cluster());
    main.add_to(there, KEEPER, Keeper).unwrap();
    main.add_to(here, ids.id(0), Mortal { ids, life: 0 })
        .unwrap();
    main
}

fn inline(ids: Ids, lookahead: bool) -> f64 {
    let mut main = clusters(ids, lookahead, Placement::Inline);
    bytes_per_life(|lives| {
        let report = main.run(lasting(lives)).unwrap();
        assert_eq!(report.total.agents, 2);
    })
}

#[test]
fn alone_a_life_leaves_few_bytes() {
    let counted = alone(Ids::Counted);
    assert!(counted <= 4.0, "{counted}");
    let mixed = alone(Ids::Mixed);
    assert!(mixed <= 12.0, "{mixed}");
}

/// Main and all clusters together, as they are in one process.
#[test]
fn in_clusters_it_leaves_few_bytes_in_main_and_in_its_own() {
    for lookahead in [false, true] {
        let counted = inline(Ids::Counted, lookahead);
        assert!(counted <= 8.0, "{counted}, lookahead: {lookahead}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn in_processes_it_leaves_nothing_where_it_never_was() {
    let mut main = clusters(Ids::Counted, false, Placement::Processes);
    let mut memory = |lives| -> Vec<u64> {
        let report = main.run(lasting(lives)).unwrap();
        let clusters = report.clusters.iter();
        clusters.map(|cluster| cluster.memory.unwrap()).collect()
    };
    let before = memory(BEFORE);
    let after = memory(LIVES);
    // What a system takes at a time, and in the cluster of those who lived some bytes for each of
    // them.
    let most = [1_000_000, 500_000, 100_000];
    for ((before, after), most) in before.into_iter().zip(after).zip(most) {
        assert!(after < before + most, "{before} bytes became {after}");
    }
}
