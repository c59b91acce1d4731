//! The text form of COPY: one line a row, values between tabs. Pure.
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>

use headgate_sdk::snapshots::Span;

/// A line that is not COPY's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a row that is not in the text form of COPY")]
pub(super) struct NotCopy;

/// Appends the values of a line of `columns` values to `data`, and where they are to `spans`.
pub(super) fn row(
    line: &[u8],
    columns: usize,
    data: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), NotCopy> {
    let line = line.strip_suffix(b"\n").ok_or(NotCopy)?;
    let before = spans.len();
    if columns > 0 {
        for field in Fields(Some(line)) {
            if field == b"\\N" {
                spans.push(None);
                continue;
            }
            let start = data.len();
            unescape(field, data)?;
            spans.push(Some((start, data.len())));
        }
    }
    if spans.len() - before == columns { Ok(()) } else { Err(NotCopy) }
}

/// A tab within a value is always escaped.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let end = memchr::memchr(b'\t', rest);
        self.0 = end.and_then(|end| rest.get(end + 1..));
        rest.get(..end.unwrap_or(rest.len()))
    }
}

fn unescape(mut field: &[u8], data: &mut Vec<u8>) -> Result<(), NotCopy> {
    while let Some(at) = memchr::memchr(b'\\', field) {
        data.extend_from_slice(field.get(..at).unwrap_or_default());
        data.push(match field.get(at + 1).ok_or(NotCopy)? {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' => b'\\',
            _ => return Err(NotCopy),
        });
        field = field.get(at + 2..).unwrap_or_default();
    }
    data.extend_from_slice(field);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn values(line: &[u8], columns: usize) -> Result<Vec<Option<Vec<u8>>>, NotCopy> {
        let (mut data, mut spans) = (b"before".to_vec(), Vec::new());
        row(line, columns, &mut data, &mut spans)?;
        Ok(spans.iter().map(|span| span.map(|(from, to)| data[from..to].to_vec())).collect())
    }

    #[test]
    fn reads_values_nulls_and_escapes() {
        let line = b"42\t\\N\t\ta\\tb\\n\\\\N\\\\\\b\\f\\r\\v\t\xff\n";
        let expected: [Option<&[u8]>; 5] =
            [Some(b"42"), None, Some(b""), Some(b"a\tb\n\\N\\\x08\x0c\r\x0b"), Some(b"\xff")];
        assert_eq!(values(line, 5).unwrap(), expected.map(|value| value.map(<[u8]>::to_vec)));
        assert_eq!(values(b"\n", 1).unwrap(), [Some(vec![])]);
        assert_eq!(values(b"\n", 0).unwrap(), Vec::<Option<Vec<u8>>>::new());
    }

    #[test]
    fn refuses_what_is_not_a_row() {
        for (line, columns) in
            [(&b"1\t2"[..], 2), (b"1\t2\n", 3), (b"1\t2\n", 1), (b"a\\\n", 1), (b"\\x41\n", 1), (b"", 1)]
        {
            assert_eq!(values(line, columns), Err(NotCopy), "{line:?}");
        }
    }
}
