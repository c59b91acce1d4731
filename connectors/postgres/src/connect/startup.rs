//! The start of a replication connection: the startup packet, authentication, and the wait until the server is ready.
//!
//! `tokio-postgres` has no replication mode, so this is done by hand on `postgres-protocol`. Every message is read to
//! its exact end, and its length is checked before anything is allocated.

use super::{
    socket::{self, Socket},
    target::Target,
};
use crate::refusal::Refusal;
use bytes::BytesMut;
use headgate_sdk::Fault;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{self, ScramSha256},
    },
    message::{backend::Message, frontend},
};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::{config::ChannelBinding, fallible_iterator::FallibleIterator};

/// No message before the first query is longer; a server that says so is none.
const LONGEST: usize = 64 << 10;

/// Who answers on the other side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    /// The walsender's process.
    pub(crate) pid: i32,
}

/// Starts a session in replication mode, to the point where it takes commands.
pub(crate) async fn start_replication_session(
    socket: &mut Socket,
    target: &Target,
    encoding: &str,
) -> Result<Backend, Fault> {
    let mut packet = BytesMut::new();
    frontend::startup_message(
        [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("replication", "database"),
            ("client_encoding", encoding),
            ("application_name", target.application.as_str()),
            ("options", target.options.as_str()),
        ],
        &mut packet,
    )
    .map_err(|error| Fault::definite("the url of the source holds a NUL character").with_cause(error))?;
    let mut session = Session { socket, target };
    session.send(&packet).await?;
    session.authenticate().await?;
    session.ready().await
}

/// What the server did not like about who or what we are.
pub(crate) fn refused(refusal: Refusal, target: &Target) -> Fault {
    let (user, database) = (&target.user, &target.database);
    let fix = match refusal.code.as_str() {
        "28P01" => format!(
            "check the password in the url; to set it: ALTER ROLE \"{user}\" PASSWORD '…'; if there is no such role: CREATE ROLE \"{user}\" LOGIN REPLICATION PASSWORD '…'"
        ),
        "28000" => format!(
            "the role must exist and be allowed to log in (ALTER ROLE \"{user}\" LOGIN), and pg_hba.conf needs a line for it, with the database's name even for replication: host \"{database}\" \"{user}\" samenet scram-sha-256 (then SELECT pg_reload_conf())"
        ),
        "3D000" => format!("check the database in the url: there is none named \"{database}\""),
        "42501" => {
            format!("ALTER ROLE \"{user}\" REPLICATION; on Amazon RDS: GRANT rds_replication TO \"{user}\"")
        }
        "08P01" | "0A000" | "42601" => {
            "connect to the server itself: PgBouncer and most other poolers do not pass replication on"
                .to_owned()
        }
        _ => return refusal.fault(format!("the server refused the connection of {user} to {database}")),
    };
    refusal.fault(format!("the server refused the connection of {user} to {database}")).with_fix(fix)
}

struct Session<'a> {
    socket: &'a mut Socket,
    target: &'a Target,
}

impl Session<'_> {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.socket.write_all(bytes).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    /// The next message that is not merely a notice.
    async fn receive(&mut self) -> Result<Message, Fault> {
        loop {
            let mut header = [0; 5];
            self.socket.read_exact(&mut header).await.map_err(lost)?;
            let [tag, length @ ..] = header;
            let body =
                usize::try_from(u32::from_be_bytes(length)).ok().and_then(|length| length.checked_sub(4));
            let Some(body) = body.filter(|&body| body <= LONGEST) else {
                return Err(Fault::definite("what answers is not a PostgreSQL server, or one too old")
                    .with_fix("check host and port in the url"));
            };
            let mut message = BytesMut::zeroed(5 + body);
            message[..5].copy_from_slice(&header);
            self.socket.read_exact(&mut message[5..]).await.map_err(lost)?;
            match tag {
                b'E' => return Err(refused(Refusal::parse(&message[5..]), self.target)),
                b'N' => {}
                // NegotiateProtocolVersion: an option of ours is unknown to it.
                b'v' => return Err(Fault::definite("the server does not know the protocol's version 3.0")),
                _ => match Message::parse(&mut message) {
                    Ok(Some(message)) => return Ok(message),
                    Ok(None) => return Err(Fault::transient("the server sent half a message")),
                    Err(error) => {
                        return Err(Fault::definite("the server sent a message that cannot be read")
                            .with_cause(error));
                    }
                },
            }
        }
    }

    fn password(&self) -> Result<&[u8], Fault> {
        self.target.password.as_deref().ok_or_else(|| {
            Fault::definite(format!(
                "the server asks for the password of {}, and the url has none",
                self.target.user
            ))
            .with_fix("put it into the url: postgres://user:${PASSWORD}@host/database")
        })
    }

    async fn authenticate(&mut self) -> Result<(), Fault> {
        let bound = self.target.channel_binding == ChannelBinding::Require;
        let request = self.receive().await?;
        if bound && !matches!(request, Message::AuthenticationSasl(_)) {
            return Err(unbound());
        }
        match request {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                if !self.socket.is_private() {
                    return Err(cleartext());
                }
                let password = self.password()?.to_vec();
                self.send_password(&password).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(self.target.user.as_bytes(), self.password()?, body.salt());
                self.send_password(hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms = body
                    .mechanisms()
                    .map(|name| Ok(name.to_owned()))
                    .collect::<Vec<_>>()
                    .map_err(malformed)?;
                self.scram(&mechanisms).await?;
            }
            _ => {
                return Err(Fault::definite("the server asks for a kind of authentication that Headgate does not speak (GSSAPI, SSPI, Kerberos…)")
                    .with_fix(format!("give the role a line of its own in pg_hba.conf: hostssl \"{}\" \"{}\" samenet scram-sha-256", self.target.database, self.target.user)));
            }
        }
        match self.receive().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(Fault::definite(
                "the server asks for a second authentication, which Headgate does not speak",
            )),
        }
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<(), Fault> {
        let mut packet = BytesMut::new();
        frontend::password_message(password, &mut packet)
            .map_err(|_| Fault::definite("the password in the url holds a NUL character"))?;
        self.send(&packet).await
    }

    async fn scram(&mut self, mechanisms: &[String]) -> Result<(), Fault> {
        let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let wanted = self.target.channel_binding;
        let end_point = if wanted == ChannelBinding::Disable { None } else { self.socket.end_point() };
        let (binding, mechanism) = match end_point {
            Some(end_point) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::ChannelBinding::tls_server_end_point(end_point), sasl::SCRAM_SHA_256_PLUS)
            }
            _ if wanted == ChannelBinding::Require => return Err(unbound()),
            // "I could, but you did not offer": lets the server notice that somebody took its offer out.
            Some(_) => (sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
            None => (sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
        };
        if !offers(mechanism) {
            return Err(Fault::definite(format!(
                "the server offers no authentication that Headgate speaks, only {}",
                mechanisms.join(", ")
            ))
            .with_fix("use scram-sha-256 for this role in pg_hba.conf"));
        }
        let mut scram = ScramSha256::new(self.password()?, binding);
        let mut packet = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut packet).map_err(malformed)?;
        self.send(&packet).await?;
        let Message::AuthenticationSaslContinue(body) = self.receive().await? else {
            return Err(malformed(io::ErrorKind::InvalidData.into()));
        };
        scram.update(body.data()).map_err(malformed)?;
        packet.clear();
        frontend::sasl_response(scram.message(), &mut packet).map_err(malformed)?;
        self.send(&packet).await?;
        let Message::AuthenticationSaslFinal(body) = self.receive().await? else {
            return Err(malformed(io::ErrorKind::InvalidData.into()));
        };
        // This is where the server proves that it knows the password.
        scram.finish(body.data()).map_err(malformed)
    }

    async fn ready(&mut self) -> Result<Backend, Fault> {
        let mut backend = Backend { pid: 0 };
        loop {
            match self.receive().await? {
                Message::BackendKeyData(body) => backend.pid = body.process_id(),
                Message::ReadyForQuery(_) => return Ok(backend),
                Message::ParameterStatus(_) => {}
                _ => {
                    return Err(Fault::definite(
                        "the server sent a message that does not belong before the first command",
                    ));
                }
            }
        }
    }
}

/// The refusal to say a password in the clear.
pub(crate) fn cleartext() -> Fault {
    Fault::definite("the server asks for the password in clear text over a connection that others can read")
        .with_fix("use TLS (sslmode=verify-full in the url), or scram-sha-256 in pg_hba.conf")
}

fn unbound() -> Fault {
    Fault::definite("channel_binding=require, but the server does not authenticate with SCRAM-SHA-256-PLUS over this connection")
        .with_fix("use sslmode=verify-full with scram-sha-256 in pg_hba.conf and an RSA or ECDSA certificate, or channel_binding=prefer")
}

fn lost(error: io::Error) -> Fault {
    match socket::refused_in_tls(&error) {
        Some(fix) => Fault::definite("the server refused the TLS session").with_cause(error).with_fix(fix),
        None => {
            Fault::transient("lost the connection to the database while starting a session").with_cause(error)
        }
    }
}

fn malformed(error: io::Error) -> Fault {
    Fault::definite("the authentication with the server failed")
        .with_cause(error)
        .with_fix("check the password, and that no proxy stands in between")
}
