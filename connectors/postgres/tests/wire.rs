//! The source against real servers: connections, slots, gaps, feedback, shutdown.
//!
//! `HEADGATE_POSTGRES_BIN` names the server's programs; without it, PostgreSQL 15 from `scripts/servers`. `make test` runs them on 18 too.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "wire/authentication.rs"]
mod authentication;
#[path = "wire/context.rs"]
mod context;
#[path = "wire/feedback.rs"]
mod feedback;
#[path = "wire/gaps.rs"]
mod gaps;
#[path = "wire/preflight.rs"]
mod preflight;
#[path = "wire/publications.rs"]
mod publications;
#[path = "wire/run.rs"]
mod run;
#[path = "wire/server.rs"]
mod server;
#[path = "wire/slots.rs"]
mod slots;
#[path = "wire/wal_guard.rs"]
mod wal_guard;
