//! Reading one section of the file: every key that is asked for is a known key, every other one is a problem.
//!
//! All problems are gathered, so that one try tells everything. A value that stands under a key of a secret is never
//! repeated, and any other one only as the file has it, before variables were filled in.

use super::{error::Problem, expand::expand, nearest::nearest, units};
use headgate_webhook::IpNet;
use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Reads the secret file of a key (`sources.gh.secret`), or says why not.
pub type SecretFiles<'a> = dyn Fn(&str, &Path) -> Result<String, String> + 'a;

/// What all sections share: the file's text, the environment, the problems found so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    files: &'a SecretFiles<'a>,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        text: &'a str,
        env: &'a dyn Fn(&str) -> Option<String>,
        files: &'a SecretFiles<'a>,
    ) -> Self {
        Self { text, env, files, problems: RefCell::default() }
    }

    pub(super) fn problem(&self, at: Option<Range<usize>>, key: String, what: String, hint: Option<String>) {
        let line = at.map(|span| line_of(self.text, span.start));
        self.problems.borrow_mut().push(Problem { line, key, what, hint });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// The line, from 1, of a byte of the text.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A string that the file gives, before and after its variables were filled in.
struct Text<'t> {
    raw: &'t str,
    value: String,
}

/// One table of the file, or one that is not there.
pub(super) struct Section<'r, 't> {
    reader: &'r Reader<'r>,
    path: String,
    at: Option<Range<usize>>,
    table: Option<&'t DeTable<'t>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r, 't> Section<'r, 't> {
    pub(super) fn root(reader: &'r Reader<'r>, table: &'t DeTable<'t>) -> Self {
        Self { reader, path: String::new(), at: None, table: Some(table), asked: RefCell::default() }
    }

    /// Whether the file has this section.
    pub(super) fn is_given(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file gives the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the file gives a table under the key.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(|value| value.get_ref().is_table())
    }

    /// The full name of a key of this section.
    pub(super) fn name(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Reports a problem with a key of this section, or with the section where the key is empty or absent.
    pub(super) fn problem(&self, key: &str, what: impl Into<String>, hint: Option<String>) {
        let at = self
            .table
            .and_then(|table| table.get_key_value(key))
            .map(|(name, _)| name.span())
            .or_else(|| self.at.clone());
        self.reader.problem(at, self.name(key), what.into(), hint);
    }

    /// The value of a key, which is a known key from now on.
    fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &DeValue<'_>) {
        self.problem(key, format!("expected {expected}, found {}", kind(found)), None);
    }

    /// A section inside this one; empty where the file has none.
    pub(super) fn section(&self, key: &'static str) -> Section<'r, 't> {
        let value = self.get(key);
        self.inside(key, value)
    }

    fn inside(&self, key: &str, value: Option<&'t Spanned<DeValue<'t>>>) -> Section<'r, 't> {
        let table = value.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong_type(key, &format!("a section [{}]", self.name(key)), other);
                None
            }
        });
        let at = self
            .table
            .and_then(|table| table.get_key_value(key))
            .map(|(name, _)| name.span())
            .or_else(|| self.at.clone());
        Section { reader: self.reader, path: self.name(key), at, table, asked: RefCell::default() }
    }

    /// Every key of this section as a section of its own, in the order of the file.
    pub(super) fn sections(&self) -> Vec<(&'t str, Section<'r, 't>)> {
        let Some(table) = self.table else { return Vec::new() };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| (key.get_ref().as_ref(), self.inside(key.get_ref(), Some(value))))
            .collect()
    }

    /// The sections of an array `[[…]]`; none where the file has none.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'r, 't>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, &format!("sections [[{}]]", self.name(key)), value.get_ref());
            return Vec::new();
        };
        let inside = |value: &'t Spanned<DeValue<'t>>| match value.get_ref() {
            DeValue::Table(table) => Some(Section {
                reader: self.reader,
                path: self.name(key),
                at: Some(value.span()),
                table: Some(table),
                asked: RefCell::default(),
            }),
            other => {
                self.wrong_type(key, &format!("a section [[{}]]", self.name(key)), other);
                None
            }
        };
        array.iter().filter_map(inside).collect()
    }

    /// Every key of this section with its secret.
    pub(super) fn secret_texts(&self) -> Vec<(&'t str, String)> {
        let Some(table) = self.table else { return Vec::new() };
        table
            .iter()
            .filter_map(|(key, value)| {
                let key = key.get_ref().as_ref();
                Some((key, self.secret_value(key, value.get_ref())?))
            })
            .collect()
    }

    /// Every key of this section with its string.
    pub(super) fn texts(&self) -> Vec<(&'t str, String)> {
        let Some(table) = self.table else { return Vec::new() };
        table
            .iter()
            .filter_map(|(key, value)| {
                let key = key.get_ref().as_ref();
                Some((key, self.expanded(key, value.get_ref(), "a string")?.value))
            })
            .collect()
    }

    fn expanded(&self, key: &str, value: &'t DeValue<'t>, expected: &str) -> Option<Text<'t>> {
        let DeValue::String(raw) = value else {
            self.wrong_type(key, expected, value);
            return None;
        };
        match expand(raw, self.reader.env) {
            Ok(value) => Some(Text { raw, value }),
            Err(what) => {
                let hint = what
                    .ends_with("is not set")
                    .then(|| "set it, or give a default: ${NAME:-default}".to_owned());
                self.problem(key, what, hint);
                None
            }
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        Some(self.expanded(key, self.get(key)?.get_ref(), "a string")?.value)
    }

    /// A string, and whether it is as the file has it: no variable has brought any part of it.
    pub(super) fn text_with_origin(&self, key: &'static str) -> Option<(String, bool)> {
        let text = self.expanded(key, self.get(key)?.get_ref(), "a string")?;
        let as_written = text.raw == text.value;
        Some((text.value, as_written))
    }

    /// A string that is the path of a file.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A string, or the file that holds it.
    pub(super) fn secret(&self, key: &'static str) -> Option<String> {
        self.secret_value(key, self.get(key)?.get_ref())
    }

    fn secret_value(&self, key: &str, value: &'t DeValue<'t>) -> Option<String> {
        const EXPECTED: &str = "a string or { file = \"…\" }";
        let DeValue::Table(table) = value else {
            return Some(self.expanded(key, value, EXPECTED)?.value);
        };
        let inside = Section {
            reader: self.reader,
            path: self.name(key),
            at: self.table.and_then(|table| table.get_key_value(key)).map(|(name, _)| name.span()),
            table: Some(table),
            asked: RefCell::default(),
        };
        let file = inside.path("file");
        inside.finish();
        let Some(file) = file else {
            if table.is_empty() {
                self.problem(key, format!("expected {EXPECTED}"), None);
            }
            return None;
        };
        match (self.reader.files)(&self.name(key), &file) {
            Ok(secret) => Some(secret),
            Err(what) => {
                let hint = "put the secret there; `headgate webhook register` does where it can, and says what belongs there where not";
                self.problem(key, format!("the file {what}"), (key == "secret").then(|| hint.to_owned()));
                None
            }
        }
    }

    /// One secret, or an array of them.
    pub(super) fn secrets(&self, key: &'static str) -> Option<Vec<String>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(array) => {
                array.iter().map(|value| self.secret_value(key, value.get_ref())).collect()
            }
            value => Some(vec![self.secret_value(key, value)?]),
        }
    }

    /// An array of strings.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(array) => array
                .iter()
                .map(|value| Some(self.expanded(key, value.get_ref(), "an array of strings")?.value))
                .collect(),
            other => {
                self.wrong_type(key, "an array of strings", other);
                None
            }
        }
    }

    /// true or false.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        match self.get(key)?.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            value => self.parsed(key, value, "true or false", |text| text.parse().ok(), Variables::Needed),
        }
    }

    /// A whole number within a range.
    pub(super) fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = match self.get(key)?.get_ref() {
            DeValue::Integer(integer) => {
                let number = u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok();
                if number.is_none_or(|number| !range.contains(&number)) {
                    self.problem(key, format!("expected {expected}"), None);
                    return None;
                }
                number
            }
            value => self.parsed(key, value, &expected, |text| text.parse().ok(), Variables::Needed),
        };
        value.filter(|number| {
            let fits = range.contains(number);
            if !fits {
                self.problem(key, format!("expected {expected}"), None);
            }
            fits
        })
    }

    /// A duration with its unit.
    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        const EXPECTED: &str = "a duration like \"500ms\", \"30s\", \"5m\", \"24h\" or \"7d\"";
        self.parsed(key, self.get(key)?.get_ref(), EXPECTED, units::duration, Variables::Allowed)
    }

    /// A duration, or `off`.
    pub(super) fn duration_or_off(&self, key: &'static str) -> Option<Option<Duration>> {
        const EXPECTED: &str = "\"off\" or a duration like \"30s\"";
        let parse = |text: &str| if text == "off" { Some(None) } else { units::duration(text).map(Some) };
        self.parsed(key, self.get(key)?.get_ref(), EXPECTED, parse, Variables::Allowed)
    }

    /// A size in bytes, with or without a unit.
    pub(super) fn size(&self, key: &'static str, least: u64) -> Option<u64> {
        let expected = "a size like \"64MiB\", \"1GB\" or a number of bytes";
        let size = match self.get(key)?.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => {
                let size = units::size(&integer.as_str().replace('_', ""));
                if size.is_none() {
                    self.problem(key, format!("expected {expected}"), None);
                }
                size
            }
            value => self.parsed(key, value, expected, units::size, Variables::Allowed),
        };
        size.filter(|size| {
            if *size < least {
                self.problem(key, format!("must be at least {least} bytes"), None);
            }
            *size >= least
        })
    }

    /// An array of networks (`10.0.0.0/8`) and addresses; empty where there is none.
    pub(super) fn networks(&self, key: &'static str) -> Vec<IpNet> {
        let parse = |text: &String| {
            text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        let texts = self.strings(key).unwrap_or_default();
        let networks: Vec<IpNet> = texts.iter().filter_map(parse).collect();
        if networks.len() < texts.len() {
            let hint = format!("{key} = [\"10.0.0.0/8\", \"2001:db8::1\"]");
            self.problem(key, "expected networks or addresses", Some(hint));
        }
        networks
    }

    /// An address to listen on. Names would be looked up, and mean something else tomorrow, save for `localhost`.
    pub(super) fn address(&self, key: &'static str) -> Option<SocketAddr> {
        const EXPECTED: &str = "an address like \"127.0.0.1:8080\"";
        let parse = |text: &str| match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        self.parsed(key, self.get(key)?.get_ref(), EXPECTED, parse, Variables::Allowed)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let text = self.expanded(key, self.get(key)?.get_ref(), &words)?;
        let found = choices.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let hint = nearest(&text.value, choices.iter().map(|(word, _)| *word));
            self.problem(key, format!("expected {words}, found \"{}\"", text.raw), hint.map(did_you_mean));
        }
        found
    }

    fn parsed<T>(
        &self,
        key: &'static str,
        value: &'t DeValue<'t>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        variables: Variables,
    ) -> Option<T> {
        let text = self.expanded(key, value, expected)?;
        // A number or a truth value is a string only where a variable brings it.
        if matches!(variables, Variables::Needed) && !text.raw.contains("${") {
            self.wrong_type(key, expected, value);
            return None;
        }
        let parsed = parse(text.value.trim());
        if parsed.is_none() {
            self.problem(key, format!("expected {expected}, found \"{}\"", text.raw), None);
        }
        parsed
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.into_inner();
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if !asked.contains(&name) {
                let hint = match nearest(name, asked.iter().copied()) {
                    Some(near) => did_you_mean(near),
                    None => format!("known here: {}", asked.join(", ")),
                };
                let full =
                    if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
                self.reader.problem(Some(key.span()), full, "unknown key".to_owned(), Some(hint));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Variables {
    Allowed,
    Needed,
}

pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean \"{name}\"?")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a section",
    }
}

/// Largest secret file that is read.
const SECRET_LIMIT: u64 = 64 << 10;

/// The text of a secret file without its trailing newline.
///
/// # Errors
/// It cannot be read, or is too large to be a secret.
pub fn read_secret(file: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|file| file.take(SECRET_LIMIT + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if read as u64 > SECRET_LIMIT {
        return Err("is too large for a secret".to_owned());
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
