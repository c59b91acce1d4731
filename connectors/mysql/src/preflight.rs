//! What can be known about a run before it: each finding with the statement or the setting that fixes it. Changes nothing.

mod log;
mod reader;
mod tables;

pub(crate) use tables::captured;

use crate::{
    Config,
    connect::Target,
    event::Flavor,
    history::{Verdict, judge},
    server::{self, Server},
};
use headgate_sdk::{Fault, Finding, Resume};
use mysql_async::Conn;
use std::time::Duration;

/// The newest versions that the tests know.
const NEWEST: [(Flavor, (u16, u16)); 2] = [(Flavor::MySql, (9, 7)), (Flavor::MariaDb, (11, 8))];

/// Asks the server of `source` whether a run will work.
pub async fn check(source: &str, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let target = match Target::new(config) {
        Ok(target) => target,
        Err(fault) => return vec![Finding::fault("connection", &fault)],
    };
    let mut session = match target.connect().await {
        Ok(session) => session,
        Err(fault) => return vec![Finding::fault("connection", &fault)],
    };
    findings.push(Finding::good("connection", format!("{} as {}", target.address(), target.user)));
    if let Err(fault) = look(source, config, &target, &mut session, &mut findings).await {
        findings.push(Finding::fault("the checks", &fault));
    }
    findings
}

/// Why changes after `resume` are lost to the stream, as far as that can be told without the stream's own events: what another server
/// has of them is found out by the run. `None` where they are not. Changes nothing.
///
/// # Errors
/// The server cannot be asked.
pub async fn missing(config: &Config, resume: &Resume) -> Result<Option<String>, Fault> {
    let target = Target::new(config)?;
    let mut session = target.connect().await?;
    let server = Server::of(&mut session).await?;
    let mut facts = server::facts(&mut session, &server).await?;
    if server.flavor == Flavor::MariaDb {
        // A run hears of it when the server refuses the dump.
        facts.purged = server::before_oldest(&mut session, &server, &facts).await;
    }
    Ok(match judge(resume, &facts, None, false) {
        Verdict::Gap { reason, .. } => Some(reason),
        Verdict::Begin { .. }
        | Verdict::Continue { .. }
        | Verdict::Failover { .. }
        | Verdict::Behind { .. } => None,
    })
}

async fn look(
    source: &str,
    config: &Config,
    target: &Target,
    session: &mut Conn,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let server = Server::of(session).await?;
    findings.push(version(&server));
    findings.push(reader::transport(target, session).await?);
    findings.push(reader::clock(session).await?);
    if !server.is_on("log_bin") {
        findings.push(
            Finding::error("log_bin", "OFF", "without a binary log there is nothing to read")
                .with_fix("in the server's configuration: log_bin = binlog, server_id = 1; then restart it"),
        );
        return Ok(());
    }
    findings.push(Finding::good("log_bin", "ON"));
    log::format(&server, findings);
    log::names(&server, server::is_replica(session, &server).await, findings);
    log::retention(&server, config.outage_budget, findings);
    findings.extend(reader::privileges(&server, session).await?);
    reader::id(&server, config.server_id_of(source), session, findings).await;
    reader::limits(&server, findings);
    tables::look(&server, config, session, findings).await
}

fn version(server: &Server) -> Finding {
    let (major, minor, _) = server.version;
    let newest = NEWEST.into_iter().find(|(flavor, _)| *flavor == server.flavor).map(|(_, version)| version);
    if (major, minor) < server::oldest(server.flavor) {
        return Finding::error("version", server.name(), "its log lacks what Headgate relies on")
            .with_fix("upgrade to MySQL 8.0 or MariaDB 10.5 at least");
    }
    if newest.is_some_and(|newest| (major, minor) > newest) {
        return Finding::warning(
            "version",
            server.name(),
            "Headgate is tested up to MySQL 9.7 and MariaDB 11.8; a newer one should work",
        );
    }
    Finding::good("version", server.name())
}

/// Adds the statement that changes a setting, which MariaDB forgets.
fn with_setting(finding: Finding, server: &Server, name: &str, value: &str) -> Finding {
    let mut finding = finding.with_fix(server.set(name, value));
    if server.flavor == Flavor::MariaDb {
        let plain = value.trim_matches('\'');
        finding.why.push_str(&format!(
            "; the statement lasts until the server restarts, {name} = {plain} in its configuration from then on"
        ));
    }
    finding
}

/// A length of time in words.
fn long(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
