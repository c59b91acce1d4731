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

/// Writes an IPv6 address.
pub(super) fn write_inet6(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let _ = write!(out, "\"{}\"", Ipv6Addr::from(padded::<16>(raw)?));
    Ok(())
}
