//! Keys in X.509 certificates that a delivery names by URL (AWS SNS, PayPal).
//!
//! The URL decides which key is believed, so it must be the provider's: scheme `https`, a host and a path of its own. The
//! certificate is fetched over TLS from there; its own chain is not checked again.

use super::Failure;
use crate::{
    KeyRequest, KeyRing, Reason,
    template::{Scope, Template},
};
use aws_lc_rs::signature::{ParsedPublicKey, VerificationAlgorithm};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// The `certificate` table of a provider's `[[verify]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// Where the URL is.
    url: String,
    /// What it may look like, see [`is_like`].
    like: Vec<String>,
}

/// Compiled [`Rules`].
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) url: Template,
    like: Vec<String>,
}

impl Certificate {
    pub(crate) fn new(rules: &Rules) -> Result<Self, String> {
        Ok(Self { url: Template::parse(&rules.url)?, like: rules.like.clone() })
    }

    /// The key that the delivery names.
    pub(crate) fn key(
        &self,
        scope: &Scope<'_>,
        algorithm: &'static dyn VerificationAlgorithm,
        ring: &KeyRing,
    ) -> Result<ParsedPublicKey, Failure> {
        let url = self.url.render(scope)?;
        let url = url.ok_or_else(|| Reason::Missing("the certificate's URL".to_owned()))?;
        if !self.like.iter().any(|like| is_like(&url, like)) {
            return Err(Reason::ForeignKey.into());
        }
        let Some(pem) = ring.get(&url, scope.request.received_at) else {
            return Err(Failure::KeyNeeded(KeyRequest { url }));
        };
        public_key(&pem)
            .and_then(|spki| ParsedPublicKey::new(algorithm, spki).ok())
            .ok_or_else(|| Reason::Malformed("the provider's certificate".to_owned()).into())
    }
}

/// Whether a URL is one of the provider's: `*` stands for letters, digits, `-` and `_`, one at least; every other
/// character for itself. So a `*` never reaches over a dot or a slash, and no user, port, query or fragment fits in.
pub(crate) fn is_like(url: &str, like: &str) -> bool {
    let mut parts = like.split('*');
    let Some(mut rest) = parts.next().and_then(|first| url.strip_prefix(first)) else { return false };
    for part in parts {
        let word =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)).count();
        // The word is as long as can be; what follows it must be the literal part.
        if word == 0 {
            return false;
        }
        match rest.get(word..).and_then(|after| after.strip_prefix(part)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Whether a document has a certificate with a public key in it.
pub(crate) fn has_key(document: &[u8]) -> bool {
    public_key(document).is_some()
}

/// The first certificate's public key, as DER.
fn public_key(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (encoded, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let encoded: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = rustls::pki_types::CertificateDer::from(STANDARD.decode(encoded).ok()?);
    let certificate = webpki::EndEntityCert::try_from(&der).ok()?;
    Some(certificate.subject_public_key_info().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_providers_own_urls_pass() {
        let like = "https://sns.*.amazonaws.com/SimpleNotificationService-*.pem";
        assert!(is_like("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem", like));
        for url in [
            "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-0a1b.pem",
            "https://sns.evil.example/x.amazonaws.com/SimpleNotificationService-0a1b.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-0a1b.pem",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem?x",
            "https://sns.us-east-1.amazonaws.com/bucket/SimpleNotificationService-0a1b.pem",
            "https://sns..amazonaws.com/SimpleNotificationService-0a1b.pem",
            "",
        ] {
            assert!(!is_like(url, like), "{url}");
        }
    }

    #[test]
    fn a_page_that_is_no_certificate_has_no_key() {
        const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIUMsQos16GPVvuj8gJpJhaUThCIdEwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjMwODExNDNaGA8yMTI2MTAzMDA4MTE0
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHeY
KqYd1QKNIxghsd5ITvgp3T+kOmrS0SOnrLwak0gQXbYPy+eZsIaMSpBtckGtlfe8
kITpry3MPmduP0m4TOCjTTBLMB0GA1UdDgQWBBTdZMGgnknLa2LNybhJOFiW/KO/
IjAfBgNVHSMEGDAWgBTdZMGgnknLa2LNybhJOFiW/KO/IjAJBgNVHRMEAjAAMAoG
CCqGSM49BAMCA0cAMEQCIHiErv/QG2nTymfXcbdnB5s56murTioyW785POW49aTy
AiBtqdwYukis+Rr6O0+z5XtnuUjmIOsA3+2w16GHGnfI0A==
-----END CERTIFICATE-----
";
        assert!(has_key(PEM.as_bytes()));
        assert!(!has_key(&PEM.as_bytes()[..PEM.len() / 2]));
        for page in ["", "<html>Please come again</html>", &PEM.replace('M', "A")] {
            assert!(!has_key(page.as_bytes()), "{page}");
        }
    }
}
