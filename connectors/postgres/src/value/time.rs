//! Timestamps. Dates, times and intervals are strings of the database's text already.

/// The fixed part of a timestamp that RFC 3339 can have; years beyond 9999 and before Christ it cannot.
const SHAPE: &[u8; 19] = b"0000-00-00 00:00:00";

/// Writes `2026-11-22 14:06:07.123456` with a `T`. Whatever looks otherwise (`infinity`, BC) stays the database's text.
pub(super) fn write_timestamp(raw: &[u8], out: &mut Vec<u8>) -> bool {
    write(raw, b"", out)
}

/// Writes `2026-11-22 14:06:07.123456+00` with `T` and `Z`. Only in UTC: the session is pinned to it.
pub(super) fn write_timestamptz(raw: &[u8], out: &mut Vec<u8>) -> bool {
    raw.strip_suffix(b"+00").is_some_and(|local| write(local, b"Z", out))
}

#[inline]
fn write(raw: &[u8], zone: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((head, fraction)) = raw.split_first_chunk::<{ SHAPE.len() }>() else { return false };
    let shaped = head.iter().zip(SHAPE).fold(true, |all, (&byte, &shape)| {
        all & if shape == b'0' { byte.is_ascii_digit() } else { byte == shape }
    });
    let fraction_fits = match fraction {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !shaped || !fraction_fits {
        return false;
    }
    let mut head = *head;
    head[10] = b'T';
    out.push(b'"');
    out.extend_from_slice(&head);
    out.extend_from_slice(fraction);
    out.extend_from_slice(zone);
    out.push(b'"');
    true
}
