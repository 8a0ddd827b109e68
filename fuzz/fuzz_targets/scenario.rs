//! Scenario files: one is read, or refused with a place in it.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../examples/scenario/file.rs"]
#[allow(dead_code, reason = "what an agent does with it is not asked here")]
mod file;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = file::Scenario::parse(Path::new("fuzzed.json"), bytes) {
        assert!(error.to_string().starts_with("fuzzed.json:"));
    }
});
