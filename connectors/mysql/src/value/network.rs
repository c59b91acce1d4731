//! MariaDB's UUID, INET4 and INET6, which are fixed bytes without the zeros at their end.

use super::padded;
use headgate_sdk::Unwritable;
use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Writes a UUID.
pub(super) fn write_uuid(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = padded::<16>(raw)?;
    out.push(b'"');
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.push(b'"');
    Ok(())
}

/// Writes an IPv4 address.
pub(super) fn write_inet4(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    // Writing to a vector cannot fail.
    let _ = write!(out, "\"{}\"", Ipv4Addr::from(padded::<4>(raw)?));
    Ok(())
}

/// Writes an IPv6 address as MariaDB prints it: the longest run of zeros is left out even if it is a single one, and the end is an
/// IPv4 address where that is mapped or compatible.
pub(super) fn write_inet6(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let address = Ipv6Addr::from(padded::<16>(raw)?);
    let words = address.segments();
    let dotted = match words {
        [0, 0, 0, 0, 0, 0xffff, ..] => true,
        [0, 0, 0, 0, 0, 0, high, _] => high != 0,
        _ => false,
    };
    let shown = if dotted { words.get(..6).unwrap_or_default() } else { &words };
    // Where the first of the longest runs of zeros begins and ends.
    let (mut start, mut end) = (0, 0);
    for from in 0..shown.len() {
        let run = shown.iter().skip(from).take_while(|word| **word == 0).count();
        if run > end - start {
            (start, end) = (from, from + run);
        }
    }
    out.push(b'"');
    for (at, word) in shown.iter().enumerate() {
        if (start..end).contains(&at) {
            if at == start {
                out.extend_from_slice(b"::");
            }
            continue;
        }
        if at > 0 && at != end {
            out.push(b':');
        }
        let _ = write!(out, "{word:x}");
    }
    if dotted {
        if end != shown.len() {
            out.push(b':');
        }
        let [.., a, b, c, d] = address.octets();
        let _ = write!(out, "{}", Ipv4Addr::new(a, b, c, d));
    }
    out.push(b'"');
    Ok(())
}
