//! Over a network: the server proves its name, the gateway its own by a certificate instead of a password.

use crate::support::{
    gateway::{Gateway, Settings},
    mysql,
    mysql_shop::{MySqlShop, write},
    nats::Nats,
    postgres::{Stop, Version},
    shop::{SLOT, Shop},
    tls::Authority,
    workload::{self, Load},
};

#[tokio::test]
async fn verify_full_with_a_client_certificate() {
    let (mut shop, authority) = (Shop::with(Version::Pg15, Nats::start().await).await, Authority::new());
    shop.postgres.speak_tls(&authority).await;
    shop.postgres.execute("CREATE ROLE cdc LOGIN SUPERUSER").await;
    shop.postgres.allow("hostssl all cdc all cert").await;
    let cdc = authority.certify("cdc");
    let source = format!(
        "postgres://cdc@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        shop.postgres.port(),
        authority.certificate().display(),
        cdc.certificate.display(),
        cdc.key.display()
    );
    let mut gateway = Gateway::start(&Settings { source, ..shop.settings() }).await;
    shop.postgres.slot_is_active(SLOT).await;
    let sql = "SELECT count(*) FILTER (WHERE ssl AND client_dn = '/CN=cdc'), count(*) FROM pg_stat_ssl \
               JOIN pg_stat_activity USING (pid) WHERE usename = 'cdc'";
    let row = shop.postgres.client().await.query_one(sql, &[]).await.unwrap();
    let (proven, all): (i64, i64) = (row.get(0), row.get(1));
    assert!(proven >= 2 && proven == all, "{proven} of {all} sessions");
    let writing = workload::start(&Load::steady(shop.postgres.url(), 80));
    shop.postgres.stop(Stop::Fast);
    shop.postgres.start_again().await;
    shop.postgres.slot_is_active(SLOT).await;
    writing.stop().await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
}

/// The account is let in with a certificate only, on the connections that the driver makes and on the one of the log.
async fn verify_identity_with_a_client_certificate(version: mysql::Version) {
    let authority = Authority::new();
    let (server, cdc) = (authority.certify("localhost"), authority.certify("cdc"));
    let secured = [
        format!("--ssl-ca={}", authority.certificate().display()),
        format!("--ssl-cert={}", server.certificate.display()),
        format!("--ssl-key={}", server.key.display()),
    ];
    let Some(shop) = MySqlShop::with(version, &secured.each_ref().map(String::as_str)).await else { return };
    shop.server.execute(&["ALTER USER cdc REQUIRE X509"]).await;
    let source = format!(
        "mysql://cdc:{}@localhost:{}/shop?ssl-mode=verify_identity&ssl-ca={}&ssl-cert={}&ssl-key={}",
        mysql::PASSWORD,
        shop.server.port(),
        authority.certificate().display(),
        cdc.certificate.display(),
        cdc.key.display()
    );
    let mut gateway = Gateway::start(&Settings { source, ..shop.settings() }).await;
    write(&shop.server, 3, 2, 50).join_all().await;
    shop.assert_faithful().await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn verify_identity_with_a_client_certificate_mysql() {
    verify_identity_with_a_client_certificate(mysql::Version::MySql97).await;
}

#[tokio::test]
async fn verify_identity_with_a_client_certificate_mariadb() {
    verify_identity_with_a_client_certificate(mysql::Version::MariaDb1011).await;
}
