//! From the file to the finished configuration, with every problem told at once.

use super::{
    Admin, Auth, Config, Connector, Embedded, Gateway, Http, HttpTls, Mode, Nats, Publish, Server, Stream,
    Tls,
    error::{ConfigError, Problem},
    section::{Reader, SecretFiles, Section, line_of, read_secret},
    source,
};
use headgate_webhook::Catalog;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use toml::de::DeTable;

/// The subject of an event unless `nats.subject` says otherwise.
const SUBJECT: &str = "events.{source}.{entity}.{verb}.{partition}";

/// Reads, expands and checks the configuration file.
///
/// # Errors
/// Everything that is wrong with it. What variables and secret files hold is not part of the error.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    load_with(path, env, &|_, file| read_secret(file))
}

/// The same with another way of reading secret files: for the command that makes them.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    files: &SecretFiles<'_>,
) -> Result<Config, ConfigError> {
    let whole = |what: String, hint: &str| {
        let problem = Problem { line: None, key: String::new(), what, hint: Some(hint.to_owned()) };
        ConfigError::new(path, vec![problem])
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        whole(format!("cannot be read: {error}"), "name the file with -c FILE or HEADGATE_CONFIG")
    })?;
    let root = DeTable::parse(&text).map_err(|error| syntax(path, &text, &error))?;
    let reader = Reader::new(&text, env, files);
    let config = root_section(Section::root(&reader, root.get_ref()));
    let problems = reader.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError::new(path, problems)),
    }
}

/// A syntax error, without the line's text: a secret may stand in it.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map(|span| line_of(text, span.start));
    let mut what = error.message().lines().collect::<Vec<_>>().join(", ");
    // The name of a key that is there twice may be shown, unlike any other piece of the text.
    if what.starts_with("duplicate key")
        && let Some(name) = error.span().and_then(|span| text.get(span))
    {
        what = format!("{what} `{}`", name.trim());
    }
    ConfigError::new(path, vec![Problem { line, key: String::new(), what, hint: None }])
}

fn root_section(root: Section<'_, '_>) -> Option<Config> {
    let gateway = gateway(root.section("gateway"));
    let nats = nats(root.section("nats"));
    let (http, catalog) = http(root.section("http"));
    let sources = source::sources(&root, &http, &catalog);
    // Where no source is a webhook, nothing listens there.
    let public = sources.values().any(|source| matches!(source.connector, Connector::Webhook(_)));
    let admin = admin(root.section("admin"), public.then_some(http.listen));
    root.finish();
    Some(Config { gateway, nats: nats?, http, admin, sources })
}

fn gateway(section: Section<'_, '_>) -> Gateway {
    let gateway = Gateway {
        name: section.text("name").unwrap_or_else(|| "headgate".to_owned()),
        data_dir: section.path("data_dir").unwrap_or_else(|| PathBuf::from("./headgate-data")),
        partitions: section.integer("partitions", 1..=65_536).and_then(|n| n.try_into().ok()).unwrap_or(16),
        shutdown_grace: section.duration("shutdown_grace").unwrap_or(Duration::from_secs(30)),
        memory: section.size("memory", 1 << 20).and_then(|n| n.try_into().ok()).unwrap_or(16 << 20),
    };
    if gateway.name.is_empty() || gateway.name.chars().any(char::is_control) {
        section.problem("name", "expected a name without control characters", None);
    }
    section.finish();
    gateway
}

/// `[http]`, and the providers that sources may name.
fn http(section: Section<'_, '_>) -> (Http, Catalog) {
    let public_url = section.text("public_url").map(|url| url.trim_end_matches('/').to_owned());
    if public_url.as_ref().is_some_and(|url| !source::is_http_url(url)) {
        let hint = "public_url = \"https://hooks.example.com\"";
        section.problem("public_url", "expected an http or https URL", Some(hint.to_owned()));
    }
    let http = Http {
        listen: section.address("listen").unwrap_or(loopback(8080)),
        public_url,
        tls: http_tls(section.section("tls")),
        trusted_proxies: section.networks("trusted_proxies"),
        max_connections: section
            .integer("max_connections", 1..=1_000_000)
            .and_then(|n| n.try_into().ok())
            .unwrap_or(4096),
        memory: section.size("memory", 1 << 20).and_then(|n| n.try_into().ok()).unwrap_or(64 << 20),
        providers_dir: section.path("providers_dir"),
        spool_max: section.size("spool_max", 1 << 20).unwrap_or(1 << 30),
    };
    let catalog = catalog(&section, http.providers_dir.as_deref());
    section.finish();
    (http, catalog)
}

fn http_tls(section: Section<'_, '_>) -> Option<HttpTls> {
    let (cert, key) = (section.path("cert"), section.path("key"));
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(HttpTls { cert, key }),
        _ => {
            if section.is_given() {
                section.problem("", "needs cert and key", Some("the files of both, PEM".to_owned()));
            }
            None
        }
    };
    section.finish();
    tls
}

/// The providers that are compiled in, and those of `providers_dir`.
fn catalog(section: &Section<'_, '_>, directory: Option<&Path>) -> Catalog {
    let mut catalog = Catalog::builtin().unwrap_or_else(|error| {
        section.problem("", format!("a provider of this release cannot be read: {error}"), None);
        Catalog::default()
    });
    if let Some(Err(error)) = directory.map(|directory| catalog.add_dir(directory)) {
        section.problem("providers_dir", error.to_string(), None);
    }
    catalog
}

/// `[admin]`, beside a public listener at `public`.
fn admin(section: Section<'_, '_>, public: Option<SocketAddr>) -> Admin {
    let admin = Admin { listen: section.address("listen").unwrap_or(loopback(9090)) };
    if let Some(public) = public.filter(|public| overlap(*public, admin.listen)) {
        section.problem(
            "listen",
            format!("{} is taken by [http], which listens on {public} for webhooks", admin.listen),
            Some("give each a port of its own: they are [http] 8080 and [admin] 9090 by default".to_owned()),
        );
    }
    section.finish();
    admin
}

/// Whether the second of two listeners would find its address taken by the first.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip(), other.ip());
    // On Linux every IPv6 address is every IPv4 address too. Port 0 is any that is free.
    let everywhere = |ip: IpAddr, other: IpAddr| {
        ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4() || other.is_unspecified())
    };
    one.port() != 0
        && one.port() == other.port()
        && (one_ip == other_ip || everywhere(one_ip, other_ip) || everywhere(other_ip, one_ip))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn nats(section: Section<'_, '_>) -> Option<Nats> {
    let embedded = embedded(section.section("embedded"));
    let server = server(&section, embedded);
    let found = server.is_some();
    let nats = Nats {
        auth: auth(&section),
        tls: tls(section.section("tls")),
        stream: stream(section.section("stream")),
        mode: section
            .choice("mode", &[("structured", Mode::Structured), ("binary", Mode::Binary)])
            .unwrap_or(Mode::Structured),
        subject: subject(&section),
        publish: section
            .choice("publish", &[("chain", Publish::Chain), ("atomic", Publish::Atomic)])
            .unwrap_or(Publish::Chain),
        confirm_delay: section.duration("confirm_delay"),
        window: section.integer("window", 1..=65_536).and_then(|n| n.try_into().ok()).unwrap_or(2048),
        ack_timeout: section.duration("ack_timeout").unwrap_or(Duration::from_secs(2)),
        // The rest is read all the same: a misspelt `url` has to be named, and whatever else is wrong.
        server: server.unwrap_or_else(|| Server::Remote(Vec::new())),
    };
    if nats.ack_timeout.is_zero() {
        section.problem("ack_timeout", "must be more than zero", None);
    }
    section.finish();
    found.then_some(nats)
}

fn server(section: &Section<'_, '_>, embedded: Embedded) -> Option<Server> {
    let hint =
        || Some("url = \"nats://127.0.0.1:4222\", or \"embedded\" for a server of Headgate's own".to_owned());
    // Asked for in any case, so that it is a known key.
    let values = section.secrets("url");
    if !section.has("url") {
        section.problem("url", "is required", hint());
        return None;
    }
    let urls: Vec<String> = values?
        .iter()
        .flat_map(|value| value.split(','))
        .map(|url| url.trim().to_owned())
        .filter(|url| !url.is_empty())
        .collect();
    if urls == ["embedded"] {
        return Some(Server::Embedded(embedded));
    }
    let sound = |url: &String| {
        let with_scheme = if url.contains("://") { url.clone() } else { format!("nats://{url}") };
        with_scheme.parse::<async_nats::ServerAddr>().is_ok()
    };
    if urls.is_empty() || !urls.iter().all(sound) {
        section.problem("url", "is not the URL of a nats server", hint());
        return None;
    }
    Some(Server::Remote(urls))
}

fn embedded(section: Section<'_, '_>) -> Embedded {
    let embedded = Embedded {
        listen: section.address("listen").unwrap_or(loopback(4222)),
        binary: section.path("binary"),
        sync_interval: section.duration("sync_interval").unwrap_or(Duration::from_secs(1)),
    };
    section.finish();
    embedded
}

/// How to be known to the broker; more than one way is a problem.
fn auth(section: &Section<'_, '_>) -> Auth {
    let credentials = section.credentials();
    let nkey = section.secret("nkey");
    let token = section.secret("token");
    let user = section.text("user");
    let password = section.secret("password");
    let given: Vec<&str> =
        ["credentials", "nkey", "token", "user"].into_iter().filter(|key| section.has(key)).collect();
    if let [first, second, ..] = given.as_slice() {
        section.problem(
            second,
            format!("cannot be combined with {first}"),
            Some("keep one of them".to_owned()),
        );
    }
    if section.has("user") != section.has("password") {
        let (given, missing) = if section.has("user") { ("user", "password") } else { ("password", "user") };
        section.problem(given, format!("needs {missing} beside it"), None);
    }
    match (credentials, nkey, token, user.zip(password)) {
        (Some(text), ..) => Auth::Credentials(text),
        (_, Some(seed), ..) => Auth::Nkey(seed),
        (_, _, Some(token), _) => Auth::Token(token),
        (_, _, _, Some((user, password))) => Auth::Password(user, password),
        _ => Auth::None,
    }
}

fn tls(section: Section<'_, '_>) -> Tls {
    let tls = Tls {
        // Whoever names certificates wants TLS.
        required: section.boolean("required").unwrap_or(section.is_given()),
        ca: section.path("ca"),
        cert: section.path("cert"),
        key: section.path("key"),
    };
    if tls.cert.is_some() != tls.key.is_some() {
        section.problem(
            if tls.cert.is_some() { "cert" } else { "key" },
            "cert and key belong together",
            None,
        );
    }
    section.finish();
    tls
}

fn stream(section: Section<'_, '_>) -> Stream {
    let stream = Stream {
        memory: section.choice("storage", &[("file", false), ("memory", true)]).unwrap_or(false),
        replicas: section.integer("replicas", 1..=5).and_then(|n| n.try_into().ok()).unwrap_or(1),
        max_age: section.duration("max_age").unwrap_or(Duration::ZERO),
        max_bytes: section.size("max_bytes", 1),
    };
    section.finish();
    stream
}

/// The subject template, checked so that every event stays within its source's stream.
fn subject(section: &Section<'_, '_>) -> String {
    let Some(subject) = section.text("subject") else { return SUBJECT.to_owned() };
    if let Err((what, hint)) = check_subject(&subject) {
        section.problem("subject", what, Some(hint));
    }
    subject
}

fn check_subject(subject: &str) -> Result<(), (String, String)> {
    const KNOWN: [&str; 7] = ["source", "entity", "verb", "partition", "key", "schema", "table"];
    if !subject.starts_with("events.{source}.") {
        let what = "must begin with \"events.{source}.\", the subjects of the source's stream".to_owned();
        return Err((what, format!("by default: \"{SUBJECT}\"")));
    }
    let mut rest = subject;
    let mut literal = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        literal.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err(("`{` without its `}`".to_owned(), format!("by default: \"{SUBJECT}\"")));
        };
        let column = name.strip_prefix("column:");
        if column.is_some_and(str::is_empty) || (column.is_none() && !KNOWN.contains(&name)) {
            let hint = super::nearest::nearest(name, KNOWN).map_or_else(
                || {
                    "known: {source}, {entity}, {verb}, {partition}, {key}, {schema}, {table}, {column:NAME}"
                        .to_owned()
                },
                |near| format!("did you mean \"{{{near}}}\"?"),
            );
            return Err((format!("unknown placeholder {{{name}}}"), hint));
        }
        // Stands for what the placeholder will become, which is never empty.
        literal.push('x');
        rest = after;
    }
    literal.push_str(rest);
    let sound = |token: &str| {
        !token.is_empty()
            && !token
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>' | '{' | '}'))
    };
    if literal.split('.').all(sound) {
        Ok(())
    } else {
        let what = "a token of a subject cannot be empty or hold spaces, `*`, `>` or lone braces".to_owned();
        Err((what, format!("by default: \"{SUBJECT}\"")))
    }
}

impl Section<'_, '_> {
    /// `credentials`: the path of a `.creds` file, as a string or as `{ file = … }`, or its content in a variable.
    fn credentials(&self) -> Option<String> {
        if self.is_table("credentials") {
            return self.secret("credentials");
        }
        let text = self.text("credentials")?;
        if text.contains("-----BEGIN") {
            return Some(text);
        }
        match read_secret(Path::new(&text)) {
            Ok(text) => Some(text),
            Err(what) => {
                self.problem("credentials", format!("the file {what}"), None);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
