//! `headgate check`: will the run work, and what has to be fixed first.

use super::{Failure, connector, failure::print, paint::Paint};
use crate::{
    broker::{self, Patience, embedded},
    config::{self, Config, Connector, Nats, Publish, Server},
    publish, webhook,
};
use async_nats::{Client, jetstream};
use clap::Args;
use headgate_sdk::{Finding, Severity};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "It changes nothing. Every ✗ has to be fixed first and says how; a ! may hurt later.\n\nExamples:\n  headgate check\n  headgate check --json | jq '.findings[] | select(.severity != \"good\")'\n\nExit codes: 0 the run will work, 64 the configuration is wrong, 69 something is unavailable or unfit."
)]
pub(super) struct Check {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What was found, and where.
struct Found {
    scope: String,
    finding: Finding,
}

/// One finding as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    scope: &'a str,
    severity: &'static str,
    subject: &'a str,
    what: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'a str>,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    findings: Vec<Shown<'a>>,
}

impl Check {
    pub(super) async fn execute(self, file: &Path) -> Result<(), Failure> {
        let config = match super::read(file) {
            Ok(config) => config,
            Err(error) => {
                if self.json {
                    self.show(&configuration_findings(&error))?;
                }
                return Err(Failure::usage(error.to_string()));
            }
        };
        let what = format!("{} is sound", file.display());
        let mut all =
            vec![Found { scope: "config".to_owned(), finding: Finding::good("configuration", what) }];
        let mut add = |scope: &str, findings: Vec<Finding>| {
            all.extend(findings.into_iter().map(|finding| Found { scope: scope.to_owned(), finding }));
        };
        let (findings, client) = broker_findings(&config).await;
        add("nats", findings);
        for (name, source) in &config.sources {
            if let Some(client) = &client {
                let context = jetstream::new(client.clone());
                let findings = match &source.connector {
                    Connector::Webhook(webhook) => {
                        webhook::findings(&context, name, webhook.dedup_window).await
                    }
                    _ => publish::findings(&context, name, &config.nats).await,
                };
                add(name, findings);
            }
            add(name, connector::check(name, source).await);
        }
        self.show(&all)?;
        let errors = all.iter().filter(|found| found.finding.severity == Severity::Error).count();
        match errors {
            0 => Ok(()),
            1 => Err(Failure::unavailable("the run will not work: 1 finding has to be fixed first")),
            _ => Err(Failure::unavailable(format!(
                "the run will not work: {errors} findings have to be fixed first"
            ))),
        }
    }

    fn show(&self, found: &[Found]) -> Result<(), Failure> {
        if self.json {
            let findings: Vec<Shown<'_>> = found.iter().map(shown).collect();
            let ok = found.iter().all(|found| found.finding.severity < Severity::Error);
            let mut text = serde_json::to_vec_pretty(&Answer { ok, findings })
                .map_err(|error| Failure::internal(error.to_string()))?;
            text.push(b'\n');
            return print(&text);
        }
        print(table(found, Paint::detect()).as_bytes())
    }
}

fn shown(found: &Found) -> Shown<'_> {
    let Finding { severity, subject, what, why, fix } = &found.finding;
    let severity = match severity {
        Severity::Good => "good",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    Shown { scope: &found.scope, severity, subject, what, why, fix: fix.as_deref() }
}

fn configuration_findings(error: &config::ConfigError) -> Vec<Found> {
    error
        .problems()
        .iter()
        .map(|problem| {
            let subject = match problem.line {
                Some(line) => format!("line {line}: {}", problem.key),
                None => problem.key.clone(),
            };
            let finding =
                Finding::error(subject, &problem.what, "nothing is started with a wrong configuration");
            let finding = match &problem.hint {
                Some(hint) => finding.with_fix(hint),
                None => finding,
            };
            Found { scope: "config".to_owned(), finding }
        })
        .collect()
}

/// Findings for people: a mark, the subject, what was found; why and fix below.
fn table(found: &[Found], paint: Paint) -> String {
    let width = found.iter().map(|found| found.finding.subject.chars().count()).max().unwrap_or(0).min(40);
    let mut out = String::new();
    let mut scope = "";
    for Found { scope: of, finding } in found {
        if of != scope {
            out.push_str(if scope.is_empty() { "" } else { "\n" });
            out.push_str(&paint.bold(of));
            out.push('\n');
            scope = of;
        }
        let mark = match finding.severity {
            Severity::Good => paint.green("✓"),
            Severity::Warning => paint.yellow("!"),
            Severity::Error => paint.red("✗"),
        };
        out.push_str(&format!("  {mark} {:<width$}  {}\n", finding.subject, finding.what));
        if !finding.why.is_empty() {
            out.push_str(&format!("    {:<width$}  {}\n", "", paint.dim(&finding.why)));
        }
        for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
            out.push_str(&format!("    {:<width$}  fix: {line}\n", ""));
        }
    }
    out
}

/// What there is to say about the broker, and the connection to it if there is one.
async fn broker_findings(config: &Config) -> (Vec<Finding>, Option<Client>) {
    let mut findings = Vec::new();
    let name = format!("{} check", config.gateway.name);
    if let Server::Embedded(settings) = &config.nats.server {
        match embedded::program(settings) {
            Ok(program) => findings.push(Finding::good("embedded server", program.display().to_string())),
            Err(error) => {
                let why = "Headgate cannot start a broker of its own";
                findings
                    .push(Finding::error("embedded server", error.to_string(), why).with_fix(error.fix()));
            }
        }
    }
    match broker::connect(&config.nats, &name, Patience::Once).await {
        Ok((client, _)) => {
            findings.extend(server_findings(&client, &config.nats).await);
            (findings, Some(client))
        }
        Err(_) if matches!(config.nats.server, Server::Embedded(_)) => {
            findings.push(Finding::good("connection", "not running yet; headgate run starts it"));
            (findings, None)
        }
        Err(error) => {
            let why = "events have nowhere to go";
            findings.push(Finding::error("connection", error.to_string(), why).with_fix(error.fix()));
            (findings, None)
        }
    }
}

async fn server_findings(client: &Client, nats: &Nats) -> Vec<Finding> {
    const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(5);
    const USUAL_PAYLOAD: usize = 1 << 20;
    let info = client.server_info();
    let mut findings = vec![Finding::good("connection", nats.server.to_string())];
    let version = version(&info.version);
    findings.push(if version < (2, 10) {
        Finding::error("nats-server version", &info.version, "it lacks what Headgate relies on")
            .with_fix("install nats-server 2.12 or later")
    } else if version < (2, 12) && nats.publish == Publish::Atomic {
        Finding::error(
            "nats-server version",
            &info.version,
            "publish = \"atomic\" needs atomic batches, which came with 2.12",
        )
        .with_fix("install nats-server 2.12 or later, or set nats.publish = \"chain\"")
    } else if version < (2, 12) {
        Finding::warning(
            "nats-server version",
            &info.version,
            "it works, but Headgate is tested with 2.12 and later",
        )
        .with_fix("install nats-server 2.12 or later")
    } else {
        Finding::good("nats-server version", &info.version)
    });
    let context = jetstream::new(client.clone());
    findings.push(match tokio::time::timeout(ACCOUNT_TIMEOUT, context.query_account()).await {
        Ok(Ok(account)) => Finding::good(
            "jetstream",
            format!("{} streams, {} consumers", account.streams, account.consumers),
        ),
        Ok(Err(error)) => without_jetstream(error.to_string()),
        Err(_) => without_jetstream(format!("no answer within {ACCOUNT_TIMEOUT:?}")),
    });
    findings.push(if info.max_payload < USUAL_PAYLOAD {
        let why = "a larger event goes to the dead letters";
        Finding::warning("max_payload", format!("{} bytes", info.max_payload), why)
            .with_fix("max_payload: 8MB in the server's configuration")
    } else {
        Finding::good("max_payload", format!("{} bytes", info.max_payload))
    });
    findings
}

fn without_jetstream(what: String) -> Finding {
    Finding::error("jetstream", what, "events are kept in JetStream streams")
        .with_fix("jetstream {} in the server's configuration, and for this account")
}

/// Major and minor number; zeros where the text is no version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_aligned_with_why_and_fix_below() {
        let found = [
            ("config", Finding::good("configuration", "config.toml is sound")),
            (
                "shop",
                Finding::error("wal_level", "replica", "no changes can be read")
                    .with_fix("ALTER SYSTEM SET wal_level = logical;\n-- then restart"),
            ),
        ]
        .map(|(scope, finding)| Found { scope: scope.to_owned(), finding });
        assert_eq!(
            table(&found, Paint::plain()),
            "config\n  ✓ configuration  config.toml is sound\n\n\
             shop\n  ✗ wal_level      replica\n                   no changes can be read\n\
             \x20                  fix: ALTER SYSTEM SET wal_level = logical;\n                   fix: -- then restart\n"
        );
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(
            version("2.9.25") < (2, 10) && version("v2.12.1-RC.2") == (2, 12) && version("2.15.1") > (2, 12)
        );
    }
}
