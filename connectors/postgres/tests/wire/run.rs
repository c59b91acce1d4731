//! A source that runs in the background, and an outlet that shows what it was told.

use headgate_postgres::{Config, Postgres};
use headgate_sdk::{
    Change, Checkpoint, Context, Fault, Gap, Message, Origin, Outlet, Position, Progress, Resume, RowFault,
    SnapshotLedger, SnapshotPlace, SnapshotPoint, SnapshotStart, Source, Transaction, Vitals,
    testing::{Recorder, Told},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// What the outlet does.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// `flush` does not return while this is true.
    pub(crate) stuck: watch::Receiver<bool>,
    /// Everything that was told is released at once.
    pub(crate) release: bool,
    /// A gap is accepted.
    pub(crate) accept: bool,
}

pub(crate) struct Tape {
    recorder: Arc<Mutex<Recorder>>,
    released: watch::Sender<Progress>,
    manner: Manner,
}

impl Outlet for Tape {
    async fn open(&mut self, origin: Origin) -> Result<(), Fault> {
        self.recorder.lock().unwrap().told.push(Told::Open(origin));
        Ok(())
    }
    async fn gap(&mut self, origin: Origin, gap: Gap) -> Result<(), Fault> {
        self.recorder.lock().unwrap().told.push(Told::Gap(origin, gap));
        if self.manner.accept { Ok(()) } else { Err(Fault::gap("not accepted")) }
    }
    fn begin(&mut self, transaction: &Transaction) {
        self.recorder.lock().unwrap().begin(transaction);
    }
    fn change(&mut self, change: &Change<'_>) {
        self.recorder.lock().unwrap().change(change);
    }
    fn message(&mut self, message: &Message<'_>) {
        self.recorder.lock().unwrap().message(message);
    }
    fn reject(&mut self, fault: &RowFault) {
        self.recorder.lock().unwrap().reject(fault);
    }
    fn commit(&mut self, progress: Progress) {
        self.recorder.lock().unwrap().commit(progress);
        self.released.send_if_modified(|released| {
            self.manner.release && std::mem::replace(released, progress) != progress
        });
    }
    fn progress(&mut self, progress: Progress) {
        self.recorder.lock().unwrap().progress(progress);
        self.released.send_if_modified(|released| {
            self.manner.release && std::mem::replace(released, progress) != progress
        });
    }
    fn begin_snapshot(&mut self, point: SnapshotPoint) {
        self.recorder.lock().unwrap().begin_snapshot(point);
    }
    fn end_snapshot(&mut self) -> Option<Position> {
        self.recorder.lock().unwrap().end_snapshot()
    }
    fn places(&mut self, _: &[SnapshotPlace]) {}
    async fn keep_snapshots(&mut self, ledger: &SnapshotLedger) -> Result<(), Fault> {
        self.recorder.lock().unwrap().told.push(Told::KeepSnapshots(ledger.clone()));
        Ok(())
    }
    fn is_full(&self) -> bool {
        *self.manner.stuck.borrow()
    }
    async fn flush(&mut self) -> Result<(), Fault> {
        let _ = self.manner.stuck.wait_for(|stuck| !stuck).await;
        Ok(())
    }
}

/// A source at work.
pub(crate) struct Run {
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) stuck: watch::Sender<bool>,
    pub(crate) task: JoinHandle<(Postgres, Result<(), Fault>)>,
}

impl Run {
    pub(crate) fn start(config: &Config, resume: Resume) -> Self {
        Self::with(Postgres::new("shop", config.clone()), resume, true, true)
    }

    pub(crate) fn with(mut source: Postgres, resume: Resume, release: bool, accept: bool) -> Self {
        let recorder = Arc::new(Mutex::new(Recorder::default()));
        let vitals = Arc::new(Vitals::default());
        let shutdown = CancellationToken::new();
        let (released, receiver) = watch::channel(Progress::default());
        let (stuck, is_stuck) = watch::channel(false);
        let context = Context {
            released: receiver,
            shutdown: shutdown.clone(),
            vitals: Arc::clone(&vitals),
            snapshots: SnapshotStart::default(),
        };
        let mut tape = Tape {
            recorder: Arc::clone(&recorder),
            released,
            manner: Manner { stuck: is_stuck, release, accept },
        };
        let task = tokio::spawn(async move {
            let ended = source.run(resume, &mut tape, context).await;
            eprintln!("the run ended: {ended:?}");
            (source, ended)
        });
        Self { recorder, vitals, shutdown, stuck, task }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.recorder.lock().unwrap().told.clone()
    }

    /// Rows and logical messages told so far.
    pub(crate) fn events(&self) -> Vec<String> {
        let told = self.told();
        told.iter()
            .filter_map(|told| match told {
                Told::Change { table, op, after, before } => Some(format!(
                    "{table} {op:?} {}",
                    after.as_ref().or(before.as_ref()).map_or("", String::as_str)
                )),
                Told::Message(prefix, ..) => Some(format!("message {prefix}")),
                Told::Reject(fault) => {
                    Some(format!("reject {} {}", fault.table.as_deref().unwrap_or("?"), fault.size))
                }
                _ => None,
            })
            .collect()
    }

    /// How many rows were told so far.
    pub(crate) fn rows(&self) -> usize {
        self.recorder.lock().unwrap().told.iter().filter(|told| matches!(told, Told::Change { .. })).count()
    }

    /// Waits until `enough` is true.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !enough(self) {
            assert!(!self.task.is_finished(), "ended while waiting for {what}");
            assert!(Instant::now() < deadline, "no {what}: {:?}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it streams.
    pub(crate) async fn streaming(self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.vitals.streaming.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            if self.task.is_finished() {
                panic!("{:?}", self.task.await.unwrap().1);
            }
            assert!(Instant::now() < deadline, "it does not stream");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    /// What a gateway would know when it starts again.
    pub(crate) fn resume(&self) -> Resume {
        let told = self.told();
        let origin = told.iter().rev().find_map(|told| match told {
            Told::Open(origin) => Some(origin.clone()),
            _ => None,
        });
        let progress = told.iter().rev().find_map(|told| match told {
            Told::Commit(progress) | Told::Progress(progress) => Some(*progress),
            _ => None,
        });
        let checkpoint = origin.map(|origin| Checkpoint {
            epoch: origin.epoch,
            identity: origin.identity,
            progress: progress.unwrap_or(Progress { epoch: origin.epoch, log: 0 }),
        });
        Resume { last: None, checkpoint }
    }

    pub(crate) fn gap(&self) -> Option<Gap> {
        self.told().into_iter().find_map(|told| match told {
            Told::Gap(_, gap) => Some(gap),
            _ => None,
        })
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(self) -> Postgres {
        self.shutdown.cancel();
        let (source, ended) =
            tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
        ended.unwrap();
        source
    }

    /// Waits for its fault.
    pub(crate) async fn fault(self) -> (Postgres, Fault) {
        let (source, ended) =
            tokio::time::timeout(Duration::from_secs(60), self.task).await.unwrap().unwrap();
        (source, ended.unwrap_err())
    }
}
