//! The signatures of one request as bytes. Nearly every request has one, and most are hashes: such a one needs no
//! allocation.

use std::ops::Deref;

/// The longest hash, SHA-512.
const SHORT: usize = 64;

/// The bytes of one signature or token.
pub(crate) enum Candidate {
    Short { bytes: [u8; SHORT], length: usize },
    Long(Vec<u8>),
}

impl Candidate {
    /// Reads hexadecimal, in either case.
    pub(super) fn unhex(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        if pairs.len() > SHORT {
            let mut bytes = vec![0; pairs.len()];
            return unhex(pairs, &mut bytes).map(|()| Self::Long(bytes));
        }
        let mut bytes = [0; SHORT];
        unhex(pairs, &mut bytes).map(|()| Self::Short { bytes, length: pairs.len() })
    }
}

impl Deref for Candidate {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { bytes, length } => &bytes[..*length],
            Self::Long(bytes) => bytes,
        }
    }
}

/// Sixteen bytes at a time: without a branch or a table, and of a fixed length, the compiler takes them all at once.
fn unhex(pairs: &[[u8; 2]], bytes: &mut [u8]) -> Option<()> {
    let mut all = 0;
    let mut join = |[high, low]: [u8; 2]| {
        all |= high | low;
        high << 4 | low
    };
    let (chunks, rest) = pairs.as_flattened().as_chunks::<32>();
    let (whole, tail) = bytes.split_at_mut(chunks.len() * 16);
    for (chunk, bytes) in chunks.iter().zip(whole.as_chunks_mut::<16>().0) {
        let digits = chunk.map(digit);
        digits.as_chunks::<2>().0.iter().zip(bytes).for_each(|(pair, byte)| *byte = join(*pair));
    }
    let rest = rest.as_chunks::<2>().0.iter().zip(tail);
    rest.for_each(|(pair, byte)| *byte = join(pair.map(digit)));
    (all < 16).then_some(())
}

/// What a character is as a hexadecimal digit, 0xff where it is none.
fn digit(character: u8) -> u8 {
    let number = character.wrapping_sub(b'0');
    let letter = (character | 0x20).wrapping_sub(b'a');
    let is_number = 0_u8.wrapping_sub(u8::from(number < 10));
    let is_letter = 0_u8.wrapping_sub(u8::from(letter < 6));
    number & is_number | letter.wrapping_add(10) & is_letter | !(is_number | is_letter)
}

/// All of a request, in their order.
#[derive(Default)]
pub(crate) enum Candidates {
    #[default]
    None,
    One(Candidate),
    Several(Vec<Candidate>),
}

impl Candidates {
    pub(super) fn push(&mut self, candidate: Candidate) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(candidate),
            Self::One(first) => Self::Several(vec![first, candidate]),
            Self::Several(mut several) => {
                several.push(candidate);
                Self::Several(several)
            }
        };
    }
}

impl Deref for Candidates {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hexadecimal_of_any_length_is_read_and_nothing_else() {
        for length in [0, 1, 32, SHORT, SHORT + 1, 300] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(&*Candidate::unhex(&text).unwrap(), bytes);
            assert_eq!(&*Candidate::unhex(&text.to_uppercase()).unwrap(), bytes);
            for wrong in [format!("{text}0"), format!("{text}0g"), format!("{text}-1"), format!(" {text}0")] {
                assert!(Candidate::unhex(&wrong).is_none(), "{wrong}");
            }
        }
    }

    #[test]
    fn each_character_is_a_digit_or_is_not() {
        for character in (0..128_u8).map(char::from) {
            let digit = character.to_digit(16).map(|digit| u8::try_from(digit).unwrap());
            for zeros in [0, 40] {
                let text = format!("{}5{character}", "0".repeat(zeros));
                let read = Candidate::unhex(&text).map(|bytes| bytes[zeros / 2]);
                assert_eq!(read, digit.map(|digit| 0x50 | digit), "{text}");
            }
        }
    }

    #[test]
    fn all_are_there_in_their_order() {
        let mut candidates = Candidates::default();
        assert!(candidates.is_empty());
        for number in 0..4_u8 {
            candidates.push(Candidate::Long(vec![number]));
            let seen: Vec<u8> = candidates.iter().map(|candidate| candidate[0]).collect();
            assert_eq!(seen, (0..=number).collect::<Vec<_>>());
        }
    }
}
