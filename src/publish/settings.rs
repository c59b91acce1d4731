//! The settings of a source's stream: what it is made with, and what of an existing one would lose or reorder events.

use super::stream_name;
use crate::{
    broker::is_stream_missing,
    config::{self, Publish},
};
use async_nats::jetstream::{
    Context,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use headgate_sdk::{Fault, Finding};

/// Who publishes to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// One gateway alone: its messages are a chain.
    One(Publish),
    /// Any number of gateways: the same delivery is told by its id.
    Several,
}

/// The settings that a stream is created with.
pub(crate) fn settings(name: &str, subjects: &str, wanted: &config::Nats) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: if wanted.stream.memory { StorageType::Memory } else { StorageType::File },
        num_replicas: wanted.stream.replicas,
        max_age: wanted.stream.max_age,
        max_bytes: wanted.stream.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        allow_direct: true,
        allow_atomic_publish: wanted.publish == Publish::Atomic,
        description: Some("Headgate: ordered CloudEvents; published by the gateway alone".to_owned()),
        ..Config::default()
    }
}

/// Refuses a stream that would lose or reorder events.
///
/// # Errors
/// Definite: its first flaw.
pub(crate) fn suffices(found: &Config, source: &str, writers: Writers) -> Result<(), Fault> {
    let Some(flaw) = flaws(found, source, writers).into_iter().next() else { return Ok(()) };
    let fault = Fault::definite(format!("stream {} is unfit: {}", found.name, flaw.what));
    Err(match flaw.fix {
        Some(fix) => fault.with_fix(fix),
        None => fault,
    })
}

/// What `check` says about a source's stream: that it is missing and will be made, what is unfit in it, or what it holds.
/// `warning`: what is to be said of its settings beside that.
pub(crate) async fn findings(
    context: &Context,
    source: &str,
    writers: Writers,
    warning: impl FnOnce(&Config) -> Option<Finding>,
) -> Vec<Finding> {
    let name = stream_name(source);
    let subject = format!("stream {name}");
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_stream_missing(error.kind()) => {
            return vec![Finding::good(subject, "not there yet; `headgate run` creates it")];
        }
        Err(error) => {
            let why = match writers {
                Writers::One(_) => "nothing can be published",
                Writers::Several => "deliveries would fill the spool",
            };
            return vec![Finding::error(subject, format!("cannot be read: {error}"), why)];
        }
    };
    let info = stream.cached_info();
    let mut findings = flaws(&info.config, source, writers);
    findings.extend(warning(&info.config));
    if findings.is_empty() {
        let what = format!("{} events, {} bytes", info.state.messages, info.state.bytes);
        findings.push(Finding::good(subject, what));
    }
    findings
}

/// Settings of an existing stream that would lose or reorder events.
fn flaws(found: &Config, source: &str, writers: Writers) -> Vec<Finding> {
    let name = &found.name;
    let subject = format!("stream {name}");
    let wildcard = format!("events.{source}.>");
    let edit = |option: &str| format!("nats stream edit {name} {option}");
    let again = || format!("delete {name} and let Headgate create it");
    let mut flaws = Vec::new();
    let mut flaw = |what: &str, why: &str, fix: String| {
        flaws.push(Finding::error(subject.clone(), what, why).with_fix(fix));
    };
    if !found.subjects.contains(&wildcard) {
        let fix = edit(&format!("--subjects '{wildcard}'"));
        flaw(&format!("it does not hold {wildcard}"), "events would be published to nowhere", fix);
    }
    if writers != Writers::Several && found.subjects.iter().any(|subject| *subject != wildcard) {
        let fix = edit(&format!("--subjects '{wildcard}'"));
        flaw(
            "it holds other subjects too",
            "other writers would break the gateway's chain of sequences",
            fix,
        );
    }
    if found.no_ack {
        let why = match writers {
            Writers::One(_) => "lost events would go unnoticed",
            Writers::Several => "no delivery could be answered",
        };
        flaw("no_ack is on", why, edit("--ack"));
    }
    if found.retention != RetentionPolicy::Limits {
        flaw("its retention is not `limits`", "an event would go when one consumer has read it", again());
    }
    if found.max_messages_per_subject > 0 {
        let fix = edit("--max-msgs-per-subject=-1");
        flaw("max_msgs_per_subject is set", "older events of a subject would be lost", fix);
    }
    let publish = match writers {
        Writers::One(publish) => publish,
        Writers::Several => {
            if found.mirror.is_some() || found.sealed {
                flaw("it is a mirror or sealed", "nothing can be published to it", again());
            }
            return flaws;
        }
    };
    if found.mirror.is_some() || found.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        flaw("it mirrors or sources other streams", "the gateway must be its only writer", again());
    }
    if found.sealed {
        flaw("it is sealed", "nothing can be published to it", again());
    }
    if found.subject_transform.is_some() {
        flaw("it transforms subjects", "events would be stored under other subjects", edit("--no-transform"));
    }
    if publish == Publish::Atomic && !found.allow_atomic_publish {
        flaw("atomic publishing is off", "`publish = \"atomic\"` needs it", edit("--allow-batch"));
    }
    flaws
}
