//! What the gateway tells about itself: logs for people, metrics for machines.

pub mod metrics;
