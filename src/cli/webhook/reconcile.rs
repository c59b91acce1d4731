//! `headgate webhook reconcile`: what the provider never managed to deliver is found by its API and delivered now.

use super::register::{Access, failure, url};
use crate::{
    cli::{Failure, failure::print},
    config::{Config, parse_duration},
    normalize::time,
};
use axum::http::{HeaderMap, HeaderValue, header};
use clap::Args;
use headgate_webhook::{
    Endpoint,
    api::{self, Missed},
};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
GitHub is asked to deliver again what never got a 2xx; Stripe's undelivered events are fetched, signed with the source's secret
and posted to the running gateway. Both come in under the id that the delivery had, so what is there already makes no second
event within dedup_window; no more than that is looked back.

Examples:
  headgate webhook reconcile gh --target octo/shop
  headgate webhook reconcile pay --since 2h

Exit codes: 0 done, 64 no such source or no API for it, 69 the API or the gateway is away, 78 refused.")]
pub(in crate::cli) struct Reconcile {
    /// The source, as in [sources.NAME]
    source: String,
    /// How far to look back (90s, 2h, 3d); dedup_window by default and at most
    #[arg(long)]
    since: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Where the gateway is; by default where http.listen is
    #[arg(long)]
    url: Option<String>,
}

impl Reconcile {
    pub(in crate::cli) async fn execute(self, config: &Config) -> Result<(), Failure> {
        let webhook = super::find(config, &self.source)?;
        let provider = webhook.provider.name();
        let Some(api) = self.access.open(provider)? else {
            return Err(Failure::usage(format!("the gateway does not know the API of {provider}"))
                .with_fix("so far there are github and stripe"));
        };
        let back = match &self.since {
            None => webhook.dedup_window,
            Some(text) => parse_duration(text).ok_or_else(|| {
                Failure::usage(format!("--since: \"{text}\" is no duration")).with_fix("90s, 2h, 3d")
            })?,
        };
        if back > webhook.dedup_window {
            return Err(Failure::usage(
                "--since is longer than the source's dedup_window: events would come twice",
            )
            .with_fix("a shorter --since, or a longer dedup_window"));
        }
        let since = time::now().saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX));
        let public_url = url(&webhook.settings, &self.source)?;
        let missed = api::reconcile(provider, &api, &self.access.target, &public_url, since).await;
        match missed.map_err(|error| failure(&error))? {
            Missed::Redelivered(count) => {
                print(format!("{provider} was asked to deliver {count} again\n").as_bytes())
            }
            Missed::Bodies(bodies) => {
                let endpoint = Endpoint::new(webhook.provider.clone(), webhook.settings.clone())
                    .map_err(|error| Failure::usage(error.to_string()))?;
                let base = super::send::base(config, &self.source, self.url.as_deref());
                let count = bodies.len();
                let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                for body in bodies {
                    let headers = HeaderMap::from_iter([json.clone()]);
                    let signed = endpoint
                        .sign_delivery(headers, body, time::now())
                        .map_err(|error| Failure::usage(error.to_string()))?;
                    super::send::post(&base, signed).await?;
                }
                print(format!("{count} events of {provider} were delivered\n").as_bytes())
            }
        }
    }
}
