//! Providers as data: what is compiled in, and what users add.

use std::{path::Path, sync::Arc};

/// One provider: how it signs, greets, and names its events. Made from a TOML file, see `docs/providers/`.
#[derive(Clone, Debug)]
pub struct Provider {
    name: String,
    title: String,
}

impl Provider {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }
}

/// All providers that can be named in a configuration.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    providers: Vec<Arc<Provider>>,
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
        Ok(Self::default())
    }

    /// Adds every `*.toml` of a directory (`providers_dir`). One with a known name replaces it.
    ///
    /// # Errors
    /// The directory cannot be read, or a file in it is not a provider.
    pub fn add_dir(&mut self, _directory: &Path) -> Result<(), CatalogError> {
        Ok(())
    }

    /// The provider of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.iter()
    }
}
