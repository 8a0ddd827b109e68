//! Requests that come through the control socket.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = maslite_mp::dev::fuzzing::control(bytes);
});
