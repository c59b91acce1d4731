//! `headgate check`: will the run work, will it go on working, and what has to be fixed first.

mod bus;
mod drift;
mod history;
mod layout;

pub(super) use layout::list;

use self::layout::{Layout, summary};
use super::{Failure, connector, failure::print, paint::Paint};
use crate::{
    config::{self, Connector},
    publish, webhook,
};
use async_nats::jetstream;
use clap::Args;
use headgate_sdk::{Finding, Severity};
use serde::Serialize;
use std::path::Path;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
It changes nothing that is there. Every ✗ has to be fixed first and says how;
a ! may hurt later.

Examples:
  headgate check
  headgate check --json | jq '.findings[] | select(.severity != \"good\")'

Exit codes: 0 the run will work, 64 the configuration is wrong, 69 something is
unavailable or unfit.")]
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
        let (findings, client) = bus::findings(&config).await;
        add("nats", findings);
        if let Some(client) = &client {
            let context = jetstream::new(client.clone());
            add(
                "nats",
                publish::room::findings(&context, config.sources.keys().map(String::as_str), &config.nats)
                    .await,
            );
        }
        for (name, source) in &config.sources {
            if let Some(client) = &client {
                let context = jetstream::new(client.clone());
                let findings = match &source.connector {
                    Connector::Webhook(webhook) => {
                        webhook::findings(&context, name, webhook.dedup_window).await
                    }
                    _ => {
                        add(name, drift::findings(&context, name, &config.nats).await);
                        add(name, history::findings(&context, name, source).await);
                        publish::findings(&context, name, &config.nats).await
                    }
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
        let paint = Paint::detect();
        print(format!("{}\n{}\n", Layout::of_terminal(paint).table(found), summary(found, paint)).as_bytes())
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
