//! Headgate: every change of a database as an ordered CloudEvent on NATS JetStream, once.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod config;
mod event;
pub mod gateway;
mod normalize;
mod pipeline;
pub mod publish;
pub mod status;
pub mod telemetry;
