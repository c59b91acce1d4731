//! What an account may do everywhere, as `SHOW GRANTS` tells it, those of its active roles among them.

use crate::{connect::sql_fault, event::Flavor};
use headgate_sdk::Fault;
use mysql_async::{Conn, prelude::Queryable as _};

/// Privileges on `*.*`, in capitals.
#[derive(Debug)]
pub(crate) struct Privileges(Vec<String>);

/// A privilege that reading the log takes, by the name to grant it by, and all names that a server tells it by.
pub(crate) type Needed = (&'static str, &'static [&'static str]);

/// What reading the log takes.
pub(crate) fn needed(flavor: Flavor) -> &'static [Needed] {
    match flavor {
        Flavor::MySql => {
            &[("REPLICATION SLAVE", &["REPLICATION SLAVE"]), ("REPLICATION CLIENT", &["REPLICATION CLIENT"])]
        }
        Flavor::MariaDb => &[
            ("REPLICATION SLAVE", &["REPLICATION SLAVE", "REPLICATION REPLICA"]),
            ("BINLOG MONITOR", &["BINLOG MONITOR", "REPLICATION CLIENT"]),
            // Tells a replica, which may yet get what it lacks, from a server that will not.
            ("SLAVE MONITOR", &["SLAVE MONITOR", "REPLICA MONITOR"]),
        ],
    }
}

impl Privileges {
    /// Asks for those of the session.
    pub(crate) async fn of(session: &mut Conn) -> Result<Self, Fault> {
        let grants: Vec<String> = session
            .query("SHOW GRANTS")
            .await
            .map_err(|error| sql_fault(error, "cannot ask for the privileges"))?;
        Ok(Self::read(&grants))
    }

    fn read(grants: &[String]) -> Self {
        let everywhere = grants.iter().filter_map(|grant| {
            let (privileges, _) = grant.strip_prefix("GRANT ")?.split_once(" ON *.* TO ")?;
            Some(privileges.split(',').map(|privilege| privilege.trim().to_ascii_uppercase()))
        });
        Self(everywhere.flatten().collect())
    }

    /// Whether any of these is granted.
    pub(crate) fn any(&self, names: &[&str]) -> bool {
        self.0.iter().any(|held| held == "ALL PRIVILEGES" || names.contains(&held.as_str()))
    }

    /// Whether the account rules the server, which reading its log does not take.
    pub(crate) fn administers(&self) -> bool {
        self.any(&["SUPER", "CREATE USER"])
    }

    /// Whether the log can be read.
    pub(crate) fn suffice(&self, flavor: Flavor) -> bool {
        needed(flavor).iter().all(|(_, names)| self.any(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(grants: &[&str]) -> Privileges {
        Privileges::read(&grants.iter().map(|grant| (*grant).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn only_whole_names_on_everything_count() {
        let least = read(&[
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`%`",
            "GRANT SELECT, CREATE USER ON `shop`.* TO `cdc`@`%`",
        ]);
        assert!(least.suffice(Flavor::MySql) && !least.administers());
        let similar =
            read(&["GRANT REPLICATION SLAVE ADMIN, BINLOG MONITOR, SLAVE MONITOR ON *.* TO `cdc`@`%`"]);
        assert!(!similar.suffice(Flavor::MariaDb));
        let all = read(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(all.suffice(Flavor::MariaDb) && all.administers());
        assert!(!read(&["GRANT ALL PRIVILEGES ON `shop`.* TO `cdc`@`%`"]).suffice(Flavor::MySql));
    }
}
