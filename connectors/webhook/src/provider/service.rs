//! What a provider's file says about the provider's own API (`[api]`): where it is, how it is opened, what it can do here.
//! How it is spoken is code, in [`crate::api`].

use serde::Deserialize;

/// A provider's `[api]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// The URL before all paths; `{target}` stands for the target, where that is a part of the host's name.
    base: String,
    /// What the target is (`--target`); empty where none is needed.
    #[serde(default)]
    pub target: String,
    /// What the token is, and which rights it needs.
    pub token: String,
    /// How the token is sent.
    #[serde(default)]
    pub auth: Auth,
    /// Whether the webhook is made by it.
    #[serde(default)]
    pub register: Registration,
    /// Who chooses the secret that signs.
    pub secret: SecretOrigin,
    /// What the events are called that have to be named (`--event`); empty where all of them are subscribed to.
    #[serde(default)]
    pub events: String,
    /// What is fetched that was not delivered; empty where the API has no such thing.
    #[serde(default)]
    pub reconcile: String,
    /// The pages of the provider's documentation that this was made from.
    pub documentation: Vec<String>,
}

/// How a token is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Auth {
    /// `Authorization: Bearer`
    #[default]
    Bearer,
    /// `Authorization: Basic` where the token is `user:password`, else as a bearer token.
    Basic,
    /// A header of the provider's own.
    Header(String),
}

impl From<String> for Auth {
    fn from(text: String) -> Self {
        match text.as_str() {
            "bearer" => Self::Bearer,
            "basic" => Self::Basic,
            _ => Self::Header(text),
        }
    }
}

/// How a webhook is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// By the API.
    #[default]
    Api,
    /// By the API where there is a token for it, else by hand.
    Either,
    /// By hand.
    Hand,
}

/// Who chooses the secret of a webhook that is made by API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretOrigin {
    /// The gateway does; the provider takes it.
    Gateway,
    /// The provider does, and says it when the webhook is made.
    Provider,
    /// It is the secret of an app, which was there before and which the API does not tell.
    App,
}

impl Service {
    /// The URL before all paths, for a target.
    ///
    /// # Errors
    /// The target is needed for it, and is missing or no part of a host's name.
    pub fn base(&self, target: &str) -> Result<String, String> {
        if !self.base.contains("{target}") {
            return Ok(self.base.clone());
        }
        let label = !target.is_empty()
            && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !target.starts_with('-');
        if label {
            Ok(self.base.replace("{target}", target))
        } else {
            Err(format!("the target \"{target}\" is not {}", self.target))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Catalog;

    /// The token must not be sent to a host that the target talks it into.
    #[test]
    fn a_target_is_one_label_of_the_host() {
        let catalog = Catalog::builtin().unwrap();
        let service = catalog.get("shopify").unwrap().service().unwrap().clone();
        assert!(service.base("octo").unwrap().starts_with("https://octo.myshopify.com/"));
        for target in ["", "evil.example/", "a.b", "a@b", "a#", "-a", "a/b"] {
            assert!(service.base(target).is_err(), "{target}");
        }
        assert_eq!(service.auth, Auth::Header("X-Shopify-Access-Token".to_owned()));
        assert_eq!(catalog.get("github").unwrap().service().unwrap().auth, Auth::Bearer);
    }
}
