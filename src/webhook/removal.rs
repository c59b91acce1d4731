//! Removing what a webhook source leaves on this machine beside its stream: what its endpoint was told, and how far the provider's
//! log was read.
//!
//! * **Safe while a gateway runs**: a gateway has the spool open alone, so nothing is removed under it. What waits in the spool has to be
//!   published first.

use super::{SpoolError, spool_directory};
use crate::config::Config;
use headgate_sdk::Fault;
use headgate_webhook::Spool;
use std::{fs, io, path::Path, sync::Arc};

/// Removes it; tells what that was.
///
/// # Errors
/// Busy where a gateway runs with this `data_dir`, or deliveries wait in its spool; definite where its files cannot be changed.
pub(crate) async fn forget(config: &Config, source: &str) -> Result<Vec<String>, Fault> {
    let directory = spool_directory(config);
    let mut removed = Vec::new();
    if directory.join("spool.redb").exists() {
        let (at, most) = (directory.clone(), config.http.spool_max);
        let opening = tokio::task::spawn_blocking(move || Spool::open(&at, most));
        let spool = opening.await.unwrap_or(Err(SpoolError::Closed)).map_err(|error| unopened(&error))?;
        let waiting = spool.held(source).records;
        if waiting > 0 {
            return Err(Fault::busy(format!("{waiting} deliveries of {source} wait in the spool"))
                .with_fix("headgate run, until `headgate status` shows none of it RETAINED"));
        }
        let source: Arc<str> = source.into();
        let known = spool.endpoint(&source).await.map_err(|error| unopened(&error))?;
        spool.forget(&source).await.map_err(|error| unopened(&error))?;
        removed.extend(known.secret.map(|_| "the secret that the provider gave in a handshake".to_owned()));
        removed.extend(known.settled.then(|| "the note that the endpoint is set up".to_owned()));
    }
    let files = bookmarks(&directory, source).map_err(|error| unremoved(&directory, &error))?;
    removed.extend(files.into_iter().map(|file| format!("the bookmark {file}")));
    Ok(removed)
}

/// Removes the bookmarks of a source, whose name holds no dot: `SOURCE.json`, `SOURCE.TARGET.json`.
fn bookmarks(directory: &Path, source: &str) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let of_source = name.strip_prefix(source).is_some_and(|rest| rest.starts_with('.'));
        if of_source && name.ends_with(".json") {
            fs::remove_file(&path)?;
            removed.push(name.to_owned());
        }
    }
    removed.sort_unstable();
    Ok(removed)
}

fn unopened(error: &SpoolError) -> Fault {
    match error {
        SpoolError::InUse { .. } => Fault::busy(error.to_string()).with_fix("stop the gateway first"),
        _ => Fault::definite(error.to_string())
            .with_fix("run it as the gateway's user, with its gateway.data_dir"),
    }
}

fn unremoved(directory: &Path, error: &io::Error) -> Fault {
    Fault::definite(format!("{}: {error}", directory.display()))
        .with_fix("run it as the gateway's user, with its gateway.data_dir")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_sources_own_bookmarks_go() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["gh.json", "gh.octo%2Fshop.json", "gh-2.json", "ghost.json", "gh.json.new", "spool.redb"]
        {
            fs::write(directory.path().join(name), "{}").unwrap();
        }
        assert_eq!(bookmarks(directory.path(), "gh").unwrap(), ["gh.json", "gh.octo%2Fshop.json"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
        assert!(bookmarks(&directory.path().join("none"), "gh").unwrap().is_empty());
    }
}
