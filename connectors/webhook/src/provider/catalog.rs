//! The providers that a configuration can name.

use super::Provider;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../providers/", $name, ".toml")))),+]
    };
}

/// The files that are compiled in.
const FILES: [(&str, &str); 48] = files![
    "adyen",
    "airtable",
    "asana",
    "aws-sns",
    "basic",
    "bitbucket",
    "box",
    "calendly",
    "clickup",
    "cloudevents",
    "discord",
    "docusign",
    "dropbox",
    "github",
    "gitlab",
    "google-drive",
    "google-pubsub",
    "hmac",
    "hubspot",
    "intercom",
    "jira",
    "linear",
    "mailgun",
    "meta",
    "microsoft-graph",
    "monday",
    "notion",
    "okta",
    "pagerduty",
    "paypal",
    "salesforce",
    "salesforce-hmac",
    "segment",
    "sendgrid",
    "sentry",
    "shopify",
    "slack",
    "square",
    "standard-webhooks",
    "stripe",
    "token",
    "twilio",
    "typeform",
    "vercel",
    "woocommerce",
    "xero",
    "zendesk",
    "zoom",
];

/// Largest provider file that is read, in bytes.
const FILE: u64 = 1 << 20;

/// All providers that can be named in a configuration.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    providers: BTreeMap<String, Arc<Provider>>,
}

/// A provider's file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CatalogError {
    /// The file.
    pub file: String,
    /// What is wrong with it, and where.
    pub problem: String,
}

impl Catalog {
    /// The providers that are compiled in.
    ///
    /// # Errors
    /// Never in a tested build; a broken file is refused like a user's.
    pub fn builtin() -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for (name, text) in FILES {
            catalog.add(&format!("{name}.toml"), text)?;
        }
        Ok(catalog)
    }

    /// Adds every `*.toml` of a directory (`providers_dir`). One with a known name replaces it.
    ///
    /// # Errors
    /// The directory cannot be read, or a file in it is not a provider.
    pub fn add_dir(&mut self, directory: &Path) -> Result<(), CatalogError> {
        let unreadable = |path: &Path, error: std::io::Error| CatalogError {
            file: path.display().to_string(),
            problem: format!("cannot be read: {error}"),
        };
        let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unreadable(directory, error))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let size = fs::metadata(&path).map_err(|error| unreadable(&path, error))?.len();
            if size > FILE {
                let problem = format!("{size} bytes are no provider (limit {FILE})");
                return Err(CatalogError { file: path.display().to_string(), problem });
            }
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            self.add(&path.display().to_string(), &text)?;
        }
        Ok(())
    }

    fn add(&mut self, file: &str, text: &str) -> Result<(), CatalogError> {
        let provider =
            Provider::parse(text).map_err(|problem| CatalogError { file: file.to_owned(), problem })?;
        self.providers.insert(provider.name().to_owned(), Arc::new(provider));
        Ok(())
    }

    /// The provider of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_file_is_compiled_in_under_its_name() {
        let catalog = Catalog::builtin().unwrap();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers");
        let mut found = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(catalog.get(path.file_stem().unwrap().to_str().unwrap()).is_some(), "{}", path.display());
            found += 1;
        }
        assert_eq!(found, FILES.len());
    }

    #[test]
    fn users_files_add_and_replace() {
        let directory = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/providers/github.toml")).unwrap();
        fs::write(directory.path().join("a.toml"), text.replace("name = \"github\"", "name = \"forge\""))
            .unwrap();
        fs::write(directory.path().join("b.toml"), text.replace("title = \"GitHub\"", "title = \"Ours\""))
            .unwrap();
        let mut catalog = Catalog::builtin().unwrap();
        catalog.add_dir(directory.path()).unwrap();
        assert!(catalog.get("forge").is_some());
        assert_eq!(catalog.get("github").unwrap().title(), "Ours");
        fs::write(directory.path().join("c.toml"), text.replace("algorithm = ", "algoritm = ")).unwrap();
        let error = catalog.add_dir(directory.path()).unwrap_err().to_string();
        assert!(error.contains("c.toml") && error.contains("algoritm"), "{error}");
    }
}
