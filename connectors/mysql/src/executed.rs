//! Which transactions were read, in the words of the server at hand.

use crate::{
    event::Flavor,
    gtid::{ParseGtidError, mariadb, mysql},
};
use std::fmt;

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    MySql(mysql::Gtid),
    MariaDb(mariadb::Gtid),
}

/// As the server prints it.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(gtid) => gtid.fmt(f),
            Self::MariaDb(gtid) => gtid.fmt(f),
        }
    }
}

/// The transactions that are done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// MySQL: all of them.
    MySql(mysql::GtidSet),
    /// MariaDB: the last of each domain.
    MariaDb(mariadb::GtidList),
}

impl Executed {
    /// Reads what a server of that flavor prints.
    pub(crate) fn parse(flavor: Flavor, text: &str) -> Result<Self, ParseGtidError> {
        Ok(match flavor {
            Flavor::MySql => Self::MySql(text.parse()?),
            Flavor::MariaDb => Self::MariaDb(text.parse()?),
        })
    }

    /// Adds one transaction. A name of another flavor says nothing here.
    pub(crate) fn note(&mut self, name: &Name) {
        match (self, name) {
            (Self::MySql(set), Name::MySql(gtid)) => set.add(gtid),
            (Self::MariaDb(list), Name::MariaDb(gtid)) => list.advance(*gtid),
            _ => {}
        }
    }

    /// Adds one transaction by its name as it is printed. `false`: the name is of another flavor.
    pub(crate) fn add(&mut self, name: &str) -> bool {
        match self {
            Self::MySql(set) => name.parse().map(|gtid| set.add(&gtid)).is_ok(),
            Self::MariaDb(list) => name.parse().map(|gtid| list.advance(gtid)).is_ok(),
        }
    }

    /// Adds all that the other one has (MariaDB: where the other is further).
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => set.merge(other),
            (Self::MariaDb(list), Self::MariaDb(other)) => {
                for gtid in other.latest() {
                    if !list.contains(&gtid) {
                        list.advance(gtid);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether all of the other one's transactions are among these.
    ///
    /// MariaDB says of a log only where each domain ends, so there it is the sequence numbers that decide; whether the very
    /// transaction is in the log, the server itself says when the dump begins.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => set.includes(other),
            (Self::MariaDb(list), Self::MariaDb(other)) => other.latest().all(|wanted| {
                list.latest_of(wanted.domain).is_some_and(|latest| latest.sequence >= wanted.sequence)
            }),
            _ => false,
        }
    }

    /// What is in this one and not in the other, for people.
    pub(crate) fn missing_in(&self, other: &Self) -> String {
        match (self, other) {
            (Self::MySql(set), Self::MySql(other)) => Self::MySql(set.subtract(other)).to_string(),
            _ => self.to_string(),
        }
    }
}

/// One line, as the server prints and takes it.
impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => f.write_str(&set.to_string().replace('\n', "")),
            Self::MariaDb(list) => list.fmt(f),
        }
    }
}
