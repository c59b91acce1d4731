//! Headgate: every change of a database as an ordered CloudEvent on NATS JetStream, once.

pub mod config;
