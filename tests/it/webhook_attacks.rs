//! Requests that mean harm: none is believed, kept or waited for, and good deliveries go through meanwhile.

use crate::support::{
    hooks::{self, SECRET, STREAM, Signed},
    nats::Nats,
    sender::Sender,
    stream,
};
use flate2::{Compression, write};
use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const MIB: usize = 1 << 20;
/// What a gateway may have in memory after any of this: its own bound for bodies, and itself.
const RESIDENT: u64 = 160 << 10;

/// Waits for the end of a connection; what came before it.
async fn rest(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "not closed after {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

#[tokio::test]
async fn a_thousand_half_open_clients_keep_nobody_out() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "body_timeout = \"2s\"\n").await;
    let port = gateway.http_port();
    let mut good = Sender::connect(port, "among", 1, "", SECRET).await;
    let mut half_open = Vec::new();
    for number in 0..1000 {
        let mut connection = connect(port).await;
        let begun = match number % 3 {
            0 => "",
            1 => "POST /webhooks/gh HTTP/1.1\r\nhost: x\r\nx-",
            _ => "POST /webhooks/gh HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{",
        };
        connection.write_all(begun.as_bytes()).await.unwrap();
        half_open.push(connection);
        if number % 20 == 19 {
            assert!(good.exchange().await < 300);
        }
    }
    assert!(Signed::issue("another", 1).status(port).await < 300, "a new connection beside all of them");
    assert_eq!(stream::read(&nats, STREAM).await.len(), 51);
    let resident = hooks::resident_kib(gateway.pid());
    assert!(resident < RESIDENT, "{resident} KiB with all of them");
    // None of them is waited for.
    for (number, mut connection) in half_open.into_iter().enumerate() {
        let answer = rest(&mut connection).await;
        assert!(number % 3 != 2 || answer.starts_with("HTTP/1.1 408"), "{number}: {answer}");
    }
    assert!(Signed::issue("after", 1).status(port).await < 300);
}

#[tokio::test]
async fn who_holds_all_connections_loses_them_to_who_uses_them() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "max_connections = 64\n", "").await;
    let port = gateway.http_port();
    let mut held = Vec::new();
    for number in 0..200 {
        held.push(connect(port).await);
        if number % 50 == 49 {
            assert!(Signed::issue(&format!("among-{number}"), 1).status(port).await < 300);
        }
    }
    assert_eq!(rest(&mut held[0]).await, "", "the first one had to make room");
    assert_eq!(stream::read(&nats, STREAM).await.len(), 4);
}

/// A head or a body that grows now and then: never idle, never done.
#[tokio::test]
async fn who_drips_is_cut_off() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "body_timeout = \"2s\"\n").await;
    let port = gateway.http_port();
    let drip = async |begun: &str, drop: &str| {
        let mut slow = connect(port).await;
        slow.write_all(begun.as_bytes()).await.unwrap();
        let mut buffer = [0; 256];
        for drips in 0.. {
            assert!(drips < 60, "{drips} drips were waited for");
            match tokio::time::timeout(Duration::from_millis(500), slow.read(&mut buffer)).await {
                Ok(Ok(count)) => return String::from_utf8_lossy(&buffer[..count]).into_owned(),
                Ok(Err(_)) => return String::new(),
                Err(_) if slow.write_all(drop.as_bytes()).await.is_err() => return String::new(),
                Err(_) => {}
            }
        }
        unreachable!()
    };
    let head = "POST /webhooks/gh HTTP/1.1\r\nhost: x\r\n";
    let body = format!("{head}content-length: 1000\r\n\r\n");
    let (_, body) = tokio::join!(drip(head, "x-slow: 1\r\n"), drip(&body, " "));
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(Signed::issue("after", 1).status(port).await < 300);
}

#[tokio::test]
async fn a_flood_of_wrong_signatures_does_not_stop_right_ones() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let good = (0..2).map(|sender| {
        let over = over.clone();
        tokio::spawn(async move {
            let name = format!("s{sender}");
            let mut sender = Sender::connect(port, &name, sender, "", SECRET).await;
            let mut answered = Vec::new();
            while !over.load(Ordering::Relaxed) {
                assert!(sender.exchange().await < 300, "a good one was turned away");
                answered.push(format!("{name}-{:010}", answered.len() + 1));
            }
            answered
        })
    });
    let good: Vec<_> = good.collect();
    // As fast as they go, which is far more than 100,000 a minute.
    let floods = (0..8).map(|flood| {
        tokio::spawn(async move {
            let mut sender = Sender::connect(port, &format!("f{flood}"), 1, "", "wrong").await;
            for _ in 0..5000 {
                assert_eq!(sender.exchange().await, 401);
            }
        })
    });
    for flood in futures_util::future::join_all(floods).await {
        flood.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let answered =
        futures_util::future::join_all(good).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let events = hooks::assert_faithful(&nats, &answered).await;
    assert_eq!(
        events.len(),
        answered.iter().map(Vec::len).sum::<usize>(),
        "nothing of the flood is in there"
    );
    let resident = hooks::resident_kib(gateway.pid());
    assert!(resident < RESIDENT, "{resident} KiB after a flood");
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("was refused")).count();
    assert!((1..20).contains(&told), "{told} lines of log");
}

/// Bodies of the largest size that is taken are bounded all together; larger ones are not taken at all.
#[tokio::test]
async fn bodies_that_are_too_large_are_refused_and_not_kept() {
    const LARGE: usize = 26 * MIB;
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let small = hooks::resident_kib(gateway.pid());
    let announced = Signed::of("large", vec![b' '; LARGE], "wrong");
    for _ in 0..3 {
        assert_eq!(announced.status(port).await, 413);
    }
    let resident = hooks::resident_kib(gateway.pid());
    assert!(
        resident < small + (16 << 10),
        "{small} KiB before, {resident} KiB after bodies that said how large they are"
    );
    // Who asks first is not told to go on.
    let mut asking = connect(port).await;
    let head = format!(
        "POST /webhooks/gh HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {LARGE}\r\n\r\n"
    );
    asking.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut asking).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Not known to be large before they are.
    let chunked = (0..6).map(|_| async {
        let mut connection = connect(port).await;
        let head = "POST /webhooks/gh HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        let chunk = [b"100000\r\n".to_vec(), vec![b' '; MIB], b"\r\n".to_vec()].concat();
        for _ in 0..LARGE / MIB {
            // It may have been cut off already.
            if connection.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = connection.write_all(b"0\r\n\r\n").await;
        rest(&mut connection).await
    });
    for answer in futures_util::future::join_all(chunked).await {
        let refused = answer.starts_with("HTTP/1.1 413") || answer.starts_with("HTTP/1.1 503");
        assert!(refused, "{answer}");
    }
    let resident = hooks::resident_kib(gateway.pid());
    assert!(resident < RESIDENT, "{resident} KiB after bodies that did not say how large they are");
    assert!(Signed::issue("small", 1).status(port).await < 300);
    assert_eq!(stream::read(&nats, STREAM).await.len(), 1);
}

/// 128 MiB in as many kilobytes.
#[tokio::test]
async fn zip_bombs_cost_no_more_than_a_large_body() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let zeros = vec![0; 8 * MIB];
    let mut gzip = write::GzEncoder::new(Vec::new(), Compression::best());
    let mut deflate = write::ZlibEncoder::new(Vec::new(), Compression::best());
    for _ in 0..16 {
        gzip.write_all(&zeros).unwrap();
        deflate.write_all(&zeros).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    let mut twice = write::GzEncoder::new(Vec::new(), Compression::best());
    twice.write_all(&gzip).unwrap();
    let bombs = [
        ("gzip", gzip, 413),
        ("deflate", deflate.finish().unwrap(), 413),
        // One coding within another is not undone at all.
        ("gzip, gzip", twice.finish().unwrap(), 415),
    ];
    let mut good = Sender::connect(port, "among", 1, "", SECRET).await;
    for (coding, body, status) in bombs {
        assert!(body.len() < MIB);
        let bomb = Signed::of("bomb", body, SECRET).with("content-encoding", coding);
        let answers = futures_util::future::join_all((0..8).map(|_| bomb.status(port)));
        let (answers, good) = tokio::join!(answers, good.exchange());
        // Together they may be over http.memory.
        assert!(answers.iter().all(|answer| [status, 503].contains(answer)), "{coding}: {answers:?}");
        assert!(answers.contains(&status), "{coding}: {answers:?}");
        assert!(good < 300);
    }
    let resident = hooks::resident_kib(gateway.pid());
    assert!(resident < RESIDENT, "{resident} KiB after bombs");
    assert_eq!(stream::read(&nats, STREAM).await.len(), 3);
}
