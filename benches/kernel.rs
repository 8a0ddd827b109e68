//! `cargo bench`: the kernel's hot paths, each next to the bare loop that does the least work for
//! the same result. `examples/bench_kernel` gives the figures that are quoted.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

#[path = "../examples/bench_kernel/bare.rs"]
#[allow(dead_code, reason = "shared with the example, which runs them all")]
mod bare;
#[path = "../examples/bench_kernel/models.rs"]
#[allow(dead_code, reason = "shared with the example, which runs them all")]
mod models;

use models::Model;

fn main() {
    divan::main();
}

/// Runs a model on and on; `run` has the numbers of supersteps and deliveries of each time.
fn ours(bencher: Bencher<'_, '_>, model: Result<Model, maslite_core::Error>, run: (u64, u64)) {
    let (supersteps, deliveries) = run;
    let mut model = model.expect("the model is sound");
    model.run(supersteps).expect("the model runs");
    bencher
        .counter(ItemsCount::new(deliveries))
        .bench_local(|| black_box(model.run(supersteps)));
}

/// The same for a bare loop.
fn bare(bencher: Bencher<'_, '_>, mut run: impl FnMut(u64) -> u64, (steps, items): (u64, u64)) {
    run(steps);
    bencher
        .counter(ItemsCount::new(items))
        .bench_local(|| black_box(run(steps)));
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod ping_pong {
    use super::{Bencher, models};
    const RUN: (u64, u64) = (500_000, 500_000);

    #[divan::bench]
    fn kernel(bencher: Bencher<'_, '_>) {
        super::ours(bencher, models::ping_pong(), RUN);
    }

    #[divan::bench]
    fn bare(bencher: Bencher<'_, '_>) {
        let mut bare = super::bare::ping_pong();
        super::bare(bencher, move |steps| bare.run(steps), RUN);
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod ring {
    use super::{Bencher, models};
    const RUN: (u64, u64) = (500, 500_000);

    #[divan::bench]
    fn kernel(bencher: Bencher<'_, '_>) {
        super::ours(bencher, models::ring(1_000), RUN);
    }

    #[divan::bench]
    fn bare(bencher: Bencher<'_, '_>) {
        let mut bare = super::bare::ring(1_000);
        super::bare(bencher, move |steps| bare.run(steps), RUN);
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod fan_out {
    use super::{Bencher, models};
    const RUN: (u64, u64) = (5_000, 505_000);

    #[divan::bench]
    fn kernel(bencher: Bencher<'_, '_>) {
        super::ours(bencher, models::fan_out(100), RUN);
    }

    #[divan::bench]
    fn bare(bencher: Bencher<'_, '_>) {
        let mut bare = super::bare::fan_out(100);
        super::bare(bencher, move |steps| bare.run(steps), RUN);
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod hold {
    use super::{Bencher, models};
    const RUN: (u64, u64) = (500_000, 500_000);

    #[divan::bench(args = [1_000, 100_000, 1_000_000])]
    fn kernel(bencher: Bencher<'_, '_>, pending: u64) {
        super::ours(bencher, models::hold(pending), RUN);
    }

    #[divan::bench(args = [1_000, 100_000, 1_000_000])]
    fn bare(bencher: Bencher<'_, '_>, pending: u64) {
        let mut bare = super::bare::hold(pending);
        super::bare(bencher, move |events| bare.run(events), RUN);
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod phold {
    use super::{Bencher, models};
    const RUN: (u64, u64) = (500_000, 500_000);

    #[divan::bench]
    fn kernel(bencher: Bencher<'_, '_>) {
        super::ours(bencher, models::phold(10_000), RUN);
    }

    #[divan::bench]
    fn bare(bencher: Bencher<'_, '_>) {
        let mut bare = super::bare::phold(10_000);
        super::bare(bencher, move |events| bare.run(events), RUN);
    }
}
