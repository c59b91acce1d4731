//! `headgate webhook replay`: dead letters once more, after what kept them out was mended.

use crate::{
    broker::{self, Patience},
    cli::{Failure, failure::print},
    config::Config,
    webhook,
};
use async_nats::jetstream;
use clap::Args;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
A delivery that the broker refuses for good (its stream takes no message of
that size, say) is in EVENTS_dlq. It is published under the id that it had, so
what was replayed before is not doubled within dedup_window. What waits in the
spool needs no command: it is published as soon as the broker takes it.

Examples:
  headgate tail dlq --from start              # what there is, and why
  headgate webhook replay gh
  headgate webhook replay gh --delivery 72d3162e-cc78-11e3-81ab-4c9367dc0958

Exit codes: 0 done, 64 no such source or no such delivery, 69 the broker is
away or refuses one again.")]
pub(in crate::cli) struct Replay {
    /// The source, as in [sources.NAME]
    source: String,
    /// Only this delivery, as `delivery` of its dead letter names it
    #[arg(long, value_name = "ID")]
    delivery: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(in crate::cli) async fn execute(self, config: &Config) -> Result<(), Failure> {
        super::find(config, &self.source)?;
        let name = format!("{} replay", config.gateway.name);
        let (client, _) = broker::connect(&config.nats, &name, Patience::Once)
            .await
            .map_err(|error| Failure::unavailable(error.to_string()).with_fix(error.fix()))?;
        let replayed = webhook::replay(&jetstream::new(client), &self.source, self.delivery.as_deref())
            .await
            .map_err(|fault| {
                let failure = Failure::unavailable(fault.to_string());
                match fault.fix() {
                    Some(fix) => failure.with_fix(fix),
                    None => failure,
                }
            })?;
        let found = replayed.published + replayed.known + replayed.without_content;
        if let Some(delivery) = self.delivery.as_ref().filter(|_| found == 0) {
            return Err(Failure::usage(format!("{} has no dead letter of {delivery}", self.source))
                .with_fix("headgate tail dlq --from start"));
        }
        if self.json {
            return super::print_json(&replayed);
        }
        let text = match (replayed.published, replayed.known, replayed.without_content) {
            (0, 0, 0) => format!("{} has no dead letters\n", self.source),
            (published, known, 0) => format!("published {published}, already there {known}\n"),
            (published, known, lacking) => {
                format!("published {published}, already there {known}, without their content {lacking}\n")
            }
        };
        print(text.as_bytes())
    }
}
