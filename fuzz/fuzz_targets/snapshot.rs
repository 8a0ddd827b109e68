//! Files of a snapshot, and what stands in them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maslite_mp::dev::fuzzing::snapshot(bytes);
});
