//! The management API: HTTP/1.1 with JSON bodies over a unix socket.
//!
//! [`types`] names the bodies, [`error`] maps refusals to statuses, [`routes`] turns each request into one closure on the
//! data thread, [`socket`] binds the socket, `connections` answers on it, [`control`] runs all of it on a thread of its own. Nothing here decides
//! anything about disks: that is the engine's. The endpoints are described in `docs/management-api.md`.

mod connections;
pub mod control;
pub mod error;
pub mod routes;
pub mod socket;
pub mod types;
