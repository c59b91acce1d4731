//! `headgate webhook register`: the webhook is made by the provider's own API, or what to set there is said.

use crate::{
    cli::{Failure, failure::print},
    config::Config,
};
use clap::Args;
use headgate_webhook::{
    Secret,
    api::{self, Api, ApiError},
};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
By API: github (target owner/repository or organization; token with admin:repo_hook or admin:org_hook) and stripe (a secret
key). For every other provider it says what has to be set on its side.

Examples:
  HEADGATE_API_TOKEN=$(gh auth token) headgate webhook register gh --target octo/shop
  headgate webhook register pay

Exit codes: 0 made or said, 64 no such source, 69 the API is away, 78 refused by the API.")]
pub(in crate::cli) struct Register {
    /// The source, as in [sources.NAME]
    source: String,
    #[command(flatten)]
    access: Access,
}

/// How the provider's API is reached.
#[derive(Debug, Args)]
pub(super) struct Access {
    /// Where the webhook is: owner/repository or organization for GitHub
    #[arg(long, default_value = "")]
    pub(super) target: String,
    /// The API's token; better in the environment than on a command line
    #[arg(long, env = "HEADGATE_API_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where the API is, if not at the provider's usual place (GitHub Enterprise: https://HOST/api/v3)
    #[arg(long)]
    api: Option<String>,
}

impl Access {
    /// The API of a provider; `None` where the gateway knows none.
    pub(super) fn open(&self, provider: &str) -> Result<Option<Api>, Failure> {
        let Some(usual) = api::base(provider) else { return Ok(None) };
        let token = self.token.clone().ok_or_else(|| {
            Failure::usage(format!("the API of {provider} needs a token")).with_fix("set HEADGATE_API_TOKEN")
        })?;
        let base = self.api.as_deref().unwrap_or(usual);
        Api::new(base, Secret::new(token)).map(Some).map_err(|error| failure(&error))
    }
}

/// What an API's error is to a user.
pub(super) fn failure(error: &ApiError) -> Failure {
    match error {
        ApiError::Unreachable(_) | ApiError::Busy(_) => Failure::unavailable(error.to_string()),
        ApiError::Target(_) | ApiError::Unknown => Failure::usage(error.to_string()),
        _ => Failure::refused(error.to_string()),
    }
}

/// The URL that the provider is given.
pub(super) fn url(settings: &headgate_webhook::Settings, source: &str) -> Result<String, Failure> {
    settings.public_url.clone().ok_or_else(|| {
        Failure::usage(format!("the provider has to be told a URL, and {source} has none"))
            .with_fix("set http.public_url")
    })
}

impl Register {
    pub(in crate::cli) async fn execute(self, config: &Config) -> Result<(), Failure> {
        let webhook = super::find(config, &self.source)?;
        let provider = webhook.provider.name();
        let url = url(&webhook.settings, &self.source)?;
        let Some(api) = self.access.open(provider)? else {
            let text = format!(
                "{} is set up by hand:\n\n{}\n\nthe endpoint's URL: {url}\nthe secret: {}\n",
                webhook.provider.title(),
                webhook.provider.setup().trim(),
                webhook.provider.secret(),
            );
            return print(text.as_bytes());
        };
        let secret = webhook.settings.secrets.first();
        let made = api::register(provider, &api, &self.access.target, &url, secret)
            .await
            .map_err(|error| failure(&error))?;
        let mut text = format!("made webhook {} for {url}\n", made.id);
        if let Some(secret) = made.secret {
            // The one time that a secret is shown: the provider tells it once, and the configuration has to hold it.
            text.push_str(&format!("its secret, to be set for {}: {}\n", self.source, secret.expose()));
        }
        print(text.as_bytes())
    }
}
