//! How many repetitions of the same kind a test makes.
//!
//! Plain `cargo test` makes a few, so that it stays short. With `MASLITE_ALL_SEEDS=1` in the
//! environment all are made.

use std::env;
use std::ops::Range;

/// Whether all repetitions are wanted.
pub fn is_full() -> bool {
    env::var_os("MASLITE_ALL_SEEDS").is_some_and(|value| value != "0")
}

/// The seeds of a test: this number from the start of the range, or all if all are wanted.
pub fn seeds(all: Range<u64>, few: u64) -> Range<u64> {
    if is_full() {
        return all;
    }
    all.start..all.end.min(all.start + few)
}

/// How many steps a loop advances at once: `few`, or one if all repetitions are wanted.
pub fn stride(few: usize) -> usize {
    if is_full() { 1 } else { few }
}
