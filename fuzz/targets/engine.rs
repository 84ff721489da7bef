#![no_main]
libfuzzer_sys::fuzz_target!(init: remediator_fuzz::quiet(), |data: &[u8]| remediator::fuzzing::engine(data));
