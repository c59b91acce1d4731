//! Every way in that is supported works, and every other is refused with a word on what to do.

use crate::{run::Run, server::Server};
use headgate_postgres::Config;
use headgate_sdk::{Fault, FaultKind, Resume};
use headgate_test_servers::tls::Authority;
use std::path::Path;

/// A server with a role for each kind of proof, and TLS with a certificate of its own authority if it can.
async fn server(authority: &Authority) -> Server {
    let server = Server::start(&[]).await;
    let mut rules =
        "local all clear password\nhost all scram all scram-sha-256\nhost all plain all scram-sha-256\n\
                     host all hashed all md5\nhost all clear all password"
            .to_owned();
    if server.0.knows_tls().await {
        server.0.speak_tls(authority).await;
        rules.push_str("\nhostssl all certified all cert");
    }
    server
        .admin()
        .await
        .batch_execute(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'p:a@s/s'; CREATE ROLE clear LOGIN SUPERUSER PASSWORD 'pass'; \
             CREATE ROLE plain LOGIN PASSWORD 'pass'; CREATE ROLE certified LOGIN SUPERUSER; SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN SUPERUSER PASSWORD 'pass'; CREATE TABLE t (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    server.0.allow(&rules).await;
    server
}

async fn goes(url: String) {
    let run = Run::start(&Config::new(&url), Resume::default()).streaming().await;
    run.stop().await;
}

async fn fails(url: String) -> Fault {
    let (_, fault) = Run::start(&Config::new(url), Resume::default()).fault().await;
    let text = format!("{fault} {fault:?} {:?}", fault.fix());
    assert!(!text.contains("wrong!") && !text.contains("p:a@s"), "{text}");
    fault
}

#[tokio::test(flavor = "multi_thread")]
async fn every_supported_way_in_works_and_others_are_refused() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let port = server.port();
    let ca = authority.certificate().display().to_string();
    let scram =
        |host: &str, rest: &str| format!("postgres://scram:p%3Aa%40s%2Fs@{host}:{port}/postgres?{rest}");

    goes(scram("127.0.0.1", "sslmode=disable")).await;
    goes(format!("postgres://hashed:pass@127.0.0.1:{port}/postgres")).await;
    goes(format!("host={} port={port} user=clear password=pass dbname=postgres", server.0.dir().display()))
        .await;
    goes(format!(
        "postgres://scram:p%3Aa%40s%2Fs@127.0.0.1:1,127.0.0.1:{port}/postgres?target_session_attrs=read-write"
    ))
    .await;
    let verified = |host: &str| scram(host, &format!("sslmode=verify-full&sslrootcert={ca}"));
    if server.0.knows_tls().await {
        goes(scram("127.0.0.1", "sslmode=prefer&channel_binding=require")).await;
        goes(scram("127.0.0.1", "sslmode=require")).await;
        goes(scram("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}&channel_binding=require")))
            .await;
        goes(verified("localhost")).await;
        goes(format!("postgres://clear:pass@127.0.0.1:{port}/postgres?sslmode=require")).await;
    } else {
        // Nothing goes out in the clear where TLS was asked for.
        for url in [
            scram("127.0.0.1", "sslmode=require"),
            scram("127.0.0.1", "channel_binding=require"),
            verified("localhost"),
        ] {
            let fault = fails(url).await;
            assert_eq!(fault.kind(), FaultKind::Definite, "{fault}");
        }
    }

    let fault = fails(format!("postgres://clear:pass@127.0.0.1:{port}/postgres?sslmode=disable")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.message().contains("clear text"), "{fault}");
    let fault = fails(verified("127.0.0.1")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.message().contains("TLS"), "{fault}");
    let fault = fails(scram("localhost", "sslmode=verify-full&sslrootcert=system")).await;
    assert_eq!(fault.kind(), FaultKind::Definite, "{fault}");
    let fault = fails(format!("postgres://scram:wrong!@127.0.0.1:{port}/postgres")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.fix().unwrap().contains("password"), "{fault}");
    let fault = fails(format!("postgres://nobody:wrong!@127.0.0.1:{port}/postgres")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.fix().unwrap().contains("pg_hba.conf"), "{fault}");
    let fault = fails(format!("postgres://hashed:pass@127.0.0.1:{port}/missing")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.fix().unwrap().contains("missing"), "{fault}");
    let fault = fails(format!("postgres://plain:pass@127.0.0.1:{port}/postgres")).await;
    assert!(
        fault.kind() == FaultKind::Definite && fault.fix().unwrap().contains("REPLICATION"),
        "{fault} {:?}",
        fault.fix()
    );
    let fault = fails("postgres://scram@127.0.0.1:1/postgres".to_owned()).await;
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    let fault = fails(format!("postgres://scram@127.0.0.1:{port}/postgres")).await;
    assert!(fault.kind() == FaultKind::Definite, "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_what_asks_for_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = server(&authority).await;
    if !server.0.knows_tls().await {
        return;
    }
    let by = |identity: &str| {
        format!(
            "postgres://certified@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}{identity}",
            server.port(),
            authority.certificate().display()
        )
    };
    let files = |certificate: &Path, key: &Path| {
        format!("&sslcert={}&sslkey={}", certificate.display(), key.display())
    };
    let own = authority.certify("certified");
    goes(by(&files(&own.certificate, &own.key))).await;
    let others = [authority.certify("somebody"), stranger.certify("certified")];
    let mut refused: Vec<String> = others.iter().map(|other| files(&other.certificate, &other.key)).collect();
    refused.push(String::new());
    for identity in refused {
        let fault = fails(by(&identity)).await;
        assert!(fault.kind() == FaultKind::Definite && fault.fix().is_some(), "{identity}: {fault}");
    }
    let fault = fails(by(&files(&own.certificate, Path::new("/nowhere.key")))).await;
    assert!(fault.kind() == FaultKind::Definite && fault.message().contains("/nowhere.key"), "{fault}");
    let fault = fails(by(&files(&own.certificate, &others[0].key))).await;
    assert_eq!(fault.kind(), FaultKind::Definite, "a key of another certificate: {fault}");
}

/// TLS from the first byte, which PostgreSQL knows since 17, if it knows TLS.
#[tokio::test(flavor = "multi_thread")]
async fn tls_from_the_first_byte_where_the_server_knows_it() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let url = format!(
        "postgres://scram:p%3Aa%40s%2Fs@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}&sslnegotiation=direct",
        server.port(),
        authority.certificate().display()
    );
    let sql = "SELECT current_setting('server_version_num')::int";
    let version: i32 = server.admin().await.query_one(sql, &[]).await.unwrap().get(0);
    if version >= 170_000 && server.0.knows_tls().await {
        goes(url).await;
    } else {
        let fault = fails(url).await;
        assert!(fault.message().contains("TLS") || fault.fix().is_some(), "{fault}");
    }
}
