//! XML turned into JSON, so that one language of pointers serves both (Salesforce's outbound messages are SOAP).
//!
//! An element becomes an object of its children by local name, or a string if it has only text; children of one name
//! become an array; an attribute `x` is the member `@x`; `xsi:nil` is null. A document type declaration is refused, so
//! nothing is ever expanded.

use bytes::Bytes;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value};

/// Deepest nesting of elements.
const DEPTH: usize = 64;

/// Most nodes of one document.
const NODES: u32 = 500_000;

/// The document as JSON text, under the local name of its root.
pub(crate) fn to_json(body: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "not UTF-8")?;
    let options = ParsingOptions { nodes_limit: NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|_| "not XML")?;
    let root = document.root_element();
    let mut object = Map::new();
    object.insert(root.tag_name().name().to_owned(), element(root, 0)?);
    serde_json::to_string(&Value::Object(object)).map_err(|_| "not JSON")
}

/// The document with another text in the first element of that local name; as it is where there is none.
pub(crate) fn replace(body: &Bytes, name: &str, text: &str) -> Bytes {
    let range = std::str::from_utf8(body).ok().and_then(|document| {
        let document = Document::parse(document).ok()?;
        let found = document.descendants().find(|node| node.tag_name().name() == name)?;
        Some(found.first_child()?.range())
    });
    let Some(range) = range else { return body.clone() };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    Bytes::from([&body[..range.start], escaped.as_bytes(), &body[range.end..]].concat())
}

fn element(node: Node<'_, '_>, depth: usize) -> Result<Value, &'static str> {
    if depth == DEPTH {
        return Err("XML nested too deeply");
    }
    let mut object = Map::new();
    for attribute in node.attributes() {
        if attribute.name() == "nil" && attribute.value() == "true" {
            return Ok(Value::Null);
        }
        object.insert(format!("@{}", attribute.name()), Value::String(attribute.value().to_owned()));
    }
    for child in node.children().filter(Node::is_element) {
        let value = element(child, depth + 1)?;
        match object.get_mut(child.tag_name().name()) {
            None => {
                object.insert(child.tag_name().name().to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(single) => *single = Value::Array(vec![single.take(), value]),
        }
    }
    if object.is_empty() {
        return Ok(Value::String(node.text().unwrap_or_default().to_owned()));
    }
    Ok(Value::Object(object))
}
