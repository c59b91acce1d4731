//! `headgate webhook show`.

use crate::{
    cli::{Failure, failure::print, paint::Paint},
    config::{Config, Connector, nearest},
};
use clap::Args;
use headgate_webhook::{Catalog, ParameterInfo, Provider};
use serde::Serialize;
use std::fmt::Write as _;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  headgate webhook show stripe")]
pub(in crate::cli) struct Show {
    /// The provider, as `headgate webhook list` names it
    provider: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    title: &'a str,
    setup: String,
    secret: Option<&'a str>,
    parameters: Vec<Parameter>,
    schemes: Vec<&'a str>,
    handshakes: Vec<&'a str>,
    samples: Vec<&'a str>,
    api: Vec<&'a str>,
    facts: &'a str,
}

#[derive(Serialize)]
struct Parameter {
    name: String,
    about: String,
    default: Option<String>,
}

fn shown<'a>(provider: &'a Provider, url: &str) -> Shown<'a> {
    let parameters = provider.parameters().into_iter();
    Shown {
        name: provider.name(),
        title: provider.title(),
        setup: provider.setup(url),
        secret: provider.has_secret().then(|| provider.secret()),
        parameters: parameters
            .map(|ParameterInfo { name, about, default }| Parameter { name, about, default })
            .collect(),
        schemes: provider.schemes().collect(),
        handshakes: provider.handshakes().collect(),
        samples: provider.samples().collect(),
        api: super::abilities(provider),
        facts: provider.facts(),
    }
}

impl Show {
    /// `config` is the configuration, where there is a sound one: its URLs stand in what has to be set at the provider.
    pub(in crate::cli) fn execute(&self, catalog: &Catalog, config: Option<&Config>) -> Result<(), Failure> {
        let provider = catalog.get(&self.provider).ok_or_else(|| {
            let near = nearest(&self.provider, catalog.iter().map(|provider| provider.name()));
            let list = "`headgate webhook list` shows all of them".to_owned();
            Failure::usage(format!("no provider {}", self.provider))
                .with_fix(near.map_or(list, |near| format!("headgate webhook show {near}")))
        })?;
        let endpoint = endpoint(provider, config);
        if self.json {
            return super::print_json(&shown(provider, &endpoint.1));
        }
        print(page(provider, &endpoint, Paint::detect()).as_bytes())
    }
}

/// What stands for http.public_url where there is none yet.
const HOST: &str = "https://HOST";

/// A source of this provider and its URL: one of the configuration, else what stands for them.
fn endpoint(provider: &Provider, config: Option<&Config>) -> (String, String) {
    let sources = config.iter().flat_map(|config| &config.sources);
    let mut named = sources.filter_map(|(name, source)| match &source.connector {
        Connector::Webhook(webhook) if webhook.provider.name() == provider.name() => {
            Some((name.clone(), webhook.settings.public_url.clone()?))
        }
        _ => None,
    });
    named.next().unwrap_or_else(|| {
        let base = config.and_then(|config| config.http.public_url.as_deref());
        let base = base.unwrap_or(HOST).trim_end_matches('/');
        ("NAME".to_owned(), format!("{base}/webhooks/NAME"))
    })
}

fn page(provider: &Provider, (name, url): &(String, String), paint: Paint) -> String {
    let mut out =
        format!("{} ({})\n\n{}\n\n", paint.bold(provider.title()), provider.name(), provider.setup(url));
    let mut row = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "{}  {text}", paint.dim(&format!("{name:<10}")));
        }
    };
    row("secret", provider.secret());
    row("signed by", &provider.schemes().collect::<Vec<_>>().join(", "));
    row("handshakes", &provider.handshakes().collect::<Vec<_>>().join(", "));
    row("samples", &provider.samples().collect::<Vec<_>>().join(", "));
    row("facts", provider.facts());
    row("API", &super::abilities(provider).join(", "));
    if let Some(service) = provider.service() {
        row("  target", &service.target);
        row("  token", &service.token);
        row("  events", &service.events);
        row("  missed", &service.reconcile);
        row("  see", &service.documentation.join(" "));
    }
    let _ = write!(out, "\n[sources.{name}]\nconnector = \"webhook\"\nprovider = \"{}\"\n", provider.name());
    if provider.has_secret() {
        let _ = writeln!(out, "secret = {{ file = \"{name}.secret\" }}");
    }
    let parameters = provider.parameters();
    if !parameters.is_empty() {
        let _ = write!(out, "\n[sources.{name}.parameters]\n");
        for parameter in parameters {
            let (mark, value) = match &parameter.default {
                Some(default) => ("# ", default.as_str()),
                None => ("", "…"),
            };
            let _ = writeln!(out, "{mark}{} = {value:?}  # {}", parameter.name, parameter.about);
        }
    }
    if name == "NAME" {
        out.push_str("\nNAME is yours to choose");
        out.push_str(if url.starts_with(HOST) {
            "; HOST is what http.public_url will say.\n"
        } else {
            ".\n"
        });
    }
    let _ = write!(
        out,
        "\n`headgate webhook register {name}` says or does what has to be done at the provider.\n"
    );
    out
}
