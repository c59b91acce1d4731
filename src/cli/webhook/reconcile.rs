//! `headgate webhook reconcile`: what the provider never managed to deliver, or only told of, is found by its API and delivered now.
//!
//! # Order
//! Oldest first, each posted when the one before it is safe. One that the gateway will always refuse is left out, and said.
//!
//! # Duplicates
//! Each has the id that its delivery has, and no more than the window is looked back in which the gateway knows an id again. Where
//! the provider has a log, the run goes on where the last one ended. Where the API does not tell that id, what arrived is looked for
//! in the stream ([`arrived`]), and what the provider itself may still deliver is left to it.

use super::{
    access::{Access, url},
    arrived,
    bookmark::Place,
    send::{self, Post},
};
use crate::{
    cli::{Failure, failure::print},
    config::{Config, parse_duration},
};
use clap::Args;
use headgate_sdk::clock;
use headgate_webhook::{
    Endpoint,
    api::{self, ApiError, Batch, Missed, PATIENCE, Redelivery, Since, TRIES},
};
use reqwest::StatusCode;
use serde::Serialize;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
What was not delivered is fetched, signed with the source's secret and posted
to the running gateway, oldest first, under the id that the delivery had: what
is there already makes no second event. It ends when that is done; run it by a
timer.

  github, stripe, zendesk  what never got a 2xx, not longer ago than nine tenths
                           of dedup_window
  airtable, google-drive   what notifications only tell of, from where the last
                           run ended
  shopify, hubspot, slack  what happened there and is not in the stream, when
                           the provider itself has given up: from where the last
                           run ended, or from --since
  salesforce               the same, of the objects that --event names

Examples:
  headgate webhook reconcile gh --target octo/shop
  headgate webhook reconcile pay --since 2h
  headgate webhook reconcile drive --json

Exit codes: 0 done, 64 no such source or no API for it, 69 the API or the
gateway is away, 78 refused.")]
pub(in crate::cli) struct Reconcile {
    /// The source, as in [sources.NAME]
    source: String,
    /// How far to look back (90s, 2h, 3d); nine tenths of dedup_window by default and at most. Where the stream is looked through, from
    /// where the last run ended by default, or a day and what --until is if there was none
    #[arg(long)]
    since: Option<String>,
    /// shopify, hubspot, slack, salesforce: leave out what is younger; as long as the provider itself tries again by default (4h,
    /// 24h, 10m, 24h), since what comes both ways becomes two events; at salesforce no less than 15m
    #[arg(long)]
    until: Option<String>,
    /// shopify, hubspot: the events to look for, in the provider's names; by default at shopify those that the webhook has.
    /// salesforce: the objects
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// shopify, hubspot, slack, salesforce: the admin address of another gateway behind the same URL, in whose spool nothing may wait
    /// either; once for each
    #[arg(long = "beside", value_name = "HOST:PORT")]
    beside: Vec<String>,
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
    /// Missing at the provider as well: it tells their existence and not their content.
    untold: usize,
    /// Dropped by the provider before anybody fetched them.
    dropped: u64,
}

/// A part of the past, as ages.
#[derive(Clone, Copy)]
struct Span {
    since: Duration,
    until: Duration,
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
        let span = self.span(provider.name(), webhook.dedup_window)?;
        let api = self.access.open(provider, service)?;
        let public_url = url(&webhook.settings, &self.source)?;
        let endpoint = Endpoint::new(provider.clone(), webhook.settings.clone())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let gateway = Post::to(send::base(config, &self.source, self.url.as_deref()))?;
        let place = Place::of(config, &self.source, &self.access.bookmark_of(provider));
        let failed = |error: ApiError| {
            let failure = self.access.failure(service, &error);
            match error {
                ApiError::TooMany(_) if api::patience(provider.name()).is_some() && place.path().exists() => failure
                    .with_fix(format!(
                        "without --since, {} says from when on: remove it to give up what is older than a day and --until",
                        place.path().display()
                    )),
                _ => failure,
            }
        };
        let wish = self.access.wish(&public_url, &self.events);
        let now = clock::now();
        let since_when = before(now, span.since);
        let since_when =
            if self.since.is_some() { Since::Time(since_when) } else { Since::LastRun(since_when) };
        let missed = Missed::find(provider.name(), &api, &wish, &place.read()?, since_when).await;
        let mut missed = missed.map_err(failed)?;
        if api::patience(provider.name()).is_some() {
            missed.settle(before(now, span.until));
            let back = missed.begins().map_or(span.since, |from| since(now, from).max(span.since));
            // Only where it decides how far back the stream has to reach.
            let bookmark = missed.begins().map(|_| place.path());
            arrived::nothing_waits(config, &self.source, &self.beside).await?;
            arrived::strike(config, &self.source, back, bookmark, &mut missed).await?;
        }
        let mut outcome = Outcome {
            source: &self.source,
            provider: provider.name(),
            delivered: 0,
            asked: 0,
            refused: 0,
            untold: 0,
            dropped: 0,
        };
        while let Some(batch) = missed.next().await.map_err(failed)? {
            deliver(&batch, &endpoint, &gateway, &mut outcome).await?;
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
        if outcome.untold > 0 || outcome.dropped > 0 {
            let lost = u64::try_from(outcome.untold).unwrap_or(u64::MAX).saturating_add(outcome.dropped);
            return Err(Failure::refused(format!(
                "{lost} cannot be had any more: {} does not keep them",
                provider.title()
            ))
            .with_fix("run it more often, and read the present state of what they were about"));
        }
        if outcome.refused > 0 {
            let text = format!("the gateway refused {} of them, which are left out", outcome.refused);
            return Err(Failure::refused(text).with_fix("its log says why; max_body limits their size"));
        }
        Ok(())
    }

    /// What to look at. What is known by its id is looked for only as long as the gateway knows an id again; what is looked for in the
    /// stream, from when on the provider itself has given up.
    fn span(&self, provider: &str, window: Duration) -> Result<Span, Failure> {
        let age = |name: &str, text: &Option<String>, default: Duration| match text {
            None => Ok(default),
            Some(text) => parse_duration(text).ok_or_else(|| {
                Failure::usage(format!("{name}: \"{text}\" is no duration")).with_fix("90s, 2h, 3d")
            }),
        };
        let Some(patience) = api::patience(provider) else {
            let longest = window / 10 * 9;
            let since = age("--since", &self.since, longest)?;
            if self.until.is_some() || !self.events.is_empty() || !self.beside.is_empty() {
                return Err(Failure::usage(
                    "--until, --event and --beside are for shopify, hubspot, slack and salesforce",
                ));
            }
            if since > longest {
                return Err(Failure::usage(
                    "--since is longer than nine tenths of the source's dedup_window: events could come twice",
                )
                .with_fix("a shorter --since, or a longer dedup_window"));
            }
            return Ok(Span { since, until: Duration::ZERO });
        };
        let until = age("--until", &self.until, patience)?;
        let settled = api::settled(provider);
        if until < settled {
            return Err(Failure::usage(format!(
                "--until is shorter than {} s: what is younger may not show in {provider} yet, and would be passed over",
                settled.as_secs()
            ))
            .with_fix("a longer --until"));
        }
        let since = age("--since", &self.since, until.saturating_add(DAY))?;
        if since <= until {
            return Err(Failure::usage(format!(
                "--since has to be longer than --until, which is {} s",
                until.as_secs()
            )));
        }
        Ok(Span { since, until })
    }
}

/// The time that is so long before another, in microseconds since 1970-01-01 UTC.
fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

/// How long a time in microseconds since 1970-01-01 UTC is ago.
fn since(now: i64, then: i64) -> Duration {
    Duration::from_micros(now.saturating_sub(then).try_into().unwrap_or(0))
}

async fn deliver(
    batch: &Batch,
    endpoint: &Endpoint,
    gateway: &Post,
    outcome: &mut Outcome<'_>,
) -> Result<(), Failure> {
    outcome.asked += batch.asked;
    outcome.untold += batch.untold;
    outcome.dropped = outcome.dropped.saturating_add(batch.dropped);
    for delivery in &batch.deliveries {
        match post(delivery, endpoint, gateway).await? {
            status if status.is_success() => outcome.delivered += 1,
            // Nothing but the delivery itself is at fault, and it will be the same the next time: it must not hold up those
            // behind it.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => outcome.refused += 1,
            status @ StatusCode::FORBIDDEN => {
                return Err(Failure::refused(format!("the gateway answered {status}")).with_fix(
                    "the source's allow_ips has to contain the address that this command calls from; else the gateway's log says why",
                ));
            }
            status => return Err(send::failure(status)),
        }
    }
    Ok(())
}

/// Posts a delivery. What the gateway cannot take for now, it is asked again as it says, each time signed anew.
async fn post(delivery: &Redelivery, endpoint: &Endpoint, gateway: &Post) -> Result<StatusCode, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let signed = endpoint
            .sign_delivery(delivery.headers.clone(), delivery.body.clone(), clock::now())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let answer = gateway.post(signed).await?;
        let status = answer.status();
        let wait = api::retry_after(answer.headers(), jiff::Timestamp::now());
        match wait.filter(|wait| send::is_for_now(status) && tries < TRIES && *wait <= PATIENCE) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Ok(status),
        }
    }
}

impl Outcome<'_> {
    fn text(&self, title: &str) -> String {
        match (self.delivered, self.asked) {
            (0, 0) if self.untold > 0 || self.dropped > 0 => format!("delivered nothing of {title}\n"),
            (0, 0) => format!("nothing of {title} is missing\n"),
            (delivered, 0) => format!("delivered {delivered} of {title}\n"),
            (delivered, asked) => {
                format!("delivered {delivered} of {title}, which was asked to deliver {asked} more itself\n")
            }
        }
    }
}
