//! Frames and indices of a link in shared memory.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maslite_mp::dev::fuzzing::ring(bytes);
});
