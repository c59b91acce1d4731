//! Providers as data: what a provider's file says, and where such files come from.

pub(crate) mod catalog;
pub(crate) mod rules;
pub(crate) mod service;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use rules::Definition;
use std::collections::BTreeMap;

/// One provider: how it signs, greets, and names its events. Made from a TOML file, see `docs/providers/`.
#[derive(Clone, Debug)]
pub struct Provider {
    definition: Definition,
    /// The tables in which the user's parameters are put.
    rules: toml::Table,
    handshakes: Vec<String>,
    schemes: Vec<String>,
}

/// A parameter of a provider's that the user sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name in the configuration.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Its value where the user sets none; without one it is required.
    pub default: Option<String>,
}

impl Provider {
    /// Reads a provider's file.
    ///
    /// # Errors
    /// It is not TOML, says something unknown, or its rules contradict each other; the text says what and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut about: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        let rules = rules::KEYS.iter().filter_map(|key| about.remove_entry(*key)).collect();
        about.remove("vector");
        let definition: Definition =
            about.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut provider = Self { definition, rules, handshakes: Vec::new(), schemes: Vec::new() };
        let examples = provider.definition.parameters.iter().map(|(name, parameter)| {
            (name.as_str(), parameter.default.as_deref().unwrap_or(parameter.example.as_str()))
        });
        let rules = provider.rules(&examples.collect())?;
        rules.check(&provider.definition)?;
        provider.handshakes = rules.handshake.iter().map(|rules| rules.about().to_owned()).collect();
        provider.schemes = rules.verify.iter().map(|rules| rules.name().to_owned()).collect();
        Ok(provider)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Its name for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.definition.title
    }

    /// What the secret is and where the provider shows it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.definition.secret.about
    }

    /// What has to be set on the provider's side, for an endpoint at this URL.
    #[must_use]
    pub fn setup(&self, url: &str) -> String {
        self.definition.setup.trim().replace("{url}", url)
    }

    /// Whether there is a secret at all; some providers sign with a key of their own.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        !self.definition.secret.about.starts_with("none:")
    }

    /// Whether the secret is the user's to choose.
    #[must_use]
    pub fn takes_any_secret(&self) -> bool {
        self.definition.secret.chosen
    }

    /// How sure the facts of the file are: `confirmed` by the provider's own words or code, `reported` by others, or from
    /// `memory`, to be confirmed before it is relied on.
    #[must_use]
    pub fn facts(&self) -> &str {
        self.definition.facts.as_str()
    }

    /// Its parameters.
    #[must_use]
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        let parameters = self.definition.parameters.iter();
        let info = parameters.map(|(name, parameter)| ParameterInfo {
            name: name.clone(),
            about: parameter.about.clone(),
            default: parameter.default.clone(),
        });
        info.collect()
    }

    /// The names of its samples.
    pub fn samples(&self) -> impl Iterator<Item = &str> {
        self.definition.sample.iter().map(|sample| sample.name.as_str())
    }

    /// The schemes in which it signs, the one that decides first first.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.schemes.iter().map(String::as_str)
    }

    /// The handshakes that it makes, in words.
    pub fn handshakes(&self) -> impl Iterator<Item = &str> {
        self.handshakes.iter().map(String::as_str)
    }

    /// Its own API, as far as the gateway speaks it.
    #[must_use]
    pub fn service(&self) -> Option<&service::Service> {
        self.definition.api.as_ref()
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The rules with parameters put in.
    pub(crate) fn rules(&self, parameters: &BTreeMap<&str, &str>) -> Result<rules::Rules, String> {
        let mut value = toml::Value::Table(self.rules.clone());
        expand(&mut value, parameters)?;
        value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

/// Puts parameters in the place of `${name}`, in every string.
fn expand(value: &mut toml::Value, parameters: &BTreeMap<&str, &str>) -> Result<(), String> {
    match value {
        toml::Value::String(text) => {
            let mut expanded = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                let (name, after) = after.split_once('}').ok_or("a \"${\" without its \"}\"")?;
                expanded.push_str(before);
                expanded.push_str(parameters.get(name).ok_or_else(|| format!("no parameter \"{name}\""))?);
                rest = after;
            }
            expanded.push_str(rest);
            *text = expanded;
            Ok(())
        }
        toml::Value::Array(values) => values.iter_mut().try_for_each(|value| expand(value, parameters)),
        toml::Value::Table(table) => table.iter_mut().try_for_each(|(_, value)| expand(value, parameters)),
        _ => Ok(()),
    }
}

/// The headers of every reply with a body.
pub(crate) fn reply_headers(content_type: Option<&HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(content_type) = content_type else { return Vec::new() };
    vec![(header::CONTENT_TYPE, content_type.clone()), crate::handshake::nosniff()]
}

/// Text as a body.
pub(crate) fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
