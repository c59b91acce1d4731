//! The broker: whether it is there, knows us, is new enough, and keeps what is published.

use crate::{
    broker::{self, Patience, Version, embedded},
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
    findings.push(version(&info.version, nats.publish));
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

/// What a server of this version cannot do, or not be trusted with.
fn version(found: &str, publish: Publish) -> Finding {
    const SUBJECT: &str = "nats-server version";
    let version = Version::parse(found);
    if version < Version::OLDEST {
        return Finding::error(SUBJECT, found, "it lacks what Headgate relies on")
            .with_fix("install nats-server 2.12 or later");
    }
    if version < Version::TESTED && publish == Publish::Atomic {
        return Finding::error(
            SUBJECT,
            found,
            "publish = \"atomic\" needs atomic batches, which came with 2.12",
        )
        .with_fix("install nats-server 2.12 or later, or set nats.publish = \"chain\"");
    }
    if version < Version::TESTED {
        return Finding::warning(SUBJECT, found, "it works, but Headgate is tested with 2.12 and later")
            .with_fix("install nats-server 2.12 or later");
    }
    if publish == Publish::Atomic && !version.has_sound_batches() {
        let why = "the broker can come to a deadlock or a panic over atomic batches on replicated streams, which later \
                   patches mend";
        return Finding::warning(SUBJECT, found, why)
            .with_fix("install nats-server 2.12.12, 2.14.3 or later, or set nats.publish = \"chain\"");
    }
    Finding::good(SUBJECT, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_sdk::Severity;

    #[test]
    fn what_a_version_lacks_depends_on_how_is_published() {
        for (found, chain, atomic) in [
            ("2.9.25", Severity::Error, Severity::Error),
            ("2.11.4", Severity::Warning, Severity::Error),
            ("2.12.1-RC.2", Severity::Good, Severity::Warning),
            ("2.14.2", Severity::Good, Severity::Warning),
            ("2.12.12", Severity::Good, Severity::Good),
            ("2.15.1", Severity::Good, Severity::Good),
        ] {
            assert_eq!(version(found, Publish::Chain).severity, chain, "{found}");
            assert_eq!(version(found, Publish::Atomic).severity, atomic, "{found}");
        }
    }
}
