//! Whether a value is as a schema of ours says: the part of JSON Schema that our own documents use, no more. Pure.

use serde_json::Value;

/// Deeper than our own documents ever refer.
const DEEPEST: usize = 16;

/// Everything in `value` that is not as `document` says, each with its place as a JSON pointer.
#[must_use]
pub fn violations(document: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, document, value, "", DEEPEST, &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, depth: usize, found: &mut Vec<String>) {
    let place = if at.is_empty() { "/" } else { at };
    let Some(depth) = depth.checked_sub(1) else {
        found.push(format!("{place}: the schema refers too deep"));
        return;
    };
    if let Some(reference) = schema["$ref"].as_str() {
        match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(target) => check(root, target, value, at, depth, found),
            None => found.push(format!("{place}: the schema refers to {reference}, which it does not have")),
        }
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        let tried: Vec<Vec<String>> = branches
            .iter()
            .map(|branch| {
                let mut inside = Vec::new();
                check(root, branch, value, at, depth, &mut inside);
                inside
            })
            .collect();
        // What the nearest of them says is what somebody wants to read: a wrong row, not that it is no null.
        if !tried.iter().any(Vec::is_empty)
            && let Some(nearest) = tried.into_iter().max_by_key(|inside| inside.iter().map(String::len).max())
        {
            found.extend(nearest);
        }
    }
    if !fits(&schema["type"], value) {
        found.push(format!("{place}: is {}, expected {}", kind(value), schema["type"]));
        return;
    }
    if let Some(expected) = schema.get("const")
        && expected != value
    {
        found.push(format!("{place}: is not {expected}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        found.push(format!("{place}: is none of {}", schema["enum"]));
    }
    if let Some(members) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                found.push(format!("{at}/{}: is missing", escaped(name)));
            }
        }
        let known = schema["properties"].as_object();
        for (name, member) in members {
            let inside = format!("{at}/{}", escaped(name));
            match known.and_then(|known| known.get(name)) {
                Some(schema) => check(root, schema, member, &inside, depth, found),
                None if schema["additionalProperties"] == Value::Bool(false) => {
                    found.push(format!("{inside}: is not in the schema"));
                }
                None => {}
            }
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            check(root, schema, item, &format!("{at}/{index}"), depth, found);
        }
    }
}

fn fits(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        name => name == kind(value),
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_where_and_what() {
        let document = json!({
            "type": "object", "required": ["op"],
            "properties": {
                "op": { "enum": ["created"] },
                "after": { "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] },
                "changed": { "type": "array", "items": { "type": "string" } },
            },
            "$defs": { "row": { "type": "object", "additionalProperties": false,
                "properties": { "id": { "type": ["integer", "null"] }, "a/b": { "type": "string" } } } },
        });
        let told = |value: Value| violations(&document, &value);
        assert_eq!(
            told(json!({ "op": "created", "after": { "id": 1, "a/b": "x" }, "changed": ["id"] })),
            [""; 0]
        );
        assert_eq!(told(json!({ "op": "created", "after": null })), [""; 0]);
        assert_eq!(told(json!({})), ["/op: is missing"]);
        assert_eq!(
            told(json!({ "op": "x", "after": { "id": 1.5, "a/b": null, "c": 1 }, "changed": [1] })),
            [
                "/after/a~1b: is null, expected \"string\"",
                "/after/c: is not in the schema",
                "/after/id: is number, expected [\"integer\",\"null\"]",
                "/changed/0: is number, expected \"string\"",
                "/op: is none of [\"created\"]",
            ]
        );
        let endless = json!({ "$ref": "#" });
        assert_eq!(violations(&endless, &json!(1)).len(), 1);
    }
}
