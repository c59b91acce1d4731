//! A connection that a log is dumped on: signed in as the driver does it, and with packets of our own after that.
//!
//! The driver does not give its connections away, so signing in is done here for those that carry a log; what is said, and
//! how a password is hashed, are the driver's own (`mysql_common`). Everything else goes through the driver.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>

use super::{LARGEST_PACKET, Target, Tls, packet::Packets, password, tls};
use bytes::Bytes;
use headgate_sdk::Fault;
use mysql_async::{DriverError, Error, ServerError, consts::CapabilityFlags};
use mysql_common::{
    io::ParseBuf,
    packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest},
    proto::MySerialize as _,
};
use socket2::{SockRef, TcpKeepalive};
use std::{io, time::Duration};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Room for what the server sends while we publish, so that it can go on reading its log.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The collation of what we send (`utf8mb4_general_ci`).
const COLLATION: u8 = 45;
/// First bytes of answers.
pub(crate) const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const SWITCH: u8 = 0xfe;
pub(crate) const REFUSED: u8 = 0xff;
/// What follows [`MORE`] when a password is checked by `caching_sha2_password`.
const KNOWN: u8 = 3;
const UNKNOWN: u8 = 4;
/// Asks for the key that a password is encrypted with where the connection is not.
const KEY_WANTED: u8 = 2;
/// Begins a statement.
const COM_QUERY: u8 = 0x03;

/// A signed-in connection.
pub(crate) struct Replication {
    pub(crate) packets: Packets,
}

impl Target {
    /// A new connection to dump a log on.
    pub(crate) async fn replicate(&self) -> Result<Replication, Fault> {
        let secured = self.socket.is_none() && self.tls != Tls::Disabled;
        match self.sign_in(secured).await {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) if self.tls == Tls::Preferred => {
                self.sign_in(false).await
            }
            signed_in => signed_in,
        }
        .map_err(|error| self.unreachable(error))
    }

    async fn sign_in(&self, secured: bool) -> Result<Replication, Error> {
        let signing_in = async {
            let packets = match &self.socket {
                Some(path) => Packets::new(Box::new(UnixStream::connect(path).await?)),
                None => {
                    let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
                    tune(&stream)?;
                    Packets::new(Box::new(stream))
                }
            };
            self.greet(packets, secured).await
        };
        match tokio::time::timeout(self.timeout, Box::pin(signing_in)).await {
            Ok(signed_in) => signed_in,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout))
                    .into())
            }
        }
    }

    async fn greet(&self, mut packets: Packets, secured: bool) -> Result<Replication, Error> {
        let greeting = packets.next().await?;
        if greeting.first() == Some(&REFUSED) {
            return Err(refusal(&greeting));
        }
        let greeting = ParseBuf(&greeting).parse::<HandshakePacket<'_>>(())?;
        let mut wanted = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_PLUGIN_AUTH;
        wanted.set(CapabilityFlags::CLIENT_SSL, secured);
        let capabilities = greeting.capabilities() & wanted;
        if secured {
            if !capabilities.contains(CapabilityFlags::CLIENT_SSL) {
                return Err(DriverError::NoClientSslFlagFromServer.into());
            }
            let mut request = Vec::new();
            SslRequest::new(capabilities, LARGEST_PACKET as u32, COLLATION).serialize(&mut request);
            packets.send(&request).await?;
            packets = self.secure(packets).await?;
        }
        let plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let version = greeting.server_version_parsed().unwrap_or((8, 0, 0));
        let mut login = Login {
            target: self,
            packets,
            plugin,
            nonce: greeting.nonce(),
            private: secured || self.socket.is_some(),
        };
        login.answer(version, capabilities).await?;
        login.authenticate().await?;
        Ok(Replication { packets: login.packets })
    }

    /// Wraps the connection into TLS. Nothing may have been sent to us yet that would then seem to have come encrypted.
    async fn secure(&self, packets: Packets) -> Result<Packets, Error> {
        let number = packets.number();
        let stream = packets.into_stream().ok_or(DriverError::PacketOutOfOrder)?;
        let connector = TlsConnector::from(tls::client_config(self)?);
        let stream = connector.connect(tls::server_name(&self.host)?, stream).await?;
        Ok(Packets::new(Box::new(stream)).numbered_like(number))
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(30)))?;
    // A wish: the kernel gives what it allows (net.core.rmem_max).
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

/// Somebody who is about to be let in.
struct Login<'t> {
    target: &'t Target,
    packets: Packets,
    plugin: AuthPlugin<'static>,
    nonce: Vec<u8>,
    /// Nobody can listen to what is said on this connection.
    private: bool,
}

impl Login<'_> {
    /// Says who we are.
    async fn answer(&mut self, version: (u16, u16, u16), capabilities: CapabilityFlags) -> Result<(), Error> {
        let secret = self.plugin.gen_data(self.target.password.as_deref(), &self.nonce);
        let mut response = Vec::new();
        HandshakeResponse::new(
            secret.as_deref(),
            version,
            Some(self.target.user.as_bytes()),
            None::<&[u8]>,
            Some(self.plugin.borrow()),
            capabilities,
            None,
            LARGEST_PACKET as u32,
        )
        .serialize(&mut response);
        Ok(self.packets.send(&response).await?)
    }

    /// Proves it, in the way that the server asks for.
    async fn authenticate(&mut self) -> Result<(), Error> {
        let mut switched = false;
        loop {
            let packet = self.packets.next().await?;
            match packet.first() {
                Some(&OK) => return Ok(()),
                Some(&REFUSED) => return Err(refusal(&packet)),
                Some(&SWITCH) if !switched => {
                    switched = true;
                    self.switch(&packet).await?;
                }
                Some(_) if matches!(self.plugin, AuthPlugin::MariadbParsec { .. }) => {
                    self.sign(&packet).await?;
                }
                Some(&MORE) if self.plugin == AuthPlugin::CachingSha2Password => match packet.get(1) {
                    Some(&KNOWN) => {}
                    Some(&UNKNOWN) => self.give_password().await?,
                    _ => return Err(unexpected(&packet)),
                },
                _ => return Err(unexpected(&packet)),
            }
        }
    }

    /// Another way than the one that we began with.
    async fn switch(&mut self, packet: &[u8]) -> Result<(), Error> {
        if packet.len() == 1 {
            return Err(DriverError::MysqlOldPasswordDisabled.into());
        }
        let request = ParseBuf(packet).parse::<AuthSwitchRequest<'_>>(())?;
        match request.auth_plugin() {
            plugin @ (AuthPlugin::CachingSha2Password
            | AuthPlugin::MysqlNativePassword
            | AuthPlugin::Ed25519
            | AuthPlugin::MariadbParsec { .. }) => self.plugin = plugin.into_owned(),
            AuthPlugin::MysqlOldPassword => return Err(DriverError::MysqlOldPasswordDisabled.into()),
            AuthPlugin::MysqlClearPassword => return Err(DriverError::CleartextPluginDisabled.into()),
            other => {
                let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                return Err(DriverError::UnknownAuthPlugin { name }.into());
            }
        }
        self.nonce = request.plugin_data().to_vec();
        if matches!(self.plugin, AuthPlugin::MariadbParsec { .. }) {
            // The server first has to tell how the password was salted.
            return Ok(self.packets.send(&[]).await?);
        }
        let secret = self.plugin.gen_data(self.target.password.as_deref(), &self.nonce);
        Ok(self.packets.send(secret.as_deref().unwrap_or_default()).await?)
    }

    /// The server has told how the password was salted (`parsec`).
    async fn sign(&mut self, packet: &[u8]) -> Result<(), Error> {
        // Early servers leave the first byte away.
        let salt = packet.strip_prefix(&[MORE]).unwrap_or(packet);
        let secret = self
            .plugin
            .read_add_data(salt)
            .and_then(|()| self.plugin.gen_data(self.target.password.as_deref(), &self.nonce));
        let secret = secret.ok_or(DriverError::InvalidParsecSalt)?;
        Ok(self.packets.send(&secret).await?)
    }

    /// The server does not remember the password: it wants all of it, so that nobody else can read it.
    async fn give_password(&mut self) -> Result<(), Error> {
        let password = self.target.password.as_deref().unwrap_or_default();
        let given = if self.private {
            [password.as_bytes(), &[0]].concat()
        } else {
            self.packets.send(&[KEY_WANTED]).await?;
            let packet = self.packets.next().await?;
            let key = match packet.split_first() {
                Some((&MORE, key)) => key,
                Some((&REFUSED, _)) => return Err(refusal(&packet)),
                _ => return Err(unexpected(&packet)),
            };
            password::encrypt(password, &self.nonce, key).map_err(|error| Error::Other(error.into()))?
        };
        Ok(self.packets.send(&given).await?)
    }
}

impl Replication {
    /// Runs a statement that gives no rows.
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<(), Error> {
        self.command(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        self.confirmed().await
    }

    /// Sends a command.
    pub(crate) async fn command(&mut self, command: &[u8]) -> Result<(), Error> {
        Ok(self.packets.command(command).await?)
    }

    /// The server has done what it was told.
    pub(crate) async fn confirmed(&mut self) -> Result<(), Error> {
        let packet = self.packets.next().await?;
        match packet.first() {
            Some(&OK) => Ok(()),
            Some(&REFUSED) => Err(refusal(&packet)),
            _ => Err(unexpected(&packet)),
        }
    }
}

fn unexpected(packet: &Bytes) -> Error {
    // An answer can be anything that a hostile server says; its first bytes tell what it was.
    DriverError::UnexpectedPacket { payload: packet.slice(..packet.len().min(16)).to_vec() }.into()
}

/// What the server says in an ERR packet.
pub(crate) fn refusal(packet: &[u8]) -> Error {
    let (code, rest) = match packet {
        [_, low, high, rest @ ..] => (u16::from_le_bytes([*low, *high]), rest),
        _ => (0, &[][..]),
    };
    // The state is left out before the handshake is done.
    let (state, message) = match rest {
        [b'#', rest @ ..] => rest.split_at(rest.len().min(5)),
        message => (&b"HY000"[..], message),
    };
    Error::Server(ServerError {
        code,
        state: String::from_utf8_lossy(state).into_owned(),
        message: String::from_utf8_lossy(message).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headgate_sdk::FaultKind;
    use headgate_test_servers::mysql::{MySql, Version};

    /// The server keeps a digest of a password that it was given whole, and forgets it with FLUSH PRIVILEGES. The log's
    /// connection is not always the one that comes first after that.
    #[tokio::test]
    async fn a_password_that_the_server_does_not_remember_is_given_whole() {
        if !Version::MySql97.is_installed() {
            return;
        }
        let server = MySql::start(Version::MySql97, &[]).await;
        server.execute(&["CREATE USER fresh IDENTIFIED WITH caching_sha2_password BY 'öffne dich'"]).await;
        let target = |password: &str, mode: &str| {
            let url = format!("mysql://fresh:{password}@127.0.0.1:{}/?ssl-mode={mode}", server.port());
            Target::parse(&url, Duration::from_secs(10)).unwrap()
        };
        for mode in ["disabled", "required", "preferred"] {
            server.execute(&["FLUSH PRIVILEGES"]).await;
            let refused = target("wrong", mode).replicate().await.err().unwrap();
            assert_eq!(refused.kind(), FaultKind::Definite, "{refused}");
            assert!(refused.to_string().contains("Access denied"), "{refused}");
            for round in ["whole", "by its digest"] {
                let mut connection = target("%C3%B6ffne%20dich", mode).replicate().await.expect(round);
                connection.execute("DO 1").await.unwrap();
            }
        }
    }

    #[test]
    fn refusals_are_read_with_and_without_a_state() {
        for (packet, expected) in [
            (&b"\xff\x15\x04#28000Access denied"[..], (1045, "28000", "Access denied")),
            (b"\xff\x10\x04Too many connections", (1040, "HY000", "Too many connections")),
            (b"\xff\x10\x04#28", (1040, "28", "")),
            (b"\xff", (0, "HY000", "")),
        ] {
            let Error::Server(error) = refusal(packet) else { unreachable!() };
            assert_eq!((error.code, error.state.as_str(), error.message.as_str()), expected);
        }
    }
}
