//! Headgate: every change of a database as an ordered CloudEvent on NATS JetStream, once.

pub mod broker;
pub mod config;
pub mod status;
pub mod telemetry;
