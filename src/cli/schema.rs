//! `headgate schema`: the versions of tables that the registry holds, and whether events are as they say.

use super::{Failure, failure::print, paint::Paint};
use crate::{
    broker::{self, Patience},
    config::{Config, Connector, Server, without_credentials},
    schema::{
        Shape, Stored,
        asyncapi::{self, LogSource},
        by_uri, compare, stored, validate,
    },
};
use async_nats::jetstream;
use clap::Subcommand;
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    path::PathBuf,
};

/// Longest line that `check` reads: the largest event there can be, and more.
const LONGEST_LINE: u64 = 256 << 20;
/// More violations than this are counted, not shown.
const SHOWN: usize = 50;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Schema {
    /// List the versions of every table, or of one source's
    List {
        /// The source
        source: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a version as JSON Schema
    Show {
        /// SOURCE.ENTITY, or SOURCE.ENTITY@VERSION
        entity: String,
    },
    /// Show what changed between two versions
    Diff {
        /// SOURCE.ENTITY
        entity: String,
        /// The first version [default: the one before the last]
        from: Option<u64>,
        /// The second version [default: the last]
        to: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Validate events against the schemas that they name, for a team's CI
    #[command(after_help = "\
One structured event a line, as `headgate tail --json` prints them.

Examples:
  headgate tail shop --from start --count 1000 --json | headgate schema check -
  headgate schema check tests/events.jsonl

Exit codes: 0 all are as their schemas say, 69 some are not, or name a version
that is not there, or none names one.")]
    Check {
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Print an AsyncAPI 3 document of all subjects and messages
    Asyncapi,
}

impl Schema {
    pub(super) async fn execute(self, config: Config) -> Result<(), Failure> {
        let versions = versions(&config).await?;
        match self {
            Self::List { source, json } => list(&config, &versions, source.as_deref(), json),
            Self::Show { entity } => {
                let (entity, number) = match entity.rsplit_once('@') {
                    Some((entity, number)) => (entity.to_owned(), Some(version(number)?)),
                    None => (entity, None),
                };
                print_json(&find(&versions, &entity, number)?.document)
            }
            Self::Diff { entity, from, to, json } => diff(&versions, &entity, from, to, json),
            Self::Check { file } => check(&versions, &file),
            Self::Asyncapi => {
                let servers = match &config.nats.server {
                    Server::Remote(urls) => urls.iter().map(|url| without_credentials(url)).collect(),
                    Server::Embedded(embedded) => vec![format!("nats://{}", embedded.listen)],
                };
                let sources: Vec<LogSource<'_>> = config
                    .sources
                    .iter()
                    .filter_map(|(name, source)| match source.connector {
                        Connector::Postgres(_) => {
                            Some(LogSource { name, messages: !source.shaping.messages.is_empty() })
                        }
                        Connector::MySql(_) => Some(LogSource { name, messages: false }),
                        Connector::Webhook(_) => None,
                    })
                    .collect();
                let Config { gateway, nats, .. } = &config;
                print_json(&asyncapi::document(&gateway.name, &servers, &nats.subject, &sources, &versions))
            }
        }
    }
}

async fn versions(config: &Config) -> Result<Vec<Stored>, Failure> {
    let name = format!("{} schema", config.gateway.name);
    let (client, _) = broker::connect(&config.nats, &name, Patience::Once)
        .await
        .map_err(|error| Failure::unavailable(error.to_string()).with_fix(error.fix()))?;
    let found = stored(&jetstream::new(client))
        .await
        .map_err(|error| Failure::unavailable(format!("cannot read the schemas: {error}")))?;
    Ok(found.unwrap_or_default())
}

fn version(text: &str) -> Result<u64, Failure> {
    text.parse()
        .map_err(|_| Failure::usage(format!("{text:?} is no version")).with_fix("a number, as list shows it"))
}

fn list(config: &Config, versions: &[Stored], source: Option<&str>, json: bool) -> Result<(), Failure> {
    let shown: Vec<&Stored> =
        versions.iter().filter(|version| source.is_none_or(|source| version.source == source)).collect();
    if let Some(source) = source.filter(|source| shown.is_empty() && !config.sources.contains_key(*source)) {
        let known: Vec<&str> = config.sources.keys().map(String::as_str).collect();
        return Err(Failure::usage(format!("there is no source {source}"))
            .with_fix(format!("known here: {}", known.join(", "))));
    }
    if shown.is_empty() {
        return Err(Failure::unavailable("there are no schemas yet")
            .with_fix("a version is written when the first event of its table comes by"));
    }
    if json {
        let told = |version: &Stored| {
            let about = &version.document["x-headgate"];
            serde_json::json!({
                "source": version.source, "entity": version.entity, "version": version.number,
                "uri": version.document["$id"], "compatible": about["compatible"],
                "changes": about["changes"].as_array().cloned().unwrap_or_default(),
            })
        };
        return print_json(&Value::Array(shown.into_iter().map(told).collect()));
    }
    let paint = Paint::detect();
    let name = |version: &Stored| format!("{}.{}", version.source, version.entity);
    let width = shown.iter().map(|version| name(version).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for version in shown {
        let about = &version.document["x-headgate"];
        let changes: Vec<&str> =
            about["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let note = match about["compatible"].as_bool() {
            None => String::new(),
            Some(true) => changes.join("; "),
            Some(false) => paint.yellow(&format!("incompatible: {}", changes.join("; "))),
        };
        let line = format!("{:<width$}  @{:<3}  {}  {note}", name(version), version.number, version.hash);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    print(text.as_bytes())
}

/// A version of an entity, the last one where none is named.
fn find<'a>(versions: &'a [Stored], entity: &str, number: Option<u64>) -> Result<&'a Stored, Failure> {
    let mut of_entity =
        versions.iter().filter(|version| format!("{}.{}", version.source, version.entity) == entity);
    of_entity.rfind(|version| number.is_none_or(|number| version.number == number)).ok_or_else(|| {
        let what = number.map_or(entity.to_owned(), |number| format!("{entity}@{number}"));
        Failure::usage(format!("there is no schema of {what}")).with_fix("headgate schema list shows all")
    })
}

fn diff(
    versions: &[Stored],
    entity: &str,
    from: Option<u64>,
    to: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let to = find(versions, entity, to)?;
    let others = |version: &&Stored| version.source == to.source && version.entity == to.entity;
    if from.is_none() && versions.iter().filter(others).count() == 1 {
        return Err(Failure::usage(format!("{entity} has one version: nothing to compare")));
    }
    let from = find(versions, entity, Some(from.unwrap_or(to.number.saturating_sub(1))))?;
    let paint = Paint::detect();
    let changes =
        compare::differences(&Shape::of_document(&from.document), &Shape::of_document(&to.document));
    let compatible = compare::is_compatible(&changes);
    if json {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return print_json(&serde_json::json!({
            "entity": entity, "from": from.number, "to": to.number, "changes": changes, "compatible": compatible,
        }));
    }
    let mut text = format!("{entity} @{} → @{}\n", from.number, to.number);
    for change in &changes {
        let line = change.to_string();
        let line = if change.is_compatible() { paint.green(&line) } else { paint.red(&line) };
        let _ = writeln!(text, "  {line}");
    }
    text.push_str(if compatible { "compatible\n" } else { "not compatible\n" });
    print(text.as_bytes())
}

fn check(versions: &[Stored], file: &std::path::Path) -> Result<(), Failure> {
    let unreadable =
        |error: std::io::Error| Failure::unavailable(format!("cannot read {}: {error}", file.display()));
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(file).map_err(unreadable)?))
    };
    let known = by_uri(versions);
    let (mut checked, mut without, mut wrong) = (0_u64, 0_u64, 0_usize);
    let mut text = String::new();
    for (index, line) in input.lines().enumerate() {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        if line.len() as u64 > LONGEST_LINE {
            return Err(Failure::usage(format!("line {} is longer than any event", index + 1)));
        }
        let event: Value = serde_json::from_str(&line)
            .map_err(|error| Failure::usage(format!("line {} is no JSON: {error}", index + 1)))?;
        let Some(uri) = event["dataschema"].as_str() else {
            without += 1;
            continue;
        };
        checked += 1;
        let violations = match known.get(uri) {
            Some(version) => validate::violations(&version.document, &event["data"]),
            None => vec![format!("the registry does not have {uri}")],
        };
        for violation in violations {
            wrong += 1;
            if wrong <= SHOWN {
                let id = event["id"].as_str().unwrap_or("?");
                let _ = writeln!(text, "line {}: {id}: {violation}", index + 1);
            }
        }
    }
    let _ = writeln!(text, "{checked} events checked, {without} without a schema, {wrong} violations");
    print(text.as_bytes())?;
    if wrong > 0 {
        return Err(Failure::unavailable("events are not as their schemas say"));
    }
    if checked == 0 {
        // A contract test that was given the wrong file, or nothing, has not passed.
        return Err(Failure::unavailable("no event names a schema: nothing was checked"));
    }
    Ok(())
}

fn print_json(value: &Value) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Failure::internal(error.to_string()))?;
    text.push(b'\n');
    print(&text)
}
