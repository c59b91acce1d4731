//! The database that was looked at, whichever its kind: all that differs between the kinds is here.

use super::{Address, Choices, parse_budget};
use crate::{cli::Failure, config::ConnectorKind};
use headgate_sdk::{Fault, Finding, Severity};

/// A database, looked at from outside.
pub(super) enum Database {
    Postgres(headgate_postgres::Survey),
    MySql(headgate_mysql::Survey),
}

/// A table, looked at from outside.
pub(super) struct Table {
    /// `schema.table`.
    pub(super) name: String,
    pub(super) rows: Option<u64>,
    pub(super) bytes: u64,
    /// Rows written in a second, where the server counts them.
    pub(super) writes: Option<f64>,
    /// What names a row of it, in a word.
    pub(super) named_by: &'static str,
    /// Nothing names its rows.
    pub(super) nameless: bool,
}

impl Database {
    /// Looks at the database; takes some seconds.
    pub(super) async fn look(address: &Address) -> Result<Self, Fault> {
        let url = address.reach();
        Ok(if address.is_mysql() {
            Self::MySql(headgate_mysql::survey(&headgate_mysql::Config::new(url)).await?)
        } else {
            Self::Postgres(headgate_postgres::survey(&headgate_postgres::Config::new(url)).await?)
        })
    }

    /// Its connector.
    pub(super) fn connector(&self) -> ConnectorKind {
        match self {
            Self::Postgres(_) => ConnectorKind::Postgres,
            Self::MySql(_) => ConnectorKind::MySql,
        }
    }

    /// The product and its version.
    pub(super) fn product(&self) -> String {
        match self {
            Self::Postgres(survey) => format!("PostgreSQL {}", survey.version),
            Self::MySql(survey) => survey.product.clone(),
        }
    }

    /// The database's name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Postgres(survey) => &survey.database,
            Self::MySql(survey) => survey.database.as_deref().unwrap_or("databases"),
        }
    }

    /// Where it was reached.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::Postgres(survey) => &survey.address,
            Self::MySql(survey) => &survey.address,
        }
    }

    /// Who looked.
    pub(super) fn user(&self) -> &str {
        match self {
            Self::Postgres(survey) => &survey.user,
            Self::MySql(survey) => &survey.user,
        }
    }

    /// What a role that may do everything is called, if it is such a one that looked.
    pub(super) fn ruler(&self) -> Option<&'static str> {
        match self {
            Self::Postgres(survey) => survey.superuser.then_some("a superuser"),
            Self::MySql(survey) => survey.administrator.then_some("an administrator"),
        }
    }

    /// Bytes of log that are written in a second.
    pub(super) fn log_rate(&self) -> Option<u64> {
        match self {
            Self::Postgres(survey) => Some(survey.wal_rate),
            Self::MySql(survey) => survey.log_rate,
        }
    }

    /// The globs that capture every schema with tables; of MySQL's the one that the URL names, if it names one.
    pub(super) fn globs(&self) -> Vec<String> {
        let mut schemas: Vec<&str> = match self {
            Self::Postgres(survey) => survey.tables.iter().map(|table| table.schema.as_str()).collect(),
            Self::MySql(survey) => match &survey.database {
                Some(database) => vec![database],
                None => survey.tables.iter().map(|table| table.schema.as_str()).collect(),
            },
        };
        schemas.dedup();
        match (self, schemas.is_empty()) {
            (Self::Postgres(_), true) => vec!["public.*".to_owned()],
            (Self::MySql(_), true) => vec!["*.*".to_owned()],
            (_, false) => schemas.into_iter().map(|schema| format!("{schema}.*")).collect(),
        }
    }

    /// The tables that globs capture.
    pub(super) fn captured(&self, globs: &[String]) -> Vec<Table> {
        match self {
            Self::Postgres(survey) => survey.captured(globs).into_iter().map(Table::from).collect(),
            Self::MySql(survey) => survey.captured(globs).into_iter().map(Table::from).collect(),
        }
    }

    /// What [`Table::named_by`] is about.
    pub(super) fn heading(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "old row",
            Self::MySql(_) => "key",
        }
    }

    /// What becomes of tables whose rows have no names.
    pub(super) fn of_nameless(&self, choices: &Choices) -> &'static str {
        match self {
            Self::Postgres(_) if self.publication(choices).is_some() => {
                "Tables without a name for the old row are left out: with their updates published, the application's own would fail.\n"
            }
            Self::Postgres(_) => {
                "Of tables without a name for the old row only inserts are captured: with their updates published, the application's own would fail.\n"
            }
            Self::MySql(_) => "The events of a table without a key share one ordering key.\n",
        }
    }

    /// The publication that an administrator makes, where the role cannot make its own.
    pub(super) fn publication(&self, choices: &Choices) -> Option<String> {
        match self {
            Self::Postgres(survey) => {
                let able = survey.sufficient && choices.role == survey.user;
                (!able).then(|| format!("{}_changes", choices.name.replace('-', "_")))
            }
            Self::MySql(_) => None,
        }
    }

    /// The statements that give the role the least that it needs.
    pub(super) fn privileges(&self, choices: &Choices) -> Vec<String> {
        match self {
            Self::Postgres(survey) => match self.publication(choices) {
                Some(publication) => survey.least_privileges(&choices.role, &publication, &choices.tables),
                None => Vec::new(),
            },
            Self::MySql(survey) => survey.least_privileges(&choices.role, &choices.tables),
        }
    }

    /// What `check` finds.
    pub(super) async fn check(&self, address: &Address, choices: &Choices) -> Result<Vec<Finding>, Failure> {
        let outage_budget = parse_budget(&choices.outage_budget)?;
        let tables = choices.tables.clone();
        let (mut findings, about_the_role): (Vec<Finding>, &[&str]) = match self {
            Self::Postgres(_) => {
                let source = headgate_postgres::Config {
                    tables,
                    publication: self.publication(choices),
                    outage_budget,
                    ..headgate_postgres::Config::new(address.reach())
                };
                let mut findings = headgate_postgres::check(&choices.name, &source).await;
                // The statement that makes one is proposed here, with its tables.
                let of_publication = |finding: &&mut Finding| {
                    finding.subject == "publication" && finding.severity == Severity::Error
                };
                if self.publication(choices).is_some()
                    && let Some(missing) = findings.iter_mut().find(of_publication)
                {
                    missing.fix = Some("run the statements below; the last one makes it".to_owned());
                }
                (findings, &["role", "statistics", "heartbeat", "SELECT", "row security"])
            }
            Self::MySql(_) => {
                let source = headgate_mysql::Config {
                    tables,
                    outage_budget,
                    ..headgate_mysql::Config::new(address.reach())
                };
                (headgate_mysql::check(&choices.name, &source).await, &["privilege"])
            }
        };
        if choices.role != self.user() {
            // Who looked is not who will run.
            findings.retain(|finding| !about_the_role.contains(&finding.subject.as_str()));
        }
        Ok(findings)
    }
}

impl From<&headgate_postgres::SurveyedTable> for Table {
    fn from(table: &headgate_postgres::SurveyedTable) -> Self {
        use headgate_postgres::RowIdentity;
        Self {
            name: format!("{}.{}", table.schema, table.table),
            rows: table.rows,
            bytes: table.bytes,
            writes: Some(table.writes),
            named_by: match table.identity {
                RowIdentity::Key => "its key",
                RowIdentity::Full => "all of it",
                RowIdentity::None => "none",
            },
            nameless: table.identity == RowIdentity::None,
        }
    }
}

impl From<&headgate_mysql::SurveyedTable> for Table {
    fn from(table: &headgate_mysql::SurveyedTable) -> Self {
        Self {
            name: format!("{}.{}", table.schema, table.table),
            rows: Some(table.rows),
            bytes: table.bytes,
            writes: table.writes,
            named_by: if table.keyed { "yes" } else { "none" },
            nameless: !table.keyed,
        }
    }
}
