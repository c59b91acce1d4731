//! The one small language of provider files: text with values of the request in it.
//!
//! `v0:{timestamp}:{body}` — braces hold a value; `[.{/action}]` — square brackets hold a part that is left out where one
//! of its values is missing; `{/a or /b | dots}` — the first that is there, then filters. The values:
//!
//! | value | is |
//! |---|---|
//! | `/pointer` | JSON at this pointer in the item (the whole body where it is no batch) |
//! | `root:/pointer`, `outer:/pointer` | in the whole body, in the element around the item |
//! | `header:Name`, `query:name`, `form:name` | that header, query parameter, field of a form body |
//! | `body`, `method`, `url`, `timestamp`, `field:k`, `secret` | for signatures: raw bytes, the public URL, the signed time, a field of the signature header |
//! | `crc32`, `sorted-form` | for signatures: PayPal's checksum of the body, Twilio's sorted parameters |
//! | `item:`, `'text'` | the item itself, this very text |
//! | `sha256`, `item-sha256`, `arrival`, `index` | hash of the body and of the item, time of arrival in µs, place in the batch |
//!
//! Filters: `dots` (`/` and `:` become `.`), `lower`, `after X`, `before X`, `until X`, `last X` (before and behind the last X),
//! `camel` (`taskCreated` becomes `task.created`),
//! `pad N` (zeros before a number), `hmac-hex` (HMAC-SHA256 with the secret).

use crate::{
    Reason, Request, form,
    json::{Pointer, Value},
};
use aws_lc_rs::{digest, hmac};
use http::{HeaderName, header::CONTENT_TYPE};
use std::borrow::Cow;

/// A text with values in it.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value { any: Vec<Token>, filters: Vec<Filter> },
    Optional(Template),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(String),
    Item(Pointer),
    Root(Pointer),
    Outer(Pointer),
    Header(HeaderName),
    Query(String),
    Form(String),
    Field(String),
    Body,
    Method,
    Url,
    Timestamp,
    Secret,
    Crc32,
    SortedForm,
    Sha256,
    ItemSha256,
    Arrival,
    Index,
}

#[derive(Clone, Debug)]
enum Filter {
    Dots,
    Lower,
    After(String),
    Before(String),
    Last(String),
    Until(String),
    Camel,
    Pad(usize),
    HmacHex,
}

/// What a template's values are taken from.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) request: &'a Request<'a>,
    /// The whole body as JSON, if it is.
    pub(crate) root: Option<Value<'a>>,
    /// The element of the batch; the whole body where it is none.
    pub(crate) item: Option<Value<'a>>,
    /// The element that the item is inside of.
    pub(crate) outer: Option<Value<'a>>,
    pub(crate) index: usize,
    /// The URL as the provider knows it.
    pub(crate) url: &'a str,
    /// The signed timestamp as it was written.
    pub(crate) timestamp: &'a str,
    /// The fields of the signature header.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    pub(crate) secret: &'a [u8],
}

impl<'a> Scope<'a> {
    /// A scope of the request alone.
    pub(crate) fn of(request: &'a Request<'a>, root: Option<Value<'a>>) -> Self {
        Self {
            request,
            root,
            item: root,
            outer: None,
            index: 0,
            url: "",
            timestamp: "",
            fields: &[],
            secret: b"",
        }
    }

    /// A header that may come once only.
    pub(crate) fn header(&self, name: &HeaderName) -> Result<Option<&'a str>, Reason> {
        let mut values = self.request.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Reason::Doubled(format!("header {name}")));
        }
        let text = std::str::from_utf8(value.as_bytes());
        text.map(Some).map_err(|_| Reason::Malformed(format!("header {name}")))
    }

    /// Whether the body comes as a form.
    pub(crate) fn says_form(&self) -> Result<bool, Reason> {
        Ok(self.header(&CONTENT_TYPE)?.is_some_and(form::is))
    }

    fn body_form(&self) -> &'a str {
        std::str::from_utf8(self.request.body).unwrap_or_default()
    }

    fn value(&self, token: &Token) -> Result<Option<Cow<'a, str>>, Reason> {
        let scalar =
            |value: Option<Value<'a>>, pointer| value.and_then(|v| v.get(pointer)).and_then(Value::scalar);
        Ok(match token {
            Token::Literal(text) => Some(Cow::Owned(text.clone())),
            Token::Item(pointer) => scalar(self.item, pointer),
            Token::Root(pointer) => scalar(self.root, pointer),
            Token::Outer(pointer) => scalar(self.outer, pointer),
            Token::Header(name) => self.header(name)?.map(Cow::Borrowed),
            Token::Query(name) => self.single(self.request.query(), name, "query parameter")?,
            Token::Form(name) => self.single(self.body_form(), name, "form field")?,
            Token::Field(name) => {
                self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| Cow::Borrowed(*value))
            }
            Token::Body => Some(Cow::Borrowed(self.body_form())),
            Token::Method => Some(Cow::Borrowed(self.request.method.as_str())),
            Token::Url => Some(Cow::Borrowed(self.url)),
            Token::Timestamp => Some(Cow::Borrowed(self.timestamp)),
            Token::Secret => std::str::from_utf8(self.secret).ok().map(Cow::Borrowed),
            Token::Crc32 => Some(Cow::Owned(crc32fast::hash(self.request.body).to_string())),
            // A body that is no form has no parameters: it is signed by its hash in the URL.
            Token::SortedForm if !self.says_form()? => Some(Cow::Borrowed("")),
            Token::SortedForm => Some(Cow::Owned(sorted_form(self.body_form()))),
            Token::Sha256 => Some(Cow::Owned(sha256_hex(self.request.body))),
            Token::ItemSha256 => {
                let item = self.item.map_or(self.request.body, |item| item.text().as_bytes());
                Some(Cow::Owned(sha256_hex(item)))
            }
            Token::Arrival => Some(Cow::Owned(self.request.received_at.to_string())),
            Token::Index => Some(Cow::Owned(self.index.to_string())),
        })
    }

    fn single(&self, text: &'a str, name: &str, what: &str) -> Result<Option<Cow<'a, str>>, Reason> {
        match form::count(text, name) {
            0 => Ok(None),
            1 => Ok(form::first(text, name)),
            _ => Err(Reason::Doubled(format!("{what} {name}"))),
        }
    }
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let template = Self::parts(&mut rest, false)?;
        Ok(template)
    }

    fn parts(rest: &mut &str, inside: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        loop {
            let stop = rest.find(['{', '[', ']']).unwrap_or(rest.len());
            if stop > 0 {
                parts.push(Part::Text(rest[..stop].to_owned()));
            }
            let Some(mark) = rest[stop..].chars().next() else {
                *rest = "";
                return if inside { Err("a \"[\" without its \"]\"".to_owned()) } else { Ok(Self { parts }) };
            };
            *rest = &rest[stop + 1..];
            match mark {
                '{' => {
                    let end = rest.find('}').ok_or("a \"{\" without its \"}\"")?;
                    parts.push(value(&rest[..end])?);
                    *rest = &rest[end + 1..];
                }
                '[' => parts.push(Part::Optional(Self::parts(rest, true)?)),
                _ if inside => return Ok(Self { parts }),
                _ => return Err("a \"]\" without its \"[\"".to_owned()),
            }
        }
    }

    /// The text, if every value outside square brackets is there.
    pub(crate) fn render(&self, scope: &Scope<'_>) -> Result<Option<String>, Reason> {
        let mut out = String::new();
        Ok(self.write(scope, &mut out)?.then_some(out))
    }

    fn write(&self, scope: &Scope<'_>, out: &mut String) -> Result<bool, Reason> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { any, filters } => match pick(any, filters, scope)? {
                    Some(value) => out.push_str(&value),
                    None => return Ok(false),
                },
                Part::Optional(template) => {
                    let before = out.len();
                    if !template.write(scope, out)? {
                        out.truncate(before);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Feeds the text to a hash, the body as raw bytes. A JSON value that is missing counts as empty (Adyen), as a form does that
    /// has no parameters (Twilio); a missing header, field or parameter is an error.
    pub(crate) fn feed(&self, scope: &Scope<'_>, sink: &mut dyn FnMut(&[u8])) -> Result<(), Reason> {
        for part in &self.parts {
            match part {
                Part::Text(text) => sink(text.as_bytes()),
                Part::Value { any, .. } if any[..] == [Token::Body] => sink(scope.request.body),
                Part::Value { any, .. } if any[..] == [Token::Secret] => sink(scope.secret),
                Part::Value { any, filters } => match (pick(any, filters, scope)?, &any[0]) {
                    (Some(value), _) => sink(value.as_bytes()),
                    (None, Token::Item(_) | Token::Root(_) | Token::SortedForm) => {}
                    (None, Token::Header(name)) => return Err(Reason::Missing(format!("header {name}"))),
                    (None, _) => return Err(Reason::Missing("a signed value".to_owned())),
                },
                Part::Optional(template) => {
                    if let Some(text) = template.render(scope)? {
                        sink(text.as_bytes());
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a value of this name is in it, outside square brackets.
    pub(crate) fn covers_body(&self) -> bool {
        self.has(&|token| matches!(token, Token::Body | Token::SortedForm))
    }

    /// Whether the secret is in it.
    pub(crate) fn has_secret(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value { any, .. } if any[..] == [Token::Secret]))
    }

    /// Whether it depends on the URL.
    pub(crate) fn has_url(&self) -> bool {
        self.has(&|token| *token == Token::Url)
    }

    /// Whether it looks into JSON.
    pub(crate) fn has_json(&self) -> bool {
        self.has(&|token| {
            matches!(token, Token::Item(_) | Token::Root(_) | Token::Outer(_) | Token::ItemSha256)
        })
    }

    /// Whether it differs from item to item of a batch.
    pub(crate) fn has_item(&self) -> bool {
        self.has(&|token| {
            matches!(token, Token::Item(_) | Token::Outer(_) | Token::ItemSha256 | Token::Index)
        })
    }

    fn has(&self, wanted: &dyn Fn(&Token) -> bool) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Value { any, .. } => any.iter().any(wanted),
            Part::Optional(template) => template.has(wanted),
        })
    }
}

fn pick<'a>(any: &[Token], filters: &[Filter], scope: &Scope<'a>) -> Result<Option<Cow<'a, str>>, Reason> {
    for token in any {
        if let Some(value) = scope.value(token)?.filter(|value| !value.is_empty()) {
            return Ok(Some(filters.iter().fold(value, |value, filter| filter.apply(value, scope))));
        }
    }
    Ok(None)
}

fn value(text: &str) -> Result<Part, String> {
    let mut parts = text.split(" | ");
    let any = parts.next().unwrap_or_default().split(" or ").map(token).collect::<Result<_, _>>()?;
    Ok(Part::Value { any, filters: parts.map(filter).collect::<Result<_, _>>()? })
}

fn token(text: &str) -> Result<Token, String> {
    let text = text.trim();
    if text.starts_with('/') {
        return Pointer::parse(text).map(Token::Item);
    }
    if let Some(literal) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Ok(Token::Literal(literal.to_owned()));
    }
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    Ok(match (kind, name.is_empty()) {
        ("item", _) => Token::Item(Pointer::parse(name)?),
        ("root", _) => Token::Root(Pointer::parse(name)?),
        ("outer", _) => Token::Outer(Pointer::parse(name)?),
        ("header", false) => {
            Token::Header(name.parse().map_err(|_| format!("\"{name}\" is not a header's name"))?)
        }
        ("query", false) => Token::Query(name.to_owned()),
        ("form", false) => Token::Form(name.to_owned()),
        ("field", false) => Token::Field(name.to_owned()),
        ("body", true) => Token::Body,
        ("method", true) => Token::Method,
        ("url", true) => Token::Url,
        ("timestamp", true) => Token::Timestamp,
        ("secret", true) => Token::Secret,
        ("crc32", true) => Token::Crc32,
        ("sorted-form", true) => Token::SortedForm,
        ("sha256", true) => Token::Sha256,
        ("item-sha256", true) => Token::ItemSha256,
        ("arrival", true) => Token::Arrival,
        ("index", true) => Token::Index,
        _ => return Err(format!("no value \"{text}\"")),
    })
}

fn filter(text: &str) -> Result<Filter, String> {
    let (name, argument) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Ok(match (name, argument.is_empty()) {
        ("dots", true) => Filter::Dots,
        ("lower", true) => Filter::Lower,
        ("after", false) => Filter::After(argument.to_owned()),
        ("before", false) => Filter::Before(argument.to_owned()),
        ("until", false) => Filter::Until(argument.to_owned()),
        ("camel", true) => Filter::Camel,
        ("last", false) => Filter::Last(argument.to_owned()),
        ("pad", false) => {
            let width = argument.parse().ok().filter(|width| *width <= 40);
            Filter::Pad(width.ok_or_else(|| format!("pad {argument}: not a width up to 40"))?)
        }
        ("hmac-hex", true) => Filter::HmacHex,
        _ => return Err(format!("no filter \"{text}\"")),
    })
}

impl Filter {
    fn apply<'a>(&self, value: Cow<'a, str>, scope: &Scope<'_>) -> Cow<'a, str> {
        match self {
            Self::Dots => Cow::Owned(value.replace(['/', ':'], ".")),
            Self::Lower => Cow::Owned(value.to_lowercase()),
            Self::After(mark) => match value.split_once(mark.as_str()) {
                Some((_, rest)) => Cow::Owned(rest.to_owned()),
                None => value,
            },
            Self::Before(mark) => match value.split_once(mark.as_str()) {
                Some((rest, _)) => Cow::Owned(rest.to_owned()),
                None => value,
            },
            Self::Last(mark) => match value.rsplit_once(mark.as_str()) {
                Some((_, rest)) => Cow::Owned(rest.to_owned()),
                None => value,
            },
            Self::Until(mark) => match value.rsplit_once(mark.as_str()) {
                Some((rest, _)) => Cow::Owned(rest.to_owned()),
                None => value,
            },
            Self::Camel => Cow::Owned(match value.char_indices().find(|(_, c)| c.is_ascii_uppercase()) {
                Some((at, first)) if at > 0 => {
                    let rest = value.get(at + 1..).unwrap_or_default();
                    format!("{}.{}{rest}", &value[..at], first.to_ascii_lowercase())
                }
                _ => value.to_string(),
            }),
            Self::Pad(width) if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                Cow::Owned(format!("{value:0>width$}"))
            }
            Self::Pad(_) => value,
            Self::HmacHex => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, scope.secret);
                Cow::Owned(hex(hmac::sign(&key, value.as_bytes()).as_ref()))
            }
        }
    }
}

/// Twilio's parameters: sorted by name, each name once with each of its different values, sorted.
fn sorted_form(body: &str) -> String {
    let mut pairs: Vec<_> = form::pairs(body).collect();
    pairs.sort();
    pairs.dedup();
    pairs.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]).collect()
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS[usize::from(value)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
