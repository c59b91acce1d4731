//! Conditions of provider files: a value is there, or is one of some texts.

use crate::{
    Reason,
    template::{Scope, Template},
};
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
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
}

/// A compiled [`Rule`].
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    template: Template,
    is: Vec<String>,
}

impl Condition {
    pub(crate) fn new(rule: &Rule) -> Result<Self, String> {
        let is = rule.is.iter().chain(&rule.any).cloned().collect();
        Ok(Self { template: Template::parse(&rule.value)?, is })
    }

    pub(crate) fn all(rules: &[Rule]) -> Result<Vec<Self>, String> {
        rules.iter().map(Self::new).collect()
    }

    /// Whether it holds. The texts are compared in constant time, for some of them are secrets.
    pub(crate) fn holds(&self, scope: &Scope<'_>) -> Result<bool, Reason> {
        let Some(value) = self.template.render(scope)? else { return Ok(false) };
        Ok(self.is.is_empty() || self.is.iter().any(|is| same(is.as_bytes(), value.as_bytes())))
    }

    pub(crate) fn has_json(&self) -> bool {
        self.template.has_json()
    }
}

/// Whether two texts are the same, in a time that tells neither where they differ nor how long the secret one is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (digest::digest(&digest::SHA256, a), digest::digest(&digest::SHA256, b));
    verify_slices_are_equal(a.as_ref(), b.as_ref()).is_ok()
}
