//! From a verified body to deliveries: which events it holds and what they are called.
//!
//! The same request always gives the same deliveries with the same ids, so a provider's repetition is recognized.

use crate::{
    Data, Delivery, Integrity, Reason,
    json::{Pointer, Value},
    template::{Scope, Template, sha256_hex},
};
use bytes::Bytes;
use http::HeaderName;
use serde::Deserialize;
use std::collections::HashMap;

/// The verb of an event whose type names only a thing.
const RECEIVED: &str = "received";

/// Most events of one request.
const ITEMS: usize = 10_000;

/// A provider's `[map]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    /// Where a batch's events are: a JSON pointer in which `*` stands for every element.
    items: Option<String>,
    /// The delivery's id, the first that is there. Left out or missing: the hash of the body.
    #[serde(default)]
    id: Ids,
    /// What the event's `type` begins with.
    prefix: String,
    /// Which of `when` it is.
    #[serde(default)]
    switch: String,
    /// The CloudEvent's attributes.
    #[serde(default)]
    attributes: Names,
    /// What is different for some events.
    #[serde(default)]
    when: HashMap<String, Names>,
    /// Headers that go along with the event.
    #[serde(default)]
    headers: Vec<String>,
}

/// One template or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(String),
    Several(Vec<String>),
}

impl Default for Ids {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// What an event may be given by template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Names {
    /// The delivery's id, before those of the whole map.
    id: Option<String>,
    /// The provider's name of the event, dotted; what follows the last dot is the verb.
    event: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    entity: Option<String>,
    verb: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    key: Option<String>,
    time: Option<String>,
    sequence: Option<String>,
}

/// Compiled [`Rules`].
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    items: Option<Vec<Pointer>>,
    ids: Vec<Template>,
    prefix: String,
    switch: Template,
    names: Templates,
    when: HashMap<String, Templates>,
    headers: Vec<HeaderName>,
}

#[derive(Clone, Debug)]
struct Templates {
    id: Option<Template>,
    event: Option<Template>,
    event_type: Option<Template>,
    entity: Option<Template>,
    verb: Option<Template>,
    source: Option<Template>,
    subject: Option<Template>,
    key: Option<Template>,
    time: Option<Template>,
    sequence: Option<Template>,
}

/// What a body is to the events in it.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// The event's data where the body is one event.
    pub(crate) data: Data,
    /// Its content type.
    pub(crate) content_type: Option<String>,
}

impl Names {
    fn compile(&self) -> Result<Templates, String> {
        let template = |text: &Option<String>| text.as_deref().map(Template::parse).transpose();
        Ok(Templates {
            id: template(&self.id)?,
            event: template(&self.event)?,
            event_type: template(&self.event_type)?,
            entity: template(&self.entity)?,
            verb: template(&self.verb)?,
            source: template(&self.source)?,
            subject: template(&self.subject)?,
            key: template(&self.key)?,
            time: template(&self.time)?,
            sequence: template(&self.sequence)?,
        })
    }
}

impl Mapping {
    pub(crate) fn new(rules: &Rules) -> Result<Self, String> {
        let headers = rules
            .headers
            .iter()
            .map(|name| name.parse().map_err(|_| format!("\"{name}\" is not a header's name")));
        Ok(Self {
            items: rules
                .items
                .as_deref()
                .map(Pointer::parse)
                .transpose()?
                .map(|items| items.split_at_stars()),
            ids: match &rules.id {
                Ids::One(id) => vec![Template::parse(id)?],
                Ids::Several(ids) => ids.iter().map(|id| Template::parse(id)).collect::<Result<_, _>>()?,
            },
            prefix: rules.prefix.clone(),
            switch: Template::parse(&rules.switch)?,
            names: rules.attributes.compile()?,
            when: rules
                .when
                .iter()
                .map(|(name, names)| Ok((name.clone(), names.compile()?)))
                .collect::<Result<_, String>>()?,
            headers: headers.collect::<Result<_, String>>()?,
        })
    }

    /// The headers that go along.
    pub(crate) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// The events of a request.
    pub(crate) fn deliveries(
        &self,
        scope: &Scope<'_>,
        content: &Content,
        integrity: Integrity,
    ) -> Result<Vec<Delivery>, Reason> {
        let headers = self.kept(scope)?;
        let Some(items) = self.items(scope)? else {
            let data = content.data.clone();
            return Ok(vec![self.delivery(
                scope,
                data,
                content.content_type.clone(),
                headers,
                integrity,
                false,
            )?]);
        };
        let several = items.len() > 1;
        let json = || Some("application/json".to_owned());
        let deliveries = items.iter().enumerate().map(|(index, (outer, item))| {
            let scope = Scope { item: Some(*item), outer: Some(*outer), index, ..*scope };
            let data = Data::Json(Bytes::copy_from_slice(item.text().as_bytes()));
            self.delivery(&scope, data, json(), headers.clone(), integrity, several)
        });
        deliveries.collect()
    }

    /// The batch's items, each with the element around it; `None` where the body is no batch.
    fn items<'a>(&self, scope: &Scope<'a>) -> Result<Option<Vec<(Value<'a>, Value<'a>)>>, Reason> {
        let (Some(pointers), Some(root)) = (&self.items, scope.root) else { return Ok(None) };
        let mut found = vec![(root, root)];
        for (depth, pointer) in pointers.iter().enumerate() {
            let mut next = Vec::new();
            for (outer, value) in found {
                let Some(below) = value.get(pointer) else {
                    // What is no batch after all is kept as one event.
                    next.extend((depth > 0).then_some((outer, value)));
                    continue;
                };
                let outer = if depth == 1 { value } else { outer };
                match below.elements() {
                    Some(elements) => next.extend(elements.into_iter().map(|element| (outer, element))),
                    None => next.push((outer, below)),
                }
                if next.len() > ITEMS {
                    return Err(Reason::Body(format!("more than {ITEMS} events")));
                }
            }
            if next.is_empty() && depth == 0 && root.get(pointer).is_none() {
                return Ok(None);
            }
            found = next;
        }
        Ok(Some(found))
    }

    fn delivery(
        &self,
        scope: &Scope<'_>,
        data: Data,
        content_type: Option<String>,
        headers: Vec<(String, String)>,
        integrity: Integrity,
        several: bool,
    ) -> Result<Delivery, Reason> {
        let case = self.switch.render(scope)?.and_then(|case| self.when.get(&case));
        let name = |pick: fn(&Templates) -> &Option<Template>| -> Result<Option<String>, Reason> {
            let template = case.and_then(|case| pick(case).as_ref()).or(pick(&self.names).as_ref());
            let text = template.map(|template| template.render(scope)).transpose()?.flatten();
            Ok(text.filter(|text| !text.is_empty()))
        };
        let event = name(|names| &names.event)?.unwrap_or_else(|| "event".to_owned());
        let (entity, verb) = event.rsplit_once('.').unwrap_or((&event, RECEIVED));
        let subject = name(|names| &names.subject)?;
        Ok(Delivery {
            id: self.id(scope, case, several)?,
            identity: None,
            event_type: name(|names| &names.event_type)?
                .unwrap_or_else(|| format!("{}.{event}", self.prefix)),
            entity: name(|names| &names.entity)?.unwrap_or_else(|| entity.to_owned()),
            verb: name(|names| &names.verb)?.unwrap_or_else(|| verb.to_owned()),
            key: name(|names| &names.key)?.or_else(|| subject.clone()),
            time: name(|names| &names.time)?.as_deref().and_then(time),
            source: name(|names| &names.source)?,
            sequence: name(|names| &names.sequence)?,
            subject,
            content_type,
            data,
            headers,
            extensions: Vec::new(),
            integrity,
        })
    }

    fn id(&self, scope: &Scope<'_>, case: Option<&Templates>, several: bool) -> Result<String, Reason> {
        let mut found = None;
        for template in case.and_then(|case| case.id.as_ref()).into_iter().chain(&self.ids) {
            if let Some(id) = template.render(scope)?.filter(|id| !id.is_empty()) {
                found = Some((id, template.has_item()));
                break;
            }
        }
        let (id, own) =
            found.unwrap_or_else(|| (format!("sha256:{}", sha256_hex(scope.request.body)), false));
        Ok(if several && !own { format!("{id}#{}", scope.index) } else { id })
    }

    fn kept(&self, scope: &Scope<'_>) -> Result<Vec<(String, String)>, Reason> {
        let mut kept = Vec::new();
        for name in &self.headers {
            kept.extend(scope.header(name)?.map(|value| (name.as_str().to_owned(), value.to_owned())));
        }
        Ok(kept)
    }
}

/// A provider's time in microseconds since 1970-01-01 UTC: RFC 3339, or a number of seconds, milliseconds or microseconds,
/// told apart by its size. What is none of them is no time.
pub(crate) fn time(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_microsecond());
    }
    // Some write an offset without its colon, or a space for the T.
    for format in ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f %z", "%Y-%m-%d %H:%M:%S%.f%:z"] {
        if let Ok(time) = jiff::Timestamp::strptime(format, text) {
            return Some(time.as_microsecond());
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = jiff::civil::DateTime::strptime(format, text) {
            return time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp().as_microsecond());
        }
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 16 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    match number {
        0..100_000_000_000 => {
            let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
            number.checked_mul(1_000_000)?.checked_add(fraction)
        }
        100_000_000_000..100_000_000_000_000 => number.checked_mul(1_000),
        _ => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_provider() {
        for text in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T14:13:20-08:00",
            "2023-11-14T22:13:20.000+0000",
            "2023-11-14 22:13:20 +0000",
            "2023-11-14T22:13:20",
            "1700000000",
            "1700000000.000000",
            "1700000000000",
            "1700000000000000",
        ] {
            assert_eq!(time(text), Some(1_700_000_000_000_000), "{text}");
        }
        for text in ["", "now", "-5", "1.5.2", "99999999999999999", "2023-13-01T00:00:00Z"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
