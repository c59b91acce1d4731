//! Every provider file under its own vectors, under vectors that others published, and under everything that a forger would
//! try first.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adapters;
mod endpoint;
mod handshakes;
mod names;
mod published;
mod samples;
mod settings;
mod tampering;
mod vectors;
