//! Headgate: every change of a database as an ordered CloudEvent on NATS JetStream, once.

pub mod broker;
pub mod config;
mod event;
mod normalize;
mod pipeline;
pub mod publish;
pub mod status;
pub mod telemetry;
