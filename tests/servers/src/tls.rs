//! A certificate authority of a test's own, by the `openssl` program.

use crate::{eventually, postgres::Postgres};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// An authority that nobody else trusts.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
}

/// What somebody shows who they are with: PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("headgate-authority-").tempdir().unwrap();
        let make = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority", "-days", "2"];
        openssl(dir.path(), &[&["req", "-x509"], &NEW_KEY[..], &make].concat());
        Self { dir }
    }

    /// Its own certificate, to be trusted.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Certifies that somebody has this name, as a host and as a user.
    #[must_use]
    pub fn certify(&self, name: &str) -> Identity {
        let file = |kind: &str| format!("{name}.{kind}");
        let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
        std::fs::write(self.dir.path().join("names"), format!("subjectAltName=DNS:{name}")).unwrap();
        let subject = format!("/CN={name}");
        let ask = ["-keyout", &key, "-out", &request, "-subj", &subject];
        openssl(self.dir.path(), &[&["req"], &NEW_KEY[..], &ask].concat());
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
        let into = ["-out", &certificate, "-days", "2", "-sha384", "-extfile", "names"];
        openssl(self.dir.path(), &[&sign[..], &into].concat());
        let path = |name: &str| self.dir.path().join(name);
        Identity { certificate: path(&certificate), key: path(&key) }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Postgres {
    /// Whether the running server was built with TLS.
    pub async fn knows_tls(&self) -> bool {
        let library = self.client().await.query_one("SHOW ssl_library", &[]).await.unwrap();
        !library.get::<_, &str>(0).is_empty()
    }

    /// Lets the running server speak TLS as `localhost`, and ask clients for certificates of this authority.
    ///
    /// # Panics
    /// It was built without TLS.
    pub async fn speak_tls(&self, authority: &Authority) {
        let identity = authority.certify("localhost");
        for (name, path) in [
            ("server.crt", identity.certificate),
            ("server.key", identity.key),
            ("authority.crt", authority.certificate()),
        ] {
            self.write(name, &std::fs::read_to_string(path).unwrap());
        }
        self.execute("ALTER SYSTEM SET ssl_ca_file = 'authority.crt'").await;
        self.execute("ALTER SYSTEM SET ssl = on").await;
        self.execute("SELECT pg_reload_conf()").await;
        eventually("the server speaks TLS", Duration::from_secs(10), || async {
            let row = self.client().await.query_one("SHOW ssl", &[]).await.unwrap();
            if row.get::<_, &str>(0) == "on" { Ok(()) } else { Err(self.log()) }
        })
        .await;
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
