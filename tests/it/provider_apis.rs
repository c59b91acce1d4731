//! `headgate webhook register` and `reconcile`, as an operator runs them, against servers that play the providers' APIs.

use crate::support::{
    gateway::{Gateway, Settings},
    hooks::{self, Signed},
    nats::Nats,
    stream,
    vendors::{TOKEN, Vendors},
};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

/// A gateway with one source `in`, whose secret is in a file that is not there yet.
pub(crate) fn configure(nats: &Nats, provider: &str) -> Gateway {
    let source = format!(
        "[sources.in]\nconnector = \"webhook\"\nprovider = \"{provider}\"\nsecret = {{ file = \"in.secret\" }}\n"
    );
    Gateway::with_sources(&Settings::new(nats, ""), "public_url = \"https://hooks.example.com\"\n", &source)
}

const URL: &str = "https://hooks.example.com/webhooks/in";

pub(crate) fn secret_file(gateway: &Gateway) -> PathBuf {
    gateway.command().get_current_dir().unwrap().join("in.secret")
}

fn secret(gateway: &Gateway) -> String {
    std::fs::read_to_string(secret_file(gateway)).unwrap().trim_end().to_owned()
}

/// Runs `headgate webhook …` with the token in the environment; exit code and everything it printed.
async fn run(gateway: &Gateway, vendors: &Vendors, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    run_at(gateway, &vendors.base, token, arguments).await
}

/// The same against any API.
pub(crate) async fn run_at(
    gateway: &Gateway,
    api: &str,
    token: &str,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut command = gateway.command();
    command.arg("webhook").args(arguments).args(["--api", api]).env("HEADGATE_API_TOKEN", token);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!text.contains(TOKEN) && !text.contains("hunter2"), "the token was told: {text}");
    (output.status.code(), text)
}

async fn ids(nats: &Nats) -> Vec<String> {
    let events = stream::read(nats, "EVENTS_in").await;
    events.iter().map(|event| event.attribute("id").to_owned()).collect()
}

#[tokio::test]
async fn githubs_webhook_is_made_once_and_what_it_missed_comes_in_order_and_once() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "github");
    let output = gateway.command().arg("run").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && told.contains("headgate webhook register"), "{told}");

    let register = ["register", "in", "--target", "octo/shop"];
    let (code, text) = run(&gateway, &vendors, "hunter2-wrong", &register).await;
    assert!(code == Some(78) && text.contains("401") && text.contains("admin:repo_hook"), "{text}");
    assert!(!secret_file(&gateway).exists());
    let (code, text) = run(&gateway, &vendors, "", &register).await;
    assert!(code == Some(64) && text.contains("HEADGATE_API_TOKEN"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in", "--target", "octo"]).await;
    assert!(code == Some(78) && text.contains("404") && text.contains("--target"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in", "--target", "../x"]).await;
    assert!(code == Some(64) && text.contains("owner/repository"), "{text}");

    vendors.world().busy = 2;
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("made webhook 7") && text.contains("in.secret"), "{text}");
    let fresh = secret(&gateway);
    assert_eq!(fresh.len(), 44);
    assert!(!text.contains(&fresh), "the secret was told");
    let mode = std::fs::metadata(secret_file(&gateway)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    {
        let world = vendors.world();
        let [hook] = world.hooks.as_slice() else { panic!("{:?}", world.hooks) };
        assert_eq!(hook["config"]["url"], URL);
        assert_eq!(hook["config"]["secret"], json!(fresh));
        assert_eq!(hook["events"], json!(["*"]));
    }
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    assert_eq!((vendors.world().hooks.len(), secret(&gateway)), (1, fresh.clone()));
    // A webhook whose secret was lost on this side is not taken over.
    std::fs::remove_file(secret_file(&gateway)).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(78) && text.contains("delete the webhook"), "{text}");
    assert!(!secret_file(&gateway).exists());
    std::fs::write(secret_file(&gateway), format!("{fresh}\n")).unwrap();

    // GitHub could deliver 1, 3 and 5. 3 was answered too late, so GitHub does not know that it arrived.
    let reconcile = ["reconcile", "in", "--target", "octo/shop"];
    let delivery = |number: u64, id: u64, status: u64| {
        let signed = Signed::issue(&format!("d{number}"), number);
        let payload: Value = serde_json::from_slice(&signed.body).unwrap();
        let sent = json!({"X-GitHub-Event": "issues", "X-GitHub-Delivery": format!("d{number}"),
            "X-Hub-Signature-256": "sha256=00", "content-type": "application/json"});
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(600 - i64::try_from(id).unwrap());
        json!({"id": id, "guid": format!("d{number}"), "delivered_at": at.to_string(), "redelivery": false,
            "status": "x", "status_code": status, "event": "issues", "action": "opened",
            "request": {"headers": sent, "payload": payload}})
    };
    vendors.world().deliveries = vec![
        delivery(2, 16, 502),
        delivery(5, 15, 200),
        delivery(4, 14, 502),
        delivery(3, 13, 504),
        delivery(2, 12, 502),
        delivery(1, 11, 200),
        json!({"id": 1, "guid": "d0", "delivered_at": "2020-01-01T00:00:00Z", "status_code": 500}),
    ];
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(69) && text.contains("nothing answers"), "{text}");
    gateway.start_again().await;
    let url = format!("http://127.0.0.1:{}/webhooks/in", gateway.http_port());
    for number in [1, 3, 5] {
        let signed = Signed::issue_with(&format!("d{number}"), number, "", &fresh);
        let mut request = hooks::client().post(&url);
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        assert!(request.body(signed.body).send().await.unwrap().status().is_success());
    }
    vendors.world().busy = 1;
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 3 of GitHub"), "{text}");
    assert_eq!(ids(&nats).await, ["d1", "d3", "d5", "d2", "d4"]);
    let (code, text) = run(&gateway, &vendors, TOKEN, &[&reconcile[..], &["--json"]].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["delivered"], &told["asked"]), (&json!(3), &json!(0)));
    let events = stream::read(&nats, "EVENTS_in").await;
    assert_eq!(events.len(), 5, "the same again makes no second event");
    assert_eq!((events[3].attribute("subject"), events[3].attribute("integrity")), ("2", "body"));
    let (code, text) = run(&gateway, &vendors, TOKEN, &[&reconcile[..], &["--since", "30h"]].concat()).await;
    assert!(code == Some(64) && text.contains("dedup_window"), "{text}");
    assert!(!gateway.log().contains(&fresh), "the secret was told");
}

#[tokio::test]
async fn stripes_secret_is_kept_and_its_undelivered_events_come_in_order() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "stripe");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in", "--json"]).await;
    assert_eq!(code, Some(0), "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&told["webhook"], &told["outcome"], &told["url"]),
        (&json!("we_1"), &json!("made"), &json!(URL))
    );
    assert_eq!((&told["secret_file"], &told["secret"]), (&json!("in.secret"), &Value::Null));
    assert_eq!(secret(&gateway), "whsec_6fH2kPq8");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    assert_eq!(vendors.world().endpoints.len(), 1);
    gateway.start_again().await;
    let created = jiff::Timestamp::now().as_second();
    let event = |number: u64| {
        json!({"id": format!("evt_{number}"), "object": "event", "type": "charge.succeeded", "created": created,
            "data": {"object": {"id": "ch_1", "object": "charge", "amount": 12345678901234567890_u64}}})
    };
    // 2 came by webhook; Stripe has another endpoint that did not take it.
    let body = event(2).to_string();
    let signature = hooks::hmac_hex("whsec_6fH2kPq8", format!("{created}.{body}").as_bytes());
    let request = hooks::client().post(format!("http://127.0.0.1:{}/webhooks/in", gateway.http_port()));
    let request = request.header("stripe-signature", format!("t={created},v1={signature}")).body(body);
    assert!(request.send().await.unwrap().status().is_success());
    vendors.world().events = vec![event(4), event(3), event(2)];
    vendors.world().busy = 5;
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(69) && text.contains("later"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--since", "2h"]).await;
    assert!(code == Some(0) && text.contains("delivered 3"), "{text}");
    assert_eq!(ids(&nats).await, ["evt_2", "evt_3", "evt_4"]);
}

#[tokio::test]
async fn airtables_notifications_are_followed_by_what_changed_and_its_webhook_is_kept_alive() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "airtable");
    vendors.world().life = 24 * 3600;
    let register = ["register", "in", "--target", "appBase"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("made webhook achHook") && text.contains("daily"), "{text}");
    assert_eq!(secret(&gateway), "AAECAwQFBgcICQoLDA0ODw==");
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("extended webhook achHook"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    assert_eq!(vendors.world().hooks.len(), 1);
    gateway.start_again().await;
    let payload = |number: u64, destroyed: bool| {
        let change = if destroyed {
            json!({"destroyedRecordIds": ["rec1"]})
        } else {
            json!({"changedRecordsById": {"rec1": {"current": {"cellValuesByFieldId": {"fld1": number}}}}})
        };
        json!({"timestamp": format!("2026-11-22T10:00:0{number}.000Z"), "baseTransactionNumber": 100 + number,
            "payloadFormat": "v0", "actionMetadata": {"source": "client"}, "changedTablesById": {"tbl1": change}})
    };
    vendors.world().payloads = vec![payload(1, false), payload(2, false), payload(3, true)];
    let reconcile = ["reconcile", "in", "--target", "appBase"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 3"), "{text}");
    assert_eq!(ids(&nats).await, ["achHook:1", "achHook:2", "achHook:3"]);
    vendors.world().payloads.push(payload(4, false));
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 1"), "{text}");
    assert_eq!(vendors.world().asked, ["1", "3", "4"], "it went on where it had ended");
    // A run that died before it noted how far it was.
    let data = gateway.command().get_current_dir().unwrap().join("data/webhooks/in.appBase.json");
    std::fs::remove_file(data).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &reconcile).await;
    assert!(code == Some(0) && text.contains("delivered 4"), "{text}");
    let events = stream::read(&nats, "EVENTS_in").await;
    assert_eq!(events.len(), 4, "the same again makes no second event");
    assert_eq!(events[2].attribute("type"), "com.airtable.base.transaction");
    assert_eq!(events[2].attribute("time"), "2026-11-22T10:00:03.000000Z");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in", "--target", "appOther"]).await;
    assert!(code == Some(78) && text.contains("404"), "{text}");
}

#[tokio::test]
async fn drives_changes_are_fetched_deletes_included_and_its_channel_is_replaced_in_time() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let mut gateway = configure(&nats, "google-drive");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert_eq!(code, Some(64), "without a secret there is nothing to sign with: {text}");
    vendors.world().changes = vec![
        json!({"kind": "drive#change", "changeType": "file", "time": "2026-11-01T00:00:00.000Z", "removed": false, "fileId": "before"}),
    ];
    vendors.world().life = 2 * 24 * 3600;
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("made webhook headgate-"), "{text}");
    let token = secret(&gateway);
    // Less than three days are left: another channel, with the same token, and the first is closed.
    vendors.world().life = 7 * 24 * 3600;
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("extended webhook headgate-"), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    {
        let world = vendors.world();
        let [first, second] = world.channels.as_slice() else { panic!("{:?}", world.channels) };
        assert_eq!(world.closed, [first["id"].clone()]);
        assert_ne!(first["id"], second["id"]);
        assert_eq!((&first["token"], &second["token"]), (&json!(token), &json!(token)));
        assert_eq!(second["address"], URL);
    }
    // Nobody could delete a channel whose token was lost: it is replaced.
    std::fs::remove_file(secret_file(&gateway)).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("made webhook headgate-"), "{text}");
    assert_ne!(secret(&gateway), token);
    {
        let world = vendors.world();
        assert_eq!((world.channels.len(), world.closed.len()), (3, 2));
    }
    gateway.start_again().await;
    let change = |number: u64, removed: bool| {
        json!({"kind": "drive#change", "changeType": "file", "time": format!("2026-11-22T10:00:0{number}.123Z"),
            "removed": removed, "fileId": format!("f{number}"), "file": {"name": "a"}})
    };
    vendors.world().changes.extend([change(1, false), change(2, true), change(3, false)]);
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("delivered 3 of Google Drive"), "{text}");
    let events = stream::read(&nats, "EVENTS_in").await;
    let seen: Vec<(&str, &str)> =
        events.iter().map(|event| (event.attribute("type"), event.attribute("subject"))).collect();
    assert_eq!(
        seen,
        [
            ("com.google.drive.file.changed", "f1"),
            ("com.google.drive.file.removed", "f2"),
            ("com.google.drive.file.changed", "f3")
        ]
    );
    assert_eq!(events[1].attribute("id"), "f2:2026-11-22T10:00:02.123Z");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(0) && text.contains("nothing of Google Drive is missing"), "{text}");
    assert_eq!(vendors.world().asked, ["t1", "t3", "t4"]);
}

#[tokio::test]
async fn zendesk_and_shopify_are_registered_and_others_are_explained() {
    let (nats, vendors) = (Nats::start().await, Vendors::start().await);
    let gateway = configure(&nats, "zendesk");
    vendors.world().hooks = vec![json!({"id": "other", "endpoint": "https://other.example"})];
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in"]).await;
    assert!(code == Some(64) && text.contains("--event ticket.created"), "{text}");
    let register = ["register", "in", "--event", "ticket.created"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("made webhook 01GHOOK"), "{text}");
    assert_eq!(secret(&gateway), "zen-secret");
    // Zendesk tells the secret again.
    std::fs::remove_file(secret_file(&gateway)).unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(0) && text.contains("nothing was changed there"), "{text}");
    assert_eq!((secret(&gateway).as_str(), vendors.world().hooks.len()), ("zen-secret", 2));

    // Shopify signs with the app's secret, which is there before.
    let gateway = configure(&nats, "shopify");
    let register = ["register", "in", "--event", "orders/create,app/uninstalled"];
    let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
    assert!(code == Some(64) && text.contains("client secret"), "{text}");
    std::fs::write(secret_file(&gateway), "app-secret\n").unwrap();
    let (code, text) = run(&gateway, &vendors, TOKEN, &["register", "in", "--event", "orders/nothing"]).await;
    assert!(code == Some(78) && text.contains("Topic is not to be had"), "{text}");
    for outcome in ["made webhook", "nothing was changed there"] {
        let (code, text) = run(&gateway, &vendors, TOKEN, &register).await;
        assert!(code == Some(0) && text.contains(outcome), "{text}");
        assert_eq!(vendors.world().subscriptions.len(), 2);
    }
    // Without --api the token goes to the shop's own host, and to no other that a target could make of it.
    let mut command = gateway.command();
    command.args(["webhook", "register", "in", "--target", "evil.example/"]).env("HEADGATE_API_TOKEN", TOKEN);
    assert_eq!(command.output().unwrap().status.code(), Some(64));

    let gateway = configure(&nats, "linear");
    std::fs::write(secret_file(&gateway), "linear-secret\n").unwrap();
    let (code, text) = run(&gateway, &vendors, "", &["register", "in"]).await;
    assert!(code == Some(0) && text.contains("set up by hand") && text.contains(URL), "{text}");
    let (code, text) = run(&gateway, &vendors, TOKEN, &["reconcile", "in"]).await;
    assert!(code == Some(64) && text.contains("webhook list"), "{text}");
}
