//! A password that the server wants whole, on a connection that others may read: encrypted with the server's own key. Pure.
//!
//! That key is what somebody on the way, or a broken server, says it is: it is parsed by the same library that speaks TLS, and
//! anything but an RSA key of a usual size is refused.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html>

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

/// Why a password is not given to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Withheld {
    #[error(
        "the server's key, with which the password is to be encrypted, is no RSA key of 2048 to 8192 bits"
    )]
    Key,
    #[error("the server's key, with which the password is to be encrypted, is too short for the password")]
    Short,
    #[error("the driver could not make sense of what the server said at signing in")]
    Nonsense,
}

/// Encrypts a password that nobody but the owner of `key`, a PEM document, can read.
pub(super) fn encrypt(password: &str, nonce: &[u8], key: &[u8]) -> Result<Vec<u8>, Withheld> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key).map_err(|_| Withheld::Key)?;
    let key = PublicEncryptingKey::from_der(&key).map_err(|_| Withheld::Key)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| Withheld::Key)?;
    let mut plain = [password.as_bytes(), &[0]].concat();
    for (byte, nonce) in plain.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= nonce;
    }
    let mut sealed = vec![0; key.ciphertext_size()];
    let length =
        key.encrypt(&OAEP_SHA1_MGF1SHA1, &plain, &mut sealed, None).map_err(|_| Withheld::Short)?.len();
    sealed.truncate(length);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_lc_rs::{
        encoding::{AsDer as _, PublicKeyX509Der},
        rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey},
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn only_the_owner_of_the_key_reads_it() {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
        let key = pem(public.as_ref());
        let nonce = *b"twenty bytes, random";
        let sealed = encrypt("sesame öffne dich", &nonce, key.as_bytes()).unwrap();
        let private = OaepPrivateDecryptingKey::new(private).unwrap();
        let mut room = vec![0; private.min_output_size()];
        let opened = private.decrypt(&OAEP_SHA1_MGF1SHA1, &sealed, &mut room, None).unwrap();
        let opened: Vec<u8> = opened.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(opened, "sesame öffne dich\0".as_bytes());
        // 256 bytes of key, less two hashes and two bytes; and the end of the password.
        assert!(encrypt(&"x".repeat(213), &nonce, key.as_bytes()).is_ok());
        assert_eq!(encrypt(&"x".repeat(214), &nonce, key.as_bytes()), Err(Withheld::Short));
        // Whatever of it is cut off or damaged, it is not more than refused.
        for at in 0..key.len() {
            let _ = encrypt("sesame", &nonce, &key.as_bytes()[..at]);
            let mut damaged = key.clone().into_bytes();
            damaged[at] ^= 0x10;
            let _ = encrypt("sesame", &nonce, &damaged);
        }
    }

    /// Each of these ended the task that signed in when the driver's function had it.
    #[test]
    fn a_key_that_is_none_is_refused() {
        let small = STANDARD
            .decode("MFwwDQYJKoZIhvcNAQEBBQADSwAwSAIBAAJBAMwQ0dP0Zl4QuvKz6o0yq9yYlqfh1w2l7aN9c7s0")
            .unwrap();
        for key in [
            String::new(),
            "no key".to_owned(),
            pem(b""),
            pem(b"\x30\x84\xff\xff\xff\xff"),
            pem(b"\x30\x03\x02\x01"),
            pem(&small),
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".to_owned(),
            "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----".to_owned(),
        ] {
            assert_eq!(encrypt("sesame", b"nonce", key.as_bytes()), Err(Withheld::Key), "{key}");
        }
    }
}
