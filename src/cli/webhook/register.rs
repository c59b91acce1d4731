//! `headgate webhook register`: the webhook is made by the provider's own API, or what to set there is said.
//!
//! # Duplicates
//! It looks first, so running it again changes nothing, but that a webhook which would end soon is extended.

use super::{
    access::{Access, url},
    bookmark::Place,
    secret_file::{self, Absent, Claim},
};
use crate::{
    cli::{Failure, failure::print},
    config::Webhook,
    normalize::time,
};
use clap::Args;
use headgate_sdk::clock;
use headgate_webhook::{
    Provider, Registration, Secret, SecretOrigin, Service,
    api::{self, Api, Bookmark, Hook, Wish},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
`headgate webhook list` shows whose API is known, `headgate webhook show
PROVIDER` which target and token it wants. For every other provider this says
what has to be set on its side.

The secret: with secret = { file = \"gh.secret\" } and no such file yet, a fresh
one is made (or taken from the provider, where that chooses it), written there,
readable by this user alone, and never shown.

Examples:
  export HEADGATE_API_TOKEN=$(gh auth token)
  headgate webhook register gh --target octo/shop
  headgate webhook register pay
  headgate webhook register help --target octo --event ticket.created

Exit codes: 0 made, there already, or said; 64 no such source, or something is
missing; 69 the API is away; 78 refused by the API, or the webhook is there
with a secret that nobody knows here.")]
pub(in crate::cli) struct Register {
    /// The source, as in [sources.NAME]
    source: String,
    #[command(flatten)]
    access: Access,
    /// The events to be told of, in the provider's names; all of them where the provider has such a thing
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    source: &'a str,
    provider: &'a str,
    url: &'a str,
    /// The provider's id; none where it is set up by hand.
    webhook: Option<String>,
    /// `made`, `kept`, `extended` or `manual`.
    outcome: &'static str,
    expires: Option<String>,
    /// The file that was written.
    secret_file: Option<PathBuf>,
    /// The provider's secret, where the configuration names no file for it.
    secret: Option<String>,
    /// What to do on the provider's side.
    setup: Option<String>,
}

impl Register {
    pub(in crate::cli) async fn execute(self, file: &Path) -> Result<(), Failure> {
        let (config, absent) = secret_file::load(file, &self.source)?;
        let webhook = super::find(&config, &self.source)?;
        let provider = &webhook.provider;
        let url = url(&webhook.settings, &self.source)?;
        let mut outcome = Outcome {
            source: &self.source,
            provider: provider.name(),
            url: &url,
            webhook: None,
            outcome: "manual",
            expires: None,
            secret_file: None,
            secret: None,
            setup: None,
        };
        let by_api = provider.service().filter(|service| match service.register {
            Registration::Api => true,
            Registration::Either => self.access.has_token(),
            Registration::Hand => false,
        });
        if let Some(service) = by_api {
            let place = Place::of(&config, &self.source, &self.access.bookmark_of(provider));
            let run = Run {
                provider,
                service,
                api: &self.access.open(provider, service)?,
                access: &self.access,
                wish: self.access.wish(&url, &self.events),
                absent: absent.as_ref(),
                place: &place,
            };
            run.execute(webhook, &mut outcome).await?;
        } else {
            if let Some(absent) = absent.as_ref().filter(|_| provider.takes_any_secret()) {
                Claim::new(&absent.path)?.write(&absent.path, &absent.fresh)?;
                outcome.secret_file = Some(absent.path.clone());
            }
            outcome.setup = Some(provider.setup(&url));
        }
        if self.json {
            let mut text =
                serde_json::to_vec(&outcome).map_err(|error| Failure::internal(error.to_string()))?;
            text.push(b'\n');
            return print(&text);
        }
        print(outcome.text(provider, absent.as_ref()).as_bytes())
    }
}

/// One registration.
struct Run<'a> {
    provider: &'a Provider,
    service: &'a Service,
    api: &'a Api,
    access: &'a Access,
    wish: Wish<'a>,
    absent: Option<&'a Absent>,
    place: &'a Place,
}

impl Run<'_> {
    async fn execute(&self, webhook: &Webhook, outcome: &mut Outcome<'_>) -> Result<(), Failure> {
        let failed = |error| self.access.failure(self.service, &error);
        let mut bookmark = self.place.read()?;
        let found = api::find(self.provider.name(), self.api, &self.wish, &bookmark).await.map_err(failed)?;
        if self.service.secret == SecretOrigin::App && self.absent.is_some() {
            return Err(Failure::usage(format!(
                "{} signs with a secret that its API does not tell",
                self.provider.name()
            ))
            .with_fix(format!("put it into the source's secret file: {}", self.provider.secret())));
        }
        // What ends by itself and signs with our secret can be made anew, if that secret was lost.
        let lost = self.absent.is_some() && self.service.secret == SecretOrigin::Gateway;
        let found = found.filter(|hook| !(lost && hook.expires.is_some()));
        let hook = match found {
            Some(hook) => {
                outcome.outcome = "kept";
                self.keep_secret(&hook, outcome)?;
                let secret = webhook.settings.secrets.first();
                self.renew(hook, secret, &mut bookmark, outcome).await?
            }
            None => {
                outcome.outcome = "made";
                self.make(webhook.settings.secrets.first(), &mut bookmark, outcome).await?
            }
        };
        outcome.expires = hook.expires.map(|at| time::rfc3339(at).as_str().to_owned());
        outcome.webhook = Some(hook.id);
        Ok(())
    }

    /// What is there already signs with a secret that this side has to have.
    fn keep_secret(&self, hook: &Hook, outcome: &mut Outcome<'_>) -> Result<(), Failure> {
        let Some(absent) = self.absent else { return Ok(()) };
        let Some(secret) = &hook.secret else {
            return Err(Failure::refused(format!(
                "webhook {} calls {} already, with a secret that is not in {} and that {} does not tell",
                hook.id,
                self.wish.url,
                absent.path.display(),
                self.provider.title(),
            ))
            .with_fix(
                "put its secret into that file, or delete the webhook at the provider and run this again",
            ));
        };
        Claim::new(&absent.path)?.write(&absent.path, secret)?;
        outcome.secret_file = Some(absent.path.clone());
        Ok(())
    }

    async fn renew(
        &self,
        hook: Hook,
        secret: Option<&Secret>,
        bookmark: &mut Bookmark,
        outcome: &mut Outcome<'_>,
    ) -> Result<Hook, Failure> {
        let Some(secret) = secret else { return Ok(hook) };
        let renewed =
            api::renew(self.provider.name(), self.api, &self.wish, &hook, secret, bookmark, clock::now())
                .await;
        let Some(renewed) = renewed.map_err(|error| self.access.failure(self.service, &error))? else {
            return Ok(hook);
        };
        outcome.outcome = "extended";
        self.remember(bookmark)?;
        Ok(renewed)
    }

    async fn make(
        &self,
        secret: Option<&Secret>,
        bookmark: &mut Bookmark,
        outcome: &mut Outcome<'_>,
    ) -> Result<Hook, Failure> {
        let mut claim = None;
        if let Some(absent) = self.absent {
            let ready = Claim::new(&absent.path)?;
            if self.service.secret == SecretOrigin::Gateway {
                ready.write(&absent.path, &absent.fresh)?;
                outcome.secret_file = Some(absent.path.clone());
            } else {
                claim = Some((ready, absent));
            }
        }
        // A provider that chooses the secret is not told one.
        let secret = secret.ok_or_else(|| {
            Failure::usage("the source has no secret to sign with")
                .with_fix("secret = { file = \"NAME.secret\" }")
        })?;
        let made = api::make(self.provider.name(), self.api, &self.wish, secret, bookmark).await;
        let hook = made.map_err(|error| self.access.failure(self.service, &error))?;
        if let Some(secret) = &hook.secret {
            match claim {
                Some((claim, absent)) => {
                    claim.write(&absent.path, secret).map_err(|failure| {
                        failure.with_fix(format!(
                            "webhook {} was made and its secret is lost: delete it at the provider, and run this again",
                            hook.id
                        ))
                    })?;
                    outcome.secret_file = Some(absent.path.clone());
                }
                // The one time that a secret is shown: the provider tells it once, and the configuration has no file for it.
                None => outcome.secret = Some(secret.expose().to_owned()),
            }
        }
        self.remember(bookmark)?;
        Ok(hook)
    }

    fn remember(&self, bookmark: &Bookmark) -> Result<(), Failure> {
        if *bookmark == Bookmark::default() { Ok(()) } else { self.place.write(bookmark) }
    }
}

impl Outcome<'_> {
    /// What to do where the API does not do it.
    fn by_hand(&self, provider: &Provider, absent: Option<&Absent>) -> String {
        let mut text = format!(
            "{} is set up by hand:\n\n{}\n\nURL     {}\n",
            provider.title(),
            self.setup.as_deref().unwrap_or_default(),
            self.url,
        );
        let about = provider.secret();
        match (&self.secret_file, absent) {
            (Some(file), _) => {
                let file = file.display();
                text.push_str(&format!("secret  a fresh one is in {file}, to be pasted there: {about}\n"));
            }
            (None, Some(absent)) => {
                let file = absent.path.display();
                text.push_str(&format!(
                    "secret  {about}\n        put it into {file}, which is not there yet\n"
                ));
            }
            (None, None) => text.push_str(&format!("secret  {about}\n")),
        }
        if let Some(service) = provider.service().filter(|service| service.register == Registration::Either) {
            text.push_str(&format!("\nWith HEADGATE_API_TOKEN this is done by API: {}\n", service.token));
        }
        text.push_str("\nThen `headgate check` and `headgate run`");
        // Who signs with a key of his own cannot be played here.
        if provider.has_secret() {
            text.push_str(&format!("; `headgate webhook send {}` tries it from this side", self.source));
        }
        text.push_str(".\n");
        text
    }

    fn text(&self, provider: &Provider, absent: Option<&Absent>) -> String {
        let Some(webhook) = &self.webhook else {
            return self.by_hand(provider, absent);
        };
        let mut text = match self.outcome {
            "made" => format!("made webhook {webhook} for {}\n", self.url),
            "extended" => format!("extended webhook {webhook} for {}\n", self.url),
            _ => format!("webhook {webhook} calls {} already: nothing was changed there\n", self.url),
        };
        if let Some(expires) = &self.expires {
            text.push_str(&format!(
                "it ends {expires}: run this daily, it extends what would end within three days\n"
            ));
        }
        if let Some(file) = &self.secret_file {
            text.push_str(&format!("its secret is in {}\n", file.display()));
        }
        if let Some(secret) = &self.secret {
            text.push_str(&format!("its secret, to be set for {}: {secret}\n", self.source));
        }
        if self.secret_file.is_some() || self.secret.is_some() {
            text.push_str("a gateway that is running has to be started again to know it\n");
        }
        text
    }
}
