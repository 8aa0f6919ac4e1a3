//! What a client sends once it uses an export: any bytes, no panic, no unbounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forestall_nbd::fuzz::requests(data));
