//! JSON as CEL's values.

use cel::Value;
use serde_json::Value as Json;
use std::collections::HashMap;

/// A whole number is an int, or a uint where only that is large enough; any other number a double. What the event writes
/// as a string (numeric, dates, uuid, bytes) is a string.
#[must_use]
pub fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => Value::from(items.into_iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, from_json(value)));
            Value::from(members.collect::<HashMap<_, _>>())
        }
    }
}
