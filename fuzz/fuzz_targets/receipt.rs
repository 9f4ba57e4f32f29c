//! `placet_fuzz::oracles::receipt` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| placet_fuzz::oracles::receipt(bytes));
