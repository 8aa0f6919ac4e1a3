//! The protocol from outside: scripted negotiations, the client against the server's parts,
//! arbitrary bytes.

mod client;
mod handshake;
mod properties;
mod support;
