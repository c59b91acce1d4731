//! A private PostgreSQL server for one test; its superuser comes in with a password.

use headgate_test_servers::postgres::{Postgres, Stop, chosen, connect};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

pub(crate) struct Server(pub(crate) Postgres);

impl Server {
    /// A new cluster that has not been started.
    pub(crate) fn prepare(settings: &[(&str, &str)]) -> Self {
        Self(Postgres::prepare(chosen(), settings))
    }

    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.up().await;
        server
    }

    /// One that is another database system than the rest.
    pub(crate) async fn start_another() -> Self {
        let mut server = Self(Postgres::prepare_another(chosen(), &[]));
        server.up().await;
        server
    }

    pub(crate) async fn up(&mut self) {
        self.0.start_again().await;
    }

    /// Stops it, and says how long that took. It must not run on this thread: whoever reads has to notice.
    pub(crate) async fn stop(&mut self, how: Stop) -> Duration {
        let started = Instant::now();
        tokio::task::block_in_place(|| self.0.stop(how));
        started.elapsed()
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port()
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// The superuser.
    pub(crate) async fn admin(&self) -> Client {
        self.0.client().await
    }

    pub(crate) async fn connect(&self, database: &str) -> Client {
        connect(&self.0.url_of(database)).await.unwrap()
    }
}
