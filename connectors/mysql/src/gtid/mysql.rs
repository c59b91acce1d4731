//! MySQL's GTIDs: `uuid:number` or `uuid:tag:number`, and sets of them with intervals.
//!
//! <https://dev.mysql.com/doc/refman/9.0/en/replication-gtids-concepts.html>

use super::ParseGtidError;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The largest number of a transaction: one less than the server's `GNO_END`.
pub const MAX_NUMBER: u64 = i64::MAX.cast_unsigned() - 1;

/// A server's identity (`@@server_uuid`), or the name of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// A UUID by its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every transaction's name has one.
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default() as u8;
        let (mut text, mut at) = ([b'-'; 36], 0);
        for (nth, byte) in self.0.iter().enumerate() {
            at += usize::from(matches!(nth, 4 | 6 | 8 | 10));
            text[at] = digit(byte >> 4);
            text[at + 1] = digit(byte & 15);
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for Uuid {
    type Err = ParseGtidError;

    /// Reads 32 hexadecimal digits, with or without the dashes, as the server does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseGtidError::new(text, "a UUID");
        let plain = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let dashed = plain.len() == 36;
        let mut digits = plain.bytes();
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            if dashed && matches!(at, 4 | 6 | 8 | 10) && digits.next() != Some(b'-') {
                return Err(error());
            }
            let mut nibble = || digits.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (nibble(), nibble()) else { return Err(error()) };
            *byte = u8::try_from(high << 4 | low).map_err(|_| error())?;
        }
        if digits.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

/// What groups some transactions of a server (since MySQL 8.3); empty for most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    // Zeros after the name sort a shorter name first, as the server does.
    name: [u8; Tag::MAX],
}

impl Tag {
    /// Most bytes of a tag.
    pub const MAX: usize = 32;

    /// A tag by its name, which may be empty; `None` where a server would not take it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut name = [0; Self::MAX];
        let valid = bytes.iter().enumerate().all(|(at, byte)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
            b'0'..=b'9' => at > 0,
            _ => false,
        });
        if !valid {
            return None;
        }
        name.get_mut(..bytes.len())?.copy_from_slice(bytes);
        name.make_ascii_lowercase();
        Some(Self { name })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name[0] == 0
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.name.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX);
        std::str::from_utf8(&self.name[..len]).unwrap_or_default()
    }
}

/// Who numbers transactions: a server, and a tag of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The server's identity.
    pub uuid: Uuid,
    /// The tag, which has numbers of its own.
    pub tag: Tag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uuid)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag.as_str())?;
        }
        Ok(())
    }
}

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// Who numbered it.
    pub source: Source,
    /// Its number, from 1 to [`MAX_NUMBER`].
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.number)
    }
}

impl FromStr for Gtid {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseGtidError::new(text, "a GTID");
        let set: GtidSet = text.parse()?;
        let mut ranges = set.ranges();
        match (ranges.next(), ranges.next()) {
            (Some((source, first, last)), None) if first == last => Ok(Self { source, number: first }),
            _ => Err(error()),
        }
    }
}

/// A set of transactions.
///
/// The intervals of a source are sorted, and neither overlap nor touch each other; no source is without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    sources: BTreeMap<Source, Vec<Interval>>,
}

/// The first and the last number of an interval.
type Interval = (u64, u64);

impl GtidSet {
    /// Whether no transaction is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Its intervals: who numbered them, first and last number; sorted.
    pub fn ranges(&self) -> impl Iterator<Item = (Source, u64, u64)> {
        self.sources
            .iter()
            .flat_map(|(source, intervals)| intervals.iter().map(|&(first, last)| (*source, first, last)))
    }

    /// Adds one transaction.
    pub fn add(&mut self, gtid: &Gtid) {
        self.add_range(&gtid.source, gtid.number, gtid.number);
    }

    /// Adds the transactions from `first` to `last`, both among them. Numbers that no server gives are left out.
    pub fn add_range(&mut self, source: &Source, first: u64, last: u64) {
        let (mut first, mut last) = (first.max(1), last.min(MAX_NUMBER));
        if first > last {
            return;
        }
        let intervals = self.sources.entry(*source).or_default();
        // A log is read in order: nearly always the last interval grows.
        if let Some((start, end)) = intervals.last_mut()
            && first >= *start
            && first <= *end + 1
        {
            *end = last.max(*end);
            return;
        }
        // All that overlap or touch the new one are one with it.
        let from = intervals.partition_point(|&(_, end)| end + 1 < first);
        let to = intervals.partition_point(|&(start, _)| start <= last + 1);
        if let Some(joined) = intervals.get(from..to)
            && let (Some(&(start, _)), Some(&(_, end))) = (joined.first(), joined.last())
        {
            first = first.min(start);
            last = last.max(end);
        }
        intervals.splice(from..to, [(first, last)]);
    }

    /// The server's binary form, in which a dump is asked for; with tags only where there are any, for servers that know none.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let tagged = self.sources.keys().any(|source| !source.tag.is_empty());
        let count = self.sources.len() as u64;
        // The highest byte is the version of the form. With tags the count stands between it and a reserved byte.
        let head = if tagged { 1 << 56 | count << 8 } else { count };
        let mut bytes = head.to_le_bytes().to_vec();
        for (source, intervals) in &self.sources {
            bytes.extend(source.uuid.bytes());
            if tagged {
                let tag = source.tag.as_str();
                // A number of variable length; no tag is so long that it needs more than one byte.
                bytes.push((tag.len() << 1) as u8);
                bytes.extend(tag.bytes());
            }
            bytes.extend((intervals.len() as u64).to_le_bytes());
            for (first, last) in intervals {
                // The end on the wire is the first number after the interval.
                bytes.extend(first.to_le_bytes());
                bytes.extend((last + 1).to_le_bytes());
            }
        }
        bytes
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Self) {
        for (source, first, last) in other.ranges() {
            self.add_range(&source, first, last);
        }
    }

    /// Whether one transaction is in it.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.sources.get(&gtid.source).is_some_and(|intervals| {
            let at = intervals.partition_point(|&(_, last)| last < gtid.number);
            intervals.get(at).is_some_and(|&(first, _)| first <= gtid.number)
        })
    }

    /// Whether all of another set is in it.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.ranges().all(|(source, first, last)| {
            self.sources.get(&source).is_some_and(|intervals| {
                let at = intervals.partition_point(|&(_, end)| end < first);
                intervals.get(at).is_some_and(|&(start, end)| start <= first && last <= end)
            })
        })
    }

    /// What is in this set and not in the other (`GTID_SUBTRACT`).
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (source, mut first, last) in self.ranges() {
            let taken = other.sources.get(&source).map(Vec::as_slice).unwrap_or_default();
            for &(start, end) in taken {
                if start > last {
                    break;
                }
                if end >= first {
                    if start > first {
                        left.add_range(&source, first, start - 1);
                    }
                    first = end + 1;
                }
            }
            left.add_range(&source, first, last);
        }
        left
    }
}

/// The server's own form (`@@gtid_executed`): sources of one server together, those without a tag first, a line a server.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut server = None;
        for (source, intervals) in &self.sources {
            if server != Some(source.uuid) {
                if server.is_some() {
                    f.write_str(",\n")?;
                }
                write!(f, "{}", source.uuid)?;
                server = Some(source.uuid);
            }
            if !source.tag.is_empty() {
                write!(f, ":{}", source.tag.as_str())?;
            }
            for (first, last) in intervals {
                write!(f, ":{first}")?;
                if first != last {
                    write!(f, "-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;

    /// Reads what a server prints or takes: `uuid[:tag]:1-5:7[:tag:…],uuid…`, with spaces anywhere between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().unwrap_or_default().parse()?;
            let mut source = Source { uuid, tag: Tag::default() };
            for piece in pieces {
                if piece.starts_with(|first: char| first.is_ascii_digit()) {
                    let (first, last) = interval(piece)?;
                    set.add_range(&source, first, last);
                } else {
                    let tag = Tag::from_bytes(piece.as_bytes()).filter(|tag| !tag.is_empty());
                    source.tag = tag.ok_or_else(|| ParseGtidError::new(piece, "an interval or a tag"))?;
                }
            }
        }
        Ok(set)
    }
}

/// `7` or `1-5`. An interval that ends before it starts is empty, as the server has it.
fn interval(text: &str) -> Result<Interval, ParseGtidError> {
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|number| (1..=MAX_NUMBER).contains(number));
        number.ok_or_else(|| ParseGtidError::new(text, "the number of a transaction"))
    };
    match text.split_once('-') {
        Some((first, last)) => Ok((number(first)?, number(last)?)),
        None => number(text).map(|number| (number, number)),
    }
}
