//! Where something stands in a server's binary log: which file, and which byte of it.
//!
//! A place is the `u64` that positions and progress count in. Its numbers rise through the log: files are numbered by the
//! server, and a file's number stands above the offset in it. They do not wrap: the header of an event tells its end in 32
//! bits, and not at all inside compressed payloads and in row events of MariaDB since 11.4, so offsets are counted here and
//! only corrected by what headers tell.

use std::fmt;

/// Bits of the offset: files are up to 1 TiB, of which a server makes one only for a transaction as large.
const OFFSET_BITS: u32 = 40;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(pub(crate) u64);

impl Place {
    /// The place `offset` bytes into the file with that number. `None` where either is larger than any server makes it.
    pub(crate) fn new(file: u64, offset: u64) -> Option<Self> {
        (file < 1 << (u64::BITS - OFFSET_BITS) && offset < 1 << OFFSET_BITS)
            .then_some(Self(file << OFFSET_BITS | offset))
    }

    /// The number of the file.
    pub(crate) fn file(self) -> u64 {
        self.0 >> OFFSET_BITS
    }

    /// The offset in the file.
    pub(crate) fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }

    /// The end of an event of `size` bytes that begins here and whose header tells `log_pos`.
    pub(crate) fn after(self, size: u32, log_pos: u32) -> Option<Self> {
        let expected = self.offset() + u64::from(size);
        let offset = if log_pos == 0 { expected } else { unwrap(expected, log_pos) };
        Self::new(self.file(), offset)
    }
}

/// `base.000007:1234`, without the base.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}:{}", self.file(), self.offset())
    }
}

/// The number nearest to `expected` whose lower half is `low`.
fn unwrap(expected: u64, low: u32) -> u64 {
    let distance = low.wrapping_sub(expected as u32).cast_signed();
    expected.saturating_add_signed(i64::from(distance))
}

/// Bytes of log between two places. Within a file exact; a file that lies between counts as full, with `file_size` bytes.
#[must_use]
pub fn log_distance(from: u64, to: u64, file_size: u64) -> u64 {
    let (from, to) = (Place(from), Place(to));
    if to <= from {
        return 0;
    }
    match to.file() - from.file() {
        0 => to.offset() - from.offset(),
        files => {
            file_size.saturating_sub(from.offset()) + (files - 1).saturating_mul(file_size) + to.offset()
        }
    }
}

/// A place in people's words: `000007:1234`.
#[must_use]
pub fn log_text(place: u64) -> String {
    Place(place).to_string()
}

/// Base name and number of a log file's name.
pub(crate) fn parse_file(name: &str) -> Option<(&str, u64)> {
    let (base, number) = name.rsplit_once('.')?;
    let sound = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((base, sound.then(|| number.parse().ok())??))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_rise_with_the_log() {
        let places = [(1, 4), (1, u64::from(u32::MAX) + 5), (2, 4), (1_000_000, 4)]
            .map(|(f, o)| Place::new(f, o).unwrap());
        assert!(places.is_sorted());
        assert_eq!((places[1].file(), places[1].offset()), (1, 4_294_967_300));
        assert_eq!(Place::new(1 << 24, 0), None);
        assert_eq!(Place::new(0, 1 << 40), None);
    }

    #[test]
    fn offsets_go_on_beyond_what_a_header_can_tell() {
        let four_gib = 1u64 << 32;
        let near = Place::new(1, four_gib - 100).unwrap();
        assert_eq!(near.after(150, 50).unwrap().offset(), four_gib + 50);
        assert_eq!(near.after(150, 0).unwrap().offset(), four_gib + 50, "a header that tells nothing");
        let skipped = Place::new(1, 4).unwrap();
        assert_eq!(skipped.after(100, 900_000).unwrap().offset(), 900_000, "events that were not sent");
        assert_eq!(Place::new(1, 3 * four_gib + 7).unwrap().after(1, 8).unwrap().offset(), 3 * four_gib + 8);
    }

    #[test]
    fn names_of_files() {
        assert_eq!(parse_file("binlog.000007"), Some(("binlog", 7)));
        assert_eq!(parse_file("my.host-bin.1000000"), Some(("my.host-bin", 1_000_000)));
        for name in ["", "binlog", "binlog.", "binlog.00x", "binlog.+7", "binlog.99999999999999999999999"] {
            assert_eq!(parse_file(name), None, "{name}");
        }
    }

    #[test]
    fn distances_count_whole_files_between() {
        let at = |file, offset| Place::new(file, offset).unwrap().0;
        assert_eq!(log_distance(at(1, 10), at(1, 30), 100), 20);
        assert_eq!(log_distance(at(1, 90), at(3, 30), 100), 10 + 100 + 30);
        assert_eq!(log_distance(at(2, 0), at(1, 30), 100), 0);
    }
}
