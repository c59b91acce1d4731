//! Real servers, faults and the oracle, for tests of the whole gateway.
//!
//! The servers that connectors are tested with too come from `tests/servers`; see there.

pub(crate) mod checkpoint;
pub(crate) mod crm;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod hooks;
pub(crate) mod mysql_shop;
pub(crate) mod nats;
pub(crate) mod oracle;
pub(crate) mod proxy;
pub(crate) mod sender;
pub(crate) mod shop;
pub(crate) mod snapshots;
pub(crate) mod stream;
pub(crate) mod vendors;
pub(crate) mod workload;

pub(crate) use headgate_test_servers::{eventually, mysql, port, postgres, process, servers, tls};
