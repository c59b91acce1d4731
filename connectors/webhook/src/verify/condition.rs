//! Conditions of provider files: a value is there or is not, or is one of some texts.

use crate::{
    Reason,
    template::{Scope, Template},
};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, Digest},
};
use serde::Deserialize;

/// One condition as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    value: String,
    /// The text it has to be; left out: any text.
    is: Option<String>,
    /// Texts of which it has to be one.
    #[serde(default)]
    any: Vec<String>,
    /// It must not be there.
    #[serde(default)]
    absent: bool,
    /// It has to be of letters, digits, `-` and `_` alone: then what it is answered with, an HMAC of it, signs no request.
    #[serde(default)]
    word: bool,
}

/// A compiled [`Rule`].
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    template: Template,
    /// The hashes of the texts of which it has to be one.
    is: Vec<Digest>,
    /// Whether such a text is empty: a parameter that was not set.
    unset: bool,
    absent: bool,
    word: bool,
}

impl Condition {
    pub(crate) fn new(rule: &Rule) -> Result<Self, String> {
        let texts = || rule.is.iter().chain(&rule.any);
        Ok(Self {
            template: Template::parse(&rule.value)?,
            is: texts().map(|text| hash(text.as_bytes())).collect(),
            unset: texts().any(String::is_empty),
            absent: rule.absent,
            word: rule.word,
        })
    }

    pub(crate) fn all(rules: &[Rule]) -> Result<Vec<Self>, String> {
        rules.iter().map(Self::new).collect()
    }

    /// Whether it holds. The texts are compared in constant time, for some of them are secrets.
    pub(crate) fn holds(&self, scope: &Scope<'_>) -> Result<bool, Reason> {
        let Some(value) = self.template.render(scope)? else { return Ok(self.absent) };
        let is_word =
            || value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if self.absent || (self.word && !is_word()) {
            return Ok(false);
        }
        if self.is.is_empty() {
            return Ok(true);
        }
        let value = hash(value.as_bytes());
        Ok(self.is.iter().any(|is| verify_slices_are_equal(is.as_ref(), value.as_ref()).is_ok()))
    }

    /// Whether it compares with a parameter that was not set.
    pub(crate) fn is_unset(&self) -> bool {
        self.unset
    }

    pub(crate) fn has_json(&self) -> bool {
        self.template.has_json()
    }
}

/// Whether two texts are the same, in a time that tells neither where they differ nor how long the secret one is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(hash(a).as_ref(), hash(b).as_ref()).is_ok()
}

fn hash(text: &[u8]) -> Digest {
    digest::digest(&digest::SHA256, text)
}
