//! What a server sends to our client: any bytes, no panic, no hang, no unbounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| forestall_nbd::fuzz::client(data));
