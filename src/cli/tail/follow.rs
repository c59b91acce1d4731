//! Follows every stream whose events can match, also those that appear later, through restarts of the broker.

use super::selection::{From, Selection};
use crate::cli::Failure;
use async_nats::jetstream::{
    Context, Message,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt as _;
use std::{collections::HashSet, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};

const PREFIX: &str = "EVENTS_";
/// How often to look for new streams.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait before a lost consumer is made again.
const RETRY: Duration = Duration::from_millis(300);

/// Sends the messages of all matching streams into one channel.
pub(super) struct Follower {
    context: Context,
    selection: Selection,
    from: From,
    sender: mpsc::Sender<Message>,
}

impl Follower {
    pub(super) fn new(
        context: Context,
        selection: Selection,
        from: From,
        sender: mpsc::Sender<Message>,
    ) -> Self {
        Self { context, selection, from, sender }
    }

    /// Runs until nobody takes the messages any more.
    ///
    /// # Errors
    /// The streams cannot be listed at the start.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut followed = HashSet::new();
        let mut tasks = JoinSet::new();
        let mut first = true;
        while !self.sender.is_closed() {
            match self.streams().await {
                Ok(streams) => {
                    for stream in streams {
                        if followed.insert(stream.clone()) {
                            // Everything in a stream that was not there before is new.
                            let from = if first || !matches!(self.from, From::Now) {
                                self.from
                            } else {
                                From::Start
                            };
                            let (context, sender) = (self.context.clone(), self.sender.clone());
                            let filters = self.selection.filters();
                            tasks.spawn(async move {
                                follow(&context, &stream, filters, from, &sender).await;
                                stream
                            });
                        }
                    }
                    first = false;
                }
                Err(error) if first => {
                    return Err(Failure::unavailable(format!("cannot list the streams: {error}"))
                        .with_fix("headgate check"));
                }
                Err(error) => tracing::debug!("cannot list the streams: {error}"),
            }
            tokio::select! {
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            while let Some(ended) = tasks.try_join_next() {
                if let Ok(stream) = ended {
                    followed.remove(&stream);
                }
            }
        }
        Ok(())
    }

    async fn streams(&self) -> Result<Vec<String>, async_nats::Error> {
        let mut names = self.context.stream_names();
        let mut wanted = Vec::new();
        while let Some(name) = names.next().await {
            let name = name?;
            if name.strip_prefix(PREFIX).is_some_and(|source| self.selection.wants(source)) {
                wanted.push(name);
            }
        }
        Ok(wanted)
    }
}

/// Sends one stream's messages until the stream is gone or nobody takes them.
async fn follow(
    context: &Context,
    name: &str,
    filters: Vec<String>,
    from: From,
    sender: &mpsc::Sender<Message>,
) {
    let mut policy: Option<DeliverPolicy> = None;
    while !sender.is_closed() {
        let stream = match context.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) => {
                use async_nats::jetstream::context::GetStreamErrorKind as Kind;
                if matches!(error.kind(), Kind::JetStream(_)) {
                    tracing::debug!(stream = name, "the stream is gone: {error}");
                    return;
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        // A beginning relative to now is fixed once, so that nothing is left out after a restart of the broker.
        let deliver_policy =
            *policy.get_or_insert_with(|| from.policy(stream.cached_info().state.last_sequence));
        let config =
            OrderedConfig { filter_subjects: filters.clone(), deliver_policy, ..OrderedConfig::default() };
        let messages = match stream.create_consumer(config).await {
            Ok(consumer) => consumer.messages().await,
            Err(error) => {
                tracing::debug!(stream = name, "no consumer: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let Ok(mut messages) = messages else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while let Some(message) = messages.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(stream = name, "the consumer is lost: {error}");
                    break;
                }
            };
            if let Ok(info) = message.info() {
                policy = Some(DeliverPolicy::ByStartSequence { start_sequence: info.stream_sequence + 1 });
            }
            if sender.send(message).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
