//! Salesforce: <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/>

use super::{Shared, refusal};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::collections::HashMap;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/services/data/v65.0/sobjects/Account/describe", get(describe))
        .route("/services/data/v65.0/queryAll", get(query))
        .route("/services/data/v65.0/query/{at}", get(more))
        .route("/services/data/v65.0/composite/sobjects/Account", post(records))
}

fn error(message: &str) -> Value {
    json!([{"message": format!("Session expired or invalid: {message}"), "errorCode": "INVALID_SESSION_ID"}])
}

async fn describe(State(world): State<Shared>, headers: HeaderMap) -> Response {
    refusal(&world, &headers, error).unwrap_or_else(|| {
        if world.lock().unwrap().spent {
            let error =
                json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
            return (StatusCode::FORBIDDEN, Json(error)).into_response();
        }
        let types = [
            ("Id", "id"),
            ("IsDeleted", "boolean"),
            ("Name", "string"),
            ("BillingAddress", "address"),
            ("Employees", "int"),
            ("LastModifiedDate", "datetime"),
            ("SystemModstamp", "datetime"),
        ];
        let fields = types.map(|(name, kind)| json!({"name": name, "type": kind, "picklistValues": []}));
        Json(json!({"name": "Account", "fields": fields})).into_response()
    })
}

/// Two on a page, in order, deleted ones too.
async fn query(
    State(world): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let query = &query["q"];
    let head = "SELECT Id, SystemModstamp, IsDeleted FROM Account WHERE SystemModstamp >= ";
    let rest = query.strip_prefix(head).unwrap_or_else(|| panic!("{query}"));
    let (from, rest) = rest.split_once(" AND SystemModstamp < ").unwrap();
    let until = rest.strip_suffix(" ORDER BY SystemModstamp, Id").unwrap();
    let at = |text: &str| -> jiff::Timestamp { text.replace("+0000", "Z").parse().unwrap() };
    let mut world = world.lock().unwrap();
    world.asked.push(from.to_owned());
    let mut found: Vec<Value> = world
        .records
        .iter()
        .filter(|record| (at(from)..at(until)).contains(&at(record["SystemModstamp"].as_str().unwrap())))
        .cloned()
        .collect();
    found.sort_by_key(|record| (record["SystemModstamp"].to_string(), record["Id"].to_string()));
    world.found = found;
    page(&world.found, 0)
}

fn page(found: &[Value], from: usize) -> Response {
    let row = |record: &Value| {
        json!({"attributes": {"type": "Account"}, "Id": record["Id"], "SystemModstamp": record["SystemModstamp"],
            "IsDeleted": record["IsDeleted"]})
    };
    let page: Vec<Value> = found.iter().skip(from).take(2).map(row).collect();
    let mut answer = json!({"totalSize": found.len(), "done": from + 2 >= found.len(), "records": page});
    if from + 2 < found.len() {
        answer["nextRecordsUrl"] =
            json!(format!("/services/data/v65.0/query/01g000000000001AAA-{}", from + 2));
    }
    Json(answer).into_response()
}

async fn more(State(world): State<Shared>, headers: HeaderMap, Path(at): Path<String>) -> Response {
    refusal(&world, &headers, error).unwrap_or_else(|| {
        let (_, from) = at.split_once('-').unwrap();
        page(&world.lock().unwrap().found, from.parse().unwrap())
    })
}

/// What was deleted is null.
async fn records(State(world): State<Shared>, headers: HeaderMap, Json(wanted): Json<Value>) -> Response {
    if let Some(refused) = refusal(&world, &headers, error) {
        return refused;
    }
    let world = world.lock().unwrap();
    let fields: Vec<&str> = wanted["fields"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!fields.contains(&"BillingAddress"), "{fields:?}");
    let one = |id: &Value| {
        let known = |record: &&Value| record["Id"] == *id && record["IsDeleted"] == json!(false);
        let Some(record) = world.records.iter().find(known) else { return Value::Null };
        let mut answer = json!({"attributes": {"type": "Account"}});
        for field in &fields {
            answer[*field] = record[*field].clone();
        }
        answer
    };
    let records: Vec<Value> = wanted["ids"].as_array().unwrap().iter().map(one).collect();
    Json(records).into_response()
}
