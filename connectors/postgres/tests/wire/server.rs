//! A private PostgreSQL server on a free port of 127.0.0.1 and a unix socket, ended with the test.

use std::{
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// The server refuses to run as root.
const NOBODY: u32 = 65534;

pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
    process: Option<Child>,
    settings: Vec<String>,
}

fn program(name: &str) -> PathBuf {
    if let Some(bin) = std::env::var_os("HEADGATE_POSTGRES_BIN") {
        return Path::new(&bin).join(name);
    }
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name))).collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.into_iter().rfind(|program| program.exists()).unwrap_or_else(|| name.into())
}

impl Server {
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A file that the server may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.data().join(name);
        std::fs::write(&path, content).unwrap();
        self.own(&path);
        path
    }

    pub(crate) fn own(&self, path: &Path) {
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// A new cluster that has not been started.
    pub(crate) fn prepare(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut all = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", directory.path().display()),
            "wal_level=logical".to_owned(),
            "fsync=off".to_owned(),
            "max_replication_slots=10".to_owned(),
        ];
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let server = Self { directory, port, process: None, settings: all };
        server.own(server.directory.path());
        let made = server
            .command("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        server
    }

    pub(crate) async fn start(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings);
        server.up().await;
        server
    }

    pub(crate) async fn up(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        self.process = Some(command.stderr(log).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self
            .command("pg_isready")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .unwrap()
            .success()
        {
            assert!(Instant::now() < deadline, "the server does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it, and says how long that took.
    pub(crate) async fn stop(&mut self, mode: &str) -> Duration {
        let started = Instant::now();
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).args(["stop", "-t", "60", "-m", mode]);
        assert!(tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap().success());
        self.process.take().unwrap().wait().unwrap();
        started.elapsed()
    }

    /// The superuser over the unix socket.
    pub(crate) async fn admin(&self) -> Client {
        self.connect("postgres").await
    }

    pub(crate) async fn connect(&self, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.directory.path()).port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Replaces pg_hba.conf, with a line for the superuser on the unix socket before.
    pub(crate) async fn hba(&self, lines: &str) {
        self.write("pg_hba.conf", &format!("local all postgres trust\n{lines}\n"));
        self.admin().await.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
        if let Some(mut process) = self.process.take() {
            let _ =
                self.command("pg_ctl").arg("-D").arg(self.data()).args(["stop", "-m", "immediate"]).status();
            let _ = process.wait();
        }
    }
}
