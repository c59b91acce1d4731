//! A private MySQL or MariaDB server that can be stopped, killed, started again and followed by a replica.

use crate::{port::Port, process::Process, servers};
use mysql_async::{Conn, OptsBuilder, prelude::Queryable as _};
use rustix::process::Signal;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Password of the accounts `app`, which may do everything, and `cdc`, which may read the log. No log, error or status may
/// ever show it.
pub const PASSWORD: &str = "nobody-may-see-this-password";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MySQL 9.7, which not every machine can have: see [`Version::is_installed`].
    MySql97,
    /// MariaDB 10.11.
    MariaDb1011,
    /// MariaDB 11.8.
    MariaDb118,
}

impl Version {
    fn home(self) -> PathBuf {
        servers().join(match self {
            Self::MySql97 => "mysql-9.7",
            Self::MariaDb1011 => "mariadb-10.11",
            Self::MariaDb118 => "mariadb-11.8",
        })
    }

    fn is_mariadb(self) -> bool {
        self != Self::MySql97
    }

    fn daemon(self) -> PathBuf {
        self.home().join(if self.is_mariadb() { "bin/mariadbd" } else { "bin/mysqld" })
    }

    /// Whether it is there. MySQL comes from a suite that breaks now and then, and its tests are skipped then; the others
    /// have to be there.
    #[must_use]
    pub fn is_installed(self) -> bool {
        let installed = self.daemon().exists();
        assert!(installed || !self.is_mariadb(), "no {} ; run scripts/servers", self.daemon().display());
        if !installed {
            eprintln!("SKIPPED: MySQL 9.7 is not installed; scripts/servers says why");
        }
        installed
    }
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct MySql {
    /// Dropped first: its end is printed from a file in `dir`.
    process: Option<Process>,
    version: Version,
    dir: TempDir,
    port: Port,
    id: u32,
    settings: Vec<String>,
}

impl MySql {
    /// Starts a new server with an empty database `shop`, and with more settings (`--name=value`) where wanted.
    pub async fn start(version: Version, settings: &[&str]) -> Self {
        Self::start_as(1, version, settings).await
    }

    /// The same with a server id.
    pub async fn start_as(id: u32, version: Version, settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("headgate-mysql-").tempdir().unwrap();
        let template = template(version);
        let data = dir.path().join("data");
        // Servers that share a folder for temporary files delete each other's.
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let copied = Command::new("cp").arg("-a").arg(&template).arg(&data).status().unwrap();
        assert!(copied.success(), "cannot copy {}", template.display());
        // Every server has an identity of its own.
        let _ = std::fs::remove_file(data.join("auto.cnf"));
        let replication = if version.is_mariadb() {
            "GRANT REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'cdc'@'%';"
        } else {
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc'@'%';"
        };
        let accounts = format!(
            "SET SESSION sql_log_bin = 0;\n\
             CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;\n\
             CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO 'app'@'%' WITH GRANT OPTION;\n\
             CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY '{PASSWORD}';\n\
             {replication}\nGRANT SELECT ON *.* TO 'cdc'@'%';\n"
        );
        std::fs::write(dir.path().join("accounts.sql"), accounts).unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { process: None, version, dir, port: Port::free(), id, settings };
        server.start_again().await;
        server
    }

    /// Starts the stopped server on the same port and data.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server is running");
        let mut command = daemon(self.version, &self.dir.path().join("data"));
        command
            .arg(format!("--port={}", self.port.number()))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--socket={}", self.dir.path().join("socket").display()))
            .arg(format!("--pid-file={}", self.dir.path().join("pid").display()))
            .arg(format!("--tmpdir={}", self.dir.path().join("tmp").display()))
            .arg(format!("--init-file={}", self.dir.path().join("accounts.sql").display()))
            .arg(format!("--server-id={}", self.id))
            .args([
                "--log-bin=binlog",
                "--binlog-format=ROW",
                "--binlog-row-image=FULL",
                "--binlog-row-metadata=FULL",
                // No test cuts the power of the machine under the database.
                "--sync-binlog=0",
                "--innodb-flush-log-at-trx-commit=2",
                "--skip-name-resolve",
                "--default-time-zone=+02:00",
            ]);
        if self.version.is_mariadb() {
            command.args(["--log-slave-updates=ON", "--gtid-strict-mode=ON"]);
        } else {
            command.args([
                "--mysqlx=OFF",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--binlog-rows-query-log-events=ON",
                "--performance-schema=OFF",
            ]);
        }
        command.args(&self.settings);
        let process = self.process.insert(Process::start("mysqld", command, &self.dir.path().join("log")));
        let (port, began) = (self.port.number(), Instant::now());
        loop {
            match connect(port, "app").await {
                Ok(_) => return,
                Err(error) => assert!(
                    began.elapsed() < Duration::from_secs(90) && process.exited().is_none(),
                    "the server does not start: {error}\n{}",
                    process.log_tail()
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::TERM);
        process.wait(Duration::from_secs(60));
    }

    /// Kills the server.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// Which server it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of its database `shop` for the account that may read the log, as if it were at this port.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        format!("mysql://cdc:{PASSWORD}@127.0.0.1:{port}/shop")
    }

    /// The URL of its database `shop`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// A new session of the account that may do everything, in UTC.
    pub async fn session(&self) -> Conn {
        connect(self.port(), "app").await.unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// Runs one statement after the other.
    pub async fn execute(&self, statements: &[&str]) {
        let mut session = self.session().await;
        for statement in statements {
            session.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// Makes this new server follow another one of the same version.
    pub async fn follow(&self, source: &Self) {
        let port = source.port();
        if self.version.is_mariadb() {
            self.execute(&[
                "RESET MASTER",
                "SET GLOBAL gtid_slave_pos = ''",
                &format!("CHANGE MASTER TO master_host='127.0.0.1', master_port={port}, master_user='app', master_password='{PASSWORD}', master_use_gtid=slave_pos"),
                "START SLAVE",
            ])
            .await;
        } else {
            self.execute(&[
                "RESET BINARY LOGS AND GTIDS",
                &format!("CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={port}, source_user='app', source_password='{PASSWORD}', source_auto_position=1, get_source_public_key=1"),
                "START REPLICA",
            ])
            .await;
        }
    }
}

async fn connect(port: u16, user: &str) -> Result<Conn, mysql_async::Error> {
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .prefer_socket(false)
        .user(Some(user))
        .pass(Some(PASSWORD))
        .db_name(Some("shop"))
        .setup(vec!["SET time_zone = '+00:00'"]);
    match tokio::time::timeout(Duration::from_secs(5), Conn::new(options)).await {
        Ok(session) => session,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The server's program with what every run of it needs.
fn daemon(version: Version, data: &Path) -> Command {
    let mut command = Command::new(version.daemon());
    command
        .current_dir("/")
        .arg(format!("--datadir={}", data.display()))
        // A server that starts removes what others left behind there, also what they still use.
        .arg(format!("--tmpdir={}", data.parent().unwrap_or(data).display()))
        .arg("--innodb-buffer-pool-size=64M");
    command.arg(if version.is_mariadb() {
        "--innodb-log-file-size=16M"
    } else {
        "--innodb-redo-log-capacity=16M"
    });
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    command
}

/// A fresh data folder, made once for each server.
fn template(version: Version) -> PathBuf {
    let dir = servers().join("templates");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("mysql-lock")).unwrap();
    lock.lock().unwrap();
    let name = version.home().file_name().unwrap().to_string_lossy().into_owned();
    let done = dir.join(format!("{name}-{}", rustix::process::geteuid().as_raw()));
    if done.exists() {
        return done;
    }
    let scratch = tempfile::Builder::new().prefix("mysql-").tempdir_in(&dir).unwrap();
    let data = scratch.path().join("data");
    let mut command = daemon(version, &data);
    if version.is_mariadb() {
        std::fs::create_dir(&data).unwrap();
        let share = version.home().join("fs/usr/share");
        let mut sql = "CREATE DATABASE mysql;\nUSE mysql;\n".to_owned();
        for part in ["system_tables", "performance_tables", "system_tables_data"] {
            let text = ["mariadb/mariadb", "mysql/mysql", "mysql/mariadb"]
                .into_iter()
                .find_map(|prefix| std::fs::read_to_string(share.join(format!("{prefix}_{part}.sql"))).ok());
            sql.push_str(&text.unwrap_or_else(|| panic!("no {part}.sql under {}", share.display())));
        }
        std::fs::write(scratch.path().join("boot.sql"), sql).unwrap();
        command.args(["--bootstrap", "--skip-networking"]);
        command.stdin(File::open(scratch.path().join("boot.sql")).unwrap());
    } else {
        command.arg("--initialize-insecure");
    }
    let output = command.output().unwrap_or_else(|error| panic!("no server: {error}; run scripts/servers"));
    assert!(output.status.success(), "initialising: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(data, &done).unwrap();
    done
}
