//! A private PostgreSQL server that can be stopped, killed, started again, copied and followed by a standby.

use crate::{eventually, port::Port, process::Process, servers};
use rustix::process::Signal;
use std::{
    fs::File,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Password of the server's superuser `postgres`. No log, error or status may ever show it.
pub const PASSWORD: &str = "tell-nobody-about-this-one";

/// The physical slot of a [standby](Postgres::standby) on its primary.
pub const STANDBY: &str = "standby";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The oldest that is tested.
    Pg15,
    /// The newest.
    Pg18,
}

impl Version {
    /// Where its programs are.
    #[must_use]
    pub fn programs(self) -> PathBuf {
        servers().join(match self {
            Self::Pg15 => "postgres-15/bin",
            Self::Pg18 => "postgres-18/bin",
        })
    }
}

/// The programs that `HEADGATE_POSTGRES_BIN` names, else those of PostgreSQL 15, which have everything built in.
#[must_use]
pub fn chosen() -> PathBuf {
    std::env::var_os("HEADGATE_POSTGRES_BIN").map_or_else(|| Version::Pg15.programs(), PathBuf::from)
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, lets replication catch up, writes a checkpoint.
    Fast,
    /// As if it crashed: the next start recovers from the log.
    Immediate,
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct Postgres {
    /// Dropped first: its end is printed from a file in `dir`, and its memory is nobody's then.
    process: Option<Process>,
    bin: PathBuf,
    dir: Dir,
    port: Port,
    settings: Vec<(String, String)>,
}

impl Postgres {
    /// Starts a new, empty server that can be a source, with more settings where wanted.
    pub async fn start(version: Version, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(version.programs(), settings);
        server.start_again().await;
        server
    }

    /// The same, not started yet.
    #[must_use]
    pub fn prepare(programs: PathBuf, settings: &[(&str, &str)]) -> Self {
        let template = template(&programs);
        let server = Self::without_data(programs, settings);
        server.take_data(&template);
        server
    }

    /// The same with an identity of its own: all other new servers of a version have one in common.
    #[must_use]
    pub fn prepare_another(programs: PathBuf, settings: &[(&str, &str)]) -> Self {
        let server = Self::without_data(programs, settings);
        initdb(&server.bin, &server.data());
        server
    }

    /// A copy of a stopped server as it stands, slots and all, on a port of its own; not started yet.
    #[must_use]
    pub fn copy(&self) -> Self {
        assert!(self.process.is_none(), "PostgreSQL is running");
        let copy = Self { settings: self.settings.clone(), ..Self::without_data(self.bin.clone(), &[]) };
        copy.take_data(&self.data());
        copy
    }

    /// Starts a standby that follows this server through the physical slot [`STANDBY`], has its settings and these.
    ///
    /// Made as `pg_basebackup` does it, which not every build has. Nobody may be writing.
    pub async fn standby(&self, settings: &[(&str, &str)]) -> Self {
        let primary = self.client().await;
        let slot = format!("SELECT pg_create_physical_replication_slot('{STANDBY}', true)");
        primary.batch_execute(&slot).await.unwrap();
        primary.execute("SELECT pg_backup_start('standby', true)", &[]).await.unwrap();
        let mut standby = Self::without_data(self.bin.clone(), settings);
        standby.settings = [&self.settings[..], &standby.settings].concat();
        standby.take_data(&self.data());
        let label = primary.query_one("SELECT labelfile FROM pg_backup_stop(false)", &[]).await.unwrap();
        standby.write("backup_label", label.get(0));
        standby.write("standby.signal", "");
        // Slots are the primary's own.
        let slots = standby.data().join("pg_replslot");
        for slot in std::fs::read_dir(slots).unwrap() {
            std::fs::remove_dir_all(slot.unwrap().path()).unwrap();
        }
        let port = self.port();
        let primary = format!("host=127.0.0.1 port={port} user=postgres password={PASSWORD} dbname=postgres");
        standby.settings.push(("primary_conninfo".to_owned(), primary));
        standby.settings.push(("primary_slot_name".to_owned(), STANDBY.to_owned()));
        standby.start_again().await;
        standby
    }

    /// Makes a primary of a standby, and waits until it is one.
    pub async fn promote(&self) {
        let promoted = self.client().await.query_one("SELECT pg_promote(true, 60)", &[]).await.unwrap();
        assert!(promoted.get::<_, bool>(0), "it is still a standby");
    }

    fn without_data(bin: PathBuf, settings: &[(&str, &str)]) -> Self {
        let dir = Dir(tempfile::Builder::new().prefix("headgate-pg-").tempdir().unwrap());
        give_away(dir.path());
        let usual = [
            ("wal_level", "logical"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            // No test cuts the power of the machine under the database.
            ("fsync", "off"),
            ("shared_buffers", "32MB"),
            // In the data folder, which goes with the server however that ends.
            ("dynamic_shared_memory_type", "mmap"),
            ("max_wal_size", "512MB"),
            ("log_min_messages", "warning"),
        ];
        let settings = usual.iter().chain(settings);
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { bin, dir, port: Port::free(), settings, process: None }
    }

    /// Leaves a setting to the server's own files, where `ALTER SYSTEM` writes it, from the next start on.
    pub fn leave(&mut self, setting: &str) {
        self.settings.retain(|(name, _)| name != setting);
    }

    fn take_data(&self, from: &Path) {
        let copied = Command::new("cp").arg("-a").arg(from).arg(self.data()).status().unwrap();
        assert!(copied.success(), "cannot copy {}", from.display());
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// The folder of its socket and of everything else that is its own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Writes a file of the data folder that only the server and we may read.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.data().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        give_away(&path);
        path
    }

    /// Replaces the rules of who may come in (`pg_hba.conf`), save for the superuser's with its password. A running
    /// server goes by them when this returns.
    pub async fn allow(&self, rules: &str) {
        let ours = "host all postgres 127.0.0.1/32 scram-sha-256\nhost replication postgres 127.0.0.1/32 scram-sha-256";
        self.write("pg_hba.conf", &format!("{ours}\n{rules}\n"));
        if self.process.is_none() {
            return;
        }
        // A new session has what the server itself read last.
        let read = async || -> std::time::SystemTime {
            self.client().await.query_one("SELECT pg_conf_load_time()", &[]).await.unwrap().get(0)
        };
        let before = read().await;
        self.execute("SELECT pg_reload_conf()").await;
        eventually("the rules are read", Duration::from_secs(10), || async {
            if read().await > before { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    }

    /// Starts the stopped server on the same port and data.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL is running");
        let mut command = unprivileged(self.bin.join("postgres"));
        command.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
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
    pub fn stop(&mut self, how: Stop) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
        process.wait(Duration::from_secs(60));
    }

    /// Kills the server and all its processes.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// The id of its System V shared memory, as `/proc/sysvipc/shm` lists it; a killed server still has it.
    #[must_use]
    pub fn segment(&self) -> Option<String> {
        segment(&self.data())
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of its database `postgres`, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port.number())
    }

    /// The same for another database of the server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let url = self.url();
        format!("{}{database}", url.strip_suffix("postgres").expect("the URL ends with the database"))
    }

    /// A new session with the text formats that the contract's values come from.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await.unwrap_or_else(|error| panic!("cannot connect to PostgreSQL: {error:?}"))
    }

    /// Runs statements, one after the other.
    pub async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Where its log ends.
    pub async fn end_of_log(&self) -> i64 {
        let sql = "SELECT (pg_current_wal_lsn() - '0/0')::int8";
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until the slot's reader has confirmed a position of the log.
    pub async fn slot_has_confirmed(&self, slot: &str, log: i64) {
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
    pub async fn slot_is_active(&self, slot: &str) {
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

/// The folder of a server. Removed when dropped, with the System V shared memory that a killed server leaves: a machine
/// has 4096 segments for everybody unless it is told otherwise, and nobody else gives this one back.
#[derive(Debug)]
struct Dir(TempDir);

impl Dir {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Some(segment) = segment(&self.path().join("data")) {
            // Not there is as good; without the program the segment stays until the machine's next start.
            let _ = Command::new("ipcrm").args(["-m", &segment]).stderr(Stdio::null()).status();
        }
    }
}

/// The id of the shared memory of the server that runs on this data, or was killed there: one that ended by itself took
/// the file with it. Its seventh line is the segment's key and id.
fn segment(data: &Path) -> Option<String> {
    let lines = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    lines.lines().nth(6)?.split_whitespace().nth(1).map(str::to_owned)
}

/// A session with pinned text formats.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
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
        let data = scratch.path().join("data");
        initdb(bin, &data);
        std::fs::rename(data, &done).unwrap();
    }
    done
}

/// Makes a new cluster in a folder that is not there yet, within one that the server owns.
fn initdb(bin: &Path, data: &Path) {
    let password = data.with_extension("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let output = unprivileged(bin.join("initdb"))
        .args(["--no-sync", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C"])
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(&password)
        .output()
        .unwrap();
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
}
