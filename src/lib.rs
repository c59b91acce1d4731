//! Headgate: every change of a database as an ordered CloudEvent on NATS JetStream, once.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod condition;
pub mod config;
pub mod event;
pub mod gateway;
pub mod normalize;
pub mod pipeline;
pub mod publish;
pub mod schema;
pub mod snapshot;
pub mod status;
pub mod telemetry;
pub mod webhook;
pub mod witness;
