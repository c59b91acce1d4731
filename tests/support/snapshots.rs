//! What a gateway says of its snapshots, and what the stream has of them.

use super::{eventually, gateway::Gateway, stream::Event};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Asks for a snapshot on the command line: the exit code, the answer in JSON, and what it said on stderr.
pub(crate) fn ask(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = gateway.command().args(["snapshot", "--json", "shop"]).args(arguments).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), answer, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The snapshots in `/status` of the first source.
pub(crate) async fn listed(gateway: &Gateway) -> Vec<Value> {
    gateway.status().await["sources"][0]["snapshots"].as_array().cloned().unwrap_or_default()
}

/// Waits until `count` snapshots are done and none is left.
pub(crate) async fn are_done(gateway: &Gateway, count: usize) {
    eventually("the snapshots are done", Duration::from_secs(60), || async {
        let all = listed(gateway).await;
        let done = all.iter().filter(|job| job["state"] == "done").count();
        if done >= count && done == all.len() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

/// How often each row of a table was told by a snapshot.
pub(crate) fn told(events: &[Event], table: &str) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for event in events.iter().filter(|event| event.data.op == "snapshot" && event.data.table == table) {
        *told.entry(format!("{:?}", event.data.key)).or_insert(0) += 1;
    }
    told
}

/// Holds the stream against a table of `rows` rows that nobody wrote to: each row told, and once.
pub(crate) fn each_once(events: &[Event], table: &str, rows: usize) {
    let told = told(events, table);
    let repeated: Vec<_> = told.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(repeated.is_empty(), "{table}: told more than once: {repeated:?}");
    assert_eq!(told.len(), rows, "rows of {table}");
}
