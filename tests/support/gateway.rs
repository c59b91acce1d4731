//! The gateway's own program, as an operator runs it.

use super::{eventually, nats::Nats, port::Port, process::Process};
use rustix::process::Signal;
use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};
use tempfile::TempDir;

/// What the configuration file is made of.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// URLs of the broker.
    pub(crate) nats: Vec<String>,
    /// More lines of `[gateway]`.
    pub(crate) gateway_lines: String,
    /// More lines of `[nats]`.
    pub(crate) nats_lines: String,
    /// Lines of `[nats.stream]`.
    pub(crate) stream_lines: String,
    /// Connector of the source named `shop`.
    pub(crate) connector: &'static str,
    /// URL of the source named `shop`.
    pub(crate) source: String,
    /// The source's `snapshot`: most tests are about the log, and begin with empty tables.
    pub(crate) snapshot: &'static str,
    /// More lines of `[sources.shop]`.
    pub(crate) source_lines: String,
}

impl Settings {
    /// The source `shop` and a broker, everything else as it is by default.
    pub(crate) fn new(nats: &Nats, source: impl Into<String>) -> Self {
        Self {
            nats: nats.urls(),
            gateway_lines: String::new(),
            nats_lines: String::new(),
            stream_lines: String::new(),
            connector: "postgres",
            source: source.into(),
            snapshot: "never",
            source_lines: String::new(),
        }
    }
}

/// A running (or ended) gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Dropped first: its end is printed from a file in `dir`.
    process: Option<Process>,
    dir: TempDir,
    admin: Port,
    http: Port,
}

impl Gateway {
    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let mut gateway = Self::configure(settings);
        gateway.launch();
        gateway.is_ready().await;
        gateway
    }

    /// Writes the configuration and starts nothing.
    pub(crate) fn configure(settings: &Settings) -> Self {
        let sources = format!(
            "[sources.shop]\nconnector = \"{}\"\nurl = \"{}\"\nsnapshot = \"{}\"\n{}",
            settings.connector, settings.source, settings.snapshot, settings.source_lines
        );
        Self::with_sources(settings, "", &sources)
    }

    /// The same with other sources than `shop`, and more lines of `[http]`.
    pub(crate) fn with_sources(settings: &Settings, http_lines: &str, sources: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("headgate-gateway-").tempdir().unwrap();
        let (admin, http) = (Port::free(), Port::free());
        let text = format!(
            "[gateway]\ndata_dir = \"{data}\"\nshutdown_grace = \"10s\"\n{gateway_lines}\n\
             [nats]\nurl = \"{nats}\"\n{nats_lines}\n[nats.stream]\n{stream_lines}\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n{http_lines}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\n\
             {sources}",
            data = dir.path().join("data").display(),
            gateway_lines = settings.gateway_lines,
            nats = settings.nats.join(","),
            nats_lines = settings.nats_lines,
            stream_lines = settings.stream_lines,
            http = http.number(),
            admin = admin.number(),
        );
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        Self { dir, admin, http, process: None }
    }

    /// Changes the configuration file, for the next start.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let file = self.dir.path().join("config.toml");
        std::fs::write(&file, change(std::fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// The port of its public listener.
    pub(crate) fn http_port(&self) -> u16 {
        self.http.number()
    }

    /// The address of its admin listener.
    pub(crate) fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin.number())
    }

    /// Starts the program and waits for nothing.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "the gateway is running");
        let mut command = self.command();
        command.arg("run");
        self.process = Some(Process::start("headgate", command, &self.log_path()));
    }

    /// The same, through a shell that sets limits first (`ulimit -f 100`).
    pub(crate) fn launch_limited(&mut self, limits: &str) {
        assert!(self.process.is_none(), "the gateway is running");
        let program = self.command();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec {} run", program.get_program().display()));
        command.current_dir(self.dir.path());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.process = Some(Process::start("headgate", command, &self.log_path()));
    }

    /// Starts the ended gateway again and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        self.launch();
        self.is_ready().await;
    }

    /// The program with this gateway's configuration, for other subcommands.
    pub(crate) fn command(&self) -> Command {
        // Another build can be measured beside this one.
        let program =
            std::env::var_os("HEADGATE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_headgate").into());
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("HEADGATE_CONFIG", self.dir.path().join("config.toml"));
        command.env("RUST_BACKTRACE", "1");
        command
    }

    /// The same with a configuration that differs in the ports alone.
    pub(crate) fn command_elsewhere(&self) -> Command {
        let text = std::fs::read_to_string(self.dir.path().join("config.toml")).unwrap();
        let (admin, http) = (Port::free(), Port::free());
        let text = text
            .replace(
                &format!("127.0.0.1:{}\"", self.admin.number()),
                &format!("127.0.0.1:{}\"", admin.number()),
            )
            .replace(
                &format!("127.0.0.1:{}\"", self.http.number()),
                &format!("127.0.0.1:{}\"", http.number()),
            );
        std::fs::write(self.dir.path().join("elsewhere.toml"), text).unwrap();
        let mut command = self.command();
        command.env("HEADGATE_CONFIG", self.dir.path().join("elsewhere.toml"));
        command
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn is_ready(&mut self) {
        let url = self.admin_url("readyz");
        let process = std::cell::RefCell::new(self.process.as_mut().expect("the gateway was started"));
        eventually("the gateway is ready", Duration::from_secs(60), || async {
            let exited = process.borrow_mut().exited();
            assert!(exited.is_none(), "the gateway ended: {exited:?}");
            let answer = http().get(&url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
        })
        .await;
    }

    /// Whether `/readyz` says yes now.
    pub(crate) async fn says_ready(&self) -> bool {
        http().get(self.admin_url("readyz")).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// What `/status` says, as soon as the launched gateway listens.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let url = self.admin_url("status");
        let answer = eventually("the admin listener answers", Duration::from_secs(10), || async {
            http().get(&url).send().await.map_err(|error| error.to_string())
        });
        answer.await.json().await.unwrap()
    }

    /// The value of one line of `/metrics`, by its name and labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = http().get(self.admin_url("metrics")).send().await.unwrap().text().await.unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
    }

    fn admin_url(&self, page: &str) -> String {
        format!("http://{}/{page}", self.admin())
    }

    /// The process id of the running gateway.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the gateway is running").pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// `kill -9`.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        process.signal(Signal::TERM);
        let status: ExitStatus = process.wait(Duration::from_secs(20));
        assert_eq!(status.signal(), None, "the gateway was killed");
        status.code()
    }

    /// Everything it printed so far, over all its runs.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap()
}
