//! Scenario files: one is read, or refused with a place in it.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use maslite_testkit::scenario::file::Scenario;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Scenario::parse(Path::new("fuzzed.json"), bytes) {
        assert!(error.to_string().starts_with("fuzzed.json:"));
    }
});
