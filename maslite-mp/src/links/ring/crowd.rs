//! Whether other programs keep the processors busy, so that a thread that waits sleeps at once.
//!
//! A thread that sleeps is run soon after it is woken. A thread that yields the processor, or looks
//! for a message until its time slice is over, is run again when all the others have had a time
//! slice each: milliseconds later. There are two signs:
//!
//! - The system counts the threads that could run. It is asked before a thread waits in any other
//!   way than asleep, and not again before there is a doubt.
//! - A yield took long, or a look at the clock came late. Then the thread has lost its time slice,
//!   and it sleeps at once for many times as long as it has lost.
//!
//! As long as there is no doubt, the coarse clock times the yields: it costs next to nothing, and
//! its ticks are about as long as a time slice. A yield in which it ticked is a doubt: then the
//! system is asked, and the exact clock times the next yields.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::links::transport::now;

/// A yield that takes longer has lost the time slice.
const LOSS: Duration = Duration::from_micros(500);

/// How many times as long as the loss a thread sleeps at once: so it loses a twentieth of its time
/// at most.
const REST: u32 = 20;

/// How long a thread sleeps at once before it asks the system again how many threads could run.
const PAUSE: Duration = Duration::from_millis(20);

/// How many yields the exact clock times after a doubt.
const DOUBTS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The system has not been asked yet.
    Unknown,
    /// No sign of other programs.
    Alone,
    /// It sleeps at once, until then.
    Resting(Instant),
}

thread_local! {
    /// Of this thread, over all its links.
    static STATE: Cell<State> = const { Cell::new(State::Unknown) };
    /// How many of the next yields the exact clock times.
    static DOUBT: Cell<u32> = const { Cell::new(DOUBTS) };
}

/// Whether this thread sleeps at once when it waits. The machine is crowded if more threads than
/// `crowd` could run.
#[inline]
pub(super) fn is_resting(crowd: u32) -> bool {
    match STATE.get() {
        State::Alone => false,
        state => look_around(state, crowd),
    }
}

#[cold]
fn look_around(state: State, crowd: u32) -> bool {
    if matches!(state, State::Resting(until) if now() < until) {
        return true;
    }
    let is_crowded = runnable_threads().is_some_and(|count| count > crowd);
    match is_crowded {
        true => rest_for(PAUSE),
        false => STATE.set(State::Alone),
    }
    is_crowded
}

/// Notes how much longer than meant a thread has waited.
#[inline]
pub(super) fn note(late: Duration) {
    if late > LOSS {
        rest_for(late * REST);
    }
}

#[cold]
fn rest_for(length: Duration) {
    STATE.set(match now().checked_add(length) {
        Some(until) => State::Resting(until),
        None => State::Unknown,
    });
    // The first yield after it is one to watch.
    DOUBT.set(DOUBTS);
}

/// Lets others run. True if this thread may have to rest now.
#[inline]
pub(super) fn yield_now() -> bool {
    if DOUBT.get() > 0 {
        return yield_in_doubt();
    }
    let before = coarse_time();
    thread::yield_now();
    let has_ticked = coarse_time() != before;
    if has_ticked {
        DOUBT.set(DOUBTS);
        STATE.set(State::Unknown);
    }
    has_ticked
}

#[cold]
fn yield_in_doubt() -> bool {
    DOUBT.set(DOUBT.get() - 1);
    let begin = now();
    thread::yield_now();
    note(begin.elapsed());
    STATE.get() != State::Alone
}

/// A time that moves in ticks of some milliseconds.
#[inline]
fn coarse_time() -> rustix::time::Timespec {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse)
}

/// How many threads of the whole machine run or could run; none where the system does not tell.
fn runnable_threads() -> Option<u32> {
    // Three averages, and the number over that of all threads: "0.20 0.18 0.12 1/80 11206".
    let mut text = [0; 64];
    let length = File::open("/proc/loadavg").ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let (count, _) = text.split(' ').nth(3)?.split_once('/')?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No machine is so crowded.
    const NEVER: u32 = u32::MAX;

    #[test]
    fn who_has_lost_a_time_slice_sleeps_at_once_for_many_times_as_long() {
        assert!(!is_resting(NEVER));
        note(LOSS);
        assert!(!is_resting(NEVER), "that may happen");
        note(Duration::from_secs(3));
        assert!(is_resting(NEVER));
        let State::Resting(until) = STATE.get() else {
            panic!("it rests");
        };
        let rest = until.saturating_duration_since(now());
        assert!(rest > Duration::from_secs(50) && rest <= Duration::from_secs(60));
        // Only this thread does.
        assert!(!thread::spawn(|| is_resting(NEVER)).join().unwrap());
        STATE.set(State::Resting(now()));
        assert!(!is_resting(NEVER));
        assert_eq!(STATE.get(), State::Alone);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are no files")]
    fn who_could_run_is_counted_and_more_of_them_than_processors_are_a_crowd() {
        // This thread runs.
        assert!(runnable_threads().is_some_and(|count| count >= 1));
        assert!(is_resting(0));
        assert!(matches!(STATE.get(), State::Resting(_)));
    }

    #[test]
    fn a_doubt_passes_after_some_yields() {
        assert!(!is_resting(NEVER));
        for _ in 0..DOUBTS {
            let _ = yield_now();
            if STATE.get() != State::Alone {
                return; // The machine is crowded just now.
            }
        }
        assert_eq!(DOUBT.get(), 0);
    }
}
