//! The gateway's folder, held by one gateway at a time.
//!
//! With the embedded broker, the folder *is* the broker: a second gateway would adopt the first one's nats-server, and
//! end it when it leaves. The hold is a lock of the operating system on a file in the folder; it ends with the process,
//! however that ends, and so is never left behind.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the locked file; its content is the holder's process id, for people.
const LOCK: &str = "gateway.lock";

/// Why the folder cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another gateway holds it.
    #[error("another gateway{} uses {}", .holder.map_or(String::new(), |pid| format!(" (pid {pid})")), .folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The other gateway's process id, if it could be read.
        holder: Option<u32>,
    },
    /// It cannot be made or written to.
    #[error("cannot use {}: {source}", .folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDirError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Held { .. } => "stop the other gateway, or give this one a gateway.data_dir of its own",
            Self::Io { .. } => {
                "make the folder writable for this user, or set gateway.data_dir to another one"
            }
        }
    }
}

/// The held folder. Dropping it lets it go.
#[derive(Debug)]
pub(super) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the folder if it is missing, and holds it.
    ///
    /// # Errors
    /// Another gateway holds it, or it cannot be used.
    pub(super) fn hold(folder: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(LOCK);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = (&file).take(16).read_to_string(&mut holder);
                return Err(DataDirError::Held {
                    folder: folder.to_owned(),
                    holder: read.ok().and_then(|_| holder.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _lock: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let held = DataDir::hold(&path).unwrap();
        let refused = DataDir::hold(&path).unwrap_err();
        assert!(
            matches!(&refused, DataDirError::Held { holder: Some(pid), .. } if *pid == std::process::id()),
            "{refused}"
        );
        drop(held);
        DataDir::hold(&path).unwrap();
        assert!(matches!(DataDir::hold(Path::new("/dev/null/x")), Err(DataDirError::Io { .. })));
    }
}
