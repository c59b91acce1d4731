//! A private PostgreSQL server that can be stopped, killed and started again.

use super::{eventually, port::Port, process::Process, servers};
use rustix::process::Signal;
use std::{
    fs::File,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Password of the server's superuser `postgres`. No log, error or status may ever show it.
pub(crate) const PASSWORD: &str = "tell-nobody-about-this-one";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The oldest that is tested.
    Pg15,
    /// The newest.
    Pg18,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ends sessions, lets replication catch up, writes a checkpoint.
    Fast,
    /// As if it crashed: the next start recovers from the log.
    Immediate,
}

/// A running (or stopped) server.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// Dropped first: its end is printed from a file in `dir`.
    process: Option<Process>,
    bin: PathBuf,
    dir: TempDir,
    port: Port,
    settings: Vec<(String, String)>,
}

impl Postgres {
    /// Starts a new, empty server that can be a source, with more settings where wanted.
    pub(crate) async fn start(version: Version, settings: &[(&str, &str)]) -> Self {
        let bin = servers().join(match version {
            Version::Pg15 => "postgres-15/bin",
            Version::Pg18 => "postgres-18/bin",
        });
        let dir = tempfile::Builder::new().prefix("headgate-pg-").tempdir().unwrap();
        give_away(dir.path());
        let template = template(&bin);
        let copied =
            Command::new("cp").arg("-a").arg(&template).arg(dir.path().join("data")).status().unwrap();
        assert!(copied.success(), "cannot copy {}", template.display());
        let mut all: Vec<(String, String)> = [
            ("wal_level", "logical"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            // No test cuts the power of the machine under the database.
            ("fsync", "off"),
            ("shared_buffers", "32MB"),
            ("max_wal_size", "512MB"),
            ("log_min_messages", "warning"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut server = Self { bin, dir, port: Port::free(), settings: all, process: None };
        server.start_again().await;
        server
    }

    /// Starts the stopped server on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL is running");
        let mut command = unprivileged(self.bin.join("postgres"));
        command.arg("-D").arg(self.dir.path().join("data")).args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.number().to_string(),
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.dir.path().display()));
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let process = self.process.insert(Process::start("postgres", command, &self.dir.path().join("log")));
        let (url, began) = (url(self.port.number()), std::time::Instant::now());
        loop {
            match tokio_postgres::connect(&url, NoTls).await {
                Ok(_) => return,
                Err(error) => assert!(
                    began.elapsed() < Duration::from_secs(60) && process.exited().is_none(),
                    "PostgreSQL does not start: {error:?}\n{}",
                    process.log_tail()
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(&mut self, how: Stop) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
        process.wait(Duration::from_secs(60));
    }

    /// Kills the server and all its processes.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of its database `postgres`, with the password.
    pub(crate) fn url(&self) -> String {
        url(self.port.number())
    }

    /// The same for another database of the server.
    pub(crate) fn url_of(&self, database: &str) -> String {
        let url = self.url();
        format!("{}{database}", url.strip_suffix("postgres").expect("the URL ends with the database"))
    }

    /// A new session with the text formats that the contract's values come from.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await.unwrap_or_else(|error| panic!("cannot connect to PostgreSQL: {error:?}"))
    }

    /// Runs statements, one after the other.
    pub(crate) async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Where its log ends.
    pub(crate) async fn end_of_log(&self) -> i64 {
        let sql = "SELECT (pg_current_wal_lsn() - '0/0')::int8";
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until the slot's reader has confirmed a position of the log.
    pub(crate) async fn slot_has_confirmed(&self, slot: &str, log: i64) {
        let client = self.client().await;
        let sql = "SELECT (confirmed_flush_lsn - '0/0')::int8 FROM pg_replication_slots WHERE slot_name = $1";
        eventually("the slot has confirmed", Duration::from_secs(30), || async {
            let row = client.query_one(sql, &[&slot]).await.map_err(|error| error.to_string())?;
            let confirmed: i64 = row.get(0);
            if confirmed >= log { Ok(()) } else { Err(format!("{confirmed:X}, not yet {log:X}")) }
        })
        .await;
    }

    /// Waits until the slot is being read.
    pub(crate) async fn slot_is_active(&self, slot: &str) {
        let client = self.client().await;
        eventually("the slot is read", Duration::from_secs(60), || async {
            let active = client
                .query_opt("SELECT active FROM pg_replication_slots WHERE slot_name = $1", &[&slot])
                .await
                .map_err(|error| error.to_string())?;
            match active.map(|row| row.get::<_, bool>(0)) {
                Some(true) => Ok(()),
                Some(false) => Err("the slot is idle".to_owned()),
                None => Err("there is no such slot".to_owned()),
            }
        })
        .await;
    }
}

/// A session with pinned text formats.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url.parse()?;
    config.options(
        "-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c bytea_output=hex -c extra_float_digits=1",
    );
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    // An error of the connection shows in the client's next call.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

fn url(port: u16) -> String {
    format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// PostgreSQL refuses to run as root: the user `nobody` runs it then.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unprivileged(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A data folder fresh from `initdb`, made once for each build of the server.
fn template(bin: &Path) -> PathBuf {
    let version = Command::new(bin.join("postgres")).arg("--version").output();
    let version = version
        .unwrap_or_else(|error| panic!("no PostgreSQL in {}: {error}; run scripts/servers", bin.display()));
    let version: String = String::from_utf8_lossy(&version.stdout)
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == '.')
        .take(16)
        .collect();
    let dir = servers().join("templates");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = dir.join(format!("postgres-{version}-{}", rustix::process::geteuid().as_raw()));
    if !done.exists() {
        let scratch = tempfile::Builder::new().prefix("initdb-").tempdir_in(&dir).unwrap();
        give_away(scratch.path());
        let password = scratch.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let data = scratch.path().join("data");
        let output = unprivileged(bin.join("initdb"))
            .args([
                "--no-sync",
                "--auth=scram-sha-256",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg("--pgdata")
            .arg(&data)
            .arg("--pwfile")
            .arg(&password)
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(data, &done).unwrap();
    }
    done
}
