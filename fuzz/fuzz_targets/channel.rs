//! Frames of a link over a channel.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maslite_mp::dev::fuzzing::channel(bytes);
});
