#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use std::io::{Seek as _, SeekFrom, Write as _};

fn record(sequence: u64) -> Record {
    Record { sequence, content: Bytes::from(format!("delivery {sequence} {}", "x".repeat(100))) }
}

fn records(range: std::ops::Range<u64>) -> Vec<Record> {
    range.map(record).collect()
}

/// Waits until the thread behind a dropped spool has let go of the file.
async fn reopen(directory: &Path, most: u64) -> Spool {
    for _ in 0..200 {
        match Spool::open(directory, most) {
            Ok(spool) => return spool,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("the spool stays locked");
}

#[tokio::test]
async fn keeps_in_order_for_each_source_and_forgets_what_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (shop, other): (Arc<str>, Arc<str>) = ("shop".into(), "other".into());
    let spool = Spool::open(directory.path(), 1 << 20).unwrap();
    spool.append(&shop, records(10..13)).await.unwrap();
    spool.append(&other, records(1..2)).await.unwrap();
    spool.append(&shop, records(13..15)).await.unwrap();
    assert_eq!(spool.oldest(&shop, usize::MAX).await.unwrap(), records(10..15));
    assert_eq!(spool.oldest(&shop, 1).await.unwrap(), records(10..11), "one at least");
    spool.remove(&shop, 12).await.unwrap();
    let held = spool.held("shop");
    assert_eq!((held.records, held.oldest), (2, 13));
    drop(spool);
    let spool = reopen(directory.path(), 1 << 20).await;
    assert_eq!(spool.held("shop"), held);
    assert_eq!(spool.oldest(&shop, usize::MAX).await.unwrap(), records(13..15));
    spool.remove(&shop, 14).await.unwrap();
    assert_eq!(spool.held("shop"), Held::default());
    assert_eq!(spool.sources(), vec![other]);
}

#[tokio::test]
async fn is_bounded_and_takes_again_what_was_freed() {
    let directory = tempfile::tempdir().unwrap();
    let shop: Arc<str> = "shop".into();
    let one = weight(&records(0..1));
    let spool = Spool::open(directory.path(), 3 * one + 10).unwrap();
    spool.append(&shop, records(1..4)).await.unwrap();
    let full = spool.append(&shop, records(4..5)).await.unwrap_err();
    assert!(matches!(full, SpoolError::Full { held, .. } if held == 3 * one), "{full}");
    spool.remove(&shop, 1).await.unwrap();
    spool.append(&shop, records(4..5)).await.unwrap();
    assert_eq!(spool.held("shop").records, 3);
}

#[tokio::test]
async fn many_appends_share_a_sync_and_all_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), 64 << 20).unwrap();
    let shop: Arc<str> = "shop".into();
    let appends = (0..500).map(|n| {
        let (spool, shop) = (spool.clone(), shop.clone());
        async move { spool.append(&shop, records(n..n + 1)).await }
    });
    for outcome in futures_util::future::join_all(appends).await {
        outcome.unwrap();
    }
    assert_eq!(spool.oldest(&shop, usize::MAX).await.unwrap(), records(0..500));
}

#[tokio::test]
async fn a_secret_is_kept_once_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), 1 << 20).unwrap();
    let shop: Arc<str> = "shop".into();
    assert_eq!(spool.endpoint(&shop).await.unwrap(), EndpointState::default());
    spool.keep_secret(&shop, Secret::new("first")).await.unwrap();
    let again = spool.keep_secret(&shop, Secret::new("second")).await;
    assert!(matches!(again, Err(SpoolError::SecretExists)));
    spool.settle(&shop, 1).await.unwrap();
    let known = EndpointState { secret: Some(Secret::new("first")), settled: true };
    assert_eq!(spool.endpoint(&shop).await.unwrap(), known);
}

/// A torn write: the file as it was, with part of a later state over it, or cut off.
#[tokio::test]
async fn a_copy_of_the_file_taken_while_it_is_written_opens_with_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), 64 << 20).unwrap();
    let shop: Arc<str> = "shop".into();
    for n in 0..20 {
        spool.append(&shop, records(n..n + 1)).await.unwrap();
        // What a crash leaves: no clean end, for the store is still open.
        let copy = tempfile::tempdir().unwrap();
        fs::copy(directory.path().join("spool.redb"), copy.path().join("spool.redb")).unwrap();
        let crashed = Spool::open(copy.path(), 64 << 20).unwrap();
        assert_eq!(crashed.oldest(&shop, usize::MAX).await.unwrap(), records(0..n + 1));
    }
}

#[tokio::test]
async fn a_record_that_was_damaged_at_rest_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let shop: Arc<str> = "shop".into();
    let spool = Spool::open(directory.path(), 1 << 20).unwrap();
    spool.append(&shop, records(1..4)).await.unwrap();
    drop(spool);
    drop(reopen(directory.path(), 1 << 20).await);
    let path = directory.path().join("spool.redb");
    let bytes = fs::read(&path).unwrap();
    let needle = b"delivery 2 ";
    let places: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in places {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(b"D").unwrap();
    }
    drop(file);
    let spool = reopen(directory.path(), 1 << 20).await;
    assert_eq!(spool.oldest(&shop, usize::MAX).await.unwrap(), [record(1), record(3)]);
    assert_eq!(spool.held("shop").records, 2);
}
