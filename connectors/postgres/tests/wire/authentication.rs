//! Every way in that is supported works, and every other is refused with a word on what to do.

use crate::{run::Run, server::Server};
use headgate_postgres::Config;
use headgate_sdk::{Fault, FaultKind, Resume};
use std::process::Command;

/// A server with a role for each kind of password, and TLS with a certificate of its own authority.
async fn server() -> Server {
    let mut server =
        Server::prepare(&[("ssl", "on"), ("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key")]);
    let data = server.data();
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .current_dir(&data)
            .args(arguments.split(' '))
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "openssl {arguments}");
    };
    std::fs::write(data.join("names"), "subjectAltName=DNS:localhost").unwrap();
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -subj /CN=authority -days 2",
    );
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    );
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -sha384 -extfile names",
    );
    for name in ["server.key", "server.crt"] {
        server.0.write(name, &std::fs::read_to_string(data.join(name)).unwrap());
    }
    server.up().await;
    server
        .admin()
        .await
        .batch_execute(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'p:a@s/s'; CREATE ROLE clear LOGIN SUPERUSER PASSWORD 'pass'; \
             CREATE ROLE plain LOGIN PASSWORD 'pass'; SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN SUPERUSER PASSWORD 'pass'; CREATE TABLE t (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    server
        .0
        .allow("local all clear password\nhost all scram all scram-sha-256\nhost all plain all scram-sha-256\nhost all hashed all md5\nhost all clear all password")
        .await;
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
    let server = server().await;
    let port = server.port();
    let ca = server.data().join("ca.crt").display().to_string();
    let scram =
        |host: &str, rest: &str| format!("postgres://scram:p%3Aa%40s%2Fs@{host}:{port}/postgres?{rest}");

    goes(scram("127.0.0.1", "sslmode=disable")).await;
    goes(scram("127.0.0.1", "sslmode=prefer&channel_binding=require")).await;
    goes(scram("127.0.0.1", "sslmode=require")).await;
    goes(scram("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}&channel_binding=require"))).await;
    goes(scram("localhost", &format!("sslmode=verify-full&sslrootcert={ca}"))).await;
    goes(format!("postgres://hashed:pass@127.0.0.1:{port}/postgres")).await;
    goes(format!("postgres://clear:pass@127.0.0.1:{port}/postgres?sslmode=require")).await;
    goes(format!("host={} port={port} user=clear password=pass dbname=postgres", server.0.dir().display()))
        .await;
    goes(format!(
        "postgres://scram:p%3Aa%40s%2Fs@127.0.0.1:1,127.0.0.1:{port}/postgres?target_session_attrs=read-write"
    ))
    .await;

    let fault = fails(format!("postgres://clear:pass@127.0.0.1:{port}/postgres?sslmode=disable")).await;
    assert!(fault.kind() == FaultKind::Definite && fault.message().contains("clear text"), "{fault}");
    let fault = fails(scram("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}"))).await;
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
