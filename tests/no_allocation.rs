//! In its steady state the kernel allocates nothing per message or alarm, nor do main and the
//! schedulers per round.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "../examples/bench_kernel/models.rs"]
#[allow(dead_code, reason = "shared with the benchmark, which runs them all")]
mod models;

use maslite_mp::prelude::*;
use models::Model;
use serde::{Deserialize, Serialize};

thread_local! {
    /// Allocations of this thread; others, such as the test harness, have their own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

fn count() {
    // The last allocations of a thread may come after its locals are gone.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator as it is. Counting neither allocates
// nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract, which is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above, for `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above, for `realloc`; `memory` came from `System`, as all memory here does.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above, for `dealloc`; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while 100,000 mails or more are delivered, after a warm-up.
fn allocations(mut model: Model, warm_up: u64, supersteps: u64) -> u64 {
    model.run(warm_up).expect("the model runs");
    let before = ALLOCATIONS.get();
    let delivered = model.run(supersteps).expect("the model runs");
    let after = ALLOCATIONS.get();
    assert!(delivered >= 100_000, "only {delivered} deliveries");
    after - before
}

#[test]
fn ping_pong_allocates_nothing() {
    let model = models::ping_pong().expect("two agents");
    assert_eq!(allocations(model, 100, 100_000), 0);
}

#[test]
fn a_ring_allocates_nothing() {
    let model = models::ring(1_000).expect("a ring");
    assert_eq!(allocations(model, 10, 100), 0);
}

#[test]
fn fan_out_allocates_nothing() {
    let model = models::fan_out(100).expect("a speaker and listeners");
    assert_eq!(allocations(model, 10, 1_000), 0);
}

#[test]
fn the_hold_model_allocates_nothing() {
    let model = models::hold(1_000).expect("holders");
    assert_eq!(allocations(model, 400_000, 100_000), 0);
}

#[test]
fn the_hold_model_allocates_nothing_with_many_alarms_pending_either() {
    let model = models::hold(100_000).expect("holders");
    assert_eq!(allocations(model, 2_000_000, 100_000), 0);
}

#[test]
fn counting_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Word {
    Begin,
    Question(u64),
    Answer(u64),
}

/// Every millisecond it asks a number of questions, each when the one before is answered.
#[derive(Serialize, Deserialize)]
struct Asker {
    questions: u64,
}

impl Agent<Word> for Asker {
    fn setup(&mut self, ctx: &mut Context<'_, Word>) {
        ctx.alarm_in(SimDuration::from_millis(1), Word::Begin);
    }

    fn receive(&mut self, mail: Mail<Word>, ctx: &mut Context<'_, Word>) {
        let asked = match mail.body {
            Word::Answer(number) => number,
            _ => 0,
        };
        if asked < self.questions {
            ctx.send(2, Word::Question(asked + 1));
        } else {
            ctx.alarm_in(SimDuration::from_millis(1), Word::Begin);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Answerer;

impl Agent<Word> for Answerer {
    fn receive(&mut self, mail: Mail<Word>, ctx: &mut Context<'_, Word>) {
        if let Word::Question(number) = mail.body {
            ctx.send(mail.sender, Word::Answer(number));
        }
    }
}

/// Allocations of a run in which `questions` questions go from one cluster to another and are
/// answered, after one like it.
fn allocations_of_rounds(questions: u64) -> u64 {
    let agents = Registry::new().with::<Asker>().with::<Answerer>().enter();
    let settings = MpMain::builder(agents).placement(Placement::Inline);
    let mut main = settings.build().expect("a simulation");
    let (one, two) = (main.new_cluster(), main.new_cluster());
    main.add_to(one, 1, Asker { questions }).expect("an agent");
    main.add_to(two, 2, Answerer).expect("an agent");
    let period = || Run::lasting(SimDuration::from_millis(1));
    for _ in 0..2 {
        main.run(period()).expect("the model runs");
    }
    let before = ALLOCATIONS.get();
    let report = main.run(period()).expect("the model runs");
    let after = ALLOCATIONS.get();
    assert!(report.total.delivered > 3 * questions);
    after - before
}

#[test]
fn an_exchange_of_two_clusters_allocates_nothing() {
    // Each question and each answer is a round; the run itself has its report to make.
    let few = allocations_of_rounds(1_000);
    assert_eq!(allocations_of_rounds(20_000), few);
}
