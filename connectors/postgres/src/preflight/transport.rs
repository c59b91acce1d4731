//! Whether others can read along on the way to the server, or pose as it.

use super::{Findings, Site, ask};
use crate::connect::{Address, Mode};
use headgate_sdk::Finding;

pub(super) async fn look(site: &Site<'_>) -> Findings {
    let near = match &site.server.address {
        Address::Unix(_) => true,
        Address::Tcp(_, address) => address.ip().is_loopback(),
    };
    let version: Option<String> = ask::one(
        site.client,
        "look at the connection",
        "SELECT (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl)",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    let verified = matches!(site.server.target.tls.mode, Mode::VerifyFull);
    Ok(vec![match version {
        Some(version) if verified || near => Finding::good("transport", version),
        Some(version) => Finding::warning(
            "transport",
            format!("{version}, but the server's name is not verified"),
            "somebody between here and the server could pose as it, and read the rows and the password",
        )
        .with_fix(
            "sslmode=verify-full in the url, with sslrootcert=… where the authority is not a public one",
        ),
        None if near => Finding::good("transport", "in the clear, on this machine"),
        None => Finding::warning(
            "transport",
            "in the clear, over a network",
            "everybody on the way can read every row",
        )
        .with_fix("sslmode=verify-full in the url; ssl = on at the server"),
    }])
}
