//! MariaDB's GTIDs: `domain-server-sequence`, and the last of each domain.
//!
//! <https://mariadb.com/docs/server/ha-and-performance/standard-replication/gtid>

use super::ParseGtidError;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// A stream of transactions with an order of its own.
    pub domain: u32,
    /// The server that wrote it first.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for Gtid {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseGtidError::new(text, "a GTID (domain-server-sequence)");
        let mut parts = text.trim().split('-');
        let mut part = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let domain = part().and_then(|part| part.parse().ok()).ok_or_else(error)?;
        let server = part().and_then(|part| part.parse().ok()).ok_or_else(error)?;
        let sequence = part().and_then(|part| part.parse().ok()).ok_or_else(error)?;
        if parts.next().is_some() { Err(error()) } else { Ok(Self { domain, server, sequence }) }
    }
}

/// How far a log was read: for each domain the last transaction, and the last of each server that wrote there before.
///
/// Numbers rise within a domain only while its servers are strict about it, and may fall after a switch; so what was read is
/// told by the numbers of the same server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidList {
    /// For each domain the servers and their last sequence number; the latest transaction's server is the last.
    domains: BTreeMap<u32, Vec<(u32, u64)>>,
}

impl GtidList {
    /// Whether nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Notes a transaction as the latest of its domain.
    pub fn advance(&mut self, gtid: Gtid) {
        let servers = self.domains.entry(gtid.domain).or_default();
        if let Some((server, sequence)) = servers.last_mut()
            && *server == gtid.server
        {
            *sequence = gtid.sequence;
            return;
        }
        servers.retain(|(server, _)| *server != gtid.server);
        servers.push((gtid.server, gtid.sequence));
    }

    /// Whether a transaction was read: its server wrote it or a later one of the domain.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        let servers = self.domains.get(&gtid.domain).map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|&(server, sequence)| server == gtid.server && sequence >= gtid.sequence)
    }

    /// The latest transaction of each domain.
    pub fn latest(&self) -> impl Iterator<Item = Gtid> {
        self.domains.iter().filter_map(|(&domain, servers)| {
            servers.last().map(|&(server, sequence)| Gtid { domain, server, sequence })
        })
    }

    /// The latest transaction of one domain.
    #[must_use]
    pub fn latest_of(&self, domain: u32) -> Option<Gtid> {
        let &(server, sequence) = self.domains.get(&domain)?.last()?;
        Some(Gtid { domain, server, sequence })
    }
}

/// The latest of each domain, as `@@gtid_binlog_pos` has it and `@slave_connect_state` takes it.
impl fmt::Display for GtidList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, gtid) in self.latest().enumerate() {
            if nth > 0 {
                f.write_str(",")?;
            }
            write!(f, "{gtid}")?;
        }
        Ok(())
    }
}

impl FromStr for GtidList {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            list.advance(part.parse()?);
        }
        Ok(list)
    }
}
