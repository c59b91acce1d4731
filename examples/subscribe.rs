//! Subscribes to the events of one source: `cargo run --example subscribe -- 'events.shop.orders.>'`
//!
//! Two ways to read, and how each goes on where it stopped:
//!
//! * without a name, an **ordered** consumer reads from the beginning, keeps no state in the broker, and goes on after the
//!   stream sequence that it is given: `--after 1234`. Store that number with what you made of the event, in one
//!   transaction, and every event has its effect once.
//! * `--durable NAME` makes a **durable** consumer: the broker remembers what was acknowledged. An event that was
//!   handled but not acknowledged (a crash in between) comes again, with the same `id`.
//!
//! Events of one `partitionkey` (one row) come in the order of the database; so do all events of the stream here, for
//! there is one reader. Several readers share the work by partition: `events.shop.*.*.0`, `events.shop.*.*.1` and so on.
//!
//! `--count N` ends it after N events. NATS_URL says where the broker is (nats://127.0.0.1:4222).

use async_nats::jetstream::{
    self, Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The attributes that this example shows, of the many that an event has.
#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    partitionkey: String,
    #[serde(default)]
    data: serde_json::Value,
}

struct Arguments {
    subject: String,
    durable: Option<String>,
    after: u64,
    count: usize,
}

fn arguments() -> Result<Arguments, Error> {
    let mut found = Arguments { subject: "events.shop.>".into(), durable: None, after: 0, count: usize::MAX };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--durable" => found.durable = Some(value()?),
            "--after" => found.after = value()?.parse()?,
            "--count" => found.count = value()?.parse()?,
            _ => found.subject = word,
        }
    }
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { subject, durable, after, count } = arguments()?;
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".into());
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    // The stream's name is EVENTS_ and the source's name, which is the second token of the subject.
    let source = subject.split('.').nth(1).ok_or("expected a subject like events.shop.orders.>")?;
    let stream = jetstream.get_stream(format!("EVENTS_{source}")).await?;

    let acknowledge = durable.is_some();
    let mut messages: BoxStream<'_, Result<Message, Error>> = match durable {
        Some(name) => {
            let consumer = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject: subject,
                ack_policy: AckPolicy::Explicit,
                // One event under way at a time, so that one that comes again does not come after its successors.
                max_ack_pending: 1,
                // An event that was not acknowledged comes again after this: longer than handling one takes.
                ack_wait: Duration::from_secs(10),
                ..pull::Config::default()
            };
            let consumer = stream.get_or_create_consumer(&name, consumer).await?;
            consumer.messages().await?.map_err(Error::from).boxed()
        }
        None => {
            let consumer = pull::OrderedConfig {
                filter_subject: subject,
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
                ..pull::OrderedConfig::default()
            };
            stream.create_consumer(consumer).await?.messages().await?.map_err(Error::from).boxed()
        }
    };

    let mut seen: HashMap<String, u64> = HashMap::new();
    for _ in 0..count {
        let Some(message) = messages.next().await.transpose()? else { break };
        let sequence = message.info()?.stream_sequence;
        let event: Event = serde_json::from_slice(&message.payload)?;
        let nth = seen.entry(event.partitionkey.clone()).or_default();
        *nth += 1;
        // Here an agent would act. `after` is null for a deleted row, `before` where the database did not log it. Not every
        // event is a row's: new shapes and messages have no `after`, an outbox sends what the application wrote, which may
        // be no object, and a large event has no `data` but `dataref`, the place where it is kept (docs/events.md).
        println!(
            "{sequence} {} {} #{nth} {} {}",
            event.partitionkey, event.kind, event.id, event.data["after"]
        );
        if acknowledge {
            // Waits for the broker's word that it has the acknowledgement: a lost one brings the event again.
            message.double_ack().await?;
        }
    }
    Ok(())
}
