#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::verify::prepare(), |data: &[u8]| countersign_fuzz::verify::check(data));
