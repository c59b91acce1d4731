//! JSON Web Tokens (RFC 7519) in their compact form (RFC 7515 §7.1): HS256 with the endpoint's secret, RS256 and ES256
//! with the provider's published keys.
//!
//! The token's header may say which of the allowed algorithms it is and which key, and nothing else is believed: there is no `none`, no
//! key from the token, and an algorithm is bound to its kind of key. What the header says has to be understood (`crit`) is not. A key that
//! is not in the provider's document may be in a newer one, which is asked for now and then. The claims named in the provider's file must all be
//! there; an `aud` must always be among them, or a token made for somebody else would pass.

use super::{Failure, condition::same};
use crate::{
    Integrity, KeyRequest, KeyRing, Reason,
    json::{self, Pointer, Value},
    template::sha256_hex,
};
use aws_lc_rs::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How far clocks may differ, in seconds.
const LEEWAY: i64 = 60;

/// The `jwt` table of a provider's `[[verify]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// Where the public keys are; without it the secret is the key.
    jwks: Option<String>,
    /// Claims and the values they may have. An empty list is not looked at (a parameter that is not set).
    claims: BTreeMap<String, Vec<String>>,
    /// Whether a token without `exp` passes.
    #[serde(default)]
    endless: bool,
    /// The claim with the body's SHA-256 in hexadecimal.
    body_hash: Option<String>,
}

impl Rules {
    pub(crate) fn takes_secrets(&self) -> bool {
        self.jwks.is_none()
    }

    pub(crate) fn integrity(&self) -> Integrity {
        if self.body_hash.is_some() { Integrity::Body } else { Integrity::Metadata }
    }
}

/// Compiled [`Rules`] with the endpoint's secrets.
pub(crate) struct Jwt {
    rules: Rules,
    keys: Vec<hmac::Key>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<serde_json::Value>,
}

/// Whether a document is a set of keys with one in it.
pub(crate) fn has_keys(document: &[u8]) -> bool {
    serde_json::from_slice::<Keys>(document).is_ok_and(|keys| !keys.keys.is_empty())
}

impl Jwt {
    pub(crate) fn new(rules: &Rules, secrets: &[Vec<u8>]) -> Result<Self, String> {
        if rules.jwks.is_some() && rules.claims.get("aud").is_none_or(|aud| aud.iter().all(String::is_empty))
        {
            return Err("an audience (claim aud) has to be set".to_owned());
        }
        let keys = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect();
        Ok(Self { rules: rules.clone(), keys })
    }

    /// Verifies a token for a body at a time in microseconds since 1970-01-01 UTC.
    pub(crate) fn verify(&self, token: &[u8], body: &[u8], now: i64, ring: &KeyRing) -> Result<(), Failure> {
        let malformed = || Reason::Malformed("the token".to_owned());
        let text = std::str::from_utf8(token).map_err(|_| malformed())?;
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let header = json::parse(&header).map_err(|_| malformed())?;
        // RFC 7515, section 4.1.11.
        if header.get(&step("crit")).is_some() {
            return Err(malformed().into());
        }
        self.verify_signature(header, signed.as_bytes(), &signature, now, ring)?;
        let claims = json::parse(&claims).map_err(|_| malformed())?;
        self.check(claims, body, now)?;
        Ok(())
    }

    fn verify_signature(
        &self,
        header: Value<'_>,
        signed: &[u8],
        signature: &[u8],
        now: i64,
        ring: &KeyRing,
    ) -> Result<(), Failure> {
        let algorithm = member(header, "alg").unwrap_or_default();
        let Some(url) = &self.rules.jwks else {
            let holds = algorithm == "HS256"
                && self.keys.iter().any(|key| hmac::verify(key, signed, signature).is_ok());
            return if holds { Ok(()) } else { Err(Reason::Mismatch.into()) };
        };
        let Some(document) = ring.get(url, now) else {
            return Err(Failure::KeyNeeded(KeyRequest { url: url.clone() }));
        };
        let keys: Keys = serde_json::from_slice(&document)
            .map_err(|_| Reason::Malformed("the provider's set of keys".to_owned()))?;
        let id = member(header, "kid").ok_or_else(|| Reason::Missing("the token's key id".to_owned()))?;
        let key = keys.keys.iter().find(|key| key["kid"].as_str() == Some(id.as_str()));
        let Some(key) = key else {
            return Err(match ring.is_fresh(url, now) {
                true => Reason::Mismatch.into(),
                false => Failure::KeyNeeded(KeyRequest { url: url.clone() }),
            });
        };
        let number = |name: &str| key[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let holds = match (algorithm.as_str(), key["kty"].as_str()) {
            ("RS256", Some("RSA")) => match (number("n"), number("e")) {
                (Some(n), Some(e)) => PublicKeyComponents { n, e }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                    .is_ok(),
                _ => false,
            },
            ("ES256", Some("EC")) if key["crv"] == "P-256" => match (number("x"), number("y")) {
                (Some(x), Some(y)) => {
                    let point = [&[4], x.as_slice(), y.as_slice()].concat();
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
                }
                _ => false,
            },
            _ => false,
        };
        if holds { Ok(()) } else { Err(Reason::Mismatch.into()) }
    }

    fn check(&self, claims: Value<'_>, body: &[u8], now: i64) -> Result<(), Reason> {
        let seconds = now / 1_000_000;
        let time = |name: &str| -> Result<Option<i64>, Reason> {
            let Some(text) = member(claims, name) else { return Ok(None) };
            let whole = text.split('.').next().unwrap_or_default().parse();
            whole.map(Some).map_err(|_| Reason::Malformed(format!("claim {name}")))
        };
        match time("exp")? {
            Some(until) if seconds > until.saturating_add(LEEWAY) => return Err(Reason::Stale),
            None if !self.rules.endless => return Err(Reason::Missing("claim exp".to_owned())),
            _ => {}
        }
        for name in ["nbf", "iat"] {
            if time(name)?.is_some_and(|from| from > seconds.saturating_add(LEEWAY)) {
                return Err(Reason::Future);
            }
        }
        for (name, allowed) in &self.rules.claims {
            let mut allowed = allowed.iter().filter(|value| !value.is_empty()).peekable();
            if allowed.peek().is_none() {
                continue;
            }
            let value = claims.get(&step(name)).ok_or_else(|| Reason::Missing(format!("claim {name}")))?;
            let values: Vec<_> = match value.elements() {
                Some(elements) => elements.into_iter().filter_map(Value::scalar).collect(),
                None => value.scalar().into_iter().collect(),
            };
            if !allowed.any(|allowed| values.iter().any(|value| same(allowed.as_bytes(), value.as_bytes()))) {
                return Err(Reason::Mismatch);
            }
        }
        if let Some(name) = &self.rules.body_hash {
            let hash = member(claims, name).ok_or_else(|| Reason::Missing(format!("claim {name}")))?;
            if !same(sha256_hex(body).as_bytes(), hash.to_lowercase().as_bytes()) {
                return Err(Reason::Mismatch);
            }
        }
        Ok(())
    }

    /// A token of the first secret's that is good for five minutes.
    pub(crate) fn sign(&self, body: &[u8], now: i64) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut claims = serde_json::Map::new();
        for (name, allowed) in &self.rules.claims {
            if let Some(value) = allowed.iter().find(|value| !value.is_empty()) {
                claims.insert(name.clone(), value.clone().into());
            }
        }
        claims.insert("iat".to_owned(), (now / 1_000_000).into());
        claims.insert("exp".to_owned(), (now / 1_000_000 + 300).into());
        if let Some(name) = &self.rules.body_hash {
            claims.insert(name.clone(), sha256_hex(body).into());
        }
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).ok()?);
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
        Some(format!("{signed}.{signature}").into_bytes())
    }
}

fn member(object: Value<'_>, name: &str) -> Option<String> {
    object.get(&step(name)).and_then(Value::scalar).map(std::borrow::Cow::into_owned)
}

fn step(name: &str) -> Pointer {
    Pointer::of(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_795_356_367_000_000;

    fn token(header: &str, key: &[u8]) -> String {
        let signed =
            [header, r#"{"exp":1795356400,"aud":"us"}"#].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verify(jwks: Option<&str>, token: &str, ring: &KeyRing) -> Result<(), Failure> {
        let claims = BTreeMap::from([("aud".to_owned(), vec!["us".to_owned()])]);
        let rules = Rules { jwks: jwks.map(str::to_owned), claims, endless: false, body_hash: None };
        let secrets = if jwks.is_some() { Vec::new() } else { vec![b"secret".to_vec()] };
        Jwt::new(&rules, &secrets).unwrap().verify(token.as_bytes(), b"", NOW, ring)
    }

    #[test]
    fn a_header_that_asks_for_more_than_is_understood_is_refused() {
        let ring = KeyRing::default();
        let secret = |header| verify(None, &token(header, b"secret"), &ring);
        assert_eq!(secret(r#"{"alg":"HS256"}"#), Ok(()));
        for header in [
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            "[]",
        ] {
            assert!(secret(header).is_err(), "{header}");
        }
    }

    /// A public key is no secret: who signs with it, as if it were one, is refused.
    #[test]
    fn an_algorithm_is_bound_to_its_kind_of_key() {
        const URL: &str = "https://keys.example/jwks";
        let ring = KeyRing::default();
        let document = br#"{"keys":[{"kid":"k1","kty":"oct","k":"c2VjcmV0"},{"kid":"k2","kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        ring.insert(&KeyRequest { url: URL.to_owned() }, document, NOW, i64::MAX);
        for header in [
            r#"{"alg":"HS256","kid":"k1"}"#,
            r#"{"alg":"HS256","kid":"k2"}"#,
            r#"{"alg":"RS256","kid":"k1"}"#,
            r#"{"alg":"ES256","kid":"k2"}"#,
        ] {
            assert_eq!(
                verify(Some(URL), &token(header, b"secret"), &ring),
                Err(Reason::Mismatch.into()),
                "{header}"
            );
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_asked_for_now_and_then() {
        const URL: &str = "https://keys.example/jwks";
        let ring = KeyRing::default();
        let request = KeyRequest { url: URL.to_owned() };
        let token = token(r#"{"alg":"RS256","kid":"new"}"#, b"x");
        let needed = Err(Failure::KeyNeeded(request.clone()));
        assert_eq!(verify(Some(URL), &token, &ring), needed);
        let insert = |fetched_at| ring.insert(&request, br#"{"keys":[]}"#, fetched_at, i64::MAX);
        insert(NOW - 1_000_000);
        assert_eq!(verify(Some(URL), &token, &ring), Err(Reason::Mismatch.into()), "it was just asked for");
        insert(NOW - 600 * 1_000_000);
        assert_eq!(verify(Some(URL), &token, &ring), needed, "the provider may have another key by now");
    }

    #[test]
    fn a_page_that_is_no_set_of_keys_has_none() {
        assert!(has_keys(br#"{"keys":[{"kid":"k1","kty":"RSA"}]}"#));
        for page in
            ["", "<html>Please come again</html>", r#"{"error":"busy"}"#, r#"{"keys":[]}"#, r#"{"keys":{}}"#]
        {
            assert!(!has_keys(page.as_bytes()), "{page}");
        }
    }
}
