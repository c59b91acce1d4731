//! The file of a webhook's secret, `secret = { file = "…" }`, where it is not there yet: what `headgate webhook register` makes,
//! or is given by the provider, is written there and shown nowhere.
//!
//! # Durability
//! A secret is on disk, synced, before a provider is told it; one that a provider says only once is written as soon as it is
//! known. A file that is there is never replaced.

use crate::{
    cli::Failure,
    config::{self, Config},
};
use headgate_webhook::Secret;
use std::{
    cell::RefCell,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that has to be written, with the fresh secret that stands for its content until then.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) path: PathBuf,
    pub(super) fresh: Secret,
}

/// Reads the configuration; where a webhook's secret file is not there yet, with a fresh secret in its place.
pub(super) fn load(file: &Path, source: &str) -> Result<(Config, Option<Absent>), Failure> {
    let ours = format!("sources.{source}.secret");
    let absent = RefCell::new(None);
    let config = config::load_with(file, &|name| std::env::var(name).ok(), &|key, path| {
        let is_secret = key.starts_with("sources.") && key.ends_with(".secret");
        let missing = fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if !(is_secret && missing) {
            return config::read_secret(path);
        }
        let fresh = Secret::fresh().map_err(|error| error.to_string())?;
        if key == ours {
            absent.replace(Some(Absent { path: path.to_owned(), fresh: fresh.clone() }));
        }
        Ok(fresh.expose().to_owned())
    });
    let config = config.map_err(|error| Failure::usage(error.to_string()))?;
    Ok((config, absent.into_inner()))
}

/// A file beside the one to be written, readable by its user alone and empty: whether there is a place for the secret is known
/// before a provider is asked for it.
pub(super) struct Claim(PathBuf);

impl Claim {
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        // One that an ended run left may be readable by others: the mode holds for new files only.
        let _ = fs::remove_file(&beside);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        file.map_err(|error| unwritable(path, &error))?;
        Ok(Self(beside))
    }

    /// Writes the secret and gives the file its name.
    pub(super) fn write(self, path: &Path, secret: &Secret) -> Result<(), Failure> {
        self.publish(path, secret).map_err(|error| unwritable(path, &error))
    }

    fn publish(&self, path: &Path, secret: &Secret) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.0)?;
        file.write_all(secret.expose().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // A second name, unlike a new one, is never given in place of a file that is there.
        fs::hard_link(&self.0, path)?;
        fs::remove_file(&self.0)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Once the secret has its name it is gone already; left over it harms nothing.
        let _ = fs::remove_file(&self.0);
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::unavailable(format!("the secret cannot be written to {}: {error}", path.display()))
        .with_fix("make its folder, writable for this user, or name another file in the source's secret")
}
