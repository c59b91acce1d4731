//! `headgate tail`: events as they arrive.
//!
//! # Order
//! Within a source, the order of its stream; between sources, the order of arrival here.
//!
//! # Duplicates, shutdown
//! Each message is shown once, also across restarts of the broker. When the reader of standard output goes away
//! (`| head`), the command ends with success.

pub(super) mod event;
mod follow;
mod line;
mod selection;

use super::{
    Failure,
    failure::{print, write},
    paint::Paint,
};
use crate::{
    broker::{self, Patience},
    config::Config,
};
use async_nats::jetstream;
use clap::Args;
use event::Structured;
use line::Lines;
use selection::{From, Selection};
use std::{io::Write as _, time::Duration};
use tokio::sync::mpsc;

/// Messages that may wait to be shown.
const WAITING: usize = 256;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  headgate tail                          Everything from now on
  headgate tail shop.orders              One table
  headgate tail 'events.*.*.deleted.*'   Every deletion
  headgate tail shop --from 10m          The last ten minutes, and what follows
  headgate tail shop --from start --json --count 100 | jq .data.after
  headgate tail dlq --from start         The dead letters (else not shown)

A line: commit time (UTC), what, source and row, values or what changed, ms
from commit to the stream.")]
pub(super) struct Tail {
    /// Subjects to show; `shop.orders` is short for `events.shop.orders.>`
    #[arg(value_name = "PATTERN", value_parser = Selection::parse, default_value = "events.>")]
    pattern: Selection,
    /// Where to begin: start, now, a duration ago (10m, 24h), or a sequence of the stream
    #[arg(long, value_parser = From::parse, default_value = "now")]
    from: From,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each event as one line of JSON, a structured CloudEvent
    #[arg(long)]
    json: bool,
}

/// Ends when nobody reads standard output any more (`| head`), which a write would tell only with the next event.
async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    const LOOK: Duration = Duration::from_millis(250);
    loop {
        tokio::time::sleep(LOOK).await;
        let out = std::io::stdout();
        let mut out = [PollFd::new(&out, PollFlags::empty())];
        if poll(&mut out, Some(&Timespec::default())).is_ok()
            && out[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
        {
            return;
        }
    }
}

impl Tail {
    pub(super) async fn execute(self, config: Config) -> Result<(), Failure> {
        if self.count == Some(0) {
            return Ok(());
        }
        if let Some(source) = self.pattern.source().filter(|source| !config.sources.contains_key(*source)) {
            let known: Vec<&str> = config.sources.keys().map(String::as_str).collect();
            // Where even standard error is gone, the events are what counts.
            let _ = writeln!(
                std::io::stderr(),
                "headgate: the configuration has no source {source}; known: {}. Waiting for its events",
                known.join(", ")
            );
        }
        let name = format!("{} tail", config.gateway.name);
        let (client, link) = broker::connect(&config.nats, &name, Patience::Once)
            .await
            .map_err(|error| Failure::unavailable(error.to_string()).with_fix(error.fix()))?;
        let (sender, mut messages) = mpsc::channel(WAITING);
        let follower = follow::Follower::new(jetstream::new(client), self.pattern, self.from, sender, link);
        let following = tokio::spawn(follower.run());
        let mut lines = Lines::new(Paint::detect());
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut gathered = Vec::new();
        let mut out = Vec::new();
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(WAITING).min(WAITING);
            let received = tokio::select! {
                received = messages.recv_many(&mut gathered, most) => received,
                () = reader_gone() => return Ok(()),
            };
            if received == 0 {
                break;
            }
            for message in gathered.drain(..) {
                match Structured::read(&message) {
                    Ok(event) if self.json => {
                        out.extend_from_slice(event.json());
                        out.push(b'\n');
                    }
                    Ok(event) => out.extend_from_slice(lines.show(&message, &event).as_bytes()),
                    Err(why) => {
                        let subject = line::safe(&message.subject, 200);
                        let _ = writeln!(std::io::stderr(), "headgate: {subject}: not a CloudEvent: {why}");
                        continue;
                    }
                }
                left -= 1;
            }
            match write(&out) {
                Ok(true) => out.clear(),
                Ok(false) => return Ok(()),
                Err(error) => return Err(Failure::internal(format!("cannot write the output: {error}"))),
            }
        }
        if left == 0 || self.count.is_none() && !following.is_finished() {
            following.abort();
            return Ok(());
        }
        match following.await {
            Ok(Err(failure)) => Err(failure),
            _ => print(b""),
        }
    }
}
