//! `headgate webhook reconcile` for providers whose APIs tell the present state of things and no delivery ids (Slack, Salesforce): what
//! the stream has is left out, what it has not comes once, deletes included where the API shows them.

use crate::support::{
    gateway::{Gateway, Settings},
    hooks,
    nats::Nats,
    stream,
    vendors::{TOKEN, Vendors},
};
use serde_json::{Value, json};
use std::sync::LazyLock;

const URL: &str = "https://hooks.example.com/webhooks/in";

/// A gateway with one source `in` and its secret in a file.
fn configure(nats: &Nats, provider: &str, secret: Option<&str>) -> Gateway {
    let source = format!(
        "[sources.in]\nconnector = \"webhook\"\nprovider = \"{provider}\"\nsecret = {{ file = \"in.secret\" }}\n"
    );
    let gateway = Gateway::with_sources(
        &Settings::new(nats, ""),
        "public_url = \"https://hooks.example.com\"\n",
        &source,
    );
    if let Some(secret) = secret {
        std::fs::write(gateway.command().get_current_dir().unwrap().join("in.secret"), secret).unwrap();
    }
    gateway
}

/// Runs `headgate webhook …` with the token in the environment; exit code and everything it printed.
async fn run(gateway: &Gateway, vendors: &Vendors, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = gateway.command();
    command.arg("webhook").args(arguments).env("HEADGATE_API_TOKEN", token);
    if matches!(arguments.first(), Some(&("register" | "reconcile"))) {
        command.args(["--api", &vendors.base]);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!text.contains(TOKEN) && !text.contains("hunter2"), "the token was told: {text}");
    (output.status.code(), text)
}

/// A moment so many minutes before this process began, at a full second.
fn ago(minutes: i64) -> jiff::Timestamp {
    static START: LazyLock<i64> = LazyLock::new(|| jiff::Timestamp::now().as_second());
    jiff::Timestamp::from_second(*START - minutes * 60).unwrap()
}

/// Slack's name of a message's moment.
fn ts(at: jiff::Timestamp, number: u32) -> String {
    format!("{}.{number:06}", at.as_second())
}

fn post(gateway: &Gateway) -> reqwest::RequestBuilder {
    hooks::client().post(format!("http://127.0.0.1:{}/webhooks/in", gateway.http_port()))
}

/// Delivers an event as Slack does.
async fn push(gateway: &Gateway, id: &str, event: Value) {
    let body =
        json!({"team_id": "T1", "type": "event_callback", "event_id": id, "event_time": 1, "event": event});
    let (body, now) = (body.to_string(), jiff::Timestamp::now().as_second());
    let signature = hooks::hmac_hex("slack-secret", format!("v0:{now}:{body}").as_bytes());
    let request = post(gateway)
        .header("x-slack-request-timestamp", now)
        .header("x-slack-signature", format!("v0={signature}"));
    let request = request.header("content-type", "application/json").body(body);
    assert!(request.send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn slacks_missing_messages_edits_and_replies_come_once_and_what_arrived_does_not() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "slack", Some("slack-secret\n"));
    gateway.start_again().await;
    let message = |ts: &str, text: &str| json!({"type": "message", "user": "U2", "text": text, "ts": ts});
    let edited = |ts: &str, text: &str, at: &str| {
        let mut message = message(ts, text);
        message["edited"] = json!({"user": "U2", "ts": at});
        message
    };
    let came = ts(ago(200), 1);
    let lost = ts(ago(190), 2);
    let changed = ts(ago(180), 3);
    let change = ts(ago(100), 0);
    let known_change = ts(ago(170), 4);
    let both = ts(ago(90), 0);
    let thread = ts(ago(160), 5);
    let (reply, lost_reply) = (ts(ago(150), 6), ts(ago(140), 7));
    let young = ts(ago(1), 8);
    let ancient = ts(ago(60 * 30), 9);
    let deleted = ts(ago(130), 10);
    let late = ts(ago(120), 11);
    let mut head = message(&thread, "thread");
    head["thread_ts"] = json!(thread);
    head["reply_count"] = json!(2);
    head["latest_reply"] = json!(lost_reply);
    let in_thread = |ts: &str| {
        let mut reply = message(ts, "reply");
        reply["thread_ts"] = json!(thread);
        reply
    };
    vendors.world().messages = [
        (
            "C1".to_owned(),
            vec![
                message(&ancient, "too old"),
                message(&came, "came"),
                message(&lost, "lost <&\"> \u{1f600}"),
                edited(&changed, "changed", &change),
                edited(&known_change, "changed twice", &both),
                head.clone(),
                in_thread(&reply),
                in_thread(&lost_reply),
                message(&young, "may still come"),
            ],
        ),
        ("C2".to_owned(), vec![edited(&late, "may still come as changed", &young)]),
        ("C3".to_owned(), vec![message(&lost, "the same moment elsewhere")]),
    ]
    .into();
    let with = |mut message: Value| {
        message["channel"] = json!("C1");
        message
    };
    push(&gateway, "Ev1", with(message(&came, "came"))).await;
    push(&gateway, "Ev2", with(message(&changed, "change"))).await;
    push(&gateway, "Ev3", with(message(&known_change, "change"))).await;
    let event = json!({"type": "message", "subtype": "message_changed", "channel": "C1", "ts": both,
        "message": edited(&known_change, "changed twice", &both)});
    push(&gateway, "Ev4", event).await;
    push(&gateway, "Ev5", with(head)).await;
    push(&gateway, "Ev6", with(in_thread(&reply))).await;
    push(&gateway, "Ev7", with(message(&deleted, "soon gone"))).await;
    // Another event about a message is not the message.
    push(&gateway, "Ev8", json!({"type": "app_mention", "channel": "C1", "ts": lost, "text": "x"})).await;

    // A token that ran out is named as what it is, and nothing is done.
    let (code, text) = run(&gateway, &vendors, "hunter2-old", &["reconcile", "in"]).await;
    assert!(code == Some(78) && text.contains("token_expired") && text.contains("xoxb-"), "{text}");
    vendors.world().busy = 2;
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("delivered 4 of Slack"), "{text}");
    let events = stream::read(&nats, "EVENTS_in").await;
    let data = stream::read_data(&nats, "EVENTS_in").await;
    let fetched: Vec<(&str, String)> = events[8..]
        .iter()
        .zip(&data[8..])
        .map(|(event, data)| (event.attribute("id"), data["event"]["ts"].to_string()))
        .collect();
    assert_eq!(
        fetched,
        [
            (format!("C1:{lost}").as_str(), format!("\"{lost}\"")),
            (format!("C1:{lost_reply}").as_str(), format!("\"{lost_reply}\"")),
            (format!("C1:{changed}:{change}").as_str(), format!("\"{change}\"")),
            (format!("C3:{lost}").as_str(), format!("\"{lost}\"")),
        ],
        "oldest first, channel by channel"
    );
    assert_eq!(data[8]["event"]["text"], "lost <&\"> \u{1f600}");
    assert_eq!(data[8]["fetched"], "history");
    assert_eq!(events[8].attribute("type"), "com.slack.message");
    assert_eq!(events[8].attribute("source"), "https://slack.com/T1");
    assert_eq!(events[8].attribute("subject"), "C1");
    assert_eq!(events[10].attribute("type"), "com.slack.message.message_changed");
    assert_eq!(data[10]["event"]["message"]["text"], "changed");
    // Every page was asked for, of every channel that the app is in.
    let asked: Vec<String> = vendors.world().asked.clone();
    assert_eq!(asked, ["C1 ", "C1 2=", "C1 4=", "C2 ", "C3 "]);

    // The same again: nothing is missing any more.
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("nothing of Slack is missing"), "{text}");
    assert_eq!(stream::read(&nats, "EVENTS_in").await.len(), 12);
    // The next run has no hole behind this one, however long ago it was: a thread may get replies a day later all the same.
    let old = ts(ago(3 * 24 * 60), 1);
    vendors
        .world()
        .messages
        .get_mut("C3")
        .unwrap()
        .insert(0, json!({"type": "message", "user": "U1", "text": "old", "ts": old}));
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("nothing of Slack is missing"), "{text}");
    let note = gateway.command().get_current_dir().unwrap().join("data/webhooks/in.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    assert!(
        ["C1=", "C2=", "C3="].iter().all(|place| kept["next"].as_str().unwrap().contains(place)),
        "{kept}"
    );
    let next = kept["next"].as_str().unwrap();
    let second = next.split(' ').find_map(|place| place.strip_prefix("C2=")).unwrap();
    let behind: i64 = late.replace('.', "").parse().unwrap();
    assert_eq!(second.parse::<i64>().unwrap(), behind - 1, "not past what was left out");
    let ended = ago(4 * 24 * 60).as_microsecond();
    std::fs::write(&note, json!({"next": format!("C3={ended}")}).to_string()).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--target", "C1"]).await;
    assert!(
        code == Some(0) && text.contains("nothing of Slack is missing"),
        "another channel's place: {text}"
    );
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("delivered 1 of Slack"), "{text}");
    // One channel alone; one that the app does not see.
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--target", "C9"]).await;
    assert!(code == Some(78) && text.contains("channel_not_found"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--target", "C1&x=y"]).await;
    assert_eq!(code, Some(64), "{text}");
}

#[tokio::test]
async fn slacks_app_gets_the_url_and_keeps_the_rest_of_its_manifest() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let gateway = configure(&nats, "slack", Some("slack-secret\n"));
    let register = ["register", "in", "--target", "A1", "--event", "message.channels"];
    // Without a token it says what to click, with a manifest to paste.
    let (code, text) = run(&gateway, &vendors, "", &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("set up by hand"), "{text}");
    assert!(
        text.contains(&format!("\"request_url\":\"{URL}\"")) && text.contains("HEADGATE_API_TOKEN"),
        "{text}"
    );
    vendors.world().manifest =
        json!({"display_information": {"name": "shop"}, "settings": {"socket_mode_enabled": false}});
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(78) && text.contains("Missing scopes"), "{text}");
    vendors.world().manifest["oauth_config"] = json!({"scopes": {"bot": ["channels:history"]}});
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in", "--target", "A1"]).await;
    assert!(code == Some(64) && text.contains("--event message.channels"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("made webhook A1"), "{text}");
    {
        let world = vendors.world();
        let wanted = json!({"display_information": {"name": "shop"}, "oauth_config": {"scopes": {"bot": ["channels:history"]}},
            "settings": {"socket_mode_enabled": false,
                "event_subscriptions": {"request_url": URL, "bot_events": ["message.channels"]}}});
        assert_eq!(world.manifest, wanted);
    }
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    // Another event is added; an app whose events go elsewhere is left alone.
    let more = ["register", "in", "--target", "A1", "--event", "reaction_added"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &more).await;
    assert_eq!(code, Some(0), "{text}");
    let events = json!(["message.channels", "reaction_added"]);
    assert_eq!(vendors.world().manifest["settings"]["event_subscriptions"]["bot_events"], events);
    vendors.world().manifest["settings"]["event_subscriptions"]["request_url"] =
        json!("https://other.example/");
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(78) && text.contains("https://other.example/"), "{text}");
}

const ORGANIZATION: &str = "00D000000000007EAA";

/// Delivers a record as Salesforce does; without its `SystemModstamp`, which nobody has to select.
async fn save(gateway: &Gateway, notification: &str, id: &str, at: jiff::Timestamp) {
    let body = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body><notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>{ORGANIZATION}</OrganizationId><Notification><Id>{notification}</Id><sObject xsi:type="sf:Account" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>{id}</sf:Id><sf:LastModifiedDate>{at:.3}</sf:LastModifiedDate></sObject></Notification></notifications></e:Body></e:Envelope>"#
    );
    let answer =
        post(gateway).header("content-type", "text/xml; charset=utf-8").body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

fn record(id: &str, at: jiff::Timestamp, deleted: bool) -> Value {
    // As the REST API writes it.
    let at = format!("{at:.3}").replace('Z', "+0000");
    json!({"Id": id, "IsDeleted": deleted, "Name": format!("Octo <&> {id}"), "Employees": 7,
        "LastModifiedDate": at, "SystemModstamp": at, "BillingAddress": {"city": "x"}})
}

#[tokio::test]
async fn salesforces_missing_records_and_deletes_come_once_from_where_the_last_run_ended() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "salesforce", Some(ORGANIZATION));
    gateway.start_again().await;
    let id = |number: u32| format!("001{number:012}AAA");
    // The sample is signed with this organization's id, not the sample's own.
    let (code, text) = run(&gateway, &vendors, TOKEN, &["send", "in"]).await;
    assert!(code == Some(0) && text.contains("200"), "{text}");
    save(&gateway, "04l1", &id(1), ago(200)).await;
    save(&gateway, "04l2", &id(2), ago(190)).await;
    save(&gateway, "04l4", &id(4), ago(180)).await;
    vendors.world().records = vec![
        record(&id(1), ago(200), false),
        // Saved again, and that did not arrive.
        record(&id(2), ago(150), false),
        // Never arrived.
        record(&id(3), ago(185), false),
        // Arrived, and deleted since.
        record(&id(4), ago(140), true),
        record(&id(5), ago(130), true),
        record(&id(6), ago(130), false),
        record(&id(7), ago(1), false),
    ];
    let reconcile = ["reconcile", "in", "--event", "Account", "--until", "15m"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(64) && text.contains("--event Account"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--event", "Account' OR"]).await;
    assert_eq!(code, Some(64), "{text}");
    let (code, text) = run(&gateway, &vendors, "hunter2-old", &reconcile).await;
    assert!(
        code == Some(78) && text.contains("Session expired") && text.contains("sf org display"),
        "{text}"
    );
    vendors.world().spent = true;
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(69) && text.contains("fewer requests"), "{text}");
    vendors.world().spent = false;
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 5 of Salesforce"), "{text}");
    let events = stream::read(&nats, "EVENTS_in").await;
    let told: Vec<(String, &str, &str)> = events[4..]
        .iter()
        .map(|event| (event.attribute("id").to_owned(), event.attribute("type"), event.attribute("subject")))
        .collect();
    let (one, two, three, four, five) = (id(3), id(2), id(4), id(5), id(6));
    let saved = "com.salesforce.outbound.Account";
    let gone = "com.salesforce.outbound.Account.deleted";
    assert_eq!(
        told,
        [
            (format!("{one}:{:.3}", ago(185)), saved, one.as_str()),
            (format!("{two}:{:.3}", ago(150)), saved, two.as_str()),
            (format!("{three}:{:.3}", ago(140)), gone, three.as_str()),
            (format!("{four}:{:.3}", ago(130)), gone, four.as_str()),
            (format!("{five}:{:.3}", ago(130)), saved, five.as_str()),
        ]
    );
    let data = &stream::read_data(&nats, "EVENTS_in").await[4];
    assert_eq!(data["sObject"]["Name"], json!(format!("Octo <&> {one}")), "as it is, through XML");
    assert_eq!((&data["sObject"]["Employees"], &data["fetched"]), (&json!("7"), &json!("record")));
    assert_eq!(events[6].subject.split('.').nth(3), Some("deleted"));

    // It goes on where it ended.
    let host: String = vendors.base.trim_start_matches("http://").replace('.', "%2E").replace(':', "%3A");
    let note = gateway.command().get_current_dir().unwrap().join(format!("data/webhooks/in.{host}.json"));
    let place = || {
        let note: Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
        let place = note["next"].as_str().unwrap().strip_prefix("Account=").unwrap().parse().unwrap();
        jiff::Timestamp::from_microsecond(place).unwrap()
    };
    assert!(place() > ago(16) && place() < jiff::Timestamp::now(), "{}", place());
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("nothing of Salesforce"), "{text}");
    assert!(vendors.world().asked[1..].iter().all(|from| from.parse::<jiff::Timestamp>().unwrap() > ago(17)));
    // A run that died before it noted how far it was reads all of it again, and finds it in the stream.
    std::fs::remove_file(&note).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("nothing of Salesforce"), "{text}");
    assert_eq!(stream::read(&nats, "EVENTS_in").await.len(), 9);
    // The gateway is away in the middle: nothing beyond what was taken is noted.
    std::fs::remove_file(&note).unwrap();
    vendors.world().records.push(record(&id(8), ago(20), false));
    gateway.kill9();
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(69), "{text}");
    assert!(place() < ago(20), "what nobody took is asked for again: {}", place());
    gateway.start_again().await;
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 1 of"), "{text}");
    // Salesforce has no API here that would make an outbound message: it is said what to click.
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("New Outbound Message") && text.contains(URL), "{text}");
}

/// Every provider that is set up by hand is told this gateway's URL, and a secret that may be chosen is made.
#[tokio::test]
async fn what_has_to_be_clicked_is_said_for_every_provider() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let gateway = configure(&nats, "okta", None);
    let file = gateway.command().get_current_dir().unwrap().join("in.secret");
    let (code, text) = run(&gateway, &vendors, "", &["register", "in"]).await;
    assert!(code == Some(0) && text.contains(URL) && text.contains("in.secret"), "{text}");
    let secret = std::fs::read_to_string(&file).unwrap();
    assert_eq!(secret.trim_end().len(), 44);
    assert!(!text.contains(secret.trim_end()), "the secret was told: {text}");
    let (code, _) = run(&gateway, &vendors, "", &["register", "in"]).await;
    assert_eq!((code, std::fs::read_to_string(&file).unwrap()), (Some(0), secret), "it is never replaced");
    // One that the provider chooses is not made.
    let gateway = configure(&nats, "linear", None);
    let (code, text) = run(&gateway, &vendors, "", &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("put it into"), "{text}");
    assert!(!gateway.command().get_current_dir().unwrap().join("in.secret").exists());

    // `show` says the same before anything is registered, with the URL of the source that is configured, or one like it.
    for (provider, url) in [("linear", URL), ("zoom", "https://hooks.example.com/webhooks/NAME")] {
        let (code, text) = run(&gateway, &vendors, "", &["show", provider]).await;
        assert!(code == Some(0) && text.contains(url) && text.contains(".secret\" }"), "{text}");
    }
}
