//! The checkpoint of the source `shop`, as a gateway leaves it that is killed at the worst moment.

use super::nats::Nats;
use serde_json::{Value, json};

const KEY: &str = "checkpoint.shop";

/// The checkpoint as it is.
pub(crate) async fn read(nats: &Nats) -> Value {
    let bucket = nats.jetstream().await.get_key_value("headgate").await.unwrap();
    serde_json::from_slice(&bucket.get(KEY).await.unwrap().expect("a checkpoint")).unwrap()
}

/// Puts the checkpoint, which waits at a gap, back to where it is between the word of that gap and its being kept. `before`: what
/// it was before the gap.
pub(crate) async fn forget_the_gap(nats: &Nats, mut before: Value) {
    let kept = read(nats).await;
    let log = u64::from_str_radix(kept["progress"].as_str().unwrap(), 16).unwrap();
    before["announced"] = json!({
        "epoch": kept["epoch"], "identity": kept["identity"], "log": log, "reason": kept["gap"],
    });
    let bucket = nats.jetstream().await.get_key_value("headgate").await.unwrap();
    bucket.put(KEY, before.to_string().into()).await.unwrap();
}
