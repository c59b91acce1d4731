//! Turns the messages of the log into what an [`Outlet`] is told.
//!
//! # Order
//! Strictly the log's: transactions in commit order, rows as they were written. A message out of order (a row outside a
//! transaction, a transaction within another, a commit position that does not rise) is a fault: going on would give
//! events a false position.
//!
//! # Duplicates
//! The same payloads make the same calls, save for keys and types that the catalog tells; see [`Shape`].
//!
//! # Memory
//! One message at a time; a row costs no allocation.

use crate::{
    catalog::Catalog,
    feedback::POSTGRES_EPOCH,
    pgoutput::{self, Begin, Commit, Head, Images, Logical, Message, OldImage, Truncate},
    relation::{Relations, Shape},
};
use headgate_sdk::{
    self as sdk, CONTEXT_PREFIX, Cell, Change, Fault, Op, Outlet, Progress, RowFault, TableFilter,
    Transaction,
};

/// Prefix of the messages that Headgate writes to move a silent log on. They tell nothing.
pub(crate) const HEARTBEAT: &str = "headgate.heartbeat";

/// The state of one replication stream. A new connection needs a new one: the server describes every table again.
#[derive(Debug)]
pub(crate) struct Apply {
    epoch: u16,
    catalog: Catalog,
    tables: TableFilter,
    relations: Relations,
    /// Commit position of the open transaction.
    open: Option<u64>,
    /// The highest commit position so far, and its time.
    last_commit: u64,
    last_committed_at: i64,
    /// Where the last transaction ended that was told as a whole; 0 if none was.
    told: u64,
    /// Whether the open transaction's context was told before its place.
    context_told: bool,
    images: Images<'static>,
}

impl Apply {
    pub(crate) fn new(epoch: u16, catalog: Catalog, tables: TableFilter) -> Self {
        Self {
            epoch,
            catalog,
            tables,
            relations: Relations::default(),
            open: None,
            last_commit: 0,
            last_committed_at: 0,
            told: 0,
            context_told: false,
            images: Images::default(),
        }
    }

    /// Where the last transaction ended that was told as a whole; 0 if none was.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// Whether a transaction has begun and not ended.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Tells one payload of the log, which was sent with `wal_start`.
    pub(crate) async fn message<O: Outlet>(
        &mut self,
        payload: &[u8],
        wal_start: u64,
        outlet: &mut O,
    ) -> Result<(), Fault> {
        let mut images = std::mem::take(&mut self.images).recycle();
        let message =
            pgoutput::decode(payload, &mut images).map_err(|error| undecodable(wal_start, error))?;
        match message {
            Message::Insert(row) => self.row(row.relation, Op::Created, None, &mut images, outlet),
            Message::Update(row) => self.row(row.relation, Op::Updated, row.old, &mut images, outlet),
            Message::Delete(row) => self.row(row.relation, Op::Deleted, Some(row.old), &mut images, outlet),
            Message::Begin(begin) => self.begin(&begin, outlet),
            Message::Commit(commit) => self.commit(&commit, outlet),
            Message::Relation(relation) => self.relation(&relation).await,
            Message::Truncate(truncate) => self.truncate(&truncate, outlet),
            Message::Logical(message) => self.logical(&message, outlet),
            // The catalog tells more of a type than its name. Where a transaction came from first does not matter:
            // which origins are sent is the subscription's choice.
            Message::Type(_) | Message::Origin(_) => Ok(()),
        }?;
        self.images = images.recycle();
        Ok(())
    }

    /// Tells the transaction that has just begun what the first context message in it says, as it holds for all of its
    /// events. In its place it is passed over.
    pub(crate) fn context<O: Outlet>(&mut self, content: &[u8], position: u64, outlet: &mut O) {
        self.context_told = true;
        outlet.message(&sdk::Message { prefix: CONTEXT_PREFIX, content, transactional: true, position });
    }

    /// Tells of a payload of `size` bytes that was too large to be kept, by its `head`. It goes to the dead letters.
    pub(crate) fn oversized<O: Outlet>(
        &mut self,
        head: &[u8],
        size: u64,
        outlet: &mut O,
    ) -> Result<(), Fault> {
        let too_large =
            |what: &str| format!("the {what} has {size} bytes on the wire, more than `max_row` allows");
        let head = pgoutput::decode_head(head).map_err(|error| {
            Fault::definite(too_large("message")).with_fix("raise `max_row` of the source").with_cause(error)
        })?;
        match head {
            Head::Row { relation } => {
                self.transaction("a row")?;
                if let Some(known) = self.relations.get(relation).ok_or_else(|| undescribed(relation))? {
                    let table = format!("{}.{}", known.relation.schema, known.relation.table);
                    outlet.reject(&RowFault { table: Some(table), reason: too_large("row"), size });
                }
            }
            Head::Logical(message) => {
                let reason = too_large(&format!("logical message {:?}", message.prefix));
                let fault = RowFault { table: None, reason, size };
                if message.transactional {
                    self.transaction("a transactional message")?;
                    outlet.reject(&fault);
                } else {
                    // The dead letters know transactions only, so it gets one of its own. The log does not say when it
                    // was written: not before the transaction before it.
                    let commit = self.alone(&message)?;
                    outlet.begin(&Transaction {
                        commit,
                        committed_at: self.last_committed_at,
                        id: String::new(),
                    });
                    outlet.reject(&fault);
                    outlet.commit(Progress { epoch: self.epoch, log: message.end_lsn });
                    self.told = message.end_lsn;
                }
            }
        }
        Ok(())
    }

    fn begin<O: Outlet>(&mut self, begin: &Begin, outlet: &mut O) -> Result<(), Fault> {
        if self.in_transaction() {
            return Err(disorder("a transaction begins within another"));
        }
        self.rise(begin.final_lsn)?;
        self.open = Some(begin.final_lsn);
        self.context_told = false;
        self.last_committed_at = begin.committed_at.saturating_add(POSTGRES_EPOCH);
        outlet.begin(&Transaction {
            commit: begin.final_lsn,
            committed_at: self.last_committed_at,
            id: begin.xid.to_string(),
        });
        Ok(())
    }

    fn commit<O: Outlet>(&mut self, commit: &Commit, outlet: &mut O) -> Result<(), Fault> {
        if self.transaction("a commit")? != commit.commit_lsn {
            return Err(disorder("a transaction ends at another position than it began with"));
        }
        self.open = None;
        outlet.commit(Progress { epoch: self.epoch, log: commit.end_lsn });
        self.told = commit.end_lsn;
        Ok(())
    }

    async fn relation(&mut self, message: &pgoutput::Relation<'_>) -> Result<(), Fault> {
        if self.tables.matches(message.schema, message.table) {
            let shape = Shape::resolve(message, &mut self.catalog).await?;
            self.relations.insert(message.oid, shape);
        } else {
            self.relations.leave_out(message.oid);
        }
        Ok(())
    }

    /// Tells a row: `images.new` unless it was deleted, `images.old` as far as `old` says.
    #[inline]
    fn row<O: Outlet>(
        &mut self,
        relation: u32,
        op: Op,
        old: Option<OldImage>,
        images: &mut Images<'_>,
        outlet: &mut O,
    ) -> Result<(), Fault> {
        self.transaction("a row")?;
        let Some(known) = self.relations.get(relation).ok_or_else(|| undescribed(relation))? else {
            return Ok(());
        };
        let Images { old: before, new: after } = images;
        let columns = known.relation.columns.len();
        let has_new = op != Op::Deleted;
        if (old.is_some() && before.len() != columns) || (has_new && after.len() != columns) {
            return Err(disorder("a row has another number of columns than its table was described with"));
        }
        if old == Some(OldImage::Key) {
            // The columns outside the identity are sent as NULL, whatever they were.
            for (cell, _) in before.iter_mut().zip(&known.identity).filter(|(_, identity)| !**identity) {
                *cell = Cell::Unavailable;
            }
        }
        if old.is_some() && has_new {
            // An unchanged value that is stored out of line is left out of the new row; if the old one has it, it is known.
            for (new, old) in after.iter_mut().zip(before.iter()) {
                if matches!(new, Cell::Unavailable) {
                    *new = *old;
                }
            }
        }
        outlet.change(&Change {
            relation: &known.relation,
            op,
            before: old.map(|_| before.as_slice()),
            after: has_new.then_some(after.as_slice()),
        });
        Ok(())
    }

    fn truncate<O: Outlet>(&mut self, truncate: &Truncate, outlet: &mut O) -> Result<(), Fault> {
        self.transaction("a truncate")?;
        for &oid in &truncate.relations {
            if let Some(known) = self.relations.get(oid).ok_or_else(|| undescribed(oid))? {
                outlet.change(&Change {
                    relation: &known.relation,
                    op: Op::Truncated,
                    before: None,
                    after: None,
                });
            }
        }
        Ok(())
    }

    fn logical<O: Outlet>(&mut self, message: &Logical<'_>, outlet: &mut O) -> Result<(), Fault> {
        let position = if message.transactional {
            self.transaction("a transactional message")?;
            message.end_lsn
        } else {
            self.alone(message)?
        };
        if message.transactional && message.prefix == CONTEXT_PREFIX && std::mem::take(&mut self.context_told)
        {
            return Ok(());
        }
        if message.prefix != HEARTBEAT {
            outlet.message(&sdk::Message {
                prefix: message.prefix,
                content: message.content,
                transactional: message.transactional,
                position,
            });
        } else if !message.transactional {
            outlet.progress(Progress { epoch: self.epoch, log: message.end_lsn });
        }
        Ok(())
    }

    /// The commit position of a message that stands alone.
    ///
    /// The server sends it the moment it reads its record, and a transaction as a whole when it reads its commit record:
    /// so it cannot come within a transaction. The LSN it is sent with is where its record *ends*, and there the next
    /// record begins, which may be a commit: that LSN would be the transaction's position too. The last byte of the
    /// record is nobody else's.
    fn alone(&mut self, message: &Logical<'_>) -> Result<u64, Fault> {
        if self.in_transaction() {
            return Err(disorder("a message that stands alone comes within a transaction"));
        }
        let position = message.end_lsn.saturating_sub(1);
        self.rise(position)?;
        Ok(position)
    }

    /// Checks that commit positions rise: events take their order from them.
    fn rise(&mut self, commit: u64) -> Result<(), Fault> {
        if commit <= self.last_commit {
            return Err(disorder("a commit position does not rise"));
        }
        self.last_commit = commit;
        Ok(())
    }

    /// The open transaction, without which `what` may not come.
    #[inline]
    fn transaction(&self, what: &str) -> Result<u64, Fault> {
        self.open.ok_or_else(|| disorder(&format!("{what} comes outside a transaction")))
    }
}

#[cold]
fn undecodable(lsn: u64, error: pgoutput::DecodeError) -> Fault {
    Fault::definite(format!("cannot decode the log at {:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff))
        .with_fix("report this with the server's version: it sends something that this version of Headgate does not know")
        .with_cause(error)
}

/// A new connection starts from a known state, so another try can help.
#[cold]
fn disorder(what: &str) -> Fault {
    Fault::transient(format!("the log is out of order: {what}"))
}

#[cold]
fn undescribed(oid: u32) -> Fault {
    disorder(&format!("the table with OID {oid} was not described"))
}
