//! What the gateway tells about itself: logs for people, metrics for machines.
//!
//! Logs go to standard error, so that standard output stays a command's own. They are quiet by default: the gateway's
//! own news, and nothing of its libraries but what is wrong.

pub mod exposition;
pub mod metrics;

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// What is logged where `HEADGATE_LOG` and `RUST_LOG` say nothing.
const RUN_FILTER: &str = "error,headgate=info,headgate_postgres=info,headgate_mysql=info";
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
        Some("json") => subscriber.json().flatten_event(true).try_init(),
        Some("text" | "") | None => {
            let colours =
                std::io::stderr().is_terminal() && env("NO_COLOR").is_none_or(|text| text.is_empty());
            subscriber.with_ansi(colours).with_target(false).try_init()
        }
        Some(_) => return Err("HEADGATE_LOG_FORMAT: expected \"text\" or \"json\"".to_owned()),
    };
    started.map_err(|error| error.to_string())
}
