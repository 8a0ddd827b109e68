//! What main sends a cluster.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maslite_mp::dev::fuzzing::to_cluster(bytes);
});
