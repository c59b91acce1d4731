//! Whether a run goes on where the stream ends, before a run finds out and says so with a gap event.

use crate::{
    cli::connector,
    config::{OnGap, Source},
    pipeline::Footing,
};
use async_nats::jetstream::Context;
use headgate_sdk::Finding;

/// Nothing where the source never ran, or where database or broker do not answer: that is told already.
pub(super) async fn findings(context: &Context, name: &str, source: &Source) -> Vec<Finding> {
    const SUBJECT: &str = "history";
    let Ok(Some(footing)) = Footing::read(context, name, source.on_gap).await else { return Vec::new() };
    if let Some(reason) = &footing.gap {
        let why =
            "changes are missing from the stream, and the source stands still until somebody accepts that";
        let what = format!("a gap waits to be accepted: {reason}");
        let accept = format!("headgate source accept-gap {name}");
        // The gateway was killed before it had kept that.
        let fix = if footing.is_kept { accept } else { format!("headgate run, then {accept}") };
        return vec![Finding::error(SUBJECT, what, why).with_fix(fix)];
    }
    let missing = match connector::missing(name, source, &footing.resume).await {
        Ok(Some(reason)) => reason,
        Ok(None) => return vec![Finding::good(SUBJECT, "goes on where the stream ends")],
        Err(_) => return Vec::new(),
    };
    let lost = "changes are missing from the stream for good, which the run tells with a gap event";
    vec![match source.on_gap {
        OnGap::Stop => {
            Finding::error(SUBJECT, missing, format!("{lost}; then it stops (on_gap = \"stop\")")).with_fix(format!(
                "headgate run, then headgate source accept-gap {name} to go on without them; or on_gap = \"snapshot\" to have all tables read again"
            ))
        }
        OnGap::Snapshot => Finding::warning(
            SUBJECT,
            missing,
            format!("{lost}; then it goes on, and reads all tables again (on_gap = \"snapshot\")"),
        ),
    }]
}
