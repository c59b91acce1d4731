//! Connections to the server: one for replication, made by hand, and ordinary SQL sessions beside it, all to the same
//! address of the same host.
//!
//! Secrets stay in [`Target`]; no error made here holds one.

mod end_point;
mod socket;
mod sql;
mod startup;
mod stream;
mod target;
mod tls;

pub(crate) use self::{
    socket::{Address, Socket},
    sql::SqlSession,
    startup::Backend,
    stream::Unwatch,
    target::Target,
};

use headgate_sdk::{Fault, FaultKind};
use tokio_postgres::config::TargetSessionAttrs;

/// A server that was reached: the address is settled, so that all connections go to one server.
pub(crate) struct Server {
    pub(crate) target: Target,
    pub(crate) address: Address,
}

impl Server {
    /// Tries the URL's hosts in order, and all addresses of each, until one takes an SQL session that fits.
    pub(crate) async fn find(target: Target) -> Result<(Self, SqlSession), Fault> {
        let mut last = None;
        for place in &target.places {
            let addresses = match socket::resolve(place).await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    last = Some(fault);
                    continue;
                }
            };
            for address in addresses {
                match sql_session(&target, &address).await {
                    Ok(session) => return Ok((Self { target, address }, session)),
                    // As libpq: a server that answers and refuses ends the search, unless it is the wrong one of several.
                    Err(fault) if fault.kind() == FaultKind::Definite && target.places.len() == 1 => {
                        return Err(fault);
                    }
                    Err(fault) => last = Some(fault),
                }
            }
        }
        Err(last.unwrap_or_else(|| Fault::transient("the database's host has no address")))
    }

    /// Another SQL session.
    pub(crate) async fn sql(&self) -> Result<SqlSession, Fault> {
        sql_session(&self.target, &self.address).await
    }

    /// The socket of a session in replication mode that is ready for commands, with its text in `encoding`.
    pub(crate) async fn replication(&self, encoding: &str) -> Result<(Socket, Backend), Fault> {
        let mut socket = socket::dial(&self.target, &self.address).await?;
        let start = startup::start_replication_session(&mut socket, &self.target, encoding);
        match tokio::time::timeout(self.target.timeout, start).await {
            Ok(backend) => Ok((socket, backend?)),
            Err(_) => Err(slow(&self.target, &self.address)),
        }
    }
}

fn slow(target: &Target, address: &Address) -> Fault {
    Fault::transient(format!("the database at {address} did not start a session within {:?}", target.timeout))
}

async fn sql_session(target: &Target, address: &Address) -> Result<SqlSession, Fault> {
    let socket = socket::dial(target, address).await?;
    let start = async {
        let session = SqlSession::start(socket, target).await?;
        let wanted = match target.attributes {
            TargetSessionAttrs::ReadWrite => "off",
            TargetSessionAttrs::ReadOnly => "on",
            _ => return Ok(session),
        };
        let row =
            session.client.query_one("SELECT current_setting('transaction_read_only')", &[]).await.map_err(
                |error| crate::refusal::sql_fault(error, "cannot ask the server whether it takes writes"),
            )?;
        let found: &str = row.try_get(0).unwrap_or_default();
        if found != wanted {
            return Err(Fault::transient(format!(
                "the database at {address} is not the one that target_session_attrs asks for"
            )));
        }
        Ok(session)
    };
    match tokio::time::timeout(target.timeout, start).await {
        Ok(session) => session,
        Err(_) => Err(slow(target, address)),
    }
}
