//! `headgate webhook show`.

use crate::cli::{Failure, failure::print, paint::Paint};
use clap::Args;
use headgate_webhook::{Catalog, Provider};
use std::fmt::Write as _;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  headgate webhook show stripe")]
pub(in crate::cli) struct Show {
    /// The provider, as `headgate webhook list` names it
    provider: String,
}

impl Show {
    pub(in crate::cli) fn execute(&self, catalog: &Catalog) -> Result<(), Failure> {
        let provider = catalog.get(&self.provider).ok_or_else(|| {
            Failure::usage(format!("no provider {}", self.provider))
                .with_fix("`headgate webhook list` shows all of them")
        })?;
        print(page(provider, Paint::detect()).as_bytes())
    }
}

fn page(provider: &Provider, paint: Paint) -> String {
    let mut out =
        format!("{} ({})\n\n{}\n\n", paint.bold(provider.title()), provider.name(), provider.setup().trim());
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
    let _ = write!(
        out,
        "\n[sources.NAME]\nconnector = \"webhook\"\nprovider = \"{}\"\nsecret = {}\n",
        provider.name(),
        // A file is what `register` can write.
        match provider.service() {
            Some(_) => "{ file = \"NAME.secret\" }",
            None => "\"${NAME_SECRET}\"",
        }
    );
    let parameters = provider.parameters();
    if !parameters.is_empty() {
        out.push_str("\n[sources.NAME.parameters]\n");
        for parameter in parameters {
            let (mark, value) = match &parameter.default {
                Some(default) => ("# ", default.as_str()),
                None => ("", "…"),
            };
            let _ = writeln!(out, "{mark}{} = {value:?}  # {}", parameter.name, parameter.about);
        }
    }
    out.push_str("\nIts URL is http.public_url, then /webhooks/NAME.\n");
    out
}
