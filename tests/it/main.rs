//! The gateway against real servers. Files are named for behaviours; `tests/support` starts the servers and judges.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod check;
mod configuration;
mod documentation;
mod examples;
mod failover;
mod faults;
mod gaps;
mod init;
mod mysql;
mod mysql_faults;
mod mysql_gaps;
mod mysql_setup;
mod mysql_snapshots;
mod neighbours;
mod provider_apis;
mod provider_states;
mod reconciliation;
mod schemas;
mod shape_history;
mod shaping;
mod snapshots;
mod snapshots_through_ddl;
mod streaming;
mod support_works;
mod takeovers;
mod tls;
mod waiting;
mod webhook_attacks;
mod webhook_faults;
mod webhooks;
