//! The broker: whether it is there, knows us, is new enough, and keeps what is published.

use crate::{
    broker::{self, Patience, embedded},
    config::{Config, Nats, Publish, Server},
};
use async_nats::{Client, jetstream};
use headgate_sdk::Finding;
use std::time::Duration;

/// What there is to say about the broker, and the connection to it if there is one.
pub(super) async fn findings(config: &Config) -> (Vec<Finding>, Option<Client>) {
    let mut findings = Vec::new();
    let mut startable = true;
    let name = format!("{} check", config.gateway.name);
    if let Server::Embedded(settings) = &config.nats.server {
        if let Err(error) = embedded::is_free(settings).await {
            let why = "Headgate cannot start a broker of its own";
            findings.push(Finding::error("embedded server", error.to_string(), why).with_fix(error.fix()));
            return (findings, None);
        }
        match embedded::program(settings) {
            Ok(program) => findings.push(Finding::good("embedded server", program.display().to_string())),
            Err(error) => {
                let why = "Headgate cannot start a broker of its own";
                findings
                    .push(Finding::error("embedded server", error.to_string(), why).with_fix(error.fix()));
                startable = false;
            }
        }
    }
    match broker::connect(&config.nats, &name, Patience::Once).await {
        Ok((client, _)) => {
            findings.extend(server_findings(&client, &config.nats).await);
            (findings, Some(client))
        }
        Err(_) if matches!(config.nats.server, Server::Embedded(_)) => {
            if startable {
                findings.push(Finding::good("connection", "not running yet; headgate run starts it"));
            }
            (findings, None)
        }
        Err(error) => {
            let why = "events have nowhere to go";
            findings.push(Finding::error("connection", error.to_string(), why).with_fix(error.fix()));
            (findings, None)
        }
    }
}

async fn server_findings(client: &Client, nats: &Nats) -> Vec<Finding> {
    const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(5);
    const USUAL_PAYLOAD: usize = 1 << 20;
    let info = client.server_info();
    let mut findings = vec![Finding::good("connection", nats.server.to_string())];
    let version = version(&info.version);
    findings.push(if version < (2, 10) {
        Finding::error("nats-server version", &info.version, "it lacks what Headgate relies on")
            .with_fix("install nats-server 2.12 or later")
    } else if version < (2, 12) && nats.publish == Publish::Atomic {
        Finding::error(
            "nats-server version",
            &info.version,
            "publish = \"atomic\" needs atomic batches, which came with 2.12",
        )
        .with_fix("install nats-server 2.12 or later, or set nats.publish = \"chain\"")
    } else if version < (2, 12) {
        Finding::warning(
            "nats-server version",
            &info.version,
            "it works, but Headgate is tested with 2.12 and later",
        )
        .with_fix("install nats-server 2.12 or later")
    } else {
        Finding::good("nats-server version", &info.version)
    });
    let context = jetstream::new(client.clone());
    findings.push(match tokio::time::timeout(ACCOUNT_TIMEOUT, context.query_account()).await {
        Ok(Ok(account)) => Finding::good(
            "jetstream",
            format!("{} streams, {} consumers", account.streams, account.consumers),
        ),
        Ok(Err(error)) => without_jetstream(error.to_string()),
        Err(_) => without_jetstream(format!("no answer within {ACCOUNT_TIMEOUT:?}")),
    });
    findings.push(if info.max_payload < USUAL_PAYLOAD {
        let why = "the data of a larger event goes to an object store, which costs its subscribers a second request";
        Finding::warning("max_payload", format!("{} bytes", info.max_payload), why)
            .with_fix("max_payload: 8MB in the server's configuration")
    } else {
        Finding::good("max_payload", format!("{} bytes", info.max_payload))
    });
    findings
}

fn without_jetstream(what: String) -> Finding {
    Finding::error("jetstream", what, "events are kept in JetStream streams")
        .with_fix("jetstream {} in the server's configuration, and for this account")
}

/// Major and minor number; zeros where the text is no version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(
            version("2.9.25") < (2, 10) && version("v2.12.1-RC.2") == (2, 12) && version("2.15.1") > (2, 12)
        );
    }
}
