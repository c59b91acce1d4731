//! What a server's refusals mean, and the statement that helps.

use crate::survey::{identifier, whole_database};
use headgate_sdk::Fault;
use mysql_async::{DriverError, Error, ServerError};

/// What the error means.
pub(crate) fn sql_fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    let refusal = match error {
        Error::Server(refusal) => refusal,
        error => return driver_fault(error, doing),
    };
    let fix = match refusal.code {
        1045 => "check user and password in the url, and its ssl-mode where the account REQUIREs SSL or X509; to set the password: \
                 ALTER USER … IDENTIFIED BY '…', for the host that the message names"
            .to_owned(),
        1044 => match denied_database(&refusal.message) {
            Some((account, database)) => format!("GRANT SELECT ON {} TO {account}", whole_database(database)),
            None => "GRANT SELECT on the captured tables to the account of the url".to_owned(),
        },
        1142 | 1143 => "GRANT SELECT on the captured tables to the account of the url".to_owned(),
        1227 | 1698 => "see that user and password of the url are right, and: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the \
                        user, as `headgate check` prints it"
            .to_owned(),
        1049 => "check the database in the url".to_owned(),
        1820 | 1862 => "ALTER USER … IDENTIFIED BY '…' PASSWORD EXPIRE NEVER".to_owned(),
        3118 | 4151 => "ALTER USER … ACCOUNT UNLOCK".to_owned(),
        1203 | 1226 => {
            return Fault::transient(doing)
                .with_fix("a source has several connections: ALTER USER … WITH MAX_USER_CONNECTIONS 0; SET GLOBAL max_user_connections = 0")
                .with_cause(refusal);
        }
        _ => return Fault::transient(doing).with_cause(refusal),
    };
    Fault::definite(doing).with_fix(fix).with_cause(refusal)
}

/// Why the server does not send its log; `None` where it is not the account.
pub(crate) fn unprivileged(refusal: &ServerError, doing: &str) -> Option<Fault> {
    let account = match refusal.code {
        1045 => account(&refusal.message)?.0,
        1227 => "the user".to_owned(),
        _ => return None,
    };
    let fix = format!("GRANT REPLICATION SLAVE ON *.* TO {account}");
    Some(Fault::definite(doing).with_fix(fix).with_cause(refusal.clone()))
}

fn driver_fault(error: Error, doing: String) -> Fault {
    match &error {
        Error::Driver(DriverError::UnknownAuthPlugin { .. } | DriverError::MysqlOldPasswordDisabled) => {
            Fault::definite(doing).with_fix(
                "ALTER USER … IDENTIFIED WITH caching_sha2_password BY '…'; MariaDB: IDENTIFIED VIA mysql_native_password USING PASSWORD('…')",
            )
        }
        Error::Io(mysql_async::IoError::Tls(_)) => Fault::definite(doing),
        _ => Fault::transient(doing),
    }
    .with_cause(error)
}

/// The account that a refusal names, as a statement names it, and what follows: `… for user 'a'@'%' …`.
fn account(message: &str) -> Option<(String, &str)> {
    let (_, rest) = message.split_once("for user '")?;
    // Nothing in the names is escaped. No host has a quote in it; a user may.
    let (at, _) = rest.match_indices("'@'").last()?;
    let (user, host) = (rest.get(..at)?, rest.get(at + 3..)?);
    let (host, rest) = host.split_once('\'')?;
    Some((format!("{}@{}", identifier(user), identifier(host)), rest))
}

/// The account, and the database that it may not use.
fn denied_database(message: &str) -> Option<(String, &str)> {
    let (account, rest) = account(message)?;
    Some((account, rest.strip_prefix(" to database '")?.strip_suffix('\'')?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(code: u16, message: &str) -> ServerError {
        ServerError { code, message: message.to_owned(), state: "42000".to_owned() }
    }

    #[test]
    fn a_database_that_is_denied_is_granted() {
        for (message, fix) in [
            ("Access denied for user 'cdc'@'%' to database 'shop'", "GRANT SELECT ON `shop`.* TO `cdc`@`%`"),
            (
                "Access denied for user 'a`b'c d'@'10.%' to database 'my_shop'",
                "GRANT SELECT ON `my\\_shop`.* TO `a``b'c d`@`10.%`",
            ),
            ("Access denied", "GRANT SELECT on the captured tables to the account of the url"),
        ] {
            let fault = sql_fault(Error::Server(refusal(1044, message)), "cannot connect");
            assert_eq!(fault.fix(), Some(fix));
        }
    }

    #[test]
    fn a_log_that_is_denied_is_granted() {
        let denied = refusal(1045, "Access denied for user 'cdc'@'%' (using password: YES)");
        let fault = unprivileged(&denied, "cannot read").unwrap();
        assert_eq!(fault.fix(), Some("GRANT REPLICATION SLAVE ON *.* TO `cdc`@`%`"));
        assert!(unprivileged(&refusal(1236, "purged"), "cannot read").is_none());
    }
}
