//! `headgate webhook list`.

use crate::cli::{Failure, failure::print, paint::Paint};
use clap::Args;
use headgate_webhook::{Catalog, Provider};
use serde::Serialize;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
API    what the gateway does by the provider's own API: `register` the URL
       there, `reconcile` what was not delivered
FACTS  confirmed: by the provider's own documentation or code;
       else see docs/webhooks.md before relying on it

Examples:
  headgate webhook list
  headgate webhook list --json | jq -r '.[].name'
  headgate webhook show github")]
pub(in crate::cli) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    title: &'a str,
    schemes: Vec<&'a str>,
    handshakes: Vec<&'a str>,
    samples: Vec<&'a str>,
    api: Vec<&'a str>,
    facts: &'a str,
}

fn shown(provider: &Provider) -> Shown<'_> {
    Shown {
        name: provider.name(),
        title: provider.title(),
        schemes: provider.schemes().collect(),
        handshakes: provider.handshakes().collect(),
        samples: provider.samples().collect(),
        api: super::abilities(provider),
        facts: provider.facts(),
    }
}

impl List {
    pub(in crate::cli) fn execute(&self, catalog: &Catalog) -> Result<(), Failure> {
        let providers: Vec<Shown<'_>> = catalog.iter().map(|provider| shown(provider)).collect();
        if self.json {
            let mut text = serde_json::to_vec_pretty(&providers)
                .map_err(|error| Failure::internal(error.to_string()))?;
            text.push(b'\n');
            return print(&text);
        }
        print(table(&providers, Paint::detect()).as_bytes())
    }
}

fn table(providers: &[Shown<'_>], paint: Paint) -> String {
    let rows: Vec<[String; 5]> = providers
        .iter()
        .map(|provider| {
            [
                provider.name.to_owned(),
                provider.title.to_owned(),
                provider.facts.to_owned(),
                provider.api.join(", "),
                provider.schemes.join(", "),
            ]
        })
        .collect();
    let heads = ["PROVIDER", "", "FACTS", "API", "SIGNED BY"];
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(heads[column].len())
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |[name, title, facts, api, signed]: [&str; 5]| {
        let [first, second, third, fourth] = widths;
        let text = format!("{name:<first$}  {title:<second$}  {facts:<third$}  {api:<fourth$}  {signed}");
        text.trim_end().to_owned()
    };
    let mut out = paint.dim(&line(heads));
    out.push('\n');
    for row in &rows {
        out.push_str(&line([&row[0], &row[1], &row[2], &row[3], &row[4]]));
        out.push('\n');
    }
    out
}
