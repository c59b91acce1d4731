//! From an address to a wire that may be published on: INFO, TLS, CONNECT, and the server's word that it took us.

use super::{
    INBOX, Lost, TAGGED, Transport, Wire, protocol,
    protocol::{Info, Op},
    tls,
};
use crate::{
    broker::{CONNECT_TIMEOUT, address, random},
    config::{Auth, Nats},
};
use async_nats::ServerAddr;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// What we say of ourselves. Secrets are in it: no `Debug`.
#[derive(Serialize)]
struct Connect<'a> {
    name: &'a str,
    lang: &'static str,
    version: &'static str,
    protocol: u8,
    verbose: bool,
    pedantic: bool,
    echo: bool,
    headers: bool,
    no_responders: bool,
    tls_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

impl Wire {
    /// Connects as `name` to the first of the configured servers that takes us.
    ///
    /// # Errors
    /// None did; what the last one said.
    pub async fn connect(nats: &Nats, name: &str) -> Result<Self, Lost> {
        Self::connect_from(nats, name, &mut 0).await
    }

    /// The same, beginning with the server at a place in their list, counted from 0, which afterwards is the place of the
    /// one that took us: a dead server, which is waited for, costs that time once and not with each connection.
    ///
    /// # Errors
    /// None did; what the last one said.
    pub async fn connect_from(nats: &Nats, name: &str, place: &mut usize) -> Result<Self, Lost> {
        let (servers, login) = address::addresses(&nats.server).map_err(Lost::new)?;
        let auth = match &nats.auth {
            Auth::None => &login,
            auth => auth,
        };
        let mut failed = Lost::new("no server is configured");
        let count = servers.len();
        for (index, server) in servers.iter().enumerate().cycle().skip(*place % count.max(1)).take(count) {
            let greeting = greet(server, nats, auth, name);
            failed = match timeout(CONNECT_TIMEOUT, greeting).await {
                Ok(Ok(wire)) => {
                    *place = index;
                    return Ok(wire);
                }
                Ok(Err(Lost(reason))) => Lost(format!("{}:{}: {reason}", server.host(), server.port())),
                Err(_) => {
                    Lost(format!("{}:{}: no answer within {CONNECT_TIMEOUT:?}", server.host(), server.port()))
                }
            };
        }
        Err(failed)
    }
}

async fn greet(server: &ServerAddr, nats: &Nats, auth: &Auth, name: &str) -> Result<Wire, Lost> {
    let socket = TcpStream::connect((server.host(), server.port())).await?;
    socket.set_nodelay(true)?;
    // What the kernel still holds when this connection is given up, or its process is killed, is of no use to anybody:
    // whoever publishes next has read what the stream holds, and sends the rest himself.
    socket.set_zero_linger()?;
    let mut transport: Box<dyn Transport> = Box::new(socket);
    let mut input = BytesMut::new();
    let info = match receive(&mut transport, &mut input).await? {
        Op::Info(info) => info,
        Op::Error(error) => return Err(Lost(error)),
        _ => return Err(Lost::new("this is not a nats server")),
    };
    if !info.headers {
        return Err(Lost::new("the server takes no headers"));
    }
    let wanted = nats.tls.required || server.tls_required();
    if wanted && !info.tls_required && !info.tls_available {
        return Err(Lost::new("the server has no TLS"));
    }
    let with_tls = wanted || info.tls_required;
    if with_tls {
        // Bytes behind the INFO would be taken for part of the encrypted stream, whoever put them there.
        if !input.is_empty() {
            return Err(Lost::new("the server sends before TLS"));
        }
        let host = ServerName::try_from(server.host().to_owned()).map_err(|error| Lost(error.to_string()))?;
        let connector = TlsConnector::from(tls::client_config(&nats.tls).map_err(Lost)?);
        transport = Box::new(connector.connect(host, transport).await?);
    }
    let inbox = format!("_INBOX.headgate{:016x}{:016x}", random(), random());
    let mut greeting = b"CONNECT ".to_vec();
    serde_json::to_writer(&mut greeting, &introduction(&info, auth, name, with_tls)?)
        .map_err(|error| Lost(error.to_string()))?;
    greeting.extend_from_slice(
        format!("\r\nSUB {inbox} {INBOX}\r\nSUB {inbox}.tag.* {TAGGED}\r\nPING\r\n").as_bytes(),
    );
    transport.write_all(&greeting).await?;
    transport.flush().await?;
    loop {
        match receive(&mut transport, &mut input).await? {
            Op::Pong => break,
            Op::Error(error) => return Err(Lost(error)),
            Op::Ping => transport.write_all(b"PONG\r\n").await?,
            Op::Ok | Op::Info(_) | Op::Held(_) | Op::Asked(_) | Op::Message(_) => {}
        }
    }
    Ok(Wire::new(transport, input, inbox, info.max_payload))
}

/// Waits for one whole operation.
async fn receive(transport: &mut Box<dyn Transport>, input: &mut BytesMut) -> Result<Op, Lost> {
    loop {
        if let Some(op) = protocol::next(input).map_err(Lost)? {
            return Ok(op);
        }
        if transport.read_buf(input).await? == 0 {
            return Err(Lost::new("the connection was closed"));
        }
    }
}

fn introduction<'a>(
    info: &Info,
    auth: &'a Auth,
    name: &'a str,
    tls_required: bool,
) -> Result<Connect<'a>, Lost> {
    let mut connect = Connect {
        name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        verbose: false,
        pedantic: false,
        echo: false,
        headers: true,
        no_responders: true,
        tls_required,
        user: None,
        pass: None,
        auth_token: None,
        jwt: None,
        nkey: None,
        sig: None,
    };
    match auth {
        Auth::None => {}
        Auth::Token(token) => connect.auth_token = Some(token),
        Auth::Password(user, password) => {
            (connect.user, connect.pass) = (Some(user.as_str()), Some(password.as_str()));
        }
        Auth::Nkey(seed) => {
            let (public, signature) = sign(seed, info)?;
            (connect.nkey, connect.sig) = (Some(public), Some(signature));
        }
        Auth::Credentials(text) => {
            let (jwt, seed) = decorated(text).ok_or_else(|| Lost::new("nats.credentials cannot be read"))?;
            let (_, signature) = sign(seed, info)?;
            (connect.jwt, connect.sig) = (Some(jwt.to_owned()), Some(signature));
        }
    }
    Ok(connect)
}

/// The public key of `seed`, and the server's nonce signed by it. An error tells nothing of the seed.
fn sign(seed: &str, info: &Info) -> Result<(String, String), Lost> {
    let unreadable = |_| Lost::new("the nkey's seed cannot be read");
    let key = nkeys::KeyPair::from_seed(seed.trim()).map_err(unreadable)?;
    let nonce = info.nonce.as_deref().unwrap_or_default();
    let signature = key.sign(nonce.as_bytes()).map_err(unreadable)?;
    Ok((key.public_key(), URL_SAFE_NO_PAD.encode(signature)))
}

/// The two texts of a `.creds` file, each a line between two lines of dashes: the user's JWT and the seed.
fn decorated(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines().map(str::trim);
    let mut after = |begin: &str| {
        lines.find(|line| line.starts_with("---") && line.contains(begin))?;
        lines.next().filter(|line| !line.is_empty())
    };
    Some((after("BEGIN NATS USER JWT")?, after("BEGIN USER NKEY SEED")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_found_between_their_lines() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0.eXAi.OiJK\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\
            -----BEGIN USER NKEY SEED-----\r\nSUAIO3\r\n------END USER NKEY SEED------\n";
        assert_eq!(decorated(text), Some(("eyJ0.eXAi.OiJK", "SUAIO3")));
        assert_eq!(decorated("-----BEGIN NATS USER JWT-----\nx\n"), None);
        assert_eq!(decorated(""), None);
    }

    #[test]
    fn a_nonce_is_signed_by_the_seed() {
        let key = nkeys::KeyPair::new_user();
        let info = Info { nonce: Some("nonce".to_owned()), ..Info::default() };
        let auth = Auth::Nkey(key.seed().unwrap());
        let connect = introduction(&info, &auth, "test", false).unwrap();
        assert_eq!(connect.nkey, Some(key.public_key()));
        let signature = URL_SAFE_NO_PAD.decode(connect.sig.unwrap()).unwrap();
        key.verify(b"nonce", &signature).unwrap();
        assert!(introduction(&info, &Auth::Nkey("SUAsecret".to_owned()), "test", false).is_err());
    }
}
