//! The publisher of one source: the task that owns its chain.

mod ack;
mod atomic;

use super::{
    POSITION_HEADER,
    claim_check::ClaimCheck,
    dead_letter::DeadLetters,
    stream::{End, SourceStream, position_text},
    window::{Acked, Window},
};
use crate::{
    broker::Link,
    config::{self, Mode, Publish},
    event::{Batch, Event, Item},
    normalize::time,
    snapshot::PLACES_HEADER,
    status::SourceState,
};
use ack::Broken;
use async_nats::{
    Client, HeaderMap, HeaderName, HeaderValue, Message, Subject, Subscriber, jetstream::Context,
};
use atomic::ATOMIC_MAX;
use futures_util::StreamExt as _;
use headgate_sdk::{Fault, FaultKind, Position, Progress};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// An acknowledgement is asked for at least this often: one proves all before it, so more would only cost.
const ASK_EVERY: usize = 256;
/// Room for the headers beside a payload.
const HEADER_ROOM: usize = 1024;

const EXPECTED_LAST_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Expected-Last-Sequence");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const POSITION: HeaderName = HeaderName::from_static(POSITION_HEADER);
const PLACES: HeaderName = HeaderName::from_static(PLACES_HEADER);

/// What the broker holds durably of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The last event.
    pub position: Option<Position>,
    /// How far the log is covered by events.
    pub streamed: Option<Progress>,
    /// How far it is covered by marks, with everything before them durable.
    pub marked: Option<Progress>,
    /// The stream's sequence of the last event.
    pub sequence: u64,
}

/// Whose events they are.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The events' `source` attribute.
    pub uri: &'a str,
    /// The number of partitions.
    pub partitions: u32,
}

/// Publishes one source's batches.
pub struct Publisher {
    client: Client,
    link: watch::Receiver<Link>,
    /// The connection that everything in the window was published on.
    generation_seen: u64,
    stream: SourceStream,
    /// The largest message that the broker and the stream take; asked for anew with each resync.
    limit: usize,
    setting: config::Nats,
    dead_letters: DeadLetters,
    claim_check: ClaimCheck,
    state: Arc<SourceState>,
    durable: watch::Sender<Durable>,
    window: Window,
    /// Taken from batches, not published yet.
    queue: VecDeque<Queued>,
    queued_events: usize,
    queued_bytes: usize,
    /// Whether the normalizer waits for room.
    pressed: bool,
    /// Sequences whose acknowledgement was asked for, and when.
    asked: VecDeque<(u64, Instant)>,
    unasked: usize,
    /// The last event that the stream is known to hold.
    tail: Option<Position>,
    inbox: String,
    /// Grows with each resync, so that answers to what was sent before it are told apart.
    generation: u64,
    reply: Subject,
}

#[derive(Debug)]
enum Queued {
    Item(Item),
    BatchEnd(OwnedSemaphorePermit),
}

impl Publisher {
    /// A publisher that goes on after `end`.
    pub fn new(
        context: &Context,
        mut link: watch::Receiver<Link>,
        (stream, end): (SourceStream, End),
        identity: Identity<'_>,
        setting: config::Nats,
        state: Arc<SourceState>,
    ) -> Self {
        let Identity { source, uri, partitions } = identity;
        let generation_seen = link.borrow_and_update().generation;
        let client = context.client();
        let inbox = client.new_inbox();
        let tail = end.last.map(|last| last.position);
        let (durable, _) =
            watch::channel(Durable { position: tail, sequence: end.sequence, ..Durable::default() });
        if let Some(position) = tail {
            state.acked(position, end.sequence, 0);
        }
        Self {
            dead_letters: DeadLetters::new(context.clone(), source, uri, partitions, &setting.stream),
            claim_check: ClaimCheck::new(context.clone(), source, &setting.stream),
            reply: Subject::from(format!("{inbox}.0")),
            generation_seen,
            link,
            limit: stream.max_message(client.server_info().max_payload),
            client,
            stream,
            setting,
            state,
            durable,
            window: Window::new(end.sequence),
            queue: VecDeque::new(),
            queued_events: 0,
            queued_bytes: 0,
            pressed: false,
            asked: VecDeque::new(),
            unasked: 0,
            tail,
            inbox,
            generation: 0,
        }
    }

    /// What is durable, from now on.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// Publishes until `batches` closes and everything is acknowledged.
    ///
    /// # Errors
    /// Transient where the stream lost events that were acknowledged: the source has to be read again.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> Result<(), Fault> {
        let mut acks =
            self.client.subscribe(format!("{}.*", self.inbox)).await.map_err(|error| {
                Fault::transient("cannot subscribe to acknowledgements").with_cause(error)
            })?;
        let mut open = true;
        loop {
            self.take_available(&mut batches, &mut open);
            self.publish_queued(open).await?;
            self.show_pending();
            if !open && self.queue.is_empty() && self.window.is_empty() {
                return Ok(());
            }
            let overdue = self.asked.front().map(|(_, at)| *at + self.setting.ack_timeout);
            let broken = tokio::select! {
                biased;
                message = acks.next() => match message {
                    Some(message) => self.acknowledged(&message),
                    None => return Err(Fault::transient("the broker's connection is closed")),
                },
                changed = self.link.changed() => match changed {
                    Ok(()) => {
                        let link = *self.link.borrow_and_update();
                        (!link.connected || link.generation != self.generation_seen).then_some(Broken::Disconnected)
                    }
                    Err(_) => return Err(Fault::transient("the broker's connection is closed")),
                },
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => Some(Broken::Silence),
                batch = batches.recv(), if open && self.wants_more() => {
                    match batch {
                        Some(batch) => self.enqueue(batch),
                        None => open = false,
                    }
                    None
                }
            };
            if let Some(broken) = broken {
                self.resync(&broken, &mut acks).await?;
            }
        }
    }

    /// Whether another batch should be taken: not while what was taken still waits for the window.
    fn wants_more(&self) -> bool {
        match self.setting.publish {
            Publish::Chain => self.queue.is_empty(),
            Publish::Atomic => self.queued_events < ATOMIC_MAX,
        }
    }

    fn enqueue(&mut self, batch: Batch) {
        // What it waited with comes right behind.
        self.pressed = batch.items.is_empty();
        for item in batch.items {
            if let Item::Event(event) = &item {
                self.queued_events += 1;
                self.queued_bytes += event.payload.len();
            }
            self.queue.push_back(Queued::Item(item));
        }
        if let Some(permit) = batch.permit {
            self.queue.push_back(Queued::BatchEnd(permit));
        }
    }

    /// Takes what is there without waiting, so that acknowledgements are asked for at the end of a burst, not of a batch.
    fn take_available(&mut self, batches: &mut mpsc::Receiver<Batch>, open: &mut bool) {
        while *open && self.queued_events < ATOMIC_MAX {
            match batches.try_recv() {
                Ok(batch) => self.enqueue(batch),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => *open = false,
            }
        }
    }

    async fn publish_queued(&mut self, open: bool) -> Result<(), Fault> {
        match self.setting.publish {
            Publish::Chain => {
                while self.window.len() < self.setting.window {
                    let Some(queued) = self.queue.pop_front() else { break };
                    let event = match queued {
                        // Nearly all of them; spared the way of the rare ones, which would move them many times.
                        Queued::Item(Item::Event(event)) if self.is_plain(&event) => {
                            self.unqueue(&event);
                            event
                        }
                        rare => match Box::pin(self.pass(rare)).await? {
                            Some(event) => event,
                            None => continue,
                        },
                    };
                    let full = self.window.len() + 1 >= self.setting.window;
                    let ask = self.queued_events == 0 || full || self.unasked + 1 >= ASK_EVERY;
                    let mut headers = self.headers(&event);
                    let (subject, payload) = (event.subject.clone(), event.payload.clone());
                    headers.insert(EXPECTED_LAST_SEQUENCE, HeaderValue::from(self.window.push(event)));
                    self.send(subject, headers, payload, ask).await?;
                }
                Ok(())
            }
            Publish::Atomic => self.publish_atomic(open).await,
        }
    }

    /// Deals with everything that is not a plain event to publish; returns the event if it is one.
    async fn pass(&mut self, queued: Queued) -> Result<Option<Event>, Fault> {
        let item = match queued {
            Queued::Item(item) => item,
            Queued::BatchEnd(permit) => {
                self.window.end_batch(permit);
                self.settle_idle();
                return Ok(None);
            }
        };
        match item {
            Item::Event(event) => {
                self.unqueue(&event);
                if self.tail.is_some_and(|tail| event.position <= tail) {
                    // Another gateway was quicker with the same event.
                    if let Some(log) = event.transaction_end {
                        self.window.mark(Progress { epoch: event.position.epoch, log });
                        self.settle_idle();
                    }
                    return Ok(None);
                }
                self.fit(event).await.map(Some)
            }
            Item::DeadLetter(letter) => {
                let dead_letters = self.dead_letters.clone();
                persist(|| dead_letters.keep(&letter)).await;
                self.state.metrics.failed.inc();
                Ok(None)
            }
            Item::Mark(progress) => {
                self.window.mark(progress);
                self.settle_idle();
                Ok(None)
            }
        }
    }

    fn unqueue(&mut self, event: &Event) {
        self.queued_events -= 1;
        self.queued_bytes -= event.payload.len();
    }

    /// Whether the event is new to the stream and small enough to be published as it is.
    fn is_plain(&self, event: &Event) -> bool {
        self.tail.is_none_or(|tail| event.position > tail) && weight(event) <= self.limit
    }

    /// Marks behind an empty window are done at once.
    fn settle_idle(&mut self) {
        if self.window.is_empty() {
            let acked = self.window.ack(self.window.last_sequence());
            self.settle(&acked);
        }
    }

    /// The event as it can be published: over the payload limit its data goes to the object store.
    async fn fit(&mut self, event: Event) -> Result<Event, Fault> {
        if weight(&event) <= self.limit {
            return Ok(event);
        }
        let claim_check = self.claim_check.clone();
        Ok(persist(|| claim_check.check_in(&event)).await)
    }

    fn headers(&self, event: &Event) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(POSITION, position_text(event.position, event.transaction_end));
        if !event.places.is_empty() {
            headers.insert(PLACES, std::str::from_utf8(&event.places).unwrap_or_default());
        }
        match self.setting.mode {
            Mode::Structured => headers.insert(CONTENT_TYPE, "application/cloudevents+json"),
            Mode::Binary => {
                let head = std::str::from_utf8(&event.head).unwrap_or_default();
                for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
                    headers.insert(name, value);
                }
                if event.last_of_transaction {
                    headers.insert("ce-txlast", "true");
                }
            }
        }
        headers
    }

    async fn send(
        &mut self,
        subject: Subject,
        headers: HeaderMap,
        payload: bytes::Bytes,
        ask: bool,
    ) -> Result<(), Fault> {
        let sent = if ask {
            self.asked.push_back((self.window.last_sequence(), Instant::now()));
            self.unasked = 0;
            self.client.publish_with_reply_and_headers(subject, self.reply.clone(), headers, payload).await
        } else {
            self.unasked += 1;
            self.client.publish_with_headers(subject, headers, payload).await
        };
        sent.map_err(|error| Fault::transient("cannot publish").with_cause(error))
    }

    /// Takes in an acknowledgement.
    fn acknowledged(&mut self, message: &Message) -> Option<Broken> {
        if message.subject != self.reply {
            return None;
        }
        let ack = match ack::read(message) {
            Ok(ack) => ack,
            Err(broken) => return Some(broken),
        };
        while self.asked.front().is_some_and(|(sequence, _)| *sequence <= ack) {
            self.asked.pop_front();
        }
        let acked = self.window.ack(ack);
        self.settle(&acked);
        None
    }

    /// Tells what became durable.
    fn settle(&mut self, acked: &Acked) {
        let metrics = &self.state.metrics;
        metrics.published.inc_by(acked.messages);
        metrics.published_bytes.inc_by(acked.bytes);
        if !acked.commits.is_empty() {
            let now = time::now();
            for commit in &acked.commits {
                metrics.commit_to_ack.observe((now - commit).max(0) as f64 / 1e6);
            }
        }
        self.tail = self.tail.max(acked.position);
        let sequence = self.window.last_sequence() - self.window.len() as u64;
        if let Some(position) = acked.position {
            self.state.acked(position, sequence, acked.commits.last().copied().unwrap_or(0));
        }
        if let Some(done) = acked.streamed.max(acked.marked) {
            self.state.set_done(done.log);
        }
        if acked.position.is_some() || acked.marked.is_some() {
            self.durable.send_modify(|durable| {
                durable.position = durable.position.max(acked.position);
                durable.streamed = durable.streamed.max(acked.streamed);
                durable.marked = durable.marked.max(acked.marked);
                durable.sequence = sequence;
            });
        }
    }

    /// Shows what is under way.
    fn show_pending(&self) {
        self.state.metrics.in_flight.set(i64::try_from(self.window.len()).unwrap_or(i64::MAX));
        let queued = || {
            self.queue.iter().find_map(|queued| match queued {
                Queued::Item(Item::Event(event)) if event.committed_at != 0 => Some(event.committed_at),
                _ => None,
            })
        };
        self.state.set_oldest_pending(self.window.oldest_commit().or_else(queued).unwrap_or(0));
    }

    /// Reads where the stream really ends, and publishes again what it lacks.
    async fn resync(&mut self, broken: &Broken, acks: &mut Subscriber) -> Result<(), Fault> {
        self.state.metrics.resyncs.inc();
        tracing::warn!(
            in_flight = self.window.len(),
            "publishing interrupted: {broken}; reading where the stream ends"
        );
        // What the broker refuses for its own reasons (no room, say) it will refuse again at once.
        if matches!(broken, Broken::NoResponders)
            || matches!(broken, Broken::Refused(error) if error.err_code != 10071)
        {
            sleep(Duration::from_millis(500)).await;
        }
        let end = self.read_end(acks).await?;
        let acked_sequence = self.window.last_sequence() - self.window.len() as u64;
        if end.sequence < acked_sequence {
            return Err(Fault::transient(format!(
                "the stream ends at {} although {acked_sequence} was acknowledged: it lost its tail, reading the source again",
                end.sequence
            )));
        }
        self.limit = self.stream.max_message(self.client.server_info().max_payload);
        self.generation += 1;
        self.reply = Subject::from(format!("{}.{}", self.inbox, self.generation));
        self.asked.clear();
        self.unasked = 0;
        let position = end.last.map(|last| last.position);
        if end.sequence > acked_sequence && self.window.begins_epoch_after(position) {
            return Err(Fault::transient(
                "another gateway has published since this one found a gap in the history, looking again",
            ));
        }
        let acked = self.window.resync(end.sequence, position);
        self.tail = self.tail.max(position);
        self.settle(&acked);
        let left: Vec<(Event, u64)> =
            self.window.events().map(|(event, expected)| (event.clone(), expected)).collect();
        let count = left.len();
        tracing::info!(sequence = end.sequence, again = count, "publishing goes on");
        for (nth, (event, expected)) in left.into_iter().enumerate() {
            let mut headers = self.headers(&event);
            headers.insert(EXPECTED_LAST_SEQUENCE, HeaderValue::from(expected));
            let ask = nth + 1 == count || (nth + 1) % ASK_EVERY == 0;
            if ask {
                self.asked.push_back((expected + 1, Instant::now()));
                self.client
                    .publish_with_reply_and_headers(event.subject, self.reply.clone(), headers, event.payload)
                    .await
            } else {
                self.client.publish_with_headers(event.subject, headers, event.payload).await
            }
            .map_err(|error| Fault::transient("cannot publish").with_cause(error))?;
        }
        Ok(())
    }

    /// Reads the stream's end, however long that takes. Acknowledgements that arrive meanwhile are answers to what was
    /// sent before, and are dropped.
    async fn read_end(&mut self, acks: &mut Subscriber) -> Result<End, Fault> {
        let mut pause = Duration::from_millis(20);
        loop {
            let mut link = self.link.clone();
            let read = async {
                let generation = link.wait_for(|link| link.connected).await.ok()?.generation;
                let end = timeout(self.setting.ack_timeout, self.stream.end()).await.ok()?;
                Some(end.map(|end| (end, generation)))
            };
            tokio::pin!(read);
            let outcome = loop {
                tokio::select! {
                    outcome = &mut read => break outcome,
                    message = acks.next() => if message.is_none() {
                        return Err(Fault::transient("the broker's connection is closed"));
                    },
                }
            };
            match outcome {
                Some(Ok((Some(end), generation))) => {
                    self.generation_seen = generation;
                    return Ok(end);
                }
                // The next run makes it anew, and says what is lost.
                Some(Ok((None, _))) => return Err(Fault::transient("the stream is gone")),
                Some(Err(fault)) if fault.kind() == FaultKind::Definite => return Err(fault),
                Some(Err(fault)) => tracing::debug!("{fault}"),
                None => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// What an event's message weighs at most.
fn weight(event: &Event) -> usize {
    event.head.len() + event.payload.len() + event.places.len() + HEADER_ROOM
}

/// Tries until it is done: what is kept beside the stream must be kept before the stream goes on.
async fn persist<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(fault) => tracing::warn!("{fault}; trying again in {pause:?}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
