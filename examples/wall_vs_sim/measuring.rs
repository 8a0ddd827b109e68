//! What the benchmarks share: busy work of a known length, processor time, lengths of simulated time
//! on the command line.

use std::fs;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Duration;

use maslite_mp::clock::wall;
use maslite_mp::prelude::*;

/// Rounds of [`spin`] that one calibration runs: about a millisecond.
const TRIAL: u64 = 500_000;

/// Keeps the processor busy for so many rounds, without a look at any clock.
pub(crate) fn spin(rounds: u64) {
    let mut state = rounds;
    for _ in 0..rounds {
        // Every round waits for the one before it.
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (state >> 31);
    }
    black_box(state);
}

/// How many rounds of [`spin`] take `work` [ns] on this machine.
///
/// Asked for by one process and handed to all others, so that all have the same work.
pub(crate) fn rounds_of(work: u64) -> u64 {
    static FASTEST: OnceLock<u128> = OnceLock::new();
    if work == 0 {
        return 0;
    }
    let fastest = FASTEST.get_or_init(|| {
        let trials = (0..15).map(|_| {
            let started = wall();
            spin(black_box(TRIAL));
            wall().duration_since(started)
        });
        // Whatever disturbs a trial makes it longer.
        trials.min().unwrap_or_default().as_nanos().max(1)
    });
    u64::try_from(u128::from(work) * u128::from(TRIAL) / fastest).unwrap_or(u64::MAX)
}

/// The processor time that the threads of this process have used so far, where the system tells.
pub(crate) fn processor_time() -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let told = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        let nanos = told.split_whitespace().next()?.parse().ok()?;
        total += Duration::from_nanos(nanos);
    }
    Some(total)
}

/// A length of simulated time from a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<SimDuration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    SimDuration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
