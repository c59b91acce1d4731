//! The spool's file: which tables it has and how a record lies in them. Blocking; one thread owns it.

use super::{EndpointState, Held, OVERHEAD, Record};
use crate::Secret;
use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Source and sequence to checksum and content.
const DELIVERIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("deliveries");
/// The same, for records whose checksum is wrong.
const DAMAGED: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("damaged");
/// Endpoint to the secret that its provider gave in a handshake.
const SECRETS: TableDefinition<'_, &str, &str> = TableDefinition::new("secrets");

/// Endpoint to when its first verified delivery came, in microseconds since 1970-01-01 UTC.
const SETTLED: TableDefinition<'_, &str, i64> = TableDefinition::new("settled");

/// redb's own default is 1 GiB.
const CACHE: usize = 4 << 20;
/// Length of a record's checksum.
const CHECKSUM: usize = 4;

/// The file, open or not.
pub(super) struct Store {
    path: PathBuf,
    opened: Option<Opened>,
}

/// The file, open.
pub(super) struct Opened {
    database: Database,
}

/// Changes that become durable together.
pub(super) struct Commit {
    transaction: WriteTransaction,
}

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file. After a crash this is where redb goes back to the last complete commit.
    pub(super) fn open(&mut self) -> Result<&Opened, redb::Error> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened::open(&self.path)?,
        };
        Ok(self.opened.insert(opened))
    }

    pub(super) fn close(&mut self) {
        self.opened = None;
    }
}

impl Opened {
    fn open(path: &Path) -> Result<Self, redb::Error> {
        let database = Builder::new().set_cache_size(CACHE).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(redb::Error::Io)?;
        let transaction = database.begin_write()?;
        transaction.open_table(DELIVERIES)?;
        transaction.open_table(DAMAGED)?;
        transaction.open_table(SECRETS)?;
        transaction.open_table(SETTLED)?;
        transaction.commit()?;
        Ok(Self { database })
    }

    /// What every source has, by reading through all of it: once, at the start.
    pub(super) fn held(&self) -> Result<BTreeMap<Arc<str>, Held>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut held: BTreeMap<Arc<str>, Held> = BTreeMap::new();
        for entry in transaction.open_table(DELIVERIES)?.iter()? {
            let (key, value) = entry?;
            let (source, sequence) = key.value();
            let bytes = weight(value.value().len());
            match held.get_mut(source) {
                Some(of) => {
                    of.records += 1;
                    of.bytes += bytes;
                }
                None => {
                    held.insert(Arc::from(source), Held { records: 1, bytes, oldest: sequence });
                }
            }
        }
        Ok(held)
    }

    pub(super) fn begin(&self) -> Result<Commit, redb::Error> {
        Ok(Commit { transaction: self.database.begin_write()? })
    }

    /// The oldest records of a source. Damaged ones are moved out of the way; the second value is what they were.
    pub(super) fn oldest(&self, source: &str, most: usize) -> Result<(Vec<Record>, Held), redb::Error> {
        let mut records = Vec::new();
        let mut damaged = Vec::new();
        let transaction = self.database.begin_read()?;
        let mut bytes = 0;
        for entry in transaction.open_table(DELIVERIES)?.range((source, 0)..=(source, u64::MAX))? {
            let (key, value) = entry?;
            let (_, sequence) = key.value();
            let Some(content) = checked(value.value()) else {
                damaged.push(sequence);
                continue;
            };
            if bytes > 0 && bytes + content.len() > most {
                break;
            }
            bytes += content.len().max(1);
            records.push(Record { sequence, content: Bytes::copy_from_slice(content) });
        }
        drop(transaction);
        let aside = if damaged.is_empty() { Held::default() } else { self.set_aside(source, &damaged)? };
        Ok((records, aside))
    }

    /// Moves records to the table of damaged ones; tells what that was, and which is the oldest now.
    pub(super) fn set_aside(&self, source: &str, sequences: &[u64]) -> Result<Held, redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut moved = Held::default();
        {
            let (mut from, mut to) = (transaction.open_table(DELIVERIES)?, transaction.open_table(DAMAGED)?);
            for &sequence in sequences {
                if let Some(record) = from.remove((source, sequence))? {
                    moved.records += 1;
                    moved.bytes += weight(record.value().len());
                    to.insert((source, sequence), record.value())?;
                }
            }
            moved.oldest = first_of(&from, source)?;
        }
        transaction.commit()?;
        tracing::error!(
            source,
            records = moved.records,
            "deliveries in the spool cannot be read; they are kept in its table `damaged` and not published"
        );
        Ok(moved)
    }

    pub(super) fn endpoint(&self, endpoint: &str) -> Result<EndpointState, redb::Error> {
        let transaction = self.database.begin_read()?;
        let secret = transaction.open_table(SECRETS)?.get(endpoint)?;
        let settled = transaction.open_table(SETTLED)?.get(endpoint)?;
        Ok(EndpointState {
            secret: secret.map(|secret| Secret::new(secret.value())),
            settled: settled.is_some(),
        })
    }
}

impl Commit {
    pub(super) fn append(&mut self, source: &str, records: &[Record]) -> Result<(), redb::Error> {
        let mut table = self.transaction.open_table(DELIVERIES)?;
        for record in records {
            let mut value =
                table.insert_reserve((source, record.sequence), CHECKSUM + record.content.len())?;
            let (checksum, content) = value.as_mut().split_at_mut(CHECKSUM);
            checksum.copy_from_slice(&crc32(&record.content).to_le_bytes());
            content.copy_from_slice(&record.content);
        }
        Ok(())
    }

    /// Removes a source's records up to a sequence; tells what that was, and which is the oldest now.
    pub(super) fn remove(&mut self, source: &str, through: u64) -> Result<Held, redb::Error> {
        let mut table = self.transaction.open_table(DELIVERIES)?;
        let mut removed = Held::default();
        table.retain_in((source, 0)..=(source, through), |_, value| {
            removed.records += 1;
            removed.bytes += weight(value.len());
            false
        })?;
        removed.oldest = first_of(&table, source)?;
        Ok(removed)
    }

    /// False: there is one already.
    pub(super) fn keep_secret(&mut self, endpoint: &str, secret: &Secret) -> Result<bool, redb::Error> {
        let mut table = self.transaction.open_table(SECRETS)?;
        if table.get(endpoint)?.is_some() {
            return Ok(false);
        }
        table.insert(endpoint, secret.expose())?;
        Ok(true)
    }

    pub(super) fn settle(&mut self, endpoint: &str, at: i64) -> Result<(), redb::Error> {
        self.transaction.open_table(SETTLED)?.insert(endpoint, at)?;
        Ok(())
    }

    pub(super) fn forget(&mut self, endpoint: &str) -> Result<(), redb::Error> {
        self.transaction.open_table(SECRETS)?.remove(endpoint)?;
        self.transaction.open_table(SETTLED)?.remove(endpoint)?;
        Ok(())
    }

    /// Syncs.
    pub(super) fn finish(self) -> Result<(), redb::Error> {
        Ok(self.transaction.commit()?)
    }
}

/// The sequence of a source's oldest record; 0 where there is none.
fn first_of(
    table: &redb::Table<'_, (&'static str, u64), &'static [u8]>,
    source: &str,
) -> Result<u64, redb::Error> {
    let first = table.range((source, 0)..=(source, u64::MAX))?.next().transpose()?;
    Ok(first.map_or(0, |(key, _)| key.value().1))
}

/// The content of a stored record, if its checksum is right.
fn checked(value: &[u8]) -> Option<&[u8]> {
    let (checksum, content) = value.split_first_chunk::<CHECKSUM>()?;
    (u32::from_le_bytes(*checksum) == crc32(content)).then_some(content)
}

fn weight(value: usize) -> u64 {
    value.saturating_sub(CHECKSUM) as u64 + OVERHEAD
}

fn crc32(content: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    crc.sum()
}
