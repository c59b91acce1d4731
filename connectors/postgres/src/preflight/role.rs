//! Who we are: whether the role may read the log, make publications, keep a quiet log moving, and see what others do.

use super::{Findings, Site, ask, pooler};
use crate::publication::Plan;
use headgate_sdk::{Fault, Finding};
use postgres_protocol::escape::escape_identifier;

/// Whether a replication session starts, and whether it starts at the server itself. Managed services give the right by
/// membership, so what decides is the session, not the catalog.
pub(super) async fn replication(site: &Site<'_>) -> Findings {
    let user = &site.server.target.user;
    let entitled: bool = ask::one(
        site.client,
        "look at the role",
        "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    // The session lives until the pooler has been looked for: its process is asked about.
    let started = site.server.replication("UTF8").await;
    let pid = started.as_ref().ok().map(|(_, backend)| backend.pid);
    let mut findings = vec![match &started {
        Ok(_) => Finding::good("replication", format!("{user} may replicate")),
        Err(_) if !entitled => Finding::error(
            "replication",
            format!("{user} may not replicate"),
            "the log can be read only by a role with REPLICATION",
        )
        .with_fix(format!(
            "ALTER ROLE {} REPLICATION; on Amazon RDS: GRANT rds_replication TO {0}",
            escape_identifier(user)
        )),
        Err(fault) => Finding::fault("replication", fault),
    }];
    findings.extend(pooler::look(site, pid).await?);
    Ok(findings)
}

pub(super) async fn look(site: &Site<'_>) -> Findings {
    const STATEMENT: &str = "SELECT r.rolsuper, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
        has_function_privilege(p.oid, 'EXECUTE'), p.oid::regprocedure::text \
        FROM pg_roles r, (SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype) p WHERE r.rolname = current_user";
    // The function has one argument more from PostgreSQL 17 on.
    let (superuser, sees_all, may_beat, function): (bool, bool, bool, String) =
        ask::one(site.client, "look at the role's privileges", STATEMENT, &[], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        })
        .await?;
    let user = &site.server.target.user;
    let role = escape_identifier(user);
    let mut findings = Vec::new();
    if superuser {
        findings.push(
            Finding::warning(
                "role",
                format!("{user} is a superuser"),
                "whoever gets hold of the url may do everything; reading the log needs far less",
            )
            .with_fix("headgate init URL --role headgate prints the statements that make a role with the least privileges"),
        );
    } else {
        findings.push(Finding::good("role", format!("{user} is no superuser")));
    }
    if !sees_all {
        findings.push(
            Finding::warning(
                "statistics",
                format!("{user} does not see other roles' sessions"),
                "when a forgotten transaction makes the server keep its log, nobody can say whose it is",
            )
            .with_fix(format!("GRANT pg_read_all_stats TO {role}")),
        );
    }
    if !may_beat && site.config.heartbeat.is_some() && !site.facilities.standby {
        findings.push(
            Finding::warning(
                "heartbeat",
                format!("{user} may not write one"),
                "a quiet database on a busy server may keep more log than it needs",
            )
            .with_fix(format!("GRANT EXECUTE ON FUNCTION {function} TO {role}; or heartbeat = \"off\"")),
        );
    }
    Ok(findings)
}

/// Whether the publications that are missing can be made.
pub(super) async fn publication_to_come(site: &Site<'_>, plan: &Plan) -> Result<Finding, Fault> {
    let names = plan.missing.join(" and ");
    if site.facilities.standby {
        return Ok(Finding::error("publication", format!("{names} missing"), "a standby cannot make it")
            .with_fix(format!("on the primary: {}", plan.statements.join("; "))));
    }
    let may_create: bool = ask::one(
        site.client,
        "look at the role's privileges",
        "SELECT has_database_privilege(current_database(), 'CREATE')",
        &[],
        |row| row.try_get(0),
    )
    .await?;
    let target = &site.server.target;
    Ok(if may_create {
        Finding::good("publication", format!("{names} will be created"))
    } else {
        Finding::error(
            "publication",
            format!("{} may not create {names}", target.user),
            "the server sends what a publication names, and nothing else",
        )
        .with_fix(format!(
            "GRANT CREATE ON DATABASE {} TO {}; or let an administrator make one and name it: publication = \"…\"",
            escape_identifier(&target.database),
            escape_identifier(&target.user)
        ))
    })
}
