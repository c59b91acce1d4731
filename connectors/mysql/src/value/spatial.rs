//! Geometry and vectors.

use super::{LENGTH, write_base64, write_f32};
use headgate_sdk::Unwritable;

/// Writes `{"srid":4326,"wkb":"…"}`: four bytes of SRID, little-endian, and the geometry in WKB.
pub(super) fn write_geometry(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let (srid, wkb) = raw.split_first_chunk().ok_or(LENGTH)?;
    out.extend_from_slice(b"{\"srid\":");
    out.extend_from_slice(itoa::Buffer::new().format(u32::from_le_bytes(*srid)).as_bytes());
    out.extend_from_slice(b",\"wkb\":");
    write_base64(wkb, out);
    out.push(b'}');
    Ok(())
}

/// Writes an array of numbers: four bytes each, little-endian.
pub(super) fn write_vector(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let (numbers, rest) = raw.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(LENGTH);
    }
    out.push(b'[');
    for (nth, number) in numbers.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        write_f32(f32::from_le_bytes(*number), out)?;
    }
    out.push(b']');
    Ok(())
}
