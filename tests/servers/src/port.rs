//! Ports that stay a server's own for as long as it lives, also while it is down.
//!
//! They lie below the range that the kernel gives to outgoing connections: there, a client that retries while the
//! server is down could take the port, or even connect to itself.

use std::{
    fs::{File, OpenOptions, TryLockError},
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1, locked against every other test process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A free port.
    pub fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let dir =
            std::env::temp_dir().join(format!("headgate-test-ports-{}", rustix::process::geteuid().as_raw()));
        std::fs::create_dir_all(&dir).unwrap();
        let start = (std::process::id().wrapping_mul(37) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let number = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
            let lock =
                OpenOptions::new().create(true).append(true).open(dir.join(number.to_string())).unwrap();
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => panic!("cannot lock port {number}: {error}"),
            }
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
