//! What can be known about a run before it: each finding with why it matters and the statement or the setting that
//! fixes it. Changes nothing.
//!
//! One concern a file. A concern that cannot be looked at is a finding itself, and the others go on.

mod ask;
mod connections;
mod given;
mod pooler;
mod retention;
mod role;
mod server;
mod slot;
mod standby;
mod tables;
mod transport;

use crate::{
    Config,
    connect::{Server, Target},
    facilities::Facilities,
    publication::{Plan, Publications},
    row_filter,
};
use headgate_sdk::{Fault, Finding};
use tokio_postgres::Client;

/// What all concerns look at.
struct Site<'a> {
    source: &'a str,
    config: &'a Config,
    server: &'a Server,
    client: &'a Client,
    facilities: &'a Facilities,
}

type Findings = Result<Vec<Finding>, Fault>;

/// Asks the database of `source` whether a run will work, and whether it will go on working.
pub async fn check(source: &str, config: &Config) -> Vec<Finding> {
    let target = match Target::new(config, source) {
        Ok(target) => target,
        Err(fault) => return vec![Finding::fault("url", &fault)],
    };
    let mut findings = pooler::known_places(&target);
    let (server, session) = match Server::find(target).await {
        Ok(reached) => reached,
        Err(fault) => {
            findings.insert(0, Finding::fault("connection", &fault));
            return findings;
        }
    };
    findings.insert(
        0,
        Finding::good(
            "connection",
            format!("{} at {} as {}", server.target.database, server.address, server.target.user),
        ),
    );
    let client = &*session.client;
    let facilities = match Facilities::of(client).await {
        Ok(facilities) => facilities,
        Err(fault) => {
            findings.push(Finding::fault("server", &fault));
            return findings;
        }
    };
    let site = Site { source, config, server: &server, client, facilities: &facilities };
    let mut add = |subject: &str, found: Findings| match found {
        Ok(found) => findings.extend(found),
        Err(fault) => findings.push(Finding::fault(subject, &fault)),
    };
    add("transport", transport::look(&site).await);
    add("server", server::look(&site).await);
    add("standby", standby::look(&site).await);
    add("replication", role::replication(&site).await);
    add("role", role::look(&site).await);
    add("connections", connections::look(&site).await);
    add("slot", slot::look(&site).await);
    add("retention", retention::look(&site).await);
    let mut publications = Publications::new(source, config, facilities.version);
    if let Err(fault) = publications.try_row_filters(client, facilities.standby).await {
        add("row filters", Err(fault));
    }
    match publications.plan(client).await {
        Ok(plan) => {
            for table in &plan.orphans {
                add("row filters", Err(row_filter::absent(table)));
            }
            for (table, columns) in &plan.uncovered {
                add("row filters", Err(row_filter::uncovered(table, columns)));
            }
            add("publication", publication(&site, &publications, &plan).await);
            add("tables", tables::look(&site, &publications, &plan).await);
        }
        Err(fault) => add("publication", Err(fault)),
    }
    findings
}

/// The publications, or what is missing to make them.
async fn publication(site: &Site<'_>, publications: &Publications, plan: &Plan) -> Findings {
    let mut findings = Vec::new();
    if !publications.are_kept() {
        return given::look(site, publications, plan).await;
    }
    if let Some(fault) = plan.foreign_fault(&site.server.target.user) {
        findings.push(Finding::fault("ownership", &fault));
    }
    findings.push(if plan.missing.is_empty() {
        Finding::good("publication", publications.names().join(" and "))
    } else {
        role::publication_to_come(site, plan).await?
    });
    Ok(findings)
}
