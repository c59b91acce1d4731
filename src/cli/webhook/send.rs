//! `headgate webhook send`: a delivery as the provider would send it, through the whole gateway.

use crate::{
    cli::{Failure, failure::print},
    config::Config,
};
use clap::Args;
use headgate_sdk::clock;
use headgate_webhook::{Endpoint, SignedRequest};
use reqwest::StatusCode;
use serde::Serialize;
use std::{net::SocketAddr, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(15);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
The sample is signed with the source's first secret. Its delivery has always
the same id, so that sending it again within dedup_window is answered as well
and makes no second event.

Examples:
  headgate webhook send gh
  headgate webhook send gh --sample push
  headgate tail gh --count 1 --json & headgate webhook send gh

Exit codes: 0 accepted, 64 no such source or sample, 69 nothing answers or it
cannot take it now, 78 refused by the gateway.")]
pub(in crate::cli) struct Send {
    /// The source, as in [sources.NAME]
    source: String,
    /// Which sample of the provider's; the first by default
    #[arg(long)]
    sample: Option<String>,
    /// Where to post it; by default where http.listen is, which the certificate
    /// of [http.tls] is hardly for
    #[arg(long)]
    url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Sent<'a> {
    source: &'a str,
    provider: &'a str,
    status: u16,
    body: &'a str,
}

impl Send {
    pub(in crate::cli) async fn execute(self, config: &Config) -> Result<(), Failure> {
        let webhook = super::find(config, &self.source)?;
        let endpoint = Endpoint::new(webhook.provider.clone(), webhook.settings.clone())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let signed = endpoint
            .sign(self.sample.as_deref(), clock::now())
            .map_err(|error| Failure::usage(format!("cannot sign a sample: {error}")))?;
        let base = base(config, &self.source, self.url.as_deref());
        let answer = Post::to(base)?.post(signed).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(failure(status));
        }
        let body = answer.text().await.unwrap_or_default();
        if self.json {
            let (provider, status) = (webhook.provider.name(), status.as_u16());
            return super::print_json(&Sent { source: &self.source, provider, status, body: &body });
        }
        let body = if body.is_empty() { String::new() } else { format!(": {}", body.trim()) };
        let next = format!(
            "`headgate tail {} --from 1h` shows its event; once, however often it is sent",
            self.source
        );
        print(format!("{status}{body}\n{next}\n").as_bytes())
    }
}

/// The URL of a source on the running gateway.
pub(super) fn base(config: &Config, source: &str, url: Option<&str>) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    url.map_or_else(
        || format!("{scheme}://{}/webhooks/{source}", reachable(config.http.listen)),
        str::to_owned,
    )
}

/// What posts deliveries to a running gateway: one client for all that a command posts.
pub(super) struct Post {
    client: reqwest::Client,
    base: String,
}

impl Post {
    pub(super) fn to(base: String) -> Result<Self, Failure> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Self { client, base })
    }

    /// Posts a delivery, once.
    pub(super) async fn post(&self, signed: SignedRequest) -> Result<reqwest::Response, Failure> {
        let request = self
            .client
            .request(signed.method, format!("{}{}", self.base, signed.query))
            .headers(signed.headers)
            .body(signed.body);
        request.send().await.map_err(|error| {
            let error = error.without_url();
            let causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let cause = causes.last().map(ToString::to_string).unwrap_or_default();
            if cause.contains("certificate") {
                return Failure::unavailable(format!("{} is not believed: {cause}", self.base))
                    .with_fix("--url https://NAME/webhooks/SOURCE, with a name that the certificate is for");
            }
            Failure::unavailable(format!("nothing answers on {}: {cause}", self.base))
                .with_fix("headgate run, or look at http.listen")
        })
    }
}

/// Whether the gateway cannot take a delivery now, and may later.
pub(super) fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// What an answer is to a user that is no 2xx.
pub(super) fn failure(status: StatusCode) -> Failure {
    if is_for_now(status) {
        return Failure::unavailable(format!("the gateway answered {status}")).with_fix(
            "come again later; `headgate status` shows the broker and the spool, rate_limit the source's limit",
        );
    }
    refused(status)
}

fn refused(status: StatusCode) -> Failure {
    Failure::refused(format!("the gateway answered {status}"))
        .with_fix("its log says why; was it started with another secret?")
}

/// An address to call where one is listened on: every address is also this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
