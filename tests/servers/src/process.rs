//! A child process that never outlives its test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A running child whose output goes to a file. Killed, with its own children, when dropped; the file's end is printed
/// when that happens in a panic.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Process {
    /// Starts `command`, appending what it prints to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let out = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: false }
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        if !self.ended {
            kill_process(self.pid(), signal)
                .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
        }
    }

    /// `kill -9`, the process first and then the children that it had; returns once it is gone.
    pub fn kill9(&mut self) {
        if self.ended {
            return;
        }
        let children = children_of(self.child.id());
        // Already gone is as good.
        let _ = kill_process(self.pid(), Signal::KILL);
        for child in &children {
            let _ = kill_process(*child, Signal::KILL);
        }
        let _ = self.child.wait();
        self.ended = true;
        let began = Instant::now();
        while children.iter().any(|child| runs(*child)) && began.elapsed() < Duration::from_secs(5) {
            pause();
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(began.elapsed() < within, "{} is still running after {within:?}", self.name);
            pause();
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        self.ended |= status.is_some();
        status
    }

    /// What it printed last.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(8 << 10)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the end of what {} printed\n{}---", self.name, self.log_tail());
        }
    }
}

/// Blocks for a moment: only where a process is waited for, which has no asynchronous form here.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    state_and_parent(&stat).is_some_and(|(state, _)| state != "Z")
}

fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state_and_parent(&stat).is_some_and(|(_, of)| of == parent)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The fields after the program's name, which may hold spaces and parentheses.
fn state_and_parent(stat: &str) -> Option<(&str, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?, fields.next()?.parse().ok()?))
}
