//! How a provider's API is reached, and what its errors are to a user.

use crate::cli::Failure;
use clap::Args;
use headgate_webhook::{
    Provider, Secret, Service,
    api::{self, Api, ApiError, Wish},
};

/// The arguments of commands that use a provider's API.
#[derive(Debug, Args)]
pub(super) struct Access {
    /// Where the webhook is, as `headgate webhook show PROVIDER` says: owner/repository, a base, a shop…
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) target: String,
    /// The API's token; better in the environment than on a command line
    #[arg(long, env = "HEADGATE_API_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where the API is, if not at the provider's usual place (GitHub Enterprise: https://HOST/api/v3)
    #[arg(long, value_name = "URL")]
    api: Option<String>,
}

impl Access {
    /// Whether there is a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.as_deref().is_some_and(|token| !token.is_empty())
    }

    /// The API of a provider.
    pub(super) fn open(&self, provider: &Provider, service: &Service) -> Result<Api, Failure> {
        let base = match &self.api {
            Some(base) => base.clone(),
            None => service
                .base(&self.target)
                .map_err(|problem| Failure::usage(problem).with_fix("set --target"))?,
        };
        let token = self.token.as_deref().filter(|token| !token.is_empty()).ok_or_else(|| {
            Failure::usage(format!("the API of {} needs a token", provider.name()))
                .with_fix(format!("set HEADGATE_API_TOKEN to {}", service.token))
        })?;
        Api::new(&base, &service.auth, Secret::new(token)).map_err(|error| self.failure(service, &error))
    }

    /// What a bookmark is about, beside the source.
    pub(super) fn bookmark_of(&self, provider: &Provider) -> String {
        let host = self.api.as_deref().and_then(host);
        api::bookmark_of(provider.name(), &self.target, host.as_deref())
    }

    /// Which webhook is meant.
    pub(super) fn wish<'a>(&'a self, url: &'a str, events: &'a [String]) -> Wish<'a> {
        Wish { target: &self.target, url, events }
    }

    /// What an API's error is to a user.
    pub(super) fn failure(&self, service: &Service, error: &ApiError) -> Failure {
        let text = error.to_string();
        match error {
            ApiError::Unreachable(_) | ApiError::Unrandom(_) => Failure::unavailable(text),
            ApiError::Busy { .. } => Failure::unavailable(text)
                .with_fix("run it again then: what was done stays done, and nothing comes twice"),
            ApiError::Refused { status: 500.., .. } => Failure::unavailable(text)
                .with_fix("run it again: it looks for what is there before it makes anything"),
            ApiError::Target(_) => {
                Failure::usage(text).with_fix(format!("set --target to {}", service.target))
            }
            ApiError::Event(_) => Failure::usage(text).with_fix(format!("set --event to {}", service.events)),
            ApiError::Unknown | ApiError::NoEvents(_) | ApiError::Url(_) => Failure::usage(text),
            ApiError::Denied { .. } => {
                Failure::refused(text).with_fix(format!("HEADGATE_API_TOKEN has to be {}", service.token))
            }
            ApiError::Refused { status: 404, .. } => Failure::refused(text)
                .with_fix("look at --target; what a token may not see is often answered the same way"),
            _ => Failure::refused(text),
        }
    }
}

/// A URL's host, and its port if that is not the usual one; nothing of a user's name and password.
fn host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The URL that the provider is given.
pub(super) fn url(settings: &headgate_webhook::Settings, source: &str) -> Result<String, Failure> {
    settings.public_url.clone().ok_or_else(|| {
        Failure::usage(format!("the provider has to be told a URL, and {source} has none"))
            .with_fix("set http.public_url")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_is_named_by_host_and_port_without_what_logs_in() {
        assert_eq!(host("https://user:hunter2@api.example:8443/v3").as_deref(), Some("api.example:8443"));
        assert_eq!(host("https://user@api.example:443/").as_deref(), Some("api.example"));
        assert_eq!(host("http://[::1]:80/").as_deref(), Some("[::1]"));
        assert_eq!(host("nonsense"), None);
    }
}
