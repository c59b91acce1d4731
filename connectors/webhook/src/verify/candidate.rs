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

fn unhex(pairs: &[[u8; 2]], bytes: &mut [u8]) -> Option<()> {
    let mut wrong = 0;
    for ([high, low], byte) in pairs.iter().zip(bytes) {
        let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
        wrong |= (high | low) & 0xf0;
        *byte = high << 4 | low;
    }
    (wrong == 0).then_some(())
}

/// What a byte is as a hexadecimal digit, 0xff where it is none.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

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
