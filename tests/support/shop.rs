//! A database with the workload's tables, a broker, and what a gateway between them is started with.

use super::{
    database,
    gateway::{Gateway, Settings},
    nats::Nats,
    oracle,
    postgres::{Postgres, Version},
    stream::Event,
    workload,
};

/// The slot that the source `shop` has by default.
pub(crate) const SLOT: &str = "headgate_shop";

/// The stream of the source `shop`.
pub(crate) const STREAM: &str = "EVENTS_shop";

/// The servers around a gateway.
#[derive(Debug)]
pub(crate) struct Shop {
    /// The database.
    pub(crate) postgres: Postgres,
    /// The broker.
    pub(crate) nats: Nats,
}

impl Shop {
    /// A database of the newest version and a single broker.
    pub(crate) async fn open() -> Self {
        Self::with(Version::Pg18, Nats::start().await).await
    }

    /// A database of this version, with this broker.
    pub(crate) async fn with(version: Version, nats: Nats) -> Self {
        Self::configured(version, nats, &[]).await
    }

    /// The same with more settings of the database, which gives up a silent reader after two seconds.
    pub(crate) async fn configured(version: Version, nats: Nats, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("wal_sender_timeout", "2s")], settings].concat();
        let postgres = Postgres::start(version, &settings).await;
        workload::create_tables(&postgres).await;
        Self { postgres, nats }
    }

    /// What a gateway is started with.
    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.nats, self.postgres.url())
    }

    /// The same with more lines of `[nats]`.
    pub(crate) fn settings_with(&self, nats_lines: &str) -> Settings {
        Settings { nats_lines: nats_lines.to_owned(), ..self.settings() }
    }

    /// A gateway that is ready and reads.
    pub(crate) async fn gateway(&self) -> Gateway {
        self.gateway_with(&self.settings()).await
    }

    /// The same with other settings.
    pub(crate) async fn gateway_with(&self, settings: &Settings) -> Gateway {
        let gateway = Gateway::start(settings).await;
        self.postgres.slot_is_active(SLOT).await;
        gateway
    }

    /// [`oracle::assert_faithful`], and that there was something to be faithful to.
    pub(crate) async fn assert_faithful(&self) -> Vec<Event> {
        let events = self.assert_faithful_however_small().await;
        let tables = database::read(&self.postgres.client().await, "public").await;
        assert!(events.len() > tables.values().map(|table| table.rows.len()).max().unwrap_or(0));
        events
    }

    /// [`oracle::assert_faithful`].
    pub(crate) async fn assert_faithful_however_small(&self) -> Vec<Event> {
        oracle::assert_faithful(&self.nats, &self.postgres).await
    }

    /// [`oracle::Witness::assert_faithful`]; how many events that were.
    pub(crate) async fn still_faithful(&self, witness: &mut oracle::Witness) -> usize {
        witness.assert_faithful(&self.nats, &self.postgres).await.len()
    }
}
