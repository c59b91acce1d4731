//! Webhooks become events: signed ones only, safe before they are answered, each once, in order, whatever fails.

use crate::support::{
    eventually,
    hooks::{self, Load, SECRET, STREAM, Signed},
    nats::Nats,
    sender::Sender,
    stream,
};
use std::{io::Write as _, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Rounds of a fault; more are for `make soak`.
fn rounds() -> usize {
    std::env::var("HEADGATE_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

#[tokio::test]
async fn a_signed_delivery_becomes_an_event_once() {
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let signed = Signed::issue("72d3162e-cc78-11e3-81ab-4c9367dc0958", 42);
    for _ in 0..3 {
        assert!((200..300).contains(&signed.status(port).await), "the same again is as good");
    }
    let events = stream::read(&nats, STREAM).await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.attribute("id"), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(event.attribute("type"), "com.github.issues.opened");
    assert_eq!(event.attribute("source"), "https://api.github.com/repos/o/r");
    assert_eq!((event.attribute("subject"), event.attribute("integrity")), ("42", "body"));
    assert_eq!(event.attribute("time"), "2026-11-22T10:00:00.000000Z");
    assert_eq!(event.attribute("partitionkey"), event.attribute("subject"));
    let tokens: Vec<&str> = event.subject.split('.').collect();
    assert_eq!((tokens.len(), &tokens[..4]), (5, ["events", "gh", "issues", "opened"].as_slice()));
    let status = gateway.status().await.to_string();
    assert!(status.contains("\"webhook\"") && !status.contains(SECRET), "{status}");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!gateway.log().contains(SECRET), "the secret was told");
}

#[tokio::test]
async fn what_is_not_verified_is_refused_and_leaves_nothing() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "memory = \"8MiB\"\n", "max_body = \"4MiB\"\n").await;
    let port = gateway.http_port();
    let wrong = Signed::issue_with("w", 1, "", "another secret");
    assert_eq!(wrong.status(port).await, 401);
    assert_eq!(Signed::issue("x", 1).with("x-hub-signature-256", "sha256=").status(port).await, 401);
    let client = hooks::client();
    let unknown = client.post(format!("http://127.0.0.1:{port}/webhooks/nobody")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    let deeper = client.post(format!("http://127.0.0.1:{port}/webhooks/gh/x")).send().await.unwrap();
    assert_eq!(deeper.status(), 404);
    let large = Signed::of("l", vec![b' '; 5 << 20], SECRET);
    assert_eq!(large.status(port).await, 413);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 100 << 20]).unwrap();
    let bomb = Signed::of("b", encoder.finish().unwrap(), SECRET).with("content-encoding", "gzip");
    assert!(bomb.body.len() < 200 << 10);
    assert_eq!(bomb.status(port).await, 413);
    let before = hooks::resident_kib(gateway.pid());
    assert!(before < 200 << 10, "{before} KiB after a bomb");
    assert_eq!(Signed::issue("e", 1).with("content-encoding", "br").status(port).await, 415);
    // Nothing was published; what is in order still is.
    assert!(Signed::issue("good", 1).status(port).await < 300);
    let events = stream::read(&nats, STREAM).await;
    assert_eq!(events.iter().map(|event| event.attribute("id")).collect::<Vec<_>>(), ["good"]);
}

#[tokio::test]
async fn a_broker_that_is_down_slow_and_back_loses_and_doubles_nothing() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let load = Load::start(&[gateway.http_port()], 8);
    load.goes_on(50).await;
    for _ in 0..rounds() {
        nats.kill9(0);
        load.goes_on(100).await;
        nats.start_again(0).await;
        load.goes_on(100).await;
        nats.freeze(0);
        load.goes_on(100).await;
        nats.thaw(0);
        load.goes_on(100).await;
    }
    let answered = load.finish().await;
    hooks::assert_faithful(&nats, &answered).await;
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test]
async fn a_gateway_killed_between_spool_and_publish_loses_and_doubles_nothing() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let load = Load::start(&[gateway.http_port()], 8);
    load.goes_on(50).await;
    for _ in 0..rounds() {
        nats.kill9(0);
        load.goes_on(200).await;
        gateway.kill9();
        gateway.launch();
        load.goes_on(100).await;
        nats.start_again(0).await;
        // While the spool is being emptied.
        gateway.kill9();
        gateway.start_again().await;
        load.goes_on(100).await;
    }
    let answered = load.finish().await;
    hooks::assert_faithful(&nats, &answered).await;
}

#[tokio::test]
async fn two_gateways_behind_one_address_make_one_event_of_a_delivery() {
    let mut nats = Nats::start().await;
    let one = hooks::start(&nats, "", "").await;
    let other = hooks::start(&nats, "", "").await;
    let ports = [one.http_port(), other.http_port()];
    // The same deliveries at the same moment to both.
    let client = hooks::client();
    for number in 0..100 {
        let signed = Signed::issue(&format!("both-{number:03}"), number);
        let answers = futures_util::future::join_all(ports.map(|port| signed.post(&client, port))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().status().is_success()));
    }
    assert_eq!(stream::read(&nats, STREAM).await.len(), 100);
    // And through an outage, from senders that try the other one when one fails.
    let load = Load::start(&ports, 6);
    load.goes_on(50).await;
    nats.kill9(0);
    load.goes_on(100).await;
    nats.start_again(0).await;
    load.goes_on(50).await;
    let answered = load.finish().await;
    let ids: std::collections::BTreeSet<String> = answered.into_iter().flatten().collect();
    eventually("both spools are empty", Duration::from_secs(60), || async {
        let events = stream::read(&nats, STREAM).await;
        let count = events.iter().filter(|event| ids.contains(event.attribute("id"))).count();
        let unique: std::collections::BTreeSet<&str> =
            events.iter().map(|event| event.attribute("id")).collect();
        assert_eq!(unique.len(), events.len(), "an event came twice");
        if count == ids.len() { Ok(()) } else { Err(format!("{count} of {}", ids.len())) }
    })
    .await;
}

#[tokio::test]
async fn a_full_spool_says_so_and_takes_again_what_fits() {
    let mut nats = Nats::start().await;
    let gateway = hooks::start(&nats, "spool_max = \"1MiB\"\n", "").await;
    let port = gateway.http_port();
    let client = hooks::client();
    nats.kill9(0);
    let text = "x".repeat(50_000);
    let mut kept = Vec::new();
    let refused = loop {
        let id = format!("full-{:03}", kept.len());
        let answer = Signed::issue_with(&id, 1, &text, SECRET).post(&client, port).await.unwrap();
        if !answer.status().is_success() {
            break answer;
        }
        kept.push(id);
        assert!(kept.len() < 100, "the spool is not bounded");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    assert!(kept.len() >= 15, "{} fitted", kept.len());
    nats.start_again(0).await;
    let load = Load::start(&[port], 1);
    load.goes_on(5).await;
    let mut answered = load.finish().await;
    answered.push(kept);
    hooks::assert_faithful(&nats, &answered).await;
}

#[tokio::test]
async fn a_full_disk_is_told_to_the_sender_and_survived() {
    let mut nats = Nats::start().await;
    let mut gateway = hooks::configure(&nats, "", "");
    // Files of the gateway end at 2 MiB (blocks of 512 bytes); the signal that comes with that is ignored, so it is an
    // error of the write, as a full disk is.
    gateway.launch_limited("trap '' XFSZ; ulimit -f 4096");
    gateway.is_ready().await;
    let port = gateway.http_port();
    let client = hooks::client();
    nats.kill9(0);
    let text = "x".repeat(100_000);
    let mut kept = Vec::new();
    let mut refused = 0;
    for number in 0..60 {
        let id = format!("disk-{number:03}");
        let answer = Signed::issue_with(&id, 1, &text, SECRET).post(&client, port).await.unwrap();
        match answer.status().as_u16() {
            200..300 => kept.push(id),
            503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(!kept.is_empty() && refused > 0, "{} kept, {refused} refused", kept.len());
    nats.start_again(0).await;
    hooks::assert_faithful(&nats, &[kept]).await;
    let load = Load::start(&[port], 1);
    load.goes_on(5).await;
    hooks::assert_faithful(&nats, &load.finish().await).await;
}

#[tokio::test]
async fn slow_and_half_open_clients_keep_nobody_out() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "max_connections = 64\n", "body_timeout = \"1s\"\n").await;
    let port = gateway.http_port();
    let mut half_open = Vec::new();
    for number in 0..1000 {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if number % 2 == 0 {
            // Slowloris: a head that never ends. It may have been cut off already.
            let _ = connection.write_all(b"POST /webhooks/gh HTTP/1.1\r\nhost: x\r\nx-").await;
        }
        half_open.push(connection);
        if number % 100 == 99 {
            assert!(Signed::issue(&format!("among-{number}"), 1).status(port).await < 300);
        }
    }
    assert_eq!(stream::read(&nats, STREAM).await.len(), 10);
    // The first ones had to make room.
    let mut buffer = [0; 16];
    let read = tokio::time::timeout(Duration::from_secs(5), half_open[1].read(&mut buffer)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    // A body that does not come is not waited for.
    let mut slow = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    slow.write_all(b"POST /webhooks/gh HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(8), slow.read_to_string(&mut answer)).await;
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// A head that grows by a line twice a second: never idle, never done.
#[tokio::test]
async fn who_drips_a_head_is_cut_off() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let mut slow = TcpStream::connect(("127.0.0.1", gateway.http_port())).await.unwrap();
    slow.write_all(b"POST /webhooks/gh HTTP/1.1\r\n").await.unwrap();
    let mut buffer = [0; 256];
    for drip in 0.. {
        assert!(drip < 60, "a head of {drip} lines was waited for");
        let read = tokio::time::timeout(Duration::from_millis(500), slow.read(&mut buffer)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) || slow.write_all(b"x-slow: 1\r\n").await.is_err() {
            break;
        }
    }
    assert!(Signed::issue("after", 1).status(gateway.http_port()).await < 300);
}

#[tokio::test]
async fn a_flood_of_wrong_signatures_does_not_stop_right_ones() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let load = Load::start(&[port], 2);
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
    load.goes_on(5).await;
    let answered = load.finish().await;
    let events = hooks::assert_faithful(&nats, &answered).await;
    assert!(events.iter().all(|event| event.attribute("id").starts_with('s')));
    let resident = hooks::resident_kib(gateway.pid());
    assert!(resident < 200 << 10, "{resident} KiB after a flood");
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("was refused")).count();
    assert!((1..20).contains(&told), "{told} lines of log");
}

#[tokio::test]
async fn a_body_over_the_brokers_limit_is_kept_whole() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let text = "y".repeat(24 << 20);
    let large = Signed::issue_with("large", 7, &text, SECRET);
    assert!(large.status(port).await < 300);
    assert!(Signed::issue("small", 7).status(port).await < 300);
    let events = hooks::assert_faithful(&nats, &[vec!["large".to_owned()], vec!["small".to_owned()]]).await;
    assert_eq!(events[0].attribute("id"), "large");
    let reference = events[0].attribute("dataref").to_owned();
    let (bucket, name) = reference.strip_prefix("nats-obj://").unwrap().split_once('/').unwrap();
    let jetstream = nats.jetstream().await;
    let store = jetstream.get_object_store(bucket).await.unwrap();
    let mut object = store.get(name).await.unwrap();
    let mut content = Vec::new();
    object.read_to_end(&mut content).await.unwrap();
    assert!(content == large.body, "the body came back changed: {} bytes", content.len());
}

#[tokio::test]
async fn a_secret_is_replaced_under_load() {
    const NEXT: &str = "the next secret";
    let nats = Nats::start().await;
    let mut gateway = hooks::start(&nats, "", "").await;
    let port = gateway.http_port();
    let old = Load::start(&[port], 2);
    old.goes_on(20).await;
    // Both for a while.
    gateway.reconfigure(|text| {
        text.replace(&format!("secret = \"{SECRET}\""), &format!("secrets = [\"{NEXT}\", \"{SECRET}\"]"))
    });
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    old.goes_on(20).await;
    let mut answered = old.finish().await;
    for number in 0..20 {
        let id = format!("n-{number:03}");
        assert!(Signed::issue_with(&id, 1, "", NEXT).status(port).await < 300);
        answered.push(vec![id]);
    }
    // Then the next one alone.
    gateway.reconfigure(|text| {
        text.replace(&format!("secrets = [\"{NEXT}\", \"{SECRET}\"]"), &format!("secret = \"{NEXT}\""))
    });
    assert_eq!(gateway.terminate(), Some(0));
    gateway.start_again().await;
    assert_eq!(Signed::issue("old", 1).status(port).await, 401);
    assert!(Signed::issue_with("n-100", 1, "", NEXT).status(port).await < 300);
    hooks::assert_faithful(&nats, &answered).await;
}

#[tokio::test]
async fn a_sample_is_sent_and_dead_letters_are_published_again() {
    let nats = Nats::start().await;
    let gateway = hooks::start(&nats, "", "").await;
    let run = async |arguments: &[&str]| {
        let mut command = gateway.command();
        command.arg("webhook").args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run(&["list"]).await;
    assert!(code == Some(0) && text.contains("github"), "{text}");
    let (code, text) = run(&["show", "github"]).await;
    assert!(code == Some(0) && text.contains("provider = \"github\""), "{text}");
    assert_eq!(run(&["show", "gihub"]).await.0, Some(64));
    assert_eq!(run(&["send", "nobody"]).await.0, Some(64));
    let (code, text) = run(&["send", "gh"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(stream::read(&nats, STREAM).await.len(), 1);
    // A stream that takes no message of that size refuses it for good.
    let jetstream = nats.jetstream().await;
    let mut config = jetstream.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    config.max_message_size = 20_000;
    jetstream.update_stream(&config).await.unwrap();
    let text = "z".repeat(30_000);
    let port = gateway.http_port();
    assert!(Signed::issue_with("too-large", 1, &text, SECRET).status(port).await < 300);
    assert!(Signed::issue("behind", 1).status(port).await < 300);
    eventually("the one behind it is there", Duration::from_secs(20), || async {
        let events = stream::read(&nats, STREAM).await;
        let last = events.last().map_or("", |event| event.attribute("id"));
        if last == "behind" { Ok(()) } else { Err(format!("{} events", events.len())) }
    })
    .await;
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    let (code, text) = run(&["replay", "gh", "--delivery", "another"]).await;
    assert!(code == Some(64) && text.contains("no dead letter of another"), "{text}");
    let (code, text) = run(&["replay", "gh", "--delivery", "too-large"]).await;
    assert!(code == Some(0) && text.contains("published 1"), "{text}");
    let (_, text) = run(&["replay", "gh"]).await;
    assert!(text.contains("published 0, already there 1"), "{text}");
    let events = stream::read(&nats, STREAM).await;
    assert_eq!(events.last().map(|event| event.attribute("id")), Some("too-large"));
}

/// A source that could not tell its provider from anybody else is not started.
#[tokio::test]
async fn without_a_secret_nothing_is_started() {
    let nats = Nats::start().await;
    let gateway = hooks::configure(&nats, "", "");
    let wrong = [
        (format!("secret = \"{SECRET}\""), String::new()),
        (format!("secret = \"{SECRET}\""), "secret = \"\"".to_owned()),
        ("provider = \"github\"".to_owned(), "provider = \"gihub\"".to_owned()),
        (format!("secret = \"{SECRET}\""), format!("secret = \"{SECRET}\"\nallow_ips = [\"10.0.0.0/99\"]")),
        (format!("secret = \"{SECRET}\""), format!("secret = \"{SECRET}\"\nrate_limit = \"many\"")),
    ];
    for (from, to) in wrong {
        let mut sound = String::new();
        gateway.reconfigure(|text| {
            sound = text.clone();
            assert!(text.contains(&from));
            text.replace(&from, &to)
        });
        let output = gateway.command().arg("run").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{to}: {told}");
        assert!(told.contains("sources.gh") && !told.contains(SECRET), "{told}");
        gateway.reconfigure(|_| sound);
    }
}

#[tokio::test]
async fn a_signature_from_another_time_is_refused_both_ways() {
    let nats = Nats::start().await;
    let pay = "\n[sources.pay]\nconnector = \"webhook\"\nprovider = \"stripe\"\nsecret = \"whsec_test\"\n";
    let gateway = hooks::start(&nats, "", pay).await;
    let url = format!("http://127.0.0.1:{}/webhooks/pay", gateway.http_port());
    let client = hooks::client();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let post = async |id: &str, time: u64| {
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"charge.succeeded","created":{now},"data":{{"object":{{"id":"ch_1","object":"charge"}}}}}}"#
        );
        let signature = hooks::hmac_hex("whsec_test", format!("{time}.{body}").as_bytes());
        let request = client.post(&url).header("content-type", "application/json");
        let request = request.header("stripe-signature", format!("t={time},v1={signature}"));
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("evt_old", now - 400).await, 401);
    assert_eq!(post("evt_early", now + 400).await, 401);
    assert!(post("evt_late", now - 200).await < 300);
    assert!(post("evt_ahead", now + 200).await < 300);
    let events = stream::read(&nats, "EVENTS_pay").await;
    let ids: Vec<&str> = events.iter().map(|event| event.attribute("id")).collect();
    assert_eq!(ids, ["evt_late", "evt_ahead"]);
}
