//! Addresses of the broker, and the credentials that a URL may hold: the client reads none from it.

use crate::config::{Auth, Server};
use async_nats::ServerAddr;
use headgate_sdk::percent;

/// The addresses without credentials, and the first credentials that one of them held.
pub(super) fn addresses(server: &Server) -> Result<(Vec<ServerAddr>, Auth), &'static str> {
    const UNSOUND: &str = "the url is not that of a nats server";
    let urls = match server {
        Server::Embedded(embedded) => vec![format!("nats://{}", embedded.listen)],
        Server::Remote(urls) => urls.clone(),
    };
    let mut login = Auth::None;
    let mut addresses = Vec::with_capacity(urls.len());
    for url in urls {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", &url));
        let host = match rest.rsplit_once('@') {
            Some((user, host)) => {
                if matches!(login, Auth::None) {
                    login = read_login(user).ok_or("the url's user or password is not percent-encoded")?;
                }
                host
            }
            None => rest,
        };
        addresses.push(format!("{scheme}://{host}").parse().map_err(|_| UNSOUND)?);
    }
    if addresses.is_empty() { Err(UNSOUND) } else { Ok((addresses, login)) }
}

/// `user:password`, or a token alone.
fn read_login(text: &str) -> Option<Auth> {
    Some(match text.split_once(':') {
        Some((user, password)) => Auth::Password(percent::decode(user)?, percent::decode(password)?),
        None => Auth::Token(percent::decode(text)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let remote = |url: &str| addresses(&Server::Remote(vec![url.to_owned(), "b:4223".to_owned()]));
        let (servers, login) = remote("tls://u:p%40ss@a").unwrap();
        assert!(matches!(login, Auth::Password(user, password) if user == "u" && password == "p@ss"));
        assert!(!format!("{servers:?}").contains("ss@"));
        assert_eq!((servers[0].host(), servers[0].port(), servers[1].port()), ("a", 4222, 4223));
        assert!(matches!(remote("nats://secret@a").unwrap().1, Auth::Token(token) if token == "secret"));
        assert!(matches!(remote("a").unwrap().1, Auth::None));
        assert!(remote("nats://u:%zz@a").is_err());
    }
}
