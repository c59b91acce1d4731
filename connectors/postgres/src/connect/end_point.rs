//! Channel binding `tls-server-end-point` (RFC 5929 §4.1): the hash of the server's certificate, with the hash function
//! of the certificate's own signature. Pure.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The binding data for a certificate in DER, or `None` where RFC 5929 or the server's OpenSSL defines none (Ed25519,
/// RSASSA-PSS): SCRAM then goes on without channel binding.
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = hash_of(signature_algorithm(certificate)?)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm OID, … }, signature }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (_, after_tbs) = element(body, SEQUENCE)?;
    let (identifier, _) = element(after_tbs, SEQUENCE)?;
    element(identifier, OBJECT_IDENTIFIER).map(|(oid, _)| oid)
}

/// The content of the DER element with this tag at the start of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    if found != tag {
        return None;
    }
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        rest = after;
        digits.iter().fold(0usize, |length, &digit| length << 8 | usize::from(digit))
    };
    rest.split_at_checked(length)
}

/// MD5 and SHA-1 are replaced by SHA-256, as the RFC says.
fn hash_of(oid: &[u8]) -> Option<&'static Algorithm> {
    const PKCS1: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01]; // 1.2.840.113549.1.1
    const ECDSA: [u8; 6] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04]; // 1.2.840.10045.4
    if let Some(rest) = oid.strip_prefix(&PKCS1) {
        return match rest {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            _ => None,
        };
    }
    match oid.strip_prefix(&ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut identifier = vec![OBJECT_IDENTIFIER, u8::try_from(oid.len()).unwrap()];
        identifier.extend_from_slice(oid);
        let mut body = vec![SEQUENCE, 0x81, 0x80];
        body.extend([0; 0x80]);
        body.extend([SEQUENCE, u8::try_from(identifier.len()).unwrap()]);
        body.extend(identifier);
        let mut der = vec![SEQUENCE, 0x82, 0, u8::try_from(body.len()).unwrap()];
        der.extend(body);
        der
    }

    #[test]
    fn hash_follows_the_signature() {
        let rsa = |n| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, n];
        for (n, length) in [(5, 32), (11, 32), (12, 48), (13, 64)] {
            assert_eq!(end_point(&certificate(&rsa(n))).map(|hash| hash.len()), Some(length));
        }
        assert_eq!(end_point(&certificate(&rsa(10))), None, "RSASSA-PSS");
        assert_eq!(end_point(&certificate(&[0x2b, 0x65, 0x70])), None, "Ed25519");
        assert_eq!(
            end_point(&certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 3])).map(|hash| hash.len()),
            Some(48)
        );
    }

    #[test]
    fn broken_der_is_no_binding() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 2]);
        for end in 0..whole.len() {
            let _ = end_point(&whole[..end]);
            assert_eq!(signature_algorithm(&whole[..end]), None);
        }
        assert_eq!(end_point(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(end_point(&[SEQUENCE, 0x80]), None);
    }
}
