//! The images of a row, as the members of an event's data.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use headgate_sdk::{Cell, Relation, Unwritable};
use serde_json::{Value, json};

/// The row images of an event.
#[derive(Clone, Copy)]
pub(super) struct Images<'i, 'a> {
    /// The old row, as far as the log gave it.
    pub before: Option<&'i [Cell<'a>]>,
    /// The new row.
    pub after: Option<&'i [Cell<'a>]>,
}

impl<'i, 'a> Images<'i, 'a> {
    /// The image that says most about the row.
    pub(super) fn row(&self) -> &'i [Cell<'a>] {
        self.after.or(self.before).unwrap_or_default()
    }
}

/// Appends `,"before":…,"after":…,"changed":[…],"paths":{…},"unavailable":[…]`, without what is not known.
pub(super) fn write_images(
    relation: &Relation,
    names: &[Vec<u8>],
    images: Images<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    out.extend_from_slice(b",\"before\":");
    write_row(relation, names, images.before, out)?;
    out.extend_from_slice(b",\"after\":");
    write_row(relation, names, images.after, out)?;
    if let Images { before: Some(before), after: Some(after) } = images
        && !before.contains(&Cell::Unavailable)
    {
        let differs = |index: &usize| {
            before.get(*index) != after.get(*index) && after.get(*index) != Some(&Cell::Unavailable)
        };
        out.extend_from_slice(b",\"changed\":");
        write_names(names, (0..names.len()).filter(differs), out);
        write_paths(relation, names, after, out);
    }
    out.extend_from_slice(b",\"unavailable\":");
    let row = images.after.unwrap_or_default();
    write_names(names, (0..names.len()).filter(|index| row.get(*index) == Some(&Cell::Unavailable)), out);
    Ok(())
}

fn write_row(
    relation: &Relation,
    names: &[Vec<u8>],
    row: Option<&[Cell<'_>]>,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let mut separator = b'{';
    for ((column, name), cell) in relation.columns.iter().zip(names).zip(row) {
        let raw = match cell {
            Cell::Unavailable => continue,
            Cell::Null => None,
            Cell::Value(raw) => Some(raw),
        };
        out.push(separator);
        separator = b',';
        out.extend_from_slice(name);
        match raw {
            None => out.extend_from_slice(b"null"),
            Some(raw) => column.writer.write(raw, out)?,
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

/// Appends `,"paths":{…}` where the log says where documents were changed.
fn write_paths(relation: &Relation, names: &[Vec<u8>], after: &[Cell<'_>], out: &mut Vec<u8>) {
    let known =
        relation.columns.iter().zip(names).zip(after).filter_map(|((column, name), cell)| match cell {
            Cell::Value(raw) => Some((name, column.writer.paths(raw)?)),
            Cell::Null | Cell::Unavailable => None,
        });
    let start = out.len();
    for (name, paths) in known {
        out.extend_from_slice(if out.len() == start { b",\"paths\":{" } else { b"," });
        out.extend_from_slice(name);
        out.extend_from_slice(paths.as_bytes());
    }
    if out.len() > start {
        out.push(b'}');
    }
}

/// Appends a JSON array of column names; `names` hold them as `"name":`.
fn write_names(names: &[Vec<u8>], indexes: impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (nth, index) in indexes.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        let name = &names[index];
        out.extend_from_slice(&name[..name.len() - 1]);
    }
    out.push(b']');
}

/// What can be kept of a row that cannot be encoded: each value as it should be, else its bytes in base64.
pub(super) fn salvage(relation: &Relation, row: &[Cell<'_>]) -> Value {
    let cells = relation.columns.iter().zip(row).filter_map(|(column, cell)| {
        let value = match cell {
            Cell::Unavailable => return None,
            Cell::Null => Value::Null,
            Cell::Value(raw) => {
                let mut out = Vec::new();
                let written =
                    column.writer.write(raw, &mut out).ok().and_then(|()| serde_json::from_slice(&out).ok());
                written.unwrap_or_else(|| json!({ "base64": BASE64.encode(raw) }))
            }
        };
        Some((column.name.clone(), value))
    });
    Value::Object(cells.collect())
}
