//! What a client sends before it may use an export: any bytes, no panic, no unbounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forestall_nbd::fuzz::handshake(data));
