//! Senders of webhooks as GitHub has them, and what has to be true of the stream afterwards.

use super::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    stream::{self, Event},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// The secret of the source `gh`.
pub(crate) const SECRET: &str = "It's a Secret to Everybody";

/// The stream of the source `gh`.
pub(crate) const STREAM: &str = "EVENTS_gh";

/// A gateway with one webhook source `gh` of the provider `github`.
pub(crate) fn configure(nats: &Nats, http_lines: &str, source_lines: &str) -> Gateway {
    configure_with(&Settings::new(nats, ""), http_lines, source_lines)
}

/// The same with a broker as these settings say.
pub(crate) fn configure_with(settings: &Settings, http_lines: &str, source_lines: &str) -> Gateway {
    let source = format!(
        "[sources.gh]\nconnector = \"webhook\"\nprovider = \"github\"\nsecret = \"{SECRET}\"\n{source_lines}"
    );
    Gateway::with_sources(settings, http_lines, &source)
}

/// The same, started and ready.
pub(crate) async fn start(nats: &Nats, http_lines: &str, source_lines: &str) -> Gateway {
    let mut gateway = configure(nats, http_lines, source_lines);
    gateway.start_again().await;
    gateway
}

/// A request as GitHub sends it, not sent yet.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Signed {
    /// An issue of this number that was opened.
    pub(crate) fn issue(id: &str, number: u64) -> Self {
        Self::issue_with(id, number, "", SECRET)
    }

    /// The same with some text in it, signed with this secret.
    pub(crate) fn issue_with(id: &str, number: u64, text: &str, secret: &str) -> Self {
        let body = format!(
            r#"{{"action":"opened","issue":{{"number":{number},"updated_at":"2026-11-22T10:00:00Z","body":"{text}"}},"repository":{{"id":1,"url":"https://api.github.com/repos/o/r"}},"sender":{{"login":"x"}}}}"#
        );
        Self::of(id, body.into_bytes(), secret)
    }

    /// Any body, signed with this secret.
    pub(crate) fn of(id: &str, body: Vec<u8>, secret: &str) -> Self {
        let signature = hmac_hex(secret, &body);
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-github-event", "issues".to_owned()),
            ("x-github-delivery", id.to_owned()),
            ("x-hub-signature-256", format!("sha256={signature}")),
        ];
        Self { headers, body }
    }

    /// The same with another header in place of one, or beside the others.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sends it; the answer's status and headers, or why there is none.
    pub(crate) async fn post(
        &self,
        client: &reqwest::Client,
        gateway: u16,
    ) -> Result<reqwest::Response, String> {
        let mut request = client.post(format!("http://127.0.0.1:{gateway}/webhooks/gh"));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(self.body.clone()).send().await.map_err(|error| error.to_string())
    }

    /// Sends it once; the status.
    pub(crate) async fn status(&self, gateway: u16) -> u16 {
        self.post(&client(), gateway).await.unwrap().status().as_u16()
    }
}

/// HMAC-SHA256, in hexadecimal.
pub(crate) fn hmac_hex(secret: &str, message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client with connections of its own.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// Senders that each wait for an answer before they send their next delivery, and send the same again until it is 2xx.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    senders: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// So many senders, each over a connection of its own, to these gateways in turn.
    pub(crate) fn start(gateways: &[u16], senders: usize) -> Self {
        Self::signed(gateways, senders, Signed::issue)
    }

    /// The same, with other deliveries.
    pub(crate) fn signed(gateways: &[u16], senders: usize, sign: fn(&str, u64) -> Signed) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let senders = (0..senders)
            .map(|sender| {
                let (stop, answered, gateways) = (stop.clone(), answered.clone(), gateways.to_vec());
                tokio::spawn(async move {
                    let client = client();
                    let mut ids = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let id = format!("s{sender}-{number:06}");
                        let signed = sign(&id, sender as u64);
                        let mut tries = sender;
                        loop {
                            let gateway = gateways[tries % gateways.len()];
                            match signed.post(&client, gateway).await {
                                Ok(answer) if answer.status().is_success() => break,
                                Ok(answer) => assert!(answer.status().as_u16() >= 500, "{answer:?}"),
                                Err(_) => {}
                            }
                            tries += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        ids.push(id);
                    }
                    ids
                })
            })
            .collect();
        Self { stop, answered, senders }
    }

    /// Waits until so many more have been answered.
    pub(crate) async fn goes_on(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually("deliveries are answered", Duration::from_secs(30), || async {
            let answered = self.answered.load(Ordering::Relaxed);
            if answered >= goal { Ok(()) } else { Err(format!("{answered} of {goal}")) }
        })
        .await;
    }

    /// Ends the senders; the ids that were answered with 2xx, in each sender's order.
    pub(crate) async fn finish(self) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = Vec::new();
        for sender in self.senders {
            answered.push(sender.await.unwrap());
        }
        answered
    }
}

/// Everything that was answered is in the stream, once, in each sender's order; sequences rise within one gateway.
pub(crate) async fn assert_faithful(nats: &Nats, answered: &[Vec<String>]) -> Vec<Event> {
    let expected: BTreeSet<&String> = answered.iter().flatten().collect();
    assert!(!expected.is_empty(), "nothing was answered");
    let mut tries = 0;
    let events = loop {
        let events = stream::read(nats, STREAM).await;
        let ids: BTreeSet<&str> = events.iter().map(|event| event.attribute("id")).collect();
        let lost: Vec<&&String> = expected.iter().filter(|id| !ids.contains(id.as_str())).collect();
        if lost.is_empty() {
            break events;
        }
        tries += 1;
        let some = &lost[..lost.len().min(5)];
        assert!(tries < 60, "{} of {} lost, {} events: {some:?}", lost.len(), expected.len(), events.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &events {
        let id = event.attribute("id");
        let (sender, _) = id.split_once('-').unwrap_or((id, ""));
        seen.entry(sender).or_default().push(id);
    }
    for (sender, ids) in seen {
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(ids.len(), sorted.len(), "{sender}: an event came twice");
        assert_eq!(ids, sorted, "{sender}: out of order");
    }
    events
}

/// Waits until deliveries go to the broker and not to the spool, while they come.
pub(crate) async fn goes_direct(gateway: &Gateway, load: &Load) {
    let labels = r#"{source="gh"}"#;
    gateway.status().await;
    eventually("the lane leaves the spool", Duration::from_secs(60), || async {
        let spooled = gateway.metric(&format!("headgate_spooled_total{labels}")).await;
        load.goes_on(20).await;
        let more = gateway.metric(&format!("headgate_spooled_total{labels}")).await - spooled;
        if more == 0.0 { Ok(()) } else { Err(format!("{more} of the last deliveries were spooled")) }
    })
    .await;
}

/// The gateway's process in KiB of resident memory.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
