//! What is remembered of a source's webhook between two commands: `{data_dir}/webhooks/SOURCE.json`, or `SOURCE.TARGET.json` where
//! each target has its own, so that two do not share one.
//!
//! # Durability
//! Written anew and synced before it takes the old one's place. A run that ends before that fetches the same again, and the same
//! ids keep it from being published twice within `dedup_window`.

use crate::{cli::Failure, config::Config};
use headgate_webhook::api::Bookmark;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

/// What does not stand in a file's name as it is.
const UNSPOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// The longest part of a file's name that is made of a target, in bytes.
const NAME: usize = 100;

/// Where a source's bookmark is kept.
pub(super) struct Place(PathBuf);

impl Place {
    /// That of a source and of what the bookmark is about, if anything beside the source.
    pub(super) fn of(config: &Config, source: &str, about: &str) -> Self {
        let directory = config.gateway.data_dir.join("webhooks");
        if about.is_empty() {
            return Self(directory.join(format!("{source}.json")));
        }
        let mut name = utf8_percent_encode(about, UNSPOKEN).to_string();
        // Longer names are none to most file systems.
        if name.len() > NAME {
            let digest = Sha256::digest(about);
            name = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        }
        Self(directory.join(format!("{source}.{name}.json")))
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The bookmark; an empty one if there is none yet.
    pub(super) fn read(&self) -> Result<Bookmark, Failure> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bookmark::default()),
            Err(error) => return Err(self.failure(&error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| self.failure(&error))
    }

    pub(super) fn write(&self, bookmark: &Bookmark) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(bookmark).map_err(|error| Failure::internal(error.to_string()))?;
        self.replace(&bytes).map_err(|error| self.failure(&error))
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let directory = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let beside = self.0.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.0)?;
        File::open(directory)?.sync_all()
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::unavailable(format!("{}: {error}", self.0.display()))
            .with_fix("run it as the gateway's user, with its gateway.data_dir")
    }
}
