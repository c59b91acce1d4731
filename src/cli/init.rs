//! `headgate init`: looks at a database, says what has to be fixed first, and writes a configuration for it.
//!
//! Asks on a terminal; where nobody can be asked, flags and defaults answer. The password never leaves the process: the
//! configuration names a variable for it. Nothing in the database is changed.

mod address;
mod database;
mod interview;
mod render;

use self::{
    address::Address,
    database::Database,
    render::{Draft, report},
};
use super::{Failure, check, failure::print, paint::Paint};
use clap::Args;
use headgate_sdk::{Fault, FaultKind, Finding};
use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
It changes nothing in the database. The password goes into no file: the
configuration names a variable. On a terminal it asks; with any of --name,
--table, --nats, --role, --yes, or in a pipe, it does not. The configuration
goes to the file of -c (./config.toml) or --output; in a pipe to standard
output too.

Examples:
  headgate init postgres://postgres@127.0.0.1:5432/shop
  headgate init 'postgres://cdc:${SHOP_PASSWORD}@db/shop' --nats nats://bus:4222
  headgate init postgres://postgres@db/shop --table 'public.*'
  headgate init postgres://postgres@db/shop --role headgate --stdout > shop.toml
  MYSQL_PWD=… headgate init mysql://root@db:3306/shop --role headgate

Exit codes: 0 written, 64 usage, 69 the database is not there, 78 the file is
there already.")]
pub(super) struct Init {
    /// The database: postgres://user:password@host:5432/database, or mysql://user:password@host:3306/database
    /// (PGPASSWORD or MYSQL_PWD stands in for the password)
    url: String,
    /// The source's name [default: the database's]
    #[arg(long)]
    name: Option<String>,
    /// A glob on schema.table, several times if need be; a leading ! excludes [default: every schema with tables]
    #[arg(long = "table", value_name = "GLOB")]
    tables: Vec<String>,
    /// Where the broker is, or "embedded"
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The role that the gateway shall use, where it is not that of the URL; the statements that make it are printed
    #[arg(long)]
    role: Option<String>,
    /// How long the gateway may be away: 8h, 2d
    #[arg(long, value_name = "DURATION")]
    outage_budget: Option<String>,
    /// Do not ask, take the defaults
    #[arg(short, long)]
    yes: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "stdout")]
    output: Option<PathBuf>,
    /// Print the configuration, write no file
    #[arg(long)]
    stdout: bool,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
}

/// What was decided, by flags, answers or defaults.
struct Choices {
    name: String,
    tables: Vec<String>,
    nats: String,
    role: String,
    outage_budget: String,
}

impl Init {
    pub(super) async fn execute(self, config_file: &Path) -> Result<(), Failure> {
        let file = self.output.clone().unwrap_or_else(|| config_file.to_owned());
        if !self.stdout {
            self.refuse_to_overwrite(&file)?;
        }
        self.check_flags()?;
        let address = Address::parse(&self.url, &|name| std::env::var(name).ok()).map_err(Failure::usage)?;
        let asks = self.asks();
        let (address, database) = look(address, asks).await?;
        let choices = if asks {
            interview::ask(self.defaults(&database), &database)?
        } else {
            self.defaults(&database)
        };

        let findings = database.check(&address, &choices).await?;
        let draft = Draft { choices: &choices, database: &database, address: &address, findings: &findings };
        let text = draft.config();
        if self.stdout {
            return print(text.as_bytes());
        }
        write(&file, &text, self.force)?;
        let on_terminal = std::io::stdout().is_terminal();
        let paint = if on_terminal { Paint::detect() } else { Paint::plain() };
        // Whoever was asked has seen them.
        let tables = if asks { None } else { Some(render::overview(&draft, paint)) };
        let report = report(&draft, tables, &file, paint);
        if on_terminal {
            print(report.as_bytes())
        } else {
            // Where even standard error is gone, the file has to do.
            let _ = std::io::stderr().write_all(report.as_bytes());
            if self.output.is_none() { print(text.as_bytes()) } else { Ok(()) }
        }
    }

    /// Whether there is somebody to ask, and something left to ask.
    fn asks(&self) -> bool {
        let decided = self.yes
            || self.stdout
            || self.name.is_some()
            || !self.tables.is_empty()
            || self.nats.is_some()
            || self.role.is_some();
        !decided && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// An empty file is none: a shell makes one for `> config.toml`.
    fn refuse_to_overwrite(&self, file: &Path) -> Result<(), Failure> {
        match std::fs::metadata(file) {
            Ok(found) if !self.force && (found.len() > 0 || !found.is_file()) => {
                Err(Failure::refused(format!("{} is there already", file.display()))
                    .with_fix("--force overwrites it, --output FILE writes another, --stdout prints"))
            }
            _ => Ok(()),
        }
    }

    fn check_flags(&self) -> Result<(), Failure> {
        if let Some(name) = &self.name
            && address::source_name(name) != *name
        {
            return Err(Failure::usage(format!("{name:?} is no name for a source"))
                .with_fix(format!("for example --name {}", address::source_name(name))));
        }
        if let Some(glob) = self.tables.iter().find(|glob| !glob.trim_start_matches('!').contains('.')) {
            return Err(Failure::usage(format!("--table {glob}: a glob names schema and table"))
                .with_fix(format!("--table 'public.{glob}'")));
        }
        if let Some(budget) = &self.outage_budget {
            parse_budget(budget)?;
        }
        Ok(())
    }

    fn defaults(&self, database: &Database) -> Choices {
        Choices {
            name: self.name.clone().unwrap_or_else(|| address::source_name(database.name())),
            tables: if self.tables.is_empty() { database.globs() } else { self.tables.clone() },
            nats: self.nats.clone().unwrap_or_else(|| "embedded".to_owned()),
            role: self.role.clone().unwrap_or_else(|| database.user().to_owned()),
            outage_budget: self.outage_budget.clone().unwrap_or_else(|| "8h".to_owned()),
        }
    }
}

fn parse_budget(text: &str) -> Result<Duration, Failure> {
    crate::config::parse_duration(text).filter(|budget| !budget.is_zero()).ok_or_else(|| {
        Failure::usage(format!("{text:?} is no duration")).with_fix("for example 8h, 2d or 30m")
    })
}

/// Looks at the database; asks for a password where the server wants one, the URL has none, and somebody is there.
async fn look(address: Address, asks: bool) -> Result<(Address, Database), Failure> {
    match Database::look(&address).await {
        Ok(database) => Ok((address, database)),
        Err(fault) if asks && fault.kind() == FaultKind::Definite && !address.has_password() => {
            let address = address.with_password(&interview::password(&fault)?);
            let database = Database::look(&address).await;
            database.map(|database| (address, database)).map_err(|fault| unreachable(&fault))
        }
        Err(fault) => Err(unreachable(&fault)),
    }
}

fn unreachable(fault: &Fault) -> Failure {
    let failure = Failure::unavailable(fault.to_string());
    match fault.fix() {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let empty = std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == 0);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .create(true)
        // Whoever was quicker is not overwritten.
        .create_new(!force && !empty)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unavailable(format!("cannot write {}: {error}", file.display())))
}

/// What has to be looked at, worst first.
fn open_findings(findings: &[Finding]) -> Vec<&Finding> {
    let mut open: Vec<&Finding> =
        findings.iter().filter(|finding| finding.severity > headgate_sdk::Severity::Good).collect();
    open.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    open
}

/// Findings for people, as `check` shows them.
fn shown(findings: &[&Finding], paint: Paint) -> String {
    check::list(findings.iter().copied(), paint)
}
