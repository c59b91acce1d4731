//! Rows that were read and are not told yet, kept up to date by what the log tells meanwhile. Pure.
//!
//! # Order
//! A chunk was read at one moment, and may be told only when the log has been told beyond that moment. Whatever the log told
//! from before the read until then goes over the chunk: new values replace old ones, deleted rows fall out. A value that an event of
//! the log could not carry has not changed, so the chunk's own stays, and the row that is told in the end is whole.
//! That holds as long as the row keeps its key: under the old key the chunk may have another row by now. So a row that moves
//! without all its values is given up here and read again, and where the new key is there already, the chunk is ahead of the log.
//!
//! # Memory
//! One buffer for all values. New values are appended to it; a chunk that grows too much is given up, to be read again.

use super::{
    pace::CHUNK_BYTES,
    place::{self, Key},
};
use crate::{Cell, Change, Op, Relation};
use std::{collections::HashMap, sync::Arc};

/// A chunk may grow to this, by new values from the log; and what is noted before a chunk has come, too.
const MOST_BYTES: usize = 2 * CHUNK_BYTES;

/// Where a value is within a chunk's buffer; `None` is NULL.
pub type Span = Option<(usize, usize)>;

/// Rows of one table.
#[derive(Debug)]
pub struct Chunk {
    /// The shape of the rows.
    pub(super) relation: Arc<Relation>,
    data: Vec<u8>,
    spans: Vec<Span>,
    /// The keys that the rows had when they were read, one after the other, and where each ends. Nothing where there is no key.
    keys: String,
    key_ends: Vec<usize>,
    /// Rows that are there no more.
    gone: Vec<bool>,
    /// Rows by the key that they have now; made when the log first tells of this table.
    places: Option<HashMap<Key, usize>>,
    /// What `data` may grow to.
    room: usize,
}

/// What a change of the log means for the rows that are not told yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing more to do.
    None,
    /// A row that is not in the chunk moved to this key, and its event could not carry every column.
    Moved(Key),
    /// The chunk is of no use any more and has to be read again.
    Void,
}

/// A change of the log that owns its values: kept until the chunk has come that it may belong to, or put into another form.
#[derive(Debug)]
pub struct OwnedChange {
    /// See [`Change::relation`].
    pub relation: Arc<Relation>,
    /// See [`Change::op`].
    pub op: Op,
    /// See [`Change::before`].
    pub before: Option<Vec<OwnedCell>>,
    /// See [`Change::after`].
    pub after: Option<Vec<OwnedCell>>,
}

/// A [`Cell`] that owns its value.
#[derive(Debug)]
pub enum OwnedCell {
    /// See [`Cell::Null`].
    Null,
    /// See [`Cell::Unavailable`].
    Unavailable,
    /// See [`Cell::Value`].
    Value(Box<[u8]>),
}

impl OwnedChange {
    /// Shows it to `use_it` as the change that it is.
    pub(super) fn borrowed<T>(&self, use_it: impl FnOnce(&Change<'_>) -> T) -> T {
        let (before, after) = (self.before.as_deref().map(borrow), self.after.as_deref().map(borrow));
        use_it(&Change {
            relation: &self.relation,
            op: self.op,
            before: before.as_deref(),
            after: after.as_deref(),
        })
    }
}

/// The changes of one table that the log told while a chunk of it was being read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    changes: Vec<OwnedChange>,
    bytes: usize,
}

impl Notes {
    /// Keeps a change.
    pub(super) fn note(&mut self, change: &Change<'_>) {
        if self.overflowed() {
            return;
        }
        let own = |row: &[Cell<'_>], bytes: &mut usize| -> Vec<OwnedCell> {
            row.iter()
                .map(|cell| {
                    *bytes += size_of::<OwnedCell>();
                    match cell {
                        Cell::Null => OwnedCell::Null,
                        Cell::Unavailable => OwnedCell::Unavailable,
                        Cell::Value(raw) => {
                            *bytes += raw.len();
                            OwnedCell::Value((*raw).into())
                        }
                    }
                })
                .collect()
        };
        self.bytes += size_of::<OwnedChange>();
        let before = change.before.map(|row| own(row, &mut self.bytes));
        let after = change.after.map(|row| own(row, &mut self.bytes));
        self.changes.push(OwnedChange {
            relation: Arc::clone(change.relation),
            op: change.op,
            before,
            after,
        });
        if self.overflowed() {
            self.changes = Vec::new();
        }
    }

    /// Whether there were too many to keep.
    pub(super) fn overflowed(&self) -> bool {
        self.bytes > MOST_BYTES
    }

    /// Puts the changes over the chunk that has come. Gives the keys that rows outside of it moved to; `None` where the chunk is
    /// of no use.
    pub(super) fn apply(self, chunk: &mut Chunk, adopt: bool) -> Option<Vec<Key>> {
        if self.overflowed() {
            return None;
        }
        let mut moved = Vec::new();
        for noted in &self.changes {
            match noted.borrowed(|change| chunk.changed(change, adopt)) {
                Effect::None => {}
                Effect::Moved(key) => moved.push(key),
                Effect::Void => return None,
            }
        }
        Some(moved)
    }
}

fn borrow(row: &[OwnedCell]) -> Vec<Cell<'_>> {
    row.iter()
        .map(|owned| match owned {
            OwnedCell::Null => Cell::Null,
            OwnedCell::Unavailable => Cell::Unavailable,
            OwnedCell::Value(raw) => Cell::Value(raw),
        })
        .collect()
}

impl Chunk {
    /// No rows yet, of that shape.
    #[must_use]
    pub fn new(relation: Arc<Relation>) -> Self {
        Self {
            relation,
            data: Vec::new(),
            spans: Vec::new(),
            keys: String::new(),
            key_ends: Vec::new(),
            gone: Vec::new(),
            places: None,
            room: 0,
        }
    }

    /// Adds a row: `write` appends its values to the one and where they are to the other, one for each column.
    ///
    /// # Errors
    /// Those of `write`; the chunk is then of no use.
    pub fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, &mut Vec<Span>) -> Result<(), E>,
    ) -> Result<(), E> {
        write(&mut self.data, &mut self.spans)?;
        let row = self.gone.len();
        self.gone.push(false);
        let mut cells = Vec::new();
        self.cells(row, &mut cells);
        let key = place::key(&self.relation, &cells, None);
        if let Some(key) = key {
            self.keys.push_str(&key);
        }
        self.key_ends.push(self.keys.len());
        self.room = self.data.len() + MOST_BYTES;
        Ok(())
    }

    /// Rows, those that are gone included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.gone.len()
    }

    /// What the values weigh.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Puts the row's values into `cells`; `false` if it is gone.
    pub(super) fn row<'a>(&'a self, row: usize, cells: &mut Vec<Cell<'a>>) -> bool {
        self.cells(row, cells);
        self.gone.get(row) == Some(&false)
    }

    fn cells<'a>(&'a self, row: usize, cells: &mut Vec<Cell<'a>>) {
        let columns = self.relation.columns.len();
        let spans = self.spans.get(row * columns..(row + 1) * columns).unwrap_or_default();
        cells.clear();
        cells.extend(spans.iter().map(|span| match span.and_then(|(from, to)| self.data.get(from..to)) {
            Some(value) => Cell::Value(value),
            None => Cell::Null,
        }));
    }

    /// The key that a row had when it was read; `None` where the table has no key.
    pub(super) fn read_key(&self, row: usize) -> Option<&str> {
        let start = row.checked_sub(1).map_or(Some(0), |former| self.key_ends.get(former).copied())?;
        self.keys.get(start..*self.key_ends.get(row)?).filter(|key| !key.is_empty())
    }

    /// Puts a change over the rows. `adopt`: from now on they are of the log's own `Relation`, so that the same preparations
    /// serve both.
    pub(super) fn changed(&mut self, change: &Change<'_>, adopt: bool) -> Effect {
        if change.op == Op::Truncated {
            self.gone.fill(true);
            self.places = Some(HashMap::new());
            return Effect::None;
        }
        if !Arc::ptr_eq(&self.relation, change.relation) {
            if !same_shape(&self.relation, change.relation) {
                return Effect::Void;
            }
            if adopt {
                self.relation = Arc::clone(change.relation);
            }
        }
        let relation = Arc::clone(&self.relation);
        let Some(image) = change.after.or(change.before) else { return Effect::None };
        let Some(key) = place::key(&relation, image, change.before) else { return Effect::None };
        let mut places = match self.places.take() {
            Some(places) => places,
            None => (0..self.len()).filter_map(|row| Some((self.read_key(row)?.to_owned(), row))).collect(),
        };
        let effect = self.changed_row(change, key, &mut places);
        self.places = Some(places);
        effect
    }

    fn changed_row(&mut self, change: &Change<'_>, key: Key, places: &mut HashMap<Key, usize>) -> Effect {
        let Some(after) = change.after else {
            if let Some(gone) = places.remove(&key).and_then(|row| self.gone.get_mut(row)) {
                *gone = true;
            }
            return Effect::None;
        };
        let old = change
            .before
            .filter(|_| change.op == Op::Updated)
            .and_then(|before| place::key(&self.relation, before, Some(after)))
            .filter(|old| *old != key);
        let partial = old.is_some() && after.contains(&Cell::Unavailable);
        let row = match &old {
            // Two rows never have one key: the chunk was read when this row had moved on, and another had come in its place.
            Some(_) if places.contains_key(&key) => return Effect::None,
            Some(old) => places.remove(old),
            None => places.get(&key).copied(),
        };
        let Some(row) = row else {
            // What it was before may have been told or not: its chunk may be far off.
            return if partial { Effect::Moved(key) } else { Effect::None };
        };
        if partial {
            // Nor may this be the row that moved: the values that its event lacks are those of whoever had the old key when
            // the chunk was read.
            if let Some(gone) = self.gone.get_mut(row) {
                *gone = true;
            }
            return Effect::Moved(key);
        }
        let columns = self.relation.columns.len();
        for (span, cell) in self.spans.iter_mut().skip(row * columns).take(columns).zip(after) {
            match cell {
                Cell::Unavailable => {}
                Cell::Null => *span = None,
                Cell::Value(raw) => {
                    let start = self.data.len();
                    self.data.extend_from_slice(raw);
                    *span = Some((start, self.data.len()));
                }
            }
        }
        if let Some(gone) = self.gone.get_mut(row) {
            *gone = false;
        }
        if old.is_some() {
            places.insert(key, row);
        }
        if self.data.len() > self.room { Effect::Void } else { Effect::None }
    }
}

/// Whether rows of one may be told as rows of the other.
pub(super) fn same_shape(one: &Relation, other: &Relation) -> bool {
    one.schema == other.schema
        && one.table == other.table
        && one.key == other.key
        && one.columns.len() == other.columns.len()
        && one.columns.iter().zip(&other.columns).all(|(one, other)| {
            // Where nobody says whether a column may be NULL, nobody says that it is another one.
            let nullable = one.nullable.zip(other.nullable).is_none_or(|(one, other)| one == other);
            one.name == other.name && one.type_name == other.type_name && nullable
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Column, Unwritable, WriteValue};

    #[derive(Debug)]
    struct Text;

    impl WriteValue for Text {
        fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
            out.extend_from_slice(raw);
            Ok(())
        }
    }

    fn relation(columns: &[&str]) -> Arc<Relation> {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_name: "text".to_owned(),
            nullable: None,
            writer: Box::new(Text),
        };
        Arc::new(Relation {
            id: 0,
            schema: "public".to_owned(),
            table: "t".to_owned(),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
        })
    }

    #[test]
    fn a_nullability_that_nobody_says_is_any() {
        let with = |nullable| {
            let mut relation = Arc::into_inner(relation(&["id"])).unwrap();
            relation.columns[0].nullable = nullable;
            relation
        };
        assert!(same_shape(&with(None), &with(Some(false))) && same_shape(&with(Some(true)), &with(None)));
        assert!(!same_shape(&with(Some(true)), &with(Some(false))));
    }

    /// Three rows, told as `key=a,b`.
    fn chunk() -> Chunk {
        let mut chunk = Chunk::new(relation(&["id", "a", "b"]));
        for row in
            [["1", "one", "big1"].map(Some), ["2", "two", "big2"].map(Some), [Some("3"), None, Some("big3")]]
        {
            let write = |data: &mut Vec<u8>, spans: &mut Vec<Span>| {
                for value in row {
                    let start = data.len();
                    data.extend_from_slice(value.unwrap_or_default().as_bytes());
                    spans.push(value.map(|_| (start, data.len())));
                }
                Ok::<(), ()>(())
            };
            chunk.push(write).unwrap();
        }
        chunk
    }

    fn told(chunk: &Chunk) -> String {
        let mut cells = Vec::new();
        let text = |cell: &Cell<'_>| match cell {
            Cell::Value(raw) => String::from_utf8_lossy(raw).into_owned(),
            Cell::Null => "null".to_owned(),
            Cell::Unavailable => "?".to_owned(),
        };
        let rows = (0..chunk.len()).filter_map(|row| {
            let there = chunk.row(row, &mut cells);
            there.then(|| cells.iter().map(text).collect::<Vec<_>>().join(","))
        });
        rows.collect::<Vec<_>>().join(" ")
    }

    const UNCHANGED: Cell<'_> = Cell::Unavailable;

    fn value(text: &str) -> Cell<'_> {
        Cell::Value(text.as_bytes())
    }

    fn change(chunk: &mut Chunk, op: Op, before: Option<&[Cell<'_>]>, after: Option<&[Cell<'_>]>) -> Effect {
        let relation = relation(&["id", "a", "b"]);
        chunk.changed(&Change { relation: &relation, op, before, after }, true)
    }

    #[test]
    fn the_log_goes_over_the_chunk() {
        let mut chunk = chunk();
        assert_eq!(told(&chunk), "1,one,big1 2,two,big2 3,null,big3");
        let update = [value("2"), Cell::Null, UNCHANGED];
        assert_eq!(change(&mut chunk, Op::Updated, None, Some(&update)), Effect::None);
        let gone = [value("1"), UNCHANGED, UNCHANGED];
        assert_eq!(change(&mut chunk, Op::Deleted, Some(&gone), None), Effect::None);
        let unknown = [value("9"), value("nine"), UNCHANGED];
        assert_eq!(change(&mut chunk, Op::Updated, None, Some(&unknown)), Effect::None);
        assert_eq!(told(&chunk), "2,null,big2 3,null,big3");
        assert_eq!(chunk.read_key(0), Some("1"));
        assert_eq!(chunk.read_key(2), Some("3"));
    }

    #[test]
    fn an_empty_key_names_a_row() {
        let mut chunk = Chunk::new(relation(&["id", "a"]));
        let write = |data: &mut Vec<u8>, spans: &mut Vec<Span>| {
            data.extend_from_slice(b"old");
            spans.extend([Some((0, 0)), Some((0, 3))]);
            Ok::<(), ()>(())
        };
        chunk.push(write).unwrap();
        assert!(chunk.read_key(0).is_some());
        let relation = Arc::clone(&chunk.relation);
        let row = [value(""), value("new")];
        let update = Change { relation: &relation, op: Op::Updated, before: None, after: Some(&row) };
        assert_eq!(chunk.changed(&update, true), Effect::None);
        assert_eq!(told(&chunk), ",new");
    }

    #[test]
    fn a_row_that_moves_is_told_under_its_new_key() {
        let mut chunk = chunk();
        let (old, new) = ([value("2"), UNCHANGED, UNCHANGED], [value("8"), value("two"), value("whole")]);
        assert_eq!(change(&mut chunk, Op::Updated, Some(&old), Some(&new)), Effect::None);
        let update = [value("8"), value("again"), UNCHANGED];
        assert_eq!(change(&mut chunk, Op::Updated, None, Some(&update)), Effect::None);
        assert_eq!(told(&chunk), "1,one,big1 8,again,whole 3,null,big3");
        assert_eq!(chunk.read_key(1), Some("2"), "the place in the table stays");
    }

    #[test]
    fn a_row_that_moves_without_all_its_values_is_read_again() {
        let mut chunk = chunk();
        let (old, new) = ([value("2"), UNCHANGED, UNCHANGED], [value("8"), value("two"), UNCHANGED]);
        assert_eq!(change(&mut chunk, Op::Updated, Some(&old), Some(&new)), Effect::Moved("8".to_owned()));
        assert_eq!(
            told(&chunk),
            "1,one,big1 3,null,big3",
            "2 may be another row by now, with values of its own"
        );
    }

    /// The chunk was read after the keys had moved up by one and another row had come first, and the log tells that only now.
    #[test]
    fn keys_that_are_taken_again_leave_no_row_behind() {
        let mut chunk = chunk();
        for (old, new) in [("2", "3"), ("1", "2")] {
            let old = [value(old), UNCHANGED, UNCHANGED];
            let new = [value(new), value("moved"), value("whole")];
            assert_eq!(change(&mut chunk, Op::Updated, Some(&old), Some(&new)), Effect::None);
        }
        assert_eq!(told(&chunk), "1,one,big1 2,two,big2 3,null,big3", "as they were read, which is later");
        let gone = [value("3"), UNCHANGED, UNCHANGED];
        change(&mut chunk, Op::Deleted, Some(&gone), None);
        let latest = [value("2"), value("latest"), value("row")];
        change(&mut chunk, Op::Updated, None, Some(&latest));
        assert_eq!(told(&chunk), "1,one,big1 2,latest,row");
    }

    #[test]
    fn a_row_from_elsewhere_that_lacks_a_column_is_read_again() {
        let mut chunk = chunk();
        let (old, new) = ([value("50"), UNCHANGED, UNCHANGED], [value("0"), value("x"), UNCHANGED]);
        assert_eq!(change(&mut chunk, Op::Updated, Some(&old), Some(&new)), Effect::Moved("0".to_owned()));
        let whole = [value("0"), value("x"), value("y")];
        assert_eq!(change(&mut chunk, Op::Updated, Some(&old), Some(&whole)), Effect::None);
    }

    #[test]
    fn a_truncate_empties_it_and_what_comes_after_stays_out() {
        let mut chunk = chunk();
        assert_eq!(change(&mut chunk, Op::Truncated, None, None), Effect::None);
        let row = [value("1"), value("new"), value("row")];
        assert_eq!(change(&mut chunk, Op::Created, None, Some(&row)), Effect::None);
        assert_eq!(told(&chunk), "");
    }

    #[test]
    fn a_deleted_row_that_comes_back_was_told_by_the_log() {
        let mut chunk = chunk();
        let gone = [value("1"), UNCHANGED, UNCHANGED];
        change(&mut chunk, Op::Deleted, Some(&gone), None);
        let row = [value("1"), value("new"), value("row")];
        change(&mut chunk, Op::Created, None, Some(&row));
        assert_eq!(told(&chunk), "2,two,big2 3,null,big3");
    }

    #[test]
    fn another_shape_voids_it() {
        let mut chunk = chunk();
        let relation = relation(&["id", "a"]);
        let row = [value("1"), value("new")];
        let change = Change { relation: &relation, op: Op::Created, before: None, after: Some(&row) };
        assert_eq!(chunk.changed(&change, true), Effect::Void);
    }

    #[test]
    fn what_is_noted_while_it_is_read_goes_over_it_in_order() {
        let relation = relation(&["id", "a", "b"]);
        let mut notes = Notes::default();
        let (old, new) = ([value("50"), UNCHANGED, UNCHANGED], [value("0"), value("x"), UNCHANGED]);
        for after in [&[value("1"), value("first"), UNCHANGED], &[value("1"), value("second"), UNCHANGED]] {
            notes.note(&Change { relation: &relation, op: Op::Updated, before: None, after: Some(after) });
        }
        notes.note(&Change { relation: &relation, op: Op::Updated, before: Some(&old), after: Some(&new) });
        let mut chunk = chunk();
        assert_eq!(notes.apply(&mut chunk, true).unwrap(), ["0"]);
        assert_eq!(told(&chunk), "1,second,big1 2,two,big2 3,null,big3");
        let mut notes = Notes::default();
        let large = vec![b'x'; MOST_BYTES];
        let row = [value("1"), Cell::Value(&large), UNCHANGED];
        notes.note(&Change { relation: &relation, op: Op::Updated, before: None, after: Some(&row) });
        assert!(notes.apply(&mut chunk, true).is_none(), "too much to keep");
    }
}
