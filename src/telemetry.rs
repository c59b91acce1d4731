//! What the gateway tells about itself: logs for people, metrics for machines.
//!
//! Logs go to standard error, so that standard output stays a command's own. They are quiet by default: the gateway's
//! own news, and nothing of its libraries but what is wrong. Nor do libraries tell details, whatever is asked for: theirs are
//! the bytes that they carry, and those are the events' data.

pub mod exposition;
pub mod metrics;

use std::{fmt, io::IsTerminal as _};
use tracing::{Level, Metadata, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt as _,
    filter::filter_fn,
    fmt::format::{Writer, debug_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// What is logged where `HEADGATE_LOG` and `RUST_LOG` say nothing. A target is meant by what it begins with, so the connectors' crates
/// and the SDK are among them.
const RUN_FILTER: &str = "error,headgate=info";
/// The same for a command that somebody waits for: its own answer says enough.
const COMMAND_FILTER: &str = "off";

/// Starts logging, as `HEADGATE_LOG` (or `RUST_LOG`) and `HEADGATE_LOG_FORMAT` (`text` or `json`) say.
///
/// # Errors
/// One of the variables cannot be used, or logging was started before.
pub fn start_logging(env: &dyn Fn(&str) -> Option<String>, run: bool) -> Result<(), String> {
    let directives = env("HEADGATE_LOG").or_else(|| env("RUST_LOG")).filter(|text| !text.trim().is_empty());
    let default = if run { RUN_FILTER } else { COMMAND_FILTER };
    let filter = EnvFilter::builder()
        .parse(directives.as_deref().unwrap_or(default))
        .map_err(|error| format!("HEADGATE_LOG: {error}"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match env("HEADGATE_LOG_FORMAT").as_deref() {
        Some("json") => {
            subscriber.json().flatten_event(true).finish().with(filter_fn(may_be_told)).try_init()
        }
        Some("text" | "") | None => {
            let colours =
                std::io::stderr().is_terminal() && env("NO_COLOR").is_none_or(|text| text.is_empty());
            let fields = debug_fn(field).delimited(" ");
            let subscriber = subscriber.with_ansi(colours).with_target(false).fmt_fields(fields);
            subscriber.finish().with(filter_fn(may_be_told)).try_init()
        }
        Some(_) => return Err("HEADGATE_LOG_FORMAT: expected \"text\" or \"json\"".to_owned()),
    };
    started.map_err(|error| error.to_string())
}

/// Whether something may be logged at all. Below `info` the client of NATS, for one, writes down what the server answered,
/// events in it.
fn may_be_told(what: &Metadata<'_>) -> bool {
    *what.level() <= Level::INFO || what.target().starts_with("headgate")
}

/// One field of a line of text. Quotes within a text stay as they are, so that a statement can be copied from it; whatever could
/// begin a line of its own or steer a terminal is spelled out.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name().trim_start_matches("r#"))?;
    }
    for c in format!("{value:?}").replace("\\\"", "\"").chars() {
        if c.is_control() { write!(writer, "{}", c.escape_default())? } else { writer.write_char(c)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_tell_no_details_whatever_is_asked_for() {
        let lines = Lines::default();
        let kept = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("trace"))
            .with_ansi(false)
            .with_writer(move || kept.clone())
            .finish()
            .with(filter_fn(may_be_told));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "async_nats::jetstream", "JetStream request response: the event");
            tracing::warn!(target: "async_nats", "slow consumer");
            tracing::trace!(target: "headgate_webhook::intake", "ours");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("slow consumer") && text.contains("ours"), "{text}");
        assert!(!text.contains("the event"), "{text}");
    }

    #[test]
    fn a_statement_can_be_copied_and_a_name_cannot_begin_a_line() {
        let lines = Lines::default();
        let kept = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(debug_fn(field).delimited(" "))
            .with_writer(move || kept.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let nothing: Option<&str> = None;
            let error = "x\nERROR \u{1b}[2J";
            tracing::warn!(fix = "ALTER ROLE \"cdc\" REPLICATION", error, shown = %error, nothing, "stopped: {error}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            " WARN stopped: x\\nERROR \\u{1b}[2J fix=\"ALTER ROLE \"cdc\" REPLICATION\" error=\"x\\nERROR \\u{1b}[2J\" shown=x\\nERROR \\u{1b}[2J\n"
        );
    }
}
