//! Where an existing stream is not what the configuration would make. Headgate never changes a stream that is there, so
//! a changed setting does nothing by itself. What would lose or reorder events is told elsewhere, as an error.

use crate::{config::Nats, publish};
use async_nats::jetstream::{
    Context,
    stream::{Config, DiscardPolicy, StorageType},
};
use headgate_sdk::Finding;
use std::time::Duration;

/// What differs. Nothing where there is no stream yet, or the broker does not answer: both are told already.
pub(super) async fn findings(context: &Context, source: &str, wanted: &Nats) -> Vec<Finding> {
    let Ok(stream) = context.get_stream(publish::stream_name(source)).await else { return Vec::new() };
    stream.get_info().await.map(|info| differences(&info.config, wanted)).unwrap_or_default()
}

fn differences(found: &Config, wanted: &Nats) -> Vec<Finding> {
    let name = &found.name;
    let mut findings = Vec::new();
    let mut differs = |what: String, why: &str, fix: String| {
        findings.push(Finding::warning(format!("stream {name}"), what, why).with_fix(fix));
    };
    let edit = |option: String| format!("nats stream edit {name} {option}");
    let storage = if wanted.stream.memory { StorageType::Memory } else { StorageType::File };
    if found.storage != storage {
        let (is, set) = if wanted.stream.memory { ("file", "memory") } else { ("memory", "file") };
        let why =
            "events in memory are gone when the broker restarts; a stream keeps the storage it was made with";
        let fix = format!("storage = \"{is}\", or delete {name} and let Headgate create it");
        differs(format!("storage is {is}, configured is {set}"), why, fix);
    }
    if found.max_age != wanted.stream.max_age {
        let what = format!("max_age is {}, configured is {}", age(found.max_age), age(wanted.stream.max_age));
        let why = "an existing stream is never changed: events go by its own age";
        differs(what, why, edit(format!("--max-age={}", go_age(wanted.stream.max_age))));
    }
    let configured = wanted.stream.max_bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let is = Some(found.max_bytes).filter(|bytes| *bytes > 0);
    if is != configured {
        let show =
            |bytes: Option<i64>| bytes.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
        let what = format!("max_bytes is {}, configured is {}", show(is), show(configured));
        let why = "an existing stream is never changed: events go by its own limit";
        differs(what, why, edit(format!("--max-bytes={}", configured.unwrap_or(-1))));
    }
    if found.discard == DiscardPolicy::New && (is.is_some() || found.max_messages > 0) {
        let why = "when the stream is full nothing more is taken, and the database keeps its log meanwhile";
        differs("it refuses new events when it is full".to_owned(), why, edit("--discard=old".to_owned()));
    }
    if found.max_messages > 0 {
        let what = format!("max_msgs is {}", found.max_messages);
        differs(what, "older events go by their number", edit("--max-msgs=-1".to_owned()));
    }
    if found.max_message_size > 0 {
        let what = format!("max_msg_size is {} bytes", found.max_message_size);
        let why = "the data of a larger event goes to an object store, which costs its subscribers a second request";
        differs(what, why, edit("--max-msg-size=-1".to_owned()));
    }
    findings
}

fn age(age: Duration) -> String {
    if age.is_zero() { "for ever".to_owned() } else { format!("{age:?}") }
}

/// As the `nats` program reads it.
fn go_age(age: Duration) -> String {
    if age.is_zero() { "0".to_owned() } else { format!("{}s", age.as_secs()) }
}
