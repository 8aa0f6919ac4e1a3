//! A frame or a payload block of a journal that anyone may have written: any bytes, no panic, no unbounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forestall_engine::fuzz::journal(data));
