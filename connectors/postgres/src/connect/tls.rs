//! TLS as libpq's `sslmode` means it, on rustls.
//!
//! Whatever is not verified about the server's *certificate*, the handshake's signature always is: the peer owns the
//! key of the certificate it shows, which is what channel binding rests on.

use headgate_sdk::Fault;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Never TLS.
    Disable,
    /// TLS where the server has it, unverified.
    #[default]
    Prefer,
    /// TLS, unverified.
    Require,
    /// TLS, and the certificate comes from a trusted authority.
    VerifyCa,
    /// TLS, a trusted authority, and the name is the one we asked for.
    VerifyFull,
}

/// What the URL says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// `sslmode`.
    pub(crate) mode: Mode,
    /// `sslrootcert`: a PEM file, or `system`; the system's authorities where nothing is said.
    pub(crate) root: Option<String>,
    /// `sslcert`.
    pub(crate) cert: Option<PathBuf>,
    /// `sslkey`.
    pub(crate) key: Option<PathBuf>,
    /// `sslnegotiation=direct`: TLS from the first byte (PostgreSQL 17 and later).
    pub(crate) direct: bool,
}

/// Builds what rustls needs. Reads files; call it anew for each connection, so that renewed certificates are seen.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, Fault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let trust = match settings.mode {
        Mode::Disable | Mode::Prefer | Mode::Require => Trust::Anyone,
        Mode::VerifyCa => Trust::Authority(authorities(settings.root.as_deref())?),
        Mode::VerifyFull => Trust::Name(authorities(settings.root.as_deref())?),
    };
    let broken = |error: Error| {
        Fault::definite("the TLS settings of the source do not fit together").with_cause(error)
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { provider, trust }));
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                Fault::definite(format!("cannot read the client key {}", key.display()))
                    .with_cause(error)
                    .with_fix("sslkey names a PEM file with an unencrypted key that this process may read")
            })?;
            builder.with_client_auth_cert(chain, key).map_err(broken)?
        }
        _ => builder.with_no_client_auth(),
    };
    if settings.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        Fault::definite(format!("cannot read the certificates in {}", path.display()))
            .with_cause(error)
            .with_fix("name a PEM file with at least one certificate that this process may read")
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// The authorities that are trusted, and their certificates byte for byte.
#[derive(Debug)]
struct Authorities {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

fn authorities(root: Option<&str>) -> Result<Authorities, Fault> {
    let certificates = match root {
        Some(path) if path != "system" => certificates(Path::new(path))?,
        _ => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(Fault::definite("there is no certificate authority to verify the server with")
            .with_fix("add sslrootcert=/path/to/ca.pem to the url"));
    }
    Ok(Authorities { roots, certificates })
}

#[derive(Debug)]
enum Trust {
    Anyone,
    Authority(Authorities),
    Name(Authorities),
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

impl Verifier {
    fn verify_chain(
        &self,
        authorities: &Authorities,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &authorities.roots,
            intermediates,
            now,
            algorithms,
        ) {
            // A self-signed server certificate is an authority to webpki, and refused as a server's. One that stands in
            // the root file byte for byte was put there to be trusted.
            Err(Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
                if authorities.certificates.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) =>
            {
                Ok(())
            }
            verdict => verdict,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Authority(authorities) => {
                self.verify_chain(authorities, end_entity, intermediates, now)?;
            }
            Trust::Name(authorities) => {
                self.verify_chain(authorities, end_entity, intermediates, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
