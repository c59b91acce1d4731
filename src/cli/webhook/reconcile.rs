//! `headgate webhook reconcile`: what the provider never managed to deliver, or only told of, is found by its API and delivered now.
//!
//! # Order
//! Oldest first, each posted when the one before it is safe. One that the gateway will always refuse is left out, and said.
//!
//! # Duplicates
//! Each has the id that its delivery has; where the API does not tell that, it is left out if the stream has it. And no more than the window is looked back in which the gateway knows an id again. Where
//! the provider has a log, the run goes on where the last one ended.

use super::{
    access::{Access, url},
    bookmark::Place,
    send,
};
use crate::{
    broker::{self, Patience},
    cli::{Failure, failure::print},
    config::{Config, parse_duration},
    normalize::time,
    webhook,
};
use async_nats::jetstream;
use clap::Args;
use headgate_sdk::Fault;
use headgate_webhook::{
    Endpoint,
    api::{self, ApiError, Arrived, Batch, Missed},
};
use reqwest::StatusCode;
use serde::Serialize;
use std::time::Duration;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
What was not delivered is fetched, signed with the source's secret and posted to the running gateway, oldest first, \
under the id that the delivery had: what is there already makes no second event. It ends when that is done; run it \
by a timer.

  github, stripe          what never got a 2xx, not longer ago than nine tenths of dedup_window
  airtable, google-drive  what notifications only tell of, from where the last run ended
  slack                   messages and edits of its conversations that are not in the stream
  salesforce              records (--event Account,Contact) whose last state or delete is not in the stream, from where
                          the last run ended

Examples:
  headgate webhook reconcile gh --target octo/shop
  headgate webhook reconcile pay --since 2h
  headgate webhook reconcile drive --json

Exit codes: 0 done, 64 no such source or no API for it, 69 the API or the gateway is away, 78 refused.")]
pub(in crate::cli) struct Reconcile {
    /// The source, as in [sources.NAME]
    source: String,
    /// How far to look back (90s, 2h, 3d); nine tenths of dedup_window by default and at most
    #[arg(long)]
    since: Option<String>,
    /// What is looked through, where the provider has many things (Salesforce: objects)
    #[arg(long = "event", value_name = "THING", value_delimiter = ',')]
    events: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// Where the gateway is; by default where http.listen is
    #[arg(long)]
    url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    source: &'a str,
    provider: &'a str,
    /// Fetched, posted and taken.
    delivered: usize,
    /// Asked of the provider, which delivers them itself.
    asked: usize,
    /// Fetched, posted and refused: too large, say. They are left out.
    refused: usize,
}

impl Reconcile {
    pub(in crate::cli) async fn execute(self, config: &Config) -> Result<(), Failure> {
        let webhook = super::find(config, &self.source)?;
        let provider = &webhook.provider;
        let Some(service) = provider.service().filter(|service| !service.reconcile.is_empty()) else {
            let text = format!(
                "{} has no API that the gateway could ask for what was not delivered",
                provider.name()
            );
            return Err(Failure::usage(text)
                .with_fix("`headgate webhook list` shows whose can: API register, reconcile"));
        };
        let since = time::now().saturating_sub(self.back(webhook.dedup_window)?);
        let api = self.access.open(provider, service)?;
        let public_url = url(&webhook.settings, &self.source)?;
        let endpoint = Endpoint::new(provider.clone(), webhook.settings.clone())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let base = send::base(config, &self.source, self.url.as_deref());
        let place = Place::of(config, &self.source);
        let failed = |error| self.access.failure(service, &error);
        let wish = self.access.wish(&public_url, &self.events);
        let missed = Missed::find(provider.name(), &api, &wish, &place.read()?, since).await;
        let mut missed = missed.map_err(failed)?;
        if let Some(from) = missed.overlap() {
            missed.leave_out(self.arrived(config, provider.name(), from).await?);
        }
        let mut outcome =
            Outcome { source: &self.source, provider: provider.name(), delivered: 0, asked: 0, refused: 0 };
        while let Some(batch) = missed.next().await.map_err(failed)? {
            deliver(&batch, &endpoint, &base, &mut outcome).await?;
            if let Some(bookmark) = &batch.bookmark {
                place.write(bookmark)?;
            }
        }
        if self.json {
            let mut text =
                serde_json::to_vec(&outcome).map_err(|error| Failure::internal(error.to_string()))?;
            text.push(b'\n');
            print(&text)?;
        } else {
            print(outcome.text(provider.title()).as_bytes())?;
        }
        if outcome.refused > 0 {
            let text = format!("the gateway refused {} of them, which are left out", outcome.refused);
            return Err(Failure::refused(text).with_fix("its log says why; max_body limits their size"));
        }
        Ok(())
    }

    /// What the stream holds of a provider whose deliveries cannot be told by their id.
    async fn arrived(&self, config: &Config, provider: &str, from: i64) -> Result<Arrived, Failure> {
        let name = format!("{} reconcile", config.gateway.name);
        let (client, _) = broker::connect(&config.nats, &name, Patience::Once)
            .await
            .map_err(|error| Failure::unavailable(error.to_string()).with_fix(error.fix()))?;
        let mut arrived = Arrived::default();
        let context = jetstream::new(client);
        webhook::arrived(&context, &self.source, from, |data| -> Result<(), Unread> {
            api::state(provider, data).map_or(Ok(()), |state| Ok(arrived.note(&state)?))
        })
        .await?;
        Ok(arrived)
    }

    /// How far to look back, in microseconds: never to what the gateway no longer knows again when it is posted.
    fn back(&self, window: Duration) -> Result<i64, Failure> {
        let longest = window / 10 * 9;
        let back = match &self.since {
            None => longest,
            Some(text) => parse_duration(text).ok_or_else(|| {
                Failure::usage(format!("--since: \"{text}\" is no duration")).with_fix("90s, 2h, 3d")
            })?,
        };
        if back > longest {
            return Err(Failure::usage(
                "--since is longer than nine tenths of the source's dedup_window: events could come twice",
            )
            .with_fix("a shorter --since, or a longer dedup_window"));
        }
        Ok(i64::try_from(back.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Why it is not known what arrived.
enum Unread {
    Broker(Fault),
    TooMuch(ApiError),
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Broker(fault)
    }
}

impl From<ApiError> for Unread {
    fn from(error: ApiError) -> Self {
        Self::TooMuch(error)
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Broker(fault) => Self::unavailable(fault.to_string()),
            Unread::TooMuch(error) => Self::usage(error.to_string()),
        }
    }
}

async fn deliver(
    batch: &Batch,
    endpoint: &Endpoint,
    base: &str,
    outcome: &mut Outcome<'_>,
) -> Result<(), Failure> {
    outcome.asked += batch.asked;
    for delivery in &batch.deliveries {
        let signed = endpoint
            .sign_delivery(delivery.headers.clone(), delivery.body.clone(), time::now())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let status = send::attempt(base, signed).await?.status();
        match status {
            status if status.is_success() => outcome.delivered += 1,
            // Nothing but the delivery itself is at fault, and it will be the same the next time: it must not hold up those
            // behind it.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => outcome.refused += 1,
            status => return Err(send::refused(status)),
        }
    }
    Ok(())
}

impl Outcome<'_> {
    fn text(&self, title: &str) -> String {
        match (self.delivered, self.asked) {
            (0, 0) => format!("nothing of {title} is missing\n"),
            (delivered, 0) => format!("delivered {delivered} of {title}\n"),
            (delivered, asked) => {
                format!("delivered {delivered} of {title}, which was asked to deliver {asked} more itself\n")
            }
        }
    }
}
